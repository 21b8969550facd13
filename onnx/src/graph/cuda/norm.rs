//! Norms, with the sums that stand before them, and their gradients.

use super::super::ir::{Graph, Node};
use super::super::kernel::KernelOp;
use super::super::op::Op;
use super::super::portable;
use super::super::types::{Element, FeatureMap, Layout, Value};
use super::{Lowering, full, kernel, without_shift};
use crate::Result;

const TO_CHANNELS_FIRST: [usize; 4] = [0, 3, 1, 2];
const TO_CHANNELS_LAST: [usize; 4] = [0, 2, 3, 1];

/// The terms of a sum that a fused norm takes.
struct Sum {
    x: Value,
    skip: Value,
    shift: Option<Value>,
}

impl Lowering {
    fn has_group_norm(&self, g: &Graph, groups: usize, x: Value) -> Result<bool> {
        let channels = Layout::ChannelsLast.feature_map(g.shape(x))?.channels;
        // The kernel reads channels in pairs.
        Ok(self.fused.group_norm && (channels / groups).is_multiple_of(2))
    }

    pub(super) fn group_norm(
        &mut self,
        g: &mut Graph,
        groups: usize,
        epsilon: f32,
        x: Value,
        scale: Value,
        bias: Value,
    ) -> Result<Value> {
        let (scale, bias) = (full(g, scale)?, full(g, bias)?);
        if !self.has_group_norm(g, groups, x)? {
            let element = g.info(x).element;
            let first = channels_first(g, x)?;
            let y = portable::group_norm(g, groups, epsilon, first, scale, bias)?;
            return channels_last(g, y, element);
        }
        if self.fused.skip_group_norm
            && let Some(Sum { x: term, skip, shift }) = feature_map_sum(g, x)?
        {
            let op = Op::SkipGroupNorm { groups, epsilon, silu: false };
            let inputs: Vec<Value> = [term, scale, bias, skip].into_iter().chain(shift).collect();
            let outputs = g.node_outputs(op, &inputs)?;
            self.replaced.insert(x, outputs[1]);
            return Ok(outputs[0]);
        }
        g.node(Op::NhwcGroupNorm { groups, epsilon, silu: false }, &[x, scale, bias])
    }

    /// Inputs x, scale, bias.
    pub(super) fn layer_norm(&mut self, g: &mut Graph, epsilon: f32, inputs: &[Value]) -> Result<Value> {
        if self.fused.sums
            && let Some(y) = self.layer_norm_kernel(g, epsilon, inputs)?
        {
            return Ok(y);
        }
        if self.fused.skip_layer_norm
            && g.shape(inputs[0]).len() == 3
            && let Some(Sum { x, skip, shift }) = same_shape_sum(g, inputs[0])?
        {
            let all: Vec<Value> = [x, skip, inputs[1], inputs[2]].into_iter().chain(shift).collect();
            let outputs = g.node_outputs(Op::SkipLayerNorm { epsilon }, &all)?;
            self.replaced.insert(inputs[0], outputs[1]);
            return Ok(outputs[0]);
        }
        g.node(Op::LayerNorm { epsilon }, inputs)
    }

    /// The project's own: with the bias and the residual sum before it.
    fn layer_norm_kernel(&mut self, g: &mut Graph, epsilon: f32, inputs: &[Value]) -> Result<Option<Value>> {
        let (x, scale, bias) = (inputs[0], inputs[1], inputs[2]);
        let sum = match same_shape_sum(g, x)? {
            Some(Sum { x, skip, shift }) => Some((x, shift, Some(skip))),
            None => without_shift(g, x)?.map(|(x, shift)| (x, Some(shift), None)),
        };
        let Some((term, shift, skip)) = sum else {
            let op = KernelOp::LayerNorm { epsilon, placed: false };
            return Ok(kernel(g, op, &[x, scale, x, scale, bias, scale, x])?.map(|y| y[0]));
        };
        let shift = match shift {
            Some(shift) => shift,
            None => {
                g.constant_of(g.info(scale).element, &vec![0.0; g.shape(scale)[0]], g.shape(scale).to_vec().as_slice())?
            }
        };
        let op = KernelOp::SumLayerNorm { epsilon, skips: skip.is_some(), placed: false };
        let made = kernel(g, op, &[term, shift, skip.unwrap_or(term), scale, bias, scale])?;
        Ok(made.map(|made| {
            self.replaced.insert(x, made[0]);
            made[1]
        }))
    }

