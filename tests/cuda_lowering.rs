//! The CUDA lowering on a CPU: its graphs with the operators that only CUDA has written out again in standard ones,
//! against the portable lowering, on the recorded model in float32 and in float16.

mod recorded;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use motionclone::Result;
use motionclone::bundle::{Bundle, Lowering, NetworkKey};
use motionclone::onnx::checkpoint::{ImportOptions, import};
use motionclone::onnx::graph::cuda::{self, Fused};
use motionclone::onnx::graph::gradient::{Forward, gradient};
use motionclone::onnx::graph::ir::Node;
use motionclone::onnx::graph::{Element, Graph, Layout, Op, Value, fold, portable, write};
use motionclone::onnx::manifest::WEIGHTS_FILE;
use motionclone::onnx::model::config::ControlKind;
use motionclone::onnx::model::sparsectrl;
use motionclone::onnx::model::unet3d::{self, UnetShape};
use motionclone::onnx::model::vae::{self, VaeShape};
use motionclone::random::CpuGenerator;
use motionclone::session::{Cancel, Input, Network, RunSettings, Runtime, half_tensor};
use ndarray::{ArrayD, IxDyn};

const FIRST: [usize; 4] = [0, 3, 1, 2];
const LAST: [usize; 4] = [0, 2, 3, 1];

/// Writes out what only CUDA has: its operators' definitions, in float32 where they promise that. What the CPU has too
/// (`MultiHeadAttention`, `SkipLayerNormalization`, `QuickGelu`, `FusedMatMul`) stays.
fn for_cpu(graph: &Graph) -> Graph {
    let standard = graph.rewrite(|g, node, x| match &node.op {
        Op::NhwcConv { stride, padding } => {
            let (map, weight) = (g.transpose(x[0], &FIRST)?, g.transpose(x[1], &FIRST)?);
            let y = g.node(Op::Conv { stride: *stride, padding: *padding }, &[map, weight])?;
            Ok(vec![g.transpose(y, &LAST)?])
        }
        Op::NhwcGroupNorm { groups, epsilon, silu } => Ok(vec![norm(g, *groups, *epsilon, *silu, x[0], x[1], x[2])?]),
        Op::SkipGroupNorm { groups, epsilon, silu } => {
            let shape = g.shape(x[0]).to_vec();
            let skip = if g.shape(x[3]).len() == 2 { g.reshape(x[3], &[shape[0], 1, 1, shape[3]])? } else { x[3] };
            let mut sum = g.add(x[0], skip)?;
            if let Some(shift) = x.get(4) {
                sum = g.add(sum, *shift)?;
            }
            Ok(vec![norm(g, *groups, *epsilon, *silu, sum, x[1], x[2])?, sum])
        }
        Op::BiasSplitGelu => {
            let sum = g.add(x[0], x[1])?;
            Ok(vec![g.node(Op::Geglu, &[sum])?])
        }
        _ => keep(g, node, x),
    });
    portable::lower(&standard.unwrap()).unwrap()
}

fn keep(g: &mut Graph, node: &Node, x: &[Value]) -> Result<Vec<Value>> {
    g.node_outputs(node.op.clone(), x)
}

fn norm(g: &mut Graph, groups: usize, epsilon: f32, silu: bool, x: Value, scale: Value, bias: Value) -> Result<Value> {
    let element = g.info(x).element;
    let full = g.cast(x, Element::Float32)?;
    let map = g.transpose(full, &FIRST)?;
    let mut y = g.node(Op::GroupNorm { groups, epsilon }, &[map, scale, bias])?;
    if silu {
        y = g.silu(y)?;
    }
    let y = g.transpose(y, &LAST)?;
    g.cast(y, element)
}

fn run(graph: &Graph, folder: &Path, inputs: &BTreeMap<String, ArrayD<f32>>) -> BTreeMap<String, ArrayD<f32>> {
    let file = folder.join(WEIGHTS_FILE);
    let (graph, tensors) = if graph.precision == Element::Float16 && file.exists() {
        fold::weights(graph, &file).unwrap()
    } else {
        (graph.clone(), Vec::new())
    };
    let weights = tensors.into_iter().map(|t| (t.name, half_tensor(t.shape, t.data).unwrap())).collect();
    let model = write::to_onnx(&graph, WEIGHTS_FILE).unwrap();
    let runtime = Runtime::load(None).unwrap();
    let settings = RunSettings::default();
    let mut network = Network::load_with(runtime, &graph.name, &model, folder, weights, &settings).unwrap();
    let wanted: Vec<String> = graph.inputs().iter().map(|v| graph.info(*v).name.clone()).collect();
    let given: Vec<(&str, Input)> =
        wanted.iter().map(|name| (name.as_str(), Input::Array(&inputs[name.as_str()]))).collect();
    let outputs = network.run(&given, &Cancel::default()).unwrap();
    graph.outputs().iter().map(|(name, _)| (name.clone(), outputs.array(name).unwrap())).collect()
}

