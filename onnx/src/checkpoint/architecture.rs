//! From tensor names and shapes to the architecture of each network. What shapes do not tell (heads, groups, epsilons)
//! comes from configuration files, and from Stable Diffusion 1.5 where there is none.

use std::path::Path;

use super::config::{MotionFile, PerLevel, TextFile, UnetFile, VaeFile};
use super::expected;
use super::names::Tensors;
use super::reader::TensorSet;
use crate::model::config::{
    ControlConfig, ControlKind, MotionConfig, TextActivation, TextConfig, UnetConfig, VaeConfig,
};
use crate::{Error, Result};

/// Largest width of a layer; larger ones are nonsense that would overflow later sums.
const MAX_WIDTH: usize = 1 << 20;
/// Most blocks, layers or attentions in a row. More in a file are not counted, and so turn out to be unexpected; without
/// a limit, a made-up file could have an architecture of any size.
const MAX_REPEATS: usize = 16;
/// Most layers of a text encoder (12).
const MAX_TEXT_LAYERS: usize = 48;
/// Rows of AnimateDiff's position table where nothing says otherwise.
const DEFAULT_FRAMES: usize = 32;

/// Looks tensors of one network up.
struct Shapes<'a> {
    tensors: &'a Tensors,
    prefix: &'a str,
    path: &'a Path,
}

impl Shapes<'_> {
    /// Dimension `axis` of a tensor that the network must have.
    fn dimension(&self, name: &str, axis: usize) -> Result<usize> {
        let name = format!("{}.{name}", self.prefix);
        let tensor = self
            .tensors
            .get(&name)
            .ok_or_else(|| Error::input(format!("tensor '{name}' is missing")).with_path(self.path))?;
        match tensor.shape.get(axis) {
            Some(&size) if (1..=MAX_WIDTH).contains(&size) => Ok(size),
            _ => {
                Err(Error::input(format!("tensor '{}' has shape {:?}", tensor.source, tensor.shape))
                    .with_path(self.path))
            }
        }
    }

    fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(&format!("{}.{name}", self.prefix))
    }

    /// How many of `name(0)`, `name(1)`, … there are, up to a limit.
    fn count(&self, name: impl Fn(usize) -> String) -> usize {
        self.count_to(MAX_REPEATS, name)
    }

    fn count_to(&self, limit: usize, name: impl Fn(usize) -> String) -> usize {
        (0..limit).take_while(|i| self.has(&name(*i))).count()
    }

    fn refuse(&self, message: String) -> Error {
        Error::input(message).with_path(self.path)
    }
}

/// The UNet's architecture, without motion.
///
/// # Errors
/// When tensors are missing or the model is not of the Stable Diffusion 1 family.
pub fn unet(tensors: &Tensors, file: &UnetFile, path: &Path) -> Result<UnetConfig> {
    let shapes = Shapes { tensors, prefix: "unet", path };
    let mut config = unet_encoder(&shapes, |channels| {
        let heads = file.num_attention_heads.clone().or(file.attention_head_dim.clone()).unwrap_or(PerLevel::One(8));
        let attention_heads = match heads {
            PerLevel::One(heads) => vec![heads; channels],
            PerLevel::Each(heads) => heads,
        };
        UnetConfig {
            in_channels: 0,
            out_channels: 0,
            block_out_channels: Vec::new(),
            down_attention: Vec::new(),
            up_attention: Vec::new(),
            layers_per_block: 0,
            attention_heads,
            cross_attention_dim: 0,
            norm_num_groups: file.norm_num_groups.unwrap_or(32),
            norm_eps: file.norm_eps.unwrap_or(1e-5),
            flip_sin_to_cos: file.flip_sin_to_cos.unwrap_or(true),
            freq_shift: file.freq_shift.unwrap_or(0.0),
            motion: None,
        }
    })?;
    if file.use_linear_projection == Some(true) {
        return Err(shapes.refuse("use_linear_projection: this is not a Stable Diffusion 1 UNet".into()));
    }
    check_activation(file.act_fn.as_deref(), path)?;
    let latent = config.in_channels;
    if latent == 9 || latent == 8 {
        return Err(shapes.refuse(format!(
            "this is an inpainting or editing model ({latent} input channels); a plain text-to-image model is wanted"
        )));
    }
    config.out_channels = shapes.dimension("conv_out.weight", 0)?;
    let levels = config.block_out_channels.len();
    config.up_attention =
        (0..levels).map(|block| shapes.has(&format!("up_blocks.{block}.attentions.0.norm.weight"))).collect();
    Ok(config)
}

