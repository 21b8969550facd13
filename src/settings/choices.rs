//! Choices: the settings that a user chose, over a model's own.

use std::collections::BTreeMap;

use super::model::Model;
use super::table::{Setting, Settings, settings};
use super::value::Value;
use super::{Control, IMAGE_SEED};
use crate::error::Result;

/// What a user chose; everything else is the model's own.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Choices(BTreeMap<&'static str, Value>);

impl Choices {
    /// Chooses a value; a later choice goes over an earlier one.
    pub fn choose(&mut self, setting: &'static Setting, value: Value) {
        self.0.insert(setting.name, value);
    }

    /// Takes other choices over, which go over these.
    pub fn extend(&mut self, others: &Self) {
        self.0.extend(others.0.iter().map(|(name, value)| (*name, value.clone())));
    }

    /// What was chosen for a setting.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Whether the seed is to be drawn.
    pub fn draws_seed(&self) -> bool {
        self.get("seed") == Some(&Value::RandomSeed)
    }

    /// The model's settings with the choices, not checked yet. With pictures or sketches and no seed chosen, the seed
    /// is the one that the published scripts take then.
    ///
    /// # Errors
    /// When a value is of another kind, or no seed can be drawn.
    pub fn settings(&self, model: &Model, control: Option<Control>) -> Result<Settings> {
        let mut chosen = Settings::new(&model.defaults, "");
        if control.is_some() {
            chosen.seed = IMAGE_SEED;
        }
        chosen.control = control;
        for setting in settings() {
            if let Some(value) = self.get(setting.name) {
                setting.set(&mut chosen, model, value.clone())?;
            }
        }
        Ok(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::named;

    /// A model of the embedded one's steps.
    fn model() -> Model {
        let mut model = Model::default();
        let defaults = &mut model.defaults;
        (defaults.steps, defaults.guidance_steps, defaults.warm_up, defaults.cool_up) = (24, 16, 2, 2);
        model
    }

    #[test]
    fn choices_are_applied_in_the_order_that_keeps_what_was_given() {
        let model = model();
        let chosen = |choices: &[(&str, Value)]| {
            let mut all = Choices::default();
            choices.iter().for_each(|(name, value)| all.choose(named(name).expect("a setting"), value.clone()));
            let settings = all.settings(&model, None).expect("settings");
            [settings.steps, settings.guidance_steps, settings.warm_up, settings.cool_up]
        };
        // The embedded model's own.
        assert_eq!(chosen(&[]), [24, 16, 2, 2]);
        assert_eq!(chosen(&[("steps", Value::Integer(12))]), [12, 8, 1, 1]);
        assert_eq!(chosen(&[("warm_up", Value::Integer(0)), ("steps", Value::Integer(12))]), [12, 8, 0, 1]);
        assert_eq!(chosen(&[("quality", Value::Text("draft".into()))]), [10, 7, 1, 1]);
        assert_eq!(chosen(&[("quality", Value::Text("best".into()))]), [48, 32, 4, 4]);
        let both = [("quality", Value::Text("best".into())), ("steps", Value::Integer(6))];
        assert_eq!(chosen(&both), [6, 4, 1, 1]);
        assert_eq!(chosen(&[("guidance_steps", Value::Integer(3)), both[0].clone()]), [48, 3, 4, 4]);
        let strong = |name: &str, value: f64| {
            let mut all = Choices::default();
            all.choose(named(name).expect("a setting"), Value::Number(value));
            all.settings(&model, None).expect("settings").motion_weight
        };
        assert_eq!(strong("strength", 0.5), model.defaults.motion_weight / 2.0);
        assert_eq!(strong("motion_weight", 0.5), 0.5);
    }

    #[test]
    fn a_drawn_seed_is_another_each_time() {
        let model = model();
        let mut choices = Choices::default();
        choices.choose(named("seed").expect("a setting"), Value::RandomSeed);
        assert!(choices.draws_seed());
        let seeds: std::collections::BTreeSet<u64> =
            (0..4).map(|_| choices.settings(&model, None).expect("settings").seed).collect();
        assert!(seeds.len() > 1 && seeds.iter().all(|seed| *seed < 1 << 31), "{seeds:?}");
    }
}
