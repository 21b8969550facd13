//! SparseCtrl: a UNet's encoder half that turns pictures or sketches at some frames into residuals for the UNet.
//!
//! With `set_noisy_sample_input_to_zero`, as published, it never sees the noisy latents: its input is the first
//! convolution's bias plus the embedded condition.

use super::config::{ControlConfig, ControlKind};
use super::layers::{Scope, conv, conv3};
use super::unet3d::{Encoder, UnetShape};
use crate::Result;
use crate::graph::{Element, Graph, Value};
use crate::weights::WeightIndex;

/// Residuals for the skip connections and the middle block.
///
/// Inputs `timestep [1]`, `text_embeddings [batch, tokens, c]`, `condition [batch, channels + 1, frames, h, w]` (latents
/// for rgb, pixels at full size for a scribble; the mask is the last channel), `control_scale [1]`; outputs
/// `down_residual.N` and `mid_residual`, each `[batch, channels, frames, h, w]`, times `control_scale`.
///
/// # Errors
/// When a weight is missing or misshapen.
pub fn control(weights: &WeightIndex, config: &ControlConfig, kind: ControlKind, shape: &UnetShape) -> Result<Graph> {
    let mut g = Graph::new(format!("control_{}", kind.name()), shape.precision, shape.layout);
    let network = match kind {
        ControlKind::Rgb => "control_rgb",
        ControlKind::Scribble => "control_scribble",
    };
    let factor = 1 << config.embedding_channels.len().saturating_sub(1);
    let timestep = g.input("timestep", Element::Float32, &[1]);
    let text =
        g.input("text_embeddings", Element::Float32, &[shape.batch, shape.tokens, config.unet.cross_attention_dim]);
    let size =
        [shape.batch, config.conditioning_channels + 1, shape.frames, shape.height * factor, shape.width * factor];
    let condition = g.input("condition", Element::Float32, &size);
    let strength = g.input("control_scale", Element::Float32, &[1]);
    let scope = Scope::new(weights, &[network]);

    let mut encoder = Encoder::new(&mut g, &config.unet, scope.clone(), shape.frames, timestep, text)?;
    let precision = encoder.g.precision;
    let condition = encoder.g.cast(condition, precision)?;
    let condition = encoder.g.from_video(condition)?;
    let embedded = embed(encoder.g, &scope.child("controlnet_cond_embedding"), condition, &config.embedding_channels)?;
    let channels = config.unet.block_out_channels[0];
    let bias = scope.child("conv_in").shaped(encoder.g, "bias", &[channels])?;
    let bias = encoder.g.reshape(bias, &[1, channels])?;
    let bias = encoder.g.per_channel(bias)?;
    let x = encoder.g.add(embedded, bias)?;
    let (mid, skips) = encoder.run(x)?;

    for (index, skip) in skips.into_iter().enumerate() {
        let projection = scope.child("controlnet_down_blocks").child(index);
        let residual = residual(&mut g, &projection, skip, strength, shape.frames)?;
        g.output(format!("down_residual.{index}"), residual);
    }
    let residual = residual(&mut g, &scope.child("controlnet_mid_block"), mid, strength, shape.frames)?;
    g.output("mid_residual", residual);
    Ok(g)
}

/// One convolution, or a stack of them whose every second one halves the size.
fn embed(g: &mut Graph, scope: &Scope, condition: Value, channels: &[usize]) -> Result<Value> {
    if channels.is_empty() {
        return conv3(g, scope, condition);
    }
    let mut x = conv3(g, &scope.child("conv_in"), condition)?;
    x = g.silu(x)?;
    for index in 0..2 * (channels.len() - 1) {
        x = conv(g, &scope.child("blocks").child(index), x, 1 + index % 2, [1; 4])?;
        x = g.silu(x)?;
    }
    conv3(g, &scope.child("conv_out"), x)
}

fn residual(g: &mut Graph, projection: &Scope, x: Value, strength: Value, frames: usize) -> Result<Value> {
    let x = conv(g, projection, x, 1, [0; 4])?;
    let x = g.to_video(x, frames)?;
    let x = g.cast(x, Element::Float32)?;
    g.mul(x, strength)
}
