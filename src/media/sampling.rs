//! The choice of frames that stand for a clip.

/// Which of a clip's `count` frames stand for it: `frames` of them, evenly from the first to the last, as numpy's
/// `linspace(0, count - 1, frames)` truncated to integers. A clip shorter than that repeats frames.
pub fn sample_indices(count: usize, frames: usize) -> Vec<usize> {
    let last = count.saturating_sub(1);
    // numpy multiplies a float64 step and sets the last value exactly; truncation makes the difference visible.
    let step = last as f64 / frames.saturating_sub(1).max(1) as f64;
    (0..frames).map(|i| if i > 0 && i + 1 == frames { last } else { (i as f64 * step) as usize }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sampled_frames_span_the_clip() {
        // (frames in the clip, frames wanted, numpy.linspace(0, n - 1, F).astype(int))
        let table: [(usize, usize, &[usize]); 6] = [
            (16, 16, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]),
            (60, 8, &[0, 8, 16, 25, 33, 42, 50, 59]),
            (3, 5, &[0, 0, 1, 1, 2]),
            (1, 4, &[0, 0, 0, 0]),
            (9, 2, &[0, 8]),
            (9, 1, &[0]),
        ];
        for (count, frames, expected) in table {
            assert_eq!(sample_indices(count, frames), expected, "{count} frames, {frames} wanted");
        }
        assert!(sample_indices(5, 0).is_empty());
    }
}
