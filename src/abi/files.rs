//! The names of the library's file and of ONNX Runtime's, and the folder to look in.

use std::path::PathBuf;

/// The C library's file.
pub const LIBRARY: &str = if cfg!(windows) {
    "motionclone.dll"
} else if cfg!(target_os = "macos") {
    "libmotionclone.dylib"
} else {
    "libmotionclone.so"
};

/// Names that ONNX Runtime's file may have, the usual one first.
pub const RUNTIMES: &[&str] = if cfg!(windows) {
    &["onnxruntime.dll"]
} else if cfg!(target_os = "macos") {
    &["libonnxruntime.dylib"]
} else {
    &["libonnxruntime.so", "libonnxruntime.so.1"]
};

/// The environment variable that names the C library's file or its folder, for hosts that load it.
pub const LIBRARY_VARIABLE: &str = "MOTIONCLONE_LIBRARY";

/// The environment variable that names ONNX Runtime's file.
pub const RUNTIME_VARIABLE: &str = "MOTIONCLONE_ONNXRUNTIME";

/// The folder of the file that this code was loaded from: the shared library, or the program that it is linked into.
#[cfg(unix)]
pub fn own_folder() -> Option<PathBuf> {
    use std::ffi::{CStr, OsStr};
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: the address is one of this library's code, and the answer is written into a structure of ours.
    let found = unsafe { libc::dladdr(own_folder as *const libc::c_void, info.as_mut_ptr()) };
    // SAFETY: all zero is a valid answer, too, and nothing else was written but by `dladdr`.
    let name = unsafe { info.assume_init() }.dli_fname;
    if found == 0 || name.is_null() {
        return None;
    }
    // SAFETY: the loader keeps the name as long as the library is loaded, which it is while this runs.
    let path = PathBuf::from(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes()));
    // For a program this is the word that it was called by; without a folder, it says nothing of where the program lies.
    path.parent().filter(|folder| !folder.as_os_str().is_empty())?;
    path.canonicalize().ok()?.parent().map(Path::to_path_buf)
}

/// The folder of the file that this code was loaded from; not known on this system.
#[cfg(not(unix))]
pub fn own_folder() -> Option<PathBuf> {
    None
}
