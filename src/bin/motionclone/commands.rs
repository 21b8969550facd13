//! What each command does. Every input is checked before the long work begins.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use motionclone::bundle::Bundle;
use motionclone::media::clip::Clip;
use motionclone::motion::Motion;
use motionclone::onnx::checkpoint::{self, ImportOptions};
use motionclone::onnx::manifest::Manifest;
use motionclone::pipeline::preview_fit;
use motionclone::settings::{self, Choices, Description, FrameRate, Kind, Settings, Value};
use motionclone::{Error, Result};

use crate::args::{CloneClip, Export, Extract, Import, Run, ShowSettings};
use crate::output::{self, Output};
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
    let Work { terminal, cancel } = work;
    let imported = checkpoint::import(&options, &mut |progress| {
        let (done, total) = (progress.done / MEGABYTE, progress.total / MEGABYTE);
        terminal.progress(Progress::new(Stage::Import, done, total), progress.what);
        if cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    terminal.finish();
    cancel.check()?;
    let imported = imported?;
    imported.warnings.iter().for_each(|warning| terminal.warn(warning));
    if let Err(error) = preview_fit::fit_bundle(&options.out) {
        terminal.warn(format!("the bundle will show no previews: {error}"));
    }
    terminal.written(&options.out);
    Ok(())
}

/// Makes a new clip that moves like a reference clip.
pub fn clone(args: CloneClip, work: &mut Work) -> Result<()> {
    let outputs = args.out.iter().map(|path| Output::prepare(path)).collect::<Result<Vec<_>>>()?;
    args.contact_sheet.as_deref().map(check_contact_sheet).transpose()?;
    let manifest = Manifest::read(&args.engine.bundle.folder()?)?;
    let settings = args.settings(&manifest)?;
    tell_seed(&args.settings.0, &settings, work);
    let motion = args.motion.as_deref().map(|path| load_motion(path, &manifest, &settings)).transpose()?;
    let clip = args.reference.as_deref().map(|path| work.clip(path)).transpose()?;
    let frames = clip.as_ref().map(|clip| work.sample(clip, &settings)).transpose()?;
    let mut engine = work.engine(&args.engine)?;
    work.plan(&mut engine, &settings)?;
    let motion = match (motion, &frames) {
        (Some(motion), _) => motion,
        (None, Some(frames)) => work.motion(&mut engine, frames, &settings, !args.cache.no_cache)?,
        (None, None) => return Err(Error::input("a clone needs a reference clip or a motion file")),
    };
    let fps = frame_rate(args.fps, &manifest)?;
    let results = Results { outputs: &outputs, contact_sheet: args.contact_sheet.as_deref(), fps };
    work.clone_motion(&mut engine, &motion, &settings, frames.as_ref(), &results)
}

/// Keeps a clip's motion in a file.
pub fn extract(args: Extract, work: &mut Work) -> Result<()> {
    if args.out.extension().is_none_or(|extension| extension != "safetensors") {
        return Err(Error::input("a motion file ends in .safetensors").with_path(&args.out));
    }
    output::check_writable(&args.out)?;
    let manifest = Manifest::read(&args.engine.bundle.folder()?)?;
    let settings = args.settings(&manifest)?;
    tell_seed(&args.settings.0, &settings, work);
    let clip = work.clip(&args.reference)?;
    let frames = work.sample(&clip, &settings)?;
    let mut engine = work.engine(&args.engine)?;
    work.plan(&mut engine, &settings)?;
    let motion = work.motion(&mut engine, &frames, &settings, false)?;
    motion.save(&args.out)?;
    work.terminal.written(&args.out);
    Ok(())
}

/// Writes a bundle's graphs as files.
pub fn export(args: &Export, work: &mut Work) -> Result<()> {
    let bundle = Bundle::open(&args.bundle.folder()?)?;
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
    let manifest = Manifest::read(&args.bundle.folder()?)?;
    let described: Vec<Description> = settings::settings().map(|setting| setting.describe(&manifest)).collect();
    if args.json {
        let json = serde_json::to_string_pretty(&described).map_err(|e| Error::failure(e.to_string()))?;
        return print(&(json + "\n"));
    }
    let mut shown = String::new();
    for setting in settings::settings() {
        let range = match setting.kind {
            Kind::Integer | Kind::Number => setting.range(&manifest).to_string(),
            Kind::Seed => "a whole number, or -1 to draw one".into(),
            Kind::Text => "a text".into(),
            Kind::Choice(names) => names.join(", "),
            Kind::List => "names with commas between".into(),
        };
        let own = match setting.default(&manifest) {
            Value::List(names) => names.join(","),
            Value::Text(text) if setting.kind != Kind::Text => text,
            value => serde_json::json!(value).to_string(),
        };
        shown += &format!("{}\n    {}\n    {range}; {own} unless given\n", setting.name, setting.help);
    }
    print(&shown)
}

/// Writes what was asked for to standard output. A reader who has seen enough may close it.
fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::io("standard output", e)),
        _ => Ok(()),
    }
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
    let manifest = Manifest::read(&args.engine.bundle.folder()?)?;
    let terminal = &mut work.terminal;
    let configuration = Configuration::read(&args.inference_config, &mut |warning| terminal.warn(warning))?;
    let examples = Example::read_all(&args.examples, &mut |warning| terminal.warn(warning))?;
    let new_folder = !args.out.exists();
    fs::create_dir_all(&args.out).map_err(|e| Error::input(format!("cannot be made: {e}")).with_path(&args.out))?;
    let result = run_all(&args, &manifest, &configuration, &examples, work);
    if result.is_err() && new_folder {
        // Only an empty folder goes, one with finished clips stays.
        let _ = fs::remove_dir(&args.out);
    }
    result
}

