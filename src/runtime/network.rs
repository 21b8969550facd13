//! ONNX Runtime: which library, which device, running networks, stopping them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use motionclone_abi::files::{self, RUNTIME_VARIABLE};
use ndarray::{ArrayD, ArrayViewD};
use ort::environment::GlobalThreadPoolOptions;
use ort::ep;
use ort::memory::AllocationDevice;
use ort::session::builder::GraphOptimizationLevel;
use ort::session::builder::SessionBuilder;
use ort::session::{RunOptions, Session, SessionInputValue};
use ort::value::{DynValue, Tensor, TensorRef};

use crate::bundle::Lowering;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::runtime::cuda_graph::{Leave, Next, Replay};
use crate::runtime::kernels;
use crate::runtime::shared_weights::Weights;
use crate::runtime::statics;
use crate::sync::lock;

/// Where networks run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// The first CUDA device where there is one that works, otherwise the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA device by number.
    Cuda(i32),
}

/// The loaded library. A process has one; it stays until the process ends, because ONNX Runtime does not survive being
/// torn down and set up again.
#[derive(Debug)]
pub struct Runtime {
    environment: ort::environment::Environment,
    library: PathBuf,
}

static RUNTIME: OnceLock<Runtime> = OnceLock::new();
static LOADING: Mutex<()> = Mutex::new(());

impl Runtime {
    /// Loads ONNX Runtime once for the process, from `library`, or the file named by [`RUNTIME_VARIABLE`], or the folder
    /// of this shared library or program, or `lib` beside the program's folder. The host's search path is never used,
    /// and another ONNX Runtime in the process stays apart, because its symbols are looked up in this file alone.
    ///
    /// # Errors
    /// When no library is found, it cannot be loaded, or it is too old.
    pub fn load(library: Option<&Path>) -> Result<&'static Self> {
        if let Some(runtime) = RUNTIME.get() {
            return Ok(runtime);
        }
        let _guard = lock(&LOADING);
        if let Some(runtime) = RUNTIME.get() {
            return Ok(runtime);
        }
        let library = find_library(library)?;
        let failed =
            |e: &dyn std::fmt::Display| Error::input(format!("cannot load ONNX Runtime: {e}")).with_path(&library);
        let environment = ort::init_from(&library).map_err(|e| failed(&e))?;
        statics::keep(&library);
        let pool = GlobalThreadPoolOptions::default().with_spin_control(false).map_err(|e| failed(&e))?;
        let environment = environment
            .with_name("motionclone")
            .with_telemetry(false)
            // One pool for all networks, since idle threads of one would be in the way of the next; and threads that wait
            // sleep, since the program that hosts this library needs the cores too.
            .with_global_thread_pool(pool)
            .build()
            .map_err(|e| failed(&e))?;
        Ok(RUNTIME.get_or_init(|| Self { environment, library: library.clone() }))
    }

    /// The library's file.
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// Whether this build of the library can use CUDA. Whether a device works shows when an engine is opened on it.
    pub fn has_cuda(&self) -> bool {
        <ep::CUDA as ep::ExecutionProvider>::is_available().unwrap_or(false)
    }

    pub(crate) fn session_builder(&self) -> ort::Result<SessionBuilder> {
        Session::builder(&self.environment)
    }

    /// What the library says of itself: version and build.
    pub fn build_info(&self) -> &'static str {
        ort::info()
    }
}

fn find_library(given: Option<&Path>) -> Result<PathBuf> {
    let absolute = |path: &Path| std::path::absolute(path).map_err(|e| Error::io(path, e));
    let configured = given.map(Path::to_path_buf).or_else(|| std::env::var_os(RUNTIME_VARIABLE).map(PathBuf::from));
    if let Some(path) = configured {
        if !path.is_file() {
            return Err(Error::input("no ONNX Runtime library there").with_path(&path));
        }
        return absolute(&path);
    }
    let mut folders = own_folders();
    folders.extend(folders.last().map(|program| program.with_file_name("lib")));
    let files = folders.iter().flat_map(|folder| files::RUNTIMES.iter().map(|name| folder.join(name)));
    if let Some(path) = files.into_iter().find(|path| path.is_file()) {
        return absolute(&path);
    }
    folders.dedup();
    let folders: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    Err(Error::input(format!(
        "no ONNX Runtime: put {} into one of {}, or name it in {RUNTIME_VARIABLE}",
        files::RUNTIMES[0],
        folders.join(", ")
    )))
}

/// The folders of this shared library and of the program, the program's last.
pub(crate) fn own_folders() -> Vec<PathBuf> {
    let program = std::env::current_exe().ok().and_then(|program| program.parent().map(Path::to_path_buf));
    files::own_folder().into_iter().chain(program).collect()
}

