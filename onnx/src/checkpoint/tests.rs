//! The real, full-size checkpoints by their names and shapes: sparse files with true headers and no content.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;

use super::{ImportOptions, Planned, plan};
use crate::model::config::{ControlKind, TextActivation};

/// Names and shapes of a checkpoint.
type Keys = BTreeMap<String, Vec<usize>>;

/// Those of a published checkpoint.
fn keys(name: &str) -> Keys {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checkpoint-keys").join(format!("{name}.json"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A safetensors file of these tensors, in float16, as long as it should be but with nothing on the disk.
fn write(path: PathBuf, tensors: &Keys) -> PathBuf {
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (name, shape) in tensors {
        let offsets = [end, end + 2 * shape.iter().product::<usize>()];
        end = offsets[1];
        header.insert(name.clone(), json!({ "dtype": "F16", "shape": shape, "data_offsets": offsets }));
    }
    let header = serde_json::to_vec(&header).unwrap();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = File::create(&path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&header).unwrap();
    file.set_len((8 + header.len() + end) as u64).unwrap();
    path
}

/// All published files, the base in diffusers' layout.
fn published(folder: &TempDir) -> ImportOptions {
    let at = |name: &str| folder.path().join(name);
    write(at("base/unet/diffusion_pytorch_model.safetensors"), &keys("sd15_unet_diffusers"));
    write(at("base/vae/diffusion_pytorch_model.safetensors"), &keys("sd15_vae_diffusers"));
    write(at("base/text_encoder/model.safetensors"), &keys("sd15_text_encoder_diffusers"));
    ImportOptions {
        base: at("base"),
        motion_module: Some(write(at("v3_sd15_mm.ckpt"), &keys("v3_sd15_mm"))),
        dreambooth: Some(write(at("dreambooth.safetensors"), &keys("dreambooth_ldm"))),
        adapter: Some((write(at("v3_sd15_adapter.ckpt"), &keys("v3_sd15_adapter")), 1.0)),
        sparsectrl_rgb: Some(write(at("rgb.ckpt"), &keys("v3_sd15_sparsectrl_rgb"))),
        sparsectrl_scribble: Some(write(at("scribble.ckpt"), &keys("v3_sd15_sparsectrl_scribble"))),
        out: at("bundle"),
        ..Default::default()
    }
}

/// The tensors of a file that weights of the plan come from.
fn used(planned: &Planned, path: &Path) -> BTreeSet<String> {
    let sources = planned.plan.values().filter(|weight| weight.tensor.set.path() == path);
    sources.map(|weight| weight.tensor.source.clone()).collect()
}

fn is_position_ids(name: &str) -> bool {
    name.ends_with("embeddings.position_ids")
}

#[test]
fn every_tensor_of_the_published_checkpoints_has_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let options = published(&folder);
    let planned = plan(&options).unwrap();

    // DreamBooth replaces the base altogether, each of its tensors is one weight.
    let dreambooth = keys("dreambooth_ldm");
    let expected: BTreeSet<_> = dreambooth.keys().filter(|n| !is_position_ids(n)).cloned().collect();
    assert_eq!(used(&planned, options.dreambooth.as_ref().unwrap()), expected);
    for network in ["unet", "vae", "text_encoder"] {
        let count = planned.plan.keys().filter(|n| n.starts_with(&format!("{network}."))).count();
        let motion = if network == "unet" { keys("v3_sd15_mm").len() } else { 0 };
        let own = keys(&format!("sd15_{network}_diffusers"));
        assert_eq!(count, own.keys().filter(|n| !is_position_ids(n)).count() + motion, "{network}");
    }

    // Files that have bundle names already: the same names behind a prefix, the same shapes.
    for (file, prefix) in [
        ("v3_sd15_mm", "unet"),
        ("v3_sd15_sparsectrl_rgb", "control_rgb"),
        ("v3_sd15_sparsectrl_scribble", "control_scribble"),
        ("sd15_unet_diffusers", "unet"),
        ("sd15_text_encoder_diffusers", "text_encoder"),
    ] {
        for (name, shape) in keys(file).iter().filter(|(n, _)| !is_position_ids(n)) {
            assert_eq!(planned.plan[&format!("{prefix}.{name}")].tensor.shape, *shape, "{file}: {name}");
        }
    }

    // The adapter: two tensors for each weight that it changes, which keeps its plain variant.
    let adapted: Vec<_> = planned.plan.iter().filter(|(name, _)| name.starts_with("adapter.")).collect();
    assert_eq!(2 * adapted.len(), keys("v3_sd15_adapter").len());
    for (name, weight) in adapted {
        let plain = &planned.plan[&name.replacen("adapter.", "unet.", 1)];
        assert_eq!((plain.additions.len(), weight.additions.len()), (0, 1), "{name}");
        assert_eq!(plain.tensor.shape, weight.tensor.shape, "{name}");
    }
    let total = planned.plan.len();
    let controls = keys("v3_sd15_sparsectrl_rgb").len() + keys("v3_sd15_sparsectrl_scribble").len();
    assert_eq!(total, 686 + 248 + 196 + 520 + 128 + controls);
}

