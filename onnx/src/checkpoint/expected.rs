//! Every tensor that a network of a given architecture has, with its shape: what a checkpoint is compared with.

use std::collections::BTreeMap;
use std::path::Path;

use super::names::Named;
use crate::model::config::{ControlConfig, MotionConfig, TextConfig, UnetConfig, VaeConfig};
use crate::{Error, Result};

/// How many names an error lists.
const LISTED: usize = 4;

/// Names and shapes.
pub type Shapes = BTreeMap<String, Vec<usize>>;

/// Compares the tensors of a checkpoint with those that its network has.
///
/// # Errors
/// When tensors are missing, are unexpected, or have a wrong shape; names the first few and says how many.
pub fn compare<'a>(
    network: &str,
    expected: &Shapes,
    found: impl IntoIterator<Item = (&'a String, &'a Named)>,
    path: &Path,
) -> Result<()> {
    let found: BTreeMap<_, _> = found.into_iter().collect();
    let missing: Vec<&str> = expected.keys().filter(|name| !found.contains_key(name)).map(String::as_str).collect();
    if !missing.is_empty() {
        return Err(Error::input(format!(
            "the {network} is incomplete: {} of {} tensors missing: {}",
            missing.len(),
            expected.len(),
            listed(&missing)
        ))
        .with_path(path));
    }
    let unexpected: Vec<&str> =
        found.iter().filter(|(name, _)| !expected.contains_key(**name)).map(|(_, t)| t.source.as_str()).collect();
    none_unexpected(&unexpected, path)?;
    for (name, tensor) in found {
        let wanted = &expected[name];
        if tensor.shape != *wanted {
            return Err(Error::input(format!(
                "tensor '{}' has shape {:?}, this {network} needs {wanted:?}",
                tensor.source, tensor.shape
            ))
            .with_path(path));
        }
    }
    Ok(())
}

/// Refuses tensors that belong to nothing.
///
/// # Errors
/// When there are any.
pub fn none_unexpected(names: &[&str], path: &Path) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let tensors = if names.len() == 1 { "1 unexpected tensor" } else { &format!("{} unexpected tensors", names.len()) };
    Err(Error::input(format!("{tensors}: {}", listed(names))).with_path(path))
}

/// The first few names.
pub fn listed(names: &[&str]) -> String {
    let shown = names.iter().take(LISTED).map(|n| format!("'{n}'")).collect::<Vec<_>>().join(", ");
    if names.len() > LISTED { format!("{shown}, …") } else { shown }
}

/// The UNet without its motion modules (`unet.…`).
pub fn unet(config: &UnetConfig) -> Shapes {
    let mut list = List::new("unet");
    let channels = &config.block_out_channels;
    let (first, last) = (channels[0], channels[channels.len() - 1]);
    list.unet_encoder(config);
    let levels = channels.len();
    for (block, &attention) in config.up_attention.iter().enumerate() {
        let out = channels[levels - 1 - block];
        let previous = if block == 0 { last } else { channels[levels - block] };
        let skip = channels[(levels - 1 - block).saturating_sub(1)];
        for layer in 0..=config.layers_per_block {
            let input = if layer == 0 { previous } else { out };
            let joined = if layer == config.layers_per_block { skip } else { out };
            list.resnet(&format!("up_blocks.{block}.resnets.{layer}"), input + joined, out, Some(4 * first));
            if attention {
                list.transformer(&format!("up_blocks.{block}.attentions.{layer}"), out, config.cross_attention_dim);
            }
        }
        if block + 1 < levels {
            list.convolution(&format!("up_blocks.{block}.upsamplers.0.conv"), out, out, 3);
        }
    }
    list.norm("conv_norm_out", first);
    list.convolution("conv_out", first, config.out_channels, 3);
    list.shapes
}

/// The motion modules of a UNet (`unet.….motion_modules.…`); none when it has no motion.
pub fn motion(config: &UnetConfig) -> Shapes {
    let mut list = List::new("unet");
    let Some(motion) = &config.motion else { return list.shapes };
    list.motion_encoder(config, motion);
    let levels = config.block_out_channels.len();
    for block in 0..levels {
        let level = levels - 1 - block;
        if motion.levels[level] {
            for layer in 0..=config.layers_per_block {
                let name = format!("up_blocks.{block}.motion_modules.{layer}");
                list.motion_module(&name, config.block_out_channels[level], motion);
            }
        }
    }
    list.shapes
}

