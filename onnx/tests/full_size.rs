//! The graphs of full-size Stable Diffusion 1.5 with AnimateDiff v3 and SparseCtrl: no node's output is larger than a
//! GPU has room for. The names and shapes of the published checkpoints are all that is needed for that.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use motionclone_onnx::graph::{Element, Forward, Graph, Layout, cuda, fold, memory, portable, write};
use motionclone_onnx::model::config::{ControlConfig, ControlKind, MotionConfig, UnetConfig, VaeConfig};
use motionclone_onnx::model::sparsectrl;
use motionclone_onnx::model::unet3d::{self, UnetShape};
use motionclone_onnx::model::vae::{self, VaeShape};
use motionclone_onnx::weights::WeightIndex;
use serde_json::{Map, Value, json};

/// The largest output of a node, in bytes.
const LARGEST: usize = 600 << 20;

/// A weight file of the published names and shapes whose numbers are a hole in the file system.
fn weights(folder: &Path) -> WeightIndex {
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checkpoint-keys");
    let (mut header, mut end) = (Map::new(), 0usize);
    for (file, prefix) in [
        ("sd15_unet_diffusers", "unet."),
        ("v3_sd15_mm", "unet."),
        ("sd15_vae_diffusers", "vae."),
        ("v3_sd15_sparsectrl_rgb", "control_rgb."),
        ("v3_sd15_sparsectrl_scribble", "control_scribble."),
    ] {
        let text = std::fs::read_to_string(keys.join(format!("{file}.json"))).unwrap();
        let shapes: BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
        for (name, shape) in shapes {
            let Ok(shape) = serde_json::from_value::<Vec<usize>>(shape) else { continue };
            let name = name.trim_start_matches("module.").trim_start_matches("controlnet.");
            let name = name.replace("mid_block.attentions.0.query.", "mid_block.attentions.0.to_q.");
            let name = name.replace("mid_block.attentions.0.key.", "mid_block.attentions.0.to_k.");
            let name = name.replace("mid_block.attentions.0.value.", "mid_block.attentions.0.to_v.");
            let name = name.replace("mid_block.attentions.0.proj_attn.", "mid_block.attentions.0.to_out.0.");
            let start = end;
            end += 2 * shape.iter().product::<usize>();
            let entry = json!({ "dtype": "F16", "shape": shape, "data_offsets": [start, end] });
            header.insert(format!("{prefix}{name}"), entry);
        }
    }
    let path = folder.join("weights.safetensors");
    let header = serde_json::to_vec(&header).unwrap();
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&header).unwrap();
    file.set_len((8 + header.len() + end) as u64).unwrap();
    WeightIndex::open(&path).unwrap()
}

fn unet(attention_blocks: usize) -> UnetConfig {
    UnetConfig {
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
            attention_blocks,
            max_frames: 32,
        }),
    }
}

fn shape(control: Option<ControlKind>) -> UnetShape {
    UnetShape {
        batch: 1,
        frames: 16,
        height: 64,
        width: 64,
        tokens: 77,
        control,
        precision: Element::Float16,
        layout: Layout::ChannelsFirst,
    }
}

/// Lowers and writes a graph; the sizes of its nodes' outputs that are over the limit.
fn too_large(graph: &Graph) -> Vec<String> {
    let graph = portable::lower(graph).unwrap();
    assert!(
        write::to_onnx(&graph, "weights.safetensors", write::Shapes::Open).unwrap().len() < 64 << 20,
        "constants belong into files"
    );
    let mut large = Vec::new();
    for node in graph.live_nodes() {
        for output in &node.outputs {
            let info = graph.info(*output);
            let bytes = info.elements() * info.element.size();
            if bytes > LARGEST {
                large.push(format!("{} {} {:?}: {} MiB", node.scope, info.name, info.shape, bytes >> 20));
            }
        }
    }
    large
}

#[test]
fn no_output_of_a_node_is_too_large() {
    let folder = tempfile::tempdir().unwrap();
    let weights = weights(folder.path());
    let blocks = ["up_blocks.1".to_string()];
    let mut graphs = vec![
        unet3d::guided(&weights, &unet(2), &shape(None), &blocks, Forward::Kept).unwrap(),
        unet3d::guided(&weights, &unet(2), &shape(Some(ControlKind::Rgb)), &blocks, Forward::Kept).unwrap(),
        unet3d::denoiser(&weights, &unet(2), &shape(None)).unwrap(),
        unet3d::extractor(&weights, &unet(2), &shape(None), &blocks).unwrap(),
    ];
    for (kind, conditioning_channels, embedding_channels) in
        [(ControlKind::Rgb, 4, vec![]), (ControlKind::Scribble, 3, vec![16, 32, 96, 256])]
    {
        let config = ControlConfig { unet: unet(1), conditioning_channels, embedding_channels };
        graphs.push(sparsectrl::control(&weights, &config, kind, &shape(Some(kind))).unwrap());
    }
    let config = VaeConfig {
        image_channels: 3,
        latent_channels: 4,
        block_out_channels: vec![128, 256, 512, 512],
        layers_per_block: 2,
        norm_num_groups: 32,
        scaling_factor: 0.18215,
    };
    let size = VaeShape { height: 64, width: 64, precision: Element::Float16, layout: Layout::ChannelsFirst };
    graphs.push(vae::encoder(&weights, &config, &size).unwrap());
    graphs.push(vae::decoder(&weights, &config, &size).unwrap());
    for graph in graphs {
        let large = too_large(&graph);
        assert!(large.is_empty(), "{}:\n{}", graph.name, large.join("\n"));
    }
}

