//! `manifest.json`: what a bundle holds.
//!
//! A bundle is a folder with `manifest.json`, `weights.safetensors` and `tokenizer/{vocab.json,merges.txt}`.
//! Weights have their diffusers names behind the network's name:
//!
//! | prefix | network |
//! |---|---|
//! | `text_encoder.` | CLIP text encoder (`text_encoder.text_model.…`) |
//! | `vae.` | autoencoder; attention as `to_q`, `to_k`, `to_v`, `to_out.0`, each a matrix `[out, in]` |
//! | `unet.` | UNet with its motion modules (`unet.down_blocks.0.motion_modules.0.…`) |
//! | `adapter.` | the UNet tensors that the domain adapter changes, already merged; they replace `unet.` ones in runs with an image or a sketch |
//! | `control_rgb.`, `control_scribble.` | SparseCtrl encoders |

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::model::config::{ControlConfig, ControlKind, MotionConfig, TextConfig, UnetConfig, VaeConfig};
use crate::unfinished::Unfinished;
use crate::{Error, Result};

/// The format this library writes and the newest it reads.
pub const FORMAT: u32 = 1;
/// The manifest's file name.
pub const MANIFEST_FILE: &str = "manifest.json";
/// The weights' file name.
pub const WEIGHTS_FILE: &str = "weights.safetensors";
/// The folder of the tokenizer's `vocab.json` and `merges.txt`.
pub const TOKENIZER_FOLDER: &str = "tokenizer";

/// What a bundle holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format of the bundle, [`FORMAT`].
    pub format: u32,
    /// A name to show people.
    pub name: String,
    /// BLAKE3 of the weights, in hexadecimal: which model a motion file belongs to.
    pub fingerprint: String,
    /// The files it was imported from.
    pub sources: Vec<Source>,
    /// Text encoder.
    pub text_encoder: TextConfig,
    /// Autoencoder.
    pub vae: VaeConfig,
    /// UNet.
    pub unet: UnetConfig,
    /// Whether `adapter.` tensors are there.
    pub adapter: bool,
    /// SparseCtrl encoders.
    pub controls: BTreeMap<ControlKind, ControlConfig>,
    /// Noise schedule.
    pub schedule: ScheduleConfig,
    /// What a run uses where the user says nothing.
    pub defaults: Defaults,
    /// The words that the model knows, where these are few; empty for a model of everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vocabulary: Vec<String>,
    /// Linear map from scaled latents to colours, for previews; fitted from the VAE at import.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<PreviewMap>,
}

/// A file that went into a bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Its part: `base`, `motion-module`, `dreambooth`, `adapter`, `lora`, `motion-lora`, `sparsectrl-rgb`, …
    pub role: String,
    /// File or folder name, without its path.
    pub file: String,
    /// Merge strength, for LoRAs and adapters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<f32>,
    /// The networks that were taken from it, of an image model: `unet`, `vae`, `text_encoder`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<String>,
}

/// How β grows over the training steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    /// Linear in β (AnimateDiff).
    Linear,
    /// Linear in √β (Stable Diffusion images).
    ScaledLinear,
}

/// The noise schedule of training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScheduleConfig {
    /// Training steps (1000).
    pub train_steps: usize,
    /// First β (0.00085).
    pub beta_start: f64,
    /// Last β (0.012).
    pub beta_end: f64,
    /// How β grows between them.
    pub beta_schedule: BetaSchedule,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self { train_steps: 1000, beta_start: 0.00085, beta_end: 0.012, beta_schedule: BetaSchedule::Linear }
    }
}

