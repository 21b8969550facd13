//! Schedulers take a run from noise to clean latents.

use crate::error::Result;

/// A sampler along a noise schedule. Classifier-free guidance and motion guidance are not its concern: it is given what
/// comes of them. A multistep sampler keeps what it needs of the steps before.
pub trait Scheduler {
    /// Training timestep of each step, noisiest first.
    fn timesteps(&self) -> &[i64];

    /// Standard deviation of the noise in the latents that step `index` starts from: √(1−ᾱ).
    ///
    /// # Errors
    /// When the run has no such step.
    fn sigma(&self, index: usize) -> Result<f32>;

    /// Latents noised to a training timestep: √ᾱ·clean + √(1−ᾱ)·noise, elementwise over slices of one length.
    ///
    /// # Errors
    /// When the lengths differ or `timestep` is no training step.
    fn add_noise(&self, clean: &[f32], noise: &[f32], timestep: i64) -> Result<Vec<f32>>;

    /// Step `index` from `latents`. The clean latents are those that `noise`, the prediction, implies; `direction` is the
    /// noise that the next latents keep: the prediction itself, or what guidance shifts it to.
    ///
    /// # Errors
    /// When the lengths differ or the run has no such step.
    fn step(&mut self, index: usize, latents: &[f32], noise: &[f32], direction: &[f32]) -> Result<Sample>;
}

/// Latents after one step.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The clean latents x̂0 that the step predicts.
    pub clean: Vec<f32>,
    /// The latents at the next timestep.
    pub next: Vec<f32>,
}
