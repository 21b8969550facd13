//! Frames of 8-bit colour: what clips and images become before the model sees them, and what comes out.

use image::RgbImage;
use image::imageops::{self, FilterType};

/// Frames of interleaved 8-bit RGB, rows from the top, without padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frames {
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// `count() · height · width · 3` bytes.
    pub data: Vec<u8>,
}

impl Frames {
    /// Bytes of one frame.
    pub fn frame_len(&self) -> usize {
        self.width * self.height * 3
    }

    /// How many frames there are.
    pub fn count(&self) -> usize {
        if self.frame_len() == 0 { 0 } else { self.data.len() / self.frame_len() }
    }

    /// One frame's bytes.
    ///
    /// # Panics
    /// When `index` is not below [`Frames::count`].
    pub fn frame(&self, index: usize) -> &[u8] {
        &self.data[index * self.frame_len()..(index + 1) * self.frame_len()]
    }

    /// Every frame's bytes, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.data.chunks_exact(self.frame_len().max(1))
    }

    /// Bilinear resizing without antialiasing, the corner pixels' centres kept in place: how the reference reads clips
    /// (`torch.nn.functional.interpolate(mode="bilinear", align_corners=True)`, then rounded to 8 bit).
    pub fn resize_align_corners(&self, width: usize, height: usize) -> Self {
        let (columns, rows) = (taps(self.width, width), taps(self.height, height));
        let mut data = Vec::with_capacity(self.count() * width * height * 3);
        for frame in self.iter() {
            for row in &rows {
                let above = &frame[row.first * self.width * 3..][..self.width * 3];
                let below = &frame[row.second * self.width * 3..][..self.width * 3];
                for column in &columns {
                    for channel in 0..3 {
                        let (left, right) = (column.first * 3 + channel, column.second * 3 + channel);
                        let top = column.mix(above[left], above[right]);
                        let bottom = column.mix(below[left], below[right]);
                        data.push((top * (1.0 - row.weight) + bottom * row.weight).round_ties_even() as u8);
                    }
                }
            }
        }
        Self { width, height, data }
    }

    /// Bilinear resizing with antialiasing, as PIL does it: how the reference reads condition images.
    pub fn resize_antialiased(&self, width: usize, height: usize) -> Self {
        if (self.width, self.height) == (width, height) {
            return self.clone();
        }
        let mut data = Vec::with_capacity(self.count() * width * height * 3);
        for frame in self.iter() {
            let image = RgbImage::from_raw(self.width as u32, self.height as u32, frame.to_vec())
                .expect("a frame has width · height · 3 bytes");
            data.extend(imageops::resize(&image, width as u32, height as u32, FilterType::Triangle).into_raw());
        }
        Self { width, height, data }
    }
}

/// The two source positions that one target position is mixed from.
struct Tap {
    first: usize,
    second: usize,
    /// Share of the second.
    weight: f32,
}

impl Tap {
    fn mix(&self, first: u8, second: u8) -> f32 {
        f32::from(first) * (1.0 - self.weight) + f32::from(second) * self.weight
    }
}

/// Source positions along one side, the first and last pixels' centres kept in place.
fn taps(source: usize, target: usize) -> Vec<Tap> {
    let last = source.saturating_sub(1);
    let scale = if target > 1 { last as f32 / (target - 1) as f32 } else { 0.0 };
    (0..target)
        .map(|i| {
            let position = i as f32 * scale;
            let first = (position as usize).min(last);
            Tap { first, second: (first + 1).min(last), weight: position - first as f32 }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One grey frame from its rows.
    fn grey(rows: &[&[u8]]) -> Frames {
        let data = rows.iter().flat_map(|row| row.iter().flat_map(|v| [*v; 3])).collect();
        Frames { width: rows[0].len(), height: rows.len(), data }
    }

    #[test]
    fn corners_stay_in_place() {
        let source = grey(&[&[0, 100], &[200, 40]]);
        let expected = grey(&[&[0, 50, 100], &[100, 85, 70], &[200, 120, 40]]);
        assert_eq!(source.resize_align_corners(3, 3), expected);
        assert_eq!(source.resize_align_corners(2, 2), source);
        // Without antialiasing, halving four pixels to two keeps the outer ones.
        assert_eq!(grey(&[&[10, 200, 200, 30]]).resize_align_corners(2, 1), grey(&[&[10, 30]]));
        assert_eq!(grey(&[&[10, 200]]).resize_align_corners(1, 1), grey(&[&[10]]));
        // 0.5 and 1.5 round to even.
        assert_eq!(grey(&[&[0, 1, 2]]).resize_align_corners(5, 1), grey(&[&[0, 0, 1, 2, 2]]));
    }

    #[test]
    fn antialiasing_averages() {
        // PIL: Image.fromarray([0, 0, 255, 255, 0, 0, 255, 255]).resize((4, 1), BILINEAR).
        let source = grey(&[&[0, 0, 255, 255, 0, 0, 255, 255]]);
        let result = source.resize_antialiased(4, 1);
        for (got, expected) in result.data.chunks_exact(3).zip([36, 191, 64, 219]) {
            assert!(got[0].abs_diff(expected) <= 1, "{got:?}, expected {expected}");
        }
    }

    #[test]
    fn every_frame_is_resized_alone() {
        let mut clip = grey(&[&[0, 0]]);
        clip.data.extend([90; 6]);
        let resized = clip.resize_align_corners(4, 2);
        assert_eq!(resized.count(), 2);
        assert!(resized.frame(0).iter().all(|v| *v == 0) && resized.frame(1).iter().all(|v| *v == 90));
    }
}
