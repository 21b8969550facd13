//! What the networks compute: one file a block, each citing the published architecture it follows.

pub mod config;
