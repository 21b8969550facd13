//! Untrusted input: each kind of bad file gets one clear line, and nothing is left behind.

mod checkpoint_support;

use std::path::{Path, PathBuf};
use std::process::Command;

use checkpoint_support::*;
use motionclone_onnx::checkpoint::{ImportOptions, Precision};
use motionclone_onnx::weights::Dtype;

const MODULE: &str = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0";

/// A folder for one test.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        std::fs::write(self.at(name), bytes).unwrap();
        self.at(name)
    }

    /// The line that refuses a file as a LoRA.
    fn refuse(&self, file: PathBuf) -> String {
        let text = refusal(&ImportOptions { loras: vec![(file.clone(), 1.0)], ..base(self.at("bundle")) });
        assert!(text.starts_with(&format!("{}: ", file.display())), "the file is not named: {text}");
        text
    }

    /// The line that refuses a pickle inside an otherwise good archive.
    fn refuse_pickle(&self, pickle: &[u8]) -> String {
        self.refuse(write_zip(self.at("lora.pt"), &[("lora/data.pkl", pickle), ("lora/data/0", &[0; 256])]))
    }

    /// The line that refuses a tensor over a storage of 64 floats.
    fn refuse_tensor(&self, offset: i64, shape: &[i64], strides: &[i64]) -> String {
        let pickle = Pickler::new().raw(b"}").text(&format!("{MODULE}.lora_A.weight"));
        self.refuse_pickle(&pickle.tensor(("FloatStorage", "0", 64), offset, shape, strides).raw(b"s").end())
    }
}

#[track_caller]
fn assert_says(text: &str, part: &str) {
    assert!(text.contains(part), "'{text}' does not say '{part}'");
}

#[cfg(unix)]
#[test]
fn the_bundle_may_be_read_by_whom_the_mask_says() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    run(&base(place.at("bundle"))).unwrap();
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode();
    let plain = mode(place.write("plain", b"")) & 0o777;
    std::fs::create_dir(place.at("folder")).unwrap();
    for file in ["manifest.json", "weights.safetensors", "tokenizer/vocab.json"] {
        assert_eq!(mode(place.at("bundle").join(file)) & 0o777, plain, "{file}");
    }
    assert_eq!(mode(place.at("bundle")), mode(place.at("folder")));
}

#[test]
fn missing_files() {
    let place = Place::new();
    assert_says(&place.refuse(place.at("missing.safetensors")), "no such file or folder");
    assert_says(
        &refusal(&ImportOptions { base: place.at("missing"), ..base(place.at("bundle")) }),
        "no such file or folder",
    );
    assert_says(&refusal(&ImportOptions { base: "".into(), ..base(place.at("bundle")) }), "no such file or folder");
    std::fs::create_dir(place.at("folder")).unwrap();
    assert_says(&place.refuse(place.at("folder")), "this is a folder");
}

#[test]
fn defaults_that_are_none() {
    let place = Place::new();
    for (text, says) in [
        ("{\"stepz\": 20}", "stepz is no setting with a default; they are width, height"),
        ("steps: many", "not a valid configuration"),
        ("{\"steps\": -1}", "not a valid configuration"),
        ("[20]", "not a valid configuration"),
    ] {
        let file = place.write("defaults.yaml", text.as_bytes());
        assert_says(&refusal(&ImportOptions { defaults: Some(file), ..base(place.at("bundle")) }), says);
    }
}

#[test]
fn files_that_are_no_checkpoints() {
    let place = Place::new();
    for (bytes, says) in [
        (&b""[..], "empty"),
        (b"<!DOCTYPE html><html><body>Log in</body></html>", "web page"),
        (b"\n  <HTML><head>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 4\n", "git lfs pull"),
        (b"{\"error\": \"gated\"}", "text file"),
        (b"just some words", "text file"),
        (b"cos\nsystem\n(S'true'\ntR.", "text file"),
        (b"GGUF\x03\0\0\0\xff\xff", "GGUF"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "no checkpoint"),
    ] {
        assert_says(&place.refuse(place.write("file.ckpt", bytes)), says);
    }
}