/// What UNet and SparseCtrl have in common. `start` gives the fields that shapes do not tell, for a number of levels.
fn unet_encoder(shapes: &Shapes, start: impl Fn(usize) -> UnetConfig) -> Result<UnetConfig> {
    let levels = shapes.count(|level| format!("down_blocks.{level}.resnets.0.conv1.weight"));
    if levels == 0 {
        return Err(shapes.refuse("it has no UNet blocks ('down_blocks.0.resnets.0.conv1.weight' is missing)".into()));
    }
    let mut config = start(levels);
    config.in_channels = shapes.dimension("conv_in.weight", 1)?;
    config.block_out_channels = (0..levels)
        .map(|level| shapes.dimension(&format!("down_blocks.{level}.resnets.0.conv1.weight"), 0))
        .collect::<Result<_>>()?;
    config.down_attention =
        (0..levels).map(|level| shapes.has(&format!("down_blocks.{level}.attentions.0.norm.weight"))).collect();
    config.layers_per_block = shapes.count(|layer| format!("down_blocks.0.resnets.{layer}.conv1.weight"));
    config.cross_attention_dim =
        shapes.dimension("mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight", 1)?;
    match config.cross_attention_dim {
        2048 => return Err(shapes.refuse("this is a Stable Diffusion XL model; only 1.x models work here".into())),
        1024 => return Err(shapes.refuse("this is a Stable Diffusion 2 model; only 1.x models work here".into())),
        _ => {}
    }
    let heads = &config.attention_heads;
    if heads.len() != levels {
        return Err(shapes.refuse(format!("{} numbers of attention heads for {levels} levels", heads.len())));
    }
    for (&width, &heads) in config.block_out_channels.iter().zip(heads) {
        check_divides(heads, width, "attention heads", shapes.path)?;
        check_divides(config.norm_num_groups, width, "group norm groups", shapes.path)?;
    }
    check_epsilon(config.norm_eps, shapes.path)?;
    if !config.freq_shift.is_finite() {
        return Err(shapes.refuse(format!("freq_shift is {}", config.freq_shift)));
    }
    Ok(config)
}

/// The temporal transformers among a network's tensors; none when it has no motion modules. `table` is the length of
/// position tables found in the file.
///
/// # Errors
/// When the config contradicts the tensors or sizes do not fit.
pub fn motion(
    tensors: &Tensors,
    prefix: &str,
    channels: &[usize],
    file: &MotionFile,
    table: Option<usize>,
    path: &Path,
) -> Result<Option<MotionConfig>> {
    let shapes = Shapes { tensors, prefix, path };
    let module = |block: &str| format!("{block}.motion_modules.0.temporal_transformer");
    let levels: Vec<bool> = (0..channels.len())
        .map(|l| shapes.has(&format!("{}.norm.weight", module(&format!("down_blocks.{l}")))))
        .collect();
    let mid_block = shapes.has(&format!("{}.norm.weight", module("mid_block")));
    let Some(level) = levels.iter().position(|has| *has) else { return Ok(None) };
    let first = module(&format!("down_blocks.{level}"));
    let kwargs = &file.motion_module_kwargs;
    let config = MotionConfig {
        mid_block,
        heads: kwargs.num_attention_heads.unwrap_or(8),
        transformer_blocks: shapes.count(|t| format!("{first}.transformer_blocks.{t}.ff_norm.weight")),
        attention_blocks: shapes.count(|a| format!("{first}.transformer_blocks.0.attention_blocks.{a}.to_q.weight")),
        max_frames: table.or(kwargs.temporal_position_encoding_max_len).unwrap_or(DEFAULT_FRAMES),
        levels,
    };
    for (&width, &has) in channels.iter().zip(&config.levels) {
        if has {
            check_divides(config.heads, width, "temporal attention heads", path)?;
            // Temporal transformers always have 32 groups.
            check_divides(32, width, "group norm groups of the motion modules", path)?;
        }
    }
    if let Some(types) = &kwargs.attention_block_types
        && types.len() != config.attention_blocks
    {
        return Err(shapes.refuse(format!(
            "the config has {} temporal attentions a block, the tensors have {}",
            types.len(),
            config.attention_blocks
        )));
    }
    if !(1..=4096).contains(&config.max_frames) {
        return Err(shapes.refuse(format!("a position table of {} frames", config.max_frames)));
    }
    Ok(Some(config))
}

