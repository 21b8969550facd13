//! What a host cannot reach: panics, and the reading and writing of frames in every layout.

use std::ffi::CStr;
use std::ops::ControlFlow;
use std::path::Path;
use std::ptr;

use half::f16;
use motionclone_onnx::checkpoint::{ImportOptions, import};
use motionclone_onnx::manifest::Manifest;

use super::boundary::{Failure, Structure, call, elements, give_structure, initialise, read};
use super::engine::STOP_TIMEOUT;
use super::frames::View;
use super::worker::{Job, Log, Work, Worker};
use super::*;
use crate::bundle::Bundle;
use crate::engine::{Engine, EngineOptions};
use crate::media::frames::Frames;
use crate::runtime::Device;
use crate::settings::Settings;

/// The library's functions have the types that hosts in Rust call them by.
const _: motionclone_abi::Functions<Status> = motionclone_abi::Functions {
    version: motionclone_version,
    abi_version: motionclone_abi_version,
    status_text: motionclone_status_text,
    last_error: motionclone_last_error,
    shutdown: motionclone_shutdown,
    engine_options_init: motionclone_engine_options_init,
    device_init: motionclone_device_init,
    devices: motionclone_devices,
    engine_create: motionclone_engine_create,
    engine_open: motionclone_engine_open,
    engine_wait: motionclone_engine_wait,
    engine_destroy: motionclone_engine_destroy,
    engine_device: motionclone_engine_device,
    frames_init: motionclone_frames_init,
    image_init: motionclone_image_init,
    settings_init: motionclone_settings_init,
    setting_count: motionclone_setting_count,
    setting_info_init: motionclone_setting_info_init,
    setting_describe: motionclone_setting_describe,
    settings_set_number: motionclone_settings_set_number,
    settings_set_text: motionclone_settings_set_text,
    settings_get_text: motionclone_settings_get_text,
    job_extract: motionclone_job_extract,
    job_clone: motionclone_job_clone,
    job_clone_motion: motionclone_job_clone_motion,
    progress_init: motionclone_progress_init,
    job_progress: motionclone_job_progress,
    job_wait: motionclone_job_wait,
    job_cancel: motionclone_job_cancel,
    job_preview: motionclone_job_preview,
    job_frames: motionclone_job_frames,
    job_motion: motionclone_job_motion,
    job_error: motionclone_job_error,
    job_destroy: motionclone_job_destroy,
    motion_load: motionclone_motion_load,
    motion_save: motionclone_motion_save,
    motion_info_init: motionclone_motion_info_init,
    motion_info_get: motionclone_motion_info_get,
    motion_describe: motionclone_motion_describe,
    motion_destroy: motionclone_motion_destroy,
};

fn host_frames() -> HostFrames {
    let mut frames = std::mem::MaybeUninit::uninit();
    // SAFETY: the function writes a whole structure.
    unsafe {
        assert_eq!(motionclone_frames_init(frames.as_mut_ptr(), size_of::<HostFrames>()), Status::Ok);
        frames.assume_init()
    }
}

#[test]
fn a_panic_in_a_call_is_an_internal_error() {
    assert_eq!(call(|| panic!("planted {}", 1)), Status::Internal);
    // SAFETY: the text lives until the next failure.
    let text = unsafe { CStr::from_ptr(motionclone_last_error()) };
    assert_eq!(text, c"a bug in motionclone: planted 1");
    assert_eq!(call(|| Ok(())), Status::Ok);
}

fn panics_where_prompted(engine: &mut Engine, work: Work, job: &Job, log: &Log) -> Result<(), Failure> {
    if let Work::Extract(_, settings) = &work
        && settings.prompt == "panic"
    {
        panic!("planted by a test");
    }
    worker::take(engine, work, job, log)
}

