//! What a clone needs, and its name: the key of everything that the clip depends on.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use crate::clips::kept::About;
use crate::clips::store::Store;
use crate::engine::{Device, Settings};
use crate::picture::Picture;
use crate::reference::{ClipFile, images_of};
use crate::sync::lock;

/// Parts of a file that stand for all of it, and their size.
const SAMPLES: u64 = 64;
const SAMPLE: u64 = 1 << 16;

/// Where the motion comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// The frames of the reference, as many as the settings say.
    Frames(Vec<Arc<Picture>>),
    /// A motion that was kept.
    Motion(String),
    /// A file, from one frame to another or as a whole.
    File { file: ClipFile, range: Option<[i32; 2]> },
}

/// All that a clone needs.
#[derive(Debug, Clone)]
pub struct Request {
    pub bundle: String,
    pub device: Device,
    pub settings: Settings,
    pub source: Source,
    /// How far apart the frames stand in the reference.
    pub spacing: f64,
    pub store: Store,
}

/// A hash of named values, in a form that no printing and no version of a compiler decides.
struct Canonical(blake3::Hasher);

impl Canonical {
    fn new() -> Self {
        Self(blake3::Hasher::new())
    }

    fn add(&mut self, name: &str, value: &[u8]) {
        for bytes in [name.as_bytes(), value] {
            self.0.update(&(bytes.len() as u64).to_le_bytes());
            self.0.update(bytes);
        }
    }

    fn text(&mut self, name: &str, value: &str) {
        self.add(name, value.as_bytes());
    }

    fn int(&mut self, name: &str, value: i64) {
        self.add(name, &value.to_le_bytes());
    }

    fn double(&mut self, name: &str, value: f64) {
        // One zero has one form.
        self.add(name, &(value + 0.0).to_bits().to_le_bytes());
    }

    fn picture(&mut self, name: &str, picture: &Picture) {
        self.int("width", picture.width as i64);
        self.int("height", picture.height as i64);
        self.add(name, &picture.data);
    }

    /// Half a key.
    fn half(self) -> String {
        self.0.finalize().to_hex()[..16].to_string()
    }
}

impl Request {
    /// A name for everything that the result depends on: first the recipe, then what it was cooked with and of.
    ///
    /// # Errors
    /// When the bundle or a file cannot be read.
    pub fn key(&self) -> Result<String, String> {
        let mut hash = Canonical::new();
        hash.text("version", env!("CARGO_PKG_VERSION"));
        hash.add("model", &crate::model::manifest(&self.bundle)?);
        match self.device {
            Device::Auto => hash.int("device", -2),
            Device::Cpu => hash.int("device", -1),
            Device::Cuda(number) => hash.int("device", number.into()),
        }
        if let Some(image) = &self.settings.image {
            hash.picture("condition", &image.picture);
        }
        match &self.source {
            Source::Frames(frames) => frames.iter().for_each(|frame| hash.picture("frame", frame)),
            Source::Motion(file) => hash.add("motion", &fingerprint(Path::new(file))?),
            Source::File { file, .. } => hash.add("file", &fingerprint(&file.path)?),
        }
        Ok(self.recipe() + &hash.half())
    }

    /// What the user chose: the same in another session, with another version, and whatever the frames' pixels are.
    pub fn recipe(&self) -> String {
        let mut hash = Canonical::new();
        let settings = &self.settings;
        hash.text("prompt", &settings.prompt);
        hash.text("negative_prompt", &settings.negative_prompt);
        hash.text("blocks", &settings.blocks);
        hash.add("seed", &settings.seed.to_le_bytes());
        for (name, value) in [
            ("width", settings.width),
            ("height", settings.height),
            ("frames", settings.frames),
            ("steps", settings.steps),
            ("guidance_steps", settings.guidance_steps),
            ("warm_up", settings.warm_up),
            ("cool_up", settings.cool_up),
            ("noise_step", settings.noise_step),
            ("top_k", settings.top_k),
        ] {
            hash.int(name, value.into());
        }
        for (name, value) in [
            ("guidance_scale", settings.guidance_scale),
            ("motion_strength", settings.motion_strength),
            ("cfg", settings.cfg),
            ("spacing", self.spacing),
        ] {
            hash.double(name, value);
        }
        if let Some(image) = &settings.image {
            hash.int("condition_frame", image.frame.into());
            hash.int("sketch", image.sketch.into());
            hash.double("condition_strength", image.strength);
        }
        match &self.source {
            Source::Frames(_) => hash.text("source", "frames"),
            Source::Motion(_) => hash.text("source", "motion"),
            Source::File { range, .. } => {
                hash.text("source", "file");
                for frame in range.iter().flatten() {
                    hash.int("range", (*frame).into());
                }
            }
        }
        hash.half()
    }

