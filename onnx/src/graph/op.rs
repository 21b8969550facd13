//! The operations; `shape` has their shape rules.
//!
//! The first group has one standard ONNX operator each. The second is what the models are written in and what the
//! gradient makes; a lowering rewrites those to operators that its target has.

use super::kernel::KernelOp;
use super::types::Element;

/// An operation. Unless said otherwise it keeps its first input's shape and element type.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    // ---- one standard operator each ----
    /// a + b, broadcasting.
    Add,
    /// a − b, broadcasting.
    Sub,
    /// a · b, broadcasting.
    Mul,
    /// a / b, broadcasting.
    Div,
    /// √x
    Sqrt,
    /// eˣ
    Exp,
    /// The error function.
    Erf,
    /// sin x
    Sin,
    /// cos x
    Cos,
    /// 1 / (1 + e⁻ˣ)
    Sigmoid,
    /// x · Φ(x), exact.
    Gelu,
    /// Matrix product over the last two axes; leading axes broadcast.
    MatMul,
    /// Rows of `x [rows, n]` times a matrix `w`, plus an optional bias: x·wᵀ for `w [m, n]`, or x·w for `w [n, m]`.
    Gemm {
        /// Whether `w` is stored as `[m, n]`, as torch's linear layers do.
        transpose: bool,
    },
    /// Over the last axis.
    Softmax,
    /// Sum over the axes, which stay with length 1.
    ReduceSum(Vec<usize>),
    /// Mean over the axes, which stay with length 1.
    ReduceMean(Vec<usize>),
    /// The same elements in another shape.
    Reshape(Vec<usize>),
    /// Axis i of the result is axis `[i]` of the input.
    Transpose(Vec<usize>),
    /// Inputs one after another along an axis.
    Concat(usize),
    /// Part of an axis.
    Slice {
        /// The axis.
        axis: usize,
        /// First position.
        start: usize,
        /// Position after the last.
        end: usize,
    },
    /// Rows of a table: inputs table `[rows, n]`, integer positions `[…]`; result `[…, n]`.
    Gather,
    /// To another element type.
    Cast(Element),
    /// Convolution of a feature map: inputs x, weight `[out, in, rows, columns]`, optional bias.
    Conv {
        /// Step in both directions.
        stride: usize,
        /// Zeros added at top, left, bottom, right.
        padding: [usize; 4],
    },
    /// The gradient of [`Op::Conv`] at its input: inputs cotangent, weight.
    ConvTranspose {
        /// The convolution's stride.
        stride: usize,
        /// The convolution's padding.
        padding: [usize; 4],
        /// Rows of the convolution's input.
        height: usize,
        /// Columns of the convolution's input.
        width: usize,
    },
    /// Normalises over the last axis: inputs x, scale, bias.
    LayerNorm {
        /// Added to the variance.
        epsilon: f32,
    },
    /// Normalises each row of each image over the last axis: inputs x `[images, rows, n]`, scale, bias per row.
    InstanceNorm {
        /// Added to the variance.
        epsilon: f32,
    },
    /// Nearest-neighbour resize of a feature map: position i reads ⌊i · old / new⌋.
    Resize {
        /// New rows.
        height: usize,
        /// New columns.
        width: usize,
    },

    // ---- ONNX Runtime's own operators (domain com.microsoft), channels last where they take feature maps ----
    /// [`Op::Conv`] of a channels-last feature map: inputs x, weight `[out, rows, columns, in]`.
    NhwcConv {
        /// As in [`Op::Conv`].
        stride: usize,
        /// As in [`Op::Conv`].
        padding: [usize; 4],
    },
    /// Nearest-neighbour resize of a channels-last feature map (a standard operator).
    NhwcResize {
        /// New rows.
        height: usize,
        /// New columns.
        width: usize,
    },
    /// [`Op::GroupNorm`] of a channels-last feature map with statistics in float32: inputs x, scale and bias per
    /// channel in float32.
    NhwcGroupNorm {
        /// Groups of channels, with an even number of channels each.
        groups: usize,
        /// Added to the variance.
        epsilon: f32,
        /// Whether SiLU follows.
        silu: bool,
    },
    /// [`Op::NhwcGroupNorm`] of s = x + skip + shift: inputs x, scale, bias, skip (like x, or `[images, channels]`),
    /// optional shift per channel; outputs the norm of s, and s.
    SkipGroupNorm {
        /// As in [`Op::NhwcGroupNorm`].
        groups: usize,
        /// As in [`Op::NhwcGroupNorm`].
        epsilon: f32,
        /// As in [`Op::NhwcGroupNorm`].
        silu: bool,
    },
    /// [`Op::LayerNorm`] with the mean and 1/√(variance + ε) of each row, both in float32.
    LayerNormStatistics {
        /// Added to the variance.
        epsilon: f32,
    },
    /// [`Op::LayerNorm`] of s = x + skip + shift: inputs x, skip, scale, bias, optional shift per channel; outputs the
    /// norm of s, and s.
    SkipLayerNorm {
        /// Added to the variance.
        epsilon: f32,
    },
    /// [`Op::Attention`] in one kernel.
    MultiHeadAttention {
        /// Heads.
        heads: usize,
    },
    /// [`Op::Geglu`] of x + bias: inputs x `[batch, rows, n]`, bias `[n]`.
    BiasSplitGelu,
    /// x · sigmoid(alpha · x)
    ScaledSwish {
        /// 1 is SiLU.
        alpha: f32,
    },
    /// alpha · a·b, each turned over its last two axes first where asked.
    FusedMatMul {
        /// Whether a is turned.
        transpose_a: bool,
        /// Whether b is turned.
        transpose_b: bool,
        /// Factor.
        alpha: f32,
    },
    /// The order along the axes turned round (a standard operator).
    Reverse(Vec<usize>),

    // ---- the project's own operators (domain motionclone) ----
    /// What a GPU kernel of the project does.
    Kernel(KernelOp),

    // ---- rewritten by a lowering ----
    /// x · sigmoid(x)
    Silu,
    /// x · sigmoid(1.702 x)
    QuickGelu,
    /// a · gelu(b) for the halves (a, b) of the last axis.
    Geglu,
    /// A matrix over the last axis: [`Op::Gemm`] for any number of leading axes.
    Linear {
        /// As in [`Op::Gemm`].
        transpose: bool,
    },
    /// Group normalisation of a feature map per image: inputs x, scale, bias per channel.
    GroupNorm {
        /// Groups of channels.
        groups: usize,
        /// Added to the variance.
        epsilon: f32,
    },
    /// Multi-head attention: inputs q `[batch, m, c]`, k and v `[batch, n, c]`; softmax(q·kᵀ/√(c/heads))·v. The
    /// attention map is never a value of the graph, so that a lowering may compute it in blocks or not at all.
    Attention {
        /// Heads.
        heads: usize,
    },
    /// Inputs x, cotangent.
    SiluGradient,
    /// Inputs x, cotangent.
    GegluGradient,
    /// Inputs y = softmax(x), cotangent.
    SoftmaxGradient,
    /// Inputs x, scale, cotangent.
    LayerNormGradient {
        /// As in the forward operation.
        epsilon: f32,
    },
    /// Inputs x, scale, cotangent.
    GroupNormGradient {
        /// As in the forward operation.
        groups: usize,
        /// As in the forward operation.
        epsilon: f32,
    },
    /// Input cotangent; the result has the size before resizing.
    ResizeGradient {
        /// Rows before.
        height: usize,
        /// Columns before.
        width: usize,
    },
    /// Inputs q, k, v, the attention's output, cotangent; outputs the cotangents of q and, when `keys`, of k and v.
    /// The attention map is computed again, in blocks.
    AttentionGradient {
        /// As in the forward operation.
        heads: usize,
        /// Whether k and v need cotangents (they do not in cross-attention, where they come from the text).
        keys: bool,
    },
}

