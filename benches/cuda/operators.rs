//! Each kind of layer alone, forward and backward, in float16 on the GPU against float32 on the CPU.

use std::path::Path;
use std::time::Instant;

use motionclone::Cancel;
use motionclone::onnx::graph::cuda::{self, Fused};
use motionclone::onnx::graph::gradient::{Forward, gradient};
use motionclone::onnx::graph::{Element, Graph, Layout, Lowering, Op, Value, portable, write};
use motionclone::random::CpuGenerator;
use motionclone::runtime::{Input, Network, RunSettings, Runtime};
use motionclone::{Error, Result};
use ndarray::ArrayD;

use crate::agreement::{cosine, drawn, relative};
use crate::device::Way;

/// Errors over this are a mistake and no rounding.
const BOUND: f64 = 2e-2;

/// The names of the project's own kernels, a family each: attention over frames, over positions, sums with norms, gradients
/// of norms, GEGLU.
const KERNELS: [&str; 5] =
    ["TemporalAttention", "AttentionStatistics", "SumLayerNorm", "NormGradient", "GegluGradient"];

/// Weights with the same numbers in every graph.
struct Draw(u64);

impl Draw {
    fn weight(&mut self, g: &mut Graph, shape: &[usize]) -> Result<Value> {
        self.0 += 1;
        let inputs = shape[1..].iter().product::<usize>().max(1);
        let (mean, spread) = if shape.len() == 1 { (1.0, 0.2) } else { (0.0, 1.0 / (inputs as f32).sqrt()) };
        let numbers = CpuGenerator::new(self.0).randn(shape.iter().product());
        // What half precision holds, in both precisions.
        let round = |n: f32| half::f16::from_f32(mean + spread * n).to_f32();
        g.constant(&numbers.into_iter().map(round).collect::<Vec<_>>(), shape)
    }
}

type Build = dyn Fn(&mut Graph, &mut Draw, Value) -> Result<Value>;

struct Case {
    name: &'static str,
    /// The operator to leave out when it fails, as messages name it.
    family: &'static str,
    /// A video `[1, channels, frames, rows, columns]`, or rows `[batch, rows, width]`.
    shape: &'static [usize],
    build: Box<Build>,
}

fn case(
    name: &'static str,
    family: &'static str,
    shape: &'static [usize],
    build: impl Fn(&mut Graph, &mut Draw, Value) -> Result<Value> + 'static,
) -> Case {
    Case { name, family, shape, build: Box::new(build) }
}

fn conv(
    out: usize,
    size: usize,
    stride: usize,
    padding: [usize; 4],
) -> impl Fn(&mut Graph, &mut Draw, Value) -> Result<Value> {
    move |g, draw, x| {
        let channels = g.feature_map(x)?.channels;
        let inputs = [x, draw.weight(g, &[out, channels, size, size])?, draw.weight(g, &[out])?];
        g.node(Op::Conv { stride, padding }, &inputs)
    }
}

fn group_norm(g: &mut Graph, draw: &mut Draw, groups: usize, x: Value) -> Result<Value> {
    let channels = g.feature_map(x)?.channels;
    let inputs = [x, draw.weight(g, &[channels])?, draw.weight(g, &[channels])?];
    g.node(Op::GroupNorm { groups, epsilon: 1e-5 }, &inputs)
}

fn linear(g: &mut Graph, draw: &mut Draw, out: usize, x: Value) -> Result<Value> {
    let width = g.shape(x)[2];
    let inputs = [x, draw.weight(g, &[out, width])?, draw.weight(g, &[out])?];
    g.node(Op::Linear { transpose: true }, &inputs)
}

fn attention(heads: usize, keys: usize) -> impl Fn(&mut Graph, &mut Draw, Value) -> Result<Value> {
    move |g, draw, x| {
        let (batch, width) = (g.shape(x)[0], g.shape(x)[2]);
        if keys == 0 {
            return g.attention(x, x, x, heads);
        }
        let text = draw.weight(g, &[batch, keys, width])?;
        let text = g.scale(text, (keys as f32 * width as f32).sqrt())?;
        g.attention(x, text, text, heads)
    }
}

fn layer_norm(g: &mut Graph, draw: &mut Draw, x: Value) -> Result<Value> {
    let width = g.shape(x)[2];
    let inputs = [x, draw.weight(g, &[width])?, draw.weight(g, &[width])?];
    g.node(Op::LayerNorm { epsilon: 1e-5 }, &inputs)
}

fn group_norm_and_silu(g: &mut Graph, draw: &mut Draw, x: Value) -> Result<Value> {
    let y = group_norm(g, draw, 32, x)?;
    g.silu(y)
}

