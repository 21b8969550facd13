//! The published configuration files, taken as they are: a YAML file of settings and a JSONL list of clips and prompts.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use motionclone::media::frames::Frames;
use motionclone::onnx::manifest::Manifest;
use motionclone::onnx::model::config::ControlKind;
use motionclone::settings::{Choices, Control, Model, Settings, Value, named, settings};
use motionclone::{Error, Result};
use serde::Deserialize;
use serde::de::{self, DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_saphyr::options::DuplicateKeyPolicy;

use crate::text::read_text;

/// A file name made from a prompt has at most this many bytes before its extension.
const MAX_NAME: usize = 150;

/// Keys of the configuration that name files of models, which are the bundle's here.
const MODELS: [&str; 6] =
    ["motion_module", "dreambooth_path", "model_config", "controlnet_path", "controlnet_config", "adapter_lora_path"];

/// A run's settings. What a file leaves out is the bundle's default.
#[derive(Debug, Default)]
pub struct Configuration {
    models: BTreeMap<&'static str, PathBuf>,
    /// Appended to every prompt.
    positive_prompt: Option<String>,
    choices: Choices,
}

/// One line of the list. What it says of settings goes over the configuration.
#[derive(Debug)]
pub struct Example {
    /// The reference clip.
    pub video_path: PathBuf,
    prompt: String,
    condition_image_paths: Vec<PathBuf>,
    image_index: Option<Vec<usize>>,
    choices: Choices,
}

/// The keys and values of an object in the order of the file, each key once.
struct Object(Vec<(String, serde_json::Value)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("keys with their values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut entries: Vec<(String, serde_json::Value)> = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, serde_json::Value>()? {
                    if let Some((_, before)) = entries.iter().find(|(known, _)| *known == key) {
                        return Err(de::Error::custom(format!(
                            "the key '{key}' is given twice, as {before} and as {value}; keep one"
                        )));
                    }
                    entries.push((key, value));
                }
                Ok(Object(entries))
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

/// A value of a file, which must have a type.
fn typed<T: DeserializeOwned>(key: &str, value: serde_json::Value, wanted: &str) -> Result<T, String> {
    let shown = value.to_string();
    serde_json::from_value(value).map_err(|_| format!("'{key}' is {shown}: must be {wanted}"))
}

/// Takes a key that is a setting's into the choices; whether it is one.
fn choose(choices: &mut Choices, key: &str, value: &serde_json::Value) -> Result<bool, String> {
    let Some(setting) = settings().find(|setting| setting.published == Some(key)) else { return Ok(false) };
    let read = setting.kind.read(value).map_err(|wanted| format!("'{key}' is {value}: {wanted}"))?;
    choices.choose(setting, read);
    Ok(true)
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
        let bad = |message: String| Error::input(format!("not a valid configuration: {message}")).with_path(path);
        // Keys that stand twice come here, so that the user hears which one.
        let options = serde_saphyr::options! { duplicate_keys: DuplicateKeyPolicy::PassThrough };
        let Object(entries) = serde_saphyr::from_str_with_options(&text, options).map_err(|e| {
            let message = e.to_string();
            bad(message.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().into())
        })?;
        let mut configuration = Self::default();
        let shown = path.display();
        for (key, value) in entries.into_iter().filter(|(_, value)| !value.is_null()) {
            if let Some(name) = MODELS.into_iter().find(|name| **name == key) {
                configuration.models.insert(name, typed(&key, value, "the path of a file").map_err(bad)?);
            } else if key == "positive_prompt" {
                configuration.positive_prompt = Some(typed(&key, value, "a text").map_err(bad)?);
            } else if key == "postive_prompt" {
                // The published files spell it like this.
                warn(format!(
                    "{shown}: 'postive_prompt' is misspelt and has no effect, as in the published code; \
                     'positive_prompt' is appended to every prompt"
                ));
            } else if !choose(&mut configuration.choices, &key, &value).map_err(bad)? {
                warn(format!("{shown}: unknown key '{key}' has no effect"));
            }
        }
        if !configuration.models.is_empty() {
            warn(format!("{shown}: its model files are not read; the models are the bundle's"));
        }
        Ok(configuration)
    }

    /// Pictures or sketches, as the SparseCtrl files' names say; `None` when none is named.
    ///
    /// # Errors
    /// When the names say neither.
    fn control_kind(&self) -> Result<Option<ControlKind>> {
        let names: Vec<String> = ["controlnet_path", "controlnet_config"]
            .into_iter()
            .filter_map(|key| self.models.get(key))
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

    /// Whether a seed is to be drawn for an example.
    pub fn draws_seed(&self, example: &Example) -> bool {
        let mut choices = self.choices.clone();
        choices.extend(&example.choices);
        choices.draws_seed()
    }

    /// The settings of one example. `size` and `frames` go over what the file says.
    ///
    /// # Errors
    /// When an image cannot be read, or images and their frames do not fit together.
    pub fn settings(
        &self,
        manifest: &Manifest,
        example: &Example,
        size: Option<(usize, usize)>,
        frames: Option<usize>,
        resolve: &mut dyn FnMut(&Path) -> PathBuf,
    ) -> Result<Settings> {
        let mut prompt = example.prompt.clone();
        if let Some(suffix) = self.positive_prompt.as_deref().filter(|suffix| !suffix.is_empty()) {
            if !suffix.starts_with(char::is_whitespace) {
                prompt.push(' ');
            }
            prompt.push_str(suffix);
        }
        let kind = self.control_kind()?;
        let control = kind.map(|kind| example.control(kind, resolve)).transpose()?;
        let mut choices = self.choices.clone();
        choices.extend(&example.choices);
        let (width, height) = size.unzip();
        for (name, value) in [("width", width), ("height", height), ("frames", frames)] {
            if let (Some(setting), Some(value)) = (named(name), value) {
                choices.choose(setting, Value::Integer(value as u64));
            }
        }
        let negative = choices.get("negative_prompt").is_some();
        let settings = choices.settings(&Model::from(manifest), control)?;
        // The published code has no negative prompt where the file has none.
        let negative_prompt = if negative { settings.negative_prompt } else { String::new() };
        Ok(Settings { prompt, negative_prompt, ..settings })
    }
}

impl Example {
    /// Reads a list, one JSON object a line; empty lines and comments (`#`, `//`) are skipped.
    ///
    /// # Errors
    /// When the file cannot be read, a line is no such object, or there is none.
    pub fn read_all(path: &Path, warn: Warn) -> Result<Vec<Self>> {
        let mut examples = Vec::new();
        for (index, line) in read_text(path)?.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') || line.starts_with("//") {
                continue;
            }
            let place = format!("line {}", index + 1);
            let example = Self::read(line, &mut |warning| warn(format!("{}: {place}: {warning}", path.display())))
                .map_err(|e| Error::input(format!("{place}: not a valid example: {e}")).with_path(path))?;
            examples.push(example);
        }
        if examples.is_empty() {
            return Err(Error::input("there is no example in it").with_path(path));
        }
        Ok(examples)
    }

    fn read(line: &str, warn: Warn) -> Result<Self, String> {
        let Object(entries) = serde_json::from_str(line).map_err(|e| e.to_string())?;
        let (mut video_path, mut condition_image_paths, mut image_index) = (None, Vec::new(), None);
        let mut choices = Choices::default();
        for (key, value) in entries.into_iter().filter(|(_, value)| !value.is_null()) {
            match key.as_str() {
                "video_path" => video_path = Some(typed(&key, value, "the path of a clip")?),
                "condition_image_paths" => condition_image_paths = typed(&key, value, "a list of paths")?,
                "image_index" => image_index = Some(typed(&key, value, "a list of frames, from 0")?),
                _ if choose(&mut choices, &key, &value)? => {}
                _ => warn(format!("unknown key '{key}' has no effect")),
            }
        }
        let missing = |key: &str| format!("the key '{key}' is missing");
        let video_path = video_path.ok_or_else(|| missing("video_path"))?;
        let Some(Value::Text(prompt)) = choices.get("prompt").cloned() else { return Err(missing("new_prompt")) };
        Ok(Self { video_path, prompt, condition_image_paths, image_index, choices })
    }

    fn control(&self, kind: ControlKind, resolve: &mut dyn FnMut(&Path) -> PathBuf) -> Result<Control> {
        let places = self.image_index.clone().unwrap_or_else(|| vec![0]);
        if places.len() != self.condition_image_paths.len() {
            return Err(Error::input(format!(
                "'{}' has {} condition images for {} places in image_index",
                self.prompt,
                self.condition_image_paths.len(),
                places.len()
            )));
        }
        let images = self.condition_image_paths.iter().zip(places);
        let images = images.map(|(path, frame)| Ok((Frames::open_image(&resolve(path))?, frame)));
        Ok(Control { kind, images: images.collect::<Result<_>>()? })
    }

    /// A file name without extension: the clip's, the prompt with underscores, the seed.
    pub fn file_name(&self, seed: u64) -> String {
        let clip = self.video_path.file_stem().unwrap_or_default().to_string_lossy();
        let seed = format!("_{seed}");
        let mut name = safe(&format!("{clip}_{}", self.prompt.trim()));
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

#[cfg(test)]
mod tests {
    use motionclone::settings::IMAGE_SEED;

    use super::*;
    use crate::testing::manifest;

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
        Example::read(json, &mut |_| ()).expect("an example")
    }

    fn settings(configuration: &Configuration, json: &str) -> Result<Settings> {
        configuration.settings(&manifest(), &example(json), None, None, &mut Path::to_path_buf)
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
            ..Settings::new(&manifest().defaults, "A road")
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
        let manifest = manifest();
        let settings =
            configuration.settings(&manifest, &example(line), Some((64, 32)), Some(4), &mut beside).expect("settings");
        assert_eq!((settings.width, settings.height, settings.frames, settings.seed), (64, 32, 4, 7));
        let control = settings.control.expect("a control");
        assert_eq!((control.kind, settings.control_scale, control.images[0].1), (ControlKind::Scribble, 0.8, 3));

        let line = r#"{"video_path": "a.mp4", "new_prompt": "p", "condition_image_paths": ["a.png"]}"#;
        let settings = configuration.settings(&manifest, &example(line), None, None, &mut beside).expect("settings");
        assert_eq!(settings.seed, IMAGE_SEED);
        assert_eq!(settings.control.map(|control| control.images[0].1), Some(0));

        let line = r#"{"video_path": "a.mp4", "new_prompt": "p"}"#;
        let error = configuration.settings(&manifest, &example(line), None, None, &mut beside).expect_err("no image");
        assert!(error.is_input() && error.to_string().contains("0 condition images for 1 place"), "{error}");
    }

    #[test]
    fn numbers_are_read_as_others_write_them() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let yaml = "W: 64.0\r\nH: '72'\r\ncfg_scale: 7\r\ninference_steps: 1e1 # ten\r\nguidance_steps:\r\n";
        let wide: Vec<u8> = [0xff, 0xfe].into_iter().chain(yaml.encode_utf16().flat_map(u16::to_le_bytes)).collect();
        let path = folder.path().join("run.yaml");
        std::fs::write(&path, wide).expect("a written file");
        let configuration = Configuration::read(&path, &mut |warning| panic!("{warning}")).expect("a configuration");
        let line = r#"{"video_path": "a.mp4", "new_prompt": "p", "seed": 5.0, "controlnet_scale": null}"#;
        let settings = settings(&configuration, line).expect("settings");
        assert_eq!((settings.width, settings.height, settings.steps, settings.seed), (64, 72, 10, 5));
        // What the file leaves open follows the steps.
        assert_eq!((settings.cfg, settings.guidance_steps, settings.warm_up), (7.0, 5, 1));
        let list =
            "\u{feff}# a list\r\n{\"video_path\": \"a.mp4\", \"new_prompt\": \"p\", \"seed\": -1}\r\n// its end\r\n";
        let path = written(folder.path(), "list.jsonl", list);
        let examples = Example::read_all(&path, &mut |warning| panic!("{warning}")).expect("a list");
        assert!(examples.len() == 1 && examples[0].choices.draws_seed());
    }

    #[test]
    fn what_cannot_be_read_is_named_by_its_key() {
        for (text, reason) in [
            ("W: 64\nW: 72", "the key 'W' is given twice, as 64 and as 72; keep one"),
            ("W: 64.5", "'W' is 64.5: must be a whole number"),
            ("inference_steps: many", "'inference_steps' is \"many\": must be a whole number"),
            ("cfg_scale: [1, 2]", "'cfg_scale' is [1,2]: must be a number"),
            ("motion_guidance_blocks: [1]", "'motion_guidance_blocks' is [1]: must be a list of names"),
            ("positive_prompt: [8k]", "'positive_prompt' is [\"8k\"]: must be a text"),
        ] {
            let message = configuration(text).0.expect_err(text).to_string();
            assert!(message.contains(reason), "{message}");
        }
        for (line, reason) in [
            (
                r#"{"video_path": "a.mp4", "new_prompt": "p", "seed": 1, "seed": 2}"#,
                "'seed' is given twice, as 1 and as 2",
            ),
            (r#"{"video_path": "a.mp4", "new_prompt": "p", "seed": -2}"#, "'seed' is -2: must be a whole number"),
            (r#"{"video_path": "a.mp4", "new_prompt": "p", "image_index": [0.5]}"#, "'image_index' is [0.5]"),
            (r#"{"video_path": 7, "new_prompt": "p"}"#, "'video_path' is 7: must be the path of a clip"),
        ] {
            let message = Example::read(line, &mut |_| ()).expect_err(line);
            assert!(message.contains(reason), "{message}");
        }
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
            (r#"{"video_path": "a.mp4"}"#.into(), "the key 'new_prompt' is missing"),
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
