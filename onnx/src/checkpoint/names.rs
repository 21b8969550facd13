//! One name for every tensor: diffusers' names behind the network's (`unet.conv_in.weight`), whatever the file calls it.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::reader::{Tensor, TensorSet};
use crate::{Error, Result};

/// A tensor of a checkpoint, seen in a shape that may differ from the file's by dimensions of length one.
#[derive(Debug, Clone)]
pub struct Named {
    /// The checkpoint.
    pub set: Rc<TensorSet>,
    /// Its name there.
    pub source: String,
    /// Its shape in the bundle.
    pub shape: Vec<usize>,
}

impl Named {
    /// The tensor `source` of `set`, in its own shape.
    pub fn new(set: &Rc<TensorSet>, source: &str, tensor: &Tensor) -> Self {
        Self { set: set.clone(), source: source.into(), shape: tensor.shape.clone() }
    }
}

/// Tensors by their names in the bundle.
pub type Tensors = BTreeMap<String, Named>;

/// Adds a tensor under its bundle name.
///
/// # Errors
/// When two tensors of a file would get the same name.
pub fn insert(tensors: &mut Tensors, name: String, tensor: Named) -> Result<()> {
    let path = tensor.set.path().to_path_buf();
    let source = tensor.source.clone();
    match tensors.insert(name, tensor) {
        None => Ok(()),
        Some(other) => {
            Err(Error::input(format!("tensors '{}' and '{source}' are the same weight", other.source)).with_path(&path))
        }
    }
}

/// The tensors of a file whose names are already those of one network, behind the prefix `network`.
///
/// # Errors
/// When two tensors of the file are the same weight.
pub fn of_network(set: &Rc<TensorSet>, network: &str) -> Result<Tensors> {
    let mut tensors = Tensors::new();
    for (name, source, tensor) in wanted(set) {
        if network == "text_encoder" && is_other_half_of_clip(name) {
            continue;
        }
        let mut named = Named::new(set, source, tensor);
        let name = if network == "vae" { vae_attention(name, &mut named) } else { name.to_string() };
        insert(&mut tensors, format!("{network}.{name}"), named)?;
    }
    Ok(tensors)
}

/// A file's tensors that hold weights: name without `module.` prefix, name in the file, tensor.
pub fn wanted(set: &TensorSet) -> impl Iterator<Item = (&str, &str, &Tensor)> {
    set.names().filter_map(|source| {
        let name = strip(source);
        if is_ignored(name) { None } else { Some((name, source, set.get(source)?)) }
    })
}

/// Takes off the prefix that PyTorch's data-parallel wrappers leave.
pub fn strip(name: &str) -> &str {
    let mut name = name;
    while let Some(rest) = name.strip_prefix("module.") {
        name = rest;
    }
    name
}

/// Whether a tensor is known to be of no use: position tables that the graphs compute, moving averages, noise schedules
/// and leftovers of training.
fn is_ignored(name: &str) -> bool {
    const SCHEDULE: [&str; 15] = [
        "betas",
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "log_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
        "posterior_variance",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "posterior_mean_coef2",
        "logvar",
        "lvlb_weights",
        "scale_factor",
    ];
    name.ends_with("pos_encoder.pe")
        || name.ends_with("embeddings.position_ids")
        || name.starts_with("model_ema.")
        || name.starts_with("embedding_manager.")
        || name.starts_with("animatediff_config")
        || name.starts_with("first_stage_model.loss.")
        || SCHEDULE.contains(&name)
}

/// The parts of a whole CLIP that are no text encoder.
pub fn is_other_half_of_clip(name: &str) -> bool {
    name == "logit_scale"
        || name == "text_projection"
        || name.starts_with("text_projection.")
        || name.starts_with("visual_projection.")
        || name.starts_with("vision_model.")
}

/// Gives the VAE's attention its present names and matrices: it was called query, key, value, proj_attn, and is a 1×1
/// convolution in LDM files.
pub fn vae_attention(name: &str, tensor: &mut Named) -> String {
    const OLD: [(&str, &str); 4] =
        [(".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0.")];
    if !name.contains(".attentions.") {
        return name.to_string();
    }
    if let [out, inner, 1, 1] = tensor.shape[..] {
        tensor.shape = vec![out, inner];
    }
    match OLD.iter().find(|(old, _)| name.contains(old)) {
        Some((old, new)) => name.replacen(old, new, 1),
        None => name.to_string(),
    }
}
