//! The C library under load: cancelling, memory, and many threads on the same handles. One test after another, because
//! they measure the process and end everything in it.

mod host;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use host::*;
use motionclone::capi::*;

// Every call here gives pointers to living values.

static ALONE: Mutex<()> = Mutex::new(());

/// Bytes that the process has allocated and not freed. Unlike resident memory, this does not depend on what the allocator
/// keeps for later, nor on when the system takes pages back.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn allocated() -> usize {
    // SAFETY: the function takes nothing and returns a plain structure.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

/// Waits until a job is at a stage.
fn reach(job: JobHandle, stage: JobStage, step: u32) {
    let reached = |now: HostProgress| (now.stage, now.step) >= (stage as u32, step);
    while !reached(standing(job)) {
        assert!(standing(job).state <= JobState::Running as u32, "ended before");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn cancelling_takes_no_longer_than_a_step() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut engine = engine();
    let settings =
        HostSettings { width: 128, height: 128, frames: 8, steps: 40, guidance_steps: 20, ..settings(engine) };
    let mut reference = clip(8, 128, 128);
    // How long a guided step takes.
    let job = start(engine, &mut reference, &settings);
    reach(job, JobStage::Denoise, 1);
    let begin = Instant::now();
    reach(job, JobStage::Denoise, 5);
    let step = begin.elapsed() / 4;
    ok(unsafe { motionclone_job_cancel(job) });
    assert_eq!(unsafe { motionclone_job_wait(job, -1) }, Status::Cancelled);

    let mut times = Vec::new();
    for after in 1..=8 {
        let mut job = start(engine, &mut reference, &settings);
        reach(job, JobStage::Denoise, after);
        std::thread::sleep(step * after / 9);
        let begin = Instant::now();
        ok(unsafe { motionclone_job_cancel(job) });
        assert_eq!(unsafe { motionclone_job_wait(job, -1) }, Status::Cancelled);
        times.push(begin.elapsed());
        assert_eq!(standing(job).state, JobState::Cancelled as u32);
        ok(unsafe { motionclone_job_destroy(&mut job) });
    }
    times.sort();
    println!("a guided step takes {step:.1?}; cancelling takes {:.1?} to {:.1?}", times[0], times[7]);
    assert!(times[7] <= step.max(Duration::from_millis(50)), "{times:?}, a step takes {step:?}");
    wait(start(engine, &mut reference, &HostSettings { steps: 1, ..self::settings(engine) }));
    ok(unsafe { motionclone_engine_destroy(&mut engine) });
}

/// What a job that was cancelled leaves loaded depends on where it was; a leak makes the least of many cycles grow.
#[test]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn memory_stays_flat() {
    const CYCLES: u64 = 100;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut engine = engine();
    let settings = settings(engine);
    let mut reference = clip(4, 64, 64);
    // From here on every network has been loaded once.
    wait(start(engine, &mut reference, &settings));
    let mut cycle = |index: u64| {
        let mut job = start(engine, &mut reference, &settings);
        std::thread::sleep(Duration::from_millis(index * 7 % 60));
        ok(unsafe { motionclone_job_cancel(job) });
        unsafe { motionclone_job_wait(job, -1) };
        ok(unsafe { motionclone_job_destroy(&mut job) });
        allocated()
    };
    let least: Vec<i64> = (0..4).map(|_| (0..CYCLES).map(&mut cycle).min().unwrap() as i64).collect();
    println!("{CYCLES} cycles of start and cancel at a time leave {least:?} bytes at least");
    // What is made once, when it is first needed, makes one step; a leak makes them all.
    let growth = least.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap();
    // A clip, an image or a network is far more.
    assert!(growth <= 512 << 10, "{least:?} bytes at least: {growth} more each time");
    wait(start(engine, &mut reference, &settings));
    ok(unsafe { motionclone_engine_destroy(&mut engine) });
}

const THREADS: u64 = 8;
const CALLS: u64 = 200;

/// Handles that all threads use and replace.
#[derive(Default)]
struct Shared {
    engines: [AtomicU64; 2],
    jobs: [AtomicU64; 6],
    motions: [AtomicU64; 3],
}

