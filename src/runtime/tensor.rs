//! Tensors that networks take and give.

use std::collections::HashMap;

use ndarray::{ArrayD, ArrayViewD};
use ort::memory::AllocationDevice;
use ort::value::{DynValue, Tensor};

use super::device::DeviceGuard;
use super::options::RunSettings;
use crate::error::{Error, Result};

/// A network's input.
pub enum Input<'a> {
    /// Values in the host's memory.
    Array(&'a ArrayD<f32>),
    /// Integers in the host's memory.
    Integers(&'a ArrayD<i64>),
    /// A value that ONNX Runtime holds: another network's output, or a tensor made once for many runs.
    Value(&'a DynValue),
}

/// A network's outputs by name.
pub struct Outputs {
    pub(super) values: HashMap<String, DynValue>,
    pub(super) network: String,
}

impl Outputs {
    /// An output's values, copied to the host.
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
    let _guard = DeviceGuard::shared(settings.cuda);
    let tensor = Tensor::from_array(array).map_err(failed)?;
    match settings.cuda {
        // Where it cannot be made there, every run copies it for itself.
        Some(device) => Ok(tensor.to(AllocationDevice::CUDA, device).unwrap_or(tensor).into_dyn()),
        None => Ok(tensor.into_dyn()),
    }
}
