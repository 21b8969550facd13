//! Images of the host: any depth, RGB or RGBA, any bounds and row bytes. Rows count from the bottom, and the bytes from
//! one to the next may be negative.

use half::f16;

use crate::ofx::properties::Properties;
use crate::ofx::suites::{Failed, Host, Result, check, entry};
use crate::ofx::sys::{self, property};
use crate::picture::{Picture, srgb_from_linear};

/// A side longer than this is taken for a mistake.
const MAX_SIDE: i64 = 32768;

/// The type of a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Depth {
    Byte,
    Short,
    Half,
    Float,
}

impl Depth {
    fn bytes(self) -> usize {
        match self {
            Self::Byte => 1,
            Self::Short | Self::Half => 2,
            Self::Float => 4,
        }
    }
}

/// A sample's type in memory, aligned or not.
trait Sample: Copy {
    const SIZE: usize;
    fn read(bytes: &[u8]) -> f32;
    fn write(value: f32, bytes: &mut [u8]);
}

macro_rules! sample {
    ($kind:ty, $read:expr, $write:expr) => {
        impl Sample for $kind {
            const SIZE: usize = size_of::<Self>();

            #[inline(always)]
            fn read(bytes: &[u8]) -> f32 {
                $read(Self::from_ne_bytes(bytes.try_into().unwrap_or_default()))
            }

            #[inline(always)]
            fn write(value: f32, bytes: &mut [u8]) {
                bytes.copy_from_slice(&$write(value).to_ne_bytes());
            }
        }
    };
}
// Casts to integers take what is too large to the largest, and what is no number to 0.
sample!(u8, |value| f32::from(value) / 255.0, |value: f32| (value * 255.0).round() as u8);
sample!(u16, |value| f32::from(value) / 65535.0, |value: f32| (value * 65535.0).round() as u16);
sample!(f16, f16::to_f32, f16::from_f32);
sample!(f32, |value| value, |value| value);

/// Runs a generic function for a depth.
macro_rules! for_depth {
    ($depth:expr, $function:ident($($argument:expr),*)) => {
        match $depth {
            Depth::Byte => $function::<u8>($($argument),*),
            Depth::Short => $function::<u16>($($argument),*),
            Depth::Half => $function::<f16>($($argument),*),
            Depth::Float => $function::<f32>($($argument),*),
        }
    };
}

/// A rectangle of pixels: x1, y1 are in it, x2, y2 are not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rect {
    pub x1: i32,
    pub y1: i32,
    pub x2: i32,
    pub y2: i32,
}

impl Rect {
    /// Nothing when it is empty or too large.
    pub fn new([x1, y1, x2, y2]: [i32; 4]) -> Option<Self> {
        let side = |from: i32, to: i32| (1..=MAX_SIDE).contains(&(i64::from(to) - i64::from(from)));
        (side(x1, x2) && side(y1, y2)).then_some(Self { x1, y1, x2, y2 })
    }

    /// The pixels that a rectangle in canonical coordinates touches at a render scale.
    pub fn of_canonical(rect: sys::RectD, scale: [f64; 2], aspect: f64) -> Option<Self> {
        // A hair's breadth is rounding, not another pixel.
        const HAIR: f64 = 1e-4;
        let (x, y) = (scale[0] / aspect, scale[1]);
        let [low, high] = [|value: f64| (value + HAIR).floor() as i32, |value: f64| (value - HAIR).ceil() as i32];
        Self::new([low(rect.x1 * x), low(rect.y1 * y), high(rect.x2 * x), high(rect.y2 * y)])
    }

    pub fn width(&self) -> usize {
        (self.x2 - self.x1) as usize
    }

    pub fn height(&self) -> usize {
        (self.y2 - self.y1) as usize
    }

    /// What both cover.
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        Self::new([self.x1.max(other.x1), self.y1.max(other.y1), self.x2.min(other.x2), self.y2.min(other.y2)])
    }
}

/// Where an image's pixels lie.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    data: *mut u8,
    pub bounds: Rect,
    /// The whole picture; `bounds` may be less or more.
    pub whole: Rect,
    row_bytes: isize,
    pub depth: Depth,
    /// Samples of a pixel, 3 or 4.
    samples: usize,
    premultiplied: bool,
}

