//! Low-rank additions (LoRA): W += scale · up · down. Three namings occur: kohya's (`lora_unet_….lora_down.weight` with
//! `.alpha`), diffusers' (`unet.….to_q.lora_A.weight` and older), and AnimateDiff's, which is diffusers' oldest
//! (`….attn1.processor.to_q_lora.down.weight`).

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::rc::Rc;

use super::convert::to_f32;
use super::expected::listed;
use super::merge::Plan;
use super::names::{Named, motion, wanted};
use super::reader::TensorSet;
use crate::{Error, Result};

/// One low-rank addition to a weight.
#[derive(Debug, Clone)]
pub struct LowRank {
    down: Named,
    up: Named,
    factor: f32,
    rank: usize,
}

/// The additions of a file, by the bundle name of the weight they go to.
pub type LowRanks = BTreeMap<String, LowRank>;

#[derive(Clone, Copy)]
enum Part {
    Down,
    Up,
    Alpha,
}

const PARTS: [(&str, Part); 15] = [
    (".lora_down.weight", Part::Down),
    (".lora_up.weight", Part::Up),
    (".lora_A.weight", Part::Down),
    (".lora_B.weight", Part::Up),
    (".lora_A.default.weight", Part::Down),
    (".lora_B.default.weight", Part::Up),
    (".lora_linear_layer.down.weight", Part::Down),
    (".lora_linear_layer.up.weight", Part::Up),
    (".lora.down.weight", Part::Down),
    (".lora.up.weight", Part::Up),
    ("_lora.down.weight", Part::Down),
    ("_lora.up.weight", Part::Up),
    ("_lora.alpha", Part::Alpha),
    (".lora.alpha", Part::Alpha),
    (".alpha", Part::Alpha),
];

#[derive(Default)]
struct Found {
    down: Option<Named>,
    up: Option<Named>,
    alpha: Option<f32>,
}

/// Reads the additions of a LoRA, adapter or motion LoRA, for the weights of `plan`.
///
/// # Errors
/// When the file is none, a tensor belongs to no weight, or a shape does not fit.
pub fn open(path: &Path, scale: f32, plan: &Plan) -> Result<LowRanks> {
    if !scale.is_finite() {
        return Err(Error::input(format!("its scale is {scale}, a finite number is wanted")).with_path(path));
    }
    let set = Rc::new(TensorSet::open(path)?);
    let flat = flat_names(plan);
    let mut found: BTreeMap<String, Found> = BTreeMap::new();
    let mut unexpected = Vec::new();
    for (name, source, tensor) in wanted(&set) {
        let part = PARTS.iter().find_map(|(suffix, part)| Some((name.strip_suffix(suffix)?, *part)));
        let target = part.and_then(|(module, part)| Some((weight_name(module, plan, &flat)?, part)));
        let Some((target, part)) = target else {
            unexpected.push(source);
            continue;
        };
        let entry = found.entry(target).or_default();
        let named = Named::new(&set, source, tensor);
        let twice = match part {
            Part::Down => entry.down.replace(named).is_some(),
            Part::Up => entry.up.replace(named).is_some(),
            Part::Alpha => {
                let values = to_f32(&set.read(source)?, tensor.dtype).map_err(|e| e.with_path(path))?;
                let [alpha] = values[..] else {
                    return Err(Error::input(format!("'{source}' is not one number")).with_path(path));
                };
                entry.alpha.replace(alpha).is_some()
            }
        };
        if twice {
            return Err(Error::input(format!("'{source}' is there twice")).with_path(path));
        }
    }
    refuse_unexpected(&unexpected, found.is_empty(), plan, path)?;
    found.into_iter().map(|(name, parts)| Ok((name.clone(), low_rank(&name, parts, scale, plan, path)?))).collect()
}

fn low_rank(name: &str, found: Found, scale: f32, plan: &Plan, path: &Path) -> Result<LowRank> {
    let bad = |message: String| Error::input(message).with_path(path);
    let (Some(down), Some(up)) = (found.down, found.up) else {
        return Err(bad(format!("the addition to '{name}' lacks its up or its down half")));
    };
    let target = &plan[name].tensor.shape;
    let count = |shape: &[usize]| shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    let (output, rank) = (target[0], down.shape.first().copied().unwrap_or(0));
    let inputs = target[1..].iter().product::<usize>();
    let fits = rank > 0
        && up.shape.first() == Some(&output)
        && up.shape.get(1) == Some(&rank)
        && count(&up.shape) == output.checked_mul(rank)
        && count(&down.shape) == rank.checked_mul(inputs);
    if !fits {
        return Err(bad(format!(
            "the addition to '{name}' has shapes up {:?} and down {:?}, the weight has {target:?}; it was made for another \
             model",
            up.shape, down.shape
        )));
    }
    let factor = scale * found.alpha.map_or(1.0, |alpha| alpha / rank as f32);
    Ok(LowRank { down, up, factor, rank })
}

