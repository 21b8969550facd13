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
        let name = if network == "vae" { vae_attention(name, &mut named) } else { motion(name) };
        insert(&mut tensors, format!("{network}.{name}"), named)?;
    }
    Ok(tensors)
}

/// A file's tensors that hold weights: name without `module.` prefix, name in the file, tensor.
pub fn wanted(set: &TensorSet) -> impl Iterator<Item = (&str, &str, &Tensor)> {
    set.names().filter_map(|source| {
        let name = strip(source);
        if leftover(name).is_some() { None } else { Some((name, source, set.get(source)?)) }
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

/// The kind of a tensor that no network needs: tables that the graphs compute, moving averages, noise schedules and
/// leftovers of training.
fn leftover(name: &str) -> Option<&'static str> {
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
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    let ends = |suffixes: &[&str]| suffixes.iter().any(|suffix| name.ends_with(suffix));
    if ends(&["pos_encoder.pe", "pos_embed.pe", "embeddings.position_ids"]) {
        Some(POSITIONS)
    } else if starts(&["model_ema.", "first_stage_model.model_ema."]) {
        Some("moving averages (EMA)")
    } else if SCHEDULE.contains(&name) || starts(&["ddim_"]) {
        Some("noise schedule")
    } else if starts(&["first_stage_model.loss.", "loss."]) {
        Some("training loss")
    } else if starts(&["cond_stage_model.logit_scale", "cond_stage_model.text_projection"]) {
        Some("projection of CLIP")
    } else if starts(&["embedding_manager.", "safety_checker."]) {
        Some("parts of other programs")
    } else if starts(&["animatediff_config"]) {
        Some("configuration")
    } else {
        None
    }
}

const POSITIONS: &str = "position tables";

/// A sentence about the tensors of a file that are left out; none for those that the graphs compute themselves.
pub fn left_out(set: &TensorSet) -> Option<String> {
    let mut counts = BTreeMap::<&str, usize>::new();
    for kind in set.names().filter_map(|name| leftover(strip(name))).filter(|kind| *kind != POSITIONS) {
        *counts.entry(kind).or_default() += 1;
    }
    let counts: Vec<String> = counts.iter().map(|(kind, count)| format!("{count} of {kind}")).collect();
    let name = set.path().file_name().unwrap_or_default().display();
    (!counts.is_empty()).then(|| format!("{name}: tensors left out, which no clip depends on: {}", counts.join(", ")))
}

/// AnimateDiff's name of a weight in a motion module, from diffusers' (`MotionAdapter`) or its own.
pub fn motion(name: &str) -> String {
    const PARTS: [(&str, &str); 5] = [
        (".attn1.", ".attention_blocks.0."),
        (".attn2.", ".attention_blocks.1."),
        (".norm1.", ".norms.0."),
        (".norm2.", ".norms.1."),
        (".norm3.", ".ff_norm."),
    ];
    let Some((block, module)) = name.split_once(".motion_modules.") else { return name.to_string() };
    match module.split_once('.') {
        Some((number, rest)) if !rest.starts_with("temporal_transformer.") => {
            let rest = PARTS.iter().fold(rest.to_string(), |rest, (from, to)| rest.replacen(from, to, 1));
            format!("{block}.motion_modules.{number}.temporal_transformer.{rest}")
        }
        _ => name.to_string(),
    }
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
