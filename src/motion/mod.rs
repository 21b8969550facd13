//! The motion representation: the strongest entries of a clip's temporal attention, and the file that keeps them.
//!
//! "Sparse temporal attention guidance" of MotionClone (arXiv 2406.05338): for each latent position, head and frame,
//! the attention over frames is reduced to its top k entries. They say how the clip moves and little of what it shows,
//! so one file serves any prompt and seed on the same model and size.

pub mod guidance;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use motionclone_onnx::manifest::Manifest;
use motionclone_onnx::model::config::ControlKind;
use motionclone_onnx::model::unet3d;
use motionclone_onnx::unfinished::Unfinished;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::settings::{Noise, Settings};

/// The format this library writes and the newest it reads.
const FORMAT: u32 = 1;
/// The one metadata key, so that the same motion is always the same bytes.
const METADATA: &str = "motion";
/// Frame indices are bytes.
const MAX_FRAMES: usize = 256;
/// Far above what 32 frames at 4096×4096 pixels need in the guided block of Stable Diffusion.
const MAX_FILE: u64 = 2 << 30;
const VALUE: &str = "value.";
const INDEX: &str = "index.";

/// The strongest entries of one temporal attention map.
#[derive(Debug, Clone, PartialEq)]
pub struct SparseAttention {
    /// Latent positions, row by row.
    pub positions: usize,
    /// Attention heads.
    pub heads: usize,
    /// Frames, which are both queries and keys.
    pub frames: usize,
    /// Entries kept per query.
    pub k: usize,
    /// Attention probabilities `[positions, heads, frames, k]`, strongest first.
    pub values: Vec<f32>,
    /// The key frame of each value, same shape; distinct within a query.
    pub indices: Vec<u8>,
}

impl SparseAttention {
    /// The top `k` entries over the last axis of attention probabilities `[positions, heads, frames, frames]`, as
    /// `torch.topk`; of equal entries the earlier frame comes first.
    ///
    /// # Errors
    /// When the shape is no such map, does not fit the number of values, or `k` is not 1 to `frames`.
    pub fn from_attention(attention: &[f32], shape: [usize; 4], k: usize) -> Result<Self> {
        let [positions, heads, frames, keys] = shape;
        if frames != keys || frames == 0 || frames > MAX_FRAMES || count(&shape) != Some(attention.len()) {
            return Err(Error::failure(format!("{} values are no attention map of shape {shape:?}", attention.len())));
        }
        if k == 0 || k > frames {
            return Err(Error::input(format!("top-k {k}: must be 1 to the number of frames, {frames}")));
        }
        let entries = positions * heads * frames * k;
        let (mut values, mut indices) = (Vec::with_capacity(entries), Vec::with_capacity(entries));
        let mut order: Vec<u8> = Vec::with_capacity(frames);
        for row in attention.chunks_exact(frames) {
            order.clear();
            order.extend((0..frames).map(|frame| frame as u8));
            // A stable sort keeps equal entries in order of frames; NaN counts as largest, as in PyTorch.
            order.sort_by(|a, b| {
                let (a, b) = (row[usize::from(*a)], row[usize::from(*b)]);
                b.partial_cmp(&a).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
            });
            values.extend(order[..k].iter().map(|frame| row[usize::from(*frame)]));
            indices.extend_from_slice(&order[..k]);
        }
        Ok(Self { positions, heads, frames, k, values, indices })
    }

    /// `[positions, heads, frames, k]`.
    pub fn shape(&self) -> [usize; 4] {
        [self.positions, self.heads, self.frames, self.k]
    }

    /// For each kept entry: where it lies in the flat dense map `[positions, heads, frames, frames]`, and its value.
    pub fn entries(&self) -> impl Iterator<Item = (usize, f32)> {
        let (k, frames) = (self.k.max(1), self.frames);
        let place = move |(entry, index): (usize, &u8)| (entry / k) * frames + usize::from(*index);
        self.indices.iter().enumerate().map(place).zip(self.values.iter().copied())
    }

