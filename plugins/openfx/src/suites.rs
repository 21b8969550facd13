//! The host: its function tables, fetched once when it loads the plugin.

use std::ffi::{CStr, CString};
use std::sync::{Arc, Mutex, PoisonError};

use crate::sys;

/// An OpenFX call that failed, with the host's status.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Failed(pub sys::Status);

pub type Result<T, E = Failed> = std::result::Result<T, E>;

/// A status as a result.
pub fn check(status: sys::Status) -> Result<()> {
    if status == sys::OK { Ok(()) } else { Err(Failed(status)) }
}

/// The entry of a table, or what stands for one that the host left null.
pub fn entry<T>(function: Option<T>) -> Result<T> {
    function.ok_or(Failed(sys::MISSING_HOST_FEATURE))
}

/// A text as C takes it; what follows a zero byte is cut off.
pub fn c_text(text: &str) -> CString {
    let text = text.split('\0').next().unwrap_or_default();
    CString::new(text).unwrap_or_default()
}

/// What the host offers. The tables are copied, so nothing here changes when the host does.
pub struct Host {
    pub property: sys::PropertySuite,
    pub effect: sys::ImageEffectSuite,
    pub parameter: sys::ParameterSuite,
    pub message: Option<sys::MessageSuiteV1>,
    pub message2: Option<sys::MessageSuiteV2>,
    pub progress: Option<sys::ProgressSuiteV1>,
    pub progress2: Option<sys::ProgressSuiteV2>,
    /// The host's name of itself, such as `fr.inria.Natron`.
    pub name: String,
    /// Whether frames at other times than the one rendered can be had.
    pub temporal: bool,
}

/// The pointer that `OfxSetHost` or the plugin's `setHost` was given.
struct Given(*mut sys::Host);

// SAFETY: the host keeps its structure while the plugin is loaded, and only reads it.
unsafe impl Send for Given {}

static GIVEN: Mutex<Given> = Mutex::new(Given(std::ptr::null_mut()));
static HOST: Mutex<Option<Arc<Host>>> = Mutex::new(None);

/// Remembers the host's structure until it loads the plugin.
pub fn set_host(host: *mut sys::Host) {
    *GIVEN.lock().unwrap_or_else(PoisonError::into_inner) = Given(host);
}

/// Fetches the tables. Without the three that every host must have, the plugin cannot work.
pub fn load() -> Result<()> {
    let given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner).0;
    if given.is_null() {
        return Err(Failed(sys::MISSING_HOST_FEATURE));
    }
    // SAFETY: the host vouches for the structure that it gave.
    let (handle, fetch) = unsafe { ((*given).host, entry((*given).fetch_suite)?) };
    // SAFETY: the tables have the layout that goes with name and version, and are only read.
    unsafe fn table<T: Copy>(
        fetch: unsafe extern "C" fn(sys::Handle, *const std::ffi::c_char, i32) -> *const std::ffi::c_void,
        handle: sys::Handle,
        name: &CStr,
        version: i32,
    ) -> Option<T> {
        let suite = unsafe { fetch(handle, name.as_ptr(), version) }.cast::<T>();
        (!suite.is_null()).then(|| unsafe { *suite })
    }
    let missing = Failed(sys::MISSING_HOST_FEATURE);
    // SAFETY: each table is read as what its name and version say it is.
    let mut host = unsafe {
        Host {
            property: table(fetch, handle, sys::PROPERTY_SUITE, 1).ok_or(missing)?,
            effect: table(fetch, handle, sys::IMAGE_EFFECT_SUITE, 1).ok_or(missing)?,
            parameter: table(fetch, handle, sys::PARAMETER_SUITE, 1).ok_or(missing)?,
            message: table(fetch, handle, sys::MESSAGE_SUITE, 1),
            message2: table(fetch, handle, sys::MESSAGE_SUITE, 2),
            progress: table(fetch, handle, sys::PROGRESS_SUITE, 1),
            progress2: table(fetch, handle, sys::PROGRESS_SUITE, 2),
            name: String::new(),
            temporal: true,
        }
    };
    let properties = crate::properties::Properties::of(&host, handle);
    let name = properties.text(sys::property::NAME, 0).unwrap_or_default();
    // A host that does not say is asked for frames, and may then refuse them.
    let temporal = properties.int(sys::property::TEMPORAL_CLIP_ACCESS, 0).unwrap_or(1) != 0;
    (host.name, host.temporal) = (name, temporal);
    *HOST.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(host));
    Ok(())
}

/// Forgets the tables.
pub fn unload() {
    *HOST.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// The host that has loaded the plugin.
pub fn host() -> Result<Arc<Host>> {
    HOST.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(Failed(sys::MISSING_HOST_FEATURE))
}
