//! A bundle with the device it runs on, and the networks that are loaded.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use motionclone_onnx::graph::{Lowering, cuda, memory, write};
use motionclone_onnx::manifest::{Manifest, WEIGHTS_FILE};
use motionclone_onnx::model::unet3d::UnetShape;
use motionclone_onnx::model::vae::VaeShape;
use ndarray::{ArrayD, IxDyn};
use ort::value::DynValue;

use crate::bundle::{Bundle, NetworkKey};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::memory::Economy;
use crate::runtime::device::DeviceGuard;
use crate::runtime::probe::{leave_out_kernels, probe};
use crate::runtime::shared_weights::SharedWeights;
use crate::runtime::tensor::tensor;
use crate::runtime::{Device, Input, Network, RunSettings, Runtime};
use crate::settings::Settings;

pub use crate::runtime::probe::devices;

/// What CUDA devices run where an engine's options do not say.
const CUDA_LOWERING: Lowering = Lowering::Cuda(cuda::Fused::ALL);

/// Bytes of activations above which a GPU's network of the steps is written without the shapes of its inner values.
const OPEN_SHAPES_ABOVE: u64 = 256 << 20;

/// Prompts whose embeddings are kept, a quarter of a megabyte each.
const MOST_EMBEDDINGS: usize = 32;

/// How an engine is opened.
#[derive(Debug, Clone, Default)]
pub struct EngineOptions {
    /// Where networks run.
    pub device: Device,
    /// The ONNX Runtime library; found by itself when absent (see [`Runtime::load`]).
    pub runtime: Option<PathBuf>,
    /// CPU threads; one a core when absent.
    pub threads: Option<usize>,
    /// The operators that CUDA devices run; the CPU always runs the portable ones.
    pub cuda_lowering: Option<Lowering>,
    /// Whether nodes of networks of a lowering that was named may run on the CPU; otherwise such a network is refused.
    /// Where none was named they may: a slow node is better than no clip.
    pub cpu_nodes: bool,
    /// Where ONNX Runtime's profiler writes, one file a network, under names that begin so.
    pub profile: Option<PathBuf>,
    /// Bytes of the device's memory that the networks may take; no limit when absent. A smaller budget makes jobs
    /// slower, see [`Engine::plan`].
    pub memory_budget: Option<u64>,
    /// Launches a CUDA device's work kernel by kernel, as with a memory budget or a profile, instead of as CUDA graphs.
    pub without_cuda_graph: bool,
}

/// A bundle, a device, and loaded networks, which stay from one job to the next while the sizes stay the same.
pub struct Engine {
    pub(crate) bundle: Bundle,
    runtime: &'static Runtime,
    run: RunSettings,
    device: String,
    without_cuda: Option<String>,
    without_kernels: Option<String>,
    networks: HashMap<NetworkKey, Network>,
    weights: SharedWeights,
    /// Prompts that were encoded: the next job often has the same ones.
    embeddings: HashMap<String, (ArrayD<f32>, Option<String>)>,
    pub(crate) economy: Economy,
}

impl Engine {
    /// Opens a bundle on a device.
    ///
    /// # Errors
    /// When the bundle is not valid, ONNX Runtime cannot be loaded, or the device asked for does not work.
    pub fn open(bundle: &Path, options: &EngineOptions) -> Result<Self> {
        let bundle = Bundle::open(bundle)?;
        let runtime = Runtime::load(options.runtime.as_deref())?;
        let lowering = options.cuda_lowering.unwrap_or(CUDA_LOWERING);
        let EngineOptions { threads, ref profile, .. } = *options;
        let cpu_nodes = options.cpu_nodes || options.cuda_lowering.is_none();
        let mut run = RunSettings {
            threads,
            cpu_nodes,
            profile: profile.clone(),
            budget: options.memory_budget,
            // A budget takes networks away again, and a profile is to see every node.
            cuda_graph: !options.without_cuda_graph && options.memory_budget.is_none() && profile.is_none(),
            ..Default::default()
        };
        let mut without_cuda = None;
        let device = match options.device {
            Device::Cpu => "CPU".to_string(),
            Device::Cuda(number) => {
                (run.cuda, run.lowering) = (Some(number), lowering);
                probe(runtime, &run)
                    .map_err(|e| Error::input(format!("CUDA device {number} does not work here: {e}")))?;
                format!("CUDA device {number}")
            }
            Device::Auto => {
                let cuda = RunSettings { cuda: Some(0), lowering, ..run.clone() };
                match probe(runtime, &cuda) {
                    Ok(()) => {
                        run = cuda;
                        "CUDA device 0".into()
                    }
                    Err(error) => {
                        without_cuda = Some(error.to_string());
                        "CPU".into()
                    }
                }
            }
        };
        if run.cuda.is_none() {
            probe(runtime, &run)?;
        }
        let without_kernels = leave_out_kernels(&mut run);
        let economy = Economy::least(run.lowering);
        let weights = SharedWeights::new(&run);
        Ok(Self {
            bundle,
            runtime,
            run,
            device,
            without_cuda,
            without_kernels,
            networks: HashMap::new(),
            weights,
            embeddings: HashMap::new(),
            economy,
        })
    }

    /// What the bundle holds.
    pub fn manifest(&self) -> &Manifest {
        &self.bundle.manifest
    }

    /// The opened bundle.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Where networks run, for people.
    pub fn device_name(&self) -> &str {
        &self.device
    }

    /// Where networks run and, for people, why not better: when [`Device::Auto`] found no CUDA device that works, or when
    /// a CUDA device does not run the project's own kernels.
    pub fn device_and_reason(&self) -> String {
        match (&self.without_cuda, &self.without_kernels) {
            (Some(reason), _) => format!("{}, as CUDA does not work here: {reason}", self.device),
            (None, Some(reason)) => {
                format!("{}, without some of the project's own kernels: {reason}", self.device)
            }
            (None, None) => self.device.clone(),
        }
    }

