//! Attention in one kernel, and its gradient with the map computed again, a frame at a time where maps are large.

use super::super::ir::Graph;
use super::super::kernel::KernelOp;
use super::super::op::Op;
use super::super::portable::{self, blocks, join_blocks, split_heads};
use super::super::types::Value;
use super::{Lowering, kernel};
use crate::{Error, Result};

/// Widest heads that ONNX Runtime's flash attention takes; the autoencoder's one head is wider.
const WIDEST_HEAD: usize = 256;

/// Tokens of a sequence at most that the project's own kernel does at once: the frames of a clip.
const SHORT: usize = 32;

impl Lowering {
    pub(super) fn attention(&self, g: &mut Graph, heads: usize, q: Value, k: Value, v: Value) -> Result<Value> {
        if g.shape(q)[1] <= SHORT && g.shape(q) == g.shape(k) {
            let own = self.fused.temporal_attention.then_some(KernelOp::TemporalAttention { heads });
            return match own.map(|op| kernel(g, op, &[q, k, v])).transpose()?.flatten() {
                Some(y) => Ok(y[0]),
                None => portable::attention(g, heads, q, k, v),
            };
        }
        if self.fused.attention && g.shape(q)[2] / heads <= WIDEST_HEAD {
            return g.node(Op::MultiHeadAttention { heads }, &[q, k, v]);
        }
        portable::attention(g, heads, q, k, v)
    }

    /// Inputs q, k, v, y, dy.
    pub(super) fn attention_gradient(
        &self,
        g: &mut Graph,
        heads: usize,
        keys: bool,
        inputs: &[Value],
    ) -> Result<Vec<Value>> {
        let [q, k, v, y, dy] = *inputs else {
            return Err(Error::failure(format!("the gradient of attention has five inputs, not {}", inputs.len())));
        };
        if self.fused.temporal_attention
            && let Some(mut parts) = kernel(g, KernelOp::TemporalAttentionGradient { heads }, &[q, k, v, dy])?
        {
            parts.truncate(if keys { 3 } else { 1 });
            return Ok(parts);
        }
        if self.fused.attention_gradient
            && let Some(statistics) = kernel(g, KernelOp::AttentionStatistics { heads }, &[q, k, y, dy])?
        {
            let all = [q, k, v, dy, statistics[0], statistics[1]];
            let mut parts = g.node_outputs(Op::Kernel(KernelOp::AttentionQueryGradient { heads }), &all)?;
            if keys {
                parts.extend(g.node_outputs(Op::Kernel(KernelOp::AttentionKeyGradient { heads }), &all)?);
            }
            return Ok(parts);
        }
        written_out_gradient(g, heads, keys, inputs)
    }
}

/// With the map A = softmax(s·q·kᵀ): dv = Aᵀ·dy, dA = dy·vᵀ, dS = A ⊙ (dA − rowsum(dy ⊙ y)), dq = s·dS·k,
/// dk = s·dSᵀ·q. Inputs q, k, v, y, dy.
fn written_out_gradient(g: &mut Graph, heads: usize, keys: bool, inputs: &[Value]) -> Result<Vec<Value>> {
    let scale = 1.0 / ((g.shape(inputs[0])[2] / heads) as f32).sqrt();
    let mut split = Vec::with_capacity(inputs.len());
    for value in inputs {
        split.push(split_heads(g, *value, heads)?);
    }
    let product = g.mul(split[3], split[4])?;
    let (dy, v) = with_row_sums(g, product, split[4], split[2])?;
    let (pairs, m, n) = (g.shape(split[0])[0], g.shape(split[0])[1], g.shape(split[1])[1]);
    let turned = |transpose_a, transpose_b, alpha| Op::FusedMatMul { transpose_a, transpose_b, alpha };
    let mut done = Vec::new();
    for (start, end) in blocks(pairs, m * n) {
        let mut part = |x| g.slice(x, 0, start, end);
        let (q, k, v, dy, own) = (part(split[0])?, part(split[1])?, part(v)?, part(dy)?, part(split[4])?);
        let scores = g.node(turned(false, true, scale), &[q, k])?;
        let map = g.softmax(scores)?;
        let rest = g.node(turned(false, true, 1.0), &[dy, v])?;
        let dscores = g.mul(map, rest)?;
        let mut parts = vec![g.node(turned(false, false, scale), &[dscores, k])?];
        if keys {
            parts.push(g.node(turned(true, false, scale), &[dscores, q])?);
            parts.push(g.node(turned(true, false, 1.0), &[map, own])?);
        }
        done.push(parts);
    }
    join_blocks(g, heads, &done)
}

/// dy and v with columns more, so that their product is dA − rowsum(dy ⊙ y), which then needs no pass of its own over
/// maps: dy gets the row sums, v gets −1. Eight columns, all but one of zeros, keep rows where matrix products want them.
fn with_row_sums(g: &mut Graph, product: Value, dy: Value, v: Value) -> Result<(Value, Value)> {
    const COLUMNS: usize = 8;
    let (width, element) = (g.shape(dy)[2], g.info(dy).element);
    let table = |value: f32, rows: usize| -> Vec<f32> {
        (0..rows * COLUMNS).map(|at| if at % COLUMNS == 0 { value } else { 0.0 }).collect()
    };
    let ones = g.constant_of(element, &table(1.0, width), &[width, COLUMNS])?;
    let sums = g.matmul(product, ones)?;
    let zeros = g.constant_of(element, &vec![0.0; width * COLUMNS], &[width, COLUMNS])?;
    let minus = g.constant_of(element, &table(-1.0, 1), &[1, 1, COLUMNS])?;
    let empty = g.matmul(v, zeros)?;
    let minus = g.add(empty, minus)?;
    Ok((g.concat(&[dy, sums], 2)?, g.concat(&[v, minus], 2)?))
}
