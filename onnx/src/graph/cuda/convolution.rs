//! Convolutions of channels-last feature maps, their gradients at the input, and resizing.

use super::super::ir::Graph;
use super::super::kernel::KernelOp;
use super::super::op::Op;
use super::super::portable::readers;
use super::super::types::{FeatureMap, Layout, Value};
use super::Lowering;
use crate::Result;

const TO_CHANNELS_FIRST: [usize; 4] = [0, 3, 1, 2];
const TO_CHANNELS_LAST: [usize; 4] = [0, 2, 3, 1];

/// Bytes of a weight of which no second copy is kept.
const LARGE: usize = 8 << 20;

impl Lowering {
    /// Inputs x, weight `[out, in, rows, columns]`, optional bias.
    pub(super) fn conv(&self, g: &mut Graph, stride: usize, padding: [usize; 4], inputs: &[Value]) -> Result<Value> {
        let (x, weight) = (inputs[0], inputs[1]);
        let y = if stride == 1 && padding == [0; 4] && g.shape(weight)[2..] == [1, 1] {
            let (out, inner) = (g.shape(weight)[0], g.shape(weight)[1]);
            let matrix = g.reshape(weight, &[out, inner])?;
            super::linear(g, true, &[x, matrix])?
        } else if self.fused.convolution {
            let weight = g.transpose(weight, &TO_CHANNELS_LAST)?;
            g.node(Op::NhwcConv { stride, padding }, &[x, weight])?
        } else {
            let x = g.transpose(x, &TO_CHANNELS_FIRST)?;
            let y = g.node(Op::Conv { stride, padding }, &[x, weight])?;
            g.transpose(y, &TO_CHANNELS_LAST)?
        };
        match inputs.get(2) {
            Some(bias) => g.add(y, *bias),
            None => Ok(y),
        }
    }

    /// Without a stride, a convolution's gradient at its input is a convolution too: of the cotangent, with the weight
    /// reversed along rows and columns and its channels swapped.
    pub(super) fn conv_gradient(
        &self,
        g: &mut Graph,
        stride: usize,
        padding: [usize; 4],
        [height, width]: [usize; 2],
        dy: Value,
        weight: Value,
    ) -> Result<Value> {
        let &[out, inner, rows, columns] = g.shape(weight) else {
            return Err(crate::Error::failure(format!("a convolution's weight has the shape {:?}", g.shape(weight))));
        };
        let [top, left, bottom, right] = padding;
        if stride == 1 && padding == [0; 4] && (rows, columns) == (1, 1) {
            let matrix = g.reshape(weight, &[out, inner])?;
            return super::linear(g, false, &[dy, matrix]);
        }
        if let Some(dx) = self.large_weight_gradient(g, stride, padding, dy, weight)? {
            return Ok(dx);
        }
        let fits = top.max(bottom) < rows && left.max(right) < columns;
        if self.fused.convolution && self.fused.reversed_gradient && stride == 1 && fits {
            let weight = g.transpose(weight, &[1, 2, 3, 0])?;
            let weight = g.node(Op::Reverse(vec![1, 2]), &[weight])?;
            let padding = [rows - 1 - top, columns - 1 - left, rows - 1 - bottom, columns - 1 - right];
            return g.node(Op::NhwcConv { stride, padding }, &[dy, weight]);
        }
        let dy = g.transpose(dy, &TO_CHANNELS_FIRST)?;
        let dx = g.node(Op::ConvTranspose { stride, padding, height, width }, &[dy, weight])?;
        g.transpose(dx, &TO_CHANNELS_LAST)
    }

    /// The gradient from the weight as the forward pass reads it, where the weight is large: ONNX Runtime's convolution
    /// would need a copy of it that is turned, all the while. A product gives what each position sends to its neighbours.
    fn large_weight_gradient(
        &self,
        g: &mut Graph,
        stride: usize,
        padding: [usize; 4],
        dy: Value,
        weight: Value,
    ) -> Result<Option<Value>> {
        let &[out, inner, rows, columns] = g.shape(weight) else { return Ok(None) };
        let copy = out * inner * rows * columns * g.info(weight).element.size();
        let fits = (stride, padding, [rows, columns]) == (1, [1; 4], [3, 3]);
        if !(self.fused.neighbour_sum && self.fused.convolution && fits && copy >= LARGE) {
            return Ok(None);
        }
        let weight = g.transpose(weight, &TO_CHANNELS_LAST)?;
        let weight = g.reshape(weight, &[out, rows * columns * inner])?;
        let parts = super::linear(g, false, &[dy, weight])?;
        Ok(super::kernel(g, KernelOp::NeighbourSum, &[parts])?.map(|dx| dx[0]))
    }
}

/// Sums the cotangents of all positions that read one source position: by adding halves where the size was doubled, by
/// a matrix of zeros and ones a side otherwise.
pub(super) fn resize_gradient(g: &mut Graph, height: usize, width: usize, dy: Value) -> Result<Value> {
    let map = Layout::ChannelsLast.feature_map(g.shape(dy))?;
    let FeatureMap { count, channels, .. } = map;
    let shape = [count, height, width, channels];
    if (map.height, map.width) == (2 * height, 2 * width) {
        let rows = g.reshape(dy, &[count * height, 2, map.width * channels])?;
        let rows = pair_sum(g, rows)?;
        let columns = g.reshape(rows, &[count * height * width, 2, channels])?;
        let sum = pair_sum(g, columns)?;
        return g.reshape(sum, &shape);
    }
    let element = g.info(dy).element;
    let rows = g.constant_of(element, &readers(map.height, height), &[map.height, height])?;
    let rows = g.swap_last(rows)?;
    let columns = g.constant_of(element, &readers(map.width, width), &[map.width, width])?;
    let columns = g.swap_last(columns)?;
    let flat = g.reshape(dy, &[count, map.height, map.width * channels])?;
    let down = g.matmul(rows, flat)?;
    let down = g.reshape(down, &[count * height, map.width, channels])?;
    let across = g.matmul(columns, down)?;
    g.reshape(across, &shape)
}

/// The sum of both parts of the middle axis.
fn pair_sum(g: &mut Graph, x: Value) -> Result<Value> {
    let (first, second) = (g.slice(x, 1, 0, 1)?, g.slice(x, 1, 1, 2)?);
    g.add(first, second)
}
