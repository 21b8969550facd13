/*
 * A host that exits while its first job loads networks.
 *
 *     leave BUNDLE MILLISECONDS
 */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <motionclone.h>

static void ok(motionclone_status status)
{
    if (status != MOTIONCLONE_STATUS_OK) {
        fprintf(stderr, "%s: %s\n", motionclone_status_text(status), motionclone_last_error());
        exit(1);
    }
}

int main(int argc, char **argv)
{
    static unsigned char pixels[64 * 64 * 3];
    motionclone_engine_options options;
    motionclone_settings settings;
    motionclone_frames frames;
    motionclone_engine engine;
    motionclone_job job;
    struct timespec pause;
    long milliseconds;

    if (argc != 3)
        return 2;
    milliseconds = strtol(argv[2], NULL, 10);
    pause.tv_sec = milliseconds / 1000;
    pause.tv_nsec = milliseconds % 1000 * 1000000;
    ok(motionclone_engine_options_init(&options, sizeof options));
    options.device_kind = MOTIONCLONE_DEVICE_KIND_CPU;
    ok(motionclone_engine_create(argv[1], &options, &engine));
    ok(motionclone_settings_init(&settings, sizeof settings, engine));
    settings.width = settings.height = 64;
    ok(motionclone_frames_init(&frames, sizeof frames));
    frames.data = pixels;
    frames.count = 1;
    frames.width = frames.height = 64;
    ok(motionclone_job_clone(engine, &frames, &settings, &job));
    nanosleep(&pause, NULL);
    return 0;
}