/// A SparseCtrl encoder behind the prefix `network`.
pub fn control(network: &str, config: &ControlConfig) -> Shapes {
    let mut list = List::new(network);
    let unet = &config.unet;
    let channels = &unet.block_out_channels;
    list.unet_encoder(unet);
    if let Some(motion) = &unet.motion {
        list.motion_encoder(unet, motion);
    }
    // One more channel than the condition has: the mask.
    let input = config.conditioning_channels + 1;
    let stack = &config.embedding_channels;
    match (stack.first(), stack.last()) {
        (Some(&first), Some(&last)) => {
            list.convolution("controlnet_cond_embedding.conv_in", input, first, 3);
            for (i, pair) in stack.windows(2).enumerate() {
                list.convolution(&format!("controlnet_cond_embedding.blocks.{}", 2 * i), pair[0], pair[0], 3);
                list.convolution(&format!("controlnet_cond_embedding.blocks.{}", 2 * i + 1), pair[0], pair[1], 3);
            }
            list.convolution("controlnet_cond_embedding.conv_out", last, channels[0], 3);
        }
        _ => list.convolution("controlnet_cond_embedding", input, channels[0], 3),
    }
    let mut outputs = vec![channels[0]];
    for (level, &width) in channels.iter().enumerate() {
        let downsampler = usize::from(level + 1 < channels.len());
        outputs.extend(std::iter::repeat_n(width, unet.layers_per_block + downsampler));
    }
    for (i, width) in outputs.into_iter().enumerate() {
        list.convolution(&format!("controlnet_down_blocks.{i}"), width, width, 1);
    }
    let last = channels[channels.len() - 1];
    list.convolution("controlnet_mid_block", last, last, 1);
    list.shapes
}

/// The autoencoder (`vae.…`).
pub fn vae(config: &VaeConfig) -> Shapes {
    let mut list = List::new("vae");
    let (channels, latent) = (&config.block_out_channels, config.latent_channels);
    let (first, last) = (channels[0], channels[channels.len() - 1]);
    let levels = channels.len();

    list.convolution("encoder.conv_in", config.image_channels, first, 3);
    for level in 0..levels {
        let block = format!("encoder.down_blocks.{level}");
        let (previous, out) = (channels[level.saturating_sub(1)], channels[level]);
        for layer in 0..config.layers_per_block {
            list.resnet(&format!("{block}.resnets.{layer}"), if layer == 0 { previous } else { out }, out, None);
        }
        if level + 1 < levels {
            list.convolution(&format!("{block}.downsamplers.0.conv"), out, out, 3);
        }
    }
    list.vae_middle("encoder.mid_block", last);
    list.norm("encoder.conv_norm_out", last);
    list.convolution("encoder.conv_out", last, 2 * latent, 3);
    list.convolution("quant_conv", 2 * latent, 2 * latent, 1);

    list.convolution("post_quant_conv", latent, latent, 1);
    list.convolution("decoder.conv_in", latent, last, 3);
    list.vae_middle("decoder.mid_block", last);
    for block in 0..levels {
        let out = channels[levels - 1 - block];
        let previous = if block == 0 { last } else { channels[levels - block] };
        let name = format!("decoder.up_blocks.{block}");
        for layer in 0..=config.layers_per_block {
            list.resnet(&format!("{name}.resnets.{layer}"), if layer == 0 { previous } else { out }, out, None);
        }
        if block + 1 < levels {
            list.convolution(&format!("{name}.upsamplers.0.conv"), out, out, 3);
        }
    }
    list.norm("decoder.conv_norm_out", first);
    list.convolution("decoder.conv_out", first, config.image_channels, 3);
    list.shapes
}

/// The text encoder (`text_encoder.text_model.…`).
pub fn text_encoder(config: &TextConfig) -> Shapes {
    let mut list = List::new("text_encoder.text_model");
    let (width, inner) = (config.hidden_size, config.intermediate_size);
    list.add("embeddings.token_embedding.weight", &[config.vocab_size, width]);
    list.add("embeddings.position_embedding.weight", &[config.max_positions, width]);
    for layer in 0..config.layers {
        let name = format!("encoder.layers.{layer}");
        for part in ["q_proj", "k_proj", "v_proj", "out_proj"] {
            list.linear(&format!("{name}.self_attn.{part}"), width, width);
        }
        list.norm(&format!("{name}.layer_norm1"), width);
        list.norm(&format!("{name}.layer_norm2"), width);
        list.linear(&format!("{name}.mlp.fc1"), width, inner);
        list.linear(&format!("{name}.mlp.fc2"), inner, width);
    }
    list.norm("final_layer_norm", width);
    list.shapes
}

struct List {
    prefix: String,
    shapes: Shapes,
}

