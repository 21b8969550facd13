//! Painting a frame of the result at the size of the host's picture.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::F32x4;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};

use crate::pixels::{Layout, Rect, linear_from_srgb};

/// Rows that are scaled at a time: few enough to stay in the cache, many enough to share the work of their borders.
const BAND: usize = 96;

/// A frame of 8-bit sRGB, rows from the top.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    pub width: usize,
    pub height: usize,
    pub data: &'a [u8],
}

/// Scales a frame (Lanczos, three lobes) so that it covers `place`, and writes the part of it that lies in `window`,
/// which lies within the image. Where light is wanted, scaling is done in light, too.
pub fn paint(frame: Frame, target: &Layout, place: &Rect, window: &Rect, linear: bool, aborted: impl Fn() -> bool) {
    let Some(part) = place.intersect(window) else { return };
    let table: Vec<f32> = (0..=u8::MAX)
        .map(|value| f32::from(value) / 255.0)
        .map(|value| if linear { linear_from_srgb(value) } else { value })
        .collect();
    let value = |value: u8| table[usize::from(value)];
    let source: Vec<F32x4> =
        frame.data.chunks_exact(3).map(|c| F32x4::new([value(c[0]), value(c[1]), value(c[2]), 1.0])).collect();
    let Ok(source) = TypedImageRef::new(frame.width as u32, frame.height as u32, &source) else { return };
    let bands = part.height().div_ceil(BAND);
    let (next, stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = |poll: &dyn Fn() -> bool| {
        let mut painter = Painter::new();
        while !stopped.load(Ordering::Relaxed) {
            let band = next.fetch_add(1, Ordering::Relaxed);
            if band >= bands {
                break;
            }
            let y2 = part.y2 - (band * BAND) as i32;
            let rows = Rect { y1: part.y1.max(y2 - BAND as i32), y2, ..part };
            painter.paint(&source, target, place, &rows);
            if poll() {
                stopped.store(true, Ordering::Relaxed);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8).min(bands);
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // Hosts are asked whether to stop on their own thread alone. Without another thread this one does it all.
            let _ = std::thread::Builder::new().spawn_scoped(scope, || work(&|| false));
        }
        work(&aborted);
    });
}

/// What one thread needs to scale bands.
struct Painter {
    resizer: Resizer,
    pixels: Vec<F32x4>,
}

impl Painter {
    fn new() -> Self {
        Self { resizer: Resizer::new(), pixels: Vec::new() }
    }

    /// Scales and writes some rows of the part.
    fn paint(&mut self, source: &TypedImageRef<F32x4>, target: &Layout, place: &Rect, rows: &Rect) {
        use fast_image_resize::ImageView;

        let (width, height) = (rows.width(), rows.height());
        self.pixels.resize(width * height, F32x4::default());
        let (across, down) = (f64::from(source.width()), f64::from(source.height()));
        let [x, y] = [across / place.width() as f64, down / place.height() as f64];
        let left = f64::from(rows.x1 - place.x1) * x;
        let top = f64::from(place.y2 - rows.y2) * y;
        // Rounding must not lead out of the frame.
        let inside = 1.0 - 1e-12;
        let crop = [(width as f64 * x).min((across - left) * inside), (height as f64 * y).min((down - top) * inside)];
        let options = ResizeOptions::new()
            .resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3))
            .use_alpha(false)
            .crop(left, top, crop[0], crop[1]);
        let Ok(mut scaled) = TypedImage::from_pixels_slice(width as u32, height as u32, &mut self.pixels) else {
            return;
        };
        if self.resizer.resize_typed(source, &mut scaled, &options).is_err() {
            return;
        }
        for (row, pixels) in scaled.pixels().chunks_exact(width).enumerate() {
            // SAFETY: F32x4 is a transparent wrapper of [f32; 4]; each row belongs to one band, each band to one thread.
            unsafe {
                let pixels = std::slice::from_raw_parts(pixels.as_ptr().cast::<[f32; 4]>(), pixels.len());
                target.write(rows.y2 - 1 - row as i32, rows.x1, pixels);
            }
        }
    }
}
