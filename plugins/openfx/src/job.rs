//! Clones at work: one thread of the plugin runs them one after another, whatever instances ask for them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::clips::clip::Clip;
use crate::engine::{self, Api, Device, Engine, Reference};
use crate::request::{Request, Source};
use crate::stop::Stop;
use crate::sync::lock;

/// How often a running job is looked at.
const POLL: Duration = Duration::from_millis(50);
/// How often instances are told.
const NOTIFY_INTERVAL: Duration = Duration::from_millis(500);
/// A job goes on this long when no instance waits for it: hosts destroy and make instances anew when the user edits.
const ORPHAN_TIMEOUT: Duration = Duration::from_secs(30);
/// An engine that has nothing to do gives its memory back after this.
const IDLE: Duration = Duration::from_secs(120);
/// The host's end waits this long for the thread, which may be inside a library that cannot be stopped.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// A job's status.
#[derive(Debug, Clone)]
pub enum Status {
    Waiting,
    /// The work at hand in words, and the share of all work that is done.
    Running(String, f64),
    /// The clip, and why it could not be kept where it should be.
    Done(Arc<Clip>, Option<String>),
    Failed(String),
    Cancelled,
}

/// Those who wait for jobs.
pub trait Listener: Sync {
    /// A job's status is new. Called on the plugin's own thread.
    fn notify(&self, job: &Arc<Job>);
    /// Whether anyone waits for a job.
    fn waits(&self, job: &Arc<Job>) -> bool;
}

/// A clone that was asked for.
pub struct Job {
    pub key: String,
    cancelled: AtomicBool,
    /// Renders that wait for it.
    renders: AtomicUsize,
    status: Mutex<Status>,
    changed: Condvar,
}

impl Job {
    fn new(key: String) -> Arc<Self> {
        Arc::new(Self {
            key,
            cancelled: AtomicBool::new(false),
            renders: AtomicUsize::new(0),
            status: Mutex::new(Status::Waiting),
            changed: Condvar::new(),
        })
    }

    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    pub fn status(&self) -> Status {
        lock(&self.status).clone()
    }

    pub fn has_ended(&self) -> bool {
        !matches!(*lock(&self.status), Status::Waiting | Status::Running(..))
    }

    fn set_status(&self, status: Status) {
        *lock(&self.status) = status;
        self.changed.notify_all();
    }

    /// Waits for the end as long as `goes_on`, which is asked often and told the share of the work that is done. Gives
    /// the status at that time.
    pub fn wait(&self, mut goes_on: impl FnMut(f64) -> bool) -> Status {
        self.renders.fetch_add(1, Ordering::Relaxed);
        while !self.has_ended() {
            let share = if let Status::Running(_, share) = self.status() { share } else { 0.0 };
            if !goes_on(share) {
                break;
            }
            let status = lock(&self.status);
            if matches!(*status, Status::Waiting | Status::Running(..)) {
                drop(self.changed.wait_timeout(status, POLL));
            }
        }
        self.renders.fetch_sub(1, Ordering::Relaxed);
        self.status()
    }
}

/// The thread's jobs, the first of which is at work.
struct Queue {
    jobs: Mutex<VecDeque<(Arc<Job>, Request)>>,
    changed: Condvar,
    closing: AtomicBool,
    listener: &'static dyn Listener,
}

struct Worker {
    queue: Arc<Queue>,
    thread: JoinHandle<()>,
}

static WORKER: Mutex<Option<Worker>> = Mutex::new(None);

/// Starts a clone, or joins the one that already makes the same clip. `join` is given the job before it can end, so that
/// whoever it makes wait hears of the end in any case; where it says false, nothing is begun.
///
/// # Errors
/// When there can be no thread.
pub fn submit(
    key: String,
    request: Request,
    listener: &'static dyn Listener,
    join: impl FnOnce(&Arc<Job>) -> bool,
) -> Result<(), String> {
    let mut worker = lock(&WORKER);
    if worker.is_none() {
        let queue =
            Queue { jobs: Mutex::default(), changed: Condvar::new(), closing: AtomicBool::new(false), listener };
        let queue = Arc::new(queue);
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
    let job = Job::new(key);
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

/// Cancels everything and waits until the thread has ended, but not without end: it may be inside a library that cannot
/// be stopped. True when it has ended.
pub fn stop() -> bool {
    let Some(Worker { queue, thread }) = lock(&WORKER).take() else { return true };
    queue.closing.store(true, Ordering::Relaxed);
    lock(&queue.jobs).iter().for_each(|(job, _)| job.cancel());
    queue.changed.notify_all();
    let end = Instant::now() + STOP_TIMEOUT;
    while !thread.is_finished() {
        if Instant::now() > end {
            // The plugin's code stays loaded, so the thread can end by itself.
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    // It catches its panics.
    let _ = thread.join();
    true
}

/// The engine from the last job, with what it was opened with.
type Kept = Option<(String, Device, Engine)>;

fn work(queue: &Queue) {
    let mut kept: Kept = None;
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
        let run = Run { job: &job, request: &request, listener: queue.listener };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run.clone(&mut kept)));
        let outcome = outcome.unwrap_or_else(|_| Err("The plugin failed; this is a bug in it.".into()));
        let status = match outcome {
            Ok((clip, problem)) => Status::Done(clip, problem),
            Err(Stop::Failed(message)) => Status::Failed(message),
            Err(Stop::Cancelled) => Status::Cancelled,
        };
        job.set_status(status);
        // Those who join it while it is in the queue are told.
        lock(&queue.jobs).pop_front();
        queue.listener.notify(&job);
    }
}

/// A job at work.
struct Run<'a> {
    job: &'a Arc<Job>,
    request: &'a Request,
    listener: &'a dyn Listener,
}

