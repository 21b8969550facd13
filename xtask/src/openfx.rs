//! The OpenFX plugin: its bundle, and its tests by a host in C++.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::setup::Tools;
use crate::{Result, cargo, copy, embedded, licences, output, root, run, target};

/// The folder of a bundle for this system, as hosts look for it.
const PLATFORM: &str = if cfg!(target_arch = "x86_64") { "Linux-x86-64" } else { "Linux-aarch64" };
/// The effect's icon, named as the plugin's description names it.
const ICON: &str = "org.motionclone.MotionClone.png";
/// Where the bundle lies in what is handed out.
const BUNDLE: &str = "plugins/openfx/MotionClone.ofx.bundle";

/// Builds the plugin with a profile, checks what it exports, and gives its file.
fn build(profile: &str) -> Result<PathBuf> {
    run(cargo(&["build", "--package", "motionclone-openfx", "--lib", "--profile", profile]))?;
    let folder = target().join(if profile == "dev" { "debug" } else { profile });
    let library = folder.join("libmotionclone_openfx.so");
    let symbols = output(Command::new("nm").args(["--dynamic", "--defined-only", "--format=posix"]).arg(&library))?;
    let mut exported: Vec<&str> = symbols.lines().filter_map(|line| line.split(' ').next()).collect();
    exported.sort_unstable();
    if exported != ["OfxGetNumberOfPlugins", "OfxGetPlugin", "OfxSetHost"] {
        return Err(format!("{}: exports {exported:?}", library.display()));
    }
    Ok(library)
}

/// Puts the bundle into a tree that has the engine and ONNX Runtime in `lib`, and the papers of both.
pub fn bundle(profile: &str, tree: &Path) -> Result<()> {
    assemble(&build(profile)?, tree)
}

/// Copies a folder with all that is in it, where there is one.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(from) else { return Ok(()) };
    for entry in entries.flatten() {
        let (path, place) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() { copy_folder(&path, &place)? } else { copy(&path, &place)? }
    }
    Ok(())
}

fn assemble(plugin: &Path, tree: &Path) -> Result<()> {
    let (bundle, lib) = (tree.join(BUNDLE), tree.join("lib"));
    let place = bundle.join("Contents").join(PLATFORM);
    copy(plugin, &place.join("MotionClone.ofx"))?;
    copy(&lib.join("libmotionclone.so"), &place.join("libmotionclone.so"))?;
    for entry in fs::read_dir(&lib).map_err(|e| format!("{}: {e}", lib.display()))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with("libonnxruntime") {
            copy(&entry.path(), &place.join(entry.file_name()))?;
        }
    }
    let resources = bundle.join("Contents/Resources");
    embedded::copy_to(&resources.join("model"))?;
    copy(&root().join("plugins/openfx").join(ICON), &resources.join(ICON))?;
    for file in ["LICENSE-MIT", "LICENSE-APACHE"] {
        copy(&root().join(file), &resources.join(file))?;
    }
    // The bundle is what people copy, so the licences of what is in it go along.
    copy_folder(&tree.join(licences::PLACE), &resources.join("licences"))?;
    for file in ["README.md", "docs/parameters.svg"] {
        copy(&root().join("plugins/openfx").join(file), &bundle.with_file_name("").join(file))?;
    }
    Ok(())
}

