/*
 * motionclone: a new clip that moves like the one you give it.
 *
 * This file is made from src/capi/mod.rs by `cargo xtask header`; do not edit it.
 *
 * In short: make an engine from a bundle, get settings from it, start a job with a clip, look at its progress, take its
 * frames, destroy both. examples/c/clone.c does that.
 *
 * Errors. Functions return a motionclone_status. MOTIONCLONE_STATUS_OK is 0; after any other, motionclone_last_error
 * has a sentence for people. A call that fails changes nothing, unless its text says so. Every function may also return
 * MOTIONCLONE_STATUS_INTERNAL, which is a bug of the library: no panic leaves it, and it stays usable. The texts below
 * name statuses without their beginning: INVALID_HANDLE is MOTIONCLONE_STATUS_INVALID_HANDLE.
 *
 * Handles. Engines, motions and jobs are numbers that are never used again, until 2^31 others have been made. 0 is no
 * object. A handle that is 0, stale, of another kind or made up is refused with MOTIONCLONE_STATUS_INVALID_HANDLE.
 * Whoever makes an object destroys it. Objects keep what they need: a motion outlives the job it came from, a job the
 * engine it ran on.
 *
 * Structures begin with struct_size and are set up by their _init function, which is given their sizeof. One of another
 * size is refused with MOTIONCLONE_STATUS_INVALID_STRUCT_SIZE. Enumerations are passed as uint32_t; a number that they
 * lack is refused with MOTIONCLONE_STATUS_INVALID_ARGUMENT.
 *
 * Memory. What a function is given need only live until the function returns, but for the log function of an engine and
 * its user_data. Pointers must be NULL, where that is allowed, or valid and aligned as their type needs; a library
 * cannot tell more of a pointer than that it is NULL or misaligned, which is refused with
 * MOTIONCLONE_STATUS_INVALID_ARGUMENT. Nothing that the library returns is freed with free().
 *
 * Texts are UTF-8 and end with a zero byte.
 *
 * Threads. Every function may be called from any thread at any time, on the same objects too, but for the few that wait
 * (motionclone_engine_destroy, motionclone_job_wait, motionclone_shutdown), which must not be called from a log function
 * on an engine's thread. An engine works on a thread of its own, one job after another in the order in which they were
 * started; engines work at the same time. After fork() only the process that made an engine can use it.
 */

#ifndef MOTIONCLONE_H
#define MOTIONCLONE_H

#include <stddef.h>
#include <stdint.h>

/** The version that this header belongs to. */
#define MOTIONCLONE_VERSION "0.1.0"

/**
 * Grows when a program that was compiled with an older header would no longer work.
 */
#define MOTIONCLONE_ABI_VERSION 0

/**
 * What a call came to. Later versions may add values.
 */
enum motionclone_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Done.
   */
  MOTIONCLONE_STATUS_OK = 0,
  /**
   * A null pointer where there must be none, a value that an enumeration lacks, a text that is not UTF-8.
   */
  MOTIONCLONE_STATUS_INVALID_ARGUMENT = 1,
  /**
   * A handle that is 0, of another kind, or whose object was destroyed.
   */
  MOTIONCLONE_STATUS_INVALID_HANDLE = 2,
  /**
   * A structure's struct_size is not its size; it was not initialised, or comes from another version of the header.
   */
  MOTIONCLONE_STATUS_INVALID_STRUCT_SIZE = 3,
  /**
   * Something the user chose cannot be used: a file, a prompt, a size, a motion of another model.
   */
  MOTIONCLONE_STATUS_INVALID_INPUT = 4,
  /**
   * A buffer has not the size of what should go into it.
   */
  MOTIONCLONE_STATUS_BUFFER_SIZE = 5,
  /**
   * The job has not made this yet, or does not make it at all.
   */
  MOTIONCLONE_STATUS_NOT_READY = 6,
  /**
   * The time is over and the job has not ended.
   */
  MOTIONCLONE_STATUS_TIMEOUT = 7,
  /**
   * The job was cancelled.
   */
  MOTIONCLONE_STATUS_CANCELLED = 8,
  /**
   * The call would wait for the very thread that makes it; see motionclone_log.
   */
  MOTIONCLONE_STATUS_WRONG_THREAD = 9,
  /**
   * Something failed that the input does not explain: memory, disk, device.
   */
  MOTIONCLONE_STATUS_FAILED = 10,
  /**
   * A bug in this library; nothing that was there before is harmed.
   */
  MOTIONCLONE_STATUS_INTERNAL = 11,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum motionclone_status motionclone_status;
