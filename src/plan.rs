//! How much memory a job takes, and what is done to keep it within a budget.

use std::collections::HashSet;

use motionclone_onnx::graph::{Forward, memory};

use crate::bundle::{Bundle, Lowering, NetworkKey};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::session::gigabytes;
use crate::settings::Settings;

/// What CUDA and its libraries take of a device besides the networks, in bytes; measured, with some room.
const CUDA: u64 = 900 << 20;

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

    /// Chooses the plan of the next job, where there is a budget; then nothing stays of the jobs before.
    pub(crate) fn prepare(&mut self, settings: &Settings) -> Result<()> {
        if self.memory_budget().is_some() {
            self.economy = self.plan(settings)?.economy;
            self.keep(&[]);
        }
        Ok(())
    }

    /// The networks that are there at once in each part of a job.
    fn parts(&self, settings: &Settings, economy: Economy) -> Vec<Vec<NetworkKey>> {
        let (vae, unet) = (self.vae_shape(settings), self.unet_shape(settings));
        let blocks = &settings.blocks;
        let control = settings.control.as_ref().map(|control| NetworkKey::Control(control.kind, unet.clone()));
        let guided = NetworkKey::Guided(unet.clone(), blocks.clone(), economy.forward());
        let extractor = NetworkKey::Extractor(unet.clone(), blocks.clone());
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

/// Bytes of networks that are there at once. A weight that several share is there once.
fn together(bundle: &Bundle, keys: &[NetworkKey], lowering: Lowering) -> Result<u64> {
    let (mut total, mut shared) = (0, HashSet::new());
    for key in keys {
        let (graph, folded) = bundle.folded(key, lowering)?;
        let there = folded.into_iter().filter(|tensor| tensor.shareable && !shared.insert(tensor.name.clone()));
        total += memory::predict(&graph).total() - there.map(|tensor| tensor.length()).sum::<u64>();
    }
    Ok(total)
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
        assert_eq!(alone, memory.total());
        // Only what is too small to share, or kept in full precision, comes twice.
        assert!(more >= memory.activations && more - memory.activations < memory.weights / 5, "{more} {memory:?}");
        // The same network twice brings nothing new to share.
        assert_eq!(bytes(&[denoiser.clone(), denoiser], lowering), alone + more);

        let portable = keys(Lowering::Portable);
        let sum: u64 = portable.iter().map(|key| bytes(std::slice::from_ref(key), Lowering::Portable)).sum();
        assert_eq!(bytes(&portable, Lowering::Portable), sum);
    }
}
