//! The engine on an NVIDIA GPU: operators, recorded runs, agreement with float32 on the CPU, seconds and memory at full
//! size with random weights, and where the time goes.
//!
//! `cargo xtask bench --cuda` runs every part; the program runs alone, too, where there is no cargo:
//! `cuda PART --model FOLDER [--full FOLDER]`. A part that fails says why, and the next one goes on.

#[path = "../../tests/recorded/mod.rs"]
mod recorded;

mod agreement;
mod budget;
mod device;
mod operators;
mod profile;
mod random_bundle;
mod stages;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use motionclone::Result;
use motionclone::onnx::checkpoint::import;
use motionclone::random::CudaGenerator;

/// Folders that parts work with.
struct Folders {
    /// The recorded model as a bundle.
    model: PathBuf,
    /// A bundle of full size, made here.
    full: PathBuf,
}

const PARTS: [&str; 11] =
    ["import", "operators", "recorded", "make", "agreement", "stages", "profile", "whole", "budget", "scarce", "draws"];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let option = |name: &str| words.iter().position(|word| word == name).and_then(|at| words.get(at + 1));
    let work = std::env::temp_dir().join("motionclone-bench");
    let folder = |name: &str, default: &str| option(name).map_or_else(|| work.join(default), PathBuf::from);
    let folders = Folders { model: folder("--model", "model"), full: folder("--full", "full") };
    if let Err(e) = std::fs::create_dir_all(&work) {
        println!("{}: {e}", work.display());
    }
    let result = match words.first().map(String::as_str).filter(|word| !word.starts_with("--")) {
        Some(part) => run(part, &folders),
        None => all(&folders),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            println!("FAILED: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Every part in a process of its own, so that a crash of one does not end the others.
fn all(folders: &Folders) -> Result<()> {
    let own = std::env::current_exe().map_err(|e| motionclone::Error::failure(e.to_string()))?;
    for part in PARTS {
        println!("\n== {part}");
        let mut command = Command::new(&own);
        command.arg(part).arg("--model").arg(&folders.model).arg("--full").arg(&folders.full);
        match command.status() {
            Ok(status) if status.success() => {}
            Ok(status) => println!("{part}: {status}"),
            Err(e) => println!("{part}: {e}"),
        }
    }
    Ok(())
}

fn run(part: &str, folders: &Folders) -> Result<()> {
    match part {
        "import" => import_recorded(folders),
        "operators" => operators::check(),
        "recorded" => agreement::with_recorded_runs(&folders.model),
        "make" => random_bundle::make(&folders.full, &folders.model.join("tokenizer")),
        "agreement" => agreement::with_float32(&folders.full),
        "stages" => stages::measure(&folders.full),
        "profile" => profile::guided_step(&folders.full),
        "whole" => stages::whole_run(&folders.full),
        "budget" => budget::compare(&folders.full),
        "scarce" => budget::exceed(&folders.full),
        "graphs" => stages::write_graphs(&folders.full),
        "draws" => {
            draws();
            Ok(())
        }
        _ => Err(motionclone::Error::input(format!("no part '{part}'; there are {}", PARTS.join(", ")))),
    }
}

/// The recorded model's checkpoints as a bundle, unless that is there.
fn import_recorded(folders: &Folders) -> Result<()> {
    if folders.model.is_dir() {
        return Ok(());
    }
    let options = recorded::text_to_video(folders.model.clone());
    import(&options, &mut |_| std::ops::ControlFlow::Continue(()))?;
    Ok(())
}

/// What PyTorch's CUDA generator draws, for a comparison there: the seed, the count, and every number of two draws that
/// follow each other.
fn draws() {
    let number = |name: &str, default: usize| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let multiprocessors = number("MOTIONCLONE_BENCH_MULTIPROCESSORS", 132);
    for (seed, count) in [(0, 6), (42, 1000), (2025, 4 * 16 * 64 * 64), (76739, 3 << 20)] {
        let mut generator = CudaGenerator::new(seed, multiprocessors, number("MOTIONCLONE_BENCH_THREADS_EACH", 2048));
        for draw in 0..2 {
            let values = generator.randn(count);
            // A million numbers are told by a few and by their sums.
            let shown: Vec<String> = values.iter().step_by((count / 500).max(1)).map(f32::to_string).collect();
            println!("{seed} {count} {draw} {}", shown.join(" "));
        }
    }
}
