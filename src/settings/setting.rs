//! What a setting is: its facts, its range with a model, and how it is set.

use motionclone_onnx::manifest::{Defaults, Manifest};
use serde::Serialize;

use super::Settings;
use super::value::{Kind, Value};
use crate::error::{Error, Result};

/// What settings depend on of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Its own values.
    pub defaults: Defaults,
    /// Width and height are multiples of this, in pixels.
    pub size_unit: usize,
    /// The longest clip, in frames.
    pub max_frames: usize,
    /// Steps of the noise schedule it was trained with.
    pub train_steps: usize,
}

impl Default for Model {
    /// The published model: Stable Diffusion 1.5 with AnimateDiff v3's motion module.
    fn default() -> Self {
        Self { defaults: Defaults::default(), size_unit: 8, max_frames: 32, train_steps: 1000 }
    }
}

impl From<&Manifest> for Model {
    fn from(manifest: &Manifest) -> Self {
        Self {
            defaults: manifest.defaults.clone(),
            size_unit: manifest.vae.downscale(),
            max_frames: manifest.unet.motion.as_ref().map_or(0, |motion| motion.max_frames),
            train_steps: manifest.schedule.train_steps,
        }
    }
}

/// The values that a number may have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// The least one.
    pub least: f64,
    /// The largest one, infinite where there is none.
    pub most: f64,
    /// Only multiples of this; 0 where any number will do.
    pub multiple_of: usize,
}

impl Range {
    pub(super) const UNBOUNDED: Self = Self { least: 0.0, most: f64::INFINITY, multiple_of: 0 };

    pub(super) const fn to(least: usize, most: usize) -> Self {
        Self { least: least as f64, most: most as f64, multiple_of: 0 }
    }

    fn allows(self, value: f64) -> bool {
        value.is_finite()
            && (self.least..=self.most).contains(&value)
            && (self.multiple_of == 0 || value % self.multiple_of as f64 == 0.0)
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { least, most, multiple_of } = *self;
        match (multiple_of, most.is_finite()) {
            (0, true) => write!(f, "{least} to {most}"),
            (0, false) => write!(f, "a number of at least {least}"),
            (unit, true) => write!(f, "a multiple of {unit} from {least} to {most}"),
            (unit, false) => write!(f, "a multiple of {unit} of at least {least}"),
        }
    }
}

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
    pub(super) range: fn(&Model) -> Range,
    pub(super) default: fn(&Defaults) -> Value,
    pub(super) get: Option<fn(&Settings) -> Value>,
    pub(super) set: fn(&mut Settings, &Model, Value) -> Option<()>,
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
