//! PyTorch's file format before 1.6: pickles one after the other (magic number, version, system, the object, the keys of
//! its storages), then for each key the number of elements and the elements.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};

use super::pickle::Pickle;
use super::reader::{Storage, TensorSet, element_size};
use crate::{Error, Result};

const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;
const VERSION: i128 = 1001;

/// Adds the tensors of the set's file `file`.
pub(super) fn add(set: &mut TensorSet, file: usize) -> Result<()> {
    let size = set.file(file).metadata().map_err(|e| Error::failure(e.to_string()))?.len();
    set.file(file).seek(SeekFrom::Start(0)).map_err(|e| Error::failure(e.to_string()))?;
    let mut input = BufReader::new(set.file(file));
    if Pickle::read(&mut input)?.integer() != Some(MAGIC) {
        return Err(Error::input("a pickle, but not one of PyTorch"));
    }
    if Pickle::read(&mut input)?.integer() != Some(VERSION) {
        return Err(Error::input("an unknown version of PyTorch's legacy format"));
    }
    if Pickle::read(&mut input)?.flag("little_endian") != Some(true) {
        return Err(Error::input("its numbers are big-endian; save it on a little-endian machine"));
    }
    let pickle = Pickle::read(&mut input)?;
    let keys = Pickle::read(&mut input)?;
    let tensors = pickle.tensors()?;
    let sizes: HashMap<&str, usize> =
        pickle.storages().filter_map(|storage| Some((storage.key.as_str(), element_size(storage.dtype)?))).collect();

    // The storages follow in the order of their keys. Each says how many elements it has, so its type must be known.
    let mut found = HashMap::new();
    for key in keys.texts()? {
        let truncated = || Error::input(format!("truncated: storage '{key}' reaches past the end of the file"));
        let mut count = [0; 8];
        input.read_exact(&mut count).map_err(|_| truncated())?;
        let elements = u64::try_from(i64::from_le_bytes(count)).map_err(|_| truncated())?;
        let element =
            *sizes.get(key).ok_or_else(|| Error::input(format!("storage '{key}' belongs to no tensor")))? as u64;
        let offset = input.stream_position().map_err(|e| Error::failure(e.to_string()))?;
        let length = elements.checked_mul(element).ok_or_else(truncated)?;
        let end = offset.checked_add(length).filter(|end| *end <= size).ok_or_else(truncated)?;
        input.seek(SeekFrom::Start(end)).map_err(|e| Error::failure(e.to_string()))?;
        found.insert(key, (elements, Storage { file, offset, length, crc: None, verified: Cell::new(true) }));
    }
    if !input.fill_buf().map_err(|e| Error::failure(e.to_string()))?.is_empty() {
        return Err(Error::input("there is more in the file than its storages"));
    }

    let mut indices = HashMap::new();
    for (name, tensor) in tensors {
        let key = tensor.storage.key.as_str();
        let index = match indices.get(key) {
            Some(index) => *index,
            None => {
                let (elements, storage) = found
                    .remove(key)
                    .ok_or_else(|| Error::input(format!("tensor '{name}': the file lacks its storage '{key}'")))?;
                if elements != tensor.storage.elements {
                    return Err(Error::input(format!(
                        "tensor '{name}': its storage declares {} elements, the file has {elements}",
                        tensor.storage.elements
                    )));
                }
                *indices.entry(key).or_insert(set.push_storage(storage))
            }
        };
        let offset = tensor
            .offset
            .checked_add(tensor.storage.offset)
            .ok_or_else(|| Error::input(format!("tensor '{name}': it reaches outside its storage")))?;
        set.push(name, tensor.storage.dtype, tensor.shape.clone(), tensor.strides.clone(), index, offset)?;
    }
    Ok(())
}
