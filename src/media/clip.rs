//! Reference clips: a video file or a sequence of pictures, of which evenly spread frames are read.

use std::path::{Path, PathBuf};

use super::frames::Frames;
use super::image::regular_file;
use super::sampling::{Moment, Sampling, Selection, Timecode, sample_indices, sample_times};
use super::sequence::{self, Sequence};
use super::video::{Pick, ReadProgress, ReadStage, Times, Video, Watch};
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// Frames that lie further apart than so many seconds hardly show how something moves.
const FAR_APART: f64 = 1.0;

/// A clip that was opened: when each of its frames is shown is known.
#[derive(Debug)]
pub struct Clip {
    path: PathBuf,
    source: Source,
    selection: Selection,
    frames: Shown,
    /// Sentences on what the user should know and what does not stop the work; [`Clip::sample`] may add some.
    pub warnings: Vec<String>,
    /// Sentences on how the clip is read.
    pub notes: Vec<String>,
}

#[derive(Debug)]
enum Source {
    Video(Box<Video>, Listing),
    Pictures(Vec<PathBuf>),
}

/// Where the times of a video's frames come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listing {
    /// The file's own list of the chosen part. It may name frames that do not decode.
    File,
    /// Decoding the chosen part.
    DecodedPart,
    /// Decoding everything, so that frames can be found by their number, too.
    Decoded,
}

/// The frames of the chosen part.
#[derive(Debug)]
struct Shown {
    /// Seconds from the source's beginning, ascending.
    seconds: Vec<f64>,
    /// The number of the first one among those listed.
    first: usize,
    /// Seconds at which the part begins; its first frame may be shown already then.
    start: f64,
    /// What the seconds are rounded to.
    tick: f64,
    /// Whether each has a time of its own.
    are_sound: bool,
}

/// A bound of the chosen part.
#[derive(Debug, Clone, Copy)]
enum Bound {
    Seconds(f64),
    Frame(usize),
}

impl Clip {
    /// Opens a clip: a video file, a folder of pictures, a pattern of their names, or one of them.
    ///
    /// # Errors
    /// When there is no such clip or no such part of it, it is several sequences, or it has fewer than two frames: one
    /// frame holds no motion; or the work is cancelled.
    pub fn open(path: &Path, selection: &Selection, watch: Watch, cancel: &Cancel) -> Result<Self> {
        let clip = match Sequence::find(path)? {
            Some(sequence) => Self::from_sequence(path, sequence, selection)?,
            None => {
                regular_file(path)?;
                Self::from_video(path, Video::open(path, cancel)?, selection, watch, cancel)?
            }
        };
        let count = clip.count();
        if count < 2 {
            let frames = if count == 1 { "frame" } else { "frames" };
            let part = if selection.start.or(selection.end).is_some() { " in this part" } else { "" };
            let text = format!("{count} {frames}{part}: a clip needs at least 2 to show a motion");
            return Err(Error::input(text).with_path(path));
        }
        Ok(clip)
    }

    fn from_sequence(path: &Path, sequence: Sequence, selection: &Selection) -> Result<Self> {
        let Sequence { files, times, warnings } = sequence;
        let times = Times { seconds: times, tick: 1e-6, are_sound: true, complaint: None };
        let (start, end) = bounds(selection, sequence::RATE, None).map_err(|e| e.with_path(path))?;
        let frames = Shown::cut(times, start, end).map_err(|e| e.with_path(path))?;
        let source = Source::Pictures(files);
        Ok(Self { path: path.into(), source, selection: *selection, frames, warnings, notes: Vec::new() })
    }

    fn from_video(path: &Path, video: Video, selection: &Selection, watch: Watch, cancel: &Cancel) -> Result<Self> {
        let interlaced = video.track.is_interlaced.then(|| "interlaced frames are deinterlaced".to_string());
        let notes = video.reading.note.clone().into_iter().chain(interlaced);
        let notes = notes.map(|note| format!("{}: {note}", path.display())).collect();
        let mut clip = Self {
            path: path.into(),
            source: Source::Pictures(Vec::new()),
            selection: *selection,
            frames: Shown { seconds: Vec::new(), first: 0, start: 0.0, tick: 0.0, are_sound: true },
            warnings: Vec::new(),
            notes,
        };
        // The published way counts frames, so it must know which decode.
        let mut listing = if selection.sampling == Sampling::Published { Listing::Decoded } else { Listing::File };
        let times = clip.list(&video, listing, watch, cancel)?;
        let times = if listing == Listing::File && (times.seconds.is_empty() || !times.are_sound) {
            listing = Listing::Decoded;
            clip.list(&video, listing, watch, cancel)?
        } else {
            times
        };
        clip.cut(&video, times)?;
        clip.source = Source::Video(Box::new(video), listing);
        Ok(clip)
    }

