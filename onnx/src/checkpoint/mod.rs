//! Reads checkpoints in every published format and merges them into one bundle.
//!
//! [`import`] tells it in order. A checkpoint of any format is a `reader::TensorSet` whose tensors get one name each
//! (`names`, `ldm`); names and shapes give the architecture (`architecture`), and the architecture says which
//! tensors there must be (`expected`). From all files together a plan grows (`merge`): which tensor each weight is and
//! what is added to it (`lora`, `addition`). Only then are tensors read, merged and written, one at a time (`write`).

mod addition;
mod architecture;
mod config;
mod convert;
mod expected;
mod formats;
mod ldm;
mod lora;
mod merge;
mod model;
mod names;
mod pickle;
mod reader;
#[cfg(test)]
mod tests;
mod tokenizer;
mod torch_legacy;
mod torch_zip;
mod write;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use self::config::{ControlFile, ModelFile, MotionFile};
pub use self::merge::Precision;
use self::merge::{Plan, Weight};
use self::model::Model;
use self::names::{Tensors, of_network};
use self::reader::TensorSet;
use crate::manifest::{
    Defaults, FORMAT, MANIFEST_FILE, Manifest, ScheduleConfig, Source, TOKENIZER_FOLDER, WEIGHTS_FILE,
};
use crate::model::config::{ControlConfig, ControlKind, UnetConfig};
use crate::owned::Kind;
use crate::unfinished::{self, UnfinishedFolder};
use crate::{Error, Result};

/// What to import.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Stable Diffusion 1.x: a folder in diffusers' layout, or a single file.
    pub base: PathBuf,
    /// Folder with `vocab.json` and `merges.txt`; unless given, looked for in or beside the base, else CLIP's.
    pub tokenizer: Option<PathBuf>,
    /// AnimateDiff's motion module.
    pub motion_module: Option<PathBuf>,
    /// A model whose UNet, VAE and text encoder, as far as it has them, replace the base's: a file or a folder.
    pub dreambooth: Option<PathBuf>,
    /// An autoencoder alone, which replaces the base's and the DreamBooth model's: a file or a folder.
    pub vae: Option<PathBuf>,
    /// The domain adapter and its scale (1.0).
    pub adapter: Option<(PathBuf, f32)>,
    /// LoRAs for the image model, each with its scale.
    pub loras: Vec<(PathBuf, f32)>,
    /// LoRAs for the motion module, each with its scale.
    pub motion_loras: Vec<(PathBuf, f32)>,
    /// SparseCtrl for pictures.
    pub sparsectrl_rgb: Option<PathBuf>,
    /// SparseCtrl for sketches.
    pub sparsectrl_scribble: Option<PathBuf>,
    /// AnimateDiff's model config (`unet_additional_kwargs`, `noise_scheduler_kwargs`), YAML or JSON.
    pub model_config: Option<PathBuf>,
    /// SparseCtrl's config (`controlnet_additional_kwargs`, or entries `rgb` and `scribble`), YAML or JSON.
    pub sparsectrl_config: Option<PathBuf>,
    /// What a run of this bundle uses where the user says nothing: any of [`Defaults`]' fields, YAML or JSON; the
    /// published values for the others.
    pub defaults: Option<PathBuf>,
    /// The words that the model knows, where these are few: a text file, with white space between them.
    pub vocabulary: Option<PathBuf>,
    /// The bundle's name; that of the model's file unless given.
    pub name: Option<String>,
    /// Element type of the weights.
    pub precision: Precision,
    /// The bundle's folder.
    pub out: PathBuf,
}

/// How far an import is.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// The weight that comes next.
    pub what: &'a str,
    /// Bytes written.
    pub done: u64,
    /// Bytes of all weights.
    pub total: u64,
}

/// An import that went well.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The bundle's manifest.
    pub manifest: Manifest,
    /// What was taken from which file, and what was left out.
    pub notes: Vec<String>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Merges checkpoints into the bundle `options.out`: motion module, DreamBooth, LoRAs, adapter, motion LoRAs, in this
