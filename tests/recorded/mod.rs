//! The recorded runs of the reference.
#![allow(dead_code, reason = "every test program uses a part")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use motionclone::media::frames::Frames;
use motionclone::motion::{Motion, MotionInfo, SparseAttention};
use motionclone::onnx::checkpoint::{ImportOptions, import};
use motionclone::onnx::manifest::Manifest;
use motionclone::onnx::model::config::ControlKind;
use motionclone::settings::{Control, Settings};
use ndarray::{ArrayD, IxDyn};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// The folder of the recorded data; `MOTIONCLONE_GOLDEN` names another one.
pub fn golden() -> PathBuf {
    let own = || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    std::env::var_os("MOTIONCLONE_GOLDEN").map_or_else(own, PathBuf::from)
}

/// The checkpoints that text-to-video runs were recorded with, to be imported into `out`.
pub fn text_to_video(out: PathBuf) -> ImportOptions {
    let checkpoints = golden().join("checkpoints");
    ImportOptions {
        base: checkpoints.join("StableDiffusion"),
        motion_module: Some(checkpoints.join("v3_sd15_mm.ckpt")),
        dreambooth: Some(checkpoints.join("dreambooth.safetensors")),
        model_config: Some(checkpoints.join("model_config.json")),
        out,
        ..Default::default()
    }
}

/// Imports the same without the DreamBooth model into a folder, and gives the bundle.
pub fn plain_bundle(folder: &Path) -> PathBuf {
    let options = ImportOptions { dreambooth: None, ..text_to_video(folder.join("bundle")) };
    import(&options, &mut |_| ControlFlow::Continue(())).unwrap();
    options.out
}

/// One recorded run.
pub struct Case {
    pub name: String,
    /// The run's configuration.
    pub config: Value,
    file: Vec<u8>,
}

impl Case {
    /// Every case there is.
    pub fn all() -> Vec<Self> {
        let folder = golden().join("cases");
        let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        paths.sort();
        assert!(!paths.is_empty());
        let read = |path: PathBuf| Self {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            config: serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap(),
            file: std::fs::read(path.with_extension("safetensors")).unwrap(),
        };
        paths.into_iter().map(read).collect()
    }

    /// The names of its tensors.
    pub fn names(&self) -> Vec<String> {
        SafeTensors::deserialize(&self.file).unwrap().names().into_iter().map(str::to_string).collect()
    }

    fn tensor(&self, name: &str, dtype: Dtype) -> TensorView<'_> {
        let tensor = SafeTensors::deserialize(&self.file).unwrap().tensor(name).unwrap();
        assert_eq!(tensor.dtype(), dtype, "{name}");
        tensor
    }

    /// A tensor of 32-bit floating point.
    pub fn array(&self, name: &str) -> ArrayD<f32> {
        let tensor = self.tensor(name, Dtype::F32);
        let values = tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        ArrayD::from_shape_vec(IxDyn(tensor.shape()), values).unwrap()
    }

    /// A tensor of 16-bit floating point.
    pub fn halves(&self, name: &str) -> ArrayD<f32> {
        let tensor = self.tensor(name, Dtype::F16);
        let values =
            tensor.data().as_chunks().0.iter().map(|bytes| half::f16::from_le_bytes(*bytes).to_f32()).collect();
        ArrayD::from_shape_vec(IxDyn(tensor.shape()), values).unwrap()
    }

    /// A tensor of 64-bit integers.
    pub fn i64(&self, name: &str) -> Vec<i64> {
        let tensor = self.tensor(name, Dtype::I64);
        tensor.data().as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect()
    }

    /// A tensor of bytes.
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        self.tensor(name, Dtype::U8).data().to_vec()
    }

    /// The run's settings.
    pub fn settings(&self, manifest: &Manifest) -> Settings {
        let text = |key: &str| self.config[key].as_str().unwrap().to_string();
        let count = |key: &str| self.config[key].as_u64().unwrap() as usize;
        let number = |key: &str| self.config[key].as_f64().unwrap();
        let control = self.config["kind"].as_str().map(|kind| Control {
            kind: if kind == "rgb" { ControlKind::Rgb } else { ControlKind::Scribble },
            images: self.config["image_index"]
                .as_array()
                .unwrap()
                .iter()
                .map(|frame| (Frames { width: 0, height: 0, data: Vec::new() }, frame.as_u64().unwrap() as usize))
                .collect(),
        });
        Settings {
            control_scale: if control.is_some() { number("controlnet_scale") } else { 1.0 },
            prompt: text("prompt"),
            negative_prompt: text("negative_prompt"),
            seed: count("seed") as u64,
            width: count("width"),
            height: count("height"),
            frames: count("video_length"),
            steps: count("inference_steps"),
            guidance_steps: count("guidance_steps"),
            guidance_scale: number("guidance_scale"),
            warm_up: count("warm_up_steps"),
            cool_up: count("cool_up_steps"),
            motion_weight: number("motion_guidance_weight"),
            cfg: number("cfg_scale"),
            noise_step: count("add_noise_step"),
            blocks: self.config["motion_guidance_blocks"]
                .as_array()
                .unwrap()
                .iter()
                .map(|block| block.as_str().unwrap().to_string())
                .collect(),
            control,
            ..Settings::new(&manifest.defaults, "")
        }
    }

    /// The recorded motion representation.
    pub fn motion(&self, manifest: &Manifest, settings: &Settings) -> Motion {
        let mut maps = BTreeMap::new();
        for name in self.names().iter().filter_map(|name| name.strip_prefix("extract.value.")) {
            let values = self.array(&format!("extract.value.{name}"));
            let &[positions, heads, frames, k] = values.shape() else { panic!("{name}: {:?}", values.shape()) };
            let values = values.into_raw_vec_and_offset().0;
            let indices = self.bytes(&format!("extract.index.{name}"));
            maps.insert(name.to_string(), SparseAttention { positions, heads, frames, k, values, indices });
        }
        Motion { maps, info: MotionInfo::new(manifest, settings, "recorded") }
    }
}
