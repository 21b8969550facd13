//! The UNet of Stable Diffusion inflated to video (`UNet3DConditionModel` of AnimateDiff): convolutions, norms, spatial
//! and cross-attention per frame, a motion module behind every residual/attention pair.
//!
//! Three graphs come of it: [`denoiser`] predicts noise, [`extractor`] gives attention maps and stops there, [`guided`]
//! gives noise, maps and the gradient of the motion loss at the latents.

use super::attention::{Text, spatial_transformer};
use super::config::{ControlKind, UnetConfig};
use super::layers::{Scope, conv, conv3, group_norm, linear};
use super::motion_module::motion_module;
use super::resnet::{Norm, resnet, upsample};
use crate::graph::gradient::{Forward, gradient};
use crate::graph::{Element, Graph, Layout, Op, Value};
use crate::weights::WeightIndex;
use crate::{Error, Result};

/// What decides a UNet graph besides the model.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UnetShape {
    /// Clips at once.
    pub batch: usize,
    /// Frames.
    pub frames: usize,
    /// Rows of the latents.
    pub height: usize,
    /// Columns of the latents.
    pub width: usize,
    /// Tokens of the text embeddings.
    pub tokens: usize,
    /// SparseCtrl whose residuals are added. The domain adapter, where the bundle has one, belongs to these runs.
    pub control: Option<ControlKind>,
    /// Element type of activations.
    pub precision: Element,
    /// Layout of feature maps.
    pub layout: Layout,
}

/// Noise prediction.
///
/// Inputs `latents [batch, 4, frames, h, w]`, `timestep [1]`, `text_embeddings [batch, tokens, c]`, with a control also
/// `down_residual.N` and `mid_residual`; output `noise` like `latents`.
///
/// # Errors
/// When a weight is missing or misshapen.
pub fn denoiser(weights: &WeightIndex, config: &UnetConfig, shape: &UnetShape) -> Result<Graph> {
    let mut unet = Unet::new("denoiser", weights, config, shape)?;
    let noise = unet.forward()?;
    unet.g.output("noise", noise);
    Ok(unet.g)
}

/// Attention maps of the guided blocks; nothing behind them is computed.
///
/// Inputs as for [`denoiser`]; outputs `attention.MODULE [positions, heads, frames, frames]`, MODULE being the path of
/// each temporal self-attention.
///
/// # Errors
/// When a weight is missing or misshapen, or a block is not one with motion modules.
pub fn extractor(weights: &WeightIndex, config: &UnetConfig, shape: &UnetShape, blocks: &[String]) -> Result<Graph> {
    let mut unet = Unet::new("extractor", weights, config, shape)?;
    unet.forward()?;
    for (name, map) in unet.guided_maps(blocks)? {
        let map = unet.g.cast(map, Element::Float32)?;
        unet.g.output(format!("attention.{name}"), map);
    }
    Ok(unet.g)
}

/// Noise prediction with the gradient of the motion loss at the latents.
///
/// Inputs as for [`denoiser`], and for each guided map `target.MODULE` and `weight.MODULE`, shaped as the map, and
/// `motion_scale [1]`. The loss's cotangent at map A is `motion_scale` · weight ⊙ (A − target). Outputs `noise`,
/// `attention.MODULE`, and `gradient` like `latents`. `values` says what the backward pass takes from the forward pass.
///
/// # Errors
/// When a weight is missing or misshapen, or a block is not one with motion modules.
pub fn guided(
    weights: &WeightIndex,
    config: &UnetConfig,
    shape: &UnetShape,
    blocks: &[String],
    values: Forward,
) -> Result<Graph> {
    let mut unet = Unet::new("guided", weights, config, shape)?;
    let noise = unet.forward()?;
    let maps = unet.guided_maps(blocks)?;
    let latents = unet.latents;
    let g = &mut unet.g;
    g.output("noise", noise);
    g.set_scope("motion_loss");
    let strength = g.input("motion_scale", Element::Float32, &[1]);
    let seed_scale = seed_scale(maps.iter().map(|(_, map)| g.shape(*map)));
    let mut seeds = Vec::new();
    for (name, map) in maps {
        let shape = g.shape(map).to_vec();
        let target = g.input(format!("target.{name}"), Element::Float32, &shape);
        let weight = g.input(format!("weight.{name}"), Element::Float32, &shape);
        let full = g.cast(map, Element::Float32)?;
        g.output(format!("attention.{name}"), full);
        let difference = g.sub(full, target)?;
        let weighted = g.mul(difference, weight)?;
        let cotangent = g.scale(weighted, seed_scale)?;
        let precision = g.precision;
        seeds.push((map, g.cast(cotangent, precision)?));
    }
    let at_latents = gradient(g, &seeds, latents, values)?;
    g.set_scope("motion_loss.gradient");
    let at_latents = g.scale(at_latents, 1.0 / seed_scale)?;
    let at_latents = g.mul(at_latents, strength)?;
    g.output("gradient", at_latents);
    Ok(unet.g)
}

