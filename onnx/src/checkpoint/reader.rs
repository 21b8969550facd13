//! One set of named tensors over whatever format a file has; a tensor's bytes are read when they are asked for.
//!
//! Files are read at positions, not mapped into memory: a file that shrinks meanwhile is then an error and not a crash,
//! and no more than one tensor is resident at a time.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::Dtype;

use super::{torch_legacy, torch_zip};
use crate::weights::WeightIndex;
use crate::{Error, Result};

/// Bytes that are looked at to tell a file's format.
const SNIFF: u64 = 512;
/// Bytes read at a time while a checksum is computed.
const CHUNK: usize = 1 << 20;

/// A run of bytes in a file that tensors lie in.
#[derive(Debug)]
pub(super) struct Storage {
    /// Index into the set's files.
    pub file: usize,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// CRC-32 to be found, where the format has one.
    pub crc: Option<u32>,
    /// Whether the checksum was compared.
    pub verified: Cell<bool>,
}

/// One tensor of a checkpoint.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// Element type.
    pub dtype: Dtype,
    /// Shape.
    pub shape: Vec<usize>,
    strides: Vec<usize>,
    storage: usize,
    /// First element, counted from the start of the storage.
    offset: u64,
}

/// The tensors of a checkpoint.
#[derive(Debug)]
pub struct TensorSet {
    path: PathBuf,
    files: Vec<(PathBuf, File)>,
    storages: Vec<Storage>,
    tensors: BTreeMap<String, Tensor>,
    metadata: HashMap<String, String>,
}

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
        if let Some(name) = index.weight_map.keys().find(|name| !set.tensors.contains_key(*name)) {
            return Err(Error::input(format!("tensor '{name}' is in none of the files it names")).with_path(path));
        }
        Ok(set)
    }

    fn empty(path: &Path) -> Self {
        Self {
            path: path.into(),
            files: Vec::new(),
            storages: Vec::new(),
            tensors: BTreeMap::new(),
            metadata: HashMap::new(),
        }
    }

    /// The file, or the index of the files.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file says of itself, by keys; only safetensors files say anything.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// The names of the tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// A tensor's type and shape, if it is there.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// A tensor's elements in row-major order, little-endian.
    ///
    /// # Errors
    /// When there is no such tensor, its type is none of floats and integers, the file cannot be read, or a checksum is
    /// wrong.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let tensor =
            self.get(name).ok_or_else(|| Error::input(format!("tensor '{name}' is missing")).with_path(&self.path))?;
        self.read_tensor(name, tensor).map_err(|e| e.with_path(&self.path))
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

    fn add_safetensors(&mut self, file: usize) -> Result<()> {
        let weights = WeightIndex::open(&self.files[file].0)?;
        self.metadata.extend(weights.metadata().clone());
        for name in weights.names() {
            let info = weights.require(name)?;
            let storage = self.push_storage(Storage {
                file,
                offset: info.offset,
                length: info.length,
                crc: None,
                verified: Cell::new(true),
            });
            self.push(name, info.dtype, info.shape.clone(), contiguous(&info.shape), storage, 0)?;
        }
        Ok(())
    }

    pub(super) fn file(&self, index: usize) -> &File {
        &self.files[index].1
    }

    pub(super) fn push_storage(&mut self, storage: Storage) -> usize {
        self.storages.push(storage);
        self.storages.len() - 1
    }

    /// Adds a tensor after checking that all its elements lie in its storage and none of them twice.
    pub(super) fn push(
        &mut self,
        name: &str,
        dtype: Dtype,
        shape: Vec<usize>,
        strides: Vec<usize>,
        storage: usize,
        offset: u64,
    ) -> Result<()> {
        let bad = |what: &str| Error::input(format!("tensor '{name}': {what}"));
        if shape.len() != strides.len() {
            return Err(bad("its shape and strides differ in length"));
        }
        let length = self.storages[storage].length;
        // Types without whole-byte elements are of no use here; they may lie around, unread.
        if let Some(size) = element_size(dtype) {
            let available = length / size as u64;
            let outside = || bad(&format!("it reaches outside its storage of {available} elements"));
            let count = shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d as u64)).ok_or_else(outside)?;
            if count > 0 {
                let last = shape
                    .iter()
                    .zip(&strides)
                    .try_fold(offset, |end, (d, s)| (*d as u64 - 1).checked_mul(*s as u64)?.checked_add(end))
                    .ok_or_else(outside)?;
                if last >= available {
                    return Err(outside());
                }
                if count > available {
                    return Err(bad("its strides make its elements overlap"));
                }
            }
        }
        let tensor = Tensor { dtype, shape, strides, storage, offset };
        if self.tensors.insert(name.to_string(), tensor).is_some() {
            return Err(bad("it is there twice"));
        }
        Ok(())
    }

    fn read_tensor(&self, name: &str, tensor: &Tensor) -> Result<Vec<u8>> {
        let size = element_size(tensor.dtype)
            .ok_or_else(|| Error::input(format!("tensor '{name}': its type {:?} is not supported", tensor.dtype)))?;
        let storage = &self.storages[tensor.storage];
        self.verify(name, storage)?;
        let count: usize = tensor.shape.iter().product();
        if count == 0 {
            return Ok(Vec::new());
        }
        let span = tensor.shape.iter().zip(&tensor.strides).map(|(d, s)| (d - 1) * s).sum::<usize>() + 1;
        let mut bytes = vec![0; span * size];
        self.read_at(storage, tensor.offset * size as u64, &mut bytes)?;
        Ok(if is_contiguous(&tensor.shape, &tensor.strides) {
            bytes
        } else {
            gather(&bytes, size, &tensor.shape, &tensor.strides)
        })
    }

    fn read_at(&self, storage: &Storage, offset: u64, bytes: &mut [u8]) -> Result<()> {
        let (path, mut file) = (&self.files[storage.file].0, &self.files[storage.file].1);
        file.seek(SeekFrom::Start(storage.offset + offset))
            .and_then(|_| file.read_exact(bytes))
            .map_err(|e| Error::io(path, e))
    }

    /// Compares a storage's checksum, once.
    fn verify(&self, name: &str, storage: &Storage) -> Result<()> {
        let (Some(expected), false) = (storage.crc, storage.verified.get()) else { return Ok(()) };
        let mut hasher = crc32fast::Hasher::new();
        let mut chunk = vec![0; CHUNK];
        let mut done = 0;
        while done < storage.length {
            let part = (storage.length - done).min(CHUNK as u64) as usize;
            self.read_at(storage, done, &mut chunk[..part])?;
            hasher.update(&chunk[..part]);
            done += part as u64;
        }
        if hasher.finalize() != expected {
            return Err(Error::input(format!(
                "the archive is damaged: the checksum (CRC) of tensor '{name}' is wrong; download the file again"
            )));
        }
        storage.verified.set(true);
        Ok(())
    }
}

