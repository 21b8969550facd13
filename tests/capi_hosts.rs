//! Programs in C, C++ and Python that use the library as it is handed out: the tree that `cargo xtask dist` makes, moved
//! to another folder. They need gcc, g++, cmake, make, pkg-config, valgrind, abidw and abidiff, nm, and Python; a test
//! that lacks one on Linux fails and names it.
#![cfg(target_os = "linux")]

mod host;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

use host::bundle;
use motionclone::media::frames::Frames;
use tempfile::TempDir;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a command that must succeed and gives what it says.
#[track_caller]
fn run(command: &mut Command) -> String {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|e| panic!("{name}: {e}; `cargo xtask test` installs what tests need"));
    let text = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    text
}

/// The tree, made once with the profile of the tests and moved to a folder with a space in its name.
fn tree() -> &'static Path {
    static TREE: OnceLock<PathBuf> = OnceLock::new();
    TREE.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("capi dist");
        let _ = fs::remove_dir_all(&folder);
        let made = folder.join("made");
        let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
        let mut dist = Command::new(env!("CARGO"));
        dist.args(["run", "--quiet", "--release", "--package", "xtask", "--", "dist", "--no-archive"]);
        dist.args(["--profile", profile, "--out"]).arg(&made).current_dir(root());
        run(&mut dist);
        let tree = fs::read_dir(&made).unwrap().next().unwrap().unwrap().path();
        let moved = folder.join("another place");
        fs::rename(tree, &moved).unwrap();
        moved
    })
}

/// A command that sees the tree's library and no ONNX Runtime but the one beside it.
fn with_tree(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("LD_LIBRARY_PATH", tree().join("lib")).env_remove("MOTIONCLONE_ONNXRUNTIME");
    command
}

fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A compiler with all warnings as errors.
fn compiler(name: &str, standard: &str) -> Command {
    let mut compiler = Command::new(name);
    compiler.args([standard, "-Wall", "-Wextra", "-Werror", "-pedantic", "-O1", "-g"]);
    compiler
}

/// What pkg-config says of the tree.
fn flags() -> Vec<String> {
    let mut pkg_config = Command::new("pkg-config");
    pkg_config.args(["--cflags", "--libs", "motionclone"]).env("PKG_CONFIG_PATH", tree().join("lib/pkgconfig"));
    // Spaces in paths are escaped as for a shell.
    let text = run(&mut pkg_config).trim().replace("\\ ", "\0");
    text.split_whitespace().map(|word| word.replace('\0', " ")).collect()
}

/// Builds a C program of the project with pkg-config's flags.
fn build_c(source: &str, folder: &Path) -> PathBuf {
    let program = folder.join(Path::new(source).file_stem().unwrap());
    let mut gcc = compiler("gcc", "-std=c11");
    run(gcc.arg("-o").arg(&program).arg(root().join(source)).args(flags()).args(["-lm", "-ldl"]));
    program
}

const SIZES: [&str; 4] = ["64", "64", "4", "10"];

/// The clip that the examples draw.
fn drawn() -> Frames {
    let (width, height, count) = (96, 64, 12);
    let mut data = Vec::new();
    for t in 0..count {
        for at in 0..width * height {
            let (u, v) = ((at % width) as f64 - 3.0 * t as f64, (at / width) as f64);
            data.extend([u / 7.0, v / 5.0 + u / 11.0, (u + v) / 9.0].map(|wave| (127.5 + 100.0 * wave.sin()) as u8));
        }
    }
    Frames { width, height, data }
}

/// What the command line of the tree makes of that clip, as the examples write it.
fn of_the_command_line(folder: &Path) -> Vec<u8> {
    let (reference, out) = (folder.join("reference"), folder.join("frames"));
    fs::create_dir(&reference).unwrap();
    let clip = drawn();
    for (index, frame) in clip.iter().enumerate() {
        let path = reference.join(format!("{index:02}.png"));
        image::save_buffer(path, frame, 96, 64, image::ExtendedColorType::Rgb8).unwrap();
    }
    let mut clone = with_tree(tree().join("bin/motionclone"));
    clone.arg("clone").arg("--bundle").arg(bundle()).arg("--reference").arg(&reference).arg("--out").arg(&out);
    clone.args(["--prompt", "Relics on the seabed", "--device", "cpu", "--no-cache", "--size", "64x64"]);
    clone.args(["--frames", "4", "--steps", "10", "--guidance-steps", "5", "--warm-up", "1", "--cool-up", "1"]);
    run(&mut clone);
    // Beside the frames lies the program's own mark.
    let is_frame = |path: &PathBuf| path.extension() == Some(OsStr::new("png"));
    let mut files: Vec<PathBuf> =
        fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path()).filter(is_frame).collect();
    files.sort();
    assert_eq!(files.len(), 4);
    files.iter().flat_map(|file| Frames::open_image(file).unwrap().data).collect()
}

