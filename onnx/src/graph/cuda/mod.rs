//! The CUDA lowering: channels last, ONNX Runtime's fused operators and kernels of the project's own, statistics in
//! float32.
//!
//! Biases, residual sums and activations are written behind the operation they follow, and drawn into the next norm or
//! activation where one fused operator does both; a sum whose fused form gives it as well is replaced by that for all
//! that comes later.

mod attention;
mod convolution;
mod norm;

use std::collections::HashMap;

use super::ir::{Graph, Node};
use super::kernel::KernelOp;
use super::op::Op;
use super::portable::{geglu_gradient, halves, keep, one, silu_gradient, softmax_gradient};
use super::types::{Element, Layout, Value, ValueInfo};
use crate::{Error, Result};

/// Widths that `BiasSplitGelu` is compiled for.
const SPLIT_GELU_WIDTHS: [usize; 3] = [2560, 5120, 10240];

/// Which of ONNX Runtime's own operators and of the project's own kernels to use; standard operators take the place of
/// the others, and of kernels that were not compiled for a size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fused {
    /// `NhwcConv`.
    pub convolution: bool,
    /// Gradients of convolutions as convolutions with reversed weights, not as `ConvTranspose`.
    pub reversed_gradient: bool,
    /// `GroupNorm`, with SiLU.
    pub group_norm: bool,
    /// `SkipGroupNorm`.
    pub skip_group_norm: bool,
    /// `SkipLayerNormalization`.
    pub skip_layer_norm: bool,
    /// `MultiHeadAttention`.
    pub attention: bool,
    /// `BiasSplitGelu`.
    pub split_gelu: bool,
    /// `QuickGelu` for SiLU.
    pub swish: bool,
    /// The project's own kernels for attention over frames and its gradient.
    pub temporal_attention: bool,
    /// Its own kernels for the gradient of other attention.
    pub attention_gradient: bool,
    /// Its own kernels for layer norms with the sums before and behind them, and for residual sums with a bias.
    pub sums: bool,
    /// Its own kernels for the gradients of norms, with SiLU.
    pub norm_gradients: bool,
    /// Its own kernel for the gradient of GEGLU.
    pub geglu_gradient: bool,
    /// Its own kernel for the gradients of convolutions whose weights are large, behind a matrix product.
    pub neighbour_sum: bool,
}

impl Fused {
    /// Every one of them.
    pub const ALL: Self = Self {
        convolution: true,
        reversed_gradient: true,
        group_norm: true,
        skip_group_norm: true,
        skip_layer_norm: true,
        attention: true,
        split_gelu: true,
        swish: true,
        temporal_attention: true,
        attention_gradient: true,
        sums: true,
        norm_gradients: true,
        geglu_gradient: true,
        neighbour_sum: true,
    };

    /// Whether any of the project's own kernels is used.
    pub fn has_kernels(self) -> bool {
        self != self.without_kernels()
    }

    /// The same without the project's own kernels, which not every card runs.
    #[must_use]
    pub fn without_kernels(self) -> Self {
        Self {
            temporal_attention: false,
            attention_gradient: false,
            sums: false,
            norm_gradients: false,
            geglu_gradient: false,
            neighbour_sum: false,
            ..self
        }
    }

    /// The same without those of the project's own kernels that work together with one of this name.
    #[must_use]
    pub fn without_kernel(self, name: &str) -> Self {
        if ["layer_norm", "residual_sum"].contains(&name) {
            return Self { sums: false, ..self };
        }
        match name.split('_').next().unwrap_or_default() {
            "temporal" => Self { temporal_attention: false, ..self },
            "attention" => Self { attention_gradient: false, ..self },
            "layer" | "group" => Self { norm_gradients: false, ..self },
            "geglu" => Self { geglu_gradient: false, ..self },
            "neighbour" => Self { neighbour_sum: false, ..self },
            _ => self,
        }
    }
}

impl Default for Fused {
    fn default() -> Self {
        Self::ALL
    }
}

/// Rewrites a channels-last graph for CUDA. In the result, standard operators on feature maps see channels first.
///
/// # Errors
/// When the graph is not channels last.
pub fn lower(graph: &Graph, fused: Fused) -> Result<Graph> {
    if graph.layout != Layout::ChannelsLast {
        return Err(Error::failure("the CUDA lowering takes channels-last graphs"));
    }
    let mut lowering = Lowering { fused, replaced: HashMap::new(), silu_gradients: HashMap::new() };
    let lowered = graph.rewrite(|g, node, inputs| {
        g.layout = Layout::ChannelsFirst;
        let inputs: Vec<Value> = inputs.iter().map(|value| lowering.latest(*value)).collect();
        lowering.node(g, node, &inputs)
    })?;
    check_sizes(&lowered)?;
    Ok(lowered)
}

