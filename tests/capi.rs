//! The C library from a host's side: results, wrong arguments, jobs in order, logs.

mod host;

use std::collections::BTreeSet;
use std::ffi::{CStr, c_char, c_void};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use host::*;
use motionclone::Cancel;
use motionclone::bundle::Bundle;
use motionclone::capi::*;
use motionclone::job::Event;
use motionclone::media::frames::Frames;
use motionclone::media::sampling::sample_indices;
use motionclone::motion::{Motion, MotionInfo, SparseAttention, guided_maps};
use motionclone::onnx::manifest::Manifest;
use motionclone::onnx::model::config::ControlKind;
use motionclone::runtime::Device;
use motionclone::settings::{Control, Settings};
use motionclone::{Engine, EngineOptions};

// Every call here gives pointers to living values, or null ones on purpose.

fn rust_engine() -> Engine {
    Engine::open(bundle(), &EngineOptions { device: Device::Cpu, ..Default::default() }).unwrap()
}

/// Those of [`settings`].
fn rust_settings(manifest: &Manifest) -> Settings {
    Settings {
        width: 64,
        height: 64,
        frames: 4,
        steps: 2,
        guidance_steps: 1,
        warm_up: 0,
        cool_up: 0,
        ..Settings::new(&manifest.defaults, "ground")
    }
}

/// What the engine makes without the C library.
fn expected(settings: &Settings, engine: &mut Engine, clip: &Frames) -> Frames {
    let indices = sample_indices(clip.count(), settings.frames);
    let data = indices.into_iter().flat_map(|index| clip.frame(index)).copied().collect();
    let sampled = Frames { data, ..*clip }.resize_align_corners(settings.width, settings.height);
    let (mut watch, cancel) = (|_: Event| (), Cancel::default());
    let motion = engine.extract(&sampled, settings, &mut watch, &cancel).unwrap();
    engine.clone_motion(&motion, settings, &mut watch, &cancel).unwrap()
}

#[test]
fn a_clone_is_that_of_the_engine() {
    let mut reference = clip(7, 80, 48);
    let engine = engine();
    let settings = settings(engine);
    let mut job = start(engine, &mut reference, &settings);
    wait(job);
    let mut rust = rust_engine();
    let wanted = expected(&rust_settings(rust.manifest()), &mut rust, &reference);
    assert_eq!(result(job), wanted);

    // The same frames upside down in memory, padded, blue first, 16 bits: the same clip.
    let (width, height, count) = (reference.width, reference.height, reference.count());
    let row = width * 4 + 5;
    let mut memory = vec![0xa5a5_u16; row * height * count];
    for (i, frame) in reference.iter().enumerate() {
        for (at, pixel) in frame.chunks_exact(3).enumerate() {
            let (x, y) = (at % width, height - 1 - at / width);
            let place = i * row * height + y * row + x * 4;
            for (channel, value) in [pixel[2], pixel[1], pixel[0]].into_iter().enumerate() {
                memory[place + channel] = u16::from(value) * 257;
            }
        }
    }
    let mut turned = described(&mut reference);
    (turned.channels, turned.sample) = (Channels::Bgra as u32, Sample::U16 as u32);
    (turned.row_stride, turned.frame_stride) = (-2 * row as i64, (2 * row * height) as i64);
    turned.data = memory[row * (height - 1)..].as_mut_ptr().cast();
    let mut again = 0;
    ok(unsafe { motionclone_job_clone(engine, &turned, &settings, &mut again) });
    wait(again);
    assert_eq!(result(again), wanted);

    // Frame by frame, and a preview at an eighth of the size.
    let mut pieces: Vec<Vec<u8>> = (0..4).map(|_| vec![0; 64 * 64 * 3]).collect();
    let pointers: Vec<*mut c_void> = pieces.iter_mut().map(|piece| piece.as_mut_ptr().cast()).collect();
    let mut place = frames();
    (place.count, place.width, place.height, place.frame_data) = (4, 64, 64, pointers.as_ptr());
    ok(unsafe { motionclone_job_frames(job, &mut place) });
    pieces.iter().zip(wanted.iter()).for_each(|(piece, frame)| assert_eq!(piece, frame));
    let good = HostFrames { count: 4, width: 64, height: 64, ..described(&mut reference) };
    for wrong in [HostFrames { count: 3, ..good }, HostFrames { width: 32, ..good }] {
        assert_eq!(unsafe { motionclone_job_frames(job, &mut { wrong }) }, Status::BufferSize);
        assert_eq!(unsafe { motionclone_job_preview(job, &mut { wrong }) }, Status::BufferSize);
    }
    let mut preview = frames();
    ok(unsafe { motionclone_job_preview(job, &mut preview) });
    assert_eq!((preview.count, preview.width, preview.height), (4, 8, 8));
    let stood = standing(job);
    assert_eq!((stood.state, stood.stage, stood.previews), (JobState::Done as u32, JobStage::Decode as u32, 2));

    ok(unsafe { motionclone_job_destroy(&mut job) });
    ok(unsafe { motionclone_job_destroy(&mut again) });
    let mut engine = engine;
    ok(unsafe { motionclone_engine_destroy(&mut engine) });
    assert_eq!((job, engine), (0, 0));
}

