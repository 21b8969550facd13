//! Motions of clips.

use std::ffi::c_char;
use std::sync::Arc;

use super::boundary::{
    Failure, call, call_anywhere, copy_text, give, give_structure, initialise, path, pointer, sized,
};
use super::{HostMotionInfo, MotionHandle, OBJECTS, Status, destroy, small};
use crate::motion::Motion;

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
        give_structure(info, "info", host)
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
