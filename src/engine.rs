//! A bundle with the device it runs on, and the networks that are loaded.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use motionclone_onnx::graph::{Lowering, cuda, write};
use motionclone_onnx::manifest::{Manifest, WEIGHTS_FILE};
use ndarray::{ArrayD, IxDyn};
use ort::value::DynValue;

use crate::bundle::Bundle;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::memory::{self, Plan};
use crate::networks::{Footprints, JobNetworks, MemoryStrategy, NetworkKey};
use crate::prompt::{self, Prompt};
use crate::runtime::device::DeviceGuard;
use crate::runtime::probe::{leave_out_kernels, probe};
use crate::runtime::shared_weights::SharedWeights;
use crate::runtime::tensor::tensor;
use crate::runtime::{Device, Input, Network, RunSettings, Runtime};
use crate::settings::Settings;

pub use crate::runtime::probe::devices;

/// The operators of CUDA devices where an engine's options do not say.
const CUDA_LOWERING: Lowering = Lowering::Cuda(cuda::Fused::ALL);

/// Bytes of activations above which a GPU's network of the steps is written without the shapes of its inner values.
const OPEN_SHAPES_ABOVE: u64 = 256 << 20;

/// Prompts whose embeddings are kept, a quarter of a megabyte each.
const MOST_EMBEDDINGS: usize = 32;

/// Options for opening an engine.
#[derive(Debug, Clone, Default)]
pub struct EngineOptions {
    /// The device that networks run on.
    pub device: Device,
    /// The ONNX Runtime library; found by itself when absent (see [`Runtime::load`]).
    pub runtime: Option<PathBuf>,
    /// CPU threads; one a core when absent.
    pub threads: Option<usize>,
    /// The operators that CUDA devices run; the CPU always runs the portable ones.
    pub cuda_lowering: Option<Lowering>,
    /// Allows nodes on the CPU in networks of a lowering that was named; otherwise such a network is refused. Where none was
    /// named they may: a slow node is better than no clip.
    pub cpu_nodes: bool,
    /// Beginning of the names of the files that ONNX Runtime's profiler writes, one a network.
    pub profile: Option<PathBuf>,
    /// Bytes of the device's memory that the networks may take; no limit when absent. A smaller budget makes jobs
    /// slower, see [`Engine::plan`].
    pub memory_budget: Option<u64>,
    /// Launches a CUDA device's work kernel by kernel, as with a memory budget or a profile, instead of as CUDA graphs.
    pub without_cuda_graph: bool,
}

/// A bundle, a device, and loaded networks, which stay from one job to the next while the sizes stay the same.
///
/// ```no_run
/// use std::path::Path;
///
/// use motionclone::media::frames::Frames;
/// use motionclone::settings::Settings;
/// use motionclone::{Cancel, Engine, EngineOptions};
///
/// # fn main() -> motionclone::Result<()> {
/// let mut engine = Engine::open(Path::new("bundle"), &EngineOptions::default())?;
/// let settings = Settings::new(&engine.manifest().defaults, "a boat on a lake");
/// // As many frames of the reference clip as the settings say, of their size, as 8-bit RGB.
/// let data = vec![0; settings.frames * settings.height * settings.width * 3];
/// let clip = Frames { width: settings.width, height: settings.height, data };
///
/// let cancel = Cancel::default();
/// let motion = engine.extract(&clip, &settings, &mut |_| (), &cancel)?;
/// let frames = engine.clone_motion(&motion, &settings, &mut |event| println!("{event:?}"), &cancel)?;
/// assert_eq!(frames.count(), settings.frames);
/// # Ok(())
/// # }
/// ```
pub struct Engine {
    bundle: Bundle,
    runtime: &'static Runtime,
    run: RunSettings,
    device: String,
    without_cuda: Option<String>,
    without_kernels: Option<String>,
    networks: HashMap<NetworkKey, Network>,
    footprints: Footprints,
    weights: SharedWeights,
    /// Prompts that were encoded: the next job often has the same ones.
    embeddings: HashMap<String, (ArrayD<f32>, Option<String>)>,
}

