//! Imports the golden checkpoints and compares the bundle with values computed independently.

#![allow(clippy::excessive_precision)] // nine digits, as the other computation printed them

mod checkpoint_support;

use std::ops::ControlFlow;

use checkpoint_support::{Weights, base, everything, golden, leftovers, run};
use motionclone_onnx::checkpoint::{ImportOptions, Precision, import};
use motionclone_onnx::manifest::{BetaSchedule, Defaults, Manifest};
use motionclone_onnx::model::config::{ControlKind, TextActivation};
use motionclone_onnx::weights::Dtype;

const QUERY: &str = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight";

#[test]
fn all_checkpoints_together_become_one_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let options = everything(folder.path().join("bundle"));
    let imported = run(&options).unwrap();
    assert_eq!(imported.warnings, Vec::<String>::new());
    let weights = Weights::open(&options.out);

    let counts =
        ["unet", "vae", "text_encoder", "adapter", "control_rgb", "control_scribble"].map(|n| weights.count(n));
    assert_eq!(counts, [686 + 520, 244, 36, 128, 478, 492]);
    assert_eq!(counts.iter().sum::<usize>(), weights.index.names().count());

    // From the motion module and from SparseCtrl as they are.
    let name =
        "unet.up_blocks.1.motion_modules.2.temporal_transformer.transformer_blocks.0.attention_blocks.1.to_v.weight";
    assert_eq!(weights.info(name), (Dtype::F16, vec![32, 32]));
    assert_eq!(weights.values(name)[..3], [0.016708374, -0.028701782, -0.072875977]);
    let name = "control_scribble.controlnet_cond_embedding.blocks.5.weight";
    assert_eq!(weights.info(name), (Dtype::F16, vec![256, 96, 3, 3]));
    assert_eq!(weights.values(name)[..3], [0.0088272095, -0.023086548, -0.029632568]);

    // DreamBooth's, not the base's.
    let name = "unet.up_blocks.3.resnets.2.conv_shortcut.weight";
    assert_eq!(weights.info(name), (Dtype::F16, vec![32, 64, 1, 1]));
    assert_eq!(weights.values(name)[..3], [-0.23608398, -0.010787964, 0.09259033]);
    let name = "vae.encoder.mid_block.attentions.0.to_out.0.weight";
    assert_eq!(weights.info(name), (Dtype::F16, vec![32, 32]));
    assert_eq!(weights.values(name)[..3], [0.049438477, 0.22253418, -0.17834473]);
    let name = "text_encoder.text_model.final_layer_norm.bias";
    assert_eq!(weights.values(name)[..3], [-0.07513428, -0.022064209, 0.04574585]);
    assert_eq!(weights.info("unet.mid_block.attentions.0.proj_in.weight").1, [32, 32, 1, 1]);

    // The adapter's variants beside the plain weights: W + up · down, computed in float64 elsewhere.
    for (name, plain, merged) in [
        (QUERY, [0.265136719, 0.0289459229, -0.133911133], [0.232366941, 0.0326861109, -0.170663201]),
        (
            "up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_out.0.weight",
            [-0.168212891, -0.10949707, -0.101013184],
            [-0.134136716, -0.0867806363, -0.0607306383],
        ),
        (
            "up_blocks.1.attentions.1.transformer_blocks.0.attn2.to_k.weight",
            [-0.107421875, -0.285400391, -0.0159912109],
            [-0.0699683773, -0.265846639, 0.096685625],
        ),
    ] {
        for (network, dtype, expected) in [("unet", Dtype::F16, plain), ("adapter", Dtype::F32, merged)] {
            let name = format!("{network}.{name}");
            let (found, shape) = weights.info(&name);
            assert_eq!(found, dtype, "{name}");
            let values = weights.values(&name);
            for ((row, column), expected) in [(0, 0), (5, 7), (31, 15)].into_iter().zip(expected) {
                let value = values[row * shape[1] + column];
                assert!((value - expected).abs() < 1e-7, "{name} [{row}, {column}]: {value}, not {expected}");
            }
        }
    }
}