/// One call of a random kind on a random handle.
fn call(shared: &Shared, random: &mut impl FnMut(u64) -> u64) {
    let mut reference = clip(2, 64, 64);
    let clip = described(&mut reference);
    let engine = &shared.engines[random(2) as usize];
    let job = &shared.jobs[random(6) as usize];
    let motion = &shared.motions[random(3) as usize];
    let now = |place: &AtomicU64| place.load(Ordering::SeqCst);
    // A handle that is replaced is destroyed; another thread may be using it at this moment.
    let replace = |place: &AtomicU64, new: u64, destroy: unsafe extern "C" fn(*mut u64) -> Status| {
        let mut old = place.swap(new, Ordering::SeqCst);
        unsafe { destroy(&mut old) }
    };
    let mut settings = std::mem::MaybeUninit::uninit();
    let size = size_of::<HostSettings>();
    let settings = match unsafe { motionclone_settings_init(settings.as_mut_ptr(), size, now(engine)) } {
        Status::Ok => HostSettings {
            width: 64,
            height: 64,
            frames: 2,
            steps: 2,
            guidance_steps: 1,
            warm_up: 0,
            cool_up: 0,
            ..unsafe { settings.assume_init() }
        },
        status => {
            assert_eq!(status, Status::InvalidHandle);
            replace(engine, host::engine(), motionclone_engine_destroy);
            return;
        }
    };
    let mut new = 0;
    let started = |status: Status, new: u64| {
        if status == Status::Ok { replace(job, new, motionclone_job_destroy) } else { status }
    };
    let status = unsafe {
        match random(16) {
            0 if random(8) == 0 => replace(engine, 0, motionclone_engine_destroy),
            0 | 1 => started(motionclone_job_clone(now(engine), &clip, &settings, &mut new), new),
            2 => started(motionclone_job_extract(now(engine), &clip, &settings, &mut new), new),
            3 => started(motionclone_job_clone_motion(now(engine), now(motion), &settings, &mut new), new),
            4 | 5 => motionclone_job_wait(now(job), random(150) as i64),
            6 => motionclone_job_cancel(now(job)),
            7 => motionclone_job_progress(now(job), &mut progress()),
            8 => motionclone_job_preview(now(job), &mut frames()),
            9 => motionclone_job_frames(now(job), &mut described(&mut host::clip(2, 64, 64))),
            10 | 11 => match motionclone_job_motion(now(job), &mut new) {
                Status::Ok => replace(motion, new, motionclone_motion_destroy),
                status => status,
            },
            12 => motionclone_job_error(now(job), std::ptr::null_mut(), 0, &mut 0),
            13 => motionclone_motion_info_get(now(motion), &mut motion_info()),
            14 => replace(motion, 0, motionclone_motion_destroy),
            _ => replace(job, 0, motionclone_job_destroy),
        }
    };
    let expected =
        [Status::Ok, Status::InvalidHandle, Status::NotReady, Status::Timeout, Status::Cancelled, Status::BufferSize];
    assert!(expected.contains(&status), "{status:?}: {}", last_error());
}

#[test]
fn threads_may_do_anything_at_any_time() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (send, receive) = mpsc::channel();
    let begin = Instant::now();
    let worker = std::thread::spawn(move || {
        let shared = Shared::default();
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let shared = &shared;
                scope.spawn(move || {
                    let mut state = thread + 1;
                    let mut random = |below: u64| {
                        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                        (state >> 33) % below
                    };
                    (0..CALLS).for_each(|_| call(shared, &mut random));
                });
            }
        });
        ok(motionclone_shutdown());
        for place in shared.engines.iter().chain(&shared.jobs).chain(&shared.motions) {
            assert_eq!(unsafe { motionclone_job_cancel(place.load(Ordering::SeqCst)) }, Status::InvalidHandle);
        }
        let _ = send.send(());
    });
    let limit = Duration::from_secs(240);
    match receive.recv_timeout(limit) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("not done within {limit:?}: a deadlock"),
        _ => worker.join().unwrap(),
    }
    println!("{THREADS} threads, {CALLS} calls each: {:.1?}", begin.elapsed());
    // Everything works on as if nothing had been.
    let mut engine = engine();
    wait(start(engine, &mut clip(4, 64, 64), &settings(engine)));
    ok(unsafe { motionclone_engine_destroy(&mut engine) });
}
