//! One thread an engine: it owns the model and takes jobs in the order in which they were started.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ffi::{CString, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use motionclone_onnx::manifest::Manifest;

use super::boundary::Failure;
use super::floating_point::HostEnvironment;
use super::{LogFunction, LogLevel, Status};
use crate::cancel::Cancel;
use crate::engine::Engine;
use crate::error::Error;
use crate::job::{Event, Progress, Stage};
use crate::media::frames::Frames;
use crate::motion::Motion;
use crate::runtime::Device;
use crate::settings::Settings;
use crate::sync::{Arc, AtomicBool, Builder, Condvar, JoinHandle, Mutex, Ordering, PoisonError, current, lock};

/// Where a host hears what an engine has to say, until it is silenced.
pub struct Log {
    pub function: LogFunction,
    pub user_data: *mut c_void,
    pub silent: AtomicBool,
}

// SAFETY: the pointer is the host's own and only handed back to it; the header says which threads call.
unsafe impl Send for Log {}
// SAFETY: as above; the library never looks behind the pointer.
unsafe impl Sync for Log {}

impl Log {
    /// Of a function and what it is handed; both may be null.
    pub fn new(function: LogFunction, user_data: *mut c_void) -> Self {
        Self { function, user_data, silent: AtomicBool::new(false) }
    }

    pub fn say(&self, level: LogLevel, message: &str) {
        let Some(function) = self.function.filter(|_| !self.silent.load(Ordering::SeqCst)) else { return };
        let message = CString::new(message.replace('\0', " ")).unwrap_or_default();
        // SAFETY: the header obliges the host to give a function that may be called from any thread while the engine
        // lives; the message lives until the call returns.
        unsafe { function(level as u32, message.as_ptr(), self.user_data) };
    }
}

/// What a job is asked to do.
pub enum Work {
    /// Read a clip's motion.
    Extract(Frames, Settings),
    /// Read a clip's motion and clone it.
    CloneClip(Frames, Settings),
    /// Clone a motion that is at hand.
    CloneMotion(Arc<Motion>, Settings),
}

/// A job's status.
#[derive(Clone)]
pub struct JobStatus {
    /// `None` until a worker takes the job.
    pub progress: Option<Progress>,
    /// How many previews there have been.
    pub previews: u32,
    pub preview: Option<Arc<Frames>>,
    pub motion: Option<Arc<Motion>>,
    pub frames: Option<Arc<Frames>>,
    /// The result, once it has ended.
    pub end: Option<Result<(), Failure>>,
}

/// One extraction or clone.
pub struct Job {
    cancel: Cancel,
    work: Mutex<Option<Work>>,
    status: Mutex<JobStatus>,
    ended: Condvar,
}

impl Job {
    fn new(work: Work) -> Self {
        let status = JobStatus { progress: None, previews: 0, preview: None, motion: None, frames: None, end: None };
        Self {
            cancel: Cancel::default(),
            work: Mutex::new(Some(work)),
            status: Mutex::new(status),
            ended: Condvar::new(),
        }
    }

    pub fn status(&self) -> JobStatus {
        lock(&self.status).clone()
    }

    /// Asks for the end. A job that has not begun ends here, one that runs ends on its worker, within a step.
    pub fn cancel(&self) {
        self.cancel.cancel();
        if lock(&self.work).take().is_some() {
            self.finish(Err(Error::cancelled().into()));
        }
    }

