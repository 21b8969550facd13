//! Video files: the times of their frames, and chosen frames decoded, by ffmpeg.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command};

use super::colour::{Reading, SRGB};
use super::ffmpeg::{Ffmpeg, Running};
use super::frames::Frames;
use super::pixels::{Pixels, Samples};
use super::probe::Track;
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// One decoded frame may take at most this many bytes.
const MAX_FRAME_BYTES: usize = 1 << 30;
/// Where chosen frames lie further apart than so many seconds, the next one is sought instead of decoding up to it.
const SEEK_BEYOND: f64 = 8.0;
/// Seconds that are decoded before a sought frame: deinterlacing looks at its neighbours.
const LEAD: f64 = 0.5;
/// The time base of listed frames, where ffmpeg would otherwise round to the frame rate.
const FINE: f64 = 1e-6;

/// Hears how far the reading of a clip is.
pub type Watch<'a> = &'a mut dyn FnMut(ReadProgress);

/// How far the reading of a clip is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReadProgress {
    /// What is done.
    pub stage: ReadStage,
    /// Seconds of the clip, or pictures, that were passed.
    pub done: f64,
    /// Seconds of the clip, of its part, or pictures in all; 0 where the file does not say.
    pub total: f64,
}

/// A stage of reading a clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadStage {
    /// Listing when a video's frames are shown.
    List,
    /// Decoding a video up to its chosen frames.
    Decode,
    /// Reading pictures.
    Pictures,
}

/// A video file whose track was chosen.
#[derive(Debug)]
pub struct Video {
    ffmpeg: Ffmpeg,
    path: PathBuf,
    /// The track that is read.
    pub track: Track,
    /// What its colours mean.
    pub reading: Reading,
    /// Options that stand before the input.
    input: Vec<&'static str>,
}

/// When frames are shown.
#[derive(Debug, Default)]
pub struct Times {
    /// Seconds from the file's beginning, ascending.
    pub seconds: Vec<f64>,
    /// What the seconds are rounded to.
    pub tick: f64,
    /// Whether every frame has a time of its own, so that frames can be found by it.
    pub are_sound: bool,
    /// The first thing that ffmpeg complained of.
    pub complaint: Option<String>,
}

/// A frame to decode.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pick {
    /// The one shown at a second of the file, with the seconds by which it may be off.
    Time(f64, f64),
    /// The one with this number in the file.
    Number(usize),
}

impl Video {
    /// Opens a file and chooses its track.
    ///
    /// # Errors
    /// When ffmpeg is missing, there is no video in the file, or the work is cancelled.
    pub fn open(path: &Path, cancel: &Cancel) -> Result<Self> {
        Self::open_as(path, Vec::new(), cancel)
    }

    /// Reads a picture that only ffmpeg reads: EXR, DPX, TGA and others.
    ///
    /// # Errors
    /// As with [`Video::open`], and when it cannot be decoded.
    pub fn still(path: &Path, cancel: &Cancel) -> Result<Frames> {
        // A name with a % in it is no pattern.
        let is_targa = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tga"));
        let format = if is_targa { vec!["-f", "image2", "-pattern_type", "none"] } else { Vec::new() };
        let video = Self::open_as(path, format, cancel)?;
        let mut frames = Vec::new();
        let first_two = [Pick::Number(0), Pick::Number(1)];
        let complaint = video.decode(&first_two, false, &mut |frame| frames.push(frame), &mut |_| (), cancel)?;
        if frames.len() > 1 {
            return Err(Error::input("a video, where one picture is wanted").with_path(path));
        }
        frames.pop().ok_or_else(|| {
            let reason = complaint.map_or(String::new(), |complaint| format!(": {complaint}"));
            Error::input(format!("not a whole picture that can be read{reason}")).with_path(path)
        })
    }

    fn open_as(path: &Path, mut input: Vec<&'static str>, cancel: &Cancel) -> Result<Self> {
        let ffmpeg = Ffmpeg::find()?;
        let track = Track::probe(&ffmpeg, path, &input, cancel)?;
        if track.width.saturating_mul(track.height).saturating_mul(8) > MAX_FRAME_BYTES {
            return Err(Error::input(format!("{}x{} frames are too large", track.width, track.height)).with_path(path));
        }
        if track.has_side_alpha {
            // ffmpeg's own decoders of VP8 and VP9 leave transparency out.
            input.extend(match track.codec.as_str() {
                "vp8" => ["-c:v", "libvpx"].as_slice(),
                "vp9" => ["-c:v", "libvpx-vp9"].as_slice(),
                _ => &[],
            });
        }
        let reading = Reading::of(&track);
        Ok(Self { ffmpeg, path: path.into(), track, reading, input })
    }

