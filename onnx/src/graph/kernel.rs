//! Operations that the project's own GPU kernels do ([`crate::kernels`]): float16, channels last, contiguous.
//!
//! Each is one operator and one kernel. A node carries all that its kernel is launched with: the variant, the number of
//! blocks in each direction, and the numbers behind the tensors. Who runs it only has to look up the program.

use super::types::Outputs;
use super::types::{Element, ValueInfo};
use crate::kernels::{Kernel, Kernels};
use crate::{Error, Result};

/// Blocks at most in the second and the third direction; the first takes 2³¹ − 1.
const MOST_BLOCKS: usize = 65535;

/// Positions that a 3×3 convolution reads.
const NEIGHBOURS: usize = 9;

/// An operation with a kernel of its own. Tensors of attention are `[batch, tokens, heads · width]`.
#[derive(Debug, Clone, PartialEq)]
pub enum KernelOp {
    /// Attention of at most 32 tokens to each other: inputs q, k, v of one shape.
    TemporalAttention {
        /// Heads.
        heads: usize,
    },
    /// Its gradient: inputs q, k, v, the output's cotangent; outputs the cotangents of q, k and v.
    TemporalAttentionGradient {
        /// As in the forward operation.
        heads: usize,
    },
    /// What the gradient of any attention needs of each query: inputs q, k, the attention's output, its cotangent;
    /// outputs in float32 `[batch · heads, tokens of q]` the logarithm to base 2 of the sum of powers over the keys, and
    /// the sum of output ⊙ cotangent.
    AttentionStatistics {
        /// As in the forward operation.
        heads: usize,
    },
    /// The cotangent of q: inputs q, k, v, the output's cotangent, both statistics.
    AttentionQueryGradient {
        /// As in the forward operation.
        heads: usize,
    },
    /// The cotangents of k and v: the same inputs.
    AttentionKeyGradient {
        /// As in the forward operation.
        heads: usize,
    },
    /// x + bias + skip: x has the tokens of each position together, `[batch · positions, frames, channels]`, skip and the
    /// output those of each frame. With one frame all have one order.
    ResidualSum {
        /// Positions of a frame.
        positions: usize,
        /// Frames of a clip.
        frames: usize,
    },
    /// A layer norm `[.., frames, channels]`, plus one row a frame if `placed`. Seven inputs, so that the kernel of
    /// [`KernelOp::SumLayerNorm`] does it as well: x, any row, x, scale, bias, places (`[frames, channels]`, else any
    /// row), x.
    LayerNorm {
        /// As in the forward operation.
        epsilon: f32,
        /// Whether places are added.
        placed: bool,
    },
    /// The layer norm of x + shift (+ skip): inputs x, shift, skip (else x), scale, bias, places (else any row); outputs
    /// the sum and the norm.
    SumLayerNorm {
        /// As in the forward operation.
        epsilon: f32,
        /// Whether skip is added.
        skips: bool,
        /// As in [`KernelOp::LayerNorm`].
        placed: bool,
    },
    /// Inputs x, scale, cotangent.
    LayerNormGradient {
        /// As in the forward operation.
        epsilon: f32,
    },
    /// The sums of x and of x² over each group, for some positions at a time: input x `[images, rows, columns, channels]`,
    /// output in float32 `[images, parts, groups, 2]`.
    GroupNormStatistics {
        /// Groups of channels.
        groups: usize,
    },
    /// The sums of d and of d ⊙ x̂, likewise; d is the cotangent of x̂. Inputs x, its statistics, scale and bias in
    /// float32, cotangent.
    GroupNormSums {
        /// As in the forward operation.
        groups: usize,
        /// As in the forward operation.
        epsilon: f32,
        /// Whether the cotangent is that of SiLU of the norm. The bias is read only then.
        silu: bool,
    },
    /// Inputs x, its statistics, the sums, scale and bias in float32, cotangent.
    GroupNormGradient {
        /// As in [`KernelOp::GroupNormSums`].
        groups: usize,
        /// As in [`KernelOp::GroupNormSums`].
        epsilon: f32,
        /// As in [`KernelOp::GroupNormSums`].
        silu: bool,
    },
    /// The cotangent of x for a · gelu(b), (a, b) the halves of x + bias: inputs x, bias, cotangent.
    GegluGradient,
    /// The gradient of a 3×3 convolution with a border of one, from what each position sends to its neighbours: input
    /// `[images, rows, columns, 9 · channels]`, the part for the position (1, 1) further down and right last; output
    /// `[images, rows, columns, channels]`.
    NeighbourSum,
}

