//! Single-file checkpoints with the names of the latent-diffusion code base (LDM), in which UNet blocks are numbered
//! through (`input_blocks.4.1`) and VAE levels of the decoder count from the image.

use std::rc::Rc;

use super::names::{Named, Tensors, insert, is_other_half_of_clip, of_network, strip, vae_attention, wanted};
use super::reader::TensorSet;
use crate::{Error, Result};

const AVERAGES: &str = "model_ema.diffusion_model";
const UNET: &str = "model.diffusion_model.";
const VAE: &str = "first_stage_model.";
const TEXT: &str = "cond_stage_model.transformer.";

/// Reads the UNet, VAE and text encoder, as far as the file has them, under bundle names.
///
/// # Errors
/// When the file is of another architecture, or holds tensors that belong to none of the three.
pub fn tensors(set: &Rc<TensorSet>) -> Result<Tensors> {
    if let Some(what) = other_architecture(set) {
        return Err(Error::input(format!(
            "this is a checkpoint of {what}; only Stable Diffusion 1.x models work here"
        ))
        .with_path(set.path()));
    }
    if let Some(network) = alone(set) {
        return of_network(set, network);
    }
    let layers = unet_layers(set);
    // A VAE in a file of its own has its names without a prefix.
    let vae_prefix = if has(set, "decoder.up.0.block.") { "" } else { VAE };
    let levels = vae_levels(set, vae_prefix);
    let mut tensors = Tensors::new();
    let mut unexpected = Vec::new();
    if averages_only(set) {
        for (source, name) in set.names().filter_map(|name| Some((name, strip(name).strip_prefix(AVERAGES)?))) {
            let Some(tensor) = set.get(source) else { continue };
            match unet(&dotted(name), layers) {
                Some(name) => insert(&mut tensors, format!("unet.{name}"), Named::new(set, source, tensor))?,
                None => unexpected.push(source),
            }
        }
    }
    for (name, source, tensor) in wanted(set) {
        let mut named = Named::new(set, source, tensor);
        let target = if let Some(name) = name.strip_prefix(UNET) {
            unet(name, layers).map(|n| format!("unet.{n}"))
        } else if let Some(name) = name.strip_prefix(vae_prefix) {
            vae(name, levels).map(|n| format!("vae.{}", vae_attention(&n, &mut named)))
        } else if let Some(name) = name.strip_prefix(TEXT) {
            if is_other_half_of_clip(name) {
                continue;
            }
            // Early versions of the text encoder's library left the first part out.
            let middle = if name.starts_with("text_model.") { "" } else { "text_model." };
            Some(format!("text_encoder.{middle}{name}"))
        } else {
            None
        };
        match target {
            Some(target) => insert(&mut tensors, target, named)?,
            None => unexpected.push(source),
        }
    }
    if tensors.is_empty() {
        return Err(Error::input(format!(
            "this is no Stable Diffusion checkpoint but {}: none of its {} tensors belongs to a UNet, VAE or text encoder \
             (the first is '{}')",
            guess(set),
            unexpected.len(),
            unexpected.first().copied().unwrap_or_default()
        ))
        .with_path(set.path()));
    }
    super::expected::none_unexpected(&unexpected, set.path())?;
    Ok(tensors)
}

/// Whether a file has its UNet as moving averages alone.
pub fn averages_only(set: &TensorSet) -> bool {
    has(set, AVERAGES) && !has(set, UNET)
}

fn has(set: &TensorSet, prefix: &str) -> bool {
    set.names().any(|name| strip(name).starts_with(prefix))
}

/// The network that a file holds alone, with diffusers' names.
fn alone(set: &TensorSet) -> Option<&'static str> {
    const MARKS: [(&str, &str); 3] = [
        ("decoder.up_blocks.0.resnets.", "vae"),
        ("up_blocks.0.resnets.", "unet"),
        ("text_model.encoder.layers.", "text_encoder"),
    ];
    MARKS.iter().find(|(mark, _)| has(set, mark)).map(|(_, network)| *network)
}

/// A guess at what a file is that is no model of images.
fn guess(set: &TensorSet) -> &'static str {
    const KINDS: [(&str, &str); 10] = [
        (".motion_modules.", "a motion module, which is given with --motion-module"),
        ("lora_", "a LoRA, which is given with --lora"),
        (".lora", "a LoRA, which is given with --lora"),
        (".hada_", "a LoHa, which is given with --lora"),
        (".lokr_", "a LoKr, which is given with --lora"),
        ("controlnet_cond_embedding.", "a SparseCtrl or ControlNet"),
        ("control_model.", "a ControlNet, which is not supported"),
        ("emb_params", "a textual inversion, which is not supported"),
        ("string_to_param", "a textual inversion, which is not supported"),
        ("ip_adapter.", "an IP-Adapter, which is not supported"),
    ];
    let found = KINDS.iter().find(|(mark, _)| set.names().any(|name| name.contains(mark)));
    found.map_or("something unknown", |(_, kind)| kind)
}