/// Queries, keys and values that differ, as a model's do.
fn self_attention(heads: usize) -> impl Fn(&mut Graph, &mut Draw, Value) -> Result<Value> {
    move |g, draw, x| {
        let width = g.shape(x)[2];
        let mut parts = Vec::new();
        for _ in 0..3 {
            parts.push(linear(g, draw, width, x)?);
        }
        g.attention(parts[0], parts[1], parts[2], heads)
    }
}

fn feed_forward(width: usize) -> impl Fn(&mut Graph, &mut Draw, Value) -> Result<Value> {
    move |g, draw, x| {
        let h = linear(g, draw, width, x)?;
        g.node(Op::Geglu, &[h])
    }
}

/// As in a motion module: a residual sum, its norm, and what tells frames apart.
fn placed_norm(g: &mut Graph, draw: &mut Draw, x: Value) -> Result<Value> {
    let (frames, channels) = (g.shape(x)[1], g.shape(x)[2]);
    let h = linear(g, draw, channels, x)?;
    let sum = g.add(h, x)?;
    let normal = layer_norm(g, draw, sum)?;
    let places = draw.weight(g, &[frames, channels])?;
    let places = g.reshape(places, &[1, frames, channels])?;
    let placed = g.add(normal, places)?;
    g.add(placed, sum)
}

/// As at a motion module's end: rows of frames at each of eight positions, turned, onto a feature map.
fn sequences_onto_map(g: &mut Graph, draw: &mut Draw, x: Value) -> Result<Value> {
    let &[rows, frames, channels] = g.shape(x) else { return Err(Error::failure("rows have three axes")) };
    let h = linear(g, draw, channels, x)?;
    let h = g.reshape(h, &[rows / 8, 8, frames, channels])?;
    let h = g.transpose(h, &[0, 2, 1, 3])?;
    let h = g.reshape(h, &[rows, frames, channels])?;
    let sum = g.add(h, x)?;
    g.node(Op::Silu, &[sum])
}

/// Layers whose gradients are kernels of the project's own, in the sizes of Stable Diffusion 1.5 and in odd ones.
fn kernel_cases() -> Vec<Case> {
    let [frames, positions, sums, norms, geglu] = KERNELS;
    let norm = |name, shape| case(name, norms, shape, group_norm_and_silu);
    vec![
        case("16 frames, heads of 40", frames, &[1024, 16, 320], self_attention(8)),
        case("24 frames, heads of 40", frames, &[256, 24, 320], self_attention(8)),
        case("16 frames, heads of 80", frames, &[256, 16, 640], self_attention(8)),
        case("24 frames, heads of 80", frames, &[64, 24, 640], self_attention(8)),
        case("16 frames, heads of 160", frames, &[64, 16, 1280], self_attention(8)),
        case("32 frames, heads of 160", frames, &[16, 32, 1280], self_attention(8)),
        case("5 frames, heads of 40", frames, &[64, 5, 320], self_attention(8)),
        case("4096 positions, heads of 40", positions, &[1, 4096, 320], self_attention(8)),
        case("600 positions, heads of 40", positions, &[2, 600, 320], self_attention(8)),
        case("1024 positions, heads of 80", positions, &[2, 1024, 640], self_attention(8)),
        case("150 positions, heads of 80", positions, &[3, 150, 640], self_attention(8)),
        case("text, heads of 40", positions, &[1, 8192, 320], attention(8, 77)),
        case("text, heads of 80", positions, &[1, 600, 640], attention(8, 77)),
        case("placed norm of a sum, 320", sums, &[32, 16, 320], placed_norm),
        case("placed norm of a sum, 640", sums, &[8, 24, 640], placed_norm),
        case("placed norm of a sum, 1280", sums, &[8, 16, 1280], placed_norm),
        case("residual of sequences, 320", sums, &[16, 6, 320], sequences_onto_map),
        case("residual of sequences, 1280", sums, &[16, 6, 1280], sequences_onto_map),
        case("layer norm, 640", norms, &[2, 601, 640], layer_norm),
        case("layer norm, 1280", norms, &[2, 301, 1280], layer_norm),
        norm("group norm and SiLU, 320", &[1, 320, 2, 64, 64]),
        norm("group norm and SiLU, 640", &[1, 640, 2, 20, 30]),
        norm("group norm and SiLU, 960", &[1, 960, 2, 32, 32]),
        norm("group norm and SiLU, 1280", &[1, 1280, 3, 11, 7]),
        norm("group norm and SiLU, 1920", &[1, 1920, 2, 16, 16]),
        norm("group norm and SiLU, 2560", &[1, 2560, 2, 8, 8]),
        case("group norm, 640", norms, &[1, 640, 2, 16, 16], |g, draw, x| group_norm(g, draw, 32, x)),
        case("group norm, 1280", norms, &[1, 1280, 2, 16, 16], |g, draw, x| group_norm(g, draw, 32, x)),
        case("group norm, 1920", norms, &[1, 1920, 2, 8, 8], |g, draw, x| group_norm(g, draw, 32, x)),
        case("feed-forward, 5120", geglu, &[2, 100, 640], feed_forward(5120)),
        case("feed-forward, 10240", geglu, &[1, 50, 1280], feed_forward(10240)),
        case("feed-forward, 1400", geglu, &[2, 33, 320], feed_forward(1400)),
    ]
}

