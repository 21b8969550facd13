//! The image autoencoder of Stable Diffusion (`AutoencoderKL`), one image at a time: a clip's frames are independent,
//! and a single image bounds memory.

use super::config::VaeConfig;
use super::layers::{Scope, conv, conv3, group_norm, linear};
use super::resnet::{Norm, resnet, upsample};
use crate::Result;
use crate::graph::{Element, FeatureMap, Graph, Layout, Value};
use crate::weights::WeightIndex;

const EPSILON: f32 = 1e-6;

/// What decides an autoencoder graph besides the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VaeShape {
    /// Rows of the latents.
    pub height: usize,
    /// Columns of the latents.
    pub width: usize,
    /// Element type of activations.
    pub precision: Element,
    /// Layout of feature maps.
    pub layout: Layout,
}

/// Input `image [1, 3, H, W]` in −1..1; output `moments [1, 8, h, w]`: mean and logarithm of the variance of the
/// latents' distribution, before the scaling factor.
///
/// # Errors
/// When a weight is missing or misshapen.
pub fn encoder(weights: &WeightIndex, config: &VaeConfig, shape: &VaeShape) -> Result<Graph> {
    let mut g = Graph::new("vae_encoder", shape.precision, shape.layout);
    let network = Scope::new(weights, &["vae"]);
    let scope = network.child("encoder");
    let factor = config.downscale();
    let size = [1, config.image_channels, 1, shape.height * factor, shape.width * factor];
    let x = image_input(&mut g, "image", size)?;
    let mut x = conv3(&mut g, &scope.child("conv_in"), x)?;
    let norm = Norm { groups: config.norm_num_groups, epsilon: EPSILON };
    for level in 0..config.block_out_channels.len() {
        let block = scope.child("down_blocks").child(level);
        for layer in 0..config.layers_per_block {
            x = resnet(&mut g, &block.child("resnets").child(layer), x, None, norm)?;
        }
        if level + 1 < config.block_out_channels.len() {
            // Zeros at the bottom and right only, as in the published model.
            x = conv(&mut g, &block.child("downsamplers.0.conv"), x, 2, [0, 0, 1, 1])?;
        }
    }
    let x = middle(&mut g, &scope.child("mid_block"), x, norm)?;
    let x = group_norm(&mut g, &scope.child("conv_norm_out"), x, norm.groups, EPSILON)?;
    let x = g.silu(x)?;
    let x = conv3(&mut g, &scope.child("conv_out"), x)?;
    let x = conv(&mut g, &network.child("quant_conv"), x, 1, [0; 4])?;
    image_output(&mut g, "moments", x)?;
    Ok(g)
}

/// Input `latents [1, 4, h, w]`, scaled; output `image [1, 3, H, W]`, about −1..1.
///
/// # Errors
/// When a weight is missing or misshapen.
pub fn decoder(weights: &WeightIndex, config: &VaeConfig, shape: &VaeShape) -> Result<Graph> {
    let mut g = Graph::new("vae_decoder", shape.precision, shape.layout);
    let network = Scope::new(weights, &["vae"]);
    let scope = network.child("decoder");
    let x = image_input(&mut g, "latents", [1, config.latent_channels, 1, shape.height, shape.width])?;
    let x = g.scale(x, 1.0 / config.scaling_factor)?;
    let x = conv(&mut g, &network.child("post_quant_conv"), x, 1, [0; 4])?;
    let x = conv3(&mut g, &scope.child("conv_in"), x)?;
    let norm = Norm { groups: config.norm_num_groups, epsilon: EPSILON };
    let mut x = middle(&mut g, &scope.child("mid_block"), x, norm)?;
    for index in 0..config.block_out_channels.len() {
        let block = scope.child("up_blocks").child(index);
        for layer in 0..=config.layers_per_block {
            x = resnet(&mut g, &block.child("resnets").child(layer), x, None, norm)?;
        }
        if index + 1 < config.block_out_channels.len() {
            let FeatureMap { height, width, .. } = g.feature_map(x)?;
            x = upsample(&mut g, &block.child("upsamplers.0"), x, 2 * height, 2 * width)?;
        }
    }
    let x = group_norm(&mut g, &scope.child("conv_norm_out"), x, norm.groups, EPSILON)?;
    let x = g.silu(x)?;
    let x = conv3(&mut g, &scope.child("conv_out"), x)?;
    image_output(&mut g, "image", x)?;
    Ok(g)
}

fn image_input(g: &mut Graph, name: &str, size: [usize; 5]) -> Result<Value> {
    let [count, channels, _, height, width] = size;
    let x = g.input(name, Element::Float32, &[count, channels, height, width]);
    let precision = g.precision;
    let x = g.cast(x, precision)?;
    let x = g.reshape(x, &size)?;
    g.from_video(x)
}

fn image_output(g: &mut Graph, name: &str, x: Value) -> Result<()> {
    let FeatureMap { count, channels, height, width } = g.feature_map(x)?;
    let x = g.to_video(x, 1)?;
    let x = g.reshape(x, &[count, channels, height, width])?;
    let x = g.cast(x, Element::Float32)?;
    g.output(name, x);
    Ok(())
}

/// Residual block, single-head attention over positions, residual block.
fn middle(g: &mut Graph, scope: &Scope, x: Value, norm: Norm) -> Result<Value> {
    let x = resnet(g, &scope.child("resnets.0"), x, None, norm)?;
    let attention = scope.child("attentions.0");
    let map = g.feature_map(x)?;
    let h = group_norm(g, &attention.child("group_norm"), x, norm.groups, EPSILON)?;
    let h = g.to_tokens(h)?;
    let q = linear(g, &attention.child("to_q"), h)?;
    let k = linear(g, &attention.child("to_k"), h)?;
    let v = linear(g, &attention.child("to_v"), h)?;
    g.set_scope(attention.path());
    let h = g.attention(q, k, v, 1)?;
    let h = linear(g, &attention.child("to_out.0"), h)?;
    let h = g.from_tokens(h, map)?;
    let x = g.add(h, x)?;
    resnet(g, &scope.child("resnets.1"), x, None, norm)
}
