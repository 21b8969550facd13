//! The parts of a clone: autoencoder, conditions, denoising steps, previews.

pub mod control;
pub mod denoise;
pub mod preview;
pub mod vae;
