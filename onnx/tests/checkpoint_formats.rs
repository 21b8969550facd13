//! The same weights from every file format, and LoRAs of every naming.

mod checkpoint_support;

use std::path::PathBuf;

use checkpoint_support::*;
use half::bf16;
use motionclone_onnx::checkpoint::ImportOptions;
use motionclone_onnx::weights::Dtype;

const MODULE: &str = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0";

/// A single-file base with a tokenizer given.
fn single(file: PathBuf, out: PathBuf) -> ImportOptions {
    ImportOptions { base: file, tokenizer: Some(golden().join("StableDiffusion/tokenizer")), out, ..Default::default() }
}

/// What the weights of an import hash to.
fn fingerprint(options: &ImportOptions) -> String {
    run(options).unwrap().manifest.fingerprint
}

#[test]
fn formats_do_not_matter() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let tensors = read_safetensors(&golden().join("dreambooth.safetensors"));
    let dreambooth = |path: PathBuf| fingerprint(&ImportOptions { dreambooth: Some(path), ..base(at("bundle")) });
    let expected = dreambooth(golden().join("dreambooth.safetensors"));
    // The content tells the format, not the name.
    assert_eq!(dreambooth(write_torch_zip(at("model.ckpt"), &tensors)), expected);
    assert_eq!(dreambooth(write_torch_legacy(at("legacy.safetensors"), &tensors)), expected);
    assert_eq!(dreambooth(write_safetensors(at("model.pt"), &tensors)), expected);
}

#[test]
fn element_types_become_those_of_bundles() {
    let folder = tempfile::tempdir().unwrap();
    let name = "unet.conv_out.bias";
    let source = "model.diffusion_model.out.2.bias";
    let mut tensors = read_safetensors(&golden().join("dreambooth.safetensors"));
    let values = [0.5f32, -1.25, 3.0, 0.0078125];
    let brain = values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect();
    let double = values.iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect();
    for (dtype, bytes) in [(Dtype::BF16, brain), (Dtype::F64, double), (Dtype::F32, floats(&[4], &values).2)] {
        tensors.insert(source.into(), (dtype, vec![4], bytes));
        let file = write_torch_zip(folder.path().join("model.ckpt"), &tensors);
        let options = ImportOptions { dreambooth: Some(file), ..base(folder.path().join("bundle")) };
        run(&options).unwrap();
        let weights = Weights::open(&options.out);
        assert_eq!((weights.info(name).0, weights.values(name)), (Dtype::F32, values.to_vec()), "{dtype:?}");
    }
}

#[test]
fn folders_may_hold_half_precision_variants_or_parts() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("model");
    for part in ["unet", "vae", "text_encoder", "tokenizer"] {
        std::fs::create_dir_all(copy.join(part)).unwrap();
        for entry in std::fs::read_dir(golden().join("StableDiffusion").join(part)).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.join(part).join(entry.file_name())).unwrap();
        }
    }
    let expected = fingerprint(&base(folder.path().join("bundle")));
    let options = ImportOptions { base: copy.clone(), ..base(folder.path().join("bundle")) };
    let rename = |from: &str, to: &str| std::fs::rename(copy.join(from), copy.join(to)).unwrap();
    rename("unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.fp16.bin");
    let vae = read_safetensors(&copy.join("vae/diffusion_pytorch_model.safetensors"));
    std::fs::remove_file(copy.join("vae/diffusion_pytorch_model.safetensors")).unwrap();
    let mut map = serde_json::Map::new();
    let (encoder, decoder): (Tensors, Tensors) = vae.into_iter().partition(|(name, _)| name.starts_with("enc"));
    for (file, tensors) in [("part-1.safetensors", &encoder), ("part-2.safetensors", &decoder)] {
        write_safetensors(copy.join("vae").join(file), tensors);
        map.extend(tensors.keys().map(|name| (name.clone(), file.into())));
    }
    let index = copy.join("vae/diffusion_pytorch_model.safetensors.index.json");
    std::fs::write(&index, serde_json::json!({ "metadata": {}, "weight_map": map }).to_string()).unwrap();
    assert_eq!(fingerprint(&options), expected);

    let out = ImportOptions { out: folder.path().join("refused"), ..options };
    for outside in ["../part-1.safetensors", "/etc/passwd", "..", "a\\b"] {
        map.insert("extra".into(), outside.into());
        std::fs::write(&index, serde_json::json!({ "weight_map": map }).to_string()).unwrap();
        let text = refusal(&out);
        assert!(text.contains("not a file name in this folder"), "{text}");
    }
    std::fs::remove_file(&index).unwrap();
    assert!(refusal(&out).contains("no weights in this folder"));
}

