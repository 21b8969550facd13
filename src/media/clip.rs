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
mod tests;