#else
typedef uint32_t motionclone_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How a job stands.
 */
enum motionclone_job_state
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Waits for the jobs before it.
   */
  MOTIONCLONE_JOB_STATE_QUEUED = 0,
  /**
   * Runs.
   */
  MOTIONCLONE_JOB_STATE_RUNNING = 1,
  /**
   * Ended, its results are there.
   */
  MOTIONCLONE_JOB_STATE_DONE = 2,
  /**
   * Ended with an error, which motionclone_job_error tells.
   */
  MOTIONCLONE_JOB_STATE_FAILED = 3,
  /**
   * Ended because it was cancelled.
   */
  MOTIONCLONE_JOB_STATE_CANCELLED = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum motionclone_job_state motionclone_job_state;
#else
typedef uint32_t motionclone_job_state;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * A part of a job's work.
 */
enum motionclone_job_stage
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Networks are loaded.
   */
  MOTIONCLONE_JOB_STAGE_LOAD = 0,
  /**
   * Frames and images become latents.
   */
  MOTIONCLONE_JOB_STAGE_ENCODE = 1,
  /**
   * The clip's motion is read.
   */
  MOTIONCLONE_JOB_STAGE_EXTRACT = 2,
  /**
   * The new clip is made.
   */
  MOTIONCLONE_JOB_STAGE_DENOISE = 3,
  /**
   * Latents become frames.
   */
  MOTIONCLONE_JOB_STAGE_DECODE = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum motionclone_job_stage motionclone_job_stage;
#else
typedef uint32_t motionclone_job_stage;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * A kind of device.
 */
enum motionclone_device_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * The first CUDA device that works, otherwise the CPU.
   */
  MOTIONCLONE_DEVICE_KIND_AUTO = 0,
  /**
   * The CPU.
   */
  MOTIONCLONE_DEVICE_KIND_CPU = 1,
  /**
   * An NVIDIA GPU.
   */
  MOTIONCLONE_DEVICE_KIND_CUDA = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum motionclone_device_kind motionclone_device_kind;
#else
typedef uint32_t motionclone_device_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What the images of a job are.
 */
enum motionclone_image_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Pictures, which the new clip shows at their frames.
   */
  MOTIONCLONE_IMAGE_KIND_PICTURE = 0,
  /**
   * Sketches, white lines on black, which the new clip follows.
   */
  MOTIONCLONE_IMAGE_KIND_SKETCH = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum motionclone_image_kind motionclone_image_kind;
#else
typedef uint32_t motionclone_image_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The order of a pixel's samples in memory.
 */
enum motionclone_channels
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Red, green, blue.
   */
  MOTIONCLONE_CHANNELS_RGB = 0,
  /**
   * Blue, green, red.
   */
  MOTIONCLONE_CHANNELS_BGR = 1,
  /**
   * Red, green, blue, alpha.
   */
  MOTIONCLONE_CHANNELS_RGBA = 2,
  /**
   * Blue, green, red, alpha.
   */
  MOTIONCLONE_CHANNELS_BGRA = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum motionclone_channels motionclone_channels;
#else
typedef uint32_t motionclone_channels;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The type of a sample, in the machine's byte order.
 */
enum motionclone_sample
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * 8-bit unsigned integer, 255 is full.
   */
  MOTIONCLONE_SAMPLE_U8 = 0,
  /**
   * 16-bit unsigned integer, 65535 is full.
   */
  MOTIONCLONE_SAMPLE_U16 = 1,
  /**
   * 16-bit floating point, 1 is full.
   */
  MOTIONCLONE_SAMPLE_F16 = 2,
  /**
   * 32-bit floating point, 1 is full.
   */
  MOTIONCLONE_SAMPLE_F32 = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum motionclone_sample motionclone_sample;
#else
typedef uint32_t motionclone_sample;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The order of rows in memory.
 */
enum motionclone_row_order
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * The first row is the picture's top.
   */
  MOTIONCLONE_ROW_ORDER_TOP_DOWN = 0,
  /**
   * The first row is the picture's bottom.
   */
  MOTIONCLONE_ROW_ORDER_BOTTOM_UP = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum motionclone_row_order motionclone_row_order;
