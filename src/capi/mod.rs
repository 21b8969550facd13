//! The C library: everything that programs in other languages see. `include/motionclone.h` is made from this file, which
//! has the functions, and from `types`, so their comments are written for readers of C; the rules that hold for all of
//! it stand at the header's beginning, which is in `cbindgen.toml`.
//!
//! What every call checks is in `boundary`. Behind it are the table of handles (`handles`), an engine's thread and its
//! jobs (`worker`), and the host's frames (`frames`).
#![deny(missing_docs)]
// What a caller must promise is said once for all functions at the beginning of the header, for callers in C.
#![allow(clippy::missing_safety_doc)]

mod boundary;
mod describe;
mod exit;
mod floating_point;
mod frames;
mod handles;
#[cfg(test)]
mod tests;
mod types;
mod worker;

use std::ffi::c_char;
use std::path::Path;
use std::ptr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use motionclone_onnx::model::config::ControlKind;

use self::boundary::{
    Failure, call, call_anywhere, check_size, copy_text, give, initialise, path, pointer, read, sized, text,
};
pub use self::describe::*;
use self::frames::View;
use self::handles::Table;
pub use self::types::*;
use self::worker::{Job, Log, Work, Worker};
use crate::engine::{self, EngineOptions};
use crate::job::Stage;
use crate::media::frames::Frames;
use crate::motion::Motion;
use crate::runtime::{Device, Runtime};
use crate::settings::{Control, Model, Settings};

static OBJECTS: LazyLock<Table> = LazyLock::new(Table::default);

/// The longest that destroying waits for an engine's thread. A step that is cancelled ends well before; only a device
/// or a log function that hangs does not.
const PATIENCE: Duration = Duration::from_secs(10);

fn device_of(kind: u32, number: u32) -> Result<Device, Failure> {
    match kind {
        0 => Ok(Device::Auto),
        1 => Ok(Device::Cpu),
        2 => i32::try_from(number)
            .map(Device::Cuda)
            .map_err(|_| Failure::new(Status::InvalidInput, format!("device_number {number}: no such device"))),
        _ => Err(Failure::new(Status::InvalidArgument, format!("device_kind {kind}: no such kind"))),
    }
}

impl HostDevice {
    fn empty() -> Self {
        Self { struct_size: size_of::<Self>(), kind: DeviceKind::Cpu as u32, number: 0, name: [0; 64] }
    }

    fn new(device: Device) -> Self {
        let (kind, number, name) = match device {
            Device::Cuda(number) => (DeviceKind::Cuda, number, format!("CUDA device {number}")),
            Device::Auto | Device::Cpu => (DeviceKind::Cpu, 0, "CPU".to_string()),
        };
        let mut host = Self { kind: kind as u32, number: number.unsigned_abs(), ..Self::empty() };
        let end = host.name.len() - 1;
        host.name[..end].iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from as c_char);
        host
    }
}

