//! The networks of a job: which ones, with which shapes, and when each is loaded.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use motionclone_onnx::graph::fold::{self, Folded};
use motionclone_onnx::graph::memory::{self, Memory};
use motionclone_onnx::graph::{Element, Forward, Graph, Lowering, write};
use motionclone_onnx::manifest::{Manifest, WEIGHTS_FILE};
use motionclone_onnx::model::config::ControlKind;
use motionclone_onnx::model::unet3d::{self, UnetShape};
use motionclone_onnx::model::vae::{self, VaeShape};
use motionclone_onnx::model::{clip, sparsectrl};

use crate::bundle::Bundle;
use crate::error::{Error, Result};
use crate::motion::guided_maps;
use crate::runtime::RunSettings;
use crate::settings::Settings;

/// A network with its shapes.
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
    /// Noise prediction, attention maps of the guided blocks, and the motion loss's gradient, with the activations of the
    /// forward pass kept or computed again.
    Guided(UnetShape, Vec<String>, Forward),
}

impl NetworkKey {
    /// A name for files and messages.
    pub fn name(&self) -> String {
        let with_control = |name: &str, shape: &UnetShape| {
            shape.control.map_or_else(|| name.into(), |kind| format!("{name}_{}", kind.name()))
        };
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

    /// Runs in every step, with inputs and outputs that stay in place.
    pub(crate) fn runs_in_steps(&self) -> bool {
        matches!(self, Self::Denoiser(_) | Self::Guided(..))
    }

    /// Half of the autoencoder, which gives its memory back after the last image.
    pub(crate) fn is_autoencoder(&self) -> bool {
        matches!(self, Self::VaeEncoder(_) | Self::VaeDecoder(_))
    }

    /// Runs on the CPU, whatever the device: the text encoder, which runs three times a job, would take half a gigabyte of
    /// a GPU to save a tenth of a second.
    pub(crate) fn runs_on_cpu(&self) -> bool {
        *self == Self::TextEncoder
    }

    /// The graph in the operators of a lowering, whose layout the key's shape has.
    ///
    /// # Errors
    /// When a weight is missing or misshapen.
    pub fn graph(&self, bundle: &Bundle, lowering: Lowering) -> Result<Graph> {
        let (weights, manifest) = (&bundle.weights, &bundle.manifest);
        let graph = match self {
            Self::TextEncoder => clip::text_encoder(weights, &manifest.text_encoder, Element::Float32),
            Self::VaeEncoder(shape) => vae::encoder(weights, &manifest.vae, shape),
            Self::VaeDecoder(shape) => vae::decoder(weights, &manifest.vae, shape),
            Self::Control(kind, shape) => {
                let missing = || Error::input(format!("this bundle has no SparseCtrl {}", kind.name()));
                let config = manifest.controls.get(kind).ok_or_else(missing);
                config.and_then(|config| sparsectrl::control(weights, config, *kind, shape))
            }
            Self::Denoiser(shape) => unet3d::denoiser(weights, &manifest.unet, shape),
            Self::Extractor(shape, blocks) => unet3d::extractor(weights, &manifest.unet, shape, blocks),
            Self::Guided(shape, blocks, forward) => unet3d::guided(weights, &manifest.unet, shape, blocks, *forward),
        };
        lowering.lower(&graph.map_err(|e| e.with_path(bundle.folder()))?)
    }

    /// The ONNX model, whose weights are in `weights.safetensors` beside it.
    ///
    /// # Errors
    /// When a weight is missing or misshapen.
    pub fn model(&self, bundle: &Bundle, lowering: Lowering) -> Result<Vec<u8>> {
        write::to_onnx(&self.graph(bundle, lowering)?, WEIGHTS_FILE, write::Shapes::Known)
    }

    /// The graph as it is loaded.
    ///
    /// # Errors
    /// When a weight is missing or misshapen.
    pub fn prepare(&self, bundle: &Bundle, lowering: Lowering) -> Result<PreparedGraph> {
        #[cfg(test)]
        AUTHORED.with_borrow_mut(|authored| authored.push(self.clone()));
        let graph = self.graph(bundle, lowering)?;
        let (graph, weights) =
            if graph.precision == Element::Float16 { fold::weights(&graph)? } else { (graph, Vec::new()) };
        Ok(PreparedGraph { graph, weights, memory: OnceLock::new() })
    }
}

/// A lowered graph, and the tensors that it is given besides the weights of the file.
pub struct PreparedGraph {
    /// The graph.
    pub graph: Graph,
    /// Its prepared weights.
    pub weights: Vec<Folded>,
    memory: OnceLock<Memory>,
}

impl PreparedGraph {
    /// The memory that it is predicted to take.
    pub fn memory(&self) -> &Memory {
        self.memory.get_or_init(|| memory::predict(&self.graph))
    }
}

/// What a network takes of a device.
pub(crate) struct Footprint {
    /// Bytes of weights and constants.
    pub(crate) weights: u64,
    /// Bytes of activations, where they are most.
    pub(crate) activations: u64,
    /// Storage key and bytes of the weights that other networks may share.
    pub(crate) shareable: Vec<(String, u64)>,
}

/// Footprints that were predicted, and the graphs that were authored for that, until they are loaded.
#[derive(Default)]
pub(crate) struct Footprints {
    known: HashMap<NetworkKey, Footprint>,
    graphs: HashMap<NetworkKey, PreparedGraph>,
}

impl Footprints {
    /// A network's footprint.
    ///
    /// # Errors
    /// As [`NetworkKey::prepare`].
    pub(crate) fn of(&mut self, key: &NetworkKey, bundle: &Bundle, lowering: Lowering) -> Result<&Footprint> {
        if !self.known.contains_key(key) {
            let prepared = key.prepare(bundle, lowering)?;
            let Memory { weights, activations, .. } = *prepared.memory();
            let shareable = prepared.weights.iter().filter(|tensor| tensor.shareable);
            let shareable = shareable.map(|tensor| (tensor.numbers.clone(), tensor.length())).collect();
            self.known.insert(key.clone(), Footprint { weights, activations, shareable });
            self.graphs.insert(key.clone(), prepared);
        }
        Ok(&self.known[key])
    }

