//! The types and shapes of what operations make.

use super::op::Op;
use super::types::{Element, FeatureMap, Layout, Outputs, ValueInfo};
use crate::{Error, Result};

impl Op {
    /// Element types and shapes of the outputs.
    ///
    /// # Errors
    /// When the inputs do not fit.
    pub fn infer(&self, inputs: &[&ValueInfo], layout: Layout) -> Result<Outputs> {
        if let Self::Kernel(op) = self {
            return op.infer(inputs);
        }
        let shapes: Vec<&[usize]> = inputs.iter().map(|i| i.shape.as_slice()).collect();
        let misfit = || Error::failure(format!("{} does not take inputs of shapes {shapes:?}", self.name()));
        let first = *inputs.first().ok_or_else(misfit)?;
        // Scale and bias of ONNX Runtime's group norms are float32 beside feature maps of any type.
        let own_types = match self {
            Self::NhwcGroupNorm { .. } | Self::SkipGroupNorm { .. } => &[1, 2][..],
            Self::Gather => &[1],
            _ => &[],
        };
        let mixed = inputs.iter().enumerate().any(|(at, i)| i.element != first.element && !own_types.contains(&at));
        if mixed {
            return Err(Error::failure(format!("{}: inputs of different element types", self.name())));
        }
        let shape = self.infer_shape(&shapes, layout).ok_or_else(misfit)?;
        let element = if let Self::Cast(to) = self { *to } else { first.element };
        let mut outputs = vec![(element, shape)];
        if let Self::AttentionGradient { keys: true, .. } = self {
            outputs.extend([(element, shapes[1].to_vec()), (element, shapes[2].to_vec())]);
        }
        if let Self::SkipGroupNorm { .. } | Self::SkipLayerNorm { .. } = self {
            outputs.push(outputs[0].clone());
        }
        if let Self::LayerNormStatistics { .. } = self {
            let mut rows = outputs[0].1.clone();
            rows.iter_mut().rev().take(1).for_each(|last| *last = 1);
            outputs.extend([(Element::Float32, rows.clone()), (Element::Float32, rows)]);
        }
        Ok(outputs)
    }

