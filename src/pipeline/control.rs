//! SparseCtrl's condition: images and a mask, both zero at frames without an image.

use ndarray::{ArrayD, Axis, IxDyn, s};
use ort::value::DynValue;

use crate::error::{Error, Result};

/// A condition `[1, channels + 1, frames, h, w]`: `images [n, channels, h, w]` at the given frames, the mask last.
///
/// # Errors
/// When there are not as many places as images, or a place is no frame.
pub fn condition(images: &ArrayD<f32>, places: &[usize], frames: usize) -> Result<ArrayD<f32>> {
    let &[count, channels, height, width] = images.shape() else {
        return Err(Error::failure(format!("condition images have four axes, not {:?}", images.shape())));
    };
    if count != places.len() {
        return Err(Error::input(format!("{count} condition images for {} frames", places.len())));
    }
    let mut condition = ArrayD::zeros(IxDyn(&[1, channels + 1, frames, height, width]));
    for (image, place) in images.axis_iter(Axis(0)).zip(places) {
        if *place >= frames {
            return Err(Error::input(format!(
                "condition image at frame {place}: the clip has frames 0 to {}",
                frames - 1
            )));
        }
        condition.slice_mut(s![0, ..channels, *place, .., ..]).assign(&image);
        condition.slice_mut(s![0, channels, *place, .., ..]).fill(1.0);
    }
    Ok(condition)
}

/// A condition in the device's memory, ready for many runs.
pub struct Conditioning {
    /// As [`condition`] makes it.
    pub(super) condition: DynValue,
    /// Strength of SparseCtrl, `[1]`.
    pub(super) scale: DynValue,
}

impl Conditioning {
    /// `condition` as [`condition`] makes it, `scale` the strength of SparseCtrl, `tensor` what puts them in place.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub(super) fn new(
        tensor: impl Fn(ArrayD<f32>) -> Result<DynValue>,
        condition: ArrayD<f32>,
        scale: f64,
    ) -> Result<Self> {
        let scale = ArrayD::from_elem(IxDyn(&[1]), scale as f32);
        Ok(Self { condition: tensor(condition)?, scale: tensor(scale)? })
    }
}
