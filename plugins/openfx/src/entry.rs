//! What the host calls.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::describe::{self, CONDITION, IDENTIFIER, SOURCE};
use crate::instance::{self, Occasion};
use crate::properties::Properties;
use crate::suites::{self, Failed, Host, Result};
use crate::sys::{self, action, property};
use crate::{engine, job, render};

static PLUGIN: sys::Plugin = sys::Plugin {
    api: c"OfxImageEffectPluginAPI".as_ptr(),
    api_version: 1,
    identifier: IDENTIFIER.as_ptr(),
    version_major: 0,
    version_minor: 1,
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
/// `host` must be null or valid as long as the plugin is loaded.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn OfxSetHost(host: *const sys::Host) -> sys::Status {
    suites::set_host(host.cast_mut());
    sys::OK
}

unsafe extern "C" fn set_host(host: *mut sys::Host) {
    suites::set_host(host);
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
            suites::load()?;
            return Ok(sys::OK);
        }
        action::UNLOAD => {
            instance::destroy_all();
            job::stop();
            engine::shutdown();
            suites::unload();
            return Ok(sys::OK);
        }
        _ => {}
    }
    let host = suites::host()?;
    let (asked, answer) = (Properties::of(&host, arguments), Properties::of(&host, answers));
    let done = |result: Result<()>| result.map(|()| sys::OK);
    match action {
        action::DESCRIBE => done(describe::effect(&host, effect)),
        action::DESCRIBE_IN_CONTEXT => done(describe::in_context(&host, effect, &asked.text(property::CONTEXT, 0)?)),
        action::CREATE_INSTANCE => done(instance::create(&host, effect)),
        action::DESTROY_INSTANCE => done(instance::destroy(effect)),
        action::INSTANCE_CHANGED => instance_changed(&host, effect, asked),
        action::SYNC_PRIVATE_DATA => {
            instance::find(effect)?.publish(&host, Occasion::Action);
            Ok(sys::OK)
        }
        action::RENDER => done(render::render(&host, effect, arguments)),
        action::IS_IDENTITY => is_identity(&host, effect, asked, answer),
        action::GET_REGION_OF_DEFINITION => region_of_definition(&host, effect, asked, answer),
        action::GET_REGIONS_OF_INTEREST => regions_of_interest(&host, effect, asked, answer),
        action::GET_FRAMES_NEEDED => frames_needed(effect, asked, answer),
        action::GET_CLIP_PREFERENCES => {
            // A still source becomes a moving picture, too.
            answer.set_int(property::FRAME_VARYING, 0, 1)?;
            Ok(sys::OK)
        }
        // Resolve takes the default reply to these for an error.
        action::BEGIN_INSTANCE_CHANGED
        | action::END_INSTANCE_CHANGED
        | action::BEGIN_SEQUENCE_RENDER
        | action::END_SEQUENCE_RENDER
        | action::PURGE_CACHES => Ok(sys::OK),
        _ => Ok(sys::REPLY_DEFAULT),
    }
}

fn instance_changed(host: &Host, effect: sys::Handle, asked: Properties) -> Result<sys::Status> {
    let user = asked.text(property::CHANGE_REASON, 0).is_ok_and(|reason| reason == "OfxChangeUserEdited");
    let parameter = asked.text(property::TYPE, 0).is_ok_and(|kind| kind == "OfxTypeParameter");
    // What the plugin sets itself comes back here, while it is still being set.
    if user && parameter {
        let (name, time) = (asked.text(property::NAME, 0)?, asked.double(property::TIME, 0).unwrap_or(0.0));
        instance::find(effect)?.changed(host, &suites::c_text(&name), time)?;
    }
    Ok(sys::OK)
}

/// Without a result the host may use the source itself, unless frames are to be read in a render.
fn is_identity(host: &Host, effect: sys::Handle, asked: Properties, answer: Properties) -> Result<sys::Status> {
    let instance = instance::find(effect)?;
    instance.resolve(&crate::parameters::Values::of(host, effect)?);
    if instance.generator || instance.clip().is_some() || instance.wanted_times().is_some() {
        return Ok(sys::REPLY_DEFAULT);
    }
    answer.set_text(property::NAME, 0, &SOURCE.to_string_lossy())?;
    answer.set_double(property::TIME, 0, asked.double(property::TIME, 0)?)?;
    Ok(sys::OK)
}

/// The result has the size of the source.
fn region_of_definition(
    host: &Host,
    effect: sys::Handle,
    asked: Properties,
    answer: Properties,
) -> Result<sys::Status> {
    if instance::find(effect)?.generator {
        return Ok(sys::REPLY_DEFAULT);
    }
    let Ok(region) = render::region(host, effect, asked.double(property::TIME, 0)?) else {
        return Ok(sys::REPLY_DEFAULT);
    };
    for (index, side) in [region.x1, region.y1, region.x2, region.y2].into_iter().enumerate() {
        answer.set_double(property::REGION_OF_DEFINITION, index as i32, side)?;
    }
    Ok(sys::OK)
}

/// The frames of the reference, as long as they are to be read.
fn frames_needed(effect: sys::Handle, asked: Properties, answer: Properties) -> Result<sys::Status> {
    let Some(times) = instance::find(effect)?.wanted_times() else { return Ok(sys::REPLY_DEFAULT) };
    let now = asked.double(property::TIME, 0)?;
    for (index, time) in std::iter::once(now).chain(times).enumerate() {
        // Each range is a pair of times.
        for end in [0, 1] {
            answer.set_double(c"OfxImageClipPropFrameRange_Source", index as i32 * 2 + end, time)?;
        }
    }
    Ok(sys::OK)
}

/// Whole frames of the inputs, as long as the reference is to be read, even where a host renders a part of the output.
fn regions_of_interest(host: &Host, effect: sys::Handle, asked: Properties, answer: Properties) -> Result<sys::Status> {
    let Some(times) = instance::find(effect)?.wanted_times() else { return Ok(sys::REPLY_DEFAULT) };
    let times: Vec<f64> = std::iter::once(asked.double(property::TIME, 0)?).chain(times).collect();
    for (input, name) in
        [(SOURCE, property::REGION_OF_INTEREST_SOURCE), (CONDITION, property::REGION_OF_INTEREST_CONDITION)]
    {
        // The answer is one for all times; an input that is not there or not connected has no region.
        let regions = times.iter().filter_map(|time| render::region_of(host, effect, input, *time).ok());
        let whole = regions.reduce(|a, b| sys::RectD {
            x1: a.x1.min(b.x1),
            y1: a.y1.min(b.y1),
            x2: a.x2.max(b.x2),
            y2: a.y2.max(b.y2),
        });
        let Some(whole) = whole else { continue };
        for (index, side) in [whole.x1, whole.y1, whole.x2, whole.y2].into_iter().enumerate() {
            answer.set_double(name, index as i32, side)?;
        }
    }
    Ok(sys::OK)
}
