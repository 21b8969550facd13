//! Finished clips: kept as pictures where the user finds them, in a cache, and in memory while they are shown.

mod cache;
pub mod clip;
pub mod kept;
pub mod store;
