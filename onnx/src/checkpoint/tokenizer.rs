//! The tokenizer's two files, `vocab.json` and `merges.txt`.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::config::read_json;
use crate::manifest::TOKENIZER_FOLDER;
use crate::{Error, Result};

const FILES: [&str; 2] = ["vocab.json", "merges.txt"];
/// CLIP's `merges.txt` has half a mebibyte.
const MAX_MERGES: u64 = 16 << 20;

/// CLIP's list of merges: a header, then a pair a line, the most frequent first. `clip/README.md` names its source.
const CLIP: &[u8] = include_bytes!("clip/bpe_simple_vocab_16e6.txt.gz");
/// Tokens of CLIP.
const CLIP_TOKENS: usize = 49408;

/// The tokenizer of a bundle to be.
pub enum Tokenizer {
    /// A folder with the two files.
    Folder(PathBuf),
    /// CLIP's, which comes with the program: the one of every Stable Diffusion 1.
    Clip,
}

/// Finds the tokenizer: in the folder given, else in `tokenizer` in the model's folder, else for a single file in
/// `tokenizer` beside it or the folder it is in, else CLIP's.
///
/// # Errors
/// When the base is missing, or there is no tokenizer in the folder given.
pub fn find(given: Option<&Path>, base: &Path) -> Result<Tokenizer> {
    let complete = |folder: &Path| FILES.iter().all(|file| folder.join(file).is_file());
    if let Some(folder) = given {
        if complete(folder) {
            return Ok(Tokenizer::Folder(folder.to_path_buf()));
        }
        return Err(Error::input("a folder with the tokenizer's vocab.json and merges.txt is wanted").with_path(folder));
    }
    let is_folder = std::fs::metadata(base).map_err(|e| Error::io(base, e))?.is_dir();
    let folder = if is_folder { base } else { base.parent().unwrap_or(Path::new("")) };
    let mut candidates = vec![folder.join(TOKENIZER_FOLDER)];
    if !is_folder {
        candidates.push(if folder == Path::new("") { PathBuf::from(".") } else { folder.to_path_buf() });
    }
    Ok(candidates.into_iter().find(|folder| complete(folder)).map_or(Tokenizer::Clip, Tokenizer::Folder))
}

impl Tokenizer {
    /// Puts the two files into a bundle after checking that they fit the text encoder.
    ///
    /// # Errors
    /// When they are not CLIP's tokenizer, do not fit, or cannot be written.
    pub fn put(&self, bundle: &Path, vocab_size: usize) -> Result<()> {
        match self {
            Self::Folder(folder) => copy(folder, bundle, vocab_size),
            Self::Clip if vocab_size == CLIP_TOKENS => write_clip(bundle),
            Self::Clip => Err(Error::input(format!(
                "no tokenizer, and the text encoder's {vocab_size} tokens are not the {CLIP_TOKENS} of CLIP: name the folder \
                 with its vocab.json and merges.txt with --tokenizer"
            ))),
        }
    }
}

/// Writes CLIP's two files: the tokens are the 256 bytes as printable characters, the same at the end of a word, what
/// each merge makes, and the marks of start and end.
fn write_clip(bundle: &Path) -> Result<()> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(CLIP).read_to_string(&mut text).map_err(|e| Error::failure(e.to_string()))?;
    let merges: Vec<&str> = text.lines().skip(1).take(CLIP_TOKENS - 2 * 256 - 2).collect();
    let printable = |byte: &u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let others = (0..256).filter(|byte| !printable(byte)).count() as u32;
    let bytes: Vec<String> =
        (0..256).filter(printable).chain(256..256 + others).filter_map(char::from_u32).map(String::from).collect();
    let vocab: HashMap<String, usize> = bytes
        .iter()
        .cloned()
        .chain(bytes.iter().map(|byte| format!("{byte}</w>")))
        .chain(merges.iter().map(|pair| pair.replace(' ', "")))
        .chain(["<|startoftext|>".into(), "<|endoftext|>".into()])
        .zip(0..)
        .collect();
    let vocab = serde_json::to_vec(&vocab).map_err(|e| Error::failure(e.to_string()))?;
    let merges = format!("#version: 0.2\n{}\n", merges.join("\n"));
    let folder = bundle.join(TOKENIZER_FOLDER);
    std::fs::create_dir(&folder).map_err(|e| Error::io(&folder, e))?;
    for (file, bytes) in FILES.iter().zip([vocab, merges.into_bytes()]) {
        let target = folder.join(file);
        std::fs::write(&target, bytes).map_err(|e| Error::io(&target, e))?;
    }
    Ok(())
}

/// Copies the two files after checking that they fit the text encoder.
///
/// # Errors
/// When they are not CLIP's tokenizer, do not fit, or cannot be copied.
fn copy(from: &Path, bundle: &Path, vocab_size: usize) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tokenizer_that_comes_with_the_program_is_the_published_one() {
        let published =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/checkpoints/StableDiffusion/tokenizer");
        let bundle = tempfile::tempdir().unwrap();
        Tokenizer::Clip.put(bundle.path(), CLIP_TOKENS).unwrap();
        let vocab = |folder: &Path| read_json::<HashMap<String, usize>>(&folder.join(FILES[0])).unwrap();
        let made = bundle.path().join(TOKENIZER_FOLDER);
        assert_eq!(vocab(&made).len(), CLIP_TOKENS);
        assert!(vocab(&made) == vocab(&published));
        let merges = |folder: &Path| std::fs::read_to_string(folder.join(FILES[1])).unwrap();
        assert!(merges(&made).trim_end() == merges(&published).trim_end());

        let text = Tokenizer::Clip.put(bundle.path(), 30522).unwrap_err().to_string();
        assert!(text.contains("30522") && text.contains("--tokenizer"), "{text}");
    }
}
