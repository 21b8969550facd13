//! Sparse temporal attention: the strongest entries of each map.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// Frame indices are bytes.
const MAX_FRAMES: usize = 256;

/// The strongest entries of one temporal attention map.
#[derive(Debug, Clone, PartialEq)]
pub struct SparseAttention {
    /// Latent positions, row by row.
    pub positions: usize,
    /// Attention heads.
    pub heads: usize,
    /// Frames, which are both queries and keys.
    pub frames: usize,
    /// Entries kept per query.
    pub k: usize,
    /// Attention probabilities `[positions, heads, frames, k]`, strongest first.
    pub values: Vec<f32>,
    /// The key frame of each value, same shape; distinct within a query.
    pub indices: Vec<u8>,
}

impl SparseAttention {
    /// The top `k` entries over the last axis of attention probabilities `[positions, heads, frames, frames]`, as
    /// `torch.topk`; of equal entries the earlier frame comes first.
    ///
    /// # Errors
    /// When the shape is no such map, does not fit the number of values, or `k` is not 1 to `frames`.
    pub fn from_attention(attention: &[f32], shape: [usize; 4], k: usize) -> Result<Self> {
        let [positions, heads, frames, keys] = shape;
        if frames != keys || frames == 0 || frames > MAX_FRAMES || count(&shape) != Some(attention.len()) {
            return Err(Error::failure(format!("{} values are no attention map of shape {shape:?}", attention.len())));
        }
        if k == 0 || k > frames {
            return Err(Error::input(format!("top-k {k}: must be 1 to the number of frames, {frames}")));
        }
        let entries = positions * heads * frames * k;
        let (mut values, mut indices) = (Vec::with_capacity(entries), Vec::with_capacity(entries));
        let mut order: Vec<u8> = Vec::with_capacity(frames);
        for row in attention.chunks_exact(frames) {
            order.clear();
            order.extend((0..frames).map(|frame| frame as u8));
            // A stable sort keeps equal entries in order of frames; NaN counts as largest, as in PyTorch.
            order.sort_by(|a, b| {
                let (a, b) = (row[usize::from(*a)], row[usize::from(*b)]);
                b.partial_cmp(&a).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
            });
            values.extend(order[..k].iter().map(|frame| row[usize::from(*frame)]));
            indices.extend_from_slice(&order[..k]);
        }
        Ok(Self { positions, heads, frames, k, values, indices })
    }

    /// `[positions, heads, frames, k]`.
    pub fn shape(&self) -> [usize; 4] {
        [self.positions, self.heads, self.frames, self.k]
    }

    /// For each kept entry: where it lies in the flat dense map `[positions, heads, frames, frames]`, and its value.
    pub fn entries(&self) -> impl Iterator<Item = (usize, f32)> {
        let (k, frames) = (self.k.max(1), self.frames);
        let place = move |(entry, index): (usize, &u8)| (entry / k) * frames + usize::from(*index);
        self.indices.iter().enumerate().map(place).zip(self.values.iter().copied())
    }

    /// Checks data that came from elsewhere; the error says what is wrong with it.
    pub(super) fn check(&self) -> Result<(), String> {
        let Self { frames, k, .. } = *self;
        if !(2..=MAX_FRAMES).contains(&frames) || k == 0 || k > frames || self.positions == 0 || self.heads == 0 {
            return Err(format!("has the impossible shape {:?} (positions, heads, frames, k)", self.shape()));
        }
        if count(&self.shape()) != Some(self.values.len()) || self.indices.len() != self.values.len() {
            return Err(format!("has {} values and {} indices for its shape", self.values.len(), self.indices.len()));
        }
        if let Some(value) = self.values.iter().find(|v| !(0.0..=1.001).contains(*v)) {
            return Err(format!("has the value {value}; an attention probability lies between 0 and 1"));
        }
        for row in self.indices.chunks_exact(k) {
            if let Some(index) = row.iter().find(|index| usize::from(**index) >= frames) {
                return Err(format!("points at frame {index}; the clip has frames 0 to {}", frames - 1));
            }
            if row.iter().enumerate().any(|(at, index)| row[..at].contains(index)) {
                return Err("keeps one frame twice".into());
            }
        }
        Ok(())
    }
}

/// Number of elements of a shape, unless it overflows.
fn count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size))
}

/// The motion of the frames that the UNet reads at once: one sparse map per guided temporal attention, by the attention
/// module's name, such as
/// `up_blocks.1.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0`.
pub type MotionMaps = BTreeMap<String, SparseAttention>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn top_k_is_sorted_and_earlier_frames_win_ties() {
        let rows = [0.1, 0.4, 0.4, 0.1, 0.2, f32::NAN, 0.3, 0.5, 0.25, 0.25, 0.25, 0.25, 0.0, 0.9, 0.0, 0.1];
        let sparse = SparseAttention::from_attention(&rows, [1, 1, 4, 4], 3).unwrap();
        assert_eq!(sparse.indices, [1, 2, 0, 1, 3, 2, 0, 1, 2, 1, 3, 0]);
        assert_eq!(sparse.values[..3], [0.4, 0.4, 0.1]);
        assert!(sparse.values[3].is_nan() && sparse.values[4..] == [0.5, 0.3, 0.25, 0.25, 0.25, 0.9, 0.1, 0.0]);
        let places: Vec<usize> = sparse.entries().map(|(place, _)| place).collect();
        assert_eq!(places, [1, 2, 0, 5, 7, 6, 8, 9, 10, 13, 15, 12]);
        for (shape, k) in
            [([1, 1, 4, 4], 0), ([1, 1, 4, 4], 5), ([1, 2, 4, 4], 1), ([1, 1, 4, 2], 1), ([2, usize::MAX, 4, 4], 1)]
        {
            assert!(SparseAttention::from_attention(&rows, shape, k).is_err());
        }
        assert!(SparseAttention::from_attention(&[], [0, 8, 300, 300], 1).is_err());
    }
}
