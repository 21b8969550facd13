/*
 * Clones the motion of a clip that is drawn here: frames in, progress, frames out.
 *
 *     clone BUNDLE OUT [WIDTH HEIGHT FRAMES STEPS]
 *
 * OUT gets the new clip's frames, one after another, as 8-bit RGB without a header. Ctrl-C cancels.
 */
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include <motionclone.h>

static volatile sig_atomic_t interrupted = 0;

static void interrupt(int number)
{
    (void)number;
    interrupted = 1;
}

static void log_message(uint32_t level, const char *message, void *user_data)
{
    static const char *const names[] = { "info", "warning", "error" };
    fprintf((FILE *)user_data, "%s: %s\n", level < 3 ? names[level] : "?", message);
}

/* Prints what went wrong, if anything did. */
static int failed(motionclone_status status, const char *what)
{
    if (status == MOTIONCLONE_STATUS_OK)
        return 0;
    fprintf(stderr, "%s: %s: %s\n", what, motionclone_status_text(status), motionclone_last_error());
    return 1;
}

/* Soft stripes that move to the right. */
static unsigned char *draw(uint32_t width, uint32_t height, uint32_t count)
{
    unsigned char *pixels = malloc((size_t)width * height * count * 3), *pixel = pixels;
    if (pixels == NULL)
        return NULL;
    for (uint32_t t = 0; t < count; t++)
        for (uint32_t y = 0; y < height; y++)
            for (uint32_t x = 0; x < width; x++) {
                double u = (double)x - 3.0 * t, v = (double)y;
                *pixel++ = (unsigned char)(127.5 + 100.0 * sin(u / 7.0));
                *pixel++ = (unsigned char)(127.5 + 100.0 * sin(v / 5.0 + u / 11.0));
                *pixel++ = (unsigned char)(127.5 + 100.0 * sin((u + v) / 9.0));
            }
    return pixels;
}

/* Shows how the job stands until it has ended; Ctrl-C cancels it. */
static motionclone_status watch(motionclone_job job)
{
    static const char *const stages[] = { "load", "encode", "extract", "denoise", "decode" };
    motionclone_progress progress;
    motionclone_status status = motionclone_progress_init(&progress, sizeof progress);
    uint32_t stage = UINT32_MAX, step = UINT32_MAX;

    if (status != MOTIONCLONE_STATUS_OK)
        return status;
    while ((status = motionclone_job_wait(job, 20)) == MOTIONCLONE_STATUS_TIMEOUT) {
        if (interrupted)
            motionclone_job_cancel(job);
        status = motionclone_job_progress(job, &progress);
        if (status != MOTIONCLONE_STATUS_OK)
            return status;
        if (progress.stage == stage && progress.step == step)
            continue;
        stage = progress.stage;
        step = progress.step;
        printf("%-8s %" PRIu32 "/%" PRIu32, stage < 5 ? stages[stage] : "?", step, progress.total);
        if (!isnan(progress.loss))
            printf("  loss %.4f", progress.loss);
        if (!isnan(progress.seconds_left))
            printf("  %.0f s left", progress.seconds_left);
        putchar('\n');
    }
    return status;
}

/* Takes the new clip from the job and writes it. */
static int write_clip(motionclone_job job, const char *path)
{
    motionclone_frames frames;
    unsigned char *pixels;
    size_t size, written;
    FILE *file;
    int bad;

    /* Without memory, the library tells the size. */
    if (failed(motionclone_frames_init(&frames, sizeof frames), "frames"))
        return 1;
    if (failed(motionclone_job_frames(job, &frames), "size of the clip"))
        return 1;
    size = (size_t)frames.count * frames.width * frames.height * 3;
    pixels = malloc(size);
    if (pixels == NULL) {
        fprintf(stderr, "no memory for %zu bytes\n", size);
        return 1;
    }
    frames.data = pixels;
    bad = failed(motionclone_job_frames(job, &frames), "the clip");
    if (!bad) {
        file = fopen(path, "wb");
        written = file != NULL ? fwrite(pixels, 1, size, file) : 0;
        bad = file == NULL || fclose(file) != 0 || written != size;
        if (bad)
            perror(path);
        else
            printf("%s: %" PRIu32 " frames of %" PRIu32 "x%" PRIu32 "\n", path, frames.count, frames.width,
                   frames.height);
    }
    free(pixels);
    return bad;
}

int main(int argc, char **argv)
{
    motionclone_engine engine = 0;
    motionclone_job job = 0;
    motionclone_engine_options options;
    motionclone_settings settings;
    motionclone_frames reference;
    unsigned char *pixels = NULL;
    int result = EXIT_FAILURE;

    if (argc != 3 && argc != 7) {
        fprintf(stderr, "usage: %s BUNDLE OUT [WIDTH HEIGHT FRAMES STEPS]\n", argv[0]);
        return 2;
    }
    if (motionclone_abi_version() != MOTIONCLONE_ABI_VERSION) {
        fprintf(stderr, "this program was made for another version than %s\n", motionclone_version());
        return EXIT_FAILURE;
    }
    if (failed(motionclone_engine_options_init(&options, sizeof options), "options"))
        return EXIT_FAILURE;
    options.device_kind = MOTIONCLONE_DEVICE_KIND_CPU;
    options.log = log_message;
    options.log_user_data = stderr;
    if (failed(motionclone_engine_create(argv[1], &options, &engine), "engine"))
        return EXIT_FAILURE;
    if (failed(motionclone_settings_init(&settings, sizeof settings, engine), "settings"))
        goto end;
    settings.prompt = "Relics on the seabed";
    if (argc == 7) {
        settings.width = (uint32_t)strtoul(argv[3], NULL, 10);
        settings.height = (uint32_t)strtoul(argv[4], NULL, 10);
        settings.frames = (uint32_t)strtoul(argv[5], NULL, 10);
        settings.steps = (uint32_t)strtoul(argv[6], NULL, 10);
        settings.guidance_steps = settings.steps / 2;
        settings.warm_up = settings.cool_up = settings.steps / 10;
    }

    if (failed(motionclone_frames_init(&reference, sizeof reference), "reference"))
        goto end;
    reference.count = 12;
    reference.width = 96;
    reference.height = 64;
    reference.data = pixels = draw(reference.width, reference.height, reference.count);
    if (failed(motionclone_job_clone(engine, &reference, &settings, &job), "job"))
        goto end;
    free(pixels); /* The library has copied what it needs. */
    pixels = NULL;

    signal(SIGINT, interrupt);
    if (!failed(watch(job), "the clone") && !write_clip(job, argv[2]))
        result = EXIT_SUCCESS;

end:
    free(pixels);
    failed(motionclone_job_destroy(&job), "job");
    failed(motionclone_engine_destroy(&engine), "engine");
    return result;
}
