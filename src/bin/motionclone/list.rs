//! A published configuration over its list: every line is checked before the first is worked on, and one that fails
//! does not keep the others from being made.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use motionclone::media::clip::Clip;
use motionclone::media::sampling::Selection;
use motionclone::onnx::manifest::Manifest;
use motionclone::settings::Settings;
use motionclone::{Engine, Result};

use crate::args::Run;
use crate::commands::{check_cache, check_contact_sheet, frame_rate, shape};
use crate::output::{Output, Outputs};
use crate::places::{Input, MadeFolder};
use crate::published::{self, Configuration, Example};
use crate::work::{Results, Work};

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
    manifest.motion()?;
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
    let selection = Selection { sampling: args.sampling, ..Selection::default() };
    let fps = frame_rate(args.fps, manifest)?;
    let mut read = Vec::new();
    for (index, example) in examples.iter().enumerate() {
        let terminal = &mut work.terminal;
        let places = &mut outputs.places;
        let mut resolve = |path: &Path| {
            let path = published::resolve(path, &args.examples, &mut |notice| terminal.notice(notice));
            places.reads("image", Input::Whole, &path);
            path
        };
        let settings = configuration.settings(manifest, example, args.size, args.frames, &mut resolve);
        let video = published::resolve(&example.video_path, &args.examples, &mut |notice| terminal.notice(notice));
        places.reads("reference", Input::Clip, &video);
        if let (Ok(settings), true) = (&settings, configuration.draws_seed(example)) {
            work.terminal.notice(format!("{}: seed {}: drawn", example.video_path.display(), settings.seed));
        }
        let checked = settings.and_then(|settings| settings.check(manifest).map(|()| settings));
        let opened = checked.and_then(|settings| Ok((settings, work.clip(&video, &selection)?)));
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
    let Planned { settings, mut clip, output, contact_sheet } = planned;
    work.plan(engine, &settings)?;
    let frames = work.sample(&mut clip, &settings)?;
    let motion = work.motion(engine, &frames, &settings, !args.cache.no_cache)?;
    let fps = frame_rate(args.fps, manifest)?;
    let results = Results { outputs: &[output], contact_sheet: contact_sheet.as_deref(), fps };
    work.clone_motion(engine, &motion, &settings, Some(&frames), &results)
}
