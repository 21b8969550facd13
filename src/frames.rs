//! Frames of 8-bit colour: what clips and images become before the model sees them, and what comes out.

/// Frames of interleaved 8-bit RGB, rows from the top, without padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frames {
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// `count() · height · width · 3` bytes.
    pub data: Vec<u8>,
}

impl Frames {
    /// Bytes of one frame.
    pub fn frame_len(&self) -> usize {
        self.width * self.height * 3
    }

    /// How many frames there are.
    pub fn count(&self) -> usize {
        if self.frame_len() == 0 { 0 } else { self.data.len() / self.frame_len() }
    }

    /// One frame's bytes.
    ///
    /// # Panics
    /// When `index` is not below [`Frames::count`].
    pub fn frame(&self, index: usize) -> &[u8] {
        &self.data[index * self.frame_len()..(index + 1) * self.frame_len()]
    }
}