#[test]
fn an_engine_works_on_after_a_panic_in_a_job() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/checkpoints");
    let options = ImportOptions {
        base: checkpoints.join("StableDiffusion"),
        motion_module: Some(checkpoints.join("v3_sd15_mm.ckpt")),
        model_config: Some(checkpoints.join("model_config.json")),
        out: folder.path().join("bundle"),
        ..Default::default()
    };
    import(&options, &mut |_| ControlFlow::Continue(())).unwrap();
    let own = EngineOptions { device: Device::Cpu, ..Default::default() };
    let bundle = Bundle::open(&options.out).unwrap();
    let settings = Settings { width: 64, height: 64, frames: 2, ..Settings::new(&bundle.manifest.defaults, "") };
    let settings = Settings { top_k: 1, ..settings };
    let open = move |_: &Log| Ok(Engine::with_bundle(bundle, &own)?);
    let manifest = Manifest::read(&options.out).unwrap();
    let worker = Worker::start_with(manifest, Log::new(None, ptr::null_mut()), open, panics_where_prompted).unwrap();
    let clip = Frames { width: 64, height: 64, data: (0..2 * 64 * 64 * 3).map(|i| (i % 251) as u8).collect() };
    let prompted = Settings { prompt: "panic".into(), ..settings.clone() };
    let failure = worker.enqueue(Work::Extract(clip.clone(), prompted)).unwrap().wait(None).unwrap().unwrap_err();
    assert_eq!(failure.status, Status::Internal);
    assert_eq!(failure.text, "a bug in motionclone: planted by a test");
    let job = worker.enqueue(Work::Extract(clip, settings)).unwrap();
    job.wait(None).unwrap().unwrap();
    assert!(job.status().motion.is_some());
    assert!(worker.stop(Instant::now() + STOP_TIMEOUT));
}

/// Every value of a byte in every channel.
fn ramps() -> Frames {
    let (width, height) = (16, 16);
    let data = (0..2 * width * height).flat_map(|i| [i as u8, (i * 7) as u8, 255 - i as u8]).collect();
    Frames { width, height, data }
}

#[test]
fn frames_survive_every_layout() {
    let frames = ramps();
    for case in 0..4 * 4 * 2 * 2 * 2 * 3 {
        let mut host = host_frames();
        (host.count, host.width, host.height) = (2, 16, 16);
        (host.channels, host.sample) = (case % 4, case / 4 % 4);
        (host.row_order, host.alpha, host.transfer) = (case / 16 % 2, case / 32 % 2, case / 64 % 2);
        let samples = if host.channels >= Channels::Rgba as u32 { 4 } else { 3 };
        let bytes = [1, 2, 2, 4][host.sample as usize];
        let row = 16 * samples * bytes;
        // Without gaps, with gaps, and backwards with gaps.
        let (row_step, frame_step, first) = match case / 128 {
            0 => (row, 16 * row, 0),
            1 => (row + 3, 16 * (row + 3) + 1, 0),
            _ => (row + 3, 16 * (row + 3) + 1, 16 * (row + 3) + 1 + 15 * (row + 3)),
        };
        if case / 128 > 0 {
            let sign = if case / 128 == 1 { 1 } else { -1 };
            (host.row_stride, host.frame_stride) = (sign * row_step as i64, sign * frame_step as i64);
        }
        let mut memory = vec![0x5a_u8; 2 * frame_step + 64];
        host.data = memory[first..].as_mut_ptr().cast();
        let view = View::new(&host).unwrap();
        // SAFETY: the memory is as described.
        let read: Vec<Frames> = unsafe {
            view.write(&frames).unwrap();
            (0..2).map(|index| view.read(index).unwrap()).collect()
        };
        let written = memory.iter().filter(|byte| **byte != 0x5a).count();
        assert!(written <= 2 * 16 * row, "case {case}: gaps are left alone");
        assert!(memory[2 * frame_step..].iter().all(|byte| *byte == 0x5a), "case {case}");
        for (index, frame) in read.iter().enumerate() {
            let far = frame.data.iter().zip(frames.frame(index)).map(|(a, b)| a.abs_diff(*b)).max();
            // Eight bits of linear light are too few for dark colours.
            let allowed = if host.sample == Sample::U8 as u32 && host.transfer == 1 { 7 } else { 0 };
            assert!(far <= Some(allowed), "case {case}: {far:?}");
        }
    }
}

