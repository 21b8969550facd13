//! Pixels to latents and back, a frame at a time.

use motionclone_onnx::model::config::VaeConfig;
use ndarray::{Array4, Array5, ArrayD, Axis, IxDyn, Zip, s};

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::media::frames::Frames;
use crate::runtime::{Input, Network};

/// Frames as model input: `[frames, 3, H, W]` in −1..1 (x/127.5 − 1, as the published code reads clips).
pub fn pixels(frames: &Frames) -> ArrayD<f32> {
    channels_first(frames, |v| f32::from(v) / 127.5 - 1.0)
}

/// Frames in 0..1, `[frames, 3, H, W]`, as SparseCtrl takes sketches.
pub fn unit_pixels(frames: &Frames) -> ArrayD<f32> {
    channels_first(frames, |v| f32::from(v) / 255.0)
}

fn channels_first(frames: &Frames, number: impl Fn(u8) -> f32) -> ArrayD<f32> {
    let mut planes = Array4::zeros((frames.count(), 3, frames.height, frames.width));
    let images = frames.data.chunks_exact(frames.frame_len().max(1));
    for (image, mut planes) in images.zip(planes.outer_iter_mut()) {
        for (channel, mut plane) in planes.outer_iter_mut().enumerate() {
            for (to, pixel) in plane.iter_mut().zip(image.as_chunks::<3>().0) {
                *to = number(pixel[channel]);
            }
        }
    }
    planes.into_dyn()
}

/// A sample of the latents' distribution for each image of `pixels [n, 3, H, W]` in −1..1, scaled for diffusion:
/// `[n, 4, h, w]`. `noise` is the draw, of that shape.
///
/// # Errors
/// When the network fails or the run is cancelled.
pub fn encode(
    network: &mut Network,
    config: &VaeConfig,
    pixels: &ArrayD<f32>,
    noise: &[f32],
    cancel: &Cancel,
    mut done: impl FnMut(usize),
) -> Result<ArrayD<f32>> {
    let mut latents = Vec::with_capacity(noise.len());
    for (index, image) in pixels.axis_iter(Axis(0)).enumerate() {
        if index + 1 == pixels.shape()[0] {
            network.give_back_after_next_run();
        }
        let image = image.insert_axis(Axis(0)).into_owned();
        let moments = network.run(&[("image", Input::Array(&image))], cancel)?.array("moments")?;
        let half = moments.len() / 2;
        let moments = moments.as_slice().ok_or_else(|| Error::failure("the VAE's moments are not contiguous"))?;
        let draw = noise
            .get(index * half..(index + 1) * half)
            .ok_or_else(|| Error::failure("too little noise for the VAE"))?;
        let (mean, log_variance) = moments.split_at(half);
        latents.extend(mean.iter().zip(log_variance).zip(draw).map(|((mean, log_variance), draw)| {
            let deviation = (0.5 * log_variance.clamp(-30.0, 20.0)).exp();
            (mean + deviation * draw) * config.scaling_factor
        }));
        done(index + 1);
    }
    let factor = config.downscale();
    let shape = [pixels.shape()[0], config.latent_channels, pixels.shape()[2] / factor, pixels.shape()[3] / factor];
    ArrayD::from_shape_vec(IxDyn(&shape), latents).map_err(|e| Error::failure(format!("latents: {e}")))
}

/// Images `[n, channels, h, w]` as a video `[1, channels, n, h, w]`.
pub fn images_to_video(images: &ArrayD<f32>) -> ArrayD<f32> {
    images.view().permuted_axes(IxDyn(&[1, 0, 2, 3])).insert_axis(Axis(0)).as_standard_layout().into_owned()
}

/// Latents `[1, 4, frames, h, w]`, scaled, as a video `[1, 3, frames, H, W]` in 0..1.
///
/// # Errors
/// When the network fails or the run is cancelled.
pub fn decode(
    network: &mut Network,
    config: &VaeConfig,
    latents: &ArrayD<f32>,
    cancel: &Cancel,
    mut done: impl FnMut(usize),
) -> Result<ArrayD<f32>> {
    let (frames, height, width) = (latents.shape()[2], latents.shape()[3], latents.shape()[4]);
    let factor = config.downscale();
    let mut video = Array5::zeros((1, config.image_channels, frames, height * factor, width * factor));
    for frame in 0..frames {
        if frame + 1 == frames {
            network.give_back_after_next_run();
        }
        let latent = latents.index_axis(Axis(2), frame).as_standard_layout().into_owned();
        let outputs = network.run(&[("latents", Input::Array(&latent))], cancel)?;
        let image = outputs.view("image")?;
        Zip::from(video.slice_mut(s![0, .., frame, .., ..]).into_dyn())
            .and(image.index_axis(Axis(0), 0))
            .for_each(|to, v| *to = (v / 2.0 + 0.5).clamp(0.0, 1.0));
        done(frame + 1);
    }
    Ok(video.into_dyn())
}

/// A video `[1, 3, frames, H, W]` in 0..1 as 8-bit frames, rounded.
pub fn to_frames(video: &ArrayD<f32>) -> Frames {
    let (count, height, width) = (video.shape()[2], video.shape()[3], video.shape()[4]);
    let mut data = vec![0; count * height * width * 3];
    for (frame, image) in data.chunks_exact_mut((height * width * 3).max(1)).enumerate() {
        for channel in 0..3 {
            let plane = video.slice(s![0, channel, frame, .., ..]);
            for (pixel, v) in image.as_chunks_mut::<3>().0.iter_mut().zip(plane) {
                pixel[channel] = (v.clamp(0.0, 1.0) * 255.0).round() as u8;
            }
        }
    }
    Frames { width, height, data }
}
