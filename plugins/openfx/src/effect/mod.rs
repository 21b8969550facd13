//! The effect: its parameters, its instances in projects, and what they do when the host asks.

pub mod actions;
mod calls;
mod clips;
pub mod describe;
mod gather;
mod generate;
pub mod instance;
mod make;
pub mod parameters;
pub mod publish;
pub mod queries;
pub mod render;
mod request;
mod scale;
mod state;
mod values;
