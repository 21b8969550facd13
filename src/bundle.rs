//! What a bundle holds, and which networks a job needs from it.

use std::path::{Path, PathBuf};

use motionclone_onnx::graph::fold::{self, Folded};
use motionclone_onnx::graph::{Element, Forward, Graph, Lowering, write};
use motionclone_onnx::manifest::{MANIFEST_FILE, Manifest, TOKENIZER_FOLDER, WEIGHTS_FILE};
use motionclone_onnx::model::config::ControlKind;
use motionclone_onnx::model::unet3d::{self, UnetShape};
use motionclone_onnx::model::vae::{self, VaeShape};
use motionclone_onnx::model::{clip, sparsectrl};
use motionclone_onnx::weights::WeightIndex;

use crate::error::{Error, Result};
use crate::runtime::library::own_folders;
use crate::settings::Settings;
use crate::tokenizer::Tokenizer;

/// An opened bundle.
pub struct Bundle {
    folder: PathBuf,
    /// What it holds.
    pub manifest: Manifest,
    /// Where its weights lie.
    pub weights: WeightIndex,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
}

/// A network for one job's sizes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NetworkKey {
    /// Prompt to text embeddings.
    TextEncoder,
    /// Image to latents.
    VaeEncoder(VaeShape),
    /// Latents to image.
    VaeDecoder(VaeShape),
    /// Condition images to residuals.
    Control(ControlKind, UnetShape),
    /// Noise prediction.
    Denoiser(UnetShape),
    /// Attention maps of the guided blocks.
    Extractor(UnetShape, Vec<String>),
    /// Noise prediction and the motion loss's gradient, with the values of the forward pass kept or not.
    Guided(UnetShape, Vec<String>, Forward),
}

impl NetworkKey {
    /// A name for files and messages.
    pub fn name(&self) -> String {
        match self {
            Self::TextEncoder => "text_encoder".into(),
            Self::VaeEncoder(_) => "vae_encoder".into(),
            Self::VaeDecoder(_) => "vae_decoder".into(),
            Self::Control(kind, _) => format!("control_{}", kind.name()),
            Self::Denoiser(shape) => with_control("denoiser", shape),
            Self::Extractor(shape, _) => with_control("extractor", shape),
            Self::Guided(shape, ..) => with_control("guided", shape),
        }
    }

    /// Whether the network predicts the noise of many steps.
    pub(crate) fn runs_in_steps(&self) -> bool {
        matches!(self, Self::Denoiser(_) | Self::Guided(..))
    }

    /// Whether the network is a half of the autoencoder, which gives its memory back after the last image.
    pub(crate) fn is_autoencoder(&self) -> bool {
        matches!(self, Self::VaeEncoder(_) | Self::VaeDecoder(_))
    }

    /// Whether the network runs on the CPU, whatever the device: the text encoder, which runs three times a job, would take
    /// half a gigabyte of a GPU to save a tenth of a second.
    pub(crate) fn runs_on_cpu(&self) -> bool {
        *self == Self::TextEncoder
    }
}

fn with_control(name: &str, shape: &UnetShape) -> String {
    shape.control.map_or_else(|| name.into(), |kind| format!("{name}_{}", kind.name()))
}

/// The environment variable that names the bundle to use where none is given.
pub const BUNDLE_VARIABLE: &str = "MOTIONCLONE_BUNDLE";

/// Where the embedded bundle lies, seen from the folder of this library or program.
const EMBEDDED: [&str; 2] = ["motionclone-bundle", "../share/motionclone/bundle"];

/// The bundle for when none is named: that of [`BUNDLE_VARIABLE`], or the small one that comes with the library: the
/// folder `motionclone-bundle` beside it or beside the program, or `share/motionclone/bundle` above.
///
/// # Errors
/// When there is none.
pub fn embedded() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(BUNDLE_VARIABLE) {
        return Ok(path.into());
    }
    let folders = own_folders();
    let places = folders.iter().flat_map(|folder| EMBEDDED.map(|place| folder.join(place)));
    if let Some(path) = places.into_iter().find(|path| path.join(MANIFEST_FILE).is_file()) {
        return std::path::absolute(&path).map_err(|e| Error::io(&path, e));
    }
    let folders: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    Err(Error::input(format!(
        "no bundle was named, and the embedded one, a folder {}, is not in {}; name a bundle, or set {BUNDLE_VARIABLE}",
        EMBEDDED[0],
        folders.join(" or ")
    )))
}