/// Drives the plugin by a host in C++ with the address sanitizer, compares its clip with that of the command line, and
/// runs a part of it under valgrind.
pub fn test(tools: &Tools, model: &Path) -> Result<()> {
    if !cfg!(target_os = "linux") {
        println!("the OpenFX plugin's host is not run: it is made for Linux");
        return Ok(());
    }
    let built = build("release")?;
    let work = target().join("motionclone/openfx");
    if work.exists() {
        fs::remove_dir_all(&work).map_err(|e| format!("{}: {e}", work.display()))?;
    }
    let (alone, out) = (work.join("alone/MotionClone.ofx"), work.join("out"));
    copy(&built, &alone)?;
    fs::create_dir_all(out.join("images")).map_err(|e| format!("{}: {e}", out.display()))?;
    let source = root().join("plugins/openfx/tests/host/main.cpp");
    let headers = headers()?;
    let compile = |program: &Path, options: &[&str]| {
        let mut compiler = Command::new("g++");
        compiler
            .args(["-std=c++20", "-Wall", "-Wextra", "-Werror", "-O1", "-g", "-isystem"])
            .arg(&headers)
            .args(options);
        run(compiler.arg("-o").arg(program).arg(&source).args(["-ldl", "-lpthread"]))
    };
    let (host, plain) = (work.join("host"), work.join("host-plain"));
    compile(&host, &["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"])?;
    compile(&plain, &[])?;
    // Apart from the embedded model that may lie beside the built one: scenarios name theirs, or test that there is none.
    let library = work.join("engine/libmotionclone.so");
    copy(&target().join("release/libmotionclone.so"), &library)?;
    let with = |mut command: Command, scenario: &str| {
        command.arg(&alone).arg(scenario).arg(&out);
        tools.apply(&mut command);
        command.env("MOTIONCLONE_CACHE", work.join("cache")).env("TEST_BUNDLE", model);
        // The engine and ONNX Runtime keep what they have until the process ends.
        command.env("MOTIONCLONE_LIBRARY", &library).env("ASAN_OPTIONS", "detect_leaks=0");
        command
    };
    let scenario = |name: &str| run(with(Command::new(&host), name));
    for name in ["describe", "parameters", "source", "clone"] {
        scenario(name)?;
    }
    let (drawn, kept) = (out.join("parameters.svg"), root().join("plugins/openfx/docs/parameters.svg"));
    if fs::read(&drawn).ok() != fs::read(&kept).ok() {
        return Err(format!("{} is no longer what the plugin describes: copy {}", kept.display(), drawn.display()));
    }
    compare(tools, model, &out)?;
    for name in ["conditions", "cancel", "hosts", "alpha", "standard"] {
        scenario(name)?;
    }
    run(with(Command::new(&host), "missing").env_remove("MOTIONCLONE_LIBRARY").env_remove("MOTIONCLONE_ONNXRUNTIME"))?;
    packaged(tools, &built, &library, &work, |plugin, name| {
        let mut command = Command::new(&host);
        command.arg(plugin).arg(name).arg(&out).env("MOTIONCLONE_CACHE", work.join("cache"));
        command.env("TEST_BUNDLE", model).env("ASAN_OPTIONS", "detect_leaks=0");
        run(command.env_remove("MOTIONCLONE_LIBRARY").env_remove("MOTIONCLONE_ONNXRUNTIME"))
    })?;
    let full = work.join("full").join(BUNDLE);
    host_support(tools, full.parent().unwrap_or(&full), model, &work)?;
    for name in ["describe", "source"] {
        let mut valgrind = Command::new("valgrind");
        valgrind.args(["--quiet", "--error-exitcode=9"]).arg(&plain);
        run(with(valgrind, name))?;
    }
    // They remove the clips that were made, so they come last.
    scenario("reopen")?;
    scenario("make")?;
    run(with(Command::new(&plain), "bench"))
}

/// Drives the bundle through the OpenFX project's own host library, built from its published sources.
fn host_support(tools: &Tools, bundle: &Path, model: &Path, work: &Path) -> Result<()> {
    let sources = headers()?.with_file_name("HostSupport");
    // It reads XML with an expat that lies beside it, in C.
    let expat = sources.join("expat-2.0.1/lib");
    let mut objects = Vec::new();
    for part in ["xmlparse", "xmlrole", "xmltok"] {
        let object = work.join(format!("{part}.o"));
        let mut compiler = Command::new("gcc");
        compiler.args(["-w", "-O1", "-DHAVE_MEMMOVE", "-DBYTEORDER=1234", "-DXML_NS", "-DXML_DTD"]);
        compiler.args(["-DXML_CONTEXT_BYTES=1024", "-I"]).arg(&expat).arg("-c").arg(expat.join(format!("{part}.c")));
        run(compiler.arg("-o").arg(&object))?;
        objects.push(object);
    }
    let folder = sources.join("src");
    let library = fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?.flatten();
    let program = work.join("hostsupport");
    let mut compiler = Command::new("g++");
    // It is code of its time: with exception specifications, and without some of the headers that it needs.
    compiler.args(["-std=gnu++14", "-w", "-O1", "-g", "-include", "cstring", "-include", "ctime", "-include", "map"]);
    compiler.args(["-include", "vector", "-I"]).arg(headers()?).arg("-I").arg(sources.join("include"));
    compiler
        .arg("-I")
        .arg(&expat)
        .arg("-o")
        .arg(&program)
        .arg(root().join("plugins/openfx/tests/hostsupport/main.cpp"));
    compiler.args(library.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "cpp")));
    run(compiler.args(&objects).args(["-ldl", "-lpthread"]))?;
    for scenario in ["alpha", "clone", "reopen", "gone", "leave"] {
        let mut host = Command::new(&program);
        let folder = work.join("hostsupport-clips");
        fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        host.arg(scenario).arg(&folder).env("MOTIONCLONE_CACHE", folder.join("cache"));
        tools.apply(&mut host);
        run(host.env("OFX_PLUGIN_PATH", bundle).env("TEST_BUNDLE", model))?;
    }
    Ok(())
}

/// The folder of OpenFX's headers in the sources of a published crate, which cargo fetches by the hashes of a lock file.
fn headers() -> Result<PathBuf> {
    let manifest = root().join("plugins/openfx/tests/headers/Cargo.toml");
    let mut fetch = cargo(&["metadata", "--locked", "--format-version", "1", "--manifest-path"]);
    let metadata = output(fetch.arg(manifest))?;
    let manifest = metadata
        .split("\"manifest_path\":\"")
        .filter_map(|rest| rest.split('"').next())
        .find(|path| Path::new(path).parent().is_some_and(|folder| folder.ends_with("openfx-sys-0.1.0")));
    let manifest = manifest.ok_or("cargo does not tell where the OpenFX headers are")?;
    Ok(Path::new(manifest).with_file_name("openfx/include"))
}

