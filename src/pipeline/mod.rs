//! The parts of a clone: autoencoder, conditions, extraction, denoising steps, previews.

pub mod control;
pub mod denoise;
pub mod extract;
pub(crate) mod noise;
pub mod preview;
pub mod preview_fit;
pub mod unet;
pub mod vae;
