//! The configuration files that come with checkpoints: diffusers' `config.json`s, AnimateDiff's model config and
//! SparseCtrl's, as YAML or JSON. Only what tensor shapes do not tell is read.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::manifest::{BetaSchedule, Defaults, ScheduleConfig};
use crate::{Error, Result};

/// Longest configuration file that is read; the index of a checkpoint in parts is the longest kind.
const MAX_FILE: u64 = 16 << 20;

/// One number for all levels, or one a level.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum PerLevel {
    /// The same everywhere.
    One(usize),
    /// Finest first.
    Each(Vec<usize>),
}

/// `unet/config.json`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct UnetFile {
    /// Heads, despite the name.
    pub attention_head_dim: Option<PerLevel>,
    /// Heads, in later files.
    pub num_attention_heads: Option<PerLevel>,
    /// Groups of the group norms.
    pub norm_num_groups: Option<usize>,
    /// Epsilon of the group norms.
    pub norm_eps: Option<f32>,
    /// Cosines first in the time embedding.
    pub flip_sin_to_cos: Option<bool>,
    /// Shift of its frequencies.
    pub freq_shift: Option<f32>,
    /// Activation, always SiLU.
    pub act_fn: Option<String>,
    /// Linear instead of 1×1 convolutions around transformers (Stable Diffusion 2).
    pub use_linear_projection: Option<bool>,
}

/// `vae/config.json`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct VaeFile {
    /// Groups of the group norms.
    pub norm_num_groups: Option<usize>,
    /// Factor on latents.
    pub scaling_factor: Option<f32>,
    /// Activation, always SiLU.
    pub act_fn: Option<String>,
}

/// `text_encoder/config.json`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct TextFile {
    /// Heads.
    pub num_attention_heads: Option<usize>,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: Option<f32>,
    /// Activation.
    pub hidden_act: Option<String>,
}

/// `scheduler/scheduler_config.json`
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct SchedulerFile {
    /// The network's output: the noise (`epsilon`) or another.
    pub prediction_type: Option<String>,
    /// Whether β are rescaled so that the last step is noise alone.
    pub rescale_betas_zero_snr: Option<bool>,
    /// β step by step.
    pub trained_betas: Option<Vec<f64>>,
    /// First and last β, training steps and the way between. Motion modules are trained with a way of their own.
    #[serde(flatten)]
    pub schedule: ScheduleFile,
}

/// `config.json` of a motion adapter in diffusers' layout.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct AdapterFile {
    /// Heads.
    pub motion_num_attention_heads: Option<usize>,
    /// Groups of the group norms, always 32.
    pub motion_norm_num_groups: Option<usize>,
}

impl AdapterFile {
    /// Refuses what the graphs do not compute.
    ///
    /// # Errors
    /// When its norms have other groups.
    pub fn check(&self, path: &Path) -> Result<()> {
        match self.motion_norm_num_groups {
            None | Some(32) => Ok(()),
            Some(groups) => {
                Err(Error::input(format!("motion_norm_num_groups is {groups}, only 32 is supported")).with_path(path))
            }
        }
    }
}

/// AnimateDiff's model config.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ModelFile {
    /// About the motion modules.
    pub unet_additional_kwargs: MotionFile,
    /// About the noise schedule.
    pub noise_scheduler_kwargs: ScheduleFile,
}

/// A SparseCtrl's config: the published one has its entries behind `controlnet_additional_kwargs`; two may share a file
/// as `rgb` and `scribble`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ControlFile {
    /// The entries, of either kind.
    pub controlnet_additional_kwargs: Option<MotionFile>,
    /// The entries of the rgb encoder.
    pub rgb: Option<MotionFile>,
    /// The entries of the scribble encoder.
    pub scribble: Option<MotionFile>,
}

/// The entries about motion modules, and those of a SparseCtrl.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub struct MotionFile {
    /// Group norms a frame (true in v2 and v3) or over all frames.
    pub use_inflated_groupnorm: Option<bool>,
    /// Always `Vanilla`.
    pub motion_module_type: Option<String>,
    /// Attention across frames inside the image layers, never used.
    pub unet_use_cross_frame_attention: Option<bool>,
    /// Attention across time inside the image layers, never used.
    pub unet_use_temporal_attention: Option<bool>,
    /// About one motion module.
    pub motion_module_kwargs: MotionModuleFile,
    /// SparseCtrl: whether the noisy latents are left out.
    pub set_noisy_sample_input_to_zero: Option<bool>,
    /// SparseCtrl: whether a mask channel is appended.
    pub concate_conditioning_mask: Option<bool>,
    /// SparseCtrl: channels of the condition.
    pub conditioning_channels: Option<usize>,
    /// SparseCtrl: one convolution instead of a stack.
    pub use_simplified_condition_embedding: Option<bool>,
}

