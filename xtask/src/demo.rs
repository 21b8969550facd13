//! The demo: draws a clip, imports the small checkpoints of the tests and clones the clip's motion with them.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::setup::Tools;
use crate::{Result, cargo, root, target};

const SIDE: usize = 192;
const FRAMES: usize = 24;

/// Builds, sets up, clones, and names the files made.
pub fn clone_a_drawn_clip(tools: &Tools) -> Result<()> {
    crate::run(cargo(&["build", "--release", "--package", "motionclone"]))?;
    let program = target().join("release").join(format!("motionclone{}", std::env::consts::EXE_SUFFIX));
    place_beside(tools, &program)?;
    let (work, out) = (target().join("motionclone/demo"), root().join("out/demo"));
    for folder in [&work, &out] {
        fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    let (clip, bundle) = (work.join("pan.mp4"), work.join("bundle"));
    draw_clip(tools, &clip)?;
    if bundle.exists() {
        fs::remove_dir_all(&bundle).map_err(|e| format!("{}: {e}", bundle.display()))?;
    }
    let checkpoints = root().join("tests/golden/checkpoints");
    let mut import = Command::new(&program);
    import.arg("import").arg("--base").arg(checkpoints.join("StableDiffusion"));
    for (option, file) in [
        ("--motion-module", "v3_sd15_mm.ckpt"),
        ("--dreambooth", "dreambooth.safetensors"),
        ("--adapter", "v3_sd15_adapter.ckpt"),
        ("--sparsectrl-rgb", "v3_sd15_sparsectrl_rgb.ckpt"),
        ("--sparsectrl-scribble", "v3_sd15_sparsectrl_scribble.ckpt"),
        ("--model-config", "model_config.json"),
    ] {
        import.arg(option).arg(checkpoints.join(file));
    }
    crate::run(import.arg("--out").arg(&bundle))?;
    let files = ["clone.mp4", "clone.gif", "contact-sheet.png"].map(|name| out.join(name));
    let mut clone = Command::new(&program);
    clone.arg("clone").arg("--bundle").arg(&bundle).arg("--reference").arg(&clip);
    clone.args(["--prompt", "Relics on the seabed", "--size", "128x128", "--frames", "8", "--steps", "20"]);
    clone.args(["--guidance-steps", "10", "--warm-up", "2", "--cool-up", "2"]);
    clone.arg("--out").arg(&files[0]).arg("--out").arg(&files[1]).arg("--contact-sheet").arg(&files[2]);
    tools.apply(&mut clone);
    crate::run(clone)?;
    println!("\nthe motion of {} in a new clip:", clip.display());
    files.iter().for_each(|file| println!("  {}", file.display()));
    println!("(the model of this demo is a tiny one with random weights: it moves, but it shows nothing)");
    Ok(())
}

/// Links the tools beside the program, where it looks for them, so that it runs by itself from now on.
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

/// Draws a camera that pans over a rough, coloured ground.
fn draw_clip(tools: &Tools, path: &Path) -> Result<()> {
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    let size = format!("{SIDE}x{SIDE}");
    let mut ffmpeg = Command::new(&tools.ffmpeg)
        .args(["-v", "error", "-y", "-f", "rawvideo", "-pixel_format", "rgb24", "-video_size", &size])
        .args(["-framerate", "12", "-i", "pipe:0", "-c:v", "libx264", "-crf", "14", "-pix_fmt", "yuv420p"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut input) = ffmpeg.stdin.take() {
        for frame in 0..FRAMES {
            input.write_all(&draw_frame(4.0 * frame as f32)).map_err(failed)?;
        }
    }
    let status = ffmpeg.wait().map_err(failed)?;
    if status.success() { Ok(()) } else { Err(format!("{}: ffmpeg could not write it", path.display())) }
}

/// One frame, the camera `shift` pixels to the right of where it began.
fn draw_frame(shift: f32) -> Vec<u8> {
    let mut pixels = Vec::with_capacity(SIDE * SIDE * 3);
    for y in 0..SIDE {
        for x in 0..SIDE {
            let (x, y) = (x as f32 + shift, y as f32);
            let ground = 0.55 * noise(x / 40.0, y / 40.0, 1)
                + 0.3 * noise(x / 13.0, y / 13.0, 2)
                + 0.15 * noise(x / 4.0, y / 4.0, 3);
            let tint = noise(x / 70.0, y / 70.0, 4);
            let colour = [0.9 * ground + 0.3 * tint, 0.8 * ground + 0.1, 1.1 * ground - 0.4 * tint + 0.2];
            pixels.extend(colour.map(|value| (value.clamp(0.0, 1.0) * 255.0) as u8));
        }
    }
    pixels
}

/// Value noise in 0..1: random values at whole positions, smoothly between them.
fn noise(x: f32, y: f32, layer: u32) -> f32 {
    let smooth = |t: f32| t * t * (3.0 - 2.0 * t);
    let (column, row) = (x.floor(), y.floor());
    let (right, down) = (smooth(x - column), smooth(y - row));
    let at = |dx: f32, dy: f32| random((column + dx) as u32, (row + dy) as u32, layer);
    let top = at(0.0, 0.0) * (1.0 - right) + at(1.0, 0.0) * right;
    let bottom = at(0.0, 1.0) * (1.0 - right) + at(1.0, 1.0) * right;
    top * (1.0 - down) + bottom * down
}

fn random(x: u32, y: u32, layer: u32) -> f32 {
    let mut hash = x.wrapping_mul(0x9e37_79b1) ^ y.wrapping_mul(0x85eb_ca77) ^ layer.wrapping_mul(0xc2b2_ae3d);
    hash = (hash ^ (hash >> 15)).wrapping_mul(0x2c1b_3c6d);
    hash = (hash ^ (hash >> 12)).wrapping_mul(0x297a_2d39);
    (hash ^ (hash >> 15)) as f32 / u32::MAX as f32
}
