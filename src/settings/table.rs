//! The table of settings: one row each, from which come [`Settings`] itself, its checks, the command line's flags, what
//! the C library tells of settings and sets by name, the cache's key, and what plugins compare their parameters with.
//!
//! A new setting is a row here, and the place that uses its field.

use motionclone_onnx::manifest::Defaults;
use serde::Serialize;

use super::Control;
use super::model::{Model, Range};
use super::quality::{Quality, shares};
use super::value::{Field, Kind, Value};
use crate::error::{Error, Result};
use crate::random::Noise;

/// A setting: what it is called, what it may be, and what it does.
#[derive(Debug)]
pub struct Setting {
    /// Its name, for programs; with dashes, the command line's flag.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// What its number counts, for people; empty where it counts nothing.
    pub unit: &'static str,
    /// One line for people.
    pub help: &'static str,
    /// The version that it came with.
    pub since: &'static str,
    /// Whether it belongs behind the simple ones in an interface.
    pub advanced: bool,
    /// Whether it changes the motion that is extracted, and so belongs to the key of a kept one.
    pub changes_motion: bool,
    /// Whether it is a part of what makes two clones the same. The others set some of these, such as a quality.
    pub identity: bool,
    /// Its key in the published configuration files and their lists.
    pub published: Option<&'static str>,
    /// The part of its range that an interface's slider covers.
    pub usual: Option<(f64, f64)>,
    range: fn(&Model) -> Range,
    default: fn(&Defaults) -> Value,
    get: Option<fn(&Settings) -> Value>,
    set: fn(&mut Settings, &Model, Value) -> Option<()>,
}

/// What a setting is with a model, as other programs read it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Description {
    /// [`Setting::name`].
    pub name: &'static str,
    /// [`Kind::name`].
    pub kind: &'static str,
    /// The names of a choice.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub choices: &'static [&'static str],
    /// The model's own value.
    pub default: Value,
    /// The least value of a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub least: Option<f64>,
    /// The largest value of a number, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most: Option<f64>,
    /// A number is a multiple of this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multiple_of: Option<usize>,
    /// [`Setting::usual`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usual: Option<(f64, f64)>,
    /// [`Setting::unit`].
    pub unit: &'static str,
    /// [`Setting::help`].
    pub help: &'static str,
    /// [`Setting::since`].
    pub since: &'static str,
    /// [`Setting::advanced`].
    pub advanced: bool,
    /// [`Setting::changes_motion`].
    pub changes_motion: bool,
    /// [`Setting::identity`].
    pub identity: bool,
}

impl Setting {
    /// Its name for people, such as `guidance steps`.
    pub fn label(&self) -> String {
        self.name.replace('_', " ")
    }

    /// The values that a model allows.
    pub fn range(&self, model: &Model) -> Range {
        (self.range)(model)
    }

    /// The model's own value.
    pub fn default(&self, model: &Model) -> Value {
        (self.default)(&model.defaults)
    }

    /// The value; `None` for a setting that only sets others.
    pub fn get(&self, settings: &Settings) -> Option<Value> {
        self.get.map(|get| get(settings))
    }

    /// Whether it has a value of its own; otherwise it only sets others.
    pub fn is_kept(&self) -> bool {
        self.get.is_some()
    }

    /// Sets the value, and what follows from it: a number of steps and a quality set the steps that are guided too.
    ///
    /// # Errors
    /// When the value is of another kind, or no seed can be drawn.
    pub fn set(&self, settings: &mut Settings, model: &Model, value: Value) -> Result<()> {
        let value = match value {
            Value::RandomSeed => Value::Integer(draw_seed()?),
            value => value,
        };
        (self.set)(settings, model, value)
            .ok_or_else(|| Error::input(format!("{}: this is not of the kind {}", self.label(), self.kind.name())))
    }

    /// Checks a value against what the model allows.
    ///
    /// # Errors
    /// When it is out of range.
    pub fn check(&self, value: &Value, model: &Model) -> Result<()> {
        let (allowed, shown) = match *value {
            Value::Integer(_) if self.kind == Kind::Seed => return Ok(()),
            Value::Integer(number) => (self.range(model).allows(number as f64), number.to_string()),
            Value::Number(number) => (self.range(model).allows(number), number.to_string()),
            Value::Text(_) | Value::List(_) | Value::RandomSeed => return Ok(()),
        };
        if allowed {
            return Ok(());
        }
        Err(Error::input(format!("{} {shown}: must be {}", self.label(), self.range(model))))
    }

    /// What it is with a model.
    pub fn describe(&self, model: &Model) -> Description {
        let range = matches!(self.kind, Kind::Integer | Kind::Number).then(|| self.range(model));
        Description {
            name: self.name,
            kind: self.kind.name(),
            choices: if let Kind::Choice(names) = self.kind { names } else { &[] },
            default: self.default(model),
            least: range.map(|range| range.least),
            most: range.map(|range| range.most).filter(|most| most.is_finite()),
            multiple_of: range.map(|range| range.multiple_of).filter(|unit| *unit > 0),
            usual: self.usual,
            unit: self.unit,
            help: self.help,
            since: self.since,
            advanced: self.advanced,
            changes_motion: self.changes_motion,
            identity: self.identity,
        }
    }
}

/// A seed that nobody chose. 31 bits, which every interface can show and take.
fn draw_seed() -> Result<u64> {
    let drawn = getrandom::u32().map_err(|e| Error::failure(format!("no random seed can be drawn: {e}")))?;
    Ok(u64::from(drawn >> 1))
}

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

impl Settings {
    /// Sets the number of steps, and the model's own shares of them for guidance, warm-up and cool-down.
    pub fn set_steps(&mut self, steps: usize, defaults: &Defaults) {
        self.steps = steps;
        [self.guidance_steps, self.warm_up, self.cool_up] = shares(steps, defaults);
    }
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
