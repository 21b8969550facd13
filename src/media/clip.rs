//! Reading a reference clip: whatever ffmpeg reads, or a folder of images.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::ffmpeg::{self, Ffmpeg, Running};
use super::frames::Frames;
use super::sampling::sample_indices;
use crate::cancel::Cancel;
use crate::error::{Error, Result};

/// One decoded frame may take at most this many bytes.
const MAX_FRAME_BYTES: usize = 1 << 30;

/// A clip whose frames were counted by decoding it once.
#[derive(Debug)]
pub struct Clip {
    path: PathBuf,
    source: Source,
    /// Frames that really decode.
    pub count: usize,
    /// What ffmpeg complained of although it could go on: a damaged clip.
    pub complaint: Option<String>,
}

#[derive(Debug)]
enum Source {
    /// Width and height as shown, after rotation.
    Video {
        ffmpeg: Ffmpeg,
        width: usize,
        height: usize,
    },
    Images(Vec<PathBuf>),
}

impl Clip {
    /// Opens a clip and counts its frames. Frame counts in file headers are often wrong, so the clip is decoded.
    ///
    /// # Errors
    /// When there is no such file, it has no video, or fewer than two frames: one frame holds no motion; or the
    /// work is cancelled.
    pub fn open(path: &Path, cancel: &Cancel) -> Result<Self> {
        let metadata = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
        let clip = if metadata.is_dir() { Self::from_folder(path)? } else { Self::from_video(path, cancel)? };
        if clip.count < 2 {
            return Err(
                Error::input(format!("{} frame: a clip needs at least 2 to show a motion", clip.count)).with_path(path)
            );
        }
        Ok(clip)
    }

    fn from_folder(path: &Path) -> Result<Self> {
        let mut images = Vec::new();
        for entry in std::fs::read_dir(path).map_err(|e| Error::io(path, e))? {
            let file = entry.map_err(|e| Error::io(path, e))?.path();
            let extension = file.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
            if ["png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff"].contains(&extension.as_str()) {
                images.push(file);
            }
        }
        if images.is_empty() {
            return Err(Error::input("the folder holds no images").with_path(path));
        }
        images.sort();
        Ok(Self { path: path.into(), count: images.len(), source: Source::Images(images), complaint: None })
    }

    fn from_video(path: &Path, cancel: &Cancel) -> Result<Self> {
        let ffmpeg = Ffmpeg::find()?;
        let mut command = ffmpeg.command();
        // 'V' leaves out cover pictures; the checksums are cheap and their list shows frame by frame what decoded.
        command.args(["-protocol_whitelist", "file", "-i"]).arg(ffmpeg::literal(path)).args(["-map", "0:V:0"]);
        command.args(ffmpeg.every_frame()).args(["-f", "framecrc", "-"]).stdout(Stdio::piped());
        let mut running = Running::start(command)?;
        let (mut size, mut count) = (None, 0);
        if let Some(output) = running.child.stdout.take() {
            for line in BufReader::new(output).lines() {
                cancel.check()?;
                let line =
                    line.map_err(|e| Error::failure(format!("ffmpeg's answer was lost: {e}")).with_path(path))?;
                if let Some(text) = line.strip_prefix("#dimensions 0:") {
                    size = text.trim().split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
                } else if !line.starts_with('#') && !line.is_empty() {
                    count += 1;
                }
            }
        }
        let (well, complaint) = running.finish()?;
        cancel.check()?;
        let (width, height): (usize, usize) = match size {
            Some(size) if count > 0 => size,
            _ => {
                let complaint = complaint.unwrap_or_default();
                let reason = if well || complaint.contains("matches no streams") {
                    "there is no video in it".to_string()
                } else if complaint.contains("Invalid data found") || complaint.contains("moov atom not found") {
                    "not a video that ffmpeg can read".to_string()
                } else {
                    format!("not a video that ffmpeg can read: {complaint}")
                };
                return Err(Error::input(reason).with_path(path));
            }
        };
        if width.saturating_mul(height).saturating_mul(3) > MAX_FRAME_BYTES {
            return Err(Error::input(format!("{width}x{height} frames are too large")).with_path(path));
        }
        Ok(Self { path: path.into(), source: Source::Video { ffmpeg, width, height }, count, complaint })
    }