/// The tensors of an operator, in the order that its kernel takes them in: inputs, then outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature {
    /// The operator's name.
    pub name: &'static str,
    /// The kernel's name.
    pub kernel: &'static str,
    /// Element types of the inputs.
    pub inputs: &'static [Element],
    /// Element types of the outputs.
    pub outputs: &'static [Element],
}

/// How a kernel is launched.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch {
    /// The kernel, of whichever card.
    pub kernel: &'static Kernel,
    /// Blocks in each direction.
    pub grid: [usize; 3],
    /// The whole numbers behind the tensors.
    pub integers: Vec<i32>,
    /// The numbers behind those.
    pub floats: Vec<f32>,
}

const HALF: Element = Element::Float16;
const FULL: Element = Element::Float32;

const fn signature(
    name: &'static str,
    kernel: &'static str,
    inputs: &'static [Element],
    outputs: &'static [Element],
) -> Signature {
    Signature { name, kernel, inputs, outputs }
}

/// Every operator.
pub const SIGNATURES: [Signature; 14] = [
    signature("TemporalAttention", "temporal_attention", &[HALF; 3], &[HALF]),
    signature("TemporalAttentionGradient", "temporal_attention_gradient", &[HALF; 4], &[HALF; 3]),
    signature("AttentionStatistics", "attention_statistics", &[HALF; 4], &[FULL; 2]),
    signature("AttentionQueryGradient", "attention_query_gradient", &[HALF, HALF, HALF, HALF, FULL, FULL], &[HALF]),
    signature("AttentionKeyGradient", "attention_key_gradient", &[HALF, HALF, HALF, HALF, FULL, FULL], &[HALF; 2]),
    signature("FusedLayerNormGradient", "layer_norm_gradient", &[HALF; 3], &[HALF]),
    signature("GroupNormStatistics", "group_norm_statistics", &[HALF], &[FULL]),
    signature("GroupNormSums", "group_norm_sums", &[HALF, FULL, FULL, FULL, HALF], &[FULL]),
    signature("FusedGroupNormGradient", "group_norm_gradient", &[HALF, FULL, FULL, FULL, FULL, HALF], &[HALF]),
    signature("FusedGegluGradient", "geglu_gradient", &[HALF; 3], &[HALF]),
    signature("ResidualSum", "residual_sum", &[HALF; 3], &[HALF]),
    signature("FusedLayerNorm", "layer_norm", &[HALF; 7], &[HALF]),
    signature("SumLayerNorm", "layer_norm", &[HALF; 6], &[HALF; 2]),
    signature("NeighbourSum", "neighbour_sum", &[HALF], &[HALF]),
];

