//! The CUDA lowering on a CPU: its graphs with the operators that only CUDA has written out again in standard ones,
//! against the portable lowering, on the recorded model in float32 and in float16.

mod recorded;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use motionclone::Cancel;
use motionclone::Result;
use motionclone::bundle::Bundle;
use motionclone::networks::{self, NetworkKey};
use motionclone::onnx::checkpoint::{ImportOptions, import};
use motionclone::onnx::graph::cuda::{self, Fused};
use motionclone::onnx::graph::gradient::{Forward, gradient};
use motionclone::onnx::graph::ir::Node;
use motionclone::onnx::graph::kernel::SIGNATURES;
use motionclone::onnx::graph::{Element, Graph, KernelOp, Layout, Lowering, Op, Value, fold, portable, write};
use motionclone::onnx::manifest::WEIGHTS_FILE;
use motionclone::onnx::model::config::ControlKind;
use motionclone::onnx::model::sparsectrl;
use motionclone::onnx::model::unet3d::{self, UnetShape};
use motionclone::onnx::model::vae::{self, VaeShape};
use motionclone::random::CpuGenerator;
use motionclone::runtime::shared_weights::SharedWeights;
use motionclone::runtime::{Input, Network, RunSettings, Runtime};
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
        Op::Kernel(op) => kernel(g, op, x),
        _ => keep(g, node, x),
    });
    portable::lower(&standard.unwrap()).unwrap()
}

