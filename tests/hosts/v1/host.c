/*
 * A host that was compiled with the first version of the header, which lies beside this file and is not changed any
 * more. It uses every structure, alone and in arrays, with bytes behind each that the library must leave alone.
 *
 *     host BUNDLE OUT
 *
 * OUT gets the frames of a clip of 4 frames of 64x64.
 */
#include "motionclone.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                                              \
    do {                                                                                                              \
        if (!(condition)) {                                                                                           \
            fprintf(stderr, "line %d: %s: %s\n", __LINE__, #condition, motionclone_last_error());                     \
            exit(1);                                                                                                  \
        }                                                                                                             \
    } while (0)
#define OK(call) CHECK((call) == MOTIONCLONE_STATUS_OK)

static const unsigned char guard[8] = { 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a };

/* A structure, and what lies behind it in the host's memory. */
#define GUARDED(type, name)                                                                                           \
    struct {                                                                                                          \
        type own;                                                                                                     \
        unsigned char behind[8];                                                                                      \
    } name;                                                                                                           \
    memcpy(name.behind, guard, sizeof guard)
#define INTACT(name) CHECK(memcmp(name.behind, guard, sizeof guard) == 0 && name.own.struct_size == sizeof name.own)

static unsigned char pixels[4 * 64 * 64 * 3], clip[4 * 64 * 64 * 3];

int main(int argc, char **argv)
{
    motionclone_engine engine = 0;
    motionclone_motion motion = 0;
    motionclone_job job = 0;
    size_t count = 0, index;
    FILE *file;
    GUARDED(motionclone_engine_options, options);
    GUARDED(motionclone_device, device);
    GUARDED(motionclone_frames, frames);
    GUARDED(motionclone_settings, settings);
    GUARDED(motionclone_progress, progress);
    GUARDED(motionclone_motion_info, info);
    struct {
        motionclone_device own[3];
        unsigned char behind[8];
    } devices;
    motionclone_image images[2];
    motionclone_frames sketch;

    CHECK(argc == 3);
    CHECK(motionclone_abi_version() == MOTIONCLONE_ABI_VERSION);
    OK(motionclone_engine_options_init(&options.own, sizeof options.own));
    INTACT(options);
    options.own.device_kind = MOTIONCLONE_DEVICE_KIND_CPU;
    OK(motionclone_engine_create(argv[1], &options.own, &engine));
    OK(motionclone_device_init(&device.own, sizeof device.own));
    OK(motionclone_engine_device(engine, &device.own));
    INTACT(device);
    CHECK(strcmp(device.own.name, "CPU") == 0);
    memcpy(devices.behind, guard, sizeof guard);
    for (index = 0; index < 3; index++)
        OK(motionclone_device_init(&devices.own[index], sizeof devices.own[index]));
    OK(motionclone_devices(NULL, devices.own, 3, &count));
    CHECK(count >= 1 && strcmp(devices.own[0].name, "CPU") == 0 && devices.own[2].struct_size == sizeof device.own);
    CHECK(memcmp(devices.behind, guard, sizeof guard) == 0);

    for (index = 0; index < sizeof pixels; index++)
        pixels[index] = (unsigned char)(index * 7 % 251);
    OK(motionclone_settings_init(&settings.own, sizeof settings.own, engine));
    INTACT(settings);
    settings.own.width = settings.own.height = 64;
    settings.own.frames = 4;
    settings.own.steps = 2;
    settings.own.guidance_steps = 1;
    settings.own.warm_up = settings.own.cool_up = 0;
    settings.own.prompt = "ground";
    OK(motionclone_frames_init(&sketch, sizeof sketch));
    sketch.data = pixels;
    sketch.count = 1;
    sketch.width = sketch.height = 64;
    for (index = 0; index < 2; index++) {
        OK(motionclone_image_init(&images[index], sizeof images[index]));
        images[index].pixels = &sketch;
        images[index].frame = (uint32_t)(3 * index);
    }
    settings.own.images = images;
    settings.own.image_count = 2;
    settings.own.image_kind = MOTIONCLONE_IMAGE_KIND_SKETCH;
    OK(motionclone_frames_init(&frames.own, sizeof frames.own));
    INTACT(frames);
    frames.own.data = pixels;
    frames.own.count = 4;
    frames.own.width = frames.own.height = 64;
    OK(motionclone_job_clone(engine, &frames.own, &settings.own, &job));
    OK(motionclone_job_wait(job, -1));
    OK(motionclone_progress_init(&progress.own, sizeof progress.own));
    OK(motionclone_job_progress(job, &progress.own));
    INTACT(progress);
    CHECK(progress.own.state == MOTIONCLONE_JOB_STATE_DONE && progress.own.stage == MOTIONCLONE_JOB_STAGE_DECODE);

    OK(motionclone_job_motion(job, &motion));
    OK(motionclone_motion_info_init(&info.own, sizeof info.own));
    OK(motionclone_motion_info_get(motion, &info.own));
    INTACT(info);
    CHECK(info.own.width == 64 && info.own.frames == 4 && info.own.image_count == 2 && info.own.seed == settings.own.seed);

    frames.own.data = NULL;
    frames.own.count = frames.own.width = frames.own.height = 0;
    OK(motionclone_job_frames(job, &frames.own));
    INTACT(frames);
    CHECK(frames.own.count == 4 && frames.own.width == 64 && frames.own.height == 64);
    frames.own.data = clip;
    OK(motionclone_job_frames(job, &frames.own));
    file = fopen(argv[2], "wb");
    CHECK(file != NULL && fwrite(clip, 1, sizeof clip, file) == sizeof clip && fclose(file) == 0);
    OK(motionclone_motion_destroy(&motion));
    OK(motionclone_job_destroy(&job));
    OK(motionclone_engine_destroy(&engine));
    return 0;
}
