//! DDIM (Song et al., arXiv 2010.02502) with η = 0; arithmetic in float32 as in the reference.

use super::noise::NoiseSchedule;
use super::scheduler::{Sample, Scheduler};
use crate::error::{Error, Result};

/// The deterministic sampler of the published method.
#[derive(Debug, Clone, PartialEq)]
pub struct Ddim {
    schedule: NoiseSchedule,
    timesteps: Vec<i64>,
}

impl Ddim {
    /// Over `timesteps`, noisiest first.
    ///
    /// # Errors
    /// When one is no training step.
    pub fn new(schedule: NoiseSchedule, timesteps: Vec<i64>) -> Result<Self> {
        timesteps.iter().try_for_each(|timestep| schedule.alpha_cumprod(*timestep).map(drop))?;
        Ok(Self { schedule, timesteps })
    }

    /// ᾱ where step `index` starts and where it arrives: at the next timestep, or 1 (no noise) after the last.
    fn alphas(&self, index: usize) -> Result<(f32, f32)> {
        let Some(timestep) = self.timesteps.get(index) else {
            return Err(Error::input(format!("step {index}: the run has {}", self.timesteps.len())));
        };
        let next = self.timesteps.get(index + 1).map_or(Ok(1.0), |next| self.schedule.alpha_cumprod(*next))?;
        Ok((self.schedule.alpha_cumprod(*timestep)?, next))
    }
}

impl Scheduler for Ddim {
    fn timesteps(&self) -> &[i64] {
        &self.timesteps
    }

    fn sigma(&self, index: usize) -> Result<f32> {
        Ok((1.0 - self.alphas(index)?.0).sqrt())
    }

    fn add_noise(&self, clean: &[f32], noise: &[f32], timestep: i64) -> Result<Vec<f32>> {
        self.schedule.add_noise(clean, noise, timestep)
    }

    /// x̂0 = (x_t − √(1−ᾱ)·ε)/√ᾱ, then √ᾱ'·x̂0 + √(1−ᾱ')·ε' with `noise` for ε and `direction` for ε'.
    fn step(&mut self, index: usize, latents: &[f32], noise: &[f32], direction: &[f32]) -> Result<Sample> {
        let count = latents.len();
        if noise.len() != count || direction.len() != count {
            let given = [noise.len(), direction.len()];
            return Err(Error::failure(format!("a step of {count} latents was given {given:?} numbers of noise")));
        }
        let (alpha, next) = self.alphas(index)?;
        let (signal, sigma) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let (next_signal, next_sigma) = (next.sqrt(), (1.0 - next).sqrt());
        let clean: Vec<f32> =
            latents.iter().zip(noise).map(|(latent, noise)| (latent - sigma * noise) / signal).collect();
        let next = clean.iter().zip(direction).map(|(clean, noise)| next_signal * clean + next_sigma * noise).collect();
        Ok(Sample { clean, next })
    }
}

#[cfg(test)]
mod tests {
    use motionclone_onnx::manifest::ScheduleConfig;

    use super::super::timesteps::uneven_timesteps;
    use super::*;

    fn ddim(g: f64, steps: usize, guided: usize) -> Ddim {
        let schedule = NoiseSchedule::new(&ScheduleConfig::default()).unwrap();
        let timesteps = uneven_timesteps(schedule.train_steps(), steps, guided, g).unwrap();
        Ddim::new(schedule, timesteps).unwrap()
    }

    #[test]
    fn the_last_step_ends_without_noise() {
        let mut ddim = ddim(0.3, 4, 2);
        let last = ddim.step(3, &[0.5], &[2.0], &[9.0]).unwrap();
        assert_eq!(last.next, last.clean);
        assert_eq!(ddim.alphas(0).unwrap().1, ddim.schedule.alpha_cumprod(700).unwrap());
        assert!(ddim.step(4, &[0.5], &[2.0], &[2.0]).is_err() && ddim.sigma(usize::MAX).is_err());
        assert!(ddim.step(0, &[0.5], &[2.0], &[]).is_err() && ddim.step(0, &[0.5], &[], &[2.0]).is_err());
    }

    #[test]
    fn the_true_noise_leads_along_the_noised_latents() {
        let mut ddim = ddim(0.4, 10, 5);
        let (clean, noise) = ([0.5_f32, -2.0, 0.0], [1.0_f32, 0.3, -0.7]);
        let (from, to) = (ddim.timesteps()[3], ddim.timesteps()[4]);
        let (start, end) = (ddim.add_noise(&clean, &noise, from).unwrap(), ddim.add_noise(&clean, &noise, to).unwrap());
        let sample = ddim.step(3, &start, &noise, &noise).unwrap();
        for i in 0..3 {
            assert!((sample.clean[i] - clean[i]).abs() < 1e-5);
            assert!((sample.next[i] - end[i]).abs() < 1e-5);
        }
    }

    #[test]
    fn timesteps_beyond_the_training_are_refused() {
        let schedule = NoiseSchedule::new(&ScheduleConfig::default()).unwrap();
        assert!(Ddim::new(schedule, vec![999, 1000]).is_err());
    }
}