/// What a kernel of the project's own computes, in float32.
fn kernel(g: &mut Graph, op: &KernelOp, inputs: &[Value]) -> Result<Vec<Value>> {
    let elements: Vec<Element> = op.signature().outputs.to_vec();
    let mut x = Vec::new();
    for value in inputs {
        x.push(g.cast(*value, Element::Float32)?);
    }
    let outputs = match *op {
        KernelOp::TemporalAttention { heads } => vec![g.attention(x[0], x[1], x[2], heads)?],
        KernelOp::TemporalAttentionGradient { heads } => {
            let y = g.attention(x[0], x[1], x[2], heads)?;
            g.node_outputs(Op::AttentionGradient { heads, keys: true }, &[x[0], x[1], x[2], y, x[3]])?
        }
        KernelOp::AttentionStatistics { heads } => {
            let powers = powers(g, heads, x[0], x[1])?;
            let product = g.mul(x[2], x[3])?;
            let product = split(g, heads, product)?;
            let mut sums = Vec::new();
            for values in [powers, product] {
                let sum = g.reduce_sum(values, &[3])?;
                let shape = [g.shape(sum)[0] * heads, g.shape(sum)[2]];
                sums.push(g.reshape(sum, &shape)?);
            }
            // The kernel gives the logarithm of the first; here nothing else reads it.
            sums
        }
        KernelOp::AttentionQueryGradient { heads } | KernelOp::AttentionKeyGradient { heads } => {
            let mut parts = Vec::new();
            for value in &x[..4] {
                parts.push(split(g, heads, *value)?);
            }
            let [q, k, v, dy] = parts[..] else { unreachable!() };
            let shape = [g.shape(q)[0], heads, g.shape(q)[2], 1];
            let (total, along) = (g.reshape(x[4], &shape)?, g.reshape(x[5], &shape)?);
            let powers = powers(g, heads, x[0], x[1])?;
            let map = g.node(Op::Div, &[powers, total])?;
            let turned = g.swap_last(v)?;
            let inner = g.matmul(dy, turned)?;
            let inner = g.sub(inner, along)?;
            let inner = g.mul(map, inner)?;
            let inner = g.scale(inner, 1.0 / (g.shape(q)[3] as f32).sqrt())?;
            if let KernelOp::AttentionQueryGradient { .. } = op {
                let dq = g.matmul(inner, k)?;
                vec![merge(g, dq)?]
            } else {
                let (inner, map) = (g.swap_last(inner)?, g.swap_last(map)?);
                let (dk, dv) = (g.matmul(inner, q)?, g.matmul(map, dy)?);
                vec![merge(g, dk)?, merge(g, dv)?]
            }
        }
        KernelOp::ResidualSum { positions, frames } => {
            let (shape, channels) = (g.shape(x[2]).to_vec(), g.shape(x[1])[0]);
            let batch = shape.iter().product::<usize>() / (positions * frames * channels);
            let sequences = g.reshape(x[0], &[batch, positions, frames, channels])?;
            let turned = g.transpose(sequences, &[0, 2, 1, 3])?;
            let turned = g.reshape(turned, &shape)?;
            let sum = g.add(turned, x[1])?;
            vec![g.add(sum, x[2])?]
        }
        KernelOp::LayerNorm { epsilon, placed } | KernelOp::SumLayerNorm { epsilon, placed, .. } => {
            let mut sum = x[0];
            if let KernelOp::SumLayerNorm { skips, .. } = op {
                sum = g.add(sum, x[1])?;
                sum = if *skips { g.add(sum, x[2])? } else { sum };
            }
            let normal = g.node(Op::LayerNorm { epsilon }, &[sum, x[3], x[4]])?;
            let normal = if placed { g.add(normal, x[5])? } else { normal };
            if let KernelOp::SumLayerNorm { .. } = op { vec![sum, normal] } else { vec![normal] }
        }
        KernelOp::LayerNormGradient { epsilon } => vec![g.node(Op::LayerNormGradient { epsilon }, &x)?],
        KernelOp::GegluGradient => {
            let sum = g.add(x[0], x[1])?;
            vec![g.node(Op::GegluGradient, &[sum, x[2]])?]
        }
        KernelOp::NeighbourSum => {
            // The gradient of the convolution that sends each channel's nine neighbours to nine channels.
            let channels = g.shape(x[0])[3] / 9;
            let parts = g.transpose(x[0], &FIRST)?;
            let mut weight = vec![0.0; 9 * channels * channels * 9];
            for (part, channel) in (0..9).flat_map(|part| (0..channels).map(move |channel| (part, channel))) {
                weight[((part * channels + channel) * channels + channel) * 9 + part] = 1.0;
            }
            let weight = g.constant_of(Element::Float32, &weight, &[9 * channels, channels, 3, 3])?;
            let (height, width) = (g.shape(parts)[2], g.shape(parts)[3]);
            let op = Op::ConvTranspose { stride: 1, padding: [1; 4], height, width };
            let dx = g.node(op, &[parts, weight])?;
            vec![g.transpose(dx, &LAST)?]
        }
        // Of the sums over parts only their places are told: the statistics are ones, the sums of cotangents are twos.
        KernelOp::GroupNormStatistics { groups } => vec![places(g, op, inputs, groups)?],
        KernelOp::GroupNormSums { groups, .. } => {
            let ones = places(g, op, inputs, groups)?;
            vec![g.add(ones, x[1])?]
        }
        KernelOp::GroupNormGradient { groups, epsilon, silu } => {
            let map = g.transpose(x[0], &FIRST)?;
            let mut dy = g.transpose(x[5], &FIRST)?;
            if silu {
                let normal = g.node(Op::GroupNorm { groups, epsilon }, &[map, x[3], x[4]])?;
                dy = g.node(Op::SiluGradient, &[normal, dy])?;
            }
            let dx = g.node(Op::GroupNormGradient { groups, epsilon }, &[map, x[3], dy])?;
            let dx = g.transpose(dx, &LAST)?;
            // 1 where both sums are in their places.
            let (ones, twos) = (g.reduce_mean(x[1], &[1, 2, 3])?, g.reduce_mean(x[2], &[1, 2, 3])?);
            let difference = g.sub(twos, ones)?;
            vec![g.mul(dx, difference)?]
        }
    };
    outputs.into_iter().zip(elements).map(|(value, element)| g.cast(value, element)).collect()
}

/// Ones in the shape of a kernel's sums over parts of a feature map.
fn places(g: &mut Graph, op: &KernelOp, inputs: &[Value], groups: usize) -> Result<Value> {
    let copy = g.node_outputs(Op::Kernel(op.clone()), inputs)?;
    let shape = g.shape(copy[0]).to_vec();
    assert_eq!((shape[0], shape[2], shape[3]), (g.shape(inputs[0])[0], groups, 2));
    g.constant_of(Element::Float32, &vec![1.0; shape.iter().product()], &shape)
}

/// `[batch, tokens, heads · width]` as `[batch, heads, tokens, width]`.
fn split(g: &mut Graph, heads: usize, x: Value) -> Result<Value> {
    let (batch, tokens, channels) = (g.shape(x)[0], g.shape(x)[1], g.shape(x)[2]);
    let x = g.reshape(x, &[batch, tokens, heads, channels / heads])?;
    g.transpose(x, &[0, 2, 1, 3])
}

