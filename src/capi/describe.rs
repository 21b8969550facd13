//! The table of settings for hosts: what each setting is, and how it is set and read by its name.

use std::ffi::{CString, c_char};
use std::ptr;
use std::sync::LazyLock;

use super::boundary::{self, Failure, call, call_anywhere, copy_text, give_structure, initialise, read, sized, text};
use super::worker::Worker;
use super::{EngineHandle, HostSettingInfo, HostSettings, OBJECTS, SettingKind, Status};
use crate::settings::{Kind, Model, Setting, Settings, Value, named, settings};

/// A setting's texts as C takes them.
struct Texts {
    name: CString,
    help: CString,
    unit: CString,
    since: CString,
    choices: CString,
}

static TEXTS: LazyLock<Vec<Texts>> = LazyLock::new(|| {
    let c = |text: &str| CString::new(text).unwrap_or_default();
    let choices = |kind| if let Kind::Choice(names) = kind { names.join(",") } else { String::new() };
    settings()
        .map(|setting| Texts {
            name: c(setting.name),
            help: c(setting.help),
            unit: c(setting.unit),
            since: c(setting.since),
            choices: c(&choices(setting.kind)),
        })
        .collect()
});

/// Where a host's structure keeps a setting.
enum Place<'a> {
    /// A count, or the number of a choice.
    Count(&'a mut u32),
    Seed(&'a mut u64),
    Number(&'a mut f64),
    /// A text or a list; null for the model's own.
    Text(&'a mut *const c_char),
}

/// The field of a setting.
fn field<'a>(host: &'a mut HostSettings, name: &str) -> Option<Place<'a>> {
    Some(match name {
        "prompt" => Place::Text(&mut host.prompt),
        "negative_prompt" => Place::Text(&mut host.negative_prompt),
        "blocks" => Place::Text(&mut host.blocks),
        "seed" => Place::Seed(&mut host.seed),
        "noise" => Place::Count(&mut host.noise),
        "width" => Place::Count(&mut host.width),
        "height" => Place::Count(&mut host.height),
        "frames" => Place::Count(&mut host.frames),
        "steps" => Place::Count(&mut host.steps),
        "guidance_steps" => Place::Count(&mut host.guidance_steps),
        "warm_up" => Place::Count(&mut host.warm_up),
        "cool_up" => Place::Count(&mut host.cool_up),
        "noise_step" => Place::Count(&mut host.noise_step),
        "top_k" => Place::Count(&mut host.top_k),
        "guidance_scale" => Place::Number(&mut host.guidance_scale),
        "motion_weight" => Place::Number(&mut host.motion_weight),
        "cfg" => Place::Number(&mut host.cfg),
        "control_scale" => Place::Number(&mut host.image_scale),
        _ => return None,
    })
}

/// The place of a setting: its field, or one of those for numbers without a field, given out in the order of the table.
/// `None` for what only sets others, and where there is no place left.
fn place<'a>(host: &'a mut HostSettings, setting: &Setting) -> Option<Place<'a>> {
    let without_field = |setting: &Setting| {
        setting.is_kept()
            && !matches!(setting.kind, Kind::Text | Kind::List)
            && field(&mut empty(), setting.name).is_none()
    };
    if without_field(setting) {
        let index = settings().filter(|other| without_field(other)).position(|other| other.name == setting.name);
        return host.others.get_mut(index?).map(Place::Number);
    }
    field(host, setting.name)
}

/// Settings of which nothing is set.
pub(super) fn empty() -> HostSettings {
    HostSettings {
        struct_size: size_of::<HostSettings>(),
        prompt: ptr::null(),
        negative_prompt: ptr::null(),
        blocks: ptr::null(),
        images: ptr::null(),
        image_count: 0,
        image_kind: 0,
        image_scale: 0.0,
        seed: 0,
        width: 0,
        height: 0,
        frames: 0,
        steps: 0,
        guidance_steps: 0,
        warm_up: 0,
        cool_up: 0,
        noise_step: 0,
        top_k: 0,
        noise: 0,
        guidance_scale: 0.0,
        motion_weight: 0.0,
        cfg: 0.0,
        others: [0.0; 16],
    }
}

/// The settings that motionclone_settings_init gives.
pub(super) fn default_settings(engine: &Worker) -> HostSettings {
    let mut settings = empty();
    give_settings(&mut settings, &Settings::new(&engine.manifest.defaults, ""));
    settings
}

/// The position of a choice's name.
fn choice(names: &[&str], value: &Value) -> Option<u32> {
    let Value::Text(text) = value else { return None };
    names.iter().position(|name| name == text).and_then(|index| index.try_into().ok())
}