impl List {
    fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into(), shapes: Shapes::new() }
    }

    fn add(&mut self, name: &str, shape: &[usize]) {
        self.shapes.insert(format!("{}.{name}", self.prefix), shape.to_vec());
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.add(&format!("{name}.weight"), &[width]);
        self.add(&format!("{name}.bias"), &[width]);
    }

    fn linear(&mut self, name: &str, input: usize, output: usize) {
        self.add(&format!("{name}.weight"), &[output, input]);
        self.add(&format!("{name}.bias"), &[output]);
    }

    fn convolution(&mut self, name: &str, input: usize, output: usize, kernel: usize) {
        self.add(&format!("{name}.weight"), &[output, input, kernel, kernel]);
        self.add(&format!("{name}.bias"), &[output]);
    }

    /// A residual block; with the width of the time embedding in a UNet.
    fn resnet(&mut self, name: &str, input: usize, output: usize, time: Option<usize>) {
        self.norm(&format!("{name}.norm1"), input);
        self.convolution(&format!("{name}.conv1"), input, output, 3);
        if let Some(time) = time {
            self.linear(&format!("{name}.time_emb_proj"), time, output);
        }
        self.norm(&format!("{name}.norm2"), output);
        self.convolution(&format!("{name}.conv2"), output, output, 3);
        if input != output {
            self.convolution(&format!("{name}.conv_shortcut"), input, output, 1);
        }
    }

    fn attention(&mut self, name: &str, width: usize, context: usize) {
        self.add(&format!("{name}.to_q.weight"), &[width, width]);
        self.add(&format!("{name}.to_k.weight"), &[width, context]);
        self.add(&format!("{name}.to_v.weight"), &[width, context]);
        self.linear(&format!("{name}.to_out.0"), width, width);
    }

    /// A feed-forward layer with GEGLU.
    fn feed_forward(&mut self, name: &str, width: usize) {
        self.linear(&format!("{name}.net.0.proj"), width, 8 * width);
        self.linear(&format!("{name}.net.2"), 4 * width, width);
    }

    fn transformer(&mut self, name: &str, width: usize, context: usize) {
        self.norm(&format!("{name}.norm"), width);
        self.convolution(&format!("{name}.proj_in"), width, width, 1);
        let block = format!("{name}.transformer_blocks.0");
        for norm in ["norm1", "norm2", "norm3"] {
            self.norm(&format!("{block}.{norm}"), width);
        }
        self.attention(&format!("{block}.attn1"), width, width);
        self.attention(&format!("{block}.attn2"), width, context);
        self.feed_forward(&format!("{block}.ff"), width);
        self.convolution(&format!("{name}.proj_out"), width, width, 1);
    }

    /// What UNet and SparseCtrl have in common: everything down to the middle block.
    fn unet_encoder(&mut self, config: &UnetConfig) {
        let channels = &config.block_out_channels;
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        self.convolution("conv_in", config.in_channels, first, 3);
        self.linear("time_embedding.linear_1", first, 4 * first);
        self.linear("time_embedding.linear_2", 4 * first, 4 * first);
        for (level, &attention) in config.down_attention.iter().enumerate() {
            let block = format!("down_blocks.{level}");
            let (previous, out) = (channels[level.saturating_sub(1)], channels[level]);
            for layer in 0..config.layers_per_block {
                let input = if layer == 0 { previous } else { out };
                self.resnet(&format!("{block}.resnets.{layer}"), input, out, Some(4 * first));
                if attention {
                    self.transformer(&format!("{block}.attentions.{layer}"), out, config.cross_attention_dim);
                }
            }
            if level + 1 < channels.len() {
                self.convolution(&format!("{block}.downsamplers.0.conv"), out, out, 3);
            }
        }
        self.resnet("mid_block.resnets.0", last, last, Some(4 * first));
        self.transformer("mid_block.attentions.0", last, config.cross_attention_dim);
        self.resnet("mid_block.resnets.1", last, last, Some(4 * first));
    }

    fn motion_encoder(&mut self, config: &UnetConfig, motion: &MotionConfig) {
        let channels = &config.block_out_channels;
        for (level, &width) in channels.iter().enumerate() {
            if motion.levels[level] {
                for layer in 0..config.layers_per_block {
                    self.motion_module(&format!("down_blocks.{level}.motion_modules.{layer}"), width, motion);
                }
            }
        }
        if motion.mid_block {
            self.motion_module("mid_block.motion_modules.0", channels[channels.len() - 1], motion);
        }
    }

    fn motion_module(&mut self, name: &str, width: usize, motion: &MotionConfig) {
        let name = format!("{name}.temporal_transformer");
        self.norm(&format!("{name}.norm"), width);
        self.linear(&format!("{name}.proj_in"), width, width);
        for block in 0..motion.transformer_blocks {
            let block = format!("{name}.transformer_blocks.{block}");
            for attention in 0..motion.attention_blocks {
                self.attention(&format!("{block}.attention_blocks.{attention}"), width, width);
                self.norm(&format!("{block}.norms.{attention}"), width);
            }
            self.feed_forward(&format!("{block}.ff"), width);
            self.norm(&format!("{block}.ff_norm"), width);
        }
        self.linear(&format!("{name}.proj_out"), width, width);
    }

    fn vae_middle(&mut self, name: &str, width: usize) {
        self.resnet(&format!("{name}.resnets.0"), width, width, None);
        let attention = format!("{name}.attentions.0");
        self.norm(&format!("{attention}.group_norm"), width);
        for part in ["to_q", "to_k", "to_v", "to_out.0"] {
            self.linear(&format!("{attention}.{part}"), width, width);
        }
        self.resnet(&format!("{name}.resnets.1"), width, width, None);
    }
}
