//! The architecture of each network, as read from a checkpoint's configs and tensor shapes.
//!
//! Field names follow the published `config.json` files where those have one.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// More levels, layers, blocks or heads than any such network has.
const MANY: usize = 64;
/// More channels, tokens or frames than any such network has.
const WIDE: usize = 1 << 20;

/// Refuses a number that would make a graph impossible, or as good as endless.
fn check_number(name: &str, value: usize, most: usize) -> Result<()> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    Err(Error::input(format!("{name} is {value}: must be 1 to {most}")))
}

fn check_levels(name: &str, found: usize, levels: usize) -> Result<()> {
    if found == levels {
        return Ok(());
    }
    Err(Error::input(format!("{name} has {found} entries for {levels} levels")))
}

fn check_channels(channels: &[usize]) -> Result<()> {
    check_number("the number of levels", channels.len(), 8)?;
    channels.iter().try_for_each(|c| check_number("block_out_channels", *c, WIDE))
}

/// A denoising UNet: Stable Diffusion's, inflated to video when [`UnetConfig::motion`] is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnetConfig {
    /// Latent channels in (4).
    pub in_channels: usize,
    /// Channels of the predicted noise (4).
    pub out_channels: usize,
    /// Channels of each level, finest first (320, 640, 1280, 1280).
    pub block_out_channels: Vec<usize>,
    /// For each down block, finest first: whether it has spatial transformers (`CrossAttnDownBlock2D`).
    pub down_attention: Vec<bool>,
    /// For each up block, coarsest first: whether it has spatial transformers (`CrossAttnUpBlock2D`).
    pub up_attention: Vec<bool>,
    /// Residual blocks in a down block; an up block has one more (2).
    pub layers_per_block: usize,
    /// Heads of spatial attention at each level, finest first (8, 8, 8, 8). The published configs call this
    /// `attention_head_dim`.
    pub attention_heads: Vec<usize>,
    /// Width of the text embedding (768).
    pub cross_attention_dim: usize,
    /// Groups of the group norms (32).
    pub norm_num_groups: usize,
    /// Epsilon of the residual blocks' group norms (1e-5).
    pub norm_eps: f32,
    /// Whether the time embedding has cosines first (true).
    pub flip_sin_to_cos: bool,
    /// Shift in the time embedding's frequencies (0).
    pub freq_shift: f32,
    /// The temporal transformers, absent in an image model.
    pub motion: Option<MotionConfig>,
}

impl UnetConfig {
    /// Checks what graph making relies on: an entry a level in each list, and numbers in reason. The up half of a
    /// SparseCtrl is not looked at.
    ///
    /// # Errors
    /// The first value that cannot be.
    pub fn check(&self) -> Result<()> {
        check_channels(&self.block_out_channels)?;
        let levels = self.block_out_channels.len();
        check_levels("down_attention", self.down_attention.len(), levels)?;
        check_levels("attention_heads", self.attention_heads.len(), levels)?;
        for (heads, channels) in self.attention_heads.iter().zip(&self.block_out_channels) {
            check_heads("attention_heads", *heads, *channels)?;
        }
        for (name, value, most) in [
            ("in_channels", self.in_channels, WIDE),
            ("out_channels", self.out_channels, WIDE),
            ("layers_per_block", self.layers_per_block, MANY),
            ("cross_attention_dim", self.cross_attention_dim, WIDE),
            ("norm_num_groups", self.norm_num_groups, WIDE),
        ] {
            check_number(name, value, most)?;
        }
        let Some(motion) = &self.motion else { return Ok(()) };
        check_levels("motion levels", motion.levels.len(), levels)?;
        for channels in &self.block_out_channels {
            check_heads("motion heads", motion.heads, *channels)?;
        }
        check_number("transformer_blocks", motion.transformer_blocks, MANY)?;
        check_number("attention_blocks", motion.attention_blocks, MANY)?;
        check_number("max_frames", motion.max_frames, 256)
    }
}

fn check_heads(name: &str, heads: usize, channels: usize) -> Result<()> {
    check_number(name, heads, WIDE)?;
    if channels.is_multiple_of(heads) {
        return Ok(());
    }
    Err(Error::input(format!("{name}: {channels} channels are not {heads} equal heads")))
}

