//! Reading the reference's frames where the host allows it: when Generate is pressed, else while it renders.

use std::ffi::CStr;
use std::sync::Arc;

use crate::effect::describe::SOURCE;
use crate::effect::parameters::{choice, name};
use crate::effect::values::Values;
use crate::ofx::image::{Depth, Image};
use crate::ofx::properties::Properties;
use crate::ofx::suites::{Host, Result, check, entry};
use crate::ofx::sys::{self, property};
use crate::picture::Picture;
use crate::reference::sample_indices;
use crate::request::{Request, Source};

/// Ranges longer than this are a host's way to say that there is no end.
const MAX_FRAMES: f64 = 1e7;

/// A clip of an instance with its properties.
pub fn clip<'a>(host: &'a Host, effect: sys::Handle, name: &CStr) -> Result<(sys::Handle, Properties<'a>)> {
    let (mut clip, mut properties) = (std::ptr::null_mut(), std::ptr::null_mut());
    let get = entry(host.effect.clip_get_handle)?;
    // SAFETY: the effect is the host's, here and below.
    check(unsafe { get(effect, name.as_ptr(), &mut clip, &mut properties) })?;
    if properties.is_null() {
        let get = entry(host.effect.clip_get_property_set)?;
        // SAFETY: as above.
        check(unsafe { get(clip, &mut properties) })?;
    }
    Ok((clip, Properties::of(host, properties)))
}

/// Whether an input has something to show.
pub fn is_connected(properties: Properties) -> bool {
    properties.int(property::CLIP_CONNECTED, 0).unwrap_or(0) != 0
}

/// A clip's picture at a time, if the host hands it out.
pub fn picture(host: &Host, clip: sys::Handle, properties: Properties, time: f64, colours: i32) -> Option<Picture> {
    let image = Image::get(host, clip, time).ok()?;
    Some(image.layout.picture(is_linear(host, properties, colours, image.layout.depth)))
}

/// Whether a clip's pixels are proportional to light: as the user says, else as the host says of the clip, else as such
/// hosts usually work.
pub fn is_linear(host: &Host, clip: Properties, colours: i32, depth: Depth) -> bool {
    match colours {
        choice::COLOURS_LINEAR => true,
        choice::COLOURS_AUTOMATIC => {
            let named = clip.text(property::CLIP_COLOURSPACE, 0).ok().filter(|name| !name.is_empty());
            match named {
                Some(name) => {
                    ["lin_", "scene_linear", "ACEScg", "ACES2065"].iter().any(|begin| name.starts_with(begin))
                }
                None => host.works_in_light() && matches!(depth, Depth::Half | Depth::Float),
            }
        }
        _ => false,
    }
}

/// First and last frame of the source.
pub fn source_range(host: &Host, effect: sys::Handle) -> Option<[i32; 2]> {
    let (_, properties) = clip(host, effect, SOURCE).ok()?;
    let [first, last] = properties.doubles(property::FRAME_RANGE).ok()?;
    let sound = first.abs() < MAX_FRAMES && last.abs() < MAX_FRAMES && first <= last;
    sound.then(|| [first.round() as i32, last.round() as i32])
}

/// First and last frame of the reference, as the parameters say.
pub fn reference_range(host: &Host, effect: sys::Handle, values: &Values) -> Option<[i32; 2]> {
    if values.switch(name::WHOLE) {
        source_range(host, effect)
    } else {
        Some([values.int(name::FIRST), values.int(name::LAST)])
    }
}

/// A clone that waits for its reference's frames.
pub struct Gathering {
    request: Request,
    /// Times of the reference's frames, each once, with what was read.
    frames: Vec<(f64, Option<Arc<Picture>>)>,
    /// Which of them each frame of the clip is.
    order: Vec<usize>,
}

impl Gathering {
    /// A plan of what to read; `request` has no frames yet.
    ///
    /// # Errors
    /// When the range has no two frames.
    pub fn plan(request: Request, range: Option<[i32; 2]>) -> Result<Self, String> {
        let [first, last] = range.ok_or("The source does not say how long it is: choose the first and last frame.")?;
        if last <= first {
            return Err(format!("The reference goes from frame {first} to {last}; a motion needs two or more."));
        }
        let indices = sample_indices((last - first) as usize + 1, request.settings.frames as usize);
        let mut unique = indices.clone();
        unique.dedup();
        let order = indices.iter().filter_map(|index| unique.iter().position(|at| at == index)).collect();
        let frames = unique.iter().map(|index| (f64::from(first) + *index as f64, None)).collect();
        Ok(Self { request, frames, order })
    }

    /// How many frames are there, and how many there should be.
    pub fn progress(&self) -> (usize, usize) {
        (self.frames.iter().filter(|(_, picture)| picture.is_some()).count(), self.frames.len())
    }

