//! The UNet as the method calls it. Tensor names, weights that are zero, and which network stands in for another are known
//! here alone.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use motionclone_onnx::manifest::Manifest;
use ndarray::{ArrayD, IxDyn};
use ort::value::DynValue;

use crate::cancel::Cancel;
use crate::engine::Engine;
use crate::error::Result;
use crate::motion::MotionMaps;
use crate::motion::guidance::{self, MotionTarget};
use crate::networks::{JobNetworks, NetworkKey, StepKind};
use crate::pipeline::control::Conditioning;
use crate::runtime::{Input, Outputs};

/// Attention probabilities `[positions, heads, frames, frames]` by the attention module's name.
pub type AttentionMaps = BTreeMap<String, ArrayD<f32>>;

/// The UNet of one job, in the frames that its network reads at once.
pub struct Unet<'a> {
    engine: &'a mut Engine,
    networks: &'a JobNetworks,
    cancel: &'a Cancel,
    step: StepKind,
    /// No motion, for the guided network where it stands in for another.
    unguided: Option<Guide>,
}

/// The inputs of one prediction.
pub struct Conditioned<'a> {
    /// `[1, 4, frames, h, w]`.
    pub latents: &'a ArrayD<f32>,
    /// Training timestep, `[1]`.
    pub timestep: &'a DynValue,
    /// Text embeddings `[1, tokens, c]`.
    pub text: &'a DynValue,
    /// SparseCtrl's condition, where the job has a control.
    pub control: Option<&'a Conditioning>,
}

/// The motion that guided predictions follow, in the device's memory: target and weight of each guided attention map.
pub struct Guide {
    inputs: Vec<(String, Arc<DynValue>)>,
    modules: Vec<String>,
}

/// A guided prediction.
pub struct Guided {
    /// Predicted noise.
    pub noise: ArrayD<f32>,
    /// The guided attention maps, flat.
    pub maps: BTreeMap<String, Vec<f32>>,
    /// The motion loss's gradient at the latents.
    pub gradient: ArrayD<f32>,
}

impl Guide {
    /// # Errors
    /// When the maps' indices lie outside their shapes, or there is no memory for them.
    pub fn new(engine: &Engine, motion: &MotionMaps) -> Result<Self> {
        let mut inputs = Vec::new();
        for (name, MotionTarget { target, weight }) in guidance::motion_targets(motion)? {
            inputs.push((format!("target.{name}"), Arc::new(engine.tensor(target.into_dyn())?)));
            inputs.push((format!("weight.{name}"), Arc::new(engine.tensor(weight.into_dyn())?)));
        }
        Ok(Self { inputs, modules: motion.keys().cloned().collect() })
    }

    fn zeros(engine: &Engine, networks: &JobNetworks) -> Result<Self> {
        let mut inputs = Vec::new();
        for (name, shape) in networks.maps() {
            let zeros = Arc::new(engine.tensor(ArrayD::zeros(IxDyn(&shape)))?);
            inputs.extend([(format!("target.{name}"), zeros.clone()), (format!("weight.{name}"), zeros)]);
        }
        Ok(Self { inputs, modules: Vec::new() })
    }
}

impl<'a> Unet<'a> {
    /// The UNet of a job on an engine.
    pub fn new(engine: &'a mut Engine, networks: &'a JobNetworks, cancel: &'a Cancel) -> Self {
        Self { engine, networks, cancel, step: StepKind::default(), unguided: None }
    }

    /// The bundle's manifest.
    pub fn manifest(&self) -> &Manifest {
        self.engine.manifest()
    }

    /// A tensor that is made once and given to many predictions.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn tensor(&self, array: ArrayD<f32>) -> Result<DynValue> {
        self.engine.tensor(array)
    }

    /// Begins a step, all of whose predictions may be made in turn: frees the networks that it does not need, where they
    /// do not stay.
    pub fn begin_step(&mut self, step: StepKind) {
        self.step = step;
        self.engine.make_room(self.networks, &self.networks.of_step(step));
    }

    /// Predicts the noise.
    ///
    /// # Errors
    /// When a network fails or the run is cancelled.
    pub fn predict(&mut self, at: &Conditioned) -> Result<ArrayD<f32>> {
        self.run(&self.networks.predictor(self.step), at, None)?.array("noise")
    }

    /// Predicts the noise, with the attention maps and the gradient of the motion loss, whose weight is `weight`.
    ///
    /// # Errors
    /// When a network fails or the run is cancelled.
    pub fn predict_guided(&mut self, at: &Conditioned, guide: &Guide, weight: f64) -> Result<Guided> {
        let outputs = self.run(&self.networks.guided(), at, Some((guide, weight)))?;
        let map = |name: &String| {
            let map = outputs.array(&format!("attention.{name}"))?;
            Ok((name.clone(), map.into_raw_vec_and_offset().0))
        };
        Ok(Guided {
            maps: guide.modules.iter().map(map).collect::<Result<_>>()?,
            noise: outputs.array("noise")?,
            gradient: outputs.array("gradient")?,
        })
    }

    /// The attention maps of the guided blocks.
    ///
    /// # Errors
    /// When a network fails or the run is cancelled.
    pub fn attention(&mut self, at: &Conditioned) -> Result<AttentionMaps> {
        self.engine.make_room(self.networks, &self.networks.of_extraction());
        let outputs = self.run(&self.networks.extractor(), at, None)?;
        let map = |(name, _): (&String, _)| Ok((name.clone(), outputs.array(&format!("attention.{name}"))?));
        self.networks.maps().map(map).collect()
    }

    fn run(&mut self, key: &NetworkKey, at: &Conditioned, guide: Option<(&Guide, f64)>) -> Result<Outputs> {
        let residuals = self.residuals(at)?;
        let takes_guide = matches!(key, NetworkKey::Guided(..));
        if takes_guide && guide.is_none() && self.unguided.is_none() {
            self.unguided = Some(Guide::zeros(self.engine, self.networks)?);
        }
        let guide = guide.or_else(|| self.unguided.as_ref().map(|guide| (guide, 0.0))).filter(|_| takes_guide);
        let weight = ArrayD::from_elem(IxDyn(&[1]), guide.map_or(0.0, |(_, weight)| weight as f32));
        let mut inputs = vec![
            ("latents", Input::Array(at.latents)),
            ("timestep", Input::Value(at.timestep)),
            ("text_embeddings", Input::Value(at.text)),
        ];
        inputs.extend(residuals.iter().map(|(name, value)| (name.as_str(), Input::Value(value))));
        if let Some((guide, _)) = guide {
            inputs.push(("motion_scale", Input::Array(&weight)));
            inputs.extend(guide.inputs.iter().map(|(name, value)| (name.as_str(), Input::Value(value))));
        }
        self.engine.network(key, self.cancel)?.run(&inputs, self.cancel)
    }

    /// SparseCtrl's residuals by input name; none without a control.
    fn residuals(&mut self, at: &Conditioned) -> Result<HashMap<String, DynValue>> {
        let (Some(key), Some(Conditioning { condition, scale })) = (self.networks.control(), at.control) else {
            return Ok(HashMap::new());
        };
        let inputs = [
            ("timestep", Input::Value(at.timestep)),
            ("text_embeddings", Input::Value(at.text)),
            ("condition", Input::Value(condition)),
            ("control_scale", Input::Value(scale)),
        ];
        Ok(self.engine.network(&key, self.cancel)?.run(&inputs, self.cancel)?.into_values())
    }
}