    /// When the frames of a video are shown.
    fn list(&mut self, video: &Video, listing: Listing, watch: Watch, cancel: &Cancel) -> Result<Times> {
        let (start, end) = self.bounds(video)?;
        let seconds = |bound| match bound {
            Some(Bound::Seconds(seconds)) if listing != Listing::Decoded => Some(seconds),
            _ => None,
        };
        // A part that begins at a frame's number is counted from the beginning.
        let start = if matches!(end, Some(Bound::Frame(_))) { None } else { seconds(start) };
        let mut times = video.times(start, seconds(end), listing != Listing::File, watch, cancel)?;
        if let Some(complaint) = times.complaint.take().filter(|_| listing != Listing::File) {
            self.warnings.push(damaged(&self.path, &complaint));
        }
        Ok(times)
    }

    fn cut(&mut self, video: &Video, times: Times) -> Result<()> {
        if times.seconds.is_empty() {
            return Err(Error::input("there is no video in it that can be decoded").with_path(&self.path));
        }
        let (start, end) = self.bounds(video)?;
        self.frames = Shown::cut(times, start, end).map_err(|e| e.with_path(&self.path))?;
        Ok(())
    }

    fn bounds(&self, video: &Video) -> Result<(Option<Bound>, Option<Bound>)> {
        bounds(&self.selection, video.track.rate, video.track.timecode).map_err(|e| e.with_path(&self.path))
    }

    /// The path given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Frames of the chosen part.
    pub fn count(&self) -> usize {
        self.frames.seconds.len()
    }

    /// Which frames of the chosen part stand for it when `frames` are wanted. A part shorter than that repeats some.
    pub fn indices(&self, frames: usize) -> Vec<usize> {
        match self.selection.sampling {
            Sampling::Published => sample_indices(self.count(), frames),
            Sampling::Time if !self.frames.are_sound => sample_indices(self.count(), frames),
            Sampling::Time => {
                let mut seconds = self.frames.seconds.clone();
                if let Some(first) = seconds.first_mut() {
                    *first = first.max(self.frames.start);
                }
                sample_times(&seconds, self.frames.tick, frames)
            }
        }
    }

    /// Evenly spread frames of the chosen part at the wanted size, resized as they come so that only one is held at the
    /// clip's own size.
    ///
    /// # Errors
    /// When a frame cannot be decoded, or the work is cancelled.
    pub fn sample(
        &mut self,
        frames: usize,
        width: usize,
        height: usize,
        watch: Watch,
        cancel: &Cancel,
    ) -> Result<Frames> {
        let sampled = match self.read(frames, width, height, watch, cancel)? {
            Ok(sampled) => sampled,
            Err(_) if self.relist(watch, cancel)? => {
                self.read(frames, width, height, watch, cancel)?.map_err(|e| e.with_path(&self.path))?
            }
            Err(error) => return Err(error.with_path(&self.path)),
        };
        let seconds = &self.frames.seconds;
        let apart = (seconds[seconds.len() - 1] - seconds[0].max(self.frames.start)) / (frames.max(2) - 1) as f64;
        if apart > FAR_APART {
            self.warnings.push(format!(
                "{}: the {frames} frames taken lie {apart:.1} s apart; a shorter part (start, end) shows its motion better",
                self.path.display()
            ));
        }
        Ok(sampled)
    }

    /// Lists a video's frames again, now those that decode; whether that was still to be done.
    fn relist(&mut self, watch: Watch, cancel: &Cancel) -> Result<bool> {
        let source = std::mem::replace(&mut self.source, Source::Pictures(Vec::new()));
        let Source::Video(video, Listing::File) = source else {
            self.source = source;
            return Ok(false);
        };
        let times = self.list(&video, Listing::DecodedPart, watch, cancel)?;
        self.cut(&video, times)?;
        self.source = Source::Video(video, Listing::DecodedPart);
        Ok(true)
    }