fn relative(a: &ArrayD<f32>, b: &ArrayD<f32>) -> f64 {
    assert_eq!(a.shape(), b.shape());
    let square = |a: f32| f64::from(a).powi(2);
    let difference: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
    (difference / b.iter().map(|b| square(*b)).sum::<f64>()).sqrt()
}

fn cosine(a: &ArrayD<f32>, b: &ArrayD<f32>) -> f64 {
    let dot =
        |a: &ArrayD<f32>, b: &ArrayD<f32>| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Some normal numbers for each input, and probabilities for what stands for attention.
fn draw(graph: &Graph) -> BTreeMap<String, ArrayD<f32>> {
    let mut draws = CpuGenerator::new(5);
    let mut inputs = BTreeMap::new();
    for value in graph.inputs() {
        let info = graph.info(*value);
        let mut numbers = draws.randn(info.elements());
        match info.name.split('.').next().unwrap() {
            "timestep" => numbers.fill(601.0),
            "control_scale" => numbers.fill(0.8),
            "motion_scale" => numbers.fill(2000.0),
            "target" => numbers.iter_mut().for_each(|n| *n = 1.0 / (1.0 + n.exp())),
            "weight" => {
                let kept = 2.0 / (info.elements() / info.shape[3]) as f32;
                numbers
                    .iter_mut()
                    .enumerate()
                    .for_each(|(at, n)| *n = if at % info.shape[3] == 2 { kept } else { 0.0 });
            }
            _ => {}
        }
        inputs.insert(info.name.clone(), ArrayD::from_shape_vec(IxDyn(&info.shape), numbers).unwrap());
    }
    inputs
}

fn bundle(folder: &Path) -> Bundle {
    let checkpoints = recorded::golden().join("checkpoints");
    let options = ImportOptions {
        base: checkpoints.join("StableDiffusion"),
        motion_module: Some(checkpoints.join("v3_sd15_mm.ckpt")),
        dreambooth: Some(checkpoints.join("dreambooth.safetensors")),
        sparsectrl_scribble: Some(checkpoints.join("v3_sd15_sparsectrl_scribble.ckpt")),
        sparsectrl_config: Some(checkpoints.join("sparsectrl_configs.json")),
        model_config: Some(checkpoints.join("model_config.json")),
        out: folder.join("bundle"),
        ..Default::default()
    };
    import(&options, &mut |_| ControlFlow::Continue(())).unwrap();
    Bundle::open(&options.out).unwrap()
}

fn unet_shape(precision: Element, layout: Layout, height: usize, control: Option<ControlKind>) -> UnetShape {
    UnetShape { batch: 1, frames: 4, height, width: 16, tokens: 77, control, precision, layout }
}

/// Each network's graph in channels last, and as the portable lowering takes it.
fn networks(bundle: &Bundle, precision: Element, layout: Layout, values: Forward) -> Vec<Graph> {
    let blocks = ["up_blocks.1".to_string()];
    let (weights, manifest) = (&bundle.weights, &bundle.manifest);
    let plain = unet_shape(precision, layout, 16, None);
    // Rows that are no multiple of eight, and SparseCtrl's residuals.
    let odd = unet_shape(precision, layout, 12, Some(ControlKind::Scribble));
    let image = VaeShape { height: 4, width: 8, precision, layout };
    let control = &manifest.controls[&ControlKind::Scribble];
    vec![
        unet3d::denoiser(weights, &manifest.unet, &odd).unwrap(),
        unet3d::extractor(weights, &manifest.unet, &plain, &blocks).unwrap(),
        unet3d::guided(weights, &manifest.unet, &odd, &blocks, values).unwrap(),
        sparsectrl::control(weights, control, ControlKind::Scribble, &odd).unwrap(),
        vae::encoder(weights, &manifest.vae, &image).unwrap(),
        vae::decoder(weights, &manifest.vae, &image).unwrap(),
    ]
}

/// The largest relative error of any output; for the gradient 1 − cosine.
fn errors(found: &BTreeMap<String, ArrayD<f32>>, expected: &BTreeMap<String, ArrayD<f32>>) -> (f64, f64) {
    let (mut worst, mut turned) = (0f64, 0f64);
    for (name, found) in found {
        assert!(found.iter().all(|v| v.is_finite()), "{name}");
        if name == "gradient" {
            turned = 1.0 - cosine(found, &expected[name]);
        }
        worst = worst.max(relative(found, &expected[name]));
    }
    (worst, turned)
}

#[test]
fn every_network_equals_its_portable_form() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = bundle(folder.path());
    let none = Fused {
        convolution: false,
        reversed_gradient: false,
        group_norm: false,
        skip_group_norm: false,
        skip_layer_norm: false,
        attention: false,
        split_gelu: false,
        swish: false,
    };
    let reference = networks(&bundle, Element::Float32, Layout::ChannelsFirst, Forward::Kept);
    let full = networks(&bundle, Element::Float32, Layout::ChannelsLast, Forward::Recomputed);
    let half = networks(&bundle, Element::Float16, Layout::ChannelsLast, Forward::Recomputed);
    let mut kept = networks(&bundle, Element::Float32, Layout::ChannelsLast, Forward::Kept);
    let kept = kept.swap_remove(2);
    for ((reference, full), half) in reference.iter().zip(&full).zip(&half) {
        let inputs = draw(reference);
        let expected = run(&portable::lower(reference).unwrap(), bundle.folder(), &inputs);
        let mut ways = vec![(Fused::ALL, full, 1e-4, 1e-6), (Fused::ALL, half, 4e-2, 1e-3)];
        if reference.name == "guided" {
            ways.push((none, full, 1e-4, 1e-6));
            ways.push((Fused::ALL, &kept, 1e-4, 1e-6));
        }
        for (fused, graph, bound, turned) in ways {
            let lowered = for_cpu(&cuda::lower(graph, fused).unwrap());
            let found = errors(&run(&lowered, bundle.folder(), &inputs), &expected);
            println!(
                "{:<18} {:?} error {:.2e}, gradient turned by {:.2e}",
                graph.name, graph.precision, found.0, found.1
            );
            assert!(found.0 <= bound && found.1 <= turned, "{} in {:?}", graph.name, graph.precision);
        }
    }
}

