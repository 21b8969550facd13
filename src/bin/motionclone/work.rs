//! The engine at work for the commands: opening it, getting a clip's motion, making the clip.

use std::path::{Path, PathBuf};

use motionclone::Cancel;
use motionclone::media::clip::Clip;
use motionclone::media::frames::Frames;
use motionclone::memory::Economy;
use motionclone::motion::Motion;
use motionclone::onnx::manifest::Manifest;
use motionclone::runtime::gigabytes;
use motionclone::settings::{FrameRate, Settings};
use motionclone::{Engine, EngineOptions, Result};

use crate::args::EngineArgs;
use crate::cache::{self, Entry};
use crate::output::{self, Output};
use crate::sheet::contact_sheet;
use crate::terminal::Terminal;

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
        self.terminal.notice(format!("computing on {}", engine.device_and_reason()));
        Ok(engine)
    }

    /// Says what memory the job will take, where that matters to the user.
    pub fn plan(&mut self, engine: &Engine, settings: &Settings) -> Result<()> {
        if let Some(budget) = engine.memory_budget() {
            let plan = engine.plan(settings)?;
            let way = match plan.economy {
                Economy::Nothing => "",
                Economy::Recompute => ", with the gradient computing again what it needs",
                Economy::OneByOne => ", with one network at a time",
            };
            let (peak, budget) = (gigabytes(plan.peak), gigabytes(budget));
            self.terminal.notice(format!("about {peak} of a memory budget of {budget}{way}"));
        }
        Ok(())
    }

    /// Opens a reference clip and says what is wrong with it that does not stop the work.
    pub fn clip(&mut self, path: &Path) -> Result<Clip> {
        let clip = Clip::open(path, &self.cancel)?;
        if let Some(complaint) = &clip.complaint {
            self.terminal.warn(format!("{}: damaged, ffmpeg says: {complaint}", path.display()));
        }
        Ok(clip)
    }

    /// The frames of a clip that a run works with.
    pub fn sample(&mut self, clip: &Clip, settings: &Settings) -> Result<Frames> {
        if clip.count < settings.frames {
            self.terminal.warn(format!(
                "{}: it has {} frames, {} were asked for; some are repeated",
                clip.path().display(),
                clip.count,
                settings.frames
            ));
        }
        clip.sample(settings.frames, settings.width, settings.height, &self.cancel)
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
        for output in results.outputs {
            output.write(&frames, results.fps, cancel)?;
            terminal.written(output.path());
        }
        if let Some(path) = results.contact_sheet {
            output::write_png(path, &contact_sheet(reference, &frames))?;
            terminal.written(path);
        }
        Ok(())
    }
}

fn cache_entry(manifest: &Manifest, settings: &Settings, clip: &Frames, device: &str, keep: bool) -> Option<Entry> {
    let folder: Option<PathBuf> = if keep { cache::folder() } else { None };
    folder.map(|folder| Entry::new(folder, manifest, settings, clip, device))
}