/// Sizes of frames are far below 2³².
fn small(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// The host's settings as the engine takes them, checked against the model.
///
/// # Safety
/// All pointers in the structure must be null or as the header describes them.
unsafe fn settings_of(engine: &Worker, host: *const HostSettings) -> Result<Settings, Failure> {
    // SAFETY: the caller's promise, here and below.
    let host = unsafe { read(host, "settings") }?;
    let mut settings = unsafe { describe::take_settings(&host, &Model::from(&engine.manifest)) }?;
    let kind = match host.image_kind {
        0 => ControlKind::Rgb,
        1 => ControlKind::Scribble,
        other => return Err(Failure::new(Status::InvalidArgument, format!("image_kind {other}: no such kind"))),
    };
    if host.image_count > host.frames {
        let message = format!("{} images for {} frames", host.image_count, host.frames);
        return Err(Failure::new(Status::InvalidInput, message));
    }
    if host.image_count > 0 {
        pointer(host.images, "images")?;
        let mut images: Vec<(Frames, usize)> = Vec::new();
        for index in 0..host.image_count as usize {
            // SAFETY: the array has as many images as its count says.
            let image = unsafe { read(host.images.add(index), "images") }?;
            let pixels = View::new(&unsafe { read(image.pixels, "pixels of an image") }?)?;
            let frame = image.frame as usize;
            if pixels.count() != 1 {
                let message = format!("the image at frame {frame} has {} frames, not one", pixels.count());
                return Err(Failure::new(Status::InvalidInput, message));
            }
            if images.iter().any(|(_, other)| *other == frame) {
                return Err(Failure::new(Status::InvalidInput, format!("two images at frame {frame}")));
            }
            // SAFETY: the host promises memory as described.
            images.push((unsafe { pixels.read(0) }?, frame));
        }
        settings.control = Some(Control { kind, images });
    }
    settings.check(&engine.manifest)?;
    Ok(settings)
}

/// Starts a job that begins with a reference clip.
///
/// # Safety
/// As the header says for the functions that start jobs.
unsafe fn start_with_clip(
    engine: EngineHandle,
    reference: *const HostFrames,
    settings: *const HostSettings,
    job: *mut JobHandle,
    work: fn(Frames, Settings) -> Work,
) -> Result<(), Failure> {
    pointer(job, "job")?;
    let engine = OBJECTS.get::<Worker>(engine)?;
    // SAFETY: the caller's promise.
    unsafe {
        let settings = settings_of(&engine, settings)?;
        let view = View::new(&read(reference, "reference")?)?;
        let clip = view.sampled(settings.frames, settings.width, settings.height)?;
        exit::stop_at_exit();
        give(job, "job", OBJECTS.insert(engine.enqueue(work(clip, settings))?))
    }
}

/// Writes frames to the host, or their size where it asks for it. What the host describes is checked even where there
/// are no frames yet.
///
/// # Safety
/// `place` must be null or a structure that describes memory to write.
unsafe fn give_frames(frames: Option<&Frames>, what: &str, place: *mut HostFrames) -> Result<(), Failure> {
    // SAFETY: the caller's promise, here and below.
    let mut host = unsafe { read(place, "frames") }?;
    let asks_for_size = host.data.is_null() && host.frame_data.is_null();
    let view = if asks_for_size { None } else { Some(View::new(&host)?) };
    let frames = frames.ok_or_else(|| not_ready(what))?;
    let Some(view) = view else {
        (host.count, host.width, host.height) = (small(frames.count()), small(frames.width), small(frames.height));
        unsafe { place.write(host) };
        return Ok(());
    };
    unsafe { view.write(frames) }
}

/// Takes a handle from the host and the object from the table; nothing to do where the handle is 0.
///
/// # Safety
/// `handle` must be null or point at a handle.
unsafe fn destroy<T: handles::Kind>(handle: *mut u64) -> Result<Option<Arc<T>>, Failure> {
    pointer(handle, "the pointer to the handle")?;
    // SAFETY: the caller's promise.
    let value = unsafe { handle.read() };
    if boundary::is_forked() {
        // What is here is a copy of the parent's memory, which goes with this process.
        // SAFETY: the caller's promise.
        unsafe { handle.write(0) };
        return Ok(None);
    }
    if value == 0 {
        return Ok(None);
    }
    let object = OBJECTS.remove(value)?;
    // SAFETY: the caller's promise.
    unsafe { handle.write(0) };
    Ok(Some(object))
}

/// The version of the library, such as "0.1.0". Never fails; the text is static. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn motionclone_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// The library's MOTIONCLONE_ABI_VERSION. A host whose header has another must not use the library. Never fails. Any
/// thread.
#[unsafe(no_mangle)]
pub extern "C" fn motionclone_abi_version() -> u32 {
    ABI_VERSION
}

/// A short text in English for a motionclone_status, also for one that this version does not know. Never fails; the
/// text is static. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn motionclone_status_text(status: u32) -> *const c_char {
    let text = match status {
        0 => c"ok",
        1 => c"invalid argument",
        2 => c"invalid handle",
        3 => c"wrong struct_size",
        4 => c"invalid input",
        5 => c"wrong buffer size",
        6 => c"not ready",
        7 => c"timeout",
        8 => c"cancelled",
        9 => c"wrong thread",
        10 => c"failed",
        11 => c"internal error",
        12 => c"wrong process",
        _ => c"unknown status",
    };
    text.as_ptr()
}

