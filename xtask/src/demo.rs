//! The demo: the motion of three clips in new ones, made by the embedded model.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::setup::Tools;
use crate::{Result, cargo, embedded, root, run, target};

/// A clip of the evaluation, which the model never saw, and what the clone of its motion shows.
const CLONES: [(&str, &str, &str); 3] = [
    ("pan", "pan_up_left", "a yellow star on a cloudy navy background"),
    ("zoom", "zoom_in", "a red heart on a dotted gray background"),
    ("path", "object_up", "a pink square on a wavy teal background"),
];
/// One row of a contact sheet: every other frame of the sixteen.
const ROW: &str = "select=not(mod(n\\,2)),scale=128:128,tile=8x1:padding=2";

/// Builds, sets up, clones, and names the files made.
pub fn clone_three_motions(tools: &Tools) -> Result<()> {
    let program = program(tools)?;
    let out = root().join("out/demo");
    fs::create_dir_all(&out).map_err(|e| format!("{}: {e}", out.display()))?;
    for (name, clip, prompt) in CLONES {
        let reference = root().join("onnx/demo/evaluate/clips").join(clip).with_extension("mp4");
        let at = |ending: &str| out.join(format!("{name}{ending}"));
        println!("\nthe motion of {clip}, with \"{prompt}\":");
        let clone = |options: &[&str], files: &[PathBuf]| {
            let mut clone = Command::new(&program);
            clone.arg("clone").arg("--reference").arg(&reference).args(["--prompt", prompt]).args(options);
            for file in files {
                clone.arg("--out").arg(file);
            }
            tools.apply(&mut clone);
            run(clone)
        };
        clone(&[], &[at(".mp4"), at(".gif")])?;
        clone(&["--motion-weight", "0"], &[at("-unguided.mp4")])?;
        sheet(tools, &[&reference, &at(".mp4"), &at("-unguided.mp4")], &at("-sheet.png"))?;
    }
    println!("\nin {}, for each of pan, zoom and path:", out.display());
    println!("  NAME.mp4, NAME.gif    the new clip");
    println!("  NAME-unguided.mp4     the same prompt and seed, its motion left to chance");
    println!("  NAME-sheet.png        frames of the reference, the new clip, and the unguided one, a row each");
    Ok(())
}

/// Builds the program and puts beside it what it looks for there.
pub fn program(tools: &Tools) -> Result<PathBuf> {
    run(cargo(&["build", "--release", "--package", "motionclone"]))?;
    let program = target().join("release").join(format!("motionclone{}", std::env::consts::EXE_SUFFIX));
    place_beside(tools, &program)?;
    Ok(program)
}

/// A picture with a row of frames for each clip.
fn sheet(tools: &Tools, clips: &[&Path], to: &Path) -> Result<()> {
    let mut ffmpeg = Command::new(&tools.ffmpeg);
    ffmpeg.args(["-v", "error", "-y"]);
    for clip in clips {
        ffmpeg.arg("-i").arg(clip);
    }
    let rows: Vec<String> = (0..clips.len()).map(|k| format!("[{k}:v]{ROW}[{k}]")).collect();
    let names: String = (0..clips.len()).map(|k| format!("[{k}]")).collect();
    let filter = format!("{};{names}vstack={}", rows.join(";"), clips.len());
    run(ffmpeg.args(["-filter_complex", &filter, "-frames:v", "1"]).arg(to))
}

/// Puts tools and bundle beside the program, where it looks for them, so that it runs by itself from now on.
fn place_beside(tools: &Tools, program: &Path) -> Result<()> {
    let library = if cfg!(windows) {
        "onnxruntime.dll"
    } else if cfg!(target_os = "macos") {
        "libonnxruntime.dylib"
    } else {
        "libonnxruntime.so"
    };
    let mut links = vec![(tools.onnxruntime.clone(), library.to_string())];
    // The library looks for its GPU parts in the folder that it was loaded from.
    let folder = tools.onnxruntime.parent().unwrap_or(Path::new("."));
    for file in fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?.flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        if name.contains("onnxruntime_providers") {
            links.push((file.path(), name));
        }
    }
    if tools.ffmpeg.is_absolute() {
        links.push((tools.ffmpeg.clone(), format!("ffmpeg{}", std::env::consts::EXE_SUFFIX)));
    }
    embedded::copy_to(&program.with_file_name("motionclone-bundle"))?;
    for (file, name) in links {
        let link = program.with_file_name(name);
        if fs::symlink_metadata(&link).is_ok() {
            fs::remove_file(&link).map_err(|e| format!("{}: {e}", link.display()))?;
        }
        #[cfg(unix)]
        let linked = std::os::unix::fs::symlink(&file, &link);
        #[cfg(not(unix))]
        let linked = fs::copy(&file, &link).map(drop);
        linked.map_err(|e| format!("{}: {e}", link.display()))?;
    }
    Ok(())
}
