//! A small graph representation, told in the order a graph is made: [`ir`] holds it, [`build`] adds nodes,
//! [`gradient`] differentiates it, [`portable`] rewrites it to standard operators and [`cuda`] to those that are fastest
//! on NVIDIA GPUs, among them the project's own ([`kernel`]), [`fold`] makes weights ready for the latter, [`mod@write`] makes
//! ONNX of it.

pub mod build;
pub mod cuda;
pub mod fold;
pub mod gradient;
pub mod ir;
pub mod kernel;
mod lowering;
pub mod memory;
pub mod op;
pub mod portable;
mod proto;
mod recompute;
mod shape;
pub mod types;
pub mod write;

pub use gradient::Forward;
pub use ir::Graph;
pub use kernel::KernelOp;
pub use lowering::Lowering;
pub use op::Op;
pub use types::{Element, FeatureMap, Layout, Origin, Value, ValueInfo};
