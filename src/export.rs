//! The graphs of one job as files, for Netron or other runtimes.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use motionclone_onnx::graph::Lowering;
use motionclone_onnx::manifest::WEIGHTS_FILE;
use motionclone_onnx::owned::Kind;
use motionclone_onnx::unfinished::{self, UnfinishedFolder};

use crate::bundle::Bundle;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::networks::{JobNetworks, MemoryStrategy, NetworkKey};
use crate::runtime::RunSettings;
use crate::settings::Settings;

/// Every network that runs with these sizes and guided blocks need: text, pictures and sketches.
fn networks(bundle: &Bundle, settings: &Settings) -> Result<Vec<NetworkKey>> {
    let mut keys = Vec::new();
    let controls = bundle.manifest.controls.keys().copied();
    for control in std::iter::once(None).chain(controls.map(Some)) {
        let (run, strategy) = (RunSettings::default(), MemoryStrategy::KeepAll);
        let networks = JobNetworks::with_control(&bundle.manifest, settings, control, &run, strategy)?;
        keys.extend(networks.all().into_iter().filter(|key| !keys.contains(key)).collect::<Vec<_>>());
    }
    Ok(keys)
}

/// Writes every network's graph as `NAME.onnx` into a folder, with a copy of the weights beside them: runtimes refuse
/// weights elsewhere, and links to them. `copied` is called with the weights' bytes, done and in all. Returns the files.
///
/// # Errors
/// When the settings do not fit the model, the folder holds anything but older graphs, or it cannot be written.
pub fn export(
    bundle: &Bundle,
    settings: &Settings,
    out: &Path,
    cancel: &Cancel,
    copied: &mut dyn FnMut(u64, u64),
) -> Result<Vec<PathBuf>> {
    settings.check(&bundle.manifest)?;
    let folder = UnfinishedFolder::new(out, Kind::Graphs)?;
    let weights = bundle.weights.path();
    let length = weights.metadata().map_err(|e| Error::io(weights, e))?.len();
    unfinished::check_room(folder.path(), length).map_err(|e| e.with_path(out))?;
    let mut names = Vec::new();
    for key in networks(bundle, settings)? {
        cancel.check()?;
        let name = format!("{}.onnx", key.name());
        let path = folder.path().join(&name);
        std::fs::write(&path, key.model(bundle, Lowering::Portable)?).map_err(|e| Error::io(&path, e))?;
        names.push(name);
    }
    copy(weights, &folder.path().join(WEIGHTS_FILE), cancel, copied)?;
    folder.finish(&[])?;
    Ok(names.into_iter().map(|name| out.join(name)).collect())
}

fn copy(from: &Path, to: &Path, cancel: &Cancel, copied: &mut dyn FnMut(u64, u64)) -> Result<()> {
    const CHUNK: u64 = 64 << 20;
    let mut source = File::open(from).map_err(|e| Error::io(from, e))?;
    let mut target = File::create(to).map_err(|e| Error::io(to, e))?;
    let total = source.metadata().map_err(|e| Error::io(from, e))?.len();
    let mut done = 0;
    while done < total {
        cancel.check()?;
        let count = std::io::copy(&mut (&mut source).take(CHUNK), &mut target).map_err(|e| Error::io(to, e))?;
        if count == 0 {
            return Err(Error::failure(format!("ends after {done} bytes of {total}")).with_path(from));
        }
        done += count;
        copied(done, total);
    }
    Ok(())
}