    /// A graph to load, where it is still there.
    pub(crate) fn take(&mut self, key: &NetworkKey) -> Option<PreparedGraph> {
        self.graphs.remove(key)
    }

    /// Drops the footprints of all other networks.
    pub(crate) fn keep(&mut self, keys: &[NetworkKey]) {
        self.known.retain(|key, _| keys.contains(key));
    }

    /// Drops the graphs of all other networks.
    pub(crate) fn keep_graphs(&mut self, keys: &[NetworkKey]) {
        self.graphs.retain(|key, _| keys.contains(key));
    }
}

/// Trades time for memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryStrategy {
    /// A stage's networks are loaded at once, and the gradient reads the activations of the forward pass.
    KeepAll,
    /// The gradient computes again what it needs of the forward pass. GPUs always do.
    Rematerialize,
    /// The same, with a part's networks loaded for that part alone; in guided steps one network serves both prompts.
    ModelOffload,
}

impl MemoryStrategy {
    /// The fastest first.
    pub(crate) const ALL: [Self; 3] = [Self::KeepAll, Self::Rematerialize, Self::ModelOffload];

    /// The fastest worth its memory.
    pub(crate) fn fastest(lowering: Lowering) -> Self {
        match lowering {
            // A few hundredths of a guided step's time there, for more than half of its memory.
            Lowering::Cuda(_) => Self::Rematerialize,
            Lowering::Portable => Self::KeepAll,
        }
    }

    fn forward(self) -> Forward {
        if self == Self::KeepAll { Forward::Kept } else { Forward::Recomputed }
    }
}

/// The predictions that a step makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StepKind {
    /// With the gradient of the motion loss.
    pub guided: bool,
    /// For the negative prompt too.
    pub negative: bool,
}

/// The networks of one job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobNetworks {
    strategy: MemoryStrategy,
    lowering: Lowering,
    on_cuda: bool,
    vae: VaeShape,
    unet: UnetShape,
    blocks: Vec<String>,
    maps: BTreeMap<String, [usize; 2]>,
}

