//! Everything that makes ONNX graphs for motion cloning, told in the order data flows:
//! [`checkpoint`] turns what users download into one bundle ([`manifest`] and [`weights`]), [`model`] says what the
//! networks compute, [`graph`] holds that as a small intermediate representation, differentiates it and writes ONNX;
//! [`kernels`] are programs for NVIDIA GPUs that some graphs call.
#![warn(missing_docs)]

pub mod checkpoint;
pub mod error;
pub mod graph;
pub mod kernels;
pub mod manifest;
pub mod model;
pub mod owned;
pub mod unfinished;
pub mod weights;

pub use error::{Error, Result};