#[test]
fn a_clone_with_a_picture_is_that_of_the_engine() {
    let (mut reference, mut picture) = (clip(4, 64, 64), clip(1, 90, 70));
    let engine = engine();
    let pixels = described(&mut picture);
    let images = [HostImage { pixels: &pixels, frame: 2, ..image() }];
    let mut settings = settings(engine);
    (settings.images, settings.image_count) = (images.as_ptr(), 1);
    let job = start(engine, &mut reference, &settings);
    wait(job);
    let mut rust = rust_engine();
    let control = Control { kind: ControlKind::Rgb, images: vec![(picture, 2)] };
    let own = Settings { control: Some(control), ..rust_settings(rust.manifest()) };
    assert_eq!(result(job), expected(&own, &mut rust, &reference));
}

#[test]
fn a_motion_is_kept_and_cloned() {
    let folder = tempfile::tempdir().unwrap();
    let file = c_path(&folder.path().join("motion.safetensors"));
    let mut reference = clip(4, 64, 64);
    let mut engine = engine();
    let settings = settings(engine);
    let (mut whole, mut extraction) = (start(engine, &mut reference, &settings), 0);
    ok(unsafe { motionclone_job_extract(engine, &described(&mut reference), &settings, &mut extraction) });
    wait(extraction);
    // Jobs run in the order in which they were started.
    assert_eq!(standing(whole).state, JobState::Done as u32);
    let mut none = frames();
    assert_eq!(unsafe { motionclone_job_frames(extraction, &mut none) }, Status::NotReady);

    let (mut motion, mut loaded) = (0, 0);
    ok(unsafe { motionclone_job_motion(extraction, &mut motion) });
    ok(unsafe { motionclone_motion_save(motion, file.as_ptr()) });
    ok(unsafe { motionclone_motion_load(file.as_ptr(), &mut loaded) });
    let mut info = motion_info();
    ok(unsafe { motionclone_motion_info_get(loaded, &mut info) });
    assert_eq!((info.width, info.height, info.frames, info.image_count, info.seed), (64, 64, 4, 0, 2025));
    let mut needed = 0;
    ok(unsafe { motionclone_motion_describe(loaded, null_mut(), 0, &mut needed) });
    let mut text = vec![0_u8; needed];
    ok(unsafe { motionclone_motion_describe(loaded, text.as_mut_ptr().cast(), needed, null_mut()) });
    let text = CStr::from_bytes_with_nul(&text).unwrap().to_str().unwrap();
    assert!(serde_json::from_str::<serde_json::Value>(text).unwrap()["fingerprint"].is_string(), "{text}");
    let short =
        unsafe { motionclone_motion_describe(loaded, vec![0_u8; needed].as_mut_ptr().cast(), needed - 1, null_mut()) };
    assert_eq!(short, Status::BufferSize);

    let mut cloned = 0;
    ok(unsafe { motionclone_job_clone_motion(engine, loaded, &settings, &mut cloned) });
    ok(unsafe { motionclone_motion_destroy(&mut loaded) });
    wait(cloned);
    assert_eq!(result(cloned), result(whole));
    let other = HostSettings { width: 128, ..settings };
    assert_eq!(unsafe { motionclone_job_clone_motion(engine, motion, &other, &mut cloned) }, Status::InvalidInput);
    assert!(last_error().contains("size 64x64"), "{}", last_error());

    // Results outlive the engine, and an engine that goes takes its jobs along.
    let mut waiting: Vec<JobHandle> = (0..3).map(|_| start(engine, &mut reference, &settings)).collect();
    ok(unsafe { motionclone_engine_destroy(&mut engine) });
    for job in &mut waiting {
        assert_eq!(unsafe { motionclone_job_wait(*job, 0) }, Status::Cancelled);
        assert_eq!(standing(*job).state, JobState::Cancelled as u32);
        ok(unsafe { motionclone_job_destroy(job) });
    }
    assert_eq!(result(cloned), result(whole));
    for job in [&mut whole, &mut extraction, &mut cloned] {
        ok(unsafe { motionclone_job_destroy(job) });
    }
    ok(unsafe { motionclone_motion_info_get(motion, &mut info) });
    ok(unsafe { motionclone_motion_destroy(&mut motion) });
}

