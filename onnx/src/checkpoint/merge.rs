//! The plan of a bundle: which tensor of which file each weight is, and what is added to it. Nothing is read until a
//! weight is written.

use std::collections::BTreeMap;
use std::str::FromStr;

use safetensors::Dtype;

use super::addition::Addition;
use super::convert::{count_non_finite, f16_bytes, f32_bytes, to_f32};
use super::names::Named;
use crate::{Error, Result};

/// The element type of a bundle's weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// As in the checkpoints: float16 and float32 stay; bfloat16, float64 and merged weights become float32.
    #[default]
    Keep,
    /// Everything in float16.
    Float16,
    /// Everything in float32.
    Float32,
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "keep" => Ok(Self::Keep),
            "f16" => Ok(Self::Float16),
            "f32" => Ok(Self::Float32),
            other => Err(format!("'{other}' is no precision; keep, f16 and f32 are")),
        }
    }
}

/// A weight of the bundle.
#[derive(Debug, Clone)]
pub struct Weight {
    /// Where it comes from.
    pub tensor: Named,
    /// What is added to it, in this order.
    pub additions: Vec<Addition>,
}

/// Weights by their names in the bundle.
pub type Plan = BTreeMap<String, Weight>;

/// A weight's bytes, ready to be written.
pub struct Computed {
    /// Little-endian elements.
    pub bytes: Vec<u8>,
    /// How many of them are NaN or infinite.
    pub non_finite: usize,
}

impl Weight {
    /// A weight that is a tensor as it is.
    pub fn new(tensor: Named) -> Self {
        Self { tensor, additions: Vec::new() }
    }

    fn source_dtype(&self) -> Option<Dtype> {
        self.tensor.set.get(&self.tensor.source).map(|t| t.dtype)
    }

    /// The element type in the bundle.
    ///
    /// # Errors
    /// When the tensor does not hold floats.
    pub fn dtype(&self, precision: Precision) -> Result<Dtype> {
        let source = match self.source_dtype() {
            Some(dtype @ (Dtype::F16 | Dtype::F32 | Dtype::BF16 | Dtype::F64)) => dtype,
            other => {
                let other = other.map_or_else(String::new, |d| format!(" {d:?}"));
                return Err(Error::input(format!(
                    "tensor '{}' has elements of type{other}; float16, bfloat16, float32 and float64 are supported",
                    self.tensor.source
                ))
                .with_path(self.tensor.set.path()));
            }
        };
        Ok(match precision {
            Precision::Float16 => Dtype::F16,
            Precision::Keep if source == Dtype::F16 && self.additions.is_empty() => Dtype::F16,
            Precision::Keep | Precision::Float32 => Dtype::F32,
        })
    }

    /// Reads the tensor, adds what is to be added in float32, and converts the result.
    ///
    /// # Errors
    /// When a file cannot be read, or a value does not fit float16.
    pub fn compute(&self, precision: Precision) -> Result<Computed> {
        let (dtype, source) = (self.dtype(precision)?, self.source_dtype().unwrap_or(Dtype::F32));
        let path = self.tensor.set.path();
        let mut bytes = self.tensor.set.read(&self.tensor.source)?;
        if dtype != source || !self.additions.is_empty() {
            let mut values = to_f32(&bytes, source).map_err(|e| e.with_path(path))?;
            drop(bytes);
            for addition in &self.additions {
                addition.add_to(&mut values, &self.tensor.shape)?;
            }
            bytes = match dtype {
                Dtype::F16 => f16_bytes(&values).map_err(|value| {
                    Error::input(format!(
                        "tensor '{}' holds {value}, more than float16's 65504; import in float32 or keep the precision",
                        self.tensor.source
                    ))
                    .with_path(path)
                })?,
                _ => f32_bytes(&values),
            };
        }
        Ok(Computed { non_finite: count_non_finite(&bytes, dtype), bytes })
    }
}
