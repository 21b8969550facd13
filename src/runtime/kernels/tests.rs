//! The operators on a CPU: what a program is launched with, and the tensors that it finds at the addresses.

use std::ffi::c_void;
use std::sync::{Arc, Mutex};

use half::f16;
use motionclone_onnx::graph::{Element, Graph, KernelOp, Layout, Op, Value, write};
use motionclone_onnx::kernels::Kernels;
use ndarray::ArrayD;
use ort::session::Session;
use ort::value::TensorRef;

use super::operators_on;
use super::target::Target;
use crate::error::{Error, Result};
use crate::runtime::library::Runtime;
use crate::sync::lock;

/// One launch: kernel, variant, blocks, parameters.
type Launched = (String, String, [u32; 3], Vec<u64>);

/// Writes down what it is asked for, and computes the gradient of GEGLU.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<Launched>>>, Arc<Mutex<Vec<(String, String)>>>);

impl Target for Notes {
    type Program = usize;

    const PROVIDER: Option<&'static str> = None;

    fn program(&self, name: &str, variant: &str) -> Result<usize> {
        if variant.contains("channels=640") {
            return Err(Error::failure("this card has no such kernel"));
        }
        let mut programs = lock(&self.1);
        programs.push((name.into(), variant.into()));
        Ok(programs.len() - 1)
    }

    fn launch(&self, program: usize, grid: [u32; 3], stream: *mut c_void, parameters: &mut [u64]) -> Result<()> {
        assert!(stream.is_null());
        let (name, variant) = lock(&self.1)[program].clone();
        if name == "geglu_gradient" {
            geglu_gradient(parameters);
        }
        lock(&self.0).push((name, variant, grid, parameters.to_vec()));
        Ok(())
    }
}

/// Parameters x, bias, dy, dx, rows, width.
fn geglu_gradient(parameters: &[u64]) {
    let (rows, width) = (parameters[4] as usize, parameters[5] as usize);
    let read = |at: usize, count: usize| {
        let address = std::ptr::with_exposed_provenance::<f16>(parameters[at] as usize);
        // SAFETY: a tensor of this many numbers lies at the address while the operator runs.
        unsafe { std::slice::from_raw_parts(address, count) }
    };
    let (x, bias, dy) = (read(0, 2 * rows * width), read(1, 2 * width), read(2, rows * width));
    let address = std::ptr::with_exposed_provenance_mut::<f16>(parameters[3] as usize);
    // SAFETY: as above, and nothing else reads or writes the output then.
    let dx = unsafe { std::slice::from_raw_parts_mut(address, 2 * rows * width) };
    for (at, dy) in dy.iter().enumerate() {
        let (row, column) = (at / width, at % width);
        let place = |half: usize| 2 * width * row + half * width + column;
        // Not the gradient, but something that each input has a part in.
        for half in [0, 1] {
            let sum = x[place(half)].to_f32() + bias[half * width + column].to_f32();
            dx[place(half)] = f16::from_f32(sum * dy.to_f32());
        }
    }
}

fn session(g: &Graph, notes: &Notes) -> ort::Result<Session> {
    let model = write::to_onnx(g, "", write::Shapes::Open).unwrap();
    let runtime = Runtime::load(None).unwrap();
    runtime.session_builder()?.with_operators(operators_on(notes.clone())?)?.commit_from_memory(&model)
}

fn input(g: &mut Graph, name: &str, shape: &[usize]) -> Value {
    let value = g.input(name, Element::Float32, shape);
    g.cast(value, Element::Float16).unwrap()
}

#[test]
fn programs_get_tensors_and_numbers_in_their_order() {
    let mut g = Graph::new("geglu", Element::Float16, Layout::ChannelsLast);
    let (x, dy) = (input(&mut g, "x", &[1, 2, 6]), input(&mut g, "dy", &[1, 2, 3]));
    let bias = g.constant(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], &[6]).unwrap();
    let dx = g.node(Op::Kernel(KernelOp::GegluGradient), &[x, bias, dy]).unwrap();
    let dx = g.cast(dx, Element::Float32).unwrap();
    g.output("dx", dx);
    let notes = Notes::default();
    let mut session = session(&g, &notes).unwrap();
    let x = ArrayD::from_shape_fn(vec![1, 2, 6], |at| (6 * at[1] + at[2]) as f32);
    let dy = ArrayD::from_shape_fn(vec![1, 2, 3], |at| at[2] as f32 - at[1] as f32);
    for _ in 0..2 {
        let (x, dy) = (TensorRef::from_array_view(x.view()).unwrap(), TensorRef::from_array_view(dy.view()).unwrap());
        let outputs = session.run(ort::inputs! { "x" => x, "dy" => dy }).unwrap();
        let dx = outputs["dx"].try_extract_array::<f32>().unwrap();
        let expected = [0.0, 2.0, 8.0, 0.0, 8.0, 20.0, -6.0, 0.0, 10.0, -12.0, 0.0, 16.0];
        assert_eq!(dx.as_slice().unwrap(), expected);
    }
    let launched = lock(&notes.0);
    let (name, variant, grid, parameters) = &launched[1];
    let label = Kernels::carried().unwrap().find("geglu_gradient", &[]).unwrap().label();
    assert_eq!((launched.len(), name.as_str(), variant), (2, "geglu_gradient", &label));
    assert_eq!((*grid, &parameters[4..]), ([2, 1, 1], &[2, 3, 0, 0][..]));
}

