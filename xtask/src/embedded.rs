//! The bundle of the embedded model, which library and program find beside them.

use std::path::{Path, PathBuf};

use crate::{Result, copy, root};

/// Every file of the bundle.
const FILES: [&str; 4] = ["manifest.json", "weights.safetensors", "tokenizer/vocab.json", "tokenizer/merges.txt"];

/// Where it lies in the repository.
pub fn bundle() -> PathBuf {
    root().join("onnx/demo/bundle")
}

/// Copies it into a folder, which is made.
pub fn copy_to(folder: &Path) -> Result<()> {
    FILES.iter().try_for_each(|file| copy(&bundle().join(file), &folder.join(file)))
}
