/*
 * A host that has little memory left asks for a clip that does not fit into it, and goes on.
 *
 *     memory BUNDLE SIDE
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

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
    static unsigned char pixels[2 * 16 * 16 * 3];
    const struct rlimit limit = { 1500ul << 20, RLIM_INFINITY };
    motionclone_engine_options options;
    motionclone_settings settings;
    motionclone_frames frames;
    motionclone_engine engine = 0;
    motionclone_job job = 0;
    motionclone_status status;

    check(argc == 3, "usage");
    check(!motionclone_engine_options_init(&options, sizeof options), "options");
    options.device_kind = MOTIONCLONE_DEVICE_KIND_CPU;
    options.threads = 1;
    check(!motionclone_engine_create(argv[1], &options, &engine), "an engine");
    check(setrlimit(RLIMIT_AS, &limit) == 0, "a limit");
    check(!motionclone_frames_init(&frames, sizeof frames), "frames");
    frames.data = pixels;
    frames.count = 2;
    frames.width = frames.height = 16;
    check(!motionclone_settings_init(&settings, sizeof settings, engine), "settings");
    settings.width = settings.height = (uint32_t)atoi(argv[2]);
    settings.frames = 32;
    settings.steps = 1;
    settings.guidance_steps = settings.warm_up = settings.cool_up = 0;
    status = motionclone_job_clone(engine, &frames, &settings, &job);
    if (status == MOTIONCLONE_STATUS_OK)
        status = motionclone_job_wait(job, -1);
    check(status == MOTIONCLONE_STATUS_FAILED, "it does not fit");
    printf("%s\n", motionclone_last_error());
    settings.width = settings.height = 64;
    settings.frames = 4;
    check(!motionclone_job_clone(engine, &frames, &settings, &job), "a small job");
    check(!motionclone_job_wait(job, -1), "the small job");
    return 0;
}
