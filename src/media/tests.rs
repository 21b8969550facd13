//! Clips as people bring them, made by ffmpeg: times, parts, tracks, fields and colours.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::clip::Clip;
use super::ffmpeg::Ffmpeg;
use super::frames::Frames;
use super::sampling::{Sampling, Selection};
use super::testing::{made, open, read};
use crate::cancel::Cancel;
use crate::error::Result;

/// Frame N of a clip of 32 frames at 8 a second has the grey 8 N.
const COUNTER: [&str; 6] =
    ["-f", "lavfi", "-i", "color=black:s=32x32:r=8:d=4,format=gray,geq=lum=8*N", "-pix_fmt", "gray"];

fn part(path: &Path, start: Option<&str>, end: Option<&str>) -> Result<Clip> {
    let moment = |text: Option<&str>| text.map(|text| text.parse().expect("a moment"));
    let selection = Selection { start: moment(start), end: moment(end), sampling: Sampling::Time };
    Clip::open(path, &selection, &mut |_| (), &Cancel::default())
}

/// The greys of so many frames, read at the size of 4x4 pixels.
fn greys(clip: &mut Clip, frames: usize) -> Vec<u8> {
    let sampled = clip.sample(frames, 4, 4, &mut |_| (), &Cancel::default()).expect("frames");
    sampled.iter().map(|frame| frame[4 * 3]).collect()
}

fn near(got: &[u8], expected: &[u8]) -> bool {
    got.len() == expected.len() && got.iter().zip(expected).all(|(a, b)| a.abs_diff(*b) <= 3)
}

#[test]
fn frames_lie_evenly_in_time() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // 50 frames in the first second, then one a second; the grey is 25 times the second.
    let times = "if(lt(N\\,50)\\,N/50\\,N-49)";
    let filter = format!("settb=1/1000,setpts='({times})*1000',geq=lum='25*({times})'");
    for name in ["vfr.mkv", "vfr.mp4", "vfr.gif"] {
        let source = "color=black:s=32x32:r=25:d=2.4,format=gray";
        let passthrough = Ffmpeg::find().expect("ffmpeg").every_frame();
        let codec: &[&str] = if name.ends_with("gif") { &[] } else { &["-c:v", "ffv1"] };
        let codec = if name.ends_with("mp4") { &["-c:v", "png", "-pix_fmt", "rgb24"] } else { codec };
        let options = [&["-f", "lavfi", "-i", source, "-vf", &filter], &passthrough[..], codec];
        let options = [&options.concat()[..], &["-enc_time_base", "1:1000"]].concat();
        let mut clip = open(&made(folder.path(), name, &options)).expect(name);
        assert_eq!(clip.count(), 60, "{name}");
        let got = greys(&mut clip, 4);
        assert!(near(&got, &[0, 75, 150, 250]), "{name}: {got:?}");
        assert!(clip.warnings.iter().any(|warning| warning.contains("3.3 s apart")), "{:?}", clip.warnings);
    }
}

#[test]
fn a_part_is_read() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let counter = made(folder.path(), "counter.mkv", &[&COUNTER[..], &["-c:v", "ffv1"]].concat());
    for (start, end, expected) in [
        (None, None, [0, 80, 160, 248]),
        (Some("1"), None, [64, 120, 184, 248]),
        (Some("1"), Some("2"), [64, 80, 96, 120]),
        (Some("00:00:01:02"), Some("0:02.25"), [80, 96, 112, 136]),
        (None, Some("2"), [0, 40, 80, 120]),
    ] {
        let got = greys(&mut part(&counter, start, end).expect("a part"), 4);
        assert!(near(&got, &expected), "{start:?} {end:?}: {got:?}");
    }
    for (start, end, reason) in [
        (Some("9"), None, "begins at 9 s, the clip's last frame is at 3.875 s"),
        (Some("3"), Some("2"), "before it begins"),
        (Some("2"), Some("2.1"), "1 frame in this part"),
    ] {
        let error = part(&counter, start, end).expect_err(reason);
        assert!(error.is_input() && error.to_string().contains(reason), "{error}");
    }
}

