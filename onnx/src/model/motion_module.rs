//! The temporal transformer of AnimateDiff (`VanillaTemporalModule`): attention over frames at each latent position.

use super::attention::feed_forward;
use super::config::MotionConfig;
use super::layers::{Scope, group_norm, layer_norm, linear};
use crate::graph::{Graph, Layout, Value};
use crate::{Error, Result};

/// The temporal transformers always have 32 groups, whatever the UNet has.
const GROUPS: usize = 32;
const GROUP_NORM_EPSILON: f32 = 1e-6;
const LAYER_NORM_EPSILON: f32 = 1e-5;

/// The result of a motion module.
pub struct Attended {
    /// The feature map.
    pub x: Value,
    /// Attention probabilities `[batch · positions, heads, frames, frames]` of each temporal self-attention with the
    /// path of its module.
    pub maps: Vec<(String, Value)>,
}

/// Group norm, linear, transformer blocks, linear, plus the input. `x` holds batch · `frames` images.
///
/// # Errors
/// When a weight is missing or misshapen, or there are more frames than the position table has rows.
pub fn motion_module(g: &mut Graph, scope: &Scope, x: Value, config: &MotionConfig, frames: usize) -> Result<Attended> {
    if frames > config.max_frames {
        return Err(Error::input(format!("{frames} frames: this model takes at most {}", config.max_frames)));
    }
    let scope = scope.child("temporal_transformer");
    let mut maps = Vec::new();
    let h = group_norm(g, &scope.child("norm"), x, GROUPS, GROUP_NORM_EPSILON)?;
    let h = to_sequences(g, h, frames)?;
    let mut h = linear(g, &scope.child("proj_in"), h)?;
    for index in 0..config.transformer_blocks {
        let block = scope.child("transformer_blocks").child(index);
        for index in 0..config.attention_blocks {
            let normal = layer_norm(g, &block.child("norms").child(index), h, LAYER_NORM_EPSILON)?;
            let module = block.child("attention_blocks").child(index);
            let (attended, map) = temporal_attention(g, &module, normal, config.heads)?;
            maps.push((module.path().to_string(), map));
            h = g.add(attended, h)?;
        }
        let normal = layer_norm(g, &block.child("ff_norm"), h, LAYER_NORM_EPSILON)?;
        let forward = feed_forward(g, &block.child("ff"), normal)?;
        h = g.add(forward, h)?;
    }
    let h = linear(g, &scope.child("proj_out"), h)?;
    let h = from_sequences(g, h, x, frames)?;
    Ok(Attended { x: g.add(h, x)?, maps })
}

/// Written out, unlike spatial attention: its probabilities are what motion cloning reads and guides. Channels last, they
/// are made for those who read them alone, and the output is one operation.
fn temporal_attention(g: &mut Graph, scope: &Scope, x: Value, heads: usize) -> Result<(Value, Value)> {
    let (sequences, frames, channels) = (g.shape(x)[0], g.shape(x)[1], g.shape(x)[2]);
    g.set_scope(scope.path());
    let positions = g.constant(&position_encoding(frames, channels), &[1, frames, channels])?;
    let x = g.add(x, positions)?;
    let mut split = |name: &str, axes: &[usize], factor: f32| -> Result<(Value, Value)> {
        let whole = linear(g, &scope.child(name), x)?;
        g.set_scope(scope.path());
        let y = if factor == 1.0 { whole } else { g.scale(whole, factor)? };
        let y = g.reshape(y, &[sequences, frames, heads, channels / heads])?;
        Ok((whole, g.transpose(y, axes)?))
    };
    let (whole_q, q) = split("to_q", &[0, 2, 1, 3], 1.0 / ((channels / heads) as f32).sqrt())?;
    let (whole_k, k) = split("to_k", &[0, 2, 3, 1], 1.0)?;
    let (whole_v, v) = split("to_v", &[0, 2, 1, 3], 1.0)?;
    let scores = g.matmul(q, k)?;
    let map = g.softmax(scores)?;
    let y = match g.layout {
        Layout::ChannelsFirst => {
            let y = g.matmul(map, v)?;
            let y = g.transpose(y, &[0, 2, 1, 3])?;
            g.reshape(y, &[sequences, frames, channels])?
        }
        Layout::ChannelsLast => g.attention(whole_q, whole_k, whole_v, heads)?,
    };
    Ok((linear(g, &scope.child("to_out.0"), y)?, map))
}

/// Row p: sin(p·ω_i), cos(p·ω_i) interleaved, ω_i = 10000^(−2i/channels).
fn position_encoding(frames: usize, channels: usize) -> Vec<f32> {
    let step = (-(10000f64.ln()) / channels as f64) as f32;
    (0..frames * channels)
        .map(|at| {
            let (position, channel) = ((at / channels) as f32, at % channels);
            let angle = position * ((channel / 2 * 2) as f32 * step).exp();
            if channel % 2 == 0 { angle.sin() } else { angle.cos() }
        })
        .collect()
}

/// A feature map of batch · frames images as `[batch · positions, frames, channels]`.
fn to_sequences(g: &mut Graph, x: Value, frames: usize) -> Result<Value> {
    let map = g.feature_map(x)?;
    let (batch, positions) = (map.count / frames, map.height * map.width);
    let y = match g.layout {
        Layout::ChannelsFirst => {
            let y = g.reshape(x, &[batch, frames, map.channels, positions])?;
            g.transpose(y, &[0, 3, 1, 2])?
        }
        Layout::ChannelsLast => {
            let y = g.reshape(x, &[batch, frames, positions, map.channels])?;
            g.transpose(y, &[0, 2, 1, 3])?
        }
    };
    g.reshape(y, &[batch * positions, frames, map.channels])
}

/// The inverse, with the sizes of `like`.
fn from_sequences(g: &mut Graph, x: Value, like: Value, frames: usize) -> Result<Value> {
    let map = g.feature_map(like)?;
    let (batch, positions) = (map.count / frames, map.height * map.width);
    let shape = g.shape(like).to_vec();
    let y = g.reshape(x, &[batch, positions, frames, map.channels])?;
    let axes = match g.layout {
        Layout::ChannelsFirst => [0, 2, 3, 1],
        Layout::ChannelsLast => [0, 2, 1, 3],
    };
    let y = g.transpose(y, &axes)?;
    g.reshape(y, &shape)
}
