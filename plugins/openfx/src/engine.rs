//! The engine: the C library of motionclone.h, loaded from the plugin's own folder when it is first needed.

use std::ffi::{CStr, CString, c_void};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use libloading::Library;
use motionclone_abi::Functions;
use motionclone_abi::files::{LIBRARY, LIBRARY_VARIABLE, RUNTIME_VARIABLE, RUNTIMES, own_folder};
use motionclone_abi::types::{ABI_VERSION, DeviceKind, HostFrames, HostMotionInfo, HostSettings, ImageKind, Status};

use crate::picture::Picture;
use crate::stop::Stop;
use crate::sync::lock;

/// An error is a sentence for people.
pub type Result<T, E = String> = std::result::Result<T, E>;

type Init<T> = unsafe extern "C" fn(*mut T, usize) -> u32;

/// The loaded library.
pub struct Api {
    functions: Functions,
    /// Keeps the functions.
    _library: Library,
}

static LOADED: Mutex<Option<Arc<Api>>> = Mutex::new(None);

/// The library's file: the one that `MOTIONCLONE_LIBRARY` names, else the one beside the plugin.
///
/// # Errors
/// When there is no file.
pub fn find() -> Result<PathBuf> {
    let named = std::env::var_os(LIBRARY_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    let (file, whose) = match named {
        Some(path) if path.is_dir() => (path.join(LIBRARY), LIBRARY_VARIABLE),
        Some(path) => (path, LIBRARY_VARIABLE),
        None => (own_folder().unwrap_or_default().join(LIBRARY), "the plugin's bundle"),
    };
    if file.is_file() {
        return Ok(file);
    }
    Err(format!("The engine is missing: {whose} should have it at {}. Install MotionClone again.", file.display()))
}

/// What is missing for the engine to run, as far as files tell; nothing is loaded.
pub fn missing() -> Option<String> {
    let file = match find() {
        Ok(file) => file,
        Err(message) => return Some(message),
    };
    if let Some(path) = std::env::var_os(RUNTIME_VARIABLE).filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        let text = || format!("ONNX Runtime is missing: {RUNTIME_VARIABLE} names {}.", path.display());
        return (!path.is_file()).then(text);
    }
    let folder = file.canonicalize().ok().and_then(|file| file.parent().map(Path::to_path_buf)).unwrap_or_default();
    let there = RUNTIMES.iter().any(|name| folder.join(name).is_file());
    (!there).then(|| format!("ONNX Runtime is missing: {} should lie in {}.", RUNTIMES[0], folder.display()))
}

/// Loads the library, once.
///
/// # Errors
/// When it is missing, cannot be loaded, or is of another version.
pub fn api() -> Result<Arc<Api>> {
    let mut loaded = lock(&LOADED);
    if let Some(api) = &*loaded {
        return Ok(api.clone());
    }
    let api = Arc::new(Api::load(&find()?)?);
    *loaded = Some(api.clone());
    Ok(api)
}

/// Ends everything in the library, if it was loaded.
pub fn shutdown() {
    let api = lock(&LOADED).take();
    if let Some(api) = api {
        // SAFETY: the function takes nothing; no other thread of the plugin is left.
        unsafe { (api.functions.shutdown)() };
    }
}

impl Api {
    fn load(file: &Path) -> Result<Self> {
        let shown = file.display();
        // SAFETY: loading runs the library's own start, which does nothing; its functions have the header's types,
        // which the version below vouches for.
        unsafe {
            let library = Library::new(file).map_err(|e| format!("The engine cannot be loaded from {shown}: {e}."))?;
            let incomplete = |e: libloading::Error| format!("{shown} is not the engine, or damaged: {e}.");
            let version = library.get::<unsafe extern "C" fn() -> u32>(b"motionclone_abi_version\0");
            let version = version.map_err(incomplete)?();
            if version != ABI_VERSION {
                return Err(format!("{shown} has interface version {version}; this plugin needs {ABI_VERSION}."));
            }
            let functions = Functions::find(&library).map_err(incomplete)?;
            Ok(Self { functions, _library: library })
        }
    }

    fn check(&self, status: u32) -> Result<()> {
        if status == Status::Ok as u32 {
            return Ok(());
        }
        // SAFETY: the text lives until the next failure on this thread, and is copied.
        let text = unsafe { CStr::from_ptr((self.functions.last_error)()) }.to_string_lossy().into_owned();
        Err(sentence(&text))
    }