#else
typedef uint32_t motionclone_row_order;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What colours are in a pixel with alpha. The library reads the colour and drops the alpha, and writes full alpha.
 */
enum motionclone_alpha
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Colours do not depend on alpha.
   */
  MOTIONCLONE_ALPHA_STRAIGHT = 0,
  /**
   * Colours are multiplied by alpha; where alpha is 0, the colour is read as black.
   */
  MOTIONCLONE_ALPHA_PREMULTIPLIED = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum motionclone_alpha motionclone_alpha;
#else
typedef uint32_t motionclone_alpha;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How samples follow light.
 */
enum motionclone_transfer
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * The transfer function of sRGB (IEC 61966-2-1).
   */
  MOTIONCLONE_TRANSFER_SRGB = 0,
  /**
   * Samples are proportional to light.
   */
  MOTIONCLONE_TRANSFER_LINEAR = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum motionclone_transfer motionclone_transfer;
#else
typedef uint32_t motionclone_transfer;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How much a message matters.
 */
enum motionclone_log_level
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * What the engine does.
   */
  MOTIONCLONE_LOG_LEVEL_INFO = 0,
  /**
   * Something the user should know, and that does not stop the work.
   */
  MOTIONCLONE_LOG_LEVEL_WARNING = 1,
  /**
   * A job failed.
   */
  MOTIONCLONE_LOG_LEVEL_ERROR = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum motionclone_log_level motionclone_log_level;
#else
typedef uint32_t motionclone_log_level;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Hears what an engine has to say: a motionclone_log_level, a message in UTF-8 that is valid during the call, and the
 * user_data of the options.
 *
 * It is called on the thread that creates the engine, while it creates it, and on the engine's own thread, never by two
 * threads at once for one engine, and not any more once motionclone_engine_destroy has returned. On the engine's thread
 * the calls that wait (motionclone_engine_destroy, motionclone_job_wait, motionclone_shutdown) are refused with
 * MOTIONCLONE_STATUS_WRONG_THREAD. It must return, and soon: no exception, no longjmp.
 */
typedef void (*motionclone_log)(uint32_t level, const char *message, void *user_data);

/**
 * How an engine is made.
 */
typedef struct {
  /**
   * sizeof this structure, set by motionclone_engine_options_init.
   */
  size_t struct_size;
  /**
   * A motionclone_device_kind. MOTIONCLONE_DEVICE_KIND_AUTO unless set.
   */
  uint32_t device_kind;
  /**
   * Which of several CUDA devices, from 0.
   */
  uint32_t device_number;
  /**
   * CPU threads for the networks; 0 takes one a core.
   */
  uint32_t threads;
  /**
   * MiB of the device's memory that the networks may take; 0 sets no limit. Jobs keep within it at the price of
   * time, and are refused where they cannot.
   */
  uint32_t memory_budget;
  /**
   * Path of the ONNX Runtime library, or NULL to take the one named in the environment variable
   * MOTIONCLONE_ONNXRUNTIME, or the one that lies beside this library. A process has one: the first that is loaded
   * stays.
   */
  const char *onnxruntime;
  /**
   * Called with messages, or NULL.
   */
  motionclone_log log;
  /**
   * Handed to log as it is.
   */
  void *log_user_data;
} motionclone_engine_options;

/**
 * A device.
 */
typedef struct {
  /**
   * sizeof this structure, set by motionclone_device_init.
   */
  size_t struct_size;
  /**
   * A motionclone_device_kind, never MOTIONCLONE_DEVICE_KIND_AUTO.
   */
  uint32_t kind;
  /**
   * Which of several CUDA devices, from 0.
   */
  uint32_t number;
  /**
   * What people call it, ended by a zero byte.
   */
  char name[64];
} motionclone_device;

/**
 * Frames in the host's memory. The library reads from them or writes into them during the call that they are given
 * to, and keeps no pointer.
 *
 * The first sample of column x in row y of frame i lies at
 * `data + i * frame_stride + y * row_stride + x * (samples of a pixel) * (bytes of a sample)`.
 * All of it must be memory that the caller may read, or, for results, write. No alignment is needed.
 */
