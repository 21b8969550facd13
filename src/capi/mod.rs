//! The C library: everything that programs in other languages see. `include/motionclone.h` is made from the functions
//! here, in `engine`, `settings`, `job` and `motion`, and from the types of `motionclone-abi`, so their comments are
//! written for readers of C; the rules that hold for all of it stand at the header's beginning, in `cbindgen.toml`.
//!
//! What every call checks is in `boundary`. Behind it are the table of handles (`handles`), an engine's thread and its
//! jobs (`worker`), the host's frames (`frames`), and the end of the process (`exit`).
#![deny(missing_docs)]
// What a caller must promise is said once for all functions at the beginning of the header, for callers in C.
#![allow(clippy::missing_safety_doc)]

mod boundary;
mod describe;
mod engine;
mod exit;
mod floating_point;
mod frames;
mod handles;
mod job;
mod motion;
mod settings;
mod structures;
#[cfg(test)]
mod tests;
mod worker;

use std::ffi::c_char;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

pub use motionclone_abi::types::*;

use self::boundary::{Failure, call_anywhere, pointer};
pub use self::describe::*;
pub use self::engine::*;
use self::handles::Table;
pub use self::job::*;
pub use self::motion::*;
pub use self::settings::*;

static OBJECTS: LazyLock<Table> = LazyLock::new(Table::default);

/// Sizes of frames are far below 2³².
fn small(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
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
        OBJECTS.destroy_all(Instant::now() + engine::STOP_TIMEOUT);
        Ok(())
    })
}