#[test]
fn pixels_mean_what_they_say() {
    let read = |host: &HostFrames, pixel: &[u8]| {
        let mut pixel = pixel.to_vec();
        let host = HostFrames { data: pixel.as_mut_ptr().cast(), count: 1, width: 1, height: 1, ..*host };
        // SAFETY: the memory is one pixel, as described.
        unsafe { View::new(&host).unwrap().read(0).unwrap() }.data
    };
    let floats = |values: [f32; 4]| values.iter().flat_map(|value| value.to_ne_bytes()).collect::<Vec<u8>>();
    let rgba = HostFrames { channels: Channels::Rgba as u32, ..host_frames() };
    assert_eq!(read(&rgba, &[10, 20, 30, 7]), [10, 20, 30]);
    let bgra = HostFrames { channels: Channels::Bgra as u32, ..rgba };
    assert_eq!(read(&bgra, &[10, 20, 30, 7]), [30, 20, 10]);
    let premultiplied = HostFrames { alpha: Alpha::Premultiplied as u32, ..rgba };
    assert_eq!(read(&premultiplied, &[10, 64, 128, 128]), [20, 128, 255]);
    assert_eq!(read(&premultiplied, &[10, 20, 30, 0]), [0, 0, 0]);
    let float = HostFrames { sample: Sample::F32 as u32, ..rgba };
    assert_eq!(read(&float, &floats([0.5, -3.0, 9.0, 0.1])), [128, 0, 255]);
    assert_eq!(read(&float, &floats([f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.0])), [0, 255, 0]);
    // Half of the light is 188 of 255 in sRGB.
    let linear = HostFrames { transfer: Transfer::Linear as u32, ..float };
    assert_eq!(read(&linear, &floats([0.5, 0.0, 1.0, 1.0])), [188, 0, 255]);
    let both = HostFrames { alpha: Alpha::Premultiplied as u32, ..linear };
    assert_eq!(read(&both, &floats([0.25, 0.0, 0.5, 0.5])), [188, 0, 255]);
    let half = HostFrames { sample: Sample::F16 as u32, ..rgba };
    let halves: Vec<u8> = [0.5, 1.0, 0.0, 1.0].iter().flat_map(|v| f16::from_f32(*v).to_ne_bytes()).collect();
    assert_eq!(read(&half, &halves), [128, 255, 0]);
}

/// What a structure looks like when a later version has added fields.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
struct Grown {
    struct_size: usize,
    first: u64,
    added: u64,
}

// SAFETY: it begins with its size and holds numbers.
unsafe impl Structure for Grown {
    const FIRST: usize = 16;
}

#[test]
fn structures_of_older_hosts_are_taken_as_far_as_they_go() {
    let defaults = Grown { struct_size: 24, first: 1, added: 2 };
    // An array of three of the first version, with something of the host's behind it.
    let mut memory: [u64; 7] = [16, 10, 16, 11, 16, 12, 0x5a5a];
    let array = memory.as_mut_ptr().cast::<Grown>();
    // SAFETY: the memory is as described, here and below.
    unsafe {
        for (index, element) in elements(array, 3, "grown").unwrap().into_iter().enumerate() {
            let read = read(element, "grown", defaults).unwrap();
            assert_eq!(read, Grown { struct_size: 16, first: 10 + index as u64, added: 2 });
            give_structure(element, "grown", Grown { first: 20 + index as u64, ..defaults }).unwrap();
        }
        assert_eq!(memory, [16, 20, 16, 21, 16, 22, 0x5a5a]);
        initialise(memory.as_mut_ptr().add(4).cast(), 16, "grown", defaults).unwrap();
        assert_eq!(memory, [16, 20, 16, 21, 16, 1, 0x5a5a]);
        let mut whole = Grown { struct_size: 24, first: 3, added: 4 };
        assert_eq!(read(&whole, "grown", defaults).unwrap(), whole);
        for (size, why) in [(32, "later version"), (8, "_init"), (0, "_init"), (20, "_init")] {
            whole.struct_size = size;
            let refused = read(&whole, "grown", defaults).unwrap_err();
            assert_eq!(refused.status, Status::InvalidStructSize);
            assert!(refused.text.contains(why) && refused.text.contains(&size.to_string()), "{}", refused.text);
        }
        memory[2] = 24;
        let refused = elements(memory.as_mut_ptr().cast::<Grown>(), 3, "grown").unwrap_err();
        assert_eq!(refused.status, Status::InvalidStructSize);
    }
}
