/*
 * A host whose processor traps divisions by zero, rounds upwards and takes small numbers for zero while it calls the
 * library. It gets the clip that any other host gets, and its environment back.
 *
 *     floating_point BUNDLE OUT odd|plain
 */
#define _GNU_SOURCE
#include <fenv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__SSE2__)
#include <pmmintrin.h>
#endif

#include <motionclone.h>

static void check(int good, const char *what)
{
    if (!good) {
        fprintf(stderr, "%s: %s\n", what, motionclone_last_error());
        exit(1);
    }
}

int main(int argc, char **argv)
{
    static unsigned char half[4 * 96 * 80 * 8], clip[4 * 64 * 64 * 3];
    motionclone_engine_options options;
    motionclone_settings settings;
    motionclone_frames frames;
    motionclone_engine engine = 0;
    motionclone_job job = 0;
    size_t index;
    FILE *file;
    int odd;

    check(argc == 4, "usage");
    odd = strcmp(argv[3], "odd") == 0;
    if (odd) {
        feenableexcept(FE_DIVBYZERO | FE_INVALID | FE_OVERFLOW);
        fesetround(FE_UPWARD);
#if defined(__SSE2__)
        _MM_SET_FLUSH_ZERO_MODE(_MM_FLUSH_ZERO_ON);
        _MM_SET_DENORMALS_ZERO_MODE(_MM_DENORMALS_ZERO_ON);
#endif
    }
    check(!motionclone_engine_options_init(&options, sizeof options), "options");
    options.device_kind = MOTIONCLONE_DEVICE_KIND_CPU;
    check(!motionclone_engine_create(argv[1], &options, &engine), "an engine");
    check(!motionclone_settings_init(&settings, sizeof settings, engine), "settings");
    settings.width = settings.height = 64;
    settings.frames = 4;
    settings.steps = 2;
    settings.guidance_steps = 1;
    settings.warm_up = settings.cool_up = 0;
    /* Half precision and linear light of another size are computed with on this thread; some numbers are none. */
    for (index = 0; index < sizeof half; index++)
        half[index] = (unsigned char)(index * 2654435761u >> 11);
    check(!motionclone_frames_init(&frames, sizeof frames), "frames");
    frames.data = half;
    frames.count = 4;
    frames.width = 96;
    frames.height = 80;
    frames.channels = MOTIONCLONE_CHANNELS_RGBA;
    frames.sample = MOTIONCLONE_SAMPLE_F16;
    frames.alpha = MOTIONCLONE_ALPHA_PREMULTIPLIED;
    frames.transfer = MOTIONCLONE_TRANSFER_LINEAR;
    check(!motionclone_job_clone(engine, &frames, &settings, &job), "a job");
    check(!motionclone_job_wait(job, -1), "the job");
    check(!motionclone_frames_init(&frames, sizeof frames), "frames");
    frames.data = clip;
    frames.count = 4;
    frames.width = frames.height = 64;
    check(!motionclone_job_frames(job, &frames), "the clip");
    if (odd) {
        check(fegetexcept() == (FE_DIVBYZERO | FE_INVALID | FE_OVERFLOW), "the traps are set as before");
        check(fegetround() == FE_UPWARD, "rounding is as before");
#if defined(__SSE2__)
        check(_MM_GET_FLUSH_ZERO_MODE() == _MM_FLUSH_ZERO_ON, "small numbers are as before");
#endif
    }
    file = fopen(argv[2], "wb");
    check(file != NULL && fwrite(clip, 1, sizeof clip, file) == sizeof clip && fclose(file) == 0, "the file");
    return 0;
}
