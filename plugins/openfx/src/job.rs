//! Clones at work: one thread of the plugin runs them one after another, whatever instances ask for them.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::cache::{Cache, Clip};
use crate::engine::{self, Device, Engine, Reference, Settings};
use crate::instance;
use crate::pixels::Picture;
use crate::reference::ClipFile;

/// How often a running job is looked at.
const POLL: Duration = Duration::from_millis(50);
/// How often instances are told.
const TELL: Duration = Duration::from_millis(500);
/// A job goes on this long when no instance waits for it: hosts destroy and make instances anew when the user edits.
const PATIENCE: Duration = Duration::from_secs(30);
/// An engine that has nothing to do gives its memory back after this.
const IDLE: Duration = Duration::from_secs(120);

/// Where the motion comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// The frames of the reference, as many as the settings say.
    Frames(Vec<Arc<Picture>>),
    /// A motion that was kept.
    Motion(String),
    /// A file, from one frame to another or as a whole.
    File { file: ClipFile, range: Option<[i32; 2]> },
}

/// All that a clone needs.
#[derive(Debug, Clone)]
pub struct Request {
    pub bundle: String,
    pub device: Device,
    pub settings: Settings,
    pub source: Source,
    /// How far apart the frames stand in the reference.
    pub spacing: f64,
    pub cache: Cache,
}

