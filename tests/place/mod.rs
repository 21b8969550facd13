//! A folder to work in for tests of the command line, with a small model at hand.

// Not every test file needs everything.
#![allow(dead_code)]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

/// What one call said.
pub struct Answer {
    pub code: Option<i32>,
    pub errors: String,
    pub output: String,
}

/// A folder to work in, with a cache of its own.
pub struct Place {
    pub folder: TempDir,
}

impl Place {
    pub fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(place.at("cache")).unwrap();
        place
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn command(&self, words: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_motionclone"));
        command.args(words).current_dir(self.folder.path()).env("MOTIONCLONE_CACHE", self.at("cache"));
        command.stdin(Stdio::null());
        command
    }

    pub fn run(&self, words: &[impl AsRef<OsStr>]) -> Answer {
        let Output { status, stdout, stderr } = self.command(words).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Answer { code: status.code(), errors: text(stderr), output: text(stdout) }
    }

    /// Runs a command line that must succeed. Words are separated by spaces; `BUNDLE` is the small model.
    pub fn succeeds(&self, line: &str) -> Answer {
        let answer = self.run(&words(line));
        assert_eq!(answer.code, Some(0), "{line}\n{}", answer.errors);
        answer
    }

    /// Runs a command line that must be refused as wrong input: one line, exit code 2, nothing written.
    pub fn refuses(&self, line: &str, reason: &str) {
        let before = self.files();
        let answer = self.run(&words(line));
        let last = answer.errors.lines().last().unwrap_or_default();
        assert_eq!(answer.code, Some(2), "{line}\n{}", answer.errors);
        assert!(last.starts_with("error: ") && last.contains(reason), "{line}\n{}", answer.errors);
        let others = answer.errors.lines().filter(|l| !l.starts_with("warning: ") && !l.starts_with("computing"));
        assert_eq!(others.count(), 1, "one line, not more: {line}\n{}", answer.errors);
        assert_eq!(self.files(), before, "nothing is written: {line}");
    }

    /// Every file and folder here.
    pub fn files(&self) -> BTreeSet<PathBuf> {
        fn collect(folder: &Path, into: &mut BTreeSet<PathBuf>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    collect(&path, into);
                }
                into.insert(path);
            }
        }
        let mut files = BTreeSet::new();
        collect(self.folder.path(), &mut files);
        files
    }

    /// A clip of a moving test picture.
    pub fn clip(&self, name: &str, frames: usize) -> PathBuf {
        self.made(name, &["-f", "lavfi", "-i", "testsrc=s=96x64:r=8", "-frames:v", &frames.to_string()])
    }

    /// A file that ffmpeg makes.
    pub fn made(&self, name: &str, options: &[&str]) -> PathBuf {
        let path = self.at(name);
        let ffmpeg = std::env::var_os("MOTIONCLONE_FFMPEG").unwrap_or_else(|| "ffmpeg".into());
        let mut command = Command::new(ffmpeg);
        command.args(["-v", "error", "-y"]).args(options).arg(&path).stdin(Stdio::null());
        assert!(command.status().unwrap().success(), "{name}");
        path
    }
}

pub fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(|word| word.replace("BUNDLE", &bundle().to_string_lossy())).collect()
}

/// The checkpoints of the recorded runs, imported once through the command line.
pub fn bundle() -> &'static Path {
    static BUNDLE: OnceLock<TempDir> = OnceLock::new();
    let folder = BUNDLE.get_or_init(|| {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let checkpoints = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/checkpoints");
        let mut import = Command::new(env!("CARGO_BIN_EXE_motionclone"));
        import.arg("import").arg("--base").arg(checkpoints.join("StableDiffusion"));
        for (option, file) in [
            ("--motion-module", "v3_sd15_mm.ckpt"),
            ("--dreambooth", "dreambooth.safetensors"),
            ("--adapter", "v3_sd15_adapter.ckpt"),
            ("--sparsectrl-rgb", "v3_sd15_sparsectrl_rgb.ckpt"),
            ("--sparsectrl-scribble", "v3_sd15_sparsectrl_scribble.ckpt"),
            ("--model-config", "model_config.json"),
            ("--sparsectrl-config", "sparsectrl_configs.json"),
        ] {
            import.arg(option).arg(checkpoints.join(file));
        }
        let answer = import.arg("--out").arg(folder.path().join("bundle")).output().unwrap();
        assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
        folder
    });
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| folder.path().join("bundle"))
}

/// A quick run of the small model.
pub const QUICK: &str = "--bundle BUNDLE --size 64x64 --frames 4 --device cpu";
/// The quickest denoising.
pub const STEPS: &str = "--steps 2 --guidance-steps 1 --warm-up 0 --cool-up 0";