typedef struct {
  /**
   * sizeof this structure, set by motionclone_frames_init.
   */
  size_t struct_size;
  /**
   * Row 0 of frame 0, or NULL to ask a function that writes for count, width and height.
   */
  void *data;
  /**
   * NULL, or an array of count pointers, each to row 0 of its frame; data and frame_stride are then not used.
   */
  void *const *frame_data;
  /**
   * Bytes from one row to the next; may be negative, then data points at the row with the highest address. 0 means
   * that rows follow each other without a gap.
   */
  int64_t row_stride;
  /**
   * Bytes from one frame to the next; may be negative. 0 means that frames follow each other without a gap.
   */
  int64_t frame_stride;
  /**
   * How many frames there are, at least 1.
   */
  uint32_t count;
  /**
   * Pixels across, 1 to 16384.
   */
  uint32_t width;
  /**
   * Pixels down, 1 to 16384.
   */
  uint32_t height;
  /**
   * A motionclone_channels. MOTIONCLONE_CHANNELS_RGB unless set.
   */
  uint32_t channels;
  /**
   * A motionclone_sample. MOTIONCLONE_SAMPLE_U8 unless set. Colours outside 0 to 1 are clamped when read.
   */
  uint32_t sample;
  /**
   * A motionclone_row_order. MOTIONCLONE_ROW_ORDER_TOP_DOWN unless set.
   */
  uint32_t row_order;
  /**
   * A motionclone_alpha. MOTIONCLONE_ALPHA_STRAIGHT unless set. Means nothing without an alpha channel.
   */
  uint32_t alpha;
  /**
   * A motionclone_transfer. MOTIONCLONE_TRANSFER_SRGB unless set.
   */
  uint32_t transfer;
} motionclone_frames;

/**
 * A picture or sketch that stands at a frame of the new clip.
 */
typedef struct {
  /**
   * sizeof this structure, set by motionclone_image_init.
   */
  size_t struct_size;
  /**
   * The image: a single frame of any size.
   */
  const motionclone_frames *pixels;
  /**
   * The frame of the new clip that it stands at, from 0.
   */
  uint32_t frame;
  /**
   * Not used; 0.
   */
  uint32_t reserved;
} motionclone_image;

/**
 * What decides an extraction or a clone, besides the model and the clip. motionclone_settings_init sets all of it from
 * the model; a host then changes what it wants. Numbers out of range are refused when a job is started, with a text
 * that says what is allowed.
 */
typedef struct {
  /**
   * sizeof this structure, set by motionclone_settings_init.
   */
  size_t struct_size;
  /**
   * What the new clip shows; NULL for nothing in particular. Not used by an extraction.
   */
  const char *prompt;
  /**
   * What it must not show; NULL for what the model has by default. Not used by an extraction.
   */
  const char *negative_prompt;
  /**
   * UNet blocks whose motion is cloned, with commas between, such as "up_blocks.1"; NULL for the model's default.
   */
  const char *blocks;
  /**
   * Pictures or sketches, or NULL. An extraction takes only their number and frames: to serve a clone with images,
   * it must be told of the same ones.
   */
  const motionclone_image *images;
  /**
   * How many images there are.
   */
  uint32_t image_count;
  /**
   * A motionclone_image_kind. MOTIONCLONE_IMAGE_KIND_PICTURE unless set.
   */
  uint32_t image_kind;
  /**
   * Strength of the images, 1 is full.
   */
  double image_scale;
  /**
   * Seed of all noise: the same seed gives the same clip on the same device. The published scripts take 2025, which
   * is set, and 76739 where there are images.
   */
  uint64_t seed;
  /**
   * Pixels across of the new clip, a multiple of 8. Reference frames of any other size are resized.
   */
  uint32_t width;
  /**
   * Pixels down of the new clip, a multiple of 8.
   */
  uint32_t height;
  /**
   * Frames of the new clip. That many are taken evenly from the reference, from its first to its last.
   */
  uint32_t frames;
  /**
   * Denoising steps.
   */
  uint32_t steps;
  /**
   * How many of them are guided by the motion.
   */
  uint32_t guidance_steps;
  /**
   * Guided steps over which guidance grows.
   */
  uint32_t warm_up;
  /**
   * Guided steps over which guidance fades.
   */
  uint32_t cool_up;
  /**
   * Timestep at which motion is extracted.
   */
  uint32_t noise_step;
  /**
   * Attention entries that are kept per query.
   */
  uint32_t top_k;
  /**
   * Not used; 0.
   */
  uint32_t reserved;
  /**
   * Share of the noise schedule that the guided steps cover, 0 to 1.
   */
  double guidance_scale;
  /**
   * Strength of the motion, of which the model may leave a part beside pictures or sketches; 0 turns guidance off.
   */
  double motion_weight;
  /**
   * Classifier-free guidance as the published code counts it: 7.5 here is 8.5 elsewhere.
   */
  double cfg;
} motionclone_settings;