/// A value as a number: that of a choice is its position; `None` for texts.
fn number_of(kind: Kind, value: &Value) -> Option<f64> {
    match (kind, value) {
        (Kind::Choice(names), value) => choice(names, value).map(f64::from),
        (_, Value::Integer(number)) => Some(*number as f64),
        (_, Value::Number(number)) => Some(*number),
        _ => None,
    }
}

/// The value that a number stands for.
fn value_of(setting: &Setting, number: f64) -> Result<Value, Failure> {
    let refused = |wanted: &str| Failure::new(Status::InvalidInput, format!("{} {number}: {wanted}", setting.label()));
    match setting.kind {
        Kind::Choice(names) => {
            let name = (number.fract() == 0.0 && number >= 0.0).then(|| names.get(number as usize)).flatten();
            name.map(|name| Value::Text((*name).into())).ok_or_else(|| {
                refused(&format!("must be 0 to {}, for {}", names.len().saturating_sub(1), names.join(", ")))
            })
        }
        Kind::Text | Kind::List => Err(refused("must be a text")),
        // Written and read as a user would.
        kind => kind.parse(&number.to_string()).map_err(|wanted| refused(&wanted)),
    }
}

/// Puts a number or a choice into its place; texts stay the host's.
fn put(place: Place, kind: Kind, value: &Value) {
    match (place, value) {
        (Place::Seed(to), Value::Integer(number)) => *to = *number,
        (Place::Count(to), value) => *to = number_of(kind, value).map_or(u32::MAX, |number| number as u32),
        (Place::Number(to), value) => *to = number_of(kind, value).unwrap_or(f64::NAN),
        (Place::Seed(_) | Place::Text(_), _) => {}
    }
}

/// What stands in a place; `None` for a text that is the model's own.
///
/// # Safety
/// A text must be null or one that ends with a zero byte.
unsafe fn take(place: Place, setting: &Setting) -> Result<Option<Value>, Failure> {
    match place {
        Place::Seed(number) => Ok(Some(Value::Integer(*number))),
        // What is no number is refused with the range, by the check of all settings.
        Place::Number(number) if setting.kind == Kind::Number => Ok(Some(Value::Number(*number))),
        Place::Number(number) => value_of(setting, *number).map(Some),
        Place::Count(number) => value_of(setting, f64::from(*number)).map(Some),
        Place::Text(chars) => {
            // SAFETY: the caller's promise.
            let text = unsafe { text(*chars, setting.name) }?;
            text.map(|text| parse(setting, text)).transpose()
        }
    }
}

/// The value that a text stands for.
fn parse(setting: &Setting, text: &str) -> Result<Value, Failure> {
    let wanted = |wanted| Failure::new(Status::InvalidInput, format!("{} {text:?}: {wanted}", setting.label()));
    setting.kind.parse(text).map_err(wanted)
}

/// Fills a host's structure with settings' numbers and choices. Texts are left as they are.
pub(super) fn give_settings(host: &mut HostSettings, own: &Settings) {
    for setting in settings() {
        if let (Some(value), Some(place)) = (setting.get(own), place(host, setting)) {
            put(place, setting.kind, &value);
        }
    }
}

/// The settings of a host's structure, without its images.
///
/// # Safety
/// Texts must be null or end with a zero byte.
pub(super) unsafe fn take_settings(host: &HostSettings, model: &Model) -> Result<Settings, Failure> {
    let mut host = *host;
    let mut own = Settings::new(&model.defaults, "");
    for setting in settings() {
        let Some(place) = place(&mut host, setting) else { continue };
        // SAFETY: the caller's promise.
        if let Some(value) = unsafe { take(place, setting) }? {
            setting.set(&mut own, model, value)?;
        }
    }
    Ok(own)
}

/// The number of settings, which motionclone_setting_describe counts from 0. Later versions may have more. Never fails.
/// Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn motionclone_setting_count() -> u32 {
    settings().len() as u32
}

/// Fills a setting's info with zeros, to be filled by motionclone_setting_describe.
///
/// `struct_size` is sizeof(motionclone_setting_info). Any thread.
///
/// INVALID_ARGUMENT: info is NULL. INVALID_STRUCT_SIZE: struct_size is another one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_setting_info_init(info: *mut HostSettingInfo, struct_size: usize) -> Status {
    // SAFETY: the pointer is one to a structure of that size, says the header.
    call_anywhere(|| unsafe { initialise(info, struct_size, "info", empty_info()) })
}

fn empty_info() -> HostSettingInfo {
    HostSettingInfo {
        struct_size: size_of::<HostSettingInfo>(),
        name: ptr::null(),
        help: ptr::null(),
        unit: ptr::null(),
        since: ptr::null(),
        choices: ptr::null(),
        kind: SettingKind::Integer as u32,
        advanced: 0,
        changes_motion: 0,
        identity: 0,
        default_number: 0.0,
        least: 0.0,
        most: 0.0,
        multiple_of: 0.0,
        usual_least: 0.0,
        usual_most: 0.0,
    }
}