/// What the backward pass is started with, times the motion loss's own cotangents: a power of two, about the number of
/// queries of a map, so that half precision neither runs out of small numbers nor of large ones. The weights that
/// guidance gives are 2 over the number of kept entries; the step's strength joins behind the backward pass.
fn seed_scale<'a>(maps: impl Iterator<Item = &'a [usize]>) -> f32 {
    let queries = maps.map(|shape| shape[..3].iter().product::<usize>()).max().unwrap_or(1);
    (queries / 2).next_power_of_two() as f32
}

/// The guided attention maps of some blocks: each module's path with its number of latent positions.
///
/// # Errors
/// When a block is not one with motion modules.
pub fn guided_modules(
    config: &UnetConfig,
    blocks: &[String],
    height: usize,
    width: usize,
) -> Result<Vec<(String, usize)>> {
    let motion = config.motion.as_ref().ok_or_else(|| Error::input("this model has no motion modules"))?;
    let known = guidable_blocks(config);
    let names = || known.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    if blocks.is_empty() {
        return Err(Error::input(format!("no block to guide; name at least one of {}", names())));
    }
    if let Some(name) = blocks.iter().find(|b| known.iter().all(|(k, _)| k != *b)) {
        return Err(Error::input(format!("no block '{name}' with motion modules; there are {}", names())));
    }
    let mut modules = Vec::new();
    for (block, level) in known.iter().filter(|(name, _)| blocks.contains(name)) {
        // Each level halves the latents, the strided convolution rounding up.
        let positions = height.div_ceil(1 << level) * width.div_ceil(1 << level);
        let layers = config.layers_per_block + usize::from(block.starts_with("up_blocks"));
        for layer in 0..layers {
            for transformer in 0..motion.transformer_blocks {
                for attention in 0..motion.attention_blocks {
                    let inner = format!("transformer_blocks.{transformer}.attention_blocks.{attention}");
                    modules.push((format!("{block}.motion_modules.{layer}.temporal_transformer.{inner}"), positions));
                }
            }
        }
    }
    Ok(modules)
}

/// The down and up blocks that have motion modules, in the order of computation, with their level (0 is the finest).
fn guidable_blocks(config: &UnetConfig) -> Vec<(String, usize)> {
    let Some(motion) = &config.motion else { return Vec::new() };
    let there: Vec<usize> = (0..motion.levels.len()).filter(|level| motion.levels[*level]).collect();
    let down = there.iter().map(|level| (format!("down_blocks.{level}"), *level));
    let up = there.iter().rev().map(|level| (format!("up_blocks.{}", motion.levels.len() - 1 - level), *level));
    down.chain(up).collect()
}

struct Unet<'a> {
    g: Graph,
    scope: Scope<'a>,
    config: &'a UnetConfig,
    frames: usize,
    latents: Value,
    timestep: Value,
    text: Value,
    /// Residuals of SparseCtrl: one a skip connection, then the middle block's.
    residuals: Option<(Vec<Value>, Value)>,
    maps: Vec<(String, Value)>,
}

impl<'a> Unet<'a> {
    fn new(name: &str, weights: &'a WeightIndex, config: &'a UnetConfig, shape: &UnetShape) -> Result<Self> {
        let mut g = Graph::new(name, shape.precision, shape.layout);
        let networks: &[&str] = if shape.control.is_some() { &["adapter", "unet"] } else { &["unet"] };
        let UnetShape { batch, frames, height, width, tokens, .. } = *shape;
        let latents = g.input("latents", Element::Float32, &[batch, config.in_channels, frames, height, width]);
        let timestep = g.input("timestep", Element::Float32, &[1]);
        let text = g.input("text_embeddings", Element::Float32, &[batch, tokens, config.cross_attention_dim]);
        let residuals = shape.control.map(|_| {
            let sizes = skip_sizes(config, height, width);
            let mut residual = |name: String, (channels, height, width): (usize, usize, usize)| {
                g.input(name, Element::Float32, &[batch, channels, frames, height, width])
            };
            let down =
                sizes.iter().enumerate().map(|(i, size)| residual(format!("down_residual.{i}"), *size)).collect();
            let coarsest = sizes.last().copied().unwrap_or_default();
            (down, residual("mid_residual".into(), coarsest))
        });
        let scope = Scope::new(weights, networks);
        Ok(Self { g, scope, config, frames, latents, timestep, text, residuals, maps: Vec::new() })
    }

