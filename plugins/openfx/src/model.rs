//! What a bundle says of its model, without the engine.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use motionclone_abi::files::own_folder;

const MANIFEST: &str = "manifest.json";
/// A manifest larger than this is none.
const MAX_BYTES: u64 = 1 << 26;

/// Where the embedded model lies, seen from the plugin's own folder in its bundle, and from the library's in a tree that is
/// handed out or built.
const EMBEDDED: [&str; 3] = ["../Resources/model", "motionclone-bundle", "../share/motionclone/bundle"];
/// Names the bundle in place of the embedded one; library and program read it, too.
const VARIABLE: &str = "MOTIONCLONE_BUNDLE";

/// The bundle that is chosen, else the embedded one; empty where that is not there.
pub fn bundle(chosen: &str) -> String {
    let chosen = chosen.trim();
    if !chosen.is_empty() {
        return chosen.into();
    }
    if let Some(named) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        return named.to_string_lossy().into_owned();
    }
    let library = crate::engine::find().ok().and_then(|library| library.canonicalize().ok());
    let library = library.and_then(|library| Some(library.parent()?.to_path_buf()));
    let folders = [own_folder(), library].into_iter().flatten();
    let places = folders.flat_map(|folder| EMBEDDED.map(|place| folder.join(place)));
    let found = places.into_iter().find(|place| place.join(MANIFEST).is_file());
    found.map(|place| place.canonicalize().unwrap_or(place).to_string_lossy().into_owned()).unwrap_or_default()
}

/// The bundle's manifest as it is.
///
/// # Errors
/// When there is none.
pub fn manifest(bundle: &str) -> Result<Vec<u8>, String> {
    if bundle.trim().is_empty() {
        return Err("The embedded model is missing: install MotionClone again, or choose the bundle that motionclone import made.".into());
    }
    let path = Path::new(bundle).join(MANIFEST);
    let none = |e: std::io::Error| format!("{bundle} is no bundle: its manifest.json cannot be read: {e}.");
    let mut bytes = Vec::new();
    File::open(path).map_err(none)?.take(MAX_BYTES).read_to_end(&mut bytes).map_err(none)?;
    Ok(bytes)
}

/// The model's own settings.
#[derive(Debug, PartialEq)]
pub struct Defaults {
    pub width: i32,
    pub height: i32,
    pub frames: i32,
    pub steps: i32,
    pub guidance_steps: i32,
    pub warm_up: i32,
    pub cool_up: i32,
    pub noise_step: i32,
    pub top_k: i32,
    pub guidance_scale: f64,
    pub cfg: f64,
}

/// Those of the published method.
pub const PUBLISHED: Defaults = Defaults {
    width: 512,
    height: 512,
    frames: 16,
    steps: 100,
    guidance_steps: 50,
    warm_up: 10,
    cool_up: 10,
    noise_step: 400,
    top_k: 1,
    guidance_scale: 0.3,
    cfg: 7.5,
};

impl Defaults {
    /// Those of a bundle; the published ones where it says nothing.
    pub fn of(bundle: &str) -> Self {
        let manifest = manifest(bundle).ok().and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
        let Some(manifest) = manifest else { return PUBLISHED };
        let number = |name: &str, published: f64| manifest["defaults"][name].as_f64().unwrap_or(published);
        let int = |name: &str, published: i32| number(name, published.into()) as i32;
        Self {
            width: int("width", PUBLISHED.width),
            height: int("height", PUBLISHED.height),
            frames: int("frames", PUBLISHED.frames),
            steps: int("steps", PUBLISHED.steps),
            guidance_steps: int("guidance_steps", PUBLISHED.guidance_steps),
            warm_up: int("warm_up", PUBLISHED.warm_up),
            cool_up: int("cool_up", PUBLISHED.cool_up),
            noise_step: int("noise_step", PUBLISHED.noise_step),
            top_k: int("top_k", PUBLISHED.top_k),
            guidance_scale: number("guidance_scale", PUBLISHED.guidance_scale),
            cfg: number("cfg", PUBLISHED.cfg),
        }
    }

    /// With a part of the steps.
    pub fn divided(self, by: i32) -> Self {
        Self {
            steps: (self.steps / by).max(1),
            guidance_steps: self.guidance_steps / by,
            warm_up: self.warm_up / by,
            cool_up: self.cool_up / by,
            ..self
        }
    }
}
