//! Checks that nothing leaves the machine: every way into the engine runs under strace in a home that was empty before,
//! and may open no socket but those of this machine, start no program but those that it needs, and write no file
//! elsewhere than where it should.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::setup::Tools;
use crate::{Result, blender, embedded, openfx, output, root, run, target};

/// Variables that switch telemetry off, by accident or on purpose. None is set here, so that it is the product that
/// keeps it off.
pub const SUPPRESSING: &[&str] =
    &["CI", "GITHUB_ACTIONS", "TF_BUILD", "JENKINS_URL", "ORT_RUNNING_UNIT_TESTS", "ORT_DISABLE_TELEMETRY"];
/// Programs that the product starts.
const PROGRAMS: &[&str] = &["ffmpeg", "ffprobe", "nvidia-smi"];

/// One way into the engine.
struct Way<'a> {
    name: &'a str,
    command: Command,
    /// Beginnings of names of programs that the command starts by itself, without the product.
    programs: &'a [&'a str],
    /// What may be written, below the home.
    written: &'a [&'a str],
}

/// Runs all of them.
pub fn test(tools: &Tools) -> Result<()> {
    if !cfg!(target_os = "linux") {
        println!("skipped: what the product opens and starts is watched by strace, which is Linux's");
        return Ok(());
    }
    let work = target().join("motionclone/privacy");
    if work.exists() {
        fs::remove_dir_all(&work).map_err(|e| format!("{}: {e}", work.display()))?;
    }
    fs::create_dir_all(&work).map_err(|e| format!("{}: {e}", work.display()))?;
    let program = target().join("release/motionclone");
    let mut doctor = Command::new(&program);
    doctor.arg("doctor");
    watch(&work, tools, Way { name: "doctor", command: doctor, programs: &[], written: &[] })?;
    let mut clone = Command::new(&program);
    clone.arg("clone").arg("--reference").arg(root().join("onnx/demo/evaluate/clips/zoom_in.mp4"));
    clone.args(["--prompt", "a red heart", "--size", "64x64", "--frames", "4", "--steps", "2"]);
    clone.args(["--guidance-steps", "1", "--warm-up", "0", "--cool-up", "0", "--device", "cpu", "--out", "heart.mp4"]);
    let written = &[".cache/motionclone", "heart.mp4"];
    watch(&work, tools, Way { name: "program", command: clone, programs: &[], written })?;

    let host = work.join("clone");
    let libraries = target().join("release");
    let mut gcc = Command::new("gcc");
    gcc.args(["-std=c11", "-O1", "-o"]).arg(&host).arg(root().join("examples/c/clone.c"));
    gcc.arg("-I").arg(root().join("include")).arg("-L").arg(&libraries).args(["-lmotionclone", "-lm"]);
    run(gcc)?;
    // The library's name for those who link to it.
    let named = work.join("libmotionclone.so.0");
    crate::copy(&libraries.join("libmotionclone.so"), &named)?;
    let mut c = Command::new(&host);
    c.arg(embedded::bundle()).args(["frames.rgb", "64", "64", "4", "2"]).env("LD_LIBRARY_PATH", &work);
    watch(&work, tools, Way { name: "C", command: c, programs: &[], written: &["frames.rgb"] })?;

    let (command, written) = (openfx::clone_command(tools, &embedded::bundle(), &work)?, &["ofx"]);
    watch(&work, tools, Way { name: "OpenFX", command, programs: &[], written })?;
    if let Some(command) = blender::clone_command(tools)? {
        // The tests make the zip with Python, and Blender asks the system for its name and its folders.
        let programs = &["python", "uname", "xdg-user-dir", "sh", "ldconfig", "gcc", "ld", "x86_64-linux-gnu"];
        watch(&work, tools, Way { name: "Blender", command, programs, written: &["tmp", ".cache/motionclone"] })?;
    }
    Ok(())
}

/// Runs a command in a home of its own and judges what it did.
fn watch(work: &Path, tools: &Tools, way: Way) -> Result<()> {
    let Way { name, command, programs, written } = way;
    let (home, log) = (work.join(format!("home-{name}")), work.join(format!("{name}.log")));
    let temporary = home.join("tmp");
    fs::create_dir_all(&temporary).map_err(|e| format!("{}: {e}", temporary.display()))?;
    let mut watched = Command::new("strace");
    watched.args(["-f", "-qq", "-s", "200", "-e", "trace=execve,socket,connect,sendto,sendmsg,sendmmsg", "-o"]);
    watched.arg(&log).arg(command.get_program()).args(command.get_args()).current_dir(&home);
    tools.apply(&mut watched);
    for (variable, value) in command.get_envs() {
        match value {
            Some(value) => watched.env(variable, value),
            None => watched.env_remove(variable),
        };
    }
    for variable in SUPPRESSING.iter().chain(&["XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"]) {
        watched.env_remove(variable);
    }
    watched.env("HOME", &home).env("TMPDIR", &temporary).env("MOTIONCLONE_BUNDLE", embedded::bundle());
    output(&mut watched)?;
    let text = fs::read(&log).map_err(|e| format!("{}: {e}", log.display()))?;
    let text = String::from_utf8_lossy(&text);
    let own = command.get_program().to_string_lossy().into_owned();
    let mut faults: Vec<String> = text.lines().filter(|line| leaves(line)).map(str::to_string).collect();
    faults.extend(started(&text).filter(|started| {
        let base = Path::new(started).file_name().unwrap_or_default().to_string_lossy().into_owned();
        *started != own && !PROGRAMS.iter().chain(programs).any(|known| base.starts_with(known))
    }));
    let allowed: Vec<PathBuf> = written.iter().map(|path| home.join(path)).collect();
    let mut files = Vec::new();
    collect(&home, &mut files)?;
    let foreign = files.iter().filter(|file| !allowed.iter().any(|place| file.starts_with(place)));
    faults.extend(foreign.map(|file| format!("wrote {}", file.display())));
    if faults.is_empty() {
        println!("{name}: {} files written where they belong; nothing left the machine", files.len());
        return Ok(());
    }
    faults.truncate(20);
    Err(format!("{name} does what it should not:\n{}", faults.join("\n")))
}

/// Whether a system call reaches beyond the machine: a socket of another family than those that stay on it.
fn leaves(line: &str) -> bool {
    const LOCAL: [&str; 3] = ["AF_UNIX", "AF_LOCAL", "AF_NETLINK"];
    ["socket(", "connect(", "sendto(", "sendmsg(", "sendmmsg("].iter().any(|call| line.contains(call))
        && ["AF_", "PF_"].iter().any(|family| line.contains(family))
        && !LOCAL.iter().any(|local| line.contains(local))
}

/// The programs that were started, by their paths.
fn started(log: &str) -> impl Iterator<Item = String> {
    let calls = log.lines().filter(|line| line.contains("execve(") && line.ends_with("= 0"));
    calls.filter_map(|line| line.split('"').nth(1)).map(str::to_string)
}

/// Every file below a folder.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?.flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() { collect(&path, files)? } else { files.push(path) }
    }
    Ok(())
}
