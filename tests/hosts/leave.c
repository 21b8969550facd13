/*
 * A host that exits while its first or second job works, with everything left alone or destroyed before. It ends with
 * status 7.
 *
 *     leave BUNDLE MILLISECONDS first|second left|destroyed
 */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <motionclone.h>

static void ok(motionclone_status status)
{
    if (status != MOTIONCLONE_STATUS_OK) {
        fprintf(stderr, "%s: %s\n", motionclone_status_text(status), motionclone_last_error());
        exit(1);
    }
}

static motionclone_job start(motionclone_engine engine, uint32_t steps)
{
    static unsigned char pixels[64 * 64 * 3];
    motionclone_settings settings;
    motionclone_frames frames;
    motionclone_job job = 0;

    ok(motionclone_settings_init(&settings, sizeof settings, engine));
    settings.width = settings.height = 64;
    settings.frames = 4;
    settings.steps = steps;
    settings.guidance_steps = steps / 2;
    settings.warm_up = settings.cool_up = 0;
    ok(motionclone_frames_init(&frames, sizeof frames));
    frames.data = pixels;
    frames.count = 1;
    frames.width = frames.height = 64;
    ok(motionclone_job_clone(engine, &frames, &settings, &job));
    return job;
}

int main(int argc, char **argv)
{
    motionclone_engine_options options;
    motionclone_engine engine = 0;
    motionclone_job job;
    struct timespec pause;
    long milliseconds;

    if (argc != 5)
        return 2;
    milliseconds = strtol(argv[2], NULL, 10);
    pause.tv_sec = milliseconds / 1000;
    pause.tv_nsec = milliseconds % 1000 * 1000000;
    ok(motionclone_engine_options_init(&options, sizeof options));
    options.device_kind = MOTIONCLONE_DEVICE_KIND_CPU;
    ok(motionclone_engine_create(argv[1], &options, &engine));
    if (strcmp(argv[3], "second") == 0) {
        job = start(engine, 1);
        ok(motionclone_job_wait(job, -1));
        ok(motionclone_job_destroy(&job));
    }
    job = start(engine, 1000);
    nanosleep(&pause, NULL);
    if (strcmp(argv[4], "destroyed") == 0) {
        ok(motionclone_job_destroy(&job));
        ok(motionclone_engine_destroy(&engine));
    }
    return 7;
}
