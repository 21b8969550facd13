//! What the user decides about one clone, besides the clip and the model.

use half::f16;
use motionclone_onnx::manifest::{Defaults, Manifest};
use motionclone_onnx::model::config::ControlKind;
use motionclone_onnx::model::unet3d;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::media::frames::Frames;
use crate::random::{CpuGenerator, CudaGenerator};

/// Everything that decides a clone but the clip and the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// What the new clip shows.
    pub prompt: String,
    /// What it must not show.
    pub negative_prompt: String,
    /// Seed of the noise.
    pub seed: u64,
    /// Whose noise.
    pub noise: Noise,
    /// Pixels across, a multiple of 8.
    pub width: usize,
    /// Pixels down, a multiple of 8.
    pub height: usize,
    /// Frames, at most the model's position table.
    pub frames: usize,
    /// Denoising steps.
    pub steps: usize,
    /// How many of them are guided.
    pub guidance_steps: usize,
    /// Share of the noise schedule that the guided steps cover (g), 0..=1.
    pub guidance_scale: f64,
    /// Guided steps over which the motion weight grows.
    pub warm_up: usize,
    /// Guided steps over which the motion weight fades.
    pub cool_up: usize,
    /// Weight of the motion loss, of which a control leaves the bundle's share
    /// ([`Defaults::motion_share`]); 0 turns guidance off exactly.
    pub motion_weight: f64,
    /// Classifier-free guidance: ε_c + cfg·(ε_c − ε_u).
    pub cfg: f64,
    /// Timestep at which motion is extracted.
    pub noise_step: usize,
    /// UNet blocks whose temporal attention is guided, such as `up_blocks.1`.
    pub blocks: Vec<String>,
    /// Attention entries kept per query.
    pub top_k: usize,
    /// Picture or sketch that the new clip must show.
    pub control: Option<Control>,
}

/// Whose random numbers a seed stands for. Both are drawn by this library, on any device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Noise {
    /// PyTorch's on a CPU.
    #[default]
    Cpu,
    /// PyTorch's on an H100, in half precision, which is what the published scripts draw there.
    Cuda,
}

impl Noise {
    /// `count` independent standard normal numbers, the first that a fresh generator with this seed gives.
    pub fn draw(self, seed: u64, count: usize) -> Vec<f32> {
        const MULTIPROCESSORS: usize = 132;
        const THREADS: usize = 2048;
        match self {
            Self::Cpu => CpuGenerator::new(seed).randn(count),
            Self::Cuda => {
                let drawn = CudaGenerator::new(seed, MULTIPROCESSORS, THREADS).randn(count);
                drawn.into_iter().map(|number| f16::from_f32(number).to_f32()).collect()
            }
        }
    }
}

/// Pictures or sketches, each at a frame of the new clip.
#[derive(Debug, Clone, PartialEq)]
pub struct Control {
    /// Picture or sketch.
    pub kind: ControlKind,
    /// Strength, 1 is full.
    pub scale: f64,
    /// Images with the frame each stands at; one frame an image, of any size.
    pub images: Vec<(Frames, usize)>,
}

impl Settings {
    /// A bundle's defaults with a prompt, seed 2025 (the published text-to-video seed) and no control.
    pub fn new(defaults: &Defaults, prompt: impl Into<String>) -> Self {
        let d = defaults.clone();
        Self {
            prompt: prompt.into(),
            negative_prompt: d.negative_prompt,
            seed: 2025,
            noise: Noise::default(),
            width: d.width,
            height: d.height,
            frames: d.frames,
            steps: d.steps,
            guidance_steps: d.guidance_steps,
            guidance_scale: d.guidance_scale,
            warm_up: d.warm_up,
            cool_up: d.cool_up,
            motion_weight: d.motion_weight,
            cfg: d.cfg,
            noise_step: d.noise_step,
            blocks: d.blocks,
            top_k: d.top_k,
            control: None,
        }
    }

    /// Checks every value against what the model and the method allow.
    ///
    /// # Errors
    /// The first value that is out of range, with what is allowed.
    pub fn check(&self, manifest: &Manifest) -> Result<()> {
        let fail = |message: String| Err(Error::input(message));
        let unit = manifest.vae.downscale();
        for (name, value) in [("width", self.width), ("height", self.height)] {
            if value == 0 || value % unit != 0 || value > 4096 {
                return fail(format!("{name} {value}: must be a multiple of {unit} from {unit} to 4096"));
            }
        }
        let longest = manifest.unet.motion.as_ref().map_or(0, |m| m.max_frames);
        if self.frames < 2 || self.frames > longest {
            return fail(format!("{} frames: this model takes 2 to {longest}", self.frames));
        }
        let train = manifest.schedule.train_steps;
        if self.steps == 0 || self.steps > train {
            return fail(format!("{} steps: must be 1 to {train}", self.steps));
        }
        if self.guidance_steps > self.steps {
            return fail(format!(
                "{} guidance steps: more than the {} steps of the run",
                self.guidance_steps, self.steps
            ));
        }
        if !(0.0..=1.0).contains(&self.guidance_scale) {
            return fail(format!("guidance scale {}: must be 0 to 1", self.guidance_scale));
        }
        if self.noise_step >= train {
            return fail(format!("noise step {}: must be below {train}", self.noise_step));
        }
        if self.top_k == 0 || self.top_k > self.frames {
            return fail(format!("top-k {}: must be 1 to the number of frames, {}", self.top_k, self.frames));
        }
        for (name, value) in [("motion weight", self.motion_weight), ("cfg", self.cfg)] {
            if !value.is_finite() || value < 0.0 {
                return fail(format!("{name} {value}: must be a number of at least 0"));
            }
        }
        unet3d::guided_modules(&manifest.unet, &self.blocks, self.height / unit, self.width / unit)?;
        if let Some(control) = &self.control {
            if !manifest.controls.contains_key(&control.kind) {
                return fail(format!(
                    "this bundle has no SparseCtrl {}; import it with --sparsectrl-{0}",
                    control.kind.name()
                ));
            }
            if !control.scale.is_finite() || control.scale < 0.0 {
                return fail(format!("control scale {}: must be a number of at least 0", control.scale));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_stands_for_numbers_of_a_device() {
        // torch.randn(4, device=…, dtype=torch.float16) with a generator of seed 42 there.
        let cuda = Noise::Cuda.draw(42, 4);
        assert_eq!(cuda, [0.194_f32, 2.1621, -0.172, 0.8491].map(|v| f16::from_f32(v).to_f32()));
        assert_ne!(Noise::Cpu.draw(42, 4), cuda);
    }
}
