//! PyTorch's file format since 1.6: a zip archive with a pickle (`NAME/data.pkl`) and a file a storage (`NAME/data/0`).
//!
//! PyTorch stores every entry uncompressed and so do we read them: an archive cannot unpack to more than its own size.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom};

use zip::{CompressionMethod, ZipArchive};

use super::pickle::{MAX_BYTES, Pickle};
use super::reader::{Storage, TensorSet, element_size};
use crate::{Error, Result};

/// Where an entry's bytes lie in the archive.
struct Entry {
    offset: u64,
    length: u64,
    crc: u32,
    stored: bool,
}

/// Adds the tensors of the set's file `file`.
pub(super) fn add(set: &mut TensorSet, file: usize) -> Result<()> {
    let entries = entries(set, file)?;
    let pickle_name = entries
        .keys()
        .filter(|name| *name == "data.pkl" || name.ends_with("/data.pkl"))
        .min_by_key(|name| name.len())
        .ok_or_else(|| Error::input("a zip archive, but not one of PyTorch: it has no data.pkl"))?;
    let root = pickle_name.strip_suffix("data.pkl").unwrap_or_default().to_string();
    if entries.contains_key(&format!("{root}constants.pkl")) {
        return Err(Error::input("this is a TorchScript program, not a checkpoint"));
    }
    if let Some(order) = entries.get(&format!("{root}byteorder"))
        && read(set, file, order, "byteorder")? != b"little"
    {
        return Err(Error::input("its numbers are big-endian; save it on a little-endian machine"));
    }
    let bytes = read(set, file, &entries[pickle_name], "data.pkl")?;
    let pickle = Pickle::read(Cursor::new(bytes))?;
    let mut storages: HashMap<String, usize> = HashMap::new();
    for (name, tensor) in pickle.tensors()? {
        let key = &tensor.storage.key;
        let entry = entries
            .get(&format!("{root}data/{key}"))
            .ok_or_else(|| Error::input(format!("tensor '{name}': the archive lacks its storage '{key}'")))?;
        require_stored(entry, key)?;
        let declared = element_size(tensor.storage.dtype).and_then(|s| tensor.storage.elements.checked_mul(s as u64));
        if declared != Some(entry.length) {
            return Err(Error::input(format!(
                "tensor '{name}': its storage declares {} elements of {:?}, the archive has {} bytes",
                tensor.storage.elements, tensor.storage.dtype, entry.length
            )));
        }
        let storage = *storages.entry(key.clone()).or_insert_with(|| {
            set.push_storage(Storage {
                file,
                offset: entry.offset,
                length: entry.length,
                crc: Some(entry.crc),
                verified: Cell::new(false),
            })
        });
        let offset = tensor
            .offset
            .checked_add(tensor.storage.offset)
            .ok_or_else(|| Error::input(format!("tensor '{name}': it reaches outside its storage")))?;
        set.push(name, tensor.storage.dtype, tensor.shape.clone(), tensor.strides.clone(), storage, offset)?;
    }
    Ok(())
}

fn entries(set: &TensorSet, file: usize) -> Result<HashMap<String, Entry>> {
    let damaged =
        |e: zip::result::ZipError| Error::input(format!("a damaged zip archive ({e}); the download may be incomplete"));
    let file = set.file(file);
    let size = file.metadata().map_err(|e| Error::failure(e.to_string()))?.len();
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(damaged)?;
    let mut entries = HashMap::new();
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(damaged)?;
        let name = entry.name().map_err(damaged)?.into_owned();
        let stored = entry.compression() == CompressionMethod::Stored && entry.size() == entry.compressed_size();
        let (offset, length) = (entry.data_start().unwrap_or(u64::MAX), entry.size());
        if stored && offset.checked_add(length).is_none_or(|end| end > size) {
            return Err(Error::input(format!(
                "a damaged zip archive: entry '{name}' reaches past the end of the file"
            )));
        }
        entries.insert(name, Entry { offset, length, crc: entry.crc32(), stored });
    }
    Ok(entries)
}

fn require_stored(entry: &Entry, name: &str) -> Result<()> {
    if entry.stored {
        return Ok(());
    }
    Err(Error::input(format!("entry '{name}' of the archive is compressed or encrypted, which PyTorch never does")))
}

/// A small entry's bytes.
fn read(set: &TensorSet, file: usize, entry: &Entry, name: &str) -> Result<Vec<u8>> {
    require_stored(entry, name)?;
    if entry.length > MAX_BYTES {
        return Err(Error::input(format!("entry '{name}' of the archive has {} bytes", entry.length)));
    }
    let mut file = set.file(file);
    let mut bytes = vec![0; entry.length as usize];
    file.seek(SeekFrom::Start(entry.offset))
        .and_then(|_| file.read_exact(&mut bytes))
        .map_err(|e| Error::failure(e.to_string()))?;
    if crc32fast::hash(&bytes) != entry.crc {
        return Err(Error::input(format!(
            "the archive is damaged: the checksum (CRC) of '{name}' is wrong; download the file again"
        )));
    }
    Ok(bytes)
}