    /// The first output's shape, or nothing when the inputs do not fit.
    fn infer_shape(&self, shapes: &[&[usize]], layout: Layout) -> Option<Vec<usize>> {
        let x = shapes[0];
        let same = || Some(x.to_vec());
        let map = || layout.feature_map(x).ok();
        match self {
            Self::Add | Self::Sub | Self::Mul | Self::Div => broadcast(x, second(shapes, 2)?),
            Self::Sqrt | Self::Exp | Self::Erf | Self::Sin | Self::Cos | Self::Sigmoid | Self::Gelu => same(),
            Self::Silu | Self::QuickGelu | Self::Cast(_) => (shapes.len() == 1).then(same)?,
            Self::Softmax => (!x.is_empty()).then(same)?,
            Self::MatMul => {
                let y = second(shapes, 2)?;
                let ([.., m, n], [.., k, p]) = (x, y) else { return None };
                let mut shape = broadcast(&x[..x.len() - 2], &y[..y.len() - 2])?;
                shape.extend([*m, *p]);
                (n == k).then_some(shape)
            }
            Self::Gemm { .. } if x.len() != 2 => None,
            Self::Gemm { transpose } | Self::Linear { transpose } => {
                let [rows, columns] = *shapes.get(1).copied()? else { return None };
                let (n, m) = if *transpose { (columns, rows) } else { (rows, columns) };
                let bias = shapes.get(2).is_none_or(|b| **b == [m]);
                let mut shape = x.to_vec();
                let last = shape.last_mut()?;
                let fits = *last == n && bias && shapes.len() <= 3;
                *last = m;
                fits.then_some(shape)
            }
            Self::ReduceSum(axes) | Self::ReduceMean(axes) => {
                let mut shape = x.to_vec();
                for axis in axes {
                    *shape.get_mut(*axis)? = 1;
                }
                Some(shape)
            }
            Self::Reshape(shape) => {
                (shape.iter().product::<usize>() == x.iter().product::<usize>()).then(|| shape.clone())
            }
            Self::Transpose(axes) => {
                let mut sorted = axes.clone();
                sorted.sort_unstable();
                sorted.iter().copied().eq(0..x.len()).then(|| axes.iter().map(|a| x[*a]).collect())
            }
            Self::Concat(axis) => {
                let mut shape = x.to_vec();
                let length = shapes.iter().map(|s| s.get(*axis).copied()).sum::<Option<usize>>()?;
                let fits =
                    shapes.iter().all(|s| s.len() == x.len() && (0..x.len()).all(|i| i == *axis || s[i] == x[i]));
                *shape.get_mut(*axis)? = length;
                fits.then_some(shape)
            }
            Self::Slice { axis, start, end } => {
                let mut shape = x.to_vec();
                let length = shape.get_mut(*axis)?;
                let fits = start < end && *end <= *length;
                *length = end.checked_sub(*start)?;
                fits.then_some(shape)
            }
            Self::Gather => {
                let [_, n] = *x else { return None };
                let mut shape = second(shapes, 2)?.to_vec();
                shape.push(n);
                Some(shape)
            }
            Self::Conv { stride, padding } => {
                let FeatureMap { count, channels, height, width } = map()?;
                let [out, inner, rows, columns] = *shapes.get(1).copied()? else { return None };
                let bias = shapes.get(2).is_none_or(|b| **b == [out]);
                let [top, left, bottom, right] = padding;
                let height = (height + top + bottom).checked_sub(rows)? / stride + 1;
                let width = (width + left + right).checked_sub(columns)? / stride + 1;
                (inner == channels && bias).then(|| layout.shape(FeatureMap { count, channels: out, height, width }))
            }
            Self::ConvTranspose { height, width, .. } => {
                let FeatureMap { count, channels, .. } = map()?;
                let [out, inner, _, _] = *second(shapes, 2)? else { return None };
                let result = FeatureMap { count, channels: inner, height: *height, width: *width };
                (out == channels).then(|| layout.shape(result))
            }
            Self::LayerNorm { .. } => {
                let last = [*x.last()?];
                (shapes.len() == 3 && shapes[1] == last && shapes[2] == last).then(same)?
            }
            Self::InstanceNorm { .. } => {
                let [_, rows, _] = *x else { return None };
                (shapes.len() == 3 && shapes[1] == [rows] && shapes[2] == [rows]).then(same)?
            }
            Self::Resize { height, width } | Self::ResizeGradient { height, width } => {
                Some(layout.shape(FeatureMap { height: *height, width: *width, ..map()? }))
            }
            Self::NhwcConv { stride, padding } => {
                let [out, rows, columns, inner] = *second(shapes, 2)? else { return None };
                Layout::ChannelsLast.feature_map(x).ok()?;
                let op = Self::Conv { stride: *stride, padding: *padding };
                op.infer_shape(&[x, &[out, inner, rows, columns]], Layout::ChannelsLast)
            }
            Self::NhwcResize { height, width } => {
                Self::Resize { height: *height, width: *width }.infer_shape(shapes, Layout::ChannelsLast)
            }
            Self::NhwcGroupNorm { groups, epsilon, .. } => {
                let op = Self::GroupNorm { groups: *groups, epsilon: *epsilon };
                let even = (x.last()? / groups).is_multiple_of(2);
                op.infer_shape(shapes, Layout::ChannelsLast).filter(|_| even)
            }
            Self::SkipGroupNorm { groups, epsilon, silu } => {
                let op = Self::NhwcGroupNorm { groups: *groups, epsilon: *epsilon, silu: *silu };
                let (channels, skip) = (*x.last()?, *shapes.get(3)?);
                let fits = skip == x || skip == [x[0], channels];
                let shift = shapes.get(4).is_none_or(|s| **s == [channels]);
                op.infer_shape(&shapes[..3], layout).filter(|_| fits && shift && shapes.len() <= 5)
            }
            Self::LayerNormStatistics { epsilon } => Self::LayerNorm { epsilon: *epsilon }.infer_shape(shapes, layout),
            Self::SkipLayerNorm { .. } => {
                let last = [*x.last()?];
                let fits = shapes.len() >= 4 && shapes.len() <= 5 && shapes[1] == x && x.len() == 3;
                (fits && shapes[2..].iter().all(|s| **s == last)).then(same)?
            }
            Self::MultiHeadAttention { heads } => Self::Attention { heads: *heads }.infer_shape(shapes, layout),
            Self::BiasSplitGelu => {
                let fits = x.len() == 3 && second(shapes, 2)? == [*x.last()?];
                Self::Geglu.infer_shape(&shapes[..1], layout).filter(|_| fits)
            }
            Self::ScaledSwish { .. } => (shapes.len() == 1).then(same)?,
            Self::FusedMatMul { transpose_a, transpose_b, .. } => {
                let turned = |shape: &[usize], turn: bool| {
                    let mut shape = shape.to_vec();
                    let rank = shape.len();
                    if turn && rank >= 2 {
                        shape.swap(rank - 2, rank - 1);
                    }
                    shape
                };
                let (a, b) = (turned(x, *transpose_a), turned(second(shapes, 2)?, *transpose_b));
                Self::MatMul.infer_shape(&[&a, &b], layout)
            }
            Self::Reverse(axes) => axes.iter().all(|axis| *axis < x.len()).then(same)?,
            // It has rules of its own.
            Self::Kernel(_) => None,
            Self::Geglu => {
                let mut shape = x.to_vec();
                let last = shape.last_mut()?;
                let even = *last % 2 == 0;
                *last /= 2;
                even.then_some(shape)
            }
            Self::GroupNorm { groups, .. } => {
                let channels = map()?.channels;
                let fits = channels.is_multiple_of(*groups) && shapes.len() == 3 && shapes[1] == [channels];
                (fits && shapes[2] == [channels]).then(same)?
            }
            Self::Attention { heads } => attention_shape(shapes.get(..3)?, *heads).filter(|_| shapes.len() == 3),
            Self::SiluGradient | Self::SoftmaxGradient => (second(shapes, 2)? == x).then(same)?,
            Self::GegluGradient => {
                let y = second(shapes, 2)?;
                (x.len() == y.len() && *x.last()? == 2 * *y.last()?).then(same)?
            }
            Self::LayerNormGradient { .. } => (shapes.len() == 3 && shapes[2] == x).then(same)?,
            Self::GroupNormGradient { groups, .. } => {
                let fits = map()?.channels.is_multiple_of(*groups);
                (fits && shapes.len() == 3 && shapes[2] == x).then(same)?
            }
            Self::AttentionGradient { heads, .. } => attention_shape(shapes.get(..3)?, *heads)
                .filter(|s| shapes.len() == 5 && shapes[3] == *s && shapes[4] == *s),
        }
    }
}

fn second<'a>(shapes: &[&'a [usize]], count: usize) -> Option<&'a [usize]> {
    (shapes.len() == count).then(|| shapes[1])
}

fn attention_shape(shapes: &[&[usize]], heads: usize) -> Option<Vec<usize>> {
    let (&[b, m, c], &[bk, n, ck], &[bv, nv, cv]) = (shapes[0], shapes[1], shapes[2]) else { return None };
    ((b, c) == (bk, ck) && (bk, n, ck) == (bv, nv, cv) && c.is_multiple_of(heads)).then(|| vec![b, m, c])
}

/// The shape of two arrays together, by numpy's rule.
pub fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |j| s[j]);
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y || y == 1 => Some(x),
            (1, y) => Some(y),
            _ => None,
        })
        .collect()
}
