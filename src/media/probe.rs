//! The video track of a file as ffmpeg describes it on opening the file; ffprobe is not needed.

use std::io::Read;
use std::path::Path;

use super::ffmpeg::{Ffmpeg, Running};
use super::sampling::Timecode;
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// More of ffmpeg's description is not read.
const MAX_DESCRIPTION: u64 = 16 << 20;

/// A video track.
#[derive(Debug, Clone, PartialEq)]
pub struct Track {
    /// Its number in the file.
    pub index: usize,
    /// The codec's name.
    pub codec: String,
    /// ffmpeg's name of the pixel format.
    pub pixels: String,
    /// Pixels across, before rotation.
    pub width: usize,
    /// Pixels down, before rotation.
    pub height: usize,
    /// Frames a second, on average.
    pub rate: f64,
    /// Seconds of the whole file, where it says so.
    pub duration: Option<f64>,
    /// The timecode of the first frame.
    pub timecode: Option<Timecode>,
    /// What the file says of its colours.
    pub colour: ColourTags,
    /// Whether two fields make a frame.
    pub is_interlaced: bool,
    /// Whether an alpha channel comes along in a way that only libvpx decodes.
    pub has_side_alpha: bool,
}

/// ffmpeg's names of how colours are coded, "unknown" where the file does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColourTags {
    /// "tv" (limited), "pc" (full) or "unknown".
    pub range: String,
    /// Of luma and chroma.
    pub matrix: String,
    /// Of the display that the colours are meant for.
    pub primaries: String,
    /// From code values to light.
    pub transfer: String,
}

impl Track {
    /// Whether pixels carry transparency.
    pub fn has_alpha(&self) -> bool {
        const WITH_ALPHA: [&str; 11] =
            ["rgba", "bgra", "argb", "abgr", "yuva", "gbrap", "ya8", "ya16", "pal8", "ayuv", "vuya"];
        self.has_side_alpha || WITH_ALPHA.iter().any(|name| self.pixels.starts_with(name))
    }

    /// Whether pixels are stored as luma and chroma.
    pub fn is_yuv(&self) -> bool {
        ["yuv", "yuyv", "uyvy", "nv", "p0", "p2", "p4", "y2", "xv", "vuy", "ayuv"]
            .iter()
            .any(|name| self.pixels.starts_with(name))
    }

    /// Whether samples have more than 8 bit.
    pub fn is_deep(&self) -> bool {
        const DEEP: [&str; 9] = ["9", "10", "12", "14", "16", "f32", "48", "64", "x2"];
        let name = self.pixels.trim_end_matches("le").trim_end_matches("be");
        DEEP.iter().any(|bits| name.ends_with(bits)) && !name.ends_with("nv16")
    }

    /// Opens a file and chooses the track that players show: the first one marked as default, else the first; cover
    /// pictures do not count. `format` names the demuxer where ffmpeg is not to guess it.
    ///
    /// # Errors
    /// When it is no video that ffmpeg can read, or the work is cancelled.
    pub fn probe(ffmpeg: &Ffmpeg, path: &Path, format: &[&str], cancel: &Cancel) -> Result<Self> {
        let mut command = ffmpeg.command();
        command.args(["-protocol_whitelist", "file"]).args(format).arg("-i").arg(super::ffmpeg::literal(path));
        // Without an output, ffmpeg describes the file and ends. Its log is the answer.
        let text = Running::answer(command, MAX_DESCRIPTION, cancel)?;
        Self::parse(&text).ok_or_else(|| Error::input(reason(&text)).with_path(path))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut tracks: Vec<(bool, Self)> = Vec::new();
        let mut duration = None;
        let mut timecode = None;
        let mut in_video = false;
        for line in text.lines() {
            let line = line.strip_prefix("[info] ").unwrap_or(line).trim();
            if let Some(rest) = line.strip_prefix("Duration: ") {
                duration = rest.split(',').next().and_then(clock);
            } else if let Some(rest) = line.strip_prefix("Stream #0:") {
                let video = rest.split_once(": Video: ");
                in_video = video.is_some_and(|(_, description)| !is_picture(description));
                if let Some((number, description)) = video.filter(|_| in_video)
                    && let Some(track) = Self::described(number, description)
                    && tracks.iter().all(|(_, other)| other.index != track.index)
                {
                    tracks.push((description.contains("(default)"), track));
                }
            } else if let Some((key, value)) = line.split_once(": ") {
                match (key.trim().to_ascii_lowercase().as_str(), tracks.last_mut()) {
                    ("timecode", Some((_, track))) if in_video => track.timecode = value.trim().parse().ok(),
                    ("timecode", None) => timecode = value.trim().parse().ok(),
                    ("alpha_mode", Some((_, track))) if in_video => track.has_side_alpha = value.trim() == "1",
                    _ => {}
                }
            }
        }
        let chosen = tracks.iter().position(|(is_default, _)| *is_default).unwrap_or(0);
        let (_, track) = tracks.into_iter().nth(chosen)?;
        Some(Self { duration, timecode: track.timecode.or(timecode), ..track })
    }

