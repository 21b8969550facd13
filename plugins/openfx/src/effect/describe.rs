//! What the plugin tells of itself: contexts, pixels, clips, and the page of parameters.

use crate::effect::parameters::{self, Effect, GROUPS, Kind, Parameter, Text, name};
use crate::ofx::properties::Properties;
use crate::ofx::suites::{Host, Result, check, entry};
use crate::ofx::sys::{self, property};

/// The plugin's identifier.
pub const IDENTIFIER: &std::ffi::CStr = c"org.motionclone.MotionClone";
/// Major, minor and micro version of the effect. Projects are saved with the major one: it grows only when older projects
/// can no longer be opened.
pub const VERSION: [u32; 3] = [1, 0, 0];
/// The icon's file in the bundle's resources.
const ICON: &str = "org.motionclone.MotionClone.png";
/// The context without a source.
pub const GENERATOR: &str = "OfxImageEffectContextGenerator";
const FILTER: &str = "OfxImageEffectContextFilter";
const GENERAL: &str = "OfxImageEffectContextGeneral";
pub const SOURCE: &std::ffi::CStr = c"Source";
pub const CONDITION: &std::ffi::CStr = c"Condition";
pub const OUTPUT: &std::ffi::CStr = c"Output";
const COMPONENTS: &[&str] = &["OfxImageComponentRGBA", "OfxImageComponentRGB"];

/// The effect, whatever the context.
pub fn effect(host: &Host, effect: sys::Handle) -> Result<()> {
    let properties = property_set(host, effect)?;
    properties.set_text(property::LABEL, 0, "MotionClone")?;
    // Not every host has all of these.
    let _ = properties.set_text(property::SHORT_LABEL, 0, "MotionClone");
    let _ = properties.set_text(property::LONG_LABEL, 0, "MotionClone");
    let _ = properties.set_text(
        property::DESCRIPTION,
        0,
        "Makes a new clip that moves like the source and shows what you write.",
    );
    for (index, number) in VERSION.iter().enumerate() {
        let _ = properties.set_int(property::VERSION, index as i32, *number as i32);
    }
    let label = format!("{}.{}.{} (MotionClone {})", VERSION[0], VERSION[1], VERSION[2], env!("CARGO_PKG_VERSION"));
    let _ = properties.set_text(property::VERSION_LABEL, 0, &label);
    // First an SVG, which there is none of, then a PNG.
    let _ = properties.set_texts(property::ICON, &["", ICON]);
    properties.set_text(property::GROUPING, 0, "MotionClone")?;
    properties.set_texts(property::SUPPORTED_CONTEXTS, &[FILTER, GENERAL, GENERATOR])?;
    properties.set_texts(
        property::SUPPORTED_PIXEL_DEPTHS,
        &["OfxBitDepthFloat", "OfxBitDepthHalf", "OfxBitDepthShort", "OfxBitDepthByte"],
    )?;
    let _ = properties.set_int(property::SINGLE_INSTANCE, 0, 0);
    let _ = properties.set_int(property::HOST_FRAME_THREADING, 0, 0);
    let _ = properties.set_text(property::RENDER_THREAD_SAFETY, 0, "OfxImageEffectRenderFullySafe");
    let _ = properties.set_int(property::FIELD_RENDER_TWICE, 0, 0);
    let _ = properties.set_int(property::SUPPORTS_MULTI_RESOLUTION, 0, 1);
    let _ = properties.set_int(property::SUPPORTS_TILES, 0, 1);
    let _ = properties.set_int(property::TEMPORAL_CLIP_ACCESS, 0, 1);
    let _ = properties.set_int(property::MULTIPLE_CLIP_DEPTHS, 0, 0);
    let _ = properties.set_int(property::MULTIPLE_CLIP_PARS, 0, 0);
    Ok(())
}

/// Clips and parameters in a context.
pub fn in_context(host: &Host, effect: sys::Handle, context: &str) -> Result<()> {
    if context != GENERATOR {
        clip(host, effect, SOURCE, false)?;
    }
    if context == GENERAL {
        clip(host, effect, CONDITION, true)?;
    }
    clip(host, effect, OUTPUT, false)?;
    let (get, mut set) = (entry(host.effect.get_param_set)?, std::ptr::null_mut());
    // SAFETY: the handle is the host's, here and below.
    check(unsafe { get(effect, &mut set) })?;
    let page = define(host, set, c"OfxParamTypePage", c"page", "MotionClone")?;
    for (index, group) in GROUPS.iter().enumerate() {
        let defined = define(host, set, c"OfxParamTypeGroup", group.name, group.label)?;
        // Hosts draw groups that are closed or hidden in their own ways; none of it must stop the description.
        let _ = defined.set_int(property::PARAM_GROUP_OPEN, 0, i32::from(group.open));
        let hidden = group.parameters.iter().all(|parameter| is_secret(host, parameter));
        let _ = defined.set_int(property::PARAM_SECRET, 0, i32::from(hidden));
        page.set_text(property::PARAM_PAGE_CHILD, index as i32, &group.name.to_string_lossy())?;
        for parameter in group.parameters {
            self::parameter(host, set, group, parameter)?;
        }
    }
    Ok(())
}

/// Whether a parameter is shown to nobody, which costs it its value in some hosts.
fn is_secret(host: &Host, parameter: &Parameter) -> bool {
    parameter.effect == Effect::Hidden && (host.keeps_secrets() || parameter.name != name::RESULT)
}

