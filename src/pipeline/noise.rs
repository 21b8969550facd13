//! The random draws of a job.

use ndarray::{ArrayD, IxDyn};

use crate::error::{Error, Result};
use crate::settings::Settings;

/// The seed of the VAE's posterior draws. The published scripts take them from torch's global generator, seeded with
/// 42 when the process starts, whatever the run's seed.
const POSTERIOR_SEED: u64 = 42;

/// Standard normal noise `[1, 4, frames, h, w]`: the first draw of a generator with the run's seed. Extraction and
/// sampling each start a generator, so both begin from the very same noise.
///
/// # Errors
/// When the shape has more elements than an array can.
pub(crate) fn initial_latents(settings: &Settings, shape: &[usize]) -> Result<ArrayD<f32>> {
    let noise = settings.noise.draw(settings.seed, shape.iter().product());
    ArrayD::from_shape_vec(IxDyn(shape), noise).map_err(|e| Error::failure(format!("initial latents: {e}")))
}

/// `count` numbers for the VAE's posterior.
pub(crate) fn posterior(settings: &Settings, count: usize) -> Vec<f32> {
    settings.noise.draw(POSTERIOR_SEED, count)
}
