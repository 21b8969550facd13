//! The part of a clip that is read, and the frames that stand for it.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// The way in which frames are spread over a clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sampling {
    /// Evenly in time: the frame that is shown at each moment. For a clip of constant frame rate these are the frames
    /// that [`Sampling::Published`] takes.
    #[default]
    Time,
    /// Evenly by frame number, and SDR colours as ffmpeg converts them by default: the published way.
    Published,
}

/// A moment of a clip.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Moment {
    /// Seconds from the clip's beginning.
    Seconds(f64),
    /// Frames from the clip's first one.
    Frame(u64),
    /// Hours, minutes, seconds and frames, counted from the clip's own first timecode where it has one.
    Timecode(Timecode),
}

/// The part of a clip from which frames are taken, and how.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Selection {
    /// The first moment that counts; the clip's beginning unless given.
    pub start: Option<Moment>,
    /// The first moment that does not count any more; the clip's end unless given.
    pub end: Option<Moment>,
    /// How frames are spread over the part.
    pub sampling: Sampling,
}

/// A timecode: HH:MM:SS:FF, or HH:MM:SS;FF where numbers are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timecode {
    minutes: u64,
    seconds: u64,
    frames: u64,
    is_drop_frame: bool,
}

impl FromStr for Sampling {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "time" => Ok(Self::Time),
            "published" => Ok(Self::Published),
            _ => Err("must be time or published".into()),
        }
    }
}

impl FromStr for Timecode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fields: Option<Vec<u64>> = text.split([':', ';']).map(|field| field.parse().ok()).collect();
        match fields.as_deref() {
            Some([hours @ ..=999, minutes @ ..=59, seconds @ ..=59, frames]) => Ok(Self {
                minutes: hours * 60 + minutes,
                seconds: *seconds,
                frames: *frames,
                is_drop_frame: text.contains(';'),
            }),
            _ => Err("must be like 01:02:03:04".into()),
        }
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "must be seconds (12.5), H:M:S (0:01:30.5) or a timecode (00:01:30:12)".to_string();
        if text.split([':', ';']).count() == 4 {
            return text.parse().map(Self::Timecode).map_err(|_| wrong());
        }
        let mut seconds = 0.0;
        let fields: Vec<&str> = text.split(':').collect();
        if fields.len() > 3 {
            return Err(wrong());
        }
        for (index, field) in fields.iter().enumerate() {
            let value: f64 = field.parse().map_err(|_| wrong())?;
            // Below an hour or a minute, 60 and more is a slip; only the last field has a fraction.
            let is_whole = index + 1 == fields.len() || value.fract() == 0.0;
            if !(0.0..1e9).contains(&value) || !is_whole || (index > 0 && value >= 60.0) {
                return Err(wrong());
            }
            seconds = seconds * 60.0 + value;
        }
        Ok(Self::Seconds(seconds))
    }
}

impl fmt::Display for Timecode {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { minutes, seconds, frames, is_drop_frame } = self;
        let mark = if *is_drop_frame { ';' } else { ':' };
        write!(f, "{:02}:{:02}:{seconds:02}{mark}{frames:02}", minutes / 60, minutes % 60)
    }
}

impl Timecode {
    /// The number of the frame that it names at so many frames a second.
    fn frame(&self, rate: f64) -> Result<u64> {
        let whole = (rate.round() as u64).max(1);
        if self.frames >= whole {
            return Err(Error::input(format!("{self}: the clip has {whole} frames a second, counted from 0")));
        }
        let number = (self.minutes * 60 + self.seconds) * whole + self.frames;
        // At 29.97, the numbers 0 and 1 of each minute but every tenth are left out; at 59.94, 0 to 3.
        let dropped = if self.is_drop_frame { whole / 15 * (self.minutes - self.minutes / 10) } else { 0 };
        Ok(number.saturating_sub(dropped))
    }
}

impl Moment {
    /// Seconds from the beginning of a clip with so many frames a second, whose first frame has the timecode `first`.
    pub(super) fn seconds(&self, rate: f64, first: Option<Timecode>) -> Result<f64> {
        match self {
            Self::Seconds(seconds) => Ok(*seconds),
            Self::Frame(number) => Ok(*number as f64 / rate),
            Self::Timecode(timecode) => {
                let begin = first.map_or(Ok(0), |first| first.frame(rate))?;
                let frames = timecode.frame(rate)?.checked_sub(begin).ok_or_else(|| {
                    let first = first.map(|first| first.to_string()).unwrap_or_default();
                    Error::input(format!("{timecode} lies before the clip's first timecode, {first}"))
                })?;
                Ok(frames as f64 / rate)
            }
        }
    }
}

/// Which of a clip's `count` frames stand for it: `frames` of them, evenly from the first to the last, as numpy's
/// `linspace(0, count - 1, frames)` truncated to integers. A clip shorter than that repeats frames.
pub fn sample_indices(count: usize, frames: usize) -> Vec<usize> {
    let last = count.saturating_sub(1);
    // numpy multiplies a float64 step and sets the last value exactly; truncation makes the difference visible.
    let step = last as f64 / frames.saturating_sub(1).max(1) as f64;
    (0..frames).map(|i| if i > 0 && i + 1 == frames { last } else { (i as f64 * step) as usize }).collect()
}

