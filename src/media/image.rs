//! Reading pictures.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageError, ImageReader, Limits};

use super::colour::{Meaning, SRGB};
use super::frames::Frames;
use super::pixels::{Pixels, Samples};
use super::video::Video;
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// An image wider or higher than this is refused, so that a small file cannot claim all memory.
const MAX_SIDE: u32 = 16384;
/// Only so much of a PNG is searched for what it says of its colours, which stands before the pixels.
const PNG_HEAD: u64 = 1 << 20;

/// Extensions of pictures.
const OWN: [&str; 7] = ["png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff"];
/// Extensions of pictures that ffmpeg reads.
const BY_FFMPEG: [&str; 7] = ["exr", "dpx", "tga", "hdr", "jp2", "jxl", "avif"];
/// The formats' names.
pub(super) const FORMATS: &str = "PNG, JPEG, WebP, BMP, TIFF, EXR, DPX, TGA, HDR, JPEG 2000, JPEG XL and AVIF";

/// Whether a file's extension is that of a picture.
pub(super) fn is_picture(path: &Path) -> bool {
    has_extension(path, &OWN) || has_extension(path, &BY_FFMPEG)
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    path.extension().is_some_and(|own| extensions.iter().any(|extension| own.eq_ignore_ascii_case(extension)))
}

impl Frames {
    /// Reads one image file, turned upright and over black where it is transparent: PNG, JPEG, WebP, GIF, BMP and TIFF,
    /// and through ffmpeg EXR, DPX, TGA, Radiance HDR, JPEG 2000, JPEG XL and AVIF.
    ///
    /// # Errors
    /// When the file cannot be read, is no whole image, or has a side above 16384 pixels.
    pub fn open_image(path: &Path) -> Result<Self> {
        Self::open_image_until(path, &Cancel::default())
    }

    /// [`Frames::open_image`], which ends early when the work is cancelled.
    pub(super) fn open_image_until(path: &Path, cancel: &Cancel) -> Result<Self> {
        regular_file(path)?;
        match decoded(path) {
            Ok(image) => Ok(pixels(image).into_frame(meaning(path))),
            Err(ImageError::Unsupported(_)) if has_extension(path, &BY_FFMPEG) => Video::still(path, cancel),
            Err(ImageError::IoError(e)) if e.kind() != std::io::ErrorKind::UnexpectedEof => Err(Error::io(path, e)),
            Err(ImageError::IoError(_)) => {
                Err(Error::input("not a whole image: the file is cut off, or still being written").with_path(path))
            }
            Err(e) => Err(Error::input(format!("not an image that can be read: {e}")).with_path(path)),
        }
    }
}

/// Refuses what is no file: a pipe could be read only once, and might never end.
pub(super) fn regular_file(path: &Path) -> Result<()> {
    let metadata = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
    if metadata.is_file() {
        return Ok(());
    }
    let what = if metadata.is_dir() { "a folder, not a file" } else { "a pipe or device, not a file: write it to one" };
    Err(Error::input(what).with_path(path))
}

fn decoded(path: &Path) -> Result<DynamicImage, ImageError> {
    let mut reader = ImageReader::new(BufReader::new(File::open(path)?)).with_guessed_format()?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    reader.limits(limits);
    let mut decoder = reader.into_decoder()?;
    let orientation = decoder.orientation()?;
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    Ok(image)
}

fn pixels(image: DynamicImage) -> Pixels {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let is_deep = image.color().bytes_per_pixel() / image.color().channel_count() > 1;
    let samples = match (image.color().has_alpha(), is_deep) {
        (false, false) => Samples::Rgb8(image.into_rgb8().into_raw()),
        (true, false) => Samples::Rgba8(image.into_rgba8().into_raw()),
        (false, true) => Samples::Rgb16(image.into_rgb16().into_raw()),
        (true, true) => Samples::Rgba16(image.into_rgba16().into_raw()),
    };
    Pixels { width, height, samples }
}

/// What a PNG's cICP chunk says of its colours; other pictures are sRGB.
fn meaning(path: &Path) -> Meaning {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(PNG_HEAD).read_to_end(&mut head));
    let Some(mut rest) = read.ok().and_then(|_| head.strip_prefix(b"\x89PNG\r\n\x1a\n")) else { return SRGB };
    // A chunk is its length, its name, its data and a checksum.
    while let Some((header, body)) = rest.split_at_checked(8) {
        let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
        match (&header[4..], body) {
            (b"cICP", [primaries, transfer, ..]) => return Meaning::from_code_points(*primaries, *transfer),
            (b"IDAT", _) => break,
            _ => {}
        }
        let Some(next) = length.checked_add(4).and_then(|size| body.get(size..)) else { break };
        rest = next;
    }
    SRGB
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_is_none_names_its_file() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        image::save_buffer(at("whole.png"), &[90; 64 * 64 * 3], 64, 64, image::ExtendedColorType::Rgb8)
            .expect("a picture");
        let whole = std::fs::read(at("whole.png")).expect("a picture");
        std::fs::write(at("cut.png"), &whole[..whole.len() - 30]).expect("a written file");
        std::fs::write(at("empty.png"), "").expect("a written file");
        std::fs::write(at("picture.png"), "text").expect("a written file");
        std::fs::write(at("notes.xyz"), "text").expect("a written file");
        std::fs::create_dir(at("folder.png")).expect("a folder");
        for (name, reason) in [
            ("picture.png", "not an image"),
            ("cut.png", "not a whole image"),
            ("empty.png", "not an image"),
            ("notes.xyz", "not an image"),
            ("folder.png", "a folder, not a file"),
            ("none.png", "no such file or folder"),
        ] {
            let error = Frames::open_image(&at(name)).expect_err(name);
            let text = error.to_string();
            assert!(error.is_input() && text.contains(&format!("{name}: {reason}")), "{text}");
        }
    }

    #[test]
    fn a_cut_out_shows_what_is_seen() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a.png");
        let seen = |hidden: [u8; 3]| {
            let data = [&hidden[..], &[0, 250, 240, 10, 255]].concat();
            image::save_buffer(&path, &data, 2, 1, image::ExtendedColorType::Rgba8).expect("a picture");
            Frames::open_image(&path).expect("a picture").data
        };
        assert_eq!(seen([255, 0, 255]), [0, 0, 0, 250, 240, 10]);
        assert_eq!(seen([255, 255, 255]), [0, 0, 0, 250, 240, 10]);
    }
}
