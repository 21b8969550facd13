//! What the tests of the importer share: the golden checkpoints, a bundle's content, and writers of small files in every
//! format.
#![allow(dead_code)] // each test program uses its part

use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use half::f16;
use motionclone_onnx::checkpoint::{ImportOptions, Imported, import};
use motionclone_onnx::weights::{Dtype, WeightIndex};
use motionclone_onnx::{Error, Result};
use serde_json::json;
use zip::write::SimpleFileOptions;

/// `tests/golden/checkpoints`
pub fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/checkpoints")
}

/// The golden base alone.
pub fn base(out: PathBuf) -> ImportOptions {
    ImportOptions { base: golden().join("StableDiffusion"), out, ..Default::default() }
}

/// Everything there is in the golden checkpoints.
pub fn everything(out: PathBuf) -> ImportOptions {
    let golden = golden();
    ImportOptions {
        motion_module: Some(golden.join("v3_sd15_mm.ckpt")),
        dreambooth: Some(golden.join("dreambooth.safetensors")),
        adapter: Some((golden.join("v3_sd15_adapter.ckpt"), 1.0)),
        sparsectrl_rgb: Some(golden.join("v3_sd15_sparsectrl_rgb.ckpt")),
        sparsectrl_scribble: Some(golden.join("v3_sd15_sparsectrl_scribble.ckpt")),
        model_config: Some(golden.join("model_config.json")),
        sparsectrl_config: Some(golden.join("sparsectrl_configs.json")),
        ..base(out)
    }
}

/// Imports without watching the progress.
pub fn run(options: &ImportOptions) -> Result<Imported> {
    import(options, &mut |_| ControlFlow::Continue(()))
}

/// Imports what must be refused: one line, nothing left where the bundle would have been or beside it.
pub fn refusal(options: &ImportOptions) -> String {
    refusal_of(run(options), &options.out)
}

/// Checks a refused import.
pub fn refusal_of(result: Result<Imported>, out: &Path) -> String {
    let error: Error = result.expect_err("this must be refused");
    let text = error.to_string();
    assert!(!text.contains('\n'), "more than one line: {text}");
    assert!(error.is_input(), "{text}");
    assert!(!out.exists(), "the bundle was made");
    assert_eq!(leftovers(out), Vec::<String>::new());
    text
}

/// Folders that an import left beside the bundle.
pub fn leftovers(out: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(out.parent().unwrap()) else { return Vec::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(".motionclone")).collect()
}

/// A bundle's weights.
pub struct Weights {
    /// Where each is.
    pub index: WeightIndex,
    bytes: Vec<u8>,
}

impl Weights {
    /// Reads a bundle's weights.
    pub fn open(bundle: &Path) -> Self {
        let path = bundle.join("weights.safetensors");
        Self { index: WeightIndex::open(&path).unwrap(), bytes: std::fs::read(&path).unwrap() }
    }

    /// The type and shape of a weight.
    pub fn info(&self, name: &str) -> (Dtype, Vec<usize>) {
        let info = self.index.require(name).unwrap();
        (info.dtype, info.shape.clone())
    }

    /// A weight's values.
    pub fn values(&self, name: &str) -> Vec<f32> {
        let info = self.index.require(name).unwrap();
        let bytes = &self.bytes[info.offset as usize..(info.offset + info.length) as usize];
        match info.dtype {
            Dtype::F16 => bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
            Dtype::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            other => panic!("{name} is {other:?}"),
        }
    }

    /// How many weights a network has.
    pub fn count(&self, network: &str) -> usize {
        self.index.names().filter(|name| name.starts_with(&format!("{network}."))).count()
    }
}

/// A tensor to be written: type, shape, bytes.
pub type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// A float32 tensor to be written.
pub fn floats(shape: &[usize], values: &[f32]) -> (Dtype, Vec<usize>, Vec<u8>) {
    assert_eq!(shape.iter().product::<usize>(), values.len());
    (Dtype::F32, shape.to_vec(), values.iter().flat_map(|v| v.to_le_bytes()).collect())
}

/// The tensors of a safetensors file.
pub fn read_safetensors(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).unwrap();
    let index = WeightIndex::open(path).unwrap();
    let tensor = |name: &str| {
        let info = index.get(name).unwrap();
        let data = bytes[info.offset as usize..(info.offset + info.length) as usize].to_vec();
        (name.to_string(), (info.dtype, info.shape.clone(), data))
    };
    index.names().map(tensor).collect()
}

/// Writes a safetensors file.
pub fn write_safetensors(path: PathBuf, tensors: &Tensors) -> PathBuf {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, (dtype, shape, bytes)) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        data.extend_from_slice(bytes);
        header.insert(name.clone(), json!({ "dtype": dtype, "shape": shape, "data_offsets": offsets }));
    }
    let header = serde_json::to_vec(&header).unwrap();
    let bytes = [&(header.len() as u64).to_le_bytes(), header.as_slice(), &data].concat();
    std::fs::write(&path, bytes).unwrap();
    path
}

/// A pickle under construction.
#[derive(Default)]
pub struct Pickler(pub Vec<u8>);

impl Pickler {
    /// Starts a pickle of protocol 2.
    pub fn new() -> Self {
        Self(b"\x80\x02".to_vec())
    }

