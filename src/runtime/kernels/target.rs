//! Devices that kernels run on: CUDA devices, and in tests a stand-in on the CPU.

use std::ffi::c_void;

use crate::error::Result;

/// A device that kernels run on.
pub(super) trait Target: Clone + Send + Sync + 'static {
    /// A kernel that is ready to run.
    type Program: Copy + Send;

    /// The execution provider whose memory tensors lie in; the CPU's where absent.
    const PROVIDER: Option<&'static str>;

    /// A kernel in one of its variants.
    fn program(&self, name: &str, variant: &str) -> Result<Self::Program>;

    /// Runs a program behind what was launched on the stream before. Parameters are addresses and numbers, little-endian
    /// in 64 bits each.
    fn launch(&self, program: Self::Program, grid: [u32; 3], stream: *mut c_void, parameters: &mut [u64])
    -> Result<()>;
}
