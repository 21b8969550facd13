//! A model's folder: its manifest, its weights' index, its tokenizer.

use std::path::{Path, PathBuf};

use motionclone_onnx::manifest::{MANIFEST_FILE, Manifest, TOKENIZER_FOLDER, WEIGHTS_FILE};
use motionclone_onnx::weights::WeightIndex;

use crate::error::{Error, Result};
use crate::runtime::library::own_folders;
use crate::tokenizer::Tokenizer;

/// An opened bundle.
pub struct Bundle {
    folder: PathBuf,
    /// Configuration of the networks, and defaults.
    pub manifest: Manifest,
    /// Names, shapes and places of the weights.
    pub weights: WeightIndex,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
}

/// The environment variable that names the bundle to use where none is given.
pub const BUNDLE_VARIABLE: &str = "MOTIONCLONE_BUNDLE";

/// Where the embedded bundle lies, seen from the folder of this library or program.
const EMBEDDED: [&str; 2] = ["motionclone-bundle", "../share/motionclone/bundle"];

/// The bundle for when none is named: that of [`BUNDLE_VARIABLE`], or the small one that comes with the library: the
/// folder `motionclone-bundle` beside it or beside the program, or `share/motionclone/bundle` above.
///
/// # Errors
/// When there is none.
pub fn embedded() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(BUNDLE_VARIABLE) {
        return Ok(path.into());
    }
    let folders = own_folders();
    let places = folders.iter().flat_map(|folder| EMBEDDED.map(|place| folder.join(place)));
    if let Some(path) = places.into_iter().find(|path| path.join(MANIFEST_FILE).is_file()) {
        return std::path::absolute(&path).map_err(|e| Error::io(&path, e));
    }
    let folders: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    Err(Error::input(format!(
        "no bundle was named, and the embedded one, a folder {}, is not in {}; name a bundle, or set {BUNDLE_VARIABLE}",
        EMBEDDED[0],
        folders.join(" or ")
    )))
}

impl Bundle {
    /// Opens a bundle's folder: reads the manifest and the weights' header, not the weights.
    ///
    /// # Errors
    /// When a file is missing or not valid.
    pub fn open(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            return Err(
                Error::input("no bundle there; a bundle is a folder that `motionclone import` makes").with_path(folder)
            );
        }
        let manifest = Manifest::read(folder)?;
        for name in [WEIGHTS_FILE, TOKENIZER_FOLDER] {
            check_inside(folder, name)?;
        }
        let weights = WeightIndex::open(&folder.join(WEIGHTS_FILE))?;
        let tokenizer = Tokenizer::open(&folder.join(TOKENIZER_FOLDER))?;
        if tokenizer.largest_id() >= manifest.text_encoder.vocab_size as i64 {
            return Err(Error::input(format!(
                "the tokenizer has token {}, the text encoder knows {} tokens",
                tokenizer.largest_id(),
                manifest.text_encoder.vocab_size
            ))
            .with_path(folder));
        }
        let folder = std::path::absolute(folder).map_err(|e| Error::io(folder, e))?;
        Ok(Self { folder, manifest, weights, tokenizer })
    }

    /// The bundle's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Refuses a part of a bundle that is a link to somewhere else: a bundle from a stranger must not make this program
/// read, and show the beginnings of, other files.
fn check_inside(folder: &Path, name: &str) -> Result<()> {
    let real = |path: &Path| path.canonicalize().map_err(|e| Error::io(path, e));
    let path = folder.join(name);
    if real(&path)?.starts_with(real(folder)?) {
        return Ok(());
    }
    Err(Error::input("this part of the bundle is a link that leaves its folder").with_path(&path))
}
