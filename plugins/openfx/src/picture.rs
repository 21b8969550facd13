//! 8-bit sRGB pictures, as the engine takes them.

/// Pictures with more pixels are averaged before they are kept: motion is read at far smaller sizes.
const MAX_KEPT_PIXELS: usize = 1 << 22;

/// IEC 61966-2-1.
pub fn srgb_from_linear(value: f32) -> f32 {
    if value <= 0.003_130_8 { value * 12.92 } else { 1.055 * value.powf(1.0 / 2.4) - 0.055 }
}

/// IEC 61966-2-1.
pub fn linear_from_srgb(value: f32) -> f32 {
    if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
}

/// 8-bit sRGB without alpha, rows from the top.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    pub width: usize,
    pub height: usize,
    /// `height · width · 3` bytes.
    pub data: Vec<u8>,
}

impl Picture {
    pub fn black(width: usize, height: usize) -> Self {
        Self { width, height, data: vec![0; width * height * 3] }
    }

    /// At another size, as the frames of one clip must all have the same.
    pub fn resized(&self, width: usize, height: usize) -> Self {
        use fast_image_resize::images::{TypedImage, TypedImageRef};
        use fast_image_resize::pixels::U8x3;

        let mut resized = Self::black(width, height);
        let source = TypedImageRef::<U8x3>::from_buffer(self.width as u32, self.height as u32, &self.data);
        let target = TypedImage::<U8x3>::from_buffer(width as u32, height as u32, &mut resized.data);
        if let (Ok(source), Ok(mut target)) = (source, target) {
            // Fails only when a size is nothing, which no picture's is.
            let _ = fast_image_resize::Resizer::new().resize_typed(&source, &mut target, None);
        }
        resized
    }

    /// Averaged to at most [`MAX_KEPT_PIXELS`].
    pub fn reduced(self) -> Self {
        let mut factor = 1;
        while (self.width / factor) * (self.height / factor) > MAX_KEPT_PIXELS {
            factor += 1;
        }
        let (width, height) = (self.width / factor, self.height / factor);
        if factor == 1 || width == 0 || height == 0 {
            return self;
        }
        let mut reduced = Self::black(width, height);
        let count = (factor * factor) as u32;
        for (at, target) in reduced.data.iter_mut().enumerate() {
            let (x, y, channel) = (at / 3 % width, at / 3 / width, at % 3);
            let sum: u32 = (0..factor * factor)
                .map(|i| (y * factor + i / factor) * self.width + x * factor + i % factor)
                .map(|pixel| u32::from(self.data[pixel * 3 + channel]))
                .sum();
            *target = ((sum + count / 2) / count) as u8;
        }
        reduced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_pictures_are_averaged() {
        let (width, height) = (4096, 2160);
        let data = (0..width * height * 3).map(|at| ((at / 3 % 2) * 200) as u8).collect();
        let picture = Picture { width, height, data }.reduced();
        assert_eq!((picture.width, picture.height), (2048, 1080));
        assert!(picture.data.iter().all(|value| *value == 100));
        let small = Picture { width: 2048, height: 1080, data: vec![7; 2048 * 1080 * 3] };
        assert_eq!(small.clone().reduced(), small);
    }
}
