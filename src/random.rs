//! Random numbers equal to PyTorch's, so that a seed means the same noise here and there.

use rand_mt::Mt;

/// Normal draws of this many numbers or more take PyTorch's block path, smaller ones its scalar path.
const BLOCK: usize = 16;

/// PyTorch's generator on the CPU: a Mersenne Twister (MT19937) seeded with the low 32 bits of the seed.
///
/// Draws one after another follow PyTorch's state, with the spare normal number that its scalar path keeps.
#[derive(Debug, Clone)]
pub struct CpuGenerator {
    engine: Mt,
    spare: Option<f64>,
}

impl CpuGenerator {
    /// The generator that `torch.Generator().manual_seed(seed)` gives.
    pub fn new(seed: u64) -> Self {
        // The high half of the seed is ignored, as PyTorch does.
        Self { engine: Mt::new(seed as u32), spare: None }
    }

    /// `count` independent standard normal numbers: `torch.randn(count, generator=self)` in float32.
    ///
    /// Equal to PyTorch's up to the last bits (below 1e-5), which depend there on the vector instructions used.
    pub fn randn(&mut self, count: usize) -> Vec<f32> {
        if count < BLOCK {
            return (0..count).map(|_| self.normal() as f32).collect();
        }
        let mut values: Vec<f32> = (0..count).map(|_| self.uniform()).collect();
        values.as_chunks_mut::<BLOCK>().0.iter_mut().for_each(box_muller);
        // A size that is no multiple of 16 has its last 16 numbers drawn anew, over the ones already there.
        if count % BLOCK != 0
            && let Some(tail) = values.last_chunk_mut::<BLOCK>()
        {
            tail.fill_with(|| self.uniform());
            box_muller(tail);
        }
        values
    }

    /// A number in [0, 1) of 24 random bits.
    fn uniform(&mut self) -> f32 {
        (self.engine.next_u32() & 0xff_ffff) as f32 / 16_777_216.0
    }

    /// A number in [0, 1) of 53 random bits, the high word first.
    fn uniform_double(&mut self) -> f64 {
        let (high, low) = (u64::from(self.engine.next_u32()), u64::from(self.engine.next_u32()));
        let bits = ((high << 32) | low) & ((1 << 53) - 1);
        bits as f64 / (1_u64 << 53) as f64
    }

    /// A normal number in double precision; every second one was made along with the one before.
    fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let angle = std::f64::consts::TAU * self.uniform_double();
        let radius = (-2.0 * (-self.uniform_double()).ln_1p()).sqrt();
        self.spare = Some(radius * angle.sin());
        radius * angle.cos()
    }
}

/// Turns 16 uniform numbers into 16 normal ones: the first 8 give the radii, the last 8 the angles.
fn box_muller(block: &mut [f32; BLOCK]) {
    let (first, last) = block.split_at_mut(BLOCK / 2);
    for (a, b) in first.iter_mut().zip(last) {
        // 1 − u is never 0, so the logarithm is finite.
        let radius = (-2.0 * (1.0 - f64::from(*a)).ln()).sqrt();
        let angle = std::f64::consts::TAU * f64::from(*b);
        (*a, *b) = ((radius * angle.cos()) as f32, (radius * angle.sin()) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The tables come from PyTorch 2.15 on a CPU:
    //   g = torch.Generator().manual_seed(SEED)
    //   for n in SIZES: print(torch.randn(n, generator=g).tolist())

    fn follows(seed: u64, draws: &[&[f32]]) {
        let mut generator = CpuGenerator::new(seed);
        for (index, expected) in draws.iter().enumerate() {
            let got = generator.randn(expected.len());
            for (a, b) in got.iter().zip(*expected) {
                assert!((a - b).abs() <= 1e-5, "seed {seed}, draw {index}: {a} is not {b}");
            }
        }
    }

    #[test]
    fn draws_in_sequence_equal_pytorch() {
        // Odd small sizes leave a spare number that outlives block draws; 19 and 40 have a tail.
        follows(
            42,
            &[
                &[0.33669037, 0.12880941, 0.23446237],
                &[0.23033303],
                &[
                    1.7877893,
                    -0.47804525,
                    -0.24285863,
                    -0.93416315,
                    -0.24825750,
                    -1.2082148,
                    -0.47766745,
                    0.52013117,
                    -1.5673267,
                    -0.23944581,
                    2.3228059,
                    -0.96336591,
                    2.0024154,
                    0.46643189,
                    1.5730273,
                    -0.92282885,
                ],
                &[
                    0.35585991,
                    -0.68662298,
                    -0.49335635,
                    -0.84546745,
                    1.3123076,
                    0.68715960,
                    -1.0891753,
                    -0.35528663,
                    -0.91382301,
                    -0.65813726,
                    0.07802387,
                    2.2667179,
                    1.1789509,
                    -0.43445441,
                    -1.3863655,
                    -1.2862155,
                    -1.4032478,
                    0.03600367,
                    -0.06347727,
                ],
                &[0.43356201, 0.66408241],
                &[
                    -0.44585201,
                    1.4451338,
                    0.85641253,
                    2.2180758,
                    0.52316552,
                    0.34664667,
                    -0.19733144,
                    -1.0545889,
                    -0.77177787,
                    -0.17219013,
                    0.52378845,
                    0.05662182,
                    0.42629614,
                    0.57500505,
                    -0.64172411,
                    -2.2063985,
                    1.6991702,
                    0.01086814,
                    -0.33874235,
                    -1.3406795,
                    -0.58537054,
                    0.53618813,
                    0.52462262,
                    1.1412016,
                    -0.45015338,
                    -0.67875296,
                    0.57431608,
                    0.18774910,
                    -0.35762301,
                    -0.31650829,
                    0.58863395,
                    -0.89045691,
                    -0.30360377,
                    -0.98643863,
                    0.12329912,
                    0.34986776,
                    0.61728072,
                    -0.16933209,
                    0.23322502,
                    4.0356340,
                ],
                &[-0.94443655, -0.73568237, -0.36381918, 1.4363909, 0.37439820],
            ],
        );
    }

    #[test]
    fn only_the_low_half_of_a_seed_counts() {
        follows(
            (7 << 32) + 123_456_789,
            &[
                &[0.11027837],
                &[
                    -0.15688676,
                    -0.86024100,
                    -0.84619743,
                    -0.30944085,
                    0.81971455,
                    -0.91048354,
                    -0.36508587,
                    0.83446586,
                    -1.9966483,
                    0.08863718,
                    0.40533450,
                    -1.5900596,
                    0.95749748,
                    0.54048115,
                    -0.01532969,
                    1.4485871,
                    0.90821958,
                    -1.9632155,
                    -0.13534451,
                    -0.54709804,
                ],
                &[2.2007697, -0.03400560],
            ],
        );
        assert_eq!(CpuGenerator::new(5).randn(64), CpuGenerator::new(5 | (9 << 32)).randn(64));
    }

    #[test]
    fn many_draws_are_standard_normal() {
        let values = CpuGenerator::new(1).randn(100_003);
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / values.len() as f64;
        assert!(values.iter().all(|v| v.is_finite()) && mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02);
        assert!(CpuGenerator::new(1).randn(0).is_empty());
    }
}
