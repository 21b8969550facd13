//! What hosts ask before they render: what is needed, how large the result is, and whether there is anything to do.

use std::ffi::CStr;

use crate::effect::describe::{CONDITION, SOURCE};
use crate::effect::gather;
use crate::effect::instance;
use crate::effect::values::Values;
use crate::ofx::properties::Properties;
use crate::ofx::suites::{Failed, Host, Result, check, entry};
use crate::ofx::sys::{self, property};

/// Where the source is shown, the host may use the source itself, unless frames are to be read in a render.
pub fn is_identity(host: &Host, effect: sys::Handle, asked: Properties, answer: Properties) -> Result<sys::Status> {
    let (instance, values) = (instance::find(effect)?, Values::of(host, effect)?);
    instance.resolve(host, &values);
    if instance.generator || !instance.shows_the_source(&values) {
        return Ok(sys::REPLY_DEFAULT);
    }
    answer.set_text(property::NAME, 0, &SOURCE.to_string_lossy())?;
    answer.set_double(property::TIME, 0, asked.double(property::TIME, 0)?)?;
    Ok(sys::OK)
}

/// The result has the size of the source.
pub fn region_of_definition(
    host: &Host,
    effect: sys::Handle,
    asked: Properties,
    answer: Properties,
) -> Result<sys::Status> {
    if instance::find(effect)?.generator {
        return Ok(sys::REPLY_DEFAULT);
    }
    let Ok(region) = region_of(host, effect, SOURCE, asked.double(property::TIME, 0)?) else {
        return Ok(sys::REPLY_DEFAULT);
    };
    for (index, side) in [region.x1, region.y1, region.x2, region.y2].into_iter().enumerate() {
        answer.set_double(property::REGION_OF_DEFINITION, index as i32, side)?;
    }
    Ok(sys::OK)
}

/// The frames of the reference, as long as they are to be read, in a host that has them.
pub fn frames_needed(host: &Host, effect: sys::Handle, asked: Properties, answer: Properties) -> Result<sys::Status> {
    let Some(times) = wanted_times(host, effect)?.filter(|_| host.temporal) else { return Ok(sys::REPLY_DEFAULT) };
    let now = asked.double(property::TIME, 0)?;
    for (index, time) in std::iter::once(now).chain(times).enumerate() {
        // Each range is a pair of times.
        for end in [0, 1] {
            answer.set_double(property::FRAME_RANGE_SOURCE, index as i32 * 2 + end, time)?;
        }
    }
    Ok(sys::OK)
}

/// The times of the source that the next render reads besides its own.
fn wanted_times(host: &Host, effect: sys::Handle) -> Result<Option<Vec<f64>>> {
    let (instance, values) = (instance::find(effect)?, Values::of(host, effect)?);
    Ok(instance.wanted_times().or_else(|| instance.times_to_make(host, &values)))
}

/// Whole frames of the inputs, as long as the reference is to be read, even where a host renders a part of the output.
pub fn regions_of_interest(
    host: &Host,
    effect: sys::Handle,
    asked: Properties,
    answer: Properties,
) -> Result<sys::Status> {
    let Some(times) = wanted_times(host, effect)? else { return Ok(sys::REPLY_DEFAULT) };
    let times: Vec<f64> = std::iter::once(asked.double(property::TIME, 0)?).chain(times).collect();
    for (input, name) in
        [(SOURCE, property::REGION_OF_INTEREST_SOURCE), (CONDITION, property::REGION_OF_INTEREST_CONDITION)]
    {
        // The answer is one for all times; an input that is not there or not connected has no region.
        let regions = times.iter().filter_map(|time| region_of(host, effect, input, *time).ok());
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

/// An input's region of definition.
pub fn region_of(host: &Host, effect: sys::Handle, input: &CStr, time: f64) -> Result<sys::RectD> {
    let (clip, _) = gather::clip(host, effect, input)?;
    let (get, mut region) = (entry(host.effect.clip_get_region_of_definition)?, sys::RectD::default());
    // SAFETY: the clip is the host's.
    check(unsafe { get(clip, time, &mut region) })?;
    if region.x2 > region.x1 && region.y2 > region.y1 { Ok(region) } else { Err(Failed(sys::FAILED)) }
}
