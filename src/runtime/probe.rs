//! The devices that work here, and what they run.

use std::path::Path;

use motionclone_onnx::graph::{Element, Graph, Layout, Lowering, write};
use ndarray::{ArrayD, IxDyn};

use super::device::{Device, DeviceGuard};
use super::kernels;
use super::library::Runtime;
use super::network::Network;
use super::options::RunSettings;
use super::tensor::Input;
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// The devices that networks can run on here: the CPU, and every CUDA device that works.
pub fn devices(runtime: &Runtime) -> Vec<Device> {
    let cuda = (0..).take_while(|number| {
        runtime.has_cuda() && probe(runtime, &RunSettings { cuda: Some(*number), ..Default::default() }).is_ok()
    });
    std::iter::once(Device::Cpu).chain(cuda.map(Device::Cuda)).collect()
}

/// Takes the project's own kernels that the device does not run out of the lowering; returns why it does not.
pub(crate) fn leave_out_kernels(run: &mut RunSettings) -> Option<String> {
    let (Some(device), Lowering::Cuda(fused)) = (run.cuda, run.lowering) else { return None };
    let _guard = DeviceGuard::shared(run.cuda);
    let (usable, reason) = kernels::usable(device, fused);
    run.lowering = Lowering::Cuda(usable);
    reason
}

/// Runs a sum of two numbers on a device, to know that its provider loads and works.
pub(crate) fn probe(runtime: &Runtime, run: &RunSettings) -> Result<()> {
    let mut g = Graph::new("probe", Element::Float32, Layout::ChannelsFirst);
    let x = g.input("x", Element::Float32, &[1]);
    let y = g.add(x, x)?;
    g.output("y", y);
    let mut run = RunSettings { profile: None, cuda_graph: false, ..run.clone() };
    if let Lowering::Cuda(fused) = run.lowering {
        // Whether a GPU runs those is another question.
        run.lowering = Lowering::Cuda(fused.without_kernels());
    }
    let mut network =
        Network::load(runtime, "probe", &write::to_onnx(&g, "", write::Shapes::Known)?, Path::new("."), &run)?;
    let one = ArrayD::from_elem(IxDyn(&[1]), 1.0);
    let two = network.run(&[("x", Input::Array(&one))], &Cancel::default())?.array("y")?;
    if two.first() == Some(&2.0) { Ok(()) } else { Err(Error::failure("it adds one and one to something else")) }
}
