//! Clips as pictures that other programs read: a folder a clip, with its frames as PNG, its motion, and a note of what
//! it is. They belong to the user; nothing here removes or replaces one.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};
use serde::{Deserialize, Serialize};

use crate::clips::clip::{Clip, bytes, is_key};

const NAME: &str = "motionclone-";
/// Folders that are not whole yet begin so.
const UNFINISHED: &str = ".motionclone-";
const NOTE: &str = "clip.json";
const MOTION: &str = "motion.safetensors";
/// A note longer than this is none.
const MAX_NOTE: u64 = 1 << 20;
/// Copies of one clip in one folder, where the first ones were damaged.
const MAX_COPIES: usize = 100;
/// What a host that was killed left half-written goes when it is older than this.
const ORPHAN_AGE: Duration = Duration::from_secs(24 * 3600);

/// What a clip is, in words.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct About {
    pub prompt: String,
    pub seed: u64,
}

#[derive(Serialize, Deserialize)]
struct Note {
    key: String,
    width: usize,
    height: usize,
    frames: usize,
    spacing: f64,
    #[serde(flatten)]
    about: About,
}

/// A clip of a folder, if it is there and whole.
pub fn load(folder: &Path, key: &str) -> Option<Clip> {
    find(folder, key).map(|(_, clip)| clip)
}

/// The file of the motion that a kept clip was made from.
pub fn motion(folder: &Path, key: &str) -> Option<PathBuf> {
    places(folder, key).map(|place| place.join(MOTION)).find(|file| file.is_file())
}

/// Keeps a clip, then what `motion` writes into the file it is given. Gives the clip's own folder. A motion that cannot be
/// written does not cost the clip.
///
/// # Errors
/// When the folder cannot be written to.
pub fn store(
    folder: &Path,
    key: &str,
    clip: &Clip,
    about: &About,
    motion: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<PathBuf, String> {
    let failed = |e: io::Error| format!("The clip cannot be kept in {}: {e}.", folder.display());
    if let Some((place, _)) = find(folder, key) {
        return Ok(place);
    }
    fs::create_dir_all(folder).map_err(failed)?;
    remove_orphans(folder);
    let unfinished = unfinished(folder).map_err(failed)?;
    write(unfinished.path(), key, clip, about).map_err(failed)?;
    // A clip without its motion is a clip all the same.
    let _ = motion(&unfinished.path().join(MOTION));
    let unfinished = unfinished.keep();
    for place in places(folder, key) {
        // Fails where there is something already, which is not ours to replace.
        if !place.exists() && fs::rename(&unfinished, &place).is_ok() {
            return Ok(place);
        }
    }
    let _ = fs::remove_dir_all(&unfinished);
    Err(failed(io::ErrorKind::AlreadyExists.into()))
}

/// Finds out whether a clip of so many bytes can be kept, before it is made.
///
/// # Errors
/// When the folder cannot be written to, or has no room.
pub fn check(folder: &Path, bytes: u64) -> Result<(), String> {
    let failed = |e: io::Error| format!("The clip cannot be kept in {}: {e}.", folder.display());
    fs::create_dir_all(folder).map_err(failed)?;
    drop(unfinished(folder).map_err(failed)?);
    let room = fs4::available_space(folder).map_err(failed)?;
    if room < bytes {
        let [needed, room] = [bytes, room].map(|bytes| bytes.div_ceil(1_000_000));
        return Err(format!("The clip cannot be kept in {}: it needs {needed} MB of {room} MB.", folder.display()));
    }
    Ok(())
}

/// The folders that a clip may have, in the order in which they are tried.
fn places<'a>(folder: &'a Path, key: &'a str) -> impl Iterator<Item = PathBuf> + 'a {
    let own = move |copy: usize| match copy {
        0 => folder.join(format!("{NAME}{key}")),
        _ => folder.join(format!("{NAME}{key}-{}", copy + 1)),
    };
    (0..if is_key(key) { MAX_COPIES } else { 0 }).map(own)
}

fn find(folder: &Path, key: &str) -> Option<(PathBuf, Clip)> {
    let there = places(folder, key).take_while(|place| place.is_dir());
    there.into_iter().find_map(|place| Some((place.clone(), read(&place, key).ok()?)))
}

/// A folder with a passing name and the modes of the user's other folders, gone when dropped.
fn unfinished(folder: &Path) -> io::Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(UNFINISHED);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o777));
    }
    builder.tempdir_in(folder)
}

