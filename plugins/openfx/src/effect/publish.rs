//! Telling the host how things stand: the status, the result, and errors.
//!
//! The standard lets parameters be set in five actions alone. So the plugin's own thread only marks what is new, and the
//! next action tells it, unless the host is known to take it from any thread, or the user says so.

use std::sync::Arc;

use crate::effect::instance::{self, Instance};
use crate::effect::parameters::name;
use crate::effect::values::Values;
use crate::job::{Job, Listener};
use crate::ofx::messages;
use crate::ofx::suites::Host;

/// From where the host is called.
#[derive(Clone, Copy, PartialEq)]
pub enum CallContext {
    /// An action in which parameters may be set.
    Action,
    /// A render, in which they may not.
    Render,
    /// The plugin's own thread.
    Thread,
}

/// All instances, as those who wait for jobs.
pub struct Instances {
    /// The host that has loaded the plugin.
    pub host: fn() -> Option<Arc<Host>>,
}

impl Listener for Instances {
    fn notify(&self, job: &Arc<Job>) {
        for instance in instance::all() {
            let waits = instance.state().apply_status(job, job.status());
            if waits && let Some(host) = (self.host)() {
                instance.publish(&host, CallContext::Thread);
            }
        }
    }

    fn waits(&self, job: &Arc<Job>) -> bool {
        instance::all().iter().any(|instance| instance.state().waits_for(job))
    }
}

impl Instance {
    /// Tells the host what it does not know yet, as far as the context allows.
    pub fn publish(&self, host: &Host, context: CallContext) {
        let _call = match context {
            CallContext::Thread => {
                let state = self.state();
                if !state.live || state.waiting {
                    return;
                }
                drop(state);
                // The instance must not end while its host is called.
                let Some(call) = self.calls.enter() else { return };
                Some(call)
            }
            // While the plugin sets a parameter, hosts call actions that would do so, too; the call at work sees to it.
            CallContext::Action if self.state().published.publishers > 0 => return,
            _ => None,
        };
        self.publish_message(host, context);
        if context == CallContext::Render {
            return;
        }
        let Ok(values) = self.values(host) else { return };
        while self.publish_parameters(&values) {
            if context == CallContext::Thread && !self.state().live {
                return;
            }
        }
    }

    /// Sets the parameters that show how things stand. Another thread may do so at the same time, so that nobody knows
    /// whose value came last: then the last one to leave has to do it again, which is what true says. So it has when
    /// something has changed since.
    fn publish_parameters(&self, values: &Values) -> bool {
        let current = values.int(name::REFRESH);
        let (note, result, refresh, publication) = {
            let mut state = self.state();
            let (wanted, stale) = (state.result.clone(), std::mem::take(&mut state.stale));
            let note = (state.published.note.as_ref() != Some(&state.note)).then(|| state.note.clone());
            let published = &mut state.published;
            published.publishers += 1;
            published.publication += 1;
            let unknown = std::mem::take(&mut published.host_result_unknown);
            let result = (unknown || published.host_result != wanted).then_some(wanted);
            if let Some(result) = &result {
                // First known here, since the host may ask for a picture while it is set.
                published.host_result.clone_from(result);
            }
            let refresh = stale.then(|| {
                published.refresh = current.max(published.refresh).wrapping_add(1).max(0);
                published.refresh
            });
            (note, result, refresh, published.publication)
        };
        // A host that refuses is asked again when there is something new.
        if let Some(result) = &result {
            let _ = values.set_text(name::RESULT, result);
        }
        let noted = note.as_ref().is_none_or(|note| values.set_text(name::STATUS, note).is_ok());
        let refreshed = refresh.is_none_or(|refresh| values.set_int(name::REFRESH, refresh).is_ok());
        let mut state = self.state();
        state.stale |= !refreshed;
        let changed = note.as_ref().is_some_and(|note| *note != state.note)
            || result.as_ref().is_some_and(|result| *result != state.result);
        let published = &mut state.published;
        published.publishers -= 1;
        let alone = published.publication == publication && published.publishers == 0;
        if alone && noted {
            published.note = note.or(published.note.take());
        } else if !alone {
            published.note = None;
            published.host_result_unknown |= result.is_some();
        }
        published.publishers == 0 && noted && refreshed && (!alone || changed)
    }

    fn publish_message(&self, host: &Host, context: CallContext) {
        // A box of a thread that the host does not know is asking for trouble; it waits for the next action.
        if context == CallContext::Thread && !messages::can_persist(host) {
            return;
        }
        let (error, clear) = {
            let mut state = self.state();
            let published = &mut state.published;
            let clear = std::mem::take(&mut published.may_clear) && std::mem::take(&mut published.has_message);
            (state.error.take(), clear)
        };
        if clear {
            messages::clear(host, self.effect.0);
        }
        if let Some(error) = error
            && messages::error(host, self.effect.0, &error)
            && messages::can_persist(host)
        {
            self.state().published.has_message = true;
        }
    }
}
