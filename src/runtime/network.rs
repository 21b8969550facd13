//! A network: an ONNX model, loaded on a device.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ort::session::{RunOptions, Session, SessionInputValue};
use ort::value::TensorRef;

use super::cuda_graph::{CudaGraph, RunMode};
use super::device::DeviceGuard;
use super::library::Runtime;
use super::options::{RunSettings, failure};
use super::provider;
use super::shared_weights::Weights;
use super::tensor::{Input, Outputs};
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// One network, loaded.
pub struct Network {
    /// Before the session, which it belongs to.
    graph: Option<CudaGraph>,
    session: Session,
    /// What the session reads, until it is gone.
    _weights: Weights,
    name: String,
    cuda: Option<i32>,
    /// The device, as run options name it.
    device: String,
    budget: Option<u64>,
    /// Whether memory that is not used any more goes back to the device after the next run.
    gives_back: bool,
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
        let RunSettings { cuda, budget, .. } = *settings;
        let _guard = DeviceGuard::shared(cuda);
        let session = provider::session(runtime, model, folder, &mut weights, settings).map_err(failed)?;
        let graph = cuda.filter(|_| settings.cuda_graph);
        let graph = graph.map(|device| CudaGraph::new(&session, device)).transpose().map_err(failed)?;
        let device = cuda.map_or_else(|| "cpu:0".into(), |device| format!("gpu:{device}"));
        // A network plans its memory in the first run; what that run took without a plan is of no use to the later ones.
        let gives_back = true;
        Ok(Self { graph, session, _weights: weights, name: name.into(), cuda, device, budget, gives_back })
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
        let mode = self.graph.as_ref().map_or(RunMode::Eager, CudaGraph::next);
        let _guard = match mode {
            RunMode::Capture => DeviceGuard::exclusive(self.cuda),
            RunMode::Eager | RunMode::Replay => DeviceGuard::shared(self.cuda),
        };
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
            (Some(_), Some(_)) => true,
            // There memory goes back at once, and nothing is kept to give.
            (None, Some(_)) => false,
        };
        if gives_back {
            options.set("memory.enable_memory_arena_shrinkage", &self.device).map_err(failed)?;
        }
        if let Some(graph) = &mut self.graph {
            graph.choose(&mut options).map_err(failed)?;
            for (name, input) in inputs {
                graph.set_input(name, input).map_err(failed)?;
            }
        }
        let options = Arc::new(options);
        let run = options.clone();
        // Otherwise the run ends by itself, and the cancellation is seen behind it: half a captured graph would be of no
        // use, and a replay ends no sooner.
        let terminates = mode == RunMode::Eager;
        let stop = move || {
            if terminates {
                drop(run.terminate())
            }
        };
        if let Some(graph) = &mut self.graph {
            let values = cancel.stoppable(stop, || graph.run(&mut self.session, &options))?.map_err(failed)?;
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