/// A host that makes a clip with the plugin, for those who watch it; the tests have built it.
pub fn clone_command(tools: &Tools, model: &Path, work: &Path) -> Result<Command> {
    let built = target().join("motionclone/openfx");
    let out = work.join("openfx");
    fs::create_dir_all(&out).map_err(|e| format!("{}: {e}", out.display()))?;
    let mut host = Command::new(built.join("host-plain"));
    host.arg(built.join("alone/MotionClone.ofx")).arg("clone").arg(&out);
    tools.apply(&mut host);
    host.env("MOTIONCLONE_CACHE", work.join("openfx-cache")).env("TEST_BUNDLE", model);
    host.env("MOTIONCLONE_LIBRARY", target().join("release/libmotionclone.so"));
    Ok(host)
}

/// Drives the bundle as it is handed out, which needs nothing else, then the same without ONNX Runtime. `drive` runs a
/// scenario with a plugin.
fn packaged(
    tools: &Tools,
    plugin: &Path,
    library: &Path,
    work: &Path,
    drive: impl Fn(&Path, &str) -> Result<()>,
) -> Result<()> {
    let full = work.join("full");
    for (file, name) in [(library, "libmotionclone.so"), (&tools.onnxruntime, "libonnxruntime.so")] {
        copy(file, &full.join("lib").join(name))?;
    }
    assemble(plugin, &full)?;
    let inside = full.join(BUNDLE).join("Contents").join(PLATFORM).join("MotionClone.ofx");
    drive(&inside, "describe")?;
    drive(&inside, "installed")?;
    let incomplete = work.join("incomplete");
    copy(library, &incomplete.join("lib/libmotionclone.so"))?;
    assemble(plugin, &incomplete)?;
    drive(&incomplete.join(BUNDLE).join("Contents").join(PLATFORM).join("MotionClone.ofx"), "no-runtime")
}

/// The clip of the scenario `clone` must be that of the command line, and the frames become images for the others.
fn compare(tools: &Tools, model: &Path, out: &Path) -> Result<()> {
    const SIDE: usize = 64;
    let failed = |path: &Path| format!("{} cannot be used", path.display());
    let reference = out.join("reference.rgb");
    let bytes = fs::read(&reference).map_err(|_| failed(&reference))?;
    let images = out.join("images");
    for (index, frame) in bytes.chunks_exact(SIDE * SIDE * 3).enumerate() {
        let path = images.join(format!("{index:02}.bmp"));
        fs::write(&path, bitmap(frame, SIDE)).map_err(|_| failed(&path))?;
    }
    let size = format!("{SIDE}x{SIDE}");
    let mut video = Command::new(&tools.ffmpeg);
    video.args(["-v", "error", "-y", "-f", "rawvideo", "-pixel_format", "rgb24", "-video_size", &size, "-i"]);
    run(video.arg(&reference).args(["-c:v", "ffv1", "-pix_fmt", "bgr0"]).arg(out.join("clip.mkv")))?;
    let (program, frames) = (target().join("release/motionclone"), out.join("frames"));
    let mut clone = Command::new(program);
    clone.arg("clone").arg("--bundle").arg(model).arg("--reference").arg(&images).arg("--out").arg(&frames);
    clone.args(["--prompt", "ground", "--device", "cpu", "--no-cache", "--size", &size, "--frames", "4"]);
    clone.args(["--steps", "12", "--guidance-steps", "6", "--warm-up", "0", "--cool-up", "0"]);
    tools.apply(&mut clone);
    run(clone)?;
    let mut files: Vec<PathBuf> =
        fs::read_dir(&frames).map_err(|_| failed(&frames))?.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "png"));
    files.sort();
    let mut wanted = Vec::new();
    for file in files {
        let raw = out.join("frame.rgb");
        let mut read = Command::new(&tools.ffmpeg);
        read.args(["-v", "error", "-y", "-i"]).arg(&file).args(["-f", "rawvideo", "-pix_fmt", "rgb24"]);
        output(read.arg(&raw))?;
        wanted.extend(fs::read(&raw).map_err(|_| failed(&raw))?);
    }
    let made = out.join("clone.rgb");
    if wanted.is_empty() || fs::read(&made).map_err(|_| failed(&made))? != wanted {
        return Err("the OpenFX plugin's clip is not that of the command line".into());
    }
    println!("the OpenFX plugin's clip is that of the command line, byte for byte");
    Ok(())
}

/// 8-bit RGB, rows from the top, as a BMP file. The side is a multiple of 4, so that rows need no padding.
fn bitmap(rgb: &[u8], side: usize) -> Vec<u8> {
    let mut file = b"BM".to_vec();
    let number = |value: usize| (value as u32).to_le_bytes();
    for value in [54 + rgb.len(), 0, 54, 40, side, side, 1 | 24 << 16, 0, rgb.len(), 0, 0, 0, 0] {
        file.extend(number(value));
    }
    for row in rgb.chunks_exact(side * 3).rev() {
        row.chunks_exact(3).for_each(|pixel| file.extend([pixel[2], pixel[1], pixel[0]]));
    }
    file
}