    /// A sum: of a norm and one row a frame, or of a residual and what has a bias, in one kernel each.
    pub(super) fn add(&mut self, g: &mut Graph, a: Value, b: Value) -> Result<Value> {
        if self.fused.sums {
            for (x, other) in [(a, b), (b, a)] {
                if let Some(y) = self.placed_norm(g, x, other)? {
                    return Ok(y);
                }
            }
            for (x, other) in [(a, b), (b, a)] {
                if let Some(y) = residual_sum(g, x, other)? {
                    return Ok(y);
                }
            }
        }
        g.add(a, b)
    }

    fn placed_norm(&mut self, g: &mut Graph, x: Value, places: Value) -> Result<Option<Value>> {
        let Some(node) = g.producer(x).cloned() else { return Ok(None) };
        let op = match node.op {
            Op::Kernel(KernelOp::LayerNorm { epsilon, placed: false }) => KernelOp::LayerNorm { epsilon, placed: true },
            Op::Kernel(KernelOp::SumLayerNorm { epsilon, skips, placed: false }) if node.outputs[1] == x => {
                KernelOp::SumLayerNorm { epsilon, skips, placed: true }
            }
            _ => return Ok(None),
        };
        let [frames, channels] = g.shape(x)[g.shape(x).len() - 2..] else { return Ok(None) };
        if *g.shape(places) != [1, frames, channels] {
            return Ok(None);
        }
        let mut inputs = node.inputs.clone();
        inputs[5] = g.reshape(places, &[frames, channels])?;
        let Some(made) = kernel(g, op, &inputs)? else { return Ok(None) };
        if let [sum, y] = made[..] {
            self.replaced.insert(node.outputs[0], sum);
            return Ok(Some(y));
        }
        Ok(made.first().copied())
    }

    pub(super) fn group_norm_gradient(
        &self,
        g: &mut Graph,
        groups: usize,
        epsilon: f32,
        x: Value,
        scale: Value,
        dy: Value,
    ) -> Result<Value> {
        if self.fused.norm_gradients
            && let Some(dx) = self.group_norm_gradient_kernels(g, groups, epsilon, x, scale, dy)?
        {
            return Ok(dx);
        }
        let element = g.info(x).element;
        if !self.has_group_norm(g, groups, x)? {
            let (x, dy, scale) = (channels_first(g, x)?, channels_first(g, dy)?, full(g, scale)?);
            let dx = portable::group_norm_gradient(g, groups, epsilon, x, scale, dy)?;
            return channels_last(g, dx, element);
        }
        let FeatureMap { count, channels, height, width } = Layout::ChannelsLast.feature_map(g.shape(x))?;
        let (shape, positions) = (g.shape(x).to_vec(), height * width);
        let ones = g.constant_of(Element::Float32, &vec![1.0; channels], &[channels])?;
        let zeros = g.constant_of(Element::Float32, &vec![0.0; channels], &[channels])?;
        let normal = g.node(Op::NhwcGroupNorm { groups, epsilon, silu: false }, &[x, ones, zeros])?;
        let per_channel = [count, 1, groups, channels / groups];
        // Over the positions as a matrix product, which sums in float32 and reads in the order of memory. The scale is
        // one number a channel, so it joins behind, where there are few numbers.
        let row = g.constant_of(element, &vec![1.0 / positions as f32; positions], &[1, positions])?;
        let scale = g.reshape(scale, &[groups, channels / groups])?;
        let mean = |g: &mut Graph, product: Value, scaled: bool| -> Result<Value> {
            let product = g.reshape(product, &[count, positions, channels])?;
            let mean = g.matmul(row, product)?;
            let mean = g.reshape(mean, &per_channel)?;
            let mean = if scaled { g.mul(mean, scale)? } else { mean };
            let mean = g.reduce_mean(mean, &[3])?;
            g.cast(mean, Element::Float32)
        };
        let along = g.mul(x, normal)?;
        let along = mean(g, along, false)?;
        let r = inverse_deviation(g, epsilon, along)?;
        let along = g.mul(dy, normal)?;
        let (along, constant) = (mean(g, along, true)?, mean(g, dy, true)?);
        let own = g.cast(r, element)?;
        let own = g.mul(own, scale)?;
        let grouped = [count, positions, groups, channels / groups];
        let (dy, normal) = (g.reshape(dy, &grouped)?, g.reshape(normal, &grouped)?);
        let own = g.mul(dy, own)?;
        let dx = normalise_gradient(g, normal, own, r, along, constant)?;
        g.reshape(dx, &shape)
    }

