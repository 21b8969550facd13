//! Cancellation tokens, and how they reach the work in hand.

use crate::error::{Error, Result};
use crate::sync::{Arc, AtomicBool, Mutex, Ordering, lock};

/// A cancellation token, shared by whoever asks and whoever works. Work stops inside the current network run.
#[derive(Clone, Default)]
pub struct Cancel {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    wanted: AtomicBool,
    /// Ends the work in hand.
    stop: Mutex<Option<Box<dyn Fn() + Send>>>,
}

impl std::fmt::Debug for Cancel {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_struct("Cancel").field("wanted", &self.is_cancelled()).finish_non_exhaustive()
    }
}

impl Cancel {
    /// Asks for the end, from any thread.
    pub fn cancel(&self) {
        self.shared.wanted.store(true, Ordering::SeqCst);
        if let Some(stop) = lock(&self.shared.stop).as_ref() {
            stop();
        }
    }

    /// Whether the end was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.shared.wanted.load(Ordering::SeqCst)
    }

    /// # Errors
    /// The cancelled error when the end was asked for.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::cancelled()) } else { Ok(()) }
    }

    /// Does work that `stop`, called from another thread, ends early.
    ///
    /// # Errors
    /// The cancelled error when the end was asked for before the work began.
    pub(crate) fn stoppable<T>(&self, stop: impl Fn() + Send + 'static, work: impl FnOnce() -> T) -> Result<T> {
        *lock(&self.shared.stop) = Some(Box::new(stop));
        // Whoever asked before this line is seen here, whoever asks after it finds what to call.
        let result = self.check().map(|()| work());
        *lock(&self.shared.stop) = None;
        result
    }
}
