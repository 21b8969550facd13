//! Results appear whole or not at all: they are written beside their place under another name, then renamed.

use std::io;
use std::path::Path;

use tempfile::{Builder, NamedTempFile, TempDir};

/// The folder that holds `path`.
pub fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// An empty file beside `path` with the same extension, gone when dropped before it is persisted.
///
/// # Errors
/// When the folder is missing or not writable.
pub fn file(path: &Path) -> io::Result<NamedTempFile> {
    let extension = path.extension().map(|extension| format!(".{}", extension.to_string_lossy())).unwrap_or_default();
    builder(0o666).suffix(&extension).tempfile_in(parent(path))
}

/// An empty folder beside `path`, gone when dropped before it is renamed and kept.
///
/// # Errors
/// When the folder above is missing or not writable.
pub fn folder(path: &Path) -> io::Result<TempDir> {
    builder(0o777).tempdir_in(parent(path))
}

/// Temporary files are for their owner alone by default; results get what the umask leaves of `mode`.
fn builder<'a>(mode: u32) -> Builder<'a, 'a> {
    let mut builder = Builder::new();
    builder.prefix(".motionclone-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(mode));
    #[cfg(not(unix))]
    let _ = mode;
    builder
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn results_are_as_open_as_other_files() {
        let place = tempfile::tempdir().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let plain = place.path().join("plain");
        std::fs::write(&plain, "").unwrap();
        let file = file(&place.path().join("a.json")).unwrap();
        assert_eq!(mode(file.path()), mode(&plain));
        assert!(file.path().extension().is_some_and(|extension| extension == "json"));
        let plain = place.path().join("folder");
        std::fs::create_dir(&plain).unwrap();
        assert_eq!(mode(folder(&plain).unwrap().path()), mode(&plain));
    }
}
