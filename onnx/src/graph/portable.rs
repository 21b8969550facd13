//! The portable lowering: composite operations as standard ONNX operators, channels first.
//!
//! Attention is computed in blocks of (image, head) pairs, so that no attention map of a whole clip is ever a value:
//! at 64×64 positions one frame's eight heads take 256 MiB in half precision, sixteen frames would take 4 GiB.

use super::ir::{Graph, Node};
use super::op::Op;
use super::types::{FeatureMap, Layout, Value};
use crate::{Error, Result};

/// Elements of one block of an attention map at most: eight heads of 4096 × 4096.
pub const ATTENTION_BLOCK: usize = 1 << 27;

/// Rewrites a graph to standard operators.
///
/// # Errors
/// When the graph is not channels first.
pub fn lower(graph: &Graph) -> Result<Graph> {
    if graph.layout != Layout::ChannelsFirst {
        return Err(Error::failure("the portable lowering takes channels-first graphs"));
    }
    graph.rewrite(|g, node, x| match &node.op {
        Op::Silu => {
            let gate = g.node(Op::Sigmoid, x)?;
            one(g.mul(x[0], gate))
        }
        Op::QuickGelu => {
            let scaled = g.scale(x[0], 1.702)?;
            let gate = g.node(Op::Sigmoid, &[scaled])?;
            one(g.mul(x[0], gate))
        }
        Op::Geglu => {
            let (a, b) = halves(g, x[0])?;
            let gate = g.node(Op::Gelu, &[b])?;
            one(g.mul(a, gate))
        }
        Op::Linear { transpose } => one(linear(g, *transpose, x)),
        Op::GroupNorm { groups, epsilon } => one(group_norm(g, *groups, *epsilon, x[0], x[1], x[2])),
        Op::Attention { heads } => one(attention(g, *heads, x[0], x[1], x[2])),
        Op::SiluGradient => one(silu_gradient(g, x[0], x[1])),
        Op::GegluGradient => one(geglu_gradient(g, x[0], x[1])),
        Op::SoftmaxGradient => one(softmax_gradient(g, x[0], x[1])),
        Op::LayerNormGradient { epsilon } => one(layer_norm_gradient(g, *epsilon, x[0], x[1], x[2])),
        Op::GroupNormGradient { groups, epsilon } => one(group_norm_gradient(g, *groups, *epsilon, x[0], x[1], x[2])),
        Op::ResizeGradient { height, width } => one(resize_gradient(g, *height, *width, x[0])),
        Op::AttentionGradient { heads, keys } => attention_gradient(g, *heads, *keys, x),
        _ => keep(g, node, x),
    })
}

pub(super) fn one(value: Result<Value>) -> Result<Vec<Value>> {
    Ok(vec![value?])
}

pub(super) fn keep(g: &mut Graph, node: &Node, inputs: &[Value]) -> Result<Vec<Value>> {
    g.node_outputs(node.op.clone(), inputs)
}

pub(super) fn halves(g: &mut Graph, x: Value) -> Result<(Value, Value)> {
    let axis = g.shape(x).len() - 1;
    let length = g.shape(x)[axis];
    Ok((g.slice(x, axis, 0, length / 2)?, g.slice(x, axis, length / 2, length)?))
}

fn linear(g: &mut Graph, transpose: bool, inputs: &[Value]) -> Result<Value> {
    let shape = g.shape(inputs[0]).to_vec();
    let columns = shape.last().copied().unwrap_or(1);
    let rows = shape[..shape.len() - 1].iter().product();
    let mut flat = inputs.to_vec();
    flat[0] = g.reshape(inputs[0], &[rows, columns])?;
    let y = g.node(Op::Gemm { transpose }, &flat)?;
    let out = g.shape(y)[1];
    g.reshape(y, &[&shape[..shape.len() - 1], &[out]].concat())
}