#[test]
fn examples_of_all_languages_make_what_the_command_line_makes() {
    let folder = folder();
    let wanted = of_the_command_line(folder.path());
    let c = build_c("examples/c/clone.c", folder.path());
    let cpp = folder.path().join("clone_cpp");
    let mut gxx = compiler("g++", "-std=c++17");
    run(gxx.arg("-o").arg(&cpp).arg(root().join("examples/cpp/clone.cpp")).args(flags()));
    let build = folder.path().join("build");
    let mut configure = Command::new("cmake");
    configure.arg("-S").arg(root().join("tests/hosts")).arg("-B").arg(&build);
    run(configure.arg(format!("-DCMAKE_PREFIX_PATH={}", tree().display())));
    run(Command::new("cmake").arg("--build").arg(&build));
    let mut python = with_tree("python3");
    python.arg(root().join("examples/python/clone.py")).arg(tree().join("lib/libmotionclone.so"));
    let programs = [
        ("C", with_tree(c)),
        ("C++", with_tree(cpp)),
        ("C with CMake", with_tree(build.join("clone_c"))),
        ("C++ with CMake", with_tree(build.join("clone_cpp"))),
        ("Python", python),
    ];
    for (name, mut program) in programs {
        let out = folder.path().join("clip.rgb");
        let said = run(program.arg(bundle()).arg(&out).args(SIZES));
        assert!(name.contains("C++") || said.contains("denoise  9/10"), "{name} shows no progress: {said}");
        assert!(fs::read(&out).unwrap() == wanted, "{name} makes another clip than the command line");
        fs::remove_file(&out).unwrap();
    }
}

#[test]
fn memory_is_used_as_it_should_be() {
    let folder = folder();
    let program = build_c("examples/c/clone.c", folder.path());
    let mut valgrind = with_tree("valgrind");
    valgrind.args(["--error-exitcode=9", "--leak-check=full", "--num-callers=40", "--quiet"]);
    // What is only possibly lost is not: Rust's hash maps keep a pointer into the middle of their memory.
    valgrind.args(["--errors-for-leak-kinds=definite,indirect", "--show-leak-kinds=definite,indirect"]);
    valgrind.arg(format!("--suppressions={}", root().join("tests/hosts/valgrind.supp").display()));
    valgrind.arg(program).arg(bundle()).arg(folder.path().join("clip.rgb")).args(["64", "64", "2", "2"]);
    run(&mut valgrind);
    assert_eq!(fs::read(folder.path().join("clip.rgb")).unwrap().len(), 2 * 64 * 64 * 3);
}

#[test]
fn it_can_be_loaded_late_beside_another_runtime_and_closed_at_any_time() {
    let folder = folder();
    let program = build_c("tests/hosts/plugin.c", folder.path());
    let library = tree().join("lib/libmotionclone.so");
    let said = run(with_tree(&program).env_remove("LD_LIBRARY_PATH").arg(&library).arg(bundle()));
    assert!(said.contains("done"), "{said}");
    let other = folder.path().join("libonnxruntime.so.1");
    fs::copy(tree().join("lib/libonnxruntime.so"), &other).unwrap();
    let said = run(with_tree(&program).env_remove("LD_LIBRARY_PATH").arg(&library).arg(bundle()).arg(&other));
    assert!(said.contains("another ONNX Runtime is here") && said.contains("done"), "{said}");
}

/// In the first job networks are loaded, which makes ONNX Runtime's static tables; in the second they run.
#[test]
fn a_host_may_exit_at_any_moment_of_a_job() {
    let folder = folder();
    let program = build_c("tests/hosts/leave.c", folder.path());
    for job in ["first", "second"] {
        for state in ["left", "destroyed"] {
            for milliseconds in [0, 50, 100, 200, 300, 400, 600, 1000] {
                let case = format!("after {milliseconds} ms of the {job} job, {state}");
                let mut host = with_tree(&program);
                host.arg(bundle()).arg(milliseconds.to_string()).args([job, state]);
                let begin = Instant::now();
                let output = host.stdin(Stdio::null()).output().unwrap();
                println!("{case}: {:.1?}", begin.elapsed());
                assert_eq!(output.status.code(), Some(7), "{case}");
                assert_eq!(
                    [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap()),
                    ["", ""],
                    "{case}"
                );
            }
        }
    }
}

