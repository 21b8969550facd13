//! Engines and the devices that they run on.

use std::ffi::c_char;
use std::path::Path;
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::boundary::{
    self, Failure, call, call_anywhere, elements, give, give_structure, initialise, pointer, read, sized, text,
};
use super::worker::{self, Log, Worker};
use super::{DeviceKind, EngineHandle, HostDevice, HostEngineOptions, LogLevel, OBJECTS, Status, destroy, exit};
use crate::bundle::Bundle;
use crate::engine::{Engine, EngineOptions};
use crate::runtime::probe;
use crate::runtime::{Device, Runtime};

fn default_options() -> HostEngineOptions {
    HostEngineOptions {
        struct_size: size_of::<HostEngineOptions>(),
        device_kind: DeviceKind::Auto as u32,
        device_number: 0,
        threads: 0,
        memory_budget: 0,
        onnxruntime: ptr::null(),
        log: None,
        log_user_data: ptr::null_mut(),
    }
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
    // SAFETY: the pointer is one to a structure of that size, says the header.
    call_anywhere(|| unsafe { initialise(options, struct_size, "options", default_options()) })
}

/// Fills a device with zeros, to be filled by a later call.
///
/// `struct_size` is sizeof(motionclone_device). Any thread.
///
/// INVALID_ARGUMENT: device is NULL. INVALID_STRUCT_SIZE: struct_size is another one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_device_init(device: *mut HostDevice, struct_size: usize) -> Status {
    // SAFETY: the pointer is one to a structure of that size, says the header.
    call_anywhere(|| unsafe { initialise(device, struct_size, "device", no_device()) })
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
        // All of the array's elements are looked at before any is written.
        let places = elements(devices, capacity, "devices")?;
        let _inside = exit::enter()?;
        let runtime = Runtime::load_then(text(onnxruntime, "onnxruntime")?.map(Path::new), exit::stop_at_exit)?;
        exit::stop_at_exit();
        let found = probe::devices(runtime);
        for (place, device) in places.into_iter().zip(&found) {
            give_structure(place, "devices", host_device(*device))?;
        }
        give(count, "count", found.len())
    })
}

/// Begins to open an engine, and returns as soon as the bundle's description has been read: a bundle is a folder that
/// `motionclone import` makes. ONNX Runtime is loaded and the device tried on the engine's own thread, which takes well
/// under a second on a CPU and a few seconds on a GPU; the first job waits for it, and fails where it fails.
/// motionclone_engine_wait tells when it is done. Networks are loaded by the first job that needs them and stay while
/// the sizes of jobs do.
///
/// `bundle` is a path in UTF-8; NULL takes the small embedded model, a folder `motionclone-bundle` beside the library or
/// the program, or the bundle that the environment variable MOTIONCLONE_BUNDLE names. `options` may be NULL for the
/// defaults. The engine belongs to the caller, who destroys it with motionclone_engine_destroy. Several engines may be
/// there at once. Any thread.
///
/// INVALID_ARGUMENT: engine is NULL, a text is not UTF-8, or device_kind has no such value.
/// INVALID_STRUCT_SIZE: options is not initialised. INVALID_INPUT: the bundle cannot be opened. FAILED: anything else.
/// On failure nothing is written to engine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_engine_open(
    bundle: *const c_char,
    options: *const HostEngineOptions,
    engine: *mut EngineHandle,
) -> Status {
    // SAFETY: the pointers are as the header says.
    call(|| unsafe {
        pointer(engine, "engine")?;
        give(engine, "engine", OBJECTS.insert(Arc::new(open(bundle, options)?)))
    })
}

/// Waits until an engine is open, for at most so many milliseconds; without end where that is negative.
///
/// Returns OK, or what opening it failed with: INVALID_INPUT where ONNX Runtime cannot be loaded or the device does not
/// work, FAILED; or else TIMEOUT, INVALID_HANDLE, or WRONG_THREAD when called from a log function on an engine's thread.
/// Any other thread, several at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_engine_wait(engine: EngineHandle, milliseconds: i64) -> Status {
    call(|| {
        worker::may_wait()?;
        let engine = OBJECTS.get::<Worker>(engine)?;
        let limit = u64::try_from(milliseconds).ok().map(Duration::from_millis);
        match engine.wait(limit) {
            Some(opened) => opened.map(drop),
            None => Err(Failure::new(Status::Timeout, format!("the engine is not open within {milliseconds} ms"))),
        }
    })
}

