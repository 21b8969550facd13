//! Between the element types of checkpoints and those of bundles.

use half::{bf16, f16};
use safetensors::Dtype;

use crate::{Error, Result};

/// Little-endian floats of any width as float32.
///
/// # Errors
/// When the type is no float.
pub fn to_f32(bytes: &[u8], dtype: Dtype) -> Result<Vec<f32>> {
    Ok(match dtype {
        Dtype::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::F16 => bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::BF16 => bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::F64 => bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        other => return Err(Error::input(format!("elements of type {other:?} where floats are wanted"))),
    })
}

/// Float32 as little-endian bytes.
pub fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Float32 as little-endian float16.
///
/// # Errors
/// The first finite value that float16 cannot hold.
pub fn f16_bytes(values: &[f32]) -> Result<Vec<u8>, f32> {
    let mut bytes = Vec::with_capacity(2 * values.len());
    for &value in values {
        let half = f16::from_f32(value);
        if half.is_infinite() && value.is_finite() {
            return Err(value);
        }
        bytes.extend_from_slice(&half.to_le_bytes());
    }
    Ok(bytes)
}

/// How many little-endian floats are NaN or infinite: those whose exponent bits are all set.
pub fn count_non_finite(bytes: &[u8], dtype: Dtype) -> usize {
    match dtype {
        Dtype::F16 => bytes.as_chunks().0.iter().filter(|b| u16::from_le_bytes(**b) & 0x7c00 == 0x7c00).count(),
        Dtype::F32 => bytes.as_chunks().0.iter().filter(|b| !f32::from_le_bytes(**b).is_finite()).count(),
        _ => 0,
    }
}
