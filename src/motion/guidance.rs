//! Motion guidance: the weight of the motion loss at each step, what its gradient is computed from, and the loss itself.
//!
//! MotionClone (arXiv 2406.05338) compares the temporal attention of the clip being made with the sparse attention of
//! the reference clip and follows the gradient of their distance. The gradient comes from a graph that is given, per
//! guided map, a dense `target` and `weight`; all else is here.

use std::collections::BTreeMap;

use ndarray::Array4;

use super::sparse::{MotionMaps, SparseAttention};
use crate::error::{Error, Result};
use crate::settings::Settings;

/// Weight of the motion loss at each step of a run, 0 where it is not guided: `share` of [`Settings::motion_weight`], growing
/// as (i+1)/warm_up while i < warm_up and fading as (guidance_steps−i)/cool_up while i > guidance_steps − cool_up; 0 once
/// the guided steps are over.
pub fn motion_weights(settings: &Settings, share: f64) -> Vec<f64> {
    let Settings { steps, guidance_steps, warm_up, cool_up, .. } = *settings;
    let full = settings.motion_weight * share;
    let weight = |index: usize| {
        let left = guidance_steps.saturating_sub(index);
        let warm = if index < warm_up { (index + 1) as f64 / warm_up as f64 } else { 1.0 };
        let cool = if left < cool_up { left as f64 / cool_up as f64 } else { 1.0 };
        if left == 0 { 0.0 } else { full * warm * cool }
    };
    (0..steps).map(weight).collect()
}

/// The guided graph's inputs for one attention map.
///
/// With A the map, the gradient of the loss [`motion_loss`] at A is scale · weight ⊙ (A − target), where scale is
/// the step's of [`motion_weights`]: target and weight stay the same for a whole run.
#[derive(Debug, Clone, PartialEq)]
pub struct MotionTarget {
    /// The reference's value at each kept entry, 0 elsewhere: `[positions, heads, frames, frames]`.
    pub target: Array4<f32>,
    /// 2 / (number of kept entries) at each kept entry, 0 elsewhere; same shape.
    pub weight: Array4<f32>,
}

/// The guided graph's targets and weights, by the attention module's name.
///
/// # Errors
/// When a map's indices lie outside its shape, as those of a loaded motion never do.
pub fn motion_targets(motion: &MotionMaps) -> Result<BTreeMap<String, MotionTarget>> {
    motion.iter().map(|(name, map)| Ok((name.clone(), motion_target(name, map)?))).collect()
}

fn motion_target(name: &str, map: &SparseAttention) -> Result<MotionTarget> {
    let shape = (map.positions, map.heads, map.frames, map.frames);
    let (mut target, mut weight) = (Array4::zeros(shape), Array4::zeros(shape));
    let kept = 2.0 / map.values.len() as f32;
    if let (Some(targets), Some(weights)) = (target.as_slice_mut(), weight.as_slice_mut()) {
        for (place, value) in map.entries() {
            let (Some(t), Some(w)) = (targets.get_mut(place), weights.get_mut(place)) else {
                return Err(outside(name));
            };
            (*t, *w) = (value, kept);
        }
    }
    Ok(MotionTarget { target, weight })
}

/// The motion loss: `weight` · Σ over guided maps of mean((A gathered at the kept entries − value)²), with A the
/// attention probabilities `[positions, heads, frames, frames]` of the clip being made, by module name.
///
/// # Errors
/// When a guided map is missing or of another size.
pub fn motion_loss<M: AsRef<[f32]>>(attention: &BTreeMap<String, M>, motion: &MotionMaps, weight: f64) -> Result<f64> {
    let mut loss = 0.0;
    for (name, map) in motion {
        let dense = attention
            .get(name)
            .ok_or_else(|| Error::failure(format!("the guided pass gave no attention map {name}")))?
            .as_ref();
        let expected = map.positions * map.heads * map.frames * map.frames;
        if dense.len() != expected {
            return Err(Error::failure(format!(
                "attention map {name}: the guided pass gave {} values, the motion has {expected}",
                dense.len()
            )));
        }
        let mut squares = 0.0;
        for (place, value) in map.entries() {
            let got = *dense.get(place).ok_or_else(|| outside(name))?;
            squares += f64::from(got - value).powi(2);
        }
        loss += squares / map.values.len() as f64;
    }
    Ok(loss * weight)
}

