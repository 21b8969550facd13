//! The tokenizer's two files, `vocab.json` and `merges.txt`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::config::read_json;
use crate::manifest::TOKENIZER_FOLDER;
use crate::{Error, Result};

const FILES: [&str; 2] = ["vocab.json", "merges.txt"];
/// CLIP's `merges.txt` has half a mebibyte.
const MAX_MERGES: u64 = 16 << 20;

/// Finds the folder with the tokenizer: the one given, else `tokenizer` in the model's folder, else for a single file
/// `tokenizer` beside it or the folder it is in.
///
/// # Errors
/// When the base is missing, or there is no tokenizer; then the message says how to give one.
pub fn find(given: Option<&Path>, base: &Path) -> Result<PathBuf> {
    let complete = |folder: &Path| FILES.iter().all(|file| folder.join(file).is_file());
    if let Some(folder) = given {
        if complete(folder) {
            return Ok(folder.to_path_buf());
        }
        return Err(Error::input("a folder with the tokenizer's vocab.json and merges.txt is wanted").with_path(folder));
    }
    let is_folder = std::fs::metadata(base).map_err(|e| Error::io(base, e))?.is_dir();
    let folder = if is_folder { base } else { base.parent().unwrap_or(Path::new("")) };
    let mut candidates = vec![folder.join(TOKENIZER_FOLDER)];
    if !is_folder {
        candidates.push(if folder == Path::new("") { PathBuf::from(".") } else { folder.to_path_buf() });
    }
    candidates.into_iter().find(|folder| complete(folder)).ok_or_else(|| {
        Error::input(
            "no tokenizer: a checkpoint file does not hold one. Put the 'tokenizer' folder of any Stable Diffusion 1.5 in \
             diffusers' layout (vocab.json and merges.txt) beside it, or name that folder with --tokenizer",
        )
        .with_path(base)
    })
}

/// Copies the two files after checking that they fit the text encoder.
///
/// # Errors
/// When they are not CLIP's tokenizer, do not fit, or cannot be copied.
pub fn copy(from: &Path, bundle: &Path, vocab_size: usize) -> Result<()> {
    let vocab_path = from.join(FILES[0]);
    let vocab: HashMap<String, usize> = read_json(&vocab_path)?;
    let bad = |message: String| Error::input(message).with_path(&vocab_path);
    for token in ["<|startoftext|>", "<|endoftext|>"] {
        if !vocab.contains_key(token) {
            return Err(bad(format!("not the tokenizer of CLIP: token '{token}' is missing")));
        }
    }
    if let Some(id) = vocab.values().max().filter(|id| **id >= vocab_size) {
        return Err(bad(format!("its tokens go up to {id}, the text encoder knows {vocab_size}")));
    }
    let merges = from.join(FILES[1]);
    let size = std::fs::metadata(&merges).map_err(|e| Error::io(&merges, e))?.len();
    if size == 0 || size > MAX_MERGES {
        return Err(Error::input(format!("{size} bytes are no list of merges")).with_path(&merges));
    }
    let folder = bundle.join(TOKENIZER_FOLDER);
    std::fs::create_dir(&folder).map_err(|e| Error::io(&folder, e))?;
    for file in FILES {
        let target = folder.join(file);
        // Not fs::copy, which would take a source's read-only mode along.
        let bytes = std::fs::read(from.join(file)).map_err(|e| Error::io(from.join(file), e))?;
        std::fs::write(&target, bytes).map_err(|e| Error::io(&target, e))?;
    }
    Ok(())
}
