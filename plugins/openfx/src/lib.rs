//! MotionClone as an OpenFX plugin: a new clip that moves like the source, in DaVinci Resolve, Natron, Nuke, Vegas and
//! other hosts.
//!
//! The plugin is small and knows nothing of models: it takes the frames from the host, hands them to the engine's C
//! library, which lies beside it and is loaded when it is first needed, and shows the finished clip. `entry` is what
//! hosts call; `ofx` is OpenFX as C sees it; `effect` is the effect with its page of parameters; `job` is the thread that
//! works; `clips` is where finished clips lie.

mod clips;
mod effect;
mod engine;
pub mod entry;
mod job;
mod model;
mod ofx;
mod picture;
mod reference;
mod request;
mod stop;
mod sync;
