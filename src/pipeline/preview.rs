//! A cheap look at latents: one linear map from latent channels to colours at every latent position.

use motionclone_onnx::manifest::PreviewMap;
use ndarray::{ArrayD, Axis};

use crate::media::frames::Frames;

/// Frames at latent size from latents `[1, 4, frames, h, w]`.
pub fn preview(map: &PreviewMap, latents: &ArrayD<f32>) -> Frames {
    let latents = latents.index_axis(Axis(0), 0);
    let (channels, frames, height, width) =
        (latents.shape()[0], latents.shape()[1], latents.shape()[2], latents.shape()[3]);
    let mut data = Vec::with_capacity(frames * height * width * 3);
    for at in 0..frames * height * width {
        let (frame, y, x) = (at / (height * width), at / width % height, at % width);
        for (row, bias) in map.matrix.iter().zip(&map.bias).take(3) {
            let colour =
                row.iter().take(channels).enumerate().map(|(c, w)| w * latents[[c, frame, y, x]]).sum::<f32>() + bias;
            data.push((colour.clamp(0.0, 1.0) * 255.0).round() as u8);
        }
    }
    Frames { width, height, data }
}
