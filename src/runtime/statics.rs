//! ONNX Runtime's static objects, kept until the process is gone.
//!
//! C++ destroys a static object at exit in the opposite order of construction, and ONNX Runtime constructs many of its
//! own when they are first used: within the loading of the first network with such an operator. A thread that is inside
//! ONNX Runtime at exit would compute on destroyed tables, and no handler of ours could stop it before, as whatever was
//! registered last runs first. So what ONNX Runtime registers once it is loaded is not registered at all; the system
//! frees the process's memory anyway.

use std::path::Path;

/// Keeps the static objects that a loaded library constructs from now on. Does nothing where the system has no way for
/// that.
///
/// No other thread may be inside the library.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn keep(library: &Path) {
    use std::ffi::{c_int, c_void};

    use plthook::ObjectFile;

    /// In place of `__cxa_atexit`: 0 says that the destructor is registered.
    extern "C" fn not_registered(_: *const c_void, _: *mut c_void, _: *mut c_void) -> c_int {
        0
    }

    // SAFETY: the function has the signature of the one that it takes the place of, and this library is never unloaded.
    let replaced = ObjectFile::open_file(library)
        .and_then(|object| unsafe { object.replace("__cxa_atexit", not_registered as *const c_void) });
    // Without it the exit is as that of any other program.
    if let Ok(mut replaced) = replaced {
        replaced.discard();
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn keep(_: &Path) {}
