//! The evaluation: how well clones follow motion and prompt. What is measured and how is in `onnx/demo/evaluate`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::setup::{self, Runtime};
use crate::{Result, cargo, embedded, root, run, target};

/// Clones the reference clips and measures the clones; a quick evaluation takes a few of them.
///
/// # Errors
/// When a tool is missing, a clone fails, or the figures do not reach what is asked of the embedded model.
pub fn evaluate(quick: bool, bundle: Option<&Path>) -> Result<()> {
    let scripts = scripts();
    let bundle = bundle.map_or_else(embedded::bundle, Path::to_path_buf);
    if !bundle.join("manifest.json").is_file() {
        return Err(format!("{}: no bundle; name one with --bundle FOLDER", bundle.display()));
    }
    run(cargo(&["build", "--release", "--package", "motionclone"]))?;
    let mut python = python()?;
    setup::tools(Runtime::Cpu)?.apply(&mut python);
    python.arg(scripts.join("evaluate.py"));
    python.arg("--program").arg(target().join("release").join(format!("motionclone{}", std::env::consts::EXE_SUFFIX)));
    python.arg("--bundle").arg(bundle).arg("--kept").arg(target().join("motionclone/clones"));
    python.arg("--out").arg(root().join("out/eval"));
    if quick {
        python.arg("--quick");
    } else {
        python.arg("--report").arg(&scripts);
    }
    run(python)
}

/// Tests the measures on clips whose motion and content are known.
pub fn test() -> Result<()> {
    run(python()?.args(["-m", "unittest", "discover", "--quiet", "--start-directory"]).arg(scripts()))
}

fn scripts() -> PathBuf {
    root().join("onnx/demo/evaluate")
}

/// Python with what the measures need.
fn python() -> Result<Command> {
    let packages = setup::python_packages(&["opencv-python-headless==5.0.0.93", "numpy==2.4.6"])?;
    let mut python = Command::new(setup::PYTHON);
    python.env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(python)
}
