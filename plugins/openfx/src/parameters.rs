//! Every parameter in one table: it is what hosts are told, what the guide and its picture show, and how values are
//! read and written.

use std::ffi::{CStr, c_char, c_int};

use crate::properties::Properties;
use crate::suites::{Host, Result, c_text, check, entry};
use crate::sys::{self, property};

/// Which instances have a parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Where {
    Everywhere,
    /// Only where the reference is a file.
    Generator,
}

/// What a text is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Text {
    Line,
    Lines,
    File,
    /// A file that need not be there yet.
    NewFile,
    Folder,
    /// Shown, not typed.
    Label,
}

/// A parameter's type, with its default and what is allowed. Numbers have what may be typed and what sliders cover.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Text(Text, &'static str),
    Choice(&'static [&'static str], i32),
    Switch(bool),
    Int { default: i32, range: [i32; 2], display: [i32; 2] },
    Double { default: f64, range: [f64; 2], display: [f64; 2] },
    Button,
}

/// What a change of a parameter does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Effect {
    /// Nothing until the next Generate.
    Generate,
    /// The picture changes.
    Picture,
    /// The plugin's own: shown to nobody, kept with the project, and the picture changes.
    Hidden,
    /// Nothing, and it is not kept with the project.
    Passing,
}

pub struct Parameter {
    /// Never changes: projects are saved with it.
    pub name: &'static CStr,
    pub label: &'static str,
    pub hint: &'static str,
    pub kind: Kind,
    pub effect: Effect,
    pub place: Where,
}

pub struct Group {
    pub name: &'static CStr,
    pub label: &'static str,
    pub open: bool,
    pub parameters: &'static [Parameter],
}

const fn parameter(name: &'static CStr, label: &'static str, kind: Kind, hint: &'static str) -> Parameter {
    Parameter { name, label, hint, kind, effect: Effect::Generate, place: Where::Everywhere }
}

impl Parameter {
    const fn effect(mut self, effect: Effect) -> Self {
        self.effect = effect;
        self
    }

    const fn only(mut self, place: Where) -> Self {
        self.place = place;
        self
    }

    /// Whether instances of a context have it.
    pub fn is_in(&self, generator: bool) -> bool {
        match self.place {
            Where::Everywhere => true,
            Where::Generator => generator,
        }
    }
}

const fn int(default: i32, range: [i32; 2], display: [i32; 2]) -> Kind {
    Kind::Int { default, range, display }
}

const fn double(default: f64, range: [f64; 2], display: [f64; 2]) -> Kind {
    Kind::Double { default, range, display }
}

/// Names of the parameters that the plugin asks for.
pub mod name {
    use std::ffi::CStr;

    macro_rules! names {
        ($($name:ident = $text:literal)*) => { $(pub const $name: &CStr = $text;)* };
    }
    names! {
        STATUS = c"status" GENERATE = c"generate" CANCEL = c"cancel" UPDATE = c"update" WAIT = c"wait" LIVE = c"live"
        PROMPT = c"prompt" NEGATIVE = c"negativePrompt" MODE = c"mode" IMAGE_FILE = c"imageFile"
        IMAGE_FRAME = c"imageFrame" IMAGE_STRENGTH = c"imageStrength" SEED = c"seed" RANDOMISE = c"randomise"
        STRENGTH = c"motionStrength" QUALITY = c"quality" STEPS = c"steps" SIZE = c"size" WIDTH = c"width"
        HEIGHT = c"height" FRAMES = c"frames" GUIDANCE_STEPS = c"guidanceSteps" GUIDANCE_SCALE = c"guidanceScale"
        WARM_UP = c"warmUp" COOL_UP = c"coolUp" CFG = c"cfg" NOISE_STEP = c"noiseStep" TOP_K = c"topK"
        BLOCKS = c"blocks" REFERENCE_FILE = c"referenceFile" WHOLE = c"wholeReference" FIRST = c"referenceFirst"
        LAST = c"referenceLast" LENGTH = c"length" SPEED = c"speed" COLOURS = c"colours" MOTION_FROM = c"motionFrom"
        MOTION_FILE = c"motionFile" SAVE_MOTION = c"saveMotion" LOAD_MOTION = c"loadMotion" BUNDLE = c"bundle"
        DEVICE = c"device" CACHE_FOLDER = c"cacheFolder" CACHE_LIMIT = c"cacheLimit" RESULT = c"result"
        REFRESH = c"refresh"
    }
}