    fn forward(&mut self) -> Result<Value> {
        let mut encoder =
            Encoder::new(&mut self.g, self.config, self.scope.clone(), self.frames, self.timestep, self.text)?;
        let latents = encoder.g.cast(self.latents, encoder.g.precision)?;
        let x = encoder.g.from_video(latents)?;
        let x = conv3(encoder.g, &encoder.scope.child("conv_in"), x)?;
        let (mut x, mut skips) = encoder.run(x)?;
        if let Some((down, mid)) = &self.residuals {
            for (skip, residual) in skips.iter_mut().zip(down) {
                *skip = encoder.add_residual(*skip, *residual)?;
            }
            x = encoder.add_residual(x, *mid)?;
        }
        let x = encoder.up(x, &mut skips)?;
        self.maps = std::mem::take(&mut encoder.maps);
        let x = group_norm(
            &mut self.g,
            &self.scope.child("conv_norm_out"),
            x,
            self.config.norm_num_groups,
            self.config.norm_eps,
        )?;
        let x = self.g.silu(x)?;
        let x = conv3(&mut self.g, &self.scope.child("conv_out"), x)?;
        let noise = self.g.to_video(x, self.frames)?;
        self.g.cast(noise, Element::Float32)
    }

    fn guided_maps(&self, blocks: &[String]) -> Result<Vec<(String, Value)>> {
        let size = self.g.shape(self.latents);
        let modules = guided_modules(self.config, blocks, size[3], size[4])?;
        let guided = |name: &String| modules.iter().any(|(module, _)| module == name);
        Ok(self.maps.iter().filter(|(name, _)| guided(name)).cloned().collect())
    }
}

/// The (channels, rows, columns) of each skip connection, in the order of computation.
pub fn skip_sizes(config: &UnetConfig, height: usize, width: usize) -> Vec<(usize, usize, usize)> {
    let levels = config.block_out_channels.len();
    let (mut height, mut width) = (height, width);
    let mut sizes = vec![(config.block_out_channels[0], height, width)];
    for (level, channels) in config.block_out_channels.iter().enumerate() {
        sizes.extend(vec![(*channels, height, width); config.layers_per_block]);
        if level + 1 < levels {
            (height, width) = (height.div_ceil(2), width.div_ceil(2));
            sizes.push((*channels, height, width));
        }
    }
    sizes
}

/// The blocks of a UNet over a graph, shared with SparseCtrl, which is a UNet's encoder half.
pub(super) struct Encoder<'a, 'g> {
    pub(super) g: &'g mut Graph,
    pub(super) scope: Scope<'a>,
    config: &'a UnetConfig,
    frames: usize,
    time: Value,
    text: Text,
    norm: Norm,
    maps: Vec<(String, Value)>,
}

impl<'a, 'g> Encoder<'a, 'g> {
    pub(super) fn new(
        g: &'g mut Graph,
        config: &'a UnetConfig,
        scope: Scope<'a>,
        frames: usize,
        timestep: Value,
        text: Value,
    ) -> Result<Self> {
        let time = time_embedding(g, &scope, config, timestep)?;
        let embeddings = g.cast(text, g.precision)?;
        let text = Text { embeddings, groups: config.norm_num_groups };
        let norm = Norm { groups: config.norm_num_groups, epsilon: config.norm_eps };
        Ok(Self { g, scope, config, frames, time, text, norm, maps: Vec::new() })
    }

