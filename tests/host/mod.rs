//! What the tests of the C library share: the small model, and a host that calls the functions as C would.
#![allow(dead_code, reason = "each test program uses a part")]

use std::ffi::{CStr, CString};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use motionclone::capi::*;
use motionclone::media::frames::Frames;
use motionclone::onnx::checkpoint::{ImportOptions, import};
use motionclone::pipeline::preview_fit;

/// Names a bundle that is at hand, to a test program that another one starts.
pub const BUNDLE: &str = "MOTIONCLONE_TEST_BUNDLE";

/// The checkpoints of the recorded runs, imported once for each test program.
pub fn bundle() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        if let Some(folder) = std::env::var_os(BUNDLE) {
            return folder.into();
        }
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let folder = target.join(format!("capi-bundle-{}", env!("CARGO_PKG_VERSION")));
        let checkpoints = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/checkpoints");
        let file = |name: &str| Some(checkpoints.join(name));
        // A bundle of an earlier run may come from other code.
        let fresh = tempfile::tempdir_in(target).unwrap();
        let options = ImportOptions {
            base: checkpoints.join("StableDiffusion"),
            motion_module: file("v3_sd15_mm.ckpt"),
            dreambooth: file("dreambooth.safetensors"),
            adapter: file("v3_sd15_adapter.ckpt").map(|path| (path, 1.0)),
            sparsectrl_rgb: file("v3_sd15_sparsectrl_rgb.ckpt"),
            sparsectrl_scribble: file("v3_sd15_sparsectrl_scribble.ckpt"),
            sparsectrl_config: file("sparsectrl_configs.json"),
            model_config: file("model_config.json"),
            out: fresh.path().join("bundle"),
            ..Default::default()
        };
        import(&options, &mut |_| ControlFlow::Continue(())).unwrap();
        preview_fit::fit_bundle(&options.out).unwrap();
        let _ = std::fs::remove_dir_all(&folder);
        // Another test program may be as far at this very moment; its bundle is as good.
        if std::fs::rename(&options.out, &folder).is_err() {
            assert!(folder.join("manifest.json").is_file(), "no bundle");
        }
        folder
    })
}

/// A path as C takes it.
pub fn c_path(path: &Path) -> CString {
    CString::new(path.to_str().unwrap()).unwrap()
}

/// The text of the last failure on this thread.
pub fn last_error() -> String {
    // SAFETY: the function returns a text that lives until the next failure.
    unsafe { CStr::from_ptr(motionclone_last_error()) }.to_str().unwrap().to_string()
}

/// Fails the test with the library's own words.
#[track_caller]
pub fn ok(status: Status) {
    assert_eq!(status, Status::Ok, "{}", last_error());
}

/// An initialised structure.
macro_rules! initialised {
    ($name:ident, $structure:ty, $init:ident) => {
        pub fn $name() -> $structure {
            let mut value = std::mem::MaybeUninit::uninit();
            // SAFETY: the function writes a whole structure.
            unsafe {
                ok($init(value.as_mut_ptr(), size_of::<$structure>()));
                value.assume_init()
            }
        }
    };
}

initialised!(engine_options, HostEngineOptions, motionclone_engine_options_init);
initialised!(device, HostDevice, motionclone_device_init);
initialised!(frames, HostFrames, motionclone_frames_init);
initialised!(image, HostImage, motionclone_image_init);
initialised!(progress, HostProgress, motionclone_progress_init);
initialised!(motion_info, HostMotionInfo, motionclone_motion_info_init);

/// An engine on the CPU.
pub fn engine() -> EngineHandle {
    let mut options = engine_options();
    options.device_kind = DeviceKind::Cpu as u32;
    let mut engine = 0;
    // SAFETY: all pointers are of living values, here and below.
    ok(unsafe { motionclone_engine_create(c_path(bundle()).as_ptr(), &options, &mut engine) });
    engine
}

/// The quickest clone: 64×64, four frames, two steps.
pub fn settings(engine: EngineHandle) -> HostSettings {
    let mut settings = std::mem::MaybeUninit::uninit();
    let mut settings = unsafe {
        ok(motionclone_settings_init(settings.as_mut_ptr(), size_of::<HostSettings>(), engine));
        settings.assume_init()
    };
    (settings.width, settings.height, settings.frames) = (64, 64, 4);
    (settings.steps, settings.guidance_steps, settings.warm_up, settings.cool_up) = (2, 1, 0, 0);
    settings.prompt = c"ground".as_ptr();
    settings
}

/// Soft colours that move to the right.
pub fn clip(count: usize, width: usize, height: usize) -> Frames {
    let wave = |value: f64| (127.5 + 100.0 * value.sin()) as u8;
    let mut data = Vec::new();
    for t in 0..count {
        for at in 0..width * height {
            let (x, y) = ((at % width) as f64 - 3.0 * t as f64, (at / width) as f64);
            data.extend([wave(x / 7.0), wave(y / 5.0 + x / 11.0), wave((x + y) / 9.0)]);
        }
    }
    Frames { width, height, data }
}

/// Describes frames as they are in the memory of Rust.
pub fn described(clip: &mut Frames) -> HostFrames {
    let mut host = frames();
    (host.count, host.width, host.height) = (clip.count() as u32, clip.width as u32, clip.height as u32);
    host.data = clip.data.as_mut_ptr().cast();
    host
}

/// Starts a clone of a clip.
pub fn start(engine: EngineHandle, clip: &mut Frames, settings: &HostSettings) -> JobHandle {
    let mut job = 0;
    ok(unsafe { motionclone_job_clone(engine, &described(clip), settings, &mut job) });
    job
}

/// Waits for a job that must succeed.
#[track_caller]
pub fn wait(job: JobHandle) {
    ok(unsafe { motionclone_job_wait(job, -1) });
}

/// A job's clip, taken as a host takes it: size first, then the pixels.
pub fn result(job: JobHandle) -> Frames {
    let mut host = frames();
    ok(unsafe { motionclone_job_frames(job, &mut host) });
    let (width, height) = (host.width as usize, host.height as usize);
    let mut result = Frames { width, height, data: vec![0; host.count as usize * width * height * 3] };
    ok(unsafe { motionclone_job_frames(job, &mut described(&mut result)) });
    result
}

/// How a job stands.
pub fn standing(job: JobHandle) -> HostProgress {
    let mut value = progress();
    ok(unsafe { motionclone_job_progress(job, &mut value) });
    value
}
