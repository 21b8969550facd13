//! Writing the new clip: the file's extension decides the format. A result appears whole or not at all.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use image::{ImageFormat, RgbImage};
use motionclone::Cancel;
use motionclone::media::ffmpeg::{self, Ffmpeg, Running};
use motionclone::media::frames::Frames;
use motionclone::onnx::owned::Kind;
use motionclone::onnx::unfinished::{self, Unfinished, UnfinishedFolder};
use motionclone::settings::FrameRate;
use motionclone::{Error, Result};

use crate::places::Places;

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

/// What the system says through ffmpeg when a place refuses a file; anything else is the encoder's fault.
const OF_THE_PLACE: [&str; 6] =
    ["No space left", "File too large", "quota", "Permission denied", "Read-only file system", "not permitted"];

/// The size and rate of a clip that will be written.
#[derive(Debug, Clone, Copy)]
pub struct ClipShape {
    pub width: usize,
    pub height: usize,
    pub frames: usize,
    pub fps: FrameRate,
}

impl ClipShape {
    fn bytes(&self) -> u64 {
        [self.width, self.height, self.frames].into_iter().fold(3, |product, n| product.saturating_mul(n as u64))
    }
}

/// A place for a clip that was found writable.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    format: Format,
    ffmpeg: Option<Ffmpeg>,
}

/// Finds out before any long work whether results can be written.
#[derive(Default)]
pub struct Outputs {
    /// Inputs, and the places taken.
    pub places: Places,
    /// Formats and sizes of which a frame or two were encoded.
    tried: Vec<(Format, usize, usize)>,
    /// Bytes that will be written to each folder.
    needed: HashMap<PathBuf, u64>,
}

impl Outputs {
    /// Checks that a clip can be written, by writing a short one.
    ///
    /// # Errors
    /// When the extension is unknown, the place is an input's or another's, its folder is missing, not writable or full,
    /// something else stands there, or ffmpeg is missing or cannot encode this format.
    pub fn clip(&mut self, path: &Path, shape: &ClipShape) -> Result<Output> {
        let format = Format::of(path)?;
        if format == Format::Folder {
            self.places.folder(path)?;
            check_parent(path)?;
            drop(UnfinishedFolder::new(path, Kind::Frames)?);
            // Noise, which is the worst case, does not get smaller; pictures get to a third.
            self.room(path, shape.bytes() / 4)?;
            return Ok(Output { path: path.into(), format, ffmpeg: None });
        }
        self.file(path)?;
        self.room(path, shape.bytes() / 64)?;
        let ffmpeg = Ffmpeg::find()?;
        let output = Output { path: path.into(), format, ffmpeg: Some(ffmpeg.clone()) };
        if !self.tried.contains(&(format, shape.width, shape.height)) {
            output.try_encoder(&ffmpeg, shape)?;
            self.tried.push((format, shape.width, shape.height));
        }
        Ok(output)
    }

    /// Checks that a file can be written.
    ///
    /// # Errors
    /// When it is an input or another result, its folder is missing or not writable, or what is there is write-protected
    /// or no plain file.
    pub fn file(&mut self, path: &Path) -> Result<()> {
        self.places.file(path)?;
        check_parent(path)?;
        let place = unfinished::follow(path).map_err(|e| cannot_write(path, e))?;
        match fs::metadata(&place) {
            Ok(there) if there.is_dir() => return Err(Error::input("is a folder").with_path(path)),
            Ok(there) if !there.is_file() => return Err(cannot_write(path, "a device or pipe is there")),
            Ok(there) if there.permissions().readonly() => return Err(cannot_write(path, "it is write-protected")),
            Ok(_) => drop(fs::File::options().append(true).open(&place).map_err(|e| cannot_write(path, e))?),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(cannot_write(path, error)),
        }
        drop(Unfinished::file(path).map_err(|e| cannot_write(path, e))?);
        Ok(())
    }

