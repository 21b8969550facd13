//! Settings of a job, with the frames and images that go with them.

use std::ptr;

use motionclone_onnx::model::config::ControlKind;

use super::boundary::{Failure, call, call_anywhere, check_size, elements, initialise, pointer, read};
use super::describe::{self, default_settings};
use super::frames::View;
use super::worker::Worker;
use super::{
    Alpha, Channels, EngineHandle, HostFrames, HostImage, HostSettings, OBJECTS, RowOrder, Sample, Status, Transfer,
};
use crate::media::frames::Frames;
use crate::settings::{Control, Model, Settings};

pub(super) fn default_frames() -> HostFrames {
    HostFrames {
        struct_size: size_of::<HostFrames>(),
        data: ptr::null_mut(),
        frame_data: ptr::null(),
        row_stride: 0,
        frame_stride: 0,
        count: 0,
        width: 0,
        height: 0,
        channels: Channels::Rgb as u32,
        sample: Sample::U8 as u32,
        row_order: RowOrder::TopDown as u32,
        alpha: Alpha::Straight as u32,
        transfer: Transfer::Srgb as u32,
    }
}

/// Fills frames with defaults: RGB of 8 bit in sRGB, rows from the top, no gaps, no memory, and no size.
///
/// `struct_size` is sizeof(motionclone_frames). Any thread.
///
/// INVALID_ARGUMENT: frames is NULL. INVALID_STRUCT_SIZE: struct_size is another one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_frames_init(frames: *mut HostFrames, struct_size: usize) -> Status {
    // SAFETY: the pointer is one to a structure of that size, says the header.
    call_anywhere(|| unsafe { initialise(frames, struct_size, "frames", default_frames()) })
}

pub(super) fn default_image() -> HostImage {
    HostImage { struct_size: size_of::<HostImage>(), pixels: ptr::null(), frame: 0, reserved: 0 }
}

/// Fills an image with defaults: no pixels, at frame 0.
///
/// `struct_size` is sizeof(motionclone_image). Any thread.
///
/// INVALID_ARGUMENT: image is NULL. INVALID_STRUCT_SIZE: struct_size is another one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_image_init(image: *mut HostImage, struct_size: usize) -> Status {
    // SAFETY: the pointer is one to a structure of that size, says the header.
    call_anywhere(|| unsafe { initialise(image, struct_size, "image", default_image()) })
}

/// Fills settings with the defaults of an engine's model; texts are NULL, and there are no images.
///
/// `struct_size` is sizeof(motionclone_settings). Any thread.
///
/// INVALID_ARGUMENT: settings is NULL. INVALID_STRUCT_SIZE: struct_size is another one. INVALID_HANDLE: engine is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_settings_init(
    settings: *mut HostSettings,
    struct_size: usize,
    engine: EngineHandle,
) -> Status {
    call(|| {
        pointer(settings, "settings")?;
        check_size::<HostSettings>(struct_size, "settings")?;
        let engine = OBJECTS.get::<Worker>(engine)?;
        // SAFETY: the pointer is one to a structure of that size, says the header.
        unsafe { initialise(settings, struct_size, "settings", default_settings(&engine)) }
    })
}

/// The host's settings as the engine takes them, checked against the model.
///
/// # Safety
/// All pointers in the structure must be null or as the header describes them.
pub(super) unsafe fn settings_of(engine: &Worker, host: *const HostSettings) -> Result<Settings, Failure> {
    // SAFETY: the caller's promise, here and below.
    let host = unsafe { read(host, "settings", default_settings(engine)) }?;
    let mut settings = unsafe { describe::take_settings(&host, &Model::from(&engine.manifest)) }?;
    let kind = match host.image_kind {
        0 => ControlKind::Rgb,
        1 => ControlKind::Scribble,
        other => return Err(Failure::new(Status::InvalidArgument, format!("image_kind {other}: no such kind"))),
    };
    if host.image_count > host.frames {
        let message = format!("{} images for {} frames", host.image_count, host.frames);
        return Err(Failure::new(Status::InvalidInput, message));
    }
    if host.image_count > 0 {
        let mut images: Vec<(Frames, usize)> = Vec::new();
        // SAFETY: the array has as many images as its count says.
        for image in unsafe { elements(host.images.cast_mut(), host.image_count as usize, "images") }? {
            // SAFETY: as above.
            let image = unsafe { read(image, "images", default_image()) }?;
            let pixels = View::new(&unsafe { read(image.pixels, "pixels of an image", default_frames()) }?)?;
            let frame = image.frame as usize;
            if pixels.count() != 1 {
                let message = format!("the image at frame {frame} has {} frames, not one", pixels.count());
                return Err(Failure::new(Status::InvalidInput, message));
            }
            if images.iter().any(|(_, other)| *other == frame) {
                return Err(Failure::new(Status::InvalidInput, format!("two images at frame {frame}")));
            }
            // SAFETY: the host promises memory as described.
            images.push((unsafe { pixels.read(0) }?, frame));
        }
        settings.control = Some(Control { kind, images });
    }
    settings.check(&engine.manifest)?;
    Ok(settings)
}
