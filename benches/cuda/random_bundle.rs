//! A bundle of Stable Diffusion 1.5 with AnimateDiff v3, of full size, whose weights are drawn: enough for seconds, memory
//! and agreement of devices. The scale of the weights keeps activations near one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use motionclone::onnx::manifest::{Defaults, FORMAT, Manifest, ScheduleConfig, WEIGHTS_FILE};
use motionclone::onnx::model::config::{MotionConfig, TextActivation, TextConfig, UnetConfig, VaeConfig};
use motionclone::random::CpuGenerator;
use motionclone::{Error, Result};
use serde_json::{Map, Value, json};

/// Names and shapes of the published checkpoints.
const KEYS: [(&str, &str); 4] = [
    ("unet.", include_str!("../../onnx/tests/checkpoint-keys/sd15_unet_diffusers.json")),
    ("unet.", include_str!("../../onnx/tests/checkpoint-keys/v3_sd15_mm.json")),
    ("vae.", include_str!("../../onnx/tests/checkpoint-keys/sd15_vae_diffusers.json")),
    ("text_encoder.", include_str!("../../onnx/tests/checkpoint-keys/sd15_text_encoder_diffusers.json")),
];

/// Numbers that all weights are taken from.
const DRAWS: usize = 1 << 16;

struct Tensor {
    name: String,
    shape: Vec<usize>,
    start: usize,
}

/// Makes the bundle, unless it is there. `tokenizer` is a folder with a tokenizer of any vocabulary.
pub fn make(out: &Path, tokenizer: &Path) -> Result<()> {
    if out.join("manifest.json").is_file() {
        return Ok(());
    }
    let start = Instant::now();
    let io = |e: std::io::Error| Error::io(out, e);
    std::fs::create_dir_all(out.join("tokenizer")).map_err(io)?;
    for name in ["vocab.json", "merges.txt"] {
        std::fs::copy(tokenizer.join(name), out.join("tokenizer").join(name)).map_err(io)?;
    }
    let tensors = tensors();
    let bytes = |tensor: &Tensor| 2 * tensor.shape.iter().product::<usize>();
    let mut header = Map::new();
    for tensor in &tensors {
        let offsets = [tensor.start, tensor.start + bytes(tensor)];
        header.insert(tensor.name.clone(), json!({ "dtype": "F16", "shape": tensor.shape, "data_offsets": offsets }));
    }
    let header = serde_json::to_vec(&header).map_err(|e| Error::failure(e.to_string()))?;
    let mut file = File::create(out.join(WEIGHTS_FILE)).map_err(io)?;
    file.write_all(&(header.len() as u64).to_le_bytes()).and_then(|()| file.write_all(&header)).map_err(io)?;

    let draws = CpuGenerator::new(1).randn(DRAWS);
    let next = AtomicUsize::new(0);
    let base = 8 + header.len();
    std::thread::scope(|scope| {
        let worker = || -> std::io::Result<()> {
            let mut file = File::options().write(true).open(out.join(WEIGHTS_FILE))?;
            while let Some(tensor) = tensors.get(next.fetch_add(1, Ordering::Relaxed)) {
                file.seek(SeekFrom::Start((base + tensor.start) as u64))?;
                file.write_all(&fill(tensor, &draws))?;
            }
            Ok(())
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        all.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(std::io::Error::other("panic"))))
    })
    .map_err(io)?;
    manifest().write(out)?;
    let total: usize = tensors.iter().map(bytes).sum();
    println!("{:.2} GB of random weights in {:.1} s", total as f64 / 1e9, start.elapsed().as_secs_f64());
    Ok(())
}

fn tensors() -> Vec<Tensor> {
    let (mut tensors, mut start) = (Vec::new(), 0);
    for (prefix, keys) in KEYS {
        let shapes: BTreeMap<String, Value> = serde_json::from_str(keys).unwrap_or_default();
        for (name, shape) in shapes {
            let Ok(shape) = serde_json::from_value::<Vec<usize>>(shape) else { continue };
            if name.contains("pos_encoder") || name.contains("position_ids") {
                continue;
            }
            let name = name.trim_start_matches("module.");
            let mut name = format!("{prefix}{name}");
            for (old, new) in [("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")] {
                name = name.replace(&format!("attentions.0.{old}."), &format!("attentions.0.{new}."));
            }
            let length = 2 * shape.iter().product::<usize>();
            tensors.push(Tensor { name, shape, start });
            start += length;
        }
    }
    tensors
}

/// Scales near one, biases near zero, matrices so that they keep the size of what they are given.
fn fill(tensor: &Tensor, draws: &[f32]) -> Vec<u8> {
    let inputs = tensor.shape[1..].iter().product::<usize>().max(1);
    let vector = tensor.shape.len() == 1;
    let (mean, spread) = match (vector, tensor.name.ends_with("bias")) {
        (true, true) => (0.0, 0.02),
        (true, false) => (1.0, 0.1),
        _ if tensor.name.contains("embedding.weight") => (0.0, 0.05),
        _ => (0.0, 0.7 / (inputs as f32).sqrt()),
    };
    let table: Vec<[u8; 2]> =
        draws.iter().map(|draw| half::f16::from_f32(mean + spread * draw).to_le_bytes()).collect();
    // A generator of 64 bits (xorshift) picks four numbers a turn.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64 ^ (tensor.start as u64 + 1);
    let count = tensor.shape.iter().product::<usize>();
    let mut bytes = Vec::with_capacity(2 * count + 8);
    while bytes.len() < 2 * count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        for part in 0..4 {
            bytes.extend_from_slice(&table[(state >> (16 * part)) as usize & (DRAWS - 1)]);
        }
    }
    bytes.truncate(2 * count);
    bytes
}

fn manifest() -> Manifest {
    Manifest {
        format: FORMAT,
        name: "random weights".into(),
        fingerprint: "random".into(),
        sources: Vec::new(),
        text_encoder: TextConfig {
            vocab_size: 49408,
            hidden_size: 768,
            intermediate_size: 3072,
            layers: 12,
            heads: 12,
            max_positions: 77,
            layer_norm_eps: 1e-5,
            activation: TextActivation::QuickGelu,
        },
        vae: VaeConfig {
            image_channels: 3,
            latent_channels: 4,
            block_out_channels: vec![128, 256, 512, 512],
            layers_per_block: 2,
            norm_num_groups: 32,
            scaling_factor: 0.18215,
        },
        unet: UnetConfig {
            in_channels: 4,
            out_channels: 4,
            block_out_channels: vec![320, 640, 1280, 1280],
            down_attention: vec![true, true, true, false],
            up_attention: vec![false, true, true, true],
            layers_per_block: 2,
            attention_heads: vec![8; 4],
            cross_attention_dim: 768,
            norm_num_groups: 32,
            norm_eps: 1e-5,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            motion: Some(MotionConfig {
                levels: vec![true; 4],
                mid_block: false,
                heads: 8,
                transformer_blocks: 1,
                attention_blocks: 2,
                max_frames: 32,
            }),
        },
        adapter: false,
        controls: BTreeMap::new(),
        schedule: ScheduleConfig::default(),
        defaults: Defaults::default(),
        vocabulary: Vec::new(),
        preview: None,
    }
}
