//! Weights made ready outside of the graph: what only turns, reverses or rounds a weight is done here, on all cores,
//! and not by the runtime, which does it one by one. What becomes of a weight is named after it and after what is done,
//! so that graphs of one weight file name equal tensors equally and can share them.

use std::collections::HashMap;
use std::fmt::Write;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use half::f16;

use super::ir::Graph;
use super::op::Op;
use super::types::{Element, Origin, Value};
use crate::weights::{Dtype, WeightInfo};
use crate::{Error, Result};

/// Where a graph says that folded tensors lie in the weight file: behind any end, so that reading there fails where the
/// tensor was not given.
const NOWHERE: u64 = 1 << 62;

/// Bytes of the smallest tensors worth sharing.
const SHARED_FROM: u64 = 4 << 10;

/// A weight in half precision that is given to the runtime, which does not read it from the weight file itself.
#[derive(Debug, Clone)]
pub struct Folded {
    /// Its name in the graph, which says what it is made of.
    pub name: String,
    /// The same for its numbers in their order: tensors that differ in nothing but their shape have one name here.
    pub numbers: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Whether nothing looks at its numbers but a matrix product or a convolution, when it runs: such tensors can be
    /// given to a runtime that has no numbers of them, but an address on a device.
    pub shareable: bool,
    source: WeightInfo,
    steps: Vec<(Op, Vec<usize>)>,
}

impl Folded {
    /// Its bytes.
    pub fn length(&self) -> u64 {
        2 * self.shape.iter().product::<usize>() as u64
    }

    fn read(&self, file: &mut File) -> std::io::Result<Vec<f16>> {
        let mut bytes = vec![0; self.source.length as usize];
        file.seek(SeekFrom::Start(self.source.offset))?;
        file.read_exact(&mut bytes)?;
        let mut data: Vec<f16> = match self.source.dtype {
            Dtype::F16 => bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b)).collect(),
            _ => bytes.as_chunks().0.iter().map(|b| f16::from_f32(f32::from_le_bytes(*b))).collect(),
        };
        drop(bytes);
        for (op, shape) in &self.steps {
            match op {
                Op::Transpose(axes) => data = turned(&data, shape, axes),
                Op::Reverse(axes) => data = reversed(&data, shape, axes),
                _ => {}
            }
        }
        Ok(data)
    }
}

/// Takes the nodes that only rearrange weights or round them to half precision out of a graph, and says which tensors
/// take their place; these have entries in the graph like weights, but no file holds them, so they must be given to the
/// runtime. Weights that can be shared as the file has them are among the tensors, too.
///
/// # Errors
/// When a node does not fit its inputs.
pub fn weights(graph: &Graph) -> Result<(Graph, Vec<Folded>)> {
    let mut made: HashMap<Value, Folded> = HashMap::new();
    let folded = graph.rewrite(|g, node, inputs| {
        let tensor = match (&node.op, inputs) {
            (Op::Cast(Element::Float16) | Op::Reshape(_) | Op::Transpose(_) | Op::Reverse(_), [input]) => {
                let info = g.info(*input);
                match (made.get(input), &info.origin) {
                    (Some(tensor), _) => Some(tensor.clone()),
                    (None, Origin::Weight(source)) => Some(Folded {
                        name: info.name.clone(),
                        numbers: info.name.clone(),
                        shape: info.shape.clone(),
                        shareable: false,
                        source: source.clone(),
                        steps: Vec::new(),
                    }),
                    _ => None,
                }
            }
            _ => None,
        };
        let first = |tensor: &Folded| matches!((tensor.source.dtype, &node.op), (Dtype::F16, _) | (_, Op::Cast(_)));
        let Some(mut tensor) = tensor.filter(|tensor| !tensor.steps.is_empty() || first(tensor)) else {
            return g.node_outputs(node.op.clone(), inputs);
        };
        tensor.steps.push((node.op.clone(), g.shape(inputs[0]).to_vec()));
        tensor.shape = graph.shape(node.outputs[0]).to_vec();
        tensor.name += &step_name(&node.op);
        if !matches!(node.op, Op::Reshape(_)) {
            tensor.numbers.clone_from(&tensor.name);
        }
        let info =
            WeightInfo { dtype: Dtype::F16, shape: tensor.shape.clone(), offset: NOWHERE, length: tensor.length() };
        let value = g.weight(&tensor.name, &info)?;
        made.insert(value, tensor);
        Ok(vec![value])
    })?;
    let products = only_in_products(&folded);
    let mut tensors = Vec::new();
    for (value, info) in folded.values() {
        let Some(in_products) = products.get(&value) else { continue };
        let shareable = *in_products && 2 * info.elements() as u64 >= SHARED_FROM;
        match (made.remove(&value), &info.origin) {
            (Some(tensor), _) => tensors.push(Folded { shareable, ..tensor }),
            (None, Origin::Weight(source)) if shareable && source.dtype == Dtype::F16 => {
                let (name, shape, source) = (info.name.clone(), info.shape.clone(), source.clone());
                tensors.push(Folded { numbers: name.clone(), name, shape, shareable, source, steps: Vec::new() });
            }
            _ => {}
        }
    }
    Ok((folded, tensors))
}