#[test]
fn a_base_of_either_layout_gives_the_same_weights() {
    let folder = tempfile::tempdir().unwrap();
    let options = ImportOptions { dreambooth: None, ..published(&folder) };
    let diffusers = plan(&options).unwrap();
    let file = write(folder.path().join("v1-5-pruned-emaonly.safetensors"), &keys("dreambooth_ldm"));
    let ldm = plan(&ImportOptions { base: file.clone(), ..options.clone() }).unwrap();
    let shapes = |planned: &Planned| -> Vec<_> {
        planned.plan.iter().map(|(name, weight)| (name.clone(), weight.tensor.shape.clone())).collect()
    };
    assert_eq!(shapes(&diffusers), shapes(&ldm));

    // Each block of the LDM file went to the block of the same role: a converter's well-known pairs.
    let source = |name: &str| ldm.plan[name].tensor.source.as_str();
    for (bundle, file) in [
        ("unet.time_embedding.linear_2.bias", "model.diffusion_model.time_embed.2.bias"),
        (
            "unet.down_blocks.1.resnets.0.conv_shortcut.weight",
            "model.diffusion_model.input_blocks.4.0.skip_connection.weight",
        ),
        ("unet.down_blocks.2.downsamplers.0.conv.weight", "model.diffusion_model.input_blocks.9.0.op.weight"),
        (
            "unet.down_blocks.3.resnets.1.time_emb_proj.bias",
            "model.diffusion_model.input_blocks.11.0.emb_layers.1.bias",
        ),
        ("unet.mid_block.resnets.1.norm2.weight", "model.diffusion_model.middle_block.2.out_layers.0.weight"),
        ("unet.up_blocks.0.upsamplers.0.conv.weight", "model.diffusion_model.output_blocks.2.1.conv.weight"),
        ("unet.up_blocks.1.upsamplers.0.conv.bias", "model.diffusion_model.output_blocks.5.2.conv.bias"),
        (
            "unet.up_blocks.3.attentions.2.transformer_blocks.0.ff.net.0.proj.weight",
            "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.ff.net.0.proj.weight",
        ),
        ("unet.conv_norm_out.weight", "model.diffusion_model.out.0.weight"),
        ("vae.decoder.up_blocks.0.resnets.2.conv1.weight", "first_stage_model.decoder.up.3.block.2.conv1.weight"),
        ("vae.decoder.up_blocks.2.upsamplers.0.conv.bias", "first_stage_model.decoder.up.1.upsample.conv.bias"),
        ("vae.encoder.mid_block.attentions.0.to_out.0.weight", "first_stage_model.encoder.mid.attn_1.proj_out.weight"),
    ] {
        assert_eq!(source(bundle), file, "{bundle}");
    }
    assert_eq!(ldm.plan["vae.encoder.mid_block.attentions.0.to_q.weight"].tensor.shape, [512, 512]);
    assert_eq!(ldm.plan["unet.mid_block.attentions.0.proj_in.weight"].tensor.shape, [1280, 1280, 1, 1]);
}

#[test]
fn shapes_tell_the_architecture_of_stable_diffusion() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = plan(&published(&folder)).unwrap().manifest;
    let unet = &manifest.unet;
    assert_eq!((unet.in_channels, unet.out_channels, unet.layers_per_block), (4, 4, 2));
    assert_eq!(unet.block_out_channels, [320, 640, 1280, 1280]);
    assert_eq!(unet.down_attention, [true, true, true, false]);
    assert_eq!(unet.up_attention, [false, true, true, true]);
    assert_eq!(unet.attention_heads, [8; 4]);
    assert_eq!((unet.cross_attention_dim, unet.norm_num_groups), (768, 32));
    let motion = unet.motion.as_ref().unwrap();
    assert_eq!((motion.levels.as_slice(), motion.mid_block), ([true; 4].as_slice(), false));
    assert_eq!((motion.heads, motion.transformer_blocks, motion.attention_blocks, motion.max_frames), (8, 1, 2, 32));
    let vae = &manifest.vae;
    assert_eq!((vae.image_channels, vae.latent_channels, vae.layers_per_block, vae.downscale()), (3, 4, 2, 8));
    assert_eq!(vae.block_out_channels, [128, 256, 512, 512]);
    let text = &manifest.text_encoder;
    assert_eq!((text.vocab_size, text.hidden_size, text.intermediate_size), (49408, 768, 3072));
    assert_eq!((text.layers, text.heads, text.max_positions), (12, 12, 77));
    assert_eq!(text.activation, TextActivation::QuickGelu);
    let rgb = &manifest.controls[&ControlKind::Rgb];
    assert_eq!((rgb.conditioning_channels, rgb.embedding_channels.as_slice()), (4, [].as_slice()));
    assert_eq!(rgb.unet.motion.as_ref().unwrap().attention_blocks, 1);
    let scribble = &manifest.controls[&ControlKind::Scribble];
    assert_eq!(
        (scribble.conditioning_channels, scribble.embedding_channels.as_slice()),
        (3, [16, 32, 96, 256].as_slice())
    );
}

