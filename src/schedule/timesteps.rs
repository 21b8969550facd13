//! The timesteps of a run.

use crate::error::{Error, Result};

/// MotionClone's timesteps, which spend most steps where motion is made: the first `guidance_steps` of `steps` spread over
/// the noisiest share `guidance_scale` (g, 0 to 1) of the training steps, the others over the rest, both descending.
///
/// # Errors
/// When the counts do not fit together, or g leaves the guided or the plain steps no timesteps.
pub fn uneven_timesteps(train: usize, steps: usize, guidance_steps: usize, guidance_scale: f64) -> Result<Vec<i64>> {
    if steps == 0 || steps > train {
        return Err(Error::input(format!("{steps} steps: must be 1 to {train}")));
    }
    if guidance_steps > steps {
        return Err(Error::input(format!("{guidance_steps} guidance steps: more than the {steps} steps of the run")));
    }
    if !(0.0..=1.0).contains(&guidance_scale) {
        return Err(Error::input(format!("guidance scale {guidance_scale}: must be 0 to 1")));
    }
    let g = guidance_scale;
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

/// `numpy.linspace(start, end, count).round()` in double precision, halves to even.
fn rounded_linspace(start: f64, end: f64, count: usize) -> Vec<i64> {
    let step = (end - start) / (count.max(2) - 1) as f64;
    let value = |i: usize| if i > 0 && i + 1 == count { end } else { i as f64 * step + start };
    (0..count).map(|i| value(i).round_ties_even() as i64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timesteps(g: f64, steps: usize, guidance_steps: usize) -> Result<Vec<i64>> {
        uneven_timesteps(1000, steps, guidance_steps, g)
    }

    /// Expected values from numpy's `linspace(…).round()`; long lists by their sum and weighted sum.
    #[test]
    fn timesteps_equal_numpy() {
        let small = |g, steps, guided| timesteps(g, steps, guided).unwrap();
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
    fn impossible_runs_are_refused() {
        for (g, steps, guided) in
            [(0.3, 0, 0), (0.3, 1001, 0), (0.3, 5, 6), (1.1, 5, 2), (f64::NAN, 5, 2), (0.0, 5, 2), (1.0, 5, 2)]
        {
            assert!(timesteps(g, steps, guided).unwrap_err().is_input(), "g {g}, {steps} steps, {guided} guided");
        }
        assert!(timesteps(0.0, 5, 0).is_ok() && timesteps(1.0, 5, 5).is_ok());
    }
}
