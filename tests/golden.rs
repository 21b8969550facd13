//! Every recorded run of the reference, reproduced from the published checkpoint files: a table of relative errors
//! ‖a − b‖ / ‖b‖, and a failure where one is over its bound.
//!
//! `MOTIONCLONE_GOLDEN` names another folder of records, `MOTIONCLONE_CLIPS` the folder of the reference clips, which
//! are not part of the project; the condition images lie beside it.

mod recorded;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use motionclone::Cancel;
use motionclone::job::{Event, Job};
use motionclone::media::frames::Frames;
use motionclone::media::sampling::sample_indices;
use motionclone::motion::{Motion, SparseAttention};
use motionclone::onnx::checkpoint::{ImportOptions, import};
use motionclone::onnx::model::config::ControlKind;
use motionclone::pipeline::denoise::{self, Predicted};
use motionclone::pipeline::vae;
use motionclone::random::CpuGenerator;
use motionclone::runtime::Device;
use motionclone::schedule::uneven_timesteps;
use motionclone::settings::Settings;
use motionclone::{Engine, EngineOptions};
use ndarray::{ArrayD, Axis, IxDyn};
use recorded::{Case, golden};

/// The rows of the printed table.
#[derive(Default)]
struct Table {
    rows: Vec<(String, String, f64, f64)>,
}

impl Table {
    fn add(&mut self, case: &str, tensor: &str, error: f64, bound: f64) {
        let same = |row: &&mut (String, String, f64, f64)| row.0 == case && row.1 == tensor;
        match self.rows.iter_mut().find(same) {
            Some(row) => row.2 = if error.is_nan() { error } else { row.2.max(error) },
            None => self.rows.push((case.into(), tensor.into(), error, bound)),
        }
    }

    fn print(&self) -> usize {
        println!("\n{:<14} {:<28} {:>12} {:>9}", "case", "tensor", "error", "bound");
        // A NaN is no pass.
        let passed = |(_, _, error, bound): &(String, String, f64, f64)| error <= bound;
        for row in &self.rows {
            let (case, tensor, error, bound) = row;
            let mark = if passed(row) { "" } else { "   OVER" };
            println!("{case:<14} {tensor:<28} {error:>12.2e} {bound:>9.0e}{mark}");
        }
        self.rows.iter().filter(|row| !passed(row)).count()
    }
}

fn relative<'a>(a: impl IntoIterator<Item = &'a f32>, b: impl IntoIterator<Item = &'a f32>) -> f64 {
    let (mut difference, mut size) = (0f64, 0f64);
    let (mut a, mut b) = (a.into_iter(), b.into_iter());
    loop {
        match (a.next(), b.next()) {
            (Some(a), Some(b)) => {
                difference += (f64::from(*a) - f64::from(*b)).powi(2);
                size += f64::from(*b).powi(2);
            }
            (None, None) => return (difference / size.max(1e-60)).sqrt(),
            _ => return f64::NAN,
        }
    }
}

fn clips() -> PathBuf {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/videos");
    std::env::var_os("MOTIONCLONE_CLIPS").map_or_else(beside, PathBuf::from)
}

/// Imports the checkpoints as the recorded runs loaded them.
fn engine(adapter: bool, folder: &tempfile::TempDir) -> Engine {
    let checkpoints = golden().join("checkpoints");
    let file = |name: &str| Some(checkpoints.join(name)).filter(|path| path.exists());
    let out = folder.path().join(if adapter { "adapter" } else { "plain" });
    if !out.exists() {
        let options = ImportOptions {
            base: checkpoints.join("StableDiffusion"),
            motion_module: file("v3_sd15_mm.ckpt"),
            dreambooth: file("dreambooth.safetensors"),
            adapter: file("v3_sd15_adapter.ckpt").filter(|_| adapter).map(|path| (path, 1.0)),
            sparsectrl_rgb: file("v3_sd15_sparsectrl_rgb.ckpt"),
            sparsectrl_scribble: file("v3_sd15_sparsectrl_scribble.ckpt"),
            sparsectrl_config: file("sparsectrl_configs.json"),
            model_config: file("model_config.json"),
            out: out.clone(),
            ..Default::default()
        };
        import(&options, &mut |_| ControlFlow::Continue(())).unwrap();
    }
    Engine::open(&out, &EngineOptions { device: Device::Cpu, ..Default::default() }).unwrap()
}

