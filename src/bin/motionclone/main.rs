//! The command line.

mod clip;
mod ffmpeg;
mod interrupt;
mod output;
mod sheet;
#[cfg(test)]
mod testing;

fn main() {}
