//! Folders that this program may replace: those of which a marker file in them, written with them, lists everything.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::{Error, Result};

/// The marker's name.
pub const MARKER_FILE: &str = ".motionclone";
/// What file managers drop into folders; it belongs to nobody and stays.
const DROPPED: [&str; 3] = [".DS_Store", "Thumbs.db", "desktop.ini"];
/// A larger marker is none of ours.
const MAX_MARKER: u64 = 16 << 20;

/// What a folder holds. A folder is replaced only by one of its own kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A model bundle.
    Bundle,
    /// The frames of a clip.
    Frames,
    /// ONNX graphs.
    Graphs,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Bundle => "bundle",
            Self::Frames => "frames",
            Self::Graphs => "graphs",
        }
    }
}

/// A listed file: its path in the folder, and its length unless it changes in place.
struct Listed {
    path: PathBuf,
    length: Option<u64>,
}

/// Writes the marker into a folder that is complete. `changing` names files that will be changed in place later.
///
/// # Errors
/// When the folder cannot be read or the marker not be written.
pub fn mark(folder: &Path, kind: Kind, changing: &[&str]) -> io::Result<()> {
    let mut text = format!(
        "motionclone {}\n# Written by motionclone, which replaces this folder only while these files are all it holds.\n",
        kind.name()
    );
    for (path, length) in files(folder, Path::new(""))? {
        let name = path.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/");
        let length = if changing.contains(&name.as_str()) { "-".into() } else { length.to_string() };
        text.push_str(&format!("{length} {name}\n"));
    }
    fs::write(folder.join(MARKER_FILE), text)
}

/// Every file below a folder, with its length.
fn files(folder: &Path, below: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder.join(below))? {
        let entry = entry?;
        let (path, metadata) = (below.join(entry.file_name()), entry.metadata()?);
        if metadata.is_dir() {
            found.extend(files(folder, &path)?);
        } else {
            found.push((path, metadata.len()));
        }
    }
    found.sort();
    Ok(found)
}

/// Checks that a result of this kind may take the place of a folder: it is empty, or an older one of the kind with nothing
/// else in it. `unmarked` are its files where it was made by a release that wrote no markers; an unfinished result of the
/// name `staging` may lie in it. Returns the names in it that the older result takes.
///
/// # Errors
/// When it may not, with what stands in the way.
pub(crate) fn check_replaceable(
    place: &Path,
    kind: Kind,
    unmarked: &[PathBuf],
    staging: Option<&std::ffi::OsStr>,
) -> Result<Vec<PathBuf>> {
    let refuse = |why: &str| Err(Error::input(format!("{why}; choose another folder")).with_path(place));
    let fail = |error| Error::io(place, error);
    if !place.metadata().map_err(fail)?.is_dir() {
        return refuse("is a file, not a folder");
    }
    let canonical = place.canonicalize().map_err(fail)?;
    if canonical.parent().is_none() {
        return refuse("is the root of the file system");
    }
    if std::env::home_dir().and_then(|home| home.canonicalize().ok()) == Some(canonical) {
        return refuse("is the home folder");
    }
    let listed = listing(place, kind, unmarked)?;
    let mut ours = Vec::new();
    for entry in fs::read_dir(place).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name();
        if DROPPED.iter().any(|dropped| name == *dropped) || Some(name.as_os_str()) == staging {
            continue;
        }
        if let Some(other) = foreign(place, Path::new(&name), &listed).map_err(fail)? {
            return refuse(&other);
        }
        ours.push(name.into());
    }
    Ok(ours)
}

/// The files that a folder's marker lists, or the `unmarked` ones where there is none.
fn listing(place: &Path, kind: Kind, unmarked: &[PathBuf]) -> Result<Vec<Listed>> {
    let marker = place.join(MARKER_FILE);
    let text = match fs::metadata(&marker) {
        Ok(there) if there.is_file() && there.len() <= MAX_MARKER => {
            fs::read_to_string(&marker).map_err(|e| Error::io(&marker, e))?
        }
        _ => return Ok(unmarked.iter().map(|path| Listed { path: path.clone(), length: None }).collect()),
    };
    let mut lines = text.lines();
    if lines.next() != Some(&format!("motionclone {}", kind.name())) {
        return Ok(Vec::new());
    }
    let listed = lines.filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (length, path) = line.split_once(' ')?;
        let path = PathBuf::from(path);
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        plain.then(|| Listed { path, length: length.parse().ok() })
    });
    Ok(listed.chain([Listed { path: MARKER_FILE.into(), length: None }]).collect())
}

/// What of an entry is not listed, in words.
fn foreign(place: &Path, path: &Path, listed: &[Listed]) -> io::Result<Option<String>> {
    let metadata = fs::symlink_metadata(place.join(path))?;
    if metadata.is_dir() && listed.iter().any(|file| file.path.starts_with(path)) {
        for entry in fs::read_dir(place.join(path))? {
            if let Some(other) = foreign(place, &path.join(entry?.file_name()), listed)? {
                return Ok(Some(other));
            }
        }
        return Ok(None);
    }
    let shown = path.display();
    Ok(match listed.iter().find(|file| file.path == path && metadata.is_file()) {
        Some(file) if file.length.is_some_and(|length| length != metadata.len()) => {
            Some(format!("holds '{shown}', which was changed since it was written"))
        }
        Some(_) => None,
        None => Some(format!("holds other files, such as '{shown}'")),
    })
}