fn recorded_frames(case: &Case, settings: &Settings) -> Frames {
    let planar = ArrayD::from_shape_vec(
        IxDyn(&[settings.frames, 3, settings.height, settings.width]),
        case.bytes("reference_frames"),
    )
    .unwrap();
    let interleaved = planar.permuted_axes(IxDyn(&[0, 2, 3, 1]));
    Frames { width: settings.width, height: settings.height, data: interleaved.iter().copied().collect() }
}

fn text_and_noise(case: &Case, settings: &Settings, engine: &mut Engine, table: &mut Table) {
    let config = engine.manifest().text_encoder.clone();
    let ids = case.i64("input_ids");
    let embeddings = case.array("text_embeddings");
    for (row, prompt) in [&settings.negative_prompt, &settings.prompt].into_iter().enumerate() {
        let tokens = engine.bundle().tokenizer.encode(prompt, config.max_positions).unwrap();
        let expected = &ids[row * config.max_positions..][..config.max_positions];
        table.add(&case.name, "input_ids", f64::from(u8::from(tokens.ids != expected)), 0.0);
        let (mut watch, cancel) = (|_: Event| (), Cancel::default());
        let (found, _) = Job::new(engine, settings, &mut watch, &cancel).unwrap().encode_text(prompt).unwrap();
        table.add(&case.name, "text_embeddings", relative(&found, embeddings.index_axis(Axis(0), row)), 1e-5);
    }
    for name in ["extract.latent_noise", "initial_latents"] {
        let expected = case.array(name);
        let found = CpuGenerator::new(settings.seed).randn(expected.len());
        table.add(&case.name, "random draws", relative(&found, &expected), 1e-5);
    }
    let Settings { steps, guidance_steps, guidance_scale, .. } = *settings;
    let train = engine.manifest().schedule.train_steps;
    let timesteps = uneven_timesteps(train, steps, guidance_steps, guidance_scale).unwrap();
    let different = timesteps != case.i64("timesteps");
    table.add(&case.name, "timesteps", f64::from(u8::from(different)), 0.0);
}

/// Top-1 indices may differ only where the two strongest entries are closer than 1e-6.
fn wrong_indices(found: &SparseAttention, recorded: &SparseAttention, attention: &ArrayD<f32>) -> usize {
    let attention: Vec<f32> = attention.iter().copied().collect();
    let wrong = |row: &usize| {
        let value = |index: u8| attention[row * found.frames + usize::from(index)];
        let (a, b) = (found.indices[*row], recorded.indices[*row]);
        a != b && (value(a) - value(b)).abs() >= 1e-6
    };
    (0..recorded.indices.len()).filter(wrong).count()
}

