//! Writing the new clip: the file's extension decides the format. A result appears whole or not at all.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use image::{ImageFormat, RgbImage};
use motionclone::Cancel;
use motionclone::media::ffmpeg::{self, Ffmpeg, Running};
use motionclone::media::frames::Frames;
use motionclone::onnx::unfinished;
use motionclone::settings::FrameRate;
use motionclone::{Error, Result};
use tempfile::TempPath;

/// What a clip is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// H.264.
    Mp4,
    /// VP9.
    Webm,
    Gif,
    /// Animated WebP.
    Webp,
    /// A folder of PNG files.
    Folder,
}

/// A place for a clip that was found writable.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    format: Format,
    ffmpeg: Option<Ffmpeg>,
}

impl Output {
    /// Checks before any long work that a clip can be written here.
    ///
    /// # Errors
    /// When the extension is unknown, the folder is missing or not writable, something else stands there already, or
    /// ffmpeg is needed and missing.
    pub fn prepare(path: &Path) -> Result<Self> {
        let bad = |message: &str| Err(Error::input(message).with_path(path));
        let format = match path.extension().and_then(OsStr::to_str).map(str::to_lowercase).as_deref() {
            Some("mp4") => Format::Mp4,
            Some("webm") => Format::Webm,
            Some("gif") => Format::Gif,
            Some("webp") => Format::Webp,
            None => Format::Folder,
            _ => return bad("unknown kind of output: use .mp4, .webm, .gif, .webp, or a folder for PNG files"),
        };
        match fs::symlink_metadata(path) {
            Ok(there) if format == Format::Folder && !there.is_dir() => return bad("is a file, not a folder"),
            Ok(_) if format == Format::Folder && !holds_only_frames(path) => {
                return bad("the folder holds other files than frames; name a new one");
            }
            Ok(there) if format != Format::Folder && there.is_dir() => return bad("is a folder"),
            _ => {}
        }
        drop(beside(path)?);
        let ffmpeg = if format == Format::Folder { None } else { Some(Ffmpeg::find()?) };
        Ok(Self { path: path.into(), format, ffmpeg })
    }

    /// The path given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the clip, replacing an older one. The same frames give the same bytes.
    ///
    /// # Errors
    /// When the disk is full or ffmpeg cannot write this format, or the work is cancelled; nothing is left
    /// then.
    pub fn write(&self, frames: &Frames, fps: FrameRate, cancel: &Cancel) -> Result<()> {
        match &self.ffmpeg {
            Some(ffmpeg) => self.write_file(ffmpeg, frames, fps, cancel),
            None => self.write_folder(frames, cancel),
        }
    }

    fn write_file(&self, ffmpeg: &Ffmpeg, frames: &Frames, fps: FrameRate, cancel: &Cancel) -> Result<()> {
        let temporary = beside(&self.path)?;
        let mut command = ffmpeg.command();
        command.args(["-f", "rawvideo", "-pixel_format", "rgb24"]);
        command.args(["-video_size", &format!("{}x{}", frames.width, frames.height)]);
        command.args(["-framerate", &fps.to_string(), "-i", "pipe:0"]).args(self.format.options());
        // One thread and no encoder names: the file depends on the frames alone.
        command.args(["-map_metadata", "-1", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-threads", "1", "-y"]);
        command.arg(ffmpeg::literal(&temporary)).stdin(Stdio::piped());
        let mut running = Running::start(command)?;
        if let Some(mut input) = running.child.stdin.take() {
            for frame in frames.iter() {
                cancel.check()?;
                // A broken pipe means that ffmpeg gave up; its complaint says why.
                if input.write_all(frame).is_err() {
                    break;
                }
            }
        }
        let (well, complaint) = running.finish()?;
        cancel.check()?;
        // ffmpeg answers "success" when only the end of a file could not be written, but it does complain.
        if !well || complaint.is_some() {
            let complaint = complaint.unwrap_or_else(|| "ffmpeg gave no reason".into());
            // "Error writing trailer of file:…: No space left on device": only the end tells the user something.
            return Err(cannot_write(&self.path, complaint.rsplit(": ").next().unwrap_or(&complaint)));
        }
        persist(temporary, &self.path)
    }

    fn write_folder(&self, frames: &Frames, cancel: &Cancel) -> Result<()> {
        let fail = |e: std::io::Error| cannot_write(&self.path, e);
        let folder = unfinished::folder(&self.path).map_err(fail)?;
        for (index, frame) in frames.iter().enumerate() {
            cancel.check()?;
            let path = folder.path().join(format!("frame_{index:04}.png"));
            fs::write(path, png(frame, frames.width, frames.height)?).map_err(fail)?;
        }
        if self.path.exists() {
            // Only our own frames lie there; Windows does not rename onto a folder.
            fs::remove_dir_all(&self.path).map_err(fail)?;
        }
        fs::rename(folder.path(), &self.path).map_err(fail)?;
        // Nothing is left to remove at the old name.
        let _ = folder.keep();
        Ok(())
    }
}

impl Format {
    /// ffmpeg's options for one format.
    fn options(self) -> Vec<&'static str> {
        let codec: &[&str] = match self {
            Self::Mp4 => &["-c:v", "libx264", "-crf", "16", "-preset", "medium", "-movflags", "+faststart"],
            Self::Webm => &["-c:v", "libvpx-vp9", "-crf", "18", "-b:v", "0", "-cpu-used", "2"],
            Self::Webp => &["-c:v", "libwebp_anim", "-quality", "90", "-loop", "0"],
            Self::Gif => &[
                "-filter_complex",
                "split[a][b];[a]palettegen=stats_mode=full[p];[b][p]paletteuse=dither=sierra2_4a",
                "-loop",
                "0",
            ],
            Self::Folder => &[],
        };
        let mut options = codec.to_vec();
        if matches!(self, Self::Mp4 | Self::Webm) {
            // Editors expect BT.709, so the colours are converted for it and the file says so. Halved chroma needs
            // even sizes.
            options.extend([
                "-vf",
                "pad=ceil(iw/2)*2:ceil(ih/2)*2,\
                 scale=flags=accurate_rnd+full_chroma_int:out_color_matrix=bt709:out_range=tv,format=yuv420p",
            ]);
            options.extend(["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"]);
            options.extend(["-color_range", "tv"]);
        }
        options
    }
}

/// Writes one frame as a PNG file.
///
/// # Errors
/// When the file cannot be written; nothing is left then.
pub fn write_png(path: &Path, frame: &Frames) -> Result<()> {
    let temporary = beside(path)?;
    fs::write(&temporary, png(&frame.data, frame.width, frame.height)?).map_err(|e| cannot_write(path, e))?;
    persist(temporary, path)
}

/// Checks before any long work that a file can be written here.
///
/// # Errors
/// When its folder is missing or not writable, or a folder stands there.
pub fn check_writable(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Err(Error::input("is a folder").with_path(path));
    }
    beside(path).map(drop)
}

