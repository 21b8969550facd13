//! Reverse-mode gradient as a graph transform: one pass backwards over the nodes, a rule an operation.
//!
//! Rules of composite operations add one composite node (such as `GroupNormGradient`) and leave its arithmetic to the
//! lowering. What a rule needs of the forward pass it takes from the forward values; attention takes q, k, v and its
//! output and computes the map again.

use std::collections::{HashMap, HashSet};

use super::ir::{Graph, Node};
use super::op::Op;
use super::recompute::Recomputed;
use super::types::Value;
use crate::{Error, Result};

/// What the backward pass takes from the forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Forward {
    /// Every value that it reads, which is faster.
    #[default]
    Kept,
    /// Residual sums, convolutions and attention; the rest is computed again, which takes less memory.
    Recomputed,
}

/// Adds the gradient of Σ ⟨output, cotangent⟩ over `seeds` at `at` to the graph and returns it.
///
/// # Errors
/// When an operation between `at` and a seed has no rule, or no seed depends on `at`.
pub fn gradient(graph: &mut Graph, seeds: &[(Value, Value)], at: Value, values: Forward) -> Result<Value> {
    let forward = graph.nodes().to_vec();
    let mut reached = HashSet::from([at]);
    for node in &forward {
        if node.inputs.iter().any(|v| reached.contains(v)) {
            reached.extend(&node.outputs);
        }
    }
    let mut recomputed = (values == Forward::Recomputed).then(|| Recomputed::new(&forward));
    let mut cotangents: HashMap<Value, Value> = HashMap::new();
    for (value, cotangent) in seeds {
        accumulate(graph, &mut cotangents, *value, *cotangent)?;
    }
    for node in forward.iter().rev() {
        let [output] = node.outputs[..] else { continue };
        if !reached.contains(&output) || output == at {
            continue;
        }
        let Some(cotangent) = cotangents.remove(&output) else { continue };
        graph.set_scope(format!("{}.gradient", node.scope));
        let again = recomputed.as_mut().map(|all| all.node(graph, node, &mut reached)).transpose()?;
        let rule = again.as_ref().unwrap_or(node);
        for (position, contribution) in backward(graph, rule, cotangent, &|v| reached.contains(&v))? {
            let input = node.inputs[position];
            if reached.contains(&input) {
                accumulate(graph, &mut cotangents, input, contribution)?;
            }
        }
    }
    cotangents.remove(&at).ok_or_else(|| Error::failure("no guided attention map depends on the latents"))
}

fn accumulate(graph: &mut Graph, all: &mut HashMap<Value, Value>, value: Value, cotangent: Value) -> Result<()> {
    let sum = match all.get(&value) {
        Some(earlier) => graph.add(*earlier, cotangent)?,
        None => cotangent,
    };
    all.insert(value, sum);
    Ok(())
}