fn extraction(case: &Case, settings: &Settings, engine: &mut Engine, table: &mut Table) -> Motion {
    let (mut watch, cancel) = (|_: Event| (), Cancel::default());
    let frames = recorded_frames(case, settings);
    let noise = case.array("extract.vae_noise").into_raw_vec_and_offset().0;
    let recorded = case.motion(engine.manifest(), settings);
    let mut job = Job::new(engine, settings, &mut watch, &cancel).unwrap();
    let latents = job.encode_with(&vae::pixels(&frames), &noise).unwrap();
    let pixels = vae::unit_pixels(&frames);
    let maps = job.attention(&latents, Some(&pixels)).unwrap();
    assert_eq!(maps.keys().collect::<Vec<_>>(), recorded.maps.keys().collect::<Vec<_>>());
    for (name, map) in &maps {
        let expected = case.array(&format!("extract.attention.{name}"));
        assert_eq!(map.shape(), expected.shape(), "{name}");
        table.add(&case.name, "extracted attention", relative(map, &expected), 1e-5);
        let shape = map.shape().try_into().unwrap();
        let flat: Vec<f32> = map.iter().copied().collect();
        let found = SparseAttention::from_attention(&flat, shape, 1).unwrap();
        let recorded = &recorded.maps[name];
        table.add(&case.name, "extracted values", relative(&found.values, &recorded.values), 1e-5);
        table.add(&case.name, "top-1 indices", wrong_indices(&found, recorded, &expected) as f64, 0.0);
    }
    job.motion(&latents, Some(&pixels), "recorded").unwrap()
}

/// `[1, c, n, h, w]` as `[n, c, h, w]`.
fn control_images(case: &Case) -> Option<ArrayD<f32>> {
    case.names().iter().any(|name| name == "control.images").then(|| {
        let images = case.array("control.images").index_axis_move(Axis(0), 0);
        images.permuted_axes(IxDyn(&[1, 0, 2, 3])).as_standard_layout().into_owned()
    })
}

fn steps(case: &Case, settings: &Settings, engine: &mut Engine, table: &mut Table) {
    let (mut watch, cancel) = (|_: Event| (), Cancel::default());
    let motion = case.motion(engine.manifest(), settings);
    let images = control_images(case);
    let mut job = Job::new(engine, settings, &mut watch, &cancel).unwrap();
    let mut denoising = job.denoising(&motion, images.as_ref()).unwrap();
    let mut unet = job.unet();
    for index in 0..settings.steps {
        let record = |name: &str| case.array(&format!("step.{index}.{name}"));
        let latents = record("latents_in");
        let step = denoising.step(&mut unet, index, &latents).unwrap();
        let Predicted { noise_uncond, noise_cond, gradient: found } = &step.predicted;
        let uncond = noise_uncond.as_ref().unwrap();
        table.add(&case.name, "ε, negative prompt", relative(uncond, &record("noise_uncond")), 2e-5);
        table.add(&case.name, "ε, prompt", relative(noise_cond, &record("noise_cond")), 2e-5);
        let guided = index < settings.guidance_steps;
        assert_eq!(found.is_some(), guided, "step {index}");
        let gradient = guided.then(|| record("gradient"));
        if let (Some(found), Some(expected)) = (found, &gradient) {
            table.add(&case.name, "gradient", relative(found, expected), 2e-4);
            let loss = step.loss.unwrap() as f32;
            table.add(&case.name, "loss", relative(&[loss], &record("loss")), 1e-4);
        }
        table.add(&case.name, "latents after the step", relative(&step.latents, &record("latents_out")), 5e-5);
        // The step's own arithmetic, fed with the recorded noise.
        let (noise_uncond, noise_cond) = (Some(record("noise_uncond")), record("noise_cond"));
        let predicted = Predicted { noise_uncond, noise_cond, gradient };
        let sample = denoise::update(denoising.scheduler(), index, &latents, &predicted, settings.cfg).unwrap();
        table.add(&case.name, "step from recorded ε", relative(&sample.next, &record("latents_out")), 1e-6);
    }
}

fn whole_run(case: &Case, settings: &Settings, motion: &Motion, engine: &mut Engine, table: &mut Table) {
    let (mut watch, cancel) = (|_: Event| (), Cancel::default());
    let images = control_images(case);
    let mut job = Job::new(engine, settings, &mut watch, &cancel).unwrap();
    let latents = job.sample(motion, images.as_ref()).unwrap();
    let video = job.decode(&latents).unwrap();
    table.add(&case.name, "video", relative(&video, &case.halves("video")), 2e-3);
}

