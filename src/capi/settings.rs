//! Settings of a job, with the frames and images that go with them.

use std::ptr;

use motionclone_onnx::model::config::ControlKind;

use super::boundary::{Failure, call, call_anywhere, check_size, initialise, pointer, read, text};
use super::frames::View;
use super::worker::Worker;
use super::{
    Alpha, Channels, EngineHandle, HostFrames, HostImage, HostSettings, ImageKind, OBJECTS, RowOrder, Sample, Status,
    Transfer, small,
};
use crate::media::frames::Frames;
use crate::settings::{Control, Settings};

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
        let defaults = &engine.manifest.defaults;
        let own = Settings::new(defaults, "");
        let value = HostSettings {
            struct_size,
            prompt: ptr::null(),
            negative_prompt: ptr::null(),
            blocks: ptr::null(),
            images: ptr::null(),
            image_count: 0,
            image_kind: ImageKind::Picture as u32,
            image_scale: defaults.control_scale,
            seed: own.seed,
            width: small(own.width),
            height: small(own.height),
            frames: small(own.frames),
            steps: small(own.steps),
            guidance_steps: small(own.guidance_steps),
            warm_up: small(own.warm_up),
            cool_up: small(own.cool_up),
            noise_step: small(own.noise_step),
            top_k: small(own.top_k),
            reserved: 0,
            guidance_scale: own.guidance_scale,
            motion_weight: own.motion_weight,
            cfg: own.cfg,
        };
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
    let mut settings = Settings::new(&engine.manifest.defaults, "");
    unsafe {
        settings.prompt = text(host.prompt, "prompt")?.unwrap_or_default().into();
        if let Some(negative) = text(host.negative_prompt, "negative_prompt")? {
            settings.negative_prompt = negative.into();
        }
        if let Some(blocks) = text(host.blocks, "blocks")? {
            settings.blocks = blocks.split(',').map(|block| block.trim().to_string()).collect();
        }
    }
    settings.seed = host.seed;
    for (to, from) in [
        (&mut settings.width, host.width),
        (&mut settings.height, host.height),
        (&mut settings.frames, host.frames),
        (&mut settings.steps, host.steps),
        (&mut settings.guidance_steps, host.guidance_steps),
        (&mut settings.warm_up, host.warm_up),
        (&mut settings.cool_up, host.cool_up),
        (&mut settings.noise_step, host.noise_step),
        (&mut settings.top_k, host.top_k),
    ] {
        *to = from as usize;
    }
    (settings.guidance_scale, settings.motion_weight, settings.cfg) =
        (host.guidance_scale, host.motion_weight, host.cfg);
    settings.control_scale = host.image_scale;
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
