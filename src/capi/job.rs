//! Jobs: extractions and clones.

use std::ffi::c_char;
use std::time::Duration;

use super::boundary::{
    Failure, call, call_anywhere, copy_text, give, give_structure, initialise, pointer, read, sized,
};
use super::frames::View;
use super::settings::{default_frames, settings_of};
use super::worker::{self, Job, Work, Worker};
use super::{
    EngineHandle, HostFrames, HostProgress, HostSettings, JobHandle, JobStage, JobState, MotionHandle, OBJECTS, Status,
    destroy, exit, small,
};
use crate::job::Stage;
use crate::media::frames::Frames;
use crate::motion::Motion;
use crate::settings::Settings;

/// Starts a job that reads the motion of a clip. Its result is taken with motionclone_job_motion.
///
/// `reference` is the clip, of any size and any number of frames from 1: as many frames as the settings say are taken
/// evenly from it, resized and copied before the call returns. `settings` is copied, too. The job waits until the jobs
/// that were started before it on the same engine have ended. It belongs to the caller, who destroys it with
/// motionclone_job_destroy. Any thread.
///
/// INVALID_ARGUMENT: a pointer is NULL, a text is not UTF-8, or an enumeration has no such value. INVALID_HANDLE:
/// engine is none. INVALID_STRUCT_SIZE: a structure is not initialised. INVALID_INPUT: the settings do not fit the
/// model. On failure nothing is written to job.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_job_extract(
    engine: EngineHandle,
    reference: *const HostFrames,
    settings: *const HostSettings,
    job: *mut JobHandle,
) -> Status {
    // SAFETY: the pointers are as the header says.
    call(|| unsafe { start_with_clip(engine, reference, settings, job, Work::Extract) })
}

/// Starts a job that makes a new clip which moves like a reference clip. Its results are taken with
/// motionclone_job_frames, and the clip's motion, from when it was read, with motionclone_job_motion.
///
/// All else is as with motionclone_job_extract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_job_clone(
    engine: EngineHandle,
    reference: *const HostFrames,
    settings: *const HostSettings,
    job: *mut JobHandle,
) -> Status {
    // SAFETY: the pointers are as the header says.
    call(|| unsafe { start_with_clip(engine, reference, settings, job, Work::CloneClip) })
}

/// Starts a job that makes a new clip which moves like a motion that was read before. The motion may be destroyed once
/// the call has returned.
///
/// INVALID_INPUT: the motion does not fit the model or the settings. All else is as with motionclone_job_extract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_job_clone_motion(
    engine: EngineHandle,
    motion: MotionHandle,
    settings: *const HostSettings,
    job: *mut JobHandle,
) -> Status {
    call(|| {
        pointer(job, "job")?;
        let engine = OBJECTS.get::<Worker>(engine)?;
        let motion = OBJECTS.get::<Motion>(motion)?;
        // SAFETY: the pointer is as the header says.
        let settings = unsafe { settings_of(&engine, settings) }?;
        motion.check(&engine.manifest, &settings)?;
        let work = Work::CloneMotion(motion, settings);
        exit::stop_at_exit();
        // SAFETY: the pointer is as the header says.
        unsafe { give(job, "job", OBJECTS.insert(engine.enqueue(work)?)) }
    })
}

/// Starts a job that begins with a reference clip.
///
/// # Safety
/// As the header says for the functions that start jobs.
unsafe fn start_with_clip(
    engine: EngineHandle,
    reference: *const HostFrames,
    settings: *const HostSettings,
    job: *mut JobHandle,
    work: fn(Frames, Settings) -> Work,
) -> Result<(), Failure> {
    pointer(job, "job")?;
    let engine = OBJECTS.get::<Worker>(engine)?;
    // SAFETY: the caller's promise.
    unsafe {
        let settings = settings_of(&engine, settings)?;
        let view = View::new(&read(reference, "reference", default_frames())?)?;
        let clip = view.sampled(settings.frames, settings.width, settings.height)?;
        exit::stop_at_exit();
        give(job, "job", OBJECTS.insert(engine.enqueue(work(clip, settings))?))
    }
}