impl Bundle {
    /// Opens a bundle's folder: reads the manifest and the weights' header, not the weights.
    ///
    /// # Errors
    /// When a file is missing or not valid.
    pub fn open(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            return Err(
                Error::input("no bundle there; a bundle is a folder that `motionclone import` makes").with_path(folder)
            );
        }
        let manifest = Manifest::read(folder)?;
        for name in [WEIGHTS_FILE, TOKENIZER_FOLDER] {
            check_inside(folder, name)?;
        }
        let weights = WeightIndex::open(&folder.join(WEIGHTS_FILE))?;
        let tokenizer = Tokenizer::open(&folder.join(TOKENIZER_FOLDER))?;
        if tokenizer.largest_id() >= manifest.text_encoder.vocab_size as i64 {
            return Err(Error::input(format!(
                "the tokenizer has token {}, the text encoder knows {} tokens",
                tokenizer.largest_id(),
                manifest.text_encoder.vocab_size
            ))
            .with_path(folder));
        }
        let folder = std::path::absolute(folder).map_err(|e| Error::io(folder, e))?;
        Ok(Self { folder, manifest, weights, tokenizer })
    }

    /// The bundle's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The sizes of a run's autoencoder.
    pub fn vae_shape(&self, settings: &Settings, lowering: Lowering) -> VaeShape {
        let unit = self.manifest.vae.downscale();
        let (precision, layout) = (lowering.precision(), lowering.layout());
        VaeShape { height: settings.height / unit, width: settings.width / unit, precision, layout }
    }

    /// The sizes of a run's UNet, with the residuals of a control or without.
    pub fn unet_shape(&self, settings: &Settings, control: Option<ControlKind>, lowering: Lowering) -> UnetShape {
        let VaeShape { height, width, precision, layout } = self.vae_shape(settings, lowering);
        UnetShape {
            batch: 1,
            frames: settings.frames,
            height,
            width,
            tokens: self.manifest.text_encoder.max_positions,
            control,
            precision,
            layout,
        }
    }

    /// A network's graph, in the operators of a lowering, whose layout the key's shape has.
    ///
    /// # Errors
    /// When a weight is missing or misshapen.
    pub fn graph(&self, key: &NetworkKey, lowering: Lowering) -> Result<Graph> {
        let (weights, manifest) = (&self.weights, &self.manifest);
        let graph = match key {
            NetworkKey::TextEncoder => clip::text_encoder(weights, &manifest.text_encoder, Element::Float32),
            NetworkKey::VaeEncoder(shape) => vae::encoder(weights, &manifest.vae, shape),
            NetworkKey::VaeDecoder(shape) => vae::decoder(weights, &manifest.vae, shape),
            NetworkKey::Control(kind, shape) => {
                let config = manifest.controls.get(kind).ok_or_else(|| {
                    Error::input(format!("this bundle has no SparseCtrl {}", kind.name())).with_path(&self.folder)
                })?;
                sparsectrl::control(weights, config, *kind, shape)
            }
            NetworkKey::Denoiser(shape) => unet3d::denoiser(weights, &manifest.unet, shape),
            NetworkKey::Extractor(shape, blocks) => unet3d::extractor(weights, &manifest.unet, shape, blocks),
            NetworkKey::Guided(shape, blocks, values) => {
                unet3d::guided(weights, &manifest.unet, shape, blocks, *values)
            }
        }
        .map_err(|e| e.with_path(&self.folder))?;
        lowering.lower(&graph)
    }

    /// A network's ONNX model, whose weights are in `weights.safetensors` beside it.
    ///
    /// # Errors
    /// When a weight is missing or misshapen.
    pub fn model(&self, key: &NetworkKey, lowering: Lowering) -> Result<Vec<u8>> {
        write::to_onnx(&self.graph(key, lowering)?, WEIGHTS_FILE, write::Shapes::Known)
    }

    /// A network's graph as it is loaded, and the tensors that must be given to it besides the weights of the file.
    ///
    /// # Errors
    /// When a weight is missing or misshapen.
    pub fn folded(&self, key: &NetworkKey, lowering: Lowering) -> Result<(Graph, Vec<Folded>)> {
        let graph = self.graph(key, lowering)?;
        if graph.precision == Element::Float16 { fold::weights(&graph) } else { Ok((graph, Vec::new())) }
    }
}

/// Refuses a part of a bundle that is a link to somewhere else: a bundle from a stranger must not make this program
/// read, and show the beginnings of, other files.
fn check_inside(folder: &Path, name: &str) -> Result<()> {
    let real = |path: &Path| path.canonicalize().map_err(|e| Error::io(path, e));
    let path = folder.join(name);
    if real(&path)?.starts_with(real(folder)?) {
        return Ok(());
    }
    Err(Error::input("this part of the bundle is a link that leaves its folder").with_path(&path))
}