    /// Checks that a folder has room for so many bytes more.
    fn room(&mut self, path: &Path, bytes: u64) -> Result<()> {
        let place = unfinished::follow(path).map_err(|e| cannot_write(path, e))?;
        let folder = if place.is_dir() { &place } else { unfinished::parent(&place) };
        let needed = self.needed.entry(folder.into()).or_default();
        *needed = needed.saturating_add(bytes);
        unfinished::check_room(folder, *needed).map_err(|e| e.with_path(path))
    }
}

impl Output {
    /// The path given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether every pixel is kept.
    pub fn is_lossless(&self) -> bool {
        self.format == Format::Folder
    }

    /// Writes the clip, replacing an older one. The same frames give the same bytes.
    ///
    /// # Errors
    /// When the disk is full or ffmpeg cannot write this format, or the work is cancelled; nothing is left
    /// then.
    pub fn write(&self, frames: &Frames, fps: FrameRate, cancel: &Cancel) -> Result<()> {
        match &self.ffmpeg {
            Some(ffmpeg) => {
                let unfinished = self.encode(ffmpeg, frames, fps, cancel)?;
                unfinished.finish().map_err(|e| cannot_write(&self.path, e))
            }
            None => write_folder(&self.path, frames, cancel),
        }
    }

    fn encode(&self, ffmpeg: &Ffmpeg, frames: &Frames, fps: FrameRate, cancel: &Cancel) -> Result<Unfinished> {
        let unfinished = Unfinished::file(&self.path).map_err(|e| cannot_write(&self.path, e))?;
        let mut command = ffmpeg.command();
        command.args(["-f", "rawvideo", "-pixel_format", "rgb24"]);
        command.args(["-video_size", &format!("{}x{}", frames.width, frames.height)]);
        command.args(["-framerate", &fps.to_string(), "-i", "pipe:0"]).args(self.format.options());
        // One thread and no encoder names: the file depends on the frames alone.
        command.args(["-map_metadata", "-1", "-fflags", "+bitexact", "-flags:v", "+bitexact", "-threads", "1", "-y"]);
        command.arg(ffmpeg::literal(unfinished.path())).stdin(Stdio::piped());
        let running = Running::start(command)?;
        if let Some(mut input) = running.stdin() {
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
        if !well || complaint.is_some() || !unfinished.path().is_file() {
            let complaint = complaint.unwrap_or_else(|| "ffmpeg ended early and gave no reason".into());
            // "Error writing trailer of file:…: No space left on device": only the end tells the user something.
            let reason = complaint.rsplit(": ").next().unwrap_or(&complaint);
            let of_the_place = OF_THE_PLACE.iter().any(|words| reason.contains(words));
            return Err(match of_the_place {
                true => cannot_write(&self.path, reason),
                false => Error::failure(format!("cannot be written: {reason}")).with_path(&self.path),
            });
        }
        Ok(unfinished)
    }

    /// Encodes two frames of the clip's size, and lets go of them.
    fn try_encoder(&self, ffmpeg: &Ffmpeg, shape: &ClipShape) -> Result<()> {
        let ClipShape { width, height, fps, .. } = *shape;
        let frames = Frames { width, height, data: vec![128; width * height * 3 * 2] };
        let Err(error) = self.encode(ffmpeg, &frames, fps, &Cancel::default()) else { return Ok(()) };
        if error.is_input() {
            return Err(error);
        }
        let there = encoders(ffmpeg);
        let can_write = |format: &&Format| there.iter().any(|name| name == format.encoder());
        let others: Vec<&str> =
            Format::FILES.iter().filter(can_write).filter(|f| **f != self.format).map(|f| f.extension()).collect();
        let others = if others.is_empty() { String::new() } else { format!("{}, or ", others.join(", ")) };
        let reason = match can_write(&&self.format) {
            true => error.to_string(),
            false => format!(
                "{}: cannot be written: this ffmpeg ({}) has no encoder {}, which {} needs",
                self.path.display(),
                ffmpeg.path.display(),
                self.format.encoder(),
                self.format.extension()
            ),
        };
        Err(Error::input(format!(
            "{reason}; name another ffmpeg in {}, or choose {others}a folder for PNG files",
            ffmpeg::VARIABLE
        )))
    }
}

impl Format {
    const FILES: [Self; 4] = [Self::Mp4, Self::Webm, Self::Gif, Self::Webp];