    /// A line such as `h264 (High), yuv420p(tv, bt709, progressive), 720x720, 29.97 fps, 30k tbn (default)`.
    fn described(number: &str, description: &str) -> Option<Self> {
        let index = number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
        let fields = fields(description);
        let codec = fields.first()?.split(' ').next()?.to_string();
        let (pixels, details) = fields.get(1).map_or(("", ""), |field| field.split_once('(').unwrap_or((field, "")));
        let size = fields.iter().skip(2).find_map(|field| {
            let (width, height) = field.split(' ').next()?.split_once('x')?;
            Some((width.parse().ok()?, height.parse().ok()?))
        });
        let rate = fields.iter().find_map(|field| field.strip_suffix(" fps")?.parse::<f64>().ok());
        let mut track = Self {
            index,
            codec,
            pixels: pixels.into(),
            width: size.map_or(0, |(width, _)| width),
            height: size.map_or(0, |(_, height)| height),
            rate: rate.filter(|rate| *rate > 0.0).map_or(25.0, exact),
            duration: None,
            timecode: None,
            colour: ColourTags::default(),
            is_interlaced: false,
            has_side_alpha: false,
        };
        for detail in details.trim_end_matches(')').split(", ") {
            match detail {
                "tv" | "pc" => track.colour.range = detail.into(),
                "progressive" => {}
                _ if detail.starts_with("top ") || detail.starts_with("bottom ") => track.is_interlaced = true,
                _ if detail.is_empty() || detail.ends_with(" bpc") || detail == "unknown" => {}
                _ => {
                    let mut names = detail.split('/');
                    let matrix = names.next().unwrap_or_default();
                    track.colour.matrix = matrix.into();
                    track.colour.primaries = names.next().unwrap_or(matrix).into();
                    track.colour.transfer = names.next().unwrap_or(matrix).into();
                }
            }
        }
        Some(track)
    }
}

impl Default for ColourTags {
    fn default() -> Self {
        let unknown = || "unknown".to_string();
        Self { range: unknown(), matrix: unknown(), primaries: unknown(), transfer: unknown() }
    }
}