/// order. A bundle that is there is replaced once the new one is complete; after an error nothing is left behind.
///
/// # Errors
/// When a file cannot be read or is not what it should be, tensors are missing or unexpected, the bundle cannot be
/// written, or `progress` breaks off.
pub fn import(options: &ImportOptions, progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>) -> Result<Imported> {
    let bundle = UnfinishedFolder::over(&options.out, Kind::Bundle, unmarked(&options.out))?;
    let tokenizer = tokenizer::find(options.tokenizer.as_deref(), &options.base)?;
    let Planned { plan, mut manifest, notes, mut warnings } = plan(options)?;
    unfinished::check_room(bundle.path(), write::size(&plan, options.precision)?)
        .map_err(|e| e.with_path(&options.out))?;
    tokenizer.put(bundle.path(), manifest.text_encoder.vocab_size).map_err(|e| e.with_path(&options.base))?;
    let (fingerprint, damaged) = write::weights(&plan, options.precision, &bundle.path().join(WEIGHTS_FILE), progress)?;
    warnings.extend(damaged);
    manifest.fingerprint = fingerprint;
    manifest.write(bundle.path())?;
    // The preview map is put into the manifest of the finished bundle.
    bundle.finish(&[MANIFEST_FILE])?;
    Ok(Imported { manifest, notes, warnings })
}

/// The files of a bundle that was made by a release without markers: those that its manifest stands for.
fn unmarked(bundle: &Path) -> Vec<PathBuf> {
    let names = [MANIFEST_FILE, WEIGHTS_FILE].map(PathBuf::from);
    let tokenizer = ["vocab.json", "merges.txt"].map(|name| Path::new(TOKENIZER_FOLDER).join(name));
    match Manifest::read(bundle) {
        Ok(_) => names.into_iter().chain(tokenizer).collect(),
        Err(_) => Vec::new(),
    }
}

/// A bundle of which nothing is read or written yet but names and shapes.
struct Planned {
    plan: Plan,
    /// The manifest, but for the fingerprint.
    manifest: Manifest,
    notes: Vec<String>,
    warnings: Vec<String>,
}

