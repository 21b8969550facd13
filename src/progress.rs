//! Progress of a job: stages, events, time left.

use std::time::Instant;

use crate::media::frames::Frames;

/// A stage of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Networks are loaded.
    Load,
    /// Frames and images become latents.
    Encode,
    /// The clip's motion is read.
    Extract,
    /// The new clip is made.
    Denoise,
    /// Latents become frames.
    Decode,
}

/// Progress of the work.
#[derive(Debug, Clone)]
pub struct Progress {
    /// The stage at hand.
    pub stage: Stage,
    /// Steps done in it.
    pub step: usize,
    /// Steps in it.
    pub total: usize,
    /// The motion loss at the last step, where it was guided.
    pub loss: Option<f64>,
    /// Seconds to the end of the stage, once there is something to judge by.
    pub seconds_left: Option<f64>,
    /// The clip as it is so far, at latent size.
    pub preview: Option<Frames>,
}

/// A report of a job at work.
#[derive(Debug, Clone)]
pub enum Event {
    /// Progress.
    Progress(Progress),
    /// Something that the user should know and that does not stop the work.
    Warning(String),
}

/// Progress callback, called on the thread that runs the job.
pub type Watch<'a> = &'a mut dyn FnMut(Event);

pub(crate) fn report(watch: Watch, stage: Stage, step: usize, total: usize) {
    watch(Event::Progress(Progress { stage, step, total, loss: None, seconds_left: None, preview: None }));
}

/// Estimates the time left from the mean time of guided and of plain steps so far.
pub(crate) struct Clock {
    guided: Vec<bool>,
    last: Instant,
    spent: [(f64, usize); 2],
}

impl Clock {
    /// For steps that are guided or not.
    pub(crate) fn new(guided: Vec<bool>) -> Self {
        Self { guided, last: Instant::now(), spent: [(0.0, 0); 2] }
    }

    /// Seconds to the end after step `index`, which has just ended.
    pub(crate) fn seconds_left(&mut self, index: usize) -> f64 {
        let kind = usize::from(self.guided[index]);
        self.spent[kind].0 += self.last.elapsed().as_secs_f64();
        self.spent[kind].1 += 1;
        self.last = Instant::now();
        let mean = |kind: usize| {
            let (seconds, steps) = self.spent[kind];
            if steps > 0 { Some(seconds / steps as f64) } else { None }
        };
        let left = &self.guided[index + 1..];
        let guided = left.iter().filter(|g| **g).count() as f64;
        let plain = left.len() as f64 - guided;
        let known = mean(0).or(mean(1)).unwrap_or(0.0);
        plain * mean(0).unwrap_or(known) + guided * mean(1).unwrap_or(known)
    }
}