fn cases() -> Vec<Case> {
    vec![
        case("linear", "", &[2, 256, 320], |g, draw, x| linear(g, draw, 640, x)),
        case("convolution", "NhwcConv", &[1, 64, 2, 32, 32], conv(128, 3, 1, [1; 4])),
        case("convolution to 1280 channels", "NeighbourSum", &[1, 640, 2, 16, 16], conv(1280, 3, 1, [1; 4])),
        case("convolution 1×1", "", &[1, 64, 2, 16, 16], conv(128, 1, 1, [0; 4])),
        case("convolution, stride 2", "NhwcConv", &[1, 64, 2, 32, 32], conv(64, 3, 2, [1; 4])),
        case("convolution, padded at one side", "", &[1, 64, 1, 32, 32], conv(64, 3, 2, [0, 0, 1, 1])),
        case("convolution from 4 channels", "NhwcConv", &[1, 4, 2, 32, 32], conv(320, 3, 1, [1; 4])),
        case("convolution to 4 channels", "NhwcConv", &[1, 320, 2, 32, 32], conv(4, 3, 1, [1; 4])),
        case("group norm", "GroupNorm", &[1, 320, 2, 32, 32], |g, draw, x| group_norm(g, draw, 32, x)),
        case("group norm, 960 channels", "GroupNorm", &[1, 960, 2, 16, 16], |g, draw, x| group_norm(g, draw, 32, x)),
        case("group norm, 2560 channels", "GroupNorm", &[1, 2560, 2, 8, 8], |g, draw, x| group_norm(g, draw, 32, x)),
        case("group norm, one channel each", "", &[1, 32, 2, 16, 16], |g, draw, x| group_norm(g, draw, 32, x)),
        case("group norm and SiLU", "GroupNorm", &[1, 320, 2, 32, 32], group_norm_and_silu),
        case("residual block", "SkipGroupNorm", &[1, 64, 2, 32, 32], |g, draw, x| {
            let h = conv(64, 3, 1, [1; 4])(g, draw, x)?;
            let time = draw.weight(g, &[1, 64])?;
            let time = g.per_channel(time)?;
            let h = g.add(h, time)?;
            let h = group_norm(g, draw, 32, h)?;
            let h = g.silu(h)?;
            let h = conv(64, 3, 1, [1; 4])(g, draw, h)?;
            let sum = g.add(x, h)?;
            let y = group_norm(g, draw, 32, sum)?;
            g.add(y, sum)
        }),
        case("layer norm", "", &[2, 256, 320], layer_norm),
        case("residual layer norm", KERNELS[2], &[2, 256, 320], |g, draw, x| {
            let h = linear(g, draw, 320, x)?;
            let sum = g.add(h, x)?;
            let y = layer_norm(g, draw, sum)?;
            g.add(y, sum)
        }),
        case("SiLU", "QuickGelu", &[2, 256, 320], |g, _, x| g.silu(x)),
        case("feed-forward, 2560", "BiasSplitGelu", &[2, 64, 320], feed_forward(2560)),
        case("feed-forward, 256", "", &[2, 64, 32], feed_forward(256)),
        case("self-attention, heads of 40", "MultiHeadAttention", &[2, 1024, 320], attention(8, 0)),
        case("self-attention, heads of 160", "MultiHeadAttention", &[2, 256, 1280], attention(8, 0)),
        case("self-attention, heads of 4", "MultiHeadAttention", &[2, 64, 32], attention(8, 0)),
        case("cross-attention", "MultiHeadAttention", &[1, 2048, 320], attention(8, 77)),
        case("attention, one head of 512", "", &[1, 1024, 512], attention(1, 0)),
        case("resize ×2", "", &[1, 64, 2, 8, 8], |g, _, x| g.node(Op::Resize { height: 16, width: 16 }, &[x])),
        case("resize to odd sizes", "", &[1, 64, 2, 6, 4], |g, _, x| g.node(Op::Resize { height: 11, width: 7 }, &[x])),
    ]
}

