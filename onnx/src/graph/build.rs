//! Short names for adding nodes, in the words that model code is written in.

use super::ir::Graph;
use super::op::Op;
use super::types::{Element, FeatureMap, Layout, Value};
use crate::Result;

/// Each method adds nodes; an error means that shapes or element types do not fit.
#[allow(missing_docs, reason = "each is the operation of its name")]
impl Graph {
    pub fn add(&mut self, a: Value, b: Value) -> Result<Value> {
        self.node(Op::Add, &[a, b])
    }

    pub fn sub(&mut self, a: Value, b: Value) -> Result<Value> {
        self.node(Op::Sub, &[a, b])
    }

    pub fn mul(&mut self, a: Value, b: Value) -> Result<Value> {
        self.node(Op::Mul, &[a, b])
    }

    /// a constant times `x`
    pub fn scale(&mut self, x: Value, factor: f32) -> Result<Value> {
        let factor = self.constant_of(self.info(x).element, &[factor], &[])?;
        self.mul(x, factor)
    }

    /// `x` plus a constant
    pub fn offset(&mut self, x: Value, amount: f32) -> Result<Value> {
        let amount = self.constant_of(self.info(x).element, &[amount], &[])?;
        self.add(x, amount)
    }

    pub fn matmul(&mut self, a: Value, b: Value) -> Result<Value> {
        self.node(Op::MatMul, &[a, b])
    }

    pub fn softmax(&mut self, x: Value) -> Result<Value> {
        self.node(Op::Softmax, &[x])
    }

    pub fn silu(&mut self, x: Value) -> Result<Value> {
        self.node(Op::Silu, &[x])
    }

    pub fn reshape(&mut self, x: Value, shape: &[usize]) -> Result<Value> {
        if self.shape(x) == shape {
            return Ok(x);
        }
        self.node(Op::Reshape(shape.into()), &[x])
    }

    pub fn transpose(&mut self, x: Value, axes: &[usize]) -> Result<Value> {
        if axes.iter().copied().eq(0..axes.len()) {
            return Ok(x);
        }
        self.node(Op::Transpose(axes.into()), &[x])
    }

    /// the last two axes swapped
    pub fn swap_last(&mut self, x: Value) -> Result<Value> {
        let rank = self.shape(x).len();
        let mut axes: Vec<usize> = (0..rank).collect();
        axes.swap(rank - 2, rank - 1);
        self.transpose(x, &axes)
    }

    pub fn concat(&mut self, parts: &[Value], axis: usize) -> Result<Value> {
        if let [one] = parts {
            return Ok(*one);
        }
        self.node(Op::Concat(axis), parts)
    }

    pub fn slice(&mut self, x: Value, axis: usize, start: usize, end: usize) -> Result<Value> {
        if start == 0 && self.shape(x).get(axis) == Some(&end) {
            return Ok(x);
        }
        self.node(Op::Slice { axis, start, end }, &[x])
    }

    pub fn reduce_sum(&mut self, x: Value, axes: &[usize]) -> Result<Value> {
        self.node(Op::ReduceSum(axes.into()), &[x])
    }

    pub fn reduce_mean(&mut self, x: Value, axes: &[usize]) -> Result<Value> {
        self.node(Op::ReduceMean(axes.into()), &[x])
    }

    pub fn cast(&mut self, x: Value, element: Element) -> Result<Value> {
        if self.info(x).element == element {
            return Ok(x);
        }
        self.node(Op::Cast(element), &[x])
    }

    pub fn attention(&mut self, q: Value, k: Value, v: Value, heads: usize) -> Result<Value> {
        self.node(Op::Attention { heads }, &[q, k, v])
    }

    /// a feature map as `[images, positions, channels]`, positions row by row
    pub fn to_tokens(&mut self, x: Value) -> Result<Value> {
        let FeatureMap { count, channels, height, width } = self.feature_map(x)?;
        match self.layout {
            Layout::ChannelsFirst => {
                let flat = self.reshape(x, &[count, channels, height * width])?;
                self.transpose(flat, &[0, 2, 1])
            }
            Layout::ChannelsLast => self.reshape(x, &[count, height * width, channels]),
        }
    }

    /// the inverse of [`Graph::to_tokens`]
    pub fn from_tokens(&mut self, x: Value, map: FeatureMap) -> Result<Value> {
        let x = match self.layout {
            Layout::ChannelsFirst => self.transpose(x, &[0, 2, 1])?,
            Layout::ChannelsLast => x,
        };
        let channels = self.shape(x).iter().product::<usize>() / (map.count * map.height * map.width);
        let shape = self.layout.shape(FeatureMap { channels, ..map });
        self.reshape(x, &shape)
    }

    /// a video `[batch, channels, frames, rows, columns]` as a feature map of batch · frames images
    pub fn from_video(&mut self, x: Value) -> Result<Value> {
        let &[batch, channels, frames, height, width] = self.shape(x) else {
            return Err(crate::Error::failure(format!("a video has five axes, not {:?}", self.shape(x))));
        };
        let axes = match self.layout {
            Layout::ChannelsFirst => [0, 2, 1, 3, 4],
            Layout::ChannelsLast => [0, 2, 3, 4, 1],
        };
        let x = self.transpose(x, &axes)?;
        let shape = self.layout.shape(FeatureMap { count: batch * frames, channels, height, width });
        self.reshape(x, &shape)
    }

    /// the inverse of [`Graph::from_video`]
    pub fn to_video(&mut self, x: Value, frames: usize) -> Result<Value> {
        let FeatureMap { count, channels, height, width } = self.feature_map(x)?;
        let batch = count / frames;
        match self.layout {
            Layout::ChannelsFirst => {
                let x = self.reshape(x, &[batch, frames, channels, height, width])?;
                self.transpose(x, &[0, 2, 1, 3, 4])
            }
            Layout::ChannelsLast => {
                let x = self.reshape(x, &[batch, frames, height, width, channels])?;
                self.transpose(x, &[0, 4, 1, 2, 3])
            }
        }
    }

    /// one value a channel, `[1, channels]` or `[images, channels]`, shaped to be added to a feature map
    pub fn per_channel(&mut self, x: Value) -> Result<Value> {
        let &[count, channels] = self.shape(x) else {
            return Err(crate::Error::failure(format!("per-channel values have two axes, not {:?}", self.shape(x))));
        };
        let shape = self.layout.shape(FeatureMap { count, channels, height: 1, width: 1 });
        self.reshape(x, &shape)
    }
}