/// Opens all files, and settles every weight and the architecture.
fn plan(options: &ImportOptions) -> Result<Planned> {
    let mut warnings = Vec::new();
    let mut sources = vec![source("base", &options.base, None)];
    let mut taken = vec!["unet", "vae", "text_encoder"];
    let model_file: ModelFile = read_config(options.model_config.as_deref())?;
    let control_file: ControlFile = read_config(options.sparsectrl_config.as_deref())?;

    // The image model: the base, then what the DreamBooth model replaces.
    let base = &options.base;
    let model = Model::open(base)?;
    let lacks = |what: &str| Error::input(format!("the base has no {what}")).with_path(base);
    let mut unet = model.unet(&model.configs, base)?.ok_or_else(|| lacks("UNet"))?;
    let mut vae = model.vae(&model.configs, base)?.ok_or_else(|| lacks("VAE"))?;
    let mut text_encoder = model.text_encoder(&model.configs, base)?.ok_or_else(|| lacks("text encoder"))?;
    let schedule = options
        .model_config
        .as_ref()
        .map_or_else(|| Ok(ScheduleConfig::default()), |path| model_file.noise_scheduler_kwargs.schedule(path))?;
    model.check_schedule(&schedule, base)?;
    let Model { mut tensors, configs, mut notes } = model;
    let mut replaced = Vec::new();
    if let Some(path) = &options.dreambooth {
        let model = Model::open(path)?;
        model.check_schedule(&schedule, path)?;
        unet = model.unet(&configs, path)?.unwrap_or(unet);
        vae = model.vae(&configs, path)?.unwrap_or(vae);
        text_encoder = model.text_encoder(&configs, path)?.unwrap_or(text_encoder);
        let networks = model.networks();
        taken.retain(|network| !networks.contains(network));
        notes.extend(model.notes);
        replaced = networks;
        tensors.extend(model.tensors);
    }
    if let Some(path) = &options.vae {
        let model = Model::open_vae(path)?;
        vae = model
            .vae(if path.is_dir() { &model.configs } else { &configs }, path)?
            .ok_or_else(|| Error::input("this file has no VAE").with_path(path))?;
        for networks in [&mut taken, &mut replaced] {
            networks.retain(|network| *network != "vae");
        }
        notes.push(said("VAE file", path, &["vae"]));
        tensors.retain(|name, _| !name.starts_with("vae."));
        tensors.extend(model.tensors);
    }
    if let Some(path) = &options.dreambooth {
        notes.insert(0, said("dreambooth", path, &replaced));
    }
    notes.insert(0, said("base", base, &taken));
    sources[0].networks = taken.into_iter().map(String::from).collect();
    if unet.cross_attention_dim != text_encoder.hidden_size || unet.in_channels != vae.latent_channels {
        return Err(Error::input(format!(
            "its networks do not fit: the UNet takes text of width {} and {} latent channels, the text encoder has width {} \
             and the VAE {} channels",
            unet.cross_attention_dim, unet.in_channels, text_encoder.hidden_size, vae.latent_channels
        ))
        .with_path(base));
    }

    if let Some(path) = &options.motion_module {
        sources.push(source("motion-module", path, None));
        let file = &model_file.unet_additional_kwargs;
        tensors.extend(motion_module(path, file, &mut unet, &mut warnings)?);
    }
    if unet.motion.is_none() {
        warnings.push(
            "the bundle has no motion module, without which it makes no clips; name one with --motion-module".into(),
        );
    }
    if let Some(path) = &options.model_config {
        sources.push(source("model-config", path, None));
        model_file.unet_additional_kwargs.check(path)?;
    }
    if let Some(path) = &options.dreambooth {
        let networks = replaced.into_iter().map(String::from).collect();
        sources.push(Source { networks, ..source("dreambooth", path, None) });
    }
    if let Some(path) = &options.vae {
        sources.push(Source { networks: vec!["vae".into()], ..source("vae", path, None) });
    }

    let mut plan: Plan = tensors.into_iter().map(|(name, tensor)| (name, Weight::new(tensor))).collect();
    merge_low_ranks(options, &mut plan, &mut sources)?;

    let mut controls = BTreeMap::new();
    for (kind, path, file) in [
        (ControlKind::Rgb, &options.sparsectrl_rgb, &control_file.rgb),
        (ControlKind::Scribble, &options.sparsectrl_scribble, &control_file.scribble),
    ] {
        let Some(path) = path else { continue };
        sources.push(source(&format!("sparsectrl-{}", kind.name()), path, None));
        let file = file.as_ref().or(control_file.controlnet_additional_kwargs.as_ref()).cloned().unwrap_or_default();
        file.check(options.sparsectrl_config.as_deref().unwrap_or(path))?;
        let (config, tensors) = control(path, kind, &unet, &file, &mut warnings)?;
        controls.insert(kind, config);
        plan.extend(tensors.into_iter().map(|(name, tensor)| (name, Weight::new(tensor))));
    }

    let manifest = Manifest {
        format: FORMAT,
        name: options.name.clone().unwrap_or_else(|| {
            options.dreambooth.as_deref().unwrap_or(base).file_stem().unwrap_or_default().display().to_string()
        }),
        fingerprint: String::new(),
        sources,
        text_encoder,
        vae,
        unet,
        adapter: options.adapter.is_some(),
        controls,
        schedule,
        defaults: options.defaults.as_deref().map_or_else(|| Ok(Defaults::default()), config::read_defaults)?,
        vocabulary: options.vocabulary.as_deref().map_or_else(|| Ok(Vec::new()), config::read_words)?,
        preview: None,
    };
    Ok(Planned { plan, manifest, notes, warnings })
}

fn source(role: &str, path: &Path, scale: Option<f32>) -> Source {
    let file = path.file_name().unwrap_or(path.as_os_str()).display().to_string();
    Source { role: role.into(), file, scale, networks: Vec::new() }
}

/// A sentence about the networks that were taken from a file.
fn said(role: &str, path: &Path, networks: &[&str]) -> String {
    let names: Vec<&str> = networks
        .iter()
        .map(|network| match *network {
            "unet" => "UNet",
            "vae" => "VAE",
            _ => "text encoder",
        })
        .collect();
    let names = if names.is_empty() { "nothing, as other files replace it".into() } else { names.join(", ") };
    format!("from the {role} {}: {names}", path.file_name().unwrap_or(path.as_os_str()).display())
}

