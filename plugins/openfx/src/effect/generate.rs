//! Generate: the reference is read, when the button is pressed or while the host renders, and the work begins.

use crate::effect::gather;
use crate::effect::gather::Gathering;
use crate::effect::instance::Instance;
use crate::effect::parameters::name;
use crate::effect::publish::Instances;
use crate::effect::state::Work;
use crate::effect::values::Values;
use crate::engine;
use crate::job::{self, Listener};
use crate::ofx::host;
use crate::ofx::messages::Dialog;
use crate::ofx::suites::{Host, Result};
use crate::request::{Request, Source};

/// All instances wait for jobs.
pub static LISTENER: &dyn Listener = &Instances { host: || host::host().ok() };

impl Instance {
    /// Begins what the parameters ask for; `time` is the host's, for the picture at Condition.
    ///
    /// # Errors
    /// When something is missing.
    pub fn generate(&self, host: &Host, values: &Values, time: f64) -> Result<(), String> {
        let generation = self.cancel("");
        self.state().published.may_clear = true;
        if let Some(missing) = engine::missing() {
            return Err(missing);
        }
        let request = self.request(host, values, || self.condition(host, values, time))?;
        if matches!(request.source, Source::Frames(_)) {
            let colours = values.int(name::COLOURS);
            let mut gathering = Gathering::plan(request, gather::reference_range(host, self.effect.0, values))?;
            let dialog = Dialog::open(host, self.effect.0, "MotionClone reads the reference");
            let continue_ = gathering.read(host, self.effect.0, None, colours, |share| dialog.update(share));
            drop(dialog);
            if !continue_ {
                self.state().note = "Cancelled.".into();
                return Ok(());
            }
            if gathering.is_enough(host) {
                self.start(gathering.finish()?, generation)?;
            } else {
                self.keep(gathering);
            }
        } else {
            self.start(request, generation)?;
        }
        if values.switch(name::WAIT) {
            self.wait(host);
        }
        Ok(())
    }

    /// Ends what is under way, if anything, and gives the generation of what comes next.
    pub fn cancel(&self, note: &str) -> u64 {
        let (job, generation) = {
            let mut state = self.state();
            (state.cancel(note), state.generation)
        };
        // Another instance may wait for the very same clip.
        if let Some(job) = job.filter(|job| !LISTENER.waits(job)) {
            job.cancel();
        }
        generation
    }

    /// Hands the work over, unless something else was begun since.
    fn start(&self, request: Request, generation: u64) -> Result<(), String> {
        let key = request.key()?;
        job::submit(key, request, LISTENER, |job| {
            let mut state = self.state();
            let current = state.generation == generation;
            if current {
                state.run(job);
            }
            current
        })
    }

    /// Lets the next renders read what is missing.
    fn keep(&self, gathering: Gathering) {
        let (there, all) = gathering.progress();
        let mut state = self.state();
        state.note = format!("Play the reference, so that its frames are read: {there} of {all}.");
        state.work = Work::Gathering(Box::new(gathering));
        state.stale = true;
    }

    /// Reads missing frames during a render.
    pub fn gather(&self, host: &Host, values: &Values, time: f64) {
        let (mut gathering, generation) = {
            let mut state = self.state();
            // While one render reads, the others go on without.
            let (gathering, generation) = (std::mem::take(&mut state.work), state.generation);
            let Work::Gathering(gathering) = gathering else {
                state.work = gathering;
                return;
            };
            state.work = Work::Reading(gathering.times().collect());
            (gathering, generation)
        };
        let colours = values.int(name::COLOURS);
        let continue_ = gathering.read(host, self.effect.0, Some(time), colours, |_| !self.aborted(host));
        let (there, all) = gathering.progress();
        {
            let mut state = self.state();
            if state.generation != generation {
                return;
            }
            if !continue_ || !gathering.is_enough(host) {
                state.note = format!("Play the reference, so that its frames are read: {there} of {all}.");
                if continue_ && host.temporal && there == 0 {
                    state.fail("The host does not hand out the source's frames.".into());
                }
                state.work = Work::Gathering(gathering);
                return;
            }
        }
        let outcome = gathering.finish().and_then(|request| self.start(request, generation));
        if let Err(message) = outcome {
            let mut state = self.state();
            if state.generation == generation {
                state.cancel("");
                state.fail(message);
            }
        }
    }

    /// Shows the host's progress dialog until the job has ended.
    fn wait(&self, host: &Host) {
        let Some(job) = self.state().job().cloned() else { return };
        self.state().waiting = true;
        let dialog = Dialog::open(host, self.effect.0, "MotionClone makes the clip");
        let status = job.wait(|share| dialog.update(share));
        drop(dialog);
        if !job.has_ended() {
            self.cancel("Cancelled.");
        }
        let mut state = self.state();
        state.apply_status(&job, status);
        state.waiting = false;
    }
}
