//! Element types, layouts and values: what operations and graphs are made over.

use crate::weights::WeightInfo;
use crate::{Error, Result};

/// Type of a value's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    /// 32-bit floating point.
    Float32,
    /// 16-bit floating point.
    Float16,
    /// 64-bit integer.
    Int64,
}

impl Element {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::Float32 => 4,
            Self::Float16 => 2,
            Self::Int64 => 8,
        }
    }
}

/// Order of the axes of feature maps (images inside a network).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// `[image, channel, row, column]`
    ChannelsFirst,
    /// `[image, row, column, channel]`
    ChannelsLast,
}

/// A feature map's sizes, whatever its layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeatureMap {
    /// Images.
    pub count: usize,
    /// Channels.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Layout {
    /// The axis of channels.
    pub fn channel_axis(self) -> usize {
        match self {
            Self::ChannelsFirst => 1,
            Self::ChannelsLast => 3,
        }
    }

    /// The shape of a feature map in this layout.
    pub fn shape(self, map: FeatureMap) -> Vec<usize> {
        let FeatureMap { count, channels, height, width } = map;
        match self {
            Self::ChannelsFirst => vec![count, channels, height, width],
            Self::ChannelsLast => vec![count, height, width, channels],
        }
    }

    /// Reads a shape as a feature map of this layout.
    ///
    /// # Errors
    /// When it has not four axes.
    pub fn feature_map(self, shape: &[usize]) -> Result<FeatureMap> {
        match (self, shape) {
            (Self::ChannelsFirst, &[count, channels, height, width])
            | (Self::ChannelsLast, &[count, height, width, channels]) => {
                Ok(FeatureMap { count, channels, height, width })
            }
            _ => Err(Error::failure(format!("a feature map has four axes, not {shape:?}"))),
        }
    }
}

/// A value in one graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(pub(super) usize);

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum Origin {
    /// The caller gives it at every run.
    Input,
    /// A tensor in the bundle's weight file.
    Weight(WeightInfo),
    /// Little-endian bytes inside the graph.
    Constant(Vec<u8>),
    /// A node computes it.
    Node,
}

/// What is known of a value.
#[derive(Debug, Clone, PartialEq)]
pub struct ValueInfo {
    /// Its name in the ONNX graph.
    pub name: String,
    /// Element type.
    pub element: Element,
    /// Shape.
    pub shape: Vec<usize>,
    /// Where it comes from.
    pub origin: Origin,
}

impl ValueInfo {
    /// Elements in all.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Element types and shapes of what an operation makes.
pub(super) type Outputs = Vec<(Element, Vec<usize>)>;
