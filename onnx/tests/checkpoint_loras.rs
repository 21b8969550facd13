//! LoRAs of every kind: their sums agree with the formulas, computed here in float64 element by element.

mod checkpoint_support;

use checkpoint_support::*;
use motionclone_onnx::checkpoint::ImportOptions;

const MODULE: &str = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q";
const WEIGHT: &str = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight";
const CONVOLUTION: &str = "lora_unet_down_blocks_0_resnets_0_conv1";
const KERNELS: &str = "unet.down_blocks.0.resnets.0.conv1.weight";
const NORM: &str = "lora_unet_down_blocks_0_resnets_0_norm1";

/// A small tensor of a LoRA: its shape and values.
struct Small(Vec<usize>, Vec<f32>);

impl Small {
    /// Some values, other ones for another seed.
    fn new(shape: &[usize], seed: usize) -> Self {
        let count: usize = shape.iter().product();
        Self(shape.to_vec(), (0..count).map(|i| ((i * 37 + seed * 101) % 64) as f32 / 64.0 - 0.4).collect())
    }

    /// An element.
    fn at(&self, place: &[usize]) -> f64 {
        let index = place.iter().zip(&self.0).fold(0, |index, (i, size)| index * size + i);
        f64::from(self.1[index])
    }
}

/// Imports a LoRA with a scale; returns a weight before and after, and how many changed.
fn merged(scale: f32, parts: &[(String, &Small)], weight: &str) -> (Vec<f64>, Vec<f64>, usize) {
    let folder = tempfile::tempdir().unwrap();
    let tensors = parts.iter().map(|(name, part)| (name.clone(), floats(&part.0, &part.1))).collect();
    let file = write_safetensors(folder.path().join("lora.safetensors"), &tensors);
    let (plain, with) = (folder.path().join("plain"), folder.path().join("with"));
    run(&base(plain.clone())).unwrap();
    run(&ImportOptions { loras: vec![(file, scale)], ..base(with.clone()) }).unwrap();
    let (plain, with) = (Weights::open(&plain), Weights::open(&with));
    let changed = plain.index.names().filter(|name| plain.values(name) != with.values(name)).count();
    let values = |weights: &Weights| weights.values(weight).into_iter().map(f64::from).collect();
    (values(&plain), values(&with), changed)
}

/// The sums are W + difference, to 1e-4 of the largest difference.
#[track_caller]
fn assert_sums(before: &[f64], after: &[f64], difference: impl Fn(usize) -> f64) {
    let differences: Vec<f64> = (0..before.len()).map(difference).collect();
    let largest = differences.iter().fold(0f64, |most, d| most.max(d.abs()));
    assert!(largest > 0.01, "nothing is added");
    for (i, ((before, after), d)) in before.iter().zip(after).zip(&differences).enumerate() {
        assert!((after - before - d).abs() <= 1e-4 * largest, "{i}: {before} became {after}, not {}", before + d);
    }
}

fn named<'a>(module: &str, parts: &[(&str, &'a Small)]) -> Vec<(String, &'a Small)> {
    parts.iter().map(|(part, tensor)| (format!("{module}.{part}"), *tensor)).collect()
}

/// Σ over r of f(r).
fn sum(count: usize, f: impl Fn(usize) -> f64) -> f64 {
    (0..count).map(f).sum()
}

#[test]
fn loha() {
    let [a, b, c, d] =
        [(&[32, 2], 1), (&[2, 32], 2), (&[32, 2], 3), (&[2, 32], 4)].map(|(s, seed)| Small::new(s, seed));
    let alpha = Small(vec![], vec![1.5]);
    let parts = [("hada_w1_a", &a), ("hada_w1_b", &b), ("hada_w2_a", &c), ("hada_w2_b", &d), ("alpha", &alpha)];
    let (before, after, changed) = merged(0.5, &named(MODULE, &parts), WEIGHT);
    assert_eq!(changed, 1);
    let product = |a: &Small, b: &Small, i: usize| sum(2, |r| a.at(&[i / 32, r]) * b.at(&[r, i % 32]));
    assert_sums(&before, &after, |i| 0.5 * 1.5 / 2.0 * product(&a, &b, i) * product(&c, &d, i));
}