/// Bytes of an element, for the types that PyTorch writes and this library reads.
pub(super) fn element_size(dtype: Dtype) -> Option<usize> {
    Some(match dtype {
        Dtype::F64 | Dtype::I64 | Dtype::U64 => 8,
        Dtype::F32 | Dtype::I32 | Dtype::U32 => 4,
        Dtype::F16 | Dtype::BF16 | Dtype::I16 | Dtype::U16 => 2,
        Dtype::I8 | Dtype::U8 | Dtype::BOOL => 1,
        _ => return None,
    })
}

/// Row-major strides. Where the shape overflows they do not matter: [`TensorSet::push`] refuses it.
pub(super) fn contiguous(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i].saturating_mul(shape[i]);
    }
    strides
}

fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    shape.iter().zip(strides).zip(contiguous(shape)).all(|((d, s), c)| *d == 1 || *s == c)
}

/// Copies strided elements into row-major order.
fn gather(bytes: &[u8], size: usize, shape: &[usize], strides: &[usize]) -> Vec<u8> {
    let count: usize = shape.iter().product();
    let mut out = Vec::with_capacity(count * size);
    let mut position = vec![0; shape.len()];
    for _ in 0..count {
        let from = size * position.iter().zip(strides).map(|(p, s)| p * s).sum::<usize>();
        out.extend_from_slice(&bytes[from..from + size]);
        for axis in (0..shape.len()).rev() {
            position[axis] += 1;
            if position[axis] < shape[axis] {
                break;
            }
            position[axis] = 0;
        }
    }
    out
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