#[test]
fn the_manifest_says_what_the_bundle_holds() {
    let folder = tempfile::tempdir().unwrap();
    let options = everything(folder.path().join("bundle"));
    let manifest = run(&options).unwrap().manifest;
    assert_eq!(Manifest::read(&options.out).unwrap(), manifest);

    let file = std::fs::read(options.out.join("weights.safetensors")).unwrap();
    assert_eq!(manifest.fingerprint, blake3::hash(&file).to_hex().to_string());
    assert_eq!(manifest.name, "dreambooth");
    let sources: Vec<_> = manifest.sources.iter().map(|s| (s.role.as_str(), s.file.as_str(), s.scale)).collect();
    assert_eq!(
        sources,
        [
            ("base", "StableDiffusion", None),
            ("motion-module", "v3_sd15_mm.ckpt", None),
            ("model-config", "model_config.json", None),
            ("dreambooth", "dreambooth.safetensors", None),
            ("adapter", "v3_sd15_adapter.ckpt", Some(1.0)),
            ("sparsectrl-rgb", "v3_sd15_sparsectrl_rgb.ckpt", None),
            ("sparsectrl-scribble", "v3_sd15_sparsectrl_scribble.ckpt", None),
        ]
    );

    let unet = &manifest.unet;
    assert_eq!(unet.block_out_channels, [32, 64, 32, 32]);
    assert_eq!((unet.down_attention.as_slice(), unet.up_attention.as_slice()), {
        ([true, true, true, false].as_slice(), [false, true, true, true].as_slice())
    });
    assert_eq!((unet.cross_attention_dim, unet.norm_num_groups, unet.attention_heads[0]), (16, 8, 8));
    let motion = unet.motion.as_ref().unwrap();
    assert_eq!((motion.heads, motion.attention_blocks, motion.max_frames, motion.mid_block), (8, 2, 32, false));
    assert_eq!(
        (manifest.vae.block_out_channels.as_slice(), manifest.vae.norm_num_groups),
        ([16, 32, 32, 32].as_slice(), 8)
    );
    assert_eq!(manifest.vae.scaling_factor, 0.18215);
    let text = &manifest.text_encoder;
    assert_eq!((text.layers, text.heads, text.hidden_size, text.activation), (2, 4, 16, TextActivation::QuickGelu));
    assert!(manifest.adapter);
    let rgb = &manifest.controls[&ControlKind::Rgb];
    assert_eq!((rgb.conditioning_channels, rgb.embedding_channels.len(), rgb.unet.norm_num_groups), (4, 0, 8));
    assert_eq!(rgb.unet.motion.as_ref().unwrap().attention_blocks, 1);
    assert_eq!(manifest.controls[&ControlKind::Scribble].embedding_channels, [16, 32, 96, 256]);
    assert_eq!((manifest.schedule.beta_start, manifest.schedule.beta_end), (0.00085, 0.012));
    assert_eq!(manifest.schedule.beta_schedule, BetaSchedule::Linear);

    for file in ["vocab.json", "merges.txt"] {
        let copied = std::fs::read(options.out.join("tokenizer").join(file)).unwrap();
        assert_eq!(copied, std::fs::read(golden().join("StableDiffusion/tokenizer").join(file)).unwrap());
    }
}

#[test]
fn a_bundle_carries_the_defaults_and_the_name_it_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("defaults.yaml");
    std::fs::write(&file, "steps: 20\nblocks: [up_blocks.2]\nnegative_prompt: ''\n").unwrap();
    let options =
        ImportOptions { defaults: Some(file), name: Some("small".into()), ..base(folder.path().join("bundle")) };
    let manifest = run(&options).unwrap().manifest;
    let given = Defaults {
        steps: 20,
        blocks: vec!["up_blocks.2".into()],
        negative_prompt: String::new(),
        ..Defaults::default()
    };
    assert_eq!((manifest.defaults, manifest.name.as_str()), (given, "small"));
}

#[test]
fn configs_beside_the_checkpoints_are_not_needed() {
    let folder = tempfile::tempdir().unwrap();
    let with = run(&everything(folder.path().join("with"))).unwrap().manifest;
    let options =
        ImportOptions { model_config: None, sparsectrl_config: None, ..everything(folder.path().join("without")) };
    let mut without = run(&options).unwrap().manifest;
    without.sources.clone_from(&with.sources);
    assert_eq!(with, without);
}

#[test]
fn published_yaml_says_the_same_as_json() {
    let folder = tempfile::tempdir().unwrap();
    let yaml = folder.path().join("model_config.yaml");
    let text = "unet_additional_kwargs:\n  use_inflated_groupnorm: true\n  use_motion_module: true\n  \
                motion_module_resolutions: [1,2,4,8]\n  motion_module_mid_block: false\n  motion_module_type: Vanilla\n\n  \
                motion_module_kwargs:\n    num_attention_heads: 4\n    num_transformer_block: 1\n    \
                attention_block_types: [\"Temporal_Self\", \"Temporal_Self\"]\n    temporal_position_encoding: true\n    \
                temporal_position_encoding_max_len: 24\n    temporal_attention_dim_div: 1\n    zero_initialize: true\n\n\
                noise_scheduler_kwargs:\n  beta_start: 0.00085\n  beta_end: 0.013\n  beta_schedule: \"scaled_linear\"\n  \
                steps_offset: 1\n  clip_sample: false\n";
    std::fs::write(&yaml, text).unwrap();
    let options = ImportOptions { model_config: Some(yaml.clone()), ..everything(folder.path().join("bundle")) };
    let manifest = run(&options).unwrap().manifest;
    let motion = manifest.unet.motion.unwrap();
    assert_eq!((motion.heads, motion.max_frames), (4, 24));
    assert_eq!((manifest.schedule.beta_end, manifest.schedule.beta_schedule), (0.013, BetaSchedule::ScaledLinear));

    for (from, to, says) in [
        ("Vanilla", "Other", "motion_module_type is \"Other\""),
        ("\"Temporal_Self\", ", "", "1 temporal attentions a block"),
        ("scaled_linear", "cosine", "beta_schedule is 'cosine'"),
        ("0.013", "1.5", "no noise schedule"),
        ("use_inflated_groupnorm: true", "use_inflated_groupnorm: false", "use_inflated_groupnorm is false"),
        ("[1,2,4,8]", "[1,2,4", "not a valid configuration"),
    ] {
        std::fs::write(&yaml, text.replace(from, to)).unwrap();
        let options = ImportOptions { out: folder.path().join("refused"), ..options.clone() };
        let refusal = checkpoint_support::refusal(&options);
        assert!(refusal.contains(says), "{refusal}");
    }
}