/**
 * An engine: a model on a device, with one thread of its own. 0 is no engine.
 */
typedef uint64_t motionclone_engine;

/**
 * How a job stands.
 */
typedef struct {
  /**
   * sizeof this structure, set by motionclone_progress_init.
   */
  size_t struct_size;
  /**
   * A motionclone_job_state.
   */
  uint32_t state;
  /**
   * A motionclone_job_stage, the part of the work at hand.
   */
  uint32_t stage;
  /**
   * Steps done in this stage.
   */
  uint32_t step;
  /**
   * Steps in this stage; 0 where it is not known yet.
   */
  uint32_t total;
  /**
   * How many previews there have been; when it grows, motionclone_job_preview gives a new one.
   */
  uint32_t previews;
  /**
   * Not used; 0.
   */
  uint32_t reserved;
  /**
   * The motion loss at the last step, or NaN where there is none.
   */
  double loss;
  /**
   * Seconds to the end of the stage, or NaN while there is nothing to judge by.
   */
  double seconds_left;
} motionclone_progress;

/**
 * What a motion fits: a clone must share all of this but the seed.
 */
typedef struct {
  /**
   * sizeof this structure, set by motionclone_motion_info_init.
   */
  size_t struct_size;
  /**
   * Pixels across.
   */
  uint32_t width;
  /**
   * Pixels down.
   */
  uint32_t height;
  /**
   * Frames.
   */
  uint32_t frames;
  /**
   * Timestep of extraction.
   */
  uint32_t noise_step;
  /**
   * Attention entries kept per query.
   */
  uint32_t top_k;
  /**
   * How many images the extraction was told of; 0 is none.
   */
  uint32_t image_count;
  /**
   * Seed of the extraction's noise.
   */
  uint64_t seed;
} motionclone_motion_info;

/**
 * An extraction or a clone, waiting, running or ended. 0 is no job.
 */
typedef uint64_t motionclone_job;

/**
 * The motion of a clip. 0 is no motion.
 */
typedef uint64_t motionclone_motion;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the library, such as "0.1.0". Never fails; the text is static. Any thread.
 */
const char *motionclone_version(void);

/**
 * The library's MOTIONCLONE_ABI_VERSION. A host whose header has another must not use the library. Never fails. Any
 * thread.
 */
uint32_t motionclone_abi_version(void);

/**
 * A short text in English for a motionclone_status, also for one that this version does not know. Never fails; the
 * text is static. Any thread.
 */
const char *motionclone_status_text(uint32_t status);

/**
 * What went wrong in the last call on this thread that failed: a sentence for people, in UTF-8, with the offending
 * value and what is allowed. Empty when none failed yet. Never fails; the text belongs to the library and lives until
 * the next call on this thread that fails, or the thread's end. A job has its own text: motionclone_job_error.
 */
const char *motionclone_last_error(void);

/**
 * Destroys everything that is still there: cancels all jobs, waits for all threads of the library to end, and makes
 * every handle stale. The library can be used again afterwards. Runs by itself when the process exits.
 *
 * The library itself stays loaded once it was, whatever is unloaded: ONNX Runtime does not survive being torn down and
 * set up again. A host that unloads its plugins calls this first.
 *
 * Any thread but an engine's own. MOTIONCLONE_STATUS_WRONG_THREAD from a log function on an engine's thread.
 */
motionclone_status motionclone_shutdown(void);

/**
 * Fills options with defaults.
 *
 * `struct_size` is sizeof(motionclone_engine_options). Any thread.
 *
 * INVALID_ARGUMENT: options is NULL. INVALID_STRUCT_SIZE: struct_size is another one.
 */
motionclone_status motionclone_engine_options_init(motionclone_engine_options *options, size_t struct_size);

