//! A bundle with the device it runs on, and the networks that are loaded.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use motionclone_onnx::graph::{Element, Graph, Layout, write};
use motionclone_onnx::manifest::Manifest;
use motionclone_onnx::model::unet3d::UnetShape;
use motionclone_onnx::model::vae::VaeShape;
use ndarray::{ArrayD, IxDyn};

use crate::bundle::{Bundle, NetworkKey};
use crate::error::{Error, Result};
use crate::session::{Cancel, Device, Input, Network, RunSettings, Runtime};
use crate::settings::Settings;

/// How an engine is opened.
#[derive(Debug, Clone, Default)]
pub struct EngineOptions {
    /// Where networks run.
    pub device: Device,
    /// The ONNX Runtime library; found by itself when absent (see [`Runtime::load`]).
    pub runtime: Option<PathBuf>,
    /// CPU threads; one a core when absent.
    pub threads: Option<usize>,
}

/// A bundle, a device, and loaded networks, which stay from one job to the next while the sizes stay the same.
pub struct Engine {
    pub(crate) bundle: Bundle,
    runtime: &'static Runtime,
    run: RunSettings,
    device: String,
    networks: HashMap<NetworkKey, Network>,
}

impl Engine {
    /// Opens a bundle on a device.
    ///
    /// # Errors
    /// When the bundle is not valid, ONNX Runtime cannot be loaded, or the device asked for does not work.
    pub fn open(bundle: &Path, options: &EngineOptions) -> Result<Self> {
        let bundle = Bundle::open(bundle)?;
        let runtime = Runtime::load(options.runtime.as_deref())?;
        let mut run = RunSettings { threads: options.threads, cuda: None };
        let device = match options.device {
            Device::Cpu => "CPU".to_string(),
            Device::Cuda(number) => {
                run.cuda = Some(number);
                probe(runtime, &run)
                    .map_err(|e| Error::input(format!("CUDA device {number} does not work here: {e}")))?;
                format!("CUDA device {number}")
            }
            Device::Auto => {
                let cuda = RunSettings { cuda: Some(0), ..run.clone() };
                match probe(runtime, &cuda) {
                    Ok(()) => {
                        run = cuda;
                        "CUDA device 0".into()
                    }
                    Err(_) => "CPU".into(),
                }
            }
        };
        if run.cuda.is_none() {
            probe(runtime, &run)?;
        }
        Ok(Self { bundle, runtime, run, device, networks: HashMap::new() })
    }

    /// What the bundle holds.
    pub fn manifest(&self) -> &Manifest {
        &self.bundle.manifest
    }

    /// The opened bundle.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Where networks run, for people.
    pub fn device_name(&self) -> &str {
        &self.device
    }

    /// Where networks run.
    pub fn device(&self) -> Device {
        self.run.cuda.map_or(Device::Cpu, Device::Cuda)
    }

    /// The ONNX Runtime in use.
    pub fn runtime(&self) -> &'static Runtime {
        self.runtime
    }

    /// A network, loaded when it is not yet.
    ///
    /// # Errors
    /// When a weight is missing or ONNX Runtime refuses the model.
    pub fn network(&mut self, key: &NetworkKey) -> Result<&mut Network> {
        if !self.networks.contains_key(key) {
            let network = self.bundle.load(self.runtime, key, &self.run)?;
            self.networks.insert(key.clone(), network);
        }
        self.networks.get_mut(key).ok_or_else(|| Error::failure("a loaded network is gone"))
    }

    /// Frees every loaded network that is not named.
    pub fn keep(&mut self, keys: &[NetworkKey]) {
        self.networks.retain(|key, _| keys.contains(key));
    }

    /// The sizes of a run's autoencoder.
    pub fn vae_shape(&self, settings: &Settings) -> VaeShape {
        self.bundle.vae_shape(settings)
    }

    /// The sizes of a run's UNet.
    pub fn unet_shape(&self, settings: &Settings) -> UnetShape {
        self.bundle.unet_shape(settings, settings.control.as_ref().map(|c| c.kind))
    }

    /// A prompt's text embeddings `[1, tokens, c]`, and the part of the prompt that did not fit.
    ///
    /// # Errors
    /// When the network fails or the run is cancelled.
    pub fn encode_text(&mut self, prompt: &str, cancel: &Cancel) -> Result<(ArrayD<f32>, Option<String>)> {
        let length = self.bundle.manifest.text_encoder.max_positions;
        let tokens = self.bundle.tokenizer.encode(prompt, length)?;
        let ids = ArrayD::from_shape_vec(IxDyn(&[1, length]), tokens.ids)
            .map_err(|e| Error::failure(format!("token ids: {e}")))?;
        let network = self.network(&NetworkKey::TextEncoder)?;
        let embeddings = network.run(&[("input_ids", Input::Integers(&ids))], cancel)?.array("text_embeddings")?;
        Ok((embeddings, tokens.cut))
    }
}

/// The devices that networks can run on here: the CPU, and every CUDA device that works.
pub fn devices(runtime: &Runtime) -> Vec<Device> {
    let cuda = (0..).take_while(|number| {
        runtime.has_cuda() && probe(runtime, &RunSettings { threads: None, cuda: Some(*number) }).is_ok()
    });
    std::iter::once(Device::Cpu).chain(cuda.map(Device::Cuda)).collect()
}

/// Runs a sum of two numbers on a device, to know that its provider loads and works.
fn probe(runtime: &Runtime, run: &RunSettings) -> Result<()> {
    let mut g = Graph::new("probe", Element::Float32, Layout::ChannelsFirst);
    let x = g.input("x", Element::Float32, &[1]);
    let y = g.add(x, x)?;
    g.output("y", y);
    let mut network = Network::load(runtime, "probe", &write::to_onnx(&g, "")?, Path::new("."), run)?;
    let one = ArrayD::from_elem(IxDyn(&[1]), 1.0);
    let two = network.run(&[("x", Input::Array(&one))], &Cancel::default())?.array("y")?;
    if two.first() == Some(&2.0) { Ok(()) } else { Err(Error::failure("it adds one and one to something else")) }
}