    /// Says what is wrong with data that came from elsewhere.
    fn check(&self) -> Result<(), String> {
        let Self { frames, k, .. } = *self;
        if !(2..=MAX_FRAMES).contains(&frames) || k == 0 || k > frames || self.positions == 0 || self.heads == 0 {
            return Err(format!("has the impossible shape {:?} (positions, heads, frames, k)", self.shape()));
        }
        if count(&self.shape()) != Some(self.values.len()) || self.indices.len() != self.values.len() {
            return Err(format!("has {} values and {} indices for its shape", self.values.len(), self.indices.len()));
        }
        if let Some(value) = self.values.iter().find(|v| !(0.0..=1.001).contains(*v)) {
            return Err(format!("has the value {value}; an attention probability lies between 0 and 1"));
        }
        for row in self.indices.chunks_exact(k) {
            if let Some(index) = row.iter().find(|index| usize::from(**index) >= frames) {
                return Err(format!("points at frame {index}; the clip has frames 0 to {}", frames - 1));
            }
            if row.iter().enumerate().any(|(at, index)| row[..at].contains(index)) {
                return Err("keeps one frame twice".into());
            }
        }
        Ok(())
    }
}

/// How a motion was extracted: what a run must share with it, and where it came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MotionInfo {
    /// [`Manifest::fingerprint`] of the model.
    pub fingerprint: String,
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// Frames.
    pub frames: usize,
    /// Timestep of extraction.
    pub noise_step: usize,
    /// Guided blocks, such as `up_blocks.1`.
    pub blocks: Vec<String>,
    /// Attention entries kept per query.
    pub top_k: usize,
    /// SparseCtrl during extraction, in runs with a picture or a sketch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<MotionControl>,
    /// Seed of the extraction's noise; any run may use the motion, whatever its own seed.
    pub seed: u64,
    /// Whose noise.
    #[serde(default)]
    pub noise: Noise,
    /// Hash of the source clip's frames, in hexadecimal.
    pub clip_hash: String,
}

/// How SparseCtrl was conditioned on the clip's own frames during extraction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MotionControl {
    /// Picture or sketch.
    pub kind: ControlKind,
    /// Strength.
    pub scale: f64,
    /// The frames given as condition, ascending.
    pub frames: Vec<usize>,
}

impl MotionControl {
    /// Whether two extractions were conditioned alike; the scale may have lost its last bit on the way through a file.
    fn same(&self, other: &Self) -> bool {
        (self.kind, &self.frames) == (other.kind, &other.frames) && (self.scale - other.scale).abs() <= 1e-9
    }
}

impl MotionInfo {
    /// What a run with these settings extracts from a clip with the hash `clip_hash`.
    pub fn new(manifest: &Manifest, settings: &Settings, clip_hash: impl Into<String>) -> Self {
        let control = settings.control.as_ref().map(|control| {
            let mut frames: Vec<usize> = control.images.iter().map(|(_, frame)| *frame).collect();
            frames.sort_unstable();
            MotionControl { kind: control.kind, scale: settings.control_scale, frames }
        });
        Self {
            fingerprint: manifest.fingerprint.clone(),
            width: settings.width,
            height: settings.height,
            frames: settings.frames,
            noise_step: settings.noise_step,
            blocks: settings.blocks.clone(),
            top_k: settings.top_k,
            control,
            seed: settings.seed,
            noise: settings.noise,
            clip_hash: clip_hash.into(),
        }
    }
}

/// What the file's metadata holds.
#[derive(Serialize)]
struct Header<'a> {
    format: u32,
    #[serde(flatten)]
    info: &'a MotionInfo,
}

/// The one thing that every format's metadata has.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// The motion of the frames that the UNet reads at once: one sparse map per guided temporal attention, by the attention
/// module's name, such as
/// `up_blocks.1.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0`.
pub type MotionMaps = BTreeMap<String, SparseAttention>;

