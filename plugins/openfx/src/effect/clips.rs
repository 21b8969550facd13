//! Which clip the project shows, and its motion.

use std::path::Path;
use std::sync::Arc;

use crate::effect::instance::Instance;
use crate::effect::parameters::{choice, name};
use crate::effect::request::store;
use crate::effect::state::{Footage, Work};
use crate::effect::values::Values;
use crate::engine::{self, MotionInfo};
use crate::job;
use crate::model;
use crate::ofx::suites::Host;

impl Instance {
    /// Takes over what the project says is to be shown. It holds up to two keys: what is being made, and what is shown
    /// until then.
    pub fn resolve(&self, host: &Host, values: &Values) {
        let publication = {
            let state = self.state();
            // What is read while it is being set may be older than what is known here.
            if state.published.publishers > 0 {
                return;
            }
            state.published.publication
        };
        let result = values.text(name::RESULT);
        {
            let mut state = self.state();
            let missing = matches!(state.footage, Footage::Missing { .. });
            if state.published.publication != publication || (state.published.host_result == result && !missing) {
                return;
            }
            state.published.host_result.clone_from(&result);
            if state.result == result && !missing {
                return;
            }
            // What is missing may have been made or brought back by others.
            if state.result == result && !matches!(state.work, Work::Idle) {
                return;
            }
        }
        let store = store(values);
        let found = result.split_whitespace().find_map(|key| Some((key.to_string(), store.load(key)?)));
        let first = result.split_whitespace().next().map(String::from);
        {
            let mut state = self.state();
            let before = matches!(state.footage, Footage::Missing { .. }) && state.result == result;
            state.footage = match found {
                Some((key, clip)) => Footage::Clip { key, clip },
                None if result.is_empty() => Footage::Source,
                None => Footage::Missing { keys: result.clone() },
            };
            if before && matches!(state.footage, Footage::Missing { .. }) {
                return;
            }
            state.note = match &state.footage {
                Footage::Clip { .. } => "The clip is there.".into(),
                Footage::Source => String::new(),
                Footage::Missing { .. } => missing(host, &result),
            };
            (state.result, state.work) = (result, Work::Idle);
        }
        if let Some(key) = first {
            job::find(&key, |job| {
                let mut state = self.state();
                state.note = "The clip is being made.".into();
                state.work = Work::Running(job.clone());
            });
        }
    }

    /// Puts what is missing into the status, unless there is something to show.
    pub fn say_what_is_missing(&self, host: &Host, values: &Values) {
        let missing = engine::missing();
        let missing = missing.or_else(|| model::manifest(&model::bundle(&values.text(name::BUNDLE))).err());
        let mut state = self.state();
        if matches!(state.footage, Footage::Clip { .. }) || !matches!(state.work, Work::Idle) {
            return;
        }
        match missing {
            Some(missing) if state.note.is_empty() || state.result.is_empty() => state.note = missing,
            Some(missing) => state.note = format!("{} {missing}", state.note),
            None if state.result.is_empty() => state.note = format!("Ready: write a prompt, then {}.", how(host)),
            None => {}
        }
    }

    /// Copies the shown clip's motion into the motion file.
    ///
    /// # Errors
    /// When there is none, or it cannot be written.
    pub fn save_motion(&self, values: &Values) -> Result<(), String> {
        let file = values.text(name::MOTION_FILE);
        if file.trim().is_empty() {
            return Err("No motion file is chosen.".into());
        }
        let shown = self.state().footage.key().to_string();
        let kept = store(values).motion(&shown);
        let kept = kept.ok_or("There is no clip yet whose motion could be kept: press Generate first.")?;
        let target = Path::new(&file);
        let failed = |e: std::io::Error| format!("{file} cannot be written: {e}.");
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut beside = tempfile::Builder::new();
        beside.prefix(".motionclone-");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            beside.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let mut beside = beside.tempfile_in(folder).map_err(failed)?;
        std::io::copy(&mut std::fs::File::open(&kept).map_err(failed)?, &mut beside).map_err(failed)?;
        beside.persist(target).map_err(|e| failed(e.error))?;
        self.state().note = format!("The motion is kept in {file}.");
        Ok(())
    }

    /// Takes the motion from the motion file from now on.
    ///
    /// # Errors
    /// When it is no motion.
    pub fn load_motion(&self, values: &Values) -> Result<(), String> {
        let file = values.text(name::MOTION_FILE);
        if file.trim().is_empty() {
            return Err("No motion file is chosen.".into());
        }
        let info = engine::api()?.motion(&file)?.info()?;
        for (name, value) in [
            (name::WIDTH, info.width),
            (name::HEIGHT, info.height),
            (name::FRAMES, info.frames),
            (name::NOISE_STEP, info.noise_step),
            (name::TOP_K, info.top_k),
        ] {
            let _ = values.set_int(name, value as i32);
        }
        let _ = values.set_int(name::SIZE, choice::SIZE_CUSTOM);
        let _ = values.set_int(name::MOTION_FROM, choice::MOTION_OF_THE_FILE);
        let MotionInfo { width, height, frames, .. } = info;
        self.state().note = format!("The motion of {frames} frames at {width}x{height} is used from now on.");
        Ok(())
    }

    /// A clip that was made in a render is what the project shows, from the next action on.
    pub fn show(&self, key: &str, clip: Arc<crate::clips::clip::Clip>) {
        let mut state = self.state();
        if matches!(state.work, Work::Idle) {
            state.footage = Footage::Clip { key: key.into(), clip };
            state.result = key.into();
            state.note = "The clip is there.".into();
            state.published.may_clear = true;
        }
    }
}

/// How a clip is asked for in a host.
pub fn how(host: &Host) -> &'static str {
    if host.has_buttons() { "press Generate" } else { "switch on Make the clip when it is rendered" }
}

/// The text for a clip that is nowhere.
pub fn missing(host: &Host, keys: &str) -> String {
    let key = keys.split_whitespace().next().unwrap_or_default();
    format!("The clip {key} is no longer there, neither where clips are kept nor in the cache: {}.", how(host))
}