    /// What the clip is, in words.
    pub fn about(&self) -> About {
        About { prompt: self.settings.prompt.clone(), seed: self.settings.seed }
    }

    /// How many bytes the clip will have.
    pub fn bytes(&self) -> u64 {
        let Settings { width, height, frames, .. } = self.settings;
        u64::from(width) * u64::from(height) * u64::from(frames) * 3
    }
}

type Seen = HashMap<PathBuf, (u64, Option<SystemTime>, [u8; 32])>;
static FINGERPRINTS: Mutex<Option<Seen>> = Mutex::new(None);

/// What tells one file, or folder of images, from another by its content, wherever it lies and whenever it was copied.
fn fingerprint(path: &Path) -> Result<[u8; 32], String> {
    let failed = |e: io::Error| format!("{}: {e}.", path.display());
    let metadata = path.metadata().map_err(failed)?;
    let images = if metadata.is_dir() {
        images_of(path)?
    } else if ClipFile::is_image(path) {
        images_of(path.parent().unwrap_or(Path::new(".")))?
    } else {
        Vec::new()
    };
    if !images.is_empty() {
        let mut hash = Canonical::new();
        for image in &images {
            hash.text("name", &image.file_name().unwrap_or_default().to_string_lossy());
            hash.add("image", &sampled(image).map_err(failed)?);
        }
        return Ok(*hash.0.finalize().as_bytes());
    }
    let (length, modified) = (metadata.len(), metadata.modified().ok());
    let mut seen = lock(&FINGERPRINTS);
    let seen = seen.get_or_insert_default();
    if let Some((known_length, known_time, known)) = seen.get(path)
        && (*known_length, *known_time) == (length, modified)
    {
        return Ok(*known);
    }
    let hash = sampled(path).map_err(failed)?;
    seen.insert(path.into(), (length, modified, hash));
    Ok(hash)
}