/// The rule of one node: contributions to the cotangents of its inputs, by position.
fn backward(g: &mut Graph, node: &Node, dy: Value, wanted: &dyn Fn(Value) -> bool) -> Result<Vec<(usize, Value)>> {
    let x = node.inputs[0];
    let y = node.outputs[0];
    let only = |value: Result<Value>| Ok(vec![(0, value?)]);
    match &node.op {
        Op::Add => Ok(vec![(0, sum_to(g, dy, x)?), (1, sum_to(g, dy, node.inputs[1])?)]),
        Op::Sub => {
            let minus = g.scale(dy, -1.0)?;
            Ok(vec![(0, sum_to(g, dy, x)?), (1, sum_to(g, minus, node.inputs[1])?)])
        }
        Op::Mul => {
            let mut parts = Vec::new();
            for (position, other) in [(0, node.inputs[1]), (1, x)] {
                if wanted(node.inputs[position]) {
                    let product = g.mul(dy, other)?;
                    parts.push((position, sum_to(g, product, node.inputs[position])?));
                }
            }
            Ok(parts)
        }
        Op::MatMul => {
            let other = node.inputs[1];
            let mut parts = Vec::new();
            if wanted(x) {
                let turned = g.swap_last(other)?;
                let dx = g.matmul(dy, turned)?;
                parts.push((0, sum_to(g, dx, x)?));
            }
            if wanted(other) {
                let turned = g.swap_last(x)?;
                let dw = g.matmul(turned, dy)?;
                parts.push((1, sum_to(g, dw, other)?));
            }
            Ok(parts)
        }
        Op::Linear { transpose } => {
            refuse_parameters(node, wanted)?;
            only(g.node(Op::Linear { transpose: !transpose }, &[dy, node.inputs[1]]))
        }
        Op::Conv { stride, padding } => {
            refuse_parameters(node, wanted)?;
            let map = g.feature_map(x)?;
            let op = Op::ConvTranspose { stride: *stride, padding: *padding, height: map.height, width: map.width };
            only(g.node(op, &[dy, node.inputs[1]]))
        }
        Op::Softmax => only(g.node(Op::SoftmaxGradient, &[y, dy])),
        Op::Silu => only(g.node(Op::SiluGradient, &[x, dy])),
        Op::Geglu => only(g.node(Op::GegluGradient, &[x, dy])),
        Op::LayerNorm { epsilon } => {
            refuse_parameters(node, wanted)?;
            only(g.node(Op::LayerNormGradient { epsilon: *epsilon }, &[x, node.inputs[1], dy]))
        }
        Op::GroupNorm { groups, epsilon } => {
            refuse_parameters(node, wanted)?;
            only(g.node(Op::GroupNormGradient { groups: *groups, epsilon: *epsilon }, &[x, node.inputs[1], dy]))
        }
        Op::Resize { .. } => {
            let map = g.feature_map(x)?;
            only(g.node(Op::ResizeGradient { height: map.height, width: map.width }, &[dy]))
        }
        Op::Attention { heads } => {
            let [q, k, v] = node.inputs[..] else { unreachable!("attention has three inputs") };
            let keys = wanted(k) || wanted(v);
            let parts = g.node_outputs(Op::AttentionGradient { heads: *heads, keys }, &[q, k, v, y, dy])?;
            Ok(parts.into_iter().enumerate().collect())
        }
        Op::Reshape(_) => {
            let shape = g.shape(x).to_vec();
            only(g.reshape(dy, &shape))
        }
        Op::Transpose(axes) => {
            let mut inverse = vec![0; axes.len()];
            axes.iter().enumerate().for_each(|(i, a)| inverse[*a] = i);
            only(g.transpose(dy, &inverse))
        }
        Op::Concat(axis) => {
            let mut start = 0;
            let mut parts = Vec::new();
            for (position, input) in node.inputs.iter().enumerate() {
                let end = start + g.shape(*input)[*axis];
                if wanted(*input) {
                    parts.push((position, g.slice(dy, *axis, start, end)?));
                }
                start = end;
            }
            Ok(parts)
        }
        Op::Cast(_) => {
            let element = g.info(x).element;
            only(g.cast(dy, element))
        }
        other => Err(Error::failure(format!("no gradient rule for {} at {}", other.name(), node.scope))),
    }
}

/// Guidance needs gradients at activations only; a weight that depends on the latents would be a mistake.
fn refuse_parameters(node: &Node, wanted: &dyn Fn(Value) -> bool) -> Result<()> {
    if node.inputs[1..].iter().any(|v| wanted(*v)) {
        return Err(Error::failure(format!("{}: {} has no gradient at its weights", node.scope, node.op.name())));
    }
    Ok(())
}

/// Undoes broadcasting: sums a cotangent over the axes along which `like` was repeated.
fn sum_to(g: &mut Graph, cotangent: Value, like: Value) -> Result<Value> {
    let shape = g.shape(like).to_vec();
    let from = g.shape(cotangent).to_vec();
    if from == shape {
        return Ok(cotangent);
    }
    let lead = from.len() - shape.len();
    let axes: Vec<usize> = (0..from.len()).filter(|i| *i < lead || (shape[i - lead] == 1 && from[*i] != 1)).collect();
    let sum = if axes.is_empty() { cotangent } else { g.reduce_sum(cotangent, &axes)? };
    g.reshape(sum, &shape)
}
