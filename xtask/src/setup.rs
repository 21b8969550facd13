//! What the program needs besides itself, fetched once into `target/motionclone`: ONNX Runtime, and ffmpeg where none
//! is installed. Both come from PyPI as wheels, which pip checks against the hashes here; nothing is installed and no
//! rights are needed.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Result, make_parent, output, run, target};

/// Which build of ONNX Runtime.
#[derive(Clone, Copy)]
pub enum Runtime {
    Cpu,
    Cuda,
}

/// Where the fetched tools lie.
pub struct Tools {
    pub onnxruntime: PathBuf,
    pub ffmpeg: PathBuf,
}

impl Tools {
    /// Names the tools to a command of this project.
    pub fn apply(&self, command: &mut Command) {
        command.env("MOTIONCLONE_ONNXRUNTIME", &self.onnxruntime).env("MOTIONCLONE_FFMPEG", &self.ffmpeg);
    }
}

impl fmt::Display for Tools {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(f, "MOTIONCLONE_ONNXRUNTIME={}", self.onnxruntime.display())?;
        writeln!(f, "MOTIONCLONE_FFMPEG={}", self.ffmpeg.display())
    }
}

/// A wheel on PyPI: name, version, the Python that it is for, and the SHA-256 of its file for each platform.
pub struct Wheel {
    pub name: &'static str,
    pub version: &'static str,
    pub python: &'static str,
    pub hashes: &'static [&'static str],
}

// Any of ONNX Runtime's wheels holds the same library; the one for Python 3.12 is taken whichever Python is there.
const ONNXRUNTIME: Wheel = Wheel {
    name: "onnxruntime",
    version: "1.31.1",
    python: "3.12",
    hashes: &[
        "1f3dea47f2f0e5117c2404cea7d21fd253ae7836a3bf167a501cdfbb2600d536", // Linux x86_64
        "0b9a492176886992e0e875f06bc0367e333f5fff11711a2d642e18b02f3009cc", // Linux aarch64
        "96dd2564b10ea7153ad9c207e7cd8e5917cb3ba521e0e0a62ac03486fdc8d56c", // macOS arm64
        "ae8a9a351efda685cc59a66226cdefaa37a126c1d66872ca23a2de9425326130", // Windows x86_64
    ],
};
const ONNXRUNTIME_CUDA: Wheel = Wheel {
    name: "onnxruntime-gpu",
    version: "1.31.1",
    python: "3.12",
    hashes: &[
        "05d548956197b9d01f59b625de740e0d6be3593f874e241a12dc0362650ecdf7", // Linux x86_64
        "2bb1e9373baba88f6415257f5b6a589d23e23c16004f7d89adf4344eada5749e", // Windows x86_64
    ],
};
/// Carries a whole ffmpeg, which needs nothing else of the system.
const FFMPEG: Wheel = Wheel {
    name: "imageio-ffmpeg",
    version: "0.8.1",
    python: "3.12",
    hashes: &[
        "050d6850601c3b3890bd2b28306f3b842b3daea390a561101174375a1c460bda", // Linux x86_64
        "fad3176f859b25869e60a8ed79957d4e3ed74a97a95e5f0cdcb91455f6c6d00e", // Linux aarch64
        "5636d691e36e5274b13fe38182b1f627b2e35dcecc63944012c2470f9484fc45", // macOS arm64
        "f27ca4cb85e2d4946deedbce1a81245dfd942a2bcf94b53676fb3956aa95bf1b", // Windows x86_64
    ],
};

/// The name of the Python interpreter.
pub const PYTHON: &str = if cfg!(windows) { "python" } else { "python3" };
/// The platform's names in wheels.
const PLATFORMS: &[&str] = if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
    &["manylinux_2_28_x86_64", "manylinux2014_x86_64"]
} else if cfg!(all(target_os = "linux", target_arch = "aarch64")) {
    &["manylinux_2_28_aarch64", "manylinux2014_aarch64"]
} else if cfg!(target_os = "macos") {
    &["macosx_14_0_arm64"]
} else {
    &["win_amd64"]
};

/// Finds or fetches ONNX Runtime and ffmpeg.
pub fn tools(runtime: Runtime) -> Result<Tools> {
    Ok(Tools { onnxruntime: onnxruntime(runtime)?, ffmpeg: ffmpeg()? })
}

/// Finds or fetches ONNX Runtime.
pub fn onnxruntime(runtime: Runtime) -> Result<PathBuf> {
    let wheel = match runtime {
        Runtime::Cpu => ONNXRUNTIME,
        Runtime::Cuda => ONNXRUNTIME_CUDA,
    };
    let library = if cfg!(windows) { "onnxruntime.dll" } else { "libonnxruntime." };
    let onnxruntime = find(&fetch(&wheel)?.join("onnxruntime/capi"), library)?;
    #[cfg(unix)]
    if let Runtime::Cpu = runtime {
        link(&onnxruntime, "libonnxruntime.so")?;
    }
    Ok(onnxruntime)
}

/// Puts a link where `.cargo/config.toml` points, so that `cargo test` alone finds it from now on.
#[cfg(unix)]
fn link(file: &Path, name: &str) -> Result<()> {
    let link = cache().join(name);
    if file == link {
        return Ok(());
    }
    // One from before would be in the way; one that is not there is no harm.
    let _ = fs::remove_file(&link);
    make_parent(&link)?;
    std::os::unix::fs::symlink(file, &link).map_err(|e| format!("{}: {e}", link.display()))
}

