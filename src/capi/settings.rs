//! Settings of a job, with the frames and images that go with them.

use std::ptr;

use motionclone_onnx::model::config::ControlKind;

use super::boundary::{Failure, call, call_anywhere, check_size, initialise, pointer, read};
use super::describe;
use super::frames::View;
use super::worker::Worker;
use super::{
    Alpha, Channels, EngineHandle, HostFrames, HostImage, HostSettings, OBJECTS, RowOrder, Sample, Status, Transfer,
};
use crate::media::frames::Frames;
use crate::settings::{Control, Model, Settings};

/// Fills frames with defaults: RGB of 8 bit in sRGB, rows from the top, no gaps, no memory, and no size.
///
/// `struct_size` is sizeof(motionclone_frames). Any thread.
///
/// INVALID_ARGUMENT: frames is NULL. INVALID_STRUCT_SIZE: struct_size is another one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_frames_init(frames: *mut HostFrames, struct_size: usize) -> Status {
    let value = HostFrames {
        struct_size,
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
    };
    // SAFETY: the pointer is one to a structure of that size, says the header.
    call_anywhere(|| unsafe { initialise(frames, struct_size, "frames", value) })
}

/// Fills an image with defaults: no pixels, at frame 0.
///
/// `struct_size` is sizeof(motionclone_image). Any thread.
///
/// INVALID_ARGUMENT: image is NULL. INVALID_STRUCT_SIZE: struct_size is another one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_image_init(image: *mut HostImage, struct_size: usize) -> Status {
    let value = HostImage { struct_size, pixels: ptr::null(), frame: 0, reserved: 0 };
    // SAFETY: the pointer is one to a structure of that size, says the header.
    call_anywhere(|| unsafe { initialise(image, struct_size, "image", value) })
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
        let own = Settings::new(&engine.manifest.defaults, "");
        let mut value = HostSettings { struct_size, ..describe::empty() };
        describe::give_settings(&mut value, &own);
        // SAFETY: the pointer is one to a structure of that size, says the header.
        unsafe { initialise(settings, struct_size, "settings", value) }
    })
}

/// The host's settings as the engine takes them, checked against the model.
///
/// # Safety
/// All pointers in the structure must be null or as the header describes them.
pub(super) unsafe fn settings_of(engine: &Worker, host: *const HostSettings) -> Result<Settings, Failure> {
    // SAFETY: the caller's promise, here and below.
    let host = unsafe { read(host, "settings") }?;
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
        pointer(host.images, "images")?;
        let mut images: Vec<(Frames, usize)> = Vec::new();
        for index in 0..host.image_count as usize {
            // SAFETY: the array has as many images as its count says.
            let image = unsafe { read(host.images.add(index), "images") }?;
            let pixels = View::new(&unsafe { read(image.pixels, "pixels of an image") }?)?;
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