    /// Waits for the end, without a limit when none is given. `None` when the time is over.
    pub fn wait(&self, limit: Option<Duration>) -> Option<Result<(), Failure>> {
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let mut status = lock(&self.status);
        loop {
            if let Some(end) = &status.end {
                return Some(end.clone());
            }
            status = match deadline {
                None => self.ended.wait(status).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
                    self.ended.wait_timeout(status, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn report(&self, mut progress: Progress) {
        let mut status = lock(&self.status);
        if let Some(preview) = progress.preview.take() {
            status.preview = Some(Arc::new(preview));
            status.previews = status.previews.saturating_add(1);
        }
        status.progress = Some(progress);
    }

    fn finish(&self, end: Result<(), Failure>) {
        lock(&self.status).end.get_or_insert(end);
        self.ended.notify_all();
    }
}

/// An engine as the host holds it.
pub struct Worker {
    /// What the bundle holds.
    pub manifest: Manifest,
    queue: Arc<Queue>,
    log: Arc<Log>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Queue {
    state: Mutex<QueueState>,
    wake: Condvar,
}

#[derive(Default)]
struct QueueState {
    waiting: VecDeque<Arc<Job>>,
    running: Option<Arc<Job>>,
    closed: bool,
    /// Where the engine computes, or why it cannot, once that is known.
    opened: Option<Result<Device, Failure>>,
    /// Whether the engine's thread has let go of the engine.
    ended: bool,
}

impl Queue {
    fn next(&self) -> Option<Arc<Job>> {
        let mut state = lock(&self.state);
        state.running = None;
        loop {
            if state.closed {
                return None;
            }
            if let Some(job) = state.waiting.pop_front() {
                state.running = Some(job.clone());
                return Some(job);
            }
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until the state tells what is asked, without a limit when no deadline is given. `None` when the time is
    /// over.
    fn wait_for<T>(&self, deadline: Option<Instant>, ask: impl Fn(&QueueState) -> Option<T>) -> Option<T> {
        let mut state = lock(&self.state);
        loop {
            if let Some(answer) = ask(&state) {
                return Some(answer);
            }
            state = match deadline {
                None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
                    self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

/// Does a job's work.
pub type Take = fn(&mut Engine, Work, &Job, &Log) -> Result<(), Failure>;

thread_local! {
    static IS_WORKER: Cell<bool> = const { Cell::new(false) };
}

/// Refuses a call that would wait for a worker on a worker's own thread, which is where a log function runs.
pub fn may_wait() -> Result<(), Failure> {
    if IS_WORKER.try_with(Cell::get).unwrap_or(false) {
        return Err(Failure::new(
            Status::WrongThread,
            "this call waits for an engine's thread and must not come from a log function",
        ));
    }
    Ok(())
}

impl Worker {
    /// Starts an engine's thread, which opens the engine and then takes jobs.
    pub fn start(
        manifest: Manifest,
        log: Log,
        open: impl FnOnce(&Log) -> Result<Engine, Failure> + Send + 'static,
    ) -> Result<Self, Failure> {
        Self::start_with(manifest, log, open, take)
    }

    /// The same with another way to do jobs.
    pub fn start_with(
        manifest: Manifest,
        log: Log,
        open: impl FnOnce(&Log) -> Result<Engine, Failure> + Send + 'static,
        take: Take,
    ) -> Result<Self, Failure> {
        let (queue, log) = (Arc::new(Queue::default()), Arc::new(log));
        let (jobs, own_log) = (queue.clone(), log.clone());
        let thread = Builder::new()
            .name("motionclone".into())
            .spawn(move || run(open, &jobs, &own_log, take))
            .map_err(|e| Failure::new(Status::Failed, format!("no thread for the engine: {e}")))?;
        Ok(Self { manifest, queue, log, thread: Mutex::new(Some(thread)) })
    }

    /// Where the engine computes, or why it cannot. `None` while it is being opened.
    pub fn opened(&self) -> Option<Result<Device, Failure>> {
        lock(&self.queue.state).opened.clone()
    }

    /// Waits until the engine is open or cannot be, without a limit when none is given. `None` when the time is over.
    pub fn wait(&self, limit: Option<Duration>) -> Option<Result<Device, Failure>> {
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        self.queue.wait_for(deadline, |state| state.opened.clone())
    }

    /// Puts a job behind those that wait.
    pub fn enqueue(&self, work: Work) -> Result<Arc<Job>, Failure> {
        let job = Arc::new(Job::new(work));
        let mut state = lock(&self.queue.state);
        if state.closed {
            return Err(Failure::new(Status::InvalidHandle, "the engine is being destroyed"));
        }
        // Jobs that were cancelled while they waited are of no more interest.
        state.waiting.retain(|job| lock(&job.status).end.is_none());
        state.waiting.push_back(job.clone());
        drop(state);
        self.queue.wake.notify_all();
        Ok(job)
    }

    /// Says nothing more to the host.
    pub fn silence(&self) {
        self.log.silent.store(true, Ordering::SeqCst);
    }

    /// Takes no more jobs and cancels those that there are.
    pub fn close(&self) {
        let mut state = lock(&self.queue.state);
        state.closed = true;
        let running = state.running.clone();
        let jobs: Vec<Arc<Job>> = state.waiting.drain(..).chain(running).collect();
        drop(state);
        jobs.iter().for_each(|job| job.cancel());
        self.queue.wake.notify_all();
    }

    /// Cancels every job and waits for the thread's end, at most until the deadline. A thread that has not ended by
    /// then ends alone, and says nothing more. Whether it has ended.
    pub fn stop(&self, deadline: Instant) -> bool {
        self.close();
        let Some(thread) = lock(&self.thread).take() else { return lock(&self.queue.state).ended };
        if thread.thread().id() == current().id() {
            // The engine's thread itself ends the process, in a log function, where it is not inside a network.
            return true;
        }
        if self.queue.wait_for(Some(deadline), |state| state.ended.then_some(())).is_none() {
            self.silence();
            return false;
        }
        // A panic of the thread has nothing left to spoil.
        let _ = thread.join();
        true
    }
}

/// Tells whoever waits that the engine is gone, however its thread ends.
struct Ended<'a>(&'a Queue);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).ended = true;
        self.0.wake.notify_all();
    }
}

fn run(open: impl FnOnce(&Log) -> Result<Engine, Failure>, queue: &Queue, log: &Log, take: Take) {
    let _ended = Ended(queue);
    let _host = HostEnvironment::leave();
    IS_WORKER.set(true);
    let unless_closed = || {
        let closed = lock(&queue.state).closed;
        if closed {
            Err(Failure::new(Status::Cancelled, "the engine was destroyed while it was opened"))
        } else {
            open(log)
        }
    };
    let mut engine =
        catch_unwind(AssertUnwindSafe(unless_closed)).unwrap_or_else(|panic| Err(Failure::panicked(panic.as_ref())));
    if let Err(failure) = &engine
        && failure.status != Status::Cancelled
    {
        log.say(LogLevel::Error, &failure.text);
    }
    lock(&queue.state).opened = Some(engine.as_ref().map(Engine::device).map_err(Failure::clone));
    queue.wake.notify_all();
    while let Some(job) = queue.next() {
        let Some(work) = lock(&job.work).take() else { continue };
        let engine = match &mut engine {
            Ok(engine) => engine,
            Err(failure) => {
                job.finish(Err(failure.clone()));
                continue;
            }
        };
        job.report(Progress { stage: Stage::Load, step: 0, total: 0, loss: None, seconds_left: None, preview: None });
        // The networks are whole at any time, so a panic leaves the engine usable; what it was doing is forgotten.
        let end = catch_unwind(AssertUnwindSafe(|| take(engine, work, &job, log)));
        let end = match end {
            Ok(result) => result,
            Err(panic) => {
                engine.keep(&[]);
                Err(Failure::panicked(panic.as_ref()))
            }
        };
        if let Err(failure) = &end
            && failure.status != Status::Cancelled
        {
            log.say(LogLevel::Error, &failure.text);
        }
        job.finish(end);
    }
}

/// Does a job's work with the networks.
pub fn take(engine: &mut Engine, work: Work, job: &Job, log: &Log) -> Result<(), Failure> {
    let mut watch = |event| match event {
        Event::Progress(progress) => job.report(progress),
        Event::Warning(text) => log.say(LogLevel::Warning, &text),
    };
    job.cancel.check()?;
    let (motion, settings) = match work {
        Work::Extract(clip, settings) => {
            let motion = engine.extract(&clip, &settings, &mut watch, &job.cancel)?;
            lock(&job.status).motion = Some(Arc::new(motion));
            return Ok(());
        }
        Work::CloneClip(clip, settings) => {
            let motion = engine.extract(&clip, &settings, &mut watch, &job.cancel)?;
            (Arc::new(motion), settings)
        }
        Work::CloneMotion(motion, settings) => (motion, settings),
    };
    lock(&job.status).motion = Some(motion.clone());
    let frames = engine.clone_motion(&motion, &settings, &mut watch, &job.cancel)?;
    lock(&job.status).frames = Some(Arc::new(frames));
    Ok(())
}
