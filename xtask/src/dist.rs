//! What is handed to others: a folder that can lie anywhere, with the C library, its headers, the command line and
//! ONNX Runtime, an archive of it, and plugins made of it.
//!
//! The exported symbols are exactly the functions of `include/motionclone.h`: rustc links the library with a version
//! script of its own, and what came of it is checked here.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::setup::{self, Runtime};
use crate::{Result, blender, cargo, copy, embedded, make_parent, output, root, run, target};
use crate::{licences, openfx};

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The number in the library's file name, that of the ABI.
const ABI: &str = "0";

/// What is built and where it goes.
pub struct Options {
    pub runtime: Runtime,
    /// The cargo profile: `dist`, or one whose result is at hand already, for tests.
    pub profile: String,
    /// The folder that gets the tree; `dist` in cargo's build folder unless given.
    pub out: Option<PathBuf>,
    /// Whether an archive and plugins are made, too.
    pub archive: bool,
}

impl Options {
    /// From the words behind `dist`.
    pub fn parse(words: &[&str]) -> Result<Self> {
        let mut options = Self { runtime: Runtime::Cpu, profile: "dist".into(), out: None, archive: true };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().copied().ok_or_else(|| format!("{word} needs a value"));
            match *word {
                "--cuda" => options.runtime = Runtime::Cuda,
                "--profile" => options.profile = value()?.into(),
                "--out" => options.out = Some(value()?.into()),
                "--no-archive" => options.archive = false,
                _ => return Err(format!("dist: unknown option {word}")),
            }
        }
        Ok(options)
    }
}

/// Builds the tree, names it, and packs it.
pub fn build(options: &Options) -> Result<()> {
    if !cfg!(target_os = "linux") {
        return Err("dist is made for Linux so far".into());
    }
    let onnxruntime = setup::onnxruntime(options.runtime)?;
    run(cargo(&["build", "--package", "motionclone", "--lib", "--bins", "--profile", &options.profile]))?;
    let built = target().join(if options.profile == "dev" { "debug" } else { &options.profile });
    let variant = if matches!(options.runtime, Runtime::Cuda) { "-cuda" } else { "" };
    let name = format!("motionclone-{VERSION}-{}-{}{variant}", std::env::consts::OS, std::env::consts::ARCH);
    let folder = options.out.clone().unwrap_or_else(|| target().join("dist"));
    let tree = folder.join(&name);
    if tree.exists() {
        fs::remove_dir_all(&tree).map_err(|e| format!("{}: {e}", tree.display()))?;
    }
    let library = tree.join("lib").join(format!("libmotionclone.so.{VERSION}"));
    copy(&built.join("libmotionclone.so"), &library)?;
    check_library(&library)?;
    link(&library.with_file_name(format!("libmotionclone.so.{ABI}")), &format!("libmotionclone.so.{VERSION}"))?;
    link(&library.with_file_name("libmotionclone.so"), &format!("libmotionclone.so.{ABI}"))?;
    copy(&built.join("motionclone"), &tree.join("bin/motionclone"))?;
    for header in ["motionclone.h", "motionclone.hpp"] {
        copy(&root().join("include").join(header), &tree.join("include").join(header))?;
    }
    for (file, place) in [
        ("motionclone.pc.in", "lib/pkgconfig/motionclone.pc"),
        ("motionclone-config.cmake.in", "lib/cmake/motionclone/motionclone-config.cmake"),
        ("motionclone-config-version.cmake.in", "lib/cmake/motionclone/motionclone-config-version.cmake"),
    ] {
        let template = root().join("packaging").join(file);
        let text = fs::read_to_string(&template).map_err(|e| format!("{}: {e}", template.display()))?;
        write(&tree.join(place), &text.replace("@VERSION@", VERSION).replace("@ABI@", ABI))?;
    }
    copy_onnxruntime(&onnxruntime, &tree)?;
    embedded::copy_to(&tree.join("share/motionclone/bundle"))?;
    copy_documents(&tree, &onnxruntime)?;
    openfx::bundle(&options.profile, &tree)?;
    println!("{}", tree.display());
    if options.archive {
        let archive = folder.join(format!("{name}.tar.xz"));
        let mut tar = Command::new("tar");
        tar.args(["--owner=0", "--group=0", "--sort=name", "-cJf"]).arg(&archive).arg("-C").arg(&folder).arg(&name);
        run(tar.env("XZ_OPT", "-T0"))?;
        println!("{}", archive.display());
        blender::package(&tree, &folder, variant)?;
    }
    Ok(())
}

/// The library must have its name, must stay loaded, and must export the header's functions and nothing else.
fn check_library(library: &Path) -> Result<()> {
    let header = root().join("include/motionclone.h");
    let header = fs::read_to_string(&header).map_err(|e| format!("{}: {e}", header.display()))?;
    let declared: BTreeSet<&str> = header
        .lines()
        .filter(|line| !line.starts_with([' ', '/', '*', '#', '}']) && !line.starts_with("typedef"))
        .filter_map(|line| line.split('(').next()?.rsplit([' ', '*']).next())
        .filter(|name| name.starts_with("motionclone_"))
        .filter(|name| header.contains(&format!("{name}(")))
        .collect();
    let symbols = output(Command::new("nm").args(["--dynamic", "--defined-only", "--format=posix"]).arg(library))?;
    let exported: BTreeSet<&str> = symbols.lines().filter_map(|line| line.split(' ').next()).collect();
    if declared != exported {
        let difference: Vec<&&str> = declared.symmetric_difference(&exported).collect();
        return Err(format!("{}: header and exported symbols differ in {difference:?}", library.display()));
    }
    let dynamic = output(Command::new("readelf").args(["--dynamic", "--wide"]).arg(library))?;
    for wanted in [format!("soname: [libmotionclone.so.{ABI}]"), "NODELETE".into()] {
        if !dynamic.contains(&wanted) {
            return Err(format!("{}: no {wanted}", library.display()));
        }
    }
    println!("{} functions are exported, those of the header", exported.len());
    Ok(())
}

