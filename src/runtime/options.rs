//! Options that networks are loaded with, and what their failures say.

use std::path::PathBuf;

use motionclone_onnx::graph::Lowering;

use crate::cancel::Cancel;
use crate::error::Error;

/// Device, operators and limits of a network.
#[derive(Debug, Clone, Default)]
pub struct RunSettings {
    /// CPU threads of each network; one pool with a thread a core for all networks when absent.
    pub threads: Option<usize>,
    /// CUDA device, or the CPU when absent.
    pub cuda: Option<i32>,
    /// The operators of the networks.
    pub lowering: Lowering,
    /// Whether nodes of networks lowered for CUDA may run on the CPU; otherwise such a network is refused.
    pub cpu_nodes: bool,
    /// Where ONNX Runtime's profiler writes, one file a network, under names that begin so.
    pub profile: Option<PathBuf>,
    /// Bytes that the device's memory may be used up to; no limit when absent.
    pub budget: Option<u64>,
    /// Captures a run as a CUDA graph and replays it, instead of launching kernel by kernel.
    pub cuda_graph: bool,
    /// Ends the loading of networks.
    pub cancel: Cancel,
}

/// Converts an error of ONNX Runtime; out of memory gets advice.
pub(crate) fn failure(what: &str, message: &str, budget: Option<u64>) -> Error {
    // How its arena, the C++ library, CUDA, cuBLAS and cuDNN say it.
    const SIGNS: [&str; 7] = [
        "Failed to allocate memory",
        "Available memory of",
        "bad_alloc",
        "bad allocation",
        "out of memory",
        "cudaErrorMemoryAllocation",
        "ALLOC_FAILED",
    ];
    if !SIGNS.iter().any(|sign| message.contains(sign)) {
        return Error::failure(format!("{what}: {message}"));
    }
    let advice = match budget {
        Some(budget) => format!(
            "the memory budget of {} was not kept or the device has less that is free; set a smaller memory budget",
            gigabytes(budget)
        ),
        None => "set a memory budget that is below what the device has free".into(),
    };
    Error::failure(format!("{what}: not enough memory; {advice}, a smaller size or fewer frames ({message})"))
}

/// Bytes as people read them.
pub fn gigabytes(bytes: u64) -> String {
    format!("{:.2} GB", bytes as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::failure;

    #[test]
    fn a_lack_of_memory_is_told_as_what_to_do() {
        let arena = "Non-zero status code returned while running MatMul node. BFCArena::AllocateRawInternal Failed to \
                     allocate memory for requested buffer of size 1073741824";
        let cuda = "CUDA failure 2: out of memory ; GPU=0";
        for message in [arena, cuda, "std::bad_alloc", "CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED"] {
            let without = failure("running the guided network", message, None).to_string();
            assert!(without.contains("set a memory budget") && without.contains(message), "{without}");
            let with = failure("running the guided network", message, Some(7_500_000_000)).to_string();
            assert!(with.contains("7.50 GB") && with.contains("smaller memory budget"), "{with}");
        }
        let other = failure("running the guided network", "Invalid rank for input: latents", None).to_string();
        assert_eq!(other, "running the guided network: Invalid rank for input: latents");
    }
}