/// Every value that is read, and whether only matrix products and convolutions do, as their weight.
fn only_in_products(graph: &Graph) -> HashMap<Value, bool> {
    let mut read: HashMap<Value, bool> = graph.outputs().iter().map(|(_, value)| (*value, false)).collect();
    for node in graph.live_nodes() {
        let product =
            matches!(node.op, Op::Gemm { .. } | Op::NhwcConv { .. } | Op::Conv { .. } | Op::ConvTranspose { .. });
        for (at, value) in node.inputs.iter().enumerate() {
            *read.entry(*value).or_insert(true) &= product && at == 1;
        }
    }
    read
}

/// What is done to a weight, as the end of its name.
fn step_name(op: &Op) -> String {
    let numbers = |what: &str, numbers: &[usize]| {
        numbers.iter().fold(format!("|{what}"), |mut name, number| {
            let _ = write!(name, " {number}");
            name
        })
    };
    match op {
        Op::Reshape(shape) => numbers("reshaped", shape),
        Op::Transpose(axes) => numbers("turned", axes),
        Op::Reverse(axes) => numbers("reversed", axes),
        _ => "|half".into(),
    }
}

/// Reads tensors from the weight file and makes them, on all cores, each handed on as soon as it is there: no more of
/// them are in memory than there are cores. The results are in the order of `tensors`.
///
/// # Errors
/// When the weight file cannot be read, and those of `hand_on`.
pub fn make<T: Send>(
    tensors: &[&Folded],
    path: &Path,
    hand_on: impl Fn(&Folded, Vec<f16>) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, T)>> {
        let io = |e: std::io::Error| Error::io(path, e);
        let mut file = File::open(path).map_err(io)?;
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(tensor) = tensors.get(at) else { return Ok(done) };
            done.push((at, hand_on(tensor, tensor.read(&mut file).map_err(io)?)?));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(tensors.len());
    let mut all = Vec::with_capacity(tensors.len());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| -> Result<()> {
            all.extend(worker.join().unwrap_or_else(|_| Err(Error::failure("a thread ended early")))?);
            Ok(())
        })
    })?;
    all.sort_by_key(|(at, _)| *at);
    Ok(all.into_iter().map(|(_, made)| made).collect())
}

/// The offset of the next element along each axis.
fn strides(shape: &[usize]) -> Vec<usize> {
    (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect()
}

fn turned(data: &[f16], shape: &[usize], axes: &[usize]) -> Vec<f16> {
    let from = strides(shape);
    let (sizes, steps): (Vec<usize>, Vec<usize>) = axes.iter().map(|axis| (shape[*axis], from[*axis])).unzip();
    let (Some((last, outer)), Some((step, outer_steps))) = (sizes.split_last(), steps.split_last()) else {
        return data.to_vec();
    };
    let mut result = Vec::with_capacity(data.len());
    let mut place = vec![0; outer.len()];
    for _ in 0..outer.iter().product() {
        let start: usize = place.iter().zip(outer_steps).map(|(at, step)| at * step).sum();
        result.extend((0..*last).map(|at| data[start + at * step]));
        for axis in (0..place.len()).rev() {
            place[axis] += 1;
            if place[axis] < outer[axis] {
                break;
            }
            place[axis] = 0;
        }
    }
    result
}

fn reversed(data: &[f16], shape: &[usize], axes: &[usize]) -> Vec<f16> {
    let mut data = data.to_vec();
    for axis in axes {
        let inner: usize = shape[axis + 1..].iter().product();
        for block in data.chunks_exact_mut(shape[*axis] * inner) {
            let copy = block.to_vec();
            for (target, source) in block.chunks_exact_mut(inner).zip(copy.chunks_exact(inner).rev()) {
                target.copy_from_slice(source);
            }
        }
    }
    data
}
