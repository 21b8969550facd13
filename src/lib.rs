//! Motion cloning: a new clip that moves like the one you give it.
#![warn(missing_docs)]

pub mod error;
pub mod frames;
pub mod guidance;
pub mod motion;
pub mod random;
pub mod schedule;
pub mod settings;
pub mod text;

pub use error::{Error, Result};
pub use motionclone_onnx as onnx;
