//! Extraction: the attention of a clip's own frames, at one timestep and with the empty prompt.

use motionclone_onnx::model::config::ControlKind;
use ndarray::{ArrayD, Axis, IxDyn};

use crate::error::{Error, Result};
use crate::pipeline::control::{Conditioning, condition};
use crate::pipeline::noise::initial_latents;
use crate::pipeline::unet::{AttentionMaps, Conditioned, Unet};
use crate::pipeline::vae;
use crate::schedule::NoiseSchedule;
use crate::settings::Settings;

/// The guided blocks' temporal attention for encoded frames `latents [frames, 4, h, w]` at the noise step of the settings.
/// `text` is the empty prompt's embeddings; `pixels [frames, 3, H, W]` in 0..1 is what a sketch control is conditioned on.
///
/// # Errors
/// When a network fails or the run is cancelled.
pub fn attention(
    unet: &mut Unet,
    settings: &Settings,
    text: ArrayD<f32>,
    latents: &ArrayD<f32>,
    pixels: Option<&ArrayD<f32>>,
) -> Result<AttentionMaps> {
    let clean = vae::images_to_video(latents);
    let noise = initial_latents(settings, clean.shape())?;
    let schedule = NoiseSchedule::new(&unet.manifest().schedule)?;
    let flat = |a: &ArrayD<f32>| a.iter().copied().collect::<Vec<f32>>();
    let noisy = schedule.add_noise(&flat(&clean), &flat(&noise), settings.noise_step as i64)?;
    let noisy = ArrayD::from_shape_vec(clean.raw_dim(), noisy).map_err(|e| Error::failure(e.to_string()))?;
    let control = match &settings.control {
        None => None,
        Some(control) => {
            let places: Vec<usize> = control.images.iter().map(|(_, frame)| *frame).collect();
            let source = match control.kind {
                ControlKind::Rgb => latents,
                ControlKind::Scribble => pixels.ok_or_else(|| Error::failure("a sketch control needs pixels"))?,
            };
            let condition = condition(&source.select(Axis(0), &places), &places, settings.frames)?;
            Some(Conditioning::new(|array| unet.tensor(array), condition, settings.control_scale)?)
        }
    };
    let (text, timestep) =
        (unet.tensor(text)?, unet.tensor(ArrayD::from_elem(IxDyn(&[1]), settings.noise_step as f32))?);
    unet.attention(&Conditioned { latents: &noisy, timestep: &timestep, text: &text, control: control.as_ref() })
}
