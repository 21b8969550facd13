//! A whole job: what it reports, how it is cancelled, and that the engine goes on afterwards.

mod recorded;

use std::path::Path;
use std::time::{Duration, Instant};

use motionclone::Cancel;
use motionclone::job::{Event, Progress, Stage};
use motionclone::media::frames::Frames;
use motionclone::pipeline::preview_fit;
use motionclone::runtime::Device;
use motionclone::settings::Settings;
use motionclone::{Engine, EngineOptions};

fn engine(folder: &Path) -> Engine {
    let bundle = recorded::plain_bundle(folder);
    preview_fit::fit_bundle(&bundle).unwrap();
    Engine::open(&bundle, &EngineOptions { device: Device::Cpu, ..Default::default() }).unwrap()
}

fn settings(engine: &Engine) -> Settings {
    Settings {
        width: 64,
        height: 72,
        frames: 4,
        steps: 5,
        guidance_steps: 3,
        warm_up: 0,
        cool_up: 0,
        ..Settings::new(&engine.manifest().defaults, "a road")
    }
}

/// A bright square that moves to the right.
fn clip(settings: &Settings) -> Frames {
    let (width, height) = (settings.width, settings.height);
    let mut data = Vec::new();
    for frame in 0..settings.frames {
        for at in 0..width * height {
            let (x, y) = (at % width, at / width);
            let inside = (20..50).contains(&y) && (8 * frame..8 * frame + 24).contains(&x);
            data.extend(if inside { [230, 200, 90] } else { [40, 60, 110] });
        }
    }
    Frames { width, height, data }
}

#[test]
fn a_job_reports_every_stage_and_step() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = engine(folder.path());
    let settings = settings(&engine);
    let mut events: Vec<Progress> = Vec::new();
    let mut watch = |event| match event {
        Event::Progress(progress) => events.push(progress),
        Event::Warning(warning) => panic!("{warning}"),
    };
    let cancel = Cancel::default();
    let motion = engine.extract(&clip(&settings), &settings, &mut watch, &cancel).unwrap();
    let frames = engine.clone_motion(&motion, &settings, &mut watch, &cancel).unwrap();
    assert_eq!((frames.width, frames.height, frames.count()), (64, 72, 4));

    let mut stages: Vec<Stage> = events.iter().map(|e| e.stage).collect();
    stages.dedup();
    assert_eq!(stages, [Stage::Encode, Stage::Extract, Stage::Load, Stage::Denoise, Stage::Decode]);
    let steps: Vec<&Progress> = events.iter().filter(|e| e.stage == Stage::Denoise).collect();
    assert_eq!(steps.iter().map(|e| e.step).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    for (index, step) in steps.iter().enumerate() {
        assert_eq!(step.loss.is_some(), index < settings.guidance_steps, "step {}", step.step);
        assert!(step.seconds_left.is_some_and(|seconds| seconds >= 0.0));
        let preview = step.preview.as_ref().unwrap();
        assert_eq!((preview.width, preview.height, preview.count()), (8, 9, 4));
    }
    assert_eq!(steps[4].seconds_left, Some(0.0));
}

#[test]
fn a_cancelled_job_ends_soon_and_leaves_the_engine_usable() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = engine(folder.path());
    let settings = Settings { steps: 400, guidance_steps: 200, ..settings(&engine) };
    let motion = engine.extract(&clip(&settings), &settings, &mut |_| (), &Cancel::default()).unwrap();

    let cancel = Cancel::default();
    let (mut steps, mut longest, mut last) = (0, Duration::ZERO, Instant::now());
    let mut asked = None;
    let result = std::thread::scope(|scope| {
        engine.clone_motion(
            &motion,
            &settings,
            &mut |event| {
                let Event::Progress(Progress { stage: Stage::Denoise, step, .. }) = event else { return };
                if step > 1 {
                    longest = longest.max(last.elapsed());
                }
                last = Instant::now();
                steps = step;
                if step == 3 {
                    // From another thread, in the middle of the next step.
                    let (cancel, pause) = (cancel.clone(), longest / 4);
                    asked = Some(Instant::now() + pause);
                    scope.spawn(move || {
                        std::thread::sleep(pause);
                        cancel.cancel();
                    });
                }
            },
            &cancel,
        )
    });
    assert!(result.unwrap_err().is_cancelled());
    assert!((3..=5).contains(&steps), "stopped after step {steps}");
    let late = asked.unwrap().elapsed();
    assert!(late < 2 * longest + Duration::from_secs(1), "{late:?} after it was asked; a step takes {longest:?}");

    let again = Settings { steps: 2, guidance_steps: 1, ..settings };
    engine.clone_motion(&motion, &again, &mut |_| (), &Cancel::default()).unwrap();
}

#[test]
fn a_motion_weight_of_zero_is_no_guidance_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = engine(folder.path());
    let settings = Settings { motion_weight: 0.0, ..settings(&engine) };
    let still = Frames { data: vec![90; settings.frames * settings.width * settings.height * 3], ..clip(&settings) };
    let mut run = |clip: &Frames| {
        let motion = engine.extract(clip, &settings, &mut |_| (), &Cancel::default()).unwrap();
        let mut losses = Vec::new();
        let frames = engine.clone_motion(
            &motion,
            &settings,
            &mut |event| {
                if let Event::Progress(progress) = event {
                    losses.extend(progress.loss);
                }
            },
            &Cancel::default(),
        );
        assert!(losses.is_empty());
        frames.unwrap()
    };
    let moving = clip(&settings);
    assert_eq!(run(&moving), run(&still));
}