impl Run<'_> {
    fn is_cancelled(&self) -> bool {
        self.job.cancelled.load(Ordering::Relaxed)
    }

    fn report(&self, text: String, share: f64) {
        self.job.set_status(Status::Running(text, share));
        self.listener.notify(self.job);
    }

    fn is_attended(&self) -> bool {
        self.job.renders.load(Ordering::Relaxed) > 0 || self.listener.waits(self.job)
    }

    /// Makes the clip, and says why it could not be kept.
    fn clone(&self, kept: &mut Kept) -> Result<(Arc<Clip>, Option<String>), Stop> {
        let (job, request) = (self.job, self.request);
        if self.is_cancelled() {
            return Err(Stop::Cancelled);
        }
        if let Some(clip) = request.store.load(&job.key) {
            let problem = request.store.keep(&job.key, &clip, &request.about());
            return Ok((clip, problem));
        }
        // Known before the work and not after it.
        let problem = request.store.check(request.bytes()).err();
        let problem = problem.map(|problem| format!(" ({problem})")).unwrap_or_default();
        let (mut spacing, mut read) = (request.spacing, Vec::new());
        if let Source::File { file, range } = &request.source {
            self.report(format!("Reading the reference…{problem}"), 0.0);
            let frames = request.settings.frames as usize;
            (read, spacing) = file.sample(frames, *range, &|| self.is_cancelled())?;
        }
        let api = engine::api()?;
        let engine = self.open(&api, kept, &problem)?;
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
        let (mut notified, mut attended, mut share) = (Instant::now(), Instant::now(), 0.0_f64);
        while !running.wait(POLL.as_millis() as i64)? {
            if self.is_attended() {
                attended = Instant::now();
            }
            if self.is_cancelled() || attended.elapsed() > ORPHAN_TIMEOUT {
                running.cancel();
            }
            if notified.elapsed() >= NOTIFY_INTERVAL {
                notified = Instant::now();
                let progress = running.progress()?;
                // Stages may come in another order than usual; what is done stays done.
                share = share.max(progress.share);
                self.report(in_words(&progress) + &problem, share);
            }
        }
        let (width, height, data) = running.frames()?;
        let motion = running.motion()?;
        let clip = Arc::new(Clip { width, height, spacing, data });
        let problem = request.store.store(&job.key, clip.clone(), &request.about(), |file| motion.save(file));
        Ok((clip, problem))
    }

    fn open<'k>(&self, api: &Arc<Api>, kept: &'k mut Kept, problem: &str) -> Result<&'k Engine, Stop> {
        let Request { bundle, device, .. } = self.request;
        if kept.as_ref().is_none_or(|(kept, on, _)| (kept, on) != (bundle, device)) {
            self.report(format!("Opening the model…{problem}"), 0.0);
            // First the one from before, which holds memory.
            *kept = None;
            *kept = Some((bundle.clone(), *device, Engine::open(api, bundle, *device)?));
        }
        kept.as_ref().map(|(_, _, engine)| engine).ok_or_else(|| "There is no engine.".into())
    }
}

fn in_words(progress: &engine::Progress) -> String {
    let mut text = progress.stage.to_string();
    if progress.total > 1 {
        text += &format!(", {} of {}", progress.step, progress.total);
    }
    if let Some(seconds) = progress.seconds_left.filter(|seconds| *seconds >= 1.0) {
        let (minutes, rest) = (seconds as u64 / 60, seconds as u64 % 60);
        let left = if minutes > 0 { format!("{minutes} min {rest} s") } else { format!("{rest} s") };
        text += &format!(", about {left} left");
    }
    text
}
