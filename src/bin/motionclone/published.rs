//! The published configuration files, taken as they are: a YAML file of settings and a JSONL list of clips and prompts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use motionclone::media::frames::Frames;
use motionclone::onnx::manifest::Defaults;
use motionclone::onnx::model::config::ControlKind;
use motionclone::settings::{Control, Settings};
use motionclone::{Error, Result};
use serde::Deserialize;

use crate::args::IMAGE_SEED;

/// Larger files are refused.
const MAX_FILE: u64 = 16 << 20;
/// A file name made from a prompt has at most this many bytes before its extension.
const MAX_NAME: usize = 150;

/// A run's settings. What a file leaves out is the bundle's default.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Configuration {
    motion_module: Option<PathBuf>,
    dreambooth_path: Option<PathBuf>,
    model_config: Option<PathBuf>,
    controlnet_path: Option<PathBuf>,
    controlnet_config: Option<PathBuf>,
    adapter_lora_path: Option<PathBuf>,
    cfg_scale: Option<f64>,
    negative_prompt: Option<String>,
    /// Appended to every prompt.
    positive_prompt: Option<String>,
    /// The published files spell it like this, and the published code does not read it.
    postive_prompt: Option<String>,
    inference_steps: Option<usize>,
    guidance_scale: Option<f64>,
    guidance_steps: Option<usize>,
    warm_up_steps: Option<usize>,
    cool_up_steps: Option<usize>,
    motion_guidance_weight: Option<f64>,
    motion_guidance_blocks: Option<Vec<String>>,
    add_noise_step: Option<usize>,
    #[serde(rename = "W")]
    width: Option<usize>,
    #[serde(rename = "H")]
    height: Option<usize>,
    #[serde(rename = "L")]
    frames: Option<usize>,
    #[serde(flatten)]
    unknown: BTreeMap<String, serde_json::Value>,
}

/// One line of the list.
#[derive(Debug, Deserialize)]
pub struct Example {
    /// The reference clip.
    pub video_path: PathBuf,
    new_prompt: String,
    #[serde(default)]
    condition_image_paths: Vec<PathBuf>,
    image_index: Option<Vec<usize>>,
    controlnet_scale: Option<f64>,
    seed: Option<u64>,
    #[serde(flatten)]
    unknown: BTreeMap<String, serde_json::Value>,
}

/// Hears what the user should know.
pub type Warn<'a> = &'a mut dyn FnMut(String);

impl Configuration {
    /// Reads a YAML file, and says what in it has no effect.
    ///
    /// # Errors
    /// When the file cannot be read, is no YAML, or a value has another type.
    pub fn read(path: &Path, warn: Warn) -> Result<Self> {
        let text = read_text(path)?;
        let configuration: Self = serde_saphyr::from_str(&text).map_err(|e| {
            let message = e.to_string();
            let line = message.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
            Error::input(format!("not a valid configuration: {line}")).with_path(path)
        })?;
        let shown = path.display();
        if configuration.postive_prompt.is_some() {
            warn(format!(
                "{shown}: 'postive_prompt' is misspelt and has no effect, as in the published code; \
                 'positive_prompt' is appended to every prompt"
            ));
        }
        for key in configuration.unknown.keys() {
            warn(format!("{shown}: unknown key '{key}' has no effect"));
        }
        if configuration.names_models() {
            warn(format!("{shown}: its model files are not read; the models are the bundle's"));
        }
        Ok(configuration)
    }

    fn names_models(&self) -> bool {
        let Self { motion_module, dreambooth_path, model_config, adapter_lora_path, controlnet_config, .. } = self;
        [motion_module, dreambooth_path, model_config, adapter_lora_path, controlnet_config, &self.controlnet_path]
            .iter()
            .any(|path| path.is_some())
    }

    /// Pictures or sketches, as the SparseCtrl files' names say; `None` when none is named.
    ///
    /// # Errors
    /// When the names say neither.
    fn control_kind(&self) -> Result<Option<ControlKind>> {
        let names: Vec<String> = [&self.controlnet_path, &self.controlnet_config]
            .into_iter()
            .flatten()
            .map(|path| path.file_name().unwrap_or_default().to_string_lossy().to_lowercase())
            .collect();
        let says = |words: &[&str]| names.iter().any(|name| words.iter().any(|word| name.contains(word)));
        match () {
            () if names.is_empty() => Ok(None),
            () if says(&["rgb", "latent_condition"]) => Ok(Some(ControlKind::Rgb)),
            () if says(&["scribble", "sketch", "image_condition"]) => Ok(Some(ControlKind::Scribble)),
            () => Err(Error::input(format!("'{}' names neither rgb nor scribble", names.join("', '")))),
        }
    }