/// The entries about one motion module.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub struct MotionModuleFile {
    /// Heads.
    pub num_attention_heads: Option<usize>,
    /// Always `Temporal_Self`.
    pub attention_block_types: Option<Vec<String>>,
    /// Whether positions are encoded, always.
    pub temporal_position_encoding: Option<bool>,
    /// Rows of the position table.
    pub temporal_position_encoding_max_len: Option<usize>,
    /// Always 1.
    pub temporal_attention_dim_div: Option<usize>,
}

/// The entries about the noise schedule.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ScheduleFile {
    /// Training steps.
    pub num_train_timesteps: Option<usize>,
    /// First β.
    pub beta_start: Option<f64>,
    /// Last β.
    pub beta_end: Option<f64>,
    /// `linear` or `scaled_linear`.
    pub beta_schedule: Option<String>,
}

/// Reads a JSON file of at most 16 MiB.
///
/// # Errors
/// When it cannot be read or has other content.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = read_text(path)?;
    serde_json::from_str(&text).map_err(|e| Error::input(format!("not a valid configuration: {e}")).with_path(path))
}

/// Reads a YAML file of at most 16 MiB; JSON is YAML too.
///
/// # Errors
/// When it cannot be read or has other content.
pub fn read_yaml<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = read_text(path)?;
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(&text)
            .map_err(|e| Error::input(format!("not a valid configuration: {e}")).with_path(path));
    }
    serde_saphyr::from_str(&text).map_err(|e| {
        let message = e.to_string();
        let line = message.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().to_string();
        Error::input(format!("not a valid configuration: {line}")).with_path(path)
    })
}

/// A bundle's defaults. A name that is none of them is a mistake, not something to pass over.
pub fn read_defaults(path: &Path) -> Result<Defaults> {
    let known = serde_json::to_value(Defaults::default()).map_err(|e| Error::input(e.to_string()))?;
    let given: BTreeMap<String, serde_json::Value> = read_yaml(path)?;
    let known: Vec<&String> = known.as_object().into_iter().flat_map(|fields| fields.keys()).collect();
    if let Some(name) = given.keys().find(|name| !known.contains(name)) {
        let known: Vec<&str> = known.iter().map(|name| name.as_str()).collect();
        return Err(
            Error::input(format!("{name} is no setting with a default; they are {}", known.join(", "))).with_path(path)
        );
    }
    read_yaml(path)
}

/// The words of a text file, in lower case, each once.
pub fn read_words(path: &Path) -> Result<Vec<String>> {
    let mut words: Vec<String> = Vec::new();
    for word in read_text(path)?.split_whitespace().map(str::to_lowercase) {
        if !words.contains(&word) {
            words.push(word);
        }
    }
    Ok(words)
}

fn read_text(path: &Path) -> Result<String> {
    let size = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
    if size > MAX_FILE {
        return Err(
            Error::input(format!("a configuration has at most {MAX_FILE} bytes, this has {size}")).with_path(path)
        );
    }
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    String::from_utf8(bytes).map_err(|_| Error::input("not a text file").with_path(path))
}

impl MotionFile {
    /// Refuses what the graphs do not compute.
    ///
    /// # Errors
    /// When an entry asks for another kind of motion module.
    pub fn check(&self, path: &Path) -> Result<()> {
        let refuse = |entry: &str, value: &dyn std::fmt::Debug, allowed: &str| {
            Err(Error::input(format!("{entry} is {value:?}, only {allowed} is supported")).with_path(path))
        };
        let module = &self.motion_module_kwargs;
        match self.motion_module_type.as_deref() {
            None | Some("Vanilla") => {}
            Some(other) => return refuse("motion_module_type", &other, "\"Vanilla\""),
        }
        let types = module.attention_block_types.iter().flatten();
        if let Some(other) = types.into_iter().find(|t| *t != "Temporal_Self") {
            return refuse("attention_block_types", other, "\"Temporal_Self\"");
        }
        if module.temporal_position_encoding == Some(false) {
            return refuse("temporal_position_encoding", &false, "true");
        }
        if module.temporal_attention_dim_div.is_some_and(|div| div != 1) {
            return refuse("temporal_attention_dim_div", &module.temporal_attention_dim_div, "1");
        }
        if self.use_inflated_groupnorm == Some(false) {
            return refuse("use_inflated_groupnorm", &false, "true (AnimateDiff v2 and later)");
        }
        for (entry, value) in [
            ("unet_use_cross_frame_attention", self.unet_use_cross_frame_attention),
            ("unet_use_temporal_attention", self.unet_use_temporal_attention),
        ] {
            if value == Some(true) {
                return refuse(entry, &true, "false");
            }
        }
        for (entry, value) in [
            ("set_noisy_sample_input_to_zero", self.set_noisy_sample_input_to_zero),
            ("concate_conditioning_mask", self.concate_conditioning_mask),
        ] {
            if value == Some(false) {
                return refuse(entry, &false, "true");
            }
        }
        Ok(())
    }
}

