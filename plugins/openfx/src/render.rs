//! Rendering: the finished clip's frame at its time, or the source as it is. Nothing here waits for the engine.

use std::ffi::CStr;

use crate::cache::Clip;
use crate::describe::{OUTPUT, SOURCE};
use crate::gather;
use crate::instance::{self, Instance, Occasion, aborted};
use crate::parameters::{Values, choice, name};
use crate::pixels::{Image, Rect};
use crate::properties::Properties;
use crate::scale;
use crate::suites::{Failed, Host, Result, check, entry};
use crate::sys::{self, property};

/// Fills the output's window.
pub fn render(host: &Host, effect: sys::Handle, arguments: sys::Handle) -> Result<()> {
    let arguments = Properties::of(host, arguments);
    let time = arguments.double(property::TIME, 0)?;
    let window = arguments.ints(property::RENDER_WINDOW).map(Rect::new);
    let scale = arguments.doubles(property::RENDER_SCALE).unwrap_or([1.0, 1.0]);
    let instance = instance::find(effect)?;
    let values = Values::of(host, effect)?;
    instance.resolve(&values);
    instance.gather(host, time)?;
    instance.publish(host, Occasion::Render);
    let (output, _) = gather::clip(host, effect, OUTPUT)?;
    let target = match Image::get(host, output, time) {
        Ok(target) => target,
        Err(_) if aborted(host, effect) => return Ok(()),
        Err(failed) => return Err(failed),
    };
    let bounds = target.layout.bounds;
    let window = match window {
        Ok(Some(window)) => window.intersect(&bounds),
        // An empty window is nothing to do; none at all means everything.
        Ok(None) => None,
        Err(_) => Some(bounds),
    };
    let Some(window) = window else { return Ok(()) };
    let Some(clip) = instance.clip() else {
        let source = gather::clip(host, effect, SOURCE).and_then(|(clip, _)| Image::get(host, clip, time)).ok();
        let source = source.as_ref().map(|source| &source.layout);
        target.layout.copy(source, &window, || aborted(host, effect));
        return Ok(());
    };
    let place = place(host, &instance, time, scale, &target);
    if place.intersect(&window) != Some(window) {
        target.layout.clear(&window);
    }
    let linear = gather::is_linear(host, values.int(name::COLOURS), target.layout.depth);
    let frame = clip.frame(index(host, &instance, &values, &clip, time));
    scale::paint(frame, &target.layout, &place, &window, linear, || aborted(host, effect));
    Ok(())
}

/// Where the picture lies in the output: where the source does, as the result has its size.
fn place(host: &Host, instance: &Instance, time: f64, scale: [f64; 2], target: &Image) -> Rect {
    if instance.generator {
        return target.layout.whole;
    }
    let aspect = target.pixel_aspect();
    let region = region(host, instance.effect.0, time).ok();
    region.and_then(|region| Rect::of_canonical(region, scale, aspect)).unwrap_or(target.layout.whole)
}

/// The source's region of definition.
pub fn region(host: &Host, effect: sys::Handle, time: f64) -> Result<sys::RectD> {
    region_of(host, effect, SOURCE, time)
}

/// An input's region of definition.
pub fn region_of(host: &Host, effect: sys::Handle, input: &CStr, time: f64) -> Result<sys::RectD> {
    let (clip, _) = gather::clip(host, effect, input)?;
    let (get, mut region) = (entry(host.effect.clip_get_region_of_definition)?, sys::RectD::default());
    // SAFETY: the clip is the host's.
    check(unsafe { get(clip, time, &mut region) })?;
    if region.x2 > region.x1 && region.y2 > region.y1 { Ok(region) } else { Err(Failed(sys::FAILED)) }
}

/// The frame of the clip that is shown at a time.
fn index(host: &Host, instance: &Instance, values: &Values, clip: &Clip, time: f64) -> usize {
    let effect = instance.effect.0;
    let (first, whole) = if instance.generator {
        let duration = effect_duration(host, effect).unwrap_or(0.0);
        (0.0, Some([0.0, duration - 1.0]))
    } else {
        let first = gather::reference_range(host, effect, values).map_or(0, |range| range[0]);
        (first.into(), gather::source_range(host, effect).map(|range| range.map(f64::from)))
    };
    let length = values.int(name::LENGTH);
    let last = (clip.count() - 1) as f64;
    if let (choice::LENGTH_STRETCH, Some([start, end])) = (length, whole.filter(|[start, end]| end > start)) {
        return at((time - start) / (end - start) * last, clip.count(), length);
    }
    at((time - first) / clip.spacing * values.double(name::SPEED), clip.count(), length)
}

fn effect_duration(host: &Host, effect: sys::Handle) -> Result<f64> {
    let (get, mut properties) = (entry(host.effect.get_property_set)?, std::ptr::null_mut());
    // SAFETY: the handle is the host's.
    check(unsafe { get(effect, &mut properties) })?;
    Properties::of(host, properties).double(property::EFFECT_DURATION, 0)
}

/// The frame at a position counted in frames from the clip's first.
fn at(position: f64, count: usize, length: i32) -> usize {
    let (position, count) = (if position.is_finite() { position.round() } else { 0.0 }, count as f64);
    let index = match length {
        choice::LENGTH_LOOP => position.rem_euclid(count),
        choice::LENGTH_PING_PONG if count > 1.0 => {
            let turn = 2.0 * (count - 1.0);
            let place = position.rem_euclid(turn);
            place.min(turn - place)
        }
        _ => position,
    };
    index.clamp(0.0, count - 1.0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_their_times() {
        let over = |length: i32| -> Vec<usize> { (-2..10).map(|time| at(time.into(), 4, length)).collect() };
        assert_eq!(over(0), [0, 0, 0, 1, 2, 3, 3, 3, 3, 3, 3, 3]);
        assert_eq!(over(choice::LENGTH_LOOP), [2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1]);
        assert_eq!(over(choice::LENGTH_PING_PONG), [2, 1, 0, 1, 2, 3, 2, 1, 0, 1, 2, 3]);
        assert_eq!(at(f64::NAN, 4, choice::LENGTH_LOOP), 0);
        assert_eq!(at(1e300, 4, choice::LENGTH_STRETCH), 3);
        assert_eq!(at(7.0, 1, choice::LENGTH_PING_PONG), 0);
    }
}
