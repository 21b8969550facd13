//! Denoising steps: noise predictions, classifier-free guidance, motion guidance, the scheduler's step.

use ndarray::{ArrayD, IxDyn};
use ort::value::DynValue;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::motion::guidance::{self, motion_weights};
use crate::motion::{Motion, MotionMaps};
use crate::networks::{JobNetworks, NetworkKey, StepKind};
use crate::pipeline::control::Conditioning;
use crate::pipeline::unet::{Conditioned, Guide, Unet};
use crate::schedule::{Ddim, NoiseSchedule, Sample, Scheduler, uneven_timesteps};
use crate::settings::Settings;

/// A run's steps, and what stays the same over them.
pub struct Denoising {
    scheduler: Box<dyn Scheduler>,
    /// Of the motion loss at each step; steps where it is 0 are not guided.
    weights: Vec<f64>,
    cfg: f64,
    prompt: DynValue,
    negative: DynValue,
    control: Option<Conditioning>,
    motion: MotionMaps,
    guide: Guide,
}

/// The result of one step.
pub struct Step {
    /// The predictions it was made of.
    pub predicted: Predicted,
    /// The motion loss with its weight, on guided steps.
    pub loss: Option<f64>,
    /// The clean latents that the predicted noise implies.
    pub clean: ArrayD<f32>,
    /// The latents of the next step.
    pub latents: ArrayD<f32>,
}

/// The UNet's predictions at the latents of a step, whose shape all of them have.
pub struct Predicted {
    /// Noise for the negative prompt; absent where classifier-free guidance is off.
    pub noise_uncond: Option<ArrayD<f32>>,
    /// Noise for the prompt.
    pub noise_cond: ArrayD<f32>,
    /// The motion loss's gradient at the latents, on guided steps.
    pub gradient: Option<ArrayD<f32>>,
}

impl Denoising {
    /// Prepares a run. `prompt` and `negative` are text embeddings, `condition` is SparseCtrl's where settings ask for
    /// a control.
    ///
    /// # Errors
    /// When the settings do not fit the model or the motion.
    pub fn new(
        engine: &Engine,
        settings: &Settings,
        motion: &Motion,
        prompt: ArrayD<f32>,
        negative: ArrayD<f32>,
        condition: Option<ArrayD<f32>>,
    ) -> Result<Self> {
        let Settings { steps, guidance_steps, guidance_scale, cfg, .. } = *settings;
        let schedule = NoiseSchedule::new(&engine.manifest().schedule)?;
        let timesteps = uneven_timesteps(schedule.train_steps(), steps, guidance_steps, guidance_scale)?;
        let mut share = None;
        let control = match (&settings.control, condition) {
            (Some(control), Some(condition)) => {
                share = engine.manifest().defaults.motion_share.get(&control.kind).copied();
                Some(Conditioning::new(|array| engine.tensor(array), condition, settings.control_scale)?)
            }
            (None, None) => None,
            _ => return Err(Error::failure("a control needs a condition, and a condition a control")),
        };
        Ok(Self {
            scheduler: Box::new(Ddim::new(schedule, timesteps)?),
            weights: motion_weights(settings, share.unwrap_or(1.0)),
            cfg,
            prompt: engine.tensor(prompt)?,
            negative: engine.tensor(negative)?,
            control,
            motion: motion.maps.clone(),
            guide: Guide::new(engine, &motion.maps)?,
        })
    }

    /// The sampler.
    pub fn scheduler(&mut self) -> &mut dyn Scheduler {
        &mut *self.scheduler
    }

    /// The predictions of each step.
    pub fn steps(&self) -> Vec<StepKind> {
        let negative = self.cfg != 0.0;
        self.weights.iter().map(|weight| StepKind { guided: *weight != 0.0, negative }).collect()
    }

    /// The networks that are there when the steps begin.
    pub fn networks(&self, networks: &JobNetworks) -> Vec<NetworkKey> {
        networks.of_steps(&self.steps())
    }

    /// Step `index` from `latents [1, 4, frames, h, w]`.
    ///
    /// # Errors
    /// When the run has no such step, a network fails, or the run is cancelled.
    pub fn step(&mut self, unet: &mut Unet, index: usize, latents: &ArrayD<f32>) -> Result<Step> {
        let (predicted, loss) = self.predict(unet, index, latents)?;
        let Sample { clean, next } = update(&mut *self.scheduler, index, latents, &predicted, self.cfg)?;
        let shaped = |values| {
            ArrayD::from_shape_vec(latents.raw_dim(), values).map_err(|e| Error::failure(format!("latents: {e}")))
        };
        Ok(Step { predicted, loss, clean: shaped(clean)?, latents: shaped(next)? })
    }

