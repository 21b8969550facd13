//! What the host calls.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::clips::store;
use crate::effect::describe::{self, IDENTIFIER, SOURCE, VERSION};
use crate::effect::publish::CallContext;
use crate::effect::{actions, instance, queries, render};
use crate::ofx::host;
use crate::ofx::properties::Properties;
use crate::ofx::suites::{Failed, Host, Result, c_text};
use crate::ofx::sys::{self, action, property};
use crate::{engine, job};

static PLUGIN: sys::Plugin = sys::Plugin {
    api: sys::IMAGE_EFFECT_PLUGIN_API.as_ptr(),
    api_version: 1,
    identifier: IDENTIFIER.as_ptr(),
    version_major: VERSION[0],
    version_minor: VERSION[1],
    set_host,
    main_entry,
};

/// One plugin is in this file.
#[unsafe(no_mangle)]
pub extern "C" fn OfxGetNumberOfPlugins() -> c_int {
    1
}

/// The plugin; null for any other number than 0.
#[unsafe(no_mangle)]
pub extern "C" fn OfxGetPlugin(number: c_int) -> *const sys::Plugin {
    if number == 0 { &PLUGIN } else { std::ptr::null() }
}

/// Newer hosts give their structure here before they ask for plugins.
///
/// # Safety
/// `given` must be null or valid as long as the plugin is loaded.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn OfxSetHost(given: *const sys::Host) -> sys::Status {
    host::set_host(given.cast_mut());
    sys::OK
}

unsafe extern "C" fn set_host(given: *mut sys::Host) {
    host::set_host(given);
}

unsafe extern "C" fn main_entry(
    action: *const c_char,
    handle: *const c_void,
    arguments: sys::Handle,
    answers: sys::Handle,
) -> sys::Status {
    if action.is_null() {
        return sys::FAILED;
    }
    // SAFETY: names of actions end with a zero byte.
    let action = unsafe { CStr::from_ptr(action) }.to_string_lossy();
    // A panic must not leave the plugin: it would end the host.
    let outcome = catch_unwind(AssertUnwindSafe(|| act(&action, handle.cast_mut(), arguments, answers)));
    match outcome {
        Ok(Ok(status)) => status,
        Ok(Err(Failed(status))) if action == action::LOAD || action == action::DESCRIBE => status,
        Ok(Err(Failed(sys::OK))) => sys::FAILED,
        Ok(Err(Failed(sys::BAD_HANDLE))) => sys::BAD_HANDLE,
        Ok(Err(_)) => sys::FAILED,
        Err(_) => sys::ERROR_FATAL,
    }
}

fn act(action: &str, effect: sys::Handle, arguments: sys::Handle, answers: sys::Handle) -> Result<sys::Status> {
    match action {
        action::LOAD => {
            host::load()?;
            return Ok(sys::OK);
        }
        action::UNLOAD => {
            actions::destroy_all();
            // A library that still works must not be torn down.
            if job::stop() {
                engine::shutdown();
            }
            store::forget();
            host::unload();
            return Ok(sys::OK);
        }
        _ => {}
    }
    let host = host::host()?;
    let (asked, answer) = (Properties::of(&host, arguments), Properties::of(&host, answers));
    let done = |result: Result<()>| result.map(|()| sys::OK);
    match action {
        action::DESCRIBE => done(describe::effect(&host, effect)),
        action::DESCRIBE_IN_CONTEXT => done(describe::in_context(&host, effect, &asked.text(property::CONTEXT, 0)?)),
        action::CREATE_INSTANCE => done(actions::create(&host, effect)),
        action::DESTROY_INSTANCE => done(actions::destroy(effect)),
        action::INSTANCE_CHANGED => instance_changed(&host, effect, asked),
        action::SYNC_PRIVATE_DATA | action::BEGIN_INSTANCE_CHANGED | action::END_INSTANCE_CHANGED => {
            // Parameters may be set here: what the plugin's thread has marked as new is told. Hosts call this, too, while
            // the plugin sets a parameter.
            let own = asked.text(property::CHANGE_REASON, 0).is_ok_and(|reason| reason == sys::CHANGE_PLUGIN_EDITED);
            if let Ok(instance) = instance::find(effect)
                && !own
            {
                instance.publish(&host, CallContext::Action);
            }
            Ok(sys::OK)
        }
        action::RENDER => done(render::render(&host, effect, arguments)),
        action::IS_IDENTITY => queries::is_identity(&host, effect, asked, answer),
        action::GET_REGION_OF_DEFINITION => queries::region_of_definition(&host, effect, asked, answer),
        action::GET_REGIONS_OF_INTEREST => queries::regions_of_interest(&host, effect, asked, answer),
        action::GET_FRAMES_NEEDED => queries::frames_needed(&host, effect, asked, answer),
        action::GET_CLIP_PREFERENCES => {
            // A still source becomes a moving picture, too.
            answer.set_int(property::FRAME_VARYING, 0, 1)?;
            Ok(sys::OK)
        }
        // Resolve takes the default reply to these for an error.
        action::BEGIN_SEQUENCE_RENDER | action::END_SEQUENCE_RENDER | action::PURGE_CACHES => Ok(sys::OK),
        _ => Ok(sys::REPLY_DEFAULT),
    }
}

fn instance_changed(host: &Host, effect: sys::Handle, asked: Properties) -> Result<sys::Status> {
    let (kind, name) = (asked.text(property::TYPE, 0)?, asked.text(property::NAME, 0)?);
    if kind == sys::TYPE_CLIP && name == SOURCE.to_string_lossy() {
        instance::find(effect)?.source_changed();
    }
    // What the plugin sets itself comes back here, while it is still being set.
    let user = asked.text(property::CHANGE_REASON, 0).is_ok_and(|reason| reason == sys::CHANGE_USER_EDITED);
    if user && kind == sys::TYPE_PARAMETER {
        let time = asked.double(property::TIME, 0).unwrap_or(0.0);
        instance::find(effect)?.changed(host, &c_text(&name), time)?;
    }
    Ok(sys::OK)
}
