//! From parameters to what a clone needs.

use std::ffi::CStr;
use std::path::{Path, PathBuf};

use crate::clips::store::Store;
use crate::effect::describe::CONDITION;
use crate::effect::gather;
use crate::effect::instance::Instance;
use crate::effect::parameters::{Kind, choice, name, named};
use crate::effect::values::Values;
use crate::engine::{ConditionImage, Device, Settings};
use crate::model::{self, Defaults};
use crate::ofx::suites::Host;
use crate::reference::{ClipFile, open_image};
use crate::request::{Request, Source};

/// The project's clips, as the parameters say.
pub fn store(values: &Values) -> Store {
    let reference = reference_file(values);
    let (folder, cache) = (values.text(name::KEEP_FOLDER), values.text(name::CACHE_FOLDER));
    Store::new(&folder, reference.as_deref(), &cache, values.double(name::CACHE_LIMIT))
}

/// The file that the motion is taken from, where one is chosen.
pub fn reference_file(values: &Values) -> Option<PathBuf> {
    let path = values.text(name::REFERENCE_FILE);
    (!path.trim().is_empty()).then(|| path.into())
}

/// Numbers that follow the model where the user has not set them.
struct Wanted<'a> {
    values: &'a Values<'a>,
    /// Whether the host tells of every change, so that the choices say which numbers the user has set. Elsewhere it is a
    /// number that has not its default any more.
    tells: bool,
    own_steps: bool,
    own_size: bool,
    /// The model's own, with as many steps as the quality says.
    model: Defaults,
}

impl<'a> Wanted<'a> {
    fn new(host: &Host, values: &'a Values, bundle: &str) -> Self {
        let quality = values.int(name::QUALITY);
        Self {
            values,
            tells: host.has_buttons(),
            own_steps: quality == choice::QUALITY_CUSTOM,
            own_size: values.int(name::SIZE) == choice::SIZE_CUSTOM,
            model: Defaults::of(bundle).divided(1 << (choice::QUALITY_BEST - quality).clamp(0, 2)),
        }
    }

    fn is_set(&self, name: &CStr, has_default: bool) -> bool {
        let size = [name::WIDTH, name::HEIGHT, name::FRAMES].contains(&name);
        if self.tells { if size { self.own_size } else { self.own_steps } } else { !has_default }
    }

    fn int(&self, name: &CStr, model: i32) -> i32 {
        let value = self.values.int(name);
        let default = matches!(named(name).map(|it| it.kind), Some(Kind::Int { default, .. }) if default == value);
        if self.is_set(name, default) { value } else { model }
    }

    fn double(&self, name: &CStr, model: f64) -> f64 {
        let value = self.values.double(name);
        let default = matches!(named(name).map(|it| it.kind), Some(Kind::Double { default, .. }) if default == value);
        if self.is_set(name, default) { value } else { model }
    }
}

impl Instance {
    /// What the parameters ask for. Where the motion is that of the source's frames, they are not in it yet; a condition's
    /// picture is, when `condition` gives it.
    ///
    /// # Errors
    /// When something is missing that the parameters name.
    pub fn request(
        &self,
        host: &Host,
        values: &Values,
        condition: impl FnOnce() -> Result<Option<ConditionImage>, String>,
    ) -> Result<Request, String> {
        let bundle = model::bundle(&values.text(name::BUNDLE));
        model::manifest(&bundle)?;
        let wanted = Wanted::new(host, values, &bundle);
        let count = |name, model| wanted.int(name, model).max(0) as u32;
        let model = &wanted.model;
        let eights = |name, model| (count(name, model).clamp(8, 1 << 16) + 4) / 8 * 8;
        let settings = Settings {
            prompt: values.text(name::PROMPT),
            negative_prompt: values.text(name::NEGATIVE),
            blocks: values.text(name::BLOCKS),
            image: condition()?,
            seed: values.int(name::SEED).max(0) as u64,
            width: eights(name::WIDTH, model.width),
            height: eights(name::HEIGHT, model.height),
            frames: count(name::FRAMES, model.frames).clamp(2, 4096),
            steps: count(name::STEPS, model.steps),
            guidance_steps: count(name::GUIDANCE_STEPS, model.guidance_steps),
            warm_up: count(name::WARM_UP, model.warm_up),
            cool_up: count(name::COOL_UP, model.cool_up),
            noise_step: count(name::NOISE_STEP, model.noise_step),
            top_k: count(name::TOP_K, model.top_k),
            guidance_scale: wanted.double(name::GUIDANCE_SCALE, model.guidance_scale),
            motion_strength: values.double(name::STRENGTH),
            cfg: wanted.double(name::CFG, model.cfg),
        };
        let device = match values.int(name::DEVICE) {
            choice::DEVICE_AUTO => Device::Auto,
            choice::DEVICE_CPU => Device::Cpu,
            number => Device::Cuda((number - choice::DEVICE_CPU - 1).max(0) as u32),
        };
        let file = reference_file(values);
        let range = if file.is_some() { None } else { gather::reference_range(host, self.effect.0, values) };
        let steps = f64::from(settings.frames.max(2) - 1);
        let spacing = range.filter(|[first, last]| first < last).map(|[first, last]| f64::from(last - first) / steps);
        let source = self.source(host, values, file)?;
        Ok(Request { bundle, device, settings, source, spacing: spacing.unwrap_or(1.0), store: store(values) })
    }

    fn source(&self, host: &Host, values: &Values, file: Option<PathBuf>) -> Result<Source, String> {
        if values.int(name::MOTION_FROM) == choice::MOTION_OF_THE_FILE {
            let file = values.text(name::MOTION_FILE);
            return if file.trim().is_empty() {
                Err("No motion file is chosen.".into())
            } else {
                Ok(Source::Motion(file))
            };
        }
        if let Some(path) = file {
            let range = (!values.switch(name::WHOLE)).then(|| [values.int(name::FIRST), values.int(name::LAST)]);
            return Ok(Source::File { file: ClipFile { path }, range });
        }
        if self.generator {
            return Err("No reference is chosen: choose a video, or an image of a folder of images.".into());
        }
        if !host.temporal && !host.has_buttons() {
            // Such a host can never be asked for the whole clip.
            return Err(
                "No reference is chosen: this host hands out one frame at a time, so choose the clip's file as \
                        Reference file."
                    .into(),
            );
        }
        Ok(Source::Frames(Vec::new()))
    }

    /// The picture or sketch: the input where it is connected, else the file.
    ///
    /// # Errors
    /// When the mode needs one and there is none.
    pub fn condition(&self, host: &Host, values: &Values, time: f64) -> Result<Option<ConditionImage>, String> {
        let mode = values.int(name::MODE);
        if mode == choice::MODE_TEXT {
            return Ok(None);
        }
        let colours = values.int(name::COLOURS);
        let input = gather::clip(host, self.effect.0, CONDITION).ok().filter(|(_, clip)| gather::is_connected(*clip));
        let file = values.text(name::IMAGE_FILE);
        let picture = match input {
            Some((clip, properties)) => gather::picture(host, clip, properties, time, colours)
                .ok_or("The host does not hand out the picture at Condition: choose a file instead.")?,
            None if !file.trim().is_empty() => open_image(Path::new(&file))?.reduced(),
            None => return Err("This mode needs a picture or sketch: connect Condition or choose a file.".into()),
        };
        let strength = values.double(name::IMAGE_STRENGTH);
        let frame = values.int(name::IMAGE_FRAME).max(0) as u32;
        Ok(Some(ConditionImage { picture, frame, sketch: mode == choice::MODE_SKETCH, strength }))
    }
}