    fn made<T>(&self, init: Init<T>) -> Result<T> {
        let mut value = std::mem::MaybeUninit::uninit();
        // SAFETY: the function fills a structure of this size, or refuses it.
        self.check(unsafe { init(value.as_mut_ptr(), size_of::<T>()) })?;
        // SAFETY: it was filled.
        Ok(unsafe { value.assume_init() })
    }

    /// Frames of one size as the library reads them, one pointer each.
    fn described(&self, pictures: &[*mut c_void], width: usize, height: usize) -> Result<HostFrames> {
        let mut frames = self.made(self.functions.frames_init)?;
        frames.frame_data = pictures.as_ptr();
        (frames.count, frames.width, frames.height) = (pictures.len() as u32, width as u32, height as u32);
        Ok(frames)
    }

    /// Opens a motion file and tells what it fits.
    ///
    /// # Errors
    /// When it is no motion.
    pub fn motion(self: &Arc<Self>, file: &str) -> Result<Motion> {
        let (file, mut handle) = (c_path(file)?, 0);
        // SAFETY: both pointers are of living values.
        self.check(unsafe { (self.functions.motion_load)(file.as_ptr(), &mut handle) })?;
        Ok(Motion { api: self.clone(), handle })
    }
}

fn c_path(path: &str) -> Result<CString> {
    CString::new(path).map_err(|_| format!("{path:?} is no path: it has a zero character."))
}

/// With a capital at its beginning and a stop at its end.
fn sentence(text: &str) -> String {
    let mut letters = text.trim().trim_end_matches('.').chars();
    match letters.next() {
        Some(first) => format!("{}{}.", first.to_uppercase(), letters.as_str()),
        None => "The engine failed without a word.".into(),
    }
}

/// A motion that was read before.
pub struct Motion {
    api: Arc<Api>,
    handle: u64,
}

/// What a motion fits.
pub struct MotionInfo {
    pub width: u32,
    pub height: u32,
    pub frames: u32,
    pub noise_step: u32,
    pub top_k: u32,
}

impl Motion {
    pub fn info(&self) -> Result<MotionInfo> {
        let mut info = self.api.made(self.api.functions.motion_info_init)?;
        // SAFETY: the structure is initialised.
        self.api.check(unsafe { (self.api.functions.motion_info_get)(self.handle, &mut info) })?;
        let HostMotionInfo { width, height, frames, noise_step, top_k, .. } = info;
        Ok(MotionInfo { width, height, frames, noise_step, top_k })
    }

    /// Writes it to a file.
    pub fn save(&self, file: &Path) -> Result<()> {
        let file = c_path(&file.to_string_lossy())?;
        // SAFETY: the pointer is of a living text.
        self.api.check(unsafe { (self.api.functions.motion_save)(self.handle, file.as_ptr()) })
    }
}

impl Drop for Motion {
    fn drop(&mut self) {
        // SAFETY: the handle is ours and destroyed once.
        unsafe { (self.api.functions.motion_destroy)(&mut self.handle) };
    }
}

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Device {
    Auto,
    Cpu,
    Cuda(u32),
}

/// What decides a clone, as the parameters say it.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub prompt: String,
    pub negative_prompt: String,
    pub blocks: String,
    pub image: Option<ConditionImage>,
    pub seed: u64,
    pub width: u32,
    pub height: u32,
    pub frames: u32,
    pub steps: u32,
    pub guidance_steps: u32,
    pub warm_up: u32,
    pub cool_up: u32,
    pub noise_step: u32,
    pub top_k: u32,
    pub guidance_scale: f64,
    /// 1 is the model's own.
    pub motion_strength: f64,
    pub cfg: f64,
}

/// A picture or sketch at a frame.
#[derive(Debug, Clone, PartialEq)]
pub struct ConditionImage {
    pub picture: Picture,
    pub frame: u32,
    pub sketch: bool,
    /// 1 is the model's own.
    pub strength: f64,
}

