//! Sessions and the execution providers that they compute on.

use std::path::Path;

use motionclone_onnx::graph::Lowering;
use ort::ep;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;

use super::kernels;
use super::library::Runtime;
use super::options::RunSettings;
use super::shared_weights::Weights;

/// Makes a session of an ONNX model whose weights lie in files in `folder`, or are given.
pub(super) fn session(
    runtime: &Runtime,
    model: &[u8],
    folder: &Path,
    weights: &mut Weights,
    settings: &RunSettings,
) -> ort::Result<Session> {
    let folder = folder.to_string_lossy();
    // It would take what the backward pass computes again for what the forward pass has computed, and keep that.
    let mut without = vec!["CommonSubexpressionElimination"];
    if weights.are_shared() {
        // It looks at the values of weights, which only a device may hold, to round them up for nodes on the CPU.
        without.push("FuseFp16InitializerToFp32NodeTransformer");
    }
    let mut builder = runtime
        .session_builder()?
        .with_config_entry("session.model_external_initializers_file_folder_path", &folder)?
        .with_config_entry("optimization.disable_specified_optimizers", without.join(";"))?;
    builder = weights.give(builder)?;
    if let Some(threads) = settings.threads {
        builder = builder.with_independent_thread_pool()?.with_intra_threads(threads)?;
    }
    if let Some(device) = settings.cuda {
        let half = settings.lowering != Lowering::Portable;
        let provider = ep::CUDA::default()
            .with_device_id(device)
            // Without it cuDNN leaves tensor cores alone, in half precision too; float32 stays exact.
            .with_tf32(half)
            // Doubling its memory each time would ask for up to twice what a job needs.
            .with_arena_extend_strategy(ep::ArenaExtendStrategy::SameAsRequested)
            // The fastest convolutions would take many times the memory of what they compute.
            .with_conv_max_workspace(false)
            .with_cuda_graph(settings.cuda_graph);
        let provider = match settings.budget {
            Some(budget) => provider.with_memory_limit(usize::try_from(budget).unwrap_or(usize::MAX)),
            None => provider,
        };
        builder = builder
            // Weights stay as long as the network; among what comes and goes they would keep memory in use.
            .with_config_entry("session.use_device_allocator_for_initializers", "1")?
            .with_execution_providers([provider.build().error_on_failure()])?;
        if let Lowering::Cuda(fused) = settings.lowering
            && fused.has_kernels()
        {
            builder = builder.with_operators(kernels::operators(device)?)?;
        }
        if half {
            // The lowering has fused what is to be fused; further rewriting would take seconds.
            builder = builder.with_optimization_level(GraphOptimizationLevel::Level1)?;
        }
        if half && !settings.cpu_nodes {
            // A node on the CPU would be a mistake of the lowering and make every step wait.
            builder = builder.with_config_entry("session.disable_cpu_ep_fallback", "1")?;
        }
    }
    if settings.cuda.is_none() && settings.budget.is_some() {
        let provider = ep::CPU::default().with_arena_allocator(false);
        builder = builder.with_execution_providers([provider.build()])?;
    }
    if let Some(path) = &settings.profile {
        builder = builder.with_profiling(path)?;
    }
    let canceler = builder.canceler();
    // Asked for before it began, it is an error of the loading as well.
    let stopped = settings.cancel.stoppable(move || drop(canceler.cancel()), || builder.commit_from_memory(model));
    stopped.unwrap_or_else(|e| Err(ort::Error::new(e.to_string())))
}
