//! What the networks compute: one file a block, each following the published architecture it names.

pub mod attention;
pub mod clip;
pub mod config;
pub mod layers;
pub mod motion_module;
pub mod resnet;
pub mod sparsectrl;
pub mod unet3d;
pub mod vae;
