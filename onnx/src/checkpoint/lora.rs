//! LoRAs and their kin, LyCORIS' LoHa, LoKr, DoRA, full differences and norms. Four namings occur: kohya's
//! (`lora_unet_….lora_down.weight` with `.alpha`), diffusers' and PEFT's (`unet.….to_q.lora_A.weight` and older), ComfyUI's
//! (LDM's names behind `diffusion_model.`), and AnimateDiff's, which is diffusers' oldest
//! (`….attn1.processor.to_q_lora.down.weight`).

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::rc::Rc;

use super::addition::{Addition, Delta, Factor};
use super::convert::to_f32;
use super::expected::listed;
use super::ldm;
use super::merge::Plan;
use super::names::{Named, motion, wanted};
use super::reader::TensorSet;
use crate::{Error, Result};

/// The additions of a file, by the bundle name of the weight they go to.
pub type Additions = BTreeMap<String, Addition>;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Down,
    Up,
    Mid,
    Alpha,
    Magnitude,
    Full,
    FullBias,
    /// LoHa: two products, each of two halves and perhaps a core.
    Hada(usize, Half),
    /// LoKr: two matrices, each whole or a product.
    Lokr(usize, Half),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Half {
    Whole,
    A,
    B,
    Core,
}

const PARTS: [(&str, Part); 39] = [
    (".lora_down.weight", Part::Down),
    (".lora_up.weight", Part::Up),
    (".lora_mid.weight", Part::Mid),
    (".lora_A.weight", Part::Down),
    (".lora_B.weight", Part::Up),
    (".lora_A.default.weight", Part::Down),
    (".lora_B.default.weight", Part::Up),
    (".lora_A", Part::Down),
    (".lora_B", Part::Up),
    (".lora_linear_layer.down.weight", Part::Down),
    (".lora_linear_layer.up.weight", Part::Up),
    (".lora.down.weight", Part::Down),
    (".lora.up.weight", Part::Up),
    ("_lora.down.weight", Part::Down),
    ("_lora.up.weight", Part::Up),
    ("_lora.alpha", Part::Alpha),
    (".lora.alpha", Part::Alpha),
    (".alpha", Part::Alpha),
    (".dora_scale", Part::Magnitude),
    (".lora_magnitude_vector.default.weight", Part::Magnitude),
    (".lora_magnitude_vector.weight", Part::Magnitude),
    (".lora_magnitude_vector", Part::Magnitude),
    (".diff", Part::Full),
    (".w_norm", Part::Full),
    (".diff_b", Part::FullBias),
    (".b_norm", Part::FullBias),
    (".hada_w1_a", Part::Hada(0, Half::A)),
    (".hada_w1_b", Part::Hada(0, Half::B)),
    (".hada_t1", Part::Hada(0, Half::Core)),
    (".hada_w2_a", Part::Hada(1, Half::A)),
    (".hada_w2_b", Part::Hada(1, Half::B)),
    (".hada_t2", Part::Hada(1, Half::Core)),
    (".lokr_w1", Part::Lokr(0, Half::Whole)),
    (".lokr_w1_a", Part::Lokr(0, Half::A)),
    (".lokr_w1_b", Part::Lokr(0, Half::B)),
    (".lokr_w2", Part::Lokr(1, Half::Whole)),
    (".lokr_w2_a", Part::Lokr(1, Half::A)),
    (".lokr_w2_b", Part::Lokr(1, Half::B)),
    (".lokr_t2", Part::Lokr(1, Half::Core)),
];

/// The tensors about one weight.
#[derive(Default)]
struct Found {
    parts: BTreeMap<Part, Named>,
    alpha: Option<f32>,
}

/// Reads the additions of a LoRA, adapter or motion LoRA, for the weights of `plan`.
///
/// # Errors
/// When the file is none, a tensor belongs to no weight, or a shape does not fit.
pub fn open(path: &Path, scale: f32, plan: &Plan) -> Result<Additions> {
    if !scale.is_finite() {
        return Err(Error::input(format!("its scale is {scale}, a finite number is wanted")).with_path(path));
    }
    let set = Rc::new(TensorSet::open(path)?);
    let flat = flat_names(plan);
    let mut found: BTreeMap<String, Found> = BTreeMap::new();
    let mut unexpected = Vec::new();
    for (name, source, tensor) in wanted(&set) {
        let part = PARTS.iter().find_map(|(suffix, part)| Some((name.strip_suffix(suffix)?, *part)));
        let target = part.and_then(|(module, part)| Some((weight_name(module, part, plan, &flat)?, part)));
        let Some((target, part)) = target else {
            unexpected.push(source);
            continue;
        };
        let entry = found.entry(target).or_default();
        let named = Named::new(&set, source, tensor);
        let twice = if part == Part::Alpha {
            let values = to_f32(&set.read(source)?, tensor.dtype).map_err(|e| e.with_path(path))?;
            let [alpha] = values[..] else {
                return Err(Error::input(format!("'{source}' is not one number")).with_path(path));
            };
            entry.alpha.replace(alpha).is_some()
        } else {
            entry.parts.insert(part, named).is_some()
        };
        if twice {
            return Err(Error::input(format!("'{source}' is there twice")).with_path(path));
        }
    }
    refuse_unexpected(&unexpected, found.is_empty(), plan, path)?;
    found.into_iter().map(|(name, parts)| Ok((name.clone(), addition(&name, parts, scale, plan, path)?))).collect()
}

