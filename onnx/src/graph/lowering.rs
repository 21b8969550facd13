//! The operators that a graph is rewritten to before a runtime computes it.

use super::cuda::{self, Fused};
use super::ir::Graph;
use super::portable;
use super::types::{Element, Layout};
use crate::Result;

/// The target of a rewrite: operators, with the precision and layout that go with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Lowering {
    /// Standard operators in float32, on any device.
    #[default]
    Portable,
    /// ONNX Runtime's fused operators in float16, channels last, on NVIDIA GPUs.
    Cuda(Fused),
}

impl Lowering {
    /// Precision of a graph's values.
    pub fn precision(self) -> Element {
        match self {
            Self::Portable => Element::Float32,
            Self::Cuda(_) => Element::Float16,
        }
    }

    /// Layout of feature maps.
    pub fn layout(self) -> Layout {
        match self {
            Self::Portable => Layout::ChannelsFirst,
            Self::Cuda(_) => Layout::ChannelsLast,
        }
    }

    /// Rewrites a graph. One that was authored for the portable operators gets those, whatever the lowering.
    ///
    /// # Errors
    /// When an operation has no form there.
    pub fn lower(self, graph: &Graph) -> Result<Graph> {
        match self {
            Self::Cuda(fused) if graph.layout == Layout::ChannelsLast => cuda::lower(graph, fused),
            _ => portable::lower(graph),
        }
    }
}
