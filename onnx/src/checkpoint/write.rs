//! Writes a bundle's weights one at a time.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::Path;

use safetensors::Dtype;
use serde_json::json;

use super::Progress;
use super::merge::{Plan, Precision, Weight};
use crate::manifest::WEIGHTS_FILE;
use crate::{Error, Result};

/// The buffer between a weight and the disk.
const BUFFER: usize = 1 << 20;
/// How many weights with NaN or infinite values are named.
const NAMED: usize = 8;

/// Writes `weights.safetensors`: the header with every tensor's place first, then the tensors, wider types first so that
/// each is aligned. Returns the file's BLAKE3 in hexadecimal, and warnings.
///
/// # Errors
/// When a tensor cannot be read, the file cannot be written, or `progress` says to stop.
pub fn weights(
    plan: &Plan,
    precision: Precision,
    path: &Path,
    progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<(String, Vec<String>)> {
    let file = File::create(path).map_err(|e| Error::io(path, e))?;
    let mut warnings = Vec::new();
    let mut hashing = Hashing { inner: file, hasher: blake3::Hasher::new() };
    stream(plan, precision, path, &mut hashing, &mut warnings, progress)?;
    hashing.inner.sync_all().map_err(|e| disk(path, e))?;
    Ok((hashing.hasher.finalize().to_hex().to_string(), warnings))
}

/// Bytes of all weights, as written.
pub fn size(plan: &Plan, precision: Precision) -> Result<u64> {
    plan.values().map(|weight| Ok(stored(weight, precision)?.1)).sum()
}

/// The type that a weight is written as, and its bytes.
fn stored(weight: &Weight, precision: Precision) -> Result<(Dtype, u64)> {
    let dtype = weight.dtype(precision)?;
    Ok((dtype, weight.tensor.shape.iter().product::<usize>() as u64 * dtype.bitsize() as u64 / 8))
}

fn stream(
    plan: &Plan,
    precision: Precision,
    path: &Path,
    output: &mut impl Write,
    warnings: &mut Vec<String>,
    progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<()> {
    let mut order = plan
        .iter()
        .map(|(name, weight)| {
            let (dtype, length) = stored(weight, precision)?;
            Ok((name, weight, dtype, length))
        })
        .collect::<Result<Vec<_>>>()?;
    order.sort_by_key(|(name, _, dtype, _)| (*dtype != Dtype::F32, *name));

    let mut header = serde_json::Map::new();
    let mut end = 0u64;
    for (name, weight, dtype, length) in &order {
        let offsets = [end, end + length];
        end += length;
        header
            .insert(name.to_string(), json!({ "dtype": dtype, "shape": weight.tensor.shape, "data_offsets": offsets }));
    }
    let mut header = serde_json::to_vec(&header).map_err(|e| Error::failure(e.to_string()))?;
    header.resize(header.len().next_multiple_of(8), b' ');

    let mut output = BufWriter::with_capacity(BUFFER, output);
    output.write_all(&(header.len() as u64).to_le_bytes()).map_err(|e| disk(path, e))?;
    output.write_all(&header).map_err(|e| disk(path, e))?;
    let (mut done, mut damaged) = (0, 0);
    for (name, weight, _, length) in order {
        if progress(Progress { what: name, done, total: end }).is_break() {
            return Err(Error::cancelled());
        }
        let computed = weight.compute(precision)?;
        if computed.bytes.len() as u64 != length {
            return Err(Error::failure(format!("weight '{name}' has {} bytes, not {length}", computed.bytes.len())));
        }
        if computed.non_finite > 0 {
            damaged += 1;
            if damaged <= NAMED {
                warnings.push(format!(
                    "{}: tensor '{}' holds {} NaN or infinite values; results will be damaged",
                    weight.tensor.set.path().display(),
                    weight.tensor.source,
                    computed.non_finite
                ));
            }
        }
        output.write_all(&computed.bytes).map_err(|e| disk(path, e))?;
        done += length;
    }
    if damaged > NAMED {
        warnings.push(format!("{} more tensors hold NaN or infinite values", damaged - NAMED));
    }
    output.flush().map_err(|e| disk(path, e))?;
    // The last word to the caller, so that 100 % is shown, and the last chance to stop.
    if progress(Progress { what: WEIGHTS_FILE, done, total: end }).is_break() {
        return Err(Error::cancelled());
    }
    Ok(())
}

/// A write that failed, of which a full disk is the usual reason.
fn disk(path: &Path, error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::FileTooLarge | std::io::ErrorKind::QuotaExceeded => {
            Error::input(format!("cannot write: {error}; make room or choose another place")).with_path(path)
        }
        _ => Error::io(path, error),
    }
}

/// Passes bytes on and hashes them.
struct Hashing<W> {
    inner: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with room for so many bytes.
    struct Disk(usize);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if self.0 == 0 {
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            let written = bytes.len().min(self.0);
            self.0 -= written;
            Ok(written)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_is_an_error_that_says_so() {
        let error = stream(
            &Plan::new(),
            Precision::Keep,
            Path::new("weights.safetensors"),
            &mut Disk(5),
            &mut Vec::new(),
            &mut |_| ControlFlow::Continue(()),
        )
        .unwrap_err();
        assert!(error.is_input());
        assert!(error.to_string().contains("make room"), "{error}");
    }
}
