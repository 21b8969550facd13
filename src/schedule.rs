//! The noise schedule and one deterministic step along it (DDIM, Song et al., arXiv 2010.02502, with η = 0).
//!
//! MotionClone spends most steps where motion is made: its "uneven" timesteps give the guided steps the noisy end of
//! the schedule and the plain steps the rest.

use motionclone_onnx::manifest::{BetaSchedule, ScheduleConfig};

use crate::error::{Error, Result};

/// More training steps than any published schedule has.
const MAX_TRAIN_STEPS: usize = 100_000;

/// The timesteps of one run, and ᾱ at every training step.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Training timestep of each step of the run, noisiest first.
    pub timesteps: Vec<i64>,
    alphas_cumprod: Vec<f32>,
}

impl Schedule {
    /// The schedule of a run of `steps` steps, of which the first `guidance_steps` are guided and spread over the
    /// noisiest share `guidance_scale` (g, 0 to 1) of the training steps.
    ///
    /// # Errors
    /// When the training schedule is none, the counts do not fit together, or g leaves the guided or the plain steps
    /// no timesteps.
    pub fn new(config: &ScheduleConfig, steps: usize, guidance_steps: usize, guidance_scale: f64) -> Result<Self> {
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
        if steps == 0 || steps > train {
            return Err(Error::input(format!("{steps} steps: must be 1 to {train}")));
        }
        if guidance_steps > steps {
            return Err(Error::input(format!(
                "{guidance_steps} guidance steps: more than the {steps} steps of the run"
            )));
        }
        if !(0.0..=1.0).contains(&guidance_scale) {
            return Err(Error::input(format!("guidance scale {guidance_scale}: must be 0 to 1")));
        }
        let timesteps = uneven_timesteps(train, steps, guidance_steps, guidance_scale)?;
        Ok(Self { timesteps, alphas_cumprod: alphas_cumprod(config) })
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

    /// ᾱ that step `index` of the run arrives at: the next step's, and 1 (no noise) after the last.
    ///
    /// # Errors
    /// When the run has no such step.
    pub fn alpha_before(&self, index: usize) -> Result<f32> {
        if index >= self.timesteps.len() {
            return Err(Error::input(format!("step {index}: the run has {}", self.timesteps.len())));
        }
        self.timesteps.get(index + 1).map_or(Ok(1.0), |next| self.alpha_cumprod(*next))
    }

    /// Step `index` of the run.
    ///
    /// # Errors
    /// When the run has no such step.
    pub fn step(&self, index: usize) -> Result<DdimStep> {
        let next_alpha = self.alpha_before(index)?;
        Ok(DdimStep { alpha: self.alpha_cumprod(self.timesteps[index])?, next_alpha })
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

/// One DDIM step, from ᾱ at its timestep to ᾱ at the next one; arithmetic in float32 as in the reference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DdimStep {
    /// ᾱ where the step starts.
    pub alpha: f32,
    /// ᾱ where it arrives.
    pub next_alpha: f32,
}

impl DdimStep {
    /// Standard deviation of the noise in x_t: √(1−ᾱ).
    pub fn sigma(self) -> f32 {
        (1.0 - self.alpha).sqrt()
    }

    /// The clean latent that a noise prediction implies: x̂0 = (x_t − √(1−ᾱ)·ε)/√ᾱ.
    pub fn predict_clean(self, latent: f32, noise: f32) -> f32 {
        (latent - self.sigma() * noise) / self.alpha.sqrt()
    }

    /// The latent at the next timestep: √ᾱ'·x̂0 + √(1−ᾱ')·ε.
    pub fn advance(self, clean: f32, noise: f32) -> f32 {
        self.next_alpha.sqrt() * clean + (1.0 - self.next_alpha).sqrt() * noise
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

/// `numpy.linspace(start, end, count).round()` in double precision, halves to even.
fn rounded_linspace(start: f64, end: f64, count: usize) -> Vec<i64> {
    let step = (end - start) / (count.max(2) - 1) as f64;
    let value = |i: usize| if i > 0 && i + 1 == count { end } else { i as f64 * step + start };
    (0..count).map(|i| value(i).round_ties_even() as i64).collect()
}

/// Guided steps over the noisiest share g of the training steps, then plain steps over the rest, both descending.
fn uneven_timesteps(train: usize, steps: usize, guidance_steps: usize, g: f64) -> Result<Vec<i64>> {
    // Truncated, as the published code does.
    let border = ((1.0 - g) * train as f64).trunc();
    if guidance_steps > 0 && border >= train as f64 {
        return Err(Error::input(format!("guidance scale {g}: leaves the {guidance_steps} guided steps no timesteps")));
    }
    let plain_steps = steps - guidance_steps;
    if plain_steps > 0 && border < 1.0 {
        return Err(Error::input(format!(
            "guidance scale {g}: leaves the {plain_steps} steps after the guided ones no timesteps"
        )));
    }
    let guided = rounded_linspace(border, (train - 1) as f64, guidance_steps);
    let plain = rounded_linspace(0.0, border - 1.0, plain_steps);
    Ok(guided.into_iter().rev().chain(plain.into_iter().rev()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(g: f64, steps: usize, guidance_steps: usize) -> Result<Schedule> {
        Schedule::new(&ScheduleConfig::default(), steps, guidance_steps, g)
    }

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

    /// Expected values from numpy's `linspace(…).round()`; long lists by their sum and weighted sum.
    #[test]
    fn timesteps_equal_numpy() {
        let small = |g, steps, guided| schedule(g, steps, guided).unwrap().timesteps;
        assert_eq!(small(0.3, 7, 1), [700, 699, 559, 419, 280, 140, 0]);
        // (1 − 0.9)·1000 is a little below 100 in floating point, and truncated.
        assert_eq!(small(0.9, 5, 2), [999, 99, 98, 49, 0]);
        assert_eq!(small(0.3, 3, 3), [999, 850, 700]);
        assert_eq!(small(0.3, 4, 0), [699, 466, 233, 0]);
        for (g, steps, guided, sum, weighted) in
            [(0.3, 100, 50, 59_950, 2_190_416), (0.4, 300, 180, 179_850, 19_859_141)]
        {
            let timesteps = small(g, steps, guided);
            assert_eq!(timesteps.len(), steps);
            assert_eq!(timesteps.iter().sum::<i64>(), sum);
            assert_eq!(timesteps.iter().zip(1..).map(|(t, i)| t * i).sum::<i64>(), weighted);
        }
    }

    #[test]
    fn the_last_step_ends_without_noise() {
        let schedule = schedule(0.3, 4, 2).unwrap();
        let last = schedule.step(3).unwrap();
        assert_eq!(last.next_alpha, 1.0);
        assert_eq!(last.advance(0.25, 9.0), 0.25);
        assert_eq!(schedule.step(0).unwrap().next_alpha, schedule.alpha_cumprod(700).unwrap());
        assert!(schedule.step(4).is_err() && schedule.alpha_before(usize::MAX).is_err());
        assert!(schedule.alpha_cumprod(-1).is_err() && schedule.alpha_cumprod(1000).is_err());
    }

    #[test]
    fn the_true_noise_leads_along_the_noised_latents() {
        let schedule = schedule(0.4, 10, 5).unwrap();
        let (clean, noise) = ([0.5_f32, -2.0, 0.0], [1.0_f32, 0.3, -0.7]);
        let (from, to) = (schedule.timesteps[3], schedule.timesteps[4]);
        let (start, end) =
            (schedule.add_noise(&clean, &noise, from).unwrap(), schedule.add_noise(&clean, &noise, to).unwrap());
        let step = schedule.step(3).unwrap();
        for i in 0..3 {
            let predicted = step.predict_clean(start[i], noise[i]);
            assert!((predicted - clean[i]).abs() < 1e-5);
            assert!((step.advance(predicted, noise[i]) - end[i]).abs() < 1e-5);
        }
        assert!(schedule.add_noise(&clean, &noise[..2], from).is_err());
    }

    #[test]
    fn impossible_runs_are_refused() {
        for (g, steps, guided) in
            [(0.3, 0, 0), (0.3, 1001, 0), (0.3, 5, 6), (1.1, 5, 2), (f64::NAN, 5, 2), (0.0, 5, 2), (1.0, 5, 2)]
        {
            assert!(schedule(g, steps, guided).unwrap_err().is_input(), "g {g}, {steps} steps, {guided} guided");
        }
        assert!(schedule(0.0, 5, 0).is_ok() && schedule(1.0, 5, 5).is_ok());
        for (train_steps, beta_start, beta_end) in
            [(1, 0.1, 0.2), (1 << 40, 0.1, 0.2), (10, f64::NAN, 0.2), (10, 0.1, 1.0)]
        {
            let config = ScheduleConfig { train_steps, beta_start, beta_end, beta_schedule: BetaSchedule::Linear };
            assert!(Schedule::new(&config, 1, 0, 0.3).is_err());
        }
    }
}