/// What went wrong in the last call on this thread that failed: a sentence for people, in UTF-8, with the offending
/// value and what is allowed. Empty when none failed yet. Never fails; the text belongs to the library and lives until
/// the next call on this thread that fails, or the thread's end. A job has its own text: motionclone_job_error.
#[unsafe(no_mangle)]
pub extern "C" fn motionclone_last_error() -> *const c_char {
    boundary::last_error()
}

/// Destroys everything that is still there: cancels all jobs, waits for all threads of the library to end, and makes
/// every handle stale. The library can be used again afterwards. Runs by itself when the process exits.
///
/// The library itself stays loaded once it was, whatever is unloaded: ONNX Runtime does not survive being torn down and
/// set up again. A host that unloads its plugins calls this first.
///
/// Any thread but an engine's own. MOTIONCLONE_STATUS_WRONG_THREAD from a log function on an engine's thread.
#[unsafe(no_mangle)]
pub extern "C" fn motionclone_shutdown() -> Status {
    call_anywhere(|| {
        if boundary::is_forked() {
            return Ok(());
        }
        worker::may_wait()?;
        OBJECTS.destroy_all(Instant::now() + PATIENCE);
        Ok(())
    })
}

/// Fills options with defaults.
///
/// `struct_size` is sizeof(motionclone_engine_options). Any thread.
///
/// INVALID_ARGUMENT: options is NULL. INVALID_STRUCT_SIZE: struct_size is another one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_engine_options_init(
    options: *mut HostEngineOptions,
    struct_size: usize,
) -> Status {
    let value = HostEngineOptions {
        struct_size,
        device_kind: DeviceKind::Auto as u32,
        device_number: 0,
        threads: 0,
        memory_budget: 0,
        onnxruntime: ptr::null(),
        log: None,
        log_user_data: ptr::null_mut(),
    };
    // SAFETY: the pointer is one to a structure of that size, says the header.
    call_anywhere(|| unsafe { initialise(options, struct_size, "options", value) })
}

/// Fills a device with zeros, to be filled by a later call.
///
/// `struct_size` is sizeof(motionclone_device). Any thread.
///
/// INVALID_ARGUMENT: device is NULL. INVALID_STRUCT_SIZE: struct_size is another one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_device_init(device: *mut HostDevice, struct_size: usize) -> Status {
    // SAFETY: the pointer is one to a structure of that size, says the header.
    call_anywhere(|| unsafe { initialise(device, struct_size, "device", HostDevice::empty()) })
}

/// Fills frames with defaults: RGB of 8 bit in sRGB, rows from the top, no gaps, no memory, and no size.
///
/// `struct_size` is sizeof(motionclone_frames). Any thread.
///
/// INVALID_ARGUMENT: frames is NULL. INVALID_STRUCT_SIZE: struct_size is another one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_frames_init(frames: *mut HostFrames, struct_size: usize) -> Status {
    let value = HostFrames {
        struct_size,
        data: ptr::null_mut(),
        frame_data: ptr::null(),
        row_stride: 0,
        frame_stride: 0,
        count: 0,
        width: 0,
        height: 0,
        channels: Channels::Rgb as u32,
        sample: Sample::U8 as u32,
        row_order: RowOrder::TopDown as u32,
        alpha: Alpha::Straight as u32,
        transfer: Transfer::Srgb as u32,
    };
    // SAFETY: the pointer is one to a structure of that size, says the header.
    call_anywhere(|| unsafe { initialise(frames, struct_size, "frames", value) })
}

/// Fills an image with defaults: no pixels, at frame 0.
///
/// `struct_size` is sizeof(motionclone_image). Any thread.
///
/// INVALID_ARGUMENT: image is NULL. INVALID_STRUCT_SIZE: struct_size is another one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_image_init(image: *mut HostImage, struct_size: usize) -> Status {
    let value = HostImage { struct_size, pixels: ptr::null(), frame: 0, reserved: 0 };
    // SAFETY: the pointer is one to a structure of that size, says the header.
    call_anywhere(|| unsafe { initialise(image, struct_size, "image", value) })
}