impl JobNetworks {
    /// The networks of a run with these settings on the device of `run`.
    ///
    /// # Errors
    /// When a guided block is no block of the model, or has no motion modules.
    pub fn new(manifest: &Manifest, settings: &Settings, run: &RunSettings, strategy: MemoryStrategy) -> Result<Self> {
        let control = settings.control.as_ref().map(|control| control.kind);
        Self::with_control(manifest, settings, control, run, strategy)
    }

    /// The same for another control than the settings'.
    pub(crate) fn with_control(
        manifest: &Manifest,
        settings: &Settings,
        control: Option<ControlKind>,
        run: &RunSettings,
        strategy: MemoryStrategy,
    ) -> Result<Self> {
        Ok(Self {
            strategy,
            lowering: run.lowering,
            on_cuda: run.cuda.is_some(),
            vae: vae_shape(manifest, settings, run.lowering),
            unet: unet_shape(manifest, settings, control, run.lowering),
            blocks: settings.blocks.clone(),
            maps: guided_maps(manifest, &settings.blocks, settings.width, settings.height)?,
        })
    }

    /// How memory is saved.
    pub fn strategy(&self) -> MemoryStrategy {
        self.strategy
    }

    /// The sizes of the autoencoder.
    pub fn vae(&self) -> VaeShape {
        self.vae
    }

    /// The sizes of the UNet, whose frames are those of one run of the network.
    pub fn unet(&self) -> &UnetShape {
        &self.unet
    }

    /// Shapes `[positions, heads, frames, frames]` of the guided attention maps by module.
    pub fn maps(&self) -> impl Iterator<Item = (&String, [usize; 4])> {
        let frames = self.unet.frames;
        self.maps.iter().map(move |(name, [positions, heads])| (name, [*positions, *heads, frames, frames]))
    }

    /// Prompt to text embeddings.
    pub fn text_encoder(&self) -> NetworkKey {
        NetworkKey::TextEncoder
    }

    /// Images to latents.
    pub fn vae_encoder(&self) -> NetworkKey {
        NetworkKey::VaeEncoder(self.vae)
    }

    /// Latents to images.
    pub fn vae_decoder(&self) -> NetworkKey {
        NetworkKey::VaeDecoder(self.vae)
    }

    /// SparseCtrl, where the run has a control.
    pub fn control(&self) -> Option<NetworkKey> {
        self.unet.control.map(|kind| NetworkKey::Control(kind, self.unet.clone()))
    }

    /// The UNet of predictions without guidance.
    pub fn denoiser(&self) -> NetworkKey {
        NetworkKey::Denoiser(self.unet.clone())
    }

    /// The UNet of guided predictions.
    pub fn guided(&self) -> NetworkKey {
        NetworkKey::Guided(self.unet.clone(), self.blocks.clone(), self.strategy.forward())
    }

    /// The UNet that reads a clip's attention: a small one of its own, or, where loading takes longer than running, the
    /// guided one, which is needed anyway.
    pub fn extractor(&self) -> NetworkKey {
        match self.lowering {
            Lowering::Cuda(_) => self.guided(),
            Lowering::Portable => NetworkKey::Extractor(self.unet.clone(), self.blocks.clone()),
        }
    }

    /// The UNet of a step's predictions without guidance. The guided one stands in where the other is not to be loaded
    /// beside it.
    pub(crate) fn predictor(&self, step: StepKind) -> NetworkKey {
        if step.guided && self.strategy == MemoryStrategy::ModelOffload { self.guided() } else { self.denoiser() }
    }

    /// The networks of extraction.
    pub(crate) fn of_extraction(&self) -> Vec<NetworkKey> {
        self.with_sparsectrl([self.extractor()])
    }

    /// The networks of one step.
    pub fn of_step(&self, step: StepKind) -> Vec<NetworkKey> {
        let guided = step.guided.then(|| self.guided());
        let predictor = (step.negative || !step.guided).then(|| self.predictor(step));
        self.with_sparsectrl(guided.clone().into_iter().chain(predictor.filter(|key| guided.as_ref() != Some(key))))
    }