impl KernelOp {
    /// Its tensors.
    pub fn signature(&self) -> &'static Signature {
        &SIGNATURES[match self {
            Self::TemporalAttention { .. } => 0,
            Self::TemporalAttentionGradient { .. } => 1,
            Self::AttentionStatistics { .. } => 2,
            Self::AttentionQueryGradient { .. } => 3,
            Self::AttentionKeyGradient { .. } => 4,
            Self::LayerNormGradient { .. } => 5,
            Self::GroupNormStatistics { .. } => 6,
            Self::GroupNormSums { .. } => 7,
            Self::GroupNormGradient { .. } => 8,
            Self::GegluGradient => 9,
            Self::ResidualSum { .. } => 10,
            Self::LayerNorm { .. } => 11,
            Self::SumLayerNorm { .. } => 12,
            Self::NeighbourSum => 13,
        }]
    }

    /// Whether there is a kernel for these inputs.
    pub(super) fn takes(&self, inputs: &[&ValueInfo]) -> bool {
        self.outputs(inputs).is_some()
    }

    /// Element types and shapes of the outputs.
    ///
    /// # Errors
    /// When no kernel is for these inputs.
    pub(super) fn infer(&self, inputs: &[&ValueInfo]) -> Result<Outputs> {
        self.outputs(inputs).ok_or_else(|| {
            let given: Vec<_> = inputs.iter().map(|info| (info.element, info.shape.as_slice())).collect();
            Error::failure(format!("there is no kernel of {} for {given:?}", self.signature().name))
        })
    }

    fn outputs(&self, inputs: &[&ValueInfo]) -> Option<Outputs> {
        let Signature { inputs: taken, outputs: made, .. } = self.signature();
        let fits =
            taken.len() == inputs.len() && inputs.iter().zip(*taken).all(|(info, element)| info.element == *element);
        let shapes: Vec<&[usize]> = inputs.iter().map(|info| info.shape.as_slice()).collect();
        let launch = fits.then(|| self.launch(&shapes))??;
        let outputs = match self {
            Self::TemporalAttentionGradient { .. } => vec![shapes[0].to_vec(), shapes[1].to_vec(), shapes[2].to_vec()],
            Self::AttentionStatistics { heads } => vec![vec![shapes[0][0] * heads, shapes[0][1]]; 2],
            Self::AttentionKeyGradient { .. } => vec![shapes[1].to_vec(), shapes[2].to_vec()],
            Self::GroupNormStatistics { groups } => vec![vec![shapes[0][0], launch.grid[0], *groups, 2]],
            Self::GroupNormSums { .. } => vec![shapes[1].to_vec()],
            Self::ResidualSum { .. } => vec![shapes[2].to_vec()],
            Self::SumLayerNorm { .. } => vec![shapes[0].to_vec(); 2],
            Self::NeighbourSum => vec![vec![shapes[0][0], shapes[0][1], shapes[0][2], shapes[0][3] / NEIGHBOURS]],
            _ => vec![shapes[0].to_vec()],
        };
        Some(made.iter().copied().zip(outputs).collect())
    }

    /// The launch for inputs of these shapes; nothing where the shapes do not fit or no kernel was compiled for them.
    pub(super) fn launch(&self, shapes: &[&[usize]]) -> Option<Launch> {
        if shapes.iter().any(|shape| shape.contains(&0)) {
            return None;
        }
        let whole = |numbers: &[usize]| -> Option<Vec<i32>> {
            numbers.iter().map(|number| i32::try_from(*number).ok()).collect()
        };
        let find = |sizes: &[(&str, usize)]| Kernels::carried().ok()?.find(self.signature().kernel, sizes);
        let launch = match self {
            Self::TemporalAttention { heads } | Self::TemporalAttentionGradient { heads } => {
                let [batch, n, width] = tokens(shapes[0], *heads)?;
                let rows = [16, 32].into_iter().find(|rows| n <= *rows)?;
                let kernel = find(&[("rows", rows), ("width", width)]).filter(|_| all_equal(shapes))?;
                let grid = [batch * heads, 1, 1];
                Launch { kernel, grid, integers: whole(&[n, *heads])?, floats: vec![scale(width)] }
            }
            Self::AttentionStatistics { heads }
            | Self::AttentionQueryGradient { heads }
            | Self::AttentionKeyGradient { heads } => {
                let (q, k) = (shapes[0], *shapes.get(1)?);
                let ([batch, m, width], [keys_batch, n, keys_width]) = (tokens(q, *heads)?, tokens(k, *heads)?);
                let statistics = [batch * heads, m];
                let fits = if let Self::AttentionStatistics { .. } = self {
                    shapes[2..] == [q, q]
                } else {
                    shapes[2..] == [k, q, &statistics[..], &statistics]
                };
                let kernel =
                    find(&[("width", width)]).filter(|_| fits && (batch, width) == (keys_batch, keys_width))?;
                let rows = if let Self::AttentionKeyGradient { .. } = self { n } else { m };
                // Places inside one image are counted in 32 bits.
                whole(&[m.max(n) * heads * width])?;
                let grid = [rows.div_ceil(kernel.fact("block")?), batch * heads, 1];
                Launch { kernel, grid, integers: whole(&[m, n, *heads])?, floats: vec![scale(width)] }
            }
            Self::ResidualSum { positions, frames } => {
                let (channels, rows) = shapes[2].split_last()?;
                let rows = rows.iter().product::<usize>();
                let fits = shapes[0].last() == Some(channels)
                    && shapes[0].iter().product::<usize>() == rows * channels
                    && shapes[1] == [*channels]
                    && *positions > 0
                    && rows.is_multiple_of(positions * frames);
                let kernel = find(&[("channels", *channels)]).filter(|_| fits)?;
                Launch { kernel, grid: [rows, 1, 1], integers: whole(&[*positions, *frames])?, floats: Vec::new() }
            }
            Self::LayerNorm { epsilon, placed } | Self::SumLayerNorm { epsilon, placed, .. } => {
                let [before @ .., frames, channels] = shapes[0] else { return None };
                let (frames, channels) = (*frames, *channels);
                let sizes = match self {
                    Self::SumLayerNorm { skips, .. } => (1, usize::from(*skips)),
                    _ => (0, 0),
                };
                let (x, row) = (shapes[0], [channels]);
                let places = if *placed { vec![frames, channels] } else { row.to_vec() };
                let wanted = [x, &row, x, &row, &row, &places, x];
                let fits = shapes == &wanted[..shapes.len()];
                let sizes =
                    [("channels", channels), ("sum", sizes.0), ("skips", sizes.1), ("placed", usize::from(*placed))];
                let kernel = find(&sizes).filter(|_| fits)?;
                let rows = before.iter().product::<usize>() * frames;
                Launch { kernel, grid: [rows, 1, 1], integers: whole(&[frames])?, floats: vec![*epsilon] }
            }
            Self::LayerNormGradient { epsilon } => {
                let (channels, rows) = shapes[0].split_last()?;
                let fits = shapes[1..] == [&[*channels][..], shapes[0]];
                let kernel = find(&[("channels", *channels)]).filter(|_| fits)?;
                let rows = rows.iter().product::<usize>();
                let grid = [rows.div_ceil(kernel.fact("block")?), 1, 1];
                Launch { kernel, grid, integers: whole(&[rows])?, floats: vec![*epsilon] }
            }
            Self::GroupNormStatistics { groups } => {
                let (kernel, grid, integers) = group_norm(find, shapes[0], *groups, None)?;
                Launch { kernel, grid, integers: whole(&integers)?, floats: Vec::new() }
            }
            Self::GroupNormSums { groups, epsilon, silu } | Self::GroupNormGradient { groups, epsilon, silu } => {
                let x = shapes[0];
                let (kernel, grid, integers) = group_norm(find, x, *groups, Some(*silu))?;
                let (sums, channels) = ([x[0], grid[0], *groups, 2], [x[3]]);
                let fits = if let Self::GroupNormSums { .. } = self {
                    shapes[1..] == [&sums[..], &channels, &channels, x]
                } else {
                    shapes[1..] == [&sums[..], &sums, &channels, &channels, x]
                };
                fits.then(|| Some(Launch { kernel, grid, integers: whole(&integers)?, floats: vec![*epsilon] }))??
            }
            Self::GegluGradient => {
                let (double, rows) = shapes[0].split_last()?;
                let (width, rows) = (double / 2, rows.iter().product::<usize>());
                let (last, leading) = shapes.get(2)?.split_last()?;
                let even = double.is_multiple_of(2) && *last == width;
                let fits = even && shapes[1] == [*double] && *leading == shapes[0][..shapes[0].len() - 1];
                let kernel = find(&[]).filter(|_| fits)?;
                let grid = [rows, width.div_ceil(kernel.fact("block")?), 1];
                Launch { kernel, grid, integers: whole(&[rows, width])?, floats: Vec::new() }
            }
            Self::NeighbourSum => {
                let [images, rows, columns, parts] = *shapes[0] else { return None };
                let (channels, kernel) = (parts / NEIGHBOURS, find(&[]).filter(|_| parts.is_multiple_of(NEIGHBOURS))?);
                let grid = [images * rows * columns, channels.div_ceil(kernel.fact("block")?), 1];
                Launch { kernel, grid, integers: whole(&[rows, columns, channels])?, floats: Vec::new() }
            }
        };
        let [x, y, z] = launch.grid;
        (i32::try_from(x).is_ok() && y <= MOST_BLOCKS && z <= MOST_BLOCKS).then_some(launch)
    }
}