/// What the log function below is to do, and what came of it.
#[derive(Default)]
struct Heard {
    job: AtomicU64,
    warnings: AtomicU32,
    statuses: [AtomicU32; 3],
}

unsafe extern "C" fn hear(level: u32, message: *const c_char, user_data: *mut c_void) {
    let heard = unsafe { &*user_data.cast::<Heard>() };
    let message = unsafe { CStr::from_ptr(message) }.to_str().unwrap();
    if level != LogLevel::Warning as u32 {
        return;
    }
    assert!(message.contains("the prompt is too long"), "{message}");
    heard.warnings.fetch_add(1, Ordering::SeqCst);
    let mut engine = u64::MAX;
    let statuses = unsafe {
        [
            motionclone_job_wait(heard.job.load(Ordering::SeqCst), -1),
            motionclone_engine_destroy(&mut engine),
            motionclone_shutdown(),
        ]
    };
    heard.statuses.iter().zip(statuses).for_each(|(place, status)| place.store(status as u32, Ordering::SeqCst));
}

#[test]
fn a_log_function_hears_warnings_and_cannot_wait() {
    let heard = Heard::default();
    let mut options = engine_options();
    options.device_kind = DeviceKind::Cpu as u32;
    options.log = Some(hear);
    options.log_user_data = (&raw const heard).cast_mut().cast();
    let mut engine = 0;
    ok(unsafe { motionclone_engine_create(c_path(bundle()).as_ptr(), &options, &mut engine) });
    let prompt = std::ffi::CString::new("ground ".repeat(200)).unwrap();
    let settings = HostSettings { prompt: prompt.as_ptr(), ..settings(engine) };
    let job = start(engine, &mut clip(4, 64, 64), &settings);
    heard.job.store(job, Ordering::SeqCst);
    wait(job);
    ok(unsafe { motionclone_engine_destroy(&mut engine) });
    assert_eq!(heard.warnings.load(Ordering::SeqCst), 1);
    let statuses = heard.statuses.each_ref().map(|status| status.load(Ordering::SeqCst));
    assert_eq!(statuses, [Status::WrongThread as u32; 3]);
}

#[test]
fn a_job_that_fails_says_why() {
    let engine = engine();
    let settings = HostSettings { cfg: 1e300, ..settings(engine) };
    let job = start(engine, &mut clip(4, 64, 64), &settings);
    assert_eq!(unsafe { motionclone_job_wait(job, -1) }, Status::Failed);
    assert_eq!(standing(job).state, JobState::Failed as u32);
    let mut text = [0_u8; 512];
    ok(unsafe { motionclone_job_error(job, text.as_mut_ptr().cast(), text.len(), null_mut()) });
    let text = CStr::from_bytes_until_nul(&text).unwrap().to_str().unwrap();
    assert!(text.contains("no longer numbers"), "{text}");
    // The engine goes on.
    wait(start(engine, &mut clip(4, 64, 64), &self::settings(engine)));
}