/// Values of the choices, in the order of their options.
pub mod choice {
    pub const MODE_TEXT: i32 = 0;
    pub const MODE_SKETCH: i32 = 2;
    pub const QUALITY_BEST: i32 = 2;
    pub const QUALITY_CUSTOM: i32 = 3;
    pub const SIZE_OF_THE_MODEL: i32 = 0;
    pub const SIZE_CUSTOM: i32 = 1;
    pub const LENGTH_LOOP: i32 = 1;
    pub const LENGTH_PING_PONG: i32 = 2;
    pub const LENGTH_STRETCH: i32 = 3;
    pub const COLOURS_AUTOMATIC: i32 = 0;
    pub const COLOURS_LINEAR: i32 = 2;
    pub const MOTION_OF_THE_REFERENCE: i32 = 0;
    pub const MOTION_OF_THE_FILE: i32 = 1;
    pub const DEVICE_AUTO: i32 = 0;
    pub const DEVICE_CPU: i32 = 1;
}

/// The page, group by group.
pub const GROUPS: &[Group] = &[
    Group {
        name: c"groupGenerate",
        label: "Generate",
        open: true,
        parameters: &[
            parameter(name::STATUS, "Status", Kind::Text(Text::Label, ""), "How the work stands, and what is missing.")
                .effect(Effect::Passing),
            parameter(
                name::GENERATE,
                "Generate",
                Kind::Button,
                "Reads the reference and makes the new clip. The picture stays as it is until the clip is there.",
            ),
            parameter(name::CANCEL, "Cancel", Kind::Button, "Ends the work; the clip from before stays."),
            parameter(name::UPDATE, "Update", Kind::Button, "Shows how the work stands, where it does not by itself."),
            parameter(
                name::WAIT,
                "Wait with a progress dialog",
                Kind::Switch(false),
                "Generate shows the host's progress dialog and returns when the clip is there.",
            ),
            parameter(
                name::LIVE,
                "Update by itself",
                Kind::Switch(true),
                "Status and picture change while the work goes on. Turn it off in a host that does not allow it; then \
                 Update shows them.",
            ),
        ],
    },
    Group {
        name: c"groupClip",
        label: "New clip",
        open: true,
        parameters: &[
            parameter(name::PROMPT, "Prompt", Kind::Text(Text::Lines, ""), "What the new clip shows."),
            parameter(
                name::NEGATIVE,
                "Negative prompt",
                Kind::Text(Text::Lines, ""),
                "What it must not show. Empty: what the model has by itself.",
            ),
            parameter(
                name::MODE,
                "Mode",
                Kind::Choice(&["Text", "Picture", "Sketch"], choice::MODE_TEXT),
                "Text: the prompt alone. Picture: the new clip shows a picture. Sketch: it follows white lines on \
                 black. Either is the input Condition, where it is connected, else the file below.",
            ),
            parameter(
                name::IMAGE_FILE,
                "Picture or sketch",
                Kind::Text(Text::File, ""),
                "An image file (PNG, JPEG, WebP, BMP, TIFF), for the modes Picture and Sketch.",
            ),
            parameter(
                name::IMAGE_FRAME,
                "At frame",
                int(0, [0, 255], [0, 31]),
                "The frame of the new clip that shows the picture or sketch, from 0.",
            ),
            parameter(
                name::IMAGE_STRENGTH,
                "Picture strength",
                double(1.0, [0.0, 10.0], [0.0, 2.0]),
                "How strictly picture or sketch are followed; 1 is the model's own.",
            ),
            parameter(
                name::STRENGTH,
                "Motion strength",
                double(1.0, [0.0, 20.0], [0.0, 3.0]),
                "How strictly the motion is followed: 1 is the model's own, 0 leaves the motion to the model.",
            ),
            parameter(
                name::SEED,
                "Seed",
                int(2025, [0, i32::MAX], [0, 10000]),
                "The same seed gives the same clip; another one, another clip.",
            ),
            parameter(name::RANDOMISE, "Randomise", Kind::Button, "Takes another seed."),
        ],
    },
    Group {
        name: c"groupQuality",
        label: "Quality",
        open: true,
        parameters: &[
            parameter(
                name::QUALITY,
                "Quality",
                Kind::Choice(&["Preview", "Standard", "Best", "Custom"], 1),
                "Best takes all of the model's steps, Standard half of them, Preview a quarter; Custom what you set.",
            ),
            parameter(
                name::STEPS,
                "Steps",
                int(50, [1, 1000], [1, 100]),
                "Denoising steps: more take longer and look better.",
            ),
            parameter(
                name::SIZE,
                "Size",
                Kind::Choice(&["The model's own", "Custom"], choice::SIZE_OF_THE_MODEL),
                "The size that the clip is made at; it is scaled to the picture.",
            ),
            parameter(name::WIDTH, "Width", int(512, [8, 4096], [64, 1024]), "Pixels across, a multiple of 8."),
            parameter(name::HEIGHT, "Height", int(512, [8, 4096], [64, 1024]), "Pixels down, a multiple of 8."),
            parameter(
                name::FRAMES,
                "Frames",
                int(16, [2, 256], [2, 32]),
                "Frames of the new clip. That many are taken evenly from the reference, from its first to its last.",
            ),
        ],
    },
    Group {
        name: c"groupAdvanced",
        label: "Advanced",
        open: false,
        parameters: &[
            parameter(
                name::GUIDANCE_STEPS,
                "Guided steps",
                int(25, [0, 1000], [0, 100]),
                "How many of the steps are guided by the motion.",
            ),
            parameter(
                name::WARM_UP,
                "Warm-up",
                int(5, [0, 1000], [0, 50]),
                "Guided steps over which the guidance grows.",
            ),
            parameter(
                name::COOL_UP,
                "Cool-up",
                int(5, [0, 1000], [0, 50]),
                "Guided steps over which the guidance fades.",
            ),
            parameter(
                name::GUIDANCE_SCALE,
                "Guidance scale",
                double(0.3, [0.0, 1.0], [0.0, 1.0]),
                "Share of the noise schedule that the guided steps cover.",
            ),
            parameter(
                name::CFG,
                "Classifier-free guidance",
                double(7.5, [0.0, 100.0], [0.0, 20.0]),
                "How strictly the prompt is followed, as the published code counts it: 7.5 here is 8.5 elsewhere.",
            ),
            parameter(
                name::NOISE_STEP,
                "Noise step",
                int(400, [0, 999], [0, 999]),
                "Timestep at which the motion is read.",
            ),
            parameter(name::TOP_K, "Top k", int(1, [1, 256], [1, 16]), "Attention entries that are kept a query."),
            parameter(
                name::BLOCKS,
                "Blocks",
                Kind::Text(Text::Line, ""),
                "UNet blocks whose motion is cloned, with commas between. Empty: the model's own.",
            ),
        ],
    },
    Group {
        name: c"groupReference",
        label: "Reference",
        open: true,
        parameters: &[
            parameter(
                name::REFERENCE_FILE,
                "Reference",
                Kind::Text(Text::File, ""),
                "The video whose motion is cloned (ffmpeg reads it), or an image of a folder of images.",
            )
            .only(Where::Generator),
            parameter(name::WHOLE, "Whole clip", Kind::Switch(true), "The motion of the whole clip is cloned.")
                .effect(Effect::Picture),
            parameter(
                name::FIRST,
                "First frame",
                int(0, [-1_000_000, 1_000_000], [0, 1000]),
                "Where the motion begins, unless the whole clip is taken. In a generator, counted from 0 in the file.",
            )
            .effect(Effect::Picture),
            parameter(
                name::LAST,
                "Last frame",
                int(47, [-1_000_000, 1_000_000], [0, 1000]),
                "Where the motion ends, unless the whole clip is taken.",
            )
            .effect(Effect::Picture),
            parameter(
                name::MOTION_FROM,
                "Motion of",
                Kind::Choice(&["The reference", "The motion file"], choice::MOTION_OF_THE_REFERENCE),
                "Where the motion comes from.",
            ),
            parameter(
                name::MOTION_FILE,
                "Motion file",
                Kind::Text(Text::NewFile, ""),
                "A motion that was kept (.safetensors), or is to be.",
            ),
            parameter(name::SAVE_MOTION, "Save motion", Kind::Button, "Keeps the shown clip's motion in the file."),
            parameter(
                name::LOAD_MOTION,
                "Load motion",
                Kind::Button,
                "Takes the motion from the file from now on, with the size and frames that it was read at.",
            ),
        ],
    },
    Group {
        name: c"groupTiming",
        label: "Timing and colours",
        open: false,
        parameters: &[
            parameter(
                name::LENGTH,
                "When it is over",
                Kind::Choice(&["Hold", "Loop", "Ping-pong", "Stretch"], 0),
                "The new clip lasts as long as its reference. Then its last frame stays (Hold), it begins anew (Loop) \
                 or runs backwards (Ping-pong). Stretch makes it as long as the whole source.",
            )
            .effect(Effect::Picture),
            parameter(
                name::SPEED,
                "Speed",
                double(1.0, [0.01, 100.0], [0.1, 4.0]),
                "How fast the new clip runs; 1 is as fast as its reference. Means nothing to Stretch.",
            )
            .effect(Effect::Picture),
            parameter(
                name::COLOURS,
                "Colours are",
                Kind::Choice(&["Automatic", "Video (sRGB)", "Linear light"], choice::COLOURS_AUTOMATIC),
                "What the host's pixels are. Automatic: linear light for floating point in Nuke and Natron, else \
                 video.",
            )
            .effect(Effect::Picture),
        ],
    },
    Group {
        name: c"groupModel",
        label: "Model",
        open: true,
        parameters: &[
            parameter(
                name::BUNDLE,
                "Bundle",
                Kind::Text(Text::Folder, ""),
                "The model: the folder that `motionclone import` made.",
            ),
            parameter(
                name::DEVICE,
                "Device",
                Kind::Choice(&["Automatic", "CPU", "CUDA 0", "CUDA 1", "CUDA 2", "CUDA 3"], choice::DEVICE_AUTO),
                "Where the networks run. Automatic: the first NVIDIA GPU that works, else the CPU.",
            ),
            parameter(
                name::CACHE_FOLDER,
                "Cache folder",
                Kind::Text(Text::Folder, ""),
                "Where finished clips are kept. Empty: the user's own cache folder.",
            )
            .effect(Effect::Picture),
            parameter(
                name::CACHE_LIMIT,
                "Cache limit (GB)",
                double(4.0, [0.01, 10000.0], [0.5, 100.0]),
                "When more is kept, the clips that were not shown for longest go.",
            ),
        ],
    },
    Group {
        name: c"groupHidden",
        label: "Kept with the project",
        open: false,
        parameters: &[
            parameter(name::RESULT, "Result", Kind::Text(Text::Line, ""), "Which clip of the cache is shown.")
                .effect(Effect::Hidden),
            parameter(
                name::REFRESH,
                "Refresh",
                int(0, [0, i32::MAX], [0, 1000]),
                "Grows when there is something new to show.",
            )
            .effect(Effect::Hidden),
        ],
    },
];