impl Op {
    /// The operation's name, for value names and messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Add => "Add",
            Self::Sub => "Sub",
            Self::Mul => "Mul",
            Self::Div => "Div",
            Self::Sqrt => "Sqrt",
            Self::Exp => "Exp",
            Self::Erf => "Erf",
            Self::Sin => "Sin",
            Self::Cos => "Cos",
            Self::Sigmoid => "Sigmoid",
            Self::Gelu => "Gelu",
            Self::MatMul => "MatMul",
            Self::Gemm { .. } => "Gemm",
            Self::Softmax => "Softmax",
            Self::ReduceSum(_) => "ReduceSum",
            Self::ReduceMean(_) => "ReduceMean",
            Self::Reshape(_) => "Reshape",
            Self::Transpose(_) => "Transpose",
            Self::Concat(_) => "Concat",
            Self::Slice { .. } => "Slice",
            Self::Gather => "Gather",
            Self::Cast(_) => "Cast",
            Self::Conv { .. } => "Conv",
            Self::ConvTranspose { .. } => "ConvTranspose",
            Self::LayerNorm { .. } => "LayerNormalization",
            Self::InstanceNorm { .. } => "InstanceNormalization",
            Self::Resize { .. } => "Resize",
            Self::NhwcConv { .. } => "NhwcConv",
            Self::NhwcResize { .. } => "NhwcResize",
            Self::NhwcGroupNorm { .. } => "NhwcGroupNorm",
            Self::SkipGroupNorm { .. } => "SkipGroupNorm",
            Self::LayerNormStatistics { .. } => "LayerNormStatistics",
            Self::SkipLayerNorm { .. } => "SkipLayerNormalization",
            Self::MultiHeadAttention { .. } => "MultiHeadAttention",
            Self::BiasSplitGelu => "BiasSplitGelu",
            Self::ScaledSwish { .. } => "ScaledSwish",
            Self::FusedMatMul { .. } => "FusedMatMul",
            Self::Reverse(_) => "Reverse",
            Self::Kernel(op) => op.signature().name,
            Self::Silu => "Silu",
            Self::QuickGelu => "QuickGelu",
            Self::Geglu => "Geglu",
            Self::Linear { .. } => "Linear",
            Self::GroupNorm { .. } => "GroupNorm",
            Self::Attention { .. } => "Attention",
            Self::SiluGradient => "SiluGradient",
            Self::GegluGradient => "GegluGradient",
            Self::SoftmaxGradient => "SoftmaxGradient",
            Self::LayerNormGradient { .. } => "LayerNormGradient",
            Self::GroupNormGradient { .. } => "GroupNormGradient",
            Self::ResizeGradient { .. } => "ResizeGradient",
            Self::AttentionGradient { .. } => "AttentionGradient",
        }
    }
}