fn merge(g: &mut Graph, x: Value) -> Result<Value> {
    let x = g.transpose(x, &[0, 2, 1, 3])?;
    let shape = [g.shape(x)[0], g.shape(x)[1], g.shape(x)[2] * g.shape(x)[3]];
    g.reshape(x, &shape)
}

/// exp(q·kᵀ/√width)
fn powers(g: &mut Graph, heads: usize, q: Value, k: Value) -> Result<Value> {
    let (q, k) = (split(g, heads, q)?, split(g, heads, k)?);
    let turned = g.swap_last(k)?;
    let scores = g.matmul(q, turned)?;
    let scores = g.scale(scores, 1.0 / (g.shape(q)[3] as f32).sqrt())?;
    g.node(Op::Exp, &[scores])
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
        fold::weights(graph).unwrap()
    } else {
        (graph.clone(), Vec::new())
    };
    let model = write::to_onnx(&graph, WEIGHTS_FILE, write::Shapes::Known).unwrap();
    let runtime = Runtime::load(None).unwrap();
    let settings = RunSettings::default();
    let weights = SharedWeights::new(&settings).weights(&tensors, &file).unwrap();
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
        ..Fused::ALL.without_kernels()
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

/// A graph at a width that the recorded model does not have, forward and backward, in the precision of the lowering.
fn check_alone(
    name: &str,
    precision: Element,
    values: Forward,
    shapes: &[&[usize]],
    build: &dyn Fn(&mut Graph, &[Value]) -> Result<Value>,
) -> Graph {
    let author = |layout: Layout, precision: Element| {
        let mut g = Graph::new(name, precision, layout);
        let mut inputs = Vec::new();
        for (i, shape) in shapes.iter().enumerate() {
            let input = g.input(format!("x{i}"), Element::Float32, shape);
            inputs.push(g.cast(input, precision).unwrap());
        }
        let y = build(&mut g, &inputs).unwrap();
        let shape = g.shape(y).to_vec();
        let seed = g.input("c", Element::Float32, &shape);
        let seed = g.cast(seed, precision).unwrap();
        let dx = gradient(&mut g, &[(y, seed)], inputs[0], values).unwrap();
        for (name, value) in [("y", y), ("dx", dx)] {
            let value = g.cast(value, Element::Float32).unwrap();
            g.output(name, value);
        }
        g
    };
    let reference = author(Layout::ChannelsFirst, Element::Float32);
    let inputs = draw(&reference);
    let expected = run(&portable::lower(&reference).unwrap(), Path::new("."), &inputs);
    let lowered = cuda::lower(&author(Layout::ChannelsLast, precision), Fused::ALL).unwrap();
    let found = errors(&run(&for_cpu(&lowered), Path::new("."), &inputs), &expected);
    println!("{name}: {:.2e}", found.0);
    assert!(found.0 < if precision == Element::Float32 { 1e-5 } else { 5e-3 }, "{name}: {:.2e}", found.0);
    lowered
}

fn has(graph: &Graph, op: &str) -> bool {
    graph.live_nodes().iter().any(|node| node.op.name() == op)
}

#[test]
fn fused_operators_take_what_stands_around_them() {
    let shapes: [&[usize]; 3] = [&[1, 3, 16], &[2560, 16], &[2560]];
    let graph = check_alone("feed-forward", Element::Float32, Forward::Kept, &shapes, &|g, x| {
        let h = g.node(Op::Linear { transpose: true }, x)?;
        g.node(Op::Geglu, &[h])
    });
    assert!(has(&graph, "BiasSplitGelu"));

    let shapes: [&[usize]; 6] = [&[2, 3, 8], &[8, 8], &[8], &[2, 3, 8], &[8], &[8]];
    let graph = check_alone("residual layer norm", Element::Float32, Forward::Kept, &shapes, &|g, x| {
        let h = g.node(Op::Linear { transpose: true }, &x[..3])?;
        let sum = g.add(h, x[3])?;
        let normal = g.node(Op::LayerNorm { epsilon: 1e-5 }, &[sum, x[4], x[5]])?;
        g.add(normal, sum)
    });
    assert!(has(&graph, "SkipLayerNormalization"));
}

#[test]
fn kernels_take_the_place_of_what_they_compute() {
    for values in [Forward::Kept, Forward::Recomputed] {
        check_kernels(values);
    }
}