/// The length of the position tables in a file of motion modules (`….pos_encoder.pe`, [1, frames, width]).
///
/// # Errors
/// When they differ.
pub fn position_table(set: &TensorSet) -> Result<Option<usize>> {
    let mut lengths = set
        .names()
        .filter(|name| name.ends_with("pos_encoder.pe") || name.ends_with("pos_embed.pe"))
        .filter_map(|name| set.get(name)?.shape.get(1).copied());
    let Some(first) = lengths.next() else { return Ok(None) };
    match lengths.find(|length| *length != first) {
        Some(other) => {
            Err(Error::input(format!("its position tables have {first} and {other} rows")).with_path(set.path()))
        }
        None => Ok(Some(first)),
    }
}

/// The architecture of a SparseCtrl encoder, whose tensors are behind `prefix`.
///
/// # Errors
/// When it does not fit the UNet or is of the other kind.
pub fn control(
    tensors: &Tensors,
    prefix: &str,
    kind: ControlKind,
    unet: &UnetConfig,
    file: &MotionFile,
    table: Option<usize>,
    path: &Path,
) -> Result<ControlConfig> {
    let shapes = Shapes { tensors, prefix, path };
    let stack = "controlnet_cond_embedding";
    let simple = shapes.has(&format!("{stack}.weight"));
    let (first, embedding_channels) = if simple {
        (format!("{stack}.weight"), Vec::new())
    } else {
        if !shapes.has(&format!("{stack}.conv_in.weight")) {
            return Err(shapes.refuse("this is no SparseCtrl: it has no 'controlnet_cond_embedding'".into()));
        }
        let first = format!("{stack}.conv_in.weight");
        let mut channels = vec![shapes.dimension(&first, 0)?];
        for i in 0..shapes.count(|i| format!("{stack}.blocks.{i}.weight")) / 2 {
            channels.push(shapes.dimension(&format!("{stack}.blocks.{}.weight", 2 * i + 1), 0)?);
        }
        (first, channels)
    };
    let channels = shapes.dimension(&first, 1)?;
    let wanted = match kind {
        ControlKind::Rgb => 4,
        ControlKind::Scribble => 3,
    };
    if channels != wanted + 1 || simple != (kind == ControlKind::Rgb) {
        return Err(shapes.refuse(format!(
            "this is no {} SparseCtrl: its condition has {channels} channels with the mask and {} embedding",
            kind.name(),
            if simple { "a simple" } else { "a stacked" }
        )));
    }
    let told =
        (file.conditioning_channels.unwrap_or(wanted), file.use_simplified_condition_embedding.unwrap_or(simple));
    if told != (wanted, simple) {
        return Err(shapes.refuse(format!(
            "the config's conditioning_channels {} and use_simplified_condition_embedding {} contradict the tensors",
            told.0, told.1
        )));
    }
    let mut config = unet_encoder(&shapes, |_| unet.clone())?;
    let same = (&config.block_out_channels, config.in_channels, config.cross_attention_dim, config.layers_per_block)
        == (&unet.block_out_channels, unet.in_channels, unet.cross_attention_dim, unet.layers_per_block);
    if !same {
        return Err(shapes.refuse(format!(
            "it does not fit the UNet: channels {:?} and text width {}, the UNet has {:?} and {}",
            config.block_out_channels, config.cross_attention_dim, unet.block_out_channels, unet.cross_attention_dim
        )));
    }
    config.up_attention = Vec::new();
    config.motion = motion(tensors, prefix, &config.block_out_channels, file, table, path)?;
    let config = ControlConfig { unet: config, conditioning_channels: wanted, embedding_channels };
    expected::compare("SparseCtrl", &expected::control(prefix, &config), tensors, path)?;
    Ok(config)
}

