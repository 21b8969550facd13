//! Predicts a job's peak memory and picks the fastest strategy that fits the budget.

use std::collections::HashSet;

use motionclone_onnx::graph::Lowering;

use crate::bundle::Bundle;
use crate::error::{Error, Result};
use crate::networks::{Footprint, Footprints, JobNetworks, MemoryStrategy, NetworkKey};
use crate::runtime::{RunSettings, gigabytes};
use crate::settings::Settings;

/// Checks that the system has memory for a job's own arrays, besides what networks take: where an allocation fails in
/// the midst of the work, the process ends.
///
/// # Errors
/// When there is not so much.
pub(crate) fn check_room(settings: &Settings, maps: usize) -> Result<()> {
    let (width, height, frames) = (settings.width, settings.height, settings.frames);
    let numbers = [width, height, frames, 3].into_iter().fold(1, usize::saturating_mul);
    // The clip's pixels as numbers, and as bytes or once more.
    let bytes = numbers.saturating_mul(2 * size_of::<f32>()).saturating_add(maps.saturating_mul(size_of::<f32>()));
    if Vec::<u8>::new().try_reserve_exact(bytes).is_ok() {
        return Ok(());
    }
    Err(Error::failure(format!(
        "not enough memory: {frames} frames of {width}x{height} take {} besides the networks; a smaller size or fewer \
         frames take less",
        gigabytes(bytes as u64)
    )))
}

/// Bytes of a device that CUDA and its libraries take: for the process, and for each session. Measured.
const CONTEXT_OVERHEAD: u64 = 1100 << 20;
const SESSION_OVERHEAD: u64 = 128 << 20;

/// A CUDA device's memory for activations, as a ratio of what is alive at once: gaps remain in it. Measured.
const FRAGMENTATION: (u64, u64) = (8, 5);

/// A job's memory, predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// How memory is saved.
    pub strategy: MemoryStrategy,
    /// Bytes of the device at most.
    pub peak: u64,
}

/// The plan for jobs with these settings, which have been checked: the fastest that keeps within the budget of `run`. What it
/// predicts stays in `footprints`, in the place of what is there for other sizes, with the graphs of the plan's networks.
///
/// # Errors
/// When none does, or a network cannot be made.
pub(crate) fn plan(
    bundle: &Bundle,
    settings: &Settings,
    run: &RunSettings,
    footprints: &mut Footprints,
) -> Result<Plan> {
    let fastest = MemoryStrategy::fastest(run.lowering);
    let strategies = MemoryStrategy::ALL.into_iter().skip_while(|strategy| *strategy != fastest);
    let networks = strategies.map(|strategy| JobNetworks::new(&bundle.manifest, settings, run, strategy));
    let networks = networks.collect::<Result<Vec<_>>>()?;
    footprints.keep(&networks.iter().flat_map(JobNetworks::all).collect::<Vec<_>>());
    let mut least = 0;
    for networks in &networks {
        let plan = Plan { strategy: networks.strategy(), peak: peak(bundle, networks, run, footprints)? };
        if run.budget.is_none_or(|budget| plan.peak <= budget) {
            // Only now, since a plan that is made once more finds the graphs of the first one.
            footprints.keep_graphs(&networks.all());
            return Ok(plan);
        }
        least = plan.peak;
    }
    Err(Error::input(format!(
        "{} frames of {}×{} pixels take {} of memory at least, and the memory budget is {}; set a larger budget, a \
         smaller size or fewer frames",
        settings.frames,
        settings.width,
        settings.height,
        gigabytes(least),
        gigabytes(run.budget.unwrap_or(0))
    )))
}

fn peak(bundle: &Bundle, networks: &JobNetworks, run: &RunSettings, footprints: &mut Footprints) -> Result<u64> {
    let mut peak = 0;
    for stage in networks.stages() {
        peak = peak.max(resident_bytes(bundle, &stage, run.lowering, footprints)?);
    }
    Ok(peak + if run.cuda.is_some() { CONTEXT_OVERHEAD } else { 0 })
}

/// Bytes of the device for networks that are loaded at once. A weight that several share is there once, and only one half
/// of the autoencoder runs at a time.
fn resident_bytes(
    bundle: &Bundle,
    keys: &[NetworkKey],
    lowering: Lowering,
    footprints: &mut Footprints,
) -> Result<u64> {
    let (mut total, mut passing, mut shared) = (0, 0, HashSet::new());
    for key in keys.iter().filter(|key| lowering == Lowering::Portable || !key.runs_on_cpu()) {
        let footprint = footprints.of(key, bundle, lowering)?;
        let there = footprint.shareable.iter().filter(|(storage, _)| !shared.insert(storage.clone()));
        total += footprint.weights - there.map(|(_, length)| length).sum::<u64>();
        let (workspace, overhead) = workspace(footprint, lowering);
        total += overhead;
        if key.is_autoencoder() {
            passing = passing.max(workspace);
        } else {
            total += workspace;
        }
    }
    Ok(total + passing)
}

/// Bytes that a network works in, and bytes that its libraries keep.
fn workspace(footprint: &Footprint, lowering: Lowering) -> (u64, u64) {
    match lowering {
        Lowering::Cuda(_) => (footprint.activations * FRAGMENTATION.0 / FRAGMENTATION.1, SESSION_OVERHEAD),
        Lowering::Portable => (footprint.activations, 0),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use motionclone_onnx::graph::Forward;
    use motionclone_onnx::graph::cuda::Fused;

    use super::*;
    use crate::networks::unet_shape;

    #[test]
    fn what_networks_share_is_counted_once() {
        let bundle = Bundle::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("onnx/demo/bundle")).unwrap();
        let settings = Settings::new(&bundle.manifest.defaults, "");
        let keys = |lowering| {
            let shape = unet_shape(&bundle.manifest, &settings, None, lowering);
            let guided = NetworkKey::Guided(shape.clone(), settings.blocks.clone(), Forward::Recomputed);
            [guided, NetworkKey::Denoiser(shape)]
        };
        let bytes = |keys: &[NetworkKey], lowering| {
            resident_bytes(&bundle, keys, lowering, &mut Footprints::default()).unwrap()
        };

        let lowering = Lowering::Cuda(Fused::ALL);
        let [guided, denoiser] = keys(lowering);
        let alone = bytes(std::slice::from_ref(&denoiser), lowering);
        let both = bytes(&[guided.clone(), denoiser.clone()], lowering);
        let more = both - bytes(&[guided], lowering);
        let mut footprints = Footprints::default();
        let footprint = footprints.of(&denoiser, &bundle, lowering).unwrap();
        println!("the denoiser alone takes {alone} bytes, beside the guided network {more}");
        let (workspace, overhead) = workspace(footprint, lowering);
        assert_eq!(alone, footprint.weights + workspace + overhead);
        // Only what is too small to share, or kept in full precision, comes twice.
        let work = workspace + overhead;
        assert!(more >= work && more - work < footprint.weights / 5, "{more} of {}", footprint.weights);
        // The same network twice brings nothing new to share.
        assert_eq!(bytes(&[denoiser.clone(), denoiser], lowering), alone + more);

        let portable = keys(Lowering::Portable);
        let sum: u64 = portable.iter().map(|key| bytes(std::slice::from_ref(key), Lowering::Portable)).sum();
        assert_eq!(bytes(&portable, Lowering::Portable), sum);
    }
}