/**
 * Fills a device with zeros, to be filled by a later call.
 *
 * `struct_size` is sizeof(motionclone_device). Any thread.
 *
 * INVALID_ARGUMENT: device is NULL. INVALID_STRUCT_SIZE: struct_size is another one.
 */
motionclone_status motionclone_device_init(motionclone_device *device, size_t struct_size);

/**
 * Fills frames with defaults: RGB of 8 bit in sRGB, rows from the top, no gaps, no memory, and no size.
 *
 * `struct_size` is sizeof(motionclone_frames). Any thread.
 *
 * INVALID_ARGUMENT: frames is NULL. INVALID_STRUCT_SIZE: struct_size is another one.
 */
motionclone_status motionclone_frames_init(motionclone_frames *frames, size_t struct_size);

/**
 * Fills an image with defaults: no pixels, at frame 0.
 *
 * `struct_size` is sizeof(motionclone_image). Any thread.
 *
 * INVALID_ARGUMENT: image is NULL. INVALID_STRUCT_SIZE: struct_size is another one.
 */
motionclone_status motionclone_image_init(motionclone_image *image, size_t struct_size);

/**
 * Fills settings with the defaults of an engine's model; texts are NULL, and there are no images.
 *
 * `struct_size` is sizeof(motionclone_settings). Any thread.
 *
 * INVALID_ARGUMENT: settings is NULL. INVALID_STRUCT_SIZE: struct_size is another one. INVALID_HANDLE: engine is none.
 */
motionclone_status motionclone_settings_init(motionclone_settings *settings,
                                             size_t struct_size,
                                             motionclone_engine engine);

/**
 * Fills progress with zeros, to be filled by motionclone_job_progress.
 *
 * `struct_size` is sizeof(motionclone_progress). Any thread.
 *
 * INVALID_ARGUMENT: progress is NULL. INVALID_STRUCT_SIZE: struct_size is another one.
 */
motionclone_status motionclone_progress_init(motionclone_progress *progress, size_t struct_size);

/**
 * Fills a motion's info with zeros, to be filled by motionclone_motion_info_get.
 *
 * `struct_size` is sizeof(motionclone_motion_info). Any thread.
 *
 * INVALID_ARGUMENT: info is NULL. INVALID_STRUCT_SIZE: struct_size is another one.
 */
motionclone_status motionclone_motion_info_init(motionclone_motion_info *info, size_t struct_size);

/**
 * Lists the devices that an engine can be made on: the CPU first, then every CUDA device that works. Loads ONNX
 * Runtime, and tries each CUDA device, which takes a second or more.
 *
 * `onnxruntime` is as in the options of an engine. `devices` is an array of `capacity` structures, each initialised
 * with motionclone_device_init; NULL with a capacity of 0 asks for the count alone. The number of devices there are
 * goes to `count`; no more than `capacity` are written. Any thread.
 *
 * INVALID_ARGUMENT: count is NULL, or devices is and capacity is not 0. INVALID_STRUCT_SIZE: a device is not
 * initialised. INVALID_INPUT: ONNX Runtime cannot be loaded.
 */
motionclone_status motionclone_devices(const char *onnxruntime,
                                       motionclone_device *devices,
                                       size_t capacity,
                                       size_t *count);

/**
 * Makes an engine: opens a bundle, which is a folder that `motionclone import` makes, loads ONNX Runtime, and starts
 * a thread. Waits for all of it, well under a second on a CPU and a few seconds on a GPU. Networks are loaded by the
 * first job that needs them and stay while the sizes of jobs do.
 *
 * `bundle` is a path in UTF-8; NULL takes the small embedded model, a folder `motionclone-bundle` beside the library or
 * the program, or the bundle that the environment variable MOTIONCLONE_BUNDLE names. `options` may be NULL for the
 * defaults. The engine belongs to the caller, who destroys
 * it with motionclone_engine_destroy. Several engines may be there at once. Any thread.
 *
 * INVALID_ARGUMENT: engine is NULL, a text is not UTF-8, or device_kind has no such value.
 * INVALID_STRUCT_SIZE: options is not initialised. INVALID_INPUT: the bundle cannot be opened, ONNX Runtime cannot be
 * loaded, or the device does not work. FAILED: anything else. On failure nothing is written to engine.
 */
motionclone_status motionclone_engine_create(const char *bundle,
                                             const motionclone_engine_options *options,
                                             motionclone_engine *engine);

