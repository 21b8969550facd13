//! One clone: frames, motion, steps, frames; with progress, previews and cancellation.

use std::collections::BTreeMap;

use motionclone_onnx::model::config::ControlKind;
use ndarray::ArrayD;

use crate::cancel::Cancel;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::media::frames::Frames;
use crate::memory;
use crate::motion::{Motion, MotionInfo, SparseAttention, guided_maps};
use crate::networks::JobNetworks;
use crate::pipeline::control::condition;
use crate::pipeline::denoise::{Denoising, Step};
use crate::pipeline::noise::{initial_latents, posterior};
use crate::pipeline::preview::preview;
use crate::pipeline::unet::{AttentionMaps, Unet};
use crate::pipeline::{extract, vae};
use crate::progress::{Clock, report};
use crate::prompt;
use crate::settings::Settings;

pub use crate::progress::{Event, Progress, Stage, Watch};

impl Engine {
    /// Reads the motion of a clip, already of the run's size and number of frames.
    ///
    /// # Errors
    /// When the settings or the clip do not fit the model, a network fails, or the run is cancelled.
    pub fn extract(&mut self, clip: &Frames, settings: &Settings, watch: Watch, cancel: &Cancel) -> Result<Motion> {
        settings.check(self.manifest())?;
        check_clip(clip, settings)?;
        check_room(self, settings)?;
        let mut job = Job::new(self, settings, watch, cancel)?;
        let latents = job.encode(&vae::pixels(clip))?;
        let pixels = settings.control.as_ref().map(|_| vae::unit_pixels(clip));
        job.motion(&latents, pixels.as_ref(), blake3::hash(&clip.data).to_hex().as_str())
    }

    /// Makes a new clip that moves like `motion`.
    ///
    /// # Errors
    /// When the settings or the motion do not fit the model, a network fails, or the run is cancelled.
    pub fn clone_motion(
        &mut self,
        motion: &Motion,
        settings: &Settings,
        watch: Watch,
        cancel: &Cancel,
    ) -> Result<Frames> {
        settings.check(self.manifest())?;
        motion.check(self.manifest(), settings)?;
        check_room(self, settings)?;
        let mut job = Job::new(self, settings, watch, cancel)?;
        let images = job.control_images()?;
        let latents = job.sample(motion, images.as_ref())?;
        Ok(vae::to_frames(&job.decode(&latents)?))
    }
}

/// A job's stages, one by one.
pub struct Job<'a> {
    engine: &'a mut Engine,
    settings: &'a Settings,
    networks: JobNetworks,
    watch: Watch<'a>,
    cancel: &'a Cancel,
}

impl<'a> Job<'a> {
    /// A job with these settings on an engine.
    ///
    /// # Errors
    /// When the settings do not fit the model, or the job the engine's memory budget.
    pub fn new(engine: &'a mut Engine, settings: &'a Settings, watch: Watch<'a>, cancel: &'a Cancel) -> Result<Self> {
        let networks = engine.job_networks(settings)?;
        Ok(Self { engine, settings, networks, watch, cancel })
    }

    /// The job's networks.
    pub fn networks(&self) -> &JobNetworks {
        &self.networks
    }

