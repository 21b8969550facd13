//! Seconds, operations a second and memory of every stage at 16×512×512 in float16.

use std::path::Path;
use std::time::Instant;

use motionclone::Cancel;
use motionclone::bundle::Bundle;
use motionclone::job::{Event, Job};
use motionclone::media::frames::Frames;
use motionclone::networks::{NetworkKey, unet_shape};
use motionclone::onnx::graph::{Forward, Lowering};
use motionclone::pipeline::unet::Unet;
use motionclone::runtime::Device;
use motionclone::settings::Settings;
use motionclone::{Engine, Error, Result};

use crate::agreement::{drawn, drawn_motion};
use crate::device::{Memory, Way};

/// Operations of a plain step (two passes), which a GPU that reaches 790 TFLOP/s in matrix products does in 0.045 s.
const PLAIN_STEP: f64 = 35.3e12;
const FLOOR: f64 = 0.045;
const REPEATS: usize = 10;

/// The published size and steps, or a small one where the program itself is tried out on a CPU.
pub fn settings(engine: &Engine) -> Settings {
    let published = Settings::new(&engine.manifest().defaults, "Relics on the seabed");
    match engine.device() {
        Device::Cpu => Settings { width: 64, height: 64, frames: 2, steps: 4, guidance_steps: 2, ..published },
        _ => published,
    }
}

/// Shape of the latents.
fn latents(settings: &Settings) -> [usize; 5] {
    [1, 4, settings.frames, settings.height / 8, settings.width / 8]
}

struct Table {
    start: Instant,
    memory: Memory,
}

impl Table {
    fn new() -> Self {
        println!("{:<30} {:>9} {:>9} {:>9} {:>9} {:>9}", "", "seconds", "used MiB", "peak MiB", "at", "TFLOP/s");
        Self { start: Instant::now(), memory: Memory::watch() }
    }

    fn row(&self, name: &str, seconds: f64, operations: f64) {
        let (used, peak) = self.memory.used();
        let rate = if operations > 0.0 { format!("{:>9.0}", operations / seconds / 1e12) } else { String::new() };
        println!("{name:<30} {seconds:>9.4} {used:>9} {peak:>9} {:>9.1} {rate}", self.start.elapsed().as_secs_f64());
    }

    /// The first run, and the median of more.
    fn time(&self, name: &str, operations: f64, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
        let mut once = || -> Result<f64> {
            let start = Instant::now();
            work()?;
            Ok(start.elapsed().as_secs_f64())
        };
        let first = once()?;
        self.row(&format!("{name}, first"), first, 0.0);
        let mut seconds = Vec::new();
        for _ in 0..REPEATS {
            seconds.push(once()?);
        }
        seconds.sort_by(f64::total_cmp);
        let median = seconds[REPEATS / 2];
        self.row(&format!("{name}, median of {REPEATS}"), median, operations);
        Ok(median)
    }
}

/// Says so when a stage fails, and goes on with the next.
fn attempt(name: &str, result: Result<f64>) -> f64 {
    result.unwrap_or_else(|e| {
        println!("{name}: FAILED: {}", e.to_string().chars().take(1500).collect::<String>());
        f64::NAN
    })
}

