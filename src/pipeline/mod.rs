//! The parts of a clone: autoencoder, conditions, extraction, denoising steps, previews.

pub mod control;
pub mod denoise;
pub mod extract;
mod noise;
pub mod preview;
pub mod unet;
pub mod vae;

pub(crate) use noise::{initial_latents, posterior};
