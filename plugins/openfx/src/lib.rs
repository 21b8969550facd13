//! MotionClone as an OpenFX plugin: a new clip that moves like the source, in DaVinci Resolve, Natron, Nuke, Vegas and
//! other hosts.
//!
//! The plugin is small and knows nothing of models: it takes the frames from the host, hands them to the engine's C
//! library, which lies beside it and is loaded when it is first needed, and shows the finished clip. `entry` is what
//! hosts call; `parameters` is the table that all of the page is made from; `instance` is what an effect in a project
//! knows; `job` is the thread that works; `render` never waits for it.

mod cache;
mod describe;
mod engine;
pub mod entry;
mod gather;
mod instance;
mod job;
mod messages;
mod model;
mod parameters;
mod pixels;
mod properties;
mod reference;
mod render;
mod scale;
mod suites;
pub mod sys;