/// A clip's motion.
#[derive(Debug, Clone, PartialEq)]
pub struct Motion {
    /// Its attention.
    pub maps: MotionMaps,
    /// How it was extracted.
    pub info: MotionInfo,
}

impl Motion {
    /// Writes the motion as a safetensors file, beside and then renamed: for each map `value.NAME` (F32) and
    /// `index.NAME` (U8) of shape `[positions, heads, frames, k]`, and under the metadata key `motion` its
    /// [`MotionInfo`] as JSON with a `format` number.
    ///
    /// # Errors
    /// When the maps hold anything but finite probabilities, or the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        self.check_maps().map_err(|what| Error::failure(format!("the extracted motion {what}")).with_path(path))?;
        let header = serde_json::to_string(&Header { format: FORMAT, info: &self.info })
            .map_err(|e| Error::failure(e.to_string()).with_path(path))?;
        let metadata = HashMap::from([(METADATA.into(), header)]);
        let little_endian: BTreeMap<&String, Vec<u8>> = self
            .maps
            .iter()
            .map(|(name, map)| (name, map.values.iter().flat_map(|value| value.to_le_bytes()).collect()))
            .collect();
        let mut views = Vec::with_capacity(2 * self.maps.len());
        for (name, map) in &self.maps {
            let shape = map.shape().to_vec();
            views.push((format!("{VALUE}{name}"), TensorView::new(Dtype::F32, shape.clone(), &little_endian[name])));
            views.push((format!("{INDEX}{name}"), TensorView::new(Dtype::U8, shape, &map.indices)));
        }
        let fail = |e: safetensors::SafeTensorError| Error::failure(e.to_string()).with_path(path);
        let views: Vec<_> =
            views.into_iter().map(|(name, view)| Ok((name, view.map_err(fail)?))).collect::<Result<_>>()?;
        let bytes = safetensors::serialize(views, Some(metadata)).map_err(fail)?;

