//! Results appear whole or not at all: they are written in a hidden folder on the same file system, then renamed.
//!
//! The hidden folder is removed when the work fails or is cancelled. Of a process that was killed it stays; the next
//! result in the same place removes it, which a lock makes safe: the system gives it back when its process ends.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use tempfile::{Builder, TempDir};

use crate::owned::{self, Kind};
use crate::{Error, Result};

const PREFIX: &str = ".motionclone-";
const LOCK: &str = "lock";
/// The lock file while it is not locked yet.
const NEW_LOCK: &str = "lock.new";
/// Links that are followed to find where a result goes.
const MAX_LINKS: usize = 40;

/// The folder that holds `path`.
pub fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Where a result named `path` goes: the end of its links, whether or not something is there.
///
/// # Errors
/// When the links lead in a circle or cannot be read.
pub fn follow(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..MAX_LINKS {
        match fs::symlink_metadata(&path) {
            Ok(there) if there.is_symlink() => path = parent(&path).join(fs::read_link(&path)?),
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => return Ok(path),
        }
    }
    Err(io::Error::other("its links lead in a circle"))
}

/// Checks that the file system of a folder has room for so many bytes.
///
/// # Errors
/// When it has not. Where the system does not tell, it is taken to have.
pub fn check_room(folder: &Path, needed: u64) -> Result<()> {
    const MEGABYTE: u64 = 1_000_000;
    match fs4::available_space(folder) {
        Ok(free) if free < needed => {
            let message = format!(
                "the disk has room for {} MB, and about {} MB are to be written; make room or choose another place",
                free / MEGABYTE,
                needed.div_ceil(MEGABYTE)
            );
            Err(Error::input(message))
        }
        _ => Ok(()),
    }
}

/// A file that is being written; dropped before [`Unfinished::finish`], it leaves nothing.
pub struct Unfinished {
    /// Goes with this.
    _staging: Staging,
    path: PathBuf,
    place: PathBuf,
}

impl Unfinished {
    /// Makes room for a file that will be at `place`, or where links there lead. The file itself is not made.
    ///
    /// # Errors
    /// When the folder is missing or not writable.
    pub fn file(place: &Path) -> io::Result<Self> {
        let place = follow(place)?;
        let name = place.file_name().ok_or_else(|| io::Error::other("this names no file"))?.to_owned();
        let staging = Staging::new(parent(&place))?;
        Ok(Self { path: staging.path().join(name), _staging: staging, place })
    }

    /// Where to write.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the file in its place; an older one is gone only when the new one is there.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn finish(self) -> io::Result<()> {
        match fs::rename(&self.path, &self.place) {
            // A file that is a mount point, as containers have them, is written but not replaced.
            Err(error) if matches!(error.kind(), ErrorKind::ResourceBusy | ErrorKind::CrossesDevices) => {
                let mut old = File::options().write(true).truncate(true).open(&self.place)?;
                io::copy(&mut File::open(&self.path)?, &mut old).map(drop)
            }
            result => result,
        }
    }
}

/// A folder that is being filled; dropped before [`UnfinishedFolder::finish`], it leaves nothing.
pub struct UnfinishedFolder {
    staging: Staging,
    path: PathBuf,
    place: PathBuf,
    kind: Kind,
    unmarked: Vec<PathBuf>,
}

impl UnfinishedFolder {
    /// Makes an empty folder whose files will be in `place`, after checking that they may: it is free, empty, or holds
    /// an older result of this kind and nothing else ([`owned`]).
    ///
    /// # Errors
    /// When it may not, or the file system refuses.
    pub fn new(place: &Path, kind: Kind) -> Result<Self> {
        Self::over(place, kind, Vec::new())
    }

    /// The same where the place may hold a result without a marker, made by an older release of these files.
    ///
    /// # Errors
    /// As [`UnfinishedFolder::new`].
    pub fn over(place: &Path, kind: Kind, unmarked: Vec<PathBuf>) -> Result<Self> {
        let fail = |error| Error::io(place, error);
        let followed = follow(place).map_err(fail)?;
        let (staging, name) = if followed.exists() {
            // Inside, so that a mount point or a folder whose surroundings are not writable will do.
            sweep(&followed);
            owned::check_replaceable(&followed, kind, &unmarked, None).map_err(|e| e.with_path(place))?;
            (Staging::new(&followed), OsStr::new("new"))
        } else {
            let name = followed.file_name().ok_or_else(|| Error::input("this names no folder").with_path(place))?;
            (Staging::new(parent(&followed)), name)
        };
        let staging = staging.map_err(fail)?;
        let path = staging.path().join(name);
        fs::create_dir(&path).map_err(fail)?;
        Ok(Self { staging, path, place: followed, kind, unmarked })
    }

