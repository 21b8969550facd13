//! Opening and sampling clips.

use std::fs;

use super::*;
use crate::media::ffmpeg::Ffmpeg;
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
        assert_eq!(open(&path).expect(name).count(), 4, "{name}");
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
    let turned = made(folder.path(), "turned.mp4", &options);
    let video = Video::open(&turned, &Cancel::default()).expect("a clip");
    let mut sizes = Vec::new();
    let mut keep = |frame: Frames| sizes.push((frame.width, frame.height));
    video.decode(&[Pick::Number(0)], false, &mut keep, &mut |_| (), &Cancel::default()).expect("a frame");
    assert_eq!(sizes, [(32, 64)]);
}

/// One tensor of a recorded case.
fn recorded(case: &str, tensor: &str) -> (Vec<usize>, Vec<u8>) {
    let file = fs::read(golden(&format!("cases/{case}.safetensors"))).expect("a recorded case");
    let tensors = safetensors::SafeTensors::deserialize(&file).expect("safetensors");
    let view = tensors.tensor(tensor).expect(tensor);
    (view.shape().to_vec(), view.data().to_vec())
}

/// What the published way reads is ffmpeg's own conversion of the frames that numpy's linspace numbers; by time, the
/// same frames are read, and the same bytes of clips that do not name their colours.
#[test]
fn the_published_way_reads_as_ever() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = ["-f", "lavfi", "-i", "testsrc2=s=64x48:r=30000/1001:d=1.5", "-pix_fmt", "yuv420p"];
    let mut paths = vec![made(folder.path(), "plain.mp4", &options), made(folder.path(), "plain.mkv", &options)];
    let shared = clips().map(|clips| fs::read_dir(clips).expect("clips"));
    paths.extend(shared.into_iter().flatten().map(|entry| entry.expect("an entry").path()));
    for path in paths.iter().filter(|path| path.extension().is_some_and(|e| e == "mp4" || e == "mkv")) {
        let cancel = Cancel::default();
        let mut published = Clip::open(
            path,
            &Selection { sampling: Sampling::Published, ..Selection::default() },
            &mut |_| (),
            &cancel,
        )
        .expect("a clip");
        let mut timed = open(path).expect("a clip");
        assert_eq!(timed.count(), published.count(), "{}", path.display());
        for frames in [2, 8, 16] {
            let expected = sample_indices(published.count(), frames);
            assert_eq!(published.indices(frames), expected);
            assert_eq!(timed.indices(frames), expected, "{}", path.display());
        }
        let Source::Video(video, _) = &timed.source else { panic!("a video") };
        let (width, height) = (video.track.width, video.track.height);
        let is_plain = video.track.colour.matrix == "unknown" && video.reading.guessed_matrix.is_none();
        let read = published.sample(4, width, height, &mut |_| (), &cancel).expect("frames");
        let ffmpeg = Ffmpeg::find().expect("ffmpeg");
        let choice: Vec<String> =
            sample_indices(published.count(), 4).iter().map(|index| format!("eq(n\\,{index})")).collect();
        let direct = std::process::Command::new(&ffmpeg.path)
            .args(["-v", "error", "-i"])
            .arg(path)
            .args(["-map", "0:V:0", "-vf", &format!("select={}", choice.join("+"))])
            .args(ffmpeg.every_frame())
            .args(["-f", "rawvideo", "-pix_fmt", "rgb24", "-"])
            .output()
            .expect("ffmpeg");
        assert!(read.data == direct.stdout, "{}", path.display());
        if is_plain {
            let read = timed.sample(4, width, height, &mut |_| (), &cancel).expect("frames");
            assert!(read.data == direct.stdout, "{} by time", path.display());
        }
    }
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
