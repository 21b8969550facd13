//! The C library's threads in thousands of orders. Handles, queues, jobs and cancellation are compiled here once more,
//! with locks, condition variables and threads that give control to shuttle's scheduler at every use. It then tries
//! orders that a real processor takes once in a blue moon, each of them the same in every run, and finds what waits
//! without end. Only the networks are replaced, by ones that do nothing until they are told to stop. What it prints of a
//! failure runs that order again with `shuttle::replay`.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use motionclone::capi::{LogFunction, LogLevel, Status};
use motionclone::media::frames::Frames;
use motionclone::motion::{Motion, MotionInfo};
use motionclone::onnx::manifest::Manifest;
use motionclone::settings::Settings;
// The names under which the sources below find what they use.
use motionclone::{error, job, media, motion, settings};
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::RandomScheduler;
use shuttle::{Config, Runner, thread};

use self::boundary::Failure;
use self::engine::Engine;
use self::handles::Table;
use self::worker::{Job, Log, Work, Worker};

#[path = "../src/capi/boundary.rs"]
#[allow(dead_code, reason = "pointers of hosts are another test's")]
mod boundary;
#[path = "../src/cancel.rs"]
mod cancel;
#[path = "../src/capi/floating_point.rs"]
mod floating_point;
#[path = "../src/capi/handles.rs"]
#[allow(dead_code, reason = "the end of the process is another test's")]
mod handles;
#[path = "../src/capi/worker.rs"]
#[allow(dead_code, reason = "so are panics, and calls from a log function")]
mod worker;

/// Stands for `src/sync.rs`.
mod sync {
    pub use shuttle::sync::atomic::{AtomicBool, Ordering};
    pub use shuttle::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
    pub use shuttle::thread::{Builder, JoinHandle, current};

    pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

mod runtime {
    pub use motionclone::runtime::Device;
}

/// Stands for the engine and its networks.
mod engine {
    use motionclone::job::{Event, Progress, Stage, Watch};
    use shuttle::sync::atomic::AtomicBool as Flag;
    use shuttle::thread::yield_now;

    use super::*;
    use crate::cancel::Cancel;
    use crate::error::{Error, Result};
    use crate::runtime::Device;

    /// Jobs with this seed never end by themselves.
    pub const ENDLESS: u64 = u64::MAX;

    pub struct Engine {
        /// Whether this engine, which its thread owns, is there.
        pub alive: Arc<AtomicBool>,
        /// The seeds of the jobs that it made, in order.
        pub made: Arc<Mutex<Vec<u64>>>,
    }

    impl Drop for Engine {
        fn drop(&mut self) {
            self.alive.store(false, Ordering::SeqCst);
        }
    }

    impl Engine {
        pub fn device(&self) -> Device {
            Device::Cpu
        }

        pub fn keep(&mut self, _: &[()]) {}

        pub fn extract(&mut self, _: &Frames, settings: &Settings, watch: Watch, cancel: &Cancel) -> Result<Motion> {
            network(settings.seed == ENDLESS, watch, cancel)?;
            Ok(a_motion())
        }

        pub fn clone_motion(&mut self, _: &Motion, own: &Settings, watch: Watch, cancel: &Cancel) -> Result<Frames> {
            network(own.seed == ENDLESS, watch, cancel)?;
            cancel.check()?;
            network(false, watch, cancel)?;
            lock(&self.made).push(own.seed);
            Ok(a_clip())
        }
    }

    /// One run of a network, which ONNX Runtime ends when it is told to.
    fn network(endless: bool, watch: Watch, cancel: &Cancel) -> Result<()> {
        let preview = Some(a_clip());
        watch(Event::Progress(Progress {
            stage: Stage::Denoise,
            step: 0,
            total: 1,
            loss: None,
            seconds_left: None,
            preview,
        }));
        let told = Arc::new(Flag::new(false));
        let stop = told.clone();
        cancel.stoppable(
            move || stop.store(true, Ordering::SeqCst),
            || {
                for _ in (0..2).chain((0..usize::MAX).take_while(|_| endless)) {
                    if told.load(Ordering::SeqCst) {
                        return Err(Error::cancelled());
                    }
                    yield_now();
                }
                Ok(())
            },
        )?
    }
}

static MANIFEST: LazyLock<Manifest> =
    LazyLock::new(|| Manifest::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("onnx/demo/bundle")).unwrap());

fn a_clip() -> Frames {
    Frames { width: 1, height: 1, data: vec![1, 2, 3] }
}