/// Which frames, shown from the ascending `times` on (in seconds, known to a `tick`), stand for a clip: those that are
/// shown at `frames` moments, evenly from the first time to the last. Where the times are those of a constant frame
/// rate, exactly those of [`sample_indices`].
pub fn sample_times(times: &[f64], tick: f64, frames: usize) -> Vec<usize> {
    let (Some(first), Some(last)) = (times.first(), times.last()) else { return vec![0; frames] };
    let indices = sample_indices(times.len(), frames);
    if is_constant(times, tick) {
        return indices;
    }
    let step = (last - first) / frames.saturating_sub(1).max(1) as f64;
    let slack = tick.min((last - first) / times.len() as f64 / 4.0);
    let shown = |i: usize| times.partition_point(|time| *time <= first + i as f64 * step + slack).saturating_sub(1);
    (0..frames).map(|i| if i > 0 && i + 1 == frames { times.len() - 1 } else { shown(i) }).collect()
}

/// Whether every time is where a constant rate puts it, but for rounding to ticks.
fn is_constant(times: &[f64], tick: f64) -> bool {
    let [first, .., last] = times else { return true };
    let gap = (last - first) / (times.len() - 1) as f64;
    let rounding = (1.01 * tick + 1e-6).min(gap / 2.0);
    times.iter().enumerate().all(|(index, time)| (time - first - index as f64 * gap).abs() <= rounding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sampled_frames_span_the_clip() {
        // (frames in the clip, frames wanted, numpy.linspace(0, n - 1, F).astype(int))
        let table: [(usize, usize, &[usize]); 6] = [
            (16, 16, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]),
            (60, 8, &[0, 8, 16, 25, 33, 42, 50, 59]),
            (3, 5, &[0, 0, 1, 1, 2]),
            (1, 4, &[0, 0, 0, 0]),
            (9, 2, &[0, 8]),
            (9, 1, &[0]),
        ];
        for (count, frames, expected) in table {
            assert_eq!(sample_indices(count, frames), expected, "{count} frames, {frames} wanted");
        }
        assert!(sample_indices(5, 0).is_empty());
        assert_eq!(sample_indices(24, 16), [0, 1, 3, 4, 6, 7, 9, 10, 12, 13, 15, 16, 18, 19, 21, 23]);
    }

    /// Whatever the rate, the length and the rounding of a container's timestamps.
    #[test]
    fn a_constant_rate_needs_no_clock() {
        for rate in [8.0, 12.5, 15.0, 24.0, 30000.0 / 1001.0, 50.0, 60.0] {
            for tick in [1e-6, 1.0 / 90000.0, 1e-3, 1e-2] {
                for count in [1, 2, 3, 31, 61, 997] {
                    let round = |time: f64| (time / tick).round() * tick;
                    let times: Vec<f64> = (0..count).map(|i| round(0.023 + f64::from(i) / rate)).collect();
                    for frames in [1, 2, 4, 7, 16, 31] {
                        let expected = sample_indices(times.len(), frames);
                        assert_eq!(sample_times(&times, tick, frames), expected, "{rate} {tick} {count} {frames}");
                    }
                }
            }
        }
    }

    #[test]
    fn time_decides_where_rates_vary() {
        let times: Vec<f64> = (0..50).map(|i| f64::from(i) / 50.0).chain((1..11).map(f64::from)).collect();
        assert_eq!(sample_times(&times, 1e-3, 4), [0, 52, 55, 59], "0, 3, 6 and 10 s");
        assert_eq!(sample_times(&[0.0, 0.1, 5.0], 1e-3, 3), [0, 1, 2]);
        assert_eq!(sample_times(&times, 1e-3, 1), [0]);
        assert_eq!(sample_times(&[], 1e-3, 2), [0, 0]);
    }

    #[test]
    fn moments_are_read_as_people_write_them() {
        let seconds = |text: &str| text.parse::<Moment>().unwrap().seconds(25.0, None).unwrap();
        for (text, expected) in [
            ("12.5", 12.5),
            ("0", 0.0),
            ("1:30", 90.0),
            ("01:00:00.250", 3600.25),
            ("00:00:02:05", 2.2),
            ("01:00:00:00", 3600.0),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
        for text in ["", "x", "-1", "1:75", "1.5:20", "1:2:3:4:5", "inf", "nan", "00:00:61:00", "1e99"] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
        assert!("00:00:00:25".parse::<Moment>().unwrap().seconds(25.0, None).is_err(), "frames end at 24");
    }

    #[test]
    fn timecodes_count_from_the_clips_own() {
        let first: Timecode = "01:00:00:00".parse().unwrap();
        let at = |text: &str| text.parse::<Moment>().unwrap().seconds(24.0, Some(first));
        assert_eq!(at("01:00:10:12").unwrap(), 10.5);
        let error = at("00:00:10:12").unwrap_err();
        assert!(error.is_input() && error.to_string().contains("first timecode, 01:00:00:00"), "{error}");
        // An hour of 29.97 with dropped numbers is an hour by the clock.
        let rate = 30000.0 / 1001.0;
        let hour = "01:00:00;00".parse::<Moment>().unwrap().seconds(rate, None).unwrap();
        assert!((hour - 3600.0).abs() < 0.01, "{hour}");
    }
}