fn outside(name: &str) -> Error {
    Error::failure(format!("attention map {name}: an index lies outside its shape"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::CpuGenerator;
    use motionclone_onnx::manifest::Defaults;

    fn settings(guidance_steps: usize, warm_up: usize, cool_up: usize) -> Settings {
        let mut settings = Settings::new(&Defaults::default(), "");
        (settings.guidance_steps, settings.warm_up, settings.cool_up) = (guidance_steps, warm_up, cool_up);
        settings.steps = 100;
        settings
    }

    /// Attention over 4 frames at 3 positions with 2 heads, each row a softmax.
    fn attention(seed: u64) -> Vec<f32> {
        let raw: Vec<f32> = CpuGenerator::new(seed).randn(3 * 2 * 4 * 4).into_iter().map(f32::exp).collect();
        raw.chunks_exact(4).flat_map(|row| row.iter().map(|v| v / row.iter().sum::<f32>())).collect()
    }

    fn motion(k: usize) -> MotionMaps {
        let map = |seed| SparseAttention::from_attention(&attention(seed), [3, 2, 4, 4], k).unwrap();
        BTreeMap::from([("a".into(), map(1)), ("b".into(), map(2))])
    }

    #[test]
    fn the_weight_warms_up_and_cools_down() {
        let weights = |s: &Settings, steps: &[usize]| -> Vec<f64> {
            let weights = motion_weights(s, 0.5);
            steps.iter().map(|i| weights[*i] / (0.5 * s.motion_weight)).collect()
        };
        let published = settings(50, 10, 10);
        assert_eq!(
            weights(&published, &[0, 8, 9, 10, 40, 41, 49, 50, 99]),
            [0.1, 0.9, 1.0, 1.0, 1.0, 0.9, 0.1, 0.0, 0.0]
        );
        // Where they overlap, both count.
        assert_eq!(weights(&settings(3, 2, 4), &[0, 1, 2]), [0.375, 0.5, 0.25]);
        assert_eq!(weights(&settings(2, 0, 0), &[0, 1, 2]), [1.0, 1.0, 0.0]);
    }

    #[test]
    fn target_and_weight_give_the_gradient_of_the_loss() {
        for k in [1, 3, 4] {
            let motion = motion(k);
            let targets = motion_targets(&motion).unwrap();
            let mut maps = BTreeMap::from([("a".to_string(), attention(3)), ("b".to_string(), attention(4))]);
            let scale = 2000.0;
            for name in ["a", "b"] {
                let MotionTarget { target, weight } = &targets[name];
                assert_eq!(weight.iter().filter(|w| **w != 0.0).count(), 24 * k);
                for place in 0..maps[name].len() {
                    let value = maps[name][place];
                    let (target, weight) = (target.as_slice().unwrap()[place], weight.as_slice().unwrap()[place]);
                    let expected = scale * f64::from(weight) * f64::from(value - target);
                    let mut at = |value: f32| {
                        maps.get_mut(name).unwrap()[place] = value;
                        motion_loss(&maps, &motion, scale).unwrap()
                    };
                    let (low, high) = (value - 1e-2, value + 1e-2);
                    let slope = (at(high) - at(low)) / f64::from(high - low);
                    at(value);
                    assert!((slope - expected).abs() < 1e-3 * (1.0 + expected.abs()), "{slope} is not {expected}");
                }
            }
        }
    }

    #[test]
    fn the_clip_itself_has_no_loss() {
        let motion = motion(2);
        let mut maps = BTreeMap::from([("a".to_string(), attention(1)), ("b".to_string(), attention(2))]);
        assert_eq!(motion_loss(&maps, &motion, 2000.0).unwrap(), 0.0);
        maps.insert("a".into(), vec![0.0; 95]);
        assert!(motion_loss(&maps, &motion, 1.0).is_err());
        maps.remove("a");
        assert!(motion_loss(&maps, &motion, 1.0).is_err());
        let mut broken = motion;
        broken.values_mut().for_each(|map| map.indices.fill(200));
        assert!(motion_targets(&broken).is_err());
    }
}