    /// The path given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Evenly chosen frames over the whole clip at the wanted size, resized as they come so that only one is held at
    /// the clip's own size. A clip shorter than `frames` repeats some.
    ///
    /// # Errors
    /// When a frame that could be decoded before cannot be now, or the work is cancelled.
    pub fn sample(&self, frames: usize, width: usize, height: usize, cancel: &Cancel) -> Result<Frames> {
        let indices = sample_indices(self.count, frames);
        let mut wanted = indices.clone();
        wanted.dedup();
        let mut sampled = Frames { width, height, data: Vec::with_capacity(frames * width * height * 3) };
        let mut keep = |index: usize, frame: Frames| {
            let frame = frame.resize_align_corners(width, height);
            indices.iter().filter(|i| **i == index).for_each(|_| sampled.data.extend(&frame.data));
        };
        match &self.source {
            Source::Images(images) => {
                for index in wanted {
                    cancel.check()?;
                    keep(index, Frames::open_image(&images[index])?);
                }
            }
            Source::Video { ffmpeg, width, height } => {
                let mut command = ffmpeg.command();
                let choice: Vec<String> = wanted.iter().map(|index| format!("eq(n\\,{index})")).collect();
                command.args(["-protocol_whitelist", "file", "-i"]).arg(ffmpeg::literal(&self.path));
                command.args(["-map", "0:V:0", "-vf", &format!("select={}", choice.join("+"))]);
                command.args(ffmpeg.every_frame()).args(["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]);
                let mut running = Running::start({
                    command.stdout(Stdio::piped());
                    command
                })?;
                let mut output = running.child.stdout.take().ok_or_else(|| Error::failure("ffmpeg has no output"))?;
                for index in wanted {
                    cancel.check()?;
                    let mut data = vec![0; width * height * 3];
                    if output.read_exact(&mut data).is_err() {
                        cancel.check()?;
                        let complaint = running.finish()?.1.unwrap_or_else(|| "no reason given".into());
                        return Err(Error::input(format!("frame {index} could not be decoded: {complaint}"))
                            .with_path(&self.path));
                    }
                    keep(index, Frames { width: *width, height: *height, data });
                }
            }
        }
        Ok(sampled)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::media::testing::{clips, golden, made, open, read};

    #[test]
    fn what_is_no_clip_is_refused_in_one_line() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("text.mp4"), "no video").expect("a written file");
        fs::write(at("empty.mp4"), "").expect("a written file");
        fs::create_dir(at("nothing")).expect("a folder");
        made(folder.path(), "sound.wav", &["-f", "lavfi", "-i", "sine=d=0.5"]);
        made(folder.path(), "still.mp4", &["-f", "lavfi", "-i", "color=red:s=64x48:r=8", "-frames:v", "1"]);
        let whole = fs::read(made(folder.path(), "whole.mp4", &["-f", "lavfi", "-i", "testsrc=s=64x48:d=2"]));
        fs::write(at("cut.mp4"), &whole.expect("the clip")[..2000]).expect("a written file");
        for (name, reason) in [
            ("missing.mp4", "no such file or folder"),
            ("text.mp4", "not a video that ffmpeg can read"),
            ("empty.mp4", "not a video that ffmpeg can read"),
            ("cut.mp4", "not a video that ffmpeg can read"),
            ("sound.wav", "there is no video in it"),
            ("still.mp4", "1 frame: a clip needs at least 2"),
            ("nothing", "the folder holds no images"),
        ] {
            let error = open(&at(name)).expect_err(name);
            let text = error.to_string();
            assert!(error.is_input() && text.contains(reason) && text.contains(name), "{name}: {text}");
            assert!(!text.contains('\n'), "{name}: {text}");
        }
    }

    #[test]
    fn a_cover_picture_is_no_video() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let cover = made(folder.path(), "cover.png", &["-f", "lavfi", "-i", "color=red:s=32x32", "-frames:v", "1"]);
        let cover = cover.to_string_lossy();
        let sound = ["-f", "lavfi", "-i", "sine=d=0.5", "-i", &cover, "-map", "0:a", "-map", "1:v"];
        let options = [&sound[..], &["-c:v", "copy", "-disposition:v:0", "attached_pic", "-c:a", "flac"]].concat();
        let error = open(&made(folder.path(), "sound.flac", &options)).expect_err("sound alone");
        assert!(error.to_string().contains("there is no video in it"), "{error}");
    }

