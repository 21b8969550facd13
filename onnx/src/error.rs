//! The one error type of graph making and checkpoint import.

use std::path::{Path, PathBuf};

/// What went wrong, said for a person: what, the offending value, what is allowed, the file.
///
/// Opaque on purpose: callers show it, and ask [`Error::is_input`] when they must choose an exit code.
#[derive(Debug, thiserror::Error)]
#[error("{}{message}", .path.as_ref().map(|p| format!("{}: ", p.display())).unwrap_or_default())]
pub struct Error {
    message: String,
    path: Option<PathBuf>,
    input: bool,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Something the user gave is not usable: a file, an option, a name.
    pub fn input(message: impl Into<String>) -> Self {
        Self { message: message.into(), path: None, input: true, source: None }
    }

    /// Something failed that the user's input does not explain: the disk, a library, a bug.
    pub fn failure(message: impl Into<String>) -> Self {
        Self { message: message.into(), path: None, input: false, source: None }
    }

    /// An operation on a file failed in the operating system.
    pub fn io(path: impl AsRef<Path>, error: std::io::Error) -> Self {
        let input = matches!(
            error.kind(),
            std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::IsADirectory
        );
        let message = match error.kind() {
            std::io::ErrorKind::NotFound => "no such file or folder".to_string(),
            _ => error.to_string(),
        };
        Self { message, path: Some(path.as_ref().into()), input, source: Some(Box::new(error)) }
    }

    /// Names the file that the error is about, unless one is named already.
    #[must_use]
    pub fn with_path(mut self, path: impl AsRef<Path>) -> Self {
        self.path.get_or_insert_with(|| path.as_ref().into());
        self
    }

    /// Whether the user's input is at fault (exit code 2 on the command line).
    pub fn is_input(&self) -> bool {
        self.input
    }
}