fn read_config<T: serde::de::DeserializeOwned + Default>(path: Option<&Path>) -> Result<T> {
    path.map_or_else(|| Ok(T::default()), config::read_yaml)
}

/// Reads a motion module and puts its architecture into the UNet's.
fn motion_module(path: &Path, file: &MotionFile, unet: &mut UnetConfig, warnings: &mut Vec<String>) -> Result<Tensors> {
    let mut file = file.clone();
    let weights = if path.is_dir() { model::find_weights(path)? } else { path.to_path_buf() };
    if path.is_dir() {
        let told: config::AdapterFile = config::read_json(&path.join("config.json"))?;
        told.check(&path.join("config.json"))?;
        file.motion_module_kwargs.num_attention_heads =
            file.motion_module_kwargs.num_attention_heads.or(told.motion_num_attention_heads);
    }
    let (path, file) = (weights.as_path(), &file);
    let set = Rc::new(TensorSet::open(path)?);
    let tensors = of_network(&set, "unet")?;
    let table = position_table(&set, file, warnings)?;
    unet.motion = architecture::motion(&tensors, "unet", &unet.block_out_channels, file, table, path)?;
    if unet.motion.is_none() {
        return Err(
            Error::input("this is no motion module: it has no 'down_blocks.….motion_modules.…'").with_path(path)
        );
    }
    expected::compare("motion module", &expected::motion(unet), &tensors, path)?;
    Ok(tensors)
}

/// The length of a file's position tables; where a config says otherwise, the tables are right.
fn position_table(set: &TensorSet, file: &MotionFile, warnings: &mut Vec<String>) -> Result<Option<usize>> {
    let table = architecture::position_table(set)?;
    let told = file.motion_module_kwargs.temporal_position_encoding_max_len;
    if let (Some(table), Some(told)) = (table, told)
        && table != told
    {
        warnings.push(format!(
            "{}: its position table has {table} frames, the config says {told}; {table} is used",
            set.path().display()
        ));
    }
    Ok(table)
}

fn control(
    path: &Path,
    kind: ControlKind,
    unet: &UnetConfig,
    file: &MotionFile,
    warnings: &mut Vec<String>,
) -> Result<(ControlConfig, Tensors)> {
    let set = Rc::new(TensorSet::open(path)?);
    let prefix = format!("control_{}", kind.name());
    let tensors = of_network(&set, &prefix)?;
    let table = position_table(&set, file, warnings)?;
    let config = architecture::control(&tensors, &prefix, kind, unet, file, table, path)?;
    Ok((config, tensors))
}

/// LoRAs, then the adapter, then motion LoRAs. The adapter does not change weights but adds their changed variants.
fn merge_low_ranks(options: &ImportOptions, plan: &mut Plan, sources: &mut Vec<Source>) -> Result<()> {
    for (path, scale) in &options.loras {
        sources.push(source("lora", path, Some(*scale)));
        for (name, addition) in lora::open(path, *scale, plan)? {
            plan.entry(name).and_modify(|weight| weight.additions.push(addition));
        }
    }
    if let Some((path, scale)) = &options.adapter {
        sources.push(source("adapter", path, Some(*scale)));
        for (name, addition) in lora::open(path, *scale, plan)? {
            let Some(part) = name.strip_prefix("unet.") else {
                return Err(Error::input(format!("an adapter changes the UNet only, this one changes '{name}'"))
                    .with_path(path));
            };
            let mut weight = plan[&name].clone();
            weight.additions.push(addition);
            plan.insert(format!("adapter.{part}"), weight);
        }
    }
    for (path, scale) in &options.motion_loras {
        sources.push(source("motion-lora", path, Some(*scale)));
        for (name, addition) in lora::open(path, *scale, plan)? {
            if !name.contains(".motion_modules.") {
                return Err(Error::input(format!(
                    "a motion LoRA changes motion modules only, this one changes '{name}'"
                ))
                .with_path(path));
            }
            if let Some(weight) = plan.get_mut(&name.replacen("unet.", "adapter.", 1)) {
                weight.additions.push(addition.clone());
            }
            plan.entry(name).and_modify(|weight| weight.additions.push(addition));
        }
    }
    Ok(())
}
