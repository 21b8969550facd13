//! Footage for a render: the clip, or the source where the project has none; never something else in its place.

use std::sync::Arc;

use crate::clips::clip::Clip;
use crate::effect::clips::{how, missing};
use crate::effect::gather::{self, Gathering};
use crate::effect::generate::LISTENER;
use crate::effect::instance::Instance;
use crate::effect::parameters::{choice, name};
use crate::effect::request::store;
use crate::effect::state::{Footage, Work};
use crate::effect::values::Values;
use crate::engine;
use crate::job::{self, Job, Status};
use crate::ofx::messages::Dialog;
use crate::ofx::suites::Host;
use crate::request::{Request, Source};
use crate::stop::Stop;

/// What a render shows.
pub enum Shown {
    Clip(Arc<Clip>),
    Source,
}

impl Instance {
    /// Whether a render shows the source as it is.
    pub fn shows_the_source(&self, values: &Values) -> bool {
        let state = self.state();
        let idle = !matches!(state.work, Work::Gathering(_) | Work::Reading(_));
        let source = match state.footage {
            Footage::Clip { .. } => false,
            Footage::Source => true,
            Footage::Missing { .. } => values.int(name::WHEN_MISSING) == choice::MISSING_SOURCE,
        };
        idle && source && !values.switch(name::MAKE)
    }

    /// What a render at a time shows. `batch` says that nobody looks at it while it is rendered.
    ///
    /// # Errors
    /// When there should be a clip and is none; cancelled, when the host does not want the render any more.
    pub fn shown(&self, host: &Host, values: &Values, time: f64, batch: bool) -> Result<Shown, Stop> {
        if values.switch(name::MAKE) {
            return self.make(host, values, time, None).map(Shown::Clip);
        }
        let keys = match &self.state().footage {
            Footage::Clip { clip, .. } => return Ok(Shown::Clip(clip.clone())),
            Footage::Source => return Ok(Shown::Source),
            Footage::Missing { keys } => keys.clone(),
        };
        match values.int(name::WHEN_MISSING) {
            choice::MISSING_SOURCE => Ok(Shown::Source),
            choice::MISSING_MAKE if batch => self.make(host, values, time, Some(&keys)).map(Shown::Clip),
            _ => Err(Stop::Failed(missing(host, &keys))),
        }
    }

    /// The times of the source that a render will read to make the clip, if any.
    pub fn times_to_make(&self, host: &Host, values: &Values) -> Option<Vec<f64>> {
        {
            let state = self.state();
            let again = matches!(state.footage, Footage::Missing { .. })
                && values.int(name::WHEN_MISSING) == choice::MISSING_MAKE;
            if state.rendered.is_some() || !(again || values.switch(name::MAKE)) {
                return None;
            }
        }
        // The picture at Condition has nothing to do with it.
        let request = self.request(host, values, || Ok(None)).ok()?;
        if !matches!(request.source, Source::Frames(_)) {
            return None;
        }
        let plan = Gathering::plan(request, gather::reference_range(host, self.effect.0, values)).ok()?;
        Some(plan.times().collect())
    }

    /// Makes the clip that the parameters ask for, unless it is there. Where a clip is missing, `keys` are its names, and
    /// parameters that would make another one are an error.
    fn make(&self, host: &Host, values: &Values, time: f64, keys: Option<&str>) -> Result<Arc<Clip>, Stop> {
        let files = self.request(host, values, || self.condition(host, values, time))?;
        let recipe = files.recipe();
        if let Some(keys) = keys
            && !keys.split_whitespace().any(|key| key.starts_with(&recipe))
        {
            let other = "It cannot be made again, as the parameters were changed since";
            return Err(format!("{} {other}.", missing(host, keys).replace(&format!(": {}.", how(host)), ".")).into());
        }
        // Frames of the host are read once, not for every frame that is rendered.
        let known = self.state().rendered.clone();
        if let Some((made_by, key)) = known
            && made_by == recipe
            && matches!(files.source, Source::Frames(_))
            && let Some(clip) = files.store.load(&key)
        {
            return Ok(clip);
        }
        let request = match files.source {
            Source::Frames(_) => self.read(host, values, files)?,
            _ => files,
        };
        let (key, store) = (request.key()?, store(values));
        let about = request.about();
        let clip = match store.load(&key) {
            Some(clip) => {
                // Another project has made it, or its own folder was emptied.
                if let Some(problem) = store.keep(&key, &clip, &about) {
                    self.state().error = Some(problem);
                }
                clip
            }
            None => self.work(host, key.clone(), request)?,
        };
        self.state().rendered = Some((recipe, key.clone()));
        self.show(&key, clip.clone());
        Ok(clip)
    }

    /// Reads the reference's frames in the render.
    fn read(&self, host: &Host, values: &Values, request: Request) -> Result<Request, Stop> {
        let mut gathering = Gathering::plan(request, gather::reference_range(host, self.effect.0, values))?;
        let colours = values.int(name::COLOURS);
        let continue_ = gathering.read(host, self.effect.0, None, colours, |_| !self.aborted(host));
        if !continue_ {
            return Err(Stop::Cancelled);
        }
        if !host.temporal || !gathering.is_enough(host) {
            let text = "The host does not hand out the source's frames while it renders: choose the clip's file as \
                        Reference file.";
            return Err(text.into());
        }
        Ok(gathering.finish()?)
    }

    /// Has the clip made, and waits.
    fn work(&self, host: &Host, key: String, request: Request) -> Result<Arc<Clip>, Stop> {
        if let Some(missing) = engine::missing() {
            return Err(Stop::Failed(missing));
        }
        let mut joined: Option<Arc<Job>> = None;
        job::submit(key, request, LISTENER, |job| {
            joined = Some(job.clone());
            true
        })?;
        let job = joined.ok_or("There is no job for the clip.")?;
        let dialog = (!host.background).then(|| Dialog::open(host, self.effect.0, "MotionClone makes the clip"));
        let status = job.wait(|share| {
            let goes_on = dialog.as_ref().is_none_or(|dialog| dialog.update(share));
            goes_on && !self.aborted(host)
        });
        match status {
            Status::Done(clip, problem) => {
                if let Some(problem) = problem {
                    self.state().error = Some(problem);
                }
                Ok(clip)
            }
            Status::Failed(message) => Err(Stop::Failed(message)),
            Status::Cancelled | Status::Waiting | Status::Running(..) => Err(Stop::Cancelled),
        }
    }
}