/// Batch, tokens and the width of a head.
fn tokens(shape: &[usize], heads: usize) -> Option<[usize; 3]> {
    let [batch, tokens, channels] = *shape else { return None };
    channels.is_multiple_of(heads).then(|| [batch, tokens, channels / heads])
}

fn all_equal(shapes: &[&[usize]]) -> bool {
    shapes.iter().all(|shape| *shape == shapes[0])
}

fn scale(width: usize) -> f32 {
    1.0 / (width as f32).sqrt()
}

/// A kernel of group norms with its blocks, and the positions and groups of a feature map.
fn group_norm(
    find: impl Fn(&[(&str, usize)]) -> Option<&'static Kernel>,
    x: &[usize],
    groups: usize,
    silu: Option<bool>,
) -> Option<(&'static Kernel, [usize; 3], [usize; 2])> {
    let [images, rows, columns, channels] = *x else { return None };
    let mut sizes = vec![("per", channels / groups)];
    sizes.extend(silu.map(|silu| ("silu", usize::from(silu))));
    let kernel = find(&sizes).filter(|_| channels.is_multiple_of(groups))?;
    let positions = rows * columns;
    let grid = [positions.div_ceil(kernel.fact("block")?), groups.div_ceil(kernel.fact("bundle")?), images];
    Some((kernel, grid, [positions, groups]))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Operators with inputs of the sizes of Stable Diffusion 1.5 and AnimateDiff, and some odd ones.
    fn samples() -> Vec<(KernelOp, Vec<Vec<usize>>)> {
        let mut samples = Vec::new();
        let heads = 8;
        for width in [40, 80, 160] {
            for frames in [1, 16, 17, 24, 32] {
                let shape = vec![4096, frames, heads * width];
                samples.push((KernelOp::TemporalAttention { heads }, vec![shape.clone(); 3]));
                samples.push((KernelOp::TemporalAttentionGradient { heads }, vec![shape; 4]));
            }
        }
        for width in [40, 80] {
            for (batch, m, n) in [(16, 4096, 4096), (2, 600, 600), (1, 65536, 77)] {
                let (q, k) = (vec![batch, m, heads * width], vec![batch, n, heads * width]);
                let statistics = vec![batch * heads, m];
                let all = vec![q.clone(), k.clone(), k.clone(), q.clone(), statistics.clone(), statistics];
                samples.push((KernelOp::AttentionStatistics { heads }, vec![q.clone(), k, q.clone(), q]));
                samples.push((KernelOp::AttentionQueryGradient { heads }, all.clone()));
                samples.push((KernelOp::AttentionKeyGradient { heads }, all));
            }
        }
        for channels in [320, 640, 1280] {
            let x = vec![4096, 16, channels];
            samples.push((KernelOp::LayerNormGradient { epsilon: 1e-5 }, vec![x.clone(), vec![channels], x]));
        }
        for channels in [320, 640, 1280] {
            let (x, row, epsilon) = (vec![64, 16, channels], vec![channels], 1e-5);
            let sum = |positions, frames| KernelOp::ResidualSum { positions, frames };
            for op in [sum(32, 16), sum(1024, 1)] {
                samples.push((op, vec![x.clone(), row.clone(), vec![32, 4, 8, channels]]));
            }
            for placed in [false, true] {
                let places = if placed { vec![16, channels] } else { row.clone() };
                let inputs = vec![x.clone(), row.clone(), x.clone(), row.clone(), row.clone(), places, x.clone()];
                for skips in [false, true] {
                    samples.push((KernelOp::SumLayerNorm { epsilon, skips, placed }, inputs[..6].to_vec()));
                }
                samples.push((KernelOp::LayerNorm { epsilon, placed }, inputs));
            }
        }
        for channels in [320, 640, 960, 1280, 1920, 2560] {
            let (groups, epsilon) = (32, 1e-5);
            let x = vec![16, 11, 7, channels];
            let statistics = KernelOp::GroupNormStatistics { groups };
            let parts = statistics.launch(&[&x]).unwrap().grid[0];
            samples.push((statistics, vec![x.clone()]));
            for silu in [false, true] {
                let (sums, own) = (vec![16, parts, groups, 2], vec![channels]);
                let inputs = vec![x.clone(), sums.clone(), own.clone(), own.clone(), x.clone()];
                samples.push((KernelOp::GroupNormSums { groups, epsilon, silu }, inputs));
                let inputs = vec![x.clone(), sums.clone(), sums, own.clone(), own, x.clone()];
                samples.push((KernelOp::GroupNormGradient { groups, epsilon, silu }, inputs));
            }
        }
        for width in [7, 1280, 5120] {
            let shapes = vec![vec![2, 300, 2 * width], vec![2 * width], vec![2, 300, width]];
            samples.push((KernelOp::GegluGradient, shapes));
        }
        for channels in [7, 2560] {
            samples.push((KernelOp::NeighbourSum, vec![vec![2, 3, 4, 9 * channels]]));
        }
        samples
    }

    fn launch(op: &KernelOp, shapes: &[Vec<usize>]) -> Option<Launch> {
        op.launch(&shapes.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    /// The types of an entry's parameters, in order.
    fn parameters(kernel: &Kernel) -> Vec<&str> {
        let start = kernel.ptx.find(&format!(".entry {}(", kernel.entry)).unwrap();
        let list = kernel.ptx[start..].split(')').next().unwrap();
        list.lines()
            .filter_map(|line| line.trim().strip_prefix(".param ."))
            .map(|rest| rest.split_whitespace().next().unwrap())
            .collect()
    }

    #[test]
    fn a_node_gives_its_kernel_as_many_parameters_as_that_takes() {
        let kernels = Kernels::carried().unwrap();
        let mut reached = HashSet::new();
        for (op, shapes) in samples() {
            let Launch { kernel, integers, floats, .. } = launch(&op, &shapes).unwrap_or_else(|| panic!("{op:?}"));
            let Signature { inputs, outputs, .. } = op.signature();
            assert_eq!(shapes.len(), inputs.len());
            let mut expected = vec!["u64"; inputs.len() + outputs.len()];
            expected.extend(integers.iter().map(|_| "u32"));
            expected.extend(floats.iter().map(|_| "f32"));
            expected.extend(["u64"; 2]);
            let programs: Vec<_> =
                kernels.all().iter().filter(|k| k.name == kernel.name && k.label() == kernel.label()).collect();
            for program in programs {
                assert_eq!(parameters(program), expected, "{op:?}");
            }
            reached.insert((&kernel.name, kernel.label()));
        }
        for kernel in kernels.all() {
            let label = kernel.label();
            assert!(reached.contains(&(&kernel.name, label.clone())), "nothing uses {} {label}", kernel.name);
        }
    }

    #[test]
    fn blocks_cover_all_of_the_work() {
        let grid = |op: KernelOp, shapes: &[Vec<usize>]| launch(&op, shapes).unwrap().grid;
        for (op, shapes) in samples() {
            let Launch { kernel, grid, .. } = launch(&op, &shapes).unwrap();
            let covered = |at: usize, fact: &str| grid[at] * kernel.fact(fact).unwrap();
            let x = &shapes[0];
            match op {
                KernelOp::TemporalAttention { heads } | KernelOp::TemporalAttentionGradient { heads } => {
                    assert!(kernel.fact("rows").unwrap() >= x[1] && grid == [x[0] * heads, 1, 1]);
                }
                KernelOp::AttentionStatistics { heads } | KernelOp::AttentionQueryGradient { heads } => {
                    assert!(covered(0, "block") >= x[1] && grid[1] == x[0] * heads);
                }
                KernelOp::AttentionKeyGradient { heads } => {
                    assert!(covered(0, "block") >= shapes[1][1] && grid[1] == x[0] * heads);
                }
                KernelOp::ResidualSum { .. } | KernelOp::LayerNorm { .. } | KernelOp::SumLayerNorm { .. } => {
                    assert_eq!(grid, [x[0] * x[1], 1, 1]);
                }
                KernelOp::LayerNormGradient { .. } => assert!(covered(0, "block") >= x[0] * x[1]),
                KernelOp::GegluGradient => assert!(covered(1, "block") >= x[2] / 2 && grid[0] == x[0] * x[1]),
                KernelOp::NeighbourSum => {
                    assert!(covered(1, "block") >= x[3] / 9 && grid[0] == x[0] * x[1] * x[2]);
                }
                KernelOp::GroupNormStatistics { groups }
                | KernelOp::GroupNormSums { groups, .. }
                | KernelOp::GroupNormGradient { groups, .. } => {
                    assert!(covered(0, "block") >= x[1] * x[2] && covered(1, "bundle") >= groups && grid[2] == x[0]);
                }
            }
        }
        // No block too many, either.
        let x = vec![1, 1, 320];
        assert_eq!(grid(KernelOp::LayerNormGradient { epsilon: 1e-5 }, &[x.clone(), vec![320], x]), [1, 1, 1]);
    }

    #[test]
    fn other_sizes_have_no_kernel() {
        let none = |op: KernelOp, shapes: &[&[usize]]| assert_eq!(op.launch(shapes), None, "{op:?} {shapes:?}");
        let frames = || KernelOp::TemporalAttention { heads: 8 };
        let statistics = || KernelOp::AttentionStatistics { heads: 8 };
        for odd in [[64, 33, 320], [64, 16, 64], [0, 16, 320]] {
            none(frames(), &[&odd, &odd, &odd]);
        }
        none(frames(), &[&[64, 16, 320], &[64, 16, 320], &[64, 15, 320]]);
        // Of heads of 160, and of more pairs of images and heads than a grid has rows.
        for odd in [[2, 256, 1280], [16_384, 64, 320]] {
            none(statistics(), &[&odd, &odd, &odd, &odd]);
        }
        none(KernelOp::LayerNormGradient { epsilon: 1e-5 }, &[&[4, 768], &[768], &[4, 768]]);
        none(KernelOp::GroupNormStatistics { groups: 32 }, &[&[1, 8, 8, 32]]);
        none(KernelOp::ResidualSum { positions: 3, frames: 2 }, &[&[4, 2, 320], &[320], &[2, 4, 320]]);
        let norm = KernelOp::SumLayerNorm { epsilon: 1e-5, skips: true, placed: true };
        none(norm, &[&[4, 2, 320], &[320], &[4, 2, 320], &[320], &[320], &[320]]);
        none(KernelOp::GegluGradient, &[&[4, 7], &[7], &[4, 3]]);
        none(KernelOp::NeighbourSum, &[&[4, 3, 3, 8]]);
    }

    #[test]
    fn inputs_of_other_types_are_refused() {
        let info = |element| ValueInfo {
            name: "x".into(),
            element,
            shape: vec![64, 16, 320],
            origin: crate::graph::Origin::Input,
        };
        let (half, full) = (info(Element::Float16), info(Element::Float32));
        let op = KernelOp::TemporalAttention { heads: 8 };
        assert!(op.takes(&[&half, &half, &half]));
        assert!(!op.takes(&[&half, &half]));
        let message = op.infer(&[&full, &full, &full]).unwrap_err().to_string();
        assert!(message.starts_with("there is no kernel of TemporalAttention for "), "{message}");
    }
}
