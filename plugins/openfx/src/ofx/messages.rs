//! Telling the user: persistent messages where the host has them, else message boxes; and its progress dialog.

use std::ffi::CStr;

use crate::ofx::suites::{Host, c_text};
use crate::ofx::sys;

const ERROR: &CStr = c"OfxMessageError";
/// Hosts show a message as printf does; so the text is never the format.
const FORMAT: &CStr = c"%s";

/// Whether messages can stand until they are cleared. Hosts exist whose table is there and empty.
pub fn can_persist(host: &Host) -> bool {
    host.message2.is_some_and(|suite| suite.set_persistent.is_some() && suite.clear_persistent.is_some())
}

/// Shows an error, in one way only. True when the host took it.
pub fn error(host: &Host, effect: sys::Handle, text: &str) -> bool {
    let text = c_text(text);
    let persistent = host.message2.filter(|_| can_persist(host)).and_then(|suite| suite.set_persistent);
    let boxes = || host.message.and_then(|suite| suite.message).or(host.message2.and_then(|suite| suite.message));
    let Some(show) = persistent.or_else(boxes) else { return false };
    // SAFETY: the effect is the host's; the texts live until the call returns.
    unsafe { show(effect, ERROR.as_ptr(), c"motionclone".as_ptr(), FORMAT.as_ptr(), text.as_ptr()) };
    true
}

/// Takes the persistent message back.
pub fn clear(host: &Host, effect: sys::Handle) {
    if let Some(clear) = host.message2.and_then(|suite| suite.clear_persistent) {
        // SAFETY: the effect is the host's.
        unsafe { clear(effect) };
    }
}

/// The host's progress dialog, gone when dropped. It does nothing in a host without one.
pub struct Dialog<'a> {
    host: &'a Host,
    effect: sys::Handle,
}

impl<'a> Dialog<'a> {
    pub fn open(host: &'a Host, effect: sys::Handle, text: &str) -> Self {
        let text = c_text(text);
        // SAFETY: the effect is the host's, here and below; the texts live until the call returns.
        unsafe {
            if let Some(start) = host.progress2.and_then(|suite| suite.start) {
                start(effect, text.as_ptr(), c"motionclone".as_ptr());
            } else if let Some(start) = host.progress.and_then(|suite| suite.start) {
                start(effect, text.as_ptr());
            }
        }
        Self { host, effect }
    }

    /// Shows a share of 0 to 1; false when the user wants to stop.
    pub fn update(&self, share: f64) -> bool {
        let second = self.host.progress2.filter(|suite| suite.start.is_some()).and_then(|suite| suite.update);
        let Some(update) = second.or_else(|| self.host.progress?.update) else { return true };
        // SAFETY: as above.
        unsafe { update(self.effect, share.clamp(0.0, 1.0)) != sys::REPLY_NO }
    }
}

impl Drop for Dialog<'_> {
    fn drop(&mut self) {
        let second = self.host.progress2.filter(|suite| suite.start.is_some()).and_then(|suite| suite.end);
        if let Some(end) = second.or_else(|| self.host.progress?.end) {
            // SAFETY: as above.
            unsafe { end(self.effect) };
        }
    }
}
