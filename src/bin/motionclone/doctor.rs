//! What was found on this machine, so that "it does not work" has an answer.

use std::path::Path;
use std::process::{Command, Stdio};

use motionclone::media::ffmpeg::Ffmpeg;
use motionclone::onnx::manifest::{Manifest, Source};
use motionclone::runtime::Runtime;
use motionclone::{Engine, EngineOptions, Result};

use crate::args::Doctor;
use crate::cache;

/// Prints what was found. What is missing is a line, not an error; a bundle that was named must be sound.
pub fn doctor(args: &Doctor) -> Result<()> {
    show("motionclone", env!("CARGO_PKG_VERSION"));
    match Runtime::load(None) {
        Ok(runtime) => {
            // Behind a link, the file's own name tells the version.
            let library = runtime.library();
            show("ONNX Runtime", library.canonicalize().unwrap_or_else(|_| library.into()).display());
            show("", runtime.build_info());
            let cuda = if runtime.has_cuda() { "CPU, CUDA" } else { "CPU" };
            show("providers", cuda);
        }
        Err(error) => show("ONNX Runtime", error),
    }
    let gpus = gpus();
    gpus.iter().for_each(|gpu| show("GPU", gpu));
    if gpus.is_empty() {
        show("GPU", "none that nvidia-smi knows of");
    }
    match Ffmpeg::find() {
        Ok(ffmpeg) => show("ffmpeg", format_args!("{} ({})", ffmpeg.path.display(), ffmpeg.version)),
        Err(error) => show("ffmpeg", error),
    }
    match cache::folder() {
        Some(folder) => show("kept motions", folder.display()),
        None => show("kept motions", "no cache folder is known"),
    }
    match &args.bundle {
        Some(folder) => bundle(folder),
        None => embedded(),
    }
}

/// The bundle that is used where none is named; that there is none is a line.
fn embedded() -> Result<()> {
    match motionclone::bundle::embedded() {
        Ok(folder) => bundle(&folder),
        Err(error) => {
            show("bundle", error);
            Ok(())
        }
    }
}

fn bundle(folder: &Path) -> Result<()> {
    let manifest = Manifest::read(folder)?;
    show("bundle", format_args!("{} ({})", manifest.name, folder.display()));
    for Source { role, file, scale } in &manifest.sources {
        match scale {
            Some(scale) => show("", format_args!("{role}: {file}, scale {scale}")),
            None => show("", format_args!("{role}: {file}")),
        }
    }
    show("fingerprint", &manifest.fingerprint);
    let controls: Vec<&str> = manifest.controls.keys().map(|kind| kind.name()).collect();
    show("images", if controls.is_empty() { "no SparseCtrl".into() } else { controls.join(", ") });
    show("longest clip", format_args!("{} frames", manifest.unet.motion.as_ref().map_or(0, |m| m.max_frames)));
    let d = &manifest.defaults;
    show("defaults", format_args!("{}x{}, {} frames, {} steps", d.width, d.height, d.frames, d.steps));
    match Engine::open(folder, &EngineOptions::default()) {
        Ok(engine) => show("runs on", engine.device_and_reason()),
        // Told above already.
        Err(_) if Runtime::load(None).is_err() => show("runs on", "nothing, as there is no ONNX Runtime"),
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

fn show(what: &str, found: impl std::fmt::Display) {
    println!("{what:>14}  {found}");
}