/// Every frame of a clip, as ffmpeg converts it by default: a stream of PPM images, which carry their size.
fn read_clip(path: &Path) -> Frames {
    let ffmpeg = std::env::var_os("MOTIONCLONE_FFMPEG").unwrap_or_else(|| "ffmpeg".into());
    let mut command = std::process::Command::new(ffmpeg);
    command.args(["-loglevel", "error", "-i"]).arg(path).args(["-f", "image2pipe", "-c:v", "ppm", "-"]);
    let stream = command.output().unwrap().stdout;
    let mut frames = Frames { width: 0, height: 0, data: Vec::new() };
    let mut rest = stream.as_slice();
    while !rest.is_empty() {
        let header = rest.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(2).unwrap().0 + 1;
        let words: Vec<&str> = std::str::from_utf8(&rest[..header]).unwrap().split_whitespace().collect();
        let ["P6", width, height, "255"] = words[..] else { panic!("no PPM image: {words:?}") };
        (frames.width, frames.height) = (width.parse().unwrap(), height.parse().unwrap());
        let end = header + frames.frame_len();
        frames.data.extend_from_slice(&rest[header..end]);
        rest = &rest[end..];
    }
    frames
}

/// Frames from the clip itself, and condition images from their files, where those are at hand.
fn files(case: &Case, settings: &Settings, engine: &mut Engine, table: &mut Table) {
    let (mut watch, cancel) = (|_: Event| (), Cancel::default());
    let path = clips().join(case.config["reference_video"].as_str().unwrap());
    if path.exists() {
        let clip = read_clip(&path);
        let data =
            sample_indices(clip.count(), settings.frames).into_iter().flat_map(|i| clip.frame(i)).copied().collect();
        let frames = Frames { data, ..clip }.resize_align_corners(settings.width, settings.height);
        let recorded = recorded_frames(case, settings);
        let far = frames.data.iter().zip(&recorded.data).filter(|(a, b)| a.abs_diff(**b) > 1).count();
        table.add(&case.name, "frames over 1/255 (share)", far as f64 / recorded.data.len() as f64, 1e-3);
    } else {
        println!("{}: frames from the clip are not checked: no {}", case.name, path.display());
    }
    let Some(expected) = control_images(case) else { return };
    let names = case.config["condition_images"].as_array().unwrap();
    for (index, name) in names.iter().enumerate() {
        let path = clips().join("../condition_images").join(name.as_str().unwrap());
        if !path.exists() {
            println!("{}: condition images from files are not checked: no {}", case.name, path.display());
            return;
        }
        let image = Frames::open_image(&path).unwrap().resize_antialiased(settings.width, settings.height);
        let found = match settings.control.as_ref().unwrap().kind {
            ControlKind::Scribble => vae::unit_pixels(&image),
            ControlKind::Rgb => {
                let noise =
                    case.array("control.vae_noise").index_axis_move(Axis(0), index).iter().copied().collect::<Vec<_>>();
                let mut job = Job::new(engine, settings, &mut watch, &cancel).unwrap();
                job.encode_with(&vae::pixels(&image), &noise).unwrap()
            }
        };
        let error = relative(&found, expected.index_axis(Axis(0), index));
        table.add(&case.name, "condition image from its file", error, 1e-2);
    }
}

#[test]
fn every_recorded_run_is_reproduced() {
    let folder = tempfile::tempdir().unwrap();
    let mut table = Table::default();
    for case in Case::all() {
        let mut engine = engine(case.config["adapter"].as_bool().unwrap_or(false), &folder);
        let settings = case.settings(engine.manifest());
        text_and_noise(&case, &settings, &mut engine, &mut table);
        let motion = extraction(&case, &settings, &mut engine, &mut table);
        steps(&case, &settings, &mut engine, &mut table);
        whole_run(&case, &settings, &motion, &mut engine, &mut table);
        files(&case, &settings, &mut engine, &mut table);
    }
    let over = table.print();
    assert_eq!(over, 0, "{over} of {} figures are over their bounds", table.rows.len());
}