#[test]
fn a_single_file_takes_the_tokenizer_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::copy(golden().join("dreambooth.safetensors"), at("model.safetensors")).unwrap();
    // Groups of 32 do not divide 16 channels: as a base of its own, this file lacks its config.
    let options = single(at("model.safetensors"), at("bundle"));
    let text = refusal(&options);
    assert!(text.contains("32 group norm groups do not divide 16 channels"), "{text}");

    let options = ImportOptions { tokenizer: Some(at("elsewhere")), ..options };
    assert!(refusal(&options).contains("vocab.json and merges.txt"));

    // Beside the file it is found: now the architecture is what fails.
    let options = ImportOptions { tokenizer: None, ..options };
    std::fs::create_dir(at("tokenizer")).unwrap();
    for file in ["vocab.json", "merges.txt"] {
        std::fs::copy(golden().join("StableDiffusion/tokenizer").join(file), at("tokenizer").join(file)).unwrap();
    }
    assert!(refusal(&options).contains("group norm groups"));
}

#[test]
fn strided_tensors_are_copied_into_order() {
    let folder = tempfile::tempdir().unwrap();
    // A LoRA whose halves are one storage: down is its transposed front, up comes after.
    let values: Vec<f32> = (0..32 * 2 * 2).map(|i| i as f32 / 64.0).collect();
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let storage = ("FloatStorage", "0", values.len() as i64);
    // One half is a parameter, and the dictionary has an attribute, as state dictionaries of modules do.
    let pickle = Pickler::new().global("collections", "OrderedDict").raw(b")R(");
    let pickle = pickle.text(&format!("unet.{MODULE}.lora_A.weight")).tensor(storage, 0, &[2, 32], &[1, 2]);
    let pickle = pickle.text(&format!("unet.{MODULE}.lora_B.weight")).global("torch._utils", "_rebuild_parameter");
    let pickle = pickle.raw(b"(").tensor(storage, 64, &[32, 2], &[2, 1]).raw(b"\x88)tRu}");
    let pickle = pickle.text("_metadata").raw(b"}sb").end();
    let file = write_zip(folder.path().join("lora.pt"), &[("lora/data.pkl", &pickle), ("lora/data/0", &bytes)]);
    let plain = base(folder.path().join("plain"));
    run(&plain).unwrap();
    let with = ImportOptions { loras: vec![(file, 0.5)], ..base(folder.path().join("with")) };
    run(&with).unwrap();
    let name = format!("unet.{MODULE}.weight");
    let (before, after) = (Weights::open(&plain.out).values(&name), Weights::open(&with.out).values(&name));
    for row in 0..32 {
        for column in 0..32 {
            let sum: f32 = (0..2).map(|r| values[64 + 2 * row + r] * values[2 * column + r]).sum();
            assert_eq!(after[32 * row + column], before[32 * row + column] + 0.5 * sum);
        }
    }
}

/// The halves of a low-rank addition to a weight [32, 32], and their product.
fn halves(rank: usize, seed: usize) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let number = |i: usize| ((i * 37 + seed * 11) % 64) as f32 / 64.0 - 0.5;
    let down: Vec<f32> = (0..rank * 32).map(number).collect();
    let up: Vec<f32> = (0..32 * rank).map(|i| number(i + 7)).collect();
    let product = |i: usize| (0..rank).map(|r| up[(i / 32) * rank + r] * down[r * 32 + i % 32]).sum();
    let products = (0..32 * 32).map(product).collect();
    (down, up, products)
}

