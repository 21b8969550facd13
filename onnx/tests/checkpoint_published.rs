//! Models as they are published: averages alone, parts of a model, leftovers of training, and what a model says of itself.

mod checkpoint_support;

use std::path::{Path, PathBuf};

use checkpoint_support::*;
use motionclone_onnx::checkpoint::ImportOptions;
use motionclone_onnx::manifest::Manifest;

/// The golden DreamBooth model.
fn dreambooth() -> Tensors {
    read_safetensors(&golden().join("dreambooth.safetensors"))
}

/// Tensors of `tensors` whose names begin so.
fn part(tensors: &Tensors, prefix: &str) -> Tensors {
    tensors.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(n, t)| (n.clone(), t.clone())).collect()
}

/// What a model file in the place of the DreamBooth model gives, with what was said.
fn with_model(folder: &Path, tensors: &Tensors) -> (Manifest, String) {
    let file = write_safetensors(folder.join("model.safetensors"), tensors);
    let imported = run(&ImportOptions { dreambooth: Some(file), ..base(folder.join("bundle")) }).unwrap();
    (imported.manifest, imported.notes.join("\n"))
}

#[test]
fn a_unet_of_moving_averages_alone_is_used_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let whole = dreambooth();
    let (expected, said) = with_model(folder.path(), &whole);
    assert!(said.contains("from the dreambooth model.safetensors: UNet, VAE, text encoder"), "{said}");
    let mut averages = Tensors::new();
    let flat = |name: &str| format!("model_ema.{}", name.strip_prefix("model.").unwrap().replace('.', ""));
    for (name, tensor) in &whole {
        let name = if name.starts_with("model.diffusion_model.") { flat(name) } else { name.clone() };
        averages.insert(name, tensor.clone());
    }
    averages.insert("model_ema.decay".into(), floats(&[], &[0.9999]));
    let (manifest, said) = with_model(folder.path(), &averages);
    assert_eq!(manifest.fingerprint, expected.fingerprint);
    assert!(said.contains("moving averages (EMA) alone; these are used"), "{said}");

    // Beside the weights themselves they are left out.
    averages.extend(part(&whole, "model.diffusion_model."));
    let (manifest, said) = with_model(folder.path(), &averages);
    assert_eq!(manifest.fingerprint, expected.fingerprint);
    assert!(said.contains("of moving averages (EMA)") && !said.contains("are used"), "{said}");
}

#[test]
fn a_part_of_a_model_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (manifest, said) = with_model(folder.path(), &part(&dreambooth(), "first_stage_model."));
    assert!(said.contains("from the base StableDiffusion: UNet, text encoder"), "{said}");
    assert!(said.contains("from the dreambooth model.safetensors: VAE"), "{said}");
    let networks: Vec<_> = manifest.sources.iter().map(|source| (source.role.as_str(), &source.networks[..])).collect();
    assert_eq!(networks[0], ("base", &["unet".to_string(), "text_encoder".into()][..]));
    assert_eq!(networks[1], ("dreambooth", &["vae".to_string()][..]));
    assert_eq!(Manifest::read(&folder.path().join("bundle")).unwrap(), manifest);
}

#[test]
fn leftovers_of_training_change_nothing_and_are_said() {
    let folder = tempfile::tempdir().unwrap();
    let mut tensors = dreambooth();
    let (expected, _) = with_model(folder.path(), &tensors);
    for name in [
        "cond_stage_model.logit_scale",
        "cond_stage_model.transformer.text_model.embeddings.position_ids",
        "cond_stage_model.text_projection",
        "alphas_cumprod",
        "first_stage_model.loss.logvar",
        "loss.discriminator.main.0.weight",
        "first_stage_model.model_ema.decay",
    ] {
        tensors.insert(name.into(), floats(&[1], &[4.6]));
    }
    let (manifest, said) = with_model(folder.path(), &tensors);
    assert_eq!(manifest.fingerprint, expected.fingerprint);
    for kind in ["2 of projection of CLIP", "2 of training loss", "of noise schedule", "of moving averages"] {
        assert!(said.contains(kind), "{said}");
    }
    assert!(!said.contains("position"), "{said}");
}

