//! The motion representation: the strongest entries of a clip's temporal attention.
//!
//! "Sparse temporal attention guidance" of MotionClone (arXiv 2406.05338): for each latent position, head and frame,
//! the attention over frames is reduced to its top k entries. They say how the clip moves and little of what it shows,
//! so one file serves any prompt and seed on the same model and size.

mod file;
pub mod guidance;
mod sparse;

use std::collections::{BTreeMap, BTreeSet};

use motionclone_onnx::manifest::Manifest;
use motionclone_onnx::model::config::ControlKind;
use motionclone_onnx::model::unet3d;
use serde::{Deserialize, Serialize};

pub use self::sparse::{MotionMaps, SparseAttention};
use crate::error::{Error, Result};
use crate::random::Noise;
use crate::settings::Settings;

/// The conditions of a motion's extraction: what a run must share with it, and where it came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MotionInfo {
    /// [`Manifest::fingerprint`] of the model.
    pub fingerprint: String,
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// Frames.
    pub frames: usize,
    /// Timestep of extraction.
    pub noise_step: usize,
    /// Guided blocks, such as `up_blocks.1`.
    pub blocks: Vec<String>,
    /// Attention entries kept per query.
    pub top_k: usize,
    /// SparseCtrl during extraction, in runs with a picture or a sketch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<MotionControl>,
    /// Seed of the extraction's noise; any run may use the motion, whatever its own seed.
    pub seed: u64,
    /// The generator of that seed.
    #[serde(default)]
    pub noise: Noise,
    /// Hash of the source clip's frames, in hexadecimal.
    pub clip_hash: String,
}

/// SparseCtrl's condition during extraction: the clip's own frames.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MotionControl {
    /// Picture or sketch.
    pub kind: ControlKind,
    /// Strength.
    pub scale: f64,
    /// The frames given as condition, ascending.
    pub frames: Vec<usize>,
}

impl MotionControl {
    /// Equal conditions; the scale may have lost its last bit on the way through a file.
    fn same(&self, other: &Self) -> bool {
        (self.kind, &self.frames) == (other.kind, &other.frames) && (self.scale - other.scale).abs() <= 1e-9
    }
}

impl MotionInfo {
    /// Of a run with these settings that extracts from a clip with the hash `clip_hash`.
    pub fn new(manifest: &Manifest, settings: &Settings, clip_hash: impl Into<String>) -> Self {
        let control = settings.control.as_ref().map(|control| {
            let mut frames: Vec<usize> = control.images.iter().map(|(_, frame)| *frame).collect();
            frames.sort_unstable();
            MotionControl { kind: control.kind, scale: settings.control_scale, frames }
        });
        Self {
            fingerprint: manifest.fingerprint.clone(),
            width: settings.width,
            height: settings.height,
            frames: settings.frames,
            noise_step: settings.noise_step,
            blocks: settings.blocks.clone(),
            top_k: settings.top_k,
            control,
            seed: settings.seed,
            noise: settings.noise,
            clip_hash: clip_hash.into(),
        }
    }
}

/// A clip's motion.
#[derive(Debug, Clone, PartialEq)]
pub struct Motion {
    /// Its attention.
    pub maps: MotionMaps,
    /// The conditions of its extraction.
    pub info: MotionInfo,
}

impl Motion {
    /// Checks that a run with this model and these settings can follow the motion. Prompts, seed, steps and guidance
    /// are free.
    ///
    /// # Errors
    /// The first thing that does not fit: model, size, frames, blocks, noise step, top-k, SparseCtrl, or the maps
    /// themselves.
    pub fn check(&self, manifest: &Manifest, settings: &Settings) -> Result<()> {
        let run = MotionInfo::new(manifest, settings, "");
        let own = &self.info;
        let fail = |what: &str, own: String, run: String| {
            Err(Error::input(format!(
                "this motion was extracted with {what} {own}, the run has {run}; extract it again or change the run"
            )))
        };
        if own.fingerprint != run.fingerprint {
            return Err(Error::input(format!(
                "this motion belongs to another model (fingerprint {}) than {} (fingerprint {}); extract it again",
                short(&own.fingerprint),
                manifest.name,
                short(&run.fingerprint)
            )));
        }
        if (own.width, own.height) != (run.width, run.height) {
            let size = |info: &MotionInfo| format!("{}x{}", info.width, info.height);
            return fail("size", size(own), size(&run));
        }
        for (what, own, run) in [
            ("a frame count of", own.frames, run.frames),
            ("noise step", own.noise_step, run.noise_step),
            ("top-k", own.top_k, run.top_k),
        ] {
            if own != run {
                return fail(what, own.to_string(), run.to_string());
            }
        }
        let blocks = |info: &MotionInfo| info.blocks.iter().cloned().collect::<BTreeSet<String>>();
        if blocks(own) != blocks(&run) {
            return fail("blocks", own.blocks.join(", "), run.blocks.join(", "));
        }
        let same_control = match (&own.control, &run.control) {
            (Some(own), Some(run)) => own.same(run),
            (own, run) => own.is_none() && run.is_none(),
        };
        if !same_control {
            return fail("SparseCtrl", describe(own.control.as_ref()), describe(run.control.as_ref()));
        }
        let expected = guided_maps(manifest, &settings.blocks, settings.width, settings.height)?;
        for (name, [positions, heads]) in &expected {
            match self.maps.get(name) {
                None => return Err(Error::input(format!("this motion lacks the attention map {name}"))),
                Some(map) if (map.positions, map.heads) != (*positions, *heads) => {
                    let (own, run) = ([map.positions, map.heads], [positions, heads]);
                    return fail(&format!("in {name}, positions and heads"), format!("{own:?}"), format!("{run:?}"));
                }
                Some(_) => {}
            }
        }
        if let Some(name) = self.maps.keys().find(|name| !expected.contains_key(*name)) {
            return Err(Error::input(format!("this motion has an attention map {name}, which the run does not guide")));
        }
        Ok(())
    }
}