/// A graph of two inputs at a width that the recorded model does not have, forward and backward.
fn check_alone(name: &str, shapes: &[&[usize]], build: &dyn Fn(&mut Graph, &[Value]) -> Result<Value>) -> Graph {
    let author = |layout: Layout| {
        let mut g = Graph::new(name, Element::Float32, layout);
        let inputs: Vec<Value> =
            shapes.iter().enumerate().map(|(i, shape)| g.input(format!("x{i}"), Element::Float32, shape)).collect();
        let y = build(&mut g, &inputs).unwrap();
        let shape = g.shape(y).to_vec();
        let seed = g.input("c", Element::Float32, &shape);
        let dx = gradient(&mut g, &[(y, seed)], inputs[0], Forward::Kept).unwrap();
        g.output("y", y);
        g.output("dx", dx);
        g
    };
    let reference = author(Layout::ChannelsFirst);
    let inputs = draw(&reference);
    let expected = run(&portable::lower(&reference).unwrap(), Path::new("."), &inputs);
    let lowered = cuda::lower(&author(Layout::ChannelsLast), Fused::ALL).unwrap();
    let found = errors(&run(&for_cpu(&lowered), Path::new("."), &inputs), &expected);
    assert!(found.0 < 1e-5, "{name}: {:.2e}", found.0);
    lowered
}

fn has(graph: &Graph, op: &str) -> bool {
    graph.live_nodes().iter().any(|node| node.op.name() == op)
}

#[test]
fn fused_operators_take_what_stands_around_them() {
    let shapes: [&[usize]; 3] = [&[1, 3, 16], &[2560, 16], &[2560]];
    let graph = check_alone("feed-forward", &shapes, &|g, x| {
        let h = g.node(Op::Linear { transpose: true }, x)?;
        g.node(Op::Geglu, &[h])
    });
    assert!(has(&graph, "BiasSplitGelu"));

    let shapes: [&[usize]; 6] = [&[2, 3, 8], &[8, 8], &[8], &[2, 3, 8], &[8], &[8]];
    let graph = check_alone("residual layer norm", &shapes, &|g, x| {
        let h = g.node(Op::Linear { transpose: true }, &x[..3])?;
        let sum = g.add(h, x[3])?;
        let normal = g.node(Op::LayerNorm { epsilon: 1e-5 }, &[sum, x[4], x[5]])?;
        g.add(normal, sum)
    });
    assert!(has(&graph, "SkipLayerNormalization"));
}

#[test]
fn only_channels_last_is_taken() {
    let g = Graph::new("g", Element::Float32, Layout::ChannelsFirst);
    assert!(cuda::lower(&g, Fused::ALL).is_err());
}

#[test]
fn keys_of_both_lowerings_name_their_precision() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = bundle(folder.path());
    let settings = motionclone::settings::Settings::new(&bundle.manifest.defaults, "");
    let lowering = Lowering::Cuda(Fused::ALL);
    let shape = bundle.unet_shape(&settings, None, lowering);
    assert_eq!((shape.precision, shape.layout), (Element::Float16, Layout::ChannelsLast));
    let graph = bundle.graph(&NetworkKey::Denoiser(shape), lowering).unwrap();
    for op in ["NhwcConv", "GroupNorm", "SkipGroupNorm", "SkipLayerNormalization", "MultiHeadAttention"] {
        assert!(has(&graph, op) || op == "GroupNorm" && has(&graph, "NhwcGroupNorm"), "{op}");
    }
    let text = bundle.graph(&NetworkKey::TextEncoder, lowering).unwrap();
    assert_eq!(text.precision, Element::Float32);
}
