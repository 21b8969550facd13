//! The order that ONNX Runtime computes a graph in, and the memory that this takes.
//!
//! The runtime starts at the last result and computes what it needs first, for each node the inputs that stand latest
//! in the file first. The gradient computes much again from the forward pass, to keep little; where such a node came
//! before the cotangent that it is multiplied with, it would be computed while the forward pass runs and be kept until
//! the backward pass is there. So files have their nodes sorted by depth, the longest way from an input: what is
//! deepest, a cotangent, is then computed first, and what is near, beside it, right before it is needed.

use std::collections::{HashMap, HashSet};

use super::ir::{Graph, Node};
use super::op::Op;
use super::types::{Origin, Value};

/// What a graph needs while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// Bytes of weights and constants.
    pub weights: u64,
    /// Bytes of inputs, results and what lies between, where they are most.
    pub activations: u64,
    /// The node that runs then.
    pub node: String,
    /// The values that are there then, largest first: scope and shape of what made them, and bytes.
    pub alive: Vec<(String, u64)>,
}

impl Memory {
    /// Weights and activations.
    pub fn total(&self) -> u64 {
        self.weights + self.activations
    }
}

/// The nodes that the outputs depend on, as they stand in a file: by depth, then by the order of making.
pub fn file_order(graph: &Graph) -> Vec<&Node> {
    let mut nodes = graph.live_nodes();
    let mut depths: HashMap<Value, usize> = HashMap::new();
    let mut order = HashMap::new();
    for (at, node) in nodes.iter().enumerate() {
        let depth = 1 + node.inputs.iter().filter_map(|v| depths.get(v)).copied().max().unwrap_or(0);
        depths.extend(node.outputs.iter().map(|v| (*v, depth)));
        order.insert(node.outputs[0], (depth, at));
    }
    nodes.sort_by_key(|node| order[&node.outputs[0]]);
    nodes
}

/// Positions in the file in the order that ONNX Runtime computes them in.
pub fn execution_order(graph: &Graph) -> Vec<usize> {
    order_of(&file_order(graph))
}

fn order_of(nodes: &[&Node]) -> Vec<usize> {
    let makers: HashMap<Value, usize> =
        nodes.iter().enumerate().flat_map(|(at, node)| node.outputs.iter().map(move |v| (*v, at))).collect();
    let inputs = |at: usize| nodes[at].inputs.iter().filter_map(|v| makers.get(v).copied());
    let read: HashSet<usize> = (0..nodes.len()).flat_map(inputs).collect();
    let mut stack: Vec<(usize, bool)> =
        (0..nodes.len()).filter(|at| !read.contains(at)).map(|at| (at, false)).collect();
    let (mut seen, mut order) = (vec![false; nodes.len()], Vec::with_capacity(nodes.len()));
    while let Some((at, done)) = stack.pop() {
        if done {
            order.push(at);
        } else if !std::mem::replace(&mut seen[at], true) {
            stack.push((at, true));
            let mut next: Vec<usize> = inputs(at).collect();
            next.sort_unstable();
            next.dedup();
            stack.extend(next.into_iter().filter(|at| !seen[*at]).map(|at| (at, false)));
        }
    }
    order
}

/// Predicts the memory of a lowered graph. The library's own workspaces are not in it.
pub fn predict(graph: &Graph) -> Memory {
    let nodes = file_order(graph);
    predict_in(graph, &nodes, &order_of(&nodes))
}

/// What depends on no input, which is computed once, when the network is loaded.
pub(super) fn fixed_values<'a>(graph: &Graph, nodes: impl Iterator<Item = &'a Node>) -> HashSet<Value> {
    let mut fixed: HashSet<Value> = graph
        .values()
        .filter(|(_, info)| matches!(info.origin, Origin::Weight(_) | Origin::Constant(_)))
        .map(|(value, _)| value)
        .collect();
    for node in nodes {
        if node.inputs.iter().all(|v| fixed.contains(v)) {
            fixed.extend(&node.outputs);
        }
    }
    fixed
}