/// Fills progress with zeros, to be filled by motionclone_job_progress.
///
/// `struct_size` is sizeof(motionclone_progress). Any thread.
///
/// INVALID_ARGUMENT: progress is NULL. INVALID_STRUCT_SIZE: struct_size is another one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_progress_init(progress: *mut HostProgress, struct_size: usize) -> Status {
    // SAFETY: the pointer is one to a structure of that size, says the header.
    call_anywhere(|| unsafe { initialise(progress, struct_size, "progress", host_progress(JobState::Queued)) })
}

/// The progress of a job, into a structure that was initialised with motionclone_progress_init. Does not wait: hosts call it
/// as often as they draw. Any thread.
///
/// INVALID_ARGUMENT: progress is NULL. INVALID_STRUCT_SIZE: it is not initialised. INVALID_HANDLE: job is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_job_progress(job: JobHandle, progress: *mut HostProgress) -> Status {
    // SAFETY: the pointer is as the header says.
    call(|| unsafe {
        sized(progress, "progress")?;
        let status = OBJECTS.get::<Job>(job)?.status();
        let state = match (&status.end, &status.progress) {
            (None, None) => JobState::Queued,
            (None, Some(_)) => JobState::Running,
            (Some(Ok(())), _) => JobState::Done,
            (Some(Err(failure)), _) if failure.status == Status::Cancelled => JobState::Cancelled,
            (Some(Err(_)), _) => JobState::Failed,
        };
        let mut host = HostProgress { previews: status.previews, ..host_progress(state) };
        if let Some(progress) = status.progress {
            let stage = match progress.stage {
                Stage::Load => JobStage::Load,
                Stage::Encode => JobStage::Encode,
                Stage::Extract => JobStage::Extract,
                Stage::Denoise => JobStage::Denoise,
                Stage::Decode => JobStage::Decode,
            };
            (host.stage, host.step, host.total) = (stage as u32, small(progress.step), small(progress.total));
            host.loss = progress.loss.unwrap_or(f64::NAN);
            host.seconds_left = progress.seconds_left.unwrap_or(f64::NAN);
        }
        give_structure(progress, "progress", host)
    })
}

/// Waits until a job has ended, for at most so many milliseconds; without end where that is negative.
///
/// Returns what the job came to: OK, CANCELLED, INVALID_INPUT, FAILED or INTERNAL; or else TIMEOUT, INVALID_HANDLE, or
/// WRONG_THREAD when called from a log function on an engine's thread. Any other thread, several at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_job_wait(job: JobHandle, milliseconds: i64) -> Status {
    call(|| {
        worker::may_wait()?;
        let job = OBJECTS.get::<Job>(job)?;
        let limit = u64::try_from(milliseconds).ok().map(Duration::from_millis);
        job.wait(limit).unwrap_or_else(|| {
            Err(Failure::new(Status::Timeout, format!("the job has not ended within {milliseconds} ms")))
        })
    })
}

/// Asks a job to end: at once when it waits in the queue, within a step when it runs. Does not wait for it. A job that
/// has ended is left as it is. The engine goes on with its next job. Any thread, also a log function.
///
/// INVALID_HANDLE: job is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_job_cancel(job: JobHandle) -> Status {
    call(|| {
        OBJECTS.get::<Job>(job)?.cancel();
        Ok(())
    })
}

/// What the new clip looks like so far: all its frames, much smaller, into memory of the host, in whatever
/// layout the structure describes. With data and frame_data NULL it sets count, width and height and writes nothing
/// else. Any thread.
///
/// INVALID_ARGUMENT: frames is NULL, or describes no such memory. INVALID_STRUCT_SIZE: it is not initialised.
/// INVALID_HANDLE: job is none. NOT_READY: there is no preview yet, or the model makes none. BUFFER_SIZE: count, width
/// or height are not those of the preview.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_job_preview(job: JobHandle, frames: *mut HostFrames) -> Status {
    // SAFETY: the pointer is as the header says.
    call(|| unsafe {
        sized(frames, "frames")?;
        let preview = OBJECTS.get::<Job>(job)?.status().preview;
        give_frames(preview.as_deref(), "preview", frames)
    })
}