/// What the motion is taken from.
pub enum Reference<'a> {
    Clip(&'a [Arc<Picture>]),
    Motion(&'a Motion),
}

/// A model on a device.
pub struct Engine {
    api: Arc<Api>,
    handle: u64,
}

impl Engine {
    /// Opens a bundle; waits for it, on a GPU for seconds.
    pub fn open(api: &Arc<Api>, bundle: &str, device: Device) -> Result<Self> {
        let mut options = api.made(api.functions.engine_options_init)?;
        (options.device_kind, options.device_number) = match device {
            Device::Auto => (DeviceKind::Auto as u32, 0),
            Device::Cpu => (DeviceKind::Cpu as u32, 0),
            Device::Cuda(number) => (DeviceKind::Cuda as u32, number),
        };
        let (bundle, mut handle) = (c_path(bundle)?, 0);
        // SAFETY: all pointers are of living values.
        api.check(unsafe { (api.functions.engine_create)(bundle.as_ptr(), &options, &mut handle) })?;
        Ok(Self { api: api.clone(), handle })
    }

    /// Starts a clone; the reference and the settings are copied.
    pub fn start(&self, reference: &Reference, settings: &Settings) -> Result<EngineJob> {
        let functions = &self.api.functions;
        let mut c = std::mem::MaybeUninit::uninit();
        // SAFETY: the function fills a structure of this size, or refuses it.
        let filled = unsafe { (functions.settings_init)(c.as_mut_ptr(), size_of::<HostSettings>(), self.handle) };
        self.api.check(filled)?;
        // SAFETY: it was filled.
        let mut c: HostSettings = unsafe { c.assume_init() };
        let [prompt, negative, blocks] = [&settings.prompt, &settings.negative_prompt, &settings.blocks]
            .map(|text| CString::new(text.replace('\0', " ")).unwrap_or_default());
        c.prompt = prompt.as_ptr();
        if !negative.is_empty() {
            c.negative_prompt = negative.as_ptr();
        }
        if !blocks.is_empty() {
            c.blocks = blocks.as_ptr();
        }
        (c.seed, c.width, c.height, c.frames) = (settings.seed, settings.width, settings.height, settings.frames);
        (c.steps, c.guidance_steps) = (settings.steps, settings.guidance_steps);
        (c.warm_up, c.cool_up) = (settings.warm_up, settings.cool_up);
        (c.noise_step, c.top_k) = (settings.noise_step, settings.top_k);
        (c.guidance_scale, c.cfg) = (settings.guidance_scale, settings.cfg);
        c.motion_weight *= settings.motion_strength;
        let pointer = |picture: &Picture| picture.data.as_ptr().cast_mut().cast::<c_void>();
        let mut condition_pointer = [std::ptr::null_mut()];
        let (mut pixels, mut image) = (self.api.made(functions.frames_init)?, self.api.made(functions.image_init)?);
        if let Some(condition) = &settings.image {
            condition_pointer[0] = pointer(&condition.picture);
            let picture = &condition.picture;
            pixels = self.api.described(&condition_pointer, picture.width, picture.height)?;
            (image.pixels, image.frame) = (&pixels, condition.frame);
            (c.images, c.image_count) = (&image, 1);
            c.image_kind = if condition.sketch { ImageKind::Sketch } else { ImageKind::Picture } as u32;
            c.image_scale *= condition.strength;
        }
        let mut handle = 0;
        // SAFETY: all pointers are of values that live until the end of the call, which copies what it needs and only
        // reads the frames.
        self.api.check(unsafe {
            match reference {
                Reference::Motion(motion) => (functions.job_clone_motion)(self.handle, motion.handle, &c, &mut handle),
                Reference::Clip(clip) => {
                    let first = clip.first().ok_or("The reference has no frames.")?;
                    if clip.iter().any(|frame| (frame.width, frame.height) != (first.width, first.height)) {
                        return Err("The reference's frames are not all of one size.".into());
                    }
                    let pointers: Vec<*mut c_void> = clip.iter().map(|frame| pointer(frame)).collect();
                    let frames = self.api.described(&pointers, first.width, first.height)?;
                    (functions.job_clone)(self.handle, &frames, &c, &mut handle)
                }
            }
        })?;
        let _ = (&pixels, &image, &condition_pointer);
        Ok(EngineJob { api: self.api.clone(), handle })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // SAFETY: the handle is ours and destroyed once.
        unsafe { (self.api.functions.engine_destroy)(&mut self.handle) };
    }
}

/// How far a clone is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// What is being done.
    pub stage: &'static str,
    pub step: u32,
    pub total: u32,
    pub seconds_left: Option<f64>,
    /// Share of all work, 0 to 1, as far as stages tell.
    pub share: f64,
}

