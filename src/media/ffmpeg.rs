//! Finding ffmpeg and running it as a child process. ffprobe is not needed.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::sync::lock;

/// The environment variable that names the ffmpeg to use.
pub const VARIABLE: &str = "MOTIONCLONE_FFMPEG";

/// An ffmpeg that answered.
#[derive(Debug, Clone)]
pub struct Ffmpeg {
    /// The program.
    pub path: PathBuf,
    /// Its version as it names itself.
    pub version: String,
}

impl Ffmpeg {
    /// Looks for ffmpeg: `MOTIONCLONE_FFMPEG`, beside this program, on `PATH`.
    ///
    /// # Errors
    /// When there is none that runs, with how to get one.
    pub fn find() -> Result<Self> {
        if let Some(path) = std::env::var_os(VARIABLE).filter(|v| !v.is_empty()) {
            return Self::ask(Path::new(&path))
                .map_err(|e| Error::input(format!("{VARIABLE} names no working ffmpeg: {e}")).with_path(path));
        }
        let name = format!("ffmpeg{}", std::env::consts::EXE_SUFFIX);
        let beside = std::env::current_exe().ok().map(|exe| exe.with_file_name(&name)).filter(|path| path.is_file());
        Self::ask(&beside.unwrap_or_else(|| name.into())).map_err(|_| {
            Error::input(format!("ffmpeg was not found on PATH; install it or set {VARIABLE} to where it lies"))
        })
    }

    fn ask(path: &Path) -> std::io::Result<Self> {
        let answer = Command::new(path).arg("-version").stdin(Stdio::null()).output()?;
        let text = String::from_utf8_lossy(&answer.stdout);
        match text.strip_prefix("ffmpeg version ") {
            Some(rest) if answer.status.success() => {
                Ok(Self { path: path.into(), version: rest.split_whitespace().next().unwrap_or_default().into() })
            }
            _ => Err(std::io::Error::other("it does not answer as ffmpeg does")),
        }
    }

    /// A command that is quiet but for its log, whose every line carries its level.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.args(["-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+info"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// The option that hands on every decoded frame once; releases before 5.1 know it by its old name.
    pub fn every_frame(&self) -> [&'static str; 2] {
        let old = self.version.starts_with("4.") || self.version.starts_with("5.0");
        [if old { "-vsync" } else { "-fps_mode" }, "passthrough"]
    }
}

/// A path as ffmpeg takes it literally: never as a URL, a pattern or an option.
pub fn literal(path: &Path) -> OsString {
    let mut text = OsString::from("file:");
    text.push(path);
    text
}

/// A running ffmpeg whose log is gathered beside; killed when dropped before [`Running::finish`].
pub struct Running {
    child: Arc<Mutex<Child>>,
    log: Option<JoinHandle<Option<String>>>,
}

impl Running {
    /// Starts the command.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start(command: Command) -> Result<Self> {
        let mut running = Self::start_with_log(command)?;
        running.log = running.stderr().map(|stderr| std::thread::spawn(move || first_complaint(stderr)));
        Ok(running)
    }

    /// Starts a command whose log is read by the caller.
    pub(super) fn start_with_log(mut command: Command) -> Result<Self> {
        let child = command
            .spawn()
            .map_err(|e| Error::failure(format!("ffmpeg did not start: {e}")).with_path(command.get_program()))?;
        Ok(Self { child: Arc::new(Mutex::new(child)), log: None })
    }

    /// The process's log, once.
    pub(super) fn stderr(&self) -> Option<ChildStderr> {
        lock(&self.child).stderr.take()
    }

    /// What the process reads, once.
    pub fn stdin(&self) -> Option<ChildStdin> {
        lock(&self.child).stdin.take()
    }

    /// What the process writes, once.
    pub fn stdout(&self) -> Option<ChildStdout> {
        lock(&self.child).stdout.take()
    }

    /// Does work with the process, which a cancellation kills, so that no read or write waits for it.
    ///
    /// # Errors
    /// Those of the work; the cancelled error when the end was asked for.
    pub fn stoppable<T>(&self, cancel: &Cancel, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let child = self.child.clone();
        // It fails only when the process has ended already.
        let result = cancel.stoppable(move || drop(lock(&child).kill()), work)?;
        cancel.check()?;
        result
    }

    /// Waits for the end: whether it went well, and the first thing that ffmpeg complained of.
    ///
    /// # Errors
    /// When the process cannot be waited for.
    pub fn finish(mut self) -> Result<(bool, Option<String>)> {
        let mut child = lock(&self.child);
        drop(child.stdin.take());
        let status = child.wait().map_err(|e| Error::failure(format!("ffmpeg was lost: {e}")))?;
        drop(child);
        Ok((status.success(), self.log.take().and_then(|log| log.join().ok()).flatten()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut child = lock(&self.child);
        // Both fail only when the process has ended already.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Reads a log to its end and keeps the text of its first error.
fn first_complaint(log: ChildStderr) -> Option<String> {
    let mut reader = BufReader::new(log);
    let (mut line, mut found) = (Vec::new(), None);
    loop {
        line.clear();
        match reader.by_ref().take(4096).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return found,
            Ok(_) if found.is_some() => {}
            Ok(_) => found = complaint(&String::from_utf8_lossy(&line)),
        }
    }
}

/// The text of a log's line, where it is an error.
pub(super) fn complaint(line: &str) -> Option<String> {
    ["[error] ", "[fatal] "]
        .iter()
        .find_map(|level| line.split_once(level))
        .map(|(_, complaint)| complaint.trim().to_string())
}
