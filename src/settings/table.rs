//! The table of settings: one row each, from which come [`Settings`] itself, its checks, the command line's flags, what
//! the C library tells of settings and sets by name, the cache's key, and what plugins compare their parameters with.
//!
//! A new setting is a row here, and the place that uses its field.

use motionclone_onnx::manifest::Defaults;

use super::quality::Quality;
use super::setting::{Model, Range, Setting};
use super::value::{Field, Kind, Value};
use super::{Control, Noise};

/// The settings in the order in which they are applied: those that set others come first.
pub fn settings() -> impl ExactSizeIterator<Item = &'static Setting> + Clone {
    TABLE.iter()
}

/// The setting with a name.
pub fn named(name: &str) -> Option<&'static Setting> {
    settings().find(|setting| setting.name == name)
}

/// Makes [`Settings`] and its rows of the table. A row is a line for people, a field with its default, and the facts
/// that differ from those of [`DENOISING`] or [`EXTRACTION`]; a row without a field sets others.
macro_rules! table {
    (
        { $(#[doc = $line:literal] $other:ident: $own:expr, $apply:expr, $facts:expr;)* }
        $(#[doc = $help:literal] $name:ident: $type:ty = |$defaults:pat_param| $default:expr, $row:expr $(, then $after:expr)?;)*
    ) => {
        /// Everything that decides a clone but the clip and the model.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Settings {
            $(#[doc = $help] pub $name: $type,)*
            /// Pictures or sketches that the new clip must show.
            pub control: Option<Control>,
        }

        impl Settings {
            /// A bundle's defaults with a prompt, seed 2025 (the published text-to-video seed) and no control.
            pub fn new(defaults: &Defaults, prompt: impl Into<String>) -> Self {
                let mut new = Self {
                    $($name: { let own: fn(&Defaults) -> $type = |$defaults| $default; own(defaults) },)*
                    control: None,
                };
                new.prompt = prompt.into();
                new
            }
        }

        static TABLE: &[Setting] = &[
            $(Setting { name: stringify!($other), help: $line.trim_ascii(), default: $own, set: $apply, ..$facts },)*
            $(Setting {
                name: stringify!($name),
                help: $help.trim_ascii(),
                default: |defaults| {
                    let own: fn(&Defaults) -> $type = |$defaults| $default;
                    own(defaults).to_value()
                },
                get: Some(|settings| settings.$name.to_value()),
                set: |settings, _model, value| {
                    settings.$name = <$type>::from_value(value)?;
                    $({
                        let after: fn(&mut Settings, &Model) = $after;
                        after(settings, _model);
                    })?
                    Some(())
                },
                ..$row
            },)*
        ];
    };
}

/// The facts of a setting of the denoising that is a number of any size.
const DENOISING: Setting = Setting {
    name: "",
    kind: Kind::Number,
    unit: "",
    help: "",
    since: "0.1.0",
    advanced: false,
    changes_motion: false,
    identity: true,
    published: None,
    usual: None,
    range: |_| Range::UNBOUNDED,
    default: |_| Value::Number(0.0),
    get: None,
    set: |_, _, _| None,
};
/// The facts of a setting that changes the extracted motion too.
const EXTRACTION: Setting = Setting { changes_motion: true, ..DENOISING };
/// The facts of a setting that sets others.
const SETS_OTHERS: Setting = Setting { identity: false, ..DENOISING };

/// The sizes that a clip may have in pixels.
fn pixels(model: &Model) -> Range {
    let unit = model.size_unit;
    Range { multiple_of: unit, ..Range::to(unit, 4096) }
}

/// Numbers of steps, from `least`.
fn steps(least: usize, model: &Model) -> Range {
    Range::to(least, model.train_steps)
}

table! {
    {
    /// Time against quality, by the model's own steps: draft takes fewer, best more
    quality:
        |_| Value::Text(Quality::default().name().into()),
        |settings, model, value| {
            let quality = Quality::named(&String::from_value(value)?)?;
            settings.set_steps(quality.steps(model), &model.defaults);
            Some(())
        },
        Setting { kind: Kind::Choice(Quality::NAMES), ..SETS_OTHERS };
    /// How strictly the motion is followed: 1 is the model's own, 0 leaves the motion to the model
    strength:
        |_| Value::Number(1.0),
        |settings, model, value| {
            settings.motion_weight = model.defaults.motion_weight * f64::from_value(value)?;
            Some(())
        },
        Setting { usual: Some((0.0, 3.0)), ..SETS_OTHERS };
    }

    /// What the new clip shows
    prompt: String = |_| String::new(), Setting { kind: Kind::Text, published: Some("new_prompt"), ..DENOISING };
    /// What it must not show
    negative_prompt: String = |defaults| defaults.negative_prompt.clone(),
        Setting { kind: Kind::Text, published: Some("negative_prompt"), ..DENOISING };
    /// Seed of all noise, -1 draws one; 2025, or 76739 with an image, unless given (the published seeds)
    seed: u64 = |_| super::TEXT_SEED,
        Setting { kind: Kind::Seed, published: Some("seed"), ..EXTRACTION };
    /// PyTorch generator that a seed stands for: a CPU's, or an H100's (cuda), where the published scripts draw
    noise: Noise = |_| Noise::default(),
        Setting { kind: Kind::Choice(Noise::NAMES), advanced: true, ..EXTRACTION };
    /// Pixels across of the new clip, a multiple of 8
    width: usize = |defaults| defaults.width,
        Setting {
            kind: Kind::Integer, unit: "pixels", range: pixels, published: Some("W"), usual: Some((64.0, 1024.0)),
            ..EXTRACTION
        };
    /// Pixels down of the new clip, a multiple of 8
    height: usize = |defaults| defaults.height,
        Setting {
            kind: Kind::Integer, unit: "pixels", range: pixels, published: Some("H"), usual: Some((64.0, 1024.0)),
            ..EXTRACTION
        };
    /// Frames of the new clip, taken evenly from the whole reference
    frames: usize = |defaults| defaults.frames,
        Setting {
            kind: Kind::Integer, unit: "frames", range: |model| Range::to(2, model.max_frames),
            published: Some("L"), ..EXTRACTION
        };
    /// Denoising steps: more take longer and look better; guided ones follow in proportion unless given
    steps: usize = |defaults| defaults.steps,
        Setting {
            kind: Kind::Integer, unit: "steps", range: |model| steps(1, model),
            published: Some("inference_steps"), usual: Some((1.0, 100.0)), ..DENOISING
        },
        then |settings, model| settings.set_steps(settings.steps, &model.defaults);
    /// How many of the steps are guided by the motion
    guidance_steps: usize = |defaults| defaults.guidance_steps,
        Setting {
            kind: Kind::Integer, unit: "steps", range: |model| steps(0, model),
            published: Some("guidance_steps"), usual: Some((0.0, 100.0)), advanced: true, ..DENOISING
        };
    /// Share of the noise schedule that the guided steps cover (g), 0 to 1
    guidance_scale: f64 = |defaults| defaults.guidance_scale,
        Setting {
            range: |_| Range::to(0, 1), published: Some("guidance_scale"), usual: Some((0.0, 1.0)), advanced: true,
            ..DENOISING
        };
    /// Guided steps over which the guidance grows
    warm_up: usize = |defaults| defaults.warm_up,
        Setting {
            kind: Kind::Integer, unit: "steps", range: |model| steps(0, model),
            published: Some("warm_up_steps"), usual: Some((0.0, 50.0)), advanced: true, ..DENOISING
        };
    /// Cool-down: guided steps over which the guidance fades
    cool_up: usize = |defaults| defaults.cool_up,
        Setting {
            kind: Kind::Integer, unit: "steps", range: |model| steps(0, model),
            published: Some("cool_up_steps"), usual: Some((0.0, 50.0)), advanced: true, ..DENOISING
        };
    /// Weight of the motion loss, of which the model may leave a part beside images; 0 turns guidance off
    motion_weight: f64 = |defaults| defaults.motion_weight,
        Setting { published: Some("motion_guidance_weight"), advanced: true, ..DENOISING };
    /// Classifier-free guidance as the published code counts it: 7.5 here is 8.5 elsewhere
    cfg: f64 = |defaults| defaults.cfg,
        Setting { published: Some("cfg_scale"), usual: Some((0.0, 20.0)), advanced: true, ..DENOISING };
    /// Timestep at which motion is extracted
    noise_step: usize = |defaults| defaults.noise_step,
        Setting {
            kind: Kind::Integer, range: |model| Range::to(0, model.train_steps.saturating_sub(1)),
            published: Some("add_noise_step"), advanced: true, ..EXTRACTION
        };
    /// UNet blocks whose temporal attention is guided, such as up_blocks.1
    blocks: Vec<String> = |defaults| defaults.blocks.clone(),
        Setting { kind: Kind::List, published: Some("motion_guidance_blocks"), advanced: true, ..EXTRACTION };
    /// Attention entries kept per query
    top_k: usize = |defaults| defaults.top_k,
        Setting {
            kind: Kind::Integer, unit: "entries", range: |model| Range::to(1, model.max_frames), advanced: true,
            ..EXTRACTION
        };
    /// Strength of the images, 1 is full
    control_scale: f64 = |defaults| defaults.control_scale,
        Setting { published: Some("controlnet_scale"), usual: Some((0.0, 2.0)), ..EXTRACTION };
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use motionclone_onnx::manifest::Manifest;

    use super::*;

    fn manifest() -> Manifest {
        let bundle = Path::new(env!("CARGO_MANIFEST_DIR")).join("onnx/demo/bundle");
        Manifest::read(&bundle).expect("the embedded model")
    }

    #[test]
    fn every_row_is_whole_and_its_own_value_is_sound() {
        let manifest = manifest();
        let model = Model::from(&manifest);
        let own = Settings::new(&model.defaults, "");
        own.check(&manifest).expect("a model's own settings are sound");
        let mut names: Vec<&str> = settings().map(|setting| setting.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), settings().len(), "each name once");
        for setting in settings() {
            let Setting { name, kind, help, .. } = setting;
            assert!(!help.is_empty() && !help.contains('\n') && !help.ends_with('.'), "{name}: {help}");
            let default = setting.default(&model);
            setting.check(&default, &model).unwrap_or_else(|e| panic!("{name}: {e}"));
            // As text and back, as flags and files give it.
            let text = match &default {
                Value::Integer(number) => number.to_string(),
                Value::Number(number) => number.to_string(),
                Value::Text(text) => text.clone(),
                Value::List(names) => names.join(","),
                Value::RandomSeed => panic!("{name}: drawn by default"),
            };
            assert_eq!(kind.parse(&text).as_ref(), Ok(&default), "{name}");
            assert_eq!(kind.read(&serde_json::json!(default)).as_ref(), Ok(&default), "{name}");
            // Setting the model's own values changes nothing.
            let mut again = own.clone();
            setting.set(&mut again, &model, default.clone()).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(again, own, "{name}");
            assert!(setting.get(&own).is_none_or(|value| value == default), "{name}");
            assert_eq!(setting.get(&own).is_some(), setting.identity, "{name}: what has a field decides the clone");
            assert!(!setting.changes_motion || setting.identity, "{name}");
            // Another kind is refused.
            let other = if matches!(default, Value::List(_)) { Value::Number(0.5) } else { Value::List(Vec::new()) };
            assert!(setting.set(&mut again, &model, other).is_err_and(|e| e.is_input()), "{name}");
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused_with_what_is_allowed() {
        let model = Model::from(&manifest());
        let train = model.train_steps as f64;
        for (name, least, most) in [
            ("width", 8.0, 4096.0),
            ("height", 8.0, 4096.0),
            ("frames", 2.0, 32.0),
            ("steps", 1.0, train),
            ("guidance_steps", 0.0, train),
            ("guidance_scale", 0.0, 1.0),
            ("noise_step", 0.0, train - 1.0),
            ("top_k", 1.0, 32.0),
            ("motion_weight", 0.0, f64::INFINITY),
            ("cfg", 0.0, f64::INFINITY),
            ("control_scale", 0.0, f64::INFINITY),
            ("strength", 0.0, f64::INFINITY),
        ] {
            let setting = named(name).expect(name);
            let range = setting.range(&model);
            assert_eq!((range.least, range.most), (least, most), "{name}");
            let refused = |number: f64| {
                let error = setting.check(&Value::Number(number), &model).expect_err(name).to_string();
                assert!(error.starts_with(&format!("{} {number}: must be ", setting.label())), "{error}");
            };
            [f64::NAN, f64::INFINITY, least - 1.0, most + 1.0].into_iter().for_each(refused);
            setting.check(&Value::Number(least), &model).expect("the least");
        }
        let width = named("width").expect("a setting");
        let error = width.check(&Value::Integer(60), &model).expect_err("no multiple").to_string();
        assert_eq!(error, "width 60: must be a multiple of 8 from 8 to 4096");
    }
}