fn remove_orphans(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let modified = entry.metadata().ok().filter(fs::Metadata::is_dir).and_then(|metadata| metadata.modified().ok());
        let old = modified.is_some_and(|time| time + ORPHAN_AGE < SystemTime::now());
        if old && entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn frame(index: usize) -> String {
    format!("frame-{index:04}.png")
}

fn write(place: &Path, key: &str, clip: &Clip, about: &About) -> io::Result<()> {
    let (width, height, frames) = (clip.width, clip.height, clip.count());
    for index in 0..frames {
        let file = BufWriter::new(File::create(place.join(frame(index)))?);
        let encoder = PngEncoder::new_with_quality(file, CompressionType::Fast, FilterType::Adaptive);
        let data = clip.frame(index).data;
        encoder.write_image(data, width as u32, height as u32, ExtendedColorType::Rgb8).map_err(io::Error::other)?;
    }
    let note = Note { key: key.into(), width, height, frames, spacing: clip.spacing, about: about.clone() };
    serde_json::to_writer_pretty(File::create(place.join(NOTE))?, &note)?;
    Ok(())
}

fn read(place: &Path, key: &str) -> io::Result<Clip> {
    let damaged = || io::Error::from(io::ErrorKind::InvalidData);
    let file = File::open(place.join(NOTE))?;
    if file.metadata()?.len() > MAX_NOTE {
        return Err(damaged());
    }
    let note: Note = serde_json::from_reader(file)?;
    let size = bytes(note.width as u64, note.height as u64, note.frames as u64).ok_or_else(damaged)?;
    if note.key != key || !(note.spacing.is_finite() && note.spacing > 0.0) {
        return Err(damaged());
    }
    let mut data = Vec::new();
    for index in 0..note.frames {
        let mut reader = image::ImageReader::open(place.join(frame(index)))?;
        reader.set_format(image::ImageFormat::Png);
        let mut limits = image::Limits::default();
        (limits.max_image_width, limits.max_image_height) = (Some(note.width as u32), Some(note.height as u32));
        reader.limits(limits);
        let picture = reader.decode().map_err(io::Error::other)?.into_rgb8();
        if (picture.width() as usize, picture.height() as usize) != (note.width, note.height) {
            return Err(damaged());
        }
        data.extend(picture.into_raw());
    }
    if data.len() as u64 != size {
        return Err(damaged());
    }
    Ok(Clip { width: note.width, height: note.height, spacing: note.spacing, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clip() -> Clip {
        Clip { width: 5, height: 3, spacing: 1.5, data: (0..5 * 3 * 3 * 4).map(|value| value as u8).collect() }
    }

    fn about() -> About {
        About { prompt: "a \"sea\"".into(), seed: 7 }
    }

    fn motion(file: &Path) -> Result<(), String> {
        fs::write(file, "m").map_err(|e| e.to_string())
    }

    #[test]
    fn clips_are_pictures_that_others_read() {
        let folder = tempfile::tempdir().unwrap();
        let key = "a".repeat(32);
        let place = store(folder.path(), &key, &clip(), &about(), motion).unwrap();
        assert_eq!(load(folder.path(), &key).unwrap(), clip());
        let first = image::open(place.join("frame-0000.png")).unwrap().into_rgb8();
        assert_eq!(first.as_raw()[..], clip().data[..45]);
        assert_eq!(fs::read(super::motion(folder.path(), &key).unwrap()).unwrap(), b"m");
        assert!(fs::read_to_string(place.join(NOTE)).unwrap().contains("a \\\"sea\\\""));
        // Once more is the same; nothing else lies beside it.
        assert_eq!(store(folder.path(), &key, &clip(), &about(), motion).unwrap(), place);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(load(folder.path(), &"b".repeat(32)).is_none() && load(folder.path(), "../x").is_none());
    }

    #[test]
    fn a_damaged_clip_is_not_shown_and_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let key = "a".repeat(32);
        let place = store(folder.path(), &key, &clip(), &about(), motion).unwrap();
        for file in ["frame-0002.png", NOTE] {
            let whole = fs::read(place.join(file)).unwrap();
            for damaged in [&whole[..whole.len() / 2], b"", b"{}"] {
                fs::write(place.join(file), damaged).unwrap();
                assert!(load(folder.path(), &key).is_none(), "{file}");
            }
            fs::remove_file(place.join(file)).unwrap();
            assert!(load(folder.path(), &key).is_none(), "{file}");
            fs::write(place.join(file), whole).unwrap();
        }
        fs::write(place.join("frame-0000.png"), "mine").unwrap();
        let other = store(folder.path(), &key, &clip(), &about(), motion).unwrap();
        assert_ne!(other, place);
        assert_eq!(load(folder.path(), &key).unwrap(), clip());
        assert_eq!(fs::read(place.join("frame-0000.png")).unwrap(), b"mine");
    }

    #[cfg(unix)]
    #[test]
    fn others_may_read_what_they_may_read_of_the_users_files() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let place = store(folder.path(), &"a".repeat(32), &clip(), &about(), motion).unwrap();
        fs::create_dir(folder.path().join("usual")).unwrap();
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(place), mode(folder.path().join("usual")));
    }

    #[test]
    fn it_is_known_before_whether_a_clip_can_be_kept() {
        let folder = tempfile::tempdir().unwrap();
        assert!(check(&folder.path().join("new"), 1000).is_ok());
        assert!(check(folder.path(), u64::MAX).is_err_and(|text| text.contains("MB")));
        fs::write(folder.path().join("file"), "x").unwrap();
        assert!(check(&folder.path().join("file"), 1000).is_err());
    }
}
