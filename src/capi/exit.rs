//! The end of the process: whatever the library still does is stopped before the libraries that it uses are torn down.
//!
//! What is registered last runs first at exit, so the handler is registered when ONNX Runtime has been loaded and again
//! with every job, for the libraries that were loaded in between.

use std::cell::Cell;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::boundary::{self, Failure};
use super::{OBJECTS, Status};

/// The longest that an exit waits for the library's threads.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);

static ENDING: AtomicBool = AtomicBool::new(false);
/// Calls of hosts that are inside ONNX Runtime.
static INSIDE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static OWN: Cell<usize> = const { Cell::new(0) };
}

/// A call that is inside ONNX Runtime on the host's thread, as long as it lives.
pub struct Inside(());

/// Begins a call that uses ONNX Runtime on the host's thread.
///
/// # Errors
/// When the process is ending.
pub fn enter() -> Result<Inside, Failure> {
    boundary::own_process();
    INSIDE.fetch_add(1, Ordering::SeqCst);
    OWN.set(OWN.get() + 1);
    let inside = Inside(());
    // Whoever ends the process first says so and then counts.
    if ENDING.load(Ordering::SeqCst) {
        return Err(Failure::new(Status::Failed, "the process is ending"));
    }
    Ok(inside)
}

impl Drop for Inside {
    fn drop(&mut self) {
        OWN.set(OWN.get() - 1);
        INSIDE.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Stops everything, and waits no longer than the limit. Whether nothing is inside ONNX Runtime any more.
fn stop() -> bool {
    let deadline = Instant::now() + EXIT_TIMEOUT;
    ENDING.store(true, Ordering::SeqCst);
    let mut stopped = OBJECTS.silence_and_destroy_all(deadline);
    while INSIDE.load(Ordering::SeqCst) > OWN.get() {
        if Instant::now() >= deadline {
            stopped = false;
            break;
        }
        sleep(Duration::from_millis(1));
    }
    stopped
}

/// Stops everything when the process exits.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn stop_at_exit() {
    use std::ffi::{c_int, c_void};
    use std::ptr;

    unsafe extern "C" {
        /// Of the C library of GNU, as `atexit`, with the status that the process ends with.
        fn on_exit(handler: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
    }

    extern "C" fn handler(status: c_int, _: *mut c_void) {
        // Threads are not copied into a forked process, so there is nothing to stop.
        if boundary::is_forked() || catch_unwind(stop).unwrap_or(true) {
            return;
        }
        // A thread is still inside a library that would now be torn down under it. All that an exit owes the host behind
        // this is that its output is written.
        // SAFETY: null stands for all streams, and ending a process is always allowed.
        unsafe {
            libc::fflush(ptr::null_mut());
            libc::_exit(status);
        }
    }

    // SAFETY: the function lives as long as the library, which is never unloaded. Where there is no room for it, the
    // exit is as it would be without.
    let _ = unsafe { on_exit(handler, ptr::null_mut()) };
}

/// Stops everything when the process exits.
#[cfg(all(unix, not(all(target_os = "linux", target_env = "gnu"))))]
pub fn stop_at_exit() {
    extern "C" fn handler() {
        if !boundary::is_forked() {
            let _ = catch_unwind(stop);
        }
    }
    // SAFETY: the function lives as long as the library. Where there is no room for it, the exit is as it would be
    // without.
    let _ = unsafe { libc::atexit(handler) };
}

/// Windows ends a process's threads before it tears libraries down.
#[cfg(not(unix))]
pub fn stop_at_exit() {}