/// The ffmpeg that is configured or installed, else one from PyPI.
fn ffmpeg() -> Result<PathBuf> {
    let named = std::env::var_os("MOTIONCLONE_FFMPEG").map(PathBuf::from);
    let installed = named.into_iter().chain(on_search_path("ffmpeg")).find(|program| {
        let answers = Command::new(program).arg("-version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        answers.is_ok_and(|status| status.success())
    });
    let program = installed.map_or_else(fetched_ffmpeg, Ok)?;
    #[cfg(unix)]
    link(&program, "ffmpeg")?;
    Ok(program)
}

/// The places where a program of a name may lie.
fn on_search_path(name: &str) -> Vec<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    // The link of an earlier set-up may be on it.
    std::env::split_paths(&folders).filter(|folder| *folder != cache()).map(|folder| folder.join(&file)).collect()
}

/// The ffmpeg from PyPI.
fn fetched_ffmpeg() -> Result<PathBuf> {
    let program = find(&fetch(&FFMPEG)?.join("imageio_ffmpeg/binaries"), "ffmpeg-")?;
    #[cfg(unix)]
    {
        // Wheels are unpacked without their permissions.
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))
            .map_err(|e| format!("{}: {e}", program.display()))?;
    }
    Ok(program)
}

/// What the tests of the C library need besides Rust: the program that must answer, and its Debian package.
const HOST_TOOLS: &[(&str, &str)] = &[
    ("gcc", "gcc"),
    ("g++", "g++"),
    ("cmake", "cmake"),
    ("make", "make"),
    ("pkg-config", "pkg-config"),
    ("nm", "binutils"),
    ("valgrind", "valgrind"),
    ("abidw", "abigail-tools"),
    ("xz", "xz-utils"),
    ("strace", "strace"),
];

/// Installs what the tests of the C library need, where that is possible; otherwise the tests name what is missing.
pub fn host_tools() -> Result<()> {
    let missing: Vec<&str> =
        HOST_TOOLS.iter().filter(|(tool, _)| !answers(tool)).map(|(_, package)| *package).collect();
    install(&missing)
}

/// Installs Debian packages, where that is possible.
pub fn install(missing: &[&str]) -> Result<()> {
    if missing.is_empty() || !cfg!(target_os = "linux") {
        return Ok(());
    }
    let root = output(Command::new("id").arg("-u"))?.trim() == "0";
    if !root || !answers("apt-get") {
        println!("not installed: {}; tests that need them will say so", missing.join(", "));
        return Ok(());
    }
    run(Command::new("apt-get").args(["--quiet", "--quiet", "update"]))?;
    let mut install = Command::new("apt-get");
    install.args(["--quiet", "--quiet", "--yes", "--no-install-recommends", "install"]).args(missing);
    run(install.env("DEBIAN_FRONTEND", "noninteractive"))
}

fn answers(program: &str) -> bool {
    let version = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// Installs Python packages for tests and measures into a folder of their own, for `PYTHONPATH`.
pub fn python_packages(requirements: &[&str]) -> Result<PathBuf> {
    let folder = cache().join(format!("python-{}", requirements.join("-").replace("==", "-")));
    whole(&folder, |unfinished| run(pip("install").args(["--target"]).arg(unfinished).args(requirements)))?;
    Ok(folder)
}

/// Downloads and unpacks a wheel, unless it is there.
pub fn fetch(wheel: &Wheel) -> Result<PathBuf> {
    let requirement = format!("{}=={}", wheel.name, wheel.version);
    let folder = cache().join(requirement.replace("==", "-"));
    whole(&folder, |unfinished| {
        let list = unfinished.join("requirements.txt");
        let hashes: String = wheel.hashes.iter().map(|hash| format!(" --hash=sha256:{hash}")).collect();
        fs::write(&list, format!("{requirement}{hashes}\n")).map_err(|e| format!("{}: {e}", list.display()))?;
        let mut download = pip("download");
        download.args(["--no-deps", "--only-binary=:all:", "--require-hashes", "--ignore-requires-python"]);
        download.args(PLATFORMS.iter().flat_map(|platform| ["--platform", platform]));
        download.args(["--python-version", wheel.python, "--dest"]).arg(unfinished).arg("--requirement").arg(&list);
        run(download)?;
        let file = find(unfinished, &wheel.name.replace('-', "_"))?;
        output(Command::new(PYTHON).args(["-m", "zipfile", "-e"]).arg(&file).arg(unfinished))?;
        fs::remove_file(&file).map_err(|e| format!("{}: {e}", file.display()))
    })?;
    Ok(folder)
}

/// Fills a folder that appears only when it is complete.
fn whole(folder: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let unfinished = folder.with_file_name(format!("{name}.unfinished-{}", std::process::id()));
    fs::create_dir_all(&unfinished).map_err(|e| format!("{}: {e}", unfinished.display()))?;
    let filled = fill(&unfinished)
        .and_then(|()| fs::rename(&unfinished, folder).map_err(|e| format!("{}: {e}", folder.display())));
    if filled.is_err() {
        // What matters is the first error; the rest lies in the build folder.
        let _ = fs::remove_dir_all(&unfinished);
    }
    filled
}

fn pip(command: &str) -> Command {
    let mut pip = Command::new(PYTHON);
    pip.args(["-m", "pip", command, "--quiet", "--disable-pip-version-check"]);
    pip
}

fn cache() -> PathBuf {
    target().join("motionclone")
}

/// The file in a folder whose name begins so.
fn find(folder: &Path, beginning: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.is_file() && path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(beginning)))
        .ok_or_else(|| format!("{}: holds no {beginning}…", folder.display()))
}