fn predict_in(graph: &Graph, nodes: &[&Node], order: &[usize]) -> Memory {
    let size = |value: Value| (graph.info(value).elements() * graph.info(value).element.size()) as u64;
    let fixed = fixed_values(graph, nodes.iter().copied());
    let runs: Vec<&Node> = order.iter().map(|at| nodes[*at]).filter(|n| !fixed.contains(&n.outputs[0])).collect();
    let weights: HashSet<Value> = runs.iter().flat_map(|n| &n.inputs).filter(|v| fixed.contains(v)).copied().collect();

    // Several values may lie in one buffer, each named by its first.
    let mut buffers: HashMap<Value, Value> = graph.inputs().iter().map(|v| (*v, *v)).collect();
    let mut readers: HashMap<Value, usize> = HashMap::new();
    for value in runs.iter().flat_map(|node| &node.inputs) {
        *readers.entry(*value).or_default() += 1;
    }
    for value in graph.inputs().iter().chain(graph.outputs().iter().map(|(_, value)| value)) {
        // The caller's.
        *readers.entry(*value).or_default() += 1;
    }
    let mut alive: HashMap<Value, usize> = graph.inputs().iter().map(|v| (*v, readers[v])).collect();
    let mut held: u64 = alive.keys().map(|v| size(*v)).sum();
    let mut peak = (held, 0, alive.clone());
    for (at, node) in runs.iter().enumerate() {
        for output in &node.outputs {
            let place = node.inputs.iter().filter(|v| !fixed.contains(v)).find(|input| {
                let own = alive.get(&buffers[input]) == Some(&1) && size(**input) == size(*output);
                matches!(node.op, Op::Reshape(_)) || in_place(&node.op) && own
            });
            let users = readers.get(output).copied().unwrap_or(0);
            let buffer = place.map_or(*output, |input| buffers[input]);
            buffers.insert(*output, buffer);
            let count = alive.entry(buffer).or_insert_with(|| {
                held += size(*output);
                0
            });
            *count += users;
        }
        if held > peak.0 {
            peak = (held, at, alive.clone());
        }
        let done = node
            .inputs
            .iter()
            .filter(|v| !fixed.contains(v))
            .map(|v| (*v, 1))
            .chain(node.outputs.iter().map(|v| (*v, 0)));
        for (value, uses) in done {
            let buffer = buffers[&value];
            if let Some(count) = alive.get_mut(&buffer) {
                *count -= uses;
                if *count == 0 {
                    alive.remove(&buffer);
                    held -= size(buffer);
                }
            }
        }
    }
    let scopes: HashMap<Value, &str> =
        nodes.iter().flat_map(|node| node.outputs.iter().map(|v| (*v, node.scope.as_str()))).collect();
    let mut there: Vec<(String, u64)> = peak
        .2
        .into_keys()
        .map(|v| {
            (format!("{} {} {:?}", scopes.get(&v).unwrap_or(&"input"), graph.info(v).name, graph.shape(v)), size(v))
        })
        .collect();
    there.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    Memory {
        weights: weights.into_iter().map(size).sum(),
        activations: peak.0,
        node: runs.get(peak.1).map_or_else(String::new, |node| format!("{} {}", node.scope, node.op.name())),
        alive: there,
    }
}

/// Whether ONNX Runtime may write a result over an input that nothing else reads.
fn in_place(op: &Op) -> bool {
    matches!(op, Op::Add | Op::Sub | Op::Mul | Op::Div | Op::Sqrt | Op::Exp | Op::Erf | Op::Sigmoid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Element, Layout};

    /// y = sin(x) · eᶻ with z made of x by a chain: the sine is made first and read last.
    fn chain() -> Graph {
        let mut g = Graph::new("chain", Element::Float32, Layout::ChannelsFirst);
        let x = g.input("x", Element::Float32, &[256]);
        let sine = g.node(Op::Sin, &[x]).unwrap();
        let mut z = x;
        for _ in 0..3 {
            z = g.node(Op::Cos, &[z]).unwrap();
        }
        let y = g.mul(sine, z).unwrap();
        g.output("y", y);
        g
    }

    #[test]
    fn what_is_near_comes_right_before_it_is_needed() {
        let g = chain();
        let nodes = file_order(&g);
        let names: Vec<&str> = execution_order(&g).into_iter().map(|at| nodes[at].op.name()).collect();
        assert_eq!(names, ["Cos", "Cos", "Cos", "Sin", "Mul"]);
    }

    #[test]
    fn memory_is_what_is_alive_at_once() {
        let g = chain();
        // The input, and two links of the chain, or the end of it and the sine.
        assert_eq!(predict(&g).activations, 3 * 1024);
        let made = g.live_nodes();
        // With the sine first there would be one more.
        assert_eq!(predict_in(&g, &made, &[0, 1, 2, 3, 4]).activations, 4 * 1024);
    }

    #[test]
    fn weights_are_counted_as_the_nodes_read_them() {
        let mut g = Graph::new("weights", Element::Float32, Layout::ChannelsFirst);
        let x = g.input("x", Element::Float32, &[4]);
        let half = g.constant_of(Element::Float16, &[1.0; 4], &[4]).unwrap();
        let full = g.cast(half, Element::Float32).unwrap();
        let y = g.add(x, full).unwrap();
        let y = g.reshape(y, &[2, 2]).unwrap();
        g.output("y", y);
        let memory = predict(&g);
        assert_eq!((memory.weights, memory.activations), (16, 32));
        assert_eq!(memory.alive.iter().map(|(_, bytes)| bytes).sum::<u64>(), memory.activations);
    }
}
