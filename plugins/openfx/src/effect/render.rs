//! Rendering: the finished clip's frame at its time, or the source as it is. Where there should be a clip and is none, the
//! render fails, and its picture says so, too, for hosts that do not look at what a render comes to.

use crate::clips::clip::Clip;
use crate::effect::describe::{OUTPUT, SOURCE};
use crate::effect::gather;
use crate::effect::instance::{self, Instance};
use crate::effect::make::Shown;
use crate::effect::parameters::{choice, name};
use crate::effect::publish::CallContext;
use crate::effect::queries::region_of;
use crate::effect::request::reference_file;
use crate::effect::scale;
use crate::effect::values::Values;
use crate::ofx::image::{Image, Rect};
use crate::ofx::properties::Properties;
use crate::ofx::suites::{Failed, Host, Result, check, entry};
use crate::ofx::sys::{self, property};
use crate::stop::Stop;

/// Width and colours of the stripes that stand for a clip that is not there.
const STRIPE: i32 = 16;
const STRIPES: [[f32; 4]; 2] = [[0.8, 0.0, 0.5, 1.0], [0.05, 0.05, 0.05, 1.0]];

/// Fills the output's window.
pub fn render(host: &Host, effect: sys::Handle, arguments: sys::Handle) -> Result<()> {
    let arguments = Properties::of(host, arguments);
    let time = arguments.double(property::TIME, 0)?;
    let window = arguments.ints(property::RENDER_WINDOW).map(Rect::new);
    let scale = arguments.doubles(property::RENDER_SCALE).unwrap_or([1.0, 1.0]);
    // A host that does not say what its renders are for has somebody who looks at them.
    let batch = host.background || arguments.int(property::INTERACTIVE_RENDER, 0) == Ok(0);
    let instance = instance::find(effect)?;
    let values = Values::of(host, effect)?;
    instance.resolve(host, &values);
    instance.gather(host, &values, time);
    let shown = instance.shown(host, &values, time, batch);
    if let Err(Stop::Failed(message)) = &shown {
        instance.fail_render(message);
    }
    instance.publish(host, CallContext::Render);
    let (output, _) = gather::clip(host, effect, OUTPUT)?;
    let target = match Image::get(host, output, time) {
        Ok(target) => target,
        Err(_) if instance.aborted(host) => return Ok(()),
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
    let clip = match shown {
        Ok(Shown::Clip(clip)) => clip,
        Ok(Shown::Source) => {
            let source = gather::clip(host, effect, SOURCE).and_then(|(clip, _)| Image::get(host, clip, time)).ok();
            let source = source.as_ref().map(|source| &source.layout);
            target.layout.copy(source, &window, || instance.aborted(host));
            return Ok(());
        }
        Err(stop) => {
            stripes(&target, &window);
            // The host has stopped this render itself, and does not look at it.
            let stopped = stop == Stop::Cancelled && instance.aborted(host);
            return if stopped { Ok(()) } else { Err(Failed(sys::FAILED)) };
        }
    };
    let place = place(host, &instance, time, scale, &target);
    if place.intersect(&window) != Some(window) {
        target.layout.clear(&window);
    }
    let (_, output) = gather::clip(host, effect, OUTPUT)?;
    let linear = gather::is_linear(host, output, values.int(name::COLOURS), target.layout.depth);
    let frame = clip.frame(index(host, &instance, &values, &clip, time));
    scale::paint(host, frame, &target.layout, &place, &window, linear, &|| instance.aborted(host));
    Ok(())
}

impl Instance {
    /// Shows an error of a render, once for all its frames.
    fn fail_render(&self, message: &str) {
        let mut state = self.state();
        if state.published.render_error.as_deref() != Some(message) {
            state.published.render_error = Some(message.into());
            state.fail(message.into());
        }
    }
}

/// A picture that nobody takes for footage.
fn stripes(target: &Image, window: &Rect) {
    for y in window.y1..window.y2 {
        let pixel = |x: i32| STRIPES[((x + y).div_euclid(STRIPE) & 1) as usize];
        let row: Vec<[f32; 4]> = (window.x1..window.x2).map(pixel).collect();
        // SAFETY: one thread alone is here.
        unsafe { target.layout.write(y, window.x1, &row) };
    }
}

/// Where the picture lies in the output: where the source does, as the result has its size.
fn place(host: &Host, instance: &Instance, time: f64, scale: [f64; 2], target: &Image) -> Rect {
    if instance.generator {
        return target.layout.whole;
    }
    let aspect = target.pixel_aspect();
    let region = region_of(host, instance.effect.0, SOURCE, time).ok();
    region.and_then(|region| Rect::of_canonical(region, scale, aspect)).unwrap_or(target.layout.whole)
}

/// The frame of the clip that is shown at a time.
fn index(host: &Host, instance: &Instance, values: &Values, clip: &Clip, time: f64) -> usize {
    let effect = instance.effect.0;
    let (first, whole) = if instance.generator {
        let duration = effect_duration(host, effect).unwrap_or(0.0);
        (0.0, Some([0.0, duration - 1.0]))
    } else {
        let whole = gather::source_range(host, effect);
        // The frames of a file are not those of the source: its clip begins with the source.
        let of_a_file = reference_file(values).is_some();
        let reference = if of_a_file { whole } else { gather::reference_range(host, effect, values) };
        (reference.map_or(0, |range| range[0]).into(), whole.map(|range| range.map(f64::from)))
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