// SAFETY: the memory is the host's and stays as long as the image; who writes shares out its rows.
unsafe impl Send for Layout {}
// SAFETY: as above.
unsafe impl Sync for Layout {}

/// An image that is released when it goes.
pub struct Image<'a> {
    host: &'a Host,
    handle: sys::Handle,
    pub layout: Layout,
}

impl Drop for Image<'_> {
    fn drop(&mut self) {
        if let Some(release) = self.host.effect.clip_release_image {
            // SAFETY: the image was got from the host and is released once.
            unsafe { release(self.handle) };
        }
    }
}

impl<'a> Image<'a> {
    /// The image of a clip at a time.
    pub fn get(host: &'a Host, clip: sys::Handle, time: f64) -> Result<Self> {
        let (get, mut handle) = (entry(host.effect.clip_get_image)?, std::ptr::null_mut());
        // SAFETY: the clip is the host's; no region asks for all of it.
        check(unsafe { get(clip, time, std::ptr::null(), &mut handle) })?;
        if handle.is_null() {
            return Err(Failed(sys::FAILED));
        }
        match Layout::read(Properties::of(host, handle)) {
            Ok(layout) => Ok(Self { host, handle, layout }),
            Err(failed) => {
                if let Some(release) = host.effect.clip_release_image {
                    // SAFETY: as in drop, which is not reached.
                    unsafe { release(handle) };
                }
                Err(failed)
            }
        }
    }
}

impl Image<'_> {
    /// How wide a pixel is for its height.
    pub fn pixel_aspect(&self) -> f64 {
        let aspect = Properties::of(self.host, self.handle).double(property::IMAGE_PIXEL_ASPECT, 0);
        aspect.ok().filter(|aspect| aspect.is_finite() && *aspect > 0.0).unwrap_or(1.0)
    }
}

impl Layout {
    fn read(properties: Properties) -> Result<Self> {
        let bad = Failed(sys::FAILED);
        let data = properties.pointer(property::IMAGE_DATA)?;
        let bounds = Rect::new(properties.ints(property::IMAGE_BOUNDS)?).ok_or(bad)?;
        let whole = properties.ints(property::IMAGE_REGION_OF_DEFINITION).ok().and_then(Rect::new);
        let depth = match properties.text(property::PIXEL_DEPTH, 0)?.as_str() {
            "OfxBitDepthByte" => Depth::Byte,
            "OfxBitDepthShort" => Depth::Short,
            "OfxBitDepthHalf" => Depth::Half,
            "OfxBitDepthFloat" => Depth::Float,
            _ => return Err(bad),
        };
        let samples = match properties.text(property::COMPONENTS, 0)?.as_str() {
            "OfxImageComponentRGBA" => 4,
            "OfxImageComponentRGB" => 3,
            _ => return Err(bad),
        };
        let row = bounds.width() * samples * depth.bytes();
        let row_bytes = match properties.int(property::IMAGE_ROW_BYTES, 0).unwrap_or(0) as isize {
            0 => row as isize,
            bytes => bytes,
        };
        if data.is_null() || (row_bytes.unsigned_abs() < row && bounds.height() > 1) {
            return Err(bad);
        }
        // Without a word on it, hosts hand out premultiplied colours.
        let premultiplied = properties.text(property::PREMULTIPLICATION, 0).unwrap_or_default();
        let premultiplied = !matches!(premultiplied.as_str(), "OfxImageAlphaUnPremultiplied" | "OfxImageOpaque");
        let whole = whole.unwrap_or(bounds);
        Ok(Self { data: data.cast(), bounds, whole, row_bytes, depth, samples, premultiplied })
    }

    fn pixel(&self) -> usize {
        self.samples * self.depth.bytes()
    }

    /// The first byte of a pixel of the bounds.
    fn at(&self, x: i32, y: i32) -> *mut u8 {
        let (column, row) = ((x - self.bounds.x1) as usize * self.pixel(), (y - self.bounds.y1) as isize);
        // SAFETY: the host vouches for all pixels of the bounds, and the callers stay within them.
        unsafe { self.data.offset(row * self.row_bytes).add(column) }
    }

    /// A row's pixels from x1 to x2, both within the bounds.
    fn row(&self, y: i32, x1: i32, x2: i32) -> &[u8] {
        // SAFETY: as above; nobody writes to images of inputs.
        unsafe { std::slice::from_raw_parts(self.at(x1, y), (x2 - x1) as usize * self.pixel()) }
    }

