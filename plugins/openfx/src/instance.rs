//! An instance of the effect: what it shows, what it waits for, and what the host is to be told.
//!
//! No lock is ever held while the host is called, because it may call back, or wait for another of its threads that is
//! here itself.

use std::collections::HashMap;
use std::ffi::CStr;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::cache::{Cache, Clip};
use crate::describe::{CONDITION, GENERATOR};
use crate::engine::{self, ConditionImage, Device, MotionInfo, Settings};
use crate::gather::{self, Gathering};
use crate::job::{self, Job, Request, Source, Standing};
use crate::messages::{self, Dialog};
use crate::model::{self, Defaults};
use crate::parameters::{Values, choice, name};
use crate::properties::Properties;
use crate::reference::{ClipFile, open_image};
use crate::suites::{self, Failed, Host, Result, check, entry};
use crate::sys::{self, property};

/// How long the end of an instance waits for calls of the plugin's own thread into the host.
const CLOSING: Duration = Duration::from_secs(10);

/// The host's handle of an effect.
#[derive(Clone, Copy)]
pub struct Effect(pub sys::Handle);

// SAFETY: it is a name; what may be called with it when is what `Calls` is for.
unsafe impl Send for Effect {}
// SAFETY: as above.
unsafe impl Sync for Effect {}

pub struct Instance {
    pub effect: Effect,
    pub generator: bool,
    calls: Calls,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What is shown.
    clip: Option<Arc<Clip>>,
    /// The key of what is shown.
    shown: String,
    job: Option<Arc<Job>>,
    gathering: Option<Gathering>,
    /// A render has taken the gathering out and reads for it.
    reading: bool,
    /// Grows whenever work begins or is cancelled, so that frames read for older work are dropped.
    turn: u64,
    /// What the parameter `result` should hold, and what it was seen to hold.
    result: String,
    seen: String,
    /// What the status should say, and what it says.
    note: String,
    told: Option<String>,
    /// An error that no message has shown yet.
    error: Option<String>,
    /// A persistent message stands, and may go.
    has_message: bool,
    may_clear: bool,
    /// The host shows something older.
    stale: bool,
    /// The last value given to the parameter `refresh`.
    refresh: i32,
    /// How many threads set parameters right now, and how often that was begun.
    publishers: usize,
    publication: u64,
    /// The host may hold an older result than it was told, as two threads told it at once.
    unsure: bool,
    /// Whether the plugin's own thread may set parameters.
    live: bool,
    /// An action waits and will tell by itself.
    waiting: bool,
}

/// Calls of the plugin's own thread into the host, which must not outlive the instance.
#[derive(Default)]
struct Calls {
    state: Mutex<CallsState>,
    changed: Condvar,
}

#[derive(Default)]
struct CallsState {
    closed: bool,
    active: usize,
}

struct Call<'a>(&'a Calls);

impl Calls {
    fn enter(&self) -> Option<Call<'_>> {
        let mut state = lock(&self.state);
        if state.closed {
            return None;
        }
        state.active += 1;
        Some(Call(self))
    }

    /// Lets no more in and waits for those inside; not without end, since one of them may wait for this very thread.
    fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        let inside = |state: &mut CallsState| state.active > 0;
        drop(self.changed.wait_timeout_while(state, CLOSING, inside));
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).active -= 1;
        self.0.changed.notify_all();
    }
}

/// Who tells the host.
#[derive(Clone, Copy, PartialEq)]
pub enum Occasion {
    /// An action in which parameters may be set.
    Action,
    /// A render, in which they may not.
    Render,
    /// The plugin's own thread.
    Thread,
}

static INSTANCES: Mutex<Option<HashMap<usize, Arc<Instance>>>> = Mutex::new(None);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The instance of a handle.
pub fn find(effect: sys::Handle) -> Result<Arc<Instance>> {
    let instances = lock(&INSTANCES);
    instances.as_ref().and_then(|all| all.get(&(effect as usize))).cloned().ok_or(Failed(sys::BAD_HANDLE))
}

