//! The project's own commands. No dependencies, because this is compiled before anything else.

mod blender;
mod demo;
mod dist;
mod embedded;
mod eval;
mod licences;
mod openfx;
mod privacy;
mod setup;
#[cfg(test)]
mod structure;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use setup::{Runtime, Tools};

/// An error is one line for the person at the terminal.
type Result<T, E = String> = std::result::Result<T, E>;

const USAGE: &str = "\
cargo xtask demo [--cuda]   build, set up, and clone the motion of three clips into out/demo
cargo xtask test            set up and run every check and test
cargo xtask test-blender [VERSION ...]
                            test the extension in every Blender that it is for, or in those: 4.2, 5.0, 5.2
cargo xtask bench           time the steps and measure memory on this machine's CPU
cargo xtask bench --cuda    check and time the networks that are written for NVIDIA GPUs, at full size with random
                            weights
cargo xtask eval [--quick] [--bundle FOLDER]
                            clone the reference clips and measure how well motion and prompt are followed
cargo xtask setup [--cuda]  only fetch ONNX Runtime and ffmpeg, and print where they lie
cargo xtask dist [--cuda]   build what is handed to others into target/dist: library, headers, program, ONNX Runtime
                            (--profile NAME, --out DIR, --no-archive)
cargo xtask openfx          only the tests of the OpenFX plugin
cargo xtask privacy         only the test that nothing leaves the machine
cargo xtask header          write include/motionclone.h and its Python binding anew from src/abi and src/capi

--cuda takes the ONNX Runtime that runs on NVIDIA GPUs; CUDA 13 and cuDNN 9 must be installed.";

fn main() -> ExitCode {
    // What is tested must keep telemetry off by itself, on a machine of a CI service as anywhere else.
    for variable in privacy::SUPPRESSING {
        // SAFETY: this is the only thread yet.
        unsafe { std::env::remove_var(variable) };
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        ["demo"] => setup::tools(Runtime::Cpu).and_then(|tools| demo::clone_three_motions(&tools)),
        ["demo", "--cuda"] => setup::tools(Runtime::Cuda).and_then(|tools| demo::clone_three_motions(&tools)),
        ["test"] => test(),
        ["test-blender", versions @ ..] => blender::test_chosen(versions),
        ["bench"] => setup::tools(Runtime::Cpu).and_then(|tools| bench(&tools, "steps")),
        ["bench", "--cuda"] => setup::tools(Runtime::Cuda).and_then(|tools| bench(&tools, "cuda")),
        ["eval"] => eval::evaluate(false, None),
        ["eval", "--quick"] => eval::evaluate(true, None),
        ["eval", "--bundle", bundle] => eval::evaluate(false, Some(Path::new(bundle))),
        ["eval", "--quick", "--bundle", bundle] => eval::evaluate(true, Some(Path::new(bundle))),
        ["setup"] => setup::tools(Runtime::Cpu).map(|tools| print!("{tools}")),
        ["setup", "--cuda"] => setup::tools(Runtime::Cuda).map(|tools| print!("{tools}")),
        ["dist", words @ ..] => dist::Options::parse(words).and_then(|options| dist::build(&options)),
        ["openfx"] => setup::tools(Runtime::Cpu).and_then(|tools| openfx::test(&tools, &embedded::bundle())),
        ["privacy"] => setup::tools(Runtime::Cpu).and_then(|tools| {
            demo::program(&tools)?;
            privacy::test(&tools)
        }),
        ["header"] => header(),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => Err(format!("unknown arguments\n{USAGE}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn bench(tools: &Tools, name: &str) -> Result<()> {
    let mut bench = cargo(&["bench", "--bench", name]);
    tools.apply(&mut bench);
    run(bench)
}

fn test() -> Result<()> {
    let start = Instant::now();
    run(cargo(&["fmt", "--all", "--check"]))?;
    licences::check()?;
    let tools = setup::tools(Runtime::Cpu)?;
    setup::host_tools()?;
    let python = setup::python_packages(&["onnx==1.23.2"])?;
    run(cargo(&["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))?;
    run(cargo(&["doc", "--no-deps", "--workspace"]).env("RUSTDOCFLAGS", "--deny warnings"))?;
    let mut tests = cargo(&["test", "--release", "--workspace"]);
    tools.apply(&mut tests);
    run(tests.env("PYTHONPATH", python))?;
    demo::clone_three_motions(&tools)?;
    plugins(&tools)?;
    privacy::test(&tools)?;
    eval::test()?;
    println!("all checks and tests passed in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// The tests of the plugins that are written in Python, with the program, the library and the embedded bundle.
fn plugins(tools: &Tools) -> Result<()> {
    let built = target().join("release");
    let bundle = embedded::bundle();
    let tests = |words: &[&str]| {
        let mut command = Command::new(setup::PYTHON);
        command.args(words).current_dir(root()).env("PYTHONDONTWRITEBYTECODE", "1");
        tools.apply(&mut command);
        command
    };
    let mut resolve = tests(&["-m", "unittest", "discover", "--start-directory", "plugins/resolve/tests"]);
    let program = built.join(format!("motionclone{}", std::env::consts::EXE_SUFFIX));
    run(resolve.env("MOTIONCLONE_PROGRAM", program).env("MOTIONCLONE_TEST_BUNDLE", &bundle))?;
    let mut binding = tests(&["plugins/blender/tests/test_library.py"]);
    let library = format!("{}motionclone{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    run(binding.env("MOTIONCLONE_LIBRARY", built.join(library)).env("MOTIONCLONE_BUNDLE", &bundle))?;
    blender::test(tools)?;
    openfx::test(tools, &bundle)
}

/// Writes the C header and its Python binding: the tests that compare them can also write them.
fn header() -> Result<()> {
    let mut test = cargo(&["test", "--release", "--package", "motionclone", "--test", "capi_header"]);
    run(test.env("MOTIONCLONE_WRITE_HEADER", "1"))
}

/// The project's folder.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Where cargo builds.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |folder| root().join(folder))
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

/// Shows a command, runs it, and fails when it does.
fn run(command: impl std::borrow::BorrowMut<Command>) -> Result<()> {
    let mut command = command;
    let command = command.borrow_mut();
    let shown = show(command);
    println!("$ {shown}");
    let status = command.status().map_err(|e| format!("{shown}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{shown}: {status}")) }
}

/// Copies a file into a folder, which is made; what a link leads to, not the link.
fn copy(from: &Path, to: &Path) -> Result<()> {
    make_parent(to)?;
    std::fs::copy(from, to).map(drop).map_err(|e| format!("{}: {e}", from.display()))
}

fn make_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(|e| format!("{}: {e}", parent.display()))
}

/// Runs a command and gives its output.
fn output(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output = command.output().map_err(|e| format!("{shown}: {e}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{shown}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
    }
}

fn show(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    command.get_args().fold(name, |line, argument| format!("{line} {}", argument.to_string_lossy()))
}