    fn of(path: &Path) -> Result<Self> {
        let bad = |message: &str| Err(Error::input(message).with_path(path));
        if path.as_os_str().to_string_lossy().ends_with(std::path::is_separator) {
            return Ok(Self::Folder);
        }
        let Some(extension) = path.extension().and_then(OsStr::to_str) else {
            let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
            return match Self::FILES.iter().any(|format| format.extension() == name) {
                true => bad("is an extension without a name"),
                false => Ok(Self::Folder),
            };
        };
        let extension = format!(".{}", extension.to_lowercase());
        match Self::FILES.into_iter().find(|format| format.extension() == extension) {
            Some(format) => Ok(format),
            None => bad("unknown kind of output: use .mp4, .webm, .gif, .webp, or a folder for PNG files"),
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Mp4 => ".mp4",
            Self::Webm => ".webm",
            Self::Gif => ".gif",
            Self::Webp => ".webp",
            Self::Folder => "",
        }
    }

    /// The encoder's name in ffmpeg.
    fn encoder(self) -> &'static str {
        match self {
            Self::Mp4 => "libx264",
            Self::Webm => "libvpx-vp9",
            Self::Gif => "gif",
            Self::Webp => "libwebp_anim",
            Self::Folder => "",
        }
    }

    /// ffmpeg's options for one format.
    fn options(self) -> Vec<&'static str> {
        let settings: &[&str] = match self {
            Self::Mp4 => &["-crf", "16", "-preset", "medium", "-movflags", "+faststart"],
            Self::Webm => &["-crf", "18", "-b:v", "0", "-cpu-used", "2"],
            Self::Webp => &["-quality", "90", "-loop", "0"],
            Self::Gif => &[
                "-filter_complex",
                "split[a][b];[a]palettegen=stats_mode=full[p];[b][p]paletteuse=dither=sierra2_4a",
                "-loop",
                "0",
            ],
            Self::Folder => &[],
        };
        let mut options = vec!["-c:v", self.encoder()];
        options.extend(settings);
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

/// The video encoders that an ffmpeg names.
fn encoders(ffmpeg: &Ffmpeg) -> Vec<String> {
    let mut command = ffmpeg.command();
    let answer = command.arg("-encoders").stdout(Stdio::piped()).stderr(Stdio::null()).output();
    let text = answer.map(|answer| String::from_utf8_lossy(&answer.stdout).into_owned()).unwrap_or_default();
    // " V....D libx264              H.264 …"
    let lines = text.lines().filter(|line| line.starts_with(" V"));
    lines.filter_map(|line| line.split_whitespace().nth(1)).map(String::from).collect()
}

/// Writes a folder of PNG files, replacing an older one of ours.
fn write_folder(path: &Path, frames: &Frames, cancel: &Cancel) -> Result<()> {
    let folder = UnfinishedFolder::new(path, Kind::Frames)?;
    for (index, frame) in frames.iter().enumerate() {
        cancel.check()?;
        let file = folder.path().join(format!("frame_{index:04}.png"));
        fs::write(file, png(frame, frames.width, frames.height)?).map_err(|e| cannot_write(path, e))?;
    }
    folder.finish(&[])
}

/// Saves a clip whose own place failed as a new folder of PNG files: beside that place, in one of the `other` folders,
/// or in the system's folder for temporary files. Returns the folder.
///
/// # Errors
/// When none of them can be written, or the work is cancelled.
pub fn rescue(frames: &Frames, failed: &Path, other: Option<PathBuf>, cancel: &Cancel) -> Result<PathBuf> {
    let stem = failed.file_stem().unwrap_or_default().to_string_lossy();
    let stem = if stem.is_empty() { "motionclone".into() } else { stem };
    save_somewhere(failed, other, &format!("{stem}_frames"), "", &mut |path| write_folder(path, frames, cancel))
}

/// Saves a result under a new name in the first folder where `save` can: beside its own place, in the `other` one, or in
/// that for temporary files.
///
/// # Errors
/// The last one of `save`.
pub fn save_somewhere(
    failed: &Path,
    other: Option<PathBuf>,
    stem: &str,
    extension: &str,
    save: &mut dyn FnMut(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let beside = unfinished::parent(failed).to_path_buf();
    let mut result = Err(Error::failure("there is no folder to save it in"));
    for folder in [Some(beside), other, Some(std::env::temp_dir())].into_iter().flatten() {
        let names = std::iter::once(format!("{stem}{extension}"))
            .chain((2..).map(|number| format!("{stem}_{number}{extension}")));
        let free = names.map(|name| folder.join(name)).find(|path| path.symlink_metadata().is_err());
        let Some(path) = free else { continue };
        result =
            fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e)).and_then(|()| save(&path)).map(|()| path);
        if result.as_ref().is_ok() || result.as_ref().is_err_and(Error::is_cancelled) {
            break;
        }
    }
    result
}

