//! The OpenFX image effect API as C sees it: handles, structures, function tables and names, as the specification
//! (openfx.readthedocs.io, version 1.5) gives them.
//!
//! Every entry of a table is optional here, because hosts exist that leave some null.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

/// What a call or an action came to.
pub type Status = c_int;
pub const OK: Status = 0;
pub const FAILED: Status = 1;
pub const ERROR_FATAL: Status = 2;
pub const MISSING_HOST_FEATURE: Status = 4;
pub const BAD_HANDLE: Status = 9;
pub const REPLY_NO: Status = 13;
pub const REPLY_DEFAULT: Status = 14;

/// Any of the host's objects: an effect, a property set, a parameter, a clip.
pub type Handle = *mut c_void;

#[repr(C)]
pub struct Host {
    pub host: Handle,
    pub fetch_suite: Option<unsafe extern "C" fn(Handle, *const c_char, c_int) -> *const c_void>,
}

pub type MainEntry = unsafe extern "C" fn(*const c_char, *const c_void, Handle, Handle) -> Status;

#[repr(C)]
pub struct Plugin {
    pub api: *const c_char,
    pub api_version: c_int,
    pub identifier: *const c_char,
    pub version_major: c_uint,
    pub version_minor: c_uint,
    pub set_host: unsafe extern "C" fn(*mut Host),
    pub main_entry: MainEntry,
}

// SAFETY: the pointers are of texts that live as long as the library and are never written.
unsafe impl Sync for Plugin {}

#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RectD {
    pub x1: f64,
    pub y1: f64,
    pub x2: f64,
    pub y2: f64,
}

