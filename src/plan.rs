//! How much memory a job takes, and what is done to keep it within a budget.

use motionclone_onnx::graph::{Forward, memory};

use crate::bundle::{Lowering, NetworkKey};
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
            let mut total = 0;
            for key in part {
                total += memory::predict(&self.bundle().graph(&key, self.lowering())?).total();
            }
            peak = peak.max(total);
        }
        Ok(peak + if self.on_cuda() { CUDA } else { 0 })
    }
}
