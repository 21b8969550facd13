//! The engine at work for the commands: opening it, getting a clip's motion, making the clip.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use motionclone::Cancel;
use motionclone::media::clip::Clip;
use motionclone::media::frames::Frames;
use motionclone::media::sampling::Selection;
use motionclone::media::video::ReadProgress;
use motionclone::motion::Motion;
use motionclone::networks::MemoryStrategy;
use motionclone::onnx::manifest::Manifest;
use motionclone::runtime::gigabytes;
use motionclone::settings::{FrameRate, Settings};
use motionclone::{Engine, EngineOptions, Error, Result};

use crate::args::EngineArgs;
use crate::cache::{self, Entry};
use crate::memory;
use crate::output::{self, Output};
use crate::sheet::contact_sheet;
use crate::terminal::Terminal;

/// A clip that is read within this time needs no progress.
const SHOWN_AFTER: Duration = Duration::from_secs(1);
/// Pixels of a job's frames from which on its memory is predicted.
const WORTH_A_PREDICTION: usize = 16 * 768 * 768;
/// Bytes of memory below which every job's is predicted.
const WORTH_KEEPING_WITHIN: u64 = 8 << 30;

/// What every command has at hand.
pub struct Work {
    pub terminal: Terminal,
    pub cancel: Cancel,
}

/// Where one clone's results go.
pub struct Results<'a> {
    pub outputs: &'a [Output],
    pub contact_sheet: Option<&'a Path>,
    pub fps: FrameRate,
}

impl Work {
    /// Opens the model on its device.
    pub fn engine(&mut self, args: &EngineArgs) -> Result<Engine> {
        let options = EngineOptions {
            device: args.device,
            threads: args.threads,
            memory_budget: args.memory_budget,
            ..Default::default()
        };
        let engine = Engine::open(&args.bundle.folder()?, &options)?;
        if args.bundle.is_embedded() {
            self.terminal.notice("using the small embedded model, which draws a toy world; --bundle names another");
        }
        self.terminal.notice(format!("computing on {}", engine.device_and_reason()));
        Ok(engine)
    }

    /// Says what memory the job will take, where that matters to the user.
    ///
    /// # Errors
    /// When it cannot have as much.
    pub fn plan(&mut self, engine: &mut Engine, settings: &Settings) -> Result<()> {
        // The prediction makes all graphs, which small jobs should not wait for.
        let pixels = settings.width * settings.height * settings.frames;
        let limit = memory::limit().filter(|limit| pixels > WORTH_A_PREDICTION || *limit < WORTH_KEEPING_WITHIN);
        if let (Some(limit), None, "CPU") = (limit, engine.memory_budget(), engine.device_name()) {
            let peak = engine.plan(settings)?.peak;
            if peak > limit {
                let Settings { width, height, frames, .. } = settings;
                let (peak, limit) = (gigabytes(peak), gigabytes(limit));
                return Err(Error::input(format!(
                    "{frames} frames of {width}x{height} take about {peak} of memory, and {limit} can be had; choose a \
                     smaller --size or fewer --frames, or name a --memory-budget, with which a job takes less memory and \
                     more time"
                )));
            }
        }
        if let Some(budget) = engine.memory_budget() {
            let plan = engine.plan(settings)?;
            let way = match plan.strategy {
                MemoryStrategy::KeepAll => "",
                MemoryStrategy::Rematerialize => ", with the gradient computing again what it needs",
                MemoryStrategy::ModelOffload => ", with one network at a time",
            };
            let (peak, budget) = (gigabytes(plan.peak), gigabytes(budget));
            self.terminal.notice(format!("about {peak} of a memory budget of {budget}{way}"));
        }
        Ok(())
    }

    /// Opens a reference clip and says how it is read, and what is wrong with it that does not stop the work.
    pub fn clip(&mut self, path: &Path, selection: &Selection) -> Result<Clip> {
        let Self { terminal, cancel } = self;
        let opened = Clip::open(path, selection, &mut reading(terminal), cancel);
        terminal.finish();
        let mut clip = opened?;
        std::mem::take(&mut clip.notes).iter().for_each(|note| terminal.notice(note));
        std::mem::take(&mut clip.warnings).iter().for_each(|warning| terminal.warn(warning));
        Ok(clip)
    }

