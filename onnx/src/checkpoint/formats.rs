//! Which format a checkpoint file is of, by its content, and how one is opened.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::reader::TensorSet;
use super::{torch_legacy, torch_zip};
use crate::{Error, Result};

/// Bytes that are looked at to tell a file's format.
const SNIFF: u64 = 512;

impl TensorSet {
    /// Opens a `.safetensors` file or a PyTorch file (zip or legacy); the content tells which, not the name.
    ///
    /// # Errors
    /// When the file cannot be read, is of no known format, or its headers lie.
    pub fn open(path: &Path) -> Result<Self> {
        let mut set = Self::empty(path);
        set.add(path).map_err(|e| e.with_path(path))?;
        Ok(set)
    }

    /// Opens the parts of one checkpoint, named by the `weight_map` of an `….index.json`.
    ///
    /// # Errors
    /// When a part cannot be read, or a name leaves the index's folder.
    pub fn open_index(path: &Path) -> Result<Self> {
        #[derive(serde::Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let index: Index = super::config::read_json(path)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut parts: Vec<&String> = index.weight_map.values().collect();
        parts.sort();
        parts.dedup();
        let mut set = Self::empty(path);
        for part in parts {
            if part.contains(['/', '\\', ':']) || part.starts_with('.') {
                return Err(Error::input(format!("'{part}' is not a file name in this folder")).with_path(path));
            }
            let part = folder.join(part);
            set.add(&part).map_err(|e| e.with_path(&part))?;
        }
        if let Some(name) = index.weight_map.keys().find(|name| set.get(name).is_none()) {
            return Err(Error::input(format!("tensor '{name}' is in none of the files it names")).with_path(path));
        }
        Ok(set)
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        let metadata = file.metadata().map_err(|e| Error::io(path, e))?;
        if metadata.is_dir() {
            return Err(Error::input("this is a folder, a checkpoint file is wanted"));
        }
        let mut start = Vec::new();
        (&file).take(SNIFF).read_to_end(&mut start).map_err(|e| Error::io(path, e))?;
        let index = self.files.len();
        self.files.push((path.into(), file));
        match Format::of(&start, metadata.len())? {
            Format::Safetensors => self.add_safetensors(index),
            Format::TorchZip => torch_zip::add(self, index),
            Format::TorchLegacy => torch_legacy::add(self, index),
        }
    }
}

enum Format {
    Safetensors,
    TorchZip,
    TorchLegacy,
}

impl Format {
    /// Tells a checkpoint's format from its first bytes, and what a file is that only looks like one.
    fn of(start: &[u8], size: u64) -> Result<Self> {
        if start.starts_with(b"PK\x03\x04") {
            return Ok(Self::TorchZip);
        }
        if let [0x80, 2..=5, ..] = start {
            return Ok(Self::TorchLegacy);
        }
        if let Some((header, b'{')) =
            start.first_chunk::<8>().map(|h| u64::from_le_bytes(*h)).zip(start.get(8).copied())
            && (header < 1 << 40 || std::str::from_utf8(start).is_err())
        {
            return Ok(Self::Safetensors);
        }
        let message = match std::str::from_utf8(start).map(|t| t.trim_start().to_ascii_lowercase()) {
            _ if size == 0 => "the file is empty",
            Ok(text) if text.starts_with("version https://git-lfs") => {
                "this is a Git LFS pointer, not the file itself; run 'git lfs pull' or download the file"
            }
            Ok(text) if text.starts_with("<!doctype") || text.starts_with("<html") || text.starts_with("<?xml") => {
                "this is a web page, not a checkpoint; the download link led to a page (log in, or use the file's own link)"
            }
            Ok(_) => "this is a text file, not a checkpoint (.safetensors, .ckpt, .pt, .pth or .bin)",
            Err(_) if start.starts_with(b"GGUF") => "this is a GGUF file; give the .safetensors or .ckpt file instead",
            Err(_) => "this is no checkpoint (neither safetensors nor a PyTorch file)",
        };
        Err(Error::input(message))
    }
}
