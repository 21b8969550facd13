//! What the user sees while work goes on: a bar on a terminal, plain lines elsewhere, or JSON events for other programs
//! (`docs/progress.md`). All of it is advisory: a stream that cannot be written never ends the work.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use motionclone::Error;
use motionclone::job;
use motionclone::media::video::{ReadProgress, ReadStage};
use serde::Serialize;

/// Without a terminal, a line at most this often within a stage.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// JSON events of progress at most this often within a stage of small steps.
const EVENT_EVERY: Duration = Duration::from_millis(100);

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ProgressFormat {
    /// A bar on a terminal, lines elsewhere.
    #[default]
    Text,
    /// One JSON object a line, on standard output.
    Json,
}

/// Part of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    Import,
    Export,
    /// Listing when a clip's frames are shown.
    List,
    /// Reading the chosen frames.
    Read,
    Load,
    Encode,
    Extract,
    Denoise,
    Decode,
}

impl Stage {
    fn label(self) -> &'static str {
        match self {
            Self::Import => "importing",
            Self::Export => "copying weights",
            Self::List => "looking through the clip",
            Self::Read => "reading the clip",
            Self::Load => "loading networks",
            Self::Encode => "encoding",
            Self::Extract => "extracting motion",
            Self::Denoise => "denoising",
            Self::Decode => "decoding",
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::Import | Self::Export => "megabyte",
            Self::List | Self::Read => "second",
            Self::Encode | Self::Decode => "frame",
            Self::Load | Self::Extract | Self::Denoise => "step",
        }
    }
}

/// How far a stage is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Progress {
    pub stage: Stage,
    pub unit: &'static str,
    pub step: u64,
    pub total: u64,
    /// The motion loss of a guided step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// To the end of the stage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<f64>,
}

impl Progress {
    pub fn new(stage: Stage, step: u64, total: u64) -> Self {
        Self { stage, unit: stage.unit(), step, total, loss: None, seconds_left: None }
    }

    fn details(&self) -> String {
        let mut details = Vec::new();
        if let Some(loss) = self.loss {
            details.push(format!("loss {loss:.4}"));
        }
        if let Some(seconds) = self.seconds_left.filter(|_| self.step < self.total) {
            details.push(format!("{} left", duration(seconds)));
        }
        details.join(", ")
    }
}

impl From<&ReadProgress> for Progress {
    fn from(progress: &ReadProgress) -> Self {
        let (stage, unit) = match progress.stage {
            ReadStage::List => (Stage::List, "second"),
            ReadStage::Decode => (Stage::Read, "second"),
            ReadStage::Pictures => (Stage::Read, "picture"),
        };
        let done = progress.done.max(0.0);
        Self { unit, ..Self::new(stage, done as u64, progress.total.max(done).ceil() as u64) }
    }
}

impl From<&job::Progress> for Progress {
    fn from(progress: &job::Progress) -> Self {
        let stage = match progress.stage {
            job::Stage::Load => Stage::Load,
            job::Stage::Encode => Stage::Encode,
            job::Stage::Extract => Stage::Extract,
            job::Stage::Denoise => Stage::Denoise,
            job::Stage::Decode => Stage::Decode,
        };
        let finite = |value: Option<f64>| value.filter(|value| value.is_finite());
        Self {
            loss: finite(progress.loss),
            seconds_left: finite(progress.seconds_left),
            ..Self::new(stage, progress.step as u64, progress.total as u64)
        }
    }
}

