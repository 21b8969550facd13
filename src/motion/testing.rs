//! A small model and a motion of it.

use motionclone_onnx::manifest::Manifest;

use super::sparse::SparseAttention;
use super::{Motion, MotionInfo, guided_maps};
use crate::settings::Settings;

/// A model of four levels with motion modules of two attentions and eight heads, as Stable Diffusion 1.5 has them.
pub fn manifest() -> Manifest {
    serde_json::from_value(serde_json::json!({
        "format": 1, "name": "test", "fingerprint": "0123456789abcdef", "sources": [],
        "text_encoder": {
            "vocab_size": 7, "hidden_size": 8, "intermediate_size": 8, "layers": 1, "heads": 1, "max_positions": 77,
            "layer_norm_eps": 1e-5, "activation": "quick_gelu"
        },
        "vae": {
            "image_channels": 3, "latent_channels": 4, "block_out_channels": [8, 8, 8, 8], "layers_per_block": 2,
            "norm_num_groups": 8, "scaling_factor": 0.18215
        },
        "unet": {
            "in_channels": 4, "out_channels": 4, "block_out_channels": [8, 8, 8, 8],
            "down_attention": [true, true, true, false], "up_attention": [false, true, true, true],
            "layers_per_block": 2, "attention_heads": [8, 8, 8, 8], "cross_attention_dim": 8,
            "norm_num_groups": 8, "norm_eps": 1e-5, "flip_sin_to_cos": true, "freq_shift": 0.0,
            "motion": {
                "levels": [true, true, true, false], "mid_block": false, "heads": 8, "transformer_blocks": 1,
                "attention_blocks": 2, "max_frames": 32
            }
        },
        "adapter": false, "controls": {},
        "schedule": { "train_steps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "linear" },
        "defaults": {}
    }))
    .unwrap()
}

pub fn settings() -> Settings {
    let mut settings = Settings::new(&manifest().defaults, "a prompt");
    (settings.width, settings.height, settings.frames, settings.top_k) = (96, 160, 4, 2);
    settings
}

/// Softmax-like rows, none alike.
fn attention(positions: usize, heads: usize, frames: usize) -> Vec<f32> {
    let rows = positions * heads * frames;
    (0..rows)
        .flat_map(|row| {
            let raw: Vec<f32> = (0..frames).map(|f| 1.0 + ((row * 7 + f * 5) % 11) as f32).collect();
            let sum: f32 = raw.iter().sum();
            raw.into_iter().map(move |value| value / sum)
        })
        .collect()
}

pub fn motion(settings: &Settings) -> Motion {
    let manifest = manifest();
    let maps = guided_maps(&manifest, &settings.blocks, settings.width, settings.height).unwrap();
    let maps = maps.into_iter().map(|(name, [positions, heads])| {
        let shape = [positions, heads, settings.frames, settings.frames];
        let dense = attention(positions, heads, settings.frames);
        (name, SparseAttention::from_attention(&dense, shape, settings.top_k).unwrap())
    });
    Motion { maps: maps.collect(), info: MotionInfo::new(&manifest, settings, "c0ffee") }
}
