//! What was found on this machine, so that "it does not work" has an answer; and which folders are read and written.

use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use motionclone::media::ffmpeg::Ffmpeg;
use motionclone::onnx::manifest::{Manifest, Source};
use motionclone::runtime::Runtime;
use motionclone::{Engine, EngineOptions, Error, Result};

use crate::args::Doctor;
use crate::cache;

/// Prints what was found. What is missing is a line, not an error; a bundle that was named must be sound.
///
/// # Errors
/// When that bundle is not sound, or standard output cannot be written for another reason than a reader gone away.
pub fn doctor(args: &Doctor) -> Result<()> {
    let mut report = Report { failed: None };
    let result = examine(args, &mut report);
    match report.failed.filter(|error| error.kind() != ErrorKind::BrokenPipe) {
        Some(error) if result.is_ok() => Err(Error::io("standard output", error)),
        _ => result,
    }
}

fn examine(args: &Doctor, report: &mut Report) -> Result<()> {
    report.show("motionclone", env!("CARGO_PKG_VERSION"));
    match Runtime::load(None) {
        Ok(runtime) => {
            // Behind a link, the file's own name tells the version.
            let library = runtime.library();
            report.show("ONNX Runtime", library.canonicalize().unwrap_or_else(|_| library.into()).display());
            report.show("", runtime.build_info());
            let cuda = if runtime.has_cuda() { "CPU, CUDA" } else { "CPU" };
            report.show("providers", cuda);
        }
        Err(error) => report.show("ONNX Runtime", error),
    }
    let gpus = gpus();
    gpus.iter().for_each(|gpu| report.show("GPU", gpu));
    if gpus.is_empty() {
        report.show("GPU", "none that nvidia-smi knows of");
    }
    match Ffmpeg::find() {
        Ok(ffmpeg) => report.show("ffmpeg", format_args!("{} ({})", ffmpeg.path.display(), ffmpeg.version)),
        Err(error) => report.show("ffmpeg", error),
    }
    folders(report);
    match &args.bundle {
        Some(folder) => bundle(folder, report),
        None => embedded(report),
    }
}

/// The folders that the program reads and writes besides those that the user names. It opens no network connection.
fn folders(report: &mut Report) {
    if let Ok(folder) = motionclone::bundle::embedded() {
        report.show("reads", format_args!("{} (embedded model)", folder.display()));
    }
    match cache::folder() {
        Some(folder) => report.show("writes", format_args!("{} (kept motions; --no-cache)", folder.display())),
        None => report.show("writes", "no kept motions: no cache folder is known"),
    }
    report.show("", "the folders of its results (under a hidden name until each is whole)");
    let temporary = std::env::temp_dir();
    report.show("", format_args!("{} (only a result whose own folder fails)", temporary.display()));
    report.show("network", "never used; ffmpeg may read local files only");
}

/// The bundle that is used where none is named; that there is none is a line.
fn embedded(report: &mut Report) -> Result<()> {
    match motionclone::bundle::embedded() {
        Ok(folder) => bundle(&folder, report),
        Err(error) => {
            report.show("bundle", error);
            Ok(())
        }
    }
}

fn bundle(folder: &Path, report: &mut Report) -> Result<()> {
    let manifest = Manifest::read(folder)?;
    report.show("bundle", format_args!("{} ({})", manifest.name, folder.display()));
    for Source { role, file, scale, networks } in &manifest.sources {
        let scale = scale.map_or_else(String::new, |scale| format!(", scale {scale}"));
        let networks =
            if networks.is_empty() { String::new() } else { format!(" ({})", networks.join(", ").replace('_', " ")) };
        report.show("", format_args!("{role}: {file}{scale}{networks}"));
    }
    report.show("fingerprint", &manifest.fingerprint);
    let controls: Vec<&str> = manifest.controls.keys().map(|kind| kind.name()).collect();
    report.show("images", if controls.is_empty() { "no SparseCtrl".into() } else { controls.join(", ") });
    match manifest.motion() {
        Ok(motion) => report.show("longest clip", format_args!("{} frames", motion.max_frames)),
        Err(error) => report.show("longest clip", error),
    }
    let d = &manifest.defaults;
    report.show("defaults", format_args!("{}x{}, {} frames, {} steps", d.width, d.height, d.frames, d.steps));
    match Engine::open(folder, &EngineOptions::default()) {
        Ok(engine) => report.show("runs on", engine.device_and_reason()),
        // Told above already.
        Err(_) if Runtime::load(None).is_err() => report.show("runs on", "nothing, as there is no ONNX Runtime"),
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Each GPU's name and memory, as NVIDIA's own tool tells them.
fn gpus() -> Vec<String> {
    let answer = Command::new("nvidia-smi")
        .args(["--query-gpu=name,memory.total,memory.free", "--format=csv,noheader"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let text = answer.ok().filter(|answer| answer.status.success()).map(|answer| answer.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text)
        .lines()
        .filter_map(|line| {
            let [name, total, free] = line.split(", ").collect::<Vec<_>>().try_into().ok()?;
            Some(format!("{name}, {total}, {free} of it free"))
        })
        .collect()
}

/// Lines on standard output, and the first failure to write one.
struct Report {
    failed: Option<std::io::Error>,
}

impl Report {
    fn show(&mut self, what: &str, found: impl std::fmt::Display) {
        let written = writeln!(std::io::stdout().lock(), "{what:>14}  {found}");
        self.failed = self.failed.take().or(written.err());
    }
}