/// A copy of the golden base with a scheduler's configuration.
fn with_scheduler(folder: &Path, entries: &str) -> PathBuf {
    let copy = folder.join("model");
    for part in ["unet", "vae", "text_encoder", "tokenizer"] {
        std::fs::create_dir_all(copy.join(part)).unwrap();
        for entry in std::fs::read_dir(golden().join("StableDiffusion").join(part)).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.join(part).join(entry.file_name())).unwrap();
        }
    }
    std::fs::create_dir_all(copy.join("scheduler")).unwrap();
    std::fs::write(copy.join("scheduler/scheduler_config.json"), format!("{{{entries}}}")).unwrap();
    copy
}

#[test]
fn other_predictions_and_schedules_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let published = r#""_class_name":"PNDMScheduler","beta_start":0.00085,"beta_end":0.012,"beta_schedule":"scaled_linear",
        "num_train_timesteps":1000,"trained_betas":null,"prediction_type":"epsilon","steps_offset":1,"clip_sample":false"#;
    let options = |entries: &str| ImportOptions {
        base: with_scheduler(folder.path(), entries),
        ..base(folder.path().join("bundle"))
    };
    for (entries, says) in [
        (r#""prediction_type":"v_prediction""#, "prediction type is v_prediction"),
        (r#""prediction_type":"sample""#, "prediction type is sample"),
        (r#""rescale_betas_zero_snr":true"#, "zero terminal SNR"),
        (r#""trained_betas":[0.1,0.2]"#, "trained_betas"),
        (r#""beta_schedule":"squaredcos_cap_v2""#, "squaredcos_cap_v2"),
        (r#""beta_end":0.02"#, "0.02 over 1000 steps, the bundle's go from 0.00085 to 0.012"),
        (r#""num_train_timesteps":2000"#, "over 2000 steps"),
    ] {
        let text = refusal(&options(entries));
        assert!(text.contains("scheduler_config.json: ") && text.contains(says), "{text}");
    }
    run(&options(published)).unwrap();

    // Other numbers are right where the model's configuration says them, too.
    let file = folder.path().join("model.yaml");
    std::fs::write(&file, "noise_scheduler_kwargs: {beta_end: 0.02}").unwrap();
    let schedule = r#""beta_end":0.02"#;
    let manifest = run(&ImportOptions { model_config: Some(file), ..options(schedule) }).unwrap().manifest;
    assert_eq!(manifest.schedule.beta_end, 0.02);
}

#[test]
fn a_file_that_says_that_it_predicts_velocities_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let refused = |file: PathBuf| refusal(&ImportOptions { dreambooth: Some(file), ..base(at("bundle")) });
    let mut marked = dreambooth();
    marked.insert("v_pred".into(), floats(&[0], &[]));
    let text = refused(write_safetensors(at("marked.safetensors"), &marked));
    assert!(text.contains("prediction type is v;"), "{text}");

    let bytes = std::fs::read(golden().join("dreambooth.safetensors")).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let (header, data) = bytes[8..].split_at(length);
    let said = |key: &str, value: &str| {
        let mut header: serde_json::Value = serde_json::from_slice(header).unwrap();
        header["__metadata__"] = serde_json::json!({ key: value });
        let header = serde_json::to_vec(&header).unwrap();
        std::fs::write(at("said.safetensors"), [&(header.len() as u64).to_le_bytes(), &header[..], data].concat())
            .unwrap();
        at("said.safetensors")
    };
    assert!(refused(said("modelspec.prediction_type", "v")).contains("prediction type is v;"));
    assert!(refused(said("ss_v_parameterization", "True")).contains("prediction type is v;"));
    let epsilon = said("modelspec.prediction_type", "epsilon");
    run(&ImportOptions { dreambooth: Some(epsilon), ..base(at("bundle")) }).unwrap();
}

/// AnimateDiff's name of a motion weight as diffusers spells it.
fn in_diffusers(name: &str) -> String {
    let parts = [
        ("temporal_transformer.", ""),
        ("attention_blocks.0", "attn1"),
        ("attention_blocks.1", "attn2"),
        ("norms.0", "norm1"),
        ("norms.1", "norm2"),
        ("ff_norm", "norm3"),
    ];
    parts.iter().fold(name.to_string(), |name, (from, to)| name.replace(from, to))
}

#[test]
fn motion_adapters_of_diffusers_are_motion_modules() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let import = |file: PathBuf| run(&ImportOptions { motion_module: Some(file), ..base(at("bundle")) }).unwrap();
    let expected = import(golden().join("v3_sd15_mm.ckpt")).manifest;
    // The module's tensors, from the bundle: float16 as in the file.
    let bundled = read_safetensors(&at("bundle/weights.safetensors"));
    let module: Tensors = bundled
        .into_iter()
        .filter(|(name, _)| name.contains(".motion_modules."))
        .map(|(name, tensor)| (in_diffusers(name.strip_prefix("unet.").unwrap()), tensor))
        .collect();
    assert!(module.contains_key("down_blocks.0.motion_modules.0.transformer_blocks.0.attn2.to_q.weight"));
    std::fs::create_dir(at("adapter")).unwrap();
    let file = write_safetensors(at("adapter/diffusion_pytorch_model.safetensors"), &module);
    assert_eq!(import(file).manifest.fingerprint, expected.fingerprint);
    // Its configuration says what shapes do not tell.
    std::fs::write(at("adapter/config.json"), r#"{"motion_num_attention_heads": 4, "motion_norm_num_groups": 32}"#)
        .unwrap();
    let manifest = import(at("adapter")).manifest;
    assert_eq!(manifest.fingerprint, expected.fingerprint);
    assert_eq!((manifest.unet.motion.unwrap().heads, expected.unet.motion.as_ref().unwrap().heads), (4, 8));
    std::fs::write(at("adapter/config.json"), r#"{"motion_norm_num_groups": 16}"#).unwrap();
    let text = refusal(&ImportOptions { motion_module: Some(at("adapter")), ..base(at("refused")) });
    assert!(text.contains("motion_norm_num_groups is 16"), "{text}");

    // A LoRA in either naming adds the same.
    let name = "mid.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.1";
    let name = name.replacen("mid", "down_blocks.0", 1);
    let lora = |prefix: &str, name: &str, halves: [&str; 2]| {
        let down = (format!("{prefix}{name}{}", halves[0]), floats(&[2, 32], &[0.25; 64]));
        let up = (format!("{prefix}{name}{}", halves[1]), floats(&[32, 2], &[0.5; 64]));
        let file = write_safetensors(at("lora.safetensors"), &Tensors::from([down, up]));
        let motion_module = Some(golden().join("v3_sd15_mm.ckpt"));
        run(&ImportOptions { motion_module, motion_loras: vec![(file, 0.5)], ..base(at("bundle")) }).unwrap().manifest
    };
    let own = lora("", &format!("{name}.processor.to_q_lora"), [".down.weight", ".up.weight"]);
    let other = lora("unet.", &in_diffusers(&format!("{name}.to_q")), [".lora_A.weight", ".lora_B.weight"]);
    assert_ne!(own.fingerprint, expected.fingerprint);
    assert_eq!(own.fingerprint, other.fingerprint);
}

#[test]
fn a_motion_lora_of_the_second_version_says_which_module_it_needs() {
    let folder = tempfile::tempdir().unwrap();
    let mut tensors = Tensors::new();
    for block in ["down_blocks.0", "mid_block"] {
        let name = format!("{block}.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0");
        tensors.insert(format!("{name}.processor.to_q_lora.down.weight"), floats(&[2, 32], &[0.0; 64]));
        tensors.insert(format!("{name}.processor.to_q_lora.up.weight"), floats(&[32, 2], &[0.0; 64]));
    }
    let file = write_torch_zip(folder.path().join("ZoomIn.ckpt"), &tensors);
    let text = refusal(&ImportOptions {
        motion_module: Some(golden().join("v3_sd15_mm.ckpt")),
        motion_loras: vec![(file, 0.8)],
        ..base(folder.path().join("bundle"))
    });
    assert!(text.contains("an AnimateDiff v2 motion LoRA: it needs a v2 module"), "{text}");
}

#[test]
fn a_bundle_without_a_motion_module_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let imported = run(&base(folder.path().join("bundle"))).unwrap();
    assert!(imported.warnings.iter().any(|warning| warning.contains("no motion module")), "{:?}", imported.warnings);
    let text = imported.manifest.motion().unwrap_err().to_string();
    assert!(text.contains("no motion module") && text.contains("--motion-module"), "{text}");
}

/// The golden base's VAE.
fn diffusers_vae() -> Tensors {
    read_safetensors(&golden().join("StableDiffusion/vae/diffusion_pytorch_model.safetensors"))
}

#[test]
fn a_vae_in_a_file_of_its_own_replaces_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    // The VAE with one value changed, inside the style and alone.
    let mut style = dreambooth();
    let bias = "first_stage_model.decoder.conv_out.bias";
    style.insert(bias.into(), floats(&[3], &[0.5, -0.25, 1.0]));
    let (both, _) = with_model(folder.path(), &style);
    let alone: Tensors = part(&style, "first_stage_model.");
    let alone =
        alone.into_iter().map(|(n, t)| (n.strip_prefix("first_stage_model.").unwrap().to_string(), t)).collect();
    let vae = write_safetensors(at("vae.safetensors"), &alone);
    let original = Some(golden().join("dreambooth.safetensors"));
    let options = ImportOptions { dreambooth: original, vae: Some(vae.clone()), ..base(at("bundle")) };
    let imported = run(&options).unwrap();
    assert_eq!(imported.manifest.fingerprint, both.fingerprint);
    let said = imported.notes.join("\n");
    assert!(said.contains("from the VAE file vae.safetensors: VAE"), "{said}");
    assert!(said.contains("from the dreambooth dreambooth.safetensors: UNet, text encoder"), "{said}");
    // A model's file or folder may give its VAE alone, and a VAE may take the place of the style.
    let prefixed = write_safetensors(at("prefixed.safetensors"), &part(&style, "first_stage_model."));
    let with =
        |vae: &Path| run(&ImportOptions { vae: Some(vae.into()), ..base(at("bundle")) }).unwrap().manifest.fingerprint;
    let expected = with(&prefixed);
    assert_eq!(with(&vae), expected);
    assert_eq!(
        run(&ImportOptions { dreambooth: Some(vae), ..base(at("bundle")) }).unwrap().manifest.fingerprint,
        expected
    );
    let own = run(&base(at("bundle"))).unwrap().manifest.fingerprint;
    assert_eq!(with(&golden().join("StableDiffusion")), own);
    assert_eq!(with(&golden().join("StableDiffusion/vae")), own);
    assert_eq!(with(&write_safetensors(at("other.safetensors"), &diffusers_vae())), own);
    let unet = write_safetensors(at("unet.safetensors"), &part(&style, "model.diffusion_model."));
    let text = refusal(&ImportOptions { vae: Some(unet), ..base(at("refused")) });
    assert!(text.contains("unet.safetensors: this file has no VAE"), "{text}");
}

#[test]
fn a_file_of_another_kind_is_named_with_the_way_to_give_it() {
    let folder = tempfile::tempdir().unwrap();
    for (name, says) in [
        ("lora_unet_mid_block.lora_up.weight", "a LoRA, which is given with --lora"),
        ("down_blocks.0.motion_modules.0.temporal_transformer.norm.weight", "--motion-module"),
        ("control_model.zero_convs.0.0.weight", "a ControlNet"),
        ("emb_params", "a textual inversion"),
    ] {
        let tensors = Tensors::from([(name.to_string(), floats(&[1], &[1.0]))]);
        let file = write_safetensors(folder.path().join("other.safetensors"), &tensors);
        let text = refusal(&ImportOptions { dreambooth: Some(file), ..base(folder.path().join("bundle")) });
        assert!(text.contains(says), "{text}");
    }
}
