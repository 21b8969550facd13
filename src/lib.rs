//! Motion cloning: a new clip that moves like the one you give it.
//!
//! [`Engine`] is where a program begins: it opens a bundle on a device, reads the motion of a clip and clones it.
//!
//! The modules, in the order data flows: [`media`] has clips and images; [`settings`] what a user decides; [`bundle`] holds
//! a model and [`networks`] says which networks a job needs of it, in the memory that [`memory`] predicts; [`runtime`]
//! runs them on ONNX Runtime; [`tokenizer`] and [`pipeline`] turn prompt, pixels, pictures and sketches into what the
//! networks read, and take the steps that [`schedule`] lays out; [`motion`] keeps what is read from a clip's temporal
//! attention and pulls each step towards it; [`job`] does one clone from beginning to end, and reports its
//! [`progress`]; [`capi`] is what programs in other languages see.
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
pub mod prompt;
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
