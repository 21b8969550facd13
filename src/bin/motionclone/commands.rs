//! What each command does. Every input is checked before the long work begins.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use motionclone::bundle::Bundle;
use motionclone::motion::Motion;
use motionclone::onnx::checkpoint::{self, ImportOptions};
use motionclone::onnx::manifest::Manifest;
use motionclone::pipeline::preview;
use motionclone::settings::Settings;
use motionclone::{Engine, Error, Result};

use crate::args::{CloneClip, Export, Extract, Import, Run};
use crate::cache;
use crate::clip::Clip;
use crate::output::{ClipShape, Output, Outputs};
use crate::places::{Input, MadeFolder, Places};
use crate::published::{self, Configuration, Example};
use crate::terminal::{Progress, Stage};
use crate::work::{Results, Work};

const MEGABYTE: u64 = 1_000_000;

/// Makes a bundle from checkpoints.
pub fn import(args: Import, work: &mut Work) -> Result<()> {
    let options = ImportOptions {
        base: args.base,
        tokenizer: args.tokenizer,
        motion_module: args.motion_module,
        dreambooth: args.dreambooth,
        adapter: args.adapter,
        loras: args.lora,
        motion_loras: args.motion_lora,
        sparsectrl_rgb: args.sparsectrl_rgb,
        sparsectrl_scribble: args.sparsectrl_scribble,
        model_config: args.model_config,
        sparsectrl_config: args.sparsectrl_config,
        defaults: args.defaults,
        name: args.name,
        precision: args.dtype,
        out: args.out,
    };
    let mut places = Places::default();
    let files = [
        &options.tokenizer,
        &options.motion_module,
        &options.dreambooth,
        &options.sparsectrl_rgb,
        &options.sparsectrl_scribble,
        &options.model_config,
        &options.sparsectrl_config,
        &options.defaults,
    ];
    let scaled = options.adapter.iter().chain(&options.loras).chain(&options.motion_loras).map(|(path, _)| path);
    for path in files.into_iter().flatten().chain(scaled).chain([&options.base]) {
        // A bundle may lie beside the parts of its base.
        places.reads("checkpoint", Input::Clip, path);
    }
    places.folder(&options.out)?;
    let Work { terminal, cancel } = work;
    let imported = checkpoint::import(&options, &mut |progress| {
        let (done, total) = (progress.done / MEGABYTE, progress.total / MEGABYTE);
        terminal.progress(Progress::new(Stage::Import, done, total), progress.what);
        if cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    terminal.finish();
    let imported = imported?;
    imported.warnings.iter().for_each(|warning| terminal.warn(warning));
    if let Err(error) = preview::fit_bundle(&options.out) {
        terminal.warn(format!("the bundle will show no previews: {error}"));
    }
    terminal.written(&options.out);
    Ok(())
}

/// Makes a new clip that moves like a reference clip.
pub fn clone(args: CloneClip, work: &mut Work) -> Result<()> {
    let bundle = args.engine.bundle.folder()?;
    let manifest = Manifest::read(&bundle)?;
    let settings = args.settings(&manifest)?;
    let fps = args.fps.unwrap_or(manifest.defaults.fps);
    let mut outputs = Outputs::default();
    let places = &mut outputs.places;
    places.reads("model", Input::Whole, &bundle);
    args.reference.iter().for_each(|path| places.reads("reference", Input::Clip, path));
    args.motion.iter().for_each(|path| places.reads("motion", Input::Whole, path));
    args.control.paths().iter().for_each(|path| places.reads("image", Input::Whole, path));
    let keep = !args.cache.no_cache;
    check_cache(keep, places)?;
    let shape = shape(&settings, fps);
    let clips = args.out.iter().map(|path| outputs.clip(path, &shape)).collect::<Result<Vec<_>>>()?;
    args.contact_sheet.as_deref().map(|path| check_contact_sheet(path, &mut outputs)).transpose()?;
    let motion = args.motion.as_deref().map(|path| load_motion(path, &manifest, &settings)).transpose()?;
    let clip = args.reference.as_deref().map(|path| work.clip(path)).transpose()?;
    let mut engine = work.engine(&args.engine)?;
    work.plan(&engine, &settings)?;
    let frames = clip.as_ref().map(|clip| work.sample(clip, &settings)).transpose()?;
    let motion = match (motion, &frames) {
        (Some(motion), _) => motion,
        (None, Some(frames)) => work.motion(&mut engine, frames, &settings, keep)?,
        (None, None) => return Err(Error::input("a clone needs a reference clip or a motion file")),
    };
    let results = Results { outputs: &clips, contact_sheet: args.contact_sheet.as_deref(), fps };
    work.clone_motion(&mut engine, &motion, &settings, frames.as_ref(), &results)
}

/// Keeps a clip's motion in a file.
pub fn extract(args: Extract, work: &mut Work) -> Result<()> {
    if args.out.extension().is_none_or(|extension| extension != "safetensors") {
        return Err(Error::input("a motion file ends in .safetensors").with_path(&args.out));
    }
    let bundle = args.engine.bundle.folder()?;
    let manifest = Manifest::read(&bundle)?;
    let settings = args.settings(&manifest)?;
    let mut outputs = Outputs::default();
    outputs.places.reads("model", Input::Whole, &bundle);
    outputs.places.reads("reference", Input::Clip, &args.reference);
    args.control.paths().iter().for_each(|path| outputs.places.reads("image", Input::Whole, path));
    outputs.file(&args.out)?;
    let clip = work.clip(&args.reference)?;
    let mut engine = work.engine(&args.engine)?;
    work.plan(&engine, &settings)?;
    let frames = work.sample(&clip, &settings)?;
    let motion = work.motion(&mut engine, &frames, &settings, false)?;
    work.keep_motion(&motion, &args.out)
}

/// Writes a bundle's graphs as files.
pub fn export(args: &Export, work: &mut Work) -> Result<()> {
    let folder = args.bundle.folder()?;
    let mut places = Places::default();
    places.reads("model", Input::Whole, &folder);
    places.folder(&args.out)?;
    let bundle = Bundle::open(&folder)?;
    let settings = args.settings(&bundle.manifest.defaults);
    let Work { terminal, cancel } = work;
    let files = motionclone::export::export(&bundle, &settings, &args.out, cancel, &mut |done, total| {
        terminal.progress(Progress::new(Stage::Export, done / MEGABYTE, total / MEGABYTE), "");
    })?;
    terminal.finish();
    files.iter().for_each(|file| terminal.written(file));
    Ok(())
}

/// One line of a published list, checked.
struct Planned {
    settings: Settings,
    clip: Clip,
    output: Output,
    contact_sheet: Option<PathBuf>,
}

/// Runs a published configuration over its list.
pub fn run(args: Run, work: &mut Work) -> Result<()> {
    let bundle = args.engine.bundle.folder()?;
    let manifest = Manifest::read(&bundle)?;
    let terminal = &mut work.terminal;
    let configuration = Configuration::read(&args.inference_config, &mut |warning| terminal.warn(warning))?;
    let examples = Example::read_all(&args.examples, &mut |warning| terminal.warn(warning))?;
    let _made = MadeFolder::new(&args.out)?;
    let mut outputs = Outputs::default();
    outputs.places.reads("model", Input::Whole, &bundle);
    outputs.places.reads("configuration", Input::Whole, &args.inference_config);
    outputs.places.reads("list", Input::Whole, &args.examples);
    let planned = plan_all(&args, &manifest, &configuration, &examples, &mut outputs, work)?;
    check_cache(!args.cache.no_cache, &outputs.places)?;
    let mut engine = work.engine(&args.engine)?;
    let total = planned.len();
    let mut failed = Vec::new();
    for (index, planned) in planned.into_iter().enumerate() {
        work.terminal.clip(index + 1, total, &planned.settings.prompt);
        match run_one(&args, &manifest, planned, &mut engine, work) {
            Err(error) if error.is_cancelled() || work.cancel.is_cancelled() => return Err(error),
            // The others may still go well.
            Err(error) => {
                work.terminal.finish();
                work.terminal.warn(format!("{} of {total} failed: {error}", index + 1));
                failed.push(error);
            }
            Ok(()) => {}
        }
    }
    let count = failed.len();
    match failed.pop() {
        Some(error) if total == 1 => Err(error),
        Some(error) => Err(error.within(format!("{count} of {total} clips failed, the last with"))),
        None => Ok(()),
    }
}

/// Checks every line of the list, its files and the places of its results.
fn plan_all(
    args: &Run,
    manifest: &Manifest,
    configuration: &Configuration,
    examples: &[Example],
    outputs: &mut Outputs,
    work: &mut Work,
) -> Result<Vec<Planned>> {
    let fps = args.fps.unwrap_or(manifest.defaults.fps);
    let mut read = Vec::new();
    for (index, example) in examples.iter().enumerate() {
        let terminal = &mut work.terminal;
        let places = &mut outputs.places;
        let mut resolve = |path: &Path| {
            let path = published::resolve(path, &args.examples, &mut |notice| terminal.notice(notice));
            places.reads("image", Input::Whole, &path);
            path
        };
        let settings = configuration.settings(&manifest.defaults, example, args.size, args.frames, &mut resolve);
        let video = published::resolve(&example.video_path, &args.examples, &mut |notice| terminal.notice(notice));
        places.reads("reference", Input::Clip, &video);
        let checked = settings.and_then(|settings| settings.check(manifest).map(|()| settings));
        let opened = checked.and_then(|settings| Ok((settings, work.clip(&video)?)));
        read.push(opened.map_err(|e| e.within(format!("{}: example {}", args.examples.display(), index + 1)))?);
    }
    // All inputs are known now, so that no result of one line takes the place of another's input.
    let mut names = HashSet::new();
    let mut planned = Vec::new();
    for ((settings, clip), example) in read.into_iter().zip(examples) {
        let mut name = example.file_name(settings.seed);
        // Names that differ only in case are one file on many systems.
        while !names.insert(name.to_lowercase()) {
            name.push_str("_again");
        }
        let output = outputs.clip(&args.out.join(format!("{name}.mp4")), &shape(&settings, fps))?;
        let contact_sheet = args.contact_sheets.then(|| args.out.join(format!("{name}.png")));
        contact_sheet.as_deref().map(|path| check_contact_sheet(path, outputs)).transpose()?;
        planned.push(Planned { settings, clip, output, contact_sheet });
    }
    Ok(planned)
}

fn run_one(args: &Run, manifest: &Manifest, planned: Planned, engine: &mut Engine, work: &mut Work) -> Result<()> {
    let Planned { settings, clip, output, contact_sheet } = planned;
    work.plan(engine, &settings)?;
    let frames = work.sample(&clip, &settings)?;
    let motion = work.motion(engine, &frames, &settings, !args.cache.no_cache)?;
    let fps = args.fps.unwrap_or(manifest.defaults.fps);
    let results = Results { outputs: &[output], contact_sheet: contact_sheet.as_deref(), fps };
    work.clone_motion(engine, &motion, &settings, Some(&frames), &results)
}

fn shape(settings: &Settings, fps: f64) -> ClipShape {
    ClipShape { width: settings.width, height: settings.height, frames: settings.frames, fps }
}

/// Checks that motions are not kept among the inputs.
fn check_cache(keep: bool, places: &Places) -> Result<()> {
    cache::folder().filter(|_| keep).map_or(Ok(()), |folder| places.keeps(&folder))
}

fn load_motion(path: &Path, manifest: &Manifest, settings: &Settings) -> Result<Motion> {
    let motion = Motion::load(path)?;
    motion.check(manifest, settings).map_err(|e| e.with_path(path))?;
    Ok(motion)
}

fn check_contact_sheet(path: &Path, outputs: &mut Outputs) -> Result<()> {
    if !path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png")) {
        return Err(Error::input("a contact sheet ends in .png").with_path(path));
    }
    outputs.file(path)
}