#[test]
fn safetensors_headers_that_lie() {
    let place = Place::new();
    let tensors = Tensors::from([(format!("{MODULE}.lora_A.weight"), floats(&[2, 32], &[0.0; 64]))]);
    let good = std::fs::read(write_safetensors(place.at("good.safetensors"), &tensors)).unwrap();
    assert_says(&place.refuse(place.write("a.safetensors", &good[..good.len() - 1])), "truncated");
    assert_says(&place.refuse(place.write("a.safetensors", &good[..40])), "header claims");
    let header = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes(), &[0; 64]].concat();
    let mut long = good.clone();
    long[..8].copy_from_slice(&(1u64 << 39).to_le_bytes());
    assert_says(&place.refuse(place.write("a.safetensors", &long)), "header claims");
    long[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    place.refuse(place.write("a.safetensors", &long));
    for lie in [
        r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,64]}}"#,
        r#"{"a":{"dtype":"F32","shape":[16],"data_offsets":[64,0]}}"#,
        r#"{"a":{"dtype":"F32","shape":[16],"data_offsets":[8,72]}}"#,
        r#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}"#,
        r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,64]}}"#,
        r#"{"a":{"dtype":"Q9","shape":[16],"data_offsets":[0,64]}}"#,
        r#"{"a":{"dtype":"F32","#,
    ] {
        assert_says(&place.refuse(place.write("a.safetensors", &header(lie))), "not a valid safetensors header");
    }
    let far = r#"{"a":{"dtype":"F32","shape":[4611686018427387],"data_offsets":[0,18446744073709548]}}"#;
    assert_says(&place.refuse(place.write("a.safetensors", &header(far))), "truncated");
}

#[test]
fn pickles_that_ask_for_more_than_tensors() {
    let place = Place::new();
    let proof = place.at("executed");
    let shell = format!("touch {}", proof.display());
    for (module, name) in [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("__builtin__", "eval"),
        ("builtins", "getattr"),
        ("builtins", "exec"),
        ("subprocess", "Popen"),
        ("torch", "load"),
        ("torch.storage", "_load_from_bytes"),
        ("torch._utils", "_rebuild_device_tensor_from_numpy"),
        ("numpy.core.multiarray", "_reconstruct"),
    ] {
        let full = format!("'{module}.{name}'");
        let old = Pickler::new().global(module, name).raw(b"(").text(&shell).raw(b"tR").end();
        assert_says(&place.refuse_pickle(&old), &full);
        // The same through protocol 4's way of naming, and at the start of a legacy file.
        let new = Pickler::new().text(module).text(name).raw(b"\x93(").text(&shell).raw(b"tR").end();
        assert_says(&place.refuse_pickle(&new), &full);
        assert_says(&place.refuse(place.write("legacy.pt", &old)), &full);
        assert_says(&place.refuse(place.write("legacy.pt", &[legacy_start(true), old].concat())), &full);
    }
    assert!(!proof.exists());

    // Records of the training run beside the tensors are skipped: not made, but the tensors are read, and judged.
    let tensor = Pickler::new().raw(b"}").text("state_dict").raw(b"}").text(&format!("{MODULE}.lora_A.weight"));
    let pickle = tensor.tensor(("FloatStorage", "0", 64), 0, &[2, 32], &[32, 1]).raw(b"ss").text("callbacks");
    let pickle = pickle.global("numpy.core.multiarray", "scalar").raw(b"(").text(&shell).raw(b"tRs").end();
    assert_says(&place.refuse_pickle(&pickle), "lacks its up or its down half");
    assert!(!proof.exists());
}