    /// The same, to be written.
    ///
    /// # Safety
    /// No two threads may have the same row.
    #[allow(clippy::mut_from_ref)] // Rows are shared out, the image is not.
    unsafe fn row_mut(&self, y: i32, x1: i32, x2: i32) -> &mut [u8] {
        // SAFETY: as above, and the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.at(x1, y), (x2 - x1) as usize * self.pixel()) }
    }

    /// The whole picture as 8-bit sRGB without alpha, as the engine takes it; black where there are no pixels.
    pub fn picture(&self, linear: bool) -> Picture {
        let mut picture = Picture::black(self.whole.width(), self.whole.height());
        if let Some(part) = self.bounds.intersect(&self.whole) {
            let unpremultiply = self.premultiplied && self.samples == 4;
            for y in part.y1..part.y2 {
                let start = ((self.whole.y2 - 1 - y) as usize * picture.width + (part.x1 - self.whole.x1) as usize) * 3;
                let target = &mut picture.data[start..][..part.width() * 3];
                let source = self.row(y, part.x1, part.x2);
                for_depth!(self.depth, decode(source, target, self.samples, unpremultiply, linear));
            }
        }
        picture.reduced()
    }

    /// Writes pixels of 0..1 with full alpha into a row from x1 on.
    ///
    /// # Safety
    /// No two threads may write the same row.
    pub unsafe fn write(&self, y: i32, x1: i32, pixels: &[[f32; 4]]) {
        // SAFETY: the caller's promise.
        let row = unsafe { self.row_mut(y, x1, x1 + pixels.len() as i32) };
        for_depth!(self.depth, encode(pixels, row, self.samples));
    }

    /// Clears a rectangle to nothing.
    pub fn clear(&self, window: &Rect) {
        for y in window.y1..window.y2 {
            // SAFETY: one thread alone is here.
            unsafe { self.row_mut(y, window.x1, window.x2) }.fill(0);
        }
    }

    /// Copies another image as it is into a rectangle; what that lacks is cleared.
    pub fn copy(&self, source: Option<&Self>, window: &Rect, aborted: impl Fn() -> bool) {
        let part = source.and_then(|source| Some((source, source.bounds.intersect(window)?)));
        if part.as_ref().is_none_or(|(_, part)| part != window) {
            self.clear(window);
        }
        let Some((source, part)) = part else { return };
        for y in part.y1..part.y2 {
            if y % 64 == 0 && aborted() {
                return;
            }
            let from = source.row(y, part.x1, part.x2);
            // SAFETY: one thread alone is here.
            let to = unsafe { self.row_mut(y, part.x1, part.x2) };
            if (source.depth, source.samples) == (self.depth, self.samples) {
                to.copy_from_slice(from);
            } else {
                for_depth!(source.depth, convert(from, to, source.samples, self));
            }
        }
    }
}

fn decode<T: Sample>(source: &[u8], target: &mut [u8], samples: usize, unpremultiply: bool, linear: bool) {
    for (pixel, target) in source.chunks_exact(samples * T::SIZE).zip(target.chunks_exact_mut(3)) {
        let value = |channel: usize| T::read(&pixel[channel * T::SIZE..][..T::SIZE]);
        let alpha = if unpremultiply { value(3) } else { 1.0 };
        for (channel, target) in target.iter_mut().enumerate() {
            let straight = if alpha > 0.0 { value(channel) / alpha } else { 0.0 };
            let encoded = if linear { srgb_from_linear(straight) } else { straight };
            // A cast takes what is no number to 0.
            *target = (encoded.clamp(0.0, 1.0) * 255.0).round() as u8;
        }
    }
}

fn encode<T: Sample>(pixels: &[[f32; 4]], row: &mut [u8], samples: usize) {
    // Sizes that the compiler knows make this several times as fast.
    if samples == 4 { encode_as::<T, 4>(pixels, row) } else { encode_as::<T, 3>(pixels, row) }
}