#[test]
fn a_precision_is_kept_or_chosen() {
    let folder = tempfile::tempdir().unwrap();
    for (precision, plain, merged) in [
        (Precision::Keep, Dtype::F16, Dtype::F32),
        (Precision::Float16, Dtype::F16, Dtype::F16),
        (Precision::Float32, Dtype::F32, Dtype::F32),
    ] {
        let options = ImportOptions { precision, ..everything(folder.path().join(format!("{precision:?}"))) };
        run(&options).unwrap();
        let weights = Weights::open(&options.out);
        let (kept, changed) = (format!("unet.{QUERY}"), format!("adapter.{QUERY}"));
        assert_eq!((weights.info(&kept).0, weights.info(&changed).0), (plain, merged));
        let value = weights.values(&changed)[0];
        assert!((value - 0.232366941).abs() < if merged == Dtype::F32 { 1e-7 } else { 1e-4 }, "{value}");
        // Every tensor lies where its type may be read in place.
        for name in weights.index.names() {
            let info = weights.index.get(name).unwrap();
            assert_eq!(info.offset % (info.dtype.bitsize() as u64 / 8), 0, "{name}");
        }
    }
}

#[test]
fn progress_grows_to_the_end_and_can_break_off() {
    let folder = tempfile::tempdir().unwrap();
    let options = base(folder.path().join("bundle"));
    let mut calls = Vec::new();
    import(&options, &mut |progress| {
        calls.push((progress.what.to_string(), progress.done, progress.total));
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(calls.is_sorted_by_key(|call| call.1));
    assert_eq!((calls[0].1, calls.last().unwrap().1), (0, calls[0].2));
    assert_eq!(calls.len(), 686 + 244 + 36 + 1);

    for stop_at in [0, 500, calls.len() - 1] {
        let mut count = 0;
        let options = ImportOptions { out: folder.path().join("cancelled"), ..options.clone() };
        let result = import(&options, &mut |_| {
            count += 1;
            if count > stop_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(result.unwrap_err().is_cancelled());
        assert!(!options.out.exists());
        assert_eq!(leftovers(&options.out), Vec::<String>::new());
    }
}

#[test]
fn a_bundle_is_replaced_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let options = base(folder.path().join("bundle"));
    let first = run(&options).unwrap().manifest;
    let second = run(&everything(options.out.clone())).unwrap().manifest;
    assert_ne!(first.fingerprint, second.fingerprint);
    assert_eq!(Manifest::read(&options.out).unwrap(), second);

    // A failed import leaves the old bundle.
    let missing = ImportOptions { motion_module: Some("missing.ckpt".into()), ..options.clone() };
    assert!(run(&missing).unwrap_err().to_string().contains("missing.ckpt: no such file"));
    assert_eq!(Manifest::read(&options.out).unwrap(), second);
    assert_eq!(leftovers(&options.out), Vec::<String>::new());

    let note = options.out.join("notes.txt");
    std::fs::write(&note, "mine").unwrap();
    assert!(run(&options).unwrap_err().to_string().contains("notes.txt"));
    assert!(note.exists());

    let other = folder.path().join("pictures");
    std::fs::create_dir(&other).unwrap();
    run(&base(other.clone())).unwrap();
    assert!(Manifest::read(&other).is_ok(), "an empty folder is taken");
    let full = folder.path().join("holiday");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("beach.png"), "picture").unwrap();
    assert!(run(&base(full.clone())).unwrap_err().to_string().contains("holds other files, such as 'beach.png'"));
    assert!(run(&base(full.join("beach.png"))).unwrap_err().to_string().contains("is a file, not a folder"));
    assert_eq!(std::fs::read(full.join("beach.png")).unwrap(), b"picture");
}