/// Statistics over each group as one row of an instance norm, then scale and bias per channel.
pub(super) fn group_norm(
    g: &mut Graph,
    groups: usize,
    epsilon: f32,
    x: Value,
    scale: Value,
    bias: Value,
) -> Result<Value> {
    let FeatureMap { count, channels, height, width } = g.feature_map(x)?;
    let shape = g.shape(x).to_vec();
    let rows = g.reshape(x, &[count, groups, channels / groups * height * width])?;
    let element = g.info(x).element;
    let ones = g.constant_of(element, &vec![1.0; groups], &[groups])?;
    let zeros = g.constant_of(element, &vec![0.0; groups], &[groups])?;
    let normal = g.node(Op::InstanceNorm { epsilon }, &[rows, ones, zeros])?;
    let normal = g.reshape(normal, &shape)?;
    let (scale, bias) = (affine(g, scale)?, affine(g, bias)?);
    let scaled = g.mul(normal, scale)?;
    g.add(scaled, bias)
}

/// One value a channel as `[channels, 1, 1]`.
fn affine(g: &mut Graph, parameter: Value) -> Result<Value> {
    let channels = g.shape(parameter)[0];
    g.reshape(parameter, &[channels, 1, 1])
}

/// σ(x)·(1 + x·(1 − σ(x)))·dy
pub(super) fn silu_gradient(g: &mut Graph, x: Value, dy: Value) -> Result<Value> {
    let gate = g.node(Op::Sigmoid, &[x])?;
    let value = g.mul(x, gate)?;
    let product = g.mul(value, gate)?;
    let rest = g.sub(value, product)?;
    let slope = g.add(gate, rest)?;
    g.mul(slope, dy)
}

/// For y = a·gelu(b): da = gelu(b)·dy, db = a·(Φ(b) + b·φ(b))·dy.
pub(super) fn geglu_gradient(g: &mut Graph, x: Value, dy: Value) -> Result<Value> {
    let (a, b) = halves(g, x)?;
    let scaled = g.scale(b, std::f32::consts::FRAC_1_SQRT_2)?;
    let erf = g.node(Op::Erf, &[scaled])?;
    let half = g.scale(erf, 0.5)?;
    let cdf = g.offset(half, 0.5)?;
    let gate = g.mul(b, cdf)?;
    let da = g.mul(gate, dy)?;
    let square = g.mul(scaled, scaled)?;
    let exponent = g.scale(square, -1.0)?;
    let bell = g.node(Op::Exp, &[exponent])?;
    let density = g.scale(bell, 1.0 / (2.0 * std::f32::consts::PI).sqrt())?;
    let weighted = g.mul(b, density)?;
    let slope = g.add(cdf, weighted)?;
    let outer = g.mul(a, dy)?;
    let db = g.mul(outer, slope)?;
    let axis = g.shape(x).len() - 1;
    g.concat(&[da, db], axis)
}

/// y ⊙ (dy − Σ y⊙dy)
pub(super) fn softmax_gradient(g: &mut Graph, y: Value, dy: Value) -> Result<Value> {
    let axis = g.shape(y).len() - 1;
    let product = g.mul(y, dy)?;
    let sum = g.reduce_sum(product, &[axis])?;
    let rest = g.sub(dy, sum)?;
    g.mul(y, rest)
}

fn layer_norm_gradient(g: &mut Graph, epsilon: f32, x: Value, scale: Value, dy: Value) -> Result<Value> {
    let axis = g.shape(x).len() - 1;
    let inner = g.mul(dy, scale)?;
    normalise_gradient(g, epsilon, x, inner, axis)
}

pub(super) fn group_norm_gradient(
    g: &mut Graph,
    groups: usize,
    epsilon: f32,
    x: Value,
    scale: Value,
    dy: Value,
) -> Result<Value> {
    let FeatureMap { count, channels, height, width } = g.feature_map(x)?;
    let shape = g.shape(x).to_vec();
    let scale = affine(g, scale)?;
    let inner = g.mul(dy, scale)?;
    let rows = [count, groups, channels / groups * height * width];
    let (x, inner) = (g.reshape(x, &rows)?, g.reshape(inner, &rows)?);
    let dx = normalise_gradient(g, epsilon, x, inner, 2)?;
    g.reshape(dx, &shape)
}