/// The parts of a list that stand between commas outside of brackets.
fn fields(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            ',' if depth == 0 => {
                found.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(text[start..].trim());
    found
}

fn is_picture(description: &str) -> bool {
    ["(attached pic)", "(still image)", "(timed thumbnails)"].iter().any(|mark| description.contains(mark))
}

/// ffmpeg prints rates with two digits; those of television are fractions of 1001.
fn exact(printed: f64) -> f64 {
    let television = printed.ceil() * 1000.0 / 1001.0;
    if (television - printed).abs() < 0.006 { television } else { printed }
}

/// `HH:MM:SS.ss` in seconds.
fn clock(text: &str) -> Option<f64> {
    text.trim().split(':').try_fold(0.0, |seconds, field| Some(seconds * 60.0 + field.parse::<f64>().ok()?))
}

/// Why ffmpeg found no video, in a line.
fn reason(log: &str) -> String {
    let complaint = log.lines().find_map(super::ffmpeg::complaint).unwrap_or_default();
    if log.contains("Input #0") {
        "there is no video in it".into()
    } else if log.contains("Invalid data found") || log.contains("moov atom not found") || complaint.is_empty() {
        "not a video that ffmpeg can read".into()
    } else {
        format!("not a video that ffmpeg can read: {complaint}")
    }
}

impl Running {
    /// The log of a command that writes nothing else, at most `limit` bytes of it.
    fn answer(command: std::process::Command, limit: u64, cancel: &Cancel) -> Result<String> {
        let running = Self::start_with_log(command)?;
        let mut log = Vec::new();
        running.stoppable(cancel, || {
            let Some(stderr) = running.stderr() else { return Ok(()) };
            stderr
                .take(limit)
                .read_to_end(&mut log)
                .map(drop)
                .map_err(|e| Error::failure(format!("ffmpeg's answer was lost: {e}")))
        })?;
        running.finish()?;
        Ok(String::from_utf8_lossy(&log).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(range: &str, matrix: &str, primaries: &str, transfer: &str) -> ColourTags {
        let [range, matrix, primaries, transfer] = [range, matrix, primaries, transfer].map(String::from);
        ColourTags { range, matrix, primaries, transfer }
    }

    #[test]
    fn descriptions_are_understood() {
        let text = "\
[info] Input #0, mov,mp4,m4a,3gp,3g2,mj2, from 'a, (b).mp4':
[info]   Duration: 01:02:03.50, start: 0.000000, bitrate: 70 kb/s
[info]   Stream #0:0[0x1](und): Video: hevc (Main 10) (hev1 / 0x31766568), yuv420p10le(tv, bt2020nc/bt2020/smpte2084, \
progressive), 64x48 [SAR 1:1 DAR 4:3], 15 kb/s, 23.98 fps, 23.98 tbr, 24k tbn
[info]     Metadata:
[info]       title           : Stream #0:9: Video: none
[info]       timecode        : 01:00:00:12
[info]   Stream #0:1(eng): Audio: aac (LC), 44100 Hz, mono (default)
[info]   Stream #0:2: Video: png, rgb24(pc, gbr/unknown/unknown), 32x32, 90k tbr (attached pic) (default)
";
        let track = Track::parse(text).unwrap();
        assert_eq!((track.index, track.codec.as_str(), track.pixels.as_str()), (0, "hevc", "yuv420p10le"));
        assert_eq!((track.width, track.height, track.duration), (64, 48, Some(3723.5)));
        assert_eq!(track.colour, tags("tv", "bt2020nc", "bt2020", "smpte2084"));
        assert_eq!((track.rate, track.is_interlaced, track.has_alpha()), (24000.0 / 1001.0, false, false));
        assert_eq!(track.timecode, "01:00:00:12".parse().ok());
    }

    #[test]
    fn the_default_track_is_chosen() {
        let text = "\
Input #0
  Duration: N/A, bitrate: N/A
  Stream #0:0: Video: h264 (High), yuv420p(tv, bt709, top coded first (swapped)), 32x32, 8 fps, 16384 tbn
  Stream #0:1: Video: vp9 (Profile 0), yuv420p(tv, progressive), 64x48, SAR 1:1 DAR 4:3, 25 fps, 1k tbn (default)
    Metadata:
      alpha_mode      : 1
";
        let track = Track::parse(text).unwrap();
        assert_eq!((track.index, track.has_alpha(), track.duration, track.rate), (1, true, None, 25.0));
        assert_eq!(track.colour, tags("tv", "unknown", "unknown", "unknown"));
        let first = Track::parse(&text.replace(" (default)", "")).unwrap();
        assert_eq!((first.index, first.is_interlaced, first.colour), (0, true, tags("tv", "bt709", "bt709", "bt709")));
        assert!(Track::parse("Input #0\n  Stream #0:0: Audio: flac, 44100 Hz, mono, s16\n").is_none());
    }
}