    /// The settings of one example. `size` and `frames` go over what the file says.
    ///
    /// # Errors
    /// When an image cannot be read, or images and their frames do not fit together.
    pub fn settings(
        &self,
        defaults: &Defaults,
        example: &Example,
        size: Option<(usize, usize)>,
        frames: Option<usize>,
        resolve: &mut dyn FnMut(&Path) -> PathBuf,
    ) -> Result<Settings> {
        let mut prompt = example.new_prompt.clone();
        if let Some(suffix) = self.positive_prompt.as_deref().filter(|suffix| !suffix.is_empty()) {
            if !suffix.starts_with(char::is_whitespace) {
                prompt.push(' ');
            }
            prompt.push_str(suffix);
        }
        let kind = self.control_kind()?;
        let control = kind.map(|kind| example.control(kind, defaults, resolve)).transpose()?;
        let d = Settings::new(defaults, prompt);
        Ok(Settings {
            negative_prompt: self.negative_prompt.clone().unwrap_or_default(),
            seed: example.seed.unwrap_or(if control.is_some() { IMAGE_SEED } else { d.seed }),
            width: size.map(|(width, _)| width).or(self.width).unwrap_or(d.width),
            height: size.map(|(_, height)| height).or(self.height).unwrap_or(d.height),
            frames: frames.or(self.frames).unwrap_or(d.frames),
            steps: self.inference_steps.unwrap_or(d.steps),
            guidance_steps: self.guidance_steps.unwrap_or(d.guidance_steps),
            guidance_scale: self.guidance_scale.unwrap_or(d.guidance_scale),
            warm_up: self.warm_up_steps.unwrap_or(d.warm_up),
            cool_up: self.cool_up_steps.unwrap_or(d.cool_up),
            motion_weight: self.motion_guidance_weight.unwrap_or(d.motion_weight),
            cfg: self.cfg_scale.unwrap_or(d.cfg),
            noise_step: self.add_noise_step.unwrap_or(d.noise_step),
            blocks: self.motion_guidance_blocks.clone().unwrap_or(d.blocks),
            control,
            ..d
        })
    }
}

impl Example {
    /// Reads a list, one JSON object a line; empty lines are skipped.
    ///
    /// # Errors
    /// When the file cannot be read, a line is no such object, or there is none.
    pub fn read_all(path: &Path, warn: Warn) -> Result<Vec<Self>> {
        let mut examples = Vec::new();
        for (index, line) in read_text(path)?.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let example: Self = serde_json::from_str(line)
                .map_err(|e| Error::input(format!("line {}: not a valid example: {e}", index + 1)).with_path(path))?;
            for key in example.unknown.keys() {
                warn(format!("{}: line {}: unknown key '{key}' has no effect", path.display(), index + 1));
            }
            examples.push(example);
        }
        if examples.is_empty() {
            return Err(Error::input("there is no example in it").with_path(path));
        }
        Ok(examples)
    }

    fn control(
        &self,
        kind: ControlKind,
        defaults: &Defaults,
        resolve: &mut dyn FnMut(&Path) -> PathBuf,
    ) -> Result<Control> {
        let places = self.image_index.clone().unwrap_or_else(|| vec![0]);
        if places.len() != self.condition_image_paths.len() {
            return Err(Error::input(format!(
                "'{}' has {} condition images for {} places in image_index",
                self.new_prompt,
                self.condition_image_paths.len(),
                places.len()
            )));
        }
        let images = self.condition_image_paths.iter().zip(places);
        let images = images.map(|(path, frame)| Ok((Frames::open_image(&resolve(path))?, frame)));
        Ok(Control {
            kind,
            scale: self.controlnet_scale.unwrap_or(defaults.control_scale),
            images: images.collect::<Result<_>>()?,
        })
    }

    /// A file name without extension: the clip's, the prompt with underscores, the seed.
    pub fn file_name(&self, seed: u64) -> String {
        let clip = self.video_path.file_stem().unwrap_or_default().to_string_lossy();
        let seed = format!("_{seed}");
        let mut name = safe(&format!("{clip}_{}", self.new_prompt.trim()));
        let mut end = name.len().min(MAX_NAME - seed.len());
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        name.truncate(end);
        name + &seed
    }
}