/// The one line that refuses `options`.
fn refusal(options: &ImportOptions) -> String {
    let error = plan(options).err().expect("this must be refused");
    assert!(error.is_input(), "{error}");
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}

#[test]
fn missing_unexpected_and_misshapen_tensors_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let options = published(&folder);
    let with = |change: &dyn Fn(&mut Keys)| {
        let mut tensors = keys("v3_sd15_mm");
        change(&mut tensors);
        let path = write(folder.path().join("changed.ckpt"), &tensors);
        refusal(&ImportOptions { motion_module: Some(path), ..options.clone() })
    };
    let name = "up_blocks.2.motion_modules.1.temporal_transformer.proj_out.bias";
    let text = with(&|tensors| drop(tensors.remove(name)));
    assert!(text.contains(name) && text.contains("1 of 520"), "{text}");
    let text = with(&|tensors| drop(tensors.insert("extra.weight".into(), vec![1])));
    assert!(text.contains("1 unexpected tensor: 'extra.weight'"), "{text}");
    let text = with(&|tensors| drop(tensors.insert(name.into(), vec![64])));
    assert!(text.contains(name) && text.contains("[64]") && text.contains("[640]"), "{text}");
    // Only the first few of many are named.
    let text = with(&|tensors| tensors.retain(|name, _| !name.starts_with("up_blocks.1.")));
    assert!(text.contains("of 520") && text.ends_with('…'), "{text}");
}

#[test]
fn position_tables_say_how_many_frames_there_may_be() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = published(&folder);
    let mut tensors = keys("v3_sd15_mm");
    let attentions: Vec<_> = tensors.keys().filter_map(|n| n.strip_suffix("to_q.weight").map(str::to_string)).collect();
    for attention in attentions {
        let width = tensors[&format!("{attention}to_q.weight")][0];
        tensors.insert(format!("{attention}pos_encoder.pe"), vec![1, 24, width]);
    }
    // What data-parallel training leaves in the names is no matter either.
    let tensors = tensors.into_iter().map(|(name, shape)| (format!("module.{name}"), shape)).collect();
    options.motion_module = Some(write(folder.path().join("mm24.ckpt"), &tensors));
    let planned = plan(&options).unwrap();
    assert_eq!(planned.manifest.unet.motion.unwrap().max_frames, 24);
    assert!(!planned.plan.keys().any(|name| name.contains("pos_encoder")));
}

#[test]
fn other_architectures_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let options = published(&folder);
    let refused = |tensors: &Keys| {
        refusal(&ImportOptions { base: write(folder.path().join("other.safetensors"), tensors), ..options.clone() })
    };
    let one = |name: &str, shape: &[usize]| BTreeMap::from([(name.to_string(), shape.to_vec())]);
    let xl = one("conditioner.embedders.0.transformer.text_model.final_layer_norm.weight", &[768]);
    assert!(refused(&xl).contains("Stable Diffusion XL"));
    assert!(refused(&one("cond_stage_model.model.ln_final.weight", &[1024])).contains("Stable Diffusion 2"));
    assert!(
        refused(&one("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight", &[8, 8])).contains("Diffusion 3")
    );
    assert!(refused(&one("double_blocks.0.img_attn.qkv.weight", &[8, 8])).contains("Flux"));
    assert!(refused(&one("encoder.layer.0.attention.weight", &[8, 8])).contains("no Stable Diffusion checkpoint"));

    // By widths, where names do not tell.
    let wider = |prefix: &str, from: usize, to: usize| -> BTreeMap<_, _> {
        let change = |(name, mut shape): (String, Vec<usize>)| {
            if name.contains(prefix) {
                shape.iter_mut().filter(|d| **d == from).for_each(|d| *d = to);
            }
            (name, shape)
        };
        keys("dreambooth_ldm").into_iter().map(change).collect()
    };
    assert!(refused(&wider("attn2.to_", 768, 2048)).contains("Stable Diffusion XL"));
    assert!(refused(&wider("attn2.to_", 768, 1024)).contains("Stable Diffusion 2"));
    assert!(refused(&wider("cond_stage_model", 768, 1024)).contains("Stable Diffusion 2"));
    assert!(refused(&wider("diffusion_model.input_blocks.0.0", 4, 9)).contains("inpainting"));

    // A SparseCtrl of the other kind, a motion module as SparseCtrl, a UNet as motion module.
    let swapped = ImportOptions { sparsectrl_rgb: options.sparsectrl_scribble.clone(), ..options.clone() };
    assert!(refusal(&swapped).contains("no rgb SparseCtrl"));
    let motion = ImportOptions { sparsectrl_rgb: options.motion_module.clone(), ..options.clone() };
    assert!(refusal(&motion).contains("no SparseCtrl"));
    let unet = folder.path().join("base/unet/diffusion_pytorch_model.safetensors");
    assert!(refusal(&ImportOptions { motion_module: Some(unet), ..options.clone() }).contains("no motion module"));
}
