//! What SparseCtrl is given: a condition and a mask, both zero at frames without an image.

use std::collections::HashMap;

use ndarray::{ArrayD, Axis, IxDyn, s};
use ort::value::DynValue;

use crate::cancel::Cancel;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::runtime::{Input, Network};

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

/// A condition ready for many runs.
pub struct Conditioning {
    condition: DynValue,
    scale: DynValue,
}

/// Residuals for the UNet by input name.
pub type Residuals = HashMap<String, DynValue>;

impl Conditioning {
    /// `condition` as [`condition`] makes it, `scale` the strength of SparseCtrl.
    ///
    /// # Errors
    /// When ONNX Runtime has no memory for it.
    pub fn new(engine: &Engine, condition: ArrayD<f32>, scale: f64) -> Result<Self> {
        let scale = ArrayD::from_elem(IxDyn(&[1]), scale as f32);
        Ok(Self { condition: engine.tensor(condition)?, scale: engine.tensor(scale)? })
    }

    /// The residuals at one timestep for one text.
    ///
    /// # Errors
    /// When the network fails or the run is cancelled.
    pub fn residuals(
        &self,
        network: &mut Network,
        timestep: &DynValue,
        text: &DynValue,
        cancel: &Cancel,
    ) -> Result<Residuals> {
        let inputs = [
            ("timestep", Input::Value(timestep)),
            ("text_embeddings", Input::Value(text)),
            ("condition", Input::Value(&self.condition)),
            ("control_scale", Input::Value(&self.scale)),
        ];
        Ok(network.run(&inputs, cancel)?.into_values())
    }
}