    /// The job's UNet.
    pub fn unet(&mut self) -> Unet<'_> {
        Unet::new(self.engine, &self.networks, self.cancel)
    }

    /// A prompt's text embeddings `[1, tokens, c]`, and the part of the prompt that did not fit.
    ///
    /// # Errors
    /// When the network fails or the job is cancelled.
    pub fn encode_text(&mut self, prompt: &str) -> Result<(ArrayD<f32>, Option<String>)> {
        self.engine.encode_text(&self.networks, prompt, self.cancel)
    }

    /// Latents `[n, 4, h, w]` of images `[n, 3, H, W]` in −1..1, a sample of the VAE's posterior.
    ///
    /// # Errors
    /// When the network fails or the job is cancelled.
    pub fn encode(&mut self, pixels: &ArrayD<f32>) -> Result<ArrayD<f32>> {
        let shape = self.networks.vae();
        let count = pixels.shape()[0] * self.engine.manifest().vae.latent_channels * shape.height * shape.width;
        self.encode_with(pixels, &posterior(self.settings, count))
    }

    /// The same with the posterior's draw given.
    ///
    /// # Errors
    /// When the network fails or the job is cancelled.
    pub fn encode_with(&mut self, pixels: &ArrayD<f32>, noise: &[f32]) -> Result<ArrayD<f32>> {
        let (config, key, count) = (self.engine.manifest().vae.clone(), self.networks.vae_encoder(), pixels.shape()[0]);
        report(self.watch, Stage::Encode, 0, count);
        self.engine.make_room(&self.networks, std::slice::from_ref(&key));
        let network = self.engine.network(&key, self.cancel)?;
        let done = |done| report(self.watch, Stage::Encode, done, count);
        vae::encode(network, &config, pixels, noise, self.cancel, done)
    }

    /// The motion of encoded frames `[frames, 4, h, w]`. `pixels [frames, 3, H, W]` in 0..1 is what a sketch control is
    /// conditioned on.
    ///
    /// # Errors
    /// When a network fails or the job is cancelled.
    pub fn motion(&mut self, latents: &ArrayD<f32>, pixels: Option<&ArrayD<f32>>, clip_hash: &str) -> Result<Motion> {
        let mut maps = BTreeMap::new();
        for (name, map) in self.attention(latents, pixels)? {
            let shape = map.shape().try_into().map_err(|_| Error::failure("an attention map has not four axes"))?;
            let map = map.into_raw_vec_and_offset().0;
            maps.insert(name, SparseAttention::from_attention(&map, shape, self.settings.top_k)?);
        }
        Ok(Motion { maps, info: MotionInfo::new(self.engine.manifest(), self.settings, clip_hash) })
    }

    /// The attention that a motion is kept of.
    ///
    /// # Errors
    /// When a network fails or the job is cancelled.
    pub fn attention(&mut self, latents: &ArrayD<f32>, pixels: Option<&ArrayD<f32>>) -> Result<AttentionMaps> {
        report(self.watch, Stage::Extract, 0, 1);
        let (text, _) = self.encode_text("")?;
        let settings = self.settings;
        let maps = extract::attention(&mut self.unet(), settings, text, latents, pixels)?;
        report(self.watch, Stage::Extract, 1, 1);
        Ok(maps)
    }

    /// SparseCtrl's images of the settings: latents `[n, 4, h, w]` of pictures, pixels `[n, 3, H, W]` in 0..1 of sketches.
    ///
    /// # Errors
    /// When an image cannot be resized, the VAE fails, or the job is cancelled.
    pub fn control_images(&mut self) -> Result<Option<ArrayD<f32>>> {
        let Settings { width, height, .. } = *self.settings;
        let Some(control) = &self.settings.control else { return Ok(None) };
        let mut data = Vec::new();
        for (image, _) in &control.images {
            data.extend(image.resize_antialiased(width, height).data);
        }
        let images = Frames { width, height, data };
        match control.kind {
            ControlKind::Scribble => Ok(Some(vae::unit_pixels(&images))),
            ControlKind::Rgb => self.encode(&vae::pixels(&images)).map(Some),
        }
    }

    /// The run's steps, ready to be taken one by one. `images` are those of [`Job::control_images`].
    ///
    /// # Errors
    /// When a network fails or the job is cancelled.
    pub fn denoising(&mut self, motion: &Motion, images: Option<&ArrayD<f32>>) -> Result<Denoising> {
        let settings = self.settings;
        let mut encode = |what: &str, prompt: &str| -> Result<ArrayD<f32>> {
            let (embeddings, cut) = self.encode_text(prompt)?;
            if let Some(rest) = cut {
                let warning = format!("the {what} is too long for the model; this part is left out: {rest:?}");
                (self.watch)(Event::Warning(warning));
            }
            Ok(embeddings)
        };
        let prompt = encode("prompt", &settings.prompt)?;
        let negative = encode("negative prompt", &settings.negative_prompt)?;
        let vocabulary = &self.engine.manifest().vocabulary;
        prompt::warnings(settings, vocabulary).into_iter().for_each(|warning| (self.watch)(Event::Warning(warning)));
        let condition = match (&settings.control, images) {
            (Some(control), Some(images)) => {
                let places: Vec<usize> = control.images.iter().map(|(_, frame)| *frame).collect();
                Some(condition(images, &places, settings.frames)?)
            }
            _ => None,
        };
        Denoising::new(self.engine, settings, motion, prompt, negative, condition)
    }

    /// Denoises from the seed's noise to clean latents `[1, 4, frames, h, w]`.
    ///
    /// # Errors
    /// When a network fails or the job is cancelled.
    pub fn sample(&mut self, motion: &Motion, images: Option<&ArrayD<f32>>) -> Result<ArrayD<f32>> {
        let mut denoising = self.denoising(motion, images)?;
        let steps = denoising.steps();
        self.load(&denoising)?;
        let shape = self.networks.unet();
        let size = [1, self.engine.manifest().unet.in_channels, self.settings.frames, shape.height, shape.width];
        let mut latents = initial_latents(self.settings, &size)?;
        let map = self.engine.manifest().preview.clone();
        let mut clock = Clock::new(steps.iter().map(|step| step.guided).collect());
        let total = steps.len();
        let mut unet = Unet::new(self.engine, &self.networks, self.cancel);
        for index in 0..total {
            self.cancel.check()?;
            let step = denoising.step(&mut unet, index, &latents)?;
            check_finite(&step, index)?;
            (self.watch)(Event::Progress(Progress {
                stage: Stage::Denoise,
                step: index + 1,
                total,
                loss: step.loss,
                seconds_left: Some(clock.seconds_left(index)),
                preview: map.as_ref().map(|map| preview(map, &step.clean)),
            }));
            latents = step.latents;
        }
        Ok(latents)
    }

    /// Loads what the first step needs, and what later ones do where all stays; frees the rest.
    fn load(&mut self, denoising: &Denoising) -> Result<()> {
        let networks = denoising.networks(&self.networks);
        self.engine.keep(&self.networks.beside_steps(&networks));
        for (index, key) in networks.iter().enumerate() {
            report(self.watch, Stage::Load, index, networks.len());
            self.cancel.check()?;
            self.engine.network(key, self.cancel)?;
        }
        Ok(())
    }

    /// A video `[1, 3, frames, H, W]` in 0..1 from latents `[1, 4, frames, h, w]`.
    ///
    /// # Errors
    /// When the network fails or the job is cancelled.
    pub fn decode(&mut self, latents: &ArrayD<f32>) -> Result<ArrayD<f32>> {
        let (config, key, count) =
            (self.engine.manifest().vae.clone(), self.networks.vae_decoder(), latents.shape()[2]);
        report(self.watch, Stage::Decode, 0, count);
        self.engine.make_room(&self.networks, std::slice::from_ref(&key));
        let network = self.engine.network(&key, self.cancel)?;
        vae::decode(network, &config, latents, self.cancel, |done| report(self.watch, Stage::Decode, done, count))
    }
}

fn check_room(engine: &Engine, settings: &Settings) -> Result<()> {
    let maps = guided_maps(engine.manifest(), &settings.blocks, settings.width, settings.height)?;
    let positions: usize = maps.values().map(|[positions, heads]| positions.saturating_mul(*heads)).sum();
    memory::check_room(settings, positions.saturating_mul(settings.frames.saturating_mul(settings.frames)))
}

fn check_clip(clip: &Frames, settings: &Settings) -> Result<()> {
    let found = (clip.count(), clip.height, clip.width);
    let wanted = (settings.frames, settings.height, settings.width);
    if found != wanted || clip.data.len() != clip.count() * clip.frame_len() {
        return Err(Error::input(format!("the clip has {found:?} frames, rows and columns; the run has {wanted:?}")));
    }
    Ok(())
}

fn check_finite(step: &Step, index: usize) -> Result<()> {
    if step.loss.is_some_and(|loss| !loss.is_finite()) || step.latents.iter().any(|value| !value.is_finite()) {
        return Err(Error::failure(format!(
            "the latents are no longer numbers at step {}; lower the motion weight or cfg",
            index + 1
        )));
    }
    Ok(())
}
