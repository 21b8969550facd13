//! Colours by what they mean: from a file's code values to sRGB of 8 bit.
//!
//! SDR code values of BT.601 and BT.709 are taken as sRGB's, as players and editors do. Wide gamuts are brought to
//! BT.709's primaries in light. HDR is tone-mapped: BT.2408's reference white, 203 cd/m², is 1; a Möbius curve keeps what
//! is below 0.3 and bends what is above so that 1000 cd/m² become white; it is applied to the largest component, so hues
//! stay.

use std::f32::consts::E;

use super::probe::{ColourTags, Track};

/// cd/m² of a white page (BT.2408).
const REFERENCE_WHITE: f32 = 203.0;
/// cd/m² that become white; also the nominal peak of HLG.
const PEAK: f32 = 1000.0;
/// Where the tone curve leaves the straight line.
const KNEE: f32 = 0.3;
/// BT.1886's power, for SDR of a wide gamut.
const SDR_GAMMA: f32 = 2.4;
/// Tables have an entry for each value of 16 bit.
const ENTRIES: usize = 1 << 16;

/// The way from code values to light.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transfer {
    /// That of SDR displays.
    Display,
    /// Code values are light, 1 is white.
    Linear,
    /// SMPTE ST 2084.
    Pq,
    /// ARIB STD-B67.
    Hlg,
}

/// The display that colours are meant for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Primaries {
    /// BT.709, and what is taken for it: BT.601's.
    Bt709,
    /// BT.2020.
    Bt2020,
    /// P3.
    P3,
}

/// What R'G'B' code values of a file mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meaning {
    /// Code values to light.
    pub transfer: Transfer,
    /// Light to colour.
    pub primaries: Primaries,
}

/// The meaning of plain sRGB and of everything that is taken for it.
pub const SRGB: Meaning = Meaning { transfer: Transfer::Display, primaries: Primaries::Bt709 };

/// How a track's pixels are read.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// What the R'G'B' values mean.
    pub meaning: Meaning,
    /// ffmpeg's name of the matrix where the file does not say and ffmpeg's own guess is not the usual one.
    pub guessed_matrix: Option<&'static str>,
    /// A sentence on colours for the user.
    pub note: Option<String>,
}

impl Reading {
    /// The reading of a track by what it says of itself.
    pub fn of(track: &Track) -> Self {
        let ColourTags { matrix, primaries, transfer, .. } = &track.colour;
        // These decoders give light, or do not know.
        let transfer = match (track.codec.as_str(), transfer.as_str()) {
            ("exr" | "hdr", _) => Transfer::Linear,
            ("dpx", _) => Transfer::Display,
            (_, "linear") => Transfer::Linear,
            (_, "smpte2084") => Transfer::Pq,
            (_, "arib-std-b67") => Transfer::Hlg,
            _ => Transfer::Display,
        };
        let is_hdr = matches!(transfer, Transfer::Pq | Transfer::Hlg);
        let primaries = match primaries.as_str() {
            "bt2020" => Primaries::Bt2020,
            "smpte431" | "smpte432" => Primaries::P3,
            "unknown" if is_hdr || matrix.starts_with("bt2020") => Primaries::Bt2020,
            _ => Primaries::Bt709,
        };
        let is_high = track.width >= 1280 || track.height >= 720;
        let guessed_matrix = match () {
            () if !track.is_yuv() || matrix != "unknown" => None,
            () if primaries == Primaries::Bt2020 => Some("bt2020"),
            () if is_high => Some("bt709"),
            () => None,
        };
        let gamut = match primaries {
            Primaries::Bt709 => "BT.709",
            Primaries::Bt2020 => "BT.2020",
            Primaries::P3 => "P3",
        };
        let note = match (transfer, primaries) {
            (Transfer::Pq, _) => Some(format!("HDR (PQ, {gamut}) is tone-mapped to SDR (BT.709)")),
            (Transfer::Hlg, _) => Some(format!("HDR (HLG, {gamut}) is tone-mapped to SDR (BT.709)")),
            (Transfer::Linear, Primaries::Bt709) => Some("linear light is encoded as sRGB".into()),
            (_, Primaries::Bt2020 | Primaries::P3) => Some(format!("the gamut, {gamut}, is brought to BT.709's")),
            _ if guessed_matrix.is_some() => Some("the file does not name its colours; taken as BT.709's".into()),
            _ => None,
        };
        Self { meaning: Meaning { transfer, primaries }, guessed_matrix, note }
    }
}

impl Meaning {
    /// A PNG's meaning by the code points of its cICP chunk (ITU-T H.273).
    pub fn from_code_points(primaries: u8, transfer: u8) -> Self {
        let transfer = match transfer {
            8 => Transfer::Linear,
            16 => Transfer::Pq,
            18 => Transfer::Hlg,
            _ => Transfer::Display,
        };
        let primaries = match primaries {
            9 => Primaries::Bt2020,
            11 | 12 => Primaries::P3,
            _ => Primaries::Bt709,
        };
        Self { transfer, primaries }
    }

    /// sRGB of 8 bit, from interleaved R'G'B' of 16 bit.
    pub fn to_srgb(self, pixels: &[u16]) -> Vec<u8> {
        let tables = Tables::new(self);
        let mut data = Vec::with_capacity(pixels.len());
        for pixel in pixels.chunks_exact(3) {
            let mut light = [0, 1, 2].map(|channel| tables.light[usize::from(pixel[channel])]);
            if self.transfer == Transfer::Hlg {
                // BT.2100's OOTF: scene light to that of a display of 1000 cd/m².
                let scene = 0.2627 * light[0] + 0.6780 * light[1] + 0.0593 * light[2];
                let gain = scene.powf(0.2) * PEAK / REFERENCE_WHITE;
                light = light.map(|value| value * gain);
            }
            light = self.primaries.to_bt709(light);
            if matches!(self.transfer, Transfer::Pq | Transfer::Hlg) {
                let largest = light.into_iter().fold(0.0, f32::max);
                if largest > KNEE {
                    let gain = tone_curve(largest) / largest;
                    light = light.map(|value| value * gain);
                }
            }
            data.extend(light.map(|value| tables.code(value)));
        }
        data
    }
}