fn everyone() -> Vec<Arc<Instance>> {
    lock(&INSTANCES).as_ref().map(|all| all.values().cloned().collect()).unwrap_or_default()
}

/// Makes the instance of a handle.
pub fn create(host: &Host, effect: sys::Handle) -> Result<()> {
    let (get, mut properties) = (entry(host.effect.get_property_set)?, std::ptr::null_mut());
    // SAFETY: the handle is the host's.
    check(unsafe { get(effect, &mut properties) })?;
    let context = Properties::of(host, properties).text(property::CONTEXT, 0).unwrap_or_default();
    let instance = Arc::new(Instance {
        effect: Effect(effect),
        generator: context == GENERATOR,
        calls: Calls::default(),
        state: Mutex::default(),
    });
    let values = Values::of(host, effect)?;
    lock(&instance.state).live = values.switch(name::LIVE);
    instance.resolve(&values);
    instance.say_what_is_missing(&values);
    instance.enable(&values);
    lock(&INSTANCES).get_or_insert_default().insert(effect as usize, instance.clone());
    // A job that it joined may have ended before the instance could be told.
    let job = lock(&instance.state).job.clone();
    if let Some(job) = job {
        instance.absorb(&job);
    }
    instance.publish(host, Occasion::Action);
    Ok(())
}

/// Ends the instance of a handle. Its job goes on for a while, as hosts make instances anew.
pub fn destroy(effect: sys::Handle) -> Result<()> {
    let instance = lock(&INSTANCES).as_mut().and_then(|all| all.remove(&(effect as usize)));
    instance.ok_or(Failed(sys::BAD_HANDLE))?.calls.close();
    Ok(())
}

/// Ends all instances that the host has left.
pub fn destroy_all() {
    let instances = lock(&INSTANCES).take().unwrap_or_default();
    instances.values().for_each(|instance| instance.calls.close());
}

/// Whether an instance waits for a job.
pub fn is_awaited(job: &Arc<Job>) -> bool {
    let waits = |instance: &Arc<Instance>| lock(&instance.state).job.as_ref().is_some_and(|own| Arc::ptr_eq(own, job));
    everyone().iter().any(waits)
}

/// Tells all instances that wait for a job how it stands, on the plugin's own thread.
pub fn tell(job: &Arc<Job>) {
    for instance in everyone() {
        if instance.absorb(job)
            && let Ok(host) = suites::host()
        {
            instance.publish(&host, Occasion::Thread);
        }
    }
}

