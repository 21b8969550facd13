/*
 * A host that loads the library as it loads plugins: late, more than once, beside another ONNX Runtime, and that closes
 * it and exits at bad moments.
 *
 *     plugin LIBRARY BUNDLE [OTHER_ONNXRUNTIME]
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <motionclone.h>

/* The beginning of ONNX Runtime's C interface. */
struct base {
    const void *(*get_api)(uint32_t version);
    const char *(*version)(void);
};

static void check(int good, const char *what)
{
    if (!good) {
        fprintf(stderr, "%s\n", what);
        exit(1);
    }
}

/* The functions that are used here. */
static struct {
    __typeof__(&motionclone_last_error) last_error;
    __typeof__(&motionclone_engine_options_init) engine_options_init;
    __typeof__(&motionclone_engine_create) engine_create;
    __typeof__(&motionclone_engine_destroy) engine_destroy;
    __typeof__(&motionclone_settings_init) settings_init;
    __typeof__(&motionclone_frames_init) frames_init;
    __typeof__(&motionclone_job_clone) job_clone;
    __typeof__(&motionclone_job_wait) job_wait;
    __typeof__(&motionclone_shutdown) shutdown;
} f;

static void *load(const char *library)
{
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    check(handle != NULL, "the library does not load");
#define FIND(name) check((*(void **)&f.name = dlsym(handle, "motionclone_" #name)) != NULL, "no " #name)
    FIND(last_error);
    FIND(engine_options_init);
    FIND(engine_create);
    FIND(engine_destroy);
    FIND(settings_init);
    FIND(frames_init);
    FIND(job_clone);
    FIND(job_wait);
    FIND(shutdown);
    return handle;
}

static void ok(motionclone_status status)
{
    if (status != MOTIONCLONE_STATUS_OK) {
        fprintf(stderr, "status %u: %s\n", (unsigned)status, f.last_error());
        exit(1);
    }
}

static motionclone_engine create(const char *bundle)
{
    motionclone_engine_options options;
    motionclone_engine engine = 0;
    ok(f.engine_options_init(&options, sizeof options));
    options.device_kind = MOTIONCLONE_DEVICE_KIND_CPU;
    ok(f.engine_create(bundle, &options, &engine));
    return engine;
}

static motionclone_job start(motionclone_engine engine, uint32_t steps)
{
    static unsigned char pixels[4 * 64 * 64 * 3];
    motionclone_settings settings;
    motionclone_frames frames;
    motionclone_job job = 0;
    for (size_t i = 0; i < sizeof pixels; i++)
        pixels[i] = (unsigned char)(i * 31 >> 4);
    ok(f.settings_init(&settings, sizeof settings, engine));
    settings.width = settings.height = 64;
    settings.frames = 4;
    settings.steps = steps;
    settings.guidance_steps = settings.warm_up = settings.cool_up = 0;
    ok(f.frames_init(&frames, sizeof frames));
    frames.data = pixels;
    frames.count = 4;
    frames.width = frames.height = 64;
    ok(f.job_clone(engine, &frames, &settings, &job));
    return job;
}

int main(int argc, char **argv)
{
    struct base *other = NULL;
    motionclone_engine engine;
    motionclone_job job;
    void *library;

    check(argc == 3 || argc == 4, "usage: plugin LIBRARY BUNDLE [OTHER_ONNXRUNTIME]");
    if (argc == 4) {
        const struct base *(*get)(void);
        void *handle = dlopen(argv[3], RTLD_NOW | RTLD_GLOBAL);
        check(handle != NULL, "the other ONNX Runtime does not load");
        *(void **)&get = dlsym(handle, "OrtGetApiBase");
        check(get != NULL, "the other ONNX Runtime has no OrtGetApiBase");
        other = (struct base *)get();
        printf("another ONNX Runtime is here: %s\n", other->version());
    }

    /* Load, use, close; twice. */
    for (int round = 0; round < 2; round++) {
        library = load(argv[1]);
        engine = create(argv[2]);
        ok(f.job_wait(start(engine, 1), -1));
        ok(f.engine_destroy(&engine));
        ok(f.shutdown());
        check(dlclose(library) == 0, "dlclose fails");
    }

    /* Close in the middle of a job: the library stays, and so does the job. */
    library = load(argv[1]);
    engine = create(argv[2]);
    job = start(engine, 2);
    check(dlclose(library) == 0, "dlclose fails");
    library = load(argv[1]);
    ok(f.job_wait(job, -1));

    if (other != NULL) {
        const void *api = other->get_api(1);
        check(api != NULL && strlen(other->version()) > 0, "the other ONNX Runtime was disturbed");
    }

    /* Exit in the middle of a job. */
    start(engine, 1000);
    check(f.job_wait(start(engine, 1000), 300) == MOTIONCLONE_STATUS_TIMEOUT, "a thousand steps take longer");
    printf("done\n");
    return 0;
}
