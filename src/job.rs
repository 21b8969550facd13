//! One clone: extract the motion, denoise, decode; with progress, previews and cancellation.

use std::collections::BTreeMap;
use std::time::Instant;

use motionclone_onnx::model::config::ControlKind;
use ndarray::{ArrayD, Axis, IxDyn};

use crate::bundle::NetworkKey;
use crate::cancel::Cancel;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::media::frames::Frames;
use crate::memory::Economy;
use crate::motion::{Motion, MotionInfo, SparseAttention};
use crate::pipeline::control::{Conditioning, condition};
use crate::pipeline::denoise::{self, Denoising};
use crate::pipeline::preview::preview;
use crate::pipeline::vae;
use crate::runtime::Input;
use crate::schedule::Schedule;
use crate::settings::Settings;

/// The seed of the VAE's posterior draws. The published scripts take them from torch's global generator, seeded with
/// 42 when the process starts, whatever the run's seed.
const POSTERIOR_SEED: u64 = 42;

/// A part of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Networks are loaded.
    Load,
    /// Frames and images become latents.
    Encode,
    /// The clip's motion is read.
    Extract,
    /// The new clip is made.
    Denoise,
    /// Latents become frames.
    Decode,
}

/// How far the work is.
#[derive(Debug, Clone)]
pub struct Progress {
    /// The part at hand.
    pub stage: Stage,
    /// Steps done in it.
    pub step: usize,
    /// Steps in it.
    pub total: usize,
    /// The motion loss at the last step, where it was guided.
    pub loss: Option<f64>,
    /// Seconds to the end of the stage, once there is something to judge by.
    pub seconds_left: Option<f64>,
    /// What the clip looks like, at latent size.
    pub preview: Option<Frames>,
}

/// What a job tells while it works.
#[derive(Debug, Clone)]
pub enum Event {
    /// How far it is.
    Progress(Progress),
    /// Something that the user should know and that does not stop the work.
    Warning(String),
}

/// Hears of a job's events, on the thread that runs the job.
pub type Watch<'a> = &'a mut dyn FnMut(Event);

fn report(watch: Watch, stage: Stage, step: usize, total: usize) {
    watch(Event::Progress(Progress { stage, step, total, loss: None, seconds_left: None, preview: None }));
}

impl Engine {
    /// Reads the motion of a clip, already of the run's size and number of frames.
    ///
    /// # Errors
    /// When the settings or the clip do not fit the model, a network fails, or the run is cancelled.
    pub fn extract(&mut self, clip: &Frames, settings: &Settings, watch: Watch, cancel: &Cancel) -> Result<Motion> {
        settings.check(self.manifest())?;
        check_clip(clip, settings)?;
        self.loading_until(cancel, |engine| {
            engine.prepare(settings)?;
            let latents = engine.encode(&vae::pixels(clip), settings, watch, cancel)?;
            let pixels = settings.control.as_ref().map(|_| vae::unit_pixels(clip));
            let hash = hash(&clip.data);
            engine.extract_latents(&latents, pixels.as_ref(), settings, &hash, watch, cancel)
        })
    }

    /// Reads the motion of encoded frames `[frames, 4, h, w]`. `pixels [frames, 3, H, W]` in 0..1 is what a sketch
    /// control is conditioned on.
    ///
    /// # Errors
    /// When a network fails or the run is cancelled.
    pub fn extract_latents(
        &mut self,
        latents: &ArrayD<f32>,
        pixels: Option<&ArrayD<f32>>,
        settings: &Settings,
        clip_hash: &str,
        watch: Watch,
        cancel: &Cancel,
    ) -> Result<Motion> {
        let maps = self.attention(latents, pixels, settings, watch, cancel)?;
        let mut sparse = BTreeMap::new();
        for (name, map) in maps {
            let shape = map.shape().try_into().map_err(|_| Error::failure("an attention map has not four axes"))?;
            let map = map.into_raw_vec_and_offset().0;
            sparse.insert(name, SparseAttention::from_attention(&map, shape, settings.top_k)?);
        }
        Ok(Motion { maps: sparse, info: MotionInfo::new(self.manifest(), settings, clip_hash) })
    }

