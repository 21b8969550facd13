//! ONNX Runtime: the library, devices, options, tensors, networks, CUDA graphs, shared weights and the project's own
//! kernels. Nothing here depends on the models that run.

mod cuda_graph;
pub(crate) mod device;
mod kernels;
pub mod library;
pub mod network;
pub mod options;
pub mod probe;
mod provider;
pub mod shared_weights;
mod statics;
mod telemetry;
pub mod tensor;

pub use device::Device;
pub use library::Runtime;
pub use network::Network;
pub use options::{RunSettings, gigabytes};
pub use tensor::{Input, Outputs};