    /// The chosen frames, or why one of them is missing.
    fn read(
        &mut self,
        frames: usize,
        width: usize,
        height: usize,
        watch: Watch,
        cancel: &Cancel,
    ) -> Result<Result<Frames>> {
        let indices = self.indices(frames);
        let mut wanted = indices.clone();
        wanted.dedup();
        let mut sampled = Frames { width, height, data: Vec::new() };
        sampled.data.try_reserve_exact(frames.saturating_mul(sampled.frame_len())).map_err(|_| {
            Error::input(format!("{frames} frames of {width}x{height} do not fit into memory; choose a smaller size"))
        })?;
        let mut given = 0;
        let mut keep = |frame: Frames| {
            let frame = frame.resize_align_corners(width, height);
            let repeats = indices.iter().filter(|index| Some(*index) == wanted.get(given)).count();
            (0..repeats).for_each(|_| sampled.data.extend(&frame.data));
            given += 1;
        };
        match &self.source {
            Source::Pictures(files) => {
                let total = wanted.len() as f64;
                for (done, index) in wanted.iter().enumerate() {
                    cancel.check()?;
                    watch(ReadProgress { done: done as f64, total, stage: ReadStage::Pictures });
                    keep(Frames::open_image_until(&files[self.frames.first + index], cancel)?);
                }
            }
            Source::Video(video, listing) => {
                let picks: Vec<Pick> = wanted.iter().map(|index| self.frames.pick(*index, *listing)).collect();
                let plainly = self.selection.sampling == Sampling::Published;
                let complaint = video.decode(&picks, plainly, &mut keep, watch, cancel)?;
                if let Some(index) = wanted.get(given) {
                    let reason = complaint.unwrap_or_else(|| "ffmpeg gives no reason".into());
                    return Ok(Err(Error::input(format!("frame {index} could not be decoded: {reason}"))));
                }
                if let Some(complaint) = complaint.filter(|_| *listing == Listing::File) {
                    self.warnings.push(damaged(&self.path, &complaint));
                }
            }
        }
        Ok(Ok(sampled))
    }
}

impl Shown {
    fn cut(times: Times, start: Option<Bound>, end: Option<Bound>) -> Result<Self> {
        let Times { mut seconds, tick, are_sound, .. } = times;
        let (count, last) = (seconds.len(), seconds.last().copied().unwrap_or(0.0));
        // The part's first frame is the one that is shown when it begins.
        let first = match start {
            None => 0,
            Some(Bound::Frame(number)) => number,
            Some(Bound::Seconds(start)) => {
                seconds.partition_point(|time| *time <= start + tick.min(1e-3)).saturating_sub(1)
            }
        };
        let behind = match end {
            None => count,
            Some(Bound::Frame(number)) => number.min(count),
            Some(Bound::Seconds(end)) => seconds.partition_point(|time| *time < end - tick.min(1e-3) / 2.0),
        };
        let begins = match start {
            Some(Bound::Seconds(start)) if start > last + 1e-3 => {
                return Err(Error::input(format!(
                    "the part begins at {start} s, the clip's last frame is at {last:.3} s"
                )));
            }
            Some(Bound::Frame(number)) if number >= count => {
                return Err(Error::input(format!("the part begins at frame {number}, the clip has {count}")));
            }
            Some(Bound::Seconds(start)) => start,
            _ => 0.0,
        };
        if behind <= first {
            return Err(Error::input("the part ends before it begins"));
        }
        seconds.truncate(behind);
        seconds.drain(..first);
        Ok(Self { seconds, first, start: begins, tick, are_sound })
    }

    /// How ffmpeg finds a frame.
    fn pick(&self, index: usize, listing: Listing) -> Pick {
        if listing == Listing::Decoded && !self.are_sound {
            return Pick::Number(self.first + index);
        }
        let seconds = &self.seconds;
        let time = seconds[index];
        let before = index.checked_sub(1).map_or(f64::MAX, |other| time - seconds[other]);
        let after = seconds.get(index + 1).map_or(f64::MAX, |other| other - time);
        Pick::Time(time, 0.4 * before.min(after).min(0.05))
    }
}

fn bounds(selection: &Selection, rate: f64, first: Option<Timecode>) -> Result<(Option<Bound>, Option<Bound>)> {
    let bound = |moment: Option<Moment>| {
        moment
            .map(|moment| match moment {
                Moment::Frame(number) => Ok(Bound::Frame(usize::try_from(number).unwrap_or(usize::MAX))),
                moment => moment.seconds(rate, first).map(Bound::Seconds),
            })
            .transpose()
    };
    let (start, end) = (bound(selection.start)?, bound(selection.end)?);
    if let (Some(Bound::Seconds(start)), Some(Bound::Seconds(end))) = (start, end)
        && end <= start
    {
        return Err(Error::input(format!("the part ends at {end} s, before it begins at {start} s")));
    }
    Ok((start, end))
}