#[test]
fn malformed_pickles() {
    let place = Place::new();
    let nested = [b"\x80\x02".to_vec(), b"]".repeat(500_000), b"a".repeat(499_999), b".".to_vec()].concat();
    let many = [b"\x80\x02".to_vec(), b"]".repeat(2_000_000), b".".to_vec()].concat();
    let cyclic = Pickler::new().raw(b"}q\x00").text("state_dict").raw(b"h\x00s").end();
    let negative = Pickler::new().raw(b"}").text("a").tensor(("FloatStorage", "0", 64), 0, &[-1], &[1]).raw(b"s").end();
    for (pickle, says) in [
        (&b""[..], "too early"),
        (b"\x80\x02", "too early"),
        (b"\x80\x02.", "stack is empty"),
        (b"\x80\x02N.", "no dictionary of tensors"),
        (b"\x80\x02u.", "mark is missing"),
        (b"\x80\x02h\x07.", "memo entry is missing"),
        (b"\x80\x02}(Nu.", "key has no value"),
        (b"\x80\x02N(0", "mark is in the way"),
        (b"\x80\x02NNR.", "calls something that is no name"),
        (b"\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\xff", "longer than"),
        (b"\x80\x02X\xff\xff\xff\xffabc", "longer than"),
        (b"\x80\x02X\x00\x01\x00\x00abc", "too early"),
        (b"\x80\x02NQ.", "storage has wrong arguments"),
        (b"\x80\x02\xff", "unknown operation 0xff"),
        (&nested, "no dictionary of tensors"),
        (&many, "more than"),
        (&cyclic, "no dictionary of tensors"),
        (&negative, "negative"),
    ] {
        assert_says(&place.refuse_pickle(pickle), says);
    }
}

#[test]
fn tensors_outside_their_storages() {
    let place = Place::new();
    assert_says(&place.refuse_tensor(0, &[2, 33], &[33, 1]), "outside its storage of 64 elements");
    assert_says(&place.refuse_tensor(1, &[2, 32], &[32, 1]), "outside its storage");
    assert_says(&place.refuse_tensor(0, &[2, 32], &[64, 1]), "outside its storage");
    assert_says(&place.refuse_tensor(i64::MAX, &[2, 32], &[32, 1]), "outside its storage");
    assert_says(&place.refuse_tensor(0, &[i64::MAX, i64::MAX], &[1, 1]), "outside its storage");
    assert_says(&place.refuse_tensor(0, &[2, 2], &[i64::MAX, i64::MAX]), "outside its storage");
    assert_says(&place.refuse_tensor(0, &[1 << 40, 32], &[0, 1]), "overlap");
    assert_says(&place.refuse_tensor(0, &[64], &[1, 1]), "differ in length");
    assert_says(&place.refuse_tensor(0, &[1; 9], &[1; 9]), "more than 8 dimensions");
}