/// kohya's names of all weights, which have underscores for dots and so cannot be taken apart.
fn flat_names(plan: &Plan) -> HashMap<String, String> {
    plan.keys()
        .filter_map(|name| {
            let module = name.strip_suffix(".weight")?;
            let (prefix, module) = match module.strip_prefix("unet.") {
                Some(module) => ("lora_unet_", module),
                None => ("lora_te_", module.strip_prefix("text_encoder.")?),
            };
            Some((format!("{prefix}{}", module.replace('.', "_")), name.clone()))
        })
        .collect()
}

/// The bundle name of the weight that a module of a LoRA adds to.
fn weight_name(module: &str, plan: &Plan, flat: &HashMap<String, String>) -> Option<String> {
    if let Some(name) = flat.get(module) {
        return Some(name.clone());
    }
    let module = module.strip_prefix("base_model.model.").unwrap_or(module).replace(".processor.", ".");
    let module = if module.starts_with("unet.") || module.starts_with("text_encoder.") {
        module
    } else {
        format!("unet.{module}")
    };
    let module = motion(&format!("{module}.")).trim_end_matches('.').to_string();
    let output = if module.ends_with(".to_out") { ".0" } else { "" };
    let name = format!("{module}{output}.weight");
    // Norms have weights of one dimension, to which nothing of low rank can be added.
    plan.get(&name).filter(|weight| weight.tensor.shape.len() >= 2).map(|_| name)
}

fn refuse_unexpected(names: &[&str], nothing_fits: bool, plan: &Plan, path: &Path) -> Result<()> {
    const OTHER_KINDS: [(&str, &str); 5] = [
        (".hada_", "a LoHa"),
        (".lokr_", "a LoKr"),
        (".dora_scale", "a DoRA"),
        (".lora_mid.", "a LoCon with Tucker decomposition"),
        (".oft_", "an OFT"),
    ];
    let any = |part: &str| names.iter().any(|name| name.contains(part));
    let message = if let Some((_, kind)) = OTHER_KINDS.iter().find(|(mark, _)| any(mark)) {
        format!("this is {kind}, which is not supported; a plain LoRA is wanted")
    } else if any("lora_te1_") || any("lora_te2_") || any("text_encoder_2.") || any("lora_unet_input_blocks_") {
        "this is a LoRA for Stable Diffusion XL; only 1.x LoRAs work here".to_string()
    } else if any("mid_block.motion_modules.") && !plan.keys().any(|name| name.contains("mid_block.motion_modules.")) {
        "this is an AnimateDiff v2 motion LoRA: it needs a v2 module (mm_sd_v15_v2.ckpt), which has a middle block; the \
         motion module here has none"
            .to_string()
    } else if any(".motion_modules.") && !plan.keys().any(|name| name.contains(".motion_modules.")) {
        "this is a LoRA for motion modules, but no motion module was given".to_string()
    } else if nothing_fits {
        format!("this is no LoRA for this model: none of its {} tensors fits ({})", names.len(), listed(names))
    } else {
        return super::expected::none_unexpected(names, path);
    };
    Err(Error::input(message).with_path(path))
}

impl LowRank {
    /// Adds scale · up · down to a weight of shape [output, …], in float32.
    ///
    /// # Errors
    /// When a half cannot be read.
    pub fn add_to(&self, weight: &mut [f32]) -> Result<()> {
        let read = |half: &Named| {
            let dtype = half.set.get(&half.source).map(|t| t.dtype);
            let bytes = half.set.read(&half.source)?;
            to_f32(&bytes, dtype.unwrap_or(safetensors::Dtype::F32)).map_err(|e| e.with_path(half.set.path()))
        };
        let (down, up) = (read(&self.down)?, read(&self.up)?);
        let inputs = down.len() / self.rank;
        let mut sum = vec![0f32; inputs];
        for (row, up) in weight.chunks_exact_mut(inputs).zip(up.chunks_exact(self.rank)) {
            sum.fill(0.0);
            for (factor, down) in up.iter().zip(down.chunks_exact(inputs)) {
                sum.iter_mut().zip(down).for_each(|(s, d)| *s += factor * d);
            }
            row.iter_mut().zip(&sum).for_each(|(w, s)| *w += self.factor * s);
        }
        Ok(())
    }
}
