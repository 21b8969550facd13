/*
 * A host that forks while its engine works. The child cannot use the library, destroys what it has of it, and exits.
 *
 *     fork BUNDLE
 */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <motionclone.h>

static void check(int good, const char *what)
{
    if (!good) {
        fprintf(stderr, "%s: %s\n", what, motionclone_last_error());
        _exit(1);
    }
}

static motionclone_status start(motionclone_engine engine, uint32_t steps, motionclone_job *job)
{
    static unsigned char pixels[64 * 64 * 3];
    motionclone_settings settings;
    motionclone_frames frames;
    motionclone_status status = motionclone_settings_init(&settings, sizeof settings, engine);

    if (status != MOTIONCLONE_STATUS_OK)
        return status;
    settings.width = settings.height = 64;
    settings.frames = 4;
    settings.steps = steps;
    settings.guidance_steps = settings.warm_up = settings.cool_up = 0;
    motionclone_frames_init(&frames, sizeof frames);
    frames.data = pixels;
    frames.count = 1;
    frames.width = frames.height = 64;
    return motionclone_job_clone(engine, &frames, &settings, job);
}

int main(int argc, char **argv)
{
    motionclone_engine_options options;
    motionclone_engine engine = 0, other = 0;
    motionclone_job job = 0, next = 0;
    motionclone_progress progress;
    pid_t child;
    int round, state;

    if (argc != 2)
        return 2;
    check(!motionclone_engine_options_init(&options, sizeof options), "options");
    options.device_kind = MOTIONCLONE_DEVICE_KIND_CPU;
    check(!motionclone_engine_create(argv[1], &options, &engine), "an engine");
    check(!start(engine, 1000, &job), "a job");
    check(motionclone_job_wait(job, 300) == MOTIONCLONE_STATUS_TIMEOUT, "a thousand steps take longer");
    for (round = 0; round < 8; round++) {
        child = fork();
        if (child == 0) {
            alarm(10);
            check(start(engine, 1, &next) == MOTIONCLONE_STATUS_WRONG_PROCESS, "a job in the child");
            check(strstr(motionclone_last_error(), "forked") != NULL, "the reason");
            check(motionclone_job_wait(job, -1) == MOTIONCLONE_STATUS_WRONG_PROCESS, "waiting in the child");
            check(motionclone_engine_create(argv[1], &options, &other) == MOTIONCLONE_STATUS_WRONG_PROCESS,
                  "an engine in the child");
            check(!motionclone_progress_init(&progress, sizeof progress), "a structure needs no engine");
            if (round % 2 == 0) {
                check(!motionclone_job_destroy(&job) && job == 0, "destroying the job in the child");
                check(!motionclone_engine_destroy(&engine) && engine == 0, "destroying the engine in the child");
                check(!motionclone_shutdown(), "shutting down in the child");
            }
            exit(7);
        }
        check(waitpid(child, &state, 0) == child && WIFEXITED(state) && WEXITSTATUS(state) == 7, "the child's exit");
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    }
    /* The parent goes on. */
    check(!motionclone_job_cancel(job), "cancelling");
    check(!start(engine, 1, &next) && !motionclone_job_wait(next, -1), "the next job");
    return 0;
}
