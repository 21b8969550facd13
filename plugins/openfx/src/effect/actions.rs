//! What instances do when the host makes, ends or changes them.

use std::ffi::CStr;

use crate::effect::describe::GENERATOR;
use crate::effect::instance::{self, Instance};
use crate::effect::parameters::{choice, name};
use crate::effect::publish::CallContext;
use crate::effect::values::Values;
use crate::model::{self, Defaults};
use crate::ofx::properties::Properties;
use crate::ofx::suites::{Failed, Host, Result, check, entry};
use crate::ofx::sys::{self, property};

/// Makes the instance of a handle.
pub fn create(host: &Host, effect: sys::Handle) -> Result<()> {
    let (get, mut properties) = (entry(host.effect.get_property_set)?, std::ptr::null_mut());
    // SAFETY: the handle is the host's.
    check(unsafe { get(effect, &mut properties) })?;
    let context = Properties::of(host, properties).text(property::CONTEXT, 0).unwrap_or_default();
    let instance = Instance::new(effect, context == GENERATOR);
    let values = Values::of(host, effect)?;
    instance.state().live = values.switch(name::LIVE);
    instance.resolve(host, &values);
    // What follows the model is shown as it is used, and what is missing is said.
    instance.adjust(host, &values, name::BUNDLE);
    instance::insert(&instance);
    // A job that it joined may have ended before the instance could be told.
    let job = instance.state().job().cloned();
    if let Some(job) = job {
        instance.state().apply_status(&job, job.status());
    }
    instance.publish(host, CallContext::Action);
    Ok(())
}

/// Ends the instance of a handle. Its job goes on for a while, as hosts make instances anew.
pub fn destroy(effect: sys::Handle) -> Result<()> {
    instance::remove(effect).ok_or(Failed(sys::BAD_HANDLE))?.calls.close();
    Ok(())
}

/// Ends all instances that the host has left.
pub fn destroy_all() {
    instance::remove_all().iter().for_each(|instance| instance.calls.close());
}

impl Instance {
    /// Lets the user change what means something.
    fn enable(&self, values: &Values) {
        let pictures = values.int(name::MODE) != choice::MODE_TEXT;
        let range = !values.switch(name::WHOLE);
        for (name, enabled) in [
            (name::IMAGE_FILE, pictures),
            (name::IMAGE_FRAME, pictures),
            (name::IMAGE_STRENGTH, pictures),
            (name::FIRST, range),
            (name::LAST, range),
            (name::SPEED, values.int(name::LENGTH) != choice::LENGTH_STRETCH),
        ] {
            // Where a host cannot do that, everything stays open.
            let _ = values.enable(name, enabled);
        }
    }

    /// A parameter was changed by the user.
    pub fn changed(&self, host: &Host, changed: &CStr, time: f64) -> Result<()> {
        let values = self.values(host)?;
        self.state().rendered = None;
        self.resolve(host, &values);
        let outcome = match changed {
            _ if changed == name::GENERATE => self.generate(host, &values, time),
            _ if changed == name::CANCEL => {
                self.cancel("Cancelled.");
                Ok(())
            }
            _ if changed == name::RANDOMISE => {
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                let hash = blake3::hash(&now.as_nanos().to_le_bytes());
                let seed = u32::from_le_bytes(hash.as_bytes()[..4].try_into().unwrap_or_default());
                let _ = values.set_int(name::SEED, (seed >> 1) as i32);
                Ok(())
            }
            _ if changed == name::SAVE_MOTION => self.save_motion(&values),
            _ if changed == name::LOAD_MOTION => self.load_motion(&values),
            _ => {
                self.adjust(host, &values, changed);
                Ok(())
            }
        };
        if let Err(message) = outcome {
            self.state().fail(message);
        }
        self.publish(host, CallContext::Action);
        Ok(())
    }

    /// The source has changed, so that its frames are other ones.
    pub fn source_changed(&self) {
        self.state().rendered = None;
    }

    /// Parameters that follow others.
    fn adjust(&self, host: &Host, values: &Values, changed: &CStr) {
        // A host that refuses keeps what it has, and the user sees it.
        let set_int = |name, value| {
            if values.int(name) != value {
                let _ = values.set_int(name, value);
            }
        };
        let set_double = |name, value| {
            if values.double(name) != value {
                let _ = values.set_double(name, value);
            }
        };
        let own_steps = [
            name::STEPS,
            name::GUIDANCE_STEPS,
            name::WARM_UP,
            name::COOL_UP,
            name::GUIDANCE_SCALE,
            name::CFG,
            name::NOISE_STEP,
            name::TOP_K,
        ];
        if own_steps.contains(&changed) {
            set_int(name::QUALITY, choice::QUALITY_CUSTOM);
        } else if [name::WIDTH, name::HEIGHT, name::FRAMES].contains(&changed) {
            set_int(name::SIZE, choice::SIZE_CUSTOM);
        } else if changed == name::LIVE {
            self.state().live = values.switch(name::LIVE);
        }
        let (quality, of_the_model) = (values.int(name::QUALITY), values.int(name::SIZE) == choice::SIZE_OF_THE_MODEL);
        let defaults = || Defaults::of(&model::bundle(&values.text(name::BUNDLE)));
        if [name::BUNDLE, name::QUALITY].contains(&changed) && quality != choice::QUALITY_CUSTOM {
            let defaults = defaults().divided(1 << (choice::QUALITY_BEST - quality).clamp(0, 2));
            for (name, value) in [
                (name::STEPS, defaults.steps),
                (name::GUIDANCE_STEPS, defaults.guidance_steps),
                (name::WARM_UP, defaults.warm_up),
                (name::COOL_UP, defaults.cool_up),
                (name::NOISE_STEP, defaults.noise_step),
                (name::TOP_K, defaults.top_k),
            ] {
                set_int(name, value);
            }
            set_double(name::GUIDANCE_SCALE, defaults.guidance_scale);
            set_double(name::CFG, defaults.cfg);
        }
        if [name::BUNDLE, name::SIZE].contains(&changed) && of_the_model {
            let defaults = defaults();
            set_int(name::WIDTH, defaults.width);
            set_int(name::HEIGHT, defaults.height);
            set_int(name::FRAMES, defaults.frames);
        }
        if changed == name::BUNDLE {
            self.say_what_is_missing(host, values);
        }
        self.enable(values);
    }
}
