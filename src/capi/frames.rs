//! Frames in the host's memory: whatever strides, row order, channels, samples, alpha and transfer they have, read to
//! the 8-bit RGB that the engine takes and written from it.

use half::f16;

use super::boundary::Failure;
use super::{Alpha, Channels, HostFrames, RowOrder, Sample, Status, Transfer};
use crate::media::frames::Frames;
use crate::media::sampling::sample_indices;
use crate::runtime::gigabytes;

/// A side longer than this is taken for a mistake.
const MAX_SIDE: u32 = 16384;

/// Where a pixel's red, green, blue and alpha lie.
#[derive(Clone, Copy)]
struct Order {
    colours: [usize; 3],
    alpha: Option<usize>,
}

impl Order {
    fn of(channels: Channels) -> Self {
        match channels {
            Channels::Rgb => Self { colours: [0, 1, 2], alpha: None },
            Channels::Bgr => Self { colours: [2, 1, 0], alpha: None },
            Channels::Rgba => Self { colours: [0, 1, 2], alpha: Some(3) },
            Channels::Bgra => Self { colours: [2, 1, 0], alpha: Some(3) },
        }
    }

    fn count(self) -> usize {
        if self.alpha.is_some() { 4 } else { 3 }
    }
}

/// Frames of the host, their description checked.
pub struct View {
    data: *mut u8,
    each: *const *mut u8,
    width: usize,
    height: usize,
    count: usize,
    row_stride: isize,
    frame_stride: isize,
    bottom_up: bool,
    order: Order,
    sample: Sample,
    premultiplied: bool,
    linear: bool,
}

/// Memory for so many frames.
fn room(frames: usize, width: usize, height: usize) -> Result<Vec<u8>, Failure> {
    let bytes = [frames, width, height, 3].into_iter().fold(1, usize::saturating_mul);
    let mut data = Vec::new();
    data.try_reserve_exact(bytes).map_err(|_| {
        let text = format!("not enough memory for {frames} frames of {width}x{height}, {}", gigabytes(bytes as u64));
        Failure::new(Status::Failed, text)
    })?;
    Ok(data)
}

fn bad(text: impl Into<String>) -> Failure {
    Failure::new(Status::InvalidArgument, text)
}

impl View {
    /// Checks a description. The memory itself is looked at later.
    pub fn new(frames: &HostFrames) -> Result<Self, Failure> {
        let channels = match frames.channels {
            0 => Channels::Rgb,
            1 => Channels::Bgr,
            2 => Channels::Rgba,
            3 => Channels::Bgra,
            other => return Err(bad(format!("channels {other}: no such channel order"))),
        };
        let (sample, size) = match frames.sample {
            0 => (Sample::U8, 1),
            1 => (Sample::U16, 2),
            2 => (Sample::F16, 2),
            3 => (Sample::F32, 4),
            other => return Err(bad(format!("sample {other}: no such sample type"))),
        };
        let flag = |name: &str, value: u32, one: u32| match value {
            0 => Ok(false),
            _ if value == one => Ok(true),
            _ => Err(bad(format!("{name} {value}: no such {name}"))),
        };
        let bottom_up = flag("row_order", frames.row_order, RowOrder::BottomUp as u32)?;
        let premultiplied = flag("alpha", frames.alpha, Alpha::Premultiplied as u32)?;
        let linear = flag("transfer", frames.transfer, Transfer::Linear as u32)?;
        for (name, value) in [("width", frames.width), ("height", frames.height)] {
            if value == 0 || value > MAX_SIDE {
                return Err(bad(format!("{name} {value}: must be 1 to {MAX_SIDE}")));
            }
        }
        if frames.count == 0 {
            return Err(bad("count 0: there must be a frame"));
        }
        if frames.data.is_null() && frames.frame_data.is_null() {
            return Err(bad("data and frame_data are both null"));
        }
        let order = Order::of(channels);
        let row = i64::from(frames.width) * (order.count() * size) as i64;
        let row_stride = if frames.row_stride == 0 { row } else { frames.row_stride };
        if row_stride.unsigned_abs() < row.unsigned_abs() {
            return Err(bad(format!("row_stride {row_stride}: a row has {row} bytes")));
        }
        let rows = i64::from(frames.height);
        let frame = i128::from(row_stride.unsigned_abs()) * i128::from(rows);
        let frame_stride = if frames.frame_stride == 0 { frame } else { i128::from(frames.frame_stride) };
        if frame_stride.unsigned_abs() < row as u128 {
            return Err(bad(format!("frame_stride {frame_stride}: a row has {row} bytes")));
        }
        // No offset below may leave what an address can be.
        let span = frame + (frame_stride.abs() * i128::from(frames.count)) + i128::from(row);
        if span > isize::MAX as i128 {
            return Err(bad(format!("strides {row_stride} and {frame_stride}: larger than all memory")));
        }
        Ok(Self {
            data: frames.data.cast(),
            each: frames.frame_data.cast(),
            width: frames.width as usize,
            height: frames.height as usize,
            count: frames.count as usize,
            row_stride: row_stride as isize,
            frame_stride: frame_stride as isize,
            bottom_up,
            order,
            sample,
            premultiplied,
            linear,
        })
    }

