//! What LoRAs of every kind add to a weight: W += factor · Δ, where Δ is made of small tensors as LyCORIS defines them. With
//! a magnitude (DoRA) the sum's columns or rows are scaled to it.

use super::convert::to_f32;
use super::names::Named;
use crate::Result;

/// A matrix [output, inputs] of a file, whole or as a product. Inputs of a convolution include the kernel.
#[derive(Debug, Clone)]
pub enum Factor {
    /// As it is.
    Whole(Named),
    /// up [output, rank] · down [rank, inputs].
    Product {
        /// The left matrix.
        up: Named,
        /// The right matrix.
        down: Named,
    },
    /// A core [rank, rank, kernel…] between up and down, neither of which has a kernel (Tucker).
    Tucker {
        /// The left matrix, [output, rank] or, `transposed`, [rank, output].
        up: Named,
        /// Between the two.
        core: Named,
        /// The right matrix, [rank, inputs without kernel].
        down: Named,
        /// Whether `up` lies on its side, as LoHa and LoKr have it.
        transposed: bool,
    },
}

/// Δ of one weight.
#[derive(Debug, Clone)]
pub enum Delta {
    /// One matrix: LoRA, LoCon, a full difference.
    Plain(Factor),
    /// Products of elements: LoHa.
    Hadamard(Factor, Factor),
    /// The Kronecker product: LoKr.
    Kronecker(Factor, Factor),
}

/// One addition to a weight.
#[derive(Debug, Clone)]
pub struct Addition {
    /// The difference.
    pub delta: Delta,
    /// What the file has it multiplied by: alpha / rank.
    pub factor: f32,
    /// How much of it the user wants.
    pub scale: f32,
    /// Lengths of the sum's columns [1, inputs] or rows [output, …] (DoRA).
    pub magnitude: Option<Named>,
}

fn read(tensor: &Named) -> Result<Vec<f32>> {
    let dtype = tensor.set.get(&tensor.source).map_or(safetensors::Dtype::F32, |t| t.dtype);
    to_f32(&tensor.set.read(&tensor.source)?, dtype).map_err(|e| e.with_path(tensor.set.path()))
}

/// Rows and columns of a tensor as a matrix; nothing where it has no rows.
fn matrix(tensor: &Named) -> Option<(usize, usize)> {
    let (rows, rest) = tensor.shape.split_first()?;
    let columns = rest.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?;
    (*rows > 0 && columns > 0).then_some((*rows, columns))
}

/// left [rows, inner] · right [inner, columns], added with a factor.
fn multiply_add(sum: &mut [f32], factor: f32, left: &[f32], right: &[f32], inner: usize) {
    let columns = right.len() / inner;
    let mut row = vec![0f32; columns];
    for (sum, left) in sum.chunks_exact_mut(columns).zip(left.chunks_exact(inner)) {
        row.fill(0.0);
        for (value, right) in left.iter().zip(right.chunks_exact(columns)) {
            row.iter_mut().zip(right).for_each(|(r, d)| *r += value * d);
        }
        sum.iter_mut().zip(&row).for_each(|(w, r)| *w += factor * r);
    }
}