/// One line of `--progress json`.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event<'a> {
    Started { command: &'a str, version: &'a str },
    Notice { message: &'a str },
    Warning { message: &'a str },
    Clip { index: usize, total: usize, prompt: &'a str },
    Progress(Progress),
    Written { path: String },
    Kept { path: String, message: &'a str },
    Done,
    Error { class: &'a str, message: String },
}

/// Shows progress and messages.
pub struct Terminal {
    display: Display,
    stage: Option<Stage>,
    /// Whether the stage's last step was shown.
    ended: bool,
    last: Instant,
}

enum Display {
    Bar(Option<ProgressBar>),
    Lines,
    Json,
}

impl Terminal {
    pub fn new(format: ProgressFormat) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let display = match format {
            ProgressFormat::Json => Display::Json,
            ProgressFormat::Text if std::io::stderr().is_terminal() && !dumb => Display::Bar(None),
            ProgressFormat::Text => Display::Lines,
        };
        Self { display, stage: None, ended: false, last: Instant::now() }
    }

    /// Names the command that begins; a JSON event only.
    pub fn started(&mut self, command: &str) {
        self.event(&Event::Started { command, version: env!("CARGO_PKG_VERSION") });
    }

    /// Something that the user should know and that does not stop the work.
    pub fn warn(&mut self, message: impl AsRef<str>) {
        self.event(&Event::Warning { message: message.as_ref() });
        self.line(&format!("warning: {}", message.as_ref()));
    }

    /// Something worth a line.
    pub fn notice(&mut self, message: impl AsRef<str>) {
        self.event(&Event::Notice { message: message.as_ref() });
        self.line(message.as_ref());
    }

    /// The next clip of a list; `index` counts from one.
    pub fn clip(&mut self, index: usize, total: usize, prompt: &str) {
        self.event(&Event::Clip { index, total, prompt });
        self.line(&format!("{index} of {total}: {prompt}"));
    }

    /// A result that is in its place.
    pub fn written(&mut self, path: &Path) {
        self.event(&Event::Written { path: path.to_string_lossy().into() });
        self.line(&format!("wrote {}", path.display()));
    }

    /// What was saved elsewhere because its result could not be written.
    pub fn kept(&mut self, path: &Path, message: &str) {
        self.event(&Event::Kept { path: path.to_string_lossy().into(), message });
        self.line(message);
    }

    /// The work ended well: the last JSON event.
    pub fn done(&mut self) {
        self.finish();
        self.event(&Event::Done);
    }

    /// The work ended with an error: the last line, and the last JSON event.
    pub fn failed(&mut self, error: &Error) {
        self.finish();
        let class = match () {
            () if error.is_cancelled() => "cancelled",
            () if error.is_input() => "input",
            () => "failure",
        };
        self.event(&Event::Error { class, message: error.to_string() });
        self.line(&if error.is_cancelled() { "cancelled".into() } else { format!("error: {error}") });
    }

    /// Takes an engine's event.
    pub fn engine(&mut self, event: &job::Event) {
        match event {
            job::Event::Warning(message) => self.warn(message),
            job::Event::Progress(progress) => self.progress(progress.into(), ""),
        }
    }

    /// Shows how far a stage is; another stage than the last one begins anew. `what` names the item at hand.
    pub fn progress(&mut self, progress: Progress, what: &str) {
        let Progress { stage, unit, step, total, .. } = progress;
        let begins = self.stage != Some(stage);
        if begins {
            self.finish();
            self.stage = Some(stage);
            self.ended = false;
        }
        let ends = step == total && !self.ended;
        let due = |every| begins || ends || self.last.elapsed() >= every;
        let shown = match &self.display {
            Display::Bar(_) => true,
            Display::Lines => due(LINE_EVERY),
            // Every step of the engine's stages is worth an event; the others have thousands.
            Display::Json => {
                !matches!(stage, Stage::Import | Stage::Export | Stage::List | Stage::Read) || due(EVENT_EVERY)
            }
        };
        if !shown {
            return;
        }
        self.last = Instant::now();
        self.ended = step == total;
        let details = if what.is_empty() { progress.details() } else { what.into() };
        match &mut self.display {
            Display::Bar(bar) => {
                let bar = bar.get_or_insert_with(|| {
                    let bar = ProgressBar::new(total);
                    if let Ok(style) = ProgressStyle::with_template("{prefix:>18} [{bar:30}] {pos}/{len} {msg}") {
                        bar.set_style(style.progress_chars("=> "));
                    }
                    bar.with_prefix(stage.label())
                });
                bar.set_length(total);
                bar.set_message(details);
                bar.set_position(step);
            }
            Display::Lines => {
                let comma = if details.is_empty() { "" } else { ", " };
                print_to_stderr(&format!("{}: {unit} {step} of {total}{comma}{details}", stage.label()));
            }
            Display::Json => self.event(&Event::Progress(progress)),
        }
    }

    /// Ends the stage at hand, so that other output may follow.
    pub fn finish(&mut self) {
        if let Display::Bar(bar) = &mut self.display
            && let Some(bar) = bar.take()
        {
            bar.finish_and_clear();
        }
        self.stage = None;
    }

    fn line(&mut self, line: &str) {
        match &self.display {
            Display::Bar(Some(bar)) => bar.suspend(|| print_to_stderr(line)),
            Display::Bar(None) | Display::Lines => print_to_stderr(line),
            Display::Json => {}
        }
    }

    fn event(&mut self, event: &Event) {
        if let (Display::Json, Ok(mut line)) = (&self.display, serde_json::to_vec(event)) {
            line.push(b'\n');
            let mut output = std::io::stdout().lock();
            // Nobody may be listening any more.
            let _ = output.write_all(&line).and_then(|()| output.flush());
        }
    }
}

/// Unlike `eprintln!`, which panics where the reader has gone away.
fn print_to_stderr(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
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
        let progress =
            |step, loss| Progress { loss, seconds_left: Some(61.0), ..Progress::new(Stage::Denoise, step, 10) };
        assert_eq!(progress(3, Some(0.51239)).details(), "loss 0.5124, 1 min 01 s left");
        assert_eq!(progress(10, None).details(), "");
    }

    #[test]
    fn events_are_as_documented() {
        let progress = Progress { loss: Some(0.5), ..Progress::new(Stage::Denoise, 3, 10) };
        assert_eq!(
            serde_json::to_string(&Event::Progress(progress)).expect("JSON"),
            r#"{"event":"progress","stage":"denoise","unit":"step","step":3,"total":10,"loss":0.5}"#
        );
        let error = Event::Error { class: "input", message: "a\nb".into() };
        assert_eq!(
            serde_json::to_string(&error).expect("JSON"),
            r#"{"event":"error","class":"input","message":"a\nb"}"#
        );
        assert_eq!(serde_json::to_string(&Event::Done).expect("JSON"), r#"{"event":"done"}"#);
    }
}
