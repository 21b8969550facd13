//! Runs captured once as a CUDA graph and replayed: the GPU then goes from kernel to kernel without waiting for the CPU to
//! launch each.
//!
//! A graph holds addresses. So inputs are copied into tensors of the device that stay, and outputs are written to others
//! that stay. The first run is eager, in which ONNX Runtime plans its memory; the second is captured.

use std::collections::HashMap;

use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, NoSelectedOutputs, RunOptions, Session};
use ort::value::{DynTensor, DynTensorValueType, DynValue, TensorRef, ValueType};

use super::tensor::Input;

/// Run option values: no graph, and the one graph of a session.
const NO_GRAPH: &str = "-1";
const GRAPH: &str = "1";

/// The way in which a network runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunMode {
    /// Kernel by kernel.
    Eager,
    /// The same, while the launches are captured. Meanwhile nothing else in the process may ask a device for memory.
    Capture,
    /// The captured launches, given to the GPU at once.
    Replay,
}

/// A session's graph, with the tensors at its addresses.
pub(crate) struct CudaGraph {
    binding: IoBinding,
    inputs: HashMap<String, DynTensor>,
    runs: usize,
}

impl CudaGraph {
    /// For a session on a CUDA device whose inputs and outputs have fixed shapes.
    pub(crate) fn new(session: &Session, device: i32) -> ort::Result<Self> {
        let memory = MemoryInfo::new(AllocationDevice::CUDA, device, AllocatorType::Device, MemoryType::Default)?;
        let allocator = Allocator::new(session, memory)?;
        let allocate = |name: &str, kind: &ValueType| match kind {
            ValueType::Tensor { ty, shape, .. } => DynTensor::new(&allocator, *ty, shape.clone()),
            other => Err(ort::Error::new(format!("'{name}' is no tensor: {other:?}"))),
        };
        let mut binding = session.create_binding()?;
        let mut inputs = HashMap::new();
        for input in session.inputs() {
            let tensor = allocate(input.name(), input.dtype())?;
            binding.bind_input(input.name(), &tensor)?;
            inputs.insert(input.name().to_string(), tensor);
        }
        for output in session.outputs() {
            binding.bind_output(output.name(), allocate(output.name(), output.dtype())?)?;
        }
        Ok(Self { binding, inputs, runs: 0 })
    }

    /// The next run's mode.
    pub(crate) fn next(&self) -> RunMode {
        match self.runs {
            0 => RunMode::Eager,
            1 => RunMode::Capture,
            _ => RunMode::Replay,
        }
    }

    /// Sets the next run's mode in its options.
    pub(crate) fn choose(&self, options: &mut RunOptions<NoSelectedOutputs>) -> ort::Result<()> {
        options.set("gpu_graph_id", if self.runs > 0 { GRAPH } else { NO_GRAPH })
    }

    /// Copies an input to where the graph reads it.
    pub(crate) fn set_input(&mut self, name: &str, input: &Input) -> ort::Result<()> {
        let target = self.inputs.get_mut(name).ok_or_else(|| ort::Error::new(format!("there is no input '{name}'")))?;
        match input {
            Input::Array(array) => TensorRef::from_array_view(array.view())?.upcast_ref().copy_into(target),
            Input::Integers(array) => TensorRef::from_array_view(array.view())?.upcast_ref().copy_into(target),
            Input::Value(value) => value.view().downcast::<DynTensorValueType>()?.copy_into(target),
        }
    }

    /// Runs the network on the inputs that were set last. The outputs are on the host.
    pub(crate) fn run(
        &mut self,
        session: &mut Session,
        options: &RunOptions<NoSelectedOutputs>,
    ) -> ort::Result<HashMap<String, DynValue>> {
        let mut outputs = session.run_binding_with_options(&self.binding, options)?;
        self.runs += 1;
        let names: Vec<String> = outputs.keys().map(str::to_string).collect();
        let mut values = HashMap::new();
        for name in names {
            if let Some(value) = outputs.remove(&name) {
                let tensor = value.downcast::<DynTensorValueType>()?.to(AllocationDevice::CPU, 0)?;
                values.insert(name, tensor.into_dyn());
            }
        }
        Ok(values)
    }
}