/// Every parameter with its group.
pub fn all() -> impl Iterator<Item = (&'static Group, &'static Parameter)> {
    GROUPS.iter().flat_map(|group| group.parameters.iter().map(move |parameter| (group, parameter)))
}

/// The parameter of a name.
pub fn named(name: &CStr) -> Option<&'static Parameter> {
    all().map(|(_, parameter)| parameter).find(|parameter| parameter.name == name)
}

/// The parameters of an instance.
pub struct Values<'a> {
    host: &'a Host,
    set: sys::Handle,
}

impl<'a> Values<'a> {
    /// Those of an effect.
    pub fn of(host: &'a Host, effect: sys::Handle) -> Result<Self> {
        let (get, mut set) = (entry(host.effect.get_param_set)?, std::ptr::null_mut());
        // SAFETY: the handle is the host's, here and below.
        check(unsafe { get(effect, &mut set) })?;
        Ok(Self { host, set })
    }

    fn handle(&self, name: &CStr) -> Result<(sys::Handle, sys::Handle)> {
        let (mut parameter, mut properties) = (std::ptr::null_mut(), std::ptr::null_mut());
        let get = entry(self.host.parameter.get_handle)?;
        // SAFETY: as above.
        check(unsafe { get(self.set, name.as_ptr(), &mut parameter, &mut properties) })?;
        Ok((parameter, properties))
    }

