//! Motion cloning: a new clip that moves like the one you give it.
//!
//! The stages, in the order data flows: [`media`] is what clips and images become; [`bundle`] holds a model and says
//! which networks a job needs; [`runtime`] runs them on ONNX Runtime; [`tokenizer`] and [`pipeline`] turn prompt, pixels,
//! pictures and sketches into what the networks read, and take the steps; [`motion`] keeps what is read from a clip's
//! temporal attention and pulls each step towards it; [`schedule`] lays out the steps; [`job`] does one clone from
//! beginning to end, in the memory that [`memory`] allots; [`capi`] is what programs in other languages see.
#![warn(missing_docs)]

pub mod bundle;
mod cancel;
pub mod capi;
pub mod engine;
pub mod error;
pub mod export;
pub mod job;
pub mod media;
pub mod memory;
pub mod motion;
pub mod networks;
pub mod pipeline;
pub mod progress;
pub mod random;
pub mod runtime;
pub mod schedule;
pub mod settings;
mod sync;
pub mod tokenizer;

pub use cancel::Cancel;
pub use engine::{Engine, EngineOptions};
pub use error::{Error, Result};
pub use motionclone_onnx as onnx;
