//! The host that has loaded the plugin: its function tables, fetched once.

use std::ffi::CStr;
use std::sync::{Arc, Mutex};

use crate::ofx::properties::Properties;
use crate::ofx::suites::{Failed, Host, Result, entry};
use crate::ofx::sys;
use crate::sync::lock;

/// The pointer that `OfxSetHost` or the plugin's `setHost` was given.
struct Given(*mut sys::Host);

// SAFETY: the host keeps its structure while the plugin is loaded, and only reads it.
unsafe impl Send for Given {}

static GIVEN: Mutex<Given> = Mutex::new(Given(std::ptr::null_mut()));
static HOST: Mutex<Option<Arc<Host>>> = Mutex::new(None);

/// Remembers the host's structure until it loads the plugin.
pub fn set_host(host: *mut sys::Host) {
    *lock(&GIVEN) = Given(host);
}

/// Fetches the tables. Without the three that every host must have, the plugin cannot work.
pub fn load() -> Result<()> {
    let given = lock(&GIVEN).0;
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
            threads: table(fetch, handle, sys::MULTI_THREAD_SUITE, 1),
            name: String::new(),
            temporal: true,
            background: false,
        }
    };
    let properties = Properties::of(&host, handle);
    let name = properties.text(sys::property::NAME, 0).unwrap_or_default();
    // A host that does not say is asked for frames, and may then refuse them.
    let temporal = properties.int(sys::property::TEMPORAL_CLIP_ACCESS, 0).unwrap_or(1) != 0;
    let background = properties.int(sys::property::IS_BACKGROUND, 0).unwrap_or(0) != 0;
    (host.name, host.temporal, host.background) = (name, temporal, background);
    *lock(&HOST) = Some(Arc::new(host));
    Ok(())
}

/// Forgets the tables.
pub fn unload() {
    *lock(&HOST) = None;
}

/// The host that has loaded the plugin.
pub fn host() -> Result<Arc<Host>> {
    lock(&HOST).clone().ok_or(Failed(sys::MISSING_HOST_FEATURE))
}
