//! The spatial transformer of Stable Diffusion (`Transformer2DModel` with one `BasicTransformerBlock`), per frame.

use super::layers::{Scope, group_norm, layer_norm, linear};
use crate::Result;
use crate::graph::{Graph, Op, Value};

/// Epsilon of the transformer's group norm; the residual blocks' is the model's `norm_eps`.
const GROUP_NORM_EPSILON: f32 = 1e-6;
const LAYER_NORM_EPSILON: f32 = 1e-5;

/// What every spatial transformer of a network shares.
#[derive(Debug, Clone, Copy)]
pub struct Text {
    /// Text embeddings `[batch, tokens, width]`.
    pub embeddings: Value,
    /// Groups of the group norm.
    pub groups: usize,
}

/// Self-attention over the positions of each frame, cross-attention to the text, feed-forward.
///
/// # Errors
/// When a weight is missing or misshapen.
pub fn spatial_transformer(g: &mut Graph, scope: &Scope, x: Value, text: Text, heads: usize) -> Result<Value> {
    let map = g.feature_map(x)?;
    let h = group_norm(g, &scope.child("norm"), x, text.groups, GROUP_NORM_EPSILON)?;
    let h = g.to_tokens(h)?;
    let mut h = linear(g, &scope.child("proj_in"), h)?;
    for index in 0.. {
        let block = scope.child("transformer_blocks").child(index);
        if !block.child("norm1").has("weight") {
            break;
        }
        let normal = layer_norm(g, &block.child("norm1"), h, LAYER_NORM_EPSILON)?;
        let attended = attention(g, &block.child("attn1"), normal, normal, heads)?;
        h = g.add(attended, h)?;
        let normal = layer_norm(g, &block.child("norm2"), h, LAYER_NORM_EPSILON)?;
        let attended = cross_attention(g, &block.child("attn2"), normal, text.embeddings, heads)?;
        h = g.add(attended, h)?;
        let normal = layer_norm(g, &block.child("norm3"), h, LAYER_NORM_EPSILON)?;
        let forward = feed_forward(g, &block.child("ff"), normal)?;
        h = g.add(forward, h)?;
    }
    let h = linear(g, &scope.child("proj_out"), h)?;
    let h = g.from_tokens(h, map)?;
    g.add(h, x)
}

/// Every frame of a clip attends to the same text, so the frames' positions count as one long row of queries.
fn cross_attention(g: &mut Graph, scope: &Scope, x: Value, text: Value, heads: usize) -> Result<Value> {
    let shape = g.shape(x).to_vec();
    let batch = g.shape(text)[0];
    let queries = g.reshape(x, &[batch, shape[0] / batch * shape[1], shape[2]])?;
    let attended = attention(g, scope, queries, text, heads)?;
    g.reshape(attended, &shape)
}

fn attention(g: &mut Graph, scope: &Scope, x: Value, context: Value, heads: usize) -> Result<Value> {
    let q = linear(g, &scope.child("to_q"), x)?;
    let k = linear(g, &scope.child("to_k"), context)?;
    let v = linear(g, &scope.child("to_v"), context)?;
    g.set_scope(scope.path());
    let attended = g.attention(q, k, v, heads)?;
    linear(g, &scope.child("to_out.0"), attended)
}

/// GEGLU feed-forward, as in spatial and temporal transformers.
///
/// # Errors
/// When a weight is missing or misshapen.
pub fn feed_forward(g: &mut Graph, scope: &Scope, x: Value) -> Result<Value> {
    let h = linear(g, &scope.child("net.0.proj"), x)?;
    let h = g.node(Op::Geglu, &[h])?;
    linear(g, &scope.child("net.2"), h)
}