    /// In three passes of the project's own: the sums of x over each group, those of the cotangent, the result. Where the
    /// cotangent went through SiLU of the norm, all three take it from before.
    fn group_norm_gradient_kernels(
        &self,
        g: &mut Graph,
        groups: usize,
        epsilon: f32,
        x: Value,
        scale: Value,
        dy: Value,
    ) -> Result<Option<Value>> {
        let Some(statistics) = kernel(g, KernelOp::GroupNormStatistics { groups }, &[x])? else { return Ok(None) };
        let scale = full(g, scale)?;
        let (bias, dy, silu) = match self.silu_gradients.get(&dy) {
            Some(inner) => match group_norm_bias(g, inner.x) {
                Some(bias) => (bias, inner.dy, true),
                None => (scale, dy, false),
            },
            None => (scale, dy, false),
        };
        let statistics = statistics[0];
        let sums = Op::Kernel(KernelOp::GroupNormSums { groups, epsilon, silu });
        let sums = g.node(sums, &[x, statistics, scale, bias, dy])?;
        let gradient = Op::Kernel(KernelOp::GroupNormGradient { groups, epsilon, silu });
        g.node(gradient, &[x, statistics, sums, scale, bias, dy]).map(Some)
    }

    pub(super) fn layer_norm_gradient(
        &self,
        g: &mut Graph,
        epsilon: f32,
        x: Value,
        scale: Value,
        dy: Value,
    ) -> Result<Value> {
        if self.fused.norm_gradients
            && let Some(dx) = kernel(g, KernelOp::LayerNormGradient { epsilon }, &[x, scale, dy])?
        {
            return Ok(dx[0]);
        }
        written_out_layer_norm_gradient(g, epsilon, x, scale, dy)
    }
}

/// The bias of the fused group norm that a value is the result of.
fn group_norm_bias(g: &Graph, value: Value) -> Option<Value> {
    let node = g.producer(value)?;
    let norm = matches!(node.op, Op::NhwcGroupNorm { silu: false, .. } | Op::SkipGroupNorm { silu: false, .. });
    (norm && node.outputs[0] == value).then(|| node.inputs[2])
}

fn written_out_layer_norm_gradient(g: &mut Graph, epsilon: f32, x: Value, scale: Value, dy: Value) -> Result<Value> {
    let (axis, element) = (g.shape(x).len() - 1, g.info(x).element);
    let width = g.shape(x)[axis];
    let ones = g.constant_of(element, &vec![1.0; width], &[width])?;
    let zeros = g.constant_of(element, &vec![0.0; width], &[width])?;
    let outputs = g.node_outputs(Op::LayerNormStatistics { epsilon }, &[x, ones, zeros])?;
    let (normal, r) = (outputs[0], outputs[2]);
    let d = g.mul(dy, scale)?;
    let along = g.mul(d, normal)?;
    let mean = |g: &mut Graph, values: Value| -> Result<Value> {
        let mean = g.reduce_mean(values, &[axis])?;
        g.cast(mean, Element::Float32)
    };
    let (along, constant) = (mean(g, along)?, mean(g, d)?);
    let own = g.cast(r, element)?;
    let own = g.mul(d, own)?;
    normalise_gradient(g, normal, own, r, along, constant)
}

/// 1/√(variance + ε) from s = mean(x⊙x̂), for a fused norm that keeps its statistics to itself: s is variance·r, so
/// ε·r² + s·r = 1 and r = 2/(s + √(s² + 4ε)). No difference of large numbers is taken, and the numbers are as large as
/// activations, so the mean may be of half precision.
fn inverse_deviation(g: &mut Graph, epsilon: f32, s: Value) -> Result<Value> {
    let square = g.mul(s, s)?;
    let shifted = g.offset(square, 4.0 * epsilon)?;
    let root = g.node(Op::Sqrt, &[shifted])?;
    let sum = g.add(s, root)?;
    let two = g.constant_of(Element::Float32, &[2.0], &[])?;
    g.node(Op::Div, &[two, sum])
}

/// The gradient of x̂ = r·(x − mean(x)), r = 1/√(variance + ε): r·(d − mean(d) − x̂·mean(d⊙x̂)). Takes x̂, r·d, r, and
/// both means, statistics in float32.
fn normalise_gradient(
    g: &mut Graph,
    normal: Value,
    own: Value,
    r: Value,
    along: Value,
    constant: Value,
) -> Result<Value> {
    let element = g.info(own).element;
    let minus = g.scale(r, -1.0)?;
    let (along, constant) = (g.mul(along, minus)?, g.mul(constant, minus)?);
    let (along, constant) = (g.cast(along, element)?, g.cast(constant, element)?);
    let spread = g.mul(normal, along)?;
    let dx = g.add(own, spread)?;
    g.add(dx, constant)
}

