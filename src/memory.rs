//! How much memory a job takes, and what is done to keep it within a budget.

use std::collections::HashSet;

use motionclone_onnx::graph::memory::{self, Memory};
use motionclone_onnx::graph::{Forward, Lowering};

use crate::bundle::{Bundle, NetworkKey};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::runtime::gigabytes;
use crate::settings::Settings;

/// What CUDA and its libraries take of a device, in bytes: for themselves, and for each network. Measured.
const CUDA: u64 = 1100 << 20;
const EACH_ON_CUDA: u64 = 128 << 20;

/// How much more a CUDA device's memory has to be than what is alive at once, since gaps remain in it; measured.
const GAPS: (u64, u64) = (8, 5);

/// What is done to take less memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Economy {
    /// Nothing.
    Nothing,
    /// The gradient computes again what it needs of the forward pass. GPUs always do.
    Recompute,
    /// The same, and networks do not stay: each part of the work loads its own, guided steps run one network for both
    /// prompts.
    OneByOne,
}

impl Economy {
    /// Where no budget says otherwise.
    pub(crate) fn least(lowering: Lowering) -> Self {
        match lowering {
            // A few hundredths of a guided step's time there, for more than half of its memory.
            Lowering::Cuda(_) => Self::Recompute,
            Lowering::Portable => Self::Nothing,
        }
    }

    /// What the backward pass takes from the forward pass.
    pub(crate) fn forward(self) -> Forward {
        if self == Self::Nothing { Forward::Kept } else { Forward::Recomputed }
    }
}

/// A job's memory, predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// What is done.
    pub economy: Economy,
    /// Bytes of the device at most.
    pub peak: u64,
}

impl Engine {
    /// The plan for jobs with these settings: the fastest that keeps within the engine's memory budget.
    ///
    /// # Errors
    /// When none does, or a network cannot be made.
    pub fn plan(&self, settings: &Settings) -> Result<Plan> {
        settings.check(self.manifest())?;
        let ways = [Economy::Nothing, Economy::Recompute, Economy::OneByOne];
        let least = Economy::least(self.lowering());
        let mut best = None;
        for economy in ways.into_iter().skip_while(|way| *way != least) {
            let plan = Plan { economy, peak: self.peak(settings, economy)? };
            if self.memory_budget().is_none_or(|budget| plan.peak <= budget) {
                return Ok(plan);
            }
            best = Some(plan);
        }
        let (needed, budget) = (best.map_or(0, |plan| plan.peak), self.memory_budget().unwrap_or(0));
        Err(Error::input(format!(
            "{} frames of {}×{} pixels take {} of memory at least, and the memory budget is {}; set a larger budget, a \
             smaller size or fewer frames",
            settings.frames,
            settings.width,
            settings.height,
            gigabytes(needed),
            gigabytes(budget)
        )))
    }

    /// Chooses the plan of the next job, where there is a budget; then nothing stays of the jobs before that the next does
    /// not need as well.
    pub(crate) fn prepare(&mut self, settings: &Settings) -> Result<()> {
        if self.memory_budget().is_some() {
            self.economy = self.plan(settings)?.economy;
            let stay = match self.economy {
                // At most one part's are there.
                Economy::OneByOne => self.parts(settings, self.economy).concat(),
                _ => self.staying(settings, &[]),
            };
            self.keep(&stay);
        }
        Ok(())
    }

    /// The network that reads a clip's motion: a small one of its own, or, where loading takes longer than running, that
    /// of guided steps, which is needed anyway.
    pub(crate) fn extractor(&self, settings: &Settings, economy: Economy) -> NetworkKey {
        let (shape, blocks) = (self.unet_shape(settings), settings.blocks.clone());
        match self.lowering() {
            Lowering::Cuda(_) => NetworkKey::Guided(shape, blocks, economy.forward()),
            Lowering::Portable => NetworkKey::Extractor(shape, blocks),
        }
    }

    /// The networks that stay while steps are done, besides those of the steps. On a GPU, all of a job do, for the next
    /// one; elsewhere their weights are not shared, and memory is worth more than the seconds of loading.
    pub(crate) fn staying(&self, settings: &Settings, steps: &[NetworkKey]) -> Vec<NetworkKey> {
        if self.on_cuda() && self.economy != Economy::OneByOne {
            return self.parts(settings, self.economy).concat();
        }
        steps.to_vec()
    }

