//! What the user sees while work goes on: a bar on a terminal, plain lines elsewhere; warnings and notices.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use motionclone::job::{Event, Progress, Stage};
use motionclone::media::video::ReadProgress;

/// Without a terminal, a line at most this often within a stage.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows progress on standard error.
pub struct Terminal {
    bar: Option<ProgressBar>,
    stage: String,
    /// Whether the stage's last step was shown.
    ended: bool,
    is_terminal: bool,
    last_line: Instant,
}

impl Terminal {
    pub fn new() -> Self {
        Self {
            bar: None,
            stage: String::new(),
            ended: false,
            is_terminal: std::io::stderr().is_terminal(),
            last_line: Instant::now(),
        }
    }

    /// Something that the user should know and that does not stop the work.
    pub fn warn(&mut self, message: impl AsRef<str>) {
        self.line(&format!("warning: {}", message.as_ref()));
    }

    /// Something worth a line.
    pub fn notice(&mut self, message: impl AsRef<str>) {
        self.line(message.as_ref());
    }

    fn line(&mut self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    /// Hears an engine's event.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::Warning(message) => self.warn(message),
            Event::Progress(progress) => {
                let unit = if matches!(progress.stage, Stage::Encode | Stage::Decode) { "frame" } else { "step" };
                let stage = match progress.stage {
                    Stage::Load => "loading networks",
                    Stage::Encode => "encoding",
                    Stage::Extract => "extracting motion",
                    Stage::Denoise => "denoising",
                    Stage::Decode => "decoding",
                };
                self.step(stage, unit, progress.step as u64, progress.total as u64, &details(progress));
            }
        }
    }

    /// Hears how far the reading of a clip is.
    pub fn reading(&mut self, progress: &ReadProgress) {
        let stage = if progress.is_decoding { "reading the clip" } else { "looking through the clip" };
        let (done, total) = (progress.done.max(0.0) as u64, progress.total.max(progress.done).ceil() as u64);
        self.step(stage, "second", done, total, "");
    }

    /// Shows how far a stage is; another stage than the last one begins anew.
    pub fn step(&mut self, stage: &str, unit: &str, step: u64, total: u64, details: &str) {
        let begins = self.stage != stage;
        if begins {
            self.finish();
            self.stage = stage.into();
            self.ended = false;
        }
        if self.is_terminal {
            let bar = self.bar.get_or_insert_with(|| {
                let bar = ProgressBar::new(total);
                if let Ok(style) = ProgressStyle::with_template("{prefix:>18} [{bar:30}] {pos}/{len} {msg}") {
                    bar.set_style(style.progress_chars("=> "));
                }
                bar.with_prefix(stage.to_string())
            });
            bar.set_length(total);
            bar.set_message(details.to_string());
            bar.set_position(step);
        } else if begins || (step == total && !self.ended) || self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            self.ended = step == total;
            let comma = if details.is_empty() { "" } else { ", " };
            eprintln!("{stage}: {unit} {step} of {total}{comma}{details}");
        }
    }

    /// Ends the stage at hand, so that other output may follow.
    pub fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.stage.clear();
    }
}

fn details(progress: &Progress) -> String {
    let mut details = Vec::new();
    if let Some(loss) = progress.loss {
        details.push(format!("loss {loss:.4}"));
    }
    if let Some(seconds) = progress.seconds_left.filter(|_| progress.step < progress.total) {
        details.push(format!("{} left", duration(seconds)));
    }
    details.join(", ")
}

/// A duration for people: `8 s`, `2 min 05 s`, `1 h 02 min`.
fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s:02} s"),
        (h, m, _) => format!("{h} h {m:02} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        for (seconds, text) in [(-1.0, "0 s"), (8.4, "8 s"), (125.0, "2 min 05 s"), (3725.0, "1 h 02 min")] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn details_name_loss_and_time() {
        let progress = |step, loss| Progress {
            stage: Stage::Denoise,
            step,
            total: 10,
            loss,
            seconds_left: Some(61.0),
            preview: None,
        };
        assert_eq!(details(&progress(3, Some(0.51239))), "loss 0.5124, 1 min 01 s left");
        assert_eq!(details(&progress(10, None)), "");
    }
}