    /// The folder to fill.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Marks the folder as ours and puts it in its place; an older result goes. `changing` names files that will be
    /// changed in place later.
    ///
    /// # Errors
    /// When the file system refuses, or something else came into the place meanwhile; what was there stays.
    pub fn finish(self, changing: &[&str]) -> Result<()> {
        let fail = |error| Error::io(&self.place, error);
        owned::mark(&self.path, self.kind, changing).map_err(fail)?;
        if !self.place.exists() {
            match fs::rename(&self.path, &self.place) {
                Err(_) if self.place.exists() => {}
                result => return result.map_err(fail),
            }
        }
        let old = owned::check_replaceable(&self.place, self.kind, &self.unmarked, self.staging.name())?;
        let aside = self.staging.path().join("old");
        fs::create_dir(&aside).map_err(fail)?;
        let mut moved = Vec::new();
        let replaced = move_all(&old, &self.place, &aside, &mut moved)
            .and_then(|()| move_all(&names(&self.path)?, &self.path, &self.place, &mut moved));
        if replaced.is_err() {
            for (from, to) in moved.into_iter().rev() {
                fs::rename(to, from).map_err(fail)?;
            }
        }
        replaced.map_err(fail)
    }
}

type Moves = Vec<(PathBuf, PathBuf)>;

fn move_all(names: &[PathBuf], from: &Path, to: &Path, moved: &mut Moves) -> io::Result<()> {
    names.iter().try_for_each(|name| {
        let step = (from.join(name), to.join(name));
        fs::rename(&step.0, &step.1)?;
        moved.push(step);
        Ok(())
    })
}

fn names(folder: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().into())).collect()
}

/// A hidden folder that goes when dropped, or when its process is gone.
struct Staging {
    // Closed before the folder goes, which Windows wants.
    _lock: Option<File>,
    folder: TempDir,
}

impl Staging {
    fn new(beside: &Path) -> io::Result<Self> {
        sweep(beside);
        let folder = Builder::new().prefix(PREFIX).tempdir_in(beside)?;
        // Without a lock, as on some network drives, a killed process leaves the folder.
        let lock = lock(folder.path()).ok();
        Ok(Self { _lock: lock, folder })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn name(&self) -> Option<&OsStr> {
        self.folder.path().file_name()
    }
}

/// Locks a new folder. The file gets its name only when it is locked, so that nobody ever finds it unlocked.
fn lock(folder: &Path) -> io::Result<File> {
    let new = folder.join(NEW_LOCK);
    let mut file = File::create_new(&new)?;
    file.try_lock()?;
    file.write_all(host().as_bytes())?;
    fs::rename(new, folder.join(LOCK))?;
    Ok(file)
}

/// Removes what killed processes left in a folder. What is not surely that stays.
fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_staging = entry.file_name().to_string_lossy().starts_with(PREFIX)
            && entry.file_type().is_ok_and(|file_type| file_type.is_dir());
        if is_staging && is_abandoned(&entry.path()) {
            // Another process may be faster.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn is_abandoned(staging: &Path) -> bool {
    let path = staging.join(LOCK);
    // A lock on a network drive may be known to its own host alone.
    let ours = fs::read_to_string(&path).is_ok_and(|text| text == host());
    ours && File::open(&path).is_ok_and(|file| file.try_lock().is_ok())
}

fn host() -> String {
    #[cfg(unix)]
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    #[cfg(not(unix))]
    let name = std::env::var("COMPUTERNAME").unwrap_or_default();
    format!("unfinished result of motionclone on {name}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            names(folder).unwrap().into_iter().map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn frames(place: &Path, names: &[&str]) -> Result<()> {
        let folder = UnfinishedFolder::new(place, Kind::Frames)?;
        names.iter().for_each(|name| fs::write(folder.path().join(name), name).unwrap());
        folder.finish(&[])
    }

    #[test]
    fn results_replace_their_older_ones_alone() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("frames");
        frames(&folder, &["a", "b", "c"]).unwrap();
        frames(&folder, &["b", "d"]).unwrap();
        assert_eq!(list(&folder), [".motionclone", "b", "d"]);
        assert_eq!(list(place.path()), ["frames"], "nothing is left beside");

        // What systems drop into folders counts for nothing and stays.
        fs::write(folder.join(".DS_Store"), "").unwrap();
        frames(&folder, &["e"]).unwrap();
        assert_eq!(list(&folder), [".DS_Store", ".motionclone", "e"]);

        for foreign in ["notes", "frame_0001.png"] {
            fs::write(folder.join(foreign), "mine").unwrap();
            let error = frames(&folder, &["f"]).unwrap_err();
            assert!(error.is_input() && error.to_string().contains(foreign), "{error}");
            assert_eq!(fs::read(folder.join(foreign)).unwrap(), b"mine");
            fs::remove_file(folder.join(foreign)).unwrap();
        }
        fs::write(folder.join("e"), "painted over by hand").unwrap();
        assert!(frames(&folder, &["f"]).unwrap_err().to_string().contains("changed"));
        fs::write(folder.join("e"), "e").unwrap();
        assert!(UnfinishedFolder::new(&folder, Kind::Bundle).is_err(), "a result of another kind");
        // A marker is a file that may come from anybody.
        fs::write(place.path().join("x"), "mine").unwrap();
        fs::write(folder.join(".motionclone"), "motionclone frames\n1 e\n4 ../x\n").unwrap();
        frames(&folder, &["f"]).unwrap();
        assert_eq!(list(place.path()), ["frames", "x"]);
    }

