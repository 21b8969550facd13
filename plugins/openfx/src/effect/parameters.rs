//! Every parameter in one table: hosts are told of it, and the guide and its picture show it.

use std::ffi::CStr;

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
}

pub struct Group {
    pub name: &'static CStr,
    pub label: &'static str,
    pub open: bool,
    pub parameters: &'static [Parameter],
}

const fn parameter(name: &'static CStr, label: &'static str, kind: Kind, hint: &'static str) -> Parameter {
    Parameter { name, label, hint, kind, effect: Effect::Generate }
}

impl Parameter {
    const fn effect(mut self, effect: Effect) -> Self {
        self.effect = effect;
        self
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
        REFRESH = c"refresh" MAKE = c"make" WHEN_MISSING = c"whenMissing" KEEP_FOLDER = c"keepFolder"
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
    pub const MISSING_MAKE: i32 = 0;
    pub const MISSING_SOURCE: i32 = 2;
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
                Kind::Switch(false),
                "Status and picture change while the work goes on, from a thread that the host does not know. Turn it \
                 on in a host that allows it; else Update shows them.",
            ),
            parameter(
                name::MAKE,
                "Make the clip when it is rendered",
                Kind::Switch(false),
                "A render makes the clip that the parameters ask for, unless it is there, and waits for it. For render \
                 queues, farms, and hosts without buttons.",
            )
            .effect(Effect::Picture),
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
                "Cool-down",
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
                "Reference file",
                Kind::Text(Text::File, ""),
                "The video whose motion is cloned (ffmpeg reads it), or an image of a folder of images. Empty: the \
                 source.",
            ),
            parameter(name::WHOLE, "Whole clip", Kind::Switch(true), "The motion of the whole clip is cloned.")
                .effect(Effect::Picture),
            parameter(
                name::FIRST,
                "First frame",
                int(0, [-1_000_000, 1_000_000], [0, 1000]),
                "Where the motion begins, unless the whole clip is taken. In a reference file, counted from 0.",
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
                "The model: the folder that `motionclone import` made. Empty: the small model that comes with the plugin.",
            ),
            parameter(
                name::DEVICE,
                "Device",
                Kind::Choice(&["Automatic", "CPU", "CUDA 0", "CUDA 1", "CUDA 2", "CUDA 3"], choice::DEVICE_AUTO),
                "Where the networks run. Automatic: the first NVIDIA GPU that works, else the CPU.",
            ),
        ],
    },
    Group {
        name: c"groupFiles",
        label: "Finished clips",
        open: false,
        parameters: &[
            parameter(
                name::KEEP_FOLDER,
                "Keep clips in",
                Kind::Text(Text::Folder, ""),
                "Each finished clip is kept here, a folder of pictures that other programs read. Empty: beside the \
                 reference file, else in the user's own data folder.",
            )
            .effect(Effect::Picture),
            parameter(
                name::WHEN_MISSING,
                "When the clip is missing",
                Kind::Choice(&["Make it again", "Fail", "Show the source"], choice::MISSING_MAKE),
                "A clip that is nowhere any more is made again in a render that nobody watches, where the parameters \
                 are still those it was made with; in other renders it is an error.",
            )
            .effect(Effect::Picture),
            parameter(
                name::CACHE_FOLDER,
                "Cache folder",
                Kind::Text(Text::Folder, ""),
                "Copies of finished clips, for projects that ask for the same. Empty: the user's own cache folder.",
            )
            .effect(Effect::Picture),
            parameter(
                name::CACHE_LIMIT,
                "Cache limit (GB)",
                double(4.0, [0.01, 10000.0], [0.5, 100.0]),
                "When there is more, the copies that were not used for longest go.",
            ),
        ],
    },
    Group {
        name: c"groupHidden",
        label: "Kept with the project",
        open: false,
        parameters: &[
            parameter(name::RESULT, "Result", Kind::Text(Text::Line, ""), "Which clip is shown.")
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

/// A switch's default, which may depend on the host.
pub fn switch_default(parameter: &Parameter, live: bool) -> bool {
    match parameter.kind {
        Kind::Switch(_) if parameter.name == name::LIVE => live,
        Kind::Switch(default) => default,
        _ => false,
    }
}

/// The parameter of a name.
pub fn named(name: &CStr) -> Option<&'static Parameter> {
    all().map(|(_, parameter)| parameter).find(|parameter| parameter.name == name)
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