/// ONNX Runtime's kernels count numbers in 32 bits, and read somewhere else where a tensor has more.
fn check_sizes(graph: &Graph) -> Result<()> {
    const MOST: usize = i32::MAX as usize;
    let largest = graph.live_nodes().iter().flat_map(|node| &node.outputs).map(|v| graph.info(*v).elements()).max();
    match largest {
        Some(numbers) if numbers > MOST => Err(Error::input(format!(
            "a feature map of this clip would have {numbers} numbers, and on CUDA devices at most {MOST} are possible; a \
             smaller size or fewer frames"
        ))),
        _ => Ok(()),
    }
}

struct Lowering {
    fused: Fused,
    /// Sums that a fused operator gives as well.
    replaced: HashMap<Value, Value>,
    /// Of cotangents that went through SiLU, what they were before, and what SiLU was taken of.
    silu_gradients: HashMap<Value, SiluGradient>,
}

#[derive(Clone, Copy)]
struct SiluGradient {
    x: Value,
    dy: Value,
}

impl Lowering {
    fn latest(&self, value: Value) -> Value {
        let mut value = value;
        while let Some(newer) = self.replaced.get(&value) {
            value = *newer;
        }
        value
    }

    fn node(&mut self, g: &mut Graph, node: &Node, x: &[Value]) -> Result<Vec<Value>> {
        match &node.op {
            Op::Silu => one(self.silu(g, x[0])),
            Op::QuickGelu => one(self.swish(g, x[0], 1.702)),
            Op::Geglu => one(self.geglu(g, x[0])),
            Op::Linear { transpose } => one(linear(g, *transpose, x)),
            Op::Conv { stride, padding } => one(self.conv(g, *stride, *padding, x)),
            Op::ConvTranspose { stride, padding, height, width } => {
                one(self.conv_gradient(g, *stride, *padding, [*height, *width], x[0], x[1]))
            }
            Op::Resize { height, width } => one(g.node(Op::NhwcResize { height: *height, width: *width }, x)),
            Op::ResizeGradient { height, width } => one(convolution::resize_gradient(g, *height, *width, x[0])),
            Op::GroupNorm { groups, epsilon } => one(self.group_norm(g, *groups, *epsilon, x[0], x[1], x[2])),
            Op::Add => one(self.add(g, x[0], x[1])),
            Op::LayerNorm { epsilon } => one(self.layer_norm(g, *epsilon, x)),
            Op::Attention { heads } => one(self.attention(g, *heads, x[0], x[1], x[2])),
            Op::SiluGradient => {
                let dx = self.silu_gradient(g, x[0], x[1])?;
                self.silu_gradients.insert(dx, SiluGradient { x: x[0], dy: x[1] });
                Ok(vec![dx])
            }
            Op::GegluGradient => one(self.geglu_gradient(g, x[0], x[1])),
            Op::SoftmaxGradient => one(softmax_gradient(g, x[0], x[1])),
            Op::LayerNormGradient { epsilon } => one(self.layer_norm_gradient(g, *epsilon, x[0], x[1], x[2])),
            Op::GroupNormGradient { groups, epsilon } => {
                one(self.group_norm_gradient(g, *groups, *epsilon, x[0], x[1], x[2]))
            }
            Op::AttentionGradient { heads, keys } => self.attention_gradient(g, *heads, *keys, x),
            _ => keep(g, node, x),
        }
    }

    fn swish(&self, g: &mut Graph, x: Value, alpha: f32) -> Result<Value> {
        if self.fused.swish {
            return g.node(Op::ScaledSwish { alpha }, &[x]);
        }
        let scaled = if alpha == 1.0 { x } else { g.scale(x, alpha)? };
        let gate = g.node(Op::Sigmoid, &[scaled])?;
        g.mul(x, gate)
    }

    /// SiLU is part of the group norm that it follows; the norm without it falls away where nothing else reads it.
    fn silu(&mut self, g: &mut Graph, x: Value) -> Result<Value> {
        let producer = g.producer(x).cloned();
        match producer.as_ref().map(|node| (&node.op, node)) {
            Some((Op::NhwcGroupNorm { groups, epsilon, silu: false }, node)) => {
                g.node(Op::NhwcGroupNorm { groups: *groups, epsilon: *epsilon, silu: true }, &node.inputs)
            }
            Some((Op::SkipGroupNorm { groups, epsilon, silu: false }, node)) => {
                let op = Op::SkipGroupNorm { groups: *groups, epsilon: *epsilon, silu: true };
                let outputs = g.node_outputs(op, &node.inputs)?;
                self.replaced.insert(node.outputs[1], outputs[1]);
                Ok(outputs[0])
            }
            _ => self.swish(g, x, 1.0),
        }
    }