/// The hash of a file's length and of parts all over it; of all of it, where it is small.
fn sampled(path: &Path) -> io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut hash = Canonical::new();
    hash.add("length", &length.to_le_bytes());
    let mut part = Vec::new();
    let samples = length.div_ceil(SAMPLE).min(SAMPLES);
    for index in 0..samples {
        // The first sample begins at the beginning, the last one ends at the end.
        let at = length.saturating_sub(SAMPLE) as u128 * index as u128 / samples.saturating_sub(1).max(1) as u128;
        file.seek(SeekFrom::Start(at as u64))?;
        part.clear();
        (&mut file).take(SAMPLE).read_to_end(&mut part)?;
        hash.add("part", &part);
    }
    Ok(*hash.0.finalize().as_bytes())
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::engine::ConditionImage;

    /// A request without frames.
    pub fn request(frames: u32) -> Request {
        let settings = Settings {
            prompt: String::new(),
            negative_prompt: String::new(),
            blocks: String::new(),
            image: None,
            seed: 1,
            width: 64,
            height: 64,
            frames,
            steps: 1,
            guidance_steps: 0,
            warm_up: 0,
            cool_up: 0,
            noise_step: 400,
            top_k: 1,
            guidance_scale: 0.3,
            motion_strength: 1.0,
            cfg: 7.5,
        };
        let source = Source::Frames(Vec::new());
        let store = Store::new("", None, "", 1.0);
        Request { bundle: String::new(), device: Device::Cpu, settings, source, spacing: 1.0, store }
    }

    #[test]
    fn everything_that_decides_the_clip_is_in_its_key() {
        let bundle = tempfile::tempdir().unwrap();
        std::fs::write(bundle.path().join("manifest.json"), "{}").unwrap();
        let file = bundle.path().join("clip.mp4");
        std::fs::write(&file, vec![7; 3 * SAMPLE as usize + 5]).unwrap();
        let picture = |value: u8| Picture { width: 1, height: 1, data: vec![value; 3] };
        let condition = |value: u8, frame: u32, sketch: bool, strength: f64| {
            Some(ConditionImage { picture: picture(value), frame, sketch, strength })
        };
        let base = || Request { bundle: bundle.path().to_str().unwrap().into(), ..request(4) };
        let mut keys = vec![base().key().unwrap()];
        let mut other = |change: &dyn Fn(&mut Request)| {
            let mut request = base();
            change(&mut request);
            keys.push(request.key().unwrap());
        };
        other(&|r| r.settings.prompt = "a".into());
        other(&|r| r.settings.negative_prompt = "a".into());
        other(&|r| r.settings.blocks = "a".into());
        other(&|r| r.settings.seed = u64::MAX);
        other(&|r| r.settings.width = 72);
        other(&|r| r.settings.height = 72);
        other(&|r| r.settings.frames = 5);
        other(&|r| r.settings.steps = 2);
        other(&|r| r.settings.guidance_steps = 1);
        other(&|r| r.settings.warm_up = 1);
        other(&|r| r.settings.cool_up = 1);
        other(&|r| r.settings.noise_step = 1);
        other(&|r| r.settings.top_k = 2);
        other(&|r| r.settings.guidance_scale = 0.4);
        other(&|r| r.settings.motion_strength = 2.0);
        other(&|r| r.settings.cfg = 7.0);
        other(&|r| r.spacing = 2.0);
        other(&|r| r.device = Device::Auto);
        other(&|r| r.device = Device::Cuda(1));
        other(&|r| r.settings.image = condition(1, 0, false, 1.0));
        other(&|r| r.settings.image = condition(2, 0, false, 1.0));
        other(&|r| r.settings.image = condition(1, 1, false, 1.0));
        other(&|r| r.settings.image = condition(1, 0, true, 1.0));
        other(&|r| r.settings.image = condition(1, 0, false, 0.5));
        other(&|r| r.source = Source::Frames(vec![Arc::new(picture(1))]));
        other(&|r| r.source = Source::Motion(file.to_str().unwrap().into()));
        let of_the_file = |range| Source::File { file: ClipFile { path: file.clone() }, range };
        other(&|r| r.source = of_the_file(None));
        other(&|r| r.source = of_the_file(Some([0, 1])));
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count);
        assert!(keys.iter().all(|key| crate::clips::clip::is_key(key)));
        // The recipe stays when only pixels, model or device change.
        let frames = Request { source: Source::Frames(vec![Arc::new(picture(1))]), device: Device::Auto, ..base() };
        assert_eq!(frames.recipe(), base().recipe());
        assert_eq!(frames.key().unwrap()[..16], base().recipe());
    }

    #[test]
    fn a_file_is_known_by_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = ["a.mp4", "b.mp4"].map(|name| folder.path().join(name));
        let length = 100 * SAMPLE as usize;
        std::fs::write(&first, vec![1; length]).unwrap();
        std::fs::copy(&first, &second).unwrap();
        assert_eq!(fingerprint(&first).unwrap(), fingerprint(&second).unwrap());
        for at in [0, length - 1] {
            let mut bytes = vec![1; length];
            bytes[at] = 2;
            std::fs::write(&second, bytes).unwrap();
            assert_ne!(fingerprint(&first).unwrap(), fingerprint(&second).unwrap(), "{at}");
        }
        assert!(fingerprint(Path::new("/nowhere/x.mp4")).is_err_and(|text| text.contains("/nowhere/x.mp4")));
    }
}