        let file = Unfinished::file(path).map_err(|e| Error::io(path, e))?;
        std::fs::write(file.path(), bytes).and_then(|()| file.finish()).map_err(|e| Error::io(path, e))
    }

    /// Reads a motion file and checks all that it says.
    ///
    /// # Errors
    /// When the file is missing, larger than 2 GiB, or no motion file that this library understands: its header, its
    /// tensors' types and shapes, its values and its indices.
    pub fn load(path: &Path) -> Result<Self> {
        let size = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
        if size > MAX_FILE {
            return Err(Error::input(format!("{size} bytes: a motion file has at most {MAX_FILE}")).with_path(path));
        }
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        Self::parse(&bytes).map_err(|what| Error::input(format!("not a usable motion file: it {what}")).with_path(path))
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let no_safetensors = |e| format!("is not valid safetensors ({e})");
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(no_safetensors)?;
        let metadata = header.metadata().as_ref().and_then(|m| m.get(METADATA)).ok_or("has no motion metadata")?;
        let unreadable = |e| format!("has unreadable metadata ({e})");
        let Format { format } = serde_json::from_str(metadata).map_err(unreadable)?;
        if format > FORMAT {
            return Err(format!("has the format {format}, newer than this library's {FORMAT}; update motionclone"));
        }
        let info: MotionInfo = serde_json::from_str(metadata).map_err(unreadable)?;

        let tensors = SafeTensors::deserialize(bytes).map_err(no_safetensors)?;
        let mut maps = BTreeMap::new();
        for (name, value) in tensors.iter() {
            let Some(name) = name.strip_prefix(VALUE) else { continue };
            let index = tensors.tensor(&format!("{INDEX}{name}")).map_err(|_| format!("has no {INDEX}{name}"))?;
            if value.dtype() != Dtype::F32 || index.dtype() != Dtype::U8 {
                return Err(format!("has {name} as {:?} and {:?}, not as F32 and U8", value.dtype(), index.dtype()));
            }
            let &[positions, heads, frames, k] = value.shape() else {
                return Err(format!("has {name} in the shape {:?}, which has not 4 axes", value.shape()));
            };
            if index.shape() != value.shape() {
                return Err(format!("has {name} in two shapes, {:?} and {:?}", value.shape(), index.shape()));
            }
            let values = value.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
            let indices = index.data().to_vec();
            maps.insert(name.to_string(), SparseAttention { positions, heads, frames, k, values, indices });
        }
        if tensors.len() != 2 * maps.len() {
            return Err("has tensors that belong to no map".into());
        }
        let motion = Self { maps, info };
        motion.check_maps().map(|()| motion)
    }

    /// Says what is wrong with the maps in themselves, or with how they fit the info.
    fn check_maps(&self) -> Result<(), String> {
        if self.maps.is_empty() {
            return Err("holds no attention map".into());
        }
        for (name, map) in &self.maps {
            map.check().map_err(|what| format!("is damaged: {name} {what}"))?;
            if (map.frames, map.k) != (self.info.frames, self.info.top_k) {
                return Err(format!(
                    "is damaged: {name} has {} frames and top-k {}, its info {} and {}",
                    map.frames, map.k, self.info.frames, self.info.top_k
                ));
            }
        }
        Ok(())
    }

    /// Checks that a run with this model and these settings can follow the motion. Prompts, seed, steps and guidance
    /// are free.
    ///
    /// # Errors
    /// The first thing that does not fit: model, size, frames, blocks, noise step, top-k, SparseCtrl, or the maps
    /// themselves.
    pub fn check(&self, manifest: &Manifest, settings: &Settings) -> Result<()> {
        let run = MotionInfo::new(manifest, settings, "");
        let own = &self.info;
        let fail = |what: &str, own: String, run: String| {
            Err(Error::input(format!(
                "this motion was extracted with {what} {own}, the run has {run}; extract it again or change the run"
            )))
        };
        if own.fingerprint != run.fingerprint {
            return Err(Error::input(format!(
                "this motion belongs to another model (fingerprint {}) than {} (fingerprint {}); extract it again",
                short(&own.fingerprint),
                manifest.name,
                short(&run.fingerprint)
            )));
        }
        if (own.width, own.height) != (run.width, run.height) {
            let size = |info: &MotionInfo| format!("{}x{}", info.width, info.height);
            return fail("size", size(own), size(&run));
        }
        for (what, own, run) in [
            ("a frame count of", own.frames, run.frames),
            ("noise step", own.noise_step, run.noise_step),
            ("top-k", own.top_k, run.top_k),
        ] {
            if own != run {
                return fail(what, own.to_string(), run.to_string());
            }
        }
        let blocks = |info: &MotionInfo| info.blocks.iter().cloned().collect::<BTreeSet<String>>();
        if blocks(own) != blocks(&run) {
            return fail("blocks", own.blocks.join(", "), run.blocks.join(", "));
        }
        let same_control = match (&own.control, &run.control) {
            (Some(own), Some(run)) => own.same(run),
            (own, run) => own.is_none() && run.is_none(),
        };
        if !same_control {
            return fail("SparseCtrl", describe(own.control.as_ref()), describe(run.control.as_ref()));
        }
        let expected = guided_maps(manifest, &settings.blocks, settings.width, settings.height)?;
        for (name, [positions, heads]) in &expected {
            match self.maps.get(name) {
                None => return Err(Error::input(format!("this motion lacks the attention map {name}"))),
                Some(map) if (map.positions, map.heads) != (*positions, *heads) => {
                    let (own, run) = ([map.positions, map.heads], [positions, heads]);
                    return fail(&format!("in {name}, positions and heads"), format!("{own:?}"), format!("{run:?}"));
                }
                Some(_) => {}
            }
        }
        if let Some(name) = self.maps.keys().find(|name| !expected.contains_key(*name)) {
            return Err(Error::input(format!("this motion has an attention map {name}, which the run does not guide")));
        }
        Ok(())
    }
}

