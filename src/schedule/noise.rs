//! Noise schedules: how much noise the latents of each training step have.

use motionclone_onnx::manifest::{BetaSchedule, ScheduleConfig};

use crate::error::{Error, Result};

/// More training steps than any published schedule has.
const MAX_TRAIN_STEPS: usize = 100_000;

/// The noise of each training step.
#[derive(Debug, Clone, PartialEq)]
pub struct NoiseSchedule {
    alphas_cumprod: Vec<f32>,
}

impl NoiseSchedule {
    /// # Errors
    /// When the configuration describes no schedule.
    pub fn new(config: &ScheduleConfig) -> Result<Self> {
        let train = config.train_steps;
        if !(2..=MAX_TRAIN_STEPS).contains(&train) {
            return Err(Error::input(format!("{train} training steps: must be 2 to {MAX_TRAIN_STEPS}")));
        }
        for (name, beta) in [("first", config.beta_start), ("last", config.beta_end)] {
            if !(beta > 0.0 && beta < 1.0) {
                return Err(Error::input(format!(
                    "{name} beta {beta} of the noise schedule: must lie between 0 and 1"
                )));
            }
        }
        Ok(Self { alphas_cumprod: alphas_cumprod(config) })
    }

    /// Number of training steps.
    pub fn train_steps(&self) -> usize {
        self.alphas_cumprod.len()
    }

    /// ᾱ at a training timestep: the share of signal variance in x_t.
    ///
    /// # Errors
    /// When `timestep` is no training step.
    pub fn alpha_cumprod(&self, timestep: i64) -> Result<f32> {
        usize::try_from(timestep).ok().and_then(|t| self.alphas_cumprod.get(t)).copied().ok_or_else(|| {
            Error::input(format!("timestep {timestep}: must be 0 to {}", self.alphas_cumprod.len().saturating_sub(1)))
        })
    }

    /// Latents noised to a training timestep: √ᾱ·clean + √(1−ᾱ)·noise, elementwise over slices of one length.
    ///
    /// # Errors
    /// When the lengths differ or `timestep` is no training step.
    pub fn add_noise(&self, clean: &[f32], noise: &[f32], timestep: i64) -> Result<Vec<f32>> {
        let alpha = self.alpha_cumprod(timestep)?;
        if clean.len() != noise.len() {
            return Err(Error::failure(format!("{} numbers of noise for {} latents", noise.len(), clean.len())));
        }
        let (signal, sigma) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        Ok(clean.iter().zip(noise).map(|(z, e)| signal * z + sigma * e).collect())
    }
}

/// ᾱ at every training step, rounded where PyTorch rounds: float32 betas, a product carried in double.
fn alphas_cumprod(config: &ScheduleConfig) -> Vec<f32> {
    let train = config.train_steps;
    let betas: Vec<f32> = match config.beta_schedule {
        BetaSchedule::Linear => linspace_f32(config.beta_start, config.beta_end, train),
        BetaSchedule::ScaledLinear => {
            let roots = linspace_f32(config.beta_start.sqrt(), config.beta_end.sqrt(), train);
            roots.into_iter().map(|root| root * root).collect()
        }
    };
    betas
        .into_iter()
        .scan(1.0_f64, |product, beta| {
            *product *= f64::from(1.0 - beta);
            Some(*product as f32)
        })
        .collect()
}

/// `torch.linspace` in float32: counted from the nearer end, each value rounded once.
fn linspace_f32(start: f64, end: f64, count: usize) -> Vec<f32> {
    let (start, end) = (start as f32, end as f32);
    let step = (end - start) / (count - 1) as f32;
    (0..count)
        .map(
            |i| {
                if i < count / 2 { step.mul_add(i as f32, start) } else { (-step).mul_add((count - 1 - i) as f32, end) }
            },
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `torch.cumprod(1 - betas, 0)` of PyTorch 2.15, with `torch.linspace` betas.
    #[test]
    fn alphas_equal_pytorch_to_the_bit() {
        let cases: [(BetaSchedule, f64, f64, [f32; 6]); 3] = [
            (
                BetaSchedule::Linear,
                0.00085,
                0.012,
                [0.999_15, 0.998_289_5, 0.289_899_62, 0.161_812_17, 0.160_771_62, 0.001_578_962_8],
            ),
            (
                BetaSchedule::ScaledLinear,
                0.00085,
                0.012,
                [0.999_15, 0.998_296, 0.424_482_8, 0.277_669_43, 0.276_332_47, 0.004_660_095],
            ),
            (
                BetaSchedule::Linear,
                0.0001,
                0.02,
                [0.999_9, 0.999_780_06, 0.193_571_97, 0.078_587_234, 0.077_796_65, 4.035_830_4e-5],
            ),
        ];
        for (beta_schedule, beta_start, beta_end, expected) in cases {
            let config = ScheduleConfig { train_steps: 1000, beta_start, beta_end, beta_schedule };
            let alphas = alphas_cumprod(&config);
            assert_eq!([0, 1, 400, 499, 500, 999].map(|t| alphas[t]), expected);
        }
    }

    #[test]
    fn noise_is_added_to_training_timesteps_alone() {
        let schedule = NoiseSchedule::new(&ScheduleConfig::default()).unwrap();
        assert_eq!(schedule.train_steps(), 1000);
        assert!(schedule.alpha_cumprod(-1).is_err() && schedule.alpha_cumprod(1000).is_err());
        let alpha = schedule.alpha_cumprod(400).unwrap();
        let noisy = schedule.add_noise(&[0.5, 0.0], &[0.0, 2.0], 400).unwrap();
        assert_eq!(noisy, [alpha.sqrt() * 0.5, (1.0 - alpha).sqrt() * 2.0]);
        assert!(schedule.add_noise(&[0.5], &[], 400).is_err() && schedule.add_noise(&[0.5], &[0.0], 1000).is_err());
    }

    #[test]
    fn impossible_schedules_are_refused() {
        for (train_steps, beta_start, beta_end) in
            [(1, 0.1, 0.2), (1 << 40, 0.1, 0.2), (10, f64::NAN, 0.2), (10, 0.1, 1.0)]
        {
            let config = ScheduleConfig { train_steps, beta_start, beta_end, beta_schedule: BetaSchedule::Linear };
            assert!(NoiseSchedule::new(&config).is_err());
        }
    }
}