/// The name of a moving average, which lost its dots: `input_blocks10in_layers0weight` is `input_blocks.1.0.in_layers.0.weight`.
fn dotted(name: &str) -> String {
    // The longer of two that begin alike first.
    const WORDS: [&str; 27] = [
        "input_blocks",
        "output_blocks",
        "middle_block",
        "time_embed",
        "in_layers",
        "emb_layers",
        "out_layers",
        "skip_connection",
        "transformer_blocks",
        "proj_in",
        "proj_out",
        "proj",
        "attn1",
        "attn2",
        "to_out",
        "to_q",
        "to_k",
        "to_v",
        "norm1",
        "norm2",
        "norm3",
        "norm",
        "net",
        "ff",
        "conv",
        "out",
        "op",
    ];
    let mut parts: Vec<&str> = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let word = WORDS.iter().find(|word| rest.starts_with(**word)).map(|word| word.len());
        // The number of a block and that of its part, which has one digit, are one run.
        let numbered = digits > 1 && parts.last().is_some_and(|last| last.ends_with("put_blocks"));
        let length = if numbered { digits - 1 } else { digits.max(word.unwrap_or(0)) };
        let (part, after) = rest.split_at(if length == 0 { rest.len() } else { length });
        parts.push(part);
        rest = after;
    }
    parts.join(".")
}

/// What a checkpoint is, when its names show that it is of another architecture.
pub fn other_architecture(set: &TensorSet) -> Option<&'static str> {
    const MARKS: [(&str, &str); 9] = [
        ("conditioner.embedders.", "Stable Diffusion XL"),
        ("add_embedding.", "Stable Diffusion XL"),
        ("model.diffusion_model.label_emb.", "Stable Diffusion XL"),
        ("cond_stage_model.model.", "Stable Diffusion 2 (its text encoder is OpenCLIP)"),
        ("model.diffusion_model.joint_blocks.", "Stable Diffusion 3"),
        ("joint_blocks.", "Stable Diffusion 3"),
        ("model.diffusion_model.double_blocks.", "Flux"),
        ("double_blocks.", "Flux"),
        ("single_transformer_blocks.", "Flux"),
    ];
    set.names().find_map(|name| {
        let name = strip(name);
        MARKS.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, what)| *what)
    })
}

/// Residual blocks a level: a level ends with a downsampler, and block 0 is the first convolution.
fn unet_layers(set: &TensorSet) -> usize {
    let averages = set.names().filter_map(|name| {
        let name = dotted(strip(name).strip_prefix(AVERAGES)?);
        name.strip_prefix("input_blocks.")?.strip_suffix(".0.op.weight")?.parse().ok()
    });
    numbers(set, &format!("{UNET}input_blocks."), ".0.op.")
        .chain(averages)
        .min()
        .map_or(2, |first| first.saturating_sub(1).max(1))
}

fn vae_levels(set: &TensorSet, prefix: &str) -> usize {
    numbers(set, &format!("{prefix}decoder.up."), ".block.").max().map_or(0, |last| last.saturating_add(1))
}

/// The numbers N of the names `prefix N infix…`.
fn numbers<'a>(set: &'a TensorSet, prefix: &'a str, infix: &'a str) -> impl Iterator<Item = usize> + 'a {
    set.names().filter_map(move |name| {
        let (number, rest) = strip(name).strip_prefix(prefix)?.split_once('.')?;
        if rest.starts_with(&infix[1..]) { number.parse().ok() } else { None }
    })
}

