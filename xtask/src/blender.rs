//! The Blender extension: its zip, and its tests in Blender itself, which is on PyPI as a Python module.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::setup::{self, Tools, Wheel};
use crate::{Result, embedded, root, run, target};

/// A Blender, and what it is tested with.
struct Blender {
    name: &'static str,
    module: Wheel,
    /// What the module imports.
    packages: &'static [Wheel],
}

/// The first one is tested with everything else.
const BLENDERS: [Blender; 3] = [
    Blender {
        name: "4.2",
        module: Wheel {
            name: "bpy",
            version: "4.2.23",
            python: "3.11",
            hashes: &[
                "9670c0c10b0307e518d4a6b015365a7d7adbfddf99f28889634fe12623ec95ff", // Linux x86_64
                "db4b9debc23dfc358be3a9695bc3cf7eb3a53762575966cd9c57005edd00a922", // macOS arm64
                "032cce9a931476938ef56865936118998381c68f719b3a1c31a8c4c457f50416", // Windows x86_64
            ],
        },
        packages: &[NUMPY_1],
    },
    Blender {
        name: "5.0",
        module: Wheel {
            name: "bpy",
            version: "5.0.1",
            python: "3.11",
            hashes: &[
                "79c6e421f53ea24a5961d86eefb8141798eee708682415eb4f5a952c2abdeb8b", // Linux x86_64
                "92e2a9b62a17d41387a08e9f10fa68e843c2af91e7b1c557b8fd6a52ff1115e8", // macOS arm64
                "4c456809d3651e4850a336283dd73ceda64d7b7f5769490956e10d832c2e7347", // Windows x86_64
            ],
        },
        packages: &[NUMPY_1],
    },
    Blender {
        name: "5.2",
        module: Wheel {
            name: "bpy",
            version: "5.2.3",
            python: "3.13",
            hashes: &[
                "8ef4a335930d647233c661ae21be1abf81207af33e1440fc5a4fc2f2f2d44db7", // Linux x86_64
                "3e34901f855ca1b11b19457cfd6720fb4d31e5860f6dbe336148051a8b4f3480", // macOS arm64
                "81c6aed7a0f2f6e755a51b507687e5b719b15dfea818859b59af351fac8cce96", // Windows x86_64
            ],
        },
        packages: &[NUMPY_2, CATTRS, ATTRS, TYPING_EXTENSIONS],
    },
];
const NUMPY_1: Wheel = Wheel {
    name: "numpy",
    version: "1.26.4",
    python: "3.11",
    hashes: &[
        "666dbfb6ec68962c033a450943ded891bed2d54e6755e35e5835d63f4f6931d5", // Linux x86_64
        "edd8b5fe47dab091176d21bb6de568acdd906d1887a4584a15a9a96a1dca06ef", // macOS arm64
        "cd25bcecc4974d09257ffcd1f098ee778f7834c3ad767fe5db785be9a4aa9cb2", // Windows x86_64
    ],
};
const NUMPY_2: Wheel = Wheel {
    name: "numpy",
    version: "2.2.6",
    python: "3.13",
    hashes: &[
        "1bc23a79bfabc5d056d106f9befb8d50c31ced2fbc70eedb8155aec74a45798f", // Linux x86_64
        "f1372f041402e37e5e633e586f62aa53de2eac8d98cbfb822806ce4bbefcb74d", // macOS arm64
        "b0544343a702fa80c95ad5d3d608ea3599dd54d4632df855e4c8d24eb6ecfa1c", // Windows x86_64
    ],
};
const CATTRS: Wheel = pure("cattrs", "26.2.1", &["a12aaa3453dc8f633a815293179f08b7421ed18d2575c459c3c736f840beac24"]);
const ATTRS: Wheel = pure("attrs", "26.1.0", &["c647aa4a12dfbad9333ca4e71fe62ddc36f4e63b2d260a37a8b83d2f043ac309"]);
const TYPING_EXTENSIONS: Wheel =
    pure("typing_extensions", "4.16.0", &["481caa481374e813c1b176ada14e97f1f67a4539ce9cfeb3f350d78d6370c2e8"]);

/// A wheel that is the same for all systems.
const fn pure(name: &'static str, version: &'static str, hashes: &'static [&'static str]) -> Wheel {
    Wheel { name, version, python: "3.13", hashes }
}

/// What Blender links to on Linux and does not bring itself, as Debian packages.
const LIBRARIES: &[&str] =
    &["libgomp1", "libx11-6", "libxfixes3", "libxi6", "libxkbcommon0", "libxrender1", "libxxf86vm1"];

