//! What the tests of this program share.

use std::path::Path;

use motionclone::Cancel;
use motionclone::Result;
use motionclone::media::clip::Clip;
use motionclone::media::frames::Frames;
use motionclone::media::sampling::Selection;
use motionclone::onnx::manifest::{Defaults, Manifest};
use motionclone::settings::FrameRate;

use crate::output::{ClipShape, Output, Outputs};

/// The embedded model's manifest, with the published defaults.
pub fn manifest() -> Manifest {
    let bundle = Path::new(env!("CARGO_MANIFEST_DIR")).join("onnx/demo/bundle");
    let manifest = Manifest::read(&bundle).expect("the embedded model");
    Manifest { defaults: Defaults::default(), ..manifest }
}

/// Opens a clip without a way to cancel.
pub fn open(path: &Path) -> Result<Clip> {
    Clip::open(path, &Selection::default(), &mut |_| (), &Cancel::default())
}

/// Reads so many frames of a clip.
pub fn read(path: &Path, frames: usize, width: usize, height: usize) -> Result<Frames> {
    open(path)?.sample(frames, width, height, &mut |_| (), &Cancel::default())
}

/// Writes a clip.
pub fn write(path: &Path, frames: &Frames, fps: f64) -> Result<()> {
    let fps = FrameRate::from_f64(fps).expect("a frame rate");
    prepare(path)?.write(frames, fps, &Cancel::default())
}

/// Checks that a small clip can be written.
pub fn prepare(path: &Path) -> Result<Output> {
    let fps = FrameRate::new(8, 1).expect("a frame rate");
    Outputs::default().clip(path, &ClipShape { width: 16, height: 16, frames: 2, fps })
}

/// A clip with soft, moving, coloured bars and a little texture, so that no encoder can make it vanish.
pub fn moving_bars(count: usize, width: usize, height: usize) -> Frames {
    let mut data = Vec::with_capacity(count * width * height * 3);
    let wave = |value: f64| (127.5 + 90.0 * value.sin()) as u8;
    for t in 0..count {
        for y in 0..height {
            for x in 0..width {
                let (x, y, t) = (x as f64, y as f64, t as f64);
                let texture = ((x * 12.9898 + y * 78.233 + t * 37.719).sin() * 43758.5453).fract().abs() * 12.0;
                data.extend([wave(x / 9.0 - t / 2.0), wave(y / 7.0 + t / 3.0), wave((x + y) / 11.0)]);
                let last = data.len() - 3;
                data[last..].iter_mut().for_each(|v| *v = v.saturating_add(texture as u8));
            }
        }
    }
    Frames { width, height, data }
}

/// Mean absolute difference of all samples.
pub fn difference(a: &Frames, b: &Frames) -> f64 {
    assert_eq!((a.width, a.height, a.count()), (b.width, b.height, b.count()));
    a.data.iter().zip(&b.data).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.data.len() as f64
}