    /// Times of all frames.
    pub fn times(&self) -> impl Iterator<Item = f64> + '_ {
        self.frames.iter().map(|(time, _)| *time)
    }

    /// Reads what is missing, as far as the host lets it and `continue_`, which is told the share of 0 to 1. Without
    /// access to other times, that is the frame of `time` at best. False when it was stopped.
    pub fn read(
        &mut self,
        host: &Host,
        effect: sys::Handle,
        time: Option<f64>,
        colours: i32,
        mut continue_: impl FnMut(f64) -> bool,
    ) -> bool {
        let Ok((clip, properties)) = clip(host, effect, SOURCE) else { return true };
        let count = self.frames.len();
        for (index, (at, picture)) in self.frames.iter_mut().enumerate() {
            let reachable = host.temporal || time.is_none_or(|time| (time - *at).abs() < 0.5);
            if picture.is_none() && reachable {
                *picture = self::picture(host, clip, properties, *at, colours).map(Arc::new);
            }
            if !continue_((index + 1) as f64 / count as f64) {
                return false;
            }
        }
        true
    }

    /// Whether there is enough to begin: all, or most where the host could have handed out all, and failed for some.
    pub fn is_enough(&self, host: &Host) -> bool {
        let (there, all) = self.progress();
        there == all || (host.temporal && there >= 2 && 2 * there >= all)
    }

    /// The request with its frames. The nearest one stands in for a frame that the host did not hand out, as long as
    /// there is any.
    ///
    /// # Errors
    /// When all frames are the same picture: there is nothing to clone, and most likely the host hands out the frame at
    /// hand whatever it is asked for.
    pub fn finish(self) -> Result<Request, String> {
        let mut pictures = self.frames.iter().filter_map(|(_, picture)| picture.as_ref());
        let first = pictures.next();
        if first.is_some_and(|first| pictures.all(|picture| picture == first)) {
            let (there, _) = self.progress();
            return Err(format!(
                "All {there} frames of the reference are the same picture, so there is no motion: either the source \
                 stands still, or the host hands out the same frame for every time. Choose the clip's file as \
                 Reference file."
            ));
        }
        let size = self.frames.iter().find_map(|(_, picture)| picture.clone());
        let nearest = |index: usize| {
            let there = self.frames.iter().enumerate().filter_map(|(at, (_, picture))| Some((at, picture.clone()?)));
            there.min_by_key(|(at, _)| at.abs_diff(index)).map(|(_, picture)| picture)
        };
        let frames = self.order.iter().filter_map(|index| {
            let (picture, size) = (nearest(*index)?, size.as_ref()?);
            let same = (picture.width, picture.height) == (size.width, size.height);
            Some(if same { picture } else { Arc::new(picture.resized(size.width, size.height)) })
        });
        Ok(Request { source: Source::Frames(frames.collect()), ..self.request })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::tests::request;

    #[test]
    fn neighbours_stand_in_for_missing_frames() {
        let mut gathering = Gathering::plan(request(5), Some([10, 12])).unwrap();
        assert_eq!(gathering.times().collect::<Vec<_>>(), [10.0, 11.0, 12.0]);
        gathering.frames[2].1 = Some(Arc::new(Picture { width: 1, height: 1, data: vec![3; 3] }));
        gathering.frames[0].1 = Some(Arc::new(Picture { width: 2, height: 1, data: vec![9; 6] }));
        assert_eq!(gathering.progress(), (2, 3));
        let Source::Frames(frames) = gathering.finish().unwrap().source else { panic!("frames") };
        assert!(frames.iter().all(|frame| (frame.width, frame.height) == (2, 1)));
        // Frames 0, 0, 1, 1, 2 of the range.
        assert_eq!(frames.iter().map(|frame| frame.data[0]).collect::<Vec<_>>(), [9, 9, 9, 9, 3]);
    }

    #[test]
    fn a_motion_needs_two_frames() {
        for range in [None, Some([3, 3]), Some([5, 2])] {
            assert!(Gathering::plan(request(4), range).is_err());
        }
    }

    #[test]
    fn a_frame_that_never_changes_is_no_motion() {
        let picture = |value: u8| Some(Arc::new(Picture { width: 1, height: 1, data: vec![value; 3] }));
        for (values, sound) in [([3, 3, 3], false), ([3, 3, 4], true)] {
            let mut gathering = Gathering::plan(request(3), Some([0, 2])).unwrap();
            gathering.frames.iter_mut().zip(values).for_each(|((_, frame), value)| *frame = picture(value));
            assert_eq!(gathering.finish().is_ok(), sound);
        }
    }
}