    /// The guided blocks' temporal attention `[positions, heads, frames, frames]` for encoded frames at the noise step
    /// of the settings, with the empty prompt.
    ///
    /// # Errors
    /// When a network fails or the run is cancelled.
    pub fn attention(
        &mut self,
        latents: &ArrayD<f32>,
        pixels: Option<&ArrayD<f32>>,
        settings: &Settings,
        watch: Watch,
        cancel: &Cancel,
    ) -> Result<BTreeMap<String, ArrayD<f32>>> {
        report(watch, Stage::Extract, 0, 1);
        let (text, _) = self.encode_text("", cancel)?;
        let text = self.tensor(text)?;
        let clean = vae::images_to_video(latents);
        let noise = initial_latents(settings, clean.shape())?;
        let schedule = Schedule::new(&self.manifest().schedule, 1, 0, 0.0)?;
        let flat = |a: &ArrayD<f32>| a.iter().copied().collect::<Vec<f32>>();
        let noisy = schedule.add_noise(&flat(&clean), &flat(&noise), settings.noise_step as i64)?;
        let noisy = ArrayD::from_shape_vec(clean.raw_dim(), noisy).map_err(|e| Error::failure(e.to_string()))?;
        let timestep = self.tensor(ArrayD::from_elem(IxDyn(&[1]), settings.noise_step as f32))?;

        let shape = self.unet_shape(settings);
        let key = self.extractor(settings, self.economy);
        let control = settings.control.as_ref().map(|control| NetworkKey::Control(control.kind, shape.clone()));
        self.make_room(&control.into_iter().chain([key.clone()]).collect::<Vec<_>>());
        let residuals = match &settings.control {
            None => None,
            Some(control) => {
                let places: Vec<usize> = control.images.iter().map(|(_, frame)| *frame).collect();
                let source = match control.kind {
                    ControlKind::Rgb => latents,
                    ControlKind::Scribble => pixels.ok_or_else(|| Error::failure("a sketch control needs pixels"))?,
                };
                let conditioning = Conditioning::new(
                    self,
                    condition(&source.select(Axis(0), &places), &places, settings.frames)?,
                    settings.control_scale,
                )?;
                let key = NetworkKey::Control(control.kind, shape.clone());
                Some(conditioning.residuals(self.network(&key)?, &timestep, &text, cancel)?)
            }
        };
        let mut inputs = denoise::inputs(&noisy, &timestep, &text, residuals.as_ref());
        let wanted = self.guided_maps(settings)?;
        // The network of guided steps takes a motion to follow as well; this one has no weight.
        let nothing = ArrayD::zeros(IxDyn(&[1]));
        let mut targets = Vec::new();
        if let NetworkKey::Guided(..) = key {
            for (name, [positions, heads]) in &wanted {
                let shape = [*positions, *heads, settings.frames, settings.frames];
                let zeros = self.tensor(ArrayD::zeros(IxDyn(&shape)))?;
                targets.push((format!("target.{name}"), format!("weight.{name}"), zeros));
            }
            inputs.push(("motion_scale", Input::Array(&nothing)));
            for (target, weight, zeros) in &targets {
                inputs.extend([(target.as_str(), Input::Value(zeros)), (weight.as_str(), Input::Value(zeros))]);
            }
        }
        let outputs = self.network(&key)?.run(&inputs, cancel)?;
        let mut maps = BTreeMap::new();
        for name in wanted.into_keys() {
            let map = outputs.array(&format!("attention.{name}"))?;
            maps.insert(name, map);
        }
        report(watch, Stage::Extract, 1, 1);
        Ok(maps)
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
        self.loading_until(cancel, |engine| {
            engine.prepare(settings)?;
            let images = engine.control_images(settings, watch, cancel)?;
            let latents = engine.sample(motion, settings, images.as_ref(), watch, cancel)?;
            let video = engine.decode(&latents, settings, watch, cancel)?;
            Ok(vae::to_frames(&video))
        })
    }