#[test]
fn archives_that_lie() {
    let place = Place::new();
    let tensors = Tensors::from([
        (format!("{MODULE}.lora_A.weight"), floats(&[2, 32], &[0.25; 64])),
        (format!("{MODULE}.lora_B.weight"), floats(&[32, 2], &[0.5; 64])),
    ]);
    let good = std::fs::read(write_torch_zip(place.at("good.pt"), &tensors)).unwrap();
    let find = |needle: &[u8]| good.windows(needle.len()).position(|w| w == needle).unwrap();

    // One bit of a tensor, then of the pickle.
    let mut damaged = good.clone();
    damaged[find(&0.5f32.to_le_bytes())] ^= 1;
    let text = place.refuse(place.write("a.pt", &damaged));
    assert_says(&text, "checksum (CRC) of tensor");
    assert_says(&text, "lora_B.weight");
    let mut damaged = good.clone();
    damaged[find(b"state_dict")] ^= 1;
    assert_says(&place.refuse(place.write("a.pt", &damaged)), "checksum (CRC) of 'data.pkl'");
    for length in [good.len() / 2, good.len() - 30, 100] {
        assert_says(&place.refuse(place.write("a.pt", &good[..length])), "damaged zip archive");
    }

    // A storage that declares more, or less, than there is.
    for elements in [65, 63, 1 << 40, i64::MAX] {
        let pickle = Pickler::new().raw(b"}").text("a").tensor(("FloatStorage", "0", elements), 0, &[1], &[1]);
        assert_says(&place.refuse_pickle(&pickle.raw(b"s").end()), "declares");
    }
    let pickle = Pickler::new().raw(b"}").text("a").tensor(("FloatStorage", "1", 64), 0, &[1], &[1]).raw(b"s").end();
    assert_says(&place.refuse_pickle(&pickle), "lacks its storage '1'");

    // A compressed entry, which could grow without bounds: its method is changed in both headers.
    let mut bomb = good.clone();
    for (signature, method) in [(b"PK\x03\x04", 8), (b"PK\x01\x02", 10)] {
        for at in (0..bomb.len() - 4).filter(|at| bomb[*at..].starts_with(signature)).collect::<Vec<_>>() {
            bomb[at + method] = 8;
        }
    }
    let text = place.refuse(place.write("a.pt", &bomb));
    assert!(text.contains("compressed") || text.contains("damaged zip"), "{text}");

    let big = write_zip(place.at("a.pt"), &[("a/data.pkl", b"\x80\x02}."), ("a/byteorder", b"big")]);
    assert_says(&place.refuse(big), "big-endian");
    assert_says(&place.refuse(write_zip(place.at("a.pt"), &[("word/document.xml", b"<xml/>")])), "no data.pkl");
    let script = write_zip(place.at("a.pt"), &[("a/data.pkl", b"\x80\x02}."), ("a/constants.pkl", b"\x80\x02).")]);
    assert_says(&place.refuse(script), "TorchScript");
}

#[test]
fn legacy_files_that_lie() {
    let place = Place::new();
    let tensors = Tensors::from([(format!("{MODULE}.lora_A.weight"), floats(&[2, 32], &[0.25; 64]))]);
    let good = std::fs::read(write_torch_legacy(place.at("good.pt"), &tensors)).unwrap();
    assert_says(&place.refuse(place.write("a.pt", &good[..good.len() - 1])), "truncated");
    assert_says(&place.refuse(place.write("a.pt", &[good.as_slice(), b"x"].concat())), "more in the file");
    let count = good.len() - 64 * 4 - 8;
    for elements in [63i64, 65, -1, i64::MAX] {
        let mut lying = good.clone();
        lying[count..count + 8].copy_from_slice(&elements.to_le_bytes());
        place.refuse(place.write("a.pt", &lying));
    }
    assert_says(&place.refuse(place.write("a.pt", &legacy_start(false))), "big-endian");
    assert_says(&place.refuse(place.write("a.pt", b"\x80\x02K\x01.")), "not one of PyTorch");
}

#[test]
fn values_that_are_no_numbers() {
    let place = Place::new();
    let source = "model.diffusion_model.out.2.bias";
    let mut tensors = read_safetensors(&golden().join("dreambooth.safetensors"));
    let mut with = |values: [f32; 4], precision| {
        tensors.insert(source.into(), floats(&[4], &values));
        let file = write_safetensors(place.at("model.safetensors"), &tensors);
        ImportOptions { dreambooth: Some(file), precision, ..base(place.at("bundle")) }
    };
    let imported = run(&with([f32::NAN, 1.0, f32::INFINITY, 2.0], Precision::Keep)).unwrap();
    let [bare, warning] = &imported.warnings[..] else { panic!("{:?}", imported.warnings) };
    assert_says(bare, "no motion module");
    assert_says(warning, &format!("model.safetensors: tensor '{source}' holds 2 NaN or infinite values"));
    std::fs::remove_dir_all(place.at("bundle")).unwrap();

    // What float16 cannot hold would become infinite.
    let text = refusal(&with([0.0, 1e6, 0.0, 0.0], Precision::Float16));
    assert_says(&text, "holds 1000000, more than float16's 65504");
    run(&with([0.0, 65504.0, 0.0, 0.0], Precision::Float16)).unwrap();
    std::fs::remove_dir_all(place.at("bundle")).unwrap();

    let bytes = [1i64, 2, 3, 4].iter().flat_map(|v| v.to_le_bytes()).collect();
    tensors.insert(source.into(), (Dtype::I64, vec![4], bytes));
    let file = write_safetensors(place.at("model.safetensors"), &tensors);
    let text = refusal(&ImportOptions { dreambooth: Some(file), ..base(place.at("bundle")) });
    assert_says(&text, "elements of type I64");
}