    /// The value of a whole number, a choice, or a switch; its default where the host has none.
    pub fn int(&self, name: &CStr) -> i32 {
        let read = || -> Result<i32> {
            let mut value: c_int = 0;
            let (get, (handle, _)) = (entry(self.host.parameter.get_value)?, self.handle(name)?);
            // SAFETY: parameters of these types are read into one int.
            check(unsafe { get(handle, &mut value as *mut c_int) }).map(|()| value)
        };
        read().unwrap_or_else(|_| match named(name).map(|parameter| parameter.kind) {
            Some(Kind::Int { default, .. } | Kind::Choice(_, default)) => default,
            Some(Kind::Switch(default)) => i32::from(default),
            _ => 0,
        })
    }

    pub fn switch(&self, name: &CStr) -> bool {
        self.int(name) != 0
    }

    /// The value of a number; its default where the host has none, or none that is a number.
    pub fn double(&self, name: &CStr) -> f64 {
        let read = || -> Result<f64> {
            let mut value = f64::NAN;
            let (get, (handle, _)) = (entry(self.host.parameter.get_value)?, self.handle(name)?);
            // SAFETY: parameters of this type are read into one double.
            check(unsafe { get(handle, &mut value as *mut f64) }).map(|()| value)
        };
        read().ok().filter(|value| value.is_finite()).unwrap_or_else(|| {
            match named(name).map(|parameter| parameter.kind) {
                Some(Kind::Double { default, .. }) => default,
                _ => 0.0,
            }
        })
    }