/// x + shift + skip, where x may have the frames of each position together, while skip has the positions of each frame.
fn residual_sum(g: &mut Graph, term: Value, skip: Value) -> Result<Option<Value>> {
    if g.shape(term) != g.shape(skip) {
        return Ok(None);
    }
    let Some((x, shift)) = without_shift(g, term)? else { return Ok(None) };
    let (x, positions, frames) = match sequences(g, x) {
        Some((sequences, positions, frames)) => (sequences, positions, frames),
        None => (x, g.info(x).elements() / g.shape(shift)[0], 1),
    };
    Ok(kernel(g, KernelOp::ResidualSum { positions, frames }, &[x, shift, skip])?.map(|y| y[0]))
}

/// For a feature map that was made of sequences `[batch, positions, frames, channels]`: those, positions and frames.
fn sequences(g: &Graph, x: Value) -> Option<(Value, usize, usize)> {
    let turned = g.producer(x).filter(|node| matches!(node.op, Op::Reshape(_)))?.inputs[0];
    let node = g.producer(turned).filter(|node| node.op == Op::Transpose(vec![0, 2, 1, 3]))?;
    let &[_, positions, frames, channels] = g.shape(node.inputs[0]) else { return None };
    (g.shape(x).last() == Some(&channels)).then_some((node.inputs[0], positions, frames))
}

/// x + skip with x the term that has a shift of its own, if one has.
fn same_shape_sum(g: &mut Graph, value: Value) -> Result<Option<Sum>> {
    let Some(Node { op, inputs, .. }) = g.producer(value).cloned() else { return Ok(None) };
    if let Op::Kernel(KernelOp::ResidualSum { positions, frames }) = op {
        let (shape, mut x) = (g.shape(value).to_vec(), inputs[0]);
        if frames > 1 {
            let channels = g.shape(inputs[1])[0];
            let batch = g.info(x).elements() / (positions * frames * channels);
            let sequences = g.reshape(x, &[batch, positions, frames, channels])?;
            x = g.transpose(sequences, &[0, 2, 1, 3])?;
        }
        let x = g.reshape(x, &shape)?;
        return Ok(Some(Sum { x, skip: inputs[2], shift: Some(inputs[1]) }));
    }
    if op != Op::Add {
        return Ok(None);
    }
    let [a, b] = [inputs[0], inputs[1]];
    if g.shape(a) != g.shape(b) {
        return Ok(None);
    }
    for (term, skip) in [(a, b), (b, a)] {
        if let Some((x, shift)) = without_shift(g, term)? {
            return Ok(Some(Sum { x, skip, shift: Some(shift) }));
        }
    }
    Ok(Some(Sum { x: a, skip: b, shift: None }))
}

/// The same, or a feature map plus one number a channel for all images, as a time embedding is added.
fn feature_map_sum(g: &mut Graph, value: Value) -> Result<Option<Sum>> {
    if let Some(sum) = same_shape_sum(g, value)? {
        return Ok(Some(sum));
    }
    let Some(Node { op: Op::Add, inputs, .. }) = g.producer(value).cloned() else { return Ok(None) };
    let FeatureMap { count, channels, .. } = Layout::ChannelsLast.feature_map(g.shape(value))?;
    if g.shape(inputs[0]) != g.shape(value) || g.shape(inputs[1]) != [1, 1, 1, channels] {
        return Ok(None);
    }
    let row = g.reshape(inputs[1], &[1, channels])?;
    let zeros = g.constant_of(g.info(row).element, &vec![0.0; count * channels], &[count, channels])?;
    let skip = g.add(zeros, row)?;
    let (x, shift) = match without_shift(g, inputs[0])? {
        Some((x, shift)) => (x, Some(shift)),
        None => (inputs[0], None),
    };
    Ok(Some(Sum { x, skip, shift }))
}

/// A channels-last feature map in float32, channels first.
fn channels_first(g: &mut Graph, x: Value) -> Result<Value> {
    let x = g.cast(x, Element::Float32)?;
    g.transpose(x, &TO_CHANNELS_FIRST)
}

fn channels_last(g: &mut Graph, x: Value, element: Element) -> Result<Value> {
    let x = g.transpose(x, &TO_CHANNELS_LAST)?;
    g.cast(x, element)
}