#[test]
fn every_naming_of_loras_is_understood() {
    let folder = tempfile::tempdir().unwrap();
    let plain = base(folder.path().join("plain"));
    run(&plain).unwrap();
    let plain = Weights::open(&plain.out);
    let old = MODULE.strip_suffix(".to_out.0").unwrap();
    let flat = MODULE.replace('.', "_");
    let rank = 4;
    for (down_name, up_name, alpha) in [
        (format!("lora_unet_{flat}.lora_down.weight"), format!("lora_unet_{flat}.lora_up.weight"), Some(2.0)),
        (format!("unet.{MODULE}.lora_A.weight"), format!("unet.{MODULE}.lora_B.weight"), None),
        (format!("base_model.model.{MODULE}.lora_A.weight"), format!("base_model.model.{MODULE}.lora_B.weight"), None),
        (format!("unet.{MODULE}.lora.down.weight"), format!("unet.{MODULE}.lora.up.weight"), None),
        (
            format!("unet.{old}.processor.to_out_lora.down.weight"),
            format!("unet.{old}.processor.to_out_lora.up.weight"),
            None,
        ),
        (format!("{old}.processor.to_out_lora.down.weight"), format!("{old}.processor.to_out_lora.up.weight"), None),
    ] {
        let (down, up, product) = halves(rank, 1);
        let mut tensors =
            Tensors::from([(down_name.clone(), floats(&[rank, 32], &down)), (up_name, floats(&[32, rank], &up))]);
        if let Some(alpha) = alpha {
            tensors.insert(format!("lora_unet_{flat}.alpha"), floats(&[], &[alpha]));
        }
        let file = write_safetensors(folder.path().join("lora.safetensors"), &tensors);
        let options = ImportOptions { loras: vec![(file, 0.75)], ..base(folder.path().join("bundle")) };
        run(&options).unwrap();
        let weights = Weights::open(&options.out);
        let name = format!("unet.{MODULE}.weight");
        assert_eq!(weights.info(&name).0, Dtype::F32);
        let factor = 0.75 * alpha.unwrap_or(4.0) / 4.0;
        for ((after, before), product) in weights.values(&name).iter().zip(plain.values(&name)).zip(product) {
            assert!((after - before - factor * product).abs() < 1e-6, "{down_name}: {after}");
        }
        // Nothing else changed.
        let changed = weights.index.names().filter(|n| weights.info(n) != plain.info(n)).count();
        assert_eq!(changed, 1);
    }
}

#[test]
fn loras_reach_the_text_encoder_and_convolutions() {
    let folder = tempfile::tempdir().unwrap();
    let plain = base(folder.path().join("plain"));
    run(&plain).unwrap();
    let plain = Weights::open(&plain.out);
    let text = "lora_te_text_model_encoder_layers_1_self_attn_q_proj";
    let convolution = "lora_unet_down_blocks_0_resnets_0_conv1";
    let ones = |n: usize| vec![1.0f32; n];
    let tensors = Tensors::from([
        (format!("{text}.lora_down.weight"), floats(&[2, 16], &ones(32))),
        (format!("{text}.lora_up.weight"), floats(&[16, 2], &ones(32))),
        (format!("{convolution}.lora_down.weight"), floats(&[2, 32, 3, 3], &ones(576))),
        (format!("{convolution}.lora_up.weight"), floats(&[32, 2, 1, 1], &ones(64))),
    ]);
    let file = write_safetensors(folder.path().join("lora.safetensors"), &tensors);
    let options = ImportOptions { loras: vec![(file.clone(), 1.0), (file, 0.5)], ..base(folder.path().join("bundle")) };
    run(&options).unwrap();
    let weights = Weights::open(&options.out);
    for name in [
        "text_encoder.text_model.encoder.layers.1.self_attn.q_proj.weight",
        "unet.down_blocks.0.resnets.0.conv1.weight",
    ] {
        for (after, before) in weights.values(name).iter().zip(plain.values(name)) {
            assert!((after - before - 3.0).abs() < 1e-5, "{name}: {before} became {after}");
        }
    }
}

