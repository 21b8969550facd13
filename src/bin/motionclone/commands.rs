//! What each command does. Every input is checked before the long work begins.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use motionclone::bundle::Bundle;
use motionclone::motion::Motion;
use motionclone::onnx::checkpoint::{self, ImportOptions};
use motionclone::onnx::manifest::Manifest;
use motionclone::pipeline::preview_fit;
use motionclone::settings::{self, Choices, Description, FrameRate, Kind, Model, Setting, Settings, Value};
use motionclone::{Error, Result};

use crate::args::{CloneClip, Export, Extract, Import, ShowSettings};
use crate::cache;
use crate::output::{ClipShape, Outputs};
use crate::places::{Input, Places};
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
        vae: args.vae,
        adapter: args.adapter,
        loras: args.lora,
        motion_loras: args.motion_lora,
        sparsectrl_rgb: args.sparsectrl_rgb,
        sparsectrl_scribble: args.sparsectrl_scribble,
        model_config: args.model_config,
        sparsectrl_config: args.sparsectrl_config,
        defaults: args.defaults,
        vocabulary: args.vocabulary,
        name: args.name,
        precision: args.dtype,
        out: args.out,
    };
    let mut places = Places::default();
    let files = [
        &options.tokenizer,
        &options.motion_module,
        &options.dreambooth,
        &options.vae,
        &options.sparsectrl_rgb,
        &options.sparsectrl_scribble,
        &options.model_config,
        &options.sparsectrl_config,
        &options.defaults,
        &options.vocabulary,
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
    imported.notes.iter().for_each(|note| terminal.notice(note));
    imported.warnings.iter().for_each(|warning| terminal.warn(warning));
    if let Err(error) = preview_fit::fit_bundle(&options.out) {
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
    tell_seed(&args.settings.0, &settings, work);
    let fps = frame_rate(args.fps, &manifest)?;
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
    let mut clip = args.reference.as_deref().map(|path| work.clip(path, &args.part.selection())).transpose()?;
    let mut engine = work.engine(&args.engine)?;
    work.plan(&mut engine, &settings)?;
    let frames = clip.as_mut().map(|clip| work.sample(clip, &settings)).transpose()?;
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
    tell_seed(&args.settings.0, &settings, work);
    let mut outputs = Outputs::default();
    outputs.places.reads("model", Input::Whole, &bundle);
    outputs.places.reads("reference", Input::Clip, &args.reference);
    args.control.paths().iter().for_each(|path| outputs.places.reads("image", Input::Whole, path));
    outputs.file(&args.out)?;
    let mut clip = work.clip(&args.reference, &args.part.selection())?;
    let mut engine = work.engine(&args.engine)?;
    work.plan(&mut engine, &settings)?;
    let frames = work.sample(&mut clip, &settings)?;
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

/// Prints the table of settings with a model's own values.
pub fn settings(args: &ShowSettings) -> Result<()> {
    let model = Model::from(&Manifest::read(&args.bundle.folder()?)?);
    let text = if args.json {
        let described: Vec<Description> = settings::settings().map(|setting| setting.describe(&model)).collect();
        serde_json::to_string_pretty(&described).map_err(|e| Error::failure(e.to_string()))? + "\n"
    } else {
        settings::settings().map(|setting| shown(setting, &model)).collect()
    };
    print(&text)
}

/// A setting for people.
fn shown(setting: &Setting, model: &Model) -> String {
    let range = match setting.kind {
        Kind::Integer | Kind::Number => setting.range(model).to_string(),
        Kind::Seed => "a whole number, or -1 to draw one".into(),
        Kind::Text => "a text".into(),
        Kind::Choice(names) => names.join(", "),
        Kind::List => "names with commas between".into(),
    };
    let own = match setting.default(model) {
        Value::List(names) => names.join(","),
        Value::Text(text) if setting.kind != Kind::Text => text,
        value => serde_json::json!(value).to_string(),
    };
    format!("{}\n    {}\n    {range}; {own} unless given\n", setting.name, setting.help)
}

/// Writes what was asked for to standard output. A reader who has seen enough may close it.
fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::io("standard output", e)),
        _ => Ok(()),
    }
}

/// The rate asked for, or the model's own.
pub fn frame_rate(asked: Option<FrameRate>, manifest: &Manifest) -> Result<FrameRate> {
    let own = manifest.defaults.fps;
    let rate = asked.or_else(|| FrameRate::from_f64(own));
    rate.ok_or_else(|| {
        Error::input(format!(
            "{own} frames a second in the bundle's defaults: must be 0.1 to 240; name others with --fps"
        ))
    })
}

/// Says which seed was drawn, so that the clip can be made again.
fn tell_seed(choices: &Choices, settings: &Settings, work: &mut Work) {
    if choices.draws_seed() {
        work.terminal.notice(format!("seed {}: drawn; --seed {0} makes the same again", settings.seed));
    }
}

pub fn shape(settings: &Settings, fps: FrameRate) -> ClipShape {
    ClipShape { width: settings.width, height: settings.height, frames: settings.frames, fps }
}

/// Checks that motions are not kept among the inputs.
pub fn check_cache(keep: bool, places: &Places) -> Result<()> {
    let Some(folder) = cache::folder().filter(|_| keep) else { return Ok(()) };
    places.keeps(&folder).map_err(|e| e.within("the folder of kept motions (MOTIONCLONE_CACHE)"))
}

fn load_motion(path: &Path, manifest: &Manifest, settings: &Settings) -> Result<Motion> {
    let motion = Motion::load(path)?;
    motion.check(manifest, settings).map_err(|e| e.with_path(path))?;
    Ok(motion)
}

pub fn check_contact_sheet(path: &Path, outputs: &mut Outputs) -> Result<()> {
    if !path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png")) {
        return Err(Error::input("a contact sheet ends in .png").with_path(path));
    }
    outputs.file(path)
}