/**
 * Destroys an engine: cancels its jobs, waits until its thread has ended, which takes no longer than a step, and sets
 * the handle to 0. Jobs and motions have handles of their own, which stay valid until they are destroyed. While a
 * thread is in this call, the others find the handle stale. A handle of 0 is nothing to do.
 *
 * Any thread but an engine's own.
 *
 * INVALID_ARGUMENT: engine is NULL. INVALID_HANDLE: it points at no engine. WRONG_THREAD: called from a log function
 * on an engine's thread; nothing is destroyed.
 */
motionclone_status motionclone_engine_destroy(motionclone_engine *engine);

/**
 * The device that an engine computes on, into a structure that was initialised with motionclone_device_init. Any
 * thread.
 *
 * INVALID_ARGUMENT: device is NULL. INVALID_STRUCT_SIZE: it is not initialised. INVALID_HANDLE: engine is none.
 */
motionclone_status motionclone_engine_device(motionclone_engine engine, motionclone_device *device);

/**
 * Starts a job that reads the motion of a clip. Its result is taken with motionclone_job_motion.
 *
 * `reference` is the clip, of any size and any number of frames from 1: as many frames as the settings say are taken
 * evenly from it, resized and copied before the call returns. `settings` is copied, too. The job waits until the jobs
 * that were started before it on the same engine have ended. It belongs to the caller, who destroys it with
 * motionclone_job_destroy. Any thread.
 *
 * INVALID_ARGUMENT: a pointer is NULL, a text is not UTF-8, or an enumeration has no such value. INVALID_HANDLE:
 * engine is none. INVALID_STRUCT_SIZE: a structure is not initialised. INVALID_INPUT: the settings do not fit the
 * model. On failure nothing is written to job.
 */
motionclone_status motionclone_job_extract(motionclone_engine engine,
                                           const motionclone_frames *reference,
                                           const motionclone_settings *settings,
                                           motionclone_job *job);

/**
 * Starts a job that makes a new clip which moves like a reference clip. Its results are taken with
 * motionclone_job_frames, and the clip's motion, from when it was read, with motionclone_job_motion.
 *
 * All else is as with motionclone_job_extract.
 */
motionclone_status motionclone_job_clone(motionclone_engine engine,
                                         const motionclone_frames *reference,
                                         const motionclone_settings *settings,
                                         motionclone_job *job);

/**
 * Starts a job that makes a new clip which moves like a motion that was read before. The motion may be destroyed once
 * the call has returned.
 *
 * INVALID_INPUT: the motion does not fit the model or the settings. All else is as with motionclone_job_extract.
 */
motionclone_status motionclone_job_clone_motion(motionclone_engine engine,
                                                motionclone_motion motion,
                                                const motionclone_settings *settings,
                                                motionclone_job *job);

/**
 * How a job stands, into a structure that was initialised with motionclone_progress_init. Does not wait: hosts call it
 * as often as they draw. Any thread.
 *
 * INVALID_ARGUMENT: progress is NULL. INVALID_STRUCT_SIZE: it is not initialised. INVALID_HANDLE: job is none.
 */
motionclone_status motionclone_job_progress(motionclone_job job, motionclone_progress *progress);

/**
 * Waits until a job has ended, for at most so many milliseconds; without end where that is negative.
 *
 * Returns what the job came to: OK, CANCELLED, INVALID_INPUT, FAILED or INTERNAL; or else TIMEOUT, INVALID_HANDLE, or
 * WRONG_THREAD when called from a log function on an engine's thread. Any other thread, several at once.
 */
motionclone_status motionclone_job_wait(motionclone_job job, int64_t milliseconds);

/**
 * Asks a job to end: at once when it waits in the queue, within a step when it runs. Does not wait for it. A job that
 * has ended is left as it is. The engine goes on with its next job. Any thread, also a log function.
 *
 * INVALID_HANDLE: job is none.
 */
motionclone_status motionclone_job_cancel(motionclone_job job);

/**
 * What the new clip looks like so far: all its frames, much smaller, into memory of the host, in whatever
 * layout the structure describes. With data and frame_data NULL it sets count, width and height and writes nothing
 * else. Any thread.
 *
 * INVALID_ARGUMENT: frames is NULL, or describes no such memory. INVALID_STRUCT_SIZE: it is not initialised.
 * INVALID_HANDLE: job is none. NOT_READY: there is no preview yet, or the model makes none. BUFFER_SIZE: count, width
 * or height are not those of the preview.
 */
