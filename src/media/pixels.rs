//! Pixels as decoders give them, made 8-bit RGB.

use super::colour::{Meaning, SRGB};
use super::frames::Frames;

/// One decoded picture.
pub struct Pixels {
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// Interleaved, rows from the top, without padding.
    pub samples: Samples,
}

/// The samples of a picture; transparency is straight unless said.
pub enum Samples {
    /// RGB of 8 bit.
    Rgb8(Vec<u8>),
    /// RGB and alpha of 8 bit.
    Rgba8(Vec<u8>),
    /// RGB of 16 bit, and RGB that is already multiplied by its alpha.
    Rgb16(Vec<u16>),
    /// RGB and alpha of 16 bit.
    Rgba16(Vec<u16>),
}

impl Pixels {
    /// One frame of sRGB over black: what is transparent counts for nothing.
    pub fn into_frame(self, meaning: Meaning) -> Frames {
        let Self { width, height, samples } = self;
        let data = match (samples, meaning) {
            (Samples::Rgb8(data), SRGB) => data,
            (Samples::Rgba8(data), SRGB) => over_black(&data, |value, alpha| {
                let product = u32::from(value) * u32::from(alpha);
                ((product + 127) / 255) as u8
            }),
            (Samples::Rgb16(data), SRGB) => data.iter().map(|value| eight_bit(*value)).collect(),
            (Samples::Rgb8(data), _) => meaning.to_srgb(&widened(&data)),
            (Samples::Rgba8(data), _) => meaning.to_srgb(&over_black(&widened(&data), shaded)),
            (Samples::Rgb16(data), _) => meaning.to_srgb(&data),
            (Samples::Rgba16(data), SRGB) => over_black(&data, shaded).iter().map(|value| eight_bit(*value)).collect(),
            (Samples::Rgba16(data), _) => meaning.to_srgb(&over_black(&data, shaded)),
        };
        Frames { width, height, data }
    }
}

fn over_black<T: Copy>(data: &[T], shaded: impl Fn(T, T) -> T) -> Vec<T> {
    data.chunks_exact(4).flat_map(|p| [shaded(p[0], p[3]), shaded(p[1], p[3]), shaded(p[2], p[3])]).collect()
}

fn shaded(value: u16, alpha: u16) -> u16 {
    ((u32::from(value) * u32::from(alpha) + 32767) / 65535) as u16
}

fn widened(data: &[u8]) -> Vec<u16> {
    data.iter().map(|value| u16::from(*value) * 257).collect()
}

fn eight_bit(value: u16) -> u8 {
    ((u32::from(value) + 128) / 257) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::colour::{Primaries, Transfer};

    #[test]
    fn hidden_colours_count_for_nothing() {
        let pixels = |samples| Pixels { width: 2, height: 1, samples };
        let frame = pixels(Samples::Rgba8(vec![255, 0, 255, 0, 200, 100, 50, 128])).into_frame(SRGB);
        assert_eq!(frame.data, [0, 0, 0, 100, 50, 25]);
        let frame = pixels(Samples::Rgba16(vec![65535, 0, 65535, 0, 51400, 25700, 12850, 32896])).into_frame(SRGB);
        assert_eq!(frame.data, [0, 0, 0, 100, 50, 25]);
        let wide = Meaning { transfer: Transfer::Display, primaries: Primaries::Bt2020 };
        let frame = pixels(Samples::Rgba8(vec![255, 255, 255, 0, 128, 128, 128, 255])).into_frame(wide);
        assert_eq!(frame.data, [0, 0, 0, 128, 128, 128]);
    }

    #[test]
    fn sixteen_bits_become_eight() {
        assert_eq!((0..=255).map(|v: u16| eight_bit(v * 257)).collect::<Vec<_>>(), (0..=255).collect::<Vec<u8>>());
        assert_eq!((eight_bit(65535), eight_bit(128), eight_bit(129)), (255, 0, 1));
    }
}
