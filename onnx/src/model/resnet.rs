//! Residual blocks and resampling (diffusers' `ResnetBlock2D`, `Downsample2D`, `Upsample2D`), per frame.

use super::layers::{Scope, conv, conv3, group_norm, linear};
use crate::Result;
use crate::graph::{Graph, Op, Value};

/// Group norm settings of a residual block.
#[derive(Debug, Clone, Copy)]
pub struct Norm {
    /// Groups of channels.
    pub groups: usize,
    /// Added to the variance.
    pub epsilon: f32,
}

/// Norm, SiLU, convolution, plus the time embedding; norm, SiLU, convolution; plus the input, through a 1×1
/// convolution where the number of channels changes. `time` is SiLU of the time embedding, `[1, c]`.
///
/// # Errors
/// When a weight is missing or misshapen.
pub fn resnet(g: &mut Graph, scope: &Scope, x: Value, time: Option<Value>, norm: Norm) -> Result<Value> {
    let h = group_norm(g, &scope.child("norm1"), x, norm.groups, norm.epsilon)?;
    let h = g.silu(h)?;
    let mut h = conv3(g, &scope.child("conv1"), h)?;
    if let Some(time) = time {
        let shift = linear(g, &scope.child("time_emb_proj"), time)?;
        let shift = g.per_channel(shift)?;
        h = g.add(h, shift)?;
    }
    let h = group_norm(g, &scope.child("norm2"), h, norm.groups, norm.epsilon)?;
    let h = g.silu(h)?;
    let h = conv3(g, &scope.child("conv2"), h)?;
    let shortcut = scope.child("conv_shortcut");
    let x = if shortcut.has("weight") { conv(g, &shortcut, x, 1, [0; 4])? } else { x };
    g.add(x, h)
}

/// Nearest-neighbour resize to a given size, then a convolution.
///
/// # Errors
/// When a weight is missing or misshapen.
pub fn upsample(g: &mut Graph, scope: &Scope, x: Value, height: usize, width: usize) -> Result<Value> {
    g.set_scope(scope.path());
    let x = g.node(Op::Resize { height, width }, &[x])?;
    conv3(g, &scope.child("conv"), x)
}
