//! The GPU in float16 against recorded runs, and against float32 on the CPU at full width.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use motionclone::Cancel;
use motionclone::job::{Event, Job};
use motionclone::motion::{Motion, MotionInfo, SparseAttention};
use motionclone::networks::unet_shape;
use motionclone::onnx::graph::Lowering;
use motionclone::onnx::model::unet3d::guided_modules;
use motionclone::pipeline::denoise::Predicted;
use motionclone::random::CpuGenerator;
use motionclone::runtime::Device;
use motionclone::settings::Settings;
use motionclone::{Engine, EngineOptions, Result};
use ndarray::{ArrayD, IxDyn};

use crate::device::Way;
use crate::recorded::Case;

/// Bounds that the project promises for half precision.
const NOISE_BOUND: f64 = 2e-2;
const COSINE_BOUND: f64 = 0.999;

/// ‖a − b‖ / ‖b‖
pub fn relative(a: &ArrayD<f32>, b: &ArrayD<f32>) -> f64 {
    let square = |a: f32| f64::from(a).powi(2);
    let difference: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
    (difference / b.iter().map(|b| square(*b)).sum::<f64>().max(1e-60)).sqrt()
}

pub fn cosine(a: &ArrayD<f32>, b: &ArrayD<f32>) -> f64 {
    let dot =
        |a: &ArrayD<f32>, b: &ArrayD<f32>| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(1e-60)
}

struct Worst {
    noise: f64,
    largest: f64,
    cosine: f64,
    length: f64,
}

impl Worst {
    fn new() -> Self {
        Self { noise: 0.0, largest: 0.0, cosine: 1.0, length: 0.0 }
    }

    fn noise(&mut self, found: &ArrayD<f32>, expected: &ArrayD<f32>) {
        // A NaN must show.
        let error = relative(found, expected);
        self.noise = if error.is_nan() { f64::INFINITY } else { self.noise.max(error) };
        let most = found.iter().zip(expected).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
        self.largest = self.largest.max(most);
    }

    fn gradient(&mut self, found: &ArrayD<f32>, expected: &ArrayD<f32>) {
        let cosine = cosine(found, expected);
        self.cosine = if cosine.is_nan() { -1.0 } else { self.cosine.min(cosine) };
        let length = |a: &ArrayD<f32>| a.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        self.length = self.length.max((length(found) / length(expected) - 1.0).abs());
    }

    fn print(&self, name: &str) {
        let passed = self.noise <= NOISE_BOUND && self.cosine >= COSINE_BOUND;
        println!(
            "{name:<34} ε: relative {:.2e}, largest {:.2e}; gradient: cosine {:.6}, length off by {:.2e}  {}",
            self.noise,
            self.largest,
            self.cosine,
            self.length,
            if passed { "passed" } else { "FAILED" }
        );
    }
}

/// Every step of the recorded runs from its recorded input.
pub fn with_recorded_runs(model: &Path) -> Result<()> {
    for case in Case::all().iter().filter(|case| case.config["kind"].is_null()) {
        let portable = EngineOptions { device: Device::Cuda(0), ..Default::default() };
        match Engine::open(model, &portable).and_then(|mut engine| steps(case, &mut engine)) {
            Ok(worst) => worst.print(&format!("{}, portable float32", case.name)),
            Err(e) => println!("{}, portable float32: FAILED: {e}", case.name),
        }
        let mut way = Way::new();
        let (_, worst) = way.try_with(model, |engine| steps(case, engine))?;
        worst.print(&format!("{}, float16", case.name));
    }
    Ok(())
}

