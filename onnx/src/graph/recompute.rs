//! What the backward pass reads of the forward pass, computed again.
//!
//! Linear layers, norms, activations, rearrangements and attention to few tokens are cheap next to the memory that their
//! results take. Where asked for, the backward pass computes them again from what is left: residual sums, convolutions
//! and attention between positions.

use std::collections::{HashMap, HashSet};

use super::ir::{Graph, Node};
use super::op::Op;
use super::types::{Origin, Value};
use crate::Result;

/// Tokens of a prompt, or frames of a clip, to which attention costs less than the products around it.
const FEW: usize = 128;

/// The values that were computed again so far.
pub(super) struct Recomputed {
    makers: HashMap<Value, Node>,
    again: HashMap<Value, Value>,
}

impl Recomputed {
    /// For a backward pass over these nodes.
    pub(super) fn new(forward: &[Node]) -> Self {
        let makers = forward.iter().flat_map(|node| node.outputs.iter().map(|v| (*v, node.clone()))).collect();
        Self { makers, again: HashMap::new() }
    }

    /// A node with what it reads and makes computed again; `reached` learns which of that depends on the latents.
    pub(super) fn node(&mut self, g: &mut Graph, node: &Node, reached: &mut HashSet<Value>) -> Result<Node> {
        let mut again = node.clone();
        for value in again.inputs.iter_mut().chain(&mut again.outputs) {
            *value = self.value(g, *value, reached)?;
        }
        Ok(again)
    }

    fn value(&mut self, g: &mut Graph, value: Value, reached: &mut HashSet<Value>) -> Result<Value> {
        if let Some(again) = self.again.get(&value) {
            return Ok(*again);
        }
        let node = self.makers.get(&value).filter(|node| reached.contains(&value) && is_cheap(g, node)).cloned();
        let again = match node {
            Some(node) => {
                let mut inputs = Vec::with_capacity(node.inputs.len());
                for input in &node.inputs {
                    inputs.push(self.value(g, *input, reached)?);
                }
                g.node(node.op, &inputs)?
            }
            None => value,
        };
        if again != value {
            reached.insert(again);
        }
        self.again.insert(value, again);
        Ok(again)
    }
}

fn is_cheap(g: &Graph, node: &Node) -> bool {
    let fixed = |value: &Value| matches!(g.info(*value).origin, Origin::Weight(_) | Origin::Constant(_));
    match node.op {
        Op::Linear { .. } | Op::LayerNorm { .. } | Op::GroupNorm { .. } | Op::Silu | Op::Geglu => true,
        Op::Reshape(_) | Op::Transpose(_) | Op::Cast(_) => true,
        Op::Attention { .. } => g.shape(node.inputs[1])[1] <= FEW,
        // With positions or a factor; sums of two activations are what the rest is computed from.
        Op::Add | Op::Mul => node.inputs.iter().any(fixed),
        _ => false,
    }
}