/// The gradient of x̂ = (x − mean)/√(variance + ε) over one axis: (dx̂ − mean(dx̂) − x̂·mean(dx̂⊙x̂)) / √(variance + ε).
fn normalise_gradient(g: &mut Graph, epsilon: f32, x: Value, dy: Value, axis: usize) -> Result<Value> {
    let mean = g.reduce_mean(x, &[axis])?;
    let centred = g.sub(x, mean)?;
    let square = g.mul(centred, centred)?;
    let variance = g.reduce_mean(square, &[axis])?;
    let shifted = g.offset(variance, epsilon)?;
    let deviation = g.node(Op::Sqrt, &[shifted])?;
    let normal = g.node(Op::Div, &[centred, deviation])?;
    let dy_mean = g.reduce_mean(dy, &[axis])?;
    let product = g.mul(dy, normal)?;
    let along = g.reduce_mean(product, &[axis])?;
    let along = g.mul(normal, along)?;
    let rest = g.sub(dy, dy_mean)?;
    let rest = g.sub(rest, along)?;
    g.node(Op::Div, &[rest, deviation])
}

/// Sums the cotangents of all positions that read one source position: by reshaping where the size was doubled,
/// by a matrix of zeros and ones a side otherwise.
fn resize_gradient(g: &mut Graph, height: usize, width: usize, dy: Value) -> Result<Value> {
    let map = g.feature_map(dy)?;
    let FeatureMap { count, channels, .. } = map;
    if (map.height, map.width) == (2 * height, 2 * width) {
        let parts = g.reshape(dy, &[count * channels, height, 2, width, 2])?;
        let sum = g.reduce_sum(parts, &[2, 4])?;
        return g.reshape(sum, &[count, channels, height, width]);
    }
    let columns = readers(map.width, width);
    let element = g.info(dy).element;
    let columns = g.constant_of(element, &columns, &[map.width, width])?;
    let rows = readers(map.height, height);
    let rows = g.constant_of(element, &rows, &[map.height, height])?;
    let rows = g.swap_last(rows)?;
    let across = g.matmul(dy, columns)?;
    g.matmul(rows, across)
}

/// `[new, old]`, one where the new position reads the old one.
pub(super) fn readers(new: usize, old: usize) -> Vec<f32> {
    let mut table = vec![0.0; new * old];
    (0..new).for_each(|i| table[i * old + i * old / new] = 1.0);
    table
}

/// `[batch, n, c]` as `[batch · heads, n, c / heads]`.
pub(super) fn split_heads(g: &mut Graph, x: Value, heads: usize) -> Result<Value> {
    let (batch, n, c) = (g.shape(x)[0], g.shape(x)[1], g.shape(x)[2]);
    let x = g.reshape(x, &[batch, n, heads, c / heads])?;
    let x = g.transpose(x, &[0, 2, 1, 3])?;
    g.reshape(x, &[batch * heads, n, c / heads])
}

pub(super) fn merge_heads(g: &mut Graph, x: Value, heads: usize) -> Result<Value> {
    let (pairs, n, d) = (g.shape(x)[0], g.shape(x)[1], g.shape(x)[2]);
    let x = g.reshape(x, &[pairs / heads, heads, n, d])?;
    let x = g.transpose(x, &[0, 2, 1, 3])?;
    g.reshape(x, &[pairs / heads, n, heads * d])
}

/// The (image, head) pairs of one block after another.
pub(super) fn blocks(pairs: usize, map: usize) -> impl Iterator<Item = (usize, usize)> {
    let size = (ATTENTION_BLOCK / map).clamp(1, pairs);
    (0..pairs).step_by(size).map(move |start| (start, (start + size).min(pairs)))
}