fn check_kernels(values: Forward) {
    let half = |name: &str, shapes: &[&[usize]], build: &dyn Fn(&mut Graph, &[Value]) -> Result<Value>| {
        check_alone(name, Element::Float16, values, shapes, build)
    };
    let kernels = |graph: &Graph| -> Vec<&str> {
        let mut names: Vec<&str> =
            graph.live_nodes().iter().filter(|n| matches!(n.op, Op::Kernel(_))).map(|n| n.op.name()).collect();
        names.sort_unstable();
        names
    };
    let attend = |g: &mut Graph, x: &[Value]| {
        let (k, v) = (g.scale(x[0], 0.5)?, g.scale(x[0], -1.5)?);
        g.attention(x[0], k, v, 2)
    };
    let graph = half("attention over frames", &[&[3, 5, 80]], &attend);
    assert_eq!(kernels(&graph), ["TemporalAttention", "TemporalAttentionGradient"]);
    let graph = half("attention over positions", &[&[2, 40, 80]], &attend);
    assert_eq!(kernels(&graph), ["AttentionKeyGradient", "AttentionQueryGradient", "AttentionStatistics"]);
    let graph = half("attention to a text", &[&[1, 40, 160], &[1, 7, 160]], &|g, x| g.attention(x[0], x[1], x[1], 2));
    assert_eq!(kernels(&graph), ["AttentionQueryGradient", "AttentionStatistics"]);

    let graph = half("layer norm", &[&[2, 3, 320], &[320], &[320]], &|g, x| g.node(Op::LayerNorm { epsilon: 1e-5 }, x));
    assert_eq!(kernels(&graph), ["FusedLayerNorm", "FusedLayerNormGradient"]);

    // A linear layer, its norm with places, and what both are added to afterwards.
    let shapes: [&[usize]; 5] = [&[6, 3, 320], &[320, 320], &[320], &[320], &[320]];
    let places: Vec<f32> = (0..3 * 320).map(|i| (i as f32).sin()).collect();
    for skips in [false, true] {
        let graph = half(&format!("norm of a sum, skip {skips}"), &shapes, &|g, x| {
            let h = g.node(Op::Linear { transpose: true }, &x[..3])?;
            let h = if skips { g.add(h, x[0])? } else { h };
            let normal = g.node(Op::LayerNorm { epsilon: 1e-5 }, &[h, x[3], x[4]])?;
            let places = g.constant(&places, &[1, 3, 320])?;
            let placed = g.add(normal, places)?;
            g.add(placed, h)
        });
        assert_eq!(kernels(&graph), ["FusedLayerNormGradient", "SumLayerNorm"]);
        let adds = graph.live_nodes().iter().filter(|n| n.op == Op::Add).count();
        // The last one, and those of the gradient.
        assert!(adds <= 3, "{adds} sums are left");
    }

    // Sequences turned to feature maps, onto what is there; and then normed.
    let shapes: [&[usize]; 5] = [&[6, 3, 320], &[320, 320], &[320], &[320], &[320]];
    for normed in [false, true] {
        let graph = half(&format!("residual sum, normed {normed}"), &shapes, &|g, x| {
            let h = g.node(Op::Linear { transpose: true }, &x[..3])?;
            let h = g.reshape(h, &[2, 3, 3, 320])?;
            let h = g.transpose(h, &[0, 2, 1, 3])?;
            let h = g.reshape(h, &[6, 3, 320])?;
            let sum = g.add(h, x[0])?;
            if normed { g.node(Op::LayerNorm { epsilon: 1e-5 }, &[sum, x[3], x[4]]) } else { Ok(sum) }
        });
        let names: &[&str] = if normed { &["FusedLayerNormGradient", "SumLayerNorm"] } else { &["ResidualSum"] };
        assert_eq!(kernels(&graph), names);
    }

    let graph = half("feed-forward", &[&[1, 3, 16], &[64, 16], &[64]], &|g, x| {
        let h = g.node(Op::Linear { transpose: true }, x)?;
        g.node(Op::Geglu, &[h])
    });
    assert_eq!(kernels(&graph), ["FusedGegluGradient"]);

    // Of a weight that is small, a second copy does no harm.
    for (out, names) in [(1024, &["NeighbourSum"][..]), (16, &[])] {
        let weight = [out, 512, 3, 3];
        let shapes: [&[usize]; 2] = [&[1, 512, 2, 3, 4], &weight];
        let graph = half(&format!("convolution to {out} channels"), &shapes, &|g, x| {
            let map = g.from_video(x[0])?;
            let weight = g.scale(x[1], 0.02)?;
            let y = g.node(Op::Conv { stride: 1, padding: [1; 4] }, &[map, weight])?;
            g.to_video(y, 2)
        });
        assert_eq!(kernels(&graph), names);
    }

    // Video in and out, since layouts differ.
    let video: [&[usize]; 3] = [&[1, 320, 2, 3, 4], &[320], &[320]];
    let norm = |silu: bool, twice: bool| {
        move |g: &mut Graph, x: &[Value]| {
            let map = g.from_video(x[0])?;
            let map = if twice { g.add(map, map)? } else { map };
            let y = g.node(Op::GroupNorm { groups: 32, epsilon: 1e-5 }, &[map, x[1], x[2]])?;
            let y = if silu { g.silu(y)? } else { y };
            g.to_video(y, 2)
        }
    };
    let names = ["FusedGroupNormGradient", "GroupNormStatistics", "GroupNormSums"];
    let sigmoids = |graph: &Graph| graph.live_nodes().iter().filter(|n| n.op == Op::Sigmoid).count();
    for silu in [false, true] {
        for twice in [false, true] {
            let name = format!("group norm, SiLU {silu}, of a sum {twice}");
            let graph = half(&name, &video, &norm(silu, twice));
            assert_eq!(kernels(&graph), names);
            assert_eq!(sigmoids(&graph), 0, "SiLU's gradient is part of the norm's");
        }
    }
}

