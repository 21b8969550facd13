//! What threads share and wait with. [`crate::cancel`] and the C library take it from here alone, so that
//! `tests/capi_threads.rs` can put in its place what runs them in every order.

pub use std::sync::atomic::{AtomicBool, Ordering};
pub use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
pub use std::thread::{Builder, JoinHandle, current};

/// Locks; what a panic left behind is looked at all the same.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