#[test]
fn loha_with_cores() {
    let [a, b, c, d] =
        [(&[2, 32], 1), (&[2, 32], 2), (&[2, 32], 3), (&[2, 32], 4)].map(|(s, seed)| Small::new(s, seed));
    let (s, t) = (Small::new(&[2, 2, 3, 3], 5), Small::new(&[2, 2, 3, 3], 6));
    let parts =
        [("hada_w1_a", &a), ("hada_w1_b", &b), ("hada_w2_a", &c), ("hada_w2_b", &d), ("hada_t1", &s), ("hada_t2", &t)];
    let (before, after, _) = merged(1.0, &named(CONVOLUTION, &parts), KERNELS);
    let half = |a: &Small, core: &Small, b: &Small, n: usize| {
        let (o, i, k, l) = (n / 288, n / 9 % 32, n / 3 % 3, n % 3);
        sum(2, |r| sum(2, |s| core.at(&[r, s, k, l]) * a.at(&[r, o]) * b.at(&[s, i])))
    };
    assert_sums(&before, &after, |n| half(&a, &s, &b, n) * half(&c, &t, &d, n));
}

#[test]
fn lokr_of_whole_matrices_and_of_products() {
    let (left, right, alpha) = (Small::new(&[4, 4], 1), Small::new(&[8, 8], 2), Small(vec![], vec![3.0]));
    let parts = [("lokr_w1", &left), ("lokr_w2", &right), ("alpha", &alpha)];
    let (before, after, _) = merged(1.0, &named(MODULE, &parts), WEIGHT);
    let place = |n: usize| (n / 32, n % 32);
    assert_sums(&before, &after, |n| {
        let (o, i) = place(n);
        left.at(&[o / 8, i / 8]) * right.at(&[o % 8, i % 8])
    });
    // Only where a matrix is a product is there a rank that alpha is divided by.
    let (a, b) = (Small::new(&[8, 2], 3), Small::new(&[2, 8], 4));
    let parts = [("lokr_w1", &left), ("lokr_w2_a", &a), ("lokr_w2_b", &b), ("alpha", &alpha)];
    let (before, after, _) = merged(1.0, &named(MODULE, &parts), WEIGHT);
    assert_sums(&before, &after, |n| {
        let (o, i) = place(n);
        3.0 / 2.0 * left.at(&[o / 8, i / 8]) * sum(2, |r| a.at(&[o % 8, r]) * b.at(&[r, i % 8]))
    });
    // A convolution: the kernel is the second matrix's.
    let kernels = Small::new(&[8, 8, 3, 3], 5);
    let parts = [("lokr_w1", &left), ("lokr_w2", &kernels)];
    let (before, after, _) = merged(1.0, &named(CONVOLUTION, &parts), KERNELS);
    assert_sums(&before, &after, |n| {
        let (o, i, k, l) = (n / 288, n / 9 % 32, n / 3 % 3, n % 3);
        left.at(&[o / 8, i / 8]) * kernels.at(&[o % 8, i % 8, k, l])
    });
}

#[test]
fn locon_with_a_middle() {
    let (down, up) = (Small::new(&[2, 32, 1, 1], 1), Small::new(&[32, 3, 1, 1], 2));
    let (mid, alpha) = (Small::new(&[3, 2, 3, 3], 3), Small(vec![], vec![1.0]));
    let parts = [("lora_down.weight", &down), ("lora_up.weight", &up), ("lora_mid.weight", &mid), ("alpha", &alpha)];
    let (before, after, _) = merged(1.0, &named(CONVOLUTION, &parts), KERNELS);
    assert_sums(&before, &after, |n| {
        let (o, i, k, l) = (n / 288, n / 9 % 32, n / 3 % 3, n % 3);
        sum(3, |r| sum(2, |s| up.at(&[o, r, 0, 0]) * mid.at(&[r, s, k, l]) * down.at(&[s, i, 0, 0]))) / 2.0
    });
}