/// What a run uses where the user says nothing; the published `t2v_camera` settings unless a bundle says otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Defaults {
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// Frames.
    pub frames: usize,
    /// Frames a second of the result.
    pub fps: f64,
    /// Denoising steps.
    pub steps: usize,
    /// How many of them are guided.
    pub guidance_steps: usize,
    /// Share of the noise schedule that the guided steps cover (g).
    pub guidance_scale: f64,
    /// Guided steps over which the motion weight grows.
    pub warm_up: usize,
    /// Guided steps over which the motion weight fades.
    pub cool_up: usize,
    /// Weight of the motion loss.
    pub motion_weight: f64,
    /// How much of that weight counts beside pictures or sketches, 0 to 1; all of it where nothing is said. They say where
    /// things are, which motion from elsewhere pulls against.
    pub motion_share: BTreeMap<ControlKind, f64>,
    /// Classifier-free guidance, in the published code's convention ε_c + cfg·(ε_c − ε_u).
    pub cfg: f64,
    /// Timestep at which motion is extracted.
    pub noise_step: usize,
    /// UNet blocks whose temporal attention is guided.
    pub blocks: Vec<String>,
    /// Attention entries kept per query.
    pub top_k: usize,
    /// Strength of SparseCtrl.
    pub control_scale: f64,
    /// Negative prompt.
    pub negative_prompt: String,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            width: 512,
            height: 512,
            frames: 16,
            fps: 8.0,
            steps: 100,
            guidance_steps: 50,
            guidance_scale: 0.3,
            warm_up: 10,
            cool_up: 10,
            motion_weight: 2000.0,
            motion_share: BTreeMap::new(),
            cfg: 7.5,
            noise_step: 400,
            blocks: vec!["up_blocks.1".into()],
            top_k: 1,
            control_scale: 1.0,
            negative_prompt: "bad anatomy, extra limbs, ugly, deformed, noisy, blurry, distorted, out of focus, \
                              poorly drawn face, poorly drawn hands, missing fingers"
                .into(),
        }
    }
}

/// Colour = `matrix` · latent + `bias`, in 0..1, per latent position.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PreviewMap {
    /// One row a colour, one column a latent channel.
    pub matrix: Vec<Vec<f32>>,
    /// One value a colour.
    pub bias: Vec<f32>,
}

impl Manifest {
    /// Reads `manifest.json` from a bundle's folder and checks that this library understands it.
    ///
    /// # Errors
    /// When the file is missing, is larger than 1 MiB, is no manifest, or has a newer format.
    pub fn read(bundle: &Path) -> Result<Self> {
        let path = bundle.join(MANIFEST_FILE);
        let size = std::fs::metadata(&path).map_err(|e| Error::io(&path, e))?.len();
        if size > 1 << 20 {
            return Err(Error::input(format!("a manifest has at most 1 MiB, this has {size} bytes")).with_path(&path));
        }
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
        let manifest: Self = serde_json::from_str(&text)
            .map_err(|e| Error::input(format!("not a bundle's manifest: {e}")).with_path(&path))?;
        if manifest.format > FORMAT {
            return Err(Error::input(format!(
                "bundle format {} is newer than this library's {FORMAT}; update motionclone",
                manifest.format
            ))
            .with_path(&path));
        }
        manifest.check().map_err(|e| e.with_path(&path))?;
        Ok(manifest)
    }

    /// Checks the networks' architectures: a bundle may come from anybody.
    fn check(&self) -> Result<()> {
        self.text_encoder.check()?;
        self.vae.check()?;
        self.unet.check()?;
        if self.unet.up_attention.len() != self.unet.block_out_channels.len() {
            return Err(Error::input(format!("up_attention has {} entries", self.unet.up_attention.len())));
        }
        if let Some(PreviewMap { matrix, bias }) = &self.preview {
            let channels = self.vae.latent_channels;
            if matrix.len() != 3 || bias.len() != 3 || matrix.iter().any(|row| row.len() != channels) {
                return Err(Error::input(format!("the preview map is not one from {channels} channels to 3 colours")));
            }
        }
        if let Some((kind, share)) = self.defaults.motion_share.iter().find(|(_, share)| !(0.0..=1.0).contains(*share))
        {
            return Err(Error::input(format!("motion_share of {} is {share}; 0 to 1 is allowed", kind.name())));
        }
        self.controls.values().try_for_each(ControlConfig::check)
    }

    /// The motion modules' architecture.
    ///
    /// # Errors
    /// When there are none: a bundle of an image model alone makes no clips.
    pub fn motion(&self) -> Result<&MotionConfig> {
        self.unet.motion.as_ref().ok_or_else(|| {
            Error::input(format!("'{}' has no motion module: import the model again with --motion-module", self.name))
        })
    }

    /// Writes `manifest.json` into a bundle's folder, beside and then renamed.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, bundle: &Path) -> Result<()> {
        let path = bundle.join(MANIFEST_FILE);
        let mut text = serde_json::to_string_pretty(self).map_err(|e| Error::failure(e.to_string()))?;
        text.push('\n');
        let file = Unfinished::file(&path).map_err(|e| Error::io(&path, e))?;
        std::fs::write(file.path(), text).and_then(|()| file.finish()).map_err(|e| Error::io(&path, e))
    }
}
