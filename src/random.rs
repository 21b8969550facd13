//! Random numbers equal to PyTorch's, so that a seed means the same noise here and there.

use half::f16;
use rand_mt::Mt;
use serde::{Deserialize, Serialize};

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
        if !count.is_multiple_of(BLOCK)
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

/// PyTorch's generator on a CUDA device: Philox4x32-10 (Salmon et al., 2011), each thread of a kernel with a
/// subsequence of its own.
#[derive(Debug, Clone)]
pub struct CudaGenerator {
    seed: u64,
    /// Blocks of four numbers that each thread has used.
    used: u64,
    /// Threads that the device runs at once.
    resident: usize,
}

/// Threads of a block of PyTorch's kernels that draw.
const CUDA_BLOCK: usize = 256;

impl CudaGenerator {
    /// The generator that `torch.Generator("cuda").manual_seed(seed)` gives on a device of so many multiprocessors, each
    /// of which runs so many threads (132 and 2048 on an H100). The device counts: it decides which thread draws what
    /// once there are more numbers than threads.
    pub fn new(seed: u64, multiprocessors: usize, threads: usize) -> Self {
        Self { seed, used: 0, resident: multiprocessors * (threads / CUDA_BLOCK) * CUDA_BLOCK }
    }

    /// `count` independent standard normal numbers: `torch.randn(count, generator=self, device="cuda")` in float32.
    pub fn randn(&mut self, count: usize) -> Vec<f32> {
        let threads = count.div_ceil(CUDA_BLOCK) * CUDA_BLOCK;
        let threads = threads.min(self.resident).max(1);
        let mut values = vec![0.0; count];
        let rounds = count.div_ceil(4 * threads);
        for round in 0..rounds {
            for thread in 0..threads {
                // A thread's four numbers lie a kernel's width apart.
                let first = round * 4 * threads + thread;
                if first >= count {
                    break;
                }
                let counter = self.used + round as u64;
                for (place, value) in normal_four(philox(self.seed, counter, thread as u64)).into_iter().enumerate() {
                    if let Some(slot) = values.get_mut(first + place * threads) {
                        *slot = value;
                    }
                }
            }
        }
        self.used += rounds as u64;
        values
    }
}