#[test]
fn dora_by_columns_and_by_rows() {
    let (down, up, alpha) = (Small::new(&[2, 32], 1), Small::new(&[32, 2], 2), Small(vec![], vec![1.0]));
    for (shape, part) in [(&[1, 32][..], "dora_scale"), (&[32, 1], "dora_scale"), (&[32], "lora_magnitude_vector")] {
        let lengths = Small(shape.to_vec(), (0..32).map(|i| 0.5 + i as f32 / 32.0).collect());
        let parts = [("lora_down.weight", &down), ("lora_up.weight", &up), ("alpha", &alpha), (part, &lengths)];
        let (before, after, _) = merged(0.75, &named(MODULE, &parts), WEIGHT);
        let added = |n: usize| before[n] + sum(2, |r| up.at(&[n / 32, r]) * down.at(&[r, n % 32])) / 2.0;
        let columns = shape[0] == 1;
        assert_sums(&before, &after, |n| {
            let group = if columns { n % 32 } else { n / 32 };
            let member = |m: usize| if columns { 32 * m + group } else { 32 * group + m };
            let length = sum(32, |m| added(member(m)).powi(2)).sqrt();
            0.75 * (added(n) * f64::from(lengths.1[group]) / length - before[n])
        });
    }
}

#[test]
fn full_differences_and_norms() {
    let (matrix, vector) = (Small::new(&[32, 32], 1), Small::new(&[32], 2));
    let (before, after, changed) = merged(0.5, &named(MODULE, &[("diff", &matrix)]), WEIGHT);
    assert_eq!(changed, 1);
    assert_sums(&before, &after, |n| 0.5 * f64::from(matrix.1[n]));
    for (module, part, name) in [
        (NORM, "w_norm", "unet.down_blocks.0.resnets.0.norm1.weight"),
        (NORM, "b_norm", "unet.down_blocks.0.resnets.0.norm1.bias"),
        (CONVOLUTION, "diff_b", "unet.down_blocks.0.resnets.0.conv1.bias"),
    ] {
        let (before, after, changed) = merged(1.0, &named(module, &[(part, &vector)]), name);
        assert_eq!(changed, 1);
        assert_sums(&before, &after, |n| f64::from(vector.1[n]));
    }
}

#[test]
fn names_of_other_programs() {
    let (down, up) = (Small::new(&[2, 32], 1), Small::new(&[32, 2], 2));
    for prefix in ["diffusion_model.input_blocks.1.1", "base_model.model.unet.down_blocks.0.attentions.0"] {
        let module = format!("{prefix}.transformer_blocks.0.attn1.to_q");
        let parts = named(&module, &[("lora_A.weight", &down), ("lora_B.weight", &up)]);
        let (before, after, changed) = merged(1.0, &parts, WEIGHT);
        assert_eq!(changed, 1);
        assert_sums(&before, &after, |n| sum(2, |r| up.at(&[n / 32, r]) * down.at(&[r, n % 32])));
    }
    let (down, up) = (Small::new(&[2, 16], 1), Small::new(&[16, 2], 2));
    let layer = "text_model.encoder.layers.1.self_attn.q_proj";
    for prefix in ["clip_l.transformer", "text_encoders.clip_l.transformer", "text_encoder"] {
        let parts = named(&format!("{prefix}.{layer}"), &[("lora_down.weight", &down), ("lora_up.weight", &up)]);
        let (before, after, _) = merged(1.0, &parts, &format!("text_encoder.{layer}.weight"));
        assert_sums(&before, &after, |n| sum(2, |r| up.at(&[n / 16, r]) * down.at(&[r, n % 16])));
    }
}