/// Writes one frame as a PNG file.
///
/// # Errors
/// When the file cannot be written; nothing is left then.
pub fn write_png(path: &Path, frame: &Frames) -> Result<()> {
    let png = png(&frame.data, frame.width, frame.height)?;
    let file = Unfinished::file(path).map_err(|e| cannot_write(path, e))?;
    fs::write(file.path(), png).and_then(|()| file.finish()).map_err(|e| cannot_write(path, e))
}

/// Checks that the folder of a result is there.
fn check_parent(path: &Path) -> Result<()> {
    let folder = unfinished::parent(path);
    if folder.is_dir() { Ok(()) } else { Err(cannot_write(path, format!("there is no folder {}", folder.display()))) }
}

fn png(data: &[u8], width: usize, height: usize) -> Result<Vec<u8>> {
    let image = RgbImage::from_raw(width as u32, height as u32, data.to_vec())
        .ok_or_else(|| Error::failure(format!("{} bytes are no {width}x{height} frame", data.len())))?;
    let mut file = std::io::Cursor::new(Vec::new());
    image.write_to(&mut file, ImageFormat::Png).map_err(|e| Error::failure(format!("no PNG could be made: {e}")))?;
    Ok(file.into_inner())
}

/// The user named the place, so what it refuses is the user's to change, a full disk too.
fn cannot_write(path: &Path, reason: impl std::fmt::Display) -> Error {
    let reason = reason.to_string();
    // "Read-only file system (os error 30) at path …": numbers and hidden names help nobody.
    let reason = reason.split(" (os error").next().unwrap_or(&reason);
    let reason = if reason.starts_with("No space left") { "the disk is full" } else { reason };
    Error::input(format!("cannot be written: {reason}")).with_path(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{difference, moving_bars, open, prepare, read, write};

    /// Every format, read back: as many frames, the same size, nearly the same colours.
    #[test]
    fn written_clips_read_back() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let frames = moving_bars(10, 64, 48);
        for (name, allowed) in [("a.mp4", 6.0), ("a.webm", 6.0), ("a.gif", 12.0), ("frames", 0.0)] {
            let path = folder.path().join(name);
            write(&path, &frames, 8.0).expect(name);
            assert_eq!(open(&path).expect(name).count(), 10, "{name}");
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
        assert_eq!(open(&path).expect("a clip").count(), 3);
    }

    #[test]
    fn a_folder_of_frames_is_replaced_but_no_other() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("frames");
        for count in [5, 3] {
            write(&path, &moving_bars(count, 16, 16), 8.0).expect("written frames");
            assert_eq!(fs::read_dir(&path).expect("the folder").count(), count + 1, "the frames and the marker");
        }
        fs::write(path.join("notes.txt"), "mine").expect("a written file");
        let error = prepare(&path).expect_err("a folder with other files");
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
            let error = prepare(&folder.path().join(name)).expect_err(name);
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
            let output = prepare(&folder.join(name)).expect(name);
            let fps = FrameRate::new(8, 1).expect("a frame rate");
            let error = output.write(&frames, fps, &Cancel::default()).expect_err(name);
            assert!(error.is_input() && error.to_string().contains("cannot be written"), "{name}: {error}");
            assert!(!error.to_string().contains('\n'), "{name}: {error}");
        }
    }
}