fn short(fingerprint: &str) -> String {
    fingerprint.chars().take(12).collect()
}

fn describe(control: Option<&MotionControl>) -> String {
    control.map_or("off".into(), |c| {
        let frames: Vec<String> = c.frames.iter().map(usize::to_string).collect();
        format!("{} at scale {} on frame {}", c.kind.name(), c.scale, frames.join(", "))
    })
}

/// Number of elements of a shape, unless it overflows.
fn count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size))
}

/// The temporal attention maps that a run guides: module name → `[positions, heads]`.
///
/// # Errors
/// When a block is no block of the model, or has no motion modules.
pub fn guided_maps(
    manifest: &Manifest,
    blocks: &[String],
    width: usize,
    height: usize,
) -> Result<BTreeMap<String, [usize; 2]>> {
    let unit = manifest.vae.downscale();
    let heads = manifest.unet.motion.as_ref().map_or(0, |motion| motion.heads);
    let modules = unet3d::guided_modules(&manifest.unet, blocks, height / unit, width / unit)?;
    Ok(modules.into_iter().map(|(name, positions)| (name, [positions, heads])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::frames::Frames;
    use crate::settings::Control;

    /// A model of four levels with motion modules of two attentions and eight heads, as Stable Diffusion 1.5 has them.
    fn manifest() -> Manifest {
        serde_json::from_value(serde_json::json!({
            "format": 1, "name": "test", "fingerprint": "0123456789abcdef", "sources": [],
            "text_encoder": {
                "vocab_size": 7, "hidden_size": 8, "intermediate_size": 8, "layers": 1, "heads": 1, "max_positions": 77,
                "layer_norm_eps": 1e-5, "activation": "quick_gelu"
            },
            "vae": {
                "image_channels": 3, "latent_channels": 4, "block_out_channels": [8, 8, 8, 8], "layers_per_block": 2,
                "norm_num_groups": 8, "scaling_factor": 0.18215
            },
            "unet": {
                "in_channels": 4, "out_channels": 4, "block_out_channels": [8, 8, 8, 8],
                "down_attention": [true, true, true, false], "up_attention": [false, true, true, true],
                "layers_per_block": 2, "attention_heads": [8, 8, 8, 8], "cross_attention_dim": 8,
                "norm_num_groups": 8, "norm_eps": 1e-5, "flip_sin_to_cos": true, "freq_shift": 0.0,
                "motion": {
                    "levels": [true, true, true, false], "mid_block": false, "heads": 8, "transformer_blocks": 1,
                    "attention_blocks": 2, "max_frames": 32
                }
            },
            "adapter": false, "controls": {},
            "schedule": { "train_steps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "linear" },
            "defaults": {}
        }))
        .unwrap()
    }

    fn settings() -> Settings {
        let mut settings = Settings::new(&manifest().defaults, "a prompt");
        (settings.width, settings.height, settings.frames, settings.top_k) = (96, 160, 4, 2);
        settings
    }

    /// Softmax-like rows, none alike.
    fn attention(positions: usize, heads: usize, frames: usize) -> Vec<f32> {
        let rows = positions * heads * frames;
        (0..rows)
            .flat_map(|row| {
                let raw: Vec<f32> = (0..frames).map(|f| 1.0 + ((row * 7 + f * 5) % 11) as f32).collect();
                let sum: f32 = raw.iter().sum();
                raw.into_iter().map(move |value| value / sum)
            })
            .collect()
    }

    fn motion(settings: &Settings) -> Motion {
        let manifest = manifest();
        let maps = guided_maps(&manifest, &settings.blocks, settings.width, settings.height).unwrap();
        let maps = maps.into_iter().map(|(name, [positions, heads])| {
            let shape = [positions, heads, settings.frames, settings.frames];
            let dense = attention(positions, heads, settings.frames);
            (name, SparseAttention::from_attention(&dense, shape, settings.top_k).unwrap())
        });
        Motion { maps: maps.collect(), info: MotionInfo::new(&manifest, settings, "c0ffee") }
    }

    #[test]
    fn top_k_is_sorted_and_earlier_frames_win_ties() {
        let rows = [0.1, 0.4, 0.4, 0.1, 0.2, f32::NAN, 0.3, 0.5, 0.25, 0.25, 0.25, 0.25, 0.0, 0.9, 0.0, 0.1];
        let sparse = SparseAttention::from_attention(&rows, [1, 1, 4, 4], 3).unwrap();
        assert_eq!(sparse.indices, [1, 2, 0, 1, 3, 2, 0, 1, 2, 1, 3, 0]);
        assert_eq!(sparse.values[..3], [0.4, 0.4, 0.1]);
        assert!(sparse.values[3].is_nan() && sparse.values[4..] == [0.5, 0.3, 0.25, 0.25, 0.25, 0.9, 0.1, 0.0]);
        let places: Vec<usize> = sparse.entries().map(|(place, _)| place).collect();
        assert_eq!(places, [1, 2, 0, 5, 7, 6, 8, 9, 10, 13, 15, 12]);
        for (shape, k) in
            [([1, 1, 4, 4], 0), ([1, 1, 4, 4], 5), ([1, 2, 4, 4], 1), ([1, 1, 4, 2], 1), ([2, usize::MAX, 4, 4], 1)]
        {
            assert!(SparseAttention::from_attention(&rows, shape, k).is_err());
        }
        assert!(SparseAttention::from_attention(&[], [0, 8, 300, 300], 1).is_err());
    }

    #[test]
    fn guided_maps_are_those_of_the_named_blocks() {
        let maps = |blocks: &[&str]| {
            guided_maps(&manifest(), &blocks.iter().map(|b| (*b).to_string()).collect::<Vec<_>>(), 512, 512)
        };
        let published = maps(&["up_blocks.1"]).unwrap();
        assert_eq!(published.len(), 6);
        assert!(published.values().all(|shape| *shape == [256, 8]));
        let name = "up_blocks.1.motion_modules.2.temporal_transformer.transformer_blocks.0.attention_blocks.1";
        assert!(published.contains_key(name));
        assert_eq!(maps(&["down_blocks.0", "up_blocks.2"]).unwrap().len(), 4 + 6);
        // 12×20 latents are 6×10, then 3×5 positions.
        let odd = guided_maps(&manifest(), &["up_blocks.1".into()], 96, 160).unwrap();
        assert!(odd.values().all(|shape| *shape == [15, 8]));
        for block in ["up_blocks.0", "up_blocks.4", "up_blocks.01", "up_blocks.18446744073709551615", "mid_block", ""] {
            let message = maps(&[block]).unwrap_err().to_string();
            assert!(
                message.contains("down_blocks.0, down_blocks.1, down_blocks.2, up_blocks.1, up_blocks.2, up_blocks.3")
            );
        }
        assert!(maps(&[]).is_err());
    }

    #[test]
    fn a_motion_survives_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let (path, again) = (folder.path().join("motion.safetensors"), folder.path().join("again.safetensors"));
        let mut settings = settings();
        settings.seed = u64::MAX;
        let image = Frames { width: 1, height: 1, data: vec![0; 3] };
        let images = vec![(image.clone(), 3), (image, 0)];
        settings.control = Some(Control { kind: ControlKind::Scribble, images });
        settings.control_scale = 0.1 + 0.2;
        let motion = motion(&settings);
        motion.save(&path).unwrap();
        let loaded = Motion::load(&path).unwrap();
        assert_eq!(loaded.maps, motion.maps);
        loaded.check(&manifest(), &settings).unwrap();
        loaded.save(&again).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&again).unwrap());
        assert!(motion.save(&folder.path().join("nowhere/motion.safetensors")).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_run_that_does_not_fit_is_refused() {
        let motion = motion(&settings());
        let check = |change: &dyn Fn(&mut Settings)| {
            let mut settings = settings();
            change(&mut settings);
            motion.check(&manifest(), &settings).map_err(|e| e.to_string())
        };
        check(&|s| {
            (s.prompt, s.seed, s.steps, s.motion_weight) = ("another".into(), 7, 9, 1.0);
        })
        .unwrap();
        let refused = |change: &dyn Fn(&mut Settings), words: &str| {
            let message = check(change).unwrap_err();
            assert!(message.contains(words), "{message}");
        };
        refused(&|s| s.width = 512, "size 96x160, the run has 512x160");
        refused(&|s| s.frames = 8, "frame count of 4, the run has 8");
        refused(&|s| s.noise_step = 300, "noise step 400, the run has 300");
        refused(&|s| s.top_k = 1, "top-k 2, the run has 1");
        refused(&|s| s.blocks.push("up_blocks.2".into()), "the run has up_blocks.1, up_blocks.2");
        let image = Frames { width: 1, height: 1, data: vec![0; 3] };
        let control = Control { kind: ControlKind::Rgb, images: vec![(image, 2)] };
        refused(&|s| s.control = Some(control.clone()), "SparseCtrl off, the run has rgb at scale 1 on frame 2");

        let mut other = manifest();
        other.fingerprint = "fedcba9876543210".into();
        assert!(motion.check(&other, &settings()).unwrap_err().to_string().contains("another model"));
        let mut fewer_heads = manifest();
        fewer_heads.unet.motion.as_mut().unwrap().heads = 4;
        assert!(motion.check(&fewer_heads, &settings()).unwrap_err().to_string().contains("positions and heads"));
        let mut lacking = motion.clone();
        lacking.maps.pop_last();
        assert!(lacking.check(&manifest(), &settings()).unwrap_err().to_string().contains("lacks"));
    }

    #[test]
    fn damaged_maps_are_neither_saved_nor_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("motion.safetensors");
        let whole = motion(&settings());
        type Damage = fn(&mut SparseAttention);
        let damages: [(Damage, &str); 6] = [
            (|map| map.values[3] = f32::NAN, "NaN"),
            (|map| map.values[0] = -0.5, "-0.5"),
            (|map| map.indices[5] = 4, "frame 4"),
            (|map| map.indices[1] = map.indices[0], "twice"),
            (|map| map.positions = 14, "values"),
            (|map| (map.k, map.frames) = (1, 8), "frames"),
        ];
        for (damage, words) in damages {
            let mut motion = whole.clone();
            damage(motion.maps.values_mut().next().unwrap());
            let message = motion.save(&path).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
        assert!(!path.exists());

        whole.save(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        // A byte of an index becomes a frame that is not there, the header lies, the file is cut short.
        let mut wrong_index = bytes.clone();
        *wrong_index.last_mut().unwrap() = 200;
        let header = String::from_utf8_lossy(&bytes).find("[15,8,4,2]").unwrap();
        let mut wrong_shape = bytes.clone();
        wrong_shape[header + 1..header + 3].copy_from_slice(b"16");
        let newer = bytes.windows(12).position(|w| w == br#"\"format\":1"#).unwrap();
        let mut newer_format = bytes.clone();
        newer_format[newer + 11] = b'2';
        let mut huge_header = bytes.clone();
        huge_header[..8].fill(0xff);
        let cases: [&[u8]; 7] =
            [&wrong_index, &wrong_shape, &newer_format, &huge_header, &bytes[..bytes.len() - 1], &bytes[..5], b""];
        for (case, damaged) in cases.into_iter().enumerate() {
            std::fs::write(&path, damaged).unwrap();
            let error = Motion::load(&path).expect_err(&format!("case {case}"));
            assert!(error.is_input() && error.to_string().contains("motion file"), "{error}");
        }
        std::fs::File::create(&path).unwrap().set_len(MAX_FILE + 1).unwrap();
        assert!(Motion::load(&path).unwrap_err().to_string().contains("at most"));
    }
}