fn author(case: &Case, precision: Element, layout: Layout) -> Result<Graph> {
    let mut g = Graph::new(case.name, precision, layout);
    let input = g.input("x", Element::Float32, case.shape);
    let x = g.cast(input, precision)?;
    let video = case.shape.len() == 5;
    let x = if video { g.from_video(x)? } else { x };
    let y = (case.build)(&mut g, &mut Draw(100), x)?;
    let y = if video { g.to_video(y, case.shape[2])? } else { y };
    let shape = g.shape(y).to_vec();
    let seed = g.input("c", Element::Float32, &shape);
    let cotangent = g.cast(seed, precision)?;
    let dx = gradient(&mut g, &[(y, cotangent)], input, Forward::Kept)?;
    let y = g.cast(y, Element::Float32)?;
    g.output("y", y);
    g.output("dx", dx);
    Ok(g)
}

fn run(graph: &Graph, settings: &RunSettings, inputs: &[(&str, &ArrayD<f32>)]) -> Result<[ArrayD<f32>; 2]> {
    let model = write::to_onnx(graph, "", write::Shapes::Known)?;
    let mut network = Network::load(Runtime::load(None)?, &graph.name, &model, Path::new("."), settings)?;
    let inputs: Vec<(&str, Input)> = inputs.iter().map(|(name, array)| (*name, Input::Array(array))).collect();
    let outputs = network.run(&inputs, &Cancel::default())?;
    Ok([outputs.array("y")?, outputs.array("dx")?])
}

fn compare(case: &Case, fused: Fused, settings: &RunSettings) -> Result<[f64; 3]> {
    let reference = author(case, Element::Float32, Layout::ChannelsFirst)?;
    let (x, c) = (reference.inputs()[0], reference.inputs()[1]);
    let (x, c) = (drawn(reference.shape(x), 1)?, drawn(reference.shape(c), 2)?);
    let inputs = [("x", &x), ("c", &c)];
    let expected = run(&portable::lower(&reference)?, &RunSettings::default(), &inputs)?;
    let lowered = cuda::lower(&author(case, Element::Float16, Layout::ChannelsLast)?, fused)?;
    let found = run(&lowered, settings, &inputs)?;
    Ok([relative(&found[0], &expected[0]), relative(&found[1], &expected[1]), cosine(&found[1], &expected[1])])
}

/// Prints each case, and at last the operators to leave out.
pub fn check() -> Result<()> {
    println!("{}", Runtime::load(None)?.build_info());
    let fused = Way::new().fused;
    let settings = |fused, cpu_nodes| RunSettings {
        cuda: Some(0),
        lowering: Lowering::Cuda(fused),
        cpu_nodes,
        ..Default::default()
    };
    let mut without: Vec<&str> = Vec::new();
    println!("{:<34} {:>10} {:>10} {:>10} {:>8}", "layer", "forward", "backward", "1 - cosine", "seconds");
    for case in cases().into_iter().chain(kernel_cases()) {
        let start = Instant::now();
        let mut result = compare(&case, fused, &settings(fused, false));
        if let Err(e) = &result
            && e.to_string().contains("fallback")
        {
            println!("{:<34} with nodes on the CPU: {}", case.name, short(&e.to_string()));
            without.push("CpuNodes");
            result = compare(&case, fused, &settings(fused, true));
        }
        if let Err(e) = &result
            && fused.has_kernels()
        {
            println!("{:<34} with own kernels: FAILED: {}", case.name, short(&e.to_string()));
            let plain = fused.without_kernels();
            result = compare(&case, plain, &settings(plain, false));
            if result.is_ok() {
                without.push(if KERNELS.contains(&case.family) { case.family } else { "Kernels" });
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        match result {
            Ok([forward, backward, cosine]) => {
                let good = forward <= BOUND && backward <= BOUND;
                let mark = if good { "" } else { "  OVER" };
                println!(
                    "{:<34} {forward:>10.2e} {backward:>10.2e} {:>10.2e} {seconds:>8.2}{mark}",
                    case.name,
                    1.0 - cosine
                );
                if !good {
                    without.push(case.family);
                }
            }
            Err(e) => {
                println!("{:<34} FAILED: {}", case.name, short(&e.to_string()));
                without.push(case.family);
            }
        }
    }
    without.retain(|name| !name.is_empty());
    without.sort_unstable();
    without.dedup();
    println!("without: {}", without.join(","));
    Ok(())
}

fn short(message: &str) -> String {
    message.chars().take(600).collect()
}
