//! Clips and images.

pub mod frames;