/// Fills settings with the defaults of an engine's model; texts are NULL, and there are no images.
///
/// `struct_size` is sizeof(motionclone_settings). Any thread.
///
/// INVALID_ARGUMENT: settings is NULL. INVALID_STRUCT_SIZE: struct_size is another one. INVALID_HANDLE: engine is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_settings_init(
    settings: *mut HostSettings,
    struct_size: usize,
    engine: EngineHandle,
) -> Status {
    call(|| {
        pointer(settings, "settings")?;
        check_size::<HostSettings>(struct_size, "settings")?;
        let engine = OBJECTS.get::<Worker>(engine)?;
        let own = Settings::new(&engine.manifest.defaults, "");
        let mut value = HostSettings { struct_size, ..describe::empty() };
        describe::give_settings(&mut value, &own);
        // SAFETY: the pointer is one to a structure of that size, says the header.
        unsafe { initialise(settings, struct_size, "settings", value) }
    })
}

/// Fills progress with zeros, to be filled by motionclone_job_progress.
///
/// `struct_size` is sizeof(motionclone_progress). Any thread.
///
/// INVALID_ARGUMENT: progress is NULL. INVALID_STRUCT_SIZE: struct_size is another one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_progress_init(progress: *mut HostProgress, struct_size: usize) -> Status {
    // SAFETY: the pointer is one to a structure of that size, says the header.
    call_anywhere(|| unsafe { initialise(progress, struct_size, "progress", HostProgress::new(JobState::Queued)) })
}

/// Fills a motion's info with zeros, to be filled by motionclone_motion_info_get.
///
/// `struct_size` is sizeof(motionclone_motion_info). Any thread.
///
/// INVALID_ARGUMENT: info is NULL. INVALID_STRUCT_SIZE: struct_size is another one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_motion_info_init(info: *mut HostMotionInfo, struct_size: usize) -> Status {
    let value = HostMotionInfo {
        struct_size,
        width: 0,
        height: 0,
        frames: 0,
        noise_step: 0,
        top_k: 0,
        image_count: 0,
        seed: 0,
    };
    // SAFETY: the pointer is one to a structure of that size, says the header.
    call_anywhere(|| unsafe { initialise(info, struct_size, "info", value) })
}

/// Lists the devices that an engine can be made on: the CPU first, then every CUDA device that works. Loads ONNX
/// Runtime, and tries each CUDA device, which takes a second or more.
///
/// `onnxruntime` is as in the options of an engine. `devices` is an array of `capacity` structures, each initialised
/// with motionclone_device_init; NULL with a capacity of 0 asks for the count alone. The number of devices there are
/// goes to `count`; no more than `capacity` are written. Any thread.
///
/// INVALID_ARGUMENT: count is NULL, or devices is and capacity is not 0. INVALID_STRUCT_SIZE: a device is not
/// initialised. INVALID_INPUT: ONNX Runtime cannot be loaded.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_devices(
    onnxruntime: *const c_char,
    devices: *mut HostDevice,
    capacity: usize,
    count: *mut usize,
) -> Status {
    // SAFETY: the pointers are as the header says.
    call(|| unsafe {
        pointer(count, "count")?;
        if capacity > 0 {
            // All of the array's elements are looked at before any is written.
            pointer(devices, "devices")?;
            for index in 0..capacity {
                sized(devices.add(index), "devices")?;
            }
        }
        boundary::own_process();
        let _inside = exit::enter()?;
        exit::stop_at_exit();
        let runtime = Runtime::load(text(onnxruntime, "onnxruntime")?.map(Path::new))?;
        let found = engine::devices(runtime);
        for (index, device) in found.iter().take(capacity).enumerate() {
            devices.add(index).write(HostDevice::new(*device));
        }
        give(count, "count", found.len())
    })
}

