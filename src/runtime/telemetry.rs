//! Keeps ONNX Runtime's telemetry off. Official builds send it unless the environment says otherwise when the library's
//! environment is created; a call afterwards comes too late, since by then a device id is kept on the disk and a thread
//! uploads.
//!
//! The process belongs to a host whose threads may read the environment at any time, and C offers readers no lock. So
//! the variable is there only while the library is loaded, and getting it there frees and moves nothing that a reader
//! may hold.

/// What ONNX Runtime asks for once, and the value that turns telemetry off.
const VARIABLE: &str = "ORT_DISABLE_TELEMETRY";
const OFF: &str = "1";

/// Telemetry is off for an ONNX Runtime whose environment is created while this lives. Afterwards the process has the
/// variables that it had.
pub(crate) struct TelemetryOff {
    previous: Option<std::ffi::OsString>,
}

impl TelemetryOff {
    /// Puts the variable into the process's environment. One at a time: the runtime is loaded once, in the cell that keeps it.
    pub(crate) fn new() -> Self {
        let previous = std::env::var_os(VARIABLE);
        if previous.as_deref() != Some(OFF.as_ref()) {
            variable::set(VARIABLE, OFF);
        }
        Self { previous }
    }
}

impl Drop for TelemetryOff {
    fn drop(&mut self) {
        match &self.previous {
            None => variable::remove(VARIABLE),
            Some(previous) if previous == OFF => {}
            Some(previous) => variable::restore(VARIABLE, previous),
        }
    }
}

/// A Unix process's variables are an array of `NAME=value` that ends with null, and `environ` points at it.
#[cfg(unix)]
mod variable {
    use std::ffi::{CStr, CString, OsStr, c_char, c_int};
    use std::os::unix::ffi::OsStrExt;
    use std::ptr;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicPtr, Ordering};

    use crate::sync::lock;

    type Entry = AtomicPtr<c_char>;

    /// What was put into the environment and may still be read, so that it is not taken for lost.
    static KEPT: Mutex<Vec<(&'static CStr, &'static [Entry])>> = Mutex::new(Vec::new());

    #[cfg(not(target_vendor = "apple"))]
    fn environ() -> *mut *mut *mut c_char {
        unsafe extern "C" {
            static mut environ: *mut *mut c_char;
        }
        &raw mut environ
    }

    /// Shared libraries have no `environ` of their own there.
    #[cfg(target_vendor = "apple")]
    fn environ() -> *mut *mut *mut c_char {
        unsafe extern "C" {
            fn _NSGetEnviron() -> *mut *mut *mut c_char;
        }
        // SAFETY: it takes nothing and always answers.
        unsafe { _NSGetEnviron() }
    }

    unsafe extern "C" {
        fn setenv(name: *const c_char, value: *const c_char, overwrite: c_int) -> c_int;
        fn unsetenv(name: *const c_char) -> c_int;
    }

    /// Puts a copy of the array, with the variable as its last entry, in the array's place. C's own `setenv` may free the
    /// array under another thread's `getenv`; the copy and what it copies stay for ever.
    pub(super) fn set(name: &str, value: &str) {
        let (Ok(entry), start) = (CString::new(format!("{name}={value}")), format!("{name}=")) else { return };
        let text: &'static CStr = Box::leak(entry.into_boxed_c_str());
        let entry = text.as_ptr().cast_mut();
        // SAFETY: `environ` is an aligned pointer that lives as long as the process; others access it as C does, by whole
        // words.
        let environ = unsafe { AtomicPtr::from_ptr(environ()) };
        loop {
            let old = environ.load(Ordering::Acquire);
            // SAFETY: what `environ` points at is an array that ends with null, or null itself.
            let entries = unsafe { entries(old) };
            let is_variable = |entry: *mut c_char| {
                // SAFETY: an entry is a text that ends with a zero byte, which the comparison does not pass.
                start.bytes().enumerate().all(|(at, byte)| unsafe { entry.add(at).read() } as u8 == byte)
            };
            let copied: Vec<*mut c_char> = entries.iter().map(|entry| entry.load(Ordering::Relaxed)).collect();
            let kept = copied.iter().map(|copy| if is_variable(*copy) { entry } else { *copy });
            let last = if copied.iter().any(|copy| is_variable(*copy)) { ptr::null_mut() } else { entry };
            let new: Vec<Entry> = kept.chain([last, ptr::null_mut()]).map(Entry::new).collect();
            let new: &'static [Entry] = Vec::leak(new);
            lock(&KEPT).push((text, new));
            let place = new.as_ptr().cast_mut().cast::<*mut c_char>();
            if environ.compare_exchange(old, place, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                // Another thread has put its own array there; the copy is of an old one.
                continue;
            }
            // A thread that replaced an entry while it was copied has written into the old array.
            for ((before, copied), after) in entries.iter().zip(&copied).zip(new) {
                let now = before.load(Ordering::Acquire);
                if now != *copied && !now.is_null() && !is_variable(now) {
                    let _ = after.compare_exchange(*copied, now, Ordering::AcqRel, Ordering::Relaxed);
                }
            }
            return;
        }
    }

    /// # Safety
    /// `array` must be null or end with null, and stay.
    unsafe fn entries<'a>(array: *mut *mut c_char) -> &'a [Entry] {
        let mut count = 0;
        if array.is_null() {
            return &[];
        }
        // SAFETY: no entry behind the null is looked at.
        while !unsafe { array.add(count).read() }.is_null() {
            count += 1;
        }
        // SAFETY: so many were just seen; an atomic pointer is laid out as a pointer.
        unsafe { std::slice::from_raw_parts(array.cast::<Entry>(), count) }
    }

    /// Takes the variable out with C's own function and under its lock, so that no write of another thread is lost. It is
    /// the last entry, unless another thread has added one meanwhile, so nothing is moved under a reader.
    pub(super) fn remove(name: &str) {
        let Ok(name) = CString::new(name) else { return };
        // SAFETY: the name ends with a zero byte.
        unsafe { unsetenv(name.as_ptr()) };
    }

    /// Gives the variable the value that it had, which replaces one pointer.
    pub(super) fn restore(name: &str, value: &OsStr) {
        let (Ok(name), Ok(value)) = (CString::new(name), CString::new(value.as_bytes())) else { return };
        // SAFETY: both end with a zero byte.
        unsafe { setenv(name.as_ptr(), value.as_ptr(), 1) };
    }
}