    #[test]
    fn a_short_clip_repeats_frames() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for shade in 0..3_u8 {
            let path = folder.path().join(format!("{shade}.png"));
            image::save_buffer(path, &[shade; 32 * 32 * 3], 32, 32, image::ExtendedColorType::Rgb8).expect("a picture");
        }
        let sampled = read(folder.path(), 5, 32, 32).expect("frames");
        assert_eq!(sampled.iter().map(|frame| frame[0]).collect::<Vec<_>>(), [0, 0, 1, 1, 2]);
    }

    #[test]
    fn names_are_taken_literally() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["-y%03d.mp4", "concat:a|b.mp4", "it's 100%, [ok].mp4"] {
            let path = folder.path().join(name);
            let plain = made(folder.path(), "plain.mp4", &["-f", "lavfi", "-i", "testsrc=s=32x32:d=0.5:r=8"]);
            fs::rename(plain, &path).expect(name);
            assert_eq!(open(&path).expect(name).count, 4, "{name}");
        }
    }

    #[test]
    fn rotated_clips_are_read_upright() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let plain = made(folder.path(), "plain.mp4", &["-f", "lavfi", "-i", "testsrc=s=64x32:d=0.5:r=8"]);
        let plain = plain.to_string_lossy();
        let options = ["-display_rotation", "90", "-i", &plain, "-c", "copy"];
        let ffmpeg = Ffmpeg::find().expect("ffmpeg");
        if ffmpeg.version.starts_with("4.") || ffmpeg.version.starts_with("5.") {
            println!("skipped: this ffmpeg cannot write a rotation");
            return;
        }
        let clip = open(&made(folder.path(), "turned.mp4", &options)).expect("a clip");
        assert!(matches!(clip.source, Source::Video { width: 32, height: 64, .. }), "{clip:?}");
    }

    /// One tensor of a recorded case.
    fn recorded(case: &str, tensor: &str) -> (Vec<usize>, Vec<u8>) {
        let file = fs::read(golden(&format!("cases/{case}.safetensors"))).expect("a recorded case");
        let tensors = safetensors::SafeTensors::deserialize(&file).expect("safetensors");
        let view = tensors.tensor(tensor).expect(tensor);
        (view.shape().to_vec(), view.data().to_vec())
    }

    #[test]
    fn frames_equal_the_recorded_ones() {
        let Some(folder) = clips() else { return };
        let sampled = read(&folder.join("camera_zoom_in.mp4"), 8, 128, 128).expect("frames");
        let (shape, planes) = recorded("t2v", "reference_frames");
        assert_eq!(shape, [8, 3, 128, 128]);
        let near = (0..planes.len())
            .filter(|i| {
                let (frame, channel, pixel) = (i / (3 * 128 * 128), i / (128 * 128) % 3, i % (128 * 128));
                sampled.frame(frame)[pixel * 3 + channel].abs_diff(planes[*i]) <= 1
            })
            .count();
        let share = near as f64 / planes.len() as f64;
        println!("{:.4} % of samples within 1 of 255", share * 100.0);
        assert!(share >= 0.999);
    }

    /// The sketch lies beside the clips' folder or in it.
    #[test]
    fn sketches_equal_the_recorded_ones() {
        let Some(folder) = clips() else { return };
        let name = "condition_images/lion_forest.png";
        let places = [folder.join(name), folder.with_file_name(name)];
        let Some(path) = places.iter().find(|path| path.is_file()) else {
            println!("skipped: no {name} in or beside MOTIONCLONE_CLIPS");
            return;
        };
        let image = Frames::open_image(path).expect("an image").resize_antialiased(128, 128);
        let (shape, bytes) = recorded("i2v_sketch", "control.images");
        assert_eq!(shape, [1, 3, 1, 128, 128]);
        let (mut distance, mut norm) = (0.0, 0.0);
        for (i, value) in bytes.chunks_exact(4).enumerate() {
            let expected = f64::from(f32::from_le_bytes([value[0], value[1], value[2], value[3]]));
            let got = f64::from(image.data[i % (128 * 128) * 3 + i / (128 * 128)]) / 255.0;
            (distance, norm) = (distance + (got - expected).powi(2), norm + expected.powi(2));
        }
        let error = (distance / norm).sqrt();
        println!("relative error {error:.2e}");
        assert!(error < 1e-2);
    }
}