/// Makes the extension's zip in a folder, of a tree that `dist` has made.
pub fn package(tree: &Path, folder: &Path, variant: &str) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let manifest = root().join("plugins/blender/motionclone/blender_manifest.toml");
    let text = std::fs::read_to_string(&manifest).map_err(|e| format!("{}: {e}", manifest.display()))?;
    if !text.contains(&format!("\nversion = \"{version}\"\n")) {
        return Err(format!("{}: its version is not {version}", manifest.display()));
    }
    let platform = if cfg!(target_arch = "aarch64") { "linux-arm64" } else { "linux-x64" };
    let zip = folder.join(format!("motionclone-blender-{version}-{platform}{variant}.zip"));
    let mut package = Command::new(setup::PYTHON);
    package.arg(root().join("plugins/blender/package.py")).args(["--platform", platform]);
    package.arg("--libraries").arg(tree.join("lib")).arg("--bundle").arg(embedded::bundle());
    run(package.arg("--licences").arg(tree.join("share/doc/motionclone/licences")).arg("--out").arg(&zip))?;
    println!("{}", zip.display());
    Ok(())
}

/// Tests the extension in the Blender that everything is tested with.
pub fn test(tools: &Tools) -> Result<()> {
    test_in(&BLENDERS[0], tools)
}

/// Tests the extension in every Blender, or in the ones that are named.
pub fn test_chosen(names: &[&str]) -> Result<()> {
    let known: Vec<&str> = BLENDERS.iter().map(|blender| blender.name).collect();
    if let Some(name) = names.iter().find(|name| !known.contains(name)) {
        return Err(format!("there are no tests for Blender {name}, only for {}", known.join(", ")));
    }
    let tools = setup::tools(setup::Runtime::Cpu)?;
    crate::demo::program(&tools)?;
    let mut chosen = BLENDERS.iter().filter(|blender| names.is_empty() || names.contains(&blender.name));
    chosen.try_for_each(|blender| test_in(blender, &tools))
}

fn test_in(blender: &Blender, tools: &Tools) -> Result<()> {
    tests(blender, tools)?.map_or(Ok(()), run)
}

/// The tests that make one clip, for those who watch them.
pub fn clone_command(tools: &Tools) -> Result<Option<Command>> {
    let mut tests = tests(&BLENDERS[0], tools)?;
    if let Some(tests) = &mut tests {
        tests.arg("Clones.test_result_strip");
    }
    Ok(tests)
}

/// The tests in a Blender, where there is one for this system.
fn tests(blender: &Blender, tools: &Tools) -> Result<Option<Command>> {
    let Blender { name, module, packages } = blender;
    let supported = cfg!(any(
        all(target_os = "linux", target_arch = "x86_64"),
        all(target_os = "macos", target_arch = "aarch64"),
        all(windows, target_arch = "x86_64"),
    ));
    if !supported {
        println!("skipped: there is no Blender {name} for this system on PyPI");
        return Ok(None);
    }
    let Some(python) = python(module.python) else {
        println!("skipped: the tests in Blender {name} need Python {}, which was not found", module.python);
        return Ok(None);
    };
    let fetched: Vec<PathBuf> = std::iter::once(module).chain(*packages).map(setup::fetch).collect::<Result<_>>()?;
    let packages = std::env::join_paths(fetched).map_err(|e| e.to_string())?;
    let command = |words: &[&str]| {
        let mut command = Command::new(&python);
        command.args(words).current_dir(root()).env("PYTHONPATH", &packages).env("PYTHONDONTWRITEBYTECODE", "1");
        command
    };
    let starts = command(&["-c", "import bpy"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !starts.is_ok_and(|status| status.success()) {
        setup::install(LIBRARIES)?;
    }
    let built = target().join("release");
    let mut tests = command(&[]);
    tests.arg(root().join("plugins/blender/tests/test_blender.py"));
    tools.apply(&mut tests);
    tests.env("MOTIONCLONE_PROGRAM", built.join(format!("motionclone{}", std::env::consts::EXE_SUFFIX)));
    tests.env("MOTIONCLONE_LIBRARY_FOLDER", built).env("MOTIONCLONE_BUNDLE", embedded::bundle());
    Ok(Some(tests))
}

/// An interpreter of a version, such as 3.11: one on the search path, or one that pyenv has.
fn python(version: &str) -> Option<PathBuf> {
    let mut candidates = vec![format!("python{version}").into(), PathBuf::from(setup::PYTHON)];
    let home = std::env::var_os("PYENV_ROOT").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".pyenv")));
    let installed = home.and_then(|home| std::fs::read_dir(home.join("versions")).ok());
    candidates.extend(installed.into_iter().flatten().flatten().map(|entry| entry.path().join("bin/python")));
    // What answers may be a script that chooses an interpreter; the interpreter itself is wanted.
    candidates.into_iter().find_map(|candidate| {
        let mut ask = Command::new(&candidate);
        ask.args(["-c", "import sys; print('%d.%d' % sys.version_info[:2], sys.executable)"]);
        let answer = String::from_utf8(ask.output().ok()?.stdout).ok()?;
        let (found, executable) = answer.trim().split_once(' ')?;
        (found == version).then(|| executable.into())
    })
}
