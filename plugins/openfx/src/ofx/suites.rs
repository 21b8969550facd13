//! The host's function tables and what it says of itself, and results of its calls.

use std::ffi::CString;

use crate::ofx::sys;

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
    pub threads: Option<sys::MultiThreadSuite>,
    /// The host's name of itself, such as `fr.inria.Natron`.
    pub name: String,
    /// Whether frames at other times than the one rendered can be had.
    pub temporal: bool,
    /// Whether nobody sits before the host: a render queue, a farm, a command line.
    pub background: bool,
}

/// Hosts of the MLT framework (melt, Kdenlive, Shotcut, Flowblade).
const MLT: &str = "MLT";
/// How Natron has called itself over the years.
const NATRON: [&str; 2] = ["fr.inria.Natron", "org.natron.Natron"];
const NUKE: &str = "uk.co.thefoundry.nuke";

impl Host {
    /// Whether the user can press the effect's buttons.
    pub fn has_buttons(&self) -> bool {
        self.name != MLT
    }

    /// Whether parameters that are shown to nobody are kept with a project.
    pub fn keeps_secrets(&self) -> bool {
        self.name != MLT
    }

    /// Whether a thread of the plugin may set parameters, which the standard allows in five actions alone.
    pub fn takes_sets_from_threads(&self) -> bool {
        NATRON.contains(&self.name.as_str())
    }

    /// Whether pictures in floating point are proportional to light.
    pub fn works_in_light(&self) -> bool {
        self.name == NUKE || NATRON.contains(&self.name.as_str())
    }
}
