//! A network whose runs are recorded once as a CUDA graph and replayed: the GPU then goes from kernel to kernel without
//! waiting for the CPU to launch each.
//!
//! A graph holds addresses. So inputs are copied into tensors of the device that stay, and outputs are written to others
//! that stay. The first run is an ordinary one, in which ONNX Runtime plans its memory; the second is recorded.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, NoSelectedOutputs, RunOptions, Session};
use ort::value::{DynTensor, DynTensorValueType, DynValue, TensorRef, ValueType};

use crate::runtime::network::Input;

/// How a run option names no graph and the one graph of a session.
const UNRECORDED: &str = "-1";
const RECORDED: &str = "1";

/// The ways in which a network runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Kernel by kernel.
    Ordinary,
    /// The same, and recorded. Meanwhile nothing else in the process may ask the device for memory.
    Recorded,
    /// As it was recorded.
    Replayed,
}

/// Held by whoever uses CUDA devices, and alone while a run is recorded: CUDA ends a recording when any thread of the
/// process asks a device for memory.
static DEVICES: RwLock<()> = RwLock::new(());

/// Leave to use CUDA devices, as long as it lives. A thread must not ask twice.
pub(crate) enum Leave {
    /// Together with others.
    Shared { _guard: RwLockReadGuard<'static, ()> },
    /// Alone.
    Alone { _guard: RwLockWriteGuard<'static, ()> },
}

impl Leave {
    /// Waits until the device may be used in such a way.
    pub(crate) fn wait(next: Next) -> Self {
        match next {
            Next::Recorded => Self::Alone { _guard: DEVICES.write().unwrap_or_else(PoisonError::into_inner) },
            Next::Ordinary | Next::Replayed => {
                Self::Shared { _guard: DEVICES.read().unwrap_or_else(PoisonError::into_inner) }
            }
        }
    }

    /// For work that is no run, where it is on a CUDA device.
    pub(crate) fn to_use(cuda: Option<i32>) -> Option<Self> {
        cuda.map(|_| Self::wait(Next::Ordinary))
    }
}

/// The tensors that stay.
pub(crate) struct Replay {
    binding: IoBinding,
    inputs: HashMap<String, DynTensor>,
    runs: usize,
}

impl Replay {
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

    /// What the next run is.
    pub(crate) fn next(&self) -> Next {
        match self.runs {
            0 => Next::Ordinary,
            1 => Next::Recorded,
            _ => Next::Replayed,
        }
    }

    /// Says to `options` whether this run is recorded.
    pub(crate) fn choose(&self, options: &mut RunOptions<NoSelectedOutputs>) -> ort::Result<()> {
        options.set("gpu_graph_id", if self.runs > 0 { RECORDED } else { UNRECORDED })
    }

    /// Copies an input to where the graph reads it.
    pub(crate) fn give(&mut self, name: &str, input: &Input) -> ort::Result<()> {
        let target = self.inputs.get_mut(name).ok_or_else(|| ort::Error::new(format!("there is no input '{name}'")))?;
        match input {
            Input::Array(array) => TensorRef::from_array_view(array.view())?.upcast_ref().copy_into(target),
            Input::Integers(array) => TensorRef::from_array_view(array.view())?.upcast_ref().copy_into(target),
            Input::Value(value) => value.view().downcast::<DynTensorValueType>()?.copy_into(target),
        }
    }

    /// Runs the network on the inputs that were given last. The outputs are on the host.
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
