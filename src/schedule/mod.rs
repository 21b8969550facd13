//! Noise schedules, the timesteps of a run, and schedulers.

mod ddim;
mod noise;
mod scheduler;
mod timesteps;

pub use ddim::Ddim;
pub use noise::NoiseSchedule;
pub use scheduler::{Sample, Scheduler};
pub use timesteps::uneven_timesteps;