    /// Down blocks and middle block: the middle's output and the skip connections, the input among them.
    pub(super) fn run(&mut self, x: Value) -> Result<(Value, Vec<Value>)> {
        let mut skips = vec![x];
        let mut x = x;
        let levels = self.config.block_out_channels.len();
        for level in 0..levels {
            let block = self.scope.child("down_blocks").child(level);
            for layer in 0..self.config.layers_per_block {
                x = self.layer(&block, x, layer, level, self.config.down_attention[level])?;
                skips.push(x);
            }
            if level + 1 < levels {
                x = conv(self.g, &block.child("downsamplers.0.conv"), x, 2, [1; 4])?;
                skips.push(x);
            }
        }
        let block = self.scope.child("mid_block");
        x = resnet(self.g, &block.child("resnets.0"), x, Some(self.time), self.norm)?;
        let heads = self.config.attention_heads[levels - 1];
        x = spatial_transformer(self.g, &block.child("attentions.0"), x, self.text, heads)?;
        if let Some(motion) = self.config.motion.as_ref().filter(|m| m.mid_block) {
            x = motion_module(self.g, &block.child("motion_modules.0"), x, motion, self.frames)?.x;
        }
        x = resnet(self.g, &block.child("resnets.1"), x, Some(self.time), self.norm)?;
        Ok((x, skips))
    }

    /// Up blocks, each layer joined with the latest skip connection that is left.
    fn up(&mut self, x: Value, skips: &mut Vec<Value>) -> Result<Value> {
        let mut x = x;
        let levels = self.config.block_out_channels.len();
        for index in 0..levels {
            let level = levels - 1 - index;
            let block = self.scope.child("up_blocks").child(index);
            for layer in 0..=self.config.layers_per_block {
                let skip = skips.pop().ok_or_else(|| Error::failure("more up layers than skip connections"))?;
                self.g.set_scope(block.path());
                let axis = self.g.layout.channel_axis();
                x = self.g.concat(&[x, skip], axis)?;
                x = self.layer(&block, x, layer, level, self.config.up_attention[index])?;
            }
            if let Some(next) = skips.last() {
                let size = self.g.feature_map(*next)?;
                x = upsample(self.g, &block.child("upsamplers.0"), x, size.height, size.width)?;
            }
        }
        Ok(x)
    }

    /// One residual block with what stands behind it.
    fn layer(&mut self, block: &Scope, x: Value, layer: usize, level: usize, attention: bool) -> Result<Value> {
        let mut x = resnet(self.g, &block.child("resnets").child(layer), x, Some(self.time), self.norm)?;
        if attention {
            let scope = block.child("attentions").child(layer);
            x = spatial_transformer(self.g, &scope, x, self.text, self.config.attention_heads[level])?;
        }
        if let Some(motion) = self.config.motion.as_ref().filter(|m| m.levels[level]) {
            let scope = block.child("motion_modules").child(layer);
            let attended = motion_module(self.g, &scope, x, motion, self.frames)?;
            self.maps.extend(attended.maps);
            x = attended.x;
        }
        Ok(x)
    }

    fn add_residual(&mut self, x: Value, residual: Value) -> Result<Value> {
        self.g.set_scope("control");
        let residual = self.g.cast(residual, self.g.precision)?;
        let residual = self.g.from_video(residual)?;
        self.g.add(x, residual)
    }
}

/// SiLU of the time embedding `[1, 4·c]`: sinusoids of the timestep through two linear layers.
fn time_embedding(g: &mut Graph, scope: &Scope, config: &UnetConfig, timestep: Value) -> Result<Value> {
    let scope = scope.child("time_embedding");
    g.set_scope(scope.path());
    let half = config.block_out_channels[0] / 2;
    let step = -(10000f32.ln()) / (half as f32 - config.freq_shift);
    let frequencies: Vec<f32> = (0..half).map(|i| (step * i as f32).exp()).collect();
    // In float32 at any precision: half precision has no room for 999 · ω.
    let precision = std::mem::replace(&mut g.precision, Element::Float32);
    let frequencies = g.constant(&frequencies, &[1, half]);
    g.precision = precision;
    let timestep = g.reshape(timestep, &[1, 1])?;
    let angles = g.mul(timestep, frequencies?)?;
    let (sin, cos) = (g.node(Op::Sin, &[angles])?, g.node(Op::Cos, &[angles])?);
    let waves = g.concat(&if config.flip_sin_to_cos { [cos, sin] } else { [sin, cos] }, 1)?;
    let waves = g.cast(waves, precision)?;
    let h = linear(g, &scope.child("linear_1"), waves)?;
    let h = g.silu(h)?;
    let h = linear(g, &scope.child("linear_2"), h)?;
    g.silu(h)
}