/// The autoencoder's architecture.
///
/// # Errors
/// When tensors are missing or sizes do not fit.
pub fn vae(tensors: &Tensors, file: &VaeFile, path: &Path) -> Result<VaeConfig> {
    let shapes = Shapes { tensors, prefix: "vae", path };
    let levels = shapes.count(|level| format!("encoder.down_blocks.{level}.resnets.0.conv1.weight"));
    if levels == 0 {
        return Err(shapes.refuse("it has no autoencoder blocks ('encoder.down_blocks.0.…' is missing)".into()));
    }
    let config = VaeConfig {
        image_channels: shapes.dimension("encoder.conv_in.weight", 1)?,
        latent_channels: shapes.dimension("decoder.conv_in.weight", 1)?,
        block_out_channels: (0..levels)
            .map(|level| shapes.dimension(&format!("encoder.down_blocks.{level}.resnets.0.conv1.weight"), 0))
            .collect::<Result<_>>()?,
        layers_per_block: shapes.count(|layer| format!("encoder.down_blocks.0.resnets.{layer}.conv1.weight")),
        norm_num_groups: file.norm_num_groups.unwrap_or(32),
        scaling_factor: file.scaling_factor.unwrap_or(0.18215),
    };
    check_activation(file.act_fn.as_deref(), path)?;
    for &width in &config.block_out_channels {
        check_divides(config.norm_num_groups, width, "group norm groups", path)?;
    }
    if !(config.scaling_factor.is_finite() && config.scaling_factor > 0.0) {
        return Err(shapes.refuse(format!("scaling_factor is {}, a positive number is wanted", config.scaling_factor)));
    }
    Ok(config)
}

/// The text encoder's architecture.
///
/// # Errors
/// When tensors are missing or it is not the one of Stable Diffusion 1.
pub fn text_encoder(tensors: &Tensors, file: &TextFile, path: &Path) -> Result<TextConfig> {
    let shapes = Shapes { tensors, prefix: "text_encoder.text_model", path };
    let hidden_size = shapes.dimension("embeddings.token_embedding.weight", 1)?;
    if hidden_size == 1024 {
        return Err(shapes.refuse(
            "this is the text encoder of Stable Diffusion 2 (OpenCLIP, width 1024); only 1.x models work here".into(),
        ));
    }
    let config = TextConfig {
        vocab_size: shapes.dimension("embeddings.token_embedding.weight", 0)?,
        hidden_size,
        intermediate_size: shapes.dimension("encoder.layers.0.mlp.fc1.weight", 0)?,
        layers: shapes.count_to(MAX_TEXT_LAYERS, |layer| format!("encoder.layers.{layer}.self_attn.q_proj.weight")),
        heads: file.num_attention_heads.unwrap_or((hidden_size / 64).max(1)),
        max_positions: shapes.dimension("embeddings.position_embedding.weight", 0)?,
        layer_norm_eps: file.layer_norm_eps.unwrap_or(1e-5),
        activation: match file.hidden_act.as_deref() {
            None | Some("quick_gelu") => TextActivation::QuickGelu,
            Some("gelu") => TextActivation::Gelu,
            Some(other) => {
                return Err(shapes.refuse(format!("hidden_act is '{other}', quick_gelu and gelu are supported")));
            }
        },
    };
    check_divides(config.heads, hidden_size, "attention heads", path)?;
    check_epsilon(config.layer_norm_eps, path)?;
    Ok(config)
}

fn check_divides(parts: usize, width: usize, what: &str, path: &Path) -> Result<()> {
    if parts == 0 || !width.is_multiple_of(parts) {
        return Err(Error::input(format!("{parts} {what} do not divide {width} channels")).with_path(path));
    }
    Ok(())
}

fn check_epsilon(epsilon: f32, path: &Path) -> Result<()> {
    if !(epsilon > 0.0 && epsilon < 1.0) {
        return Err(Error::input(format!("an epsilon of {epsilon}; it is between 0 and 1")).with_path(path));
    }
    Ok(())
}

fn check_activation(activation: Option<&str>, path: &Path) -> Result<()> {
    match activation {
        None | Some("silu" | "swish") => Ok(()),
        Some(other) => Err(Error::input(format!("act_fn is '{other}', only silu is supported")).with_path(path)),
    }
}
