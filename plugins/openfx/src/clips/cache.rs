//! The cache of finished clips: on disk under the key of everything that made them. It may be emptied at any time.
//!
//! The folder is shared by all instances, projects and hosts. A clip is one file: a head, then its frames. The motion
//! that it was made from lies beside it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use etcetera::BaseStrategy;

use crate::clips::clip::{Clip, bytes, is_key};

/// Names the folder of all caches, as for the command line.
const VARIABLE: &str = "MOTIONCLONE_CACHE";
/// Names of files that are not whole yet begin so.
const PREFIX: &str = ".motionclone-";
const MAGIC: &[u8; 16] = b"motionclone clip";
/// Magic, width, height, frames, spacing, hash of the frames.
const HEAD: usize = 16 + 3 * 4 + 8 + 32;
/// What a host that was killed left half-written goes when it is older than this, as nobody writes it any more.
const ORPHAN_AGE: Duration = Duration::from_secs(3600);

/// A folder of clips.
#[derive(Debug, Clone, PartialEq)]
pub struct Cache {
    folder: PathBuf,
    /// Bytes that it may hold.
    limit: u64,
}

impl Cache {
    /// The folder that is named, else `openfx` in the folder that `MOTIONCLONE_CACHE` names, else in the user's own.
    pub fn new(folder: &str, gigabytes: f64) -> Self {
        let named = Some(folder.trim()).filter(|folder| !folder.is_empty()).map(PathBuf::from);
        let variable = || std::env::var_os(VARIABLE).filter(|folder| !folder.is_empty()).map(PathBuf::from);
        let own = || Some(etcetera::choose_base_strategy().ok()?.cache_dir().join("motionclone"));
        let folder = named.or_else(|| Some(variable().or_else(own)?.join("openfx")));
        let folder = folder.unwrap_or_else(|| std::env::temp_dir().join("motionclone-openfx"));
        Self { folder, limit: (gigabytes.max(0.0) * 1e9) as u64 }
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.clip"))
    }

    /// The file of the motion that a clip was made from, whether it is there or not.
    pub fn motion(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.safetensors"))
    }

    /// A clip that is there and whole.
    pub fn load(&self, key: &str) -> Option<Clip> {
        if !is_key(key) {
            return None;
        }
        let path = self.path(key);
        let clip = read(&path).ok()?;
        // The clips shown last are kept longest; where the time cannot be set, that is no harm.
        let _ = File::options().append(true).open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        Some(clip)
    }

    /// Adds a clip, then what `motion` writes into the file it is given, and lets the oldest go where there are too
    /// many.
    ///
    /// # Errors
    /// When the folder cannot be written to. What was written until then stays.
    pub fn store(
        &self,
        key: &str,
        clip: &Clip,
        motion: impl FnOnce(&Path) -> Result<(), String>,
    ) -> Result<(), String> {
        let failed = |e: io::Error| format!("The clip cannot be cached in {}: {e}.", self.folder.display());
        fs::create_dir_all(&self.folder).map_err(failed)?;
        self.remove_orphans();
        let mut file = new_file(&self.folder).map_err(failed)?;
        write(&mut file, clip).map_err(failed)?;
        file.persist(self.path(key)).map_err(|e| failed(e.error))?;
        motion(&self.motion(key))?;
        self.shrink(key);
        Ok(())
    }

    /// Removes what was left half-written, by this plugin or by the library that writes motions.
    fn remove_orphans(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let ours = name.starts_with(PREFIX) || (name.starts_with(".tmp") && name.len() == 10);
            let age = entry.metadata().ok().and_then(|metadata| metadata.modified().ok()?.elapsed().ok());
            if ours && age.is_some_and(|age| age > ORPHAN_AGE) {
                // Another host may have been quicker.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Removes what was not shown for longest until the rest fits, but never the clip just made.
    fn shrink(&self, newest: &str) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let mut clips = HashMap::<String, (SystemTime, u64)>::new();
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some((key, extension)) = name.split_once('.') else { continue };
            // Whatever else lies there is not ours.
            if !is_key(key) || !["clip", "safetensors"].contains(&extension) {
                continue;
            }
            let Ok(metadata) = entry.metadata() else { continue };
            let clip = clips.entry(key.into()).or_insert((SystemTime::UNIX_EPOCH, 0));
            clip.0 = clip.0.max(metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH));
            clip.1 += metadata.len();
        }
        let mut total: u64 = clips.values().map(|(_, bytes)| bytes).sum();
        let mut oldest: Vec<_> = clips.into_iter().filter(|(key, _)| key != newest).collect();
        oldest.sort_by_key(|(_, (shown, _))| *shown);
        for (key, (_, bytes)) in oldest {
            if total <= self.limit {
                break;
            }
            // Another host may have been quicker.
            let _ = fs::remove_file(self.path(&key));
            let _ = fs::remove_file(self.motion(&key));
            total -= bytes;
        }
    }
}

/// A file with a passing name and the modes of the user's other files.
fn new_file(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}

