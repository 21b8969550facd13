//! Handles, enumerations and structures. Enumerations that a host gives are plain numbers in the
//! structures, because a number that an enumeration lacks must be no more than an error.

use std::ffi::{c_char, c_void};

/// Grows when a program that was compiled with an older header would no longer work.
pub const ABI_VERSION: u32 = 0;

/// An engine: a model on a device, with one thread of its own. 0 is no engine.
pub type EngineHandle = u64;
/// The motion of a clip. 0 is no motion.
pub type MotionHandle = u64;
/// An extraction or a clone, waiting, running or ended. 0 is no job.
pub type JobHandle = u64;

/// What a call came to. Later versions may add values.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// A null pointer where there must be none, a value that an enumeration lacks, a text that is not UTF-8.
    InvalidArgument = 1,
    /// A handle that is 0, of another kind, or whose object was destroyed.
    InvalidHandle = 2,
    /// A structure's struct_size is none that it can have: it was not initialised, or is of a later version of the header.
    InvalidStructSize = 3,
    /// Something the user chose cannot be used: a file, a prompt, a size, a motion of another model.
    InvalidInput = 4,
    /// A buffer has not the size of what should go into it.
    BufferSize = 5,
    /// The job has not made this yet, or does not make it at all; the engine is not open yet.
    NotReady = 6,
    /// The time is over and the job has not ended, or the engine is not open.
    Timeout = 7,
    /// The job was cancelled.
    Cancelled = 8,
    /// The call would wait for the very thread that makes it; see motionclone_log.
    WrongThread = 9,
    /// Something failed that the input does not explain: memory, disk, device.
    Failed = 10,
    /// A bug in this library; nothing that was there before is harmed.
    Internal = 11,
    /// The process was forked from the one that uses the library.
    WrongProcess = 12,
}

/// The state of a job.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// Waits for the jobs before it.
    Queued = 0,
    /// Runs.
    Running = 1,
    /// Ended, its results are there.
    Done = 2,
    /// Ended with an error, which motionclone_job_error tells.
    Failed = 3,
    /// Ended because it was cancelled.
    Cancelled = 4,
}

/// A part of a job's work.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobStage {
    /// Networks are loaded.
    Load = 0,
    /// Frames and images become latents.
    Encode = 1,
    /// The clip's motion is read.
    Extract = 2,
    /// The new clip is made.
    Denoise = 3,
    /// Latents become frames.
    Decode = 4,
}

/// A kind of device.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// The first CUDA device that works, otherwise the CPU.
    Auto = 0,
    /// The CPU.
    Cpu = 1,
    /// An NVIDIA GPU.
    Cuda = 2,
}

/// A setting's type.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingKind {
    /// A whole number of at least 0.
    Integer = 0,
    /// A whole number of 64 bits, for which -1 draws one.
    Seed = 1,
    /// Any number.
    Number = 2,
    /// A text.
    Text = 3,
    /// One of several names.
    Choice = 4,
    /// Names with commas between.
    List = 5,
}

/// What the images of a job are.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageKind {
    /// Pictures, which the new clip shows at their frames.
    Picture = 0,
    /// Sketches, white lines on black, which the new clip follows.
    Sketch = 1,
}

/// The order of a pixel's samples in memory.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channels {
    /// Red, green, blue.
    Rgb = 0,
    /// Blue, green, red.
    Bgr = 1,
    /// Red, green, blue, alpha.
    Rgba = 2,
    /// Blue, green, red, alpha.
    Bgra = 3,
}

/// The type of a sample, in the machine's byte order.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// 8-bit unsigned integer, 255 is full.
    U8 = 0,
    /// 16-bit unsigned integer, 65535 is full.
    U16 = 1,
    /// 16-bit floating point, 1 is full.
    F16 = 2,
    /// 32-bit floating point, 1 is full.
    F32 = 3,
}

/// The order of rows in memory.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowOrder {
    /// The first row is the picture's top.
    TopDown = 0,
    /// The first row is the picture's bottom.
    BottomUp = 1,
}

/// What colours are in a pixel with alpha. The library reads the colour and drops the alpha, and writes full alpha.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpha {
    /// Colours do not depend on alpha.
    Straight = 0,
    /// Colours are multiplied by alpha; where alpha is 0, the colour is read as black.
    Premultiplied = 1,
}

/// How samples follow light.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transfer {
    /// The transfer function of sRGB (IEC 61966-2-1).
    Srgb = 0,
    /// Samples are proportional to light.
    Linear = 1,
}

/// How much a message matters.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// What the engine does.
    Info = 0,
    /// Something the user should know, and that does not stop the work.
    Warning = 1,
    /// A job failed.
    Error = 2,
}

