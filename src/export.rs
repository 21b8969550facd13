//! The graphs of one job as files, for Netron or other runtimes.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use motionclone_onnx::graph::{Forward, Lowering};
use motionclone_onnx::manifest::WEIGHTS_FILE;
use motionclone_onnx::unfinished;

use crate::bundle::{Bundle, NetworkKey};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::settings::Settings;

/// Every network that runs with these sizes and guided blocks need: text, pictures and sketches.
pub fn networks(bundle: &Bundle, settings: &Settings) -> Vec<NetworkKey> {
    let vae = bundle.vae_shape(settings, Lowering::Portable);
    let mut keys = vec![NetworkKey::TextEncoder, NetworkKey::VaeEncoder(vae), NetworkKey::VaeDecoder(vae)];
    let controls = bundle.manifest.controls.keys().copied();
    for control in std::iter::once(None).chain(controls.map(Some)) {
        let shape = bundle.unet_shape(settings, control, Lowering::Portable);
        keys.extend(control.map(|kind| NetworkKey::Control(kind, shape.clone())));
        keys.push(NetworkKey::Extractor(shape.clone(), settings.blocks.clone()));
        keys.push(NetworkKey::Guided(shape.clone(), settings.blocks.clone(), Forward::Kept));
        keys.push(NetworkKey::Denoiser(shape));
    }
    keys
}

/// Writes every network's graph as `NAME.onnx` into a new folder, with a copy of the weights beside them: runtimes refuse
/// weights elsewhere, and links to them. `copied` hears of the weights' bytes, done and in all. Returns the files.
///
/// # Errors
/// When the settings do not fit the model, the folder is there and not empty, or it cannot be written.
pub fn export(
    bundle: &Bundle,
    settings: &Settings,
    out: &Path,
    cancel: &Cancel,
    copied: &mut dyn FnMut(u64, u64),
) -> Result<Vec<PathBuf>> {
    settings.check(&bundle.manifest)?;
    let out = std::path::absolute(out).map_err(|e| Error::io(out, e))?;
    if out.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Error::input("there already, and not empty").with_path(&out));
    }
    let unfinished = unfinished::folder(&out).map_err(|e| Error::io(unfinished::parent(&out), e))?;
    let mut names = Vec::new();
    for key in networks(bundle, settings) {
        cancel.check()?;
        let name = format!("{}.onnx", key.name());
        let path = unfinished.path().join(&name);
        std::fs::write(&path, bundle.model(&key, Lowering::Portable)?).map_err(|e| Error::io(&path, e))?;
        names.push(name);
    }
    copy(bundle.weights.path(), &unfinished.path().join(WEIGHTS_FILE), cancel, copied)?;
    let unfinished = unfinished.keep();
    std::fs::rename(&unfinished, &out).map_err(|e| {
        // What could not be put in its place is of no use.
        let _ = std::fs::remove_dir_all(&unfinished);
        Error::io(&out, e)
    })?;
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
