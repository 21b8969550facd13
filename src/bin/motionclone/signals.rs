//! Ctrl-C, termination and the end of a terminal's session, all taken as a wish to stop.

use motionclone::{Error, Result};

/// Calls `stop` when the process is asked to end: INT, TERM and HUP on Unix; Ctrl-C, Ctrl-Break, a closed console, log-off
/// and shutdown on Windows. A process that was started to outlive its terminal (`nohup`) does.
///
/// # Errors
/// When the system refuses.
pub fn on_termination(stop: impl FnMut() + Send + 'static) -> Result<()> {
    #[cfg(unix)]
    let outlives_terminal = unix::hangup_is_ignored();
    ctrlc::set_handler(stop).map_err(|e| Error::failure(format!("Ctrl-C cannot be handled: {e}")))?;
    #[cfg(unix)]
    if outlives_terminal {
        unix::ignore_hangup();
    }
    Ok(())
}

#[cfg(unix)]
mod unix {
    pub fn hangup_is_ignored() -> bool {
        // SAFETY: without a new action, the call only fills `old`, whose all-zero value is valid.
        let mut old: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: as above; `old` outlives the call.
        let result = unsafe { libc::sigaction(libc::SIGHUP, std::ptr::null(), &raw mut old) };
        result == 0 && old.sa_sigaction == libc::SIG_IGN
    }

    pub fn ignore_hangup() {
        // SAFETY: the default actions are valid for any signal; no handler of ours is involved.
        unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
    }
}