/// Hears what an engine has to say: a motionclone_log_level, a message in UTF-8 that is valid during the call, and the
/// user_data of the options.
///
/// It is called on the engine's own thread, and not any more once motionclone_engine_destroy has returned. On that thread
/// the calls that wait (motionclone_engine_create, motionclone_engine_wait, motionclone_engine_destroy,
/// motionclone_job_wait, motionclone_shutdown) are refused with MOTIONCLONE_STATUS_WRONG_THREAD. It must return, and
/// soon: no exception, no longjmp.
pub type LogFunction = Option<unsafe extern "C" fn(level: u32, message: *const c_char, user_data: *mut c_void)>;

/// How an engine is made.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HostEngineOptions {
    /// sizeof this structure, set by motionclone_engine_options_init.
    pub struct_size: usize,
    /// A motionclone_device_kind. MOTIONCLONE_DEVICE_KIND_AUTO unless set.
    pub device_kind: u32,
    /// Which of several CUDA devices, from 0.
    pub device_number: u32,
    /// CPU threads for the networks; 0 takes one a core.
    pub threads: u32,
    /// MiB of the device's memory that the networks may take; 0 sets no limit. Jobs keep within it at the price of
    /// time, and are refused where they cannot.
    pub memory_budget: u32,
    /// Path of the ONNX Runtime library, or NULL to take the one named in the environment variable
    /// MOTIONCLONE_ONNXRUNTIME, or the one that lies beside this library. A process has one: the first that is loaded
    /// stays.
    pub onnxruntime: *const c_char,
    /// Called with messages, or NULL.
    pub log: LogFunction,
    /// Handed to log as it is.
    pub log_user_data: *mut c_void,
}

/// A device.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HostDevice {
    /// sizeof this structure, set by motionclone_device_init.
    pub struct_size: usize,
    /// A motionclone_device_kind, never MOTIONCLONE_DEVICE_KIND_AUTO.
    pub kind: u32,
    /// Which of several CUDA devices, from 0.
    pub number: u32,
    /// What people call it, ended by a zero byte.
    pub name: [c_char; 64],
}

/// Frames in the host's memory. The library reads from them or writes into them during the call that they are given
/// to, and keeps no pointer.
///
/// The first sample of column x in row y of frame i lies at
/// `data + i * frame_stride + y * row_stride + x * (samples of a pixel) * (bytes of a sample)`.
/// All of it must be memory that the caller may read, or, for results, write. No alignment is needed.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HostFrames {
    /// sizeof this structure, set by motionclone_frames_init.
    pub struct_size: usize,
    /// Row 0 of frame 0, or NULL to ask a function that writes for count, width and height.
    pub data: *mut c_void,
    /// NULL, or an array of count pointers, each to row 0 of its frame; data and frame_stride are then not used.
    pub frame_data: *const *mut c_void,
    /// Bytes from one row to the next; may be negative, then data points at the row with the highest address. 0 means
    /// that rows follow each other without a gap.
    pub row_stride: i64,
    /// Bytes from one frame to the next; may be negative. 0 means that frames follow each other without a gap.
    pub frame_stride: i64,
    /// How many frames there are, at least 1.
    pub count: u32,
    /// Pixels across, 1 to 16384.
    pub width: u32,
    /// Pixels down, 1 to 16384.
    pub height: u32,
    /// A motionclone_channels. MOTIONCLONE_CHANNELS_RGB unless set.
    pub channels: u32,
    /// A motionclone_sample. MOTIONCLONE_SAMPLE_U8 unless set. Colours outside 0 to 1 are clamped when read.
    pub sample: u32,
    /// A motionclone_row_order. MOTIONCLONE_ROW_ORDER_TOP_DOWN unless set.
    pub row_order: u32,
    /// A motionclone_alpha. MOTIONCLONE_ALPHA_STRAIGHT unless set. Means nothing without an alpha channel.
    pub alpha: u32,
    /// A motionclone_transfer. MOTIONCLONE_TRANSFER_SRGB unless set.
    pub transfer: u32,
}

/// A picture or sketch that stands at a frame of the new clip.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HostImage {
    /// sizeof this structure, set by motionclone_image_init.
    pub struct_size: usize,
    /// The image: a single frame of any size.
    pub pixels: *const HostFrames,
    /// The frame of the new clip that it stands at, from 0.
    pub frame: u32,
    /// Not used; 0.
    pub reserved: u32,
}

