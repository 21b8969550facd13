//! The header's structures as their first version had them. A field that is added behind the last one named here does not
//! change a line of this file.

use std::ffi::c_void;
use std::mem::offset_of;

use motionclone_abi::types::{
    HostDevice, HostEngineOptions, HostFrames, HostImage, HostMotionInfo, HostProgress, HostSettingInfo, HostSettings,
};

use super::boundary::Structure;

/// Each structure with the last field of its first version.
macro_rules! first_versions {
    ($($structure:ident: $last:ident, $type:ty;)*) => {
        $(
            // SAFETY: the structure begins with its size and holds numbers, pointers, and a function that may be null.
            unsafe impl Structure for $structure {
                const FIRST: usize = offset_of!($structure, $last) + size_of::<$type>();
            }
        )*
    };
}

first_versions! {
    HostEngineOptions: log_user_data, *mut c_void;
    HostDevice: name, [u8; 64];
    HostFrames: transfer, u32;
    HostImage: reserved, u32;
    HostSettings: cfg, f64;
    HostProgress: seconds_left, f64;
    HostMotionInfo: seed, u64;
    HostSettingInfo: usual_most, f64;
}