    /// The value of a text.
    pub fn text(&self, name: &CStr) -> String {
        let read = || -> Result<String> {
            let mut value: *mut c_char = std::ptr::null_mut();
            let (get, (handle, _)) = (entry(self.host.parameter.get_value)?, self.handle(name)?);
            // SAFETY: parameters of this type are read into one pointer, whose text is copied before the next call.
            check(unsafe { get(handle, &mut value as *mut *mut c_char) })?;
            // SAFETY: texts of the host end with a zero byte.
            Ok(if value.is_null() {
                String::new()
            } else {
                unsafe { CStr::from_ptr(value) }.to_string_lossy().into_owned()
            })
        };
        read().unwrap_or_default()
    }

    pub fn set_int(&self, name: &CStr, value: i32) -> Result<()> {
        let (set, (handle, _)) = (entry(self.host.parameter.set_value)?, self.handle(name)?);
        // SAFETY: parameters of these types are set with one int.
        check(unsafe { set(handle, value as c_int) })
    }

    pub fn set_double(&self, name: &CStr, value: f64) -> Result<()> {
        let (set, (handle, _)) = (entry(self.host.parameter.set_value)?, self.handle(name)?);
        // SAFETY: parameters of this type are set with one double.
        check(unsafe { set(handle, value) })
    }

    pub fn set_text(&self, name: &CStr, value: &str) -> Result<()> {
        let (set, (handle, _)) = (entry(self.host.parameter.set_value)?, self.handle(name)?);
        let value = c_text(value);
        // SAFETY: parameters of this type are set with one text, which the host copies.
        check(unsafe { set(handle, value.as_ptr()) })
    }

    /// Whether the user may change a parameter.
    pub fn enable(&self, name: &CStr, enabled: bool) -> Result<()> {
        let (_, properties) = self.handle(name)?;
        Properties::of(self.host, properties).set_int(property::PARAM_ENABLED, 0, i32::from(enabled))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_table_is_sound() {
        let names: BTreeSet<_> = all().map(|(_, parameter)| parameter.name).collect();
        assert_eq!(names.len(), all().count(), "a name is there twice");
        for (_, parameter) in all() {
            let name = parameter.name;
            assert!(!parameter.label.is_empty() && parameter.hint.ends_with('.'), "{name:?}");
            match parameter.kind {
                Kind::Int { default, range, display } => {
                    assert!(range[0] <= display[0] && display[0] < display[1] && display[1] <= range[1], "{name:?}");
                    assert!((range[0]..=range[1]).contains(&default), "{name:?}");
                }
                Kind::Double { default, range, display } => {
                    assert!(range[0] <= display[0] && display[0] < display[1] && display[1] <= range[1], "{name:?}");
                    assert!((range[0]..=range[1]).contains(&default), "{name:?}");
                }
                Kind::Choice(options, default) => assert!((0..options.len() as i32).contains(&default), "{name:?}"),
                _ => {}
            }
        }
    }
}
