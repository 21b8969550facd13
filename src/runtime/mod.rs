//! ONNX Runtime: the library, devices, networks, CUDA graphs, shared weights and the project's own kernels.

pub(crate) mod cuda_graph;
pub(crate) mod kernels;
pub mod network;
pub mod shared_weights;
mod statics;