#[test]
fn without_kernels_standard_operators_do_the_same() {
    let mut g = Graph::new("attention", Element::Float16, Layout::ChannelsLast);
    let x = g.input("x", Element::Float16, &[3, 5, 80]);
    let y = g.attention(x, x, x, 2).unwrap();
    let dx = gradient(&mut g, &[(y, x)], x, Forward::Kept).unwrap();
    g.output("dx", dx);
    let some = Fused::ALL.without_kernel("temporal_attention_gradient").without_kernel("attention_statistics");
    for (fused, own) in [(Fused::ALL, true), (some, false), (Fused::ALL.without_kernels(), false)] {
        let lowered = cuda::lower(&g, fused).unwrap();
        assert_eq!(lowered.live_nodes().iter().any(|node| matches!(node.op, Op::Kernel(_))), own);
    }
    let each = SIGNATURES.iter().fold(Fused::ALL, |fused, signature| {
        let without = Fused::ALL.without_kernel(signature.kernel);
        assert!(without != Fused::ALL && without.has_kernels(), "{}", signature.kernel);
        fused.without_kernel(signature.kernel)
    });
    assert_eq!(each, Fused::ALL.without_kernels());
}

#[test]
fn only_channels_last_is_taken() {
    let g = Graph::new("g", Element::Float32, Layout::ChannelsFirst);
    assert!(cuda::lower(&g, Fused::ALL).is_err());
}

#[test]
fn tensors_that_kernels_cannot_count_are_refused() {
    let lower = |rows: usize| {
        let mut g = Graph::new("g", Element::Float16, Layout::ChannelsLast);
        let x = g.input("x", Element::Float16, &[rows, 1 << 16]);
        let y = g.silu(x).unwrap();
        g.output("y", y);
        cuda::lower(&g, Fused::ALL)
    };
    assert!(lower((1 << 15) - 1).is_ok());
    let message = lower(1 << 15).unwrap_err().to_string();
    assert!(message.contains("2147483648 numbers") && message.contains("fewer frames"), "{message}");
}

#[test]
fn keys_of_both_lowerings_name_their_precision() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = bundle(folder.path());
    let settings = motionclone::settings::Settings::new(&bundle.manifest.defaults, "");
    let lowering = Lowering::Cuda(Fused::ALL);
    let shape = networks::unet_shape(&bundle.manifest, &settings, None, lowering);
    assert_eq!((shape.precision, shape.layout), (Element::Float16, Layout::ChannelsLast));
    let graph = NetworkKey::Denoiser(shape).graph(&bundle, lowering).unwrap();
    for op in ["NhwcConv", "GroupNorm", "SkipGroupNorm", "SkipLayerNormalization", "MultiHeadAttention"] {
        assert!(has(&graph, op) || op == "GroupNorm" && has(&graph, "NhwcGroupNorm"), "{op}");
    }
    let text = NetworkKey::TextEncoder.graph(&bundle, lowering).unwrap();
    assert_eq!(text.precision, Element::Float32);
}