    /// The frames of a clip that a run works with.
    pub fn sample(&mut self, clip: &mut Clip, settings: &Settings) -> Result<Frames> {
        let Self { terminal, cancel } = self;
        if clip.count() < settings.frames {
            terminal.warn(format!(
                "{}: it has {} frames, {} were asked for; some are repeated",
                clip.path().display(),
                clip.count(),
                settings.frames
            ));
        }
        let (frames, width, height) = (settings.frames, settings.width, settings.height);
        let sampled = clip.sample(frames, width, height, &mut reading(terminal), cancel);
        terminal.finish();
        std::mem::take(&mut clip.warnings).iter().for_each(|warning| terminal.warn(warning));
        sampled
    }

    /// The motion of sampled frames: kept from an earlier run, or extracted and kept.
    pub fn motion(&mut self, engine: &mut Engine, clip: &Frames, settings: &Settings, keep: bool) -> Result<Motion> {
        let entry = cache_entry(engine.manifest(), settings, clip, engine.device_name(), keep);
        if let Some((entry, motion)) = entry.as_ref().and_then(|entry| Some((entry, entry.load()?))) {
            self.terminal.notice(format!("motion kept from an earlier run: {}", entry.path().display()));
            return Ok(motion);
        }
        let Self { terminal, cancel } = self;
        let motion = engine.extract(clip, settings, &mut |event| terminal.engine(&event), cancel)?;
        terminal.finish();
        if let Some(Err(error)) = entry.map(|entry| entry.save(&motion)) {
            terminal.warn(format!("the motion is not kept: {error}"));
        }
        Ok(motion)
    }

    /// Makes the new clip and writes it everywhere it was asked for.
    pub fn clone_motion(
        &mut self,
        engine: &mut Engine,
        motion: &Motion,
        settings: &Settings,
        reference: Option<&Frames>,
        results: &Results,
    ) -> Result<()> {
        let Self { terminal, cancel } = self;
        let frames = engine.clone_motion(motion, settings, &mut |event| terminal.engine(&event), cancel)?;
        terminal.finish();
        self.write(&frames, reference, results)
    }

    /// Writes a finished clip everywhere. What fails does not keep the others from being written, and the clip's frames
    /// are kept as PNG files then.
    fn write(&mut self, frames: &Frames, reference: Option<&Frames>, results: &Results) -> Result<()> {
        let Self { terminal, cancel } = self;
        let mut failed = Vec::new();
        let mut lossless = false;
        for output in results.outputs {
            match output.write(frames, results.fps, cancel) {
                Ok(()) => {
                    lossless |= output.is_lossless();
                    terminal.written(output.path());
                }
                Err(error) if error.is_cancelled() => return Err(error),
                Err(error) => failed.push((output.path(), error)),
            }
        }
        if let (Some((path, _)), false) = (failed.first(), lossless) {
            match output::rescue(frames, path, cache::folder(), cancel) {
                Ok(kept) => {
                    let message = format!("the finished frames are kept as PNG files in {}", kept.display());
                    terminal.kept(&kept, &message);
                }
                Err(error) => terminal.warn(format!("the finished frames could not be kept: {error}")),
            }
        }
        if let Some(path) = results.contact_sheet {
            match output::write_png(path, &contact_sheet(reference, frames)) {
                Ok(()) => terminal.written(path),
                Err(error) => failed.push((path, error)),
            }
        }
        // The last one is what the run ends with.
        let last = failed.pop();
        failed.into_iter().for_each(|(_, error)| terminal.warn(error.to_string()));
        last.map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Writes a motion file, elsewhere when its own place fails.
    pub fn keep_motion(&mut self, motion: &Motion, path: &Path) -> Result<()> {
        let Err(error) = motion.save(path) else {
            self.terminal.written(path);
            return Ok(());
        };
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        match output::save_somewhere(path, cache::folder(), &stem, ".safetensors", &mut |path| motion.save(path)) {
            Ok(kept) => self.terminal.kept(&kept, &format!("the motion is kept in {}", kept.display())),
            Err(error) => self.terminal.warn(format!("the motion could not be kept: {error}")),
        }
        Err(error)
    }
}

fn cache_entry(manifest: &Manifest, settings: &Settings, clip: &Frames, device: &str, keep: bool) -> Option<Entry> {
    let folder: Option<PathBuf> = if keep { cache::folder() } else { None };
    folder.map(|folder| Entry::new(folder, manifest, settings, clip, device))
}

/// Shows how far the reading of a clip is, once it takes longer than a moment.
fn reading(terminal: &mut Terminal) -> impl FnMut(ReadProgress) {
    let begun = Instant::now();
    move |progress| {
        if begun.elapsed() >= SHOWN_AFTER {
            terminal.progress((&progress).into(), "");
        }
    }
}
