//! Ctrl-C: the handler only notes it; long work asks, and leaves nothing half-written.

use std::sync::atomic::{AtomicBool, Ordering};

use motionclone::{Error, Result};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Notes Ctrl-C from now on instead of ending the process, and calls `on_request` for each.
///
/// # Errors
/// When the system takes no handler.
pub fn listen(on_request: impl Fn() + Send + 'static) -> Result<()> {
    ctrlc::set_handler(move || {
        REQUESTED.store(true, Ordering::SeqCst);
        on_request();
    })
    .map_err(|e| Error::failure(format!("Ctrl-C cannot be handled: {e}")))
}

/// Whether Ctrl-C was pressed.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// Ends the work in hand when Ctrl-C was pressed.
///
/// # Errors
/// When it was.
pub fn check() -> Result<()> {
    if requested() { Err(Error::failure("cancelled")) } else { Ok(()) }
}
