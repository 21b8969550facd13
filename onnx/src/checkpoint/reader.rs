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

use crate::weights::WeightIndex;
use crate::{Error, Result};

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
    pub(super) files: Vec<(PathBuf, File)>,
    storages: Vec<Storage>,
    tensors: BTreeMap<String, Tensor>,
    metadata: HashMap<String, String>,
}

impl TensorSet {
    pub(super) fn empty(path: &Path) -> Self {
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

    pub(super) fn add_safetensors(&mut self, file: usize) -> Result<()> {
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