/// A setting with a model.
fn info_of(setting: &Setting, texts: &'static Texts, model: &Model) -> HostSettingInfo {
    let kind = match setting.kind {
        Kind::Integer => SettingKind::Integer,
        Kind::Seed => SettingKind::Seed,
        Kind::Number => SettingKind::Number,
        Kind::Text => SettingKind::Text,
        Kind::Choice(_) => SettingKind::Choice,
        Kind::List => SettingKind::List,
    };
    let default_number = number_of(setting.kind, &setting.default(model)).unwrap_or(f64::NAN);
    let (least, most, multiple_of) = match setting.kind {
        Kind::Integer | Kind::Number => {
            let range = setting.range(model);
            (range.least, range.most, range.multiple_of as f64)
        }
        Kind::Choice(names) => (0.0, names.len().saturating_sub(1) as f64, 1.0),
        Kind::Seed => (-1.0, u64::MAX as f64, 1.0),
        Kind::Text | Kind::List => (f64::NAN, f64::NAN, 0.0),
    };
    let (usual_least, usual_most) = setting.usual.unwrap_or((least, most));
    HostSettingInfo {
        name: texts.name.as_ptr(),
        help: texts.help.as_ptr(),
        unit: texts.unit.as_ptr(),
        since: texts.since.as_ptr(),
        choices: texts.choices.as_ptr(),
        kind: kind as u32,
        advanced: u32::from(setting.advanced),
        changes_motion: u32::from(setting.changes_motion),
        identity: u32::from(setting.identity),
        default_number,
        least,
        most,
        multiple_of,
        usual_least,
        usual_most,
        ..empty_info()
    }
}

/// Tells what a setting is. Settings come in the order in which they are best applied: one that sets others, such as
/// quality or steps, stands before these.
///
/// engine is the one whose model's default and range are wanted, or 0 for those of the published model. The texts belong
/// to the library and live as long as it is loaded. info was set up by motionclone_setting_info_init. Any thread.
///
/// INVALID_ARGUMENT: info is NULL, or index is motionclone_setting_count() or more. INVALID_STRUCT_SIZE: info was not set
/// up. INVALID_HANDLE: engine is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_setting_describe(
    index: u32,
    engine: EngineHandle,
    info: *mut HostSettingInfo,
) -> Status {
    call(|| {
        // SAFETY: the pointer is null or one to a structure that was set up, says the header.
        unsafe { sized(info, "info") }?;
        let setting = settings().zip(TEXTS.iter()).nth(index as usize);
        let (setting, texts) = setting.ok_or_else(|| {
            Failure::new(Status::InvalidArgument, format!("setting {index}: there are {}", settings().len()))
        })?;
        let model = match engine {
            0 => Model::default(),
            engine => Model::from(&OBJECTS.get::<Worker>(engine)?.manifest),
        };
        // SAFETY: as above, and the size is right.
        unsafe { give_structure(info, "info", info_of(setting, texts, &model)) }
    })
}

/// The setting that a host names.
///
/// # Safety
/// `name` must be null or a text that ends with a zero byte.
unsafe fn setting_of(name: *const c_char) -> Result<&'static Setting, Failure> {
    // SAFETY: the caller's promise.
    let name = unsafe { text(name, "name") }?.ok_or_else(|| Failure::new(Status::InvalidArgument, "name is null"))?;
    named(name).ok_or_else(|| Failure::new(Status::InvalidArgument, format!("there is no setting {name:?}")))
}

/// Sets a value in a host's structure, with what follows from it.
///
/// # Safety
/// As the header says for the functions that set; `chars` is the host's text where the setting keeps one.
unsafe fn set(
    engine: EngineHandle,
    host: *mut HostSettings,
    setting: &'static Setting,
    value: Value,
    chars: *const c_char,
) -> Result<(), Failure> {
    // SAFETY: the caller's promise, here and below.
    let engine = OBJECTS.get::<Worker>(engine)?;
    let before = unsafe { read(host, "settings", default_settings(&engine)) }?;
    let mut changed = before;
    let model = Model::from(&engine.manifest);
    setting.check(&value, &model)?;
    match place(&mut changed, setting) {
        Some(Place::Text(to)) => *to = chars,
        None if setting.is_kept() => {
            let message = format!("{}: this version's structure has no place for it", setting.label());
            return Err(Failure::new(Status::InvalidArgument, message));
        }
        _ => {
            let numbers =
                HostSettings { prompt: ptr::null(), negative_prompt: ptr::null(), blocks: ptr::null(), ..changed };
            let mut own = unsafe { take_settings(&numbers, &model) }?;
            setting.set(&mut own, &model, value)?;
            give_settings(&mut changed, &own);
        }
    }
    // What an older host's structure is too short for would be lost.
    if unsafe { unknown_to_host(host, &before) != unknown_to_host(host, &changed) } {
        let message =
            format!("{}: the host's structure has no place for it, as it is of an older header", setting.label());
        return Err(Failure::new(Status::InvalidArgument, message));
    }
    unsafe { give_structure(host, "settings", changed) }
}