fn addition(name: &str, mut found: Found, scale: f32, plan: &Plan, path: &Path) -> Result<Addition> {
    let bad = |message: String| Error::input(message).with_path(path);
    let shapes: Vec<String> = found.parts.values().map(|part| format!("{:?}", part.shape)).collect();
    let magnitude = found.parts.remove(&Part::Magnitude);
    let lacking = || bad(format!("the addition to '{name}' lacks its up or its down half"));
    let delta = found.delta().ok_or_else(lacking)?;
    if !found.parts.is_empty() {
        return Err(bad(format!("the addition to '{name}' is of two kinds at once")));
    }
    let factor = match (found.alpha, delta.rank()) {
        (Some(alpha), Some(rank)) => alpha / rank as f32,
        _ => 1.0,
    };
    let target = &plan[name].tensor.shape;
    let addition = Addition { delta, factor, scale, magnitude };
    if !addition.fits(target) {
        return Err(bad(format!(
            "the addition to '{name}' has tensors of shapes {}, the weight has {target:?}; it was made for another model",
            shapes.join(", ")
        )));
    }
    Ok(addition)
}

impl Found {
    /// The difference that the tensors make, taking them out; nothing when some are missing.
    fn delta(&mut self) -> Option<Delta> {
        if let Some(whole) = self.take(Part::Full).or_else(|| self.take(Part::FullBias)) {
            return Some(Delta::Plain(Factor::Whole(whole)));
        }
        if let Some(up) = self.take(Part::Up) {
            let down = self.take(Part::Down)?;
            let core = self.take(Part::Mid);
            return Some(Delta::Plain(factor(up, core, down, false)));
        }
        if self.parts.keys().any(|part| matches!(part, Part::Hada(..))) {
            return Some(Delta::Hadamard(
                self.factor(|half| Part::Hada(0, half))?,
                self.factor(|half| Part::Hada(1, half))?,
            ));
        }
        Some(Delta::Kronecker(self.factor(|half| Part::Lokr(0, half))?, self.factor(|half| Part::Lokr(1, half))?))
    }

    fn take(&mut self, part: Part) -> Option<Named> {
        self.parts.remove(&part)
    }

    fn factor(&mut self, part: impl Fn(Half) -> Part) -> Option<Factor> {
        if let Some(whole) = self.take(part(Half::Whole)) {
            return Some(Factor::Whole(whole));
        }
        let (up, down) = (self.take(part(Half::A))?, self.take(part(Half::B))?);
        Some(factor(up, self.take(part(Half::Core)), down, true))
    }
}

fn factor(up: Named, core: Option<Named>, down: Named, transposed: bool) -> Factor {
    match core {
        Some(core) => Factor::Tucker { up, core, down, transposed },
        None => Factor::Product { up, down },
    }
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

/// The bundle name of the weight that a part of a module's addition goes to.
fn weight_name(module: &str, part: Part, plan: &Plan, flat: &HashMap<String, String>) -> Option<String> {
    let name = flat.get(module).cloned().unwrap_or_else(|| spelt_weight_name(module));
    if part == Part::FullBias {
        let name = format!("{}.bias", name.strip_suffix(".weight")?);
        return plan.contains_key(&name).then_some(name);
    }
    // Norms have weights of one dimension, to which nothing of low rank can be added.
    let any = matches!(part, Part::Full | Part::Alpha);
    plan.get(&name).filter(|weight| any || weight.tensor.shape.len() >= 2).map(|_| name)
}

/// The bundle name of a module's weight where the module is spelt with dots.
fn spelt_weight_name(module: &str) -> String {
    /// Blocks of a level in every Stable Diffusion 1.
    const LAYERS: usize = 2;
    let module = module.strip_prefix("base_model.model.").unwrap_or(module).replace(".processor.", ".");
    // ComfyUI's names: LDM's UNet, and the text encoder by its kind.
    if let Some(name) = module.strip_prefix("diffusion_model.").and_then(|m| ldm::unet(&format!("{m}.weight"), LAYERS))
    {
        return format!("unet.{name}");
    }
    let clip = module.strip_prefix("text_encoders.").unwrap_or(&module).strip_prefix("clip_l.transformer.");
    let module = match clip {
        Some(module) => format!("text_encoder.{module}"),
        None if module.starts_with("unet.") || module.starts_with("text_encoder.") => module,
        None => format!("unet.{module}"),
    };
    let module = motion(&format!("{module}.")).trim_end_matches('.').to_string();
    let output = if module.ends_with(".to_out") { ".0" } else { "" };
    format!("{module}{output}.weight")
}

fn refuse_unexpected(names: &[&str], nothing_fits: bool, plan: &Plan, path: &Path) -> Result<()> {
    const OTHER_KINDS: [(&str, &str); 3] = [(".b1.weight", "a GLoRA"), (".oft_", "an OFT"), (".boft_", "a BOFT")];
    let any = |part: &str| names.iter().any(|name| name.contains(part));
    let message = if let Some((_, kind)) = OTHER_KINDS.iter().find(|(mark, _)| any(mark)) {
        format!("this is {kind}, which is not supported; LoRA, LoCon, LoHa, LoKr and DoRA are")
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
