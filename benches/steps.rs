//! Seconds a guided and a plain step, and peak memory, for the recorded text-to-video configuration on the CPU.
//!
//! `cargo xtask bench`; `MOTIONCLONE_BENCH_THREADS` sets the number of threads.

#[path = "../tests/recorded/mod.rs"]
mod recorded;

use std::ops::ControlFlow;
use std::time::Instant;

use motionclone::Cancel;
use motionclone::job::{Event, Job};
use motionclone::onnx::checkpoint::import;
use motionclone::pipeline::vae;
use motionclone::runtime::Device;
use motionclone::settings::Settings;
use motionclone::{Engine, EngineOptions};
use ndarray::{ArrayD, IxDyn};

const REPEATS: usize = 25;

/// Minimum, median and maximum of the seconds that `work` takes, after one run to warm up.
fn time(name: &str, repeats: usize, mut work: impl FnMut()) -> f64 {
    work();
    let mut seconds: Vec<f64> = (0..repeats)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    let median = seconds[repeats / 2];
    println!("{name:<28} {:>9.4} {median:>9.4} {:>9.4}", seconds[0], seconds[repeats - 1]);
    median
}

/// The largest resident size so far in MiB, where the system tells.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib / 1024)
}

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("bundle");
    let options = recorded::text_to_video(out.clone());
    import(&options, &mut |_| ControlFlow::Continue(())).unwrap();
    let threads = std::env::var("MOTIONCLONE_BENCH_THREADS").ok().map(|n| n.parse().unwrap());
    let mut engine = Engine::open(&out, &EngineOptions { device: Device::Cpu, threads, ..Default::default() }).unwrap();
    let settings = Settings {
        width: 128,
        height: 128,
        frames: 8,
        steps: 6,
        guidance_steps: 4,
        warm_up: 2,
        cool_up: 2,
        ..Settings::new(&engine.manifest().defaults, "Relics on the seabed")
    };
    let case = recorded::Case::all().into_iter().find(|case| case.config["kind"].is_null()).unwrap();
    let planar = ArrayD::from_shape_vec(IxDyn(&[8, 3, 128, 128]), case.bytes("reference_frames")).unwrap();
    let interleaved = planar.permuted_axes(IxDyn(&[0, 2, 3, 1]));
    let clip =
        motionclone::media::frames::Frames { width: 128, height: 128, data: interleaved.iter().copied().collect() };

    let (cancel, mut watch) = (Cancel::default(), |_: Event| ());
    let mut job = Job::new(&mut engine, &settings, &mut watch, &cancel).unwrap();
    println!("{:<28} {:>9} {:>9} {:>9}", "seconds", "minimum", "median", "maximum");
    let mut number = 0;
    time("text encoder", REPEATS, || {
        // What was encoded before is known.
        number += 1;
        job.encode_text(&format!("Relics on the seabed {number}")).unwrap();
    });
    let pixels = vae::pixels(&clip);
    time("VAE encoder, 8 frames", REPEATS, || drop(job.encode(&pixels).unwrap()));
    let latents = job.encode(&pixels).unwrap();
    let mut motion = None;
    time("extraction", REPEATS, || {
        motion = Some(job.motion(&latents, None, "").unwrap());
    });
    let mut denoising = job.denoising(&motion.unwrap(), None).unwrap();
    let latents = case.array("initial_latents");
    let mut unet = job.unet();
    let guided = time("guided step", REPEATS, || drop(denoising.step(&mut unet, 2, &latents).unwrap()));
    let plain = time("plain step", REPEATS, || drop(denoising.step(&mut unet, 5, &latents).unwrap()));
    time("VAE decoder, 8 frames", REPEATS, || drop(job.decode(&latents).unwrap()));
    println!("\na guided step takes {:.2} times a plain one", guided / plain);
    if let Some(mib) = peak_memory() {
        println!("peak memory {mib} MiB");
    }
    println!("{}", engine.runtime().build_info());
}