/// An empty file beside `path` with its extension, removed unless renamed.
fn beside(path: &Path) -> Result<TempPath> {
    let folder = unfinished::parent(path);
    if !folder.is_dir() {
        return Err(cannot_write(path, format!("there is no folder {}", folder.display())));
    }
    Ok(unfinished::file(path).map_err(|e| cannot_write(path, e))?.into_temp_path())
}

fn persist(temporary: TempPath, path: &Path) -> Result<()> {
    temporary.persist(path).map_err(|e| cannot_write(path, e.error))
}

fn holds_only_frames(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|entries| {
        entries.into_iter().all(|entry| {
            entry.is_ok_and(|e| {
                let name = e.file_name().to_string_lossy().into_owned();
                name.starts_with("frame_") && name.ends_with(".png")
            })
        })
    })
}

fn png(data: &[u8], width: usize, height: usize) -> Result<Vec<u8>> {
    let image = RgbImage::from_raw(width as u32, height as u32, data.to_vec())
        .ok_or_else(|| Error::failure(format!("{} bytes are no {width}x{height} frame", data.len())))?;
    let mut file = std::io::Cursor::new(Vec::new());
    image.write_to(&mut file, ImageFormat::Png).map_err(|e| Error::failure(format!("no PNG could be made: {e}")))?;
    Ok(file.into_inner())
}