/// ONNX Runtime, and its parts for GPUs, under the names that library and program look for.
fn copy_onnxruntime(onnxruntime: &Path, tree: &Path) -> Result<()> {
    copy(onnxruntime, &tree.join("lib/libonnxruntime.so"))?;
    let folder = onnxruntime.parent().unwrap_or(Path::new("."));
    for entry in fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?.flatten() {
        let name = entry.file_name();
        // TensorRT is another product, which nothing here uses.
        let name = name.to_string_lossy();
        if name.starts_with("libonnxruntime_providers_") && !name.contains("tensorrt") {
            copy(&entry.path(), &tree.join("lib").join(&*name))?;
        }
    }
    Ok(())
}

/// The project's own papers, and the licences of everything inside.
fn copy_documents(tree: &Path, onnxruntime: &Path) -> Result<()> {
    let documents = tree.join("share/doc/motionclone");
    for file in ["README.md", "LICENSE-MIT", "LICENSE-APACHE"] {
        copy(&root().join(file), &documents.join(file))?;
    }
    for folder in ["c", "cpp", "python"] {
        let from = root().join("examples").join(folder);
        for entry in fs::read_dir(&from).map_err(|e| format!("{}: {e}", from.display()))?.flatten() {
            copy(&entry.path(), &documents.join("examples").join(folder).join(entry.file_name()))?;
        }
    }
    let licences = tree.join(licences::PLACE);
    let package = onnxruntime.parent().and_then(Path::parent).unwrap_or(Path::new("."));
    for file in ["LICENSE", "ThirdPartyNotices.txt"] {
        copy(&package.join(file), &licences.join("onnxruntime").join(file))?;
    }
    let standard = PathBuf::from(output(Command::new("rustc").args(["--print", "sysroot"]))?.trim());
    let standard = standard.join("share/doc/rust");
    for file in ["COPYRIGHT-library.html", "licenses/MIT.txt", "licenses/Apache-2.0.txt"] {
        let name = Path::new(file).file_name().unwrap_or_default();
        copy(&standard.join(file), &licences.join("rust-standard-library").join(name))?;
    }
    copy_crate_licences(&licences)
}

/// The licence files of every crate that is linked in, from cargo's own copies of their sources.
fn copy_crate_licences(licences: &Path) -> Result<()> {
    let tree = [
        "tree",
        "--package",
        "motionclone",
        "--package",
        "motionclone-openfx",
        "--locked",
        "--edges",
        "normal",
        "--prefix",
        "none",
    ];
    let packages = output(&mut cargo(&[&tree[..], &["--format", "{p}|{l}|{r}"]].concat()))?;
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let sources = home.ok_or("neither CARGO_HOME nor HOME is set")?.join("registry/src");
    let registries: Vec<PathBuf> = fs::read_dir(&sources)
        .map_err(|e| format!("{}: {e}", sources.display()))?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    let mut list = String::from("The crates that are linked in, their licences, and where they come from.\n\n");
    let packages: BTreeSet<&str> = packages.lines().map(|line| line.trim_end_matches(" (*)")).collect();
    for package in packages {
        let mut parts = package.split('|');
        let mut words = parts.next().unwrap_or_default().split(' ');
        let (name, version) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if name.starts_with("motionclone") || name.is_empty() {
            continue;
        }
        let folder_name = format!("{name}-{}", version.trim_start_matches('v'));
        let (licence, from) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        list.push_str(&format!("{folder_name}: {licence} {from}\n"));
        let folder = registries.iter().map(|registry| registry.join(&folder_name)).find(|folder| folder.is_dir());
        let folder = folder.ok_or_else(|| format!("{folder_name}: its source is not in {}", sources.display()))?;
        for entry in fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?.flatten() {
            let name = entry.file_name().to_string_lossy().to_uppercase();
            let paper = ["LICENSE", "LICENCE", "COPYING", "NOTICE", "UNLICENSE", "COPYRIGHT"];
            if paper.iter().any(|start| name.starts_with(start)) && entry.path().is_file() {
                copy(&entry.path(), &licences.join("crates").join(&folder_name).join(entry.file_name()))?;
            }
        }
    }
    write(&licences.join("crates.txt"), &list)
}

fn write(path: &Path, text: &str) -> Result<()> {
    make_parent(path)?;
    fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

#[cfg(unix)]
fn link(path: &Path, name: &str) -> Result<()> {
    std::os::unix::fs::symlink(name, path).map_err(|e| format!("{}: {e}", path.display()))
}

#[cfg(not(unix))]
fn link(path: &Path, name: &str) -> Result<()> {
    copy(&path.with_file_name(name), path)
}