/// The end of settings that an older host's structure does not have.
///
/// # Safety
/// The host's structure must have been checked.
unsafe fn unknown_to_host(host: *const HostSettings, settings: &HostSettings) -> &[u8] {
    // SAFETY: the caller's promise; settings hold numbers and pointers without gaps, and a size that was checked is not
    // above theirs.
    unsafe {
        let known = host.cast::<usize>().read();
        std::slice::from_raw_parts(ptr::from_ref(settings).cast::<u8>().add(known), size_of::<HostSettings>() - known)
    }
}

/// Sets a setting by its name to a number, with what follows from it: steps and quality set the steps that are guided,
/// and warm-up and cool-down, in the model's own proportion; strength sets the motion's weight. So quality and steps are
/// set before these. Of a choice, the number is the position among its names; for a seed, -1 draws one. A seed above
/// 2^53 is set as a text, or in its field.
///
/// settings were filled by motionclone_settings_init with this engine. Any thread.
///
/// INVALID_ARGUMENT: settings or name is NULL, or no setting has that name. INVALID_STRUCT_SIZE: settings were not filled.
/// INVALID_HANDLE: engine is none. INVALID_INPUT: the model does not allow that value, or the setting is a text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_settings_set_number(
    settings: *mut HostSettings,
    engine: EngineHandle,
    name: *const c_char,
    value: f64,
) -> Status {
    // SAFETY: all pointers are as the header says.
    call(|| unsafe {
        let setting = setting_of(name)?;
        set(engine, settings, setting, value_of(setting, value)?, ptr::null())
    })
}

/// Sets a setting by its name to what a text says, as a user would write it: a number, the name of a choice such as
/// "draft" for quality, names with commas between for a list. Otherwise as motionclone_settings_set_number.
///
/// The text of a setting that is one, such as prompt or blocks, must live until the job is started; NULL stands for the
/// model's own.
///
/// INVALID_ARGUMENT: settings or name is NULL, text is NULL for a number or a choice or is not UTF-8, or no setting has that
/// name. INVALID_STRUCT_SIZE: settings were not filled. INVALID_HANDLE: engine is none. INVALID_INPUT: the model does not
/// allow that value.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_settings_set_text(
    settings: *mut HostSettings,
    engine: EngineHandle,
    name: *const c_char,
    text: *const c_char,
) -> Status {
    // SAFETY: all pointers are as the header says.
    call(|| unsafe {
        let setting = setting_of(name)?;
        let value = match (boundary::text(text, "text")?, setting.kind) {
            (Some(text), _) => parse(setting, text)?,
            (None, Kind::Text | Kind::List) => Value::Text(String::new()),
            (None, _) => return Err(Failure::new(Status::InvalidArgument, "text is null")),
        };
        set(engine, settings, setting, value, text)
    })
}

/// Copies a setting's value to the host as a text with a zero byte behind it: a number in the shortest form, the name of
/// a choice, names with commas between for a list, and the model's own text where the structure has NULL.
///
/// size is the buffer's size in bytes. needed, unless NULL, receives the size that is needed; buffer may then be NULL.
/// settings were filled by motionclone_settings_init with this engine. Any thread.
///
/// INVALID_ARGUMENT: settings or name is NULL, buffer and needed both are, or no setting that keeps a value has that name:
/// quality and strength only set others. BUFFER_SIZE: the text does not fit. INVALID_STRUCT_SIZE: settings were not
/// filled. INVALID_HANDLE: engine is none. INVALID_INPUT: the structure holds a value that is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn motionclone_settings_get_text(
    settings: *const HostSettings,
    engine: EngineHandle,
    name: *const c_char,
    buffer: *mut c_char,
    size: usize,
    needed: *mut usize,
) -> Status {
    // SAFETY: all pointers are as the header says.
    call(|| unsafe {
        let setting = setting_of(name)?;
        let engine = OBJECTS.get::<Worker>(engine)?;
        let host = read(settings, "settings", default_settings(&engine))?;
        let model = Model::from(&engine.manifest);
        let own = take_settings(&host, &model)?;
        let text = match setting.get(&own) {
            Some(Value::Text(text)) => text,
            Some(Value::List(names)) => names.join(","),
            Some(Value::Integer(number)) => number.to_string(),
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::RandomSeed) | None => {
                let message = format!("{} has no value of its own, it sets others", setting.name);
                return Err(Failure::new(Status::InvalidArgument, message));
            }
        };
        copy_text(&text, buffer, size, needed)
    })
}
