//! Writes a lowered graph as an ONNX model. Weights stay in the bundle's file: the model names offset and length.

use std::collections::{BTreeMap, HashMap, HashSet};

use prost::Message;

use super::ir::{Graph, Node};
use super::kernel::{KernelOp, Launch};
use super::memory;
use super::op::Op;
use super::proto::{
    AttributeProto, DATA_LOCATION_EXTERNAL, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto, attribute_type,
};
use super::types::{Element, Origin, Value, ValueInfo};
use crate::{Error, Result};

const IR_VERSION: i64 = 10;
/// The first operator set with Gelu.
const OPSET: i64 = 20;
/// The domain of ONNX Runtime's own operators, all in its version 1.
const RUNTIME_DOMAIN: &str = "com.microsoft";
/// The domain of the project's own operators, all in its version 1. What a node of it is launched with stands in its
/// attributes: the kernel's `variant`, the `grid` of blocks, `integers` and `floats` that follow the tensors, and the
/// outputs' shapes, `output_0` and so on.
pub const KERNEL_DOMAIN: &str = "motionclone";

/// Whether a model's file says what shapes the values inside it have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shapes {
    /// It does.
    Known,
    /// The shapes that activations are given are inputs of the graph with a default, so that ONNX Runtime does not know
    /// the shapes of most values before it runs.
    ///
    /// Where it does, it lets a value take the place of an earlier one of the same shape that nothing reads any more, and
    /// keeps the place for it all the while between, from the forward pass to the backward pass: more than twice the
    /// memory. But it takes long to load a graph of ten thousand nodes in this way.
    Open,
}

/// The model's bytes. `weights` is the weight file's name, relative to the model's folder.
///
/// # Errors
/// When the graph holds an operation that a lowering should have rewritten.
pub fn to_onnx(graph: &Graph, weights: &str, shapes: Shapes) -> Result<Vec<u8>> {
    let mut graph = graph.clone();
    let nodes: Vec<Node> = memory::file_order(&graph).into_iter().cloned().collect();
    let mut protos = Vec::new();
    let mut open = OpenShapes::new(&graph, &nodes, shapes);
    for (index, node) in nodes.iter().enumerate() {
        protos.push(node_proto(&mut graph, node, index, &mut open)?);
    }
    let names = output_names(&graph)?;
    for (from, to) in &names.copies {
        protos.push(NodeProto {
            input: vec![from.clone()],
            output: vec![to.clone()],
            name: format!("output/{to}"),
            op_type: "Identity".into(),
            ..Default::default()
        });
    }
    for proto in &mut protos {
        for name in proto.input.iter_mut().chain(&mut proto.output) {
            if let Some(renamed) = names.renamed.get(name) {
                name.clone_from(renamed);
            }
        }
    }
    let used: HashSet<&str> = protos.iter().flat_map(|n| n.input.iter().map(String::as_str)).collect();
    let initializer = graph
        .values()
        .filter(|(_, info)| used.contains(info.name.as_str()))
        .filter_map(|(_, info)| tensor_proto(info, weights))
        .collect();
    let made: HashSet<&str> = protos.iter().flat_map(|n| n.output.iter().map(String::as_str)).collect();
    let outputs: HashSet<&str> = graph.outputs().iter().map(|(name, _)| name.as_str()).collect();
    let value_info = graph
        .values()
        .filter(|_| shapes == Shapes::Known)
        .filter(|(_, info)| made.contains(info.name.as_str()) && !outputs.contains(info.name.as_str()))
        .map(|(_, info)| value_info_proto(&info.name, info))
        .collect();
    let inputs = graph.inputs().iter().copied().chain(open.shapes.into_values());
    let mut opset_import = vec![OperatorSetIdProto { domain: String::new(), version: OPSET }];
    for own in [RUNTIME_DOMAIN, KERNEL_DOMAIN] {
        if nodes.iter().any(|node| domain(&node.op) == own) {
            opset_import.push(OperatorSetIdProto { domain: own.into(), version: 1 });
        }
    }
    let model = ModelProto {
        ir_version: IR_VERSION,
        producer_name: "motionclone".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(GraphProto {
            name: graph.name.clone(),
            initializer,
            input: inputs.map(|v| value_info_proto(&graph.info(v).name, graph.info(v))).collect(),
            output: graph.outputs().iter().map(|(name, v)| value_info_proto(name, graph.info(*v))).collect(),
            value_info,
            node: protos,
        }),
        opset_import,
    };
    Ok(model.encode_to_vec())
}

