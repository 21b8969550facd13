//! Where clips come from and go: memory, the folder they are kept in, and the cache.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use etcetera::BaseStrategy;

use crate::clips::cache::Cache;
use crate::clips::clip::{Clip, is_key};
use crate::clips::kept::{self, About};
use crate::sync::lock;

/// Clips that stay in memory when nothing shows them: hosts exist that make an instance a frame.
const RECENT: usize = 2;

/// Clips in memory, by key.
#[derive(Default)]
struct Memory {
    shown: HashMap<String, Weak<Clip>>,
    recent: Vec<Arc<Clip>>,
    /// Those that could be written nowhere.
    unstored: HashMap<String, Arc<Clip>>,
    /// Folders that were given a clip, or could not be given one.
    attended: HashSet<(PathBuf, String)>,
}

static MEMORY: Mutex<Option<Memory>> = Mutex::new(None);

fn memory<T>(with: impl FnOnce(&mut Memory) -> T) -> T {
    with(lock(&MEMORY).get_or_insert_default())
}

impl Memory {
    fn remember(&mut self, key: &str, clip: &Arc<Clip>) {
        self.shown.retain(|_, clip| clip.strong_count() > 0);
        self.shown.insert(key.into(), Arc::downgrade(clip));
        self.recent.retain(|recent| !Arc::ptr_eq(recent, clip));
        self.recent.truncate(RECENT - 1);
        self.recent.insert(0, clip.clone());
    }
}

/// Forgets all clips in memory.
pub fn forget() {
    *lock(&MEMORY) = None;
}

/// A project's clips.
#[derive(Debug, Clone, PartialEq)]
pub struct Store {
    /// Where clips are kept.
    folder: PathBuf,
    cache: Cache,
}

/// The user's own folder for clips of projects that name none and have no reference file.
fn own_folder() -> PathBuf {
    let own = etcetera::choose_base_strategy().map(|folders| folders.data_dir().join("motionclone"));
    own.unwrap_or_else(|_| std::env::temp_dir().join("motionclone")).join("clips")
}

impl Store {
    /// Clips are kept in the folder that is named, else in one beside the reference's file, else in the user's own.
    pub fn new(folder: &str, reference: Option<&Path>, cache_folder: &str, cache_gigabytes: f64) -> Self {
        let named = Some(folder.trim()).filter(|folder| !folder.is_empty()).map(PathBuf::from);
        let beside = || Some(reference?.canonicalize().ok()?.parent()?.join("MotionClone"));
        let folder = named.or_else(beside).unwrap_or_else(own_folder);
        Self { folder, cache: Cache::new(cache_folder, cache_gigabytes) }
    }

    /// A clip, if it is anywhere.
    pub fn load(&self, key: &str) -> Option<Arc<Clip>> {
        if !is_key(key) {
            return None;
        }
        let known = memory(|memory| {
            let known = memory.shown.get(key).and_then(Weak::upgrade);
            known.or_else(|| memory.unstored.get(key).cloned())
        });
        if known.is_some() {
            return known;
        }
        let clip = Arc::new(kept::load(&self.folder, key).or_else(|| self.cache.load(key))?);
        memory(|memory| memory.remember(key, &clip));
        Some(clip)
    }

    /// The file of the motion that a clip was made from.
    pub fn motion(&self, key: &str) -> Option<PathBuf> {
        let cached = || Some(self.cache.motion(key)).filter(|file| is_key(key) && file.is_file());
        kept::motion(&self.folder, key).or_else(cached)
    }

    /// Finds out whether a clip of so many bytes can be kept, before it is made.
    ///
    /// # Errors
    /// When the folder cannot be written to, or has no room.
    pub fn check(&self, bytes: u64) -> Result<(), String> {
        kept::check(&self.folder, bytes)
    }