fn damaged(path: &Path, complaint: &str) -> String {
    format!("{}: damaged, ffmpeg says: {complaint}", path.display())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::media::ffmpeg::Ffmpeg;
    use crate::media::testing::{clips, golden, made, open, read};

    #[test]
    fn what_is_no_clip_is_refused_in_one_line() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("text.mp4"), "no video").expect("a written file");
        fs::write(at("empty.mp4"), "").expect("a written file");
        fs::create_dir(at("nothing")).expect("a folder");
        made(folder.path(), "sound.wav", &["-f", "lavfi", "-i", "sine=d=0.5"]);
        made(folder.path(), "still.mp4", &["-f", "lavfi", "-i", "color=red:s=64x48:r=8", "-frames:v", "1"]);
        let whole = fs::read(made(folder.path(), "whole.mp4", &["-f", "lavfi", "-i", "testsrc=s=64x48:d=2"]));
        fs::write(at("cut.mp4"), &whole.expect("the clip")[..2000]).expect("a written file");
        for (name, reason) in [
            ("missing.mp4", "no such file or folder"),
            ("text.mp4", "not a video that ffmpeg can read"),
            ("empty.mp4", "not a video that ffmpeg can read"),
            ("cut.mp4", "not a video that ffmpeg can read"),
            ("sound.wav", "there is no video in it"),
            ("still.mp4", "1 frame: a clip needs at least 2"),
            ("nothing", "the folder holds no images"),
        ] {
            let error = open(&at(name)).expect_err(name);
            let text = error.to_string();
            assert!(error.is_input() && text.contains(reason) && text.contains(name), "{name}: {text}");
            assert!(!text.contains('\n'), "{name}: {text}");
        }
    }

    #[test]
    fn a_cover_picture_is_no_video() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let cover = made(folder.path(), "cover.png", &["-f", "lavfi", "-i", "color=red:s=32x32", "-frames:v", "1"]);
        let cover = cover.to_string_lossy();
        let sound = ["-f", "lavfi", "-i", "sine=d=0.5", "-i", &cover, "-map", "0:a", "-map", "1:v"];
        let options = [&sound[..], &["-c:v", "copy", "-disposition:v:0", "attached_pic", "-c:a", "flac"]].concat();
        let error = open(&made(folder.path(), "sound.flac", &options)).expect_err("sound alone");
        assert!(error.to_string().contains("there is no video in it"), "{error}");
    }

    #[test]
    fn a_short_clip_repeats_frames() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for shade in 0..3_u8 {
            let path = folder.path().join(format!("{shade}.png"));
            image::save_buffer(path, &[shade; 32 * 32 * 3], 32, 32, image::ExtendedColorType::Rgb8).expect("a picture");
        }
        let sampled = read(folder.path(), 5, 32, 32).expect("frames");
        assert_eq!(sampled.iter().map(|frame| frame[0]).collect::<Vec<_>>(), [0, 0, 1, 1, 2]);
    }

    #[test]
    fn names_are_taken_literally() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["-y%03d.mp4", "concat:a|b.mp4", "it's 100%, [ok].mp4"] {
            let path = folder.path().join(name);
            let plain = made(folder.path(), "plain.mp4", &["-f", "lavfi", "-i", "testsrc=s=32x32:d=0.5:r=8"]);
            fs::rename(plain, &path).expect(name);
            assert_eq!(open(&path).expect(name).count(), 4, "{name}");
        }
    }

    #[test]
    fn rotated_clips_are_read_upright() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let plain = made(folder.path(), "plain.mp4", &["-f", "lavfi", "-i", "testsrc=s=64x32:d=0.5:r=8"]);
        let plain = plain.to_string_lossy();
        let options = ["-display_rotation", "90", "-i", &plain, "-c", "copy"];
        let ffmpeg = Ffmpeg::find().expect("ffmpeg");
        if ffmpeg.version.starts_with("4.") || ffmpeg.version.starts_with("5.") {
            println!("skipped: this ffmpeg cannot write a rotation");
            return;
        }
        let turned = made(folder.path(), "turned.mp4", &options);
        let video = Video::open(&turned, &Cancel::default()).expect("a clip");
        let mut sizes = Vec::new();
        let mut keep = |frame: Frames| sizes.push((frame.width, frame.height));
        video.decode(&[Pick::Number(0)], false, &mut keep, &mut |_| (), &Cancel::default()).expect("a frame");
        assert_eq!(sizes, [(32, 64)]);
    }

    /// One tensor of a recorded case.
    fn recorded(case: &str, tensor: &str) -> (Vec<usize>, Vec<u8>) {
        let file = fs::read(golden(&format!("cases/{case}.safetensors"))).expect("a recorded case");
        let tensors = safetensors::SafeTensors::deserialize(&file).expect("safetensors");
        let view = tensors.tensor(tensor).expect(tensor);
        (view.shape().to_vec(), view.data().to_vec())
    }

    /// What the published way reads is ffmpeg's own conversion of the frames that numpy's linspace numbers; by time, the
    /// same frames are read, and the same bytes of clips that do not name their colours.
    #[test]
    fn the_published_way_reads_as_ever() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = ["-f", "lavfi", "-i", "testsrc2=s=64x48:r=30000/1001:d=1.5", "-pix_fmt", "yuv420p"];
        let mut paths = vec![made(folder.path(), "plain.mp4", &options), made(folder.path(), "plain.mkv", &options)];
        let shared = clips().map(|clips| fs::read_dir(clips).expect("clips"));
        paths.extend(shared.into_iter().flatten().map(|entry| entry.expect("an entry").path()));
        for path in paths.iter().filter(|path| path.extension().is_some_and(|e| e == "mp4" || e == "mkv")) {
            let cancel = Cancel::default();
            let mut published = Clip::open(
                path,
                &Selection { sampling: Sampling::Published, ..Selection::default() },
                &mut |_| (),
                &cancel,
            )
            .expect("a clip");
            let mut timed = open(path).expect("a clip");
            assert_eq!(timed.count(), published.count(), "{}", path.display());
            for frames in [2, 8, 16] {
                let expected = sample_indices(published.count(), frames);
                assert_eq!(published.indices(frames), expected);
                assert_eq!(timed.indices(frames), expected, "{}", path.display());
            }
            let Source::Video(video, _) = &timed.source else { panic!("a video") };
            let (width, height) = (video.track.width, video.track.height);
            let is_plain = video.track.colour.matrix == "unknown" && video.reading.guessed_matrix.is_none();
            let read = published.sample(4, width, height, &mut |_| (), &cancel).expect("frames");
            let ffmpeg = Ffmpeg::find().expect("ffmpeg");
            let choice: Vec<String> =
                sample_indices(published.count(), 4).iter().map(|index| format!("eq(n\\,{index})")).collect();
            let direct = std::process::Command::new(&ffmpeg.path)
                .args(["-v", "error", "-i"])
                .arg(path)
                .args(["-map", "0:V:0", "-vf", &format!("select={}", choice.join("+"))])
                .args(ffmpeg.every_frame())
                .args(["-f", "rawvideo", "-pix_fmt", "rgb24", "-"])
                .output()
                .expect("ffmpeg");
            assert!(read.data == direct.stdout, "{}", path.display());
            if is_plain {
                let read = timed.sample(4, width, height, &mut |_| (), &cancel).expect("frames");
                assert!(read.data == direct.stdout, "{} by time", path.display());
            }
        }
    }

    #[test]
    fn frames_equal_the_recorded_ones() {
        let Some(folder) = clips() else { return };
        let sampled = read(&folder.join("camera_zoom_in.mp4"), 8, 128, 128).expect("frames");
        let (shape, planes) = recorded("t2v", "reference_frames");
        assert_eq!(shape, [8, 3, 128, 128]);
        let near = (0..planes.len())
            .filter(|i| {
                let (frame, channel, pixel) = (i / (3 * 128 * 128), i / (128 * 128) % 3, i % (128 * 128));
                sampled.frame(frame)[pixel * 3 + channel].abs_diff(planes[*i]) <= 1
            })
            .count();
        let share = near as f64 / planes.len() as f64;
        println!("{:.4} % of samples within 1 of 255", share * 100.0);
        assert!(share >= 0.999);
    }

    /// The sketch lies beside the clips' folder or in it.
    #[test]
    fn sketches_equal_the_recorded_ones() {
        let Some(folder) = clips() else { return };
        let name = "condition_images/lion_forest.png";
        let places = [folder.join(name), folder.with_file_name(name)];
        let Some(path) = places.iter().find(|path| path.is_file()) else {
            println!("skipped: no {name} in or beside MOTIONCLONE_CLIPS");
            return;
        };
        let image = Frames::open_image(path).expect("an image").resize_antialiased(128, 128);
        let (shape, bytes) = recorded("i2v_sketch", "control.images");
        assert_eq!(shape, [1, 3, 1, 128, 128]);
        let (mut distance, mut norm) = (0.0, 0.0);
        for (i, value) in bytes.chunks_exact(4).enumerate() {
            let expected = f64::from(f32::from_le_bytes([value[0], value[1], value[2], value[3]]));
            let got = f64::from(image.data[i % (128 * 128) * 3 + i / (128 * 128)]) / 255.0;
            (distance, norm) = (distance + (got - expected).powi(2), norm + expected.powi(2));
        }
        let error = (distance / norm).sqrt();
        println!("relative error {error:.2e}");
        assert!(error < 1e-2);
    }
}