/// How networks are run.
#[derive(Debug, Clone, Default)]
pub struct RunSettings {
    /// CPU threads of each network; one pool with a thread a core for all networks when absent.
    pub threads: Option<usize>,
    /// CUDA device, or the CPU when absent.
    pub cuda: Option<i32>,
    /// The operators of the networks.
    pub lowering: Lowering,
    /// Whether nodes of networks lowered for CUDA may run on the CPU; otherwise such a network is refused.
    pub cpu_nodes: bool,
    /// Where ONNX Runtime's profiler writes, one file a network, under names that begin so.
    pub profile: Option<PathBuf>,
    /// Bytes that the device's memory may be used up to; no limit when absent.
    pub budget: Option<u64>,
    /// Whether a CUDA device is given the work of a whole run at once, recorded as a graph, instead of kernel by kernel.
    pub replay: bool,
    /// Ends the loading of networks.
    pub cancel: Cancel,
}

/// One network, loaded.
pub struct Network {
    /// Before the session, which it belongs to.
    replay: Option<Replay>,
    session: Session,
    /// What the session reads, until it is gone.
    _weights: Weights,
    name: String,
    cuda: bool,
    /// The device, as run options name it.
    device: String,
    budget: Option<u64>,
    /// Whether memory that is not used any more goes back to the device after the next run.
    gives_back: bool,
}