#[test]
fn adapter_and_motion_loras_come_after_loras() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let lora = |name: &str, module: &str, seed: usize| {
        let (down, up, product) = halves(2, seed);
        let tensors = Tensors::from([
            (format!("{module}.lora_A.weight"), floats(&[2, 32], &down)),
            (format!("{module}.lora_B.weight"), floats(&[32, 2], &up)),
        ]);
        (write_safetensors(at(name), &tensors), product)
    };
    let motion = "down_blocks.0.motion_modules.1.temporal_transformer.transformer_blocks.0.attention_blocks.0.to_q";
    let (first, a) = lora("lora.safetensors", MODULE, 1);
    let (adapter, b) = lora("adapter.safetensors", MODULE, 2);
    let (motion_file, c) = lora("motion.safetensors", motion, 3);
    let with_motion =
        |out: &str| ImportOptions { motion_module: Some(golden().join("v3_sd15_mm.ckpt")), ..base(at(out)) };
    run(&with_motion("plain")).unwrap();
    let plain = Weights::open(&at("plain"));
    let options = ImportOptions {
        loras: vec![(first, 1.0)],
        adapter: Some((adapter, 0.5)),
        motion_loras: vec![(motion_file.clone(), 0.25)],
        ..with_motion("bundle")
    };
    run(&options).unwrap();
    let weights = Weights::open(&options.out);
    let (module, motion) = (format!("{MODULE}.weight"), format!("{motion}.weight"));
    let before = plain.values(&format!("unet.{module}"));
    let image: Vec<f32> = before.iter().zip(&a).map(|(w, a)| w + a).collect();
    let adapted: Vec<f32> = image.iter().zip(&b).map(|(w, b)| w + 0.5 * b).collect();
    let moved: Vec<f32> = plain.values(&format!("unet.{motion}")).iter().zip(&c).map(|(w, c)| w + 0.25 * c).collect();
    for (name, expected) in
        [(format!("unet.{module}"), image), (format!("adapter.{module}"), adapted), (format!("unet.{motion}"), moved)]
    {
        let close = weights.values(&name).iter().zip(&expected).all(|(x, y)| (x - y).abs() < 1e-6);
        assert!(close, "{name}");
    }
    assert_eq!(weights.count("adapter"), 1);

    let swapped =
        ImportOptions { adapter: None, motion_loras: vec![(at("lora.safetensors"), 1.0)], ..with_motion("refused") };
    assert!(refusal(&swapped).contains("a motion LoRA changes motion modules only"));
    let without = ImportOptions { motion_loras: vec![(motion_file, 1.0)], ..base(at("refused")) };
    assert!(refusal(&without).contains("no motion module was given"));
}

#[test]
fn loras_for_other_models_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |tensors: &[(&str, &[usize])], scale: f32| {
        let tensors =
            tensors.iter().map(|(name, shape)| (name.to_string(), floats(shape, &vec![0.5; shape.iter().product()])));
        let file = write_safetensors(folder.path().join("lora.safetensors"), &tensors.collect());
        refusal(&ImportOptions { loras: vec![(file, scale)], ..base(folder.path().join("bundle")) })
    };
    let module = format!("unet.{MODULE}");
    let (down, up) = (format!("{module}.lora_A.weight"), format!("{module}.lora_B.weight"));
    assert!(refused(&[(&down, &[2, 64]), (&up, &[64, 2])], 1.0).contains("made for another model"));
    assert!(refused(&[(&down, &[2, 32]), (&up, &[32, 3])], 1.0).contains("made for another model"));
    assert!(refused(&[(&down, &[2, 32])], 1.0).contains("lacks its up or its down half"));
    assert!(refused(&[(&down, &[2, 32]), (&up, &[32, 2])], f32::NAN).contains("scale is NaN"));
    assert!(refused(&[(&down, &[2, 32]), (&up, &[32, 2]), ("surplus", &[1])], 1.0).contains("'surplus'"));
    assert!(refused(&[("lora_te2_text_model_x.lora_up.weight", &[1])], 1.0).contains("Stable Diffusion XL"));
    assert!(refused(&[("lora_unet_mid.a1.weight", &[1]), ("lora_unet_mid.b1.weight", &[1])], 1.0).contains("a GLoRA"));
    assert!(refused(&[("bert.pooler.weight", &[1])], 1.0).contains("no LoRA for this model"));
}