fn short(fingerprint: &str) -> String {
    fingerprint.chars().take(12).collect()
}

fn describe(control: Option<&MotionControl>) -> String {
    control.map_or("off".into(), |c| {
        let frames: Vec<String> = c.frames.iter().map(usize::to_string).collect();
        format!("{} at scale {} on frame {}", c.kind.name(), c.scale, frames.join(", "))
    })
}

/// The temporal attention maps that a run guides: module name → `[positions, heads]`.
///
/// # Errors
/// When a block is no block of the model, or has no motion modules.
pub fn guided_maps(
    manifest: &Manifest,
    blocks: &[String],
    width: usize,
    height: usize,
) -> Result<BTreeMap<String, [usize; 2]>> {
    let unit = manifest.vae.downscale();
    let heads = manifest.unet.motion.as_ref().map_or(0, |motion| motion.heads);
    let modules = unet3d::guided_modules(&manifest.unet, blocks, height / unit, width / unit)?;
    Ok(modules.into_iter().map(|(name, positions)| (name, [positions, heads])).collect())
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests {
    use super::testing::{manifest, motion, settings};
    use super::*;
    use crate::media::frames::Frames;
    use crate::settings::Control;

    #[test]
    fn guided_maps_are_those_of_the_named_blocks() {
        let maps = |blocks: &[&str]| {
            guided_maps(&manifest(), &blocks.iter().map(|b| (*b).to_string()).collect::<Vec<_>>(), 512, 512)
        };
        let published = maps(&["up_blocks.1"]).unwrap();
        assert_eq!(published.len(), 6);
        assert!(published.values().all(|shape| *shape == [256, 8]));
        let name = "up_blocks.1.motion_modules.2.temporal_transformer.transformer_blocks.0.attention_blocks.1";
        assert!(published.contains_key(name));
        assert_eq!(maps(&["down_blocks.0", "up_blocks.2"]).unwrap().len(), 4 + 6);
        // 12×20 latents are 6×10, then 3×5 positions.
        let odd = guided_maps(&manifest(), &["up_blocks.1".into()], 96, 160).unwrap();
        assert!(odd.values().all(|shape| *shape == [15, 8]));
        for block in ["up_blocks.0", "up_blocks.4", "up_blocks.01", "up_blocks.18446744073709551615", "mid_block", ""] {
            let message = maps(&[block]).unwrap_err().to_string();
            assert!(
                message.contains("down_blocks.0, down_blocks.1, down_blocks.2, up_blocks.1, up_blocks.2, up_blocks.3")
            );
        }
        assert!(maps(&[]).is_err());
    }

    #[test]
    fn a_run_that_does_not_fit_is_refused() {
        let motion = motion(&settings());
        let check = |change: &dyn Fn(&mut Settings)| {
            let mut settings = settings();
            change(&mut settings);
            motion.check(&manifest(), &settings).map_err(|e| e.to_string())
        };
        check(&|s| {
            (s.prompt, s.seed, s.steps, s.motion_weight) = ("another".into(), 7, 9, 1.0);
        })
        .unwrap();
        let refused = |change: &dyn Fn(&mut Settings), words: &str| {
            let message = check(change).unwrap_err();
            assert!(message.contains(words), "{message}");
        };
        refused(&|s| s.width = 512, "size 96x160, the run has 512x160");
        refused(&|s| s.frames = 8, "frame count of 4, the run has 8");
        refused(&|s| s.noise_step = 300, "noise step 400, the run has 300");
        refused(&|s| s.top_k = 1, "top-k 2, the run has 1");
        refused(&|s| s.blocks.push("up_blocks.2".into()), "the run has up_blocks.1, up_blocks.2");
        let image = Frames { width: 1, height: 1, data: vec![0; 3] };
        let control = Control { kind: ControlKind::Rgb, images: vec![(image, 2)] };
        refused(&|s| s.control = Some(control.clone()), "SparseCtrl off, the run has rgb at scale 1 on frame 2");

        let mut other = manifest();
        other.fingerprint = "fedcba9876543210".into();
        assert!(motion.check(&other, &settings()).unwrap_err().to_string().contains("another model"));
        let mut fewer_heads = manifest();
        fewer_heads.unet.motion.as_mut().unwrap().heads = 4;
        assert!(motion.check(&fewer_heads, &settings()).unwrap_err().to_string().contains("positions and heads"));
        let mut lacking = motion.clone();
        lacking.maps.pop_last();
        assert!(lacking.check(&manifest(), &settings()).unwrap_err().to_string().contains("lacks"));
    }
}
