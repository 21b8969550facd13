//! The table of settings from a host's side: what it is told of them, and how it sets and reads them by name.

mod host;

use std::ffi::{CStr, CString, c_char};
use std::ptr::{null, null_mut};

use host::*;
use motionclone::capi::*;
use motionclone::onnx::manifest::Manifest;
use motionclone::settings::{Kind, Model, Settings, Value};

fn text_of(text: *const c_char) -> String {
    // SAFETY: the library's texts end with a zero byte.
    unsafe { CStr::from_ptr(text) }.to_str().unwrap().to_string()
}

fn info(index: u32, engine: EngineHandle) -> HostSettingInfo {
    let mut info = std::mem::MaybeUninit::uninit();
    // SAFETY: the first function writes a whole structure, the second fills it.
    unsafe {
        ok(motionclone_setting_info_init(info.as_mut_ptr(), size_of::<HostSettingInfo>()));
        ok(motionclone_setting_describe(index, engine, info.as_mut_ptr()));
        info.assume_init()
    }
}

fn set_text(settings: &mut HostSettings, engine: EngineHandle, name: &str, value: &CStr) -> Status {
    let name = CString::new(name).unwrap();
    // SAFETY: the pointers are to living values.
    unsafe { motionclone_settings_set_text(settings, engine, name.as_ptr(), value.as_ptr()) }
}

fn set_number(settings: &mut HostSettings, engine: EngineHandle, name: &str, value: f64) -> Status {
    let name = CString::new(name).unwrap();
    // SAFETY: the pointers are to living values.
    unsafe { motionclone_settings_set_number(settings, engine, name.as_ptr(), value) }
}

fn get(settings: &HostSettings, engine: EngineHandle, name: &str) -> Result<String, Status> {
    let name = CString::new(name).unwrap();
    let (mut buffer, mut needed) = ([0; 1024], 0);
    // SAFETY: the pointers are to living values.
    let status = unsafe {
        motionclone_settings_get_text(settings, engine, name.as_ptr(), buffer.as_mut_ptr(), buffer.len(), &mut needed)
    };
    if status != Status::Ok {
        return Err(status);
    }
    let text = text_of(buffer.as_ptr());
    assert_eq!(needed, text.len() + 1);
    Ok(text)
}

/// The model's own settings, as the host gets them.
fn own(engine: EngineHandle) -> HostSettings {
    let mut settings = std::mem::MaybeUninit::uninit();
    // SAFETY: the function writes a whole structure.
    unsafe {
        ok(motionclone_settings_init(settings.as_mut_ptr(), size_of::<HostSettings>(), engine));
        settings.assume_init()
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::List(names) => names.join(","),
        Value::Integer(number) => number.to_string(),
        Value::Number(number) => number.to_string(),
        Value::RandomSeed => panic!("nothing keeps it"),
    }
}

#[test]
fn every_row_of_the_table_is_told() {
    let engine = engine();
    let model = Model::from(&Manifest::read(bundle()).unwrap());
    let table: Vec<_> = motionclone::settings::settings().collect();
    assert_eq!(motionclone_setting_count() as usize, table.len());
    let host = own(engine);
    for (index, setting) in table.iter().enumerate() {
        for (engine, model) in [(engine, &model), (0, &Model::default())] {
            let info = info(index as u32, engine);
            assert_eq!(text_of(info.name), setting.name);
            assert_eq!(text_of(info.help), setting.help);
            assert_eq!(text_of(info.unit), setting.unit);
            assert_eq!(text_of(info.since), setting.since);
            let flags = [info.advanced, info.changes_motion, info.identity].map(|flag| flag == 1);
            assert_eq!(flags, [setting.advanced, setting.changes_motion, setting.identity], "{}", setting.name);
            match (setting.kind, setting.default(model)) {
                (Kind::Choice(names), Value::Text(own)) => {
                    assert_eq!(text_of(info.choices), names.join(","));
                    assert_eq!(names[info.default_number as usize], own);
                }
                (Kind::Integer | Kind::Number, own) => {
                    let range = setting.range(model);
                    assert_eq!((info.least, info.most), (range.least, range.most), "{}", setting.name);
                    assert_eq!(info.multiple_of, range.multiple_of as f64);
                    assert_eq!(info.default_number.to_string(), shown(&own));
                    assert!(info.usual_least >= info.least && info.usual_most <= info.most, "{}", setting.name);
                }
                (Kind::Seed, own) => assert_eq!(info.default_number.to_string(), shown(&own)),
                _ => assert!(info.default_number.is_nan() && text_of(info.choices).is_empty()),
            }
        }
        let expected = setting.is_kept().then(|| shown(&setting.default(&model)));
        assert_eq!(get(&host, engine, setting.name).ok(), expected, "{}", setting.name);
    }
}