/// The shapes that are inputs of the graph with a default.
struct OpenShapes {
    /// What is given shapes that are known: with open ones, what depends on no input and is computed on loading.
    fixed: HashSet<Value>,
    shapes: BTreeMap<Vec<usize>, Value>,
}

impl OpenShapes {
    fn new(graph: &Graph, nodes: &[Node], shapes: Shapes) -> Self {
        let fixed = match shapes {
            Shapes::Known => graph.values().map(|(value, _)| value).collect(),
            Shapes::Open => memory::fixed_values(graph, nodes.iter()),
        };
        Self { fixed, shapes: BTreeMap::new() }
    }

    /// What a node that reshapes `x` reads its shape from.
    fn shape(&mut self, graph: &mut Graph, x: Value, shape: &[usize]) -> Result<Value> {
        let numbers: Vec<i64> = shape.iter().map(|n| *n as i64).collect();
        if self.fixed.contains(&x) {
            return graph.constant_int64(&numbers);
        }
        if let Some(there) = self.shapes.get(shape) {
            return Ok(*there);
        }
        let value = graph.constant_int64(&numbers)?;
        self.shapes.insert(shape.to_vec(), value);
        Ok(value)
    }
}

struct OutputNames {
    /// Node outputs that take the name of the graph output they are.
    renamed: HashMap<String, String>,
    /// Graph outputs that need a copy: an input, a weight, or a value that is another output already.
    copies: Vec<(String, String)>,
}

fn output_names(graph: &Graph) -> Result<OutputNames> {
    let mut names = OutputNames { renamed: HashMap::new(), copies: Vec::new() };
    let mut seen: HashMap<Value, &str> = HashMap::new();
    let mut taken = HashSet::new();
    for (name, value) in graph.outputs() {
        if !taken.insert(name) {
            return Err(Error::failure(format!("graph '{}' has two outputs named '{name}'", graph.name)));
        }
        let info = graph.info(*value);
        if let Some(first) = seen.get(value) {
            names.copies.push(((*first).to_string(), name.clone()));
        } else if info.origin == Origin::Node {
            names.renamed.insert(info.name.clone(), name.clone());
            seen.insert(*value, name);
        } else {
            names.copies.push((info.name.clone(), name.clone()));
        }
    }
    Ok(names)
}

