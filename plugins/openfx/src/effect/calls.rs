//! Calls of the plugin's own thread into the host.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use crate::sync::lock;

/// How long the end of an instance waits for calls of the plugin's own thread into the host.
const CLOSING: Duration = Duration::from_secs(10);

/// Calls of the plugin's own thread into the host, which must not outlive the instance.
#[derive(Default)]
pub struct Calls {
    state: Mutex<CallsState>,
    changed: Condvar,
}

#[derive(Default)]
struct CallsState {
    closed: bool,
    active: usize,
}

/// A call at work.
pub struct Call<'a>(&'a Calls);

impl Calls {
    /// Lets a call in, which has ended when it is dropped; none once it is closed.
    pub fn enter(&self) -> Option<Call<'_>> {
        let mut state = lock(&self.state);
        if state.closed {
            return None;
        }
        state.active += 1;
        Some(Call(self))
    }

    /// Lets no more in and waits for those inside; not without end, since one of them may wait for this very thread.
    pub fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        let inside = |state: &mut CallsState| state.active > 0;
        drop(self.changed.wait_timeout_while(state, CLOSING, inside));
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).active -= 1;
        self.0.changed.notify_all();
    }
}
