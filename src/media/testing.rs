//! Shared by the tests of this folder.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::clip::Clip;
use super::ffmpeg::Ffmpeg;
use super::frames::Frames;
use super::sampling::Selection;
use crate::cancel::Cancel;
use crate::error::Result;

/// A file made by ffmpeg from its own test sources.
pub fn made(folder: &Path, name: &str, options: &[&str]) -> PathBuf {
    let path = folder.join(name);
    let ffmpeg = Ffmpeg::find().expect("ffmpeg");
    let status = Command::new(ffmpeg.path)
        .args(["-v", "error", "-y"])
        .args(options)
        .arg(&path)
        .stdin(Stdio::null())
        .status()
        .expect("ffmpeg");
    assert!(status.success(), "{name}");
    path
}

/// Opens a clip without a way to cancel.
pub fn open(path: &Path) -> Result<Clip> {
    Clip::open(path, &Selection::default(), &mut |_| (), &Cancel::default())
}

/// Reads so many frames of a clip.
pub fn read(path: &Path, frames: usize, width: usize, height: usize) -> Result<Frames> {
    open(path)?.sample(frames, width, height, &mut |_| (), &Cancel::default())
}

/// The folder of third-party clips that some tests compare with, or a printed reason why they are skipped.
pub fn clips() -> Option<PathBuf> {
    let folder = std::env::var_os("MOTIONCLONE_CLIPS").map(PathBuf::from);
    if folder.is_none() {
        println!("skipped: MOTIONCLONE_CLIPS names no folder of reference clips");
    }
    folder
}

/// A file of the recorded truth.
pub fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}