fn node_proto(graph: &mut Graph, node: &Node, index: usize, open: &mut OpenShapes) -> Result<NodeProto> {
    let mut inputs = node.inputs.clone();
    let mut attribute = Vec::new();
    let op_type = match &node.op {
        Op::Softmax => {
            attribute.push(int("axis", -1));
            "Softmax"
        }
        Op::Gemm { transpose } => {
            attribute.push(int("transB", i64::from(*transpose)));
            "Gemm"
        }
        Op::ReduceSum(axes) | Op::ReduceMean(axes) => {
            inputs.push(graph.constant_int64(&axes.iter().map(|a| *a as i64).collect::<Vec<_>>())?);
            attribute.push(int("keepdims", 1));
            node.op.name()
        }
        Op::Reshape(shape) => {
            inputs.push(open.shape(graph, inputs[0], shape)?);
            "Reshape"
        }
        Op::Transpose(axes) => {
            attribute.push(ints("perm", axes.iter().map(|a| *a as i64)));
            "Transpose"
        }
        Op::Concat(axis) => {
            attribute.push(int("axis", *axis as i64));
            "Concat"
        }
        Op::Slice { axis, start, end } => {
            for number in [start, end, axis] {
                inputs.push(graph.constant_int64(&[*number as i64])?);
            }
            "Slice"
        }
        Op::Gather => {
            attribute.push(int("axis", 0));
            "Gather"
        }
        Op::Cast(element) => {
            attribute.push(int("to", i64::from(data_type(*element))));
            "Cast"
        }
        Op::Conv { stride, padding } => {
            attribute.extend(convolution(&graph.shape(node.inputs[1])[2..], *stride, *padding));
            "Conv"
        }
        Op::ConvTranspose { stride, padding, height, width } => {
            attribute.extend(convolution(&graph.shape(node.inputs[1])[2..], *stride, *padding));
            let [top, left, bottom, right] = padding;
            let kernel = graph.shape(node.inputs[1]);
            let from = graph.feature_map(node.inputs[0])?;
            // Rows and columns at the far edge that the strided convolution never reached.
            let missing = |size: usize, before: usize, kernel: usize, pads: usize| {
                (size + pads) as i64 - ((before - 1) * stride + kernel) as i64
            };
            let rows = missing(*height, from.height, kernel[2], top + bottom);
            let columns = missing(*width, from.width, kernel[3], left + right);
            attribute.push(ints("output_padding", [rows, columns]));
            "ConvTranspose"
        }
        Op::LayerNorm { epsilon } | Op::LayerNormStatistics { epsilon } => {
            attribute.extend([int("axis", -1), float("epsilon", *epsilon)]);
            "LayerNormalization"
        }
        Op::InstanceNorm { epsilon } => {
            attribute.push(float("epsilon", *epsilon));
            "InstanceNormalization"
        }
        Op::NhwcConv { stride, padding } => {
            let kernel = &graph.shape(node.inputs[1])[1..3];
            attribute.extend(convolution(kernel, *stride, *padding));
            "NhwcConv"
        }
        Op::NhwcGroupNorm { groups, epsilon, silu } => {
            attribute.extend(group_norm(*groups, *epsilon, *silu));
            "GroupNorm"
        }
        Op::SkipGroupNorm { groups, epsilon, silu } => {
            attribute.extend(group_norm(*groups, *epsilon, *silu));
            "SkipGroupNorm"
        }
        Op::SkipLayerNorm { epsilon } => {
            attribute.push(float("epsilon", *epsilon));
            let mut proto = proto(graph, node, index, "SkipLayerNormalization", &inputs, attribute);
            // Outputs 1 and 2 are the statistics.
            proto.output.splice(1..1, [String::new(), String::new()]);
            return Ok(proto);
        }
        Op::MultiHeadAttention { heads } => {
            attribute.push(int("num_heads", *heads as i64));
            "MultiHeadAttention"
        }
        Op::BiasSplitGelu => "BiasSplitGelu",
        Op::ScaledSwish { alpha } => {
            attribute.push(float("alpha", *alpha));
            "QuickGelu"
        }
        Op::FusedMatMul { transpose_a, transpose_b, alpha } => {
            attribute.extend([
                int("transA", i64::from(*transpose_a)),
                int("transB", i64::from(*transpose_b)),
                float("alpha", *alpha),
            ]);
            "FusedMatMul"
        }
        Op::Reverse(axes) => {
            let axes: Vec<i64> = axes.iter().map(|axis| *axis as i64).collect();
            for numbers in [vec![-1; axes.len()], vec![i64::MIN; axes.len()], axes.clone(), vec![-1; axes.len()]] {
                inputs.push(graph.constant_int64(&numbers)?);
            }
            "Slice"
        }
        Op::Kernel(op) => {
            attribute.extend(launch(graph, op, &inputs)?);
            for (at, output) in node.outputs.iter().enumerate() {
                attribute.push(ints(&format!("output_{at}"), graph.shape(*output).iter().map(|n| *n as i64)));
            }
            node.op.name()
        }
        Op::Resize { .. } | Op::NhwcResize { .. } => {
            let sizes: Vec<i64> = graph.shape(node.outputs[0]).iter().map(|n| *n as i64).collect();
            let sizes = graph.constant_int64(&sizes)?;
            attribute.extend([
                string("mode", "nearest"),
                string("coordinate_transformation_mode", "asymmetric"),
                string("nearest_mode", "floor"),
            ]);
            let input =
                vec![graph.info(inputs[0]).name.clone(), String::new(), String::new(), graph.info(sizes).name.clone()];
            return Ok(NodeProto { input, ..proto(graph, node, index, "Resize", &[], attribute) });
        }
        Op::Add
        | Op::Sub
        | Op::Mul
        | Op::Div
        | Op::Sqrt
        | Op::Exp
        | Op::Erf
        | Op::Sin
        | Op::Cos
        | Op::Sigmoid
        | Op::Gelu
        | Op::MatMul => node.op.name(),
        other => return Err(Error::failure(format!("{} has no ONNX operator; lower the graph first", other.name()))),
    };
    Ok(proto(graph, node, index, op_type, &inputs, attribute))
}