    /// What the norm gave before SiLU is computed again from its input, which is kept for its own gradient.
    fn silu_gradient(&self, g: &mut Graph, x: Value, dy: Value) -> Result<Value> {
        let producer = g.producer(x).cloned();
        let x = match producer.as_ref().map(|node| (&node.op, node)) {
            Some((Op::SkipGroupNorm { groups, epsilon, silu: false }, node)) => {
                let sum = self.latest(node.outputs[1]);
                let op = Op::NhwcGroupNorm { groups: *groups, epsilon: *epsilon, silu: false };
                g.node(op, &[sum, node.inputs[1], node.inputs[2]])?
            }
            _ => x,
        };
        if !self.fused.swish {
            return silu_gradient(g, x, dy);
        }
        // σ(x)·(1 + x·σ(−x))·dy
        let other = g.node(Op::ScaledSwish { alpha: -1.0 }, &[x])?;
        let rest = g.offset(other, 1.0)?;
        let gate = g.node(Op::Sigmoid, &[x])?;
        let slope = g.mul(gate, rest)?;
        g.mul(slope, dy)
    }

    fn geglu(&self, g: &mut Graph, x: Value) -> Result<Value> {
        let shape = g.shape(x).to_vec();
        let width = shape.last().copied().unwrap_or(0);
        if self.fused.split_gelu && shape.len() == 3 && SPLIT_GELU_WIDTHS.contains(&width) {
            let (x, bias) = with_shift(g, x)?;
            return g.node(Op::BiasSplitGelu, &[x, bias]);
        }
        let (a, b) = halves(g, x)?;
        let gate = g.node(Op::Gelu, &[b])?;
        g.mul(a, gate)
    }

    fn geglu_gradient(&self, g: &mut Graph, x: Value, dy: Value) -> Result<Value> {
        if self.fused.geglu_gradient && g.info(x).element == Element::Float16 {
            let (before, bias) = with_shift(g, x)?;
            if let Some(dx) = kernel(g, KernelOp::GegluGradient, &[before, bias, dy])? {
                return Ok(dx[0]);
            }
        }
        geglu_gradient(g, x, dy)
    }
}

/// A node of one of the project's own kernels, where one was compiled for these values.
fn kernel(g: &mut Graph, op: KernelOp, inputs: &[Value]) -> Result<Option<Vec<Value>>> {
    let infos: Vec<&ValueInfo> = inputs.iter().map(|value| g.info(*value)).collect();
    if op.takes(&infos) { g.node_outputs(Op::Kernel(op), inputs).map(Some) } else { Ok(None) }
}

/// A matrix product of rows, with the bias behind it, where a fused operator may draw it in.
fn linear(g: &mut Graph, transpose: bool, inputs: &[Value]) -> Result<Value> {
    let shape = g.shape(inputs[0]).to_vec();
    let columns = shape.last().copied().unwrap_or(1);
    let rows = shape[..shape.len() - 1].iter().product();
    let flat = g.reshape(inputs[0], &[rows, columns])?;
    let y = g.node(Op::Gemm { transpose }, &[flat, inputs[1]])?;
    let out = g.shape(y)[1];
    let y = g.reshape(y, &[&shape[..shape.len() - 1], &[out]].concat())?;
    match inputs.get(2) {
        Some(bias) => g.add(y, *bias),
        None => Ok(y),
    }
}

/// For a value that is x plus one number a channel, channels last: x and those numbers. Looks through changes of shape
/// that leave channels where they are.
fn without_shift(g: &mut Graph, value: Value) -> Result<Option<(Value, Value)>> {
    let Some(Node { op, inputs, .. }) = g.producer(value).cloned() else { return Ok(None) };
    let last = |shape: &[usize]| shape.last().copied();
    match op {
        Op::Add if g.shape(inputs[1]).len() == 1 && g.shape(inputs[0]).len() > 1 => Ok(Some((inputs[0], inputs[1]))),
        Op::Reshape(shape) if last(&shape) == last(g.shape(inputs[0])) => {
            let Some((x, shift)) = without_shift(g, inputs[0])? else { return Ok(None) };
            Ok(Some((g.reshape(x, &shape)?, shift)))
        }
        Op::Transpose(axes) if axes.last() == Some(&(axes.len() - 1)) => {
            let Some((x, shift)) = without_shift(g, inputs[0])? else { return Ok(None) };
            Ok(Some((g.transpose(x, &axes)?, shift)))
        }
        _ => Ok(None),
    }
}

/// The same for any value, with zeros where it is no such sum.
fn with_shift(g: &mut Graph, value: Value) -> Result<(Value, Value)> {
    if let Some(parts) = without_shift(g, value)? {
        return Ok(parts);
    }
    let width = g.shape(value).last().copied().unwrap_or(0);
    Ok((value, g.constant_of(g.info(value).element, &vec![0.0; width], &[width])?))
}

/// A value before it was rounded to half precision, else cast.
fn full(g: &mut Graph, value: Value) -> Result<Value> {
    let source = g.producer(value).filter(|node| matches!(node.op, Op::Cast(_))).map(|node| node.inputs[0]);
    match source.filter(|v| g.info(*v).element == Element::Float32) {
        Some(source) => Ok(source),
        None => g.cast(value, Element::Float32),
    }
}