    /// Lists when frames are shown, at least those between two seconds, and the one before. Unless `decoded`, only
    /// the file's own list is read, which is quick, and may name frames that do not decode.
    ///
    /// # Errors
    /// When ffmpeg cannot be run, or the work is cancelled.
    pub fn times(
        &self,
        start: Option<f64>,
        end: Option<f64>,
        decoded: bool,
        watch: Watch,
        cancel: &Cancel,
    ) -> Result<Times> {
        let begin = start.unwrap_or(0.0);
        let mut command = self.command(start, end);
        if decoded {
            command.args(self.ffmpeg.every_frame()).args(["-enc_time_base", "1:1000000"]);
        } else {
            command.args(["-c", "copy"]);
        }
        command.args(["-f", "framecrc", "-"]);
        let total = end.or(self.track.duration).map_or(0.0, |end| end - begin);
        let running = Running::start(command)?;
        let mut times = Times { tick: FINE, are_sound: true, ..Times::default() };
        running.stoppable(cancel, || {
            let Some(output) = running.stdout() else { return Ok(()) };
            for line in BufReader::new(output).lines() {
                let line =
                    line.map_err(|e| Error::failure(format!("ffmpeg's answer was lost: {e}")).with_path(&self.path))?;
                if let Some(base) = line.strip_prefix("#tb 0: ") {
                    times.tick = fraction(base).unwrap_or(FINE);
                } else if !line.starts_with('#') && !line.is_empty() {
                    match line.split(',').nth(2).and_then(|pts| pts.trim().parse::<i64>().ok()) {
                        Some(pts) if pts != i64::MIN => {
                            let time = pts as f64 * times.tick + begin;
                            times.seconds.push(time);
                            watch(ReadProgress { stage: ReadStage::List, done: (time - begin).max(0.0), total });
                        }
                        _ => {
                            times.are_sound = false;
                            times.seconds.push(times.seconds.last().copied().unwrap_or(0.0));
                        }
                    }
                }
            }
            Ok(())
        })?;
        times.complaint = running.finish()?.1;
        times.seconds.sort_by(f64::total_cmp);
        if !decoded {
            // An edit list cuts what comes before 0.
            times.seconds.retain(|time| *time >= -times.tick / 2.0);
        }
        times.are_sound &= times.seconds.windows(2).all(|pair| pair[1] > pair[0]);
        Ok(times)
    }

    /// Decodes frames in ascending order and hands each on at its own size, as long as ffmpeg gives them. `plainly`
    /// takes SDR colours as ffmpeg converts them by default. Answers with what ffmpeg complained of.
    ///
    /// # Errors
    /// When ffmpeg cannot be run, or the work is cancelled.
    pub fn decode(
        &self,
        picks: &[Pick],
        plainly: bool,
        keep: &mut dyn FnMut(Frames),
        watch: Watch,
        cancel: &Cancel,
    ) -> Result<Option<String>> {
        let last = picks.last().map_or(0.0, Pick::time);
        let mut first_complaint = None;
        for group in picks.chunk_by(|a, b| b.time() - a.time() <= SEEK_BEYOND) {
            let begin = group[0].time();
            let seek = (begin > SEEK_BEYOND).then_some(begin - LEAD);
            let mut command = self.command(seek, None);
            let choice: Vec<String> = group.iter().map(|pick| pick.expression(seek.unwrap_or(0.0))).collect();
            let (mut filters, format) = self.conversion(plainly);
            filters.insert(usize::from(self.track.is_interlaced), format!("select={}", choice.join("+")));
            command.args(["-vf", &filters.join(",")]).args(self.ffmpeg.every_frame());
            command.args(["-frames:v", &group.len().to_string()]);
            command.args(["-f", "image2pipe", "-c:v", "pam", "-pix_fmt", format, "-"]);
            let running = Running::start(command)?;
            let mut given = 0;
            running.stoppable(cancel, || {
                let Some(output) = running.stdout() else { return Ok(()) };
                let mut output = BufReader::new(output);
                while let Some(pixels) = read_pam(&mut output).map_err(|e| e.with_path(&self.path))? {
                    keep(pixels.into_frame(self.reading.meaning));
                    watch(ReadProgress {
                        done: group[given.min(group.len() - 1)].time(),
                        total: last,
                        stage: ReadStage::Decode,
                    });
                    given += 1;
                }
                Ok(())
            })?;
            let (_, complaint) = running.finish()?;
            if given < group.len() {
                return Ok(complaint.or(first_complaint));
            }
            if seek.is_none() {
                // Behind a seek, decoders miss what they had before.
                first_complaint = complaint;
            }
        }
        Ok(first_complaint)
    }

