//! The same clip within a memory budget, and what happens where memory does not suffice.

use std::path::Path;

use motionclone::Cancel;
use motionclone::job::Event;
use motionclone::media::frames::Frames;
use motionclone::runtime::Device;
use motionclone::settings::Settings;
use motionclone::{Engine, EngineOptions, Result};

use crate::device::{Memory, Way};
use crate::stages::{drawn_clip, settings};

/// What a GPU of 8 GB has to spare.
const BUDGET: u64 = 7_500_000_000;
const STEPS: usize = 8;

/// A short job with and without a budget: peak memory, seconds, and how near the frames are.
pub fn compare(bundle: &Path) -> Result<()> {
    let mut clips = Vec::new();
    for budget in [None, Some(BUDGET)] {
        let memory = Memory::watch();
        let mut engine = open(bundle, budget)?;
        let settings = short(&engine);
        let plan = engine.plan(&settings)?;
        let start = std::time::Instant::now();
        clips.push(clone(&mut engine, &settings)?);
        let (seconds, (_, peak)) = (start.elapsed().as_secs_f64(), memory.used());
        println!(
            "budget {budget:?}: {:?}, predicted {:.2} GB, peak {peak} MiB of the device, {seconds:.1} s with loading",
            plan.strategy,
            plan.peak as f64 / 1e9
        );
    }
    println!("frames within the budget against those without: {:.1} dB", decibels(&clips[0], &clips[1]));
    Ok(())
}

/// A job for which the device may have too little memory left, and a smaller one with the same engine afterwards.
pub fn exceed(bundle: &Path) -> Result<()> {
    let mut engine = open(bundle, None)?;
    let settings = short(&engine);
    match clone(&mut engine, &settings) {
        Ok(frames) => println!("{} frames of {}×{}: they fit", frames.count(), frames.width, frames.height),
        Err(e) => println!("too large: {}", e.to_string().chars().take(600).collect::<String>()),
    }
    let small =
        Settings { frames: settings.frames / 2, width: settings.width / 2, height: settings.height / 2, ..settings };
    let frames = clone(&mut engine, &small)?;
    println!("afterwards: {} frames of {}×{}", frames.count(), frames.width, frames.height);
    Ok(())
}

fn open(bundle: &Path, memory_budget: Option<u64>) -> Result<Engine> {
    let memory_budget = memory_budget.filter(|_| Way::device() != Device::Cpu);
    let options = EngineOptions { memory_budget, ..Way::new().options() };
    Engine::open(bundle, &options)
}

fn short(engine: &Engine) -> Settings {
    let settings = settings(engine);
    Settings {
        steps: STEPS.min(settings.steps),
        guidance_steps: settings.guidance_steps.min(STEPS / 2),
        warm_up: 0,
        cool_up: 0,
        ..settings
    }
}

fn clone(engine: &mut Engine, settings: &Settings) -> Result<Frames> {
    let (cancel, mut watch) = (Cancel::default(), |_: Event| ());
    let motion = engine.extract(&drawn_clip(settings), settings, &mut watch, &cancel)?;
    engine.clone_motion(&motion, settings, &mut watch, &cancel)
}

/// Peak signal to noise ratio of 8-bit frames.
fn decibels(a: &Frames, b: &Frames) -> f64 {
    let squares: f64 = a.data.iter().zip(&b.data).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    10.0 * (255.0 * 255.0 * a.data.len() as f64 / squares).log10()
}
