//! Frame rates as fractions: those of video are seldom exact with a decimal point.

use std::fmt;
use std::str::FromStr;

/// The whole rates of which NTSC video plays 1000 of 1001 frames.
const NTSC: [u32; 9] = [12, 15, 24, 30, 48, 60, 96, 120, 240];
/// How far a number with a decimal point may be from the NTSC rate that it stands for: 23.98 is meant as 24000/1001.
const NTSC_ROUNDING: f64 = 0.005;
/// The least and largest rate.
const RANGE: std::ops::RangeInclusive<f64> = 0.1..=240.0;

/// Frames a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameRate {
    numerator: u32,
    denominator: u32,
}

impl FrameRate {
    /// A fraction, in lowest terms; `None` where it is not 0.1 to 240.
    pub fn new(numerator: u32, denominator: u32) -> Option<Self> {
        let divisor = gcd(numerator, denominator).max(1);
        let rate = Self { numerator: numerator / divisor, denominator: denominator / divisor };
        (denominator > 0 && RANGE.contains(&rate.as_f64())).then_some(rate)
    }

    /// The rate that a number with a decimal point stands for: 23.976 is 24000/1001, 12.5 is 25/2.
    pub fn from_f64(number: f64) -> Option<Self> {
        let ntsc = NTSC.into_iter().find(|whole| (number - f64::from(*whole) / 1.001).abs() <= NTSC_ROUNDING);
        match ntsc {
            Some(whole) => Self::new(whole * 1000, 1001),
            // Six digits behind the point are more than anybody means.
            None if RANGE.contains(&number) => Self::new((number * 1e6).round() as u32, 1_000_000),
            None => None,
        }
    }

    /// As a number.
    pub fn as_f64(self) -> f64 {
        f64::from(self.numerator) / f64::from(self.denominator)
    }
}

impl fmt::Display for FrameRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.denominator {
            1 => write!(f, "{}", self.numerator),
            denominator => write!(f, "{}/{denominator}", self.numerator),
        }
    }
}

impl FromStr for FrameRate {
    type Err = String;

    /// Reads `24`, `23.976`, and `24000/1001` or `24000:1001`.
    fn from_str(text: &str) -> Result<Self, String> {
        let fraction = text.split_once(['/', ':']);
        let rate = match fraction {
            Some((above, below)) => above.trim().parse().ok().zip(below.trim().parse().ok()),
            None => return text.trim().parse().ok().and_then(Self::from_f64).ok_or_else(Self::wanted),
        };
        rate.and_then(|(above, below)| Self::new(above, below)).ok_or_else(Self::wanted)
    }
}

impl FrameRate {
    fn wanted() -> String {
        "must be a number from 0.1 to 240, such as 24, 23.976, or 30000/1001".into()
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_the_fractions_that_are_meant() {
        for (text, shown) in [
            ("8", "8"),
            ("8.0", "8"),
            ("12.5", "25/2"),
            ("0.1", "1/10"),
            ("240", "240"),
            ("24", "24"),
            ("24.0", "24"),
            ("23.976", "24000/1001"),
            ("23.98", "24000/1001"),
            ("23.976023976", "24000/1001"),
            ("29.97", "30000/1001"),
            ("47.952", "48000/1001"),
            ("59.94", "60000/1001"),
            ("119.88", "120000/1001"),
            ("14.985", "15000/1001"),
            ("30000/1001", "30000/1001"),
            ("60000:1001", "60000/1001"),
            ("50/2", "25"),
            ("23.5", "47/2"),
            ("29.9", "299/10"),
            ("59.95", "1199/20"),
        ] {
            assert_eq!(text.parse::<FrameRate>().map(|rate| rate.to_string()).as_deref(), Ok(shown), "{text}");
        }
        for text in ["", "0", "0.05", "241", "-24", "nan", "inf", "1/0", "0/1", "a/b", "24/", "1e9", "99999999999/1"] {
            assert!(text.parse::<FrameRate>().is_err_and(|e| e.contains("30000/1001")), "{text}");
        }
    }
}
