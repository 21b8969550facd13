//! What becomes of results and messages when something goes wrong beside the work itself.

use std::fs;
use std::process::Stdio;

mod place;
use place::{Place, QUICK, STEPS, bundle, words};

/// Every line is an event, the last one says how it ended.
fn events(output: &str) -> Vec<serde_json::Value> {
    output.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

#[test]
fn progress_is_told_as_json() {
    let place = Place::new();
    place.clip("clip.mp4", 12);
    let line = format!("clone {QUICK} {STEPS} --reference clip.mp4 --prompt ground --progress json");
    let answer = place.succeeds(&format!("{line} --out a.gif --contact-sheet a.png"));
    assert_eq!(answer.errors, "");
    let events = events(&answer.output);
    let of = |kind: &str| events.iter().filter(|event| event["event"] == kind).collect::<Vec<_>>();
    assert_eq!((events[0]["event"].as_str(), events[0]["command"].as_str()), (Some("started"), Some("clone")));
    assert_eq!(events.last().map(|event| event["event"].as_str()), Some(Some("done")));
    let denoised: Vec<_> = of("progress").into_iter().filter(|event| event["stage"] == "denoise").collect();
    assert_eq!(denoised.len(), 2, "{}", answer.output);
    assert!(denoised[0]["loss"].is_f64() && denoised[1].get("loss").is_none(), "only the first step is guided");
    assert!(denoised.iter().all(|event| event["total"] == 2 && event["unit"] == "step"));
    let written: Vec<_> = of("written").iter().map(|event| event["path"].as_str().unwrap().to_string()).collect();
    assert_eq!(written, ["a.gif", "a.png"]);

    for (line, reason) in [
        (format!("{line} --out a.avi"), "a.avi"),
        (format!("{line} --out a.gif --steps many"), "--steps"),
        (line.clone(), "--out"),
    ] {
        let answer = place.run(&words(&line));
        let last = self::events(&answer.output).pop().unwrap_or_default();
        assert_eq!((last["event"].as_str(), last["class"].as_str()), (Some("error"), Some("input")), "{line}: {last}");
        assert_eq!(answer.code, Some(2));
        assert!(last["message"].as_str().is_some_and(|text| text.contains(reason)), "{line}: {last}");
    }
}

/// Nobody reads what the program says: the work goes on all the same.
#[cfg(unix)]
#[test]
fn a_log_that_nobody_reads_ends_no_work() {
    let place = Place::new();
    place.clip("clip.mp4", 12);
    for (name, progress) in [("a.gif", "text"), ("b.gif", "json")] {
        let line = format!("clone {QUICK} {STEPS} --reference clip.mp4 --prompt p --progress {progress} --out {name}");
        let mut child = place.command(&words(&line)).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        drop((child.stderr.take(), child.stdout.take()));
        assert_eq!(child.wait().unwrap().code(), Some(0), "{progress}");
        assert!(place.at(name).is_file());
    }
    for line in ["doctor", "clone --help", "clone --nonsense"] {
        let mut child = place.command(&words(line)).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        drop((child.stderr.take(), child.stdout.take()));
        let expected = if line.ends_with("nonsense") { 2 } else { 0 };
        assert_eq!(child.wait().unwrap().code(), Some(expected), "{line}");
    }
    #[cfg(target_os = "linux")]
    {
        let full = || fs::File::options().write(true).open("/dev/full").unwrap();
        let line = format!("clone {QUICK} {STEPS} --reference clip.mp4 --prompt p --out c.gif");
        let answer = place.command(&words(&line)).stderr(full()).stdout(full()).status().unwrap();
        assert_eq!(answer.code(), Some(0), "a full disk under the log");
        assert!(place.at("c.gif").is_file());
        // Its words are its result.
        assert_ne!(place.command(&["doctor"]).stdout(full()).status().unwrap().code(), Some(0));
    }
}

/// Every name of an input is refused as a result's place before any work, and the input stays as it is.
#[test]
fn results_never_replace_inputs() {
    let place = Place::new();
    let clip = fs::read(place.clip("clip.mp4", 12)).unwrap();
    fs::create_dir(place.at("shot")).unwrap();
    place.made(
        "shot/frame_%04d.png",
        &["-f", "lavfi", "-i", "testsrc=s=96x64:r=8", "-frames:v", "6", "-start_number", "0"],
    );
    place.made("picture.png", &["-f", "lavfi", "-i", "testsrc2=s=80x60", "-frames:v", "1"]);
    fs::hard_link(place.at("clip.mp4"), place.at("hard.mp4")).unwrap();
    place.succeeds(&format!("extract {QUICK} --reference clip.mp4 --out m.safetensors"));
    let clone = format!("clone {QUICK} --prompt p");
    let stays = "stays as it is";
    for line in [
        "--reference clip.mp4 --out clip.mp4",
        "--reference clip.mp4 --out ./shot/../clip.mp4",
        "--reference clip.mp4 --out hard.mp4",
        "--reference clip.mp4 --out a.mp4 --contact-sheet picture.png --image picture.png",
        "--reference clip.mp4 --out .",
        "--reference shot --out shot",
        "--reference shot --out shot/",
        "--reference shot --out a.mp4 --contact-sheet shot/frame_0002.png",
        "--reference shot --out shot/a.webp",
        "--reference clip.mp4 --out BUNDLE/frames",
        "--reference clip.mp4 --out BUNDLE",
    ] {
        place.refuses(&format!("{clone} {line}"), stays);
    }
    for line in [
        format!("extract {QUICK} --reference clip.mp4 --out BUNDLE/weights.safetensors"),
        "export --bundle BUNDLE --size 64x64 --frames 4 --out BUNDLE".into(),
    ] {
        place.refuses(&line, stays);
    }
    for (line, reason) in [
        ("--out a.mp4 --out a.mp4", "is given twice"),
        ("--out a.mp4 --out ./A.mp4", "is given twice"),
        ("--out frames --out frames/a.mp4", "lies in another result"),
        ("--out .mp4", "an extension without a name"),
        ("--out /", ""),
    ] {
        place.refuses(&format!("{clone} --reference clip.mp4 {line}"), reason);
    }
    let home = place.at("home");
    fs::create_dir(&home).unwrap();
    let line = words(&format!("{clone} --reference clip.mp4 --out home"));
    let answer = place.command(&line).env("HOME", &home).output().unwrap();
    assert_eq!(answer.status.code(), Some(2), "an empty home folder");
    #[cfg(unix)]
    {
        use std::os::unix::fs::{PermissionsExt, symlink};
        symlink("clip.mp4", place.at("soft.mp4")).unwrap();
        symlink("nowhere/a.mp4", place.at("dangling.mp4")).unwrap();
        place.refuses(&format!("{clone} --reference clip.mp4 --out soft.mp4"), stays);
        place.refuses(&format!("{clone} --reference soft.mp4 --out clip.mp4"), stays);
        place.refuses(&format!("{clone} --reference clip.mp4 --out dangling.mp4"), "dangling.mp4: cannot be written");
        fs::write(place.at("locked.mp4"), "mine").unwrap();
        fs::set_permissions(place.at("locked.mp4"), fs::Permissions::from_mode(0o444)).unwrap();
        place.refuses(&format!("{clone} --reference clip.mp4 --out locked.mp4"), "write-protected");
        let pipe = std::process::Command::new("mkfifo").arg(place.at("pipe.mp4")).status().unwrap();
        assert!(pipe.success());
        place.refuses(&format!("{clone} --reference clip.mp4 --out pipe.mp4"), "a device or pipe");
    }
    let line = format!("clone {QUICK} {STEPS} --reference clip.mp4 --prompt p");
    let mut command = place.command(&words(&format!("{line} --out a.mp4")));
    assert_eq!(command.env("MOTIONCLONE_CACHE", bundle()).status().unwrap().code(), Some(2), "a cache in the model");
    assert!(fs::read(place.at("clip.mp4")).unwrap() == clip);
}

#[test]
fn folders_are_replaced_only_when_all_in_them_is_ours() {
    let place = Place::new();
    place.clip("clip.mp4", 12);
    let line = format!("clone {QUICK} {STEPS} --reference clip.mp4 --prompt p");
    // An empty folder is filled, also under another name; what was written is replaced.
    fs::create_dir(place.at("frames")).unwrap();
    place.succeeds(&format!("{line} --out frames"));
    let first = place.files();
    place.succeeds(&format!("{line} --out ./frames/ --seed 7"));
    assert_eq!(place.files().len(), first.len() + 1, "one kept motion more");
    // Names as ours prove nothing.
    fs::create_dir(place.at("mine")).unwrap();
    fs::copy(place.at("frames/frame_0001.png"), place.at("mine/frame_0001.png")).unwrap();
    place.refuses(&format!("{line} --out mine"), "mine: holds other files, such as 'frame_0001.png'");
    fs::write(place.at("frames/frame_0002.png"), "painted over").unwrap();
    place.refuses(&format!("{line} --out frames"), "'frame_0002.png', which was changed");
    fs::write(place.at("frames/notes.txt"), "mine").unwrap();
    place.refuses(&format!("{line} --out frames"), "frames: holds");
    place.refuses("export --bundle BUNDLE --size 64x64 --frames 4 --out frames", "frames: holds");
    let checkpoints = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/checkpoints");
    let import = format!("import --base {} --out frames", checkpoints.join("StableDiffusion").display());
    place.refuses(&import, "frames: holds");
}

/// An ffmpeg without an encoder, or whose encoder fails, stands on the real one.
#[cfg(unix)]
fn ffmpeg_that(place: &Place, name: &str, does: &str) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let real = std::env::var("MOTIONCLONE_FFMPEG").unwrap_or_else(|_| "ffmpeg".into());
    let path = place.at(name);
    fs::write(&path, format!("#!/bin/sh\nreal='{real}'\n{does}\nexec \"$real\" \"$@\"\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// What `does` does to the encoder of .mp4 in a fake of an ffmpeg built without it.
#[cfg(unix)]
const WITHOUT_X264: &str = "for a in \"$@\"; do case \"$a\" in
    libx264) cat >/dev/null; echo \"[error] Unknown encoder 'libx264'\" >&2; exit 1;;
    -encoders) \"$real\" \"$@\" | grep -v libx264; exit;;
esac; done";

#[cfg(unix)]
#[test]
fn a_missing_encoder_is_found_before_the_work() {
    let place = Place::new();
    place.clip("clip.mp4", 12);
    let ffmpeg = ffmpeg_that(&place, "ffmpeg", WITHOUT_X264);
    let line = words(&format!("clone {QUICK} --steps 1000 --reference clip.mp4 --prompt p --out a.mp4"));
    let answer = place.command(&line).env("MOTIONCLONE_FFMPEG", ffmpeg).output().unwrap();
    let text = String::from_utf8(answer.stderr).unwrap();
    assert_eq!(answer.status.code(), Some(2), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    for part in ["no encoder libx264", "MOTIONCLONE_FFMPEG", ".webm, .gif, .webp", "a folder"] {
        assert!(text.contains(part), "'{part}' in {text}");
    }
}

/// The encoder fails on the finished clip: its frames are kept, other results are written, the exit code says failure.
#[cfg(unix)]
#[test]
fn a_finished_clip_is_never_lost() {
    let place = Place::new();
    place.clip("clip.mp4", 12);
    // The first call with libx264 is the trial.
    let does = "for a in \"$@\"; do [ \"$a\" = libx264 ] && { [ -e tried ] && { kill -9 $$; }; : > tried; }; done";
    let ffmpeg = ffmpeg_that(&place, "ffmpeg", does);
    let line =
        format!("clone {QUICK} {STEPS} --reference clip.mp4 --prompt p --contact-sheet s.png --out a.mp4 --out b.gif");
    let answer = place.command(&words(&line)).env("MOTIONCLONE_FFMPEG", &ffmpeg).output().unwrap();
    let text = String::from_utf8(answer.stderr).unwrap();
    assert_eq!(answer.status.code(), Some(1), "{text}");
    assert!(text.lines().last().is_some_and(|line| line.starts_with("error: a.mp4: cannot be written")), "{text}");
    assert!(text.contains("kept as PNG files in a_frames") || text.contains("a_frames"), "{text}");
    assert!(!place.at("a.mp4").exists() && place.at("b.gif").is_file() && place.at("s.png").is_file());
    assert!((0..4).all(|i| place.at(&format!("a_frames/frame_000{i}.png")).is_file()), "{text}");
    assert_eq!(fs::read_dir(place.at("a_frames")).unwrap().count(), 5);

    // In a list the other clips are made all the same.
    let yaml = "inference_steps: 2\nguidance_steps: 1\nwarm_up_steps: 0\ncool_up_steps: 0\nW: 64\nH: 64\nL: 4\n";
    fs::write(place.at("run.yaml"), yaml).unwrap();
    let list = ["one", "two"].map(|p| format!("{{\"video_path\": \"clip.mp4\", \"new_prompt\": \"{p}\"}}\n")).concat();
    fs::write(place.at("list.jsonl"), list).unwrap();
    let does = "for a in \"$@\"; do case \"$a\" in file:*clip_one*) kill -9 $$;; esac; done";
    let ffmpeg = ffmpeg_that(
        &place,
        "ffmpeg2",
        &format!("[ -e tried2 ] && {{ {does}; }}; for a in \"$@\"; do [ \"$a\" = libx264 ] && : > tried2; done"),
    );
    let line = "run --bundle BUNDLE --device cpu --inference-config run.yaml --examples list.jsonl --out out";
    let answer = place.command(&words(line)).env("MOTIONCLONE_FFMPEG", &ffmpeg).output().unwrap();
    let text = String::from_utf8(answer.stderr).unwrap();
    assert_eq!(answer.status.code(), Some(1), "{text}");
    assert!(text.contains("1 of 2 clips failed"), "{text}");
    assert!(place.at("out/clip_two_2025.mp4").is_file() && place.at("out/clip_one_2025_frames").is_dir(), "{text}");
}

/// TERM and HUP end an import as Ctrl-C does; what a killed one leaves goes with the next.
#[cfg(unix)]
#[test]
fn an_ended_import_leaves_nothing() {
    use std::io::{BufRead, BufReader};
    let place = Place::new();
    let checkpoints = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/checkpoints");
    let base = checkpoints.join("StableDiffusion");
    let module = checkpoints.join("v3_sd15_mm.ckpt");
    let line = format!("import --base {} --motion-module {} --out bundle", base.display(), module.display());
    let before = place.files();
    let line = format!("{line} --progress json");
    for signal in ["TERM", "HUP", "KILL"] {
        let mut child = place.command(&words(&line)).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        lines.find(|line| line.as_ref().unwrap().contains("progress"));
        let sent = std::process::Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status();
        assert!(sent.unwrap().success());
        // Whether it was done already or not, there is no half of a bundle.
        let status = child.wait().unwrap();
        let rest: Vec<String> = lines.map_while(Result::ok).collect();
        match (signal, status.success()) {
            (_, true) => fs::remove_dir_all(place.at("bundle")).unwrap(),
            ("KILL", false) => {}
            (_, false) => {
                assert_eq!(status.code(), Some(130), "{signal}: {rest:?}");
                assert_eq!(place.files(), before, "{signal}");
            }
        }
    }
    place.succeeds(&line);
    let names: Vec<_> = fs::read_dir(place.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().starts_with('.')), "{names:?}");
    assert!(place.at("bundle/manifest.json").is_file());
}

/// A size that cannot fit into the memory at hand is an error before the work.
#[cfg(target_os = "linux")]
#[test]
fn too_little_memory_is_said() {
    let place = Place::new();
    place.clip("clip.mp4", 12);
    let line = format!("clone --bundle BUNDLE --size 4096x4096 --frames 32 --device cpu {STEPS} --prompt p");
    let line = words(&format!("{line} --reference clip.mp4 --out a.gif"));
    let program = env!("CARGO_BIN_EXE_motionclone");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -v 1600000; exec \"$@\"", "sh", program]).args(line).current_dir(place.folder.path());
    let answer = command.env("MOTIONCLONE_CACHE", place.at("cache")).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8(answer.stderr).unwrap();
    assert!(answer.status.code().is_some_and(|code| code == 1 || code == 2), "{:?}: {text}", answer.status);
    assert!(text.contains("memory") && !text.contains("panicked"), "{text}");
}
