//! The reference of a generator: a video that ffmpeg reads, or an image whose folder is a sequence. And single images.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use image::{ImageReader, Limits};

use crate::picture::Picture;
use crate::stop::Stop;

/// Names the ffmpeg to use; the command line reads it, too.
const VARIABLE: &str = "MOTIONCLONE_FFMPEG";
const IMAGES: [&str; 7] = ["png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff"];
/// An image wider or higher than this is refused, so that a small file cannot claim all memory.
const MAX_SIDE: u32 = 16384;

/// Reads an image file; transparency is dropped.
///
/// # Errors
/// When it is no image.
pub fn open_image(path: &Path) -> Result<Picture, String> {
    let bad = |e: &dyn std::fmt::Display| format!("{} is not an image that can be read: {e}.", path.display());
    let mut reader = ImageReader::open(path).and_then(ImageReader::with_guessed_format).map_err(|e| bad(&e))?;
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(MAX_SIDE), Some(MAX_SIDE));
    reader.limits(limits);
    let image = reader.decode().map_err(|e| bad(&e))?.into_rgb8();
    Ok(Picture { width: image.width() as usize, height: image.height() as usize, data: image.into_raw() })
}

/// Which `frames` of a range of frames are taken: evenly from the first to the last, as the engine does it.
pub fn sample_indices(count: usize, frames: usize) -> Vec<usize> {
    let last = count.saturating_sub(1);
    let step = last as f64 / frames.saturating_sub(1).max(1) as f64;
    (0..frames).map(|i| if i > 0 && i + 1 == frames { last } else { (i as f64 * step) as usize }).collect()
}

/// A clip in a file.
#[derive(Debug, Clone)]
pub struct ClipFile {
    pub path: PathBuf,
}

type Sampled = (Vec<Arc<Picture>>, f64);

impl ClipFile {
    /// Whether a file is an image by its name, so that its folder is the clip.
    pub fn is_image(path: &Path) -> bool {
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        IMAGES.contains(&extension.as_str())
    }

    /// Evenly chosen frames from the first to the last of a range, or of the whole clip, and how far apart they stand.
    ///
    /// # Errors
    /// When it cannot be read, or has fewer than two frames; none when `cancelled`.
    pub fn sample(
        &self,
        frames: usize,
        range: Option<[i32; 2]>,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Sampled, Stop> {
        let shown = self.path.display();
        let images = if self.path.is_dir() {
            Some(images_of(&self.path)?)
        } else if Self::is_image(&self.path) {
            Some(images_of(self.path.parent().unwrap_or(Path::new(".")))?)
        } else {
            None
        };
        let video = if images.is_none() { Some(Video::open(&self.path, cancelled)?) } else { None };
        let count = images.as_ref().map_or_else(|| video.as_ref().map_or(0, |video| video.count), Vec::len);
        let last = count as i32 - 1;
        let [first, last] = range.map_or([0, last], |range| range.map(|frame| frame.clamp(0, last.max(0))));
        if last <= first {
            return Err(Stop::Failed(format!("{shown} has {count} frames; a motion needs two or more.")));
        }
        let length = (last - first) as usize + 1;
        let indices: Vec<usize> = sample_indices(length, frames).iter().map(|at| at + first as usize).collect();
        let mut wanted = indices.clone();
        wanted.dedup();
        let pictures = match (&images, &video) {
            (Some(images), _) => {
                let mut pictures = Vec::new();
                for index in &wanted {
                    if cancelled() {
                        return Err(Stop::Cancelled);
                    }
                    pictures.push(open_image(&images[*index])?);
                }
                pictures
            }
            (None, Some(video)) => video.frames(&self.path, &wanted, cancelled)?,
            (None, None) => Vec::new(),
        };
        let pictures: Vec<Arc<Picture>> = pictures.into_iter().map(|picture| Arc::new(picture.reduced())).collect();
        let place = |index: &usize| wanted.iter().position(|at| at == index);
        let sampled = indices.iter().filter_map(place).map(|at| pictures[at].clone()).collect();
        Ok((sampled, (length - 1) as f64 / frames.saturating_sub(1).max(1) as f64))
    }
}

/// The images of a folder, by name.
pub fn images_of(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}.", folder.display()))?;
    let mut images: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| ClipFile::is_image(path)).collect();
    images.sort();
    Ok(images)
}

/// A video that was decoded once to count its frames, because files are often wrong about them.
struct Video {
    ffmpeg: PathBuf,
    width: usize,
    height: usize,
    count: usize,
}