/// Makes an engine: opens a bundle, which is a folder that `motionclone import` makes, loads ONNX Runtime, and starts
/// a thread. Waits for all of it, well under a second on a CPU and a few seconds on a GPU. Networks are loaded by the
/// first job that needs them and stay while the sizes of jobs do.
///
/// `bundle` is a path in UTF-8; NULL takes the small embedded model, a folder `motionclone-bundle` beside the library or
/// the program, or the bundle that the environment variable MOTIONCLONE_BUNDLE names. `options` may be NULL for the
/// defaults. The engine belongs to the caller, who destroys
/// it with motionclone_engine_destroy. Several engines may be there at once. Any thread.
///
/// INVALID_ARGUMENT: engine is NULL, a text is not UTF-8, or device_kind has no such value.
/// INVALID_STRUCT_SIZE: options is not initialised. INVALID_INPUT: the bundle cannot be opened, ONNX Runtime cannot be
/// loaded, or the device does not work. FAILED: anything else. On failure nothing is written to engine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_engine_create(
    bundle: *const c_char,
    options: *const HostEngineOptions,
    engine: *mut EngineHandle,
) -> Status {
    // SAFETY: the pointers are as the header says.
    call(|| unsafe {
        pointer(engine, "engine")?;
        let bundle = text(bundle, "bundle")?.map_or_else(crate::bundle::embedded, |path| Ok(path.into()))?;
        let (mut own, mut log) = (EngineOptions::default(), Log::new(None, ptr::null_mut()));
        if !options.is_null() {
            let host = read(options, "options")?;
            own.device = device_of(host.device_kind, host.device_number)?;
            own.runtime = text(host.onnxruntime, "onnxruntime")?.map(Into::into);
            own.threads = (host.threads > 0).then_some(host.threads as usize);
            own.memory_budget = (host.memory_budget > 0).then_some(u64::from(host.memory_budget) << 20);
            log = Log::new(host.log, host.log_user_data);
        }
        boundary::own_process();
        let _inside = exit::enter()?;
        exit::stop_at_exit();
        let opened = crate::engine::Engine::open(&bundle, &own)?;
        exit::stop_at_exit();
        log.say(LogLevel::Info, &format!("{} on {}", opened.manifest().name, opened.device_and_reason()));
        log.say(LogLevel::Info, &format!("ONNX Runtime: {}", opened.runtime().library().display()));
        give(engine, "engine", OBJECTS.insert(Arc::new(Worker::start(opened, log)?)))
    })
}

/// Destroys an engine: cancels its jobs, waits until its thread has ended, which takes no longer than a step, and sets
/// the handle to 0. Jobs and motions have handles of their own, which stay valid until they are destroyed. While a
/// thread is in this call, the others find the handle stale. A handle of 0 is nothing to do.
///
/// Any thread but an engine's own.
///
/// INVALID_ARGUMENT: engine is NULL. INVALID_HANDLE: it points at no engine. WRONG_THREAD: called from a log function
/// on an engine's thread; nothing is destroyed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_engine_destroy(engine: *mut EngineHandle) -> Status {
    call_anywhere(|| {
        if !boundary::is_forked() {
            worker::may_wait()?;
        }
        // SAFETY: the pointer is as the header says.
        if let Some(engine) = unsafe { destroy::<Worker>(engine) }? {
            engine.stop(Instant::now() + PATIENCE);
        }
        Ok(())
    })
}

/// The device that an engine computes on, into a structure that was initialised with motionclone_device_init. Any
/// thread.
///
/// INVALID_ARGUMENT: device is NULL. INVALID_STRUCT_SIZE: it is not initialised. INVALID_HANDLE: engine is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_engine_device(engine: EngineHandle, device: *mut HostDevice) -> Status {
    // SAFETY: the pointer is as the header says.
    call(|| unsafe {
        sized(device, "device")?;
        give(device, "device", HostDevice::new(OBJECTS.get::<Worker>(engine)?.device))
    })
}

/// Starts a job that reads the motion of a clip. Its result is taken with motionclone_job_motion.
///
/// `reference` is the clip, of any size and any number of frames from 1: as many frames as the settings say are taken
/// evenly from it, resized and copied before the call returns. `settings` is copied, too. The job waits until the jobs
/// that were started before it on the same engine have ended. It belongs to the caller, who destroys it with
/// motionclone_job_destroy. Any thread.
///
/// INVALID_ARGUMENT: a pointer is NULL, a text is not UTF-8, or an enumeration has no such value. INVALID_HANDLE:
/// engine is none. INVALID_STRUCT_SIZE: a structure is not initialised. INVALID_INPUT: the settings do not fit the
/// model. On failure nothing is written to job.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_job_extract(
    engine: EngineHandle,
    reference: *const HostFrames,
    settings: *const HostSettings,
    job: *mut JobHandle,
) -> Status {
    // SAFETY: the pointers are as the header says.
    call(|| unsafe { start_with_clip(engine, reference, settings, job, Work::Extract) })
}