/// q scaled and split by heads, and k and v split.
fn attention_parts(g: &mut Graph, heads: usize, q: Value, k: Value, v: Value) -> Result<[Value; 3]> {
    let size = g.shape(q)[2] / heads;
    let q = g.scale(q, 1.0 / (size as f32).sqrt())?;
    Ok([split_heads(g, q, heads)?, split_heads(g, k, heads)?, split_heads(g, v, heads)?])
}

fn attention_map(g: &mut Graph, q: Value, k: Value) -> Result<Value> {
    let turned = g.swap_last(k)?;
    let scores = g.matmul(q, turned)?;
    g.softmax(scores)
}

pub(super) fn attention(g: &mut Graph, heads: usize, q: Value, k: Value, v: Value) -> Result<Value> {
    let [q, k, v] = attention_parts(g, heads, q, k, v)?;
    let (pairs, m, n) = (g.shape(q)[0], g.shape(q)[1], g.shape(k)[1]);
    let mut parts = Vec::new();
    for (start, end) in blocks(pairs, m * n) {
        let q = g.slice(q, 0, start, end)?;
        let k = g.slice(k, 0, start, end)?;
        let v = g.slice(v, 0, start, end)?;
        let map = attention_map(g, q, k)?;
        parts.push(g.matmul(map, v)?);
    }
    let y = g.concat(&parts, 0)?;
    merge_heads(g, y, heads)
}

/// With the map A = softmax(s·q·kᵀ) computed again: dv = Aᵀ·dy, dA = dy·vᵀ, dS = A ⊙ (dA − rowsum(dy ⊙ y)),
/// dq = s·dS·k, dk = s·dSᵀ·q. The row sums come from the output, so no second map is reduced.
fn attention_gradient(g: &mut Graph, heads: usize, keys: bool, inputs: &[Value]) -> Result<Vec<Value>> {
    let scale = 1.0 / ((g.shape(inputs[0])[2] / heads) as f32).sqrt();
    let [q, k, v] = attention_parts(g, heads, inputs[0], inputs[1], inputs[2])?;
    let (y, dy) = (split_heads(g, inputs[3], heads)?, split_heads(g, inputs[4], heads)?);
    let product = g.mul(y, dy)?;
    let sums = g.reduce_sum(product, &[2])?;
    let (pairs, m, n) = (g.shape(q)[0], g.shape(q)[1], g.shape(k)[1]);
    let mut done = Vec::new();
    for (start, end) in blocks(pairs, m * n) {
        let mut part = |x| g.slice(x, 0, start, end);
        let (q, k, v, dy, sums) = (part(q)?, part(k)?, part(v)?, part(dy)?, part(sums)?);
        let map = attention_map(g, q, k)?;
        let turned = g.swap_last(v)?;
        let dmap = g.matmul(dy, turned)?;
        let rest = g.sub(dmap, sums)?;
        let dscores = g.mul(map, rest)?;
        let dq = g.matmul(dscores, k)?;
        let mut parts = vec![g.scale(dq, scale)?];
        if keys {
            // q is scaled already, so dk needs no factor of its own.
            let turned = g.swap_last(dscores)?;
            parts.push(g.matmul(turned, q)?);
            let turned = g.swap_last(map)?;
            parts.push(g.matmul(turned, dy)?);
        }
        done.push(parts);
    }
    join_blocks(g, heads, &done)
}

/// The cotangents of q, of k and of v from those of each block. A block's are joined to one value first: the runtime
/// then ends a block, and frees its maps, before it begins the next.
pub(super) fn join_blocks(g: &mut Graph, heads: usize, blocks: &[Vec<Value>]) -> Result<Vec<Value>> {
    let mut joined = Vec::with_capacity(blocks.len());
    for parts in blocks {
        joined.push(g.concat(parts, 1)?);
    }
    let whole = g.concat(&joined, 0)?;
    let (mut outputs, mut start) = (Vec::new(), 0);
    for part in blocks.first().into_iter().flatten() {
        let end = start + g.shape(*part)[1];
        let part = g.slice(whole, 1, start, end)?;
        outputs.push(merge_heads(g, part, heads)?);
        start = end;
    }
    Ok(outputs)
}