impl SchedulerFile {
    /// Refuses what the sampler does not compute: only noise is predicted, over the bundle's schedule.
    ///
    /// # Errors
    /// When the model was trained for another prediction or other β.
    pub fn check(&self, wanted: &ScheduleConfig, path: &Path) -> Result<()> {
        match self.prediction_type.as_deref() {
            None | Some("epsilon") => {}
            Some(other) => return Err(other_prediction(other, path)),
        }
        // Refuses another kind of schedule, too.
        let told = self.schedule.schedule(path)?;
        let (steps, betas) = (told.train_steps, (told.beta_start, told.beta_end));
        let differs = |told: Option<f64>, wanted: f64| told.is_some_and(|told| (told - wanted).abs() > 1e-9);
        let other = differs(self.schedule.beta_start, wanted.beta_start)
            || differs(self.schedule.beta_end, wanted.beta_end)
            || self.schedule.num_train_timesteps.is_some_and(|steps| steps != wanted.train_steps);
        let message = if self.rescale_betas_zero_snr == Some(true) {
            "rescale_betas_zero_snr: the model was trained down to noise alone (zero terminal SNR), which is not supported"
                .to_string()
        } else if self.trained_betas.is_some() {
            "trained_betas: a schedule given step by step is not supported".to_string()
        } else if other {
            format!(
                "the model was trained with betas from {} to {} over {steps} steps, the bundle's go from {} to {} over {}; \
                 say which are right with --model-config (noise_scheduler_kwargs)",
                betas.0, betas.1, wanted.beta_start, wanted.beta_end, wanted.train_steps
            )
        } else {
            return Ok(());
        };
        Err(Error::input(message).with_path(path))
    }
}

/// The refusal of a model that predicts something other than the noise.
pub fn other_prediction(what: &str, path: &Path) -> Error {
    Error::input(format!(
        "the model's prediction type is {what}; only models that predict the noise (epsilon) are supported: with another, \
         the clip would be damaged"
    ))
    .with_path(path)
}

impl ScheduleFile {
    /// The noise schedule, with AnimateDiff's values where the file says nothing.
    ///
    /// # Errors
    /// When a value is out of range or the kind of schedule unknown.
    pub fn schedule(&self, path: &Path) -> Result<ScheduleConfig> {
        let default = ScheduleConfig::default();
        let beta_schedule = match self.beta_schedule.as_deref() {
            None => default.beta_schedule,
            Some("linear") => BetaSchedule::Linear,
            Some("scaled_linear") => BetaSchedule::ScaledLinear,
            Some(other) => {
                return Err(Error::input(format!(
                    "beta_schedule is '{other}', linear and scaled_linear are supported"
                ))
                .with_path(path));
            }
        };
        let schedule = ScheduleConfig {
            train_steps: self.num_train_timesteps.unwrap_or(default.train_steps),
            beta_start: self.beta_start.unwrap_or(default.beta_start),
            beta_end: self.beta_end.unwrap_or(default.beta_end),
            beta_schedule,
        };
        let in_range = schedule.beta_start > 0.0 && schedule.beta_start <= schedule.beta_end && schedule.beta_end < 1.0;
        if !in_range || !(2..=100_000).contains(&schedule.train_steps) {
            return Err(Error::input(format!(
                "betas from {} to {} over {} steps are no noise schedule",
                schedule.beta_start, schedule.beta_end, schedule.train_steps
            ))
            .with_path(path));
        }
        Ok(schedule)
    }
}