#[test]
fn far_frames_are_sought_and_the_same() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = "testsrc2=s=64x48:r=25:d=60";
    let long = made(folder.path(), "long.mp4", &["-f", "lavfi", "-i", source, "-g", "100", "-pix_fmt", "yuv420p"]);
    let whole = read(&long, 4, 64, 48).expect("frames");
    let published = Selection { sampling: Sampling::Published, ..Selection::default() };
    let mut clip = Clip::open(&long, &published, &mut |_| (), &Cancel::default()).expect("a clip");
    let expected = clip.sample(4, 64, 48, &mut |_| (), &Cancel::default()).expect("frames");
    assert!(whole == expected, "sought frames are those decoded in a row");
    let tail = part(&long, Some("50"), None).expect("a part").sample(4, 64, 48, &mut |_| (), &Cancel::default());
    assert_eq!(tail.expect("frames").frame(3), expected.frame(3));
}

/// What an edit list cuts off does not count, whatever the file's own list of frames says.
#[test]
fn edit_lists_are_kept() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = "testsrc2=s=64x48:r=25:d=4";
    let whole = made(folder.path(), "whole.mp4", &["-f", "lavfi", "-i", source, "-g", "25", "-pix_fmt", "yuv420p"]);
    let whole = whole.to_string_lossy();
    let cut = made(folder.path(), "cut.mp4", &["-ss", "1.32", "-i", &whole, "-c", "copy"]);
    let published = Selection { sampling: Sampling::Published, ..Selection::default() };
    let mut decoded = Clip::open(&cut, &published, &mut |_| (), &Cancel::default()).expect("a clip");
    let mut clip = open(&cut).expect("a clip");
    let sample = |clip: &mut Clip| clip.sample(5, 64, 48, &mut |_| (), &Cancel::default()).expect("frames");
    assert!(sample(&mut clip) == sample(&mut decoded));
    assert_eq!(clip.count(), decoded.count());
}

#[test]
fn other_containers_and_changing_sizes_are_read() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, codec) in [("a.m2v", "mpeg2video"), ("a.mpg", "mpeg2video"), ("a.ts", "mpeg2video"), ("a.avi", "mpeg4")]
    {
        let source = "testsrc2=s=64x48:r=25:d=1";
        let options = ["-f", "lavfi", "-i", source, "-c:v", codec, "-bf", "2", "-q:v", "2", "-output_ts_offset", "7"];
        let path = made(folder.path(), name, &options);
        assert_eq!(open(&path).expect(name).count(), 25, "{name}");
        assert_eq!(read(&path, 4, 16, 16).expect(name).count(), 4, "{name}");
    }
    // Two sizes in one stream: every frame is brought to the wanted one.
    let parts = [("32x32", "8"), ("64x48", "200")].map(|(size, grey)| {
        let source = format!("color=0x{grey:0>2}{grey:0>2}{grey:0>2}:s={size}:r=8:d=1");
        let source = source.replace("0x200200200", "0xc8c8c8").replace("0x080808", "black");
        fs::read(made(
            folder.path(),
            "part.m2v",
            &["-f", "lavfi", "-i", &source, "-c:v", "mpeg2video", "-q:v", "1", "-r", "25"],
        ))
        .expect("a part")
    });
    let both = folder.path().join("both.m2v");
    fs::write(&both, parts.concat()).expect("a written file");
    let got = greys(&mut open(&both).expect("a clip"), 4);
    assert!(got[0] < 20 && got[3] > 180, "{got:?}");
}

#[test]
fn the_track_that_players_show_is_read() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let counter = made(folder.path(), "counter.mkv", &[&COUNTER[..], &["-c:v", "ffv1"]].concat());
    let counter = counter.to_string_lossy();
    let inputs = ["-f", "lavfi", "-i", "color=red:s=16x16:r=8:d=4", "-i", &counter, "-map", "0:v", "-map", "1:v"];
    let options = ["-c:v", "ffv1", "-disposition:v:0", "0", "-disposition:v:1", "default"];
    let mut clip = open(&made(folder.path(), "two.mkv", &[&inputs[..], &options].concat())).expect("a clip");
    assert!(near(&greys(&mut clip, 4), &[0, 80, 160, 248]));
}