pub fn measure(bundle: &Path) -> Result<()> {
    let table = Table::new();
    let (cancel, mut watch) = (Cancel::default(), |_: Event| ());
    let mut way = Way::new();
    // The steps first: they are what counts.
    let (mut engine, (networks, mut denoising)) = way.try_with(bundle, |engine| {
        let settings = settings(engine);
        let motion = drawn_motion(engine, &settings)?;
        let networks = engine.job_networks(&settings)?;
        let mut denoising = Job::new(engine, &settings, &mut |_: Event| (), &cancel)?.denoising(&motion, None)?;
        let of_steps = denoising.networks(&networks);
        engine.keep(&of_steps);
        for key in &of_steps {
            let start = Instant::now();
            engine.network(key, &cancel)?;
            table.row(&format!("load {}", key.name()), start.elapsed().as_secs_f64(), 0.0);
        }
        let latents = drawn(&latents(&settings), 3)?;
        let start = Instant::now();
        let mut unet = Unet::new(engine, &networks, &cancel);
        let step = denoising.step(&mut unet, settings.guidance_steps / 2, &latents)?;
        table.row("guided step, very first", start.elapsed().as_secs_f64(), 0.0);
        let finite = |a: &ndarray::ArrayD<f32>| a.iter().all(|v| v.is_finite());
        println!(
            "finite: ε {}, gradient {}; loss {:?}",
            finite(&step.predicted.noise_cond),
            step.predicted.gradient.as_ref().is_some_and(finite),
            step.loss
        );
        Ok((networks, denoising))
    })?;
    println!("first step ready {:.1} s after the start", table.start.elapsed().as_secs_f64());
    let settings = settings(&engine);
    let latents = drawn(&latents(&settings), 3)?;
    let mut unet = Unet::new(&mut engine, &networks, &cancel);
    let mut step = |index: usize| denoising.step(&mut unet, index, &latents).map(drop);
    let guided = attempt("guided step", table.time("guided step", 0.0, || step(settings.guidance_steps / 2)));
    let plain = attempt("plain step", table.time("plain step", PLAIN_STEP, || step(settings.steps - 1)));
    println!("plain step: {:.0} % of the floor's speed", 100.0 * FLOOR / plain);

    engine.keep(&[networks.denoiser()]);
    table.row("without the guided network", 0.0, 0.0);
    engine.keep(&[]);
    table.row("without any network", 0.0, 0.0);
    let pixels = drawn(&[settings.frames, 3, settings.height, settings.width], 4)?.mapv(|v| (v / 3.0).clamp(-1.0, 1.0));
    let encode = table.time("VAE encode, all frames", 0.0, || {
        Job::new(&mut engine, &settings, &mut watch, &cancel)?.encode(&pixels).map(drop)
    });
    let encode = attempt("VAE encode", encode);
    engine.keep(&[]);
    let mut frames = Vec::new();
    let decode = table.time("VAE decode, all frames", 0.0, || {
        frames.clear();
        let mut watch = |_: Event| frames.push(Instant::now());
        Job::new(&mut engine, &settings, &mut watch, &cancel)?.decode(&latents).map(drop)
    });
    let mut each: Vec<f64> = frames.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
    if let (Some(first), Some(last)) = (each.first().copied(), each.last().copied()) {
        each.sort_by(f64::total_cmp);
        println!("of these a frame: first {first:.4}, median {:.4}, last {last:.4}", each[each.len() / 2]);
    }
    let decode = attempt("VAE decode", decode);
    engine.keep(&[]);
    let images = drawn(&[settings.frames, 4, settings.height / 8, settings.width / 8], 5)?;
    let extract = table.time("extraction", 0.0, || {
        Job::new(&mut engine, &settings, &mut watch, &cancel)?.motion(&images, None, "").map(drop)
    });
    let extract = attempt("extraction", extract);
    let guided_steps = settings.guidance_steps as f64;
    let plain_steps = settings.steps as f64 - guided_steps;
    println!(
        "t2v_camera by these medians: {:.1} s without loading",
        encode + extract + guided_steps * guided + plain_steps * plain + decode
    );
    Ok(())
}

/// A clip to extract from: any numbers do.
pub fn drawn_clip(settings: &Settings) -> Frames {
    let (width, height) = (settings.width, settings.height);
    let data = (0..settings.frames * height * width * 3).map(|i| (i * 7 % 251) as u8).collect();
    Frames { width, height, data }
}

/// The published t2v_camera run, from a clip's frames to frames: once with loading, and once more with all networks
/// there.
pub fn whole_run(bundle: &Path) -> Result<()> {
    let table = Table::new();
    let cancel = Cancel::default();
    let mut way = Way::new();
    way.try_with(bundle, |engine| {
        let settings = settings(engine);
        let clip = drawn_clip(&settings);
        let mut watch = |_: Event| ();
        for networks in ["loading", "loaded"] {
            let start = Instant::now();
            let motion = engine.extract(&clip, &settings, &mut watch, &cancel)?;
            table.row(&format!("{networks}: encode and extract"), start.elapsed().as_secs_f64(), 0.0);
            let middle = Instant::now();
            let frames = engine.clone_motion(&motion, &settings, &mut watch, &cancel)?;
            table.row(&format!("{networks}: denoise and decode"), middle.elapsed().as_secs_f64(), 0.0);
            table.row(&format!("{networks}: t2v_camera, whole"), start.elapsed().as_secs_f64(), 0.0);
            println!("{} frames", frames.count());
        }
        println!("predicted: {:.2} GB", engine.plan(&settings)?.peak as f64 / 1e9);
        Ok(())
    })?;
    Ok(())
}

/// The lowered graphs as files beside the weights, to look at.
pub fn write_graphs(bundle: &Path) -> Result<()> {
    let bundle = Bundle::open(bundle)?;
    let settings = Settings::new(&bundle.manifest.defaults, "");
    let lowering = Lowering::Cuda(Way::new().fused);
    let shape = unet_shape(&bundle.manifest, &settings, None, lowering);
    let keys =
        [NetworkKey::Guided(shape.clone(), settings.blocks.clone(), Forward::Recomputed), NetworkKey::Denoiser(shape)];
    for key in keys {
        let path = bundle.folder().join(format!("{}.onnx", key.name()));
        std::fs::write(&path, key.model(&bundle, lowering)?).map_err(|e| Error::io(&path, e))?;
        println!("{}", path.display());
    }
    Ok(())
}
