//! The project's own GPU kernels as operators of ONNX Runtime.
//!
//! A node of the domain `motionclone` says which variant of its kernel runs, in how many blocks, and with which numbers
//! behind the tensors; the tensors' types are those of the operator's [`Signature`]. All that is looked up once, when a
//! network is loaded, so that a run only collects addresses and launches.

mod driver;
mod target;

use std::ptr::null_mut;

use motionclone_onnx::graph::Element;
use motionclone_onnx::graph::cuda::Fused;
use motionclone_onnx::graph::kernel::{SIGNATURES, Signature};
use motionclone_onnx::graph::write::KERNEL_DOMAIN;
use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput};
use ort::value::{DynTensorValueType, Shape, TensorElementType};

use crate::error::Result;
pub(crate) use driver::{CudaDevice, DeviceMemory};
use target::Target;

/// Those of the kernels that a lowering uses which run on a CUDA device, and why others do not.
pub(crate) fn usable(device: i32, fused: Fused) -> (Fused, Option<String>) {
    if !fused.has_kernels() {
        return (fused, None);
    }
    match CudaDevice::with_kernels(device).and_then(CudaDevice::too_large) {
        Err(reason) => (fused.without_kernels(), Some(reason.to_string())),
        Ok(large) => {
            let rest = large.iter().fold(fused, |fused, (name, _)| fused.without_kernel(name));
            (rest, large.into_iter().next().map(|(_, reason)| reason))
        }
    }
}

/// The operators for networks on a CUDA device.
///
/// # Errors
/// When the kernels do not run there, or ONNX Runtime does not take an operator.
pub(crate) fn operators(device: i32) -> ort::Result<OperatorDomain> {
    operators_on(CudaDevice::with_kernels(device).map_err(told)?)
}

fn operators_on<T: Target>(target: T) -> ort::Result<OperatorDomain> {
    SIGNATURES.iter().try_fold(OperatorDomain::new(KERNEL_DOMAIN)?, |domain, signature| {
        domain.add(KernelOperator { signature, target: target.clone() })
    })
}

struct KernelOperator<T> {
    signature: &'static Signature,
    target: T,
}

impl<T: Target> Operator for KernelOperator<T> {
    type Kernel<'attr> = Launch<T>;

    fn name(&self) -> &str {
        self.signature.name
    }

    fn versions(&self) -> std::ops::RangeInclusive<u32> {
        1..=1
    }

    fn execution_provider_type(&self) -> Option<&str> {
        T::PROVIDER
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        self.signature.inputs.iter().map(|element| OperatorInput::required(element_type(*element)))
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        self.signature.outputs.iter().map(|element| OperatorOutput::required(element_type(*element)))
    }

    fn create_kernel<'attr>(&self, node: &KernelContext<'attr>) -> ort::Result<Launch<T>> {
        let missing = |name: &str| ort::Error::new(format!("{} has no '{name}' that is valid", self.signature.name));
        let variant: String = node.get("variant").ok_or_else(|| missing("variant"))?;
        let grid: Vec<i64> = node.get("grid").ok_or_else(|| missing("grid"))?;
        let grid: Vec<u32> = grid.into_iter().flat_map(u32::try_from).collect();
        let integers: Vec<i64> = node.get("integers").ok_or_else(|| missing("integers"))?;
        let integers = integers.into_iter().map(i32::try_from).collect::<Result<Vec<_>, _>>();
        // ONNX Runtime gives no list that is empty.
        let floats: Vec<f32> = node.get("floats").unwrap_or_default();
        let outputs = (0..self.signature.outputs.len()).map(|at| {
            let name = format!("output_{at}");
            let shape: Vec<i64> = node.get(&name).ok_or_else(|| missing(&name))?;
            Ok(Shape::new(shape))
        });
        let outputs = outputs.collect::<ort::Result<Vec<Shape>>>()?;
        let tensors = self.signature.inputs.len() + self.signature.outputs.len();
        let mut parameters = vec![0; tensors];
        parameters.extend(integers.map_err(|_| missing("integers"))?.into_iter().map(|n| u64::from(n.cast_unsigned())));
        parameters.extend(floats.into_iter().map(|n| u64::from(n.to_bits())));
        // Two addresses that Triton's kernels take for scratch memory, which these do not use.
        parameters.extend([0; 2]);
        Ok(Launch {
            program: self.target.program(self.signature.kernel, &variant).map_err(told)?,
            target: self.target.clone(),
            grid: grid.try_into().map_err(|_| missing("grid"))?,
            inputs: self.signature.inputs.len(),
            outputs,
            parameters,
        })
    }
}

/// A node, ready to run.
struct Launch<T: Target> {
    target: T,
    program: T::Program,
    grid: [u32; 3],
    inputs: usize,
    outputs: Vec<Shape>,
    /// The addresses of inputs and outputs, which each run fills in, and what follows them.
    parameters: Vec<u64>,
}

impl<T: Target> Kernel for Launch<T> {
    fn compute(&mut self, run: &ComputeContext) -> ort::Result<()> {
        let missing = |what: &str, at: usize| ort::Error::new(format!("{what} {at} is missing"));
        for at in 0..self.inputs {
            let value = run.input(at)?.ok_or_else(|| missing("input", at))?;
            self.parameters[at] = value.downcast::<DynTensorValueType>()?.data_ptr().expose_provenance() as u64;
        }
        for (at, shape) in self.outputs.iter().enumerate() {
            let value = run.output(at, shape.clone())?.ok_or_else(|| missing("output", at))?;
            let address = value.downcast::<DynTensorValueType>()?.data_ptr().expose_provenance();
            self.parameters[self.inputs + at] = address as u64;
        }
        let stream = match T::PROVIDER {
            Some(_) => run.stream()?.map_or(null_mut(), |stream| stream.as_ptr()),
            None => null_mut(),
        };
        self.target.launch(self.program, self.grid, stream, &mut self.parameters).map_err(told)
    }
}

fn element_type(element: Element) -> TensorElementType {
    match element {
        Element::Float32 => TensorElementType::Float32,
        Element::Float16 => TensorElementType::Float16,
        Element::Int64 => TensorElementType::Int64,
    }
}

fn told(e: crate::Error) -> ort::Error {
    ort::Error::new(e.to_string())
}

#[cfg(test)]
mod tests;