/// The name of a UNet's weight from LDM's.
pub fn unet(name: &str, layers: usize) -> Option<String> {
    let parts: Vec<&str> = name.splitn(4, '.').collect();
    match parts[..] {
        ["time_embed", "0", end] => Some(format!("time_embedding.linear_1.{end}")),
        ["time_embed", "2", end] => Some(format!("time_embedding.linear_2.{end}")),
        ["out", "0", end] => Some(format!("conv_norm_out.{end}")),
        ["out", "2", end] => Some(format!("conv_out.{end}")),
        ["input_blocks", "0", "0", end] => Some(format!("conv_in.{end}")),
        ["input_blocks", block, part, rest] => {
            let index = block.parse::<usize>().ok()?.checked_sub(1)?;
            let (level, layer) = (index / (layers + 1), index % (layers + 1));
            match (part, rest.strip_prefix("op.")) {
                ("0", Some(end)) if layer == layers => Some(format!("down_blocks.{level}.downsamplers.0.conv.{end}")),
                ("0", None) if layer < layers => Some(format!("down_blocks.{level}.resnets.{layer}.{}", resnet(rest)?)),
                ("1", None) if layer < layers => Some(format!("down_blocks.{level}.attentions.{layer}.{rest}")),
                _ => None,
            }
        }
        ["middle_block", "1", _, _] => {
            Some(format!("mid_block.attentions.0.{}", name.strip_prefix("middle_block.1.")?))
        }
        ["middle_block", part @ ("0" | "2"), _, _] => {
            let rest = name.strip_prefix("middle_block.")?.get(2..)?;
            Some(format!("mid_block.resnets.{}.{}", if part == "0" { 0 } else { 1 }, resnet(rest)?))
        }
        ["output_blocks", block, part, rest] => {
            let index = block.parse::<usize>().ok()?;
            let (level, layer) = (index / (layers + 1), index % (layers + 1));
            match (part, rest.strip_prefix("conv.")) {
                ("1" | "2", Some(end)) if layer == layers => Some(format!("up_blocks.{level}.upsamplers.0.conv.{end}")),
                ("0", None) => Some(format!("up_blocks.{level}.resnets.{layer}.{}", resnet(rest)?)),
                ("1", None) => Some(format!("up_blocks.{level}.attentions.{layer}.{rest}")),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The parts of a UNet's residual block.
fn resnet(name: &str) -> Option<String> {
    const PARTS: [(&str, &str); 6] = [
        ("in_layers.0.", "norm1."),
        ("in_layers.2.", "conv1."),
        ("emb_layers.1.", "time_emb_proj."),
        ("out_layers.0.", "norm2."),
        ("out_layers.3.", "conv2."),
        ("skip_connection.", "conv_shortcut."),
    ];
    PARTS.iter().find_map(|(from, to)| Some(format!("{to}{}", name.strip_prefix(from)?)))
}

fn vae(name: &str, levels: usize) -> Option<String> {
    if name.starts_with("quant_conv.") || name.starts_with("post_quant_conv.") {
        return Some(name.to_string());
    }
    let (half, rest) = name.split_once('.').filter(|(half, _)| ["encoder", "decoder"].contains(half))?;
    let renamed = if let Some(end) = rest.strip_prefix("norm_out.") {
        format!("conv_norm_out.{end}")
    } else if rest.starts_with("conv_in.") || rest.starts_with("conv_out.") {
        rest.to_string()
    } else if let Some(end) = rest.strip_prefix("mid.block_1.") {
        format!("mid_block.resnets.0.{end}")
    } else if let Some(end) = rest.strip_prefix("mid.block_2.") {
        format!("mid_block.resnets.1.{end}")
    } else if let Some(end) = rest.strip_prefix("mid.attn_1.") {
        format!("mid_block.attentions.0.{}", vae_attention_part(end)?)
    } else {
        let parts: Vec<&str> = rest.splitn(5, '.').collect();
        match parts[..] {
            ["down", level, "block", layer, end] => {
                format!("down_blocks.{level}.resnets.{layer}.{}", shortcut(end))
            }
            ["down", level, "downsample", "conv", end] => format!("down_blocks.{level}.downsamplers.0.conv.{end}"),
            ["up", level, kind, a, b] => {
                let level = levels.checked_sub(1)?.checked_sub(level.parse().ok()?)?;
                match (kind, a) {
                    ("block", layer) => format!("up_blocks.{level}.resnets.{layer}.{}", shortcut(b)),
                    ("upsample", "conv") => format!("up_blocks.{level}.upsamplers.0.conv.{b}"),
                    _ => return None,
                }
            }
            _ => return None,
        }
    };
    Some(format!("{half}.{renamed}"))
}

fn vae_attention_part(name: &str) -> Option<String> {
    const PARTS: [(&str, &str); 5] =
        [("norm.", "group_norm."), ("q.", "to_q."), ("k.", "to_k."), ("v.", "to_v."), ("proj_out.", "to_out.0.")];
    // Some converters leave diffusers' names inside LDM files.
    const OTHERS: [&str; 4] = ["group_norm.", "to_q.", "to_k.", "to_v."];
    if OTHERS.iter().any(|part| name.starts_with(part)) || name.starts_with("to_out.0.") {
        return Some(name.to_string());
    }
    PARTS.iter().find_map(|(from, to)| Some(format!("{to}{}", name.strip_prefix(from)?)))
}

fn shortcut(name: &str) -> String {
    name.strip_prefix("nin_shortcut.").map_or_else(|| name.to_string(), |end| format!("conv_shortcut.{end}"))
}
