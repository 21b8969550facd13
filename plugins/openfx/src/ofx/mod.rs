//! OpenFX as C sees it, and what the plugin makes of it: tables, property sets, images, messages.

pub mod host;
pub mod image;
pub mod messages;
pub mod properties;
pub mod suites;
pub mod sys;