#[test]
fn devices_are_listed() {
    let mut count = 0;
    ok(unsafe { motionclone_devices(null(), null_mut(), 0, &mut count) });
    let mut devices = vec![device(); count];
    ok(unsafe { motionclone_devices(null(), devices.as_mut_ptr(), count, &mut count) });
    assert_eq!(devices[0].kind, DeviceKind::Cpu as u32);
    let name = unsafe { CStr::from_ptr(devices[0].name.as_ptr()) };
    assert_eq!(name, c"CPU");
    let mut own = device();
    ok(unsafe { motionclone_engine_device(engine(), &mut own) });
    assert_eq!(own.name, devices[0].name);
    devices[0].struct_size = 1;
    assert_eq!(
        unsafe { motionclone_devices(null(), devices.as_mut_ptr(), count, &mut count) },
        Status::InvalidStructSize
    );
    assert_eq!(unsafe { motionclone_devices(null(), null_mut(), 1, &mut count) }, Status::InvalidArgument);
    assert_eq!(unsafe { motionclone_devices(null(), null_mut(), 0, null_mut()) }, Status::InvalidArgument);
    assert_eq!(unsafe { motionclone_devices(c"\xff".as_ptr(), null_mut(), 0, &mut count) }, Status::InvalidArgument);
}

#[test]
fn opening_returns_at_once_and_the_first_job_waits() {
    let mut engine = 0;
    let options = HostEngineOptions { device_kind: DeviceKind::Cpu as u32, ..engine_options() };
    ok(unsafe { motionclone_engine_open(c_path(bundle()).as_ptr(), &options, &mut engine) });
    // Settings are those of the manifest, and a job may be started whether or not the engine is open.
    let job = start(engine, &mut clip(4, 64, 64), &settings(engine));
    let device = unsafe { motionclone_engine_device(engine, &mut device()) };
    assert!([Status::Ok, Status::NotReady].contains(&device), "{}", last_error());
    ok(unsafe { motionclone_engine_wait(engine, -1) });
    ok(unsafe { motionclone_engine_device(engine, &mut self::device()) });
    wait(job);
    ok(unsafe { motionclone_engine_destroy(&mut engine) });
}

#[test]
fn what_is_wrong_with_a_device_is_told_by_the_engine_and_its_jobs() {
    let mut engine = 0;
    let path = c_path(bundle());
    let options = HostEngineOptions { device_kind: DeviceKind::Cuda as u32, device_number: 99, ..engine_options() };
    ok(unsafe { motionclone_engine_open(path.as_ptr(), &options, &mut engine) });
    let job = start(engine, &mut clip(4, 64, 64), &settings(engine));
    assert_eq!(unsafe { motionclone_job_wait(job, -1) }, Status::InvalidInput);
    assert!(last_error().contains("CUDA device 99 does not work here"), "{}", last_error());
    assert_eq!(unsafe { motionclone_engine_wait(engine, -1) }, Status::InvalidInput);
    assert_eq!(unsafe { motionclone_engine_device(engine, &mut device()) }, Status::InvalidInput);
    ok(unsafe { motionclone_engine_destroy(&mut engine) });
    let status = unsafe { motionclone_engine_create(path.as_ptr(), &options, &mut engine) };
    assert_eq!((status, engine), (Status::InvalidInput, 0));
    // What is wrong with the bundle is told at once.
    let status = unsafe { motionclone_engine_open(c"no such folder".as_ptr(), &options, &mut engine) };
    assert_eq!((status, engine), (Status::InvalidInput, 0));
}

#[test]
fn texts_are_those_of_the_status() {
    let text = |status: u32| unsafe { CStr::from_ptr(motionclone_status_text(status)) };
    let texts: BTreeSet<&CStr> = (0..=Status::WrongProcess as u32).map(text).collect();
    assert_eq!(texts.len(), Status::WrongProcess as usize + 1);
    assert_eq!(
        (text(0), text(Status::WrongProcess as u32 + 1), text(u32::MAX)),
        (c"ok", c"unknown status", c"unknown status")
    );
    assert_eq!(motionclone_abi_version(), ABI_VERSION);
    assert_eq!(unsafe { CStr::from_ptr(motionclone_version()) }.to_str(), Ok(env!("CARGO_PKG_VERSION")));
}

