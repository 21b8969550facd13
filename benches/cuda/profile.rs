//! Where a guided step's time goes, by operator, from ONNX Runtime's profiler. With `CUDA_LAUNCH_BLOCKING=1` in the
//! environment the profiler's times of nodes are those of their kernels.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use motionclone::Cancel;
use motionclone::job::{Event, Job};
use motionclone::pipeline::unet::Unet;
use motionclone::{Error, Result};
use serde_json::Value;

use crate::agreement::{drawn, drawn_motion};
use crate::device::Way;
use crate::stages::settings;

const RUNS: usize = 3;

pub fn guided_step(bundle: &Path) -> Result<()> {
    let folder = tempfile::tempdir().map_err(|e| Error::failure(e.to_string()))?;
    let cancel = Cancel::default();
    let way = Way::new();
    let mut engine = way.engine(bundle, Some(folder.path().join("profile")))?;
    let settings = settings(&engine);
    let motion = drawn_motion(&engine, &settings)?;
    let networks = engine.job_networks(&settings)?;
    let mut denoising = Job::new(&mut engine, &settings, &mut |_: Event| (), &cancel)?.denoising(&motion, None)?;
    engine.keep(&denoising.networks(&networks));
    let mut unet = Unet::new(&mut engine, &networks, &cancel);
    let latents = drawn(&[1, 4, settings.frames, settings.height / 8, settings.width / 8], 3)?;
    for _ in 0..RUNS {
        denoising.step(&mut unet, settings.guidance_steps / 2, &latents)?;
    }
    for (name, file) in engine.end_profiles()? {
        let text = std::fs::read(&file).map_err(|e| Error::io(&file, e))?;
        let events: Vec<Value> = serde_json::from_slice(&text).map_err(|e| Error::failure(e.to_string()))?;
        summarise(&name, &events);
    }
    Ok(())
}

/// The fastest of each node's runs, since the first ones choose kernels.
fn summarise(network: &str, events: &[Value]) {
    let mut nodes: BTreeMap<&str, (f64, &Value)> = BTreeMap::new();
    for event in events.iter().filter(|event| event["cat"] == "Node") {
        let (Some(name), Some(microseconds)) = (event["name"].as_str(), event["dur"].as_f64()) else { continue };
        let Some(name) = name.strip_suffix("_kernel_time") else { continue };
        let node = nodes.entry(name).or_insert((f64::INFINITY, &event["args"]));
        node.0 = node.0.min(microseconds);
    }
    let mut operators: BTreeMap<&str, (f64, usize)> = BTreeMap::new();
    let mut on_cpu = BTreeSet::new();
    for (name, (microseconds, arguments)) in &nodes {
        let operator = arguments["op_name"].as_str().unwrap_or("?");
        let sum = operators.entry(operator).or_default();
        *sum = (sum.0 + microseconds, sum.1 + 1);
        if arguments["provider"] == "CPUExecutionProvider" {
            on_cpu.insert(format!("{operator} {name}"));
        }
    }
    let total: f64 = nodes.values().map(|(microseconds, _)| microseconds).sum();
    println!("\n{network}: {} nodes, {:.1} ms; on the CPU {}: {on_cpu:?}", nodes.len(), total / 1e3, on_cpu.len());
    let mut operators: Vec<_> = operators.into_iter().collect();
    operators.sort_by(|a, b| b.1.0.total_cmp(&a.1.0));
    for (operator, (microseconds, count)) in operators {
        println!(
            "{operator:<26} {:>9.2} ms {:>5.1} % {count:>5} nodes",
            microseconds / 1e3,
            100.0 * microseconds / total
        );
    }
    let mut nodes: Vec<_> = nodes.into_iter().collect();
    nodes.sort_by(|a, b| b.1.0.total_cmp(&a.1.0));
    for (name, (microseconds, arguments)) in nodes.iter().take(60) {
        let shapes: Vec<String> = arguments["input_type_shape"]
            .as_array()
            .into_iter()
            .flatten()
            .take(2)
            .map(|shape| shape.to_string().replace(['{', '}', '"'], ""))
            .collect();
        println!("{:>9.0} µs  {name}  {}", microseconds, shapes.join(" "));
    }
}
