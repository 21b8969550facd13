//! Qualities: how many steps of the model's own a clone takes, and what that makes of the steps that are guided.

use motionclone_onnx::manifest::Defaults;

use super::model::Model;

/// A compromise between time and quality, in steps of the model's own: a lower one never takes longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Quality {
    /// Two fifths of the model's own steps, to see whether the motion is right.
    Draft,
    /// The model's own steps.
    #[default]
    Standard,
    /// Twice the model's own steps.
    Best,
}

impl Quality {
    /// The names, from the fastest to the best.
    pub const NAMES: &[&str] = &["draft", "standard", "best"];
    /// All of them, in the order of their names.
    pub const ALL: [Self; 3] = [Self::Draft, Self::Standard, Self::Best];

    /// The quality with a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().zip(Self::NAMES).find(|(_, known)| **known == name).map(|(quality, _)| quality)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// Denoising steps with a model.
    pub fn steps(self, model: &Model) -> usize {
        let own = model.defaults.steps;
        match self {
            Self::Draft => own.saturating_mul(2).div_ceil(5),
            Self::Standard => own,
            Self::Best => own.saturating_mul(2).min(model.train_steps).max(own),
        }
    }
}

/// The steps of guidance, warm-up and cool-down that a number of steps takes in a model's own proportion. What the model
/// has at all stays at least one step.
pub fn shares(steps: usize, defaults: &Defaults) -> [usize; 3] {
    [defaults.guidance_steps, defaults.warm_up, defaults.cool_up].map(|own| {
        let exact = own as u128 * steps as u128;
        let whole = defaults.steps.max(1) as u128;
        let rounded = usize::try_from((2 * exact + whole) / (2 * whole)).unwrap_or(usize::MAX);
        rounded.max(usize::from(own > 0))
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use motionclone_onnx::manifest::Manifest;

    use super::*;
    use crate::settings::Settings;

    /// The embedded model's manifest with other steps.
    fn manifest(steps: usize, guidance: usize, ramp: usize) -> Manifest {
        let bundle = Path::new(env!("CARGO_MANIFEST_DIR")).join("onnx/demo/bundle");
        let mut manifest = Manifest::read(&bundle).expect("the embedded model");
        manifest.defaults =
            Defaults { steps, guidance_steps: guidance, warm_up: ramp, cool_up: ramp, ..manifest.defaults };
        manifest
    }

    fn taken(manifest: &Manifest, steps: usize) -> [usize; 4] {
        let mut settings = Settings::new(&manifest.defaults, "");
        settings.set_steps(steps, &manifest.defaults);
        [settings.steps, settings.guidance_steps, settings.warm_up, settings.cool_up]
    }

    #[test]
    fn steps_take_their_shares_along() {
        let published = manifest(100, 50, 10);
        assert_eq!(taken(&published, 40), [40, 20, 4, 4]);
        assert_eq!(taken(&published, 100), [100, 50, 10, 10]);
        assert_eq!(taken(&published, 1000), [1000, 500, 100, 100]);
        assert_eq!(taken(&published, 1), [1, 1, 1, 1]);
        assert_eq!(taken(&manifest(24, 16, 2), 10), [10, 7, 1, 1]);
        assert_eq!(taken(&manifest(24, 0, 0), 10), [10, 0, 0, 0]);
    }

    /// A guided step takes at least as long as one that is not, so fewer of both never take longer.
    #[test]
    fn a_lower_quality_never_takes_longer_with_any_model() {
        for steps in (1..=60_usize).chain([100, 300, 501, 999, 1000]) {
            for guidance in [0, 1, steps / 3, steps / 2, steps.saturating_sub(1), steps] {
                let manifest = manifest(steps, guidance, guidance / 3);
                let of = |quality: Quality| taken(&manifest, quality.steps(&Model::from(&manifest)));
                let [draft, standard, best] = Quality::ALL.map(of);
                assert_eq!(standard, [steps, guidance, guidance / 3, guidance / 3]);
                for (lower, higher) in [(draft, standard), (standard, best)] {
                    assert!(lower[0] <= higher[0] && lower[1] <= higher[1], "{steps} {guidance}: {lower:?} {higher:?}");
                }
                for quality in Quality::ALL {
                    let mut settings = Settings::new(&manifest.defaults, "");
                    settings.set_steps(quality.steps(&Model::from(&manifest)), &manifest.defaults);
                    settings.check(&manifest).expect("every quality of a sound model is sound");
                }
            }
        }
    }

    #[test]
    fn names_are_those_of_the_qualities() {
        for quality in Quality::ALL {
            assert_eq!(Quality::named(quality.name()), Some(quality));
        }
        assert_eq!(Quality::named("fast"), None);
        assert_eq!(Quality::default().name(), "standard");
    }
}