/// The motion modules of AnimateDiff (`Vanilla` temporal transformers).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MotionConfig {
    /// For each down block, finest first: whether it has motion modules; up blocks mirror it.
    pub levels: Vec<bool>,
    /// Whether the middle block has one.
    pub mid_block: bool,
    /// Attention heads (8).
    pub heads: usize,
    /// Transformer blocks in a module (1).
    pub transformer_blocks: usize,
    /// Temporal self-attentions in a transformer block (2 in AnimateDiff, 1 in SparseCtrl).
    pub attention_blocks: usize,
    /// Rows of the position table, so the longest clip in frames (32).
    pub max_frames: usize,
}

/// The image autoencoder (`AutoencoderKL`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VaeConfig {
    /// Image channels (3).
    pub image_channels: usize,
    /// Latent channels (4).
    pub latent_channels: usize,
    /// Channels of each level, finest first (128, 256, 512, 512).
    pub block_out_channels: Vec<usize>,
    /// Residual blocks in an encoder block; a decoder block has one more (2).
    pub layers_per_block: usize,
    /// Groups of the group norms (32).
    pub norm_num_groups: usize,
    /// Latents are multiplied by this before diffusion (0.18215).
    pub scaling_factor: f32,
}

impl VaeConfig {
    /// Checks what graph making relies on.
    ///
    /// # Errors
    /// The first value that cannot be.
    pub fn check(&self) -> Result<()> {
        check_channels(&self.block_out_channels)?;
        if self.image_channels != 3 {
            return Err(Error::input(format!("image_channels is {}: colours are 3", self.image_channels)));
        }
        check_number("latent_channels", self.latent_channels, MANY)?;
        check_number("layers_per_block", self.layers_per_block, MANY)?;
        check_number("norm_num_groups", self.norm_num_groups, WIDE)
    }

    /// Pixels along one side of a latent position (8).
    pub fn downscale(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }
}

/// The activation inside a text encoder's feed-forward layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextActivation {
    /// x · sigmoid(1.702 x), OpenAI's CLIP.
    QuickGelu,
    /// The exact GELU.
    Gelu,
}

/// A CLIP text encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TextConfig {
    /// Tokens known (49408).
    pub vocab_size: usize,
    /// Width (768).
    pub hidden_size: usize,
    /// Width inside the feed-forward layers (3072).
    pub intermediate_size: usize,
    /// Layers (12).
    pub layers: usize,
    /// Attention heads (12).
    pub heads: usize,
    /// Tokens in a prompt, start and end included (77).
    pub max_positions: usize,
    /// Epsilon of the layer norms (1e-5).
    pub layer_norm_eps: f32,
    /// Feed-forward activation.
    pub activation: TextActivation,
}

impl TextConfig {
    /// Checks what graph making relies on.
    ///
    /// # Errors
    /// The first value that cannot be.
    pub fn check(&self) -> Result<()> {
        for (name, value, most) in [
            ("vocab_size", self.vocab_size, 1 << 24),
            ("hidden_size", self.hidden_size, WIDE),
            ("intermediate_size", self.intermediate_size, WIDE),
            ("layers", self.layers, 1024),
            ("max_positions", self.max_positions, 4096),
        ] {
            check_number(name, value, most)?;
        }
        check_heads("heads", self.heads, self.hidden_size)
    }
}

/// Which kind of condition a SparseCtrl takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ControlKind {
    /// A picture, given as its latents.
    Rgb,
    /// A sketch, given as pixels.
    Scribble,
}

impl ControlKind {
    /// `rgb` or `scribble`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rgb => "rgb",
            Self::Scribble => "scribble",
        }
    }
}

/// A SparseCtrl encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ControlConfig {
    /// Its UNet half; `out_channels` and `up_attention` are not used.
    pub unet: UnetConfig,
    /// Channels of the condition without the mask (4 latents, or 3 colours).
    pub conditioning_channels: usize,
    /// Channels through the condition's convolution stack (16, 32, 96, 256); empty when one convolution embeds it
    /// (`use_simplified_condition_embedding`).
    pub embedding_channels: Vec<usize>,
}

impl ControlConfig {
    /// Checks what graph making relies on.
    ///
    /// # Errors
    /// The first value that cannot be.
    pub fn check(&self) -> Result<()> {
        self.unet.check()?;
        check_number("conditioning_channels", self.conditioning_channels, MANY)?;
        if self.embedding_channels.len() > 8 {
            return Err(Error::input(format!("embedding_channels has {} entries", self.embedding_channels.len())));
        }
        Ok(())
    }
}