/// A motion that no clip has, and a job that was cancelled before it made anything: what calls need that look at
/// arguments alone.
fn motion_and_job(engine: EngineHandle, settings: &HostSettings) -> (MotionHandle, JobHandle) {
    let manifest = Bundle::open(bundle()).unwrap().manifest;
    let own = rust_settings(&manifest);
    let maps = guided_maps(&manifest, &own.blocks, own.width, own.height).unwrap().into_iter();
    let maps = maps.map(|(name, [positions, heads])| {
        let shape = [positions, heads, own.frames, own.frames];
        let even = vec![1.0 / own.frames as f32; shape.iter().product()];
        (name, SparseAttention::from_attention(&even, shape, own.top_k).unwrap())
    });
    let motion = Motion { maps: maps.collect(), info: MotionInfo::new(&manifest, &own, "made up") };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("motion.safetensors");
    motion.save(&file).unwrap();
    let mut motion = 0;
    ok(unsafe { motionclone_motion_load(c_path(&file).as_ptr(), &mut motion) });
    let job = start(engine, &mut clip(4, 64, 64), settings);
    ok(unsafe { motionclone_job_cancel(job) });
    assert_eq!(unsafe { motionclone_job_wait(job, -1) }, Status::Cancelled);
    (motion, job)
}

#[test]
fn structures_are_checked_when_they_are_set_up() {
    let engine = engine();
    macro_rules! check {
        ($structure:ty, $init:ident $(, $engine:expr)?) => {{
            let mut value = std::mem::MaybeUninit::<[$structure; 2]>::zeroed();
            // Not even room for one: nothing must be written.
            let mut nowhere = Box::new(0_usize);
            let nowhere: *mut $structure = (&raw mut *nowhere).cast();
            let (size, place) = (size_of::<$structure>(), value.as_mut_ptr().cast::<$structure>());
            let misaligned = place.cast::<u8>().wrapping_add(1).cast();
            unsafe {
                assert_eq!($init(null_mut(), size $(, $engine)?), Status::InvalidArgument);
                assert_eq!($init(misaligned, size $(, $engine)?), Status::InvalidArgument);
                for wrong in [0, 8, size - 4, size + 8, usize::MAX] {
                    assert_eq!($init(nowhere, wrong $(, $engine)?), Status::InvalidStructSize);
                    assert!(last_error().contains("struct_size"), "{}", last_error());
                }
                ok($init(place, size $(, $engine)?));
            }
        }};
    }
    check!(HostEngineOptions, motionclone_engine_options_init);
    check!(HostDevice, motionclone_device_init);
    check!(HostFrames, motionclone_frames_init);
    check!(HostImage, motionclone_image_init);
    check!(HostProgress, motionclone_progress_init);
    check!(HostMotionInfo, motionclone_motion_info_init);
    check!(HostSettings, motionclone_settings_init, engine);
}

