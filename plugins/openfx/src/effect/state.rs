//! What an instance shows, what it works on, and what the host knows of it.

use std::sync::Arc;

use crate::clips::clip::Clip;
use crate::effect::gather::Gathering;
use crate::job::{Job, Status};

/// What the project says is to be shown.
#[derive(Default)]
pub enum Footage {
    /// The source, as no clip was made yet.
    #[default]
    Source,
    Clip {
        key: String,
        clip: Arc<Clip>,
    },
    /// A clip that was made and is nowhere; `keys` is what the project holds, with blanks between.
    Missing {
        keys: String,
    },
}

impl Footage {
    /// What the project holds to find it again.
    pub fn keys(&self) -> &str {
        match self {
            Self::Source => "",
            Self::Clip { key, .. } => key,
            Self::Missing { keys } => keys,
        }
    }

    /// The first key.
    pub fn key(&self) -> &str {
        self.keys().split_whitespace().next().unwrap_or_default()
    }
}

/// What an instance works on.
#[derive(Default)]
pub enum Work {
    #[default]
    Idle,
    /// Renders are to read what is missing.
    Gathering(Box<Gathering>),
    /// A render has taken the gathering out and reads for it; it wants frames of these times.
    Reading(Vec<f64>),
    Running(Arc<Job>),
}

/// What the host was told, and what it is to be told.
#[derive(Default)]
pub struct Published {
    /// What the parameter `result` was seen to hold.
    pub host_result: String,
    /// The host may hold an older result than it was told, as two threads told it at once.
    pub host_result_unknown: bool,
    pub note: Option<String>,
    /// The last value given to the parameter `refresh`.
    pub refresh: i32,
    /// A persistent message stands, and may go.
    pub has_message: bool,
    pub may_clear: bool,
    /// The last error shown in a render, so that it is not shown with every frame.
    pub render_error: Option<String>,
    /// How many threads set parameters right now, and how often that was begun.
    pub publishers: usize,
    pub publication: u64,
}

/// An instance's state.
#[derive(Default)]
pub struct State {
    pub footage: Footage,
    pub work: Work,
    /// Grows whenever work begins or is cancelled, so that frames read for older work are dropped.
    pub generation: u64,
    /// What the parameter `result` should hold.
    pub result: String,
    /// What the status should say.
    pub note: String,
    /// An error that no message has shown yet.
    pub error: Option<String>,
    /// The host shows something older.
    pub stale: bool,
    /// Whether the plugin's own thread may set parameters.
    pub live: bool,
    /// An action waits and will tell by itself.
    pub waiting: bool,
    /// The clip that was made in a render, with the recipe it was made by.
    pub rendered: Option<(String, String)>,
    pub published: Published,
}

impl State {
    /// The job that is waited for.
    pub fn job(&self) -> Option<&Arc<Job>> {
        if let Work::Running(job) = &self.work { Some(job) } else { None }
    }

    /// Whether it waits for a job.
    pub fn waits_for(&self, job: &Arc<Job>) -> bool {
        self.job().is_some_and(|own| Arc::ptr_eq(own, job))
    }

    /// Shows an error.
    pub fn fail(&mut self, message: String) {
        self.note.clone_from(&message);
        self.error = Some(message);
    }

    /// Ends what is under way, and gives the job that was waited for.
    pub fn cancel(&mut self, note: &str) -> Option<Arc<Job>> {
        self.generation += 1;
        let work = std::mem::take(&mut self.work);
        if !matches!(work, Work::Idle) {
            self.result = self.footage.keys().into();
            self.note = note.into();
        }
        if let Work::Running(job) = work { Some(job) } else { None }
    }

    /// Waits for a job from now on, and shows what is there until then.
    pub fn run(&mut self, job: &Arc<Job>) {
        self.result = format!("{} {}", job.key, self.footage.key()).trim_end().into();
        self.note = "Waits for its turn.".into();
        self.work = Work::Running(job.clone());
    }

    /// Takes over a job's status; false when this instance does not wait for it.
    pub fn apply_status(&mut self, job: &Arc<Job>, status: Status) -> bool {
        if !self.waits_for(job) {
            return false;
        }
        match status {
            Status::Waiting => return true,
            Status::Running(text, _) => {
                self.note = text;
                return true;
            }
            Status::Done(clip, problem) => {
                self.footage = Footage::Clip { key: job.key.clone(), clip };
                (self.stale, self.published.may_clear) = (true, true);
                self.note = "The clip is there.".into();
                if let Some(problem) = problem {
                    self.note = format!("The clip is there. {problem}");
                    self.error = Some(problem);
                }
            }
            Status::Failed(message) => self.fail(message),
            Status::Cancelled => self.note = "Cancelled.".into(),
        }
        self.result = self.footage.keys().into();
        self.work = Work::Idle;
        true
    }
}