fn run_all(
    args: &Run,
    manifest: &Manifest,
    configuration: &Configuration,
    examples: &[Example],
    work: &mut Work,
) -> Result<()> {
    let mut names = HashSet::new();
    let mut planned = Vec::new();
    for example in examples {
        let terminal = &mut work.terminal;
        let mut resolve = |path: &Path| published::resolve(path, &args.examples, &mut |notice| terminal.notice(notice));
        let settings = configuration.settings(manifest, example, args.size, args.frames, &mut resolve)?;
        let video = resolve(&example.video_path);
        settings.check(manifest)?;
        if example.draws_seed() {
            work.terminal.notice(format!("{}: seed {}: drawn", example.video_path.display(), settings.seed));
        }
        let clip = work.clip(&video)?;
        let mut name = example.file_name(settings.seed);
        while !names.insert(name.clone()) {
            name.push_str("_again");
        }
        let output = Output::prepare(&args.out.join(format!("{name}.mp4")))?;
        let contact_sheet = args.contact_sheets.then(|| args.out.join(format!("{name}.png")));
        planned.push(Planned { settings, clip, output, contact_sheet });
    }
    let mut engine = work.engine(&args.engine)?;
    let fps = frame_rate(args.fps, manifest)?;
    for (index, Planned { settings, clip, output, contact_sheet }) in planned.into_iter().enumerate() {
        work.terminal.clip(index + 1, examples.len(), &settings.prompt);
        let frames = work.sample(&clip, &settings)?;
        work.plan(&mut engine, &settings)?;
        let motion = work.motion(&mut engine, &frames, &settings, !args.cache.no_cache)?;
        let results = Results { outputs: &[output], contact_sheet: contact_sheet.as_deref(), fps };
        work.clone_motion(&mut engine, &motion, &settings, Some(&frames), &results)?;
    }
    Ok(())
}

/// The rate asked for, or the model's own.
fn frame_rate(asked: Option<FrameRate>, manifest: &Manifest) -> Result<FrameRate> {
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

fn load_motion(path: &Path, manifest: &Manifest, settings: &Settings) -> Result<Motion> {
    let motion = Motion::load(path)?;
    motion.check(manifest, settings).map_err(|e| e.with_path(path))?;
    Ok(motion)
}

fn check_contact_sheet(path: &Path) -> Result<()> {
    if !path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png")) {
        return Err(Error::input("a contact sheet ends in .png").with_path(path));
    }
    output::check_writable(path)
}