#[test]
fn every_operator_is_taken_with_all_its_outputs() {
    let mut g = Graph::new("all", Element::Float16, Layout::ChannelsLast);
    let (heads, groups, epsilon) = (2, 32, 1e-5);
    let mut outputs = Vec::new();
    let mut node = |g: &mut Graph, op: KernelOp, inputs: &[Value]| -> Vec<Value> {
        let made = g.node_outputs(Op::Kernel(op), inputs).unwrap();
        outputs.extend(&made);
        made
    };
    let short = input(&mut g, "short", &[3, 16, 80]);
    node(&mut g, KernelOp::TemporalAttention { heads }, &[short; 3]);
    node(&mut g, KernelOp::TemporalAttentionGradient { heads }, &[short; 4]);
    let (q, k) = (input(&mut g, "q", &[2, 600, 80]), input(&mut g, "k", &[2, 77, 80]));
    let statistics = node(&mut g, KernelOp::AttentionStatistics { heads }, &[q, k, q, q]);
    let inputs = [q, k, k, q, statistics[0], statistics[1]];
    node(&mut g, KernelOp::AttentionQueryGradient { heads }, &inputs);
    node(&mut g, KernelOp::AttentionKeyGradient { heads }, &inputs);
    let map = input(&mut g, "map", &[2, 8, 9, 320]);
    let own = g.constant(&vec![1.0; 320], &[320]).unwrap();
    node(&mut g, KernelOp::LayerNormGradient { epsilon }, &[map, own, map]);
    node(&mut g, KernelOp::ResidualSum { positions: 72, frames: 2 }, &[map, own, map]);
    node(&mut g, KernelOp::LayerNorm { epsilon, placed: false }, &[map, own, map, own, own, own, map]);
    let op = KernelOp::SumLayerNorm { epsilon, skips: true, placed: false };
    node(&mut g, op, &[map, own, map, own, own, own]);
    let full = g.constant_of(Element::Float32, &vec![1.0; 320], &[320]).unwrap();
    let partial = node(&mut g, KernelOp::GroupNormStatistics { groups }, &[map])[0];
    let op = KernelOp::GroupNormSums { groups, epsilon, silu: true };
    let sums = node(&mut g, op, &[map, partial, full, full, map])[0];
    let op = KernelOp::GroupNormGradient { groups, epsilon, silu: true };
    node(&mut g, op, &[map, partial, sums, full, full, map]);
    let parts = input(&mut g, "parts", &[2, 4, 5, 9 * 7]);
    node(&mut g, KernelOp::NeighbourSum, &[parts]);
    for (at, value) in outputs.iter().enumerate() {
        g.output(format!("output.{at}"), *value);
    }
    let notes = Notes::default();
    let mut session = session(&g, &notes).unwrap();
    let arrays: Vec<(String, ArrayD<f32>)> = g
        .inputs()
        .iter()
        .map(|value| (g.info(*value).name.clone(), ArrayD::from_elem(g.shape(*value).to_vec(), 1.0)))
        .collect();
    let given = arrays
        .iter()
        .map(|(name, array)| (name.as_str(), TensorRef::from_array_view(array.view()).unwrap()))
        .collect::<Vec<_>>();
    let results = session.run(given).unwrap();
    for (at, value) in outputs.iter().enumerate() {
        let shape: Vec<usize> =
            results[format!("output.{at}").as_str()].shape().iter().map(|length| *length as usize).collect();
        assert_eq!(shape, g.shape(*value));
    }
    let launched = lock(&notes.0);
    let find = |name: &str| launched.iter().find(|(launched, ..)| launched == name).unwrap();
    let scale = u64::from((1.0 / 40f32.sqrt()).to_bits());
    let (_, variant, grid, parameters) = find("temporal_attention_gradient");
    assert_eq!((variant.as_str(), *grid), ("rows=16,width=40", [6, 1, 1]));
    assert_eq!(parameters[7..], [16, 2, scale, 0, 0]);
    let (_, _, grid, parameters) = find("attention_key_gradient");
    assert_eq!(grid[1], 4);
    assert_eq!(parameters[8..], [600, 77, 2, scale, 0, 0]);
    let (_, _, grid, parameters) = find("residual_sum");
    assert_eq!((*grid, &parameters[4..]), ([144, 1, 1], &[72, 2, 0, 0][..]));
    let (_, _, grid, parameters) = find("layer_norm");
    assert_eq!((*grid, &parameters[8..]), ([144, 1, 1], &[9, u64::from(epsilon.to_bits()), 0, 0][..]));
    let (_, _, _, parameters) = find("group_norm_statistics");
    assert_eq!(parameters[2..], [72, 32, 0, 0]);
    let (_, variant, grid, parameters) = find("group_norm_gradient");
    assert!(variant.contains("per=10") && variant.contains("silu=1") && grid[2] == 2);
    assert_eq!(parameters[7..], [72, 32, u64::from(epsilon.to_bits()), 0, 0]);
    // Scale and bias are one tensor here; x and the cotangent are another.
    assert_eq!((parameters[3], parameters[0]), (parameters[4], parameters[5]));
    assert_ne!(parameters[1], parameters[2]);
    assert!(launched.iter().all(|(.., parameters)| parameters[0] != 0));
    let (_, _, grid, parameters) = find("neighbour_sum");
    assert_eq!((*grid, &parameters[2..]), ([40, 1, 1], &[4, 5, 7, 0, 0][..]));
    assert_eq!(launched.len(), 13);
}

#[test]
fn a_network_is_refused_where_a_kernel_is_missing() {
    let mut g = Graph::new("norm", Element::Float16, Layout::ChannelsLast);
    let x = input(&mut g, "x", &[4, 640]);
    let scale = g.constant(&vec![1.0; 640], &[640]).unwrap();
    let dx = g.node(Op::Kernel(KernelOp::LayerNormGradient { epsilon: 1e-5 }), &[x, scale, x]).unwrap();
    g.output("dx", dx);
    let message = session(&g, &Notes::default()).err().unwrap().to_string();
    assert!(message.contains("this card has no such kernel"), "{message}");
}