fn settings(seed: u64) -> Settings {
    Settings { seed, ..Settings::new(&MANIFEST.defaults, "") }
}

fn a_motion() -> Motion {
    Motion { maps: Default::default(), info: MotionInfo::new(&MANIFEST, &settings(1), "") }
}

/// What the tests note down, unseen by the scheduler.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a test in many orders.
fn in_orders(orders: usize, test: impl Fn() + Send + Sync + 'static) {
    let mut config = Config::new();
    config.stack_size = 1 << 17;
    config.max_steps = shuttle::MaxSteps::FailAfter(2_000_000);
    Runner::new(RandomScheduler::new_from_seed(7, orders), config).run(test);
}

fn start_engine() -> (Worker, Arc<AtomicBool>, Arc<Mutex<Vec<u64>>>) {
    let (alive, made) = (Arc::new(AtomicBool::new(true)), Arc::default());
    let engine = Engine { alive: Arc::clone(&alive), made: Arc::clone(&made) };
    let log = Log::new(None, std::ptr::null_mut());
    (Worker::start(MANIFEST.clone(), log, |_| Ok(engine)).unwrap(), alive, made)
}

fn late() -> Instant {
    Instant::now() + Duration::from_secs(600)
}

fn stop(worker: &Worker) {
    assert!(worker.stop(late()), "the thread has ended");
}

#[track_caller]
fn assert_cancelled(end: Option<Result<(), Failure>>) {
    assert_eq!(end.unwrap().unwrap_err().status, Status::Cancelled);
}

#[test]
fn cancelling_ends_a_job_at_any_moment() {
    in_orders(20_000, || {
        let worker = start_engine().0;
        let job = worker.enqueue(Work::CloneClip(a_clip(), settings(engine::ENDLESS))).unwrap();
        let next = worker.enqueue(Work::CloneClip(a_clip(), settings(1))).unwrap();
        let other = job.clone();
        let waiting = thread::spawn(move || other.wait(None));
        let other = job.clone();
        let cancelling = thread::spawn(move || other.cancel());
        assert_cancelled(job.wait(None));
        assert_cancelled(waiting.join().unwrap());
        cancelling.join().unwrap();
        // The engine goes on.
        next.wait(None).unwrap().unwrap();
        assert_eq!(next.status().frames.as_deref(), Some(&a_clip()));
        stop(&worker);
    });
}

#[test]
fn jobs_run_in_the_order_in_which_they_were_started() {
    in_orders(20_000, || {
        let (worker, alive, made) = start_engine();
        let start = |seed| worker.enqueue(Work::CloneClip(a_clip(), settings(seed))).unwrap();
        let jobs = [start(1), start(2), start(3)];
        let second = jobs[1].clone();
        let cancelling = thread::spawn(move || second.cancel());
        jobs[2].wait(None).unwrap().unwrap();
        jobs[0].wait(Some(Duration::ZERO)).unwrap().unwrap();
        let second = jobs[1].wait(Some(Duration::ZERO)).unwrap();
        assert_eq!(*lock(&made), if second.is_ok() { vec![1, 2, 3] } else { vec![1, 3] });
        stop(&worker);
        assert!(!alive.load(Ordering::SeqCst), "the thread has ended");
        cancelling.join().unwrap();
    });
}

#[test]
fn what_waits_for_an_engine_that_cannot_be_opened_hears_why() {
    in_orders(20_000, || {
        let log = Log::new(None, std::ptr::null_mut());
        let refused = |_: &Log| Err(Failure::new(Status::Failed, "no device"));
        let worker = Arc::new(Worker::start(MANIFEST.clone(), log, refused).unwrap());
        let other = worker.clone();
        let waiting = thread::spawn(move || other.wait(None));
        let job = worker.enqueue(Work::CloneClip(a_clip(), settings(1))).unwrap();
        assert_eq!(job.wait(None).unwrap().unwrap_err().text, "no device");
        assert_eq!(waiting.join().unwrap().unwrap().unwrap_err().text, "no device");
        stop(&worker);
    });
}

#[test]
fn an_engine_may_be_destroyed_while_it_is_opened() {
    in_orders(20_000, || {
        let (worker, alive, _) = start_engine();
        let job = worker.enqueue(Work::CloneClip(a_clip(), settings(engine::ENDLESS))).unwrap();
        stop(&worker);
        assert!(worker.wait(None).is_some());
        assert_cancelled(job.wait(None));
        assert!(!alive.load(Ordering::SeqCst), "the engine is gone");
    });
}