    /// The predictions of step `index`, and the motion loss on guided steps.
    fn predict(&self, unet: &mut Unet, index: usize, latents: &ArrayD<f32>) -> Result<(Predicted, Option<f64>)> {
        let (Some(timestep), Some(weight)) = (self.scheduler.timesteps().get(index), self.weights.get(index)) else {
            return Err(Error::input(format!("step {index}: the run has {}", self.weights.len())));
        };
        let timestep = unet.tensor(ArrayD::from_elem(IxDyn(&[1]), *timestep as f32))?;
        let at = |text| Conditioned { latents, timestep: &timestep, text, control: self.control.as_ref() };
        let step = StepKind { guided: *weight != 0.0, negative: self.cfg != 0.0 };
        unet.begin_step(step);
        let noise_uncond = if step.negative { Some(unet.predict(&at(&self.negative))?) } else { None };
        if !step.guided {
            let noise_cond = unet.predict(&at(&self.prompt))?;
            return Ok((Predicted { noise_uncond, noise_cond, gradient: None }, None));
        }
        let guided = unet.predict_guided(&at(&self.prompt), &self.guide, *weight)?;
        let loss = guidance::motion_loss(&guided.maps, &self.motion, *weight)?;
        Ok((Predicted { noise_uncond, noise_cond: guided.noise, gradient: Some(guided.gradient) }, Some(loss)))
    }
}

/// Classifier-free guidance (Ho and Salimans, arXiv 2207.12598) in the published code's convention:
/// ε = ε_c + cfg·(ε_c − ε_u), so that 7.5 here is 8.5 where 1 means no guidance.
pub fn classifier_free_guidance(uncond: f32, cond: f32, cfg: f32) -> f32 {
    cond + cfg * (cond - uncond)
}

/// A step's own arithmetic, in float32: classifier-free guidance, motion guidance, the scheduler's step.
///
/// The motion loss's gradient g joins the noise as ε' = ε − √(1−ᾱ)·g only after the clean latents x̂0 are predicted from ε
/// alone, so that the step descends the loss; in x̂0 as well it would climb.
///
/// # Errors
/// When shapes differ or the run has no such step.
pub fn update(
    scheduler: &mut dyn Scheduler,
    index: usize,
    latents: &ArrayD<f32>,
    predicted: &Predicted,
    cfg: f64,
) -> Result<Sample> {
    let Predicted { noise_uncond, noise_cond, gradient } = predicted;
    let uncond = noise_uncond.as_ref().unwrap_or(noise_cond);
    let shapes = [uncond.shape(), noise_cond.shape(), gradient.as_ref().map_or(latents.shape(), |g| g.shape())];
    if shapes.iter().any(|shape| *shape != latents.shape()) {
        let of = latents.shape();
        return Err(Error::failure(format!("a step of latents {of:?} was given {shapes:?} of noise and gradient")));
    }
    let pairs = slice(uncond)?.iter().zip(slice(noise_cond)?);
    let noise: Vec<f32> = pairs.map(|(u, c)| classifier_free_guidance(*u, *c, cfg as f32)).collect();
    match gradient {
        None => scheduler.step(index, slice(latents)?, &noise, &noise),
        Some(gradient) => {
            let sigma = scheduler.sigma(index)?;
            let shifted: Vec<f32> = noise.iter().zip(slice(gradient)?).map(|(e, g)| e - sigma * g).collect();
            scheduler.step(index, slice(latents)?, &noise, &shifted)
        }
    }
}

fn slice(array: &ArrayD<f32>) -> Result<&[f32]> {
    array.as_slice().ok_or_else(|| Error::failure("a tensor is not contiguous"))
}

#[cfg(test)]
mod tests {
    use motionclone_onnx::manifest::ScheduleConfig;

    use super::*;

    #[test]
    fn the_gradient_pulls_the_next_latents_down_the_loss() {
        let schedule = NoiseSchedule::new(&ScheduleConfig::default()).unwrap();
        let mut ddim = Ddim::new(schedule, vec![700, 500]).unwrap();
        let array = |values: &[f32]| ArrayD::from_shape_vec(IxDyn(&[values.len()]), values.to_vec()).unwrap();
        let (latents, uncond, cond) = (array(&[0.5, -1.0]), array(&[0.1, 0.2]), array(&[0.3, -0.2]));
        let mut step = |uncond: &ArrayD<f32>, gradient: Option<&[f32]>| {
            let gradient = gradient.map(array);
            let predicted = Predicted { noise_uncond: Some(uncond.clone()), noise_cond: cond.clone(), gradient };
            update(&mut ddim, 0, &latents, &predicted, 7.5)
        };
        let plain = step(&uncond, None).unwrap();
        let guided = step(&uncond, Some(&[1.0, -1.0])).unwrap();
        assert_eq!(guided.clean, plain.clean, "the gradient joins behind the clean latents");
        assert!(guided.next[0] < plain.next[0] && guided.next[1] > plain.next[1]);
        assert_eq!(step(&uncond, Some(&[0.0, 0.0])).unwrap(), plain);
        assert!(step(&uncond, Some(&[0.0])).is_err());
        assert!(step(&array(&[0.1]), None).is_err());
    }
}