    /// How many frames there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The first byte of a frame's row, counted from the top.
    ///
    /// # Safety
    /// The memory must be as described, and `frame` and `y` below count and height.
    unsafe fn row(&self, frame: usize, y: usize) -> Result<*mut u8, Failure> {
        let row = (if self.bottom_up { self.height - 1 - y } else { y }) as isize * self.row_stride;
        let start = if self.each.is_null() {
            // SAFETY: within the memory that the caller vouches for; `new` checked that the offset does not overflow.
            unsafe { self.data.offset(frame as isize * self.frame_stride) }
        } else {
            // SAFETY: the array has a pointer for each frame, as the caller vouches.
            let start = unsafe { self.each.add(frame).read_unaligned() };
            if start.is_null() {
                return Err(bad(format!("frame_data: the pointer of frame {frame} is null")));
            }
            start
        };
        // SAFETY: as above.
        Ok(unsafe { start.offset(row) })
    }

    /// One frame as 8-bit sRGB without alpha.
    ///
    /// # Safety
    /// The memory must be as described, and `index` below the count.
    pub unsafe fn read(&self, index: usize) -> Result<Frames, Failure> {
        let mut data = room(1, self.width, self.height)?;
        let pixel = self.order.count() * self.sample.size();
        // Then the samples are what is wanted already.
        let plain = matches!(self.sample, Sample::U8) && !self.linear && !(self.premultiplied && pixel == 4);
        for y in 0..self.height {
            // SAFETY: the caller's promise; a row has width · pixel bytes.
            let row = unsafe { std::slice::from_raw_parts(self.row(index, y)?, self.width * pixel) };
            for pixel in row.chunks_exact(pixel) {
                if plain {
                    data.extend(self.order.colours.map(|at| pixel[at]));
                } else {
                    data.extend(self.decode(pixel));
                }
            }
        }
        Ok(Frames { width: self.width, height: self.height, data })
    }

    /// The frames that stand for the clip in a run of this size.
    ///
    /// # Safety
    /// The memory must be as described.
    pub unsafe fn sampled(&self, frames: usize, width: usize, height: usize) -> Result<Frames, Failure> {
        let mut sampled = Frames { width, height, data: room(frames, width, height)? };
        for index in sample_indices(self.count, frames) {
            // SAFETY: the caller's promise; sampled indices are below the count.
            let frame = unsafe { self.read(index) }?;
            sampled.data.extend(frame.resize_align_corners(width, height).data);
        }
        Ok(sampled)
    }

