//! The engine's error type: the same one that graph making uses, so that a message passes through unchanged.

pub use motionclone_onnx::error::{Error, Result};