fn steps(case: &Case, engine: &mut Engine) -> Result<Worst> {
    let settings = case.settings(engine.manifest());
    let motion = case.motion(engine.manifest(), &settings);
    let (cancel, mut watch) = (Cancel::default(), |_: Event| ());
    let mut job = Job::new(engine, &settings, &mut watch, &cancel)?;
    let mut denoising = job.denoising(&motion, None)?;
    let mut unet = job.unet();
    let mut worst = Worst::new();
    for index in 0..settings.steps {
        let record = |name: &str| case.array(&format!("step.{index}.{name}"));
        let step = denoising.step(&mut unet, index, &record("latents_in"))?.predicted;
        if let Some(uncond) = &step.noise_uncond {
            worst.noise(uncond, &record("noise_uncond"));
        }
        worst.noise(&step.noise_cond, &record("noise_cond"));
        if let Some(gradient) = &step.gradient {
            worst.gradient(gradient, &record("gradient"));
        }
    }
    Ok(worst)
}

/// A guided and a plain step of a bundle of full width at a small size.
pub fn with_float32(bundle: &Path) -> Result<()> {
    let mut way = Way::new();
    let sizes = |engine: &Engine| Settings {
        width: 128,
        height: 128,
        frames: 4,
        steps: 4,
        guidance_steps: 2,
        ..Settings::new(&engine.manifest().defaults, "relics")
    };
    let start = Instant::now();
    let mut engine = Engine::open(bundle, &EngineOptions { device: Device::Cpu, ..Default::default() })?;
    let settings = sizes(&engine);
    let expected = two_steps(&mut engine, &settings)?;
    drop(engine);
    println!("CPU, loading and two steps: {:.1} s", start.elapsed().as_secs_f64());
    let start = Instant::now();
    let (_, found) = way.try_with(bundle, |engine| {
        let settings = sizes(engine);
        two_steps(engine, &settings)
    })?;
    println!("GPU, loading and two steps: {:.1} s", start.elapsed().as_secs_f64());
    let mut worst = Worst::new();
    for (found, expected) in found.iter().zip(&expected) {
        worst.noise(&found.noise_cond, &expected.noise_cond);
        if let (Some(a), Some(b)) = (&found.noise_uncond, &expected.noise_uncond) {
            worst.noise(a, b);
        }
        if let (Some(a), Some(b)) = (&found.gradient, &expected.gradient) {
            worst.gradient(a, b);
        }
    }
    worst.print("4×128×128, full width, random");
    Ok(())
}

fn two_steps(engine: &mut Engine, settings: &Settings) -> Result<Vec<Predicted>> {
    let (cancel, mut watch) = (Cancel::default(), |_: Event| ());
    let motion = drawn_motion(engine, settings)?;
    let mut job = Job::new(engine, settings, &mut watch, &cancel)?;
    let mut denoising = job.denoising(&motion, None)?;
    let mut unet = job.unet();
    let latents = drawn(&[1, 4, settings.frames, settings.height / 8, settings.width / 8], 3)?;
    [0, 2].into_iter().map(|index| Ok(denoising.step(&mut unet, index, &latents)?.predicted)).collect()
}

/// A motion that no clip has: any value at any frame.
pub fn drawn_motion(engine: &Engine, settings: &Settings) -> Result<Motion> {
    let manifest = engine.manifest();
    let heads = manifest.unet.motion.as_ref().map_or(8, |motion| motion.heads);
    let mut maps = BTreeMap::new();
    let shape = unet_shape(manifest, settings, None, Lowering::Portable);
    for (name, positions) in guided_modules(&manifest.unet, &settings.blocks, shape.height, shape.width)? {
        let count = positions * heads * settings.frames;
        let numbers = CpuGenerator::new(name.len() as u64).randn(count);
        let values = numbers.iter().map(|n| 1.0 / (1.0 + n.exp())).collect();
        let indices = numbers.iter().map(|n| ((n.abs() * 1000.0) as usize % settings.frames) as u8).collect();
        maps.insert(name, SparseAttention { positions, heads, frames: settings.frames, k: 1, values, indices });
    }
    Ok(Motion { maps, info: MotionInfo::new(manifest, settings, "drawn") })
}

pub fn drawn(shape: &[usize], seed: u64) -> Result<ArrayD<f32>> {
    let numbers = CpuGenerator::new(seed).randn(shape.iter().product());
    ArrayD::from_shape_vec(IxDyn(shape), numbers).map_err(|e| motionclone::Error::failure(e.to_string()))
}