fn property_set(host: &Host, effect: sys::Handle) -> Result<Properties<'_>> {
    let (get, mut properties) = (entry(host.effect.get_property_set)?, std::ptr::null_mut());
    // SAFETY: as above.
    check(unsafe { get(effect, &mut properties) })?;
    Ok(Properties::of(host, properties))
}

fn clip(host: &Host, effect: sys::Handle, name: &std::ffi::CStr, optional: bool) -> Result<()> {
    let (define, mut properties) = (entry(host.effect.clip_define)?, std::ptr::null_mut());
    // SAFETY: as above.
    check(unsafe { define(effect, name.as_ptr(), &mut properties) })?;
    let properties = Properties::of(host, properties);
    properties.set_texts(property::SUPPORTED_COMPONENTS, COMPONENTS)?;
    let _ = properties.set_int(property::CLIP_OPTIONAL, 0, i32::from(optional));
    let _ = properties.set_int(property::SUPPORTS_TILES, 0, i32::from(name == OUTPUT));
    let _ = properties.set_int(property::TEMPORAL_CLIP_ACCESS, 0, i32::from(name != OUTPUT));
    Ok(())
}

fn define<'a>(
    host: &'a Host,
    set: sys::Handle,
    kind: &std::ffi::CStr,
    name: &std::ffi::CStr,
    label: &str,
) -> Result<Properties<'a>> {
    let (define, mut properties) = (entry(host.parameter.define)?, std::ptr::null_mut());
    // SAFETY: as above.
    check(unsafe { define(set, kind.as_ptr(), name.as_ptr(), &mut properties) })?;
    let properties = Properties::of(host, properties);
    properties.set_text(property::LABEL, 0, label)?;
    Ok(properties)
}

fn parameter(host: &Host, set: sys::Handle, group: &parameters::Group, parameter: &Parameter) -> Result<()> {
    let kind = match parameter.kind {
        Kind::Text(..) => c"OfxParamTypeString",
        Kind::Choice(..) => c"OfxParamTypeChoice",
        Kind::Switch(_) => c"OfxParamTypeBoolean",
        Kind::Int { .. } => c"OfxParamTypeInteger",
        Kind::Double { .. } => c"OfxParamTypeDouble",
        Kind::Button => c"OfxParamTypePushButton",
    };
    let defined = define(host, set, kind, parameter.name, parameter.label)?;
    let _ = defined.set_text(property::PARAM_HINT, 0, parameter.hint);
    let _ = defined.set_text(property::PARAM_SCRIPT_NAME, 0, &parameter.name.to_string_lossy());
    defined.set_text(property::PARAM_PARENT, 0, &group.name.to_string_lossy())?;
    if parameter.kind != Kind::Button {
        let (passing, hidden) = (parameter.effect == Effect::Passing, parameter.effect == Effect::Hidden);
        let _ = defined.set_int(property::PARAM_ANIMATES, 0, 0);
        let _ = defined.set_int(property::PARAM_SECRET, 0, i32::from(is_secret(host, parameter)));
        let _ = defined.set_int(property::PARAM_PERSISTANT, 0, i32::from(!passing));
        let _ = defined.set_int(property::PARAM_CAN_UNDO, 0, i32::from(!passing && !hidden));
        let evaluated = matches!(parameter.effect, Effect::Picture | Effect::Hidden);
        let _ = defined.set_int(property::PARAM_EVALUATE_ON_CHANGE, 0, i32::from(evaluated));
    }
    match parameter.kind {
        Kind::Text(text, default) => {
            let mode = match text {
                Text::Line => "OfxParamStringIsSingleLine",
                Text::Lines => "OfxParamStringIsMultiLine",
                Text::File | Text::NewFile => "OfxParamStringIsFilePath",
                Text::Folder => "OfxParamStringIsDirectoryPath",
                Text::Label => "OfxParamStringIsLabel",
            };
            let _ = defined.set_text(property::PARAM_STRING_MODE, 0, mode);
            if text == Text::NewFile {
                let _ = defined.set_int(property::PARAM_STRING_FILE_EXISTS, 0, 0);
            }
            defined.set_text(property::PARAM_DEFAULT, 0, default)
        }
        Kind::Choice(options, default) => {
            defined.set_texts(property::PARAM_CHOICE_OPTION, options)?;
            defined.set_int(property::PARAM_DEFAULT, 0, default)
        }
        Kind::Switch(_) => {
            let default = parameters::switch_default(parameter, host.takes_sets_from_threads());
            defined.set_int(property::PARAM_DEFAULT, 0, i32::from(default))
        }
        Kind::Int { default, range, display } => {
            for (name, value) in [
                (property::PARAM_DEFAULT, default),
                (property::PARAM_MIN, range[0]),
                (property::PARAM_MAX, range[1]),
                (property::PARAM_DISPLAY_MIN, display[0]),
                (property::PARAM_DISPLAY_MAX, display[1]),
            ] {
                defined.set_int(name, 0, value)?;
            }
            Ok(())
        }
        Kind::Double { default, range, display } => {
            for (name, value) in [
                (property::PARAM_DEFAULT, default),
                (property::PARAM_MIN, range[0]),
                (property::PARAM_MAX, range[1]),
                (property::PARAM_DISPLAY_MIN, display[0]),
                (property::PARAM_DISPLAY_MAX, display[1]),
            ] {
                defined.set_double(name, 0, value)?;
            }
            let _ = defined.set_text(property::PARAM_DOUBLE_TYPE, 0, "OfxParamDoubleTypePlain");
            let _ = defined.set_double(property::PARAM_INCREMENT, 0, 0.01);
            let _ = defined.set_int(property::PARAM_DIGITS, 0, 2);
            Ok(())
        }
        Kind::Button => Ok(()),
    }
}
