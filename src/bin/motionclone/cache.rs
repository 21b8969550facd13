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

/// What decides an extraction: model, clip, settings, and what computed it.
fn key(info: &MotionInfo, settings: &Settings, device: &str) -> String {
    let MotionInfo { fingerprint, clip_hash, .. } = info;
    let settings = settings.canonical(|setting| setting.changes_motion);
    let version = env!("CARGO_PKG_VERSION");
    format!("version={version}\ndevice={device}\nfingerprint={fingerprint}\nclip={clip_hash}\n{settings}")
}

/// One motion's place in the cache.
pub struct Entry {
    path: PathBuf,
    info: MotionInfo,
}

impl Entry {
    /// The place of what this run extracts. Devices compute slightly different values, so each has its own.
    pub fn new(folder: PathBuf, manifest: &Manifest, settings: &Settings, clip: &Frames, device: &str) -> Self {
        let info = MotionInfo::new(manifest, settings, blake3::hash(&clip.data).to_hex().as_str());
        let name =
            format!("{}.safetensors", &blake3::hash(key(&info, settings, device).as_bytes()).to_hex().as_str()[..32]);
        Self { path: folder.join(name), info }
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

#[cfg(test)]
mod tests {
    use motionclone::settings::{Kind, Model, Value, settings};

    use super::*;
    use crate::testing::{manifest, moving_bars};

    /// Another value than the model's own.
    fn another(kind: Kind, value: Value) -> Value {
        match (kind, value) {
            (_, Value::Integer(number)) => Value::Integer(number + 1),
            (_, Value::Number(number)) => Value::Number(number + 0.125),
            (Kind::Choice(names), Value::Text(_)) => Value::Text(names[names.len() - 1].into()),
            (_, Value::Text(text)) => Value::Text(text + "\nseed=1"),
            (_, Value::List(names)) => Value::List([names, vec!["mid_block".into()]].concat()),
            (_, Value::RandomSeed) => Value::RandomSeed,
        }
    }

    /// A kept motion is found again exactly where it would be extracted anew with the same result.
    #[test]
    fn the_key_follows_the_table() {
        let (manifest, clip) = (manifest(), moving_bars(2, 8, 8));
        let path = |settings: &Settings, device: &str| {
            Entry::new("cache".into(), &manifest, settings, &clip, device).path().to_path_buf()
        };
        let model = Model::from(&manifest);
        let own = Settings::new(&manifest.defaults, "");
        assert_eq!(path(&own, "CPU"), path(&own.clone(), "CPU"));
        assert_ne!(path(&own, "CPU"), path(&own, "CUDA device 0"));
        for setting in settings() {
            let mut other = own.clone();
            setting.set(&mut other, &model, another(setting.kind, setting.default(&model))).expect("a value");
            let moved = path(&own, "CPU") != path(&other, "CPU");
            assert_eq!(moved, setting.changes_motion, "{}", setting.name);
        }
    }
}