#[test]
fn wrong_handles_are_refused() {
    let mut engine = engine();
    let settings = settings(engine);
    let mut reference = clip(4, 64, 64);
    let (mut motion, mut job) = motion_and_job(engine, &settings);
    let (mut gone_job, mut gone_motion, mut gone_engine) = (job, motion, engine);
    let clip = described(&mut reference);

    // Every function that takes a handle, given one that is none of its kind.
    let refused = |engines: &[u64], jobs: &[u64], motions: &[u64]| {
        let (mut out, mut place, mut text) = (0_u64, frames(), [0 as c_char; 8]);
        let is = |status: Status| assert_eq!(status, Status::InvalidHandle, "{}", last_error());
        unsafe {
            for &handle in engines {
                let mut own = handle;
                is(motionclone_job_clone(handle, &clip, &settings, &mut out));
                is(motionclone_job_extract(handle, &clip, &settings, &mut out));
                is(motionclone_job_clone_motion(handle, 0, &settings, &mut out));
                is(motionclone_engine_device(handle, &mut device()));
                let mut other = settings;
                is(motionclone_settings_init(&mut other, size_of::<HostSettings>(), handle));
                if handle != 0 {
                    is(motionclone_engine_destroy(&mut own));
                    assert_eq!(own, handle);
                }
            }
            for &handle in jobs {
                let mut own = handle;
                is(motionclone_job_progress(handle, &mut progress()));
                is(motionclone_job_wait(handle, 0));
                is(motionclone_job_cancel(handle));
                is(motionclone_job_preview(handle, &mut place));
                is(motionclone_job_frames(handle, &mut place));
                is(motionclone_job_motion(handle, &mut out));
                is(motionclone_job_error(handle, text.as_mut_ptr(), 8, null_mut()));
                if handle != 0 {
                    is(motionclone_job_destroy(&mut own));
                }
            }
            for &handle in motions {
                let mut own = handle;
                is(motionclone_motion_save(handle, c"nowhere".as_ptr()));
                is(motionclone_motion_info_get(handle, &mut motion_info()));
                is(motionclone_motion_describe(handle, text.as_mut_ptr(), 8, null_mut()));
                if handle != 0 {
                    is(motionclone_motion_destroy(&mut own));
                }
            }
        }
        assert_eq!(out, 0);
    };
    // Numbers close to a handle.
    let close =
        |handle: u64| (0..64).map(move |bit| handle ^ (1 << bit)).filter(move |other| *other >> 32 != handle >> 32);
    let made_up = |own: u64, others: [u64; 2]| [0, 1, u64::MAX].into_iter().chain(others).chain(close(own)).collect();
    let lists: [Vec<u64>; 3] =
        [made_up(engine, [job, motion]), made_up(job, [engine, motion]), made_up(motion, [engine, job])];
    refused(&lists[0], &lists[1], &lists[2]);
    assert_eq!(
        unsafe { motionclone_job_clone_motion(engine, job, &settings, &mut 0) },
        Status::InvalidHandle,
        "a job is no motion"
    );
    unsafe {
        ok(motionclone_job_destroy(&mut job));
        ok(motionclone_motion_destroy(&mut motion));
        ok(motionclone_engine_destroy(&mut engine));
        // Nothing to do.
        ok(motionclone_job_destroy(&mut job));
        ok(motionclone_motion_destroy(&mut motion));
        ok(motionclone_engine_destroy(&mut engine));
        for status in [
            motionclone_job_destroy(null_mut()),
            motionclone_motion_destroy(null_mut()),
            motionclone_engine_destroy(null_mut()),
        ] {
            assert_eq!(status, Status::InvalidArgument);
        }
        assert_eq!(motionclone_job_destroy(&mut gone_job), Status::InvalidHandle);
        assert_eq!(motionclone_motion_destroy(&mut gone_motion), Status::InvalidHandle);
        assert_eq!(motionclone_engine_destroy(&mut gone_engine), Status::InvalidHandle);
    }
    refused(&[gone_engine], &[gone_job], &[gone_motion]);
}

