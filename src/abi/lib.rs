//! The interface of the C library, once for the library that offers it and for hosts in Rust that load it: the types of
//! `include/motionclone.h`, a table of its functions, and the files' names.
//!
//! The header is made from [`types`] and the functions in `src/capi`.
#![deny(missing_docs)]

pub mod files;
mod functions;
pub mod types;

pub use functions::Functions;
