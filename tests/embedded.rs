//! The embedded model: it is what its card says, the program finds it, and it clones motion.

use std::path::{Path, PathBuf};
use std::process::Command;

use motionclone::media::frames::Frames;
use motionclone::onnx::manifest::Manifest;
use motionclone::onnx::model::config::ControlKind;

fn bundle() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("onnx/demo/bundle")
}

/// The program, with everything it prints in case that it fails.
fn program(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_remove("MOTIONCLONE_BUNDLE");
    command
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn the_bundle_is_small_and_whole() {
    let size: u64 = files(&bundle()).iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!(size <= 12 << 20, "{size} bytes");
    let manifest = Manifest::read(&bundle()).unwrap();
    let weights = std::fs::read(bundle().join("weights.safetensors")).unwrap();
    assert_eq!(manifest.fingerprint, blake3::hash(&weights).to_hex().to_string());
    assert!(manifest.preview.is_some() && manifest.controls.len() == 2);
}

/// Named by the environment, or beside the program; a program without one says where it looked.
#[cfg(unix)]
#[test]
fn the_program_finds_it() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("motionclone");
    std::fs::copy(env!("CARGO_BIN_EXE_motionclone"), &copy).unwrap();
    let bare = output(program(&copy).arg("doctor"));
    assert!(bare.contains("no bundle was named") && bare.contains("motionclone-bundle"), "{bare}");
    let named = output(program(&copy).arg("doctor").env("MOTIONCLONE_BUNDLE", bundle()));
    assert!(named.contains("embedded model"), "{named}");
    std::os::unix::fs::symlink(bundle(), folder.path().join("motionclone-bundle")).unwrap();
    let beside = output(program(&copy).arg("doctor"));
    assert!(beside.contains("embedded model") && beside.contains("128x128, 16 frames"), "{beside}");
    // The ONNX Runtime of the tests has no CUDA, which is no reason to fail, but one to tell.
    assert!(beside.contains("CPU, as CUDA does not work here: "), "{beside}");
}

/// The README's first clone, word for word but for where the video goes.
#[test]
fn the_first_clone_of_the_readme_works() {
    const COMMAND: &str = "$ target/release/motionclone ";
    let readme = include_str!("../README.md");
    let line = readme.lines().find_map(|line| line.strip_prefix(COMMAND)).expect("the README's first clone");
    let (line, out) = line.split_once(" --out ").expect("a video to write");
    let mut clone = program(Path::new(env!("CARGO_BIN_EXE_motionclone")));
    clone.current_dir(env!("CARGO_MANIFEST_DIR")).env("MOTIONCLONE_BUNDLE", bundle());
    // Every second part stands between quotes.
    for (n, part) in line.split('"').enumerate() {
        match n % 2 {
            0 => clone.args(part.split_whitespace()),
            _ => clone.arg(part),
        };
    }
    let folder = tempfile::tempdir().unwrap();
    let video = folder.path().join(out);
    output(clone.args(["--device", "cpu", "--no-cache", "--out"]).arg(&video));
    assert!(video.metadata().unwrap().len() > 1000, "a video of sixteen frames");
}

/// A bundle whose sketches leave half of the motion's weight clones as one that leaves all of it does with half the
/// weight.
#[test]
fn beside_a_sketch_the_bundles_share_of_the_motion_counts() {
    let folder = tempfile::tempdir().unwrap();
    let clips = Path::new(env!("CARGO_MANIFEST_DIR")).join("onnx/demo/evaluate/clips");
    let clone = |share: f64, weight: &str, control: &str| -> Vec<PathBuf> {
        let copy = folder.path().join(format!("share {share}"));
        for file in files(&bundle()) {
            let to = copy.join(file.strip_prefix(bundle()).unwrap());
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(&file, to).unwrap();
        }
        let mut manifest = Manifest::read(&copy).unwrap();
        manifest.defaults.motion_share = [(ControlKind::Scribble, share)].into();
        manifest.write(&copy).unwrap();
        let out = folder.path().join(format!("{} tenths of {weight} {control}", 10.0 * share));
        let mut clone = program(Path::new(env!("CARGO_BIN_EXE_motionclone")));
        clone.env("MOTIONCLONE_BUNDLE", copy).args([
            "clone",
            "--device",
            "cpu",
            "--no-cache",
            "--prompt",
            "a red star",
        ]);
        clone.args(["--frames", "2", "--steps", "3", "--guidance-steps", "2", "--motion-weight", weight]);
        clone.arg("--reference").arg(clips.join("pan_left.mp4")).arg("--image").arg(clips.join("sketch_0.png"));
        output(clone.args(["--control", control]).arg("--out").arg(&out));
        files(&out)
    };
    let same = |a: &[PathBuf], b: &[PathBuf]| {
        let read = |paths: &[PathBuf]| -> Vec<Vec<u8>> {
            let mut paths = paths.to_vec();
            paths.sort();
            paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
        };
        read(a) == read(b)
    };
    let half = clone(0.5, "8000", "scribble");
    assert!(same(&half, &clone(1.0, "4000", "scribble")));
    assert!(!same(&half, &clone(1.0, "8000", "scribble")));
    assert!(same(&clone(0.5, "8000", "rgb"), &clone(1.0, "8000", "rgb")));
}

/// A camera that goes left, into a prompt that says nothing of it: the new clip's picture goes the reference's way.
#[test]
fn a_pan_is_cloned() {
    let folder = tempfile::tempdir().unwrap();
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("onnx/demo/evaluate/clips/pan_left.mp4");
    let mut clone = program(Path::new(env!("CARGO_BIN_EXE_motionclone")));
    clone.env("MOTIONCLONE_BUNDLE", bundle()).args(["clone", "--device", "cpu", "--no-cache"]);
    clone.args(["--prompt", "a green circle on a checkered brown background"]).arg("--reference").arg(&reference);
    output(clone.arg("--out").arg(folder.path().join("clone")));
    let frames: Vec<Frames> =
        (0..16).map(|n| Frames::open_image(&folder.path().join(format!("clone/frame_{n:04}.png"))).unwrap()).collect();
    let shifts: Vec<(isize, isize)> = frames.windows(2).map(|pair| shift(&pair[0], &pair[1])).collect();
    let mean = |of: fn(&(isize, isize)) -> isize| shifts.iter().map(of).sum::<isize>() as f64 / shifts.len() as f64;
    let (right, down) = (mean(|shift| shift.0), mean(|shift| shift.1));
    assert!(right < -0.5 && down.abs() < 0.6 * right.abs(), "{right:.2} right, {down:.2} down in {shifts:?}");
}

/// By how many pixels, to the right and downwards, a picture goes as a whole: where the two differ least.
fn shift(before: &Frames, after: &Frames) -> (isize, isize) {
    const FARTHEST: isize = 6;
    let (width, height) = (before.width as isize, before.height as isize);
    let difference = |right: isize, down: isize| -> u64 {
        let inner = |size: isize| FARTHEST..size - FARTHEST;
        let pixels = inner(height).flat_map(|y| inner(width).map(move |x| (x, y)));
        let green = |frames: &Frames, x: isize, y: isize| i64::from(frames.data[((y * width + x) * 3 + 1) as usize]);
        pixels.map(|(x, y)| (green(before, x, y) - green(after, x + right, y + down)).pow(2) as u64).sum()
    };
    let shifts = (-FARTHEST..=FARTHEST).flat_map(|y| (-FARTHEST..=FARTHEST).map(move |x| (x, y)));
    shifts.min_by_key(|(x, y)| difference(*x, *y)).unwrap()
}