/// Four random words for a counter within a subsequence.
fn philox(key: u64, counter: u64, subsequence: u64) -> [u32; 4] {
    let mut words = [counter as u32, (counter >> 32) as u32, subsequence as u32, (subsequence >> 32) as u32];
    let mut key = [key as u32, (key >> 32) as u32];
    for _ in 0..10 {
        let a = u64::from(words[0]) * 0xD251_1F53;
        let b = u64::from(words[2]) * 0xCD9E_8D57;
        words = [(b >> 32) as u32 ^ words[1] ^ key[0], b as u32, (a >> 32) as u32 ^ words[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    words
}

/// Box–Muller on each pair of words, sine before cosine, as cuRAND does in float32.
fn normal_four(words: [u32; 4]) -> [f32; 4] {
    const UNIT: f32 = 1.0 / 4_294_967_296.0;
    const TURN: f32 = std::f32::consts::TAU * UNIT;
    let pair = |a: u32, b: u32| {
        let radius = (-2.0 * (a as f32 * UNIT + UNIT / 2.0).ln()).sqrt();
        let (sin, cos) = (b as f32 * TURN + TURN / 2.0).sin_cos();
        [radius * sin, radius * cos]
    };
    let [[a, b], [c, d]] = [pair(words[0], words[1]), pair(words[2], words[3])];
    [a, b, c, d]
}

/// The PyTorch generator that a seed reproduces. Both are drawn by this library, on any device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Noise {
    /// PyTorch's on a CPU.
    #[default]
    Cpu,
    /// PyTorch's on an H100, in half precision, which is what the published scripts draw there.
    Cuda,
}

impl Noise {
    /// The names, in the order of the kinds.
    pub const NAMES: &[&str] = &["cpu", "cuda"];

    /// `count` independent standard normal numbers, the first that a fresh generator with this seed gives.
    pub fn draw(self, seed: u64, count: usize) -> Vec<f32> {
        const MULTIPROCESSORS: usize = 132;
        const THREADS: usize = 2048;
        match self {
            Self::Cpu => CpuGenerator::new(seed).randn(count),
            Self::Cuda => {
                let drawn = CudaGenerator::new(seed, MULTIPROCESSORS, THREADS).randn(count);
                drawn.into_iter().map(|number| f16::from_f32(number).to_f32()).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_published_words() {
        // The known answers that come with the generator's paper.
        assert_eq!(philox(0, 0, 0), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        let ones = u64::MAX;
        assert_eq!(philox(ones, ones, ones), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = philox(0x299f_31d0_a409_3822, 0x85a3_08d3_243f_6a88, 0x0370_7344_1319_8a2e);
        assert_eq!(pi, [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn cuda_draws_begin_as_pytorch_s() {
        // torch.randn(n, device="cuda") for few numbers, which no device's size changes.
        let close = |seed: u64, expected: &[f32]| {
            let found = CudaGenerator::new(seed, 132, 2048).randn(expected.len());
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4), "{found:?}");
        };
        close(0, &[-0.9247, -0.4253, -2.6438, 0.1452, -0.1209, -0.5797]);
        close(42, &[0.1940, 2.1614, -0.1721, 0.8491, -1.9244, 0.6530]);
    }

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
                &[0.33669, 0.128809, 0.234462],
                &[0.230333],
                &[
                    1.787789, -0.478045, -0.242859, -0.934163, -0.248257, -1.208215, -0.477667, 0.520131, -1.567327,
                    -0.239446, 2.322806, -0.963366, 2.002415, 0.466432, 1.573027, -0.922829,
                ],
                &[
                    0.35586, -0.686623, -0.493356, -0.845467, 1.312308, 0.68716, -1.089175, -0.355287, -0.913823,
                    -0.658137, 0.078024, 2.266718, 1.178951, -0.434454, -1.386365, -1.286215, -1.403248, 0.036004,
                    -0.063477,
                ],
                &[0.433562, 0.664082],
                &[
                    -0.445852, 1.445134, 0.856413, 2.218076, 0.523166, 0.346647, -0.197331, -1.054589, -0.771778,
                    -0.17219, 0.523788, 0.056622, 0.426296, 0.575005, -0.641724, -2.206399, 1.69917, 0.010868,
                    -0.338742, -1.34068, -0.585371, 0.536188, 0.524623, 1.141202, -0.450153, -0.678753, 0.574316,
                    0.187749, -0.357623, -0.316508, 0.588634, -0.890457, -0.303604, -0.986439, 0.123299, 0.349868,
                    0.617281, -0.169332, 0.233225, 4.035634,
                ],
                &[-0.944437, -0.735682, -0.363819, 1.436391, 0.374398],
            ],
        );
    }

    #[test]
    fn only_the_low_half_of_a_seed_counts() {
        follows(
            (7 << 32) + 123_456_789,
            &[
                &[0.110278],
                &[
                    -0.156887, -0.860241, -0.846197, -0.309441, 0.819715, -0.910484, -0.365086, 0.834466, -1.996648,
                    0.088637, 0.405334, -1.59006, 0.957497, 0.540481, -0.01533, 1.448587, 0.90822, -1.963216,
                    -0.135345, -0.547098,
                ],
                &[2.20077, -0.034006],
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

    #[test]
    fn a_seed_stands_for_numbers_of_a_device() {
        // torch.randn(4, device=…, dtype=torch.float16) with a generator of seed 42 there.
        let cuda = Noise::Cuda.draw(42, 4);
        assert_eq!(cuda, [0.194_f32, 2.1621, -0.172, 0.8491].map(|v| f16::from_f32(v).to_f32()));
        assert_ne!(Noise::Cpu.draw(42, 4), cuda);
    }
}