    /// The networks that are there when a run's steps begin.
    pub fn of_steps(&self, steps: &[StepKind]) -> Vec<NetworkKey> {
        if self.strategy == MemoryStrategy::ModelOffload {
            return steps.first().map(|step| self.of_step(*step)).unwrap_or_default();
        }
        let any = steps.iter().fold(StepKind::default(), |any, step| StepKind {
            guided: any.guided || step.guided,
            negative: any.negative || step.negative || !step.guided,
        });
        self.of_step(any)
    }

    /// The networks that stay while steps are done, besides those of the steps. On a GPU, all of a job do, for the next
    /// one; elsewhere their weights are not shared, and memory is worth more than the seconds of loading.
    pub(crate) fn beside_steps(&self, steps: &[NetworkKey]) -> Vec<NetworkKey> {
        if self.on_cuda && self.strategy != MemoryStrategy::ModelOffload { self.all() } else { steps.to_vec() }
    }

    /// The networks that may stay from earlier jobs, where memory is limited.
    pub(crate) fn reusable(&self) -> Vec<NetworkKey> {
        // Offloaded, at most one part's are there.
        if self.strategy == MemoryStrategy::ModelOffload { self.all() } else { self.beside_steps(&[]) }
    }

    /// Others have to go before these are loaded.
    pub(crate) fn offloads_for(&self, keys: &[NetworkKey]) -> bool {
        // On a GPU, what runs on the CPU takes no room.
        let beside = self.on_cuda && keys.iter().all(NetworkKey::runs_on_cpu);
        self.strategy == MemoryStrategy::ModelOffload && !beside
    }

    /// The networks that are loaded at once in each stage.
    pub(crate) fn stages(&self) -> Vec<Vec<NetworkKey>> {
        let (encoder, decoder, text) = (self.vae_encoder(), self.vae_decoder(), self.text_encoder());
        if self.strategy == MemoryStrategy::ModelOffload {
            let step = |guided| self.of_step(StepKind { guided, negative: true });
            return vec![vec![encoder], vec![text], self.of_extraction(), step(true), step(false), vec![decoder]];
        }
        let (guided, denoiser) = (self.guided(), self.denoiser());
        if self.on_cuda {
            return vec![self.with_sparsectrl([encoder, text, guided, denoiser, decoder])];
        }
        vec![self.with_sparsectrl([encoder, text, self.extractor()]), self.with_sparsectrl([guided, denoiser, decoder])]
    }

    /// Every network of the job.
    pub fn all(&self) -> Vec<NetworkKey> {
        let mut all: Vec<NetworkKey> = Vec::new();
        for key in self.stages().into_iter().flatten() {
            if !all.contains(&key) {
                all.push(key);
            }
        }
        all
    }

    fn with_sparsectrl(&self, keys: impl IntoIterator<Item = NetworkKey>) -> Vec<NetworkKey> {
        self.control().into_iter().chain(keys).collect()
    }
}

/// The sizes of a run's autoencoder.
pub fn vae_shape(manifest: &Manifest, settings: &Settings, lowering: Lowering) -> VaeShape {
    let unit = manifest.vae.downscale();
    VaeShape {
        height: settings.height / unit,
        width: settings.width / unit,
        precision: lowering.precision(),
        layout: lowering.layout(),
    }
}

/// The sizes of a run's UNet, with the residuals of a control or without.
pub fn unet_shape(
    manifest: &Manifest,
    settings: &Settings,
    control: Option<ControlKind>,
    lowering: Lowering,
) -> UnetShape {
    let VaeShape { height, width, precision, layout } = vae_shape(manifest, settings, lowering);
    UnetShape {
        batch: 1,
        frames: settings.frames,
        height,
        width,
        tokens: manifest.text_encoder.max_positions,
        control,
        precision,
        layout,
    }
}

#[cfg(test)]
thread_local! {
    /// The networks whose graphs were authored on this thread, in order.
    pub(crate) static AUTHORED: std::cell::RefCell<Vec<NetworkKey>> = const { std::cell::RefCell::new(Vec::new()) };
}
