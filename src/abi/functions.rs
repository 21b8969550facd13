//! The functions of a loaded library.

use std::ffi::c_char;

use libloading::Library;

use crate::types::{
    EngineHandle, HostDevice, HostEngineOptions, HostFrames, HostImage, HostMotionInfo, HostProgress, HostSettingInfo,
    HostSettings, JobHandle, MotionHandle,
};

macro_rules! functions {
    ($($name:ident($($argument:ty),*) -> $result:ty;)*) => {
        /// Every function of the library, without the `motionclone_` of its name; the header says what each does. `S` is
        /// a status: the number that a host reads, which may be one that it does not know.
        #[derive(Debug, Clone, Copy)]
        pub struct Functions<S = u32> {
            $(
                #[doc = concat!("`motionclone_", stringify!($name), "`")]
                pub $name: unsafe extern "C" fn($($argument),*) -> $result,
            )*
        }

        impl Functions {
            /// Looks all functions up in a library. They must not be called once it is unloaded.
            ///
            /// # Errors
            /// When one is missing.
            ///
            /// # Safety
            /// The library must be one of this interface's version.
            pub unsafe fn find(library: &Library) -> Result<Self, libloading::Error> {
                type S = u32;
                Ok(Self {
                    $(
                        // SAFETY: the caller vouches for the functions' types.
                        $name: *unsafe {
                            library.get::<unsafe extern "C" fn($($argument),*) -> $result>(
                                concat!("motionclone_", stringify!($name), "\0").as_bytes(),
                            )
                        }?,
                    )*
                })
            }
        }
    };
}

functions! {
    version() -> *const c_char;
    abi_version() -> u32;
    status_text(u32) -> *const c_char;
    last_error() -> *const c_char;
    shutdown() -> S;
    engine_options_init(*mut HostEngineOptions, usize) -> S;
    device_init(*mut HostDevice, usize) -> S;
    devices(*const c_char, *mut HostDevice, usize, *mut usize) -> S;
    engine_create(*const c_char, *const HostEngineOptions, *mut EngineHandle) -> S;
    engine_open(*const c_char, *const HostEngineOptions, *mut EngineHandle) -> S;
    engine_wait(EngineHandle, i64) -> S;
    engine_destroy(*mut EngineHandle) -> S;
    engine_device(EngineHandle, *mut HostDevice) -> S;
    frames_init(*mut HostFrames, usize) -> S;
    image_init(*mut HostImage, usize) -> S;
    settings_init(*mut HostSettings, usize, EngineHandle) -> S;
    setting_count() -> u32;
    setting_info_init(*mut HostSettingInfo, usize) -> S;
    setting_describe(u32, EngineHandle, *mut HostSettingInfo) -> S;
    settings_set_number(*mut HostSettings, EngineHandle, *const c_char, f64) -> S;
    settings_set_text(*mut HostSettings, EngineHandle, *const c_char, *const c_char) -> S;
    settings_get_text(*const HostSettings, EngineHandle, *const c_char, *mut c_char, usize, *mut usize) -> S;
    job_extract(EngineHandle, *const HostFrames, *const HostSettings, *mut JobHandle) -> S;
    job_clone(EngineHandle, *const HostFrames, *const HostSettings, *mut JobHandle) -> S;
    job_clone_motion(EngineHandle, MotionHandle, *const HostSettings, *mut JobHandle) -> S;
    progress_init(*mut HostProgress, usize) -> S;
    job_progress(JobHandle, *mut HostProgress) -> S;
    job_wait(JobHandle, i64) -> S;
    job_cancel(JobHandle) -> S;
    job_preview(JobHandle, *mut HostFrames) -> S;
    job_frames(JobHandle, *mut HostFrames) -> S;
    job_motion(JobHandle, *mut MotionHandle) -> S;
    job_error(JobHandle, *mut c_char, usize, *mut usize) -> S;
    job_destroy(*mut JobHandle) -> S;
    motion_load(*const c_char, *mut MotionHandle) -> S;
    motion_save(MotionHandle, *const c_char) -> S;
    motion_info_init(*mut HostMotionInfo, usize) -> S;
    motion_info_get(MotionHandle, *mut HostMotionInfo) -> S;
    motion_describe(MotionHandle, *mut c_char, usize, *mut usize) -> S;
    motion_destroy(*mut MotionHandle) -> S;
}
