//! Fits a bundle's preview map from its VAE, when it is imported.

use std::path::Path;

use motionclone_onnx::graph::Lowering;
use motionclone_onnx::manifest::{Manifest, PreviewMap};

use crate::cancel::Cancel;
use crate::engine::{Engine, EngineOptions};
use crate::error::Result;
use crate::media::frames::Frames;
use crate::networks::{NetworkKey, vae_shape};
use crate::pipeline::vae;
use crate::random::CpuGenerator;
use crate::runtime::Device;
use crate::settings::Settings;

/// Pixels a side of the images that the map is fitted on.
const SIDE: usize = 64;
const IMAGES: usize = 16;

/// Fits the map of a bundle that was just made, and puts it into its manifest.
///
/// # Errors
/// When ONNX Runtime is not there, the VAE fails, or the manifest cannot be written.
pub fn fit_bundle(folder: &Path) -> Result<()> {
    let mut engine = Engine::open(folder, &EngineOptions { device: Device::Cpu, ..Default::default() })?;
    let manifest = Manifest { preview: Some(fit(&mut engine)?), ..engine.manifest().clone() };
    manifest.write(folder)
}

/// Fits the map: encodes a few drawn images, and finds the least-squares map from their latents to the mean colour of
/// the pixels behind each latent position.
///
/// # Errors
/// When the VAE fails.
fn fit(engine: &mut Engine) -> Result<PreviewMap> {
    let config = engine.manifest().vae.clone();
    let factor = config.downscale();
    let settings = Settings {
        width: SIDE * factor / 8,
        height: SIDE * factor / 8,
        ..Settings::new(&engine.manifest().defaults, "")
    };
    let images = drawn_images(settings.width, settings.height);
    let key = NetworkKey::VaeEncoder(vae_shape(engine.manifest(), &settings, Lowering::Portable));
    let pixels = vae::pixels(&images);
    // The mean of the distribution: a draw of zeros.
    let (rows, columns) = (settings.height / factor, settings.width / factor);
    let noise = vec![0.0; IMAGES * config.latent_channels * rows * columns];
    let cancel = Cancel::default();
    let latents = vae::encode(engine.network(&key, &cancel)?, &config, &pixels, &noise, &cancel, |_| {})?;
    engine.keep(&[]);

    let mut samples = Vec::new();
    for image in 0..IMAGES {
        for (y, x) in (0..rows).flat_map(|y| (0..columns).map(move |x| (y, x))) {
            let input: Vec<f64> =
                (0..config.latent_channels).map(|c| f64::from(latents[[image, c, y, x]])).chain([1.0]).collect();
            let mut colour = [0.0; 3];
            for (dy, dx) in (0..factor).flat_map(|dy| (0..factor).map(move |dx| (dy, dx))) {
                for (c, sum) in colour.iter_mut().enumerate() {
                    let value = f64::from(pixels[[image, c, y * factor + dy, x * factor + dx]]);
                    *sum += (value / 2.0 + 0.5) / (factor * factor) as f64;
                }
            }
            samples.push((input, colour));
        }
    }
    Ok(least_squares(&samples, config.latent_channels))
}

/// Rectangles of any colour over a ground of any darker colour, each image others: flat regions and edges between them,
/// as in pictures at the scale of a latent position. (Maps fitted on smooth fields of colour, or on grounds as light as
/// the rectangles, are far off on the pictures of small models.)
fn drawn_images(width: usize, height: usize) -> Frames {
    const RECTANGLES: usize = 4;
    let mut generator = CpuGenerator::new(0);
    // Numbers spread evenly over 0..1, nearly.
    let mut draw =
        |count| generator.randn(count).into_iter().map(|z| 0.5 + 0.5 * (0.8 * z).tanh()).collect::<Vec<f32>>();
    let within = |share: f32, from: usize, to: usize| from + (share * (to - from) as f32) as usize;
    let mut data = Vec::with_capacity(IMAGES * width * height * 3);
    for _ in 0..IMAGES {
        let ground: Vec<f32> = draw(3).iter().map(|value| 0.7 * value).collect();
        let rectangles: Vec<_> = (0..RECTANGLES)
            .map(|_| {
                let (place, colour) = (draw(4), draw(3));
                let (left, top) = (within(place[0], 0, width), within(place[1], 0, height));
                let right = left + within(place[2], width / 8, width / 2);
                let bottom = top + within(place[3], height / 8, height / 2);
                (left..right, top..bottom, colour)
            })
            .collect();
        for at in 0..width * height {
            let (x, y) = (at % width, at / width);
            let over = rectangles.iter().rev().find(|(across, down, _)| across.contains(&x) && down.contains(&y));
            let colour = over.map_or(&ground, |(.., colour)| colour);
            data.extend(colour.iter().map(|value| (value * 255.0) as u8));
        }
    }
    Frames { width, height, data }
}

/// Solves the normal equations, with a little damping so that constant channels do no harm.
fn least_squares(samples: &[(Vec<f64>, [f64; 3])], channels: usize) -> PreviewMap {
    let size = channels + 1;
    let mut left = vec![vec![0.0; size]; size];
    let mut right = vec![[0.0; 3]; size];
    for (input, colour) in samples {
        for i in 0..size {
            (0..size).for_each(|j| left[i][j] += input[i] * input[j]);
            (0..3).for_each(|c| right[i][c] += input[i] * colour[c]);
        }
    }
    (0..size).for_each(|i| left[i][i] += 1e-6 * samples.len() as f64);
    for pivot in 0..size {
        // The damped matrix is positive definite: pivots are never zero.
        for row in pivot + 1..size {
            let factor = left[row][pivot] / left[pivot][pivot];
            let pivot_row = left[pivot].clone();
            left[row].iter_mut().zip(&pivot_row).skip(pivot).for_each(|(a, b)| *a -= factor * b);
            let from = right[pivot];
            right[row].iter_mut().zip(from).for_each(|(a, b)| *a -= factor * b);
        }
    }
    let mut solution = vec![[0.0; 3]; size];
    for row in (0..size).rev() {
        for c in 0..3 {
            let known: f64 = (row + 1..size).map(|j| left[row][j] * solution[j][c]).sum();
            solution[row][c] = (right[row][c] - known) / left[row][row];
        }
    }
    PreviewMap {
        matrix: (0..3).map(|c| (0..channels).map(|i| solution[i][c] as f32).collect()).collect(),
        bias: (0..3).map(|c| solution[channels][c] as f32).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_squares_recovers_a_linear_map() {
        let draws = CpuGenerator::new(1).randn(4 * 200);
        let samples: Vec<(Vec<f64>, [f64; 3])> = draws
            .chunks(4)
            .map(|z| {
                let input: Vec<f64> = z.iter().map(|v| f64::from(*v)).chain([1.0]).collect();
                let colour = [0.5 * input[0] - 0.1, 0.25 * input[1] + input[3], 0.3 - input[2]];
                (input, colour)
            })
            .collect();
        let map = least_squares(&samples, 4);
        let expected = [[0.5, 0.0, 0.0, 0.0], [0.0, 0.25, 0.0, 1.0], [0.0, 0.0, -1.0, 0.0]];
        for (row, expected) in map.matrix.iter().zip(expected) {
            row.iter().zip(expected).for_each(|(a, b)| assert!((a - b).abs() < 1e-4, "{map:?}"));
        }
        map.bias.iter().zip([-0.1, 0.0, 0.3]).for_each(|(a, b)| assert!((a - b).abs() < 1e-4, "{map:?}"));
    }
}