impl Video {
    fn open(path: &Path, cancelled: &dyn Fn() -> bool) -> Result<Self, Stop> {
        let named = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
        let ffmpeg = named.unwrap_or_else(|| "ffmpeg".into());
        let none = |e: &dyn std::fmt::Display| format!("{} is not a video that ffmpeg can read: {e}.", path.display());
        let mut command = command(&ffmpeg, path);
        command.args(["-fps_mode", "passthrough", "-f", "framecrc", "-"]);
        let mut child = command.spawn().map_err(|e| {
            format!("ffmpeg does not start ({e}): install it, or name it in {VARIABLE}; a folder of images needs none.")
        })?;
        let (mut size, mut count) = (None, 0);
        if let Some(output) = child.stdout.take() {
            for line in BufReader::new(output).lines() {
                if cancelled() {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(Stop::Cancelled);
                }
                let line = line.map_err(|e| none(&e))?;
                if let Some(text) = line.strip_prefix("#dimensions 0:") {
                    size = text.trim().split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
                } else if !line.starts_with('#') && !line.is_empty() {
                    count += 1;
                }
            }
        }
        child.wait().map_err(|e| none(&e))?;
        match size {
            Some((width, height)) if count > 0 && (1..=16384).contains(&width) && (1..=16384).contains(&height) => {
                Ok(Self { ffmpeg, width, height, count })
            }
            _ => Err(Stop::Failed(none(&"there is no video in it"))),
        }
    }

    fn frames(&self, path: &Path, wanted: &[usize], cancelled: &dyn Fn() -> bool) -> Result<Vec<Picture>, Stop> {
        let choice: Vec<String> = wanted.iter().map(|index| format!("eq(n\\,{index})")).collect();
        let mut command = command(&self.ffmpeg, path);
        command.args(["-vf", &format!("select={}", choice.join("+"))]);
        command.args(["-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]);
        let mut child = command.spawn().map_err(|e| format!("ffmpeg does not start: {e}."))?;
        let mut pictures = Vec::new();
        if let Some(mut output) = child.stdout.take() {
            for _ in wanted {
                let mut data = vec![0; self.width * self.height * 3];
                if cancelled() || output.read_exact(&mut data).is_err() {
                    break;
                }
                pictures.push(Picture { width: self.width, height: self.height, data });
            }
        }
        // Both fail only when it has ended already.
        let _ = child.kill();
        let _ = child.wait();
        match pictures.len() == wanted.len() {
            true => Ok(pictures),
            false if cancelled() => Err(Stop::Cancelled),
            false => Err(Stop::Failed(format!("{}: not all of its frames can be decoded.", path.display()))),
        }
    }
}

/// ffmpeg on the first video stream of a file, which is never taken for a URL, a pattern or an option.
fn command(ffmpeg: &Path, path: &Path) -> Command {
    let mut literal = std::ffi::OsString::from("file:");
    literal.push(path);
    let mut command = Command::new(ffmpeg);
    command.args(["-hide_banner", "-nostdin", "-loglevel", "quiet", "-protocol_whitelist", "file", "-i"]);
    command.arg(literal).args(["-map", "0:V:0"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_images_is_a_clip() {
        let folder = tempfile::tempdir().unwrap();
        for index in 0..7_u8 {
            let path = folder.path().join(format!("{index:02}.png"));
            image::save_buffer(path, &[index; 4 * 2 * 3], 4, 2, image::ExtendedColorType::Rgb8).unwrap();
        }
        let clip = ClipFile { path: folder.path().join("00.png") };
        let first = |sampled: Sampled| -> Vec<u8> { sampled.0.iter().map(|picture| picture.data[0]).collect() };
        assert_eq!(first(clip.sample(4, None, &|| false).unwrap()), [0, 2, 4, 6]);
        assert_eq!(first(clip.sample(4, Some([2, 3]), &|| false).unwrap()), [2, 2, 2, 3]);
        assert_eq!(clip.sample(4, None, &|| false).unwrap().1, 2.0);
        assert!(clip.sample(4, Some([3, 3]), &|| false).is_err_and(|stop| stop != Stop::Cancelled));
        assert!(clip.sample(4, None, &|| true).is_err_and(|stop| stop == Stop::Cancelled));
    }

    #[test]
    fn frames_are_taken_evenly() {
        assert_eq!(sample_indices(24, 16), [0, 1, 3, 4, 6, 7, 9, 10, 12, 13, 15, 16, 18, 19, 21, 23]);
        assert_eq!(sample_indices(2, 4), [0, 0, 0, 1]);
    }
}
