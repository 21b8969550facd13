//! Clips and pictures: reading them, and the frames that stand for a clip.
//!
//! [`clip`] is the entry: it opens a `video` file through [`ffmpeg`] or a `sequence` of pictures, asks [`sampling`] which
//! frames are wanted, and has `colour` and `pixels` bring them to 8-bit sRGB.

pub mod clip;
mod colour;
#[cfg(test)]
mod colour_tests;
pub mod ffmpeg;
pub mod frames;
mod image;
mod pixels;
mod probe;
pub mod sampling;
mod sequence;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod video;
