//! Weights made ready while a graph is made: what only turns, reverses or rounds a weight is done here, on all cores,
//! and not by the runtime, which does it one by one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use half::f16;

use super::ir::{Element, Graph, Origin, Value};
use super::op::Op;
use crate::weights::{Dtype, WeightInfo};
use crate::{Error, Result};

/// A weight in half precision that no file holds, by its name in the graph.
pub struct Folded {
    /// Its name.
    pub name: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Numbers.
    pub data: Vec<f16>,
}

/// What becomes of a tensor of the weight file.
#[derive(Clone)]
struct Plan {
    source: WeightInfo,
    steps: Vec<(Op, Vec<usize>)>,
}

/// Takes the nodes that only rearrange weights or round them to half precision out of a graph. The tensors that take
/// their place are returned, and have entries in the graph that point somewhere into the weight file.
///
/// # Errors
/// When the weight file cannot be read.
pub fn weights(graph: &Graph, file: &Path) -> Result<(Graph, Vec<Folded>)> {
    let mut plans: HashMap<Value, Plan> = HashMap::new();
    let folded = graph.rewrite(|g, node, inputs| {
        let plan = match (&node.op, inputs) {
            (Op::Cast(Element::Float16) | Op::Reshape(_) | Op::Transpose(_) | Op::Reverse(_), [input]) => {
                match (plans.get(input), &g.info(*input).origin) {
                    (Some(plan), _) => Some(plan.clone()),
                    (None, Origin::Weight(source)) => Some(Plan { source: source.clone(), steps: Vec::new() }),
                    _ => None,
                }
            }
            _ => None,
        };
        let first = |plan: &Plan| matches!((plan.source.dtype, &node.op), (Dtype::F16, _) | (_, Op::Cast(_)));
        let Some(mut plan) = plan.filter(|plan| !plan.steps.is_empty() || first(plan)) else {
            return g.node_outputs(node.op.clone(), inputs);
        };
        plan.steps.push((node.op.clone(), g.shape(inputs[0]).to_vec()));
        let shape = graph.shape(node.outputs[0]).to_vec();
        let length = 2 * shape.iter().product::<usize>() as u64;
        let info = WeightInfo { dtype: Dtype::F16, shape, offset: plan.source.offset, length };
        let value = g.weight(&format!("folded.{}", graph.info(node.outputs[0]).name), &info)?;
        plans.insert(value, plan);
        Ok(vec![value])
    })?;
    let used: HashSet<Value> = folded.live_nodes().iter().flat_map(|node| node.inputs.iter().copied()).collect();
    let wanted: Vec<(Value, Plan)> = plans.into_iter().filter(|(value, _)| used.contains(value)).collect();
    let tensors = evaluate(&folded, &wanted, file)?;
    Ok((folded, tensors))
}

fn evaluate(graph: &Graph, wanted: &[(Value, Plan)], path: &Path) -> Result<Vec<Folded>> {
    let io = |e: std::io::Error| Error::io(path, e);
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        let work = || -> std::io::Result<()> {
            let mut file = File::open(path)?;
            while let Some((value, plan)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                let mut bytes = vec![0; plan.source.length as usize];
                file.seek(SeekFrom::Start(plan.source.offset))?;
                file.read_exact(&mut bytes)?;
                let info = graph.info(*value);
                let tensor = Folded { name: info.name.clone(), shape: info.shape.clone(), data: apply(plan, &bytes) };
                done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(*value, tensor);
            }
            Ok(())
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        all.into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(std::io::Error::other("a thread ended early"))))
    })
    .map_err(io)?;
    Ok(done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).into_values().collect())
}

fn apply(plan: &Plan, bytes: &[u8]) -> Vec<f16> {
    let mut data: Vec<f16> = match plan.source.dtype {
        Dtype::F16 => bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b)).collect(),
        _ => bytes.as_chunks().0.iter().map(|b| f16::from_f32(f32::from_le_bytes(*b))).collect(),
    };
    for (op, shape) in &plan.steps {
        match op {
            Op::Transpose(axes) => data = turned(&data, shape, axes),
            Op::Reverse(axes) => data = reversed(&data, shape, axes),
            _ => {}
        }
    }
    data
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