/// The user named the place, so it is the user's to change, a full disk too.
fn cannot_write(path: &Path, reason: impl std::fmt::Display) -> Error {
    let reason = reason.to_string();
    let reason = if reason.starts_with("No space left") { "the disk is full" } else { &reason };
    Error::input(format!("cannot be written: {reason}")).with_path(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{difference, moving_bars, open, read, write};

    /// Every format, read back: as many frames, the same size, nearly the same colours.
    #[test]
    fn written_clips_read_back() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let frames = moving_bars(10, 64, 48);
        for (name, allowed) in [("a.mp4", 6.0), ("a.webm", 6.0), ("a.gif", 12.0), ("frames", 0.0)] {
            let path = folder.path().join(name);
            write(&path, &frames, 8.0).expect(name);
            assert_eq!(open(&path).expect(name).count, 10, "{name}");
            let difference = difference(&read(&path, 10, 64, 48).expect(name), &frames);
            assert!(difference <= allowed, "{name}: mean difference {difference}");
        }
        assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 4, "nothing else is left");
    }

    /// Wrong by one colour matrix, these would be off by up to 30.
    #[test]
    fn colours_survive() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let colours = [[220, 30, 30], [30, 220, 30], [30, 30, 220], [230, 230, 30]];
        let data = colours.iter().flat_map(|colour| colour.repeat(64 * 64)).collect();
        let frames = Frames { width: 64, height: 64, data };
        for name in ["a.mp4", "a.webm", "a.gif"] {
            let path = folder.path().join(name);
            write(&path, &frames, 8.0).expect(name);
            let read = read(&path, 4, 64, 64).expect(name);
            let difference = difference(&read, &frames);
            assert!(difference < 2.5, "{name}: mean difference {difference}");
        }
    }

    /// ffmpeg before 8 writes animated WebP but does not read it, so this one is read by the image library.
    #[test]
    fn animated_webp_reads_back() {
        use image::AnimationDecoder;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (path, frames) = (folder.path().join("a.webp"), moving_bars(6, 64, 48));
        write(&path, &frames, 12.5).expect("a written clip");
        let file = std::io::BufReader::new(fs::File::open(&path).expect("the clip"));
        let decoded = image::codecs::webp::WebPDecoder::new(file).expect("WebP").into_frames();
        let decoded = decoded.collect_frames().expect("every frame");
        let mut read = Frames { width: 64, height: 48, data: Vec::new() };
        for frame in &decoded {
            let (numerator, denominator) = frame.delay().numer_denom_ms();
            assert_eq!(numerator / denominator, 80, "milliseconds a frame");
            read.data.extend(image::DynamicImage::from(frame.buffer().clone()).into_rgb8().into_raw());
        }
        assert_eq!(decoded.len(), 6);
        assert!(difference(&read, &frames) < 6.0);
    }

    #[test]
    fn the_same_frames_give_the_same_file() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let frames = moving_bars(8, 64, 64);
        for name in ["a.mp4", "a.webm", "a.gif", "a.webp"] {
            let path = folder.path().join(name);
            let mut files = Vec::new();
            for _ in 0..2 {
                write(&path, &frames, 8.0).expect(name);
                files.push(fs::read(&path).expect(name));
            }
            assert!(files[0] == files[1], "{name} differs from one run to the next");
        }
    }

    #[test]
    fn odd_sizes_and_odd_rates_are_written() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("odd.mp4");
        write(&path, &moving_bars(3, 33, 21), 23.976).expect("a written clip");
        assert_eq!(open(&path).expect("a clip").count, 3);
    }

    #[test]
    fn a_folder_of_frames_is_replaced_but_no_other() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("frames");
        for count in [5, 3] {
            write(&path, &moving_bars(count, 16, 16), 8.0).expect("written frames");
            assert_eq!(fs::read_dir(&path).expect("the folder").count(), count);
        }
        fs::write(path.join("notes.txt"), "mine").expect("a written file");
        let error = Output::prepare(&path).expect_err("a folder with other files");
        assert!(error.is_input() && error.to_string().contains("other files"), "{error}");
    }

    #[test]
    fn places_that_cannot_be_written_are_refused_at_once() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("file"), "").expect("a written file");
        fs::create_dir(folder.path().join("folder.mp4")).expect("a folder");
        for (name, reason) in [
            ("a.avi", "unknown kind of output"),
            ("missing/a.mp4", "there is no folder"),
            ("file/a.gif", "there is no folder"),
            ("folder.mp4", "is a folder"),
            ("file", "is a file"),
        ] {
            let error = Output::prepare(&folder.path().join(name)).expect_err(name);
            assert!(error.is_input() && error.to_string().contains(reason), "{name}: {error}");
        }
        assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 2, "nothing is left");
    }

    /// A limit on the size of files stands in for a full disk: it needs no rights, and the writers meet the same kind
    /// of error. The limit holds for a whole process, so this test runs the one below in another.
    #[cfg(unix)]
    #[test]
    fn a_full_disk_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let status = std::process::Command::new("sh")
            .args(["-c", "trap '' XFSZ; ulimit -f 4; exec \"$0\" --exact output::tests::under_a_limit --ignored"])
            .arg(std::env::current_exe().expect("this program"))
            .env("MOTIONCLONE_TEST_FOLDER", folder.path())
            .stdout(Stdio::null())
            .status()
            .expect("a shell");
        assert!(status.success(), "see the messages above");
        assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 0, "nothing is left");
    }

    #[test]
    #[ignore = "run by a_full_disk_leaves_nothing"]
    fn under_a_limit() {
        let folder = PathBuf::from(std::env::var_os("MOTIONCLONE_TEST_FOLDER").expect("a folder to write to"));
        let frames = moving_bars(12, 256, 256);
        for name in ["a.mp4", "a.webm", "a.gif", "a.webp", "frames"] {
            let output = Output::prepare(&folder.join(name)).expect(name);
            let error =
                output.write(&frames, FrameRate::new(8, 1).expect("a frame rate"), &Cancel::default()).expect_err(name);
            assert!(error.is_input() && error.to_string().contains("cannot be written"), "{name}: {error}");
            assert!(!error.to_string().contains('\n'), "{name}: {error}");
        }
    }
}