impl Primaries {
    /// Light of these primaries as that of BT.709's, what lies outside set to the border.
    fn to_bt709(self, [r, g, b]: [f32; 3]) -> [f32; 3] {
        let rows = match self {
            Self::Bt709 => return [r, g, b],
            Self::Bt2020 => [
                [1.660_491, -0.587_641_1, -0.072_849_9],
                [-0.124_550_5, 1.132_899_9, -0.008_349_4],
                [-0.018_150_8, -0.100_578_9, 1.118_729_7],
            ],
            Self::P3 => [
                [1.224_940_2, -0.224_940_2, 0.0],
                [-0.042_056_9, 1.042_056_9, 0.0],
                [-0.019_637_6, -0.078_636, 1.098_273_6],
            ],
        };
        rows.map(|row: [f32; 3]| (row[0] * r + row[1] * g + row[2] * b).max(0.0))
    }
}

/// The Möbius curve: equal to its argument up to the knee, 1 at the peak, smooth in between.
fn tone_curve(value: f32) -> f32 {
    let peak = PEAK / REFERENCE_WHITE;
    let a = -KNEE * KNEE * (peak - 1.0) / (KNEE * KNEE - 2.0 * KNEE + peak);
    let b = (KNEE * KNEE - 2.0 * KNEE * peak + peak) / (peak - 1.0);
    let scale = (b * b + 2.0 * b * KNEE + KNEE * KNEE) / (b - a);
    if value <= KNEE { value } else { (scale * (value + a) / (value + b)).min(1.0) }
}

/// Code value to light, and the root of light to sRGB's code value: the root keeps the dark apart.
struct Tables {
    light: Vec<f32>,
    codes: Vec<u8>,
}

impl Tables {
    fn new(meaning: Meaning) -> Self {
        let at = |index: usize| index as f32 / (ENTRIES - 1) as f32;
        let light = |index| match meaning.transfer {
            Transfer::Display => at(index).powf(SDR_GAMMA),
            Transfer::Linear => at(index),
            Transfer::Pq => pq(at(index)) / REFERENCE_WHITE,
            Transfer::Hlg => hlg(at(index)),
        };
        let code = |index| {
            let light = at(index) * at(index);
            let value = match meaning.transfer {
                Transfer::Display => light.powf(1.0 / SDR_GAMMA),
                _ if light <= 0.003_130_8 => light * 12.92,
                _ => 1.055 * light.powf(1.0 / 2.4) - 0.055,
            };
            (value * 255.0).round() as u8
        };
        Self { light: (0..ENTRIES).map(light).collect(), codes: (0..ENTRIES).map(code).collect() }
    }

    fn code(&self, light: f32) -> u8 {
        self.codes[(light.clamp(0.0, 1.0).sqrt() * (ENTRIES - 1) as f32).round() as usize]
    }
}

/// ST 2084's cd/m² of a code value from 0 to 1.
fn pq(code: f32) -> f32 {
    let power = code.powf(1.0 / 78.843_75);
    let above = (power - 0.835_937_5).max(0.0);
    10_000.0 * (above / (18.851_562 - 18.6875 * power)).powf(1.0 / 0.159_301_76)
}

/// HLG's scene light, from 0 to 1, of a code value from 0 to 1.
fn hlg(code: f32) -> f32 {
    let (a, b, c) = (0.178_832_77, 0.284_668_92, 0.559_910_7);
    if code <= 0.5 { code * code / 3.0 } else { (E.powf((code - c) / a) + b) / 12.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(transfer: Transfer, primaries: Primaries) -> Meaning {
        Meaning { transfer, primaries }
    }

    #[test]
    fn grey_stays_grey_and_sdr_its_value() {
        for primaries in [Primaries::Bt709, Primaries::Bt2020, Primaries::P3] {
            for value in 0..=255_u16 {
                let grey = meaning(Transfer::Display, primaries).to_srgb(&[value * 257; 3]);
                assert!(grey.iter().all(|v| u16::from(*v).abs_diff(value) <= 1), "{primaries:?} {value} {grey:?}");
            }
        }
    }

    /// Code values of BT.2100 and BT.2408: reference white is 58 % PQ and 75 % HLG; the curve makes it 0.68.
    #[test]
    fn reference_white_is_where_the_curve_puts_it() {
        let white = (1.055 * tone_curve(1.0).powf(1.0 / 2.4) - 0.055) * 255.0;
        for (transfer, code) in [(Transfer::Pq, 0.580_69), (Transfer::Hlg, 0.75)] {
            let pixel = meaning(transfer, Primaries::Bt2020).to_srgb(&[(code * 65535.0) as u16; 3]);
            assert!(pixel.iter().all(|v| (f32::from(*v) - white).abs() < 1.5), "{transfer:?} {pixel:?} {white}");
        }
        assert!((tone_curve(PEAK / REFERENCE_WHITE) - 1.0).abs() < 1e-5 && tone_curve(100.0) == 1.0);
        assert!((tone_curve(KNEE + 1e-4) - KNEE) < 2e-4);
    }

    #[test]
    fn linear_light_is_encoded() {
        let pixel = meaning(Transfer::Linear, Primaries::Bt709).to_srgb(&[14029, 0, 65535]);
        assert_eq!(pixel, [128, 0, 255], "0.2140 is the light of half the code values");
    }
}