fn write(file: &mut impl Write, clip: &Clip) -> io::Result<()> {
    file.write_all(MAGIC)?;
    for number in [clip.width, clip.height, clip.count()] {
        file.write_all(&(number as u32).to_le_bytes())?;
    }
    file.write_all(&clip.spacing.to_le_bytes())?;
    file.write_all(blake3::hash(&clip.data).as_bytes())?;
    file.write_all(&clip.data)
}

fn read(path: &Path) -> io::Result<Clip> {
    let damaged = || io::Error::from(io::ErrorKind::InvalidData);
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut head = [0; HEAD];
    file.read_exact(&mut head)?;
    let number = |at: usize| -> u64 { u32::from_le_bytes(head[at..at + 4].try_into().unwrap_or_default()).into() };
    let (width, height, count) = (number(16), number(20), number(24));
    let bytes = bytes(width, height, count).ok_or_else(damaged)?;
    let spacing = f64::from_le_bytes(head[28..36].try_into().unwrap_or_default());
    if head[..16] != *MAGIC || length != HEAD as u64 + bytes || !(spacing.is_finite() && spacing > 0.0) {
        return Err(damaged());
    }
    let mut data = Vec::with_capacity(bytes as usize);
    file.read_to_end(&mut data)?;
    if data.len() as u64 != bytes || blake3::hash(&data).as_bytes()[..] != head[36..] {
        return Err(damaged());
    }
    Ok(Clip { width: width as usize, height: height as usize, spacing, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clip(value: u8) -> Clip {
        Clip { width: 5, height: 3, spacing: 1.5, data: vec![value; 5 * 3 * 3 * 4] }
    }

    fn key(letter: char) -> String {
        letter.to_string().repeat(32)
    }

    #[test]
    fn clips_come_back_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().to_str().unwrap(), 1.0);
        cache.store(&key('a'), &clip(7), |motion| fs::write(motion, "m").map_err(|e| e.to_string())).unwrap();
        assert_eq!(cache.load(&key('a')).unwrap(), clip(7));
        assert_eq!(fs::read(cache.motion(&key('a'))).unwrap(), b"m");
        let whole = fs::read(cache.path(&key('a'))).unwrap();
        for length in 0..whole.len() {
            fs::write(cache.path(&key('a')), &whole[..length]).unwrap();
            assert_eq!(cache.load(&key('a')), None);
        }
        for at in (0..28).chain(36..whole.len()) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x80;
            fs::write(cache.path(&key('a')), &damaged).unwrap();
            assert_eq!(cache.load(&key('a')), None, "{at}");
        }
        fs::write(cache.path(&key('a')), &whole).unwrap();
        for bad in ["", "../../../etc/passwd", &"A".repeat(32), &"a".repeat(33)] {
            assert!(!is_key(bad) && cache.load(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn the_oldest_clips_go_first() {
        let folder = tempfile::tempdir().unwrap();
        let room = 2.5 * (HEAD + 180) as f64 / 1e9;
        let cache = Cache::new(folder.path().to_str().unwrap(), room);
        fs::write(folder.path().join("else"), vec![0; 10000]).unwrap();
        let age = |letter: char, seconds: u64| {
            let time = SystemTime::now() - std::time::Duration::from_secs(seconds);
            File::options().append(true).open(cache.path(&key(letter))).unwrap().set_modified(time).unwrap();
        };
        for (letter, seconds) in [('a', 300), ('b', 200)] {
            cache.store(&key(letter), &clip(1), |_| Ok(())).unwrap();
            age(letter, seconds);
        }
        // Showing a clip makes it young.
        drop(cache.load(&key('a')).unwrap());
        cache.store(&key('c'), &clip(1), |_| Ok(())).unwrap();
        let there: Vec<bool> = ['a', 'b', 'c'].map(|letter| cache.path(&key(letter)).exists()).into();
        assert_eq!(there, [true, false, true]);
        assert!(folder.path().join("else").exists());
        let tight = Cache { limit: 0, ..cache.clone() };
        tight.store(&key('d'), &clip(1), |_| Ok(())).unwrap();
        assert!(tight.load(&key('d')).is_some() && tight.load(&key('c')).is_none());
    }
    #[test]
    fn what_was_left_half_written_goes() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().to_str().unwrap(), 1.0);
        let names = [".tmpa1B2c3", ".motionclone-x.safetensors", ".tmp-of-others", ".motionclone-new"];
        for name in names {
            fs::write(folder.path().join(name), "x").unwrap();
            let old = SystemTime::now() - 2 * ORPHAN_AGE;
            let file = File::options().append(true).open(folder.path().join(name)).unwrap();
            file.set_modified(if name.ends_with("new") { SystemTime::now() } else { old }).unwrap();
        }
        cache.store(&key('a'), &clip(1), |_| Ok(())).unwrap();
        assert_eq!(names.map(|name| folder.path().join(name).exists()), [false, false, true, true]);
    }

    #[cfg(unix)]
    #[test]
    fn clips_have_the_modes_of_other_files() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().to_str().unwrap(), 1.0);
        cache.store(&key('a'), &clip(1), |motion| fs::write(motion, "m").map_err(|e| e.to_string())).unwrap();
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(cache.path(&key('a'))), mode(cache.motion(&key('a'))));
    }
}