fn proto(
    graph: &Graph,
    node: &Node,
    index: usize,
    op_type: &str,
    inputs: &[Value],
    attribute: Vec<AttributeProto>,
) -> NodeProto {
    let names = |values: &[Value]| values.iter().map(|v| graph.info(*v).name.clone()).collect();
    NodeProto {
        input: names(inputs),
        output: names(&node.outputs),
        name: format!("{}/{op_type}_{index}", node.scope),
        op_type: op_type.into(),
        attribute,
        domain: domain(&node.op).into(),
    }
}

/// Who defines the operator; ONNX where it is empty.
fn domain(op: &Op) -> &'static str {
    match op {
        Op::NhwcConv { .. }
        | Op::NhwcGroupNorm { .. }
        | Op::SkipGroupNorm { .. }
        | Op::SkipLayerNorm { .. }
        | Op::MultiHeadAttention { .. }
        | Op::BiasSplitGelu
        | Op::ScaledSwish { .. }
        | Op::FusedMatMul { .. } => RUNTIME_DOMAIN,
        Op::Kernel(_) => KERNEL_DOMAIN,
        _ => "",
    }
}

fn launch(graph: &Graph, op: &KernelOp, inputs: &[Value]) -> Result<[AttributeProto; 4]> {
    let shapes: Vec<&[usize]> = inputs.iter().map(|value| graph.shape(*value)).collect();
    let Launch { kernel, grid, integers, floats: numbers } = op
        .launch(&shapes)
        .ok_or_else(|| Error::failure(format!("there is no kernel of {} for {shapes:?}", op.signature().name)))?;
    Ok([
        string("variant", &kernel.label()),
        ints("grid", grid.map(|n| n as i64)),
        ints("integers", integers.into_iter().map(i64::from)),
        floats("floats", numbers),
    ])
}

fn group_norm(groups: usize, epsilon: f32, silu: bool) -> [AttributeProto; 4] {
    [
        int("groups", groups as i64),
        float("epsilon", epsilon),
        int("activation", i64::from(silu)),
        int("channels_last", 1),
    ]
}

fn convolution(kernel: &[usize], stride: usize, padding: [usize; 4]) -> [AttributeProto; 3] {
    [
        ints("kernel_shape", kernel.iter().map(|n| *n as i64)),
        ints("strides", [stride as i64; 2]),
        ints("pads", padding.map(|n| n as i64)),
    ]
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i: Some(i), r#type: attribute_type::INT, ..Default::default() }
}

fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto { name: name.into(), f: Some(f), r#type: attribute_type::FLOAT, ..Default::default() }
}

fn string(name: &str, s: &str) -> AttributeProto {
    AttributeProto { name: name.into(), s: Some(s.into()), r#type: attribute_type::STRING, ..Default::default() }
}

fn ints(name: &str, values: impl IntoIterator<Item = i64>) -> AttributeProto {
    let ints = values.into_iter().collect();
    AttributeProto { name: name.into(), ints, r#type: attribute_type::INTS, ..Default::default() }
}

fn floats(name: &str, floats: Vec<f32>) -> AttributeProto {
    AttributeProto { name: name.into(), floats, r#type: attribute_type::FLOATS, ..Default::default() }
}

/// `TensorProto.DataType`.
fn data_type(element: Element) -> i32 {
    match element {
        Element::Float32 => 1,
        Element::Int64 => 7,
        Element::Float16 => 10,
    }
}

fn tensor_proto(info: &ValueInfo, weights: &str) -> Option<TensorProto> {
    let mut tensor = TensorProto {
        dims: info.shape.iter().map(|n| *n as i64).collect(),
        data_type: data_type(info.element),
        name: info.name.clone(),
        ..Default::default()
    };
    match &info.origin {
        Origin::Constant(bytes) => tensor.raw_data = Some(bytes.clone()),
        Origin::Weight(place) => {
            tensor.data_location = Some(DATA_LOCATION_EXTERNAL);
            tensor.external_data = [
                ("location", weights.to_string()),
                ("offset", place.offset.to_string()),
                ("length", place.length.to_string()),
            ]
            .map(|(key, value)| StringStringEntryProto { key: key.into(), value })
            .into();
        }
        Origin::Input | Origin::Node => return None,
    }
    Some(tensor)
}

fn value_info_proto(name: &str, info: &ValueInfo) -> ValueInfoProto {
    let dim = info.shape.iter().map(|n| DimensionProto { dim_value: Some(*n as i64) }).collect();
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            tensor_type: Some(TensorTypeProto {
                elem_type: data_type(info.element),
                shape: Some(TensorShapeProto { dim }),
            }),
        }),
    }
}