motionclone_status motionclone_job_preview(motionclone_job job, motionclone_frames *frames);

/**
 * The new clip, into memory of the host, in whatever layout the structure describes. With data and frame_data NULL it
 * sets count, width and height and writes nothing else. The job keeps the clip until it is destroyed. Any thread.
 *
 * INVALID_ARGUMENT: frames is NULL, or describes no such memory. INVALID_STRUCT_SIZE: it is not initialised.
 * INVALID_HANDLE: job is none. NOT_READY: the job has not made a clip, or does not make one. BUFFER_SIZE: count, width
 * or height are not those of the clip.
 */
motionclone_status motionclone_job_frames(motionclone_job job, motionclone_frames *frames);

/**
 * The motion that a job has read or was given. It belongs to the caller, who destroys it with
 * motionclone_motion_destroy; it outlives job and engine. Any thread.
 *
 * INVALID_ARGUMENT: motion is NULL. INVALID_HANDLE: job is none. NOT_READY: the job has not read it yet.
 */
motionclone_status motionclone_job_motion(motionclone_job job, motionclone_motion *motion);

/**
 * What went wrong in a job: a sentence for people, in UTF-8, empty where nothing did. Is copied into `buffer`, which
 * has room for `size` bytes, with a zero byte behind it. `needed` may be NULL; otherwise the bytes of text and zero
 * byte go there. With a buffer of NULL that is all that is done. Any thread.
 *
 * INVALID_ARGUMENT: buffer and needed are NULL. INVALID_HANDLE: job is none. BUFFER_SIZE: the text does not fit;
 * nothing is copied.
 */
motionclone_status motionclone_job_error(motionclone_job job, char *buffer, size_t size, size_t *needed);

/**
 * Destroys a job and sets the handle to 0. One that has not ended is cancelled; this does not wait for it. A handle of
 * 0 is nothing to do. Any thread, also a log function.
 *
 * INVALID_ARGUMENT: job is NULL. INVALID_HANDLE: it points at no job.
 */
motionclone_status motionclone_job_destroy(motionclone_job *job);

/**
 * Reads a motion from a file that motionclone_motion_save or the command line wrote. It belongs to the caller, who
 * destroys it with motionclone_motion_destroy. Any thread.
 *
 * INVALID_ARGUMENT: path or motion is NULL, or path is not UTF-8. INVALID_INPUT: there is no such file, or it is no
 * motion. FAILED: it cannot be read. On failure nothing is written to motion.
 */
motionclone_status motionclone_motion_load(const char *file, motionclone_motion *motion);

/**
 * Writes a motion to a file (.safetensors), which is there whole or not at all. Any thread.
 *
 * INVALID_ARGUMENT: file is NULL or not UTF-8. INVALID_HANDLE: motion is none. INVALID_INPUT, FAILED: the file cannot
 * be written there.
 */
motionclone_status motionclone_motion_save(motionclone_motion motion, const char *file);

/**
 * What a motion fits, into a structure that was initialised with motionclone_motion_info_init. Any thread.
 *
 * INVALID_ARGUMENT: info is NULL. INVALID_STRUCT_SIZE: it is not initialised. INVALID_HANDLE: motion is none.
 */
motionclone_status motionclone_motion_info_get(motionclone_motion motion, motionclone_motion_info *info);

/**
 * All that is known of a motion, as JSON: what motionclone_motion_info_get gives, with the model's fingerprint, the
 * blocks, the images' kind, scale and frames, and a hash of the source clip. The buffer is as with
 * motionclone_job_error. Any thread.
 *
 * INVALID_ARGUMENT: buffer and needed are NULL. INVALID_HANDLE: motion is none. BUFFER_SIZE: the text does not fit;
 * nothing is copied.
 */
motionclone_status motionclone_motion_describe(motionclone_motion motion, char *buffer, size_t size, size_t *needed);

/**
 * Destroys a motion and sets the handle to 0. Jobs that use it go on. A handle of 0 is nothing to do. Any thread.
 *
 * INVALID_ARGUMENT: motion is NULL. INVALID_HANDLE: it points at no motion.
 */
motionclone_status motionclone_motion_destroy(motionclone_motion *motion);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* MOTIONCLONE_H */
