//! Devices, and the lock that keeps the capture of a CUDA graph from the process's other work on GPUs.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Where networks run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// The first CUDA device where there is one that works, otherwise the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA device by number.
    Cuda(i32),
}

/// One lock for all devices: ONNX Runtime captures with `cudaStreamCaptureModeGlobal` (`CUDAGraphManager::CaptureBegin`
/// in `core/providers/cuda/cuda_graph.cc`), in which a call that CUDA calls unsafe, such as one for memory, from any
/// thread of the process and on any device, ends the capture. A lock per device would do in thread-local mode only.
static DEVICES: RwLock<()> = RwLock::new(());

/// Guard for using a CUDA device; exclusive during graph capture. Not re-entrant.
pub(crate) enum DeviceGuard {
    /// Beside other users.
    Shared { _guard: RwLockReadGuard<'static, ()> },
    /// Alone in the process.
    Exclusive { _guard: RwLockWriteGuard<'static, ()> },
}

impl DeviceGuard {
    /// Waits until no graph is being captured. `None` on the CPU.
    pub(crate) fn shared(cuda: Option<i32>) -> Option<Self> {
        cuda.map(|_| Self::Shared { _guard: DEVICES.read().unwrap_or_else(PoisonError::into_inner) })
    }

    /// Waits until nothing else uses a CUDA device. `None` on the CPU.
    pub(crate) fn exclusive(cuda: Option<i32>) -> Option<Self> {
        cuda.map(|_| Self::Exclusive { _guard: DEVICES.write().unwrap_or_else(PoisonError::into_inner) })
    }
}