impl Instance {
    fn values<'a>(&self, host: &'a Host) -> Result<Values<'a>> {
        Values::of(host, self.effect.0)
    }

    /// What is shown, if anything.
    pub fn clip(&self) -> Option<Arc<Clip>> {
        lock(&self.state).clip.clone()
    }

    /// The times of the source that are to be read, if any.
    pub fn wanted_times(&self) -> Option<Vec<f64>> {
        lock(&self.state).gathering.as_ref().map(|gathering| gathering.times().collect())
    }

    fn cache(values: &Values) -> Cache {
        Cache::new(&values.text(name::CACHE_FOLDER), values.double(name::CACHE_LIMIT))
    }

    /// Takes over what the project says is to be shown. It holds up to two keys: what is being made, and what is shown
    /// until then.
    pub fn resolve(&self, values: &Values) {
        let publication = {
            let state = lock(&self.state);
            // What is read while it is being set may be older than what is known here.
            if state.publishers > 0 {
                return;
            }
            state.publication
        };
        let result = values.text(name::RESULT);
        {
            let mut state = lock(&self.state);
            if state.seen == result || state.publication != publication {
                return;
            }
            state.seen.clone_from(&result);
            if state.result == result {
                return;
            }
        }
        let cache = Self::cache(values);
        let found = result.split_whitespace().find_map(|key| Some((key.to_string(), cache.load(key)?)));
        let first = result.split_whitespace().next().map(String::from);
        {
            let mut state = lock(&self.state);
            state.note = match &found {
                Some(_) => "The clip is there.".into(),
                None if result.is_empty() => String::new(),
                None => "The clip is no longer in the cache: press Generate.".into(),
            };
            (state.shown, state.clip) = found.map_or((String::new(), None), |(key, clip)| (key, Some(clip)));
            (state.result, state.job) = (result, None);
        }
        if let Some(key) = first {
            job::find(&key, |job| {
                let mut state = lock(&self.state);
                state.note = "The clip is being made.".into();
                state.job = Some(job.clone());
            });
        }
    }

    /// Puts what is missing into the status, unless there is something to show.
    fn say_what_is_missing(&self, values: &Values) {
        let missing = engine::missing().or_else(|| model::manifest(&values.text(name::BUNDLE)).err());
        let mut state = lock(&self.state);
        if state.clip.is_some() || state.job.is_some() || state.gathering.is_some() || state.reading {
            return;
        }
        match missing {
            Some(missing) if state.note.is_empty() || state.result.is_empty() => state.note = missing,
            Some(missing) => state.note = format!("{} {missing}", state.note),
            None if state.result.is_empty() => state.note = "Ready: write a prompt, then press Generate.".into(),
            None => {}
        }
    }

    /// Lets the user change what means something.
    fn enable(&self, values: &Values) {
        let pictures = values.int(name::MODE) != choice::MODE_TEXT;
        let range = !values.switch(name::WHOLE);
        for (name, enabled) in [
            (name::IMAGE_FILE, pictures),
            (name::IMAGE_FRAME, pictures),
            (name::IMAGE_STRENGTH, pictures),
            (name::FIRST, range),
            (name::LAST, range),
            (name::SPEED, values.int(name::LENGTH) != choice::LENGTH_STRETCH),
        ] {
            // Where a host cannot do that, everything stays open.
            let _ = values.enable(name, enabled);
        }
    }

    /// A parameter was changed by the user.
    pub fn changed(&self, host: &Host, changed: &CStr, time: f64) -> Result<()> {
        let values = self.values(host)?;
        self.resolve(&values);
        let outcome = match changed {
            _ if changed == name::GENERATE => self.generate(host, &values, time),
            _ if changed == name::CANCEL => {
                self.cancel("Cancelled.");
                Ok(())
            }
            _ if changed == name::RANDOMISE => {
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                let hash = blake3::hash(&now.as_nanos().to_le_bytes());
                let seed = u32::from_le_bytes(hash.as_bytes()[..4].try_into().unwrap_or_default());
                let _ = values.set_int(name::SEED, (seed >> 1) as i32);
                Ok(())
            }
            _ if changed == name::SAVE_MOTION => self.save_motion(&values),
            _ if changed == name::LOAD_MOTION => self.load_motion(&values),
            _ => {
                self.adjust(&values, changed);
                Ok(())
            }
        };
        if let Err(message) = outcome {
            self.fail(message);
        }
        self.publish(host, Occasion::Action);
        Ok(())
    }

    /// Parameters that follow others.
    fn adjust(&self, values: &Values, changed: &CStr) {
        // A host that refuses keeps what it has, and the user sees it.
        let set_int = |name, value| _ = values.set_int(name, value);
        let own_steps = [
            name::STEPS,
            name::GUIDANCE_STEPS,
            name::WARM_UP,
            name::COOL_UP,
            name::GUIDANCE_SCALE,
            name::CFG,
            name::NOISE_STEP,
            name::TOP_K,
        ];
        if own_steps.contains(&changed) {
            set_int(name::QUALITY, choice::QUALITY_CUSTOM);
        } else if [name::WIDTH, name::HEIGHT, name::FRAMES].contains(&changed) {
            set_int(name::SIZE, choice::SIZE_CUSTOM);
        } else if changed == name::LIVE {
            lock(&self.state).live = values.switch(name::LIVE);
        }
        let (quality, of_the_model) = (values.int(name::QUALITY), values.int(name::SIZE) == choice::SIZE_OF_THE_MODEL);
        if [name::BUNDLE, name::QUALITY].contains(&changed) && quality != choice::QUALITY_CUSTOM {
            let defaults = Defaults::of(&values.text(name::BUNDLE));
            let defaults = defaults.divided(1 << (choice::QUALITY_BEST - quality).clamp(0, 2));
            for (name, value) in [
                (name::STEPS, defaults.steps),
                (name::GUIDANCE_STEPS, defaults.guidance_steps),
                (name::WARM_UP, defaults.warm_up),
                (name::COOL_UP, defaults.cool_up),
                (name::NOISE_STEP, defaults.noise_step),
                (name::TOP_K, defaults.top_k),
            ] {
                set_int(name, value);
            }
            let _ = values.set_double(name::GUIDANCE_SCALE, defaults.guidance_scale);
            let _ = values.set_double(name::CFG, defaults.cfg);
        }
        if [name::BUNDLE, name::SIZE].contains(&changed) && of_the_model {
            let defaults = Defaults::of(&values.text(name::BUNDLE));
            set_int(name::WIDTH, defaults.width);
            set_int(name::HEIGHT, defaults.height);
            set_int(name::FRAMES, defaults.frames);
        }
        if changed == name::BUNDLE {
            self.say_what_is_missing(values);
        }
        self.enable(values);
    }

    /// Ends what is under way, if anything, and gives the turn of what comes next.
    fn cancel(&self, note: &str) -> u64 {
        let (job, turn) = {
            let mut state = lock(&self.state);
            state.turn += 1;
            let job = state.job.take();
            let (gathered, reading) = (state.gathering.take(), std::mem::take(&mut state.reading));
            if job.is_some() || gathered.is_some() || reading {
                state.result = state.shown.clone();
                state.note = note.into();
            }
            (job, state.turn)
        };
        // Another instance may wait for the very same clip.
        if let Some(job) = job.filter(|job| !is_awaited(job)) {
            job.cancel();
        }
        turn
    }

    fn fail(&self, message: String) {
        let mut state = lock(&self.state);
        state.note.clone_from(&message);
        state.error = Some(message);
    }

    fn generate(&self, host: &Host, values: &Values, time: f64) -> Result<(), String> {
        let turn = self.cancel("");
        lock(&self.state).may_clear = true;
        if let Some(missing) = engine::missing() {
            return Err(missing);
        }
        let colours = values.int(name::COLOURS);
        let mut request = self.request(host, values, time)?;
        let of_the_file = values.int(name::MOTION_FROM) == choice::MOTION_OF_THE_FILE;
        let waits = values.switch(name::WAIT);
        let range = if self.generator { None } else { gather::reference_range(host, self.effect.0, values) };
        if let Some([first, last]) = range.filter(|[first, last]| first < last) {
            request.spacing = f64::from(last - first) / f64::from(request.settings.frames.max(2) - 1);
        }
        if of_the_file {
            let file = values.text(name::MOTION_FILE);
            if file.trim().is_empty() {
                return Err("No motion file is chosen.".into());
            }
            request.source = Source::Motion(file);
            self.start(request, turn)?;
        } else if self.generator {
            let path = values.text(name::REFERENCE_FILE);
            if path.trim().is_empty() {
                return Err("No reference is chosen: choose a video, or an image of a folder of images.".into());
            }
            let range = (!values.switch(name::WHOLE)).then(|| [values.int(name::FIRST), values.int(name::LAST)]);
            request.source = Source::File { file: ClipFile { path: path.into() }, range };
            self.start(request, turn)?;
        } else {
            let mut gathering = Gathering::plan(request, range)?;
            let dialog = Dialog::open(host, self.effect.0, "MotionClone reads the reference");
            let goes_on = gathering.read(host, self.effect.0, None, colours, |share| dialog.update(share));
            drop(dialog);
            if !goes_on {
                lock(&self.state).note = "Cancelled.".into();
                return Ok(());
            }
            if gathering.is_enough(host) {
                self.start(gathering.finish(), turn)?;
            } else {
                self.keep(gathering);
            }
        }
        if waits {
            self.wait(host);
        }
        Ok(())
    }

    /// What the parameters ask for, without the reference.
    fn request(&self, host: &Host, values: &Values, time: f64) -> Result<Request, String> {
        let bundle = values.text(name::BUNDLE);
        model::manifest(&bundle)?;
        let count = |name| values.int(name).max(0) as u32;
        let eights = |name| (count(name).clamp(8, 1 << 16) + 4) / 8 * 8;
        let image = self.condition(host, values, time)?;
        let settings = Settings {
            prompt: values.text(name::PROMPT),
            negative_prompt: values.text(name::NEGATIVE),
            blocks: values.text(name::BLOCKS),
            image,
            seed: count(name::SEED).into(),
            width: eights(name::WIDTH),
            height: eights(name::HEIGHT),
            frames: count(name::FRAMES).clamp(2, 4096),
            steps: count(name::STEPS),
            guidance_steps: count(name::GUIDANCE_STEPS),
            warm_up: count(name::WARM_UP),
            cool_up: count(name::COOL_UP),
            noise_step: count(name::NOISE_STEP),
            top_k: count(name::TOP_K),
            guidance_scale: values.double(name::GUIDANCE_SCALE),
            motion_strength: values.double(name::STRENGTH),
            cfg: values.double(name::CFG),
        };
        let device = match values.int(name::DEVICE) {
            choice::DEVICE_AUTO => Device::Auto,
            choice::DEVICE_CPU => Device::Cpu,
            number => Device::Cuda((number - choice::DEVICE_CPU - 1).max(0) as u32),
        };
        let source = Source::Frames(Vec::new());
        Ok(Request { bundle, device, settings, source, spacing: 1.0, cache: Self::cache(values) })
    }

    /// The picture or sketch: the input where it is connected, else the file.
    fn condition(&self, host: &Host, values: &Values, time: f64) -> Result<Option<ConditionImage>, String> {
        let mode = values.int(name::MODE);
        if mode == choice::MODE_TEXT {
            return Ok(None);
        }
        let colours = values.int(name::COLOURS);
        let input = gather::clip(host, self.effect.0, CONDITION).ok().filter(|(_, clip)| gather::is_connected(*clip));
        let file = values.text(name::IMAGE_FILE);
        let picture = match input {
            Some((clip, _)) => gather::picture(host, clip, time, colours)
                .ok_or("The host does not hand out the picture at Condition: choose a file instead.")?,
            None if !file.trim().is_empty() => open_image(Path::new(&file))?.reduced(),
            None => return Err("This mode needs a picture or sketch: connect Condition or choose a file.".into()),
        };
        let strength = values.double(name::IMAGE_STRENGTH);
        let frame = values.int(name::IMAGE_FRAME).max(0) as u32;
        Ok(Some(ConditionImage { picture, frame, sketch: mode == choice::MODE_SKETCH, strength }))
    }

    /// Hands the work over, unless it is no longer its turn.
    fn start(&self, request: Request, turn: u64) -> Result<(), String> {
        let key = request.key()?;
        job::submit(key.clone(), request, |job| {
            let mut state = lock(&self.state);
            if state.turn != turn {
                return false;
            }
            state.result = format!("{key} {}", state.shown).trim_end().into();
            state.note = "Waits for its turn.".into();
            state.job = Some(job.clone());
            state.reading = false;
            true
        })
    }

    /// Lets the next renders read what is missing.
    fn keep(&self, gathering: Gathering) {
        let (there, all) = gathering.progress();
        let mut state = lock(&self.state);
        state.note = format!("Play the reference, so that its frames are read: {there} of {all}.");
        state.gathering = Some(gathering);
        state.stale = true;
    }

    /// Reads missing frames during a render.
    pub fn gather(&self, host: &Host, time: f64) -> Result<()> {
        // First what may fail, since the gathering must not be lost.
        let colours = self.values(host)?.int(name::COLOURS);
        let (mut gathering, turn) = {
            let mut state = lock(&self.state);
            // While one render reads, the others go on without.
            let Some(gathering) = state.gathering.take() else { return Ok(()) };
            state.reading = true;
            (gathering, state.turn)
        };
        let goes_on = gathering.read(host, self.effect.0, Some(time), colours, |_| !aborted(host, self.effect.0));
        let (there, all) = gathering.progress();
        {
            let mut state = lock(&self.state);
            if state.turn != turn {
                return Ok(());
            }
            if !goes_on || !gathering.is_enough(host) {
                state.note = format!("Play the reference, so that its frames are read: {there} of {all}.");
                if goes_on && host.temporal && there == 0 {
                    let text = "The host does not hand out the source's frames.".to_string();
                    (state.note, state.error) = (text.clone(), Some(text));
                }
                (state.gathering, state.reading) = (Some(gathering), false);
                return Ok(());
            }
        }
        if let Err(message) = self.start(gathering.finish(), turn) {
            let mut state = lock(&self.state);
            if state.turn == turn {
                state.reading = false;
                state.note.clone_from(&message);
                state.error = Some(message);
            }
        }
        Ok(())
    }

    /// Shows the host's progress dialog until the job has ended.
    fn wait(&self, host: &Host) {
        let Some(job) = lock(&self.state).job.clone() else { return };
        lock(&self.state).waiting = true;
        let dialog = Dialog::open(host, self.effect.0, "MotionClone makes the clip");
        while !job.has_ended() {
            std::thread::sleep(Duration::from_millis(50));
            let share = if let Standing::Running(_, share) = job.standing() { share } else { 0.0 };
            if !dialog.update(share) {
                self.cancel("Cancelled.");
                break;
            }
        }
        drop(dialog);
        self.absorb(&job);
        lock(&self.state).waiting = false;
    }

    fn save_motion(&self, values: &Values) -> Result<(), String> {
        let file = values.text(name::MOTION_FILE);
        let shown = lock(&self.state).shown.clone();
        if file.trim().is_empty() {
            return Err("No motion file is chosen.".into());
        }
        let kept = Self::cache(values).motion(&shown);
        if shown.is_empty() || !kept.is_file() {
            return Err("There is no clip yet whose motion could be kept: press Generate first.".into());
        }
        let target = Path::new(&file);
        let failed = |e: std::io::Error| format!("{file} cannot be written: {e}.");
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let beside = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
        std::fs::copy(&kept, beside.path()).map_err(failed)?;
        beside.persist(target).map_err(|e| failed(e.error))?;
        lock(&self.state).note = format!("The motion is kept in {file}.");
        Ok(())
    }

    fn load_motion(&self, values: &Values) -> Result<(), String> {
        let file = values.text(name::MOTION_FILE);
        if file.trim().is_empty() {
            return Err("No motion file is chosen.".into());
        }
        let info = engine::api()?.motion(&file)?.info()?;
        for (name, value) in [
            (name::WIDTH, info.width),
            (name::HEIGHT, info.height),
            (name::FRAMES, info.frames),
            (name::NOISE_STEP, info.noise_step),
            (name::TOP_K, info.top_k),
        ] {
            let _ = values.set_int(name, value as i32);
        }
        let _ = values.set_int(name::SIZE, choice::SIZE_CUSTOM);
        let _ = values.set_int(name::MOTION_FROM, choice::MOTION_OF_THE_FILE);
        let MotionInfo { width, height, frames, .. } = info;
        lock(&self.state).note = format!("The motion of {frames} frames at {width}x{height} is used from now on.");
        Ok(())
    }

    /// Takes over how a job stands; false when this instance does not wait for it.
    fn absorb(&self, job: &Arc<Job>) -> bool {
        let standing = job.standing();
        let mut state = lock(&self.state);
        if state.job.as_ref().is_none_or(|own| !Arc::ptr_eq(own, job)) {
            return false;
        }
        match standing {
            Standing::Waiting => return true,
            Standing::Running(text, _) => {
                state.note = text;
                return true;
            }
            Standing::Done(clip) => {
                (state.clip, state.shown) = (Some(clip), job.key.clone());
                (state.stale, state.may_clear) = (true, true);
                state.note = "The clip is there.".into();
            }
            Standing::Failed(message) => {
                state.note.clone_from(&message);
                state.error = Some(message);
            }
            Standing::Cancelled => state.note = "Cancelled.".into(),
        }
        state.result = state.shown.clone();
        state.job = None;
        true
    }

    /// Tells the host what it does not know yet, as far as the occasion allows.
    pub fn publish(&self, host: &Host, occasion: Occasion) {
        let _call = match occasion {
            Occasion::Thread => {
                let state = lock(&self.state);
                if !state.live || state.waiting {
                    return;
                }
                drop(state);
                // The instance must not end while its host is called.
                let Some(call) = self.calls.enter() else { return };
                Some(call)
            }
            _ => None,
        };
        self.publish_message(host, occasion);
        if occasion == Occasion::Render {
            return;
        }
        let Ok(values) = self.values(host) else { return };
        while self.publish_parameters(&values) {
            if occasion == Occasion::Thread && !lock(&self.state).live {
                return;
            }
        }
    }

    /// Sets the parameters that show how things stand. Another thread may do so at the same time, so that nobody knows
    /// whose value came last: then the last one to leave has to do it again, which is what true says. So it has when
    /// something has changed since.
    fn publish_parameters(&self, values: &Values) -> bool {
        let current = values.int(name::REFRESH);
        let (note, result, refresh, publication) = {
            let mut state = lock(&self.state);
            state.publishers += 1;
            state.publication += 1;
            let note = (state.told.as_ref() != Some(&state.note)).then(|| state.note.clone());
            let unsure = std::mem::take(&mut state.unsure);
            let result = (unsure || state.seen != state.result).then(|| state.result.clone());
            if let Some(result) = &result {
                // First known here, since the host may ask for a picture while it is set.
                state.seen.clone_from(result);
            }
            let refresh = std::mem::take(&mut state.stale).then(|| {
                state.refresh = current.max(state.refresh).wrapping_add(1).max(0);
                state.refresh
            });
            (note, result, refresh, state.publication)
        };
        // A host that refuses is asked again when there is something new.
        if let Some(result) = &result {
            let _ = values.set_text(name::RESULT, result);
        }
        let noted = note.as_ref().is_none_or(|note| values.set_text(name::STATUS, note).is_ok());
        let refreshed = refresh.is_none_or(|refresh| values.set_int(name::REFRESH, refresh).is_ok());
        let mut state = lock(&self.state);
        state.publishers -= 1;
        let alone = state.publication == publication && state.publishers == 0;
        if alone && noted {
            state.told = note.clone().or(state.told.take());
        } else if !alone {
            state.told = None;
            state.unsure |= result.is_some();
        }
        state.stale |= !refreshed;
        let changed =
            note.is_some_and(|note| note != state.note) || result.is_some_and(|result| result != state.result);
        state.publishers == 0 && noted && refreshed && (!alone || changed)
    }

    fn publish_message(&self, host: &Host, occasion: Occasion) {
        // A box of a thread that the host does not know is asking for trouble; it waits for the next action.
        if occasion == Occasion::Thread && !messages::can_persist(host) {
            return;
        }
        let (error, clear) = {
            let mut state = lock(&self.state);
            let clear = std::mem::take(&mut state.may_clear) && std::mem::take(&mut state.has_message);
            (state.error.take(), clear)
        };
        if clear {
            messages::clear(host, self.effect.0);
        }
        if let Some(error) = error
            && messages::error(host, self.effect.0, &error)
            && messages::can_persist(host)
        {
            lock(&self.state).has_message = true;
        }
    }
}

/// Whether the host wants a render to end.
pub fn aborted(host: &Host, effect: sys::Handle) -> bool {
    // SAFETY: the handle is the host's.
    host.effect.abort.is_some_and(|abort| unsafe { abort(effect) } != 0)
}
