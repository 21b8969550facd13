//! Memory: what is predicted, and jobs within a budget.

mod recorded;

use std::path::Path;

use motionclone::Cancel;
use motionclone::job::Event;
use motionclone::media::frames::Frames;
use motionclone::networks::{MemoryStrategy, NetworkKey, unet_shape};
use motionclone::onnx::graph::{Forward, Lowering, memory};
use motionclone::runtime::Device;
use motionclone::settings::Settings;
use motionclone::{Engine, EngineOptions};

fn engine(bundle: &Path, memory_budget: Option<u64>) -> Engine {
    Engine::open(bundle, &EngineOptions { device: Device::Cpu, memory_budget, ..Default::default() }).unwrap()
}

fn settings(engine: &Engine) -> Settings {
    Settings {
        width: 64,
        height: 72,
        frames: 4,
        steps: 4,
        guidance_steps: 2,
        warm_up: 0,
        cool_up: 0,
        ..Settings::new(&engine.manifest().defaults, "a road")
    }
}

fn clone(engine: &mut Engine, settings: &Settings) -> motionclone::Result<Frames> {
    let count = settings.frames * settings.width * settings.height * 3;
    let data = (0..count).map(|at| (at / 7 % 251) as u8).collect();
    let clip = Frames { width: settings.width, height: settings.height, data };
    let (mut watch, cancel) = (|_: Event| (), Cancel::default());
    let motion = engine.extract(&clip, settings, &mut watch, &cancel)?;
    engine.clone_motion(&motion, settings, &mut watch, &cancel)
}

/// Peak signal-to-noise ratio in decibels.
fn likeness(a: &Frames, b: &Frames) -> f64 {
    let square: f64 = a.data.iter().zip(&b.data).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    20.0 * 255f64.log10() - 10.0 * (square / a.data.len() as f64).max(1e-9).log10()
}

#[test]
fn every_budget_gives_the_same_clip_until_none_does() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = recorded::plain_bundle(folder.path());
    let mut free = engine(&bundle, None);
    let settings = settings(&free);
    let expected = clone(&mut free, &settings).unwrap();
    let mut budget = 1 << 40;
    let mut ways = Vec::new();
    let message = loop {
        let mut engine = engine(&bundle, Some(budget));
        match engine.plan(&settings) {
            Ok(plan) => {
                assert!(plan.peak <= budget);
                ways.push(plan.strategy);
                let frames = clone(&mut engine, &settings).unwrap();
                let likeness = likeness(&frames, &expected);
                println!("{:?}: {} bytes, {likeness:.1} dB", plan.strategy, plan.peak);
                assert!(likeness >= 35.0, "{likeness} dB with {plan:?}");
                budget = plan.peak - 1;
            }
            Err(refused) => {
                assert!(refused.is_input());
                assert_eq!(clone(&mut engine, &settings).unwrap_err().to_string(), refused.to_string());
                // The engine goes on with what fits.
                let small = Settings { width: 16, height: 16, frames: 2, ..settings.clone() };
                assert_eq!(clone(&mut engine, &small).unwrap().count(), 2);
                break refused.to_string();
            }
        }
    };
    assert_eq!(ways, [MemoryStrategy::KeepAll, MemoryStrategy::Rematerialize, MemoryStrategy::ModelOffload]);
    assert!(message.contains("4 frames of 64×72 pixels") && message.contains("set a larger budget"), "{message}");
}

/// ONNX Runtime's profiler tells in which order it computes a guided network.
#[test]
fn the_runtime_computes_in_the_order_that_is_predicted() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = recorded::plain_bundle(folder.path());
    let options = EngineOptions {
        device: Device::Cpu,
        profile: Some(folder.path().join("profile")),
        memory_budget: Some(1 << 40),
        ..Default::default()
    };
    let mut engine = Engine::open(&bundle, &options).unwrap();
    let settings = settings(&engine);
    clone(&mut engine, &settings).unwrap();
    let (_, file) = engine.end_profiles().unwrap().into_iter().find(|(name, _)| name == "guided").unwrap();
    let events: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let shape = unet_shape(engine.manifest(), &settings, None, Lowering::Portable);
    let key = NetworkKey::Guided(shape, settings.blocks.clone(), Forward::Kept);
    let graph = key.graph(engine.bundle(), Lowering::Portable).unwrap();
    let order = memory::execution_order(&graph);
    let mut places = vec![0; order.len()];
    order.iter().enumerate().for_each(|(place, at)| places[*at] = place);
    // Nodes are named after their place in the file; those that the runtime has put together have other names.
    let ran: Vec<usize> = events
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|event| event["name"].as_str()?.strip_suffix("_kernel_time")?.rsplit_once('_')?.1.parse().ok())
        .filter_map(|at: usize| places.get(at).copied())
        .take(order.len())
        .collect();
    let turned = ran.windows(2).filter(|pair| pair[0] > pair[1]).count();
    println!("{} nodes, {turned} before one that was predicted earlier", ran.len());
    assert!(ran.len() > order.len() / 2 && turned < ran.len() / 20, "{turned} of {}", ran.len());
}

/// The largest resident memory of any program that this one has started and waited for, in KiB.
#[cfg(target_os = "linux")]
fn largest_child() -> i64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the answer is written into a structure of ours, of which all zero is a valid one, too.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr());
        usage.assume_init()
    };
    usage.ru_maxrss
}

/// The embedded model, with a budget first: the largest of both is then that of the run without.
#[cfg(target_os = "linux")]
#[test]
fn a_budget_makes_the_program_smaller() {
    let folder = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sizes = Vec::new();
    for budget in [Some("250MB"), None] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_motionclone"));
        command.args(["clone", "--device", "cpu", "--no-cache", "--prompt", "a red ring", "--steps", "4"]);
        command.args(["--guidance-steps", "2", "--bundle"]).arg(root.join("onnx/demo/bundle"));
        command.arg("--reference").arg(root.join("onnx/demo/evaluate/clips/pan_right.mp4"));
        command.arg("--out").arg(folder.path().join(budget.unwrap_or("none")));
        command.args(budget.iter().flat_map(|budget| ["--memory-budget", budget]));
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{text}");
        assert_eq!(
            text.contains("of a memory budget of 0.25 GB, with one network at a time"),
            budget.is_some(),
            "{text}"
        );
        sizes.push(largest_child());
    }
    println!("{sizes:?} KiB");
    assert!(sizes[0] * 4 < sizes[1] * 3, "{sizes:?} KiB");
}
