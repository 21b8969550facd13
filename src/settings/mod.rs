//! Settings of a clone: everything that decides it besides the clip and the model. [`table`](settings) has their facts,
//! [`Quality`] the compromises between time and quality.

use motionclone_onnx::manifest::Manifest;
use motionclone_onnx::model::config::ControlKind;
use motionclone_onnx::model::unet3d;

use crate::error::{Error, Result};
use crate::media::frames::Frames;

mod choices;
mod frame_rate;
mod model;
mod quality;
mod table;
mod value;

pub use crate::random::Noise;
pub use choices::Choices;
pub use frame_rate::FrameRate;
pub use model::{Model, Range};
pub use quality::Quality;
pub use table::{Description, Setting, Settings, named, settings};
pub use value::{Kind, Value};

/// The seed of the published text-to-video scripts.
const TEXT_SEED: u64 = 2025;
/// The seed of the published image-to-video scripts.
pub const IMAGE_SEED: u64 = 76739;

/// Pictures or sketches, each at a frame of the new clip.
#[derive(Debug, Clone, PartialEq)]
pub struct Control {
    /// Picture or sketch.
    pub kind: ControlKind,
    /// Images with the frame each stands at; one frame an image, of any size.
    pub images: Vec<(Frames, usize)>,
}

impl Settings {
    /// The settings that `part` picks as text, a line each, which stays the same as long as their values do: a part of
    /// keys under which results are kept. Pictures and sketches are there with their frames, not with their pixels.
    pub fn canonical(&self, part: impl Fn(&Setting) -> bool) -> String {
        let mut text = String::new();
        for setting in settings().filter(|setting| part(setting)) {
            if let Some(value) = setting.get(self) {
                // Numbers in the shortest form that is read back as the same number, texts with their ends.
                let value = serde_json::json!(value);
                text.push_str(&format!("{}={value}\n", setting.name));
            }
        }
        if let Some(control) = &self.control {
            let mut frames: Vec<usize> = control.images.iter().map(|(_, frame)| *frame).collect();
            frames.sort_unstable();
            text.push_str(&format!("control={}@{}\n", control.kind.name(), serde_json::json!(frames)));
        }
        text
    }

    /// Checks every value against what the model and the method allow.
    ///
    /// # Errors
    /// The first value that is out of range, with what is allowed.
    pub fn check(&self, manifest: &Manifest) -> Result<()> {
        let fail = |message: String| Err(Error::input(message));
        manifest.motion()?;
        let model = Model::from(manifest);
        for setting in settings() {
            if let Some(value) = setting.get(self) {
                setting.check(&value, &model)?;
            }
        }
        if self.guidance_steps > self.steps {
            return fail(format!(
                "{} guidance steps: more than the {} steps of the run",
                self.guidance_steps, self.steps
            ));
        }
        if self.top_k > self.frames {
            return fail(format!("top-k {}: must be 1 to the number of frames, {}", self.top_k, self.frames));
        }
        let unit = manifest.vae.downscale();
        unet3d::guided_modules(&manifest.unet, &self.blocks, self.height / unit, self.width / unit)?;
        if let Some(control) = &self.control {
            if !manifest.controls.contains_key(&control.kind) {
                return fail(format!(
                    "this bundle has no SparseCtrl {}; import it with --sparsectrl-{0}",
                    control.kind.name()
                ));
            }
            if control.images.is_empty() {
                return fail("control needs at least one image".into());
            }
            for (_, frame) in &control.images {
                if *frame >= self.frames {
                    return fail(format!("image at frame {frame}: the clip has frames 0 to {}", self.frames - 1));
                }
            }
        }
        Ok(())
    }
}