/// Windows keeps a process's variables behind a lock; its C runtime has a copy of them, behind another, and which of the
/// two a library asks is its own affair.
#[cfg(windows)]
mod variable {
    use std::ffi::{CString, OsStr, c_char, c_int};

    pub(super) fn set(name: &str, value: &str) {
        in_c_runtime(name, value);
        // SAFETY: Windows lets any thread do so at any time.
        unsafe { std::env::set_var(name, value) };
    }

    pub(super) fn remove(name: &str) {
        // An empty value takes a variable out.
        in_c_runtime(name, "");
        // SAFETY: as above.
        unsafe { std::env::remove_var(name) };
    }

    pub(super) fn restore(name: &str, value: &OsStr) {
        in_c_runtime(name, &value.to_string_lossy());
        // SAFETY: as above.
        unsafe { std::env::set_var(name, value) };
    }

    fn in_c_runtime(name: &str, value: &str) {
        type Put = unsafe extern "C" fn(*const c_char, *const c_char) -> c_int;
        let (Ok(name), Ok(value)) = (CString::new(name), CString::new(value)) else { return };
        // SAFETY: the C runtime is part of Windows and in nearly every process already.
        let Ok(library) = (unsafe { libloading::Library::new("ucrtbase.dll") }) else { return };
        // SAFETY: this is the function's type; it takes two texts that end with a zero byte.
        unsafe {
            if let Ok(put) = library.get::<Put>(b"_putenv_s\0") {
                put(name.as_ptr(), value.as_ptr());
            }
        }
        // Code of the C runtime must not go while anyone uses it.
        std::mem::forget(library);
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::ffi::{CStr, CString, c_char, c_int};
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    unsafe extern "C" {
        fn getenv(name: *const c_char) -> *const c_char;
        fn setenv(name: *const c_char, value: *const c_char, overwrite: c_int) -> c_int;
    }

    /// As C's programs read it.
    fn get(name: &CStr) -> Option<String> {
        // SAFETY: the name ends with a zero byte; values are never freed by the C library.
        let value = unsafe { getenv(name.as_ptr()) };
        // SAFETY: an answer that is not null is a text.
        (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) }.to_string_lossy().into_owned())
    }

    fn put(name: &CStr, value: &str) {
        let value = CString::new(value).unwrap();
        // SAFETY: both end with a zero byte; the tests here take turns.
        assert_eq!(unsafe { setenv(name.as_ptr(), value.as_ptr(), 1) }, 0);
    }

    /// Tests that change the process's variables take turns.
    static TURN: Mutex<()> = Mutex::new(());

    #[test]
    fn the_variable_is_there_only_meanwhile() {
        let _turn = TURN.lock().unwrap();
        let all = || std::env::vars_os().collect::<Vec<_>>();
        let name = CString::new(VARIABLE).unwrap();
        for previous in [None, Some("0"), Some("1"), Some("")] {
            match previous {
                None => variable::remove(VARIABLE),
                Some(value) => put(&name, value),
            }
            let before = all();
            {
                let _off = TelemetryOff::new();
                assert_eq!(get(&name).as_deref(), Some(OFF));
            }
            assert_eq!(all(), before);
            assert_eq!(get(&name).as_deref(), previous);
        }
        variable::remove(VARIABLE);
    }

    #[test]
    fn threads_may_read_and_write_meanwhile() {
        let _turn = TURN.lock().unwrap();
        let stop = AtomicBool::new(false);
        put(c"MOTIONCLONE_TEST_STAYS", "here");
        put(c"MOTIONCLONE_TEST_CHANGES", "0");
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        assert_eq!(get(c"MOTIONCLONE_TEST_STAYS").as_deref(), Some("here"));
                        assert!(get(c"MOTIONCLONE_TEST_NOT_THERE").is_none());
                    }
                });
            }
            let writer = scope.spawn(|| {
                let mut written = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    written += 1;
                    put(c"MOTIONCLONE_TEST_CHANGES", &(written % 1000).to_string());
                }
                written % 1000
            });
            for _ in 0..1000 {
                let off = TelemetryOff::new();
                assert_eq!(get(c"ORT_DISABLE_TELEMETRY").as_deref(), Some(OFF));
                drop(off);
                assert_eq!(get(c"ORT_DISABLE_TELEMETRY"), None);
            }
            stop.store(true, Ordering::Relaxed);
            let last = writer.join().unwrap();
            assert_eq!(get(c"MOTIONCLONE_TEST_CHANGES"), Some(last.to_string()), "a write was lost");
        });
    }
}