/// A network's input.
pub enum Input<'a> {
    /// Numbers in the host's memory.
    Array(&'a ArrayD<f32>),
    /// Integers in the host's memory.
    Integers(&'a ArrayD<i64>),
    /// A value that ONNX Runtime holds: another network's output, or a tensor made once for many runs.
    Value(&'a DynValue),
}

/// A network's outputs by name.
pub struct Outputs {
    values: HashMap<String, DynValue>,
    network: String,
}

impl Network {
    /// Loads an ONNX model given in memory whose weights lie in files in `folder`.
    ///
    /// # Errors
    /// When ONNX Runtime refuses it.
    pub fn load(runtime: &Runtime, name: &str, model: &[u8], folder: &Path, settings: &RunSettings) -> Result<Self> {
        Self::load_with(runtime, name, model, folder, Weights::default(), settings)
    }

    /// The same, with tensors that take the place of weights of their names.
    ///
    /// # Errors
    /// When ONNX Runtime refuses it.
    pub fn load_with(
        runtime: &Runtime,
        name: &str,
        model: &[u8],
        folder: &Path,
        mut weights: Weights,
        settings: &RunSettings,
    ) -> Result<Self> {
        let failed = |e: ort::Error| {
            if settings.cancel.is_cancelled() {
                return Error::cancelled();
            }
            failure(&format!("cannot load the {name} network"), &e.to_string(), settings.budget)
        };
        settings.cancel.check()?;
        let _leave = Leave::to_use(settings.cuda);
        let session = Self::session(runtime, model, folder, &mut weights, settings).map_err(failed)?;
        let replay = settings.cuda.filter(|_| settings.replay);
        let replay = replay.map(|device| Replay::new(&session, device)).transpose().map_err(failed)?;
        let device = settings.cuda.map_or_else(|| "cpu:0".into(), |device| format!("gpu:{device}"));
        let (name, cuda, budget) = (name.into(), settings.cuda.is_some(), settings.budget);
        // A network plans its memory in the first run; what that run took without a plan is of no use to the later ones.
        let gives_back = true;
        Ok(Self { replay, session, _weights: weights, name, cuda, device, budget, gives_back })
    }

    fn session(
        runtime: &Runtime,
        model: &[u8],
        folder: &Path,
        weights: &mut Weights,
        settings: &RunSettings,
    ) -> ort::Result<Session> {
        let folder = folder.to_string_lossy();
        // It would take what the backward pass computes again for what the forward pass has computed, and keep that.
        let mut without = vec!["CommonSubexpressionElimination"];
        if weights.are_shared() {
            // It looks at the numbers of weights, which only a device may hold, to round them up for nodes on the CPU.
            without.push("FuseFp16InitializerToFp32NodeTransformer");
        }
        let mut builder = runtime
            .session_builder()?
            .with_config_entry("session.model_external_initializers_file_folder_path", &folder)?
            .with_config_entry("optimization.disable_specified_optimizers", without.join(";"))?;
        builder = weights.give(builder)?;
        if let Some(threads) = settings.threads {
            builder = builder.with_independent_thread_pool()?.with_intra_threads(threads)?;
        }
        if let Some(device) = settings.cuda {
            let half = settings.lowering != Lowering::Portable;
            let provider = ep::CUDA::default()
                .with_device_id(device)
                // Without it cuDNN leaves tensor cores alone, in half precision too; float32 stays exact.
                .with_tf32(half)
                // Doubling its memory each time would ask for up to twice what a job needs.
                .with_arena_extend_strategy(ep::ArenaExtendStrategy::SameAsRequested)
                // The fastest convolutions would take many times the memory of what they compute.
                .with_conv_max_workspace(false)
                .with_cuda_graph(settings.replay);
            let provider = match settings.budget {
                Some(budget) => provider.with_memory_limit(usize::try_from(budget).unwrap_or(usize::MAX)),
                None => provider,
            };
            builder = builder
                // Weights stay as long as the network; among what comes and goes they would keep memory in use.
                .with_config_entry("session.use_device_allocator_for_initializers", "1")?
                .with_execution_providers([provider.build().error_on_failure()])?;
            if let Lowering::Cuda(fused) = settings.lowering
                && fused.has_kernels()
            {
                builder = builder.with_operators(kernels::operators(device)?)?;
            }
            if half {
                // The lowering has fused what is to be fused; further rewriting would take seconds.
                builder = builder.with_optimization_level(GraphOptimizationLevel::Level1)?;
            }
            if half && !settings.cpu_nodes {
                // A node on the CPU would be a mistake of the lowering and make every step wait.
                builder = builder.with_config_entry("session.disable_cpu_ep_fallback", "1")?;
            }
        }
        if settings.cuda.is_none() && settings.budget.is_some() {
            let provider = ep::CPU::default().with_arena_allocator(false);
            builder = builder.with_execution_providers([provider.build()])?;
        }
        if let Some(path) = &settings.profile {
            builder = builder.with_profiling(path)?;
        }
        let canceler = builder.canceler();
        // Asked for before it began, it is an error of the loading as well.
        let stopped = settings.cancel.stoppable(move || drop(canceler.cancel()), || builder.commit_from_memory(model));
        stopped.unwrap_or_else(|e| Err(ort::Error::new(e.to_string())))
    }

    /// After the next run, memory that is not used any more goes back to the device.
    pub(crate) fn give_back_after_next_run(&mut self) {
        self.gives_back = true;
    }

    /// Ends the profile that the settings asked for and names its file.
    pub(crate) fn end_profile(mut self) -> Result<PathBuf> {
        let path = self.session.end_profiling().map_err(|e| Error::failure(format!("{}'s profile: {e}", self.name)))?;
        Ok(path.into())
    }

    /// Runs the network once.
    ///
    /// # Errors
    /// When inputs do not fit, the device runs out of memory, or the run was cancelled.
    pub fn run(&mut self, inputs: &[(&str, Input)], cancel: &Cancel) -> Result<Outputs> {
        let next = self.replay.as_ref().map_or(Next::Ordinary, Replay::next);
        let _leave = self.cuda.then(|| Leave::wait(next));
        let (name, budget) = (self.name.clone(), self.budget);
        let failed = |e: ort::Error| {
            if cancel.is_cancelled() {
                Error::cancelled()
            } else {
                failure(&format!("running the {name} network"), &e.to_string(), budget)
            }
        };
        let mut options = RunOptions::new().map_err(failed)?;
        let gives_back = match (self.cuda, self.budget) {
            (_, None) => std::mem::take(&mut self.gives_back),
            (true, Some(_)) => true,
            // There memory goes back at once, and nothing is kept to give.
            (false, Some(_)) => false,
        };
        if gives_back {
            options.set("memory.enable_memory_arena_shrinkage", &self.device).map_err(failed)?;
        }
        if let Some(replay) = &mut self.replay {
            replay.choose(&mut options).map_err(failed)?;
            for (name, input) in inputs {
                replay.give(name, input).map_err(failed)?;
            }
        }
        let options = Arc::new(options);
        let run = options.clone();
        let stops = next == Next::Ordinary;
        // A run that cannot be terminated ends by itself, and the wish is seen behind it. Half a recording would be of
        // no use, and replaying ends no sooner.
        let stop = move || {
            if stops {
                drop(run.terminate())
            }
        };
        if let Some(replay) = &mut self.replay {
            let values = cancel.stoppable(stop, || replay.run(&mut self.session, &options))?.map_err(failed)?;
            return Ok(Outputs { values, network: name.clone() });
        }
        let mut values: Vec<(&str, SessionInputValue)> = Vec::with_capacity(inputs.len());
        for (key, input) in inputs {
            let value = match input {
                Input::Array(array) => TensorRef::from_array_view(array.view()).map_err(failed)?.into_dyn().into(),
                Input::Integers(array) => TensorRef::from_array_view(array.view()).map_err(failed)?.into_dyn().into(),
                Input::Value(value) => (*value).into(),
            };
            values.push((key, value));
        }
        let result = cancel.stoppable(stop, || self.session.run_with_options(values, &options))?;
        let mut outputs = result.map_err(failed)?;
        let keys: Vec<String> = outputs.keys().map(str::to_string).collect();
        let values = keys.into_iter().filter_map(|k| outputs.remove(&k).map(|v| (k, v))).collect();
        Ok(Outputs { values, network: name.clone() })
    }
}

/// A failure of ONNX Runtime, told as what can be done where memory did not suffice.
pub(crate) fn failure(what: &str, message: &str, budget: Option<u64>) -> Error {
    // How its arena, the C++ library, CUDA, cuBLAS and cuDNN say it.
    const SIGNS: [&str; 7] = [
        "Failed to allocate memory",
        "Available memory of",
        "bad_alloc",
        "bad allocation",
        "out of memory",
        "cudaErrorMemoryAllocation",
        "ALLOC_FAILED",
    ];
    if !SIGNS.iter().any(|sign| message.contains(sign)) {
        return Error::failure(format!("{what}: {message}"));
    }
    let advice = match budget {
        Some(budget) => format!(
            "the memory budget of {} was not kept or the device has less that is free; set a smaller memory budget",
            gigabytes(budget)
        ),
        None => "set a memory budget that is below what the device has free".into(),
    };
    Error::failure(format!("{what}: not enough memory; {advice}, a smaller size or fewer frames ({message})"))
}

/// Bytes as people read them.
pub fn gigabytes(bytes: u64) -> String {
    format!("{:.2} GB", bytes as f64 / 1e9)
}

impl Outputs {
    /// An output's numbers, copied to the host.
    ///
    /// # Errors
    /// When there is no such output of 32-bit floating point.
    pub fn array(&self, name: &str) -> Result<ArrayD<f32>> {
        self.view(name).map(|view| view.into_owned())
    }

    /// The same, not copied where they are on the host already.
    ///
    /// # Errors
    /// As [`Outputs::array`].
    pub fn view(&self, name: &str) -> Result<ArrayViewD<'_, f32>> {
        let value = self.values.get(name).ok_or_else(|| self.missing(name))?;
        value.try_extract_array::<f32>().map_err(|e| Error::failure(format!("output '{name}': {e}")))
    }

    /// Takes an output as ONNX Runtime holds it.
    ///
    /// # Errors
    /// When there is no such output.
    pub fn take(&mut self, name: &str) -> Result<DynValue> {
        self.values.remove(name).ok_or_else(|| self.missing(name))
    }

    /// Every output with its name.
    pub fn into_values(self) -> HashMap<String, DynValue> {
        self.values
    }

    fn missing(&self, name: &str) -> Error {
        Error::failure(format!("the {} network has no output '{name}'", self.network))
    }
}

/// A tensor that is made once and given to many runs, in the memory of the device that they run on.
///
/// # Errors
/// When there is no memory for it.
pub fn tensor(array: ArrayD<f32>, settings: &RunSettings) -> Result<DynValue> {
    let failed = |e: ort::Error| Error::failure(format!("cannot make a tensor: {e}"));
    let _leave = Leave::to_use(settings.cuda);
    let tensor = Tensor::from_array(array).map_err(failed)?;
    match settings.cuda {
        // Where it cannot be made there, every run copies it for itself.
        Some(device) => Ok(tensor.to(AllocationDevice::CUDA, device).unwrap_or(tensor).into_dyn()),
        None => Ok(tensor.into_dyn()),
    }
}

#[cfg(test)]
mod tests {
    use super::failure;

    #[test]
    fn a_lack_of_memory_is_told_as_what_to_do() {
        let arena = "Non-zero status code returned while running MatMul node. BFCArena::AllocateRawInternal Failed to \
                     allocate memory for requested buffer of size 1073741824";
        let cuda = "CUDA failure 2: out of memory ; GPU=0";
        for message in [arena, cuda, "std::bad_alloc", "CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED"] {
            let without = failure("running the guided network", message, None).to_string();
            assert!(without.contains("set a memory budget") && without.contains(message), "{without}");
            let with = failure("running the guided network", message, Some(7_500_000_000)).to_string();
            assert!(with.contains("7.50 GB") && with.contains("smaller memory budget"), "{with}");
        }
        let other = failure("running the guided network", "Invalid rank for input: latents", None).to_string();
        assert_eq!(other, "running the guided network: Invalid rank for input: latents");
    }
}