    /// Keeps a clip. It is there in any case, if only in memory; the text says so where it is not kept.
    pub fn store(
        &self,
        key: &str,
        clip: Arc<Clip>,
        about: &About,
        motion: impl Fn(&Path) -> Result<(), String>,
    ) -> Option<String> {
        memory(|memory| {
            memory.remember(key, &clip);
            memory.attended.insert((self.folder.clone(), key.into()));
        });
        let kept = kept::store(&self.folder, key, &clip, about, &motion);
        let cached = self.cache.store(key, &clip, &motion);
        let problem = kept.err()?;
        if cached.is_ok() {
            return Some(format!("{problem} It is in the cache alone, from which it may go."));
        }
        memory(|memory| memory.unstored.insert(key.into(), clip));
        Some(format!("{problem} It is shown until the host ends."))
    }

    /// Keeps a clip that was found elsewhere, such as in the cache, in this project's folder, too. The text says so, once,
    /// where it cannot be kept.
    pub fn keep(&self, key: &str, clip: &Clip, about: &About) -> Option<String> {
        if !memory(|memory| memory.attended.insert((self.folder.clone(), key.into()))) {
            return None;
        }
        let motion = self.motion(key);
        let copy = |file: &Path| match &motion {
            Some(motion) => std::fs::copy(motion, file).map(|_| ()).map_err(|e| e.to_string()),
            None => Ok(()),
        };
        kept::store(&self.folder, key, clip, about, copy).err()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn clip(value: u8) -> Arc<Clip> {
        Arc::new(Clip { width: 5, height: 3, spacing: 1.5, data: vec![value; 5 * 3 * 3 * 4] })
    }

    fn motion(file: &Path) -> Result<(), String> {
        fs::write(file, "m").map_err(|e| e.to_string())
    }

    /// What a new process would find.
    fn afresh(store: &Store, key: &str) -> Option<Clip> {
        kept::load(&store.folder, key).or_else(|| store.cache.load(key))
    }

    #[test]
    fn an_emptied_cache_costs_no_clip() {
        let folder = tempfile::tempdir().unwrap();
        let [kept, cache] = ["kept", "cache"].map(|name| folder.path().join(name));
        let store = Store::new(kept.to_str().unwrap(), None, cache.to_str().unwrap(), 0.0);
        let key = "1".repeat(32);
        assert_eq!(store.store(&key, clip(1), &About::default(), motion), None);
        assert!(cache.join(format!("{key}.clip")).is_file());
        fs::remove_dir_all(&cache).unwrap();
        assert_eq!(afresh(&store, &key), Some((*clip(1)).clone()));
        assert!(store.motion(&key).is_some());
        let first = store.load(&key).unwrap();
        assert!(Arc::ptr_eq(&first, &store.load(&key).unwrap()), "instances share a clip");
    }

    #[test]
    fn a_clip_that_cannot_be_written_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "x").unwrap();
        let (file, cache) = (file.to_str().unwrap(), folder.path().join("cache"));
        let store = Store::new(file, None, cache.to_str().unwrap(), 1.0);
        let key = "2".repeat(32);
        assert!(store.check(1).is_err());
        assert!(store.store(&key, clip(2), &About::default(), motion).unwrap().contains("in the cache alone"));
        assert_eq!(afresh(&store, &key), Some((*clip(2)).clone()));
        let store = Store::new(file, None, file, 1.0);
        let key = "3".repeat(32);
        assert!(store.store(&key, clip(3), &About::default(), motion).unwrap().contains("until the host ends"));
        assert_eq!(afresh(&store, &key), None);
        assert_eq!(store.load(&key), Some(clip(3)));
    }

    #[test]
    fn clips_lie_beside_their_reference() {
        let folder = tempfile::tempdir().unwrap();
        let reference = folder.path().join("clip.mp4");
        fs::write(&reference, "x").unwrap();
        let place = folder.path().canonicalize().unwrap().join("MotionClone");
        assert_eq!(Store::new(" ", Some(&reference), "", 1.0).folder, place);
        assert_eq!(Store::new("", None, "", 1.0).folder, own_folder());
        assert_eq!(Store::new("/x", Some(&reference), "", 1.0).folder, Path::new("/x"));
    }
}