/// Compiled with the header as it first was.
#[test]
fn a_host_of_the_first_version_works() {
    let folder = folder();
    let program = folder.path().join("host");
    let old = root().join("tests/hosts/v1");
    let mut gcc = compiler("gcc", "-std=c11");
    run(gcc.arg("-o").arg(&program).arg(old.join("host.c")).arg("-I").arg(&old).args(flags()));
    let out = folder.path().join("clip.rgb");
    assert_eq!(run(with_tree(&program).arg(bundle()).arg(&out)), "");
    assert_eq!(fs::read(out).unwrap().len(), 4 * 64 * 64 * 3);
}

#[test]
fn a_host_may_have_any_floating_point_environment() {
    let folder = folder();
    let program = build_c("tests/hosts/floating_point.c", folder.path());
    let clip = |kind: &str| {
        let out = folder.path().join(kind);
        run(with_tree(&program).arg(bundle()).arg(&out).arg(kind));
        fs::read(out).unwrap()
    };
    assert!(clip("odd") == clip("plain"));
}

#[test]
fn too_little_memory_is_an_error() {
    let folder = folder();
    let program = build_c("tests/hosts/memory.c", folder.path());
    for side in ["1024", "4096"] {
        let said = run(with_tree(&program).arg(bundle()).arg(side));
        assert!(said.contains("not enough memory"), "{side}: {said}");
    }
}

#[test]
fn a_forked_process_is_refused_and_ends() {
    let folder = folder();
    let program = build_c("tests/hosts/fork.c", folder.path());
    assert_eq!(run(with_tree(&program).arg(bundle())), "");
}

/// The declarations of the header's functions.
#[cfg(target_arch = "x86_64")]
fn declarations() -> Vec<String> {
    let header = fs::read_to_string(root().join("include/motionclone.h")).unwrap();
    let code: String = header.split("*/").map(|part| part.split("/*").next().unwrap_or_default()).collect();
    code.split([';', '}', '{'])
        .map(|statement| {
            let lines = statement.lines().filter(|line| !line.starts_with('#'));
            lines.collect::<Vec<_>>().join(" ").trim().to_string()
        })
        .filter(|statement| statement.contains("motionclone_") && statement.ends_with(')'))
        .filter(|statement| !statement.starts_with("typedef"))
        .collect()
}

/// The interface as C sees it, against `tests/abi/motionclone.abi`: the header's functions with empty bodies make a
/// library whose debug information has every type. That the real library has these functions is checked when the tree
/// is made, that the header is the source's by `capi_header.rs`. Recorded on x86-64.
#[test]
#[cfg(target_arch = "x86_64")]
fn the_interface_is_the_recorded_one() {
    let folder = folder();
    let declarations = declarations();
    assert!(declarations.len() > 30, "{declarations:?}");
    let bodies: String = declarations.iter().map(|declaration| format!("{declaration} {{ return 0; }}\n")).collect();
    let library = folder.path().join("libmotionclone.so");
    fs::write(folder.path().join("stub.c"), format!("#include \"motionclone.h\"\n{bodies}")).unwrap();
    let mut gcc = Command::new("gcc");
    gcc.args([
        "-std=c11",
        "-g",
        "-shared",
        "-fPIC",
        "-fno-eliminate-unused-debug-types",
        "-Wl,-soname,libmotionclone.so.0",
    ]);
    // Named as from its own folder: the recorded file has no path of the machine.
    gcc.arg("-I").arg(root().join("include")).arg("-o").arg(&library).arg("stub.c");
    run(gcc.current_dir(folder.path()));
    let found = folder.path().join("motionclone.abi");
    let mut abidw = Command::new("abidw");
    abidw.args(["--no-comp-dir-path", "--no-corpus-path", "--no-show-locs", "--no-elf-needed", "--load-all-types"]);
    abidw.arg("--drop-private-types").arg("--headers-dir").arg(root().join("include"));
    run(abidw.arg("--out-file").arg(&found).arg(&library));
    let recorded = root().join("tests/abi/motionclone.abi");
    if std::env::var_os("MOTIONCLONE_WRITE_ABI").is_some() {
        fs::create_dir_all(recorded.parent().unwrap()).unwrap();
        fs::copy(&found, &recorded).unwrap();
    }
    // A type of the system's own headers.
    let suppressions = folder.path().join("suppressions");
    fs::write(&suppressions, "[suppress_type]\n  name_regexp = ^max_align_t$\n").unwrap();
    let mut abidiff = Command::new("abidiff");
    abidiff.arg("--non-reachable-types").arg("--suppressions").arg(&suppressions).arg(&recorded).arg(&found);
    let difference = abidiff.output().unwrap_or_else(|e| panic!("abidiff: {e}"));
    assert!(
        difference.status.success(),
        "the interface is no longer that of tests/abi/motionclone.abi. Where programs that use it must be compiled anew, \
         raise ABI_VERSION; then run this test once with MOTIONCLONE_WRITE_ABI set.\n{}",
        String::from_utf8_lossy(&difference.stdout)
    );
}