    /// Appends opcodes.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Text.
    pub fn text(self, text: &str) -> Self {
        self.raw(b"X").raw(&(text.len() as u32).to_le_bytes()).raw(text.as_bytes())
    }

    /// A number, as LONG1 of eight bytes.
    pub fn number(self, value: i64) -> Self {
        self.raw(b"\x8a\x08").raw(&value.to_le_bytes())
    }

    /// A name of a module.
    pub fn global(self, module: &str, name: &str) -> Self {
        self.raw(format!("c{module}\n{name}\n").as_bytes())
    }

    /// `_rebuild_tensor_v2((storage), offset, shape, strides, False, OrderedDict())`
    pub fn tensor(self, storage: (&str, &str, i64), offset: i64, shape: &[i64], strides: &[i64]) -> Self {
        self.tensor_of(storage, b"", offset, shape, strides)
    }

    /// The same with opcodes for a sixth entry of the storage.
    pub fn tensor_of(
        self,
        storage: (&str, &str, i64),
        view: &[u8],
        offset: i64,
        shape: &[i64],
        strides: &[i64],
    ) -> Self {
        let (kind, key, elements) = storage;
        let mut pickle = self.global("torch._utils", "_rebuild_tensor_v2").raw(b"((").text("storage");
        pickle =
            pickle.global("torch", kind).text(key).text("cpu").number(elements).raw(view).raw(b"tQ").number(offset);
        for sizes in [shape, strides] {
            pickle = sizes.iter().fold(pickle.raw(b"("), |p, s| p.number(*s)).raw(b"t");
        }
        pickle.raw(b"\x89").global("collections", "OrderedDict").raw(b")RtR")
    }

    /// The finished pickle.
    pub fn end(self) -> Vec<u8> {
        self.raw(b".").0
    }
}

fn storage_type(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F64 => "DoubleStorage",
        Dtype::F32 => "FloatStorage",
        Dtype::F16 => "HalfStorage",
        Dtype::BF16 => "BFloat16Storage",
        Dtype::I64 => "LongStorage",
        other => panic!("{other:?}"),
    }
}

/// A pickled `{"state_dict": {…}, "epoch": 3}`; `view` is a sixth entry for storages.
fn state_dict(tensors: &Tensors, view: &[u8]) -> Vec<u8> {
    let mut pickle = Pickler::new().raw(b"}").text("state_dict").global("collections", "OrderedDict").raw(b")R(");
    for (i, (name, (dtype, shape, bytes))) in tensors.iter().enumerate() {
        let elements = (bytes.len() * 8 / dtype.bitsize()) as i64;
        let shape: Vec<i64> = shape.iter().map(|d| *d as i64).collect();
        let strides: Vec<i64> = (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect();
        let storage = (storage_type(*dtype), i.to_string(), elements);
        pickle = pickle.text(name).tensor_of((storage.0, &storage.1, storage.2), view, 0, &shape, &strides);
    }
    pickle.raw(b"us").text("epoch").number(3).raw(b"s").end()
}

/// Writes a zip archive of these entries, uncompressed.
pub fn write_zip(path: PathBuf, entries: &[(&str, &[u8])]) -> PathBuf {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in entries {
        archive.start_file(*name, options).unwrap();
        archive.write_all(bytes).unwrap();
    }
    std::fs::write(&path, archive.finish().unwrap().into_inner()).unwrap();
    path
}

/// Writes tensors as `torch.save` does since version 1.6.
pub fn write_torch_zip(path: PathBuf, tensors: &Tensors) -> PathBuf {
    let pickle = state_dict(tensors, b"");
    let names: Vec<String> = (0..tensors.len()).map(|i| format!("archive/data/{i}")).collect();
    let mut entries = vec![("archive/data.pkl", pickle.as_slice()), ("archive/byteorder", b"little")];
    entries.extend(names.iter().zip(tensors.values()).map(|(name, (_, _, bytes))| (name.as_str(), bytes.as_slice())));
    write_zip(path, &entries)
}

/// The three pickles that a legacy file starts with.
pub fn legacy_start(little_endian: bool) -> Vec<u8> {
    let magic = Pickler::new().raw(b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19").end();
    let version = Pickler::new().raw(b"M\xe9\x03").end();
    let flag: &[u8] = if little_endian { b"\x88" } else { b"\x89" };
    let system = Pickler::new().raw(b"}(").text("protocol_version").raw(b"M\xe9\x03").text("little_endian").raw(flag);
    [magic, version, system.raw(b"u").end()].concat()
}

/// Writes tensors as `torch.save` did before version 1.6. The storages follow in reverse order, which is theirs to choose.
pub fn write_torch_legacy(path: PathBuf, tensors: &Tensors) -> PathBuf {
    let mut bytes = legacy_start(true);
    bytes.extend(state_dict(tensors, b"N"));
    let keys: Vec<String> = (0..tensors.len()).rev().map(|i| i.to_string()).collect();
    let list = keys.iter().fold(Pickler::new().raw(b"]("), |p, key| p.text(key));
    bytes.extend(list.raw(b"e").end());
    for (dtype, _, data) in tensors.values().rev() {
        bytes.extend(((data.len() * 8 / dtype.bitsize()) as i64).to_le_bytes());
        bytes.extend(data);
    }
    std::fs::write(&path, bytes).unwrap();
    path
}