#[inline(always)]
fn encode_as<T: Sample, const SAMPLES: usize>(pixels: &[[f32; 4]], row: &mut [u8]) {
    for (pixel, target) in pixels.iter().zip(row.chunks_exact_mut(SAMPLES * T::SIZE)) {
        let colour = [pixel[0].clamp(0.0, 1.0), pixel[1].clamp(0.0, 1.0), pixel[2].clamp(0.0, 1.0), 1.0];
        for channel in 0..SAMPLES {
            T::write(colour[channel], &mut target[channel * T::SIZE..(channel + 1) * T::SIZE]);
        }
    }
}

/// Between images of other kinds, which hosts that keep to the description never ask for.
fn convert<T: Sample>(from: &[u8], to: &mut [u8], samples: usize, target: &Layout) {
    fn put<U: Sample>(pixels: &[[f32; 4]], row: &mut [u8], samples: usize) {
        for (pixel, target) in pixels.iter().zip(row.chunks_exact_mut(samples * U::SIZE)) {
            target.chunks_exact_mut(U::SIZE).zip(pixel).for_each(|(target, value)| U::write(*value, target));
        }
    }
    let pixels: Vec<[f32; 4]> = from
        .chunks_exact(samples * T::SIZE)
        .map(|pixel| {
            let value = |channel: usize| T::read(&pixel[channel * T::SIZE..][..T::SIZE]);
            [value(0), value(1), value(2), if samples == 4 { value(3) } else { 1.0 }]
        })
        .collect();
    for_depth!(target.depth, put(&pixels, to, target.samples));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(data: &mut [u8], bounds: [i32; 4], row_bytes: isize, depth: Depth, samples: usize) -> Layout {
        let bounds = Rect::new(bounds).unwrap();
        Layout { data: data.as_mut_ptr(), bounds, whole: bounds, row_bytes, depth, samples, premultiplied: true }
    }

    #[test]
    fn pixels_are_read_whatever_their_kind() {
        // Two rows of one pixel; the upper one half transparent.
        let wanted = [128, 64, 0, 255, 0, 51];
        let rows: [[f32; 4]; 2] = [[1.0, 0.0, 0.2, 1.0], [0.25, 0.125, -0.5, 0.5]];
        for depth in [Depth::Byte, Depth::Short, Depth::Half, Depth::Float] {
            let size = 4 * depth.bytes();
            for flipped in [false, true] {
                let mut data = vec![0; 2 * size + 1];
                for (row, pixel) in rows.iter().enumerate() {
                    let place = if flipped { 1 - row } else { row };
                    for (channel, value) in pixel.iter().enumerate() {
                        let target = &mut data[1 + place * size + channel * depth.bytes()..][..depth.bytes()];
                        match depth {
                            Depth::Byte => u8::write(*value, target),
                            Depth::Short => u16::write(*value, target),
                            Depth::Half => f16::write(*value, target),
                            Depth::Float => f32::write(*value, target),
                        }
                    }
                }
                let start = if flipped { 1 + size } else { 1 };
                let step = if flipped { -(size as isize) } else { size as isize };
                let image = layout(&mut data[start..], [-3, 5, -2, 7], step, depth, 4);
                assert_eq!(image.picture(false).data, wanted, "{depth:?} {flipped}");
            }
        }
    }

    #[test]
    fn what_is_no_colour_is_none() {
        let values = [f32::NAN, f32::INFINITY, -1.0, 7.0, 0.5, f32::NEG_INFINITY];
        let mut data: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
        let image = layout(&mut data, [0, 0, 2, 1], 24, Depth::Float, 3);
        assert_eq!(image.picture(false).data, [0, 255, 0, 255, 128, 0]);
        assert_eq!(image.picture(true).data, [0, 255, 0, 255, 188, 0]);
    }

    #[test]
    fn rectangles_are_those_of_pixels() {
        let rect = sys::RectD { x1: 0.0, y1: 0.0, x2: 101.0, y2: 57.0 };
        assert_eq!(Rect::of_canonical(rect, [0.5, 0.5], 1.0), Rect::new([0, 0, 51, 29]));
        assert_eq!(Rect::of_canonical(rect, [1.0, 1.0], 1.0), Rect::new([0, 0, 101, 57]));
        assert_eq!(Rect::of_canonical(sys::RectD { x2: f64::INFINITY, ..rect }, [1.0, 1.0], 1.0), None);
        assert_eq!(Rect::new([5, 0, 5, 3]), None);
        assert_eq!(Rect::new([i32::MIN, 0, i32::MAX, 3]), None);
    }
}