type Get<T> = Option<unsafe extern "C" fn(Handle, *const c_char, c_int, *mut T) -> Status>;
/// Also of several values, read or written: then `T` points at them and the number is their count.
type Set<T> = Option<unsafe extern "C" fn(Handle, *const c_char, c_int, T) -> Status>;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct PropertySuite {
    pub set_pointer: Set<*mut c_void>,
    pub set_string: Set<*const c_char>,
    pub set_double: Set<f64>,
    pub set_int: Set<c_int>,
    pub set_pointer_n: Set<*const *mut c_void>,
    pub set_string_n: Set<*const *const c_char>,
    pub set_double_n: Set<*const f64>,
    pub set_int_n: Set<*const c_int>,
    pub get_pointer: Get<*mut c_void>,
    pub get_string: Get<*mut c_char>,
    pub get_double: Get<f64>,
    pub get_int: Get<c_int>,
    pub get_pointer_n: Set<*mut *mut c_void>,
    pub get_string_n: Set<*mut *mut c_char>,
    pub get_double_n: Set<*mut f64>,
    pub get_int_n: Set<*mut c_int>,
    pub reset: Option<unsafe extern "C" fn(Handle, *const c_char) -> Status>,
    pub get_dimension: Option<unsafe extern "C" fn(Handle, *const c_char, *mut c_int) -> Status>,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct ImageEffectSuite {
    pub get_property_set: Option<unsafe extern "C" fn(Handle, *mut Handle) -> Status>,
    pub get_param_set: Option<unsafe extern "C" fn(Handle, *mut Handle) -> Status>,
    pub clip_define: Option<unsafe extern "C" fn(Handle, *const c_char, *mut Handle) -> Status>,
    pub clip_get_handle: Option<unsafe extern "C" fn(Handle, *const c_char, *mut Handle, *mut Handle) -> Status>,
    pub clip_get_property_set: Option<unsafe extern "C" fn(Handle, *mut Handle) -> Status>,
    pub clip_get_image: Option<unsafe extern "C" fn(Handle, f64, *const RectD, *mut Handle) -> Status>,
    pub clip_release_image: Option<unsafe extern "C" fn(Handle) -> Status>,
    pub clip_get_region_of_definition: Option<unsafe extern "C" fn(Handle, f64, *mut RectD) -> Status>,
    pub abort: Option<unsafe extern "C" fn(Handle) -> c_int>,
    pub image_memory_alloc: Option<unsafe extern "C" fn(Handle, usize, *mut Handle) -> Status>,
    pub image_memory_free: Option<unsafe extern "C" fn(Handle) -> Status>,
    pub image_memory_lock: Option<unsafe extern "C" fn(Handle, *mut *mut c_void) -> Status>,
    pub image_memory_unlock: Option<unsafe extern "C" fn(Handle) -> Status>,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct ParameterSuite {
    pub define: Option<unsafe extern "C" fn(Handle, *const c_char, *const c_char, *mut Handle) -> Status>,
    pub get_handle: Option<unsafe extern "C" fn(Handle, *const c_char, *mut Handle, *mut Handle) -> Status>,
    pub set_get_property_set: Option<unsafe extern "C" fn(Handle, *mut Handle) -> Status>,
    pub get_property_set: Option<unsafe extern "C" fn(Handle, *mut Handle) -> Status>,
    pub get_value: Option<unsafe extern "C" fn(Handle, ...) -> Status>,
    pub get_value_at_time: Option<unsafe extern "C" fn(Handle, f64, ...) -> Status>,
    pub get_derivative: Option<unsafe extern "C" fn(Handle, f64, ...) -> Status>,
    pub get_integral: Option<unsafe extern "C" fn(Handle, f64, f64, ...) -> Status>,
    pub set_value: Option<unsafe extern "C" fn(Handle, ...) -> Status>,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct MessageSuiteV1 {
    pub message: Option<unsafe extern "C" fn(Handle, *const c_char, *const c_char, *const c_char, ...) -> Status>,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct MessageSuiteV2 {
    pub message: Option<unsafe extern "C" fn(Handle, *const c_char, *const c_char, *const c_char, ...) -> Status>,
    pub set_persistent:
        Option<unsafe extern "C" fn(Handle, *const c_char, *const c_char, *const c_char, ...) -> Status>,
    pub clear_persistent: Option<unsafe extern "C" fn(Handle) -> Status>,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct ProgressSuiteV1 {
    pub start: Option<unsafe extern "C" fn(Handle, *const c_char) -> Status>,
    pub update: Option<unsafe extern "C" fn(Handle, f64) -> Status>,
    pub end: Option<unsafe extern "C" fn(Handle) -> Status>,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct ProgressSuiteV2 {
    pub start: Option<unsafe extern "C" fn(Handle, *const c_char, *const c_char) -> Status>,
    pub update: Option<unsafe extern "C" fn(Handle, f64) -> Status>,
    pub end: Option<unsafe extern "C" fn(Handle) -> Status>,
}

/// What the host's threads call: the thread's index, how many there are, and the plugin's own argument.
pub type ThreadFunction = unsafe extern "C" fn(c_uint, c_uint, *mut c_void);

/// The beginning of the table; its mutexes are not used.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct MultiThreadSuite {
    pub multi_thread: Option<unsafe extern "C" fn(ThreadFunction, c_uint, *mut c_void) -> Status>,
    pub num_cpus: Option<unsafe extern "C" fn(*mut c_uint) -> Status>,
    pub index: Option<unsafe extern "C" fn(*mut c_uint) -> Status>,
    pub is_spawned: Option<unsafe extern "C" fn() -> c_int>,
}

pub const IMAGE_EFFECT_PLUGIN_API: &CStr = c"OfxImageEffectPluginAPI";
pub const CHANGE_PLUGIN_EDITED: &str = "OfxChangePluginEdited";
pub const CHANGE_USER_EDITED: &str = "OfxChangeUserEdited";
pub const TYPE_PARAMETER: &str = "OfxTypeParameter";
pub const TYPE_CLIP: &str = "OfxTypeClip";

pub const PROPERTY_SUITE: &CStr = c"OfxPropertySuite";
pub const IMAGE_EFFECT_SUITE: &CStr = c"OfxImageEffectSuite";
pub const PARAMETER_SUITE: &CStr = c"OfxParameterSuite";
pub const MESSAGE_SUITE: &CStr = c"OfxMessageSuite";
pub const PROGRESS_SUITE: &CStr = c"OfxProgressSuite";
pub const MULTI_THREAD_SUITE: &CStr = c"OfxMultiThreadSuite";

/// Actions, by the name that the host calls the plugin with.
pub mod action {
    pub const LOAD: &str = "OfxActionLoad";
    pub const UNLOAD: &str = "OfxActionUnload";
    pub const DESCRIBE: &str = "OfxActionDescribe";
    pub const DESCRIBE_IN_CONTEXT: &str = "OfxImageEffectActionDescribeInContext";
    pub const CREATE_INSTANCE: &str = "OfxActionCreateInstance";
    pub const DESTROY_INSTANCE: &str = "OfxActionDestroyInstance";
    pub const INSTANCE_CHANGED: &str = "OfxActionInstanceChanged";
    pub const BEGIN_INSTANCE_CHANGED: &str = "OfxActionBeginInstanceChanged";
    pub const END_INSTANCE_CHANGED: &str = "OfxActionEndInstanceChanged";
    pub const SYNC_PRIVATE_DATA: &str = "OfxActionSyncPrivateData";
    pub const PURGE_CACHES: &str = "OfxActionPurgeCaches";
    pub const GET_REGION_OF_DEFINITION: &str = "OfxImageEffectActionGetRegionOfDefinition";
    pub const GET_REGIONS_OF_INTEREST: &str = "OfxImageEffectActionGetRegionsOfInterest";
    pub const GET_FRAMES_NEEDED: &str = "OfxImageEffectActionGetFramesNeeded";
    pub const GET_CLIP_PREFERENCES: &str = "OfxImageEffectActionGetClipPreferences";
    pub const IS_IDENTITY: &str = "OfxImageEffectActionIsIdentity";
    pub const RENDER: &str = "OfxImageEffectActionRender";
    pub const BEGIN_SEQUENCE_RENDER: &str = "OfxImageEffectActionBeginSequenceRender";
    pub const END_SEQUENCE_RENDER: &str = "OfxImageEffectActionEndSequenceRender";
}

/// Names of properties.
pub mod property {
    use std::ffi::CStr;

    macro_rules! names {
        ($($name:ident = $text:literal)*) => { $(pub const $name: &CStr = $text;)* };
    }
    names! {
        NAME = c"OfxPropName"
        LABEL = c"OfxPropLabel"
        SHORT_LABEL = c"OfxPropShortLabel"
        LONG_LABEL = c"OfxPropLongLabel"
        DESCRIPTION = c"OfxPropPluginDescription"
        VERSION = c"OfxPropVersion"
        VERSION_LABEL = c"OfxPropVersionLabel"
        ICON = c"OfxPropIcon"
        TIME = c"OfxPropTime"
        TYPE = c"OfxPropType"
        CHANGE_REASON = c"OfxPropChangeReason"
        GROUPING = c"OfxImageEffectPluginPropGrouping"
        CONTEXT = c"OfxImageEffectPropContext"
        SUPPORTED_CONTEXTS = c"OfxImageEffectPropSupportedContexts"
        SUPPORTED_PIXEL_DEPTHS = c"OfxImageEffectPropSupportedPixelDepths"
        SUPPORTED_COMPONENTS = c"OfxImageEffectPropSupportedComponents"
        SINGLE_INSTANCE = c"OfxImageEffectPluginPropSingleInstance"
        HOST_FRAME_THREADING = c"OfxImageEffectPluginPropHostFrameThreading"
        RENDER_THREAD_SAFETY = c"OfxImageEffectPluginRenderThreadSafety"
        FIELD_RENDER_TWICE = c"OfxImageEffectPluginPropFieldRenderTwiceAlways"
        SUPPORTS_MULTI_RESOLUTION = c"OfxImageEffectPropSupportsMultiResolution"
        SUPPORTS_TILES = c"OfxImageEffectPropSupportsTiles"
        TEMPORAL_CLIP_ACCESS = c"OfxImageEffectPropTemporalClipAccess"
        MULTIPLE_CLIP_DEPTHS = c"OfxImageEffectPropMultipleClipDepths"
        MULTIPLE_CLIP_PARS = c"OfxImageEffectPropSupportsMultipleClipPARs"
        PIXEL_DEPTH = c"OfxImageEffectPropPixelDepth"
        COMPONENTS = c"OfxImageEffectPropComponents"
        PREMULTIPLICATION = c"OfxImageEffectPropPreMultiplication"
        IS_BACKGROUND = c"OfxImageEffectHostPropIsBackground"
        INTERACTIVE_RENDER = c"OfxImageEffectPropInteractiveRenderStatus"
        RENDER_SCALE = c"OfxImageEffectPropRenderScale"
        RENDER_WINDOW = c"OfxImageEffectPropRenderWindow"
        REGION_OF_DEFINITION = c"OfxImageEffectPropRegionOfDefinition"
        REGION_OF_INTEREST_SOURCE = c"OfxImageClipPropRoI_Source"
        REGION_OF_INTEREST_CONDITION = c"OfxImageClipPropRoI_Condition"
        FRAME_RANGE = c"OfxImageEffectPropFrameRange"
        FRAME_VARYING = c"OfxImageEffectFrameVarying"
        EFFECT_DURATION = c"OfxImageEffectInstancePropEffectDuration"
        CLIP_COLOURSPACE = c"OfxImageClipPropColourspace"
        FRAME_RANGE_SOURCE = c"OfxImageClipPropFrameRange_Source"
        CLIP_CONNECTED = c"OfxImageClipPropConnected"
        CLIP_OPTIONAL = c"OfxImageClipPropOptional"
        IMAGE_DATA = c"OfxImagePropData"
        IMAGE_BOUNDS = c"OfxImagePropBounds"
        IMAGE_REGION_OF_DEFINITION = c"OfxImagePropRegionOfDefinition"
        IMAGE_ROW_BYTES = c"OfxImagePropRowBytes"
        IMAGE_PIXEL_ASPECT = c"OfxImagePropPixelAspectRatio"
        PARAM_DEFAULT = c"OfxParamPropDefault"
        PARAM_MIN = c"OfxParamPropMin"
        PARAM_MAX = c"OfxParamPropMax"
        PARAM_DISPLAY_MIN = c"OfxParamPropDisplayMin"
        PARAM_DISPLAY_MAX = c"OfxParamPropDisplayMax"
        PARAM_INCREMENT = c"OfxParamPropIncrement"
        PARAM_DIGITS = c"OfxParamPropDigits"
        PARAM_DOUBLE_TYPE = c"OfxParamPropDoubleType"
        PARAM_HINT = c"OfxParamPropHint"
        PARAM_PARENT = c"OfxParamPropParent"
        PARAM_SCRIPT_NAME = c"OfxParamPropScriptName"
        PARAM_ENABLED = c"OfxParamPropEnabled"
        PARAM_SECRET = c"OfxParamPropSecret"
        PARAM_ANIMATES = c"OfxParamPropAnimates"
        PARAM_PERSISTANT = c"OfxParamPropPersistant"
        PARAM_EVALUATE_ON_CHANGE = c"OfxParamPropEvaluateOnChange"
        PARAM_CAN_UNDO = c"OfxParamPropCanUndo"
        PARAM_CHOICE_OPTION = c"OfxParamPropChoiceOption"
        PARAM_STRING_MODE = c"OfxParamPropStringMode"
        PARAM_STRING_FILE_EXISTS = c"OfxParamPropStringFilePathExists"
        PARAM_GROUP_OPEN = c"OfxParamPropGroupOpen"
        PARAM_PAGE_CHILD = c"OfxParamPropPageChild"
    }
}