#[test]
fn places_that_cannot_be_written() {
    let place = Place::new();
    let text = refusal(&base(place.at("no/such/folder/bundle")));
    assert_says(&text, "no such file or folder");
    let file = place.write("file", b"content");
    assert!(run(&base(file.join("bundle"))).is_err());
    assert_eq!(std::fs::read(&file).unwrap(), b"content");
}

#[cfg(unix)]
#[test]
fn a_folder_without_permission() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let locked = place.at("locked");
    std::fs::create_dir(&locked).unwrap();
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o555)).unwrap();
    if std::fs::write(locked.join("probe"), "").is_ok() {
        std::fs::remove_file(locked.join("probe")).unwrap();
        println!("skipped: this user may write everywhere");
        return;
    }
    assert_says(&refusal(&base(locked.join("bundle"))), "ermission denied");
}

/// Runs [`import_in_child`] with files limited to `blocks` of 512 or 1024 bytes, as a full disk would.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_nothing_behind() {
    let place = Place::new();
    let child = |blocks: &str| {
        Command::new("sh")
            .args(["-c", "trap '' XFSZ; ulimit -f \"$0\"; exec \"$@\"", blocks])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "import_in_child", "--ignored", "--nocapture"])
            .env("IMPORT_TO", place.at("bundle"))
            .output()
            .unwrap()
    };
    // Too little for the weights, then for the tokenizer; then enough.
    for blocks in ["2000", "100"] {
        let output = child(blocks);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains("refused: "), "{text}");
        assert!(!place.at("bundle").exists());
        assert_eq!(std::fs::read_dir(place.0.path()).unwrap().count(), 0, "something was left behind");
    }
    let output = child("100000");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(place.at("bundle").exists());
}

#[test]
#[ignore = "a part of a_full_disk_leaves_nothing_behind"]
fn import_in_child() {
    let Some(out) = std::env::var_os("IMPORT_TO") else { return };
    if let Err(error) = run(&base(Path::new(&out).to_path_buf())) {
        panic!("refused: {error}");
    }
}

#[test]
fn tokenizers_that_do_not_fit() {
    let place = Place::new();
    let real = golden().join("StableDiffusion/tokenizer");
    std::fs::create_dir(place.at("tokens")).unwrap();
    let merges = std::fs::read(real.join("merges.txt")).unwrap();
    for (vocab, merges, says) in [
        ("{\"a\": 1}", merges.as_slice(), "'<|startoftext|>' is missing"),
        ("{\"<|startoftext|>\": 1, \"<|endoftext|>\": 49408}", &merges, "up to 49408"),
        ("[1, 2]", &merges, "not a valid configuration"),
        ("{\"<|startoftext|>\": 1, \"<|endoftext|>\": 2}", b"", "0 bytes are no list of merges"),
    ] {
        place.write("tokens/vocab.json", vocab.as_bytes());
        place.write("tokens/merges.txt", merges);
        let options = ImportOptions { tokenizer: Some(place.at("tokens")), ..base(place.at("bundle")) };
        assert_says(&refusal(&options), says);
    }
}
