//! Clips and images: reading them, and the frames that stand for a clip.

pub mod clip;
pub mod ffmpeg;
pub mod frames;
pub mod sampling;
#[cfg(test)]
mod testing;