/// A running clone; cancelled when dropped before its end.
pub struct EngineJob {
    api: Arc<Api>,
    handle: u64,
}

impl EngineJob {
    /// Waits a little; true when the job has ended well.
    ///
    /// # Errors
    /// When it was cancelled, or failed.
    pub fn wait(&self, milliseconds: i64) -> Result<bool, Stop> {
        // SAFETY: takes no pointer.
        let status = unsafe { (self.api.functions.job_wait)(self.handle, milliseconds) };
        match status {
            _ if status == Status::Ok as u32 => Ok(true),
            _ if status == Status::Timeout as u32 => Ok(false),
            _ if status == Status::Cancelled as u32 => Err(Stop::Cancelled),
            _ => Err(Stop::Failed(self.error(status))),
        }
    }

    fn error(&self, status: u32) -> String {
        let (mut needed, text) = (0, self.api.functions.job_error);
        // SAFETY: with no buffer only the size is told.
        unsafe { text(self.handle, std::ptr::null_mut(), 0, &mut needed) };
        let mut buffer = vec![0_u8; needed.max(1)];
        // SAFETY: the buffer has the size told.
        if unsafe { text(self.handle, buffer.as_mut_ptr().cast(), buffer.len(), &mut needed) } != Status::Ok as u32 {
            return format!("The engine failed with status {status}.");
        }
        sentence(&String::from_utf8_lossy(buffer.split(|byte| *byte == 0).next().unwrap_or_default()))
    }

    pub fn cancel(&self) {
        // SAFETY: takes no pointer.
        unsafe { (self.api.functions.job_cancel)(self.handle) };
    }

    pub fn progress(&self) -> Result<Progress> {
        let mut progress = self.api.made(self.api.functions.progress_init)?;
        // SAFETY: the structure is initialised.
        self.api.check(unsafe { (self.api.functions.job_progress)(self.handle, &mut progress) })?;
        // The share of all work at which each stage begins: nearly all of it is making the clip.
        const STAGES: [(&str, f64); 6] = [
            ("Loading networks", 0.0),
            ("Encoding", 0.02),
            ("Reading the motion", 0.06),
            ("Making the clip", 0.1),
            ("Decoding", 0.94),
            ("", 1.0),
        ];
        let at = (progress.stage as usize).min(STAGES.len() - 2);
        let done = f64::from(progress.step) / f64::from(progress.total.max(1));
        let share = STAGES[at].1 + (STAGES[at + 1].1 - STAGES[at].1) * done.min(1.0);
        Ok(Progress {
            stage: STAGES[at].0,
            step: progress.step,
            total: progress.total,
            seconds_left: Some(progress.seconds_left).filter(|seconds| seconds.is_finite()),
            share,
        })
    }

    /// The finished clip: width, height, and its frames one after another.
    pub fn frames(&self) -> Result<(usize, usize, Vec<u8>)> {
        let mut frames = self.api.made(self.api.functions.frames_init)?;
        let get = self.api.functions.job_frames;
        // SAFETY: without memory only the sizes are told.
        self.api.check(unsafe { get(self.handle, &mut frames) })?;
        let (width, height) = (frames.width as usize, frames.height as usize);
        let mut data = vec![0_u8; frames.count as usize * width * height * 3];
        frames.data = data.as_mut_ptr().cast();
        // SAFETY: the memory has the size told: RGB of 8 bit without gaps, as initialised.
        self.api.check(unsafe { get(self.handle, &mut frames) })?;
        Ok((width, height, data))
    }

    /// The motion that it was made from.
    pub fn motion(&self) -> Result<Motion> {
        let mut handle = 0;
        // SAFETY: the pointer is of a living value.
        self.api.check(unsafe { (self.api.functions.job_motion)(self.handle, &mut handle) })?;
        Ok(Motion { api: self.api.clone(), handle })
    }
}

impl Drop for EngineJob {
    fn drop(&mut self) {
        // SAFETY: the handle is ours and destroyed once.
        unsafe { (self.api.functions.job_destroy)(&mut self.handle) };
    }
}
