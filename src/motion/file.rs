//! The file of a motion.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use motionclone_onnx::unfinished::Unfinished;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};

use super::sparse::SparseAttention;
use super::{Motion, MotionInfo};
use crate::error::{Error, Result};

/// The format this library writes and the newest it reads.
const FORMAT: u32 = 1;
/// The one metadata key, so that the same motion is always the same bytes.
const METADATA: &str = "motion";
/// Far above what 32 frames at 4096×4096 pixels need in the guided block of Stable Diffusion.
const MAX_FILE: u64 = 2 << 30;
const VALUE: &str = "value.";
const INDEX: &str = "index.";

/// The file's metadata.
#[derive(Serialize)]
struct Header<'a> {
    format: u32,
    #[serde(flatten)]
    info: &'a MotionInfo,
}

/// What every format's metadata has.
#[derive(Deserialize)]
struct Format {
    format: u32,
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

    /// Checks the maps in themselves and against the info; the error says what is wrong.
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
}

#[cfg(test)]
mod tests {
    use motionclone_onnx::model::config::ControlKind;

    use super::super::testing::{manifest, motion, settings};
    use super::*;
    use crate::media::frames::Frames;
    use crate::settings::Control;

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