/// Makes an engine: motionclone_engine_open and motionclone_engine_wait in one call.
///
/// INVALID_INPUT: the bundle cannot be opened, ONNX Runtime cannot be loaded, or the device does not work.
/// WRONG_THREAD: called from a log function on an engine's thread. All else is as with motionclone_engine_open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_engine_create(
    bundle: *const c_char,
    options: *const HostEngineOptions,
    engine: *mut EngineHandle,
) -> Status {
    // SAFETY: the pointers are as the header says.
    call(|| unsafe {
        pointer(engine, "engine")?;
        worker::may_wait()?;
        let worker = Arc::new(open(bundle, options)?);
        // In the table it is stopped when the process ends meanwhile.
        let mut handle = OBJECTS.insert(worker.clone());
        if let Some(Err(failure)) = worker.wait(None) {
            destroy::<Worker>(&mut handle)?;
            worker.stop(Instant::now() + STOP_TIMEOUT);
            return Err(failure);
        }
        give(engine, "engine", handle)
    })
}

/// Starts an engine's thread.
///
/// # Safety
/// As the header says of motionclone_engine_open.
unsafe fn open(bundle: *const c_char, options: *const HostEngineOptions) -> Result<Worker, Failure> {
    // SAFETY: the caller's promise, here and below.
    let bundle = unsafe { text(bundle, "bundle") }?.map_or_else(crate::bundle::embedded, |path| Ok(path.into()))?;
    let (mut own, mut log) = (EngineOptions::default(), Log::new(None, ptr::null_mut()));
    if !options.is_null() {
        let host = unsafe { read(options, "options", default_options()) }?;
        own.device = device_of(host.device_kind, host.device_number)?;
        own.runtime = unsafe { text(host.onnxruntime, "onnxruntime") }?.map(Into::into);
        own.threads = (host.threads > 0).then_some(host.threads as usize);
        own.memory_budget = (host.memory_budget > 0).then_some(u64::from(host.memory_budget) << 20);
        log = Log::new(host.log, host.log_user_data);
    }
    let bundle = Bundle::open(&bundle)?;
    let _inside = exit::enter()?;
    exit::stop_at_exit();
    Worker::start(bundle.manifest.clone(), log, move |log| {
        // What is registered before the library is loaded would run behind its own destructors.
        Runtime::load_then(own.runtime.as_deref(), exit::stop_at_exit)?;
        let engine = Engine::with_bundle(bundle, &own)?;
        exit::stop_at_exit();
        log.say(LogLevel::Info, &format!("{} on {}", engine.manifest().name, engine.device_and_reason()));
        log.say(LogLevel::Info, &format!("ONNX Runtime: {}", engine.runtime().library().display()));
        Ok(engine)
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
            engine.stop(Instant::now() + STOP_TIMEOUT);
        }
        Ok(())
    })
}

/// The device that an engine computes on, into a structure that was initialised with motionclone_device_init. Does not
/// wait. Any thread.
///
/// INVALID_ARGUMENT: device is NULL. INVALID_STRUCT_SIZE: it is not initialised. INVALID_HANDLE: engine is none.
/// NOT_READY: the engine is not open yet. INVALID_INPUT, FAILED: it could not be opened.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_engine_device(engine: EngineHandle, device: *mut HostDevice) -> Status {
    // SAFETY: the pointer is as the header says.
    call(|| unsafe {
        sized(device, "device")?;
        let opened = OBJECTS.get::<Worker>(engine)?.opened();
        let opened = opened.unwrap_or_else(|| Err(Failure::new(Status::NotReady, "the engine is not open yet")));
        give_structure(device, "device", host_device(opened?))
    })
}

/// The longest that destroying waits for an engine's thread. A step that is cancelled ends well before; only a device
/// or a log function that hangs does not.
pub(super) const STOP_TIMEOUT: Duration = Duration::from_secs(10);

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

/// The CPU, without a name.
fn no_device() -> HostDevice {
    HostDevice { struct_size: size_of::<HostDevice>(), kind: DeviceKind::Cpu as u32, number: 0, name: [0; 64] }
}

fn host_device(device: Device) -> HostDevice {
    let (kind, number, name) = match device {
        Device::Cuda(number) => (DeviceKind::Cuda, number, format!("CUDA device {number}")),
        Device::Auto | Device::Cpu => (DeviceKind::Cpu, 0, "CPU".to_string()),
    };
    let mut host = HostDevice { kind: kind as u32, number: number.unsigned_abs(), ..no_device() };
    let end = host.name.len() - 1;
    host.name[..end].iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from as c_char);
    host
}