#[test]
fn fields_are_deinterlaced() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let bar = "if(between(X\\,N*5\\,N*5+8)\\,255\\,0)";
    let source = format!("color=black:s=96x64:r=16:d=1,format=gray,geq=lum={bar}");
    let options = ["-f", "lavfi", "-i", &source, "-vf", "tinterlace=interleave_top,setfield=tff"];
    let codec = ["-flags", "+ildct+ilme", "-c:v", "mpeg2video", "-q:v", "1", "-pix_fmt", "yuv420p"];
    let path = made(folder.path(), "i.mpg", &[&options[..], &codec].concat());
    let mut clip = open(&path).expect("a clip");
    assert!(clip.notes.iter().any(|note| note.contains("deinterlaced")), "{:?}", clip.notes);
    let sampled = clip.sample(4, 96, 64, &mut |_| (), &Cancel::default()).expect("frames");
    for frame in sampled.iter() {
        let at = |x: usize, y: usize| i32::from(frame[(y * 96 + x) * 3]);
        let rows = |apart: usize| -> i32 {
            (0..96).map(|x| (10..50).map(|y| (at(x, y) - at(x, y + apart)).abs()).sum::<i32>() / 40).max().unwrap_or(0)
        };
        assert!(rows(1) - rows(2) < 40, "combs: neighbouring rows differ by {}, every other by {}", rows(1), rows(2));
    }
}

#[test]
fn what_is_transparent_is_not_seen() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = "color=0xff00ff:s=32x32:r=8:d=1,format=rgba,geq=r=255:g=0:b=255:a=if(lt(X\\,16)\\,0\\,255)";
    for (name, codec) in [("a.mov", "qtrle"), ("a.mkv", "ffv1"), ("b.mov", "png")] {
        let format = if codec == "qtrle" { "argb" } else { "rgba" };
        let format = if codec == "ffv1" { "bgra" } else { format };
        let path = made(folder.path(), name, &["-f", "lavfi", "-i", source, "-c:v", codec, "-pix_fmt", format]);
        let frames = read(&path, 2, 32, 32).expect(name);
        assert_eq!(
            (&frames.frame(0)[..3], &frames.frame(0)[31 * 3..][..3]),
            (&[0, 0, 0][..], &[255, 0, 255][..]),
            "{name}"
        );
    }
}

/// Formats that ffmpeg reads, as pictures and as sequences.
#[test]
fn renders_are_read() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, format) in [("a%d.tga", "bgr24"), ("a%d.dpx", "gbrp10le"), ("a%d.exr", "gbrpf32le")] {
        let place = folder.path().join(name.rsplit('.').next().expect("an extension"));
        fs::create_dir(&place).expect("a folder");
        let source = "color=0xc86432:s=16x16:r=8:d=0.5";
        made(&place, name, &["-f", "lavfi", "-i", source, "-pix_fmt", format]);
        let frames = read(&place, 4, 16, 16).expect(name);
        let got = &frames.frame(3)[..3];
        if name.ends_with("exr") {
            // The same numbers, taken for light.
            let expected = [200.0, 100.0, 50.0_f64].map(|v: f64| (1.055 * (v / 255.0).powf(1.0 / 2.4) - 0.055) * 255.0);
            assert!(got.iter().zip(expected).all(|(a, b)| (f64::from(*a) - b).abs() < 1.5), "{got:?} {expected:?}");
        } else {
            assert!(near(got, &[200, 100, 50]), "{name}: {got:?}");
        }
    }
    let plain = folder.path().join("100%d.tga");
    fs::copy(folder.path().join("tga/a1.tga"), &plain).expect("a copy");
    assert_eq!(Frames::open_image(&plain).expect("a picture").width, 16);
}

#[test]
fn a_pipe_is_refused_at_once() {
    #[cfg(unix)]
    {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let pipe = folder.path().join("pipe.mkv");
        assert!(Command::new("mkfifo").arg(&pipe).stdin(Stdio::null()).status().expect("mkfifo").success());
        let error = open(&pipe).expect_err("a pipe");
        assert!(error.is_input() && error.to_string().contains("a pipe or device, not a file"), "{error}");
        assert!(Frames::open_image(&pipe).expect_err("a pipe").is_input());
    }
}

#[test]
fn reading_is_cancelled_at_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = "testsrc2=s=1280x720:r=25:d=20";
    let long = made(folder.path(), "long.mp4", &["-f", "lavfi", "-i", source, "-preset", "ultrafast"]);
    let cancel = Cancel::default();
    let mut clip = Clip::open(&long, &Selection::default(), &mut |_| (), &cancel).expect("a clip");
    let stopper = cancel.clone();
    let begun = std::time::Instant::now();
    let waits = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(30));
        stopper.cancel();
    });
    let error = clip.sample(400, 64, 64, &mut |_| (), &cancel).expect_err("cancelled");
    waits.join().expect("a thread");
    assert!(error.is_cancelled(), "{error}");
    println!("ended after {:?}", begun.elapsed());
}
