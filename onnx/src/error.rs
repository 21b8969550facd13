//! The one error type of graph making and checkpoint import.

use std::path::{Path, PathBuf};

/// What went wrong, said for a person: what, the offending value, what is allowed, the file.
///
/// Opaque on purpose: callers show it, and ask [`Error::is_input`] or [`Error::is_cancelled`] when they must choose an
/// exit code.
#[derive(Debug, thiserror::Error)]
#[error("{}{message}", .path.as_ref().map(|p| format!("{}: ", p.display())).unwrap_or_default())]
pub struct Error {
    message: String,
    path: Option<PathBuf>,
    kind: Kind,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Input,
    Failure,
    Cancelled,
}

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Something the user gave is not usable: a file, an option, a name.
    pub fn input(message: impl Into<String>) -> Self {
        Self { message: message.into(), path: None, kind: Kind::Input, source: None }
    }

    /// Something failed that the user's input does not explain: the disk, a library, a bug.
    pub fn failure(message: impl Into<String>) -> Self {
        Self { message: message.into(), path: None, kind: Kind::Failure, source: None }
    }

    /// Work stopped because it was cancelled.
    pub fn cancelled() -> Self {
        Self { message: "cancelled".into(), path: None, kind: Kind::Cancelled, source: None }
    }

    /// An operation on a file failed in the operating system.
    pub fn io(path: impl AsRef<Path>, error: std::io::Error) -> Self {
        use std::io::ErrorKind as Kinds;
        // What the user can mend by naming another file or making room.
        let input = matches!(
            error.kind(),
            Kinds::NotFound
                | Kinds::PermissionDenied
                | Kinds::IsADirectory
                | Kinds::NotADirectory
                | Kinds::ReadOnlyFilesystem
                | Kinds::StorageFull
                | Kinds::QuotaExceeded
        );
        let message = match error.kind() {
            Kinds::NotFound => "no such file or folder".to_string(),
            Kinds::StorageFull => "the disk is full".to_string(),
            Kinds::PermissionDenied => "permission denied".to_string(),
            Kinds::ReadOnlyFilesystem => "the file system is read-only".to_string(),
            _ => error.to_string(),
        };
        Self {
            message,
            path: Some(path.as_ref().into()),
            kind: if input { Kind::Input } else { Kind::Failure },
            source: Some(Box::new(error)),
        }
    }

    /// Names the file that the error is about, unless one is named already.
    #[must_use]
    pub fn with_path(mut self, path: impl AsRef<Path>) -> Self {
        self.path.get_or_insert_with(|| path.as_ref().into());
        self
    }

    /// Says where it happened, before what is said already.
    #[must_use]
    pub fn within(mut self, place: impl std::fmt::Display) -> Self {
        self.message = format!("{place}: {self}");
        self.path = None;
        self
    }

    /// Whether the user's input is at fault (exit code 2 on the command line).
    pub fn is_input(&self) -> bool {
        self.kind == Kind::Input
    }

    /// Whether the work was cancelled by whoever asked for it.
    pub fn is_cancelled(&self) -> bool {
        self.kind == Kind::Cancelled
    }
}
