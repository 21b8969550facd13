//! Values and nodes. Every value has a static shape; nodes stand in an order in which they can run.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::op::Op;
use super::types::{Element, FeatureMap, Layout, Origin, Value, ValueInfo};
use crate::weights::{Dtype, WeightInfo};
use crate::{Error, Result};

/// One operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// What it does.
    pub op: Op,
    /// What it reads.
    pub inputs: Vec<Value>,
    /// What it makes.
    pub outputs: Vec<Value>,
    /// The part of the model it belongs to, such as `down_blocks.0.resnets.1`.
    pub scope: String,
}

/// A computation with static shapes.
#[derive(Debug, Clone)]
pub struct Graph {
    /// Its name.
    pub name: String,
    /// Element type of activations.
    pub precision: Element,
    /// Layout of feature maps.
    pub layout: Layout,
    values: Vec<ValueInfo>,
    nodes: Vec<Node>,
    inputs: Vec<Value>,
    outputs: Vec<(String, Value)>,
    weights: HashMap<String, Value>,
    scope: String,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: impl Into<String>, precision: Element, layout: Layout) -> Self {
        Self {
            name: name.into(),
            precision,
            layout,
            values: Vec::new(),
            nodes: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            weights: HashMap::new(),
            scope: String::new(),
        }
    }

    /// What is known of a value.
    pub fn info(&self, value: Value) -> &ValueInfo {
        &self.values[value.0]
    }

    /// A value's shape.
    pub fn shape(&self, value: Value) -> &[usize] {
        &self.values[value.0].shape
    }

    /// A value's sizes as a feature map.
    ///
    /// # Errors
    /// When it has not four axes.
    pub fn feature_map(&self, value: Value) -> Result<FeatureMap> {
        self.layout.feature_map(self.shape(value))
    }

    /// The nodes, each after those it reads from.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Every value, in the order of making.
    pub fn values(&self) -> impl Iterator<Item = (Value, &ValueInfo)> {
        self.values.iter().enumerate().map(|(i, info)| (Value(i), info))
    }

    /// The inputs, in order.
    pub fn inputs(&self) -> &[Value] {
        &self.inputs
    }

    /// The outputs with their names, in order.
    pub fn outputs(&self) -> &[(String, Value)] {
        &self.outputs
    }

    /// Says which part of the model the next nodes belong to.
    pub fn set_scope(&mut self, scope: impl Into<String>) {
        self.scope = scope.into();
    }

    /// Adds an input.
    pub fn input(&mut self, name: impl Into<String>, element: Element, shape: &[usize]) -> Value {
        let value =
            self.add_value(ValueInfo { name: name.into(), element, shape: shape.into(), origin: Origin::Input });
        self.inputs.push(value);
        value
    }

    /// Names a value as an output.
    pub fn output(&mut self, name: impl Into<String>, value: Value) {
        self.outputs.push((name.into(), value));
    }

    /// A tensor of the weight file, in its own element type; the same name gives the same value.
    ///
    /// # Errors
    /// When its element type is not one that graphs hold.
    pub fn weight(&mut self, name: &str, info: &WeightInfo) -> Result<Value> {
        if let Some(value) = self.weights.get(name) {
            return Ok(*value);
        }
        let element = match info.dtype {
            Dtype::F32 => Element::Float32,
            Dtype::F16 => Element::Float16,
            other => {
                return Err(Error::input(format!("weight '{name}' is {other:?}; a bundle holds F32 and F16 only")));
            }
        };
        let value = self.add_value(ValueInfo {
            name: name.into(),
            element,
            shape: info.shape.clone(),
            origin: Origin::Weight(info.clone()),
        });
        self.weights.insert(name.into(), value);
        Ok(value)
    }

    /// A constant of the graph's precision.
    ///
    /// # Errors
    /// When the number of elements does not fit the shape.
    pub fn constant(&mut self, data: &[f32], shape: &[usize]) -> Result<Value> {
        self.constant_of(self.precision, data, shape)
    }

    /// A constant of floating point.
    ///
    /// # Errors
    /// When the number of elements does not fit the shape.
    pub fn constant_of(&mut self, element: Element, data: &[f32], shape: &[usize]) -> Result<Value> {
        let bytes = match element {
            Element::Float16 => data.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect(),
            _ => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        };
        self.constant_bytes(bytes, element, shape)
    }

    /// A constant of integers, for operators that take shapes or positions as inputs.
    pub(super) fn constant_int64(&mut self, data: &[i64]) -> Result<Value> {
        self.constant_bytes(data.iter().flat_map(|x| x.to_le_bytes()).collect(), Element::Int64, &[data.len()])
    }

    fn constant_bytes(&mut self, bytes: Vec<u8>, element: Element, shape: &[usize]) -> Result<Value> {
        let expected = shape.iter().product::<usize>() * element.size();
        if bytes.len() != expected {
            return Err(Error::failure(format!(
                "constant of shape {shape:?} needs {expected} bytes, not {}",
                bytes.len()
            )));
        }
        let name = format!("constant_{}", self.values.len());
        Ok(self.add_value(ValueInfo { name, element, shape: shape.into(), origin: Origin::Constant(bytes) }))
    }

    /// Adds a node with one output.
    ///
    /// # Errors
    /// When the inputs' shapes or types do not fit the operation.
    pub fn node(&mut self, op: Op, inputs: &[Value]) -> Result<Value> {
        Ok(self.node_outputs(op, inputs)?[0])
    }

    /// Adds a node with all its outputs.
    ///
    /// # Errors
    /// When the inputs' shapes or types do not fit the operation.
    pub fn node_outputs(&mut self, op: Op, inputs: &[Value]) -> Result<Vec<Value>> {
        let infos: Vec<&ValueInfo> = inputs.iter().map(|v| self.info(*v)).collect();
        let results = op
            .infer(&infos, self.layout)
            .map_err(|e| Error::failure(format!("graph '{}', {}: {e}", self.name, self.scope)))?;
        let outputs: Vec<Value> = results
            .into_iter()
            .map(|(element, shape)| {
                let name = format!("{}_{}", op.name(), self.values.len());
                self.add_value(ValueInfo { name, element, shape, origin: Origin::Node })
            })
            .collect();
        self.nodes.push(Node { op, inputs: inputs.into(), outputs: outputs.clone(), scope: self.scope.clone() });
        Ok(outputs)
    }

    fn add_value(&mut self, info: ValueInfo) -> Value {
        self.values.push(info);
        Value(self.values.len() - 1)
    }

    /// The node that makes each value, by position in [`Graph::nodes`].
    pub fn producers(&self) -> HashMap<Value, usize> {
        self.nodes.iter().enumerate().flat_map(|(i, node)| node.outputs.iter().map(move |v| (*v, i))).collect()
    }

    /// The node that makes a value, which is among the latest more often than not.
    pub(super) fn producer(&self, value: Value) -> Option<&Node> {
        self.nodes.iter().rev().find(|node| node.outputs.contains(&value))
    }

    /// The nodes that the outputs depend on, in order.
    pub fn live_nodes(&self) -> Vec<&Node> {
        let mut needed = vec![false; self.values.len()];
        for (_, value) in &self.outputs {
            needed[value.0] = true;
        }
        let mut live: Vec<&Node> = Vec::new();
        for node in self.nodes.iter().rev() {
            if node.outputs.iter().any(|v| needed[v.0]) {
                node.inputs.iter().for_each(|v| needed[v.0] = true);
                live.push(node);
            }
        }
        live.reverse();
        live
    }

    /// Rewrites every live node: `rewrite` adds what takes its place to the new graph and returns the new outputs.
    ///
    /// # Errors
    /// Those of `rewrite`.
    pub fn rewrite(&self, mut rewrite: impl FnMut(&mut Graph, &Node, &[Value]) -> Result<Vec<Value>>) -> Result<Graph> {
        let mut graph = Graph::new(self.name.clone(), self.precision, self.layout);
        let mut moved: HashMap<Value, Value> = HashMap::new();
        for value in &self.inputs {
            let info = self.info(*value);
            moved.insert(*value, graph.input(info.name.clone(), info.element, &info.shape));
        }
        for node in self.live_nodes() {
            for value in &node.inputs {
                self.move_leaf(*value, &mut graph, &mut moved);
            }
            let inputs: Vec<Value> = node.inputs.iter().map(|v| moved[v]).collect();
            graph.set_scope(node.scope.clone());
            let outputs = rewrite(&mut graph, node, &inputs)?;
            moved.extend(node.outputs.iter().copied().zip(outputs));
        }
        for (name, value) in &self.outputs {
            self.move_leaf(*value, &mut graph, &mut moved);
            graph.output(name.clone(), moved[value]);
        }
        Ok(graph)
    }

    fn move_leaf(&self, value: Value, graph: &mut Graph, moved: &mut HashMap<Value, Value>) {
        if let Entry::Vacant(place) = moved.entry(value) {
            let mut info = self.info(value).clone();
            if let Origin::Constant(_) = info.origin {
                // Constants are numbered; the new graph has made some of its own.
                info.name = format!("constant_{}", graph.values.len());
            }
            let copy = graph.add_value(info);
            place.insert(copy);
        }
    }
}
