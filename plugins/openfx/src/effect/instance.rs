//! Instances of the effect, by the host's handles.
//!
//! No lock is ever held while the host is called, because it may call back, or wait for another of its threads that is
//! here itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::effect::calls::Calls;
use crate::effect::state::{State, Work};
use crate::effect::values::Values;
use crate::ofx::suites::{Failed, Host, Result};
use crate::ofx::sys;
use crate::sync::lock;

/// The host's handle of an effect.
#[derive(Clone, Copy)]
pub struct Effect(pub sys::Handle);

// SAFETY: it is a name; what may be called with it when is what `Calls` is for.
unsafe impl Send for Effect {}
// SAFETY: as above.
unsafe impl Sync for Effect {}

/// An instance of the effect.
pub struct Instance {
    pub effect: Effect,
    /// Whether it has no source.
    pub generator: bool,
    pub calls: Calls,
    state: Mutex<State>,
}

static INSTANCES: Mutex<Option<HashMap<usize, Arc<Instance>>>> = Mutex::new(None);

/// The instance of a handle.
pub fn find(effect: sys::Handle) -> Result<Arc<Instance>> {
    let instances = lock(&INSTANCES);
    instances.as_ref().and_then(|all| all.get(&(effect as usize))).cloned().ok_or(Failed(sys::BAD_HANDLE))
}

/// All instances.
pub fn all() -> Vec<Arc<Instance>> {
    lock(&INSTANCES).as_ref().map(|all| all.values().cloned().collect()).unwrap_or_default()
}

/// Adds an instance.
pub fn insert(instance: &Arc<Instance>) {
    lock(&INSTANCES).get_or_insert_default().insert(instance.effect.0 as usize, instance.clone());
}

/// Takes the instance of a handle out.
pub fn remove(effect: sys::Handle) -> Option<Arc<Instance>> {
    lock(&INSTANCES).as_mut().and_then(|all| all.remove(&(effect as usize)))
}

/// Takes all instances out.
pub fn remove_all() -> Vec<Arc<Instance>> {
    lock(&INSTANCES).take().unwrap_or_default().into_values().collect()
}

impl Instance {
    /// An instance that shows and does nothing yet.
    pub fn new(effect: sys::Handle, generator: bool) -> Arc<Self> {
        Arc::new(Self { effect: Effect(effect), generator, calls: Calls::default(), state: Mutex::default() })
    }

    /// Its state, locked.
    pub fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Its parameters.
    pub fn values<'a>(&self, host: &'a Host) -> Result<Values<'a>> {
        Values::of(host, self.effect.0)
    }

    /// The times of the source that are to be read, if any.
    pub fn wanted_times(&self) -> Option<Vec<f64>> {
        match &self.state().work {
            Work::Gathering(gathering) => Some(gathering.times().collect()),
            Work::Reading(times) => Some(times.clone()),
            _ => None,
        }
    }

    /// Whether the host wants a render to end.
    pub fn aborted(&self, host: &Host) -> bool {
        // SAFETY: the handle is the host's.
        host.effect.abort.is_some_and(|abort| unsafe { abort(self.effect.0) } != 0)
    }
}
