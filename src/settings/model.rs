//! What settings depend on of a model, and the values that numbers may have.

use motionclone_onnx::manifest::{Defaults, Manifest};

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

    pub(super) fn allows(self, value: f64) -> bool {
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