    /// Denoises from the seed's noise to clean latents `[1, 4, frames, h, w]`. `images [n, c, h, w]` is what SparseCtrl
    /// is given where the settings ask for a control.
    ///
    /// # Errors
    /// When a network fails or the run is cancelled.
    pub fn sample(
        &mut self,
        motion: &Motion,
        settings: &Settings,
        images: Option<&ArrayD<f32>>,
        watch: Watch,
        cancel: &Cancel,
    ) -> Result<ArrayD<f32>> {
        let denoising = self.denoising(motion, settings, images, watch, cancel)?;
        let networks = match self.economy {
            Economy::OneByOne => denoising.networks_of(0, self.economy),
            _ => denoising.networks(),
        };
        self.keep(&self.staying(settings, &networks));
        for (index, key) in networks.iter().enumerate() {
            report(watch, Stage::Load, index, networks.len());
            cancel.check()?;
            self.network(key)?;
        }
        let shape = self.unet_shape(settings);
        let size = [1, self.manifest().unet.in_channels, shape.frames, shape.height, shape.width];
        let mut latents = initial_latents(settings, &size)?;
        let mut clock = Clock::new(&denoising, settings.steps);
        let map = self.manifest().preview.clone();
        for index in 0..settings.steps {
            cancel.check()?;
            self.make_room(&denoising.networks_of(index, self.economy));
            let step = denoising.step(self, index, &latents, cancel)?;
            let loss = step.loss;
            if loss.is_some_and(|l| !l.is_finite()) || step.latents.iter().any(|v| !v.is_finite()) {
                return Err(Error::failure(format!(
                    "the latents are no longer numbers at step {}; lower the motion weight or cfg",
                    index + 1
                )));
            }
            let preview = map.as_ref().map(|map| preview(map, &step.clean));
            latents = step.latents;
            let seconds_left = Some(clock.seconds_left(index));
            let step = index + 1;
            watch(Event::Progress(Progress {
                stage: Stage::Denoise,
                step,
                total: settings.steps,
                loss,
                seconds_left,
                preview,
            }));
        }
        Ok(latents)
    }

    /// A run's steps, ready to be taken one by one.
    ///
    /// # Errors
    /// When a network fails or the run is cancelled.
    pub fn denoising(
        &mut self,
        motion: &Motion,
        settings: &Settings,
        images: Option<&ArrayD<f32>>,
        watch: Watch,
        cancel: &Cancel,
    ) -> Result<Denoising> {
        let mut encode = |engine: &mut Self, what: &str, prompt: &str| -> Result<ArrayD<f32>> {
            let (embeddings, cut) = engine.encode_text(prompt, cancel)?;
            if let Some(rest) = cut {
                watch(Event::Warning(format!("the {what} is too long for the model; this part is left out: {rest:?}")));
            }
            Ok(embeddings)
        };
        let prompt = encode(self, "prompt", &settings.prompt)?;
        let negative = encode(self, "negative prompt", &settings.negative_prompt)?;
        let condition = match (&settings.control, images) {
            (Some(control), Some(images)) => {
                let places: Vec<usize> = control.images.iter().map(|(_, frame)| *frame).collect();
                Some(condition(images, &places, settings.frames)?)
            }
            _ => None,
        };
        Denoising::new(self, settings, motion, prompt, negative, condition)
    }

    /// What SparseCtrl is given for the settings' images: latents `[n, 4, h, w]` of pictures, pixels `[n, 3, H, W]` in
    /// 0..1 of sketches.
    ///
    /// # Errors
    /// When an image cannot be resized, the VAE fails, or the run is cancelled.
    pub fn control_images(
        &mut self,
        settings: &Settings,
        watch: Watch,
        cancel: &Cancel,
    ) -> Result<Option<ArrayD<f32>>> {
        let Some(control) = &settings.control else { return Ok(None) };
        let mut data = Vec::new();
        for (image, _) in &control.images {
            data.extend(image.resize_antialiased(settings.width, settings.height).data);
        }
        let images = Frames { width: settings.width, height: settings.height, data };
        match control.kind {
            ControlKind::Scribble => Ok(Some(vae::unit_pixels(&images))),
            ControlKind::Rgb => self.encode(&vae::pixels(&images), settings, watch, cancel).map(Some),
        }
    }

    /// Latents `[n, 4, h, w]` of images `[n, 3, H, W]` in −1..1, a sample of the VAE's posterior.
    ///
    /// # Errors
    /// When the network fails or the run is cancelled.
    pub fn encode(
        &mut self,
        pixels: &ArrayD<f32>,
        settings: &Settings,
        watch: Watch,
        cancel: &Cancel,
    ) -> Result<ArrayD<f32>> {
        let shape = self.vae_shape(settings);
        let count = pixels.shape()[0];
        let numbers = count * self.manifest().vae.latent_channels * shape.height * shape.width;
        let noise = settings.noise.draw(POSTERIOR_SEED, numbers);
        self.encode_with(pixels, &noise, settings, watch, cancel)
    }