impl Engine {
    /// Opens a bundle on a device.
    ///
    /// # Errors
    /// When the bundle is not valid, ONNX Runtime cannot be loaded, or the device asked for does not work.
    pub fn open(bundle: &Path, options: &EngineOptions) -> Result<Self> {
        Self::with_bundle(Bundle::open(bundle)?, options)
    }

    /// The same for a bundle that is open.
    ///
    /// # Errors
    /// When ONNX Runtime cannot be loaded or the device asked for does not work.
    pub fn with_bundle(bundle: Bundle, options: &EngineOptions) -> Result<Self> {
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
        let weights = SharedWeights::new(&run);
        Ok(Self {
            bundle,
            runtime,
            run,
            device,
            without_cuda,
            without_kernels,
            networks: HashMap::new(),
            footprints: Footprints::default(),
            weights,
            embeddings: HashMap::new(),
        })
    }

    /// The bundle's manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.bundle.manifest
    }

    /// The opened bundle.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// The device that networks run on, for people.
    pub fn device_name(&self) -> &str {
        &self.device
    }

    /// The same with the reason why it is not a better one: when [`Device::Auto`] found no CUDA device that works, or when
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

    /// The device that networks run on.
    pub fn device(&self) -> Device {
        self.run.cuda.map_or(Device::Cpu, Device::Cuda)
    }

    /// The ONNX Runtime in use.
    pub fn runtime(&self) -> &'static Runtime {
        self.runtime
    }

    /// A network, loaded when it is not yet; `cancel` ends the loading.
    ///
    /// # Errors
    /// When a weight is missing, ONNX Runtime refuses the model, or the loading is cancelled.
    pub fn network(&mut self, key: &NetworkKey, cancel: &Cancel) -> Result<&mut Network> {
        if !self.networks.contains_key(key) {
            let network = self.load(key, cancel)?;
            self.networks.insert(key.clone(), network);
        }
        self.networks.get_mut(key).ok_or_else(|| Error::failure("a loaded network is gone"))
    }

    fn load(&mut self, key: &NetworkKey, cancel: &Cancel) -> Result<Network> {
        let cuda_graph = self.run.cuda_graph && key.runs_in_steps();
        let mut run = RunSettings { cuda_graph, cancel: cancel.clone(), ..self.run.clone() };
        if key.runs_on_cpu() {
            (run.cuda, run.lowering) = (None, Lowering::Portable);
        }
        let prepared = match self.footprints.take(key) {
            Some(prepared) => prepared,
            None => key.prepare(&self.bundle, run.lowering)?,
        };
        let weights = self.weights.weights(&prepared.weights, self.bundle.weights.path())?;
        // Only these have a backward pass or run beside one; the others would only run slower with open shapes. Small ones
        // have many nodes that no kernel takes the place of, and would load slowly.
        let open = run.lowering != Lowering::Portable
            && key.runs_in_steps()
            && prepared.memory().activations > OPEN_SHAPES_ABOVE;
        let shapes = if open { write::Shapes::Open } else { write::Shapes::Known };
        let model = write::to_onnx(&prepared.graph, WEIGHTS_FILE, shapes)?;
        Network::load_with(self.runtime, &key.name(), &model, self.bundle.folder(), weights, &run)
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

    /// The most memory of the device that networks may take, in bytes.
    pub fn memory_budget(&self) -> Option<u64> {
        self.run.budget
    }

    /// The plan for jobs with these settings: the fastest that keeps within the engine's memory budget.
    ///
    /// # Errors
    /// When the settings do not fit the model, no plan keeps within the budget, or a network cannot be made.
    pub fn plan(&mut self, settings: &Settings) -> Result<Plan> {
        settings.check(self.manifest())?;
        memory::plan(&self.bundle, settings, &self.run, &mut self.footprints)
    }

    /// The networks of a job with these settings, by its plan where there is a memory budget; then nothing stays of the
    /// jobs before that this one does not need as well.
    ///
    /// # Errors
    /// As [`Engine::plan`].
    pub fn job_networks(&mut self, settings: &Settings) -> Result<JobNetworks> {
        let strategy = match self.run.budget {
            Some(_) => self.plan(settings)?.strategy,
            None => {
                settings.check(self.manifest())?;
                MemoryStrategy::fastest(self.run.lowering)
            }
        };
        let networks = JobNetworks::new(self.manifest(), settings, &self.run, strategy)?;
        if self.run.budget.is_some() {
            self.keep(&networks.reusable());
        }
        Ok(networks)
    }

    /// Frees what a part of a job does not need, where networks do not stay from one part to the next.
    pub(crate) fn make_room(&mut self, networks: &JobNetworks, keys: &[NetworkKey]) {
        if networks.offloads_for(keys) {
            self.keep(keys);
        }
    }

    /// A prompt's text embeddings `[1, tokens, c]`, and the part of the prompt that did not fit.
    ///
    /// # Errors
    /// When the network fails or the run is cancelled.
    pub(crate) fn encode_text(
        &mut self,
        networks: &JobNetworks,
        text: &str,
        cancel: &Cancel,
    ) -> Result<(ArrayD<f32>, Option<String>)> {
        if let Some(known) = self.embeddings.get(text) {
            return Ok(known.clone());
        }
        let length = self.bundle.manifest.text_encoder.max_positions;
        let (tokens, weights) = self.bundle.tokenizer.encode_parts(&Prompt::read(text).parts, length)?;
        let ids = ArrayD::from_shape_vec(IxDyn(&[1, length]), tokens.ids)
            .map_err(|e| Error::failure(format!("token ids: {e}")))?;
        let key = networks.text_encoder();
        self.make_room(networks, std::slice::from_ref(&key));
        let network = self.network(&key, cancel)?;
        let mut embeddings = network.run(&[("input_ids", Input::Integers(&ids))], cancel)?.array("text_embeddings")?;
        if weights.iter().any(|weight| *weight != 1.0) {
            let (empty, _) = self.encode_text(networks, "", cancel)?;
            prompt::weigh(&mut embeddings, &empty, &weights);
        }
        if self.embeddings.len() == MOST_EMBEDDINGS {
            self.embeddings.clear();
        }
        self.embeddings.insert(text.into(), (embeddings.clone(), tokens.cut.clone()));
        Ok((embeddings, tokens.cut))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.keep(&[]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::frames::Frames;
    use crate::networks::AUTHORED;

    fn small(manifest: &Manifest) -> Settings {
        Settings {
            width: 64,
            height: 64,
            frames: 2,
            steps: 2,
            guidance_steps: 1,
            ..Settings::new(&manifest.defaults, "a red ring")
        }
    }

    #[test]
    fn a_plans_graphs_are_loaded_and_not_authored_again() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("onnx/demo/bundle");
        let (mut budget, mut strategies) = (1 << 40, Vec::new());
        loop {
            let options = EngineOptions { device: Device::Cpu, memory_budget: Some(budget), ..Default::default() };
            let mut engine = Engine::open(&folder, &options).unwrap();
            let settings = small(engine.manifest());
            AUTHORED.take();
            let Ok(plan) = engine.plan(&settings) else { break };
            assert!(!AUTHORED.take().is_empty());
            let clip = Frames { width: 64, height: 64, data: vec![90; 2 * 64 * 64 * 3] };
            let motion = engine.extract(&clip, &settings, &mut |_| (), &Cancel::default()).unwrap();
            engine.clone_motion(&motion, &settings, &mut |_| (), &Cancel::default()).unwrap();
            // Alone it is loaded twice, once for the motion and once for the clip.
            assert_eq!(AUTHORED.take(), [NetworkKey::TextEncoder], "{plan:?}");
            assert_eq!(engine.plan(&settings).unwrap(), plan);
            assert_eq!(AUTHORED.take(), [], "{plan:?}");
            // What is known of other sizes makes way.
            let _ = engine.plan(&Settings { frames: 3, ..settings.clone() });
            AUTHORED.take();
            assert_eq!(engine.plan(&settings).unwrap(), plan);
            assert!(AUTHORED.take().iter().any(NetworkKey::runs_in_steps));
            strategies.push(plan.strategy);
            budget = plan.peak - 1;
        }
        assert_eq!(strategies, MemoryStrategy::ALL);
    }
}