    /// Where networks run.
    pub fn device(&self) -> Device {
        self.run.cuda.map_or(Device::Cpu, Device::Cuda)
    }

    /// The ONNX Runtime in use.
    pub fn runtime(&self) -> &'static Runtime {
        self.runtime
    }

    /// A network, loaded when it is not yet.
    ///
    /// # Errors
    /// When a weight is missing or ONNX Runtime refuses the model.
    pub fn network(&mut self, key: &NetworkKey) -> Result<&mut Network> {
        if !self.networks.contains_key(key) {
            let mut run = self.run.clone();
            if key.runs_on_cpu() {
                (run.cuda, run.lowering, run.cuda_graph) = (None, Lowering::Portable, false);
            }
            let network = self.load(key, &run)?;
            self.networks.insert(key.clone(), network);
        }
        self.networks.get_mut(key).ok_or_else(|| Error::failure("a loaded network is gone"))
    }

    fn load(&self, key: &NetworkKey, run: &RunSettings) -> Result<Network> {
        let (graph, folded) = self.bundle.folded(key, run.lowering)?;
        let weights = self.weights.weights(&folded, self.bundle.weights.path())?;
        // Only these have a backward pass or run beside one; the others would only run slower with open shapes. Small ones
        // have many nodes that no kernel takes the place of, and would load slowly.
        let open = run.lowering != Lowering::Portable
            && key.runs_in_steps()
            && memory::predict(&graph).activations > OPEN_SHAPES_ABOVE;
        let shapes = if open { write::Shapes::Open } else { write::Shapes::Known };
        let model = write::to_onnx(&graph, WEIGHTS_FILE, shapes)?;
        let run = RunSettings { cuda_graph: run.cuda_graph && key.runs_in_steps(), ..run.clone() };
        Network::load_with(self.runtime, &key.name(), &model, self.bundle.folder(), weights, &run)
    }

    /// Does a job's work, within which `cancel` ends the loading of networks, too.
    pub(crate) fn loading_until<T>(&mut self, cancel: &Cancel, work: impl FnOnce(&mut Self) -> T) -> T {
        self.run.cancel = cancel.clone();
        let result = work(self);
        self.run.cancel = Cancel::default();
        result
    }

    /// A tensor that is made once and given to many runs, in the device's memory.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn tensor(&self, array: ArrayD<f32>) -> Result<DynValue> {
        tensor(array, &self.run)
    }

    /// Ends the profiles of all loaded networks, which takes the networks with it, and names the files.
    ///
    /// # Errors
    /// When ONNX Runtime cannot write one.
    pub fn end_profiles(&mut self) -> Result<Vec<(String, PathBuf)>> {
        let networks = std::mem::take(&mut self.networks);
        networks.into_iter().map(|(key, network)| Ok((key.name(), network.end_profile()?))).collect()
    }

    /// Frees every loaded network that is not named, with the weights that no other shares.
    pub fn keep(&mut self, keys: &[NetworkKey]) {
        let _guard = DeviceGuard::shared(self.run.cuda);
        self.networks.retain(|key, _| keys.contains(key));
    }

    /// The most memory that the engine was told to take, in bytes.
    pub fn memory_budget(&self) -> Option<u64> {
        self.run.budget
    }

    /// The lowering of networks here.
    pub(crate) fn lowering(&self) -> Lowering {
        self.run.lowering
    }

    /// Whether networks run on a CUDA device.
    pub(crate) fn on_cuda(&self) -> bool {
        self.run.cuda.is_some()
    }

    /// Makes room for a part of the work, where networks do not stay from one part to the next.
    pub(crate) fn make_room(&mut self, keys: &[NetworkKey]) {
        // On a GPU, what runs on the CPU takes no room.
        let there = self.on_cuda() && keys.iter().all(NetworkKey::runs_on_cpu);
        if self.economy == Economy::OneByOne && !there {
            self.keep(keys);
        }
    }

    /// The sizes of a run's autoencoder.
    pub fn vae_shape(&self, settings: &Settings) -> VaeShape {
        self.bundle.vae_shape(settings, self.run.lowering)
    }

    /// The sizes of a run's UNet.
    pub fn unet_shape(&self, settings: &Settings) -> UnetShape {
        self.bundle.unet_shape(settings, settings.control.as_ref().map(|c| c.kind), self.run.lowering)
    }

    /// A prompt's text embeddings `[1, tokens, c]`, and the part of the prompt that did not fit.
    ///
    /// # Errors
    /// When the network fails or the run is cancelled.
    pub fn encode_text(&mut self, prompt: &str, cancel: &Cancel) -> Result<(ArrayD<f32>, Option<String>)> {
        if let Some(known) = self.embeddings.get(prompt) {
            return Ok(known.clone());
        }
        let length = self.bundle.manifest.text_encoder.max_positions;
        let tokens = self.bundle.tokenizer.encode(prompt, length)?;
        let ids = ArrayD::from_shape_vec(IxDyn(&[1, length]), tokens.ids)
            .map_err(|e| Error::failure(format!("token ids: {e}")))?;
        self.make_room(&[NetworkKey::TextEncoder]);
        let network = self.network(&NetworkKey::TextEncoder)?;
        let embeddings = network.run(&[("input_ids", Input::Integers(&ids))], cancel)?.array("text_embeddings")?;
        if self.embeddings.len() == MOST_EMBEDDINGS {
            self.embeddings.clear();
        }
        self.embeddings.insert(prompt.into(), (embeddings.clone(), tokens.cut.clone()));
        Ok((embeddings, tokens.cut))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.keep(&[]);
    }
}