    /// As [`Engine::encode`], with the posterior's draw given.
    ///
    /// # Errors
    /// When the network fails or the run is cancelled.
    pub fn encode_with(
        &mut self,
        pixels: &ArrayD<f32>,
        noise: &[f32],
        settings: &Settings,
        watch: Watch,
        cancel: &Cancel,
    ) -> Result<ArrayD<f32>> {
        let config = self.manifest().vae.clone();
        let key = NetworkKey::VaeEncoder(self.vae_shape(settings));
        let count = pixels.shape()[0];
        report(watch, Stage::Encode, 0, count);
        self.make_room(std::slice::from_ref(&key));
        let network = self.network(&key)?;
        vae::encode(network, &config, pixels, noise, cancel, |done| report(watch, Stage::Encode, done, count))
    }

    /// A video `[1, 3, frames, H, W]` in 0..1 from latents `[1, 4, frames, h, w]`.
    ///
    /// # Errors
    /// When the network fails or the run is cancelled.
    pub fn decode(
        &mut self,
        latents: &ArrayD<f32>,
        settings: &Settings,
        watch: Watch,
        cancel: &Cancel,
    ) -> Result<ArrayD<f32>> {
        let config = self.manifest().vae.clone();
        let key = NetworkKey::VaeDecoder(self.vae_shape(settings));
        let count = latents.shape()[2];
        report(watch, Stage::Decode, 0, count);
        self.make_room(std::slice::from_ref(&key));
        let network = self.network(&key)?;
        vae::decode(network, &config, latents, cancel, |done| report(watch, Stage::Decode, done, count))
    }

    fn guided_maps(&self, settings: &Settings) -> Result<BTreeMap<String, [usize; 2]>> {
        crate::motion::guided_maps(self.manifest(), &settings.blocks, settings.width, settings.height)
    }
}

fn check_clip(clip: &Frames, settings: &Settings) -> Result<()> {
    let found = (clip.count(), clip.height, clip.width);
    let wanted = (settings.frames, settings.height, settings.width);
    if found != wanted || clip.data.len() != clip.count() * clip.frame_len() {
        return Err(Error::input(format!("the clip has {found:?} frames, rows and columns; the run has {wanted:?}")));
    }
    Ok(())
}

/// Standard normal noise `[1, 4, frames, h, w]`: the first draw of a generator with the run's seed. Extraction and
/// sampling each start a generator, so both begin from the very same noise.
fn initial_latents(settings: &Settings, shape: &[usize]) -> Result<ArrayD<f32>> {
    let noise = settings.noise.draw(settings.seed, shape.iter().product());
    ArrayD::from_shape_vec(IxDyn(shape), noise).map_err(|e| Error::failure(format!("initial latents: {e}")))
}

fn hash(data: &[u8]) -> String {
    blake3::hash(data).to_hex().to_string()
}

/// Judges the time left from the mean time of guided and of plain steps so far.
struct Clock {
    guided: Vec<bool>,
    last: Instant,
    spent: [(f64, usize); 2],
}

impl Clock {
    fn new(denoising: &Denoising, steps: usize) -> Self {
        let guided = (0..steps).map(|index| denoising.is_guided(index)).collect();
        Self { guided, last: Instant::now(), spent: [(0.0, 0); 2] }
    }

    fn seconds_left(&mut self, index: usize) -> f64 {
        let kind = usize::from(self.guided[index]);
        self.spent[kind].0 += self.last.elapsed().as_secs_f64();
        self.spent[kind].1 += 1;
        self.last = Instant::now();
        let mean = |kind: usize| {
            let (seconds, steps) = self.spent[kind];
            if steps > 0 { Some(seconds / steps as f64) } else { None }
        };
        let left = &self.guided[index + 1..];
        let guided = left.iter().filter(|g| **g).count() as f64;
        let plain = left.len() as f64 - guided;
        let known = mean(0).or(mean(1)).unwrap_or(0.0);
        plain * mean(0).unwrap_or(known) + guided * mean(1).unwrap_or(known)
    }
}