#[test]
fn settings_are_set_by_their_names() {
    let engine = engine();
    let model = Model::from(&Manifest::read(bundle()).unwrap());
    for setting in motionclone::settings::settings().filter(|setting| setting.is_kept()) {
        let mut host = own(engine);
        let other = match (setting.kind, setting.default(&model)) {
            (_, Value::Integer(number)) => (number + 8).to_string(),
            (_, Value::Number(number)) => (number / 2.0 + 0.125).to_string(),
            (Kind::Choice(names), _) => names[names.len() - 1].to_string(),
            (Kind::List, _) => "mid_block".into(),
            (_, own) => shown(&own) + " and more",
        };
        let text = CString::new(other.clone()).unwrap();
        ok(set_text(&mut host, engine, setting.name, &text));
        assert_eq!(get(&host, engine, setting.name).as_deref(), Ok(other.as_str()), "{}", setting.name);
        if let Ok(number) = other.parse::<f64>() {
            let mut again = own(engine);
            ok(set_number(&mut again, engine, setting.name, number));
            assert_eq!(get(&again, engine, setting.name).as_deref(), Ok(other.as_str()), "{}", setting.name);
        }
    }
    let mut host = own(engine);
    assert_eq!((host.steps, host.guidance_steps, host.warm_up, host.cool_up), (100, 50, 10, 10));
    ok(set_number(&mut host, engine, "steps", 40.0));
    assert_eq!((host.steps, host.guidance_steps, host.warm_up, host.cool_up), (40, 20, 4, 4));
    ok(set_number(&mut host, engine, "warm_up", 0.0));
    assert_eq!((host.steps, host.guidance_steps, host.warm_up, host.cool_up), (40, 20, 0, 4));
    ok(set_text(&mut host, engine, "quality", c"best"));
    assert_eq!((host.steps, host.guidance_steps, host.warm_up, host.cool_up), (200, 100, 20, 20));
    ok(set_number(&mut host, engine, "quality", 0.0));
    assert_eq!((host.steps, host.guidance_steps), (40, 20));
    let weight = Settings::new(&model.defaults, "").motion_weight;
    ok(set_number(&mut host, engine, "strength", 0.5));
    assert_eq!(host.motion_weight, weight / 2.0);
    ok(set_text(&mut host, engine, "seed", c"18446744073709551615"));
    assert_eq!(host.seed, u64::MAX);
    // The largest seed is not rounded by what is set beside it.
    ok(set_number(&mut host, engine, "cfg", 1.5));
    assert_eq!((host.seed, host.cfg), (u64::MAX, 1.5));
    ok(set_number(&mut host, engine, "seed", -1.0));
    assert!(host.seed < 1 << 31);
    ok(set_text(&mut host, engine, "noise", c"cuda"));
    assert_eq!(host.noise, 1);
}