/// Starts a job that makes a new clip which moves like a reference clip. Its results are taken with
/// motionclone_job_frames, and the clip's motion, from when it was read, with motionclone_job_motion.
///
/// All else is as with motionclone_job_extract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_job_clone(
    engine: EngineHandle,
    reference: *const HostFrames,
    settings: *const HostSettings,
    job: *mut JobHandle,
) -> Status {
    // SAFETY: the pointers are as the header says.
    call(|| unsafe { start_with_clip(engine, reference, settings, job, Work::CloneClip) })
}

/// Starts a job that makes a new clip which moves like a motion that was read before. The motion may be destroyed once
/// the call has returned.
///
/// INVALID_INPUT: the motion does not fit the model or the settings. All else is as with motionclone_job_extract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_job_clone_motion(
    engine: EngineHandle,
    motion: MotionHandle,
    settings: *const HostSettings,
    job: *mut JobHandle,
) -> Status {
    call(|| {
        pointer(job, "job")?;
        let engine = OBJECTS.get::<Worker>(engine)?;
        let motion = OBJECTS.get::<Motion>(motion)?;
        // SAFETY: the pointer is as the header says.
        let settings = unsafe { settings_of(&engine, settings) }?;
        motion.check(&engine.manifest, &settings)?;
        let work = Work::CloneMotion(motion, settings);
        exit::stop_at_exit();
        // SAFETY: the pointer is as the header says.
        unsafe { give(job, "job", OBJECTS.insert(engine.enqueue(work)?)) }
    })
}

impl HostProgress {
    fn new(state: JobState) -> Self {
        Self {
            struct_size: size_of::<Self>(),
            state: state as u32,
            stage: JobStage::Load as u32,
            step: 0,
            total: 0,
            previews: 0,
            reserved: 0,
            loss: f64::NAN,
            seconds_left: f64::NAN,
        }
    }
}

/// How a job stands, into a structure that was initialised with motionclone_progress_init. Does not wait: hosts call it
/// as often as they draw. Any thread.
///
/// INVALID_ARGUMENT: progress is NULL. INVALID_STRUCT_SIZE: it is not initialised. INVALID_HANDLE: job is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_job_progress(job: JobHandle, progress: *mut HostProgress) -> Status {
    // SAFETY: the pointer is as the header says.
    call(|| unsafe {
        sized(progress, "progress")?;
        let standing = OBJECTS.get::<Job>(job)?.standing();
        let state = match (&standing.end, &standing.progress) {
            (None, None) => JobState::Queued,
            (None, Some(_)) => JobState::Running,
            (Some(Ok(())), _) => JobState::Done,
            (Some(Err(failure)), _) if failure.status == Status::Cancelled => JobState::Cancelled,
            (Some(Err(_)), _) => JobState::Failed,
        };
        let mut host = HostProgress { previews: standing.previews, ..HostProgress::new(state) };
        if let Some(progress) = standing.progress {
            let stage = match progress.stage {
                Stage::Load => JobStage::Load,
                Stage::Encode => JobStage::Encode,
                Stage::Extract => JobStage::Extract,
                Stage::Denoise => JobStage::Denoise,
                Stage::Decode => JobStage::Decode,
            };
            (host.stage, host.step, host.total) = (stage as u32, small(progress.step), small(progress.total));
            host.loss = progress.loss.unwrap_or(f64::NAN);
            host.seconds_left = progress.seconds_left.unwrap_or(f64::NAN);
        }
        give(progress, "progress", host)
    })
}