/// Handles that all threads use, and what they know of the objects behind them.
#[derive(Default)]
struct Shared {
    table: Table,
    engines: [AtomicU64; 2],
    jobs: [AtomicU64; 4],
    motions: [AtomicU64; 2],
    alive: Mutex<HashMap<u64, Arc<AtomicBool>>>,
    /// Every job with the engine that it was given to.
    started: Mutex<Vec<(u64, Arc<Job>)>>,
    removed: Mutex<HashSet<u64>>,
}

/// One call of a random kind on random handles, as the functions of `src/capi` do it.
fn call(shared: &Shared) -> Result<(), Failure> {
    let table = &shared.table;
    let random = |below: usize| thread_rng().gen_range(0..below);
    let (engine, job, motion) = (&shared.engines[random(2)], &shared.jobs[random(4)], &shared.motions[random(2)]);
    let now = |place: &AtomicU64| place.load(Ordering::SeqCst);
    let removed = |handle: u64| assert!(lock(&shared.removed).insert(handle), "{handle:#x} was destroyed twice");
    match random(12) {
        0 => {
            let (worker, alive, _) = start_engine();
            let handle = table.insert(Arc::new(worker));
            lock(&shared.alive).insert(handle, alive);
            engine.store(handle, Ordering::SeqCst);
        }
        1 if random(3) == 0 => {
            let handle = now(engine);
            let worker = table.remove::<Worker>(handle)?;
            removed(handle);
            stop(&worker);
            // Between start and note of another thread it may not be known yet.
            let alive = lock(&shared.alive).get(&handle).cloned();
            assert!(
                !alive.is_some_and(|alive| alive.load(Ordering::SeqCst)),
                "a destroyed engine still has its thread"
            );
        }
        1..=4 => {
            let handle = now(engine);
            let worker = table.get::<Worker>(handle)?;
            let settings = settings(if random(2) == 0 { engine::ENDLESS } else { 1 });
            let started = worker.enqueue(match random(3) {
                0 => Work::Extract(a_clip(), settings),
                1 => Work::CloneClip(a_clip(), settings),
                _ => Work::CloneMotion(table.get::<Motion>(now(motion))?, settings),
            })?;
            lock(&shared.started).push((handle, started.clone()));
            job.store(table.insert(started), Ordering::SeqCst);
        }
        5 => drop(table.get::<Job>(now(job))?.wait(Some(Duration::ZERO))),
        6 => {
            let job = table.get::<Job>(now(job))?;
            job.cancel();
            // It has ended, ends at once, or ends within a step.
            let end = job.wait(None).unwrap();
            assert!(end.is_ok() || end.unwrap_err().status == Status::Cancelled);
        }
        7 => table.get::<Job>(now(job))?.cancel(),
        8 => {
            let status = table.get::<Job>(now(job))?.status();
            assert!(status.frames.is_none() || status.motion.is_some());
        }
        9 => {
            if let Some(found) = table.get::<Job>(now(job))?.status().motion {
                motion.store(table.insert(found), Ordering::SeqCst);
            }
        }
        10 => {
            let handle = now(motion);
            table.remove::<Motion>(handle)?;
            removed(handle);
        }
        _ => {
            let handle = now(job);
            let job = table.remove::<Job>(handle)?;
            removed(handle);
            job.cancel();
        }
    }
    Ok(())
}

fn mixed_calls(threads: usize, calls: usize) {
    let shared = Arc::new(Shared::default());
    let threads: Vec<_> = (0..threads)
        .map(|_| {
            let shared = shared.clone();
            thread::spawn(move || {
                for _ in 0..calls {
                    let Err(failure) = call(&shared) else { continue };
                    assert_eq!(failure.status, Status::InvalidHandle, "{}", failure.text);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let has_ended = |job: &Job| job.wait(Some(Duration::ZERO)).is_some();
    let destroyed = lock(&shared.removed).clone();
    for (engine, job) in lock(&shared.started).iter() {
        assert!(!destroyed.contains(engine) || has_ended(job), "a destroyed engine has left a job behind");
    }
    assert!(shared.table.destroy_all(late()), "every thread has ended");
    assert!(lock(&shared.alive).values().all(|alive| !alive.load(Ordering::SeqCst)), "every thread has ended");
    assert!(lock(&shared.started).iter().all(|(_, job)| has_ended(job)), "every job has ended");
}

#[test]
fn a_few_calls_may_come_in_any_order() {
    in_orders(20_000, || mixed_calls(3, 8));
}

#[test]
fn many_calls_may_come_in_any_order() {
    in_orders(100, || mixed_calls(8, 200));
}
