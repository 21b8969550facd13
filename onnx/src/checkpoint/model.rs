//! Finds a whole Stable Diffusion model: a folder in diffusers' layout, or a single file with LDM names.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::de::DeserializeOwned;

use super::config::{SchedulerFile, TextFile, UnetFile, VaeFile, other_prediction, read_json};
use super::names::{Tensors, left_out, of_network};
use super::reader::TensorSet;
use super::{architecture, expected, ldm};
use crate::manifest::ScheduleConfig;
use crate::model::config::{TextConfig, UnetConfig, VaeConfig};
use crate::{Error, Result};

/// File names of weights in a diffusers folder, the preferred ones first.
const WEIGHTS: [&str; 14] = [
    "diffusion_pytorch_model.safetensors",
    "model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.bin",
    "pytorch_model.bin",
    "diffusion_pytorch_model.bin.index.json",
    "pytorch_model.bin.index.json",
    "diffusion_pytorch_model.fp16.safetensors",
    "model.fp16.safetensors",
    "diffusion_pytorch_model.safetensors.index.fp16.json",
    "model.safetensors.index.fp16.json",
    "diffusion_pytorch_model.fp16.bin",
    "pytorch_model.fp16.bin",
];

/// The configuration files of a model, empty where there is none.
#[derive(Default)]
pub struct Configs {
    /// `unet/config.json`
    pub unet: UnetFile,
    /// `vae/config.json`
    pub vae: VaeFile,
    /// `text_encoder/config.json`
    pub text_encoder: TextFile,
    /// `scheduler/scheduler_config.json`
    pub scheduler: SchedulerFile,
}

/// Tensors under bundle names, and what is known about the networks.
pub struct Model {
    /// Tensors of all networks.
    pub tensors: Tensors,
    /// What configuration files say.
    pub configs: Configs,
    /// What was left out, and what was taken in another's place.
    pub notes: Vec<String>,
}

impl Model {
    /// Opens a folder or a single file.
    ///
    /// # Errors
    /// When something cannot be read or is of another architecture.
    pub fn open(path: &Path) -> Result<Self> {
        let metadata = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
        if metadata.is_dir() { Self::open_folder(path) } else { Self::open_file(path) }
    }

    fn open_file(path: &Path) -> Result<Self> {
        let set = Rc::new(TensorSet::open(path)?);
        check_prediction(&set)?;
        let averages = ldm::averages_only(&set).then(|| {
            let name = path.file_name().unwrap_or_default().display();
            format!("{name}: the UNet is there as moving averages (EMA) alone; these are used")
        });
        let left_out = left_out(&set).filter(|_| averages.is_none());
        let notes = averages.into_iter().chain(left_out).collect();
        Ok(Self { tensors: ldm::tensors(&set)?, configs: Configs::default(), notes })
    }

    /// Opens the autoencoder alone: of a file with any naming, of a folder of its own, or of a model's folder.
    ///
    /// # Errors
    /// When something cannot be read or is of another architecture.
    pub fn open_vae(path: &Path) -> Result<Self> {
        let metadata = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
        let mut model = if metadata.is_dir() {
            let inside = path.join("vae");
            let folder = if inside.is_dir() { inside.as_path() } else { path };
            let configs = Configs { vae: optional(&folder.join("config.json"))?, ..Configs::default() };
            Self { configs, ..Self::open_file(&find_weights(folder)?)? }
        } else {
            Self::open_file(path)?
        };
        model.tensors.retain(|name, _| name.starts_with("vae."));
        Ok(model)
    }

    fn open_folder(path: &Path) -> Result<Self> {
        if path.join("text_encoder_2").is_dir() {
            return Err(Error::input("this is a Stable Diffusion XL (or later) model; only 1.x models work here")
                .with_path(path));
        }
        if path.join("transformer").is_dir() {
            return Err(Error::input(
                "this is a Stable Diffusion 3 or Flux model; only Stable Diffusion 1.x models work here",
            )
            .with_path(path));
        }
        let (mut tensors, mut notes) = (Tensors::new(), Vec::new());
        for network in ["unet", "vae", "text_encoder"] {
            let folder = path.join(network);
            let file = find_weights(&folder)?;
            let set = if file.extension().is_some_and(|e| e == "json") {
                TensorSet::open_index(&file)?
            } else {
                TensorSet::open(&file)?
            };
            if let Some(what) = ldm::other_architecture(&set) {
                return Err(Error::input(format!(
                    "this is a part of {what}; only Stable Diffusion 1.x models work here"
                ))
                .with_path(&file));
            }
            check_prediction(&set)?;
            notes.extend(left_out(&set));
            tensors.extend(of_network(&Rc::new(set), network)?);
        }
        let configs = Configs {
            unet: optional(&path.join("unet/config.json"))?,
            vae: optional(&path.join("vae/config.json"))?,
            text_encoder: optional(&path.join("text_encoder/config.json"))?,
            scheduler: optional(&path.join(SCHEDULER))?,
        };
        Ok(Self { tensors, configs, notes })
    }

