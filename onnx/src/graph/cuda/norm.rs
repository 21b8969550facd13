//! Norms, with the sums that stand before them, and their gradients.

use super::super::ir::{Element, FeatureMap, Graph, Layout, Node, Value};
use super::super::op::Op;
use super::super::portable;
use super::{Lowering, full, without_shift};
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

    pub(super) fn group_norm_gradient(
        &self,
        g: &mut Graph,
        groups: usize,
        epsilon: f32,
        x: Value,
        scale: Value,
        dy: Value,
    ) -> Result<Value> {
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
        let inner = g.mul(dy, scale)?;
        let grouped = [count, positions, groups, channels / groups];
        // Over the positions as a matrix product, which sums in float32 and reads in the order of memory.
        let row = g.constant_of(element, &vec![1.0 / positions as f32; positions], &[1, positions])?;
        let dx = normalise_gradient(g, epsilon, x, normal, inner, &grouped, &|g, product| {
            let product = g.reshape(product, &[count, positions, channels])?;
            let mean = g.matmul(row, product)?;
            let mean = g.reshape(mean, &[count, 1, groups, channels / groups])?;
            g.reduce_mean(mean, &[3])
        })?;
        g.reshape(dx, &shape)
    }
}

pub(super) fn layer_norm_gradient(g: &mut Graph, epsilon: f32, x: Value, scale: Value, dy: Value) -> Result<Value> {
    let shape = g.shape(x).to_vec();
    let (axis, element) = (shape.len() - 1, g.info(x).element);
    let width = shape[axis];
    let ones = g.constant_of(element, &vec![1.0; width], &[width])?;
    let zeros = g.constant_of(element, &vec![0.0; width], &[width])?;
    let normal = g.node(Op::LayerNorm { epsilon }, &[x, ones, zeros])?;
    let inner = g.mul(dy, scale)?;
    normalise_gradient(g, epsilon, x, normal, inner, &shape, &|g, product| g.reduce_mean(product, &[axis]))
}

/// The gradient of x̂ = r·(x − mean(x)), r = 1/√(variance + ε), with x̂ given by the fused norm, which keeps its
/// statistics to itself: r·(d − mean(d) − x̂·mean(d⊙x̂)).
///
/// s = mean(x⊙x̂) is variance·r, so ε·r² + s·r = 1 and r = 2/(s + √(s² + 4ε)). No difference of large numbers is taken,
/// and the numbers are as large as activations, so the means may be of half precision.
fn normalise_gradient(
    g: &mut Graph,
    epsilon: f32,
    x: Value,
    normal: Value,
    d: Value,
    shape: &[usize],
    mean: &dyn Fn(&mut Graph, Value) -> Result<Value>,
) -> Result<Value> {
    let element = g.info(x).element;
    let full_mean = |g: &mut Graph, product: Value| -> Result<Value> {
        let mean = mean(g, product)?;
        g.cast(mean, Element::Float32)
    };
    let along = g.mul(x, normal)?;
    let s = full_mean(g, along)?;
    let along = g.mul(d, normal)?;
    let along = full_mean(g, along)?;
    let d_mean = full_mean(g, d)?;

    let square = g.mul(s, s)?;
    let shifted = g.offset(square, 4.0 * epsilon)?;
    let root = g.node(Op::Sqrt, &[shifted])?;
    let sum = g.add(s, root)?;
    let two = g.constant_of(Element::Float32, &[2.0], &[])?;
    let r = g.node(Op::Div, &[two, sum])?;
    let minus = g.scale(r, -1.0)?;
    let along = g.mul(along, minus)?;
    let d_mean = g.mul(d_mean, minus)?;

    let (r, along, d_mean) = (g.cast(r, element)?, g.cast(along, element)?, g.cast(d_mean, element)?);
    let (d, normal) = (g.reshape(d, shape)?, g.reshape(normal, shape)?);
    let own = g.mul(d, r)?;
    let spread = g.mul(normal, along)?;
    let dx = g.add(own, spread)?;
    g.add(dx, d_mean)
}

/// x + skip with x the term that has a shift of its own, if one has.
fn same_shape_sum(g: &mut Graph, value: Value) -> Result<Option<Sum>> {
    let Some(Node { op: Op::Add, inputs, .. }) = g.producer(value).cloned() else { return Ok(None) };
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
