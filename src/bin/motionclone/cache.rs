//! Extracted motion is kept: the same clip, model and settings need no second extraction.

use std::path::PathBuf;

use etcetera::BaseStrategy;
use motionclone::media::frames::Frames;
use motionclone::motion::{Motion, MotionInfo};
use motionclone::onnx::manifest::Manifest;
use motionclone::settings::Settings;
use motionclone::{Error, Result};

/// The environment variable that names another folder.
const VARIABLE: &str = "MOTIONCLONE_CACHE";

/// Where motion files are kept: `MOTIONCLONE_CACHE`, else `motionclone` in the user's cache folder.
pub fn folder() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os(VARIABLE).filter(|folder| !folder.is_empty()) {
        return Some(folder.into());
    }
    etcetera::choose_base_strategy().ok().map(|folders| folders.cache_dir().join("motionclone"))
}

/// One motion's place in the cache.
pub struct Entry {
    path: PathBuf,
    info: MotionInfo,
}

impl Entry {
    /// The place of what this run extracts. Devices compute slightly different values, so each has its own.
    pub fn new(folder: PathBuf, manifest: &Manifest, settings: &Settings, clip: &Frames, device: &str) -> Result<Self> {
        let info = MotionInfo::new(manifest, settings, blake3::hash(&clip.data).to_hex().as_str());
        let key = serde_json::to_vec(&(&info, device, env!("CARGO_PKG_VERSION")))
            .map_err(|e| Error::failure(format!("no name for a kept motion: {e}")))?;
        let name = format!("{}.safetensors", &blake3::hash(&key).to_hex().as_str()[..32]);
        Ok(Self { path: folder.join(name), info })
    }

    /// The file.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// The kept motion, if there is one and it is whole.
    pub fn load(&self) -> Option<Motion> {
        Motion::load(&self.path).ok().filter(|motion| motion.info == self.info)
    }

    /// Keeps a motion.
    ///
    /// # Errors
    /// When the folder cannot be made or the file not be written.
    pub fn save(&self, motion: &Motion) -> Result<()> {
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        }
        motion.save(&self.path)
    }
}
