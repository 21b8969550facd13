//! Steps through the noise schedule: noise predictions, motion guidance, the next latents.

use std::collections::BTreeMap;

use ndarray::{ArrayD, IxDyn};
use ort::value::DynValue;

use crate::bundle::NetworkKey;
use crate::cancel::Cancel;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::memory::Economy;
use crate::motion::Motion;
use crate::motion::guidance::{self, MotionTarget};
use crate::pipeline::control::{Conditioning, Residuals};
use crate::runtime::Input;
use crate::schedule::Schedule;
use crate::settings::Settings;

/// What stays the same over the steps of one run.
pub struct Denoising {
    /// The run's timesteps.
    pub schedule: Schedule,
    settings: Settings,
    denoiser: NetworkKey,
    guided: NetworkKey,
    control: Option<(NetworkKey, Conditioning)>,
    prompt: DynValue,
    negative: DynValue,
    motion: Motion,
    /// Input name and tensor, target and weight of each guided map.
    targets: Vec<(String, DynValue)>,
}

/// What one step computed.
pub struct Step {
    /// Noise predicted for the negative prompt; absent where guidance is off and nothing needs it.
    pub noise_uncond: Option<ArrayD<f32>>,
    /// Noise predicted for the prompt.
    pub noise_cond: ArrayD<f32>,
    /// The motion loss with its weight, on guided steps.
    pub loss: Option<f64>,
    /// Its gradient at the latents, on guided steps.
    pub gradient: Option<ArrayD<f32>>,
    /// The clean latents that the predicted noise implies.
    pub clean: ArrayD<f32>,
    /// The latents of the next step.
    pub latents: ArrayD<f32>,
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
        let schedule = Schedule::new(
            &engine.manifest().schedule,
            settings.steps,
            settings.guidance_steps,
            settings.guidance_scale,
        )?;
        let shape = engine.unet_shape(settings);
        let mut settings = settings.clone();
        let control = match (&settings.control, condition) {
            (Some(control), Some(condition)) => {
                let share = engine.manifest().defaults.motion_share.get(&control.kind);
                settings.motion_weight *= share.copied().unwrap_or(1.0);
                let key = NetworkKey::Control(control.kind, shape.clone());
                Some((key, Conditioning::new(engine, condition, settings.control_scale)?))
            }
            (None, None) => None,
            _ => return Err(Error::failure("a control needs a condition, and a condition a control")),
        };
        let mut targets = Vec::new();
        for (name, MotionTarget { target, weight }) in guidance::motion_targets(motion)? {
            targets.push((format!("target.{name}"), engine.tensor(target.into_dyn())?));
            targets.push((format!("weight.{name}"), engine.tensor(weight.into_dyn())?));
        }
        Ok(Self {
            schedule,
            denoiser: NetworkKey::Denoiser(shape.clone()),
            guided: NetworkKey::Guided(shape, settings.blocks.clone(), engine.economy.forward()),
            settings,
            control,
            prompt: engine.tensor(prompt)?,
            negative: engine.tensor(negative)?,
            motion: motion.clone(),
            targets,
        })
    }

    /// The networks that a step runs. Where one has to do for both prompts of a guided step, the guided one does.
    pub(crate) fn networks_of(&self, index: usize, economy: Economy) -> Vec<NetworkKey> {
        let guided = self.is_guided(index);
        let other = self.settings.cfg != 0.0 && economy != Economy::OneByOne;
        let control = self.control.as_ref().map(|(key, _)| key.clone());
        let denoiser = (!guided || other).then(|| self.denoiser.clone());
        [control, guided.then(|| self.guided.clone()), denoiser].into_iter().flatten().collect()
    }

    /// The networks that the steps run.
    pub fn networks(&self) -> Vec<NetworkKey> {
        let guides = (0..self.schedule.timesteps.len()).any(|index| self.is_guided(index));
        let plain = self.settings.cfg != 0.0 || (0..self.schedule.timesteps.len()).any(|index| !self.is_guided(index));
        let control = self.control.as_ref().map(|(key, _)| key.clone());
        let guided = guides.then(|| self.guided.clone());
        let denoiser = plain.then(|| self.denoiser.clone());
        [control, guided, denoiser].into_iter().flatten().collect()
    }

    /// Whether a step is guided: one of the guided steps, with a weight that is not 0.
    pub fn is_guided(&self, index: usize) -> bool {
        index < self.settings.guidance_steps && guidance::motion_weight(index, &self.settings) != 0.0
    }

    /// One step from `latents [1, 4, frames, h, w]`.
    ///
    /// # Errors
    /// When a network fails or the run is cancelled.
    pub fn step(&self, engine: &mut Engine, index: usize, latents: &ArrayD<f32>, cancel: &Cancel) -> Result<Step> {
        let step = self.schedule.step(index)?;
        let timestep = self.schedule.timesteps[index];
        let timestep = engine.tensor(ArrayD::from_elem(IxDyn(&[1]), timestep as f32))?;

        let noise_uncond = if self.settings.cfg == 0.0 {
            None
        } else {
            let residuals = self.residuals(engine, &timestep, &self.negative, cancel)?;
            let mut inputs = inputs(latents, &timestep, &self.negative, residuals.as_ref());
            let alone = engine.economy == Economy::OneByOne && self.is_guided(index);
            let nothing = ArrayD::zeros(IxDyn(&[1]));
            if alone {
                inputs.push(("motion_scale", Input::Array(&nothing)));
                inputs.extend(self.targets.iter().map(|(name, value)| (name.as_str(), Input::Value(value))));
            }
            let key = if alone { &self.guided } else { &self.denoiser };
            Some(engine.network(key)?.run(&inputs, cancel)?.array("noise")?)
        };

        let residuals = self.residuals(engine, &timestep, &self.prompt, cancel)?;
        let mut inputs = inputs(latents, &timestep, &self.prompt, residuals.as_ref());
        let (noise_cond, loss, gradient);
        if self.is_guided(index) {
            let weight = guidance::motion_weight(index, &self.settings);
            let scale = ArrayD::from_elem(IxDyn(&[1]), weight as f32);
            inputs.push(("motion_scale", Input::Array(&scale)));
            inputs.extend(self.targets.iter().map(|(name, value)| (name.as_str(), Input::Value(value))));
            let outputs = engine.network(&self.guided)?.run(&inputs, cancel)?;
            let mut maps = BTreeMap::new();
            for name in self.motion.maps.keys() {
                maps.insert(name.clone(), outputs.array(&format!("attention.{name}"))?.into_raw_vec_and_offset().0);
            }
            noise_cond = outputs.array("noise")?;
            loss = Some(guidance::motion_loss(&maps, &self.motion, weight)?);
            gradient = Some(outputs.array("gradient")?);
        } else {
            noise_cond = engine.network(&self.denoiser)?.run(&inputs, cancel)?.array("noise")?;
            (loss, gradient) = (None, None);
        }

        let uncond = slice(noise_uncond.as_ref().unwrap_or(&noise_cond))?;
        let gradient_slice = gradient.as_ref().map(slice).transpose()?;
        let (clean, next) =
            guidance::denoise(step, slice(latents)?, uncond, slice(&noise_cond)?, self.settings.cfg, gradient_slice)?;
        let shaped = |values| {
            ArrayD::from_shape_vec(latents.raw_dim(), values).map_err(|e| Error::failure(format!("latents: {e}")))
        };
        Ok(Step { clean: shaped(clean)?, latents: shaped(next)?, noise_uncond, noise_cond, loss, gradient })
    }

    fn residuals(
        &self,
        engine: &mut Engine,
        timestep: &DynValue,
        text: &DynValue,
        cancel: &Cancel,
    ) -> Result<Option<Residuals>> {
        let Some((key, conditioning)) = &self.control else { return Ok(None) };
        conditioning.residuals(engine.network(key)?, timestep, text, cancel).map(Some)
    }
}

/// The inputs that every UNet graph has.
pub(crate) fn inputs<'a>(
    latents: &'a ArrayD<f32>,
    timestep: &'a DynValue,
    text: &'a DynValue,
    residuals: Option<&'a Residuals>,
) -> Vec<(&'a str, Input<'a>)> {
    let mut inputs = vec![
        ("latents", Input::Array(latents)),
        ("timestep", Input::Value(timestep)),
        ("text_embeddings", Input::Value(text)),
    ];
    inputs.extend(residuals.into_iter().flatten().map(|(name, value)| (name.as_str(), Input::Value(value))));
    inputs
}

fn slice(array: &ArrayD<f32>) -> Result<&[f32]> {
    array.as_slice().ok_or_else(|| Error::failure("a tensor is not contiguous"))
}
