//! Where each tensor lies in `weights.safetensors`: graphs refer to weights by file offset, so only the header is read.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use safetensors::Dtype;
use safetensors::tensor::Metadata;

use crate::{Error, Result};

/// A header longer than this is refused (the safetensors format's own limit is 100 MB).
const MAX_HEADER: u64 = 100_000_000;

/// One tensor's type, shape and place in the file.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightInfo {
    /// Element type.
    pub dtype: Dtype,
    /// Shape.
    pub shape: Vec<usize>,
    /// Bytes from the start of the file.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// The header of a safetensors file.
#[derive(Debug, Clone)]
pub struct WeightIndex {
    path: PathBuf,
    tensors: HashMap<String, WeightInfo>,
    metadata: HashMap<String, String>,
}

impl WeightIndex {
    /// Reads and checks a safetensors header: sizes, types, and that every tensor lies within the file.
    ///
    /// # Errors
    /// When the file cannot be read, is truncated, or its header is not valid.
    pub fn open(path: &Path) -> Result<Self> {
        let bad = |message: String| Error::input(message).with_path(path);
        let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
        let size = file.metadata().map_err(|e| Error::io(path, e))?.len();
        let mut prefix = [0; 8];
        file.read_exact(&mut prefix).map_err(|_| bad(format!("not a safetensors file: {size} bytes long")))?;
        let header = u64::from_le_bytes(prefix);
        if header > MAX_HEADER || header > size - 8 {
            return Err(bad(format!("its header claims {header} bytes, the file has {size}")));
        }
        let mut bytes = vec![0; header as usize];
        file.read_exact(&mut bytes).map_err(|e| Error::io(path, e))?;
        // Deserializing checks that the tensors follow each other without gaps and have the sizes of their shapes.
        let metadata: Metadata =
            serde_json::from_slice(&bytes).map_err(|e| bad(format!("not a valid safetensors header: {e}")))?;
        let start = 8 + header;
        let mut tensors = HashMap::new();
        for (name, info) in metadata.tensors() {
            let (from, to) = info.data_offsets;
            if to as u64 > size - start {
                return Err(bad(format!(
                    "truncated: tensor '{name}' ends at byte {to} of {} that the file has for tensors",
                    size - start
                )));
            }
            tensors.insert(
                name,
                WeightInfo {
                    dtype: info.dtype,
                    shape: info.shape.clone(),
                    offset: start + from as u64,
                    length: (to - from) as u64,
                },
            );
        }
        let metadata = metadata.metadata().clone().unwrap_or_default();
        Ok(Self { path: path.into(), tensors, metadata })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file says of itself, by keys (`__metadata__`).
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.metadata
    }

    /// A tensor's entry, if it is there.
    pub fn get(&self, name: &str) -> Option<&WeightInfo> {
        self.tensors.get(name)
    }

    /// A tensor's entry.
    ///
    /// # Errors
    /// When no tensor has this name.
    pub fn require(&self, name: &str) -> Result<&WeightInfo> {
        self.get(name).ok_or_else(|| Error::input(format!("weight '{name}' is missing")).with_path(&self.path))
    }

    /// Every tensor's name, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }
}
