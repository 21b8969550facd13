//! The CLIP text encoder (`CLIPTextModel`): token and position embeddings, causal transformer layers, final norm.

use super::config::{TextActivation, TextConfig};
use super::layers::{Scope, layer_norm, linear};
use crate::Result;
use crate::graph::{Element, Graph, Op, Value};
use crate::weights::WeightIndex;

/// Input `input_ids [1, max_positions]` (int64); output `text_embeddings [1, max_positions, hidden_size]`, the last
/// hidden state.
///
/// # Errors
/// When a weight is missing or misshapen.
pub fn text_encoder(weights: &WeightIndex, config: &TextConfig, precision: Element) -> Result<Graph> {
    let mut g = Graph::new("text_encoder", precision, crate::graph::Layout::ChannelsFirst);
    let scope = Scope::new(weights, &["text_encoder"]).child("text_model");
    let (tokens, width) = (config.max_positions, config.hidden_size);
    let ids = g.input("input_ids", Element::Int64, &[1, tokens]);
    g.set_scope("embeddings");
    let embeddings = scope.child("embeddings");
    let table = embeddings.shaped(&mut g, "token_embedding.weight", &[config.vocab_size, width])?;
    let positions = embeddings.shaped(&mut g, "position_embedding.weight", &[tokens, width])?;
    let words = g.node(Op::Gather, &[table, ids])?;
    let mut x = g.add(words, positions)?;
    let mask = causal_mask(&mut g, tokens)?;
    for layer in 0..config.layers {
        let scope = scope.child("encoder.layers").child(layer);
        let normal = layer_norm(&mut g, &scope.child("layer_norm1"), x, config.layer_norm_eps)?;
        let attended = self_attention(&mut g, &scope.child("self_attn"), normal, mask, config.heads)?;
        x = g.add(x, attended)?;
        let normal = layer_norm(&mut g, &scope.child("layer_norm2"), x, config.layer_norm_eps)?;
        let inner = linear(&mut g, &scope.child("mlp.fc1"), normal)?;
        let inner = g.node(
            match config.activation {
                TextActivation::QuickGelu => Op::QuickGelu,
                TextActivation::Gelu => Op::Gelu,
            },
            &[inner],
        )?;
        let forward = linear(&mut g, &scope.child("mlp.fc2"), inner)?;
        x = g.add(x, forward)?;
    }
    let x = layer_norm(&mut g, &scope.child("final_layer_norm"), x, config.layer_norm_eps)?;
    let x = g.cast(x, Element::Float32)?;
    g.output("text_embeddings", x);
    Ok(g)
}

fn self_attention(g: &mut Graph, scope: &Scope, x: Value, mask: Value, heads: usize) -> Result<Value> {
    let (tokens, width) = (g.shape(x)[1], g.shape(x)[2]);
    let mut split = |name: &str, axes: &[usize]| -> Result<Value> {
        let y = linear(g, &scope.child(name), x)?;
        g.set_scope(scope.path());
        let y = g.reshape(y, &[1, tokens, heads, width / heads])?;
        g.transpose(y, axes)
    };
    let q = split("q_proj", &[0, 2, 1, 3])?;
    let k = split("k_proj", &[0, 2, 3, 1])?;
    let v = split("v_proj", &[0, 2, 1, 3])?;
    let q = g.scale(q, 1.0 / ((width / heads) as f32).sqrt())?;
    let scores = g.matmul(q, k)?;
    let scores = g.add(scores, mask)?;
    let map = g.softmax(scores)?;
    let y = g.matmul(map, v)?;
    let y = g.transpose(y, &[0, 2, 1, 3])?;
    let y = g.reshape(y, &[1, tokens, width])?;
    linear(g, &scope.child("out_proj"), y)
}

/// A large negative number where the key comes after the query; within half precision's range.
fn causal_mask(g: &mut Graph, tokens: usize) -> Result<Value> {
    let mask: Vec<f32> =
        (0..tokens * tokens).map(|at| if at % tokens > at / tokens { -60000.0 } else { 0.0 }).collect();
    g.constant(&mask, &[tokens, tokens])
}
