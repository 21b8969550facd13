//! What a command reads and writes, so that no result replaces or spoils what it was made from.

use std::path::{Path, PathBuf};

use motionclone::onnx::unfinished;
use motionclone::{Error, Result};

/// What a result would change if it came into an input folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// A file, or a folder that no result comes into.
    Whole,
    /// A clip, which may be a folder that images would become frames of.
    Clip,
}

struct Read {
    what: &'static str,
    kind: Input,
    given: PathBuf,
    real: PathBuf,
}

struct Written {
    real: PathBuf,
    is_folder: bool,
}

/// The inputs of a command, and the results that have found their places so far.
#[derive(Default)]
pub struct Places {
    read: Vec<Read>,
    written: Vec<Written>,
}

impl Places {
    /// Names an input: what it is, in words for a message.
    pub fn reads(&mut self, what: &'static str, kind: Input, path: &Path) {
        self.read.push(Read { what, kind, given: path.into(), real: real(path) });
    }

    /// Takes a place for a file.
    ///
    /// # Errors
    /// When that is an input under any of its names, would change an input folder, or is another result's place.
    pub fn file(&mut self, path: &Path) -> Result<()> {
        let real = real(path);
        for input in &self.read {
            if input.real == real || same_file(&input.given, path) {
                return input.refuses(path, "is");
            }
            let spoils = match input.kind {
                Input::Whole => real.starts_with(&input.real),
                Input::Clip => real.parent() == Some(&*input.real) && is_image(path),
            };
            if spoils {
                return input.refuses(path, "would come into");
            }
        }
        self.take(path, Written { real, is_folder: false })
    }

    /// Takes a place for a folder.
    ///
    /// # Errors
    /// When an input is or lies in it, it would change an input folder, or another result's place is or lies in it.
    pub fn folder(&mut self, path: &Path) -> Result<()> {
        let real = real(path);
        for input in &self.read {
            if input.real == real || same_file(&input.given, path) {
                return input.refuses(path, "is");
            }
            if input.real.starts_with(&real) {
                return input.refuses(path, "holds");
            }
            if input.kind == Input::Whole && real.starts_with(&input.real) {
                return input.refuses(path, "would come into");
            }
        }
        self.take(path, Written { real, is_folder: true })
    }

    /// Checks a folder that keeps files of other runs, such as the cache.
    ///
    /// # Errors
    /// When it is or lies in an input.
    pub fn keeps(&self, path: &Path) -> Result<()> {
        let real = real(path);
        match self.read.iter().find(|input| real.starts_with(&input.real)) {
            Some(input) => input.refuses(path, "would come into"),
            None => Ok(()),
        }
    }

    fn take(&mut self, path: &Path, new: Written) -> Result<()> {
        for other in &self.written {
            // Names that differ only in case are one file on many systems, whatever they are here.
            let (a, b) = (folded(&other.real), folded(&new.real));
            let clash = if a == b {
                "is given twice"
            } else if (other.is_folder && b.starts_with(&a)) || (new.is_folder && a.starts_with(&b)) {
                "lies in another result, or holds one"
            } else {
                continue;
            };
            return Err(Error::input(format!("{clash}; give each result a place of its own")).with_path(path));
        }
        self.written.push(new);
        Ok(())
    }
}

impl Read {
    fn refuses(&self, path: &Path, how: &str) -> Result<()> {
        let Self { what, given, .. } = self;
        let message = format!("{how} the {what} ({}), which stays as it is; choose another place", given.display());
        Err(Error::input(message).with_path(path))
    }
}

/// A path without links and detours, as far as it exists.
fn real(path: &Path) -> PathBuf {
    let path = unfinished::follow(path).unwrap_or_else(|_| path.into());
    let whole = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
    for existing in whole.ancestors() {
        if let (Ok(found), Ok(rest)) = (existing.canonicalize(), whole.strip_prefix(existing)) {
            // Joining nothing would add a separator.
            return if rest.as_os_str().is_empty() { found } else { found.join(rest) };
        }
    }
    whole
}