    /// Writes frames in the host's way; they must have the size described.
    ///
    /// # Safety
    /// The memory must be as described, and free to write.
    pub unsafe fn write(&self, frames: &Frames) -> Result<(), Failure> {
        let (found, wanted) = ((self.count, self.width, self.height), (frames.count(), frames.width, frames.height));
        if found != wanted {
            return Err(Failure::new(
                Status::BufferSize,
                format!("room for {found:?} frames, columns and rows; there are {wanted:?}"),
            ));
        }
        let pixel = self.order.count() * self.sample.size();
        let table: Vec<Vec<u8>> = (0..=u8::MAX).map(|value| self.encode(value)).collect();
        let opaque = self.sample.bytes(1.0);
        let size = self.sample.size();
        for (index, frame) in frames.iter().enumerate() {
            for (y, source) in frame.chunks_exact(self.width * 3).enumerate() {
                // SAFETY: the caller's promise; a row has width · pixel bytes.
                let row = unsafe { std::slice::from_raw_parts_mut(self.row(index, y)?, self.width * pixel) };
                for (target, colours) in row.chunks_exact_mut(pixel).zip(source.chunks_exact(3)) {
                    for (at, value) in self.order.colours.into_iter().zip(colours) {
                        target[at * size..][..size].copy_from_slice(&table[usize::from(*value)]);
                    }
                    if let Some(at) = self.order.alpha {
                        target[at * size..][..size].copy_from_slice(&opaque);
                    }
                }
            }
        }
        Ok(())
    }

    fn decode(&self, pixel: &[u8]) -> [u8; 3] {
        let size = self.sample.size();
        let value = |at: usize| self.sample.value(&pixel[at * size..][..size]);
        let alpha = self.order.alpha.filter(|_| self.premultiplied).map_or(1.0, value);
        self.order.colours.map(|at| {
            let straight = if alpha > 0.0 { value(at) / alpha } else { 0.0 };
            let encoded = if self.linear { srgb_from_linear(straight) } else { straight };
            // A cast takes what is no number to 0.
            (encoded.clamp(0.0, 1.0) * 255.0).round() as u8
        })
    }

    fn encode(&self, value: u8) -> Vec<u8> {
        let value = f32::from(value) / 255.0;
        self.sample.bytes(if self.linear { linear_from_srgb(value) } else { value })
    }
}

/// How a sample lies in memory.
trait Encoding {
    fn size(self) -> usize;
    /// Its value, 1 being full.
    fn value(self, bytes: &[u8]) -> f32;
    fn bytes(self, value: f32) -> Vec<u8>;
}

impl Encoding for Sample {
    fn size(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U16 | Self::F16 => 2,
            Self::F32 => 4,
        }
    }

    fn value(self, bytes: &[u8]) -> f32 {
        match (self, bytes) {
            (Self::U8, &[a]) => f32::from(a) / 255.0,
            (Self::U16, &[a, b]) => f32::from(u16::from_ne_bytes([a, b])) / 65535.0,
            (Self::F16, &[a, b]) => f16::from_ne_bytes([a, b]).to_f32(),
            (Self::F32, &[a, b, c, d]) => f32::from_ne_bytes([a, b, c, d]),
            _ => 0.0,
        }
    }

    fn bytes(self, value: f32) -> Vec<u8> {
        match self {
            Self::U8 => vec![(value * 255.0).round() as u8],
            Self::U16 => ((value * 65535.0).round() as u16).to_ne_bytes().into(),
            Self::F16 => f16::from_f32(value).to_ne_bytes().into(),
            Self::F32 => value.to_ne_bytes().into(),
        }
    }
}

/// IEC 61966-2-1.
fn srgb_from_linear(value: f32) -> f32 {
    if value <= 0.003_130_8 { value * 12.92 } else { 1.055 * value.powf(1.0 / 2.4) - 0.055 }
}

fn linear_from_srgb(value: f32) -> f32 {
    if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
}
