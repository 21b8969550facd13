//! The contact sheet: reference and result frame by frame, one row of each over the other.

use motionclone::media::frames::Frames;
use motionclone::media::sampling::sample_indices;

/// Frames in a row.
const COLUMNS: usize = 8;
/// Frames shown at most; of longer clips, evenly chosen ones.
const SHOWN: usize = 16;
/// A frame's pixels across at most.
const CELL_WIDTH: usize = 256;
/// Pixels between frames.
const GAP: usize = 4;
/// Pixels between one pair of rows and the next, and around all.
const MARGIN: usize = 16;
const BACKGROUND: u8 = 24;

/// Lays out the result below the reference (where there is one), in rows of eight frames.
pub fn contact_sheet(reference: Option<&Frames>, result: &Frames) -> Frames {
    let width = result.width.min(CELL_WIDTH);
    let height = (result.height * width / result.width.max(1)).max(1);
    let shown = sample_indices(result.count(), result.count().min(SHOWN));
    let clips: Vec<Frames> =
        reference.into_iter().chain([result]).map(|clip| clip.resize_antialiased(width, height)).collect();
    let columns = shown.len().min(COLUMNS);
    let bands: Vec<&[usize]> = shown.chunks(COLUMNS).collect();
    let band_height = clips.len() * (height + GAP) - GAP;
    let mut sheet = Canvas::new(
        2 * MARGIN + columns * (width + GAP) - GAP.min(columns),
        MARGIN + bands.len() * (band_height + MARGIN),
    );
    for (band, indices) in bands.iter().enumerate() {
        for (row, clip) in clips.iter().enumerate() {
            for (column, index) in indices.iter().enumerate().filter(|(_, index)| **index < clip.count()) {
                let left = MARGIN + column * (width + GAP);
                let top = MARGIN + band * (band_height + MARGIN) + row * (height + GAP);
                sheet.paste(clip.frame(*index), width, left, top);
            }
        }
    }
    sheet.0
}

struct Canvas(Frames);

impl Canvas {
    fn new(width: usize, height: usize) -> Self {
        Self(Frames { width, height, data: vec![BACKGROUND; width * height * 3] })
    }

    fn paste(&mut self, frame: &[u8], width: usize, left: usize, top: usize) {
        for (y, row) in frame.chunks_exact(width * 3).enumerate() {
            let start = ((top + y) * self.0.width + left) * 3;
            self.0.data[start..start + row.len()].copy_from_slice(row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clip(count: usize, width: usize, height: usize, shade: u8) -> Frames {
        let data = (0..count).flat_map(|i| vec![shade + i as u8; width * height * 3]).collect();
        Frames { width, height, data }
    }

    fn pixel(sheet: &Frames, x: usize, y: usize) -> u8 {
        sheet.data[(y * sheet.width + x) * 3]
    }

    #[test]
    fn reference_stands_over_result() {
        let sheet = contact_sheet(Some(&clip(16, 20, 10, 100)), &clip(16, 20, 10, 200));
        assert_eq!((sheet.width, sheet.height), (2 * 16 + 8 * 24 - 4, 16 + 2 * (24 + 16)));
        assert_eq!(sheet.data.len(), sheet.frame_len());
        // Frame 9 is the second of the second band.
        let (x, y) = (16 + 24, 16 + 40);
        assert_eq!((pixel(&sheet, x, y), pixel(&sheet, x, y + 14)), (109, 209));
        assert_eq!((pixel(&sheet, x - 1, y), pixel(&sheet, 0, 0)), (24, 24));
    }

    #[test]
    fn long_clips_are_thinned_and_large_frames_shrunk() {
        let sheet = contact_sheet(None, &clip(32, 512, 256, 100));
        assert_eq!((sheet.width, sheet.height), (2 * 16 + 8 * 260 - 4, 16 + 2 * (128 + 16)));
        assert_eq!(pixel(&sheet, sheet.width - 17, sheet.height - 17), 131, "the last frame is shown last");
    }

    #[test]
    fn a_reference_of_another_length_leaves_gaps() {
        let sheet = contact_sheet(Some(&clip(2, 8, 8, 100)), &clip(4, 8, 8, 200));
        assert_eq!((pixel(&sheet, 16 + 12, 16), pixel(&sheet, 16 + 24, 16)), (101, 24));
    }
}