    /// ffmpeg on the chosen track.
    fn command(&self, start: Option<f64>, end: Option<f64>) -> Command {
        let mut command = self.ffmpeg.command();
        command.args(["-protocol_whitelist", "file"]).args(&self.input);
        if let Some(start) = start {
            // Frames are chosen by their time, so what lies between the key frame and `start` may come along.
            command.args(["-noaccurate_seek", "-ss", &format!("{start:.6}")]);
        }
        if let Some(end) = end {
            command.args(["-t", &format!("{:.6}", (end - start.unwrap_or(0.0)).max(0.001))]);
        }
        command.arg("-i").arg(super::ffmpeg::literal(&self.path));
        command.args(["-map", &format!("0:{}", self.track.index)]).stdout(std::process::Stdio::piped());
        command
    }

    /// ffmpeg's filters and the pixel format that bring a frame to R'G'B'.
    fn conversion(&self, plainly: bool) -> (Vec<String>, &'static str) {
        let track = &self.track;
        let mut filters = Vec::new();
        if track.is_interlaced {
            filters.push("bwdif=mode=send_frame:parity=auto:deint=interlaced".to_string());
        }
        let is_deep = track.is_deep();
        let is_plain = self.reading.meaning == SRGB && !is_deep && track.colour.matrix == "unknown";
        // Without these, ffmpeg is off by up to 4 of 255. Clips of 8 bit that do not name their colours are read as they
        // always were.
        if self.reading.meaning != SRGB
            || (!plainly && track.is_yuv() && (!is_plain || self.reading.guessed_matrix.is_some()))
        {
            let matrix = self.reading.guessed_matrix.map_or(String::new(), |name| format!(":in_color_matrix={name}"));
            filters.push(format!("scale=flags=accurate_rnd+full_chroma_int+bicubic{matrix}"));
        }
        // Light that is already multiplied by its alpha lies over black as it is.
        let has_alpha = track.has_alpha() && track.codec != "exr";
        // More than 8 bit are needed where they are bent, or multiplied by alpha.
        let wants_deep = is_deep && (self.reading.meaning != SRGB || has_alpha || !track.is_yuv());
        let format = match (has_alpha, wants_deep) {
            (false, false) => "rgb24",
            (true, false) => "rgba",
            (false, true) => "rgb48be",
            (true, true) => "rgba64be",
        };
        (filters, format)
    }
}

impl Pick {
    fn time(&self) -> f64 {
        match self {
            Self::Time(time, _) => *time,
            Self::Number(_) => 0.0,
        }
    }

    /// The condition in ffmpeg's filter, where time begins at `seek`.
    fn expression(&self, seek: f64) -> String {
        match self {
            Self::Time(time, off) => format!("between(t\\,{:.7}\\,{:.7})", time - seek - off, time - seek + off),
            Self::Number(number) => format!("eq(n\\,{number})"),
        }
    }
}

/// `1/90000`.
fn fraction(text: &str) -> Option<f64> {
    let (above, below) = text.trim().split_once('/')?;
    Some(above.parse::<f64>().ok()? / below.parse::<f64>().ok()?).filter(|value| value.is_finite() && *value > 0.0)
}

/// The next picture of a stream of PAM files; none at its end, or where it is cut off.
fn read_pam(input: &mut BufReader<ChildStdout>) -> Result<Option<Pixels>> {
    let odd = || Error::failure("ffmpeg gave something else than pictures");
    let lost = |e: std::io::Error| Error::failure(format!("ffmpeg's pictures were lost: {e}"));
    let (mut width, mut height, mut depth, mut maximum) = (0_usize, 0_usize, 0_usize, 0_usize);
    loop {
        let mut line = String::new();
        // The header's lines are short.
        if input.by_ref().take(200).read_line(&mut line).map_err(lost)? == 0 {
            return Ok(None);
        }
        let (key, value) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        let number = || value.parse().map_err(|_| odd());
        match key {
            "WIDTH" => width = number()?,
            "HEIGHT" => height = number()?,
            "DEPTH" => depth = number()?,
            "MAXVAL" => maximum = number()?,
            "ENDHDR" => break,
            _ => {}
        }
    }
    let bytes = if maximum > 255 { 2 } else { 1 };
    let size = width.checked_mul(height).and_then(|size| size.checked_mul(depth * bytes)).ok_or_else(odd)?;
    if size == 0 || size > MAX_FRAME_BYTES {
        return Err(Error::input(format!("{width}x{height} frames are too large")));
    }
    let mut data = vec![0; size];
    if input.read_exact(&mut data).is_err() {
        return Ok(None);
    }
    let wide = |data: &[u8]| data.chunks_exact(2).map(|two| u16::from_be_bytes([two[0], two[1]])).collect();
    let samples = match (depth, bytes) {
        (3, 1) => Samples::Rgb8(data),
        (4, 1) => Samples::Rgba8(data),
        (3, 2) => Samples::Rgb16(wide(&data)),
        (4, 2) => Samples::Rgba16(wide(&data)),
        _ => return Err(odd()),
    };
    Ok(Some(Pixels { width, height, samples }))
}
