//! A finished clip in memory.

/// Clips that claim more bytes than this are no clips.
pub const MAX_BYTES: u64 = 1 << 34;

/// A finished clip.
#[derive(Debug, Clone, PartialEq)]
pub struct Clip {
    pub width: usize,
    pub height: usize,
    /// How far apart its frames stand in the reference, in frames of the reference.
    pub spacing: f64,
    /// 8-bit sRGB, frame after frame, rows from the top.
    pub data: Vec<u8>,
}

/// A frame of 8-bit sRGB, rows from the top.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    pub width: usize,
    pub height: usize,
    pub data: &'a [u8],
}

impl Clip {
    fn frame_len(&self) -> usize {
        self.width * self.height * 3
    }

    /// How many frames it has.
    pub fn count(&self) -> usize {
        self.data.len() / self.frame_len().max(1)
    }

    /// The frame of an index below the count.
    pub fn frame(&self, index: usize) -> Frame<'_> {
        let data = &self.data[index * self.frame_len()..][..self.frame_len()];
        Frame { width: self.width, height: self.height, data }
    }
}

/// The bytes of a clip of this size, if it may be one.
pub fn bytes(width: u64, height: u64, count: u64) -> Option<u64> {
    let bytes = width.checked_mul(height)?.checked_mul(count)?.checked_mul(3)?;
    (1..=MAX_BYTES).contains(&bytes).then_some(bytes)
}

/// Whether a text is a key: it comes from a project's file, and becomes a file's name.
pub fn is_key(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}