impl Request {
    /// A name for everything that the result depends on.
    ///
    /// # Errors
    /// When the bundle or a file cannot be read.
    pub fn key(&self) -> Result<String, String> {
        let mut hash = blake3::Hasher::new();
        let mut add = |bytes: &[u8]| {
            hash.update(&(bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        add(env!("CARGO_PKG_VERSION").as_bytes());
        add(&crate::model::manifest(&self.bundle)?);
        // The picture is hashed, not printed.
        let (image, settings) = (&self.settings.image, Settings { image: None, ..self.settings.clone() });
        add(format!("{settings:?} {:?} {:?}", self.device, self.spacing).as_bytes());
        if let Some(image) = image {
            add(format!("{} {} {:?}", image.frame, image.sketch, image.strength).as_bytes());
            add(format!("{}x{}", image.picture.width, image.picture.height).as_bytes());
            add(&image.picture.data);
        }
        match &self.source {
            Source::Frames(frames) => frames.iter().for_each(|frame| {
                add(format!("{}x{}", frame.width, frame.height).as_bytes());
                add(&frame.data);
            }),
            Source::Motion(file) => add(&identity(file)?),
            Source::File { file, range } => {
                add(&identity(&file.path.to_string_lossy())?);
                add(format!("{range:?}").as_bytes());
            }
        }
        Ok(hash.finalize().to_hex().as_str()[..32].to_string())
    }
}

/// What tells one file from another, and from itself after a change.
fn identity(file: &str) -> Result<Vec<u8>, String> {
    let metadata = Path::new(file).metadata().map_err(|e| format!("{file}: {e}."))?;
    let changed = metadata.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    Ok(format!("{file} {} {changed:?}", metadata.len()).into_bytes())
}

/// How a job stands.
#[derive(Clone)]
pub enum Standing {
    Waiting,
    Running(String, f64),
    Done(Arc<Clip>),
    Failed(String),
    Cancelled,
}

/// A clone that was asked for.
pub struct Job {
    pub key: String,
    cancelled: AtomicBool,
    standing: Mutex<Standing>,
}

impl Job {
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    pub fn standing(&self) -> Standing {
        lock(&self.standing).clone()
    }

    pub fn has_ended(&self) -> bool {
        !matches!(*lock(&self.standing), Standing::Waiting | Standing::Running(..))
    }
}

/// The thread's jobs, the first of which is at work.
#[derive(Default)]
struct Queue {
    jobs: Mutex<VecDeque<(Arc<Job>, Request)>>,
    changed: Condvar,
    closing: AtomicBool,
}

struct Worker {
    queue: Arc<Queue>,
    thread: JoinHandle<()>,
}

static WORKER: Mutex<Option<Worker>> = Mutex::new(None);

/// What is behind a lock holds whatever panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a clone, or joins the one that already makes the same clip. `join` is given the job before it can end, so that
/// whoever it makes wait hears of the end in any case; where it says false, nothing is begun.
///
/// # Errors
/// When there can be no thread.
pub fn submit(key: String, request: Request, join: impl FnOnce(&Arc<Job>) -> bool) -> Result<(), String> {
    let mut worker = lock(&WORKER);
    if worker.is_none() {
        let queue = Arc::new(Queue::default());
        let jobs = queue.clone();
        let thread = std::thread::Builder::new().name("motionclone-openfx".into()).spawn(move || work(&jobs));
        let thread = thread.map_err(|e| format!("There can be no thread for the work: {e}."))?;
        *worker = Some(Worker { queue, thread });
    }
    let Some(Worker { queue, .. }) = &*worker else { return Err("There is no thread for the work.".into()) };
    let mut jobs = lock(&queue.jobs);
    let same = jobs.iter().find(|(job, _)| job.key == key && !job.cancelled.load(Ordering::Relaxed));
    if let Some((job, _)) = same {
        join(job);
        return Ok(());
    }
    let job = Arc::new(Job { key, cancelled: AtomicBool::new(false), standing: Mutex::new(Standing::Waiting) });
    if join(&job) {
        jobs.push_back((job, request));
        queue.changed.notify_all();
    }
    Ok(())
}

/// Joins the job that makes a clip, if there is one, as [`submit`] does.
pub fn find(key: &str, join: impl FnOnce(&Arc<Job>)) {
    let worker = lock(&WORKER);
    let Some(Worker { queue, .. }) = &*worker else { return };
    let jobs = lock(&queue.jobs);
    let found = jobs.iter().find(|(job, _)| job.key == key && !job.cancelled.load(Ordering::Relaxed));
    if let Some((job, _)) = found {
        join(job);
    }
}

/// Cancels everything and waits until the thread has ended.
pub fn stop() {
    let worker = lock(&WORKER).take();
    if let Some(Worker { queue, thread }) = worker {
        queue.closing.store(true, Ordering::Relaxed);
        lock(&queue.jobs).iter().for_each(|(job, _)| job.cancel());
        queue.changed.notify_all();
        // It catches its panics.
        let _ = thread.join();
    }
}

fn work(queue: &Queue) {
    let mut kept: Option<(String, Device, Engine)> = None;
    loop {
        let mut jobs = lock(&queue.jobs);
        let (job, request) = loop {
            if queue.closing.load(Ordering::Relaxed) {
                return;
            }
            if let Some(next) = jobs.front() {
                break next.clone();
            }
            let (waited, timeout) = queue.changed.wait_timeout(jobs, IDLE).unwrap_or_else(PoisonError::into_inner);
            jobs = waited;
            if timeout.timed_out() && jobs.is_empty() {
                kept = None;
            }
        };
        drop(jobs);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| clone(&job, &request, &mut kept)));
        let outcome = outcome.unwrap_or_else(|_| Err(Some("The plugin failed; this is a bug in it.".into())));
        *lock(&job.standing) = match outcome {
            Ok(clip) => Standing::Done(clip),
            Err(Some(message)) => Standing::Failed(message),
            Err(None) => Standing::Cancelled,
        };
        // Those who join it while it is in the queue are told.
        lock(&queue.jobs).pop_front();
        instance::tell(&job);
    }
}

/// Makes a clip. An error without text is a cancelled job.
fn clone(
    job: &Arc<Job>,
    request: &Request,
    kept: &mut Option<(String, Device, Engine)>,
) -> Result<Arc<Clip>, Option<String>> {
    let cancelled = || job.cancelled.load(Ordering::Relaxed);
    if cancelled() {
        return Err(None);
    }
    if let Some(clip) = request.cache.load(&job.key) {
        return Ok(clip);
    }
    let say = |text: String, share: f64| {
        *lock(&job.standing) = Standing::Running(text, share);
        instance::tell(job);
    };
    let (mut spacing, mut read) = (request.spacing, Vec::new());
    if let Source::File { file, range } = &request.source {
        say("Reading the reference…".into(), 0.0);
        (read, spacing) = file.sample(request.settings.frames as usize, *range, &cancelled)?;
    }
    let api = engine::api()?;
    if kept.as_ref().is_none_or(|(bundle, device, _)| (bundle, *device) != (&request.bundle, request.device)) {
        say("Opening the model…".into(), 0.0);
        // First the one from before, which holds memory.
        *kept = None;
        *kept = Some((request.bundle.clone(), request.device, Engine::open(&api, &request.bundle, request.device)?));
    }
    let Some((_, _, engine)) = kept else { return Err(Some("There is no engine.".into())) };
    let motion;
    let reference = match &request.source {
        Source::Frames(frames) => Reference::Clip(frames),
        Source::File { .. } => Reference::Clip(&read),
        Source::Motion(file) => {
            motion = api.motion(file)?;
            Reference::Motion(&motion)
        }
    };
    let running = engine.start(&reference, &request.settings)?;
    let (mut told, mut attended) = (Instant::now(), Instant::now());
    while !running.wait(POLL.as_millis() as i64)? {
        if instance::is_awaited(job) {
            attended = Instant::now();
        }
        if cancelled() || attended.elapsed() > PATIENCE {
            running.cancel();
        }
        if told.elapsed() >= TELL {
            told = Instant::now();
            let progress = running.progress()?;
            let mut text = progress.stage.to_string();
            if progress.total > 1 {
                text += &format!(", {} of {}", progress.step, progress.total);
            }
            if let Some(seconds) = progress.seconds_left.filter(|seconds| *seconds >= 1.0) {
                let (minutes, rest) = (seconds as u64 / 60, seconds as u64 % 60);
                let left = if minutes > 0 { format!("{minutes} min {rest} s") } else { format!("{rest} s") };
                text += &format!(", about {left} left");
            }
            say(text, progress.share);
        }
    }
    let (width, height, data) = running.frames()?;
    let motion = running.motion()?;
    let clip = Clip { width, height, spacing, data };
    Ok(request.cache.store(&job.key, clip, |file| motion.save(file))?)
}