fn folded(path: &Path) -> PathBuf {
    path.to_string_lossy().to_lowercase().into()
}

/// Whether two names, such as hard links, are of one file. Only plain files are looked into: a pipe can be opened once.
fn same_file(a: &Path, b: &Path) -> bool {
    a.is_file() && b.is_file() && same_file::is_same_file(a, b).unwrap_or(false)
}

/// Whether a folder of frames with this file in it has a frame more.
fn is_image(path: &Path) -> bool {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    extension.is_some_and(|extension| ["png", "webp", "gif"].contains(&extension.as_str()))
}

/// A folder that is made where it was missing; what of it is still empty in the end goes again.
pub struct MadeFolder {
    made: Vec<PathBuf>,
}

impl MadeFolder {
    /// Makes the folder and those above it.
    ///
    /// # Errors
    /// When one of them is a file or cannot be made.
    pub fn new(path: &Path) -> Result<Self> {
        let missing = path.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists());
        let made = Self { made: missing.map(Path::to_path_buf).collect() };
        std::fs::create_dir_all(path).map_err(|e| Error::input(format!("cannot be made: {e}")).with_path(path))?;
        Ok(made)
    }
}

impl Drop for MadeFolder {
    fn drop(&mut self) {
        // The system refuses where there are results.
        self.made.iter().for_each(|folder| drop(std::fs::remove_dir(folder)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn inputs_are_known_by_every_name() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("shot/sub")).expect("folders");
        fs::create_dir(at("bundle")).expect("a folder");
        fs::write(at("clip.mp4"), "").expect("a file");
        fs::hard_link(at("clip.mp4"), at("hard.mp4")).expect("a link");
        let mut places = Places::default();
        places.reads("reference", Input::Clip, &at("clip.mp4"));
        places.reads("reference", Input::Clip, &at("shot"));
        places.reads("model", Input::Whole, &at("bundle"));
        let mut refused = vec!["clip.mp4", "./clip.mp4", "shot/../clip.mp4", "hard.mp4", "shot/a.png", "bundle/a.mp4"];
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("clip.mp4", at("soft.mp4")).expect("a link");
            std::os::unix::fs::symlink("shot", at("link")).expect("a link");
            refused.extend(["soft.mp4", "link/a.webp"]);
        }
        for name in refused {
            let error = places.file(&at(name)).expect_err(name);
            assert!(error.is_input() && error.to_string().contains("stays as it is"), "{name}: {error}");
        }
        for name in ["shot", "shot/.", "bundle", "bundle/frames", "", "shot/sub/../.."] {
            assert!(places.folder(&at(name)).is_err(), "{name}");
        }
        assert!(places.keeps(&at("bundle/cache")).is_err() && places.keeps(&at("cache")).is_ok());
        for name in ["a.mp4", "shot/a.mp4", "shot/sub/a.png"] {
            places.file(&at(name)).expect(name);
        }
        places.folder(&at("shot/frames")).expect("a folder beside the frames");
    }

    #[test]
    fn every_result_has_its_own_place() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        let mut places = Places::default();
        places.file(&at("a.mp4")).expect("a place");
        places.folder(&at("frames")).expect("a place");
        for name in ["a.mp4", "A.mp4", "x/../a.mp4", "frames/sheet.png", "frames"] {
            fs::create_dir_all(at("x")).expect("a folder");
            assert!(places.file(&at(name)).is_err(), "{name}");
        }
        assert!(places.folder(folder.path()).is_err(), "a folder of results");
    }

    #[test]
    fn made_folders_stay_only_with_results() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let deep = folder.path().join("a/b/c");
        drop(MadeFolder::new(&deep).expect("folders"));
        assert!(!folder.path().join("a").exists());
        let made = MadeFolder::new(&deep).expect("folders");
        fs::write(deep.join("file"), "").expect("a file");
        drop(made);
        assert!(deep.is_dir());
    }
}