/// What decides an extraction or a clone, besides the model and the clip. motionclone_settings_init sets all of it from
/// the model; a host then changes what it wants. Numbers out of range are refused when a job is started, with a text
/// that says what is allowed.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HostSettings {
    /// sizeof this structure, set by motionclone_settings_init.
    pub struct_size: usize,
    /// What the new clip shows; NULL for nothing in particular. Not used by an extraction.
    pub prompt: *const c_char,
    /// What it must not show; NULL for what the model has by default. Not used by an extraction.
    pub negative_prompt: *const c_char,
    /// UNet blocks whose motion is cloned, with commas between, such as "up_blocks.1"; NULL for the model's default.
    pub blocks: *const c_char,
    /// Pictures or sketches, or NULL. An extraction takes only their number and frames: to serve a clone with images,
    /// it must be told of the same ones.
    pub images: *const HostImage,
    /// How many images there are.
    pub image_count: u32,
    /// A motionclone_image_kind. MOTIONCLONE_IMAGE_KIND_PICTURE unless set.
    pub image_kind: u32,
    /// Strength of the images, 1 is full.
    pub image_scale: f64,
    /// Seed of all noise: the same seed gives the same clip on the same device. The published scripts take 2025, which
    /// is set, and 76739 where there are images.
    pub seed: u64,
    /// Pixels across of the new clip, a multiple of 8. Reference frames of any other size are resized.
    pub width: u32,
    /// Pixels down of the new clip, a multiple of 8.
    pub height: u32,
    /// Frames of the new clip. That many are taken evenly from the reference, from its first to its last.
    pub frames: u32,
    /// Denoising steps.
    pub steps: u32,
    /// How many of them are guided by the motion.
    pub guidance_steps: u32,
    /// Guided steps over which guidance grows.
    pub warm_up: u32,
    /// Guided steps over which guidance fades.
    pub cool_up: u32,
    /// Timestep at which motion is extracted.
    pub noise_step: u32,
    /// Attention entries that are kept per query.
    pub top_k: u32,
    /// The PyTorch generator whose noise the seed gives: 0 is a CPU's, 1 an H100's.
    pub noise: u32,
    /// Share of the noise schedule that the guided steps cover, 0 to 1.
    pub guidance_scale: f64,
    /// Strength of the motion, of which the model may leave a part beside pictures or sketches; 0 turns guidance off.
    pub motion_weight: f64,
    /// Classifier-free guidance as the published code counts it: 7.5 here is 8.5 elsewhere.
    pub cfg: f64,
    /// Settings of later versions, which only the library knows; motionclone_settings_set_number sets them.
    pub others: [f64; 16],
}

/// A setting: what it is called, what it may be, and what it does. motionclone_setting_describe fills it.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HostSettingInfo {
    /// sizeof this structure, set by motionclone_setting_info_init.
    pub struct_size: usize,
    /// Its name, such as "guidance_steps". With spaces, a label for people.
    pub name: *const c_char,
    /// One line for people, without a full stop.
    pub help: *const c_char,
    /// What its number counts, such as "pixels"; empty where it counts nothing.
    pub unit: *const c_char,
    /// The version of the library that it came with.
    pub since: *const c_char,
    /// The names of a choice, with commas between; empty for other kinds.
    pub choices: *const c_char,
    /// A motionclone_setting_kind.
    pub kind: u32,
    /// 1 for one that belongs behind the simple ones in an interface, otherwise 0.
    pub advanced: u32,
    /// 1 for one that changes the motion that is extracted, otherwise 0: it belongs to the key of a kept motion.
    pub changes_motion: u32,
    /// 1 for one that is a part of what makes two clones the same, 0 for one that sets such others.
    pub identity: u32,
    /// The model's own value; of a choice, its position among the names; NaN for texts and lists, which
    /// motionclone_settings_get_text tells.
    pub default_number: f64,
    /// The least value of a number; NaN for texts and lists.
    pub least: f64,
    /// The largest value of a number, infinite where there is none; NaN for texts and lists.
    pub most: f64,
    /// A number is a multiple of this; 0 where it need not be.
    pub multiple_of: f64,
    /// The least value of a slider for it.
    pub usual_least: f64,
    /// The largest value of a slider for it, infinite where there is none.
    pub usual_most: f64,
}

/// The progress of a job.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HostProgress {
    /// sizeof this structure, set by motionclone_progress_init.
    pub struct_size: usize,
    /// A motionclone_job_state.
    pub state: u32,
    /// A motionclone_job_stage, the part of the work at hand.
    pub stage: u32,
    /// Steps done in this stage.
    pub step: u32,
    /// Steps in this stage; 0 where it is not known yet.
    pub total: u32,
    /// How many previews there have been; when it grows, motionclone_job_preview gives a new one.
    pub previews: u32,
    /// Not used; 0.
    pub reserved: u32,
    /// The motion loss at the last step, or NaN where there is none.
    pub loss: f64,
    /// Seconds to the end of the stage, or NaN while there is nothing to judge by.
    pub seconds_left: f64,
}

/// What a motion fits: a clone must share all of this but the seed.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HostMotionInfo {
    /// sizeof this structure, set by motionclone_motion_info_init.
    pub struct_size: usize,
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// Frames.
    pub frames: u32,
    /// Timestep of extraction.
    pub noise_step: u32,
    /// Attention entries kept per query.
    pub top_k: u32,
    /// How many images the extraction was told of; 0 is none.
    pub image_count: u32,
    /// Seed of the extraction's noise.
    pub seed: u64,
}