#[test]
fn sizes_that_are_no_multiple_of_eight_latents_meet_their_skip_connections() {
    let folder = tempfile::tempdir().unwrap();
    let weights = weights(folder.path());
    for (height, width) in [(12, 20), (9, 7), (1, 1), (5, 64)] {
        let shape = UnetShape { height, width, frames: 3, ..shape(None) };
        for block in ["up_blocks.1", "up_blocks.3", "down_blocks.2"] {
            let graph = unet3d::guided(&weights, &unet(2), &shape, &[block.to_string()], Forward::Recomputed).unwrap();
            let gradient = graph.outputs().iter().find(|(name, _)| name == "gradient").unwrap().1;
            assert_eq!(graph.shape(gradient), [1, 4, 3, height, width], "{block}");
        }
    }
}

/// What a guided step and a plain one take in half precision on a GPU: the goal for both is 10 GB, of which the GPU's
/// own libraries take about one.
#[test]
fn both_steps_fit_the_memory_of_common_gpus() {
    let folder = tempfile::tempdir().unwrap();
    let weights = weights(folder.path());
    let blocks = ["up_blocks.1".to_string()];
    let shape = UnetShape { layout: Layout::ChannelsLast, ..shape(None) };
    let mut shared = Vec::new();
    let mut predict = |graph: Graph| {
        let (graph, tensors) = fold::weights(&cuda::lower(&graph, cuda::Fused::ALL).unwrap()).unwrap();
        let mut memory = memory::predict(&graph);
        let mut numbers = BTreeMap::new();
        for tensor in tensors.into_iter().filter(|tensor| tensor.shareable) {
            // In another shape they are the same numbers.
            let again = numbers.insert(tensor.numbers.clone(), tensor.length());
            memory.weights -= again.unwrap_or(0);
        }
        shared.push(numbers);
        println!(
            "{}: weights {} MiB, activations {} MiB at {}",
            graph.name,
            memory.weights >> 20,
            memory.activations >> 20,
            memory.node
        );
        memory
    };
    let mut guided = |values| predict(unet3d::guided(&weights, &unet(2), &shape, &blocks, values).unwrap());
    let kept = guided(Forward::Kept);
    let recomputed = guided(Forward::Recomputed);
    let plain = predict(unet3d::denoiser(&weights, &unet(2), &shape).unwrap());
    assert!(recomputed.activations < 2500 << 20, "{:#?}", &recomputed.alive[..12]);
    assert!(kept.activations > 2 * recomputed.activations && kept.activations < 8 << 30);
    assert!(plain.activations < 700 << 20, "{:#?}", &plain.alive[..12]);
    let [_, of_guided, of_plain] = &shared[..] else { unreachable!() };
    let common: u64 = of_plain.iter().filter(|(name, _)| of_guided.contains_key(*name)).map(|(_, length)| length).sum();
    println!("{} MiB of the denoiser's weights are the guided network's, too", common >> 20);
    assert!(plain.weights - common < 40 << 20, "{common} of {}", plain.weights);
    assert!(recomputed.total() + plain.total() - common < 5_800_000_000);
    assert!(recomputed.total() < 5_000_000_000);
}

/// At the sizes that the kernels are compiled for, nothing of what they do is left to other operators.
#[test]
fn every_gradient_that_has_a_kernel_uses_it() {
    let folder = tempfile::tempdir().unwrap();
    let weights = weights(folder.path());
    let blocks = ["up_blocks.1".to_string()];
    for (frames, size) in [(16, 64), (24, 48)] {
        let shape = UnetShape { layout: Layout::ChannelsLast, frames, height: size, width: size, ..shape(None) };
        let guided = unet3d::guided(&weights, &unet(2), &shape, &blocks, Forward::Recomputed).unwrap();
        let count = |fused: cuda::Fused| {
            let lowered = cuda::lower(&guided, fused).unwrap();
            write::to_onnx(&lowered, "weights.safetensors", write::Shapes::Open).unwrap();
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            for node in lowered.live_nodes() {
                *counts.entry(node.op.name()).or_default() += 1;
            }
            counts
        };
        let (own, standard) = (count(cuda::Fused::ALL), count(cuda::Fused::ALL.without_kernels()));
        println!(
            "{} nodes, {} without kernels\n{own:?}",
            own.values().sum::<usize>(),
            standard.values().sum::<usize>()
        );
        // Written out, each gradient of a layer norm takes its statistics so.
        assert_eq!(own["FusedLayerNormGradient"], standard["LayerNormStatistics"]);
        for gone in ["LayerNormStatistics", "Erf", "Sigmoid"] {
            assert_eq!(own.get(gone), None, "{gone}");
        }
        assert_eq!(own["GroupNormSums"], own["FusedGroupNormGradient"]);
        // Maps of the guided modules, and heads of 160, which flash attention has the forward pass of alone.
        assert!(own["Softmax"] < standard["Softmax"]);
    }
}
