//! Motion cloning: a new clip that moves like the one you give it.
//!
//! The stages, in the order data flows: [`frames`] are what clips and images become; [`bundle`] holds a model and says
//! which networks a job needs; [`session`] runs them on ONNX Runtime, `kernels` adds operators to it, [`weights`] are
//! what its networks share; [`text`] and [`vae`] turn prompt and pixels into embeddings and latents, [`control`]
//! pictures and sketches into conditions; [`motion`] keeps what is read from a clip's temporal attention; [`schedule`]
//! lays out the steps, [`guidance`] pulls each towards the motion, [`denoise`] takes them; [`job`] does one clone from
//! beginning to end, in the memory that [`plan`] allots; [`capi`] is what programs in other languages see.
#![warn(missing_docs)]

pub mod bundle;
mod cancel;
pub mod capi;
pub mod control;
pub mod denoise;
pub mod engine;
pub mod error;
pub mod export;
pub mod frames;
pub mod guidance;
pub mod job;
mod kernels;
pub mod motion;
pub mod plan;
pub mod preview;
pub mod random;
mod replay;
pub mod schedule;
pub mod session;
pub mod settings;
mod sync;
pub mod text;
pub mod vae;
pub mod weights;

pub use engine::{Engine, EngineOptions};
pub use error::{Error, Result};
pub use motionclone_onnx as onnx;