/// Waits until a job has ended, for at most so many milliseconds; without end where that is negative.
///
/// Returns what the job came to: OK, CANCELLED, INVALID_INPUT, FAILED or INTERNAL; or else TIMEOUT, INVALID_HANDLE, or
/// WRONG_THREAD when called from a log function on an engine's thread. Any other thread, several at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_job_wait(job: JobHandle, milliseconds: i64) -> Status {
    call(|| {
        worker::may_wait()?;
        let job = OBJECTS.get::<Job>(job)?;
        let limit = u64::try_from(milliseconds).ok().map(Duration::from_millis);
        job.wait(limit).unwrap_or_else(|| {
            Err(Failure::new(Status::Timeout, format!("the job has not ended within {milliseconds} ms")))
        })
    })
}

/// Asks a job to end: at once when it waits in the queue, within a step when it runs. Does not wait for it. A job that
/// has ended is left as it is. The engine goes on with its next job. Any thread, also a log function.
///
/// INVALID_HANDLE: job is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_job_cancel(job: JobHandle) -> Status {
    call(|| {
        OBJECTS.get::<Job>(job)?.cancel();
        Ok(())
    })
}

/// What the new clip looks like so far: all its frames, much smaller, into memory of the host, in whatever
/// layout the structure describes. With data and frame_data NULL it sets count, width and height and writes nothing
/// else. Any thread.
///
/// INVALID_ARGUMENT: frames is NULL, or describes no such memory. INVALID_STRUCT_SIZE: it is not initialised.
/// INVALID_HANDLE: job is none. NOT_READY: there is no preview yet, or the model makes none. BUFFER_SIZE: count, width
/// or height are not those of the preview.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_job_preview(job: JobHandle, frames: *mut HostFrames) -> Status {
    // SAFETY: the pointer is as the header says.
    call(|| unsafe {
        sized(frames, "frames")?;
        let preview = OBJECTS.get::<Job>(job)?.standing().preview;
        give_frames(preview.as_deref(), "preview", frames)
    })
}

/// The new clip, into memory of the host, in whatever layout the structure describes. With data and frame_data NULL it
/// sets count, width and height and writes nothing else. The job keeps the clip until it is destroyed. Any thread.
///
/// INVALID_ARGUMENT: frames is NULL, or describes no such memory. INVALID_STRUCT_SIZE: it is not initialised.
/// INVALID_HANDLE: job is none. NOT_READY: the job has not made a clip, or does not make one. BUFFER_SIZE: count, width
/// or height are not those of the clip.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_job_frames(job: JobHandle, frames: *mut HostFrames) -> Status {
    // SAFETY: the pointer is as the header says.
    call(|| unsafe {
        sized(frames, "frames")?;
        let result = OBJECTS.get::<Job>(job)?.standing().frames;
        give_frames(result.as_deref(), "clip", frames)
    })
}

/// The motion that a job has read or was given. It belongs to the caller, who destroys it with
/// motionclone_motion_destroy; it outlives job and engine. Any thread.
///
/// INVALID_ARGUMENT: motion is NULL. INVALID_HANDLE: job is none. NOT_READY: the job has not read it yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_job_motion(job: JobHandle, motion: *mut MotionHandle) -> Status {
    // SAFETY: the pointer is as the header says.
    call(|| unsafe {
        pointer(motion, "motion")?;
        let found = OBJECTS.get::<Job>(job)?.standing().motion.ok_or_else(|| not_ready("motion"))?;
        give(motion, "motion", OBJECTS.insert(found))
    })
}

fn not_ready(what: &str) -> Failure {
    Failure::new(Status::NotReady, format!("the job has no {what}"))
}

/// What went wrong in a job: a sentence for people, in UTF-8, empty where nothing did. Is copied into `buffer`, which
/// has room for `size` bytes, with a zero byte behind it. `needed` may be NULL; otherwise the bytes of text and zero
/// byte go there. With a buffer of NULL that is all that is done. Any thread.
///
/// INVALID_ARGUMENT: buffer and needed are NULL. INVALID_HANDLE: job is none. BUFFER_SIZE: the text does not fit;
/// nothing is copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_job_error(
    job: JobHandle,
    buffer: *mut c_char,
    size: usize,
    needed: *mut usize,
) -> Status {
    call(|| {
        let end = OBJECTS.get::<Job>(job)?.standing().end;
        let text = end.and_then(Result::err).map_or(String::new(), |failure| failure.text);
        // SAFETY: the pointers are as the header says.
        unsafe { copy_text(&text, buffer, size, needed) }
    })
}