#[test]
fn what_cannot_be_set_changes_nothing() {
    let engine = engine();
    let settings = own(engine);
    let bytes = |settings: &HostSettings| format!("{settings:?}");
    for (name, value, status, reason) in [
        ("width", c"60", Status::InvalidInput, "width 60: must be a multiple of 8 from 8 to 4096"),
        ("width", c"wide", Status::InvalidInput, "width \"wide\": must be a whole number"),
        ("steps", c"0", Status::InvalidInput, "steps 0: must be 1 to 1000"),
        ("seed", c"-2", Status::InvalidInput, "must be a whole number from 0"),
        ("quality", c"fast", Status::InvalidInput, "quality \"fast\": must be draft or standard or best"),
        ("noise", c"tpu", Status::InvalidInput, "must be cpu or cuda"),
        ("colour", c"blue", Status::InvalidArgument, "there is no setting \"colour\""),
    ] {
        let mut host = settings;
        assert_eq!(set_text(&mut host, engine, name, value), status, "{name}");
        assert!(last_error().contains(reason), "{}", last_error());
        assert_eq!(bytes(&host), bytes(&settings));
    }
    for (name, value, reason) in [
        ("guidance_scale", f64::NAN, "must be a number"),
        ("motion_weight", f64::INFINITY, "must be a number"),
        ("strength", -1.0, "strength -1: must be a number of at least 0"),
        ("frames", 2.5, "frames 2.5: must be a whole number"),
        ("frames", 1e300, "must be a whole number"),
        ("quality", 3.0, "must be 0 to 2, for draft, standard, best"),
        ("quality", -1.0, "must be 0 to 2"),
        ("prompt", 7.0, "prompt 7: must be a text"),
    ] {
        let mut host = settings;
        assert_eq!(set_number(&mut host, engine, name, value), Status::InvalidInput, "{name}");
        assert!(last_error().contains(reason), "{}", last_error());
        assert_eq!(bytes(&host), bytes(&settings));
    }
    assert_eq!(get(&settings, engine, "quality"), Err(Status::InvalidArgument));
    let mut wrong = settings;
    (wrong.noise, wrong.struct_size) = (7, size_of::<HostSettings>());
    assert_eq!(get(&wrong, engine, "noise"), Err(Status::InvalidInput));
    let name = c"steps".as_ptr();
    let mut host = settings;
    // SAFETY: null pointers are refused before they are used.
    unsafe {
        assert_eq!(motionclone_settings_set_number(null_mut(), engine, name, 1.0), Status::InvalidArgument);
        assert_eq!(motionclone_settings_set_number(&mut host, engine, null(), 1.0), Status::InvalidArgument);
        assert_eq!(motionclone_settings_set_number(&mut host, 0, name, 1.0), Status::InvalidHandle);
        assert_eq!(motionclone_settings_set_text(&mut host, engine, name, null()), Status::InvalidArgument);
        let mut info = info(0, 0);
        assert_eq!(motionclone_setting_describe(motionclone_setting_count(), 0, &mut info), Status::InvalidArgument);
        assert_eq!(motionclone_setting_describe(0, 1, &mut info), Status::InvalidHandle);
        assert_eq!(motionclone_setting_describe(0, 0, null_mut()), Status::InvalidArgument);
    }
}

#[test]
fn a_text_is_the_hosts_until_it_is_null() {
    let engine = engine();
    let mut host = own(engine);
    ok(set_text(&mut host, engine, "prompt", c"a road"));
    assert_eq!(get(&host, engine, "prompt").as_deref(), Ok("a road"));
    let blocks = get(&host, engine, "blocks").unwrap();
    ok(set_text(&mut host, engine, "blocks", c"mid_block, up_blocks.2"));
    assert_eq!(get(&host, engine, "blocks").as_deref(), Ok("mid_block,up_blocks.2"));
    // SAFETY: null stands for the model's own.
    ok(unsafe { motionclone_settings_set_text(&mut host, engine, c"blocks".as_ptr(), null()) });
    assert_eq!(get(&host, engine, "blocks"), Ok(blocks));
}