    /// The networks that it has, by their names in bundles.
    pub fn networks(&self) -> Vec<&'static str> {
        let has = |network: &str| self.tensors.keys().any(|name| name.split('.').next() == Some(network));
        ["unet", "vae", "text_encoder"].into_iter().filter(|network| has(network)).collect()
    }

    /// Refuses a model that was trained for another noise schedule than `schedule`.
    ///
    /// # Errors
    /// When its folder says so.
    pub fn check_schedule(&self, schedule: &ScheduleConfig, path: &Path) -> Result<()> {
        self.configs.scheduler.check(schedule, &path.join(SCHEDULER))
    }

    /// The UNet, if there is one: its architecture, after checking that it is complete.
    ///
    /// # Errors
    /// When it is not complete.
    pub fn unet(&self, configs: &Configs, path: &Path) -> Result<Option<UnetConfig>> {
        self.network("unet", path, |tensors| {
            let config = architecture::unet(tensors, &configs.unet, path)?;
            let shapes = expected::unet(&config);
            Ok((config, shapes))
        })
    }

    /// The autoencoder, if there is one.
    ///
    /// # Errors
    /// When it is not complete.
    pub fn vae(&self, configs: &Configs, path: &Path) -> Result<Option<VaeConfig>> {
        self.network("vae", path, |tensors| {
            let config = architecture::vae(tensors, &configs.vae, path)?;
            let shapes = expected::vae(&config);
            Ok((config, shapes))
        })
    }

    /// The text encoder, if there is one.
    ///
    /// # Errors
    /// When it is not complete.
    pub fn text_encoder(&self, configs: &Configs, path: &Path) -> Result<Option<TextConfig>> {
        self.network("text_encoder", path, |tensors| {
            let config = architecture::text_encoder(tensors, &configs.text_encoder, path)?;
            let shapes = expected::text_encoder(&config);
            Ok((config, shapes))
        })
    }

    fn network<T>(
        &self,
        network: &str,
        path: &Path,
        architecture: impl Fn(&Tensors) -> Result<(T, expected::Shapes)>,
    ) -> Result<Option<T>> {
        let prefix = format!("{network}.");
        let mut own = self.tensors.range(prefix.clone()..).take_while(|(name, _)| name.starts_with(&prefix)).peekable();
        if own.peek().is_none() {
            return Ok(None);
        }
        let (config, shapes) = architecture(&self.tensors)?;
        expected::compare(&network.replace('_', " "), &shapes, own, path)?;
        Ok(Some(config))
    }
}

const SCHEDULER: &str = "scheduler/scheduler_config.json";

/// Refuses a file that says of itself that it does not predict the noise: by its metadata (modelspec, and what trainers
/// write), or by the empty tensors that some mark it with.
fn check_prediction(set: &TensorSet) -> Result<()> {
    let told = |key: &str| set.metadata(key).map(str::to_ascii_lowercase);
    let prediction = told("modelspec.prediction_type").filter(|told| !told.is_empty() && !told.starts_with("eps"));
    let trained = told("ss_v_parameterization").filter(|told| told == "true").map(|_| "v".to_string());
    let marked = [("v_pred", "v"), ("ztsnr", "zero terminal SNR")];
    let marked = marked.iter().find(|(name, _)| set.get(name).is_some()).map(|(_, what)| what.to_string());
    match prediction.or(trained).or(marked) {
        Some(what) => Err(other_prediction(&what, set.path())),
        None => Ok(()),
    }
}

/// The file with the weights in a folder of diffusers' layout.
///
/// # Errors
/// When there is none.
pub fn find_weights(folder: &Path) -> Result<PathBuf> {
    WEIGHTS.iter().map(|name| folder.join(name)).find(|path| path.is_file()).ok_or_else(|| {
        Error::input("no weights in this folder (diffusion_pytorch_model or model, .safetensors or .bin)")
            .with_path(folder)
    })
}

/// A configuration file, or the defaults when it is not there.
fn optional<T: DeserializeOwned + Default>(path: &Path) -> Result<T> {
    if path.exists() { read_json(path) } else { Ok(T::default()) }
}