/// The new clip, into memory of the host, in whatever layout the structure describes. With data and frame_data NULL it
/// sets count, width and height and writes nothing else. The job keeps the clip until it is destroyed. Any thread.
///
/// INVALID_ARGUMENT: frames is NULL, or describes no such memory. INVALID_STRUCT_SIZE: it is not initialised.
/// INVALID_HANDLE: job is none. NOT_READY: the job has not made a clip, or does not make one. BUFFER_SIZE: count, width
/// or height are not those of the clip.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_job_frames(job: JobHandle, frames: *mut HostFrames) -> Status {
    // SAFETY: the pointer is as the header says.
    call(|| unsafe {
        sized(frames, "frames")?;
        let result = OBJECTS.get::<Job>(job)?.status().frames;
        give_frames(result.as_deref(), "clip", frames)
    })
}

/// Writes frames to the host, or their size where it asks for it. What the host describes is checked even where there
/// are no frames yet.
///
/// # Safety
/// `place` must be null or a structure that describes memory to write.
unsafe fn give_frames(frames: Option<&Frames>, what: &str, place: *mut HostFrames) -> Result<(), Failure> {
    // SAFETY: the caller's promise, here and below.
    let mut host = unsafe { read(place, "frames", default_frames()) }?;
    let asks_for_size = host.data.is_null() && host.frame_data.is_null();
    let view = if asks_for_size { None } else { Some(View::new(&host)?) };
    let frames = frames.ok_or_else(|| not_ready(what))?;
    let Some(view) = view else {
        (host.count, host.width, host.height) = (small(frames.count()), small(frames.width), small(frames.height));
        return unsafe { give_structure(place, "frames", host) };
    };
    unsafe { view.write(frames) }
}

/// The motion that a job has read or was given. It belongs to the caller, who destroys it with
/// motionclone_motion_destroy; it outlives job and engine. Any thread.
///
/// INVALID_ARGUMENT: motion is NULL. INVALID_HANDLE: job is none. NOT_READY: the job has not read it yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_job_motion(job: JobHandle, motion: *mut MotionHandle) -> Status {
    // SAFETY: the pointer is as the header says.
    call(|| unsafe {
        pointer(motion, "motion")?;
        let found = OBJECTS.get::<Job>(job)?.status().motion.ok_or_else(|| not_ready("motion"))?;
        give(motion, "motion", OBJECTS.insert(found))
    })
}

fn not_ready(what: &str) -> Failure {
    Failure::new(Status::NotReady, format!("the job has no {what}"))
}

/// At the beginning, in such a state.
fn host_progress(state: JobState) -> HostProgress {
    HostProgress {
        struct_size: size_of::<HostProgress>(),
        state: state as u32,
        stage: JobStage::Load as u32,
        step: 0,
        total: 0,
        previews: 0,
        reserved: 0,
        loss: f64::NAN,
        seconds_left: f64::NAN,
    }
}

/// What went wrong in a job: a sentence for people, in UTF-8, empty where nothing did. Is copied into `buffer`, which
/// has room for `size` bytes, with a zero byte behind it. `needed` may be NULL; otherwise the bytes of text and zero
/// byte go there. With a buffer of NULL that is all that is done. Any thread.
///
/// INVALID_ARGUMENT: buffer and needed are NULL. INVALID_HANDLE: job is none. BUFFER_SIZE: the text does not fit;
/// nothing is copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_job_error(
    job: JobHandle,
    buffer: *mut c_char,
    size: usize,
    needed: *mut usize,
) -> Status {
    call(|| {
        let end = OBJECTS.get::<Job>(job)?.status().end;
        let text = end.and_then(Result::err).map_or(String::new(), |failure| failure.text);
        // SAFETY: the pointers are as the header says.
        unsafe { copy_text(&text, buffer, size, needed) }
    })
}

/// Destroys a job and sets the handle to 0. One that has not ended is cancelled; this does not wait for it. A handle of
/// 0 is nothing to do. Any thread, also a log function.
///
/// INVALID_ARGUMENT: job is NULL. INVALID_HANDLE: it points at no job.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_job_destroy(job: *mut JobHandle) -> Status {
    call_anywhere(|| {
        // SAFETY: the pointer is as the header says.
        if let Some(job) = unsafe { destroy::<Job>(job) }? {
            job.cancel();
        }
        Ok(())
    })
}