impl Factor {
    /// Output and inputs; nothing when its tensors do not fit each other.
    pub fn size(&self) -> Option<(usize, usize)> {
        match self {
            Self::Whole(tensor) => matrix(tensor),
            Self::Product { up, down } => {
                let (up, down) = (matrix(up)?, matrix(down)?);
                (up.1 == down.0).then_some((up.0, down.1))
            }
            Self::Tucker { up, core, down, transposed } => {
                let (left, down) = (matrix(up)?, matrix(down)?);
                let (output, rank) = if *transposed { (left.1, left.0) } else { left };
                let [first, second, kernel @ ..] = &core.shape[..] else { return None };
                let kernel = kernel.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n > 0)?;
                let fits = *first == rank && *second == down.0;
                fits.then_some((output, down.1.checked_mul(kernel)?))
            }
        }
    }

    /// What alpha is divided by; nothing for a whole matrix.
    pub fn rank(&self) -> Option<usize> {
        match self {
            Self::Whole(_) => None,
            Self::Product { down, .. } | Self::Tucker { down, .. } => down.shape.first().copied(),
        }
    }

    fn values(&self) -> Result<Vec<f32>> {
        let Self::Whole(tensor) = self else {
            let (output, inputs) = self.size().unwrap_or_default();
            let mut sum = vec![0.0; output * inputs];
            self.add_to(&mut sum, 1.0)?;
            return Ok(sum);
        };
        read(tensor)
    }

    fn add_to(&self, sum: &mut [f32], factor: f32) -> Result<()> {
        match self {
            Self::Whole(tensor) => {
                sum.iter_mut().zip(read(tensor)?).for_each(|(w, d)| *w += factor * d);
            }
            Self::Product { up, down } => {
                multiply_add(sum, factor, &read(up)?, &read(down)?, down.shape[0]);
            }
            Self::Tucker { up, core, down, transposed } => {
                let (rank, inner) = (core.shape[0], down.shape[0]);
                let (up, core, down) = (read(up)?, read(core)?, read(down)?);
                let (output, inputs, columns) = (up.len() / rank, down.len() / inner, core.len() / rank);
                let kernel = columns / inner;
                let left: Vec<f32> = match transposed {
                    true => (0..up.len()).map(|i| up[(i % rank) * output + i / rank]).collect(),
                    false => up,
                };
                let mut halves = vec![0.0; output * columns];
                multiply_add(&mut halves, 1.0, &left, &core, rank);
                for (sum, half) in sum.chunks_exact_mut(inputs * kernel).zip(halves.chunks_exact(columns)) {
                    for (i, value) in sum.iter_mut().enumerate() {
                        let (input, place) = (i / kernel, i % kernel);
                        let dot: f32 = (0..inner).map(|s| half[s * kernel + place] * down[s * inputs + input]).sum();
                        *value += factor * dot;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Delta {
    /// Output and inputs; nothing when its tensors do not fit each other.
    pub fn size(&self) -> Option<(usize, usize)> {
        match self {
            Self::Plain(factor) => factor.size(),
            Self::Hadamard(a, b) => a.size().filter(|size| b.size() == Some(*size)),
            Self::Kronecker(a, b) => {
                let (a, b) = (a.size()?, b.size()?);
                Some((a.0.checked_mul(b.0)?, a.1.checked_mul(b.1)?))
            }
        }
    }

    /// What alpha is divided by; nothing where all matrices are whole.
    pub fn rank(&self) -> Option<usize> {
        match self {
            Self::Plain(factor) => factor.rank(),
            Self::Hadamard(a, b) | Self::Kronecker(a, b) => a.rank().or(b.rank()),
        }
    }

    fn add_to(&self, sum: &mut [f32], factor: f32) -> Result<()> {
        match self {
            Self::Plain(one) => one.add_to(sum, factor)?,
            Self::Hadamard(a, b) => {
                let products = a.values()?.into_iter().zip(b.values()?).map(|(a, b)| a * b);
                sum.iter_mut().zip(products).for_each(|(w, d)| *w += factor * d);
            }
            Self::Kronecker(a, b) => {
                let (Some((_, across)), Some((down, columns))) = (a.size(), b.size()) else { return Ok(()) };
                let (a, b) = (a.values()?, b.values()?);
                for (row, sum) in sum.chunks_exact_mut(across * columns).enumerate() {
                    for (column, value) in sum.iter_mut().enumerate() {
                        let left = a[row / down * across + column / columns];
                        *value += factor * left * b[row % down * columns + column % columns];
                    }
                }
            }
        }
        Ok(())
    }
}

impl Addition {
    /// Adds it to a weight of this shape, in float32.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn add_to(&self, weight: &mut [f32], shape: &[usize]) -> Result<()> {
        let Some(magnitude) = &self.magnitude else {
            return self.delta.add_to(weight, self.scale * self.factor);
        };
        let mut sum = weight.to_vec();
        self.delta.add_to(&mut sum, self.factor)?;
        let inputs = shape.get(1).copied().unwrap_or(1);
        let kernel = shape.iter().skip(2).product::<usize>();
        let rows = magnitude.shape.first() == shape.first();
        let group = |i: usize| if rows { i / (inputs * kernel) } else { i / kernel % inputs };
        let wanted = read(magnitude)?;
        let mut squares = vec![0f64; wanted.len()];
        sum.iter().enumerate().for_each(|(i, value)| squares[group(i)] += f64::from(*value).powi(2));
        for (i, (w, sum)) in weight.iter_mut().zip(sum).enumerate() {
            let length = (squares[group(i)].sqrt() as f32).max(f32::EPSILON);
            *w += self.scale * (sum * wanted[group(i)] / length - *w);
        }
        Ok(())
    }

    /// Whether it fits a weight of this shape.
    pub fn fits(&self, shape: &[usize]) -> bool {
        let Some((&output, rest)) = shape.split_first() else { return false };
        let magnitude = self.magnitude.as_ref().is_none_or(|magnitude| {
            let inputs = rest.first().copied().unwrap_or(1);
            let count = magnitude.shape.iter().product::<usize>();
            if magnitude.shape.first() == Some(&output) { count == output } else { count == inputs }
        });
        magnitude && self.delta.size() == Some((output, rest.iter().product()))
    }
}