/// A text as part of a file name on any system: spaces, separators and what some system gives a meaning become `_`.
fn safe(text: &str) -> String {
    let name: String = text
        .chars()
        .map(|c| if c.is_whitespace() || c.is_control() || r#"/\:*?"<>|"#.contains(c) { '_' } else { c })
        .collect();
    // A leading dot would hide the file, a leading dash looks like an option.
    name.trim_start_matches(['.', '-']).to_string()
}

/// Where a file of a configuration lies. Relative paths are relative to the working folder; where nothing lies there,
/// the folder of the file that names it is tried.
pub fn resolve(path: &Path, named_in: &Path, notice: Warn) -> PathBuf {
    let beside = named_in.with_file_name("").join(path);
    if path.is_absolute() || path.exists() || !beside.exists() {
        return path.into();
    }
    notice(format!("{} is taken from the folder of {}", path.display(), named_in.display()));
    beside
}

fn read_text(path: &Path) -> Result<String> {
    let size = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
    if size > MAX_FILE {
        return Err(Error::input(format!("has {size} bytes; at most {MAX_FILE} are read")).with_path(path));
    }
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    String::from_utf8(bytes).map_err(|_| Error::input("not a text file").with_path(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In the manner of the published files.
    const YAML: &str = r#"
motion_module:    "models/Motion_Module/v3_sd15_mm.ckpt"
controlnet_path: "models/SparseCtrl/v3_sd15_sparsectrl_scribble.ckpt"

cfg_scale: 7.5 # classifier-free guidance
negative_prompt: "ugly,  deformed"
postive_prompt: "8k, best quality"

inference_steps: 200
guidance_scale: 0.4
guidance_steps: 120
warm_up_steps: 10
cool_up_steps: 12

motion_guidance_weight: 2000
motion_guidance_blocks: ['up_blocks.1',]

add_noise_step: 400
W: 256
H: 128
L: 8
colour: blue
"#;

    fn written(folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("a written file");
        path
    }

    fn configuration(text: &str) -> (Result<Configuration>, Vec<String>) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut warnings = Vec::new();
        let path = written(folder.path(), "run.yaml", text);
        (Configuration::read(&path, &mut |warning| warnings.push(warning)), warnings)
    }

    fn example(json: &str) -> Example {
        serde_json::from_str(json).expect("an example")
    }

    fn settings(configuration: &Configuration, json: &str) -> Result<Settings> {
        configuration.settings(&Defaults::default(), &example(json), None, None, &mut Path::to_path_buf)
    }

    #[test]
    fn a_configuration_becomes_settings() {
        let (configuration, warnings) = configuration(&YAML.replace("controlnet_path", "# controlnet_path"));
        let configuration = configuration.expect("a configuration");
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        assert!(warnings[0].contains("'postive_prompt' is misspelt"));
        assert!(warnings[1].contains("unknown key 'colour'"));
        assert!(warnings[2].contains("model files are not read"));
        let settings =
            settings(&configuration, r#"{"video_path": "a.mp4", "new_prompt": "A road"}"#).expect("settings");
        let expected = Settings {
            negative_prompt: "ugly,  deformed".into(),
            width: 256,
            height: 128,
            frames: 8,
            steps: 200,
            guidance_steps: 120,
            guidance_scale: 0.4,
            warm_up: 10,
            cool_up: 12,
            ..Settings::new(&Defaults::default(), "A road")
        };
        assert_eq!(settings, expected);
    }

    #[test]
    fn the_right_spelling_is_appended() {
        let prompt = |suffix: &str| {
            let (configuration, warnings) = configuration(&format!("positive_prompt: '{suffix}'"));
            assert!(warnings.is_empty(), "{warnings:?}");
            let example = r#"{"video_path": "a.mp4", "new_prompt": "A road"}"#;
            settings(&configuration.expect("a configuration"), example).expect("settings").prompt
        };
        assert_eq!(prompt(" 8k"), "A road 8k");
        assert_eq!(prompt("8k"), "A road 8k");
        assert_eq!(prompt(""), "A road");
    }

    #[test]
    fn examples_override() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        crate::output::write_png(&folder.path().join("a.png"), &crate::testing::moving_bars(1, 8, 8))
            .expect("a picture");
        let configuration = configuration(YAML).0.expect("a configuration");
        let line = r#"{"video_path": "a.mp4", "new_prompt": "p", "condition_image_paths": ["a.png"], "seed": 7,
                       "controlnet_scale": 0.8, "image_index": [3]}"#;
        let mut beside = |path: &Path| folder.path().join(path);
        let defaults = Defaults::default();
        let settings =
            configuration.settings(&defaults, &example(line), Some((64, 32)), Some(4), &mut beside).expect("settings");
        assert_eq!((settings.width, settings.height, settings.frames, settings.seed), (64, 32, 4, 7));
        let control = settings.control.expect("a control");
        assert_eq!((control.kind, control.scale, control.images[0].1), (ControlKind::Scribble, 0.8, 3));

        let line = r#"{"video_path": "a.mp4", "new_prompt": "p", "condition_image_paths": ["a.png"]}"#;
        let settings = configuration.settings(&defaults, &example(line), None, None, &mut beside).expect("settings");
        assert_eq!(settings.seed, IMAGE_SEED);
        assert_eq!(settings.control.map(|control| control.images[0].1), Some(0));

        let line = r#"{"video_path": "a.mp4", "new_prompt": "p"}"#;
        let error = configuration.settings(&defaults, &example(line), None, None, &mut beside).expect_err("no image");
        assert!(error.is_input() && error.to_string().contains("0 condition images for 1 place"), "{error}");
    }

    #[test]
    fn broken_files_are_named_with_the_line() {
        for text in ["inference_steps: many", "cfg_scale: [1, 2]", "a: b: c", "- 1\n- 2"] {
            let error = configuration(text).0.expect_err(text);
            let message = error.to_string();
            assert!(error.is_input() && message.contains("run.yaml: not a valid configuration"), "{message}");
            assert!(!message.contains('\n'), "{message}");
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let good = r#"{"video_path": "a.mp4", "new_prompt": "p"}"#;
        for (text, reason) in [
            (format!("{good}\n\nnonsense"), "line 3: not a valid example"),
            (r#"{"video_path": "a.mp4"}"#.into(), "missing field `new_prompt`"),
            ("\n\n".into(), "there is no example in it"),
        ] {
            let path = written(folder.path(), "list.jsonl", &text);
            let error = Example::read_all(&path, &mut |_| ()).expect_err(reason);
            assert!(error.is_input() && error.to_string().contains(reason), "{error}");
        }
        let path = written(folder.path(), "list.jsonl", &format!("{good}\n\n{good}\n"));
        assert_eq!(Example::read_all(&path, &mut |_| ()).expect("two examples").len(), 2);
    }

    #[test]
    fn names_stay_in_their_folder() {
        let name = |video: &str, prompt: &str| {
            let json = serde_json::json!({ "video_path": video, "new_prompt": prompt });
            example(&json.to_string()).file_name(42)
        };
        assert_eq!(name("clips/camera_1.mp4", " A road, sunny day"), "camera_1_A_road,_sunny_day_42");
        assert_eq!(name("..", "../../etc/passwd"), "_.._.._etc_passwd_42");
        assert_eq!(name("-c.mp4", "a\\b:c\n\"d\""), "c_a_b_c__d__42");
        let long = name("c.mp4", &"ü".repeat(400));
        assert!(long.len() <= MAX_NAME && long.ends_with("ü_42"), "{long}");
    }

    #[test]
    fn relative_paths_are_also_tried_beside_the_list() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let list = written(folder.path(), "list.jsonl", "");
        let clip = written(folder.path(), "only-beside-the-list.mp4", "");
        let mut notices = Vec::new();
        let found = resolve(Path::new("only-beside-the-list.mp4"), &list, &mut |notice| notices.push(notice));
        assert_eq!((found, notices.len()), (clip, 1));
        let found = resolve(Path::new("nowhere.mp4"), &list, &mut |notice| notices.push(notice));
        assert_eq!((found, notices.len()), ("nowhere.mp4".into(), 1));
        let found = resolve(Path::new("Cargo.toml"), &list, &mut |notice| notices.push(notice));
        assert_eq!((found, notices.len()), ("Cargo.toml".into(), 1));
    }
}