    /// What came in after the check is not touched, and the older result is back.
    #[test]
    fn what_comes_in_meanwhile_stays() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("frames");
        frames(&folder, &["a"]).unwrap();
        let unfinished = UnfinishedFolder::new(&folder, Kind::Frames).unwrap();
        fs::write(unfinished.path().join("b"), "b").unwrap();
        fs::write(folder.join("notes"), "mine").unwrap();
        assert!(unfinished.finish(&[]).is_err());
        assert_eq!(list(&folder), [".motionclone", "a", "notes"]);
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_what_a_living_one_has_is_not() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a.txt");
        let living = Unfinished::file(&path).unwrap();
        fs::write(living.path(), "new").unwrap();
        let killed = place.path().join(".motionclone-killed");
        fs::create_dir(&killed).unwrap();
        fs::write(killed.join("part"), "half").unwrap();
        let another = Unfinished::file(&path).unwrap();
        assert!(killed.is_dir() && living.path().is_file(), "without a lock nothing is known of it");
        drop(another);
        fs::write(killed.join(LOCK), host()).unwrap();
        drop(Unfinished::file(&path).unwrap());
        assert!(!killed.exists() && living.path().is_file());
        living.finish().unwrap();
        assert_eq!((list(place.path()), fs::read(path).unwrap()), (vec!["a.txt".into()], b"new".to_vec()));
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_stay() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        fs::create_dir(at("elsewhere")).unwrap();
        for (link, target) in [("to_file", "elsewhere/file"), ("to_folder", "elsewhere/folder"), ("circle", "circle")] {
            std::os::unix::fs::symlink(target, at(link)).unwrap();
        }
        for _ in 0..2 {
            let file = Unfinished::file(&at("to_file")).unwrap();
            fs::write(file.path(), "new").unwrap();
            file.finish().unwrap();
            frames(&at("to_folder"), &["a"]).unwrap();
        }
        assert!(at("to_file").is_symlink() && at("to_folder").is_symlink());
        assert_eq!(list(&at("elsewhere")), ["file", "folder"]);
        assert!(Unfinished::file(&at("circle")).is_err() && frames(&at("circle"), &[]).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn results_are_as_open_as_other_files() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let (plain, plain_folder) = (place.path().join("plain"), place.path().join("plain_folder"));
        fs::write(&plain, "").unwrap();
        fs::create_dir(&plain_folder).unwrap();
        let file = Unfinished::file(&place.path().join("a.json")).unwrap();
        fs::write(file.path(), "").unwrap();
        file.finish().unwrap();
        frames(&place.path().join("folder"), &["a"]).unwrap();
        assert_eq!(mode(&place.path().join("a.json")), mode(&plain));
        assert_eq!(mode(&place.path().join("folder")), mode(&plain_folder));
    }
}
