//! Exported graphs are valid ONNX, and another runtime's user can load them from their folder.

mod recorded;

use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;

use motionclone::Cancel;
use motionclone::bundle::Bundle;
use motionclone::export::export;
use motionclone::onnx::checkpoint::{ImportOptions, import};
use motionclone::runtime::{Network, RunSettings, Runtime};
use motionclone::settings::Settings;

fn bundle(folder: &Path) -> Bundle {
    let checkpoints = recorded::golden().join("checkpoints");
    let file = |name: &str| Some(checkpoints.join(name));
    let options = ImportOptions {
        base: checkpoints.join("StableDiffusion"),
        motion_module: file("v3_sd15_mm.ckpt"),
        adapter: file("v3_sd15_adapter.ckpt").map(|path| (path, 1.0)),
        sparsectrl_rgb: file("v3_sd15_sparsectrl_rgb.ckpt"),
        sparsectrl_scribble: file("v3_sd15_sparsectrl_scribble.ckpt"),
        model_config: file("model_config.json"),
        out: folder.join("bundle"),
        ..Default::default()
    };
    import(&options, &mut |_| ControlFlow::Continue(())).unwrap();
    Bundle::open(&options.out).unwrap()
}

#[test]
fn exported_graphs_pass_the_checker_and_load() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = bundle(folder.path());
    let settings = Settings { width: 72, height: 136, frames: 5, ..Settings::new(&bundle.manifest.defaults, "") };
    let out = folder.path().join("graphs");
    let files = export(&bundle, &settings, &out, &Cancel::default(), &mut |_, _| ()).unwrap();
    let names: Vec<String> = files.iter().map(|f| f.file_stem().unwrap().to_string_lossy().into_owned()).collect();
    for name in ["text_encoder", "vae_encoder", "vae_decoder", "denoiser", "extractor", "guided", "guided_scribble"] {
        assert!(names.iter().any(|n| n == name), "{name} is not among {names:?}");
    }
    let runtime = Runtime::load(None).unwrap();
    for (file, name) in files.iter().zip(&names) {
        let model = std::fs::read(file).unwrap();
        Network::load(runtime, name, &model, &out, &RunSettings::default()).unwrap();
    }
    if !Command::new("python3").args(["-c", "import onnx.checker"]).output().is_ok_and(|o| o.status.success()) {
        println!("not checked by onnx.checker: python3 has no package onnx here (`cargo xtask test` brings it)");
        return;
    }
    let script = "import sys, onnx.checker\nfor path in sys.argv[1:]: onnx.checker.check_model(path, full_check=True)";
    let checked = Command::new("python3").args(["-c", script]).args(&files).output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn a_folder_that_is_not_empty_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = bundle(folder.path());
    let settings = Settings { width: 64, height: 64, frames: 4, ..Settings::new(&bundle.manifest.defaults, "") };
    let out = folder.path().join("notes");
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("mine.txt"), "mine").unwrap();
    let message = export(&bundle, &settings, &out, &Cancel::default(), &mut |_, _| ()).unwrap_err().to_string();
    assert!(message.contains("holds other files, such as 'mine.txt'"), "{message}");
    let cancel = Cancel::default();
    cancel.cancel();
    assert!(
        export(&bundle, &settings, &folder.path().join("graphs"), &cancel, &mut |_, _| ()).unwrap_err().is_cancelled()
    );
    let mut left: Vec<String> =
        folder.path().read_dir().unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    left.sort();
    assert_eq!(left, ["bundle", "notes"]);
}