#[test]
fn wrong_arguments_are_refused() {
    let engine = engine();
    let settings = settings(engine);
    let mut reference = clip(4, 64, 64);
    let good = described(&mut reference);
    let mut job = 0;
    unsafe {
        // Null pointers.
        let is = |status: Status, wanted: Status| assert_eq!(status, wanted, "{}", last_error());
        let invalid = Status::InvalidArgument;
        let path = c_path(bundle());
        // No embedded bundle lies beside this test.
        is(motionclone_engine_create(null(), null(), &mut job), Status::InvalidInput);
        is(motionclone_engine_create(path.as_ptr(), null(), null_mut()), invalid);
        is(motionclone_engine_create(c"\xff".as_ptr(), null(), &mut job), invalid);
        is(motionclone_engine_create(c"no/such/bundle".as_ptr(), null(), &mut job), Status::InvalidInput);
        assert!(last_error().contains("no/such/bundle: no bundle there"), "{}", last_error());
        is(motionclone_job_clone(engine, null(), &settings, &mut job), invalid);
        is(motionclone_job_clone(engine, &good, null(), &mut job), invalid);
        is(motionclone_job_clone(engine, &good, &settings, null_mut()), invalid);
        is(motionclone_job_extract(engine, null(), &settings, &mut job), invalid);
        is(motionclone_job_extract(engine, &good, null(), &mut job), invalid);
        is(motionclone_job_extract(engine, &good, &settings, null_mut()), invalid);
        is(motionclone_motion_load(null(), &mut job), invalid);
        is(motionclone_motion_load(c"m".as_ptr(), null_mut()), invalid);
        is(motionclone_motion_load(c"no such file".as_ptr(), &mut job), Status::InvalidInput);
        is(motionclone_engine_device(engine, null_mut()), invalid);
        let (mut motion, mut done) = motion_and_job(engine, &settings);
        is(motionclone_job_progress(done, null_mut()), invalid);
        is(motionclone_job_preview(done, null_mut()), invalid);
        is(motionclone_job_frames(done, null_mut()), invalid);
        is(motionclone_job_motion(done, null_mut()), invalid);
        is(motionclone_job_error(done, null_mut(), 0, null_mut()), invalid);
        is(motionclone_job_clone_motion(engine, motion, null(), &mut job), invalid);
        is(motionclone_job_clone_motion(engine, motion, &settings, null_mut()), invalid);
        is(motionclone_motion_save(motion, null()), invalid);
        is(motionclone_motion_save(motion, c"no/such/folder/motion".as_ptr()), Status::InvalidInput);
        is(motionclone_motion_info_get(motion, null_mut()), invalid);
        is(motionclone_motion_describe(motion, null_mut(), 0, null_mut()), invalid);

        // Structures of another size: of theirs, nothing but the size may be read.
        for size in [0, 1, 8, usize::MAX] {
            let mut other = Box::new(size);
            let other = (&raw mut *other).cast::<c_void>();
            let is = |status: Status| assert_eq!(status, Status::InvalidStructSize, "{}", last_error());
            is(motionclone_engine_create(path.as_ptr(), other.cast(), &mut job));
            is(motionclone_devices(null(), other.cast(), 1, &mut 0));
            is(motionclone_engine_device(engine, other.cast()));
            for start in [motionclone_job_clone, motionclone_job_extract] {
                is(start(engine, other.cast(), &settings, &mut job));
                is(start(engine, &good, other.cast(), &mut job));
            }
            is(motionclone_job_clone_motion(engine, motion, other.cast(), &mut job));
            let image = HostImage { pixels: other.cast(), ..image() };
            for images in [&raw const image, other.cast()] {
                let settings = HostSettings { images, image_count: 1, ..settings };
                is(motionclone_job_clone(engine, &good, &settings, &mut job));
            }
            is(motionclone_job_progress(done, other.cast()));
            is(motionclone_job_frames(done, other.cast()));
            is(motionclone_job_preview(done, other.cast()));
            is(motionclone_motion_info_get(motion, other.cast()));
        }

        // Frames that cannot be.
        let garbage = 0xdead_beef;
        for wrong in [
            HostFrames { channels: garbage, ..good },
            HostFrames { sample: garbage, ..good },
            HostFrames { row_order: garbage, ..good },
            HostFrames { alpha: garbage, ..good },
            HostFrames { transfer: garbage, ..good },
            HostFrames { count: 0, ..good },
            HostFrames { width: 0, ..good },
            HostFrames { height: 16385, ..good },
            HostFrames { data: null_mut(), ..good },
            HostFrames { row_stride: 100, ..good },
            HostFrames { row_stride: -191, ..good },
            HostFrames { frame_stride: 1, ..good },
            HostFrames { row_stride: i64::MIN, ..good },
            HostFrames { frame_stride: i64::MAX, ..good },
            HostFrames { count: u32::MAX, frame_stride: i64::MIN, ..good },
        ] {
            is(motionclone_job_clone(engine, &wrong, &settings, &mut job), invalid);
            if !wrong.data.is_null() {
                is(motionclone_job_frames(done, &mut { wrong }), invalid);
                is(motionclone_job_preview(done, &mut { wrong }), invalid);
            }
        }
        let holes = [null_mut::<c_void>(); 4];
        let wrong = HostFrames { data: null_mut(), frame_data: holes.as_ptr(), ..good };
        is(motionclone_job_clone(engine, &wrong, &settings, &mut job), invalid);
        // What a job has not made.
        let mut none = 0;
        is(motionclone_job_frames(done, &mut { good }), Status::NotReady);
        is(motionclone_job_frames(done, &mut frames()), Status::NotReady);
        is(motionclone_job_preview(done, &mut { good }), Status::NotReady);
        is(motionclone_job_motion(done, &mut none), Status::NotReady);
        assert_eq!(none, 0);

        // Options and settings that cannot be.
        let options =
            |kind: u32, number: u32| HostEngineOptions { device_kind: kind, device_number: number, ..engine_options() };
        is(motionclone_engine_create(path.as_ptr(), &options(garbage, 0), &mut job), invalid);
        is(motionclone_engine_create(path.as_ptr(), &options(2, u32::MAX), &mut job), Status::InvalidInput);
        let image = HostImage { pixels: &good, ..image() };
        for (wrong, status) in [
            (HostSettings { image_kind: garbage, ..settings }, invalid),
            (HostSettings { image_count: 1, ..settings }, invalid),
            (HostSettings { image_count: u32::MAX, images: &image, ..settings }, Status::InvalidInput),
            (HostSettings { image_count: 1, images: &image, ..settings }, Status::InvalidInput),
            (HostSettings { prompt: c"\xff".as_ptr(), ..settings }, invalid),
            (HostSettings { negative_prompt: c"\xff".as_ptr(), ..settings }, invalid),
            (HostSettings { blocks: c"\xff".as_ptr(), ..settings }, invalid),
            (HostSettings { blocks: c"cellar".as_ptr(), ..settings }, Status::InvalidInput),
            (HostSettings { width: 63, ..settings }, Status::InvalidInput),
            (HostSettings { height: u32::MAX, ..settings }, Status::InvalidInput),
            (HostSettings { frames: 0, ..settings }, Status::InvalidInput),
            (HostSettings { steps: 0, ..settings }, Status::InvalidInput),
            (HostSettings { guidance_steps: 3, ..settings }, Status::InvalidInput),
            (HostSettings { top_k: 0, ..settings }, Status::InvalidInput),
            (HostSettings { noise_step: u32::MAX, ..settings }, Status::InvalidInput),
            (HostSettings { guidance_scale: f64::NAN, ..settings }, Status::InvalidInput),
            (HostSettings { motion_weight: -1.0, ..settings }, Status::InvalidInput),
            (HostSettings { cfg: f64::INFINITY, ..settings }, Status::InvalidInput),
        ] {
            is(motionclone_job_clone(engine, &good, &wrong, &mut job), status);
            is(motionclone_job_clone_motion(engine, motion, &wrong, &mut job), status);
        }
        assert_eq!(job, 0, "a call that fails writes nothing");
        ok(motionclone_job_destroy(&mut done));
        ok(motionclone_motion_destroy(&mut motion));
    }
}

/// The tests with wrong arguments once more, where every access to memory is watched.
#[test]
#[cfg(target_os = "linux")]
fn wrong_arguments_touch_no_memory() {
    let mut valgrind = std::process::Command::new("valgrind");
    valgrind.args(["--quiet", "--error-exitcode=9", "--num-callers=40"]);
    valgrind.arg(concat!("--suppressions=", env!("CARGO_MANIFEST_DIR"), "/tests/hosts/valgrind.supp"));
    valgrind.env(BUNDLE, bundle()).arg(std::env::current_exe().unwrap()).args(["--test-threads=1", "--exact"]);
    let tests = [
        "devices_are_listed",
        "structures_are_checked_when_they_are_set_up",
        "texts_are_those_of_the_status",
        "wrong_arguments_are_refused",
        "wrong_handles_are_refused",
    ];
    let output = valgrind.args(tests).output();
    let output = output.unwrap_or_else(|e| panic!("valgrind: {e}; `cargo xtask test` installs it"));
    let said = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
    assert!(output.status.success() && said.contains(&format!("{} passed", tests.len())), "{said}");
}
