//! Painting a frame of the result at the size of the host's picture.

use std::ffi::{c_uint, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::F32x4;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};

use crate::clips::clip::Frame;
use crate::ofx::image::{Layout, Rect};
use crate::ofx::suites::Host;
use crate::ofx::sys;
use crate::picture::linear_from_srgb;

/// Rows that are scaled at a time: few enough to stay in the cache, many enough to share the work of their borders.
const BAND: usize = 64;

/// Scales a frame (cubic, Catmull and Rom's) so that it covers `place`, and writes the part of it that lies in `window`,
/// which lies within the image. Where light is wanted, scaling is done in light, too.
pub fn paint(
    host: &Host,
    frame: Frame,
    target: &Layout,
    place: &Rect,
    window: &Rect,
    linear: bool,
    aborted: &(dyn Fn() -> bool + Sync),
) {
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
    // Hosts are asked whether to stop on their own thread alone.
    let own = std::thread::current().id();
    let work = || {
        let mut painter = Painter::new();
        while !stopped.load(Ordering::Relaxed) {
            let band = next.fetch_add(1, Ordering::Relaxed);
            if band >= bands {
                break;
            }
            let y2 = part.y2 - (band * BAND) as i32;
            let rows = Rect { y1: part.y1.max(y2 - BAND as i32), y2, ..part };
            painter.paint(&source, target, place, &rows);
            if std::thread::current().id() == own && aborted() {
                stopped.store(true, Ordering::Relaxed);
            }
        }
    };
    share_out(host, bands, &work);
}

/// What all threads do.
type Work<'a> = &'a (dyn Fn() + Sync);

/// Runs `work` on as many threads as there are, and parts of the work: the host's, where it lends them, so that a host
/// that renders frames side by side is the one to count them.
fn share_out(host: &Host, parts: usize, work: Work) {
    unsafe extern "C" fn call(_index: c_uint, _count: c_uint, argument: *mut c_void) {
        // SAFETY: it is what was given below, which lives until all threads have ended.
        let work = unsafe { *argument.cast::<Work>() };
        // No panic may reach the host's thread; what is left of the work is done by the others.
        let _ = catch_unwind(AssertUnwindSafe(work));
    }
    let suite = host.threads.and_then(|suite| Some((suite, suite.multi_thread?)));
    if let Some((suite, multi_thread)) = suite {
        // SAFETY: takes nothing. A thread that was lent may not ask for others.
        let spawned = suite.is_spawned.is_some_and(|is_spawned| unsafe { is_spawned() } != 0);
        let mut threads: c_uint = 1;
        // SAFETY: one number is written.
        let counted = suite.num_cpus.is_some_and(|count| unsafe { count(&mut threads) } == sys::OK);
        let threads = if counted && !spawned { threads.clamp(1, parts as c_uint) } else { 1 };
        // SAFETY: the call returns when all threads have ended; the work may be done by any of them.
        if threads > 1 && unsafe { multi_thread(call, threads, (&raw const work).cast_mut().cast()) } == sys::OK {
            return;
        }
        return work();
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8).min(parts);
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // Without another thread this one does it all.
            let _ = std::thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
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
            .resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom))
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