/// Destroys a job and sets the handle to 0. One that has not ended is cancelled; this does not wait for it. A handle of
/// 0 is nothing to do. Any thread, also a log function.
///
/// INVALID_ARGUMENT: job is NULL. INVALID_HANDLE: it points at no job.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_job_destroy(job: *mut JobHandle) -> Status {
    call_anywhere(|| {
        // SAFETY: the pointer is as the header says.
        if let Some(job) = unsafe { destroy::<Job>(job) }? {
            job.cancel();
        }
        Ok(())
    })
}

/// Reads a motion from a file that motionclone_motion_save or the command line wrote. It belongs to the caller, who
/// destroys it with motionclone_motion_destroy. Any thread.
///
/// INVALID_ARGUMENT: path or motion is NULL, or path is not UTF-8. INVALID_INPUT: there is no such file, or it is no
/// motion. FAILED: it cannot be read. On failure nothing is written to motion.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_motion_load(file: *const c_char, motion: *mut MotionHandle) -> Status {
    // SAFETY: the pointers are as the header says.
    call(|| unsafe {
        pointer(motion, "motion")?;
        let loaded = Motion::load(path(file, "file")?)?;
        give(motion, "motion", OBJECTS.insert(Arc::new(loaded)))
    })
}

/// Writes a motion to a file (.safetensors), which is there whole or not at all. Any thread.
///
/// INVALID_ARGUMENT: file is NULL or not UTF-8. INVALID_HANDLE: motion is none. INVALID_INPUT, FAILED: the file cannot
/// be written there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_motion_save(motion: MotionHandle, file: *const c_char) -> Status {
    // SAFETY: the pointer is as the header says.
    call(|| unsafe {
        let file = path(file, "file")?;
        Ok(OBJECTS.get::<Motion>(motion)?.save(file)?)
    })
}

/// What a motion fits, into a structure that was initialised with motionclone_motion_info_init. Any thread.
///
/// INVALID_ARGUMENT: info is NULL. INVALID_STRUCT_SIZE: it is not initialised. INVALID_HANDLE: motion is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_motion_info_get(motion: MotionHandle, info: *mut HostMotionInfo) -> Status {
    // SAFETY: the pointer is as the header says.
    call(|| unsafe {
        sized(info, "info")?;
        let motion = OBJECTS.get::<Motion>(motion)?;
        let own = &motion.info;
        let host = HostMotionInfo {
            struct_size: size_of::<HostMotionInfo>(),
            width: small(own.width),
            height: small(own.height),
            frames: small(own.frames),
            noise_step: small(own.noise_step),
            top_k: small(own.top_k),
            image_count: small(own.control.as_ref().map_or(0, |control| control.frames.len())),
            seed: own.seed,
        };
        give(info, "info", host)
    })
}

/// All that is known of a motion, as JSON: what motionclone_motion_info_get gives, with the model's fingerprint, the
/// blocks, the images' kind, scale and frames, and a hash of the source clip. The buffer is as with
/// motionclone_job_error. Any thread.
///
/// INVALID_ARGUMENT: buffer and needed are NULL. INVALID_HANDLE: motion is none. BUFFER_SIZE: the text does not fit;
/// nothing is copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_motion_describe(
    motion: MotionHandle,
    buffer: *mut c_char,
    size: usize,
    needed: *mut usize,
) -> Status {
    call(|| {
        let motion = OBJECTS.get::<Motion>(motion)?;
        let text = serde_json::to_string(&motion.info)
            .map_err(|e| Failure::new(Status::Failed, format!("a motion's description: {e}")))?;
        // SAFETY: the pointers are as the header says.
        unsafe { copy_text(&text, buffer, size, needed) }
    })
}

/// Destroys a motion and sets the handle to 0. Jobs that use it go on. A handle of 0 is nothing to do. Any thread.
///
/// INVALID_ARGUMENT: motion is NULL. INVALID_HANDLE: it points at no motion.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_motion_destroy(motion: *mut MotionHandle) -> Status {
    // SAFETY: the pointer is as the header says.
    call_anywhere(|| unsafe { destroy::<Motion>(motion).map(drop) })
}
