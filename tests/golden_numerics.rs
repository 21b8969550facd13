//! Text, noise, schedule, guidance and motion against the recorded runs of the reference (`tests/golden`).

use std::path::{Path, PathBuf};

use motionclone::guidance::denoise;
use motionclone::motion::SparseAttention;
use motionclone::onnx::manifest::ScheduleConfig;
use motionclone::random::CpuGenerator;
use motionclone::schedule::Schedule;
use motionclone::text::Tokenizer;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// The folder of the recorded data; `MOTIONCLONE_GOLDEN` names another one.
fn golden() -> PathBuf {
    std::env::var_os("MOTIONCLONE_GOLDEN")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"), PathBuf::from)
}

/// One recorded run.
struct Case {
    name: String,
    settings: Value,
    bytes: Vec<u8>,
}

impl Case {
    /// Every case there is.
    fn all() -> Vec<Self> {
        let folder = golden().join("cases");
        let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        paths.sort();
        assert!(!paths.is_empty());
        paths
            .into_iter()
            .map(|path| Self {
                name: path.file_stem().unwrap().to_string_lossy().into_owned(),
                settings: serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap(),
                bytes: std::fs::read(path.with_extension("safetensors")).unwrap(),
            })
            .collect()
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).unwrap()
    }

    fn f32(&self, name: &str) -> Vec<f32> {
        let tensor = self.tensors().tensor(name).unwrap();
        assert_eq!(tensor.dtype(), Dtype::F32, "{name}");
        tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    fn i64(&self, name: &str) -> Vec<i64> {
        let tensor = self.tensors().tensor(name).unwrap();
        assert_eq!(tensor.dtype(), Dtype::I64, "{name}");
        tensor.data().as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect()
    }

    fn number(&self, key: &str) -> f64 {
        self.settings[key].as_f64().unwrap()
    }

    fn schedule(&self) -> Schedule {
        let config = ScheduleConfig::default();
        let (steps, guided) = (self.number("inference_steps") as usize, self.number("guidance_steps") as usize);
        Schedule::new(&config, steps, guided, self.number("guidance_scale")).unwrap()
    }
}

/// ‖a − b‖ / ‖b‖.
fn relative_error(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    difference / norm(&mut b.iter().map(|b| f64::from(*b)))
}

fn tokenizer() -> Tokenizer {
    Tokenizer::open(&golden().join("checkpoints/StableDiffusion/tokenizer")).unwrap()
}

/// `tests/tokens.json` holds prompts with the ids that `CLIPTokenizer` of transformers 4.46 gives them with the
/// published vocabulary, without the padding.
#[test]
fn odd_prompts_have_the_ids_of_the_reference_tokenizer() {
    let table: Vec<(String, Vec<i64>)> = serde_json::from_str(include_str!("tokens.json")).unwrap();
    let tokenizer = tokenizer();
    assert!(table.len() > 50);
    let mut wrong = Vec::new();
    for (prompt, mut expected) in table {
        expected.resize(77, 49407);
        let ids = tokenizer.encode(&prompt, 77).unwrap().ids;
        if ids != expected {
            wrong.push(format!("{prompt:?}\n     got {ids:?}\nexpected {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn recorded_prompts_have_the_recorded_ids() {
    let tokenizer = tokenizer();
    for case in Case::all() {
        let recorded = case.i64("input_ids");
        let positions = recorded.len() / 2;
        let prompts = ["negative_prompt", "prompt"].map(|key| case.settings[key].as_str().unwrap());
        for (prompt, recorded) in prompts.into_iter().zip(recorded.chunks_exact(positions)) {
            assert_eq!(tokenizer.encode(prompt, positions).unwrap().ids, recorded, "{}: {prompt}", case.name);
        }
    }
}

#[test]
fn a_seed_gives_the_recorded_noise() {
    for case in Case::all() {
        let seed = case.settings["seed"].as_u64().unwrap();
        for name in ["extract.latent_noise", "initial_latents"] {
            let recorded = case.f32(name);
            let drawn = CpuGenerator::new(seed).randn(recorded.len());
            let worst = drawn.iter().zip(&recorded).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            println!("{} {name}: {worst:.1e}", case.name);
            assert!(worst <= 1e-5);
        }
    }
}

#[test]
fn timesteps_are_the_recorded_ones() {
    for case in Case::all() {
        assert_eq!(case.schedule().timesteps, case.i64("timesteps"), "{}", case.name);
    }
}

#[test]
fn each_step_leads_to_the_recorded_latents() {
    for case in Case::all() {
        let schedule = case.schedule();
        let guided = case.number("guidance_steps") as usize;
        for index in 0..schedule.timesteps.len() {
            let tensor = |name: &str| case.f32(&format!("step.{index}.{name}"));
            let gradient = (index < guided).then(|| tensor("gradient"));
            let (latents, uncond, cond) = (tensor("latents_in"), tensor("noise_uncond"), tensor("noise_cond"));
            let step = schedule.step(index).unwrap();
            let cfg = case.number("cfg_scale");
            let out = denoise(step, &latents, &uncond, &cond, cfg, gradient.as_deref()).unwrap();
            let error = relative_error(&out, &tensor("latents_out"));
            println!("{} step {index}: {error:.1e}", case.name);
            assert!(error <= 5e-5);
        }
    }
}

#[test]
fn the_strongest_entries_are_the_recorded_ones() {
    for case in Case::all() {
        let tensors = case.tensors();
        let maps: Vec<&str> =
            tensors.names().into_iter().filter_map(|name| name.strip_prefix("extract.attention.")).collect();
        assert!(!maps.is_empty());
        for map in maps {
            let name = format!("extract.attention.{map}");
            let shape: [usize; 4] = tensors.tensor(&name).unwrap().shape().try_into().unwrap();
            let recorded = case.f32(&format!("extract.value.{map}"));
            let indices = tensors.tensor(&format!("extract.index.{map}")).unwrap();
            let k = *indices.shape().last().unwrap();
            let attention = case.f32(&name);
            let sparse = SparseAttention::from_attention(&attention, shape, k).unwrap();
            assert_eq!(sparse.shape()[..], *indices.shape());
            assert_eq!(sparse.values, recorded, "{}: {map}", case.name);
            for (entry, (own, recorded)) in sparse.indices.iter().zip(indices.data()).enumerate() {
                let at = |index: &u8| attention[entry / k * shape[3] + usize::from(*index)];
                assert!(own == recorded || (at(own) - at(recorded)).abs() < 1e-6, "{}: {map} entry {entry}", case.name);
            }
        }
    }
}