    /// The networks that are there at once in each part of a job.
    fn parts(&self, settings: &Settings, economy: Economy) -> Vec<Vec<NetworkKey>> {
        let (vae, unet) = (self.vae_shape(settings), self.unet_shape(settings));
        let blocks = &settings.blocks;
        let control = settings.control.as_ref().map(|control| NetworkKey::Control(control.kind, unet.clone()));
        let guided = NetworkKey::Guided(unet.clone(), blocks.clone(), economy.forward());
        let extractor = self.extractor(settings, economy);
        let denoiser = NetworkKey::Denoiser(unet);
        let with_control = |keys: &[NetworkKey]| -> Vec<NetworkKey> { control.iter().chain(keys).cloned().collect() };
        let (encoder, decoder, text) =
            (NetworkKey::VaeEncoder(vae), NetworkKey::VaeDecoder(vae), NetworkKey::TextEncoder);
        if economy == Economy::OneByOne {
            return vec![
                vec![encoder],
                vec![text],
                with_control(&[extractor]),
                with_control(&[guided]),
                with_control(&[denoiser]),
                vec![decoder],
            ];
        }
        if self.on_cuda() {
            return vec![with_control(&[encoder, text, guided, denoiser, decoder])];
        }
        vec![with_control(&[encoder, text, extractor]), with_control(&[guided, denoiser, decoder])]
    }

    fn peak(&self, settings: &Settings, economy: Economy) -> Result<u64> {
        let mut peak = 0;
        for part in self.parts(settings, economy) {
            peak = peak.max(together(self.bundle(), &part, self.lowering())?);
        }
        Ok(peak + if self.on_cuda() { CUDA } else { 0 })
    }
}

/// Bytes of the device that networks take which are there at once. A weight that several share is there once, and only
/// one half of the autoencoder runs at a time.
fn together(bundle: &Bundle, keys: &[NetworkKey], lowering: Lowering) -> Result<u64> {
    let (mut total, mut passing, mut shared) = (0, 0, HashSet::new());
    for key in keys.iter().filter(|key| lowering == Lowering::Portable || !key.runs_on_cpu()) {
        let (graph, folded) = bundle.folded(key, lowering)?;
        let there = folded.into_iter().filter(|tensor| tensor.shareable && !shared.insert(tensor.numbers.clone()));
        let memory = memory::predict(&graph);
        total += memory.weights - there.map(|tensor| tensor.length()).sum::<u64>();
        let (working, own) = working(&memory, lowering);
        total += own;
        if key.is_autoencoder() {
            passing = passing.max(working);
        } else {
            total += working;
        }
    }
    Ok(total + passing)
}

/// Bytes that a network works in, and bytes that its libraries keep.
fn working(memory: &Memory, lowering: Lowering) -> (u64, u64) {
    match lowering {
        Lowering::Cuda(_) => (memory.activations * GAPS.0 / GAPS.1, EACH_ON_CUDA),
        Lowering::Portable => (memory.activations, 0),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use motionclone_onnx::graph::cuda::Fused;

    use super::*;

    #[test]
    fn what_networks_share_is_counted_once() {
        let bundle = Bundle::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("onnx/demo/bundle")).unwrap();
        let settings = Settings::new(&bundle.manifest.defaults, "");
        let keys = |lowering| {
            let shape = bundle.unet_shape(&settings, None, lowering);
            let guided = NetworkKey::Guided(shape.clone(), settings.blocks.clone(), Forward::Recomputed);
            [guided, NetworkKey::Denoiser(shape)]
        };
        let bytes = |keys: &[NetworkKey], lowering| together(&bundle, keys, lowering).unwrap();

        let lowering = Lowering::Cuda(Fused::ALL);
        let [guided, denoiser] = keys(lowering);
        let alone = bytes(std::slice::from_ref(&denoiser), lowering);
        let both = bytes(&[guided.clone(), denoiser.clone()], lowering);
        let more = both - bytes(&[guided], lowering);
        let memory = memory::predict(&bundle.folded(&denoiser, lowering).unwrap().0);
        println!("the denoiser alone takes {alone} bytes, beside the guided network {more}");
        let (working, own) = working(&memory, lowering);
        assert_eq!(alone, memory.weights + working + own);
        // Only what is too small to share, or kept in full precision, comes twice.
        let work = working + own;
        assert!(more >= work && more - work < memory.weights / 5, "{more} {memory:?}");
        // The same network twice brings nothing new to share.
        assert_eq!(bytes(&[denoiser.clone(), denoiser], lowering), alone + more);

        let portable = keys(Lowering::Portable);
        let sum: u64 = portable.iter().map(|key| bytes(std::slice::from_ref(key), Lowering::Portable)).sum();
        assert_eq!(bytes(&portable, Lowering::Portable), sum);
    }
}
