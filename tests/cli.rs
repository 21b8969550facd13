//! The command line as people use it: results, messages, exit codes, and that nothing is left behind.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

mod place;
use place::{Place, QUICK, STEPS, bundle, words};

#[test]
fn a_clone_is_written_in_every_format() {
    let place = Place::new();
    place.clip("clip.mp4", 12);
    let line =
        format!("clone {QUICK} {STEPS} --reference clip.mp4 --prompt ground --fps 12.5 --contact-sheet sheet.png");
    let answer = place.succeeds(&format!("{line} --out a.mp4 --out a.webm --out a.gif --out a.webp --out frames"));
    for name in ["a.mp4", "a.webm", "a.gif", "a.webp", "frames", "sheet.png"] {
        assert!(answer.errors.contains(&format!("wrote {name}")), "{}", answer.errors);
    }
    assert_eq!(fs::read_dir(place.at("frames")).unwrap().count(), 5, "four frames and the marker");
    let sheet = image::open(place.at("sheet.png")).unwrap();
    assert_eq!((sheet.width(), sheet.height()), (2 * 16 + 4 * 68 - 4, 2 * 16 + 2 * 64 + 4));
    assert!(answer.output.is_empty(), "results are files, standard output is free: {}", answer.output);
}

#[test]
fn the_same_run_gives_the_same_file_and_uses_the_kept_motion() {
    let place = Place::new();
    place.clip("clip.mp4", 12);
    let line = format!("clone {QUICK} {STEPS} --reference clip.mp4 --seed 7 --prompt");
    let first = place.succeeds(&format!("{line} ground --out a.mp4"));
    assert!(!first.errors.contains("motion kept from an earlier run"), "{}", first.errors);
    let second = place.succeeds(&format!("{line} ground --out b.mp4"));
    assert!(second.errors.contains("motion kept from an earlier run"), "{}", second.errors);
    assert!(fs::read(place.at("a.mp4")).unwrap() == fs::read(place.at("b.mp4")).unwrap());

    let other_prompt = place.succeeds(&format!("{line} water --out c.mp4"));
    assert!(other_prompt.errors.contains("motion kept from an earlier run"), "{}", other_prompt.errors);
    assert!(fs::read(place.at("a.mp4")).unwrap() != fs::read(place.at("c.mp4")).unwrap());

    for changed in ["--no-cache", "--top-k 2", "--noise-step 300"] {
        let answer = place.succeeds(&format!("{line} ground {changed} --out d.mp4"));
        assert!(!answer.errors.contains("motion kept from an earlier run"), "{changed}: {}", answer.errors);
    }
    // A damaged file in the cache is made anew.
    for entry in fs::read_dir(place.at("cache")).unwrap() {
        fs::write(entry.unwrap().path(), "damaged").unwrap();
    }
    let answer = place.succeeds(&format!("{line} ground --out e.mp4"));
    assert!(!answer.errors.contains("motion kept from an earlier run"), "{}", answer.errors);
    assert!(fs::read(place.at("a.mp4")).unwrap() == fs::read(place.at("e.mp4")).unwrap());
}

#[test]
fn a_motion_file_stands_for_the_clip() {
    let place = Place::new();
    place.clip("clip.mp4", 12);
    place.succeeds(&format!("extract {QUICK} --reference clip.mp4 --seed 7 --out motion.safetensors"));
    let line = format!("clone {QUICK} {STEPS} --seed 7 --prompt ground");
    place.succeeds(&format!("{line} --reference clip.mp4 --out a.mp4"));
    place.succeeds(&format!("{line} --motion motion.safetensors --out b.mp4"));
    assert!(fs::read(place.at("a.mp4")).unwrap() == fs::read(place.at("b.mp4")).unwrap());

    let line = format!("clone --bundle BUNDLE {STEPS} --motion motion.safetensors --prompt p --out c.mp4");
    place
        .refuses(&format!("{line} --size 96x64 --frames 4"), "motion.safetensors: this motion was extracted with size");
    place.refuses(&format!("{line} --size 64x64 --frames 8"), "a frame count of");
    place.refuses(&format!("{line} --size 64x64 --frames 4 --blocks up_blocks.2"), "blocks");
}

#[test]
fn pictures_and_sketches_control_the_clip() {
    let place = Place::new();
    place.clip("clip.mp4", 12);
    place.made("picture.png", &["-f", "lavfi", "-i", "testsrc2=s=80x60", "-frames:v", "1"]);
    let line = format!("clone {QUICK} {STEPS} --reference clip.mp4 --prompt ground");
    place.succeeds(&format!("{line} --image picture.png --out rgb.mp4"));
    place.succeeds(&format!("{line} --image picture.png --image picture.png@3 --control scribble --out two.mp4"));
    place.refuses(&format!("{line} --image picture.png@4 --out a.mp4"), "image at frame 4");
    place.refuses(&format!("{line} --image picture.png --image picture.png --out a.mp4"), "two images at frame 0");
    place.refuses(&format!("{line} --image missing.png --out a.mp4"), "missing.png: no such file");
    place.refuses(&format!("{line} --image clip.mp4 --out a.mp4"), "clip.mp4: not an image");
    place.refuses(&format!("{line} --image picture.png --control-scale -1 --out a.mp4"), "control scale -1");
}

#[test]
fn wrong_input_is_refused_in_one_line() {
    let place = Place::new();
    place.clip("clip.mp4", 12);
    place.clip("still.mp4", 1);
    place.made("sound.wav", &["-f", "lavfi", "-i", "sine=d=0.5"]);
    fs::write(place.at("text.mp4"), "no video").unwrap();
    fs::create_dir(place.at("empty")).unwrap();
    let clone = format!("clone {QUICK} {STEPS} --prompt ground");
    for (reference, reason) in [
        ("missing.mp4", "missing.mp4: no such file or folder"),
        ("still.mp4", "still.mp4: 1 frame: a clip needs at least 2"),
        ("sound.wav", "sound.wav: there is no video in it"),
        ("text.mp4", "text.mp4: not a video that ffmpeg can read"),
        ("empty", "empty: the folder holds no images"),
    ] {
        place.refuses(&format!("{clone} --reference {reference} --out a.mp4"), reason);
        let extract = format!("extract {QUICK} --reference {reference} --out a.safetensors");
        place.refuses(&extract, reason);
    }
    for (out, reason) in [
        ("a.avi", "a.avi: unknown kind of output"),
        ("missing/a.mp4", "missing/a.mp4: cannot be written: there is no folder missing"),
        ("clip.mp4/a.mp4", "cannot be written: there is no folder clip.mp4"),
        ("a.mp4 --contact-sheet a.jpg", "a contact sheet ends in .png"),
        ("a.mp4 --contact-sheet missing/a.png", "there is no folder missing"),
    ] {
        place.refuses(&format!("{clone} --reference clip.mp4 --out {out}"), reason);
    }
    let clone = "clone --bundle BUNDLE --reference clip.mp4 --prompt ground --out a.mp4";
    for (options, reason) in [
        ("--size 60x64", "width 60: must be a multiple of 8"),
        ("--size 64x65", "height 65: must be a multiple of 8"),
        ("--frames 33", "frames 33: must be 2 to 32"),
        ("--steps 2 --guidance-steps 3", "3 guidance steps: more than the 2 steps"),
        ("--frames 4 --top-k 5", "top-k 5"),
        ("--noise-step 1000", "noise step 1000"),
        ("--motion-weight -1", "motion weight -1"),
        ("--blocks up_blocks.9", "no block 'up_blocks.9' with motion modules; there are down_blocks.0"),
        ("--guidance-scale 1.5", "guidance scale 1.5"),
        ("--motion missing.safetensors", "missing.safetensors: no such file"),
        ("--motion clip.mp4", "clip.mp4: "),
    ] {
        place.refuses(&format!("{clone} {options}"), reason);
    }
    place.refuses("clone --bundle empty --reference clip.mp4 --prompt p --out a.mp4", "manifest.json: no such file");
    place.refuses("clone --bundle missing --reference clip.mp4 --prompt p --out a.mp4", "no such file or folder");
    place
        .refuses("extract --bundle BUNDLE --reference clip.mp4 --out motion.txt", "a motion file ends in .safetensors");
    place.refuses("doctor --bundle empty", "manifest.json: no such file");
    let syntax = place.run(&words("clone --bundle BUNDLE --reference clip.mp4 --prompt p --size big --out a.mp4"));
    assert_eq!(syntax.code, Some(2));
}

/// A copy of the bundle with one part damaged is refused before anything is computed.
#[test]
fn a_damaged_bundle_is_refused() {
    let place = Place::new();
    place.clip("clip.mp4", 12);
    let damaged = |name: &str, damage: &dyn Fn(&Path)| {
        let folder = place.at(name);
        fs::create_dir_all(folder.join("tokenizer")).unwrap();
        for file in ["manifest.json", "weights.safetensors", "tokenizer/vocab.json", "tokenizer/merges.txt"] {
            fs::copy(bundle().join(file), folder.join(file)).unwrap();
        }
        damage(&folder);
        format!("clone --bundle {name} --size 64x64 --frames 4 {STEPS} --reference clip.mp4 --prompt p --out a.mp4")
    };
    let weights = |folder: &Path| folder.join("weights.safetensors");
    let missing = damaged("missing", &|folder| fs::remove_file(weights(folder)).unwrap());
    place.refuses(&missing, "weights.safetensors: no such file");
    let short = damaged("short", &|folder| {
        fs::File::options().write(true).open(weights(folder)).unwrap().set_len(1_000_000).unwrap();
    });
    place.refuses(&short, "weights.safetensors: ");
    let lying = damaged("lying", &|folder| fs::write(weights(folder), u64::MAX.to_le_bytes()).unwrap());
    place.refuses(&lying, "its header claims 18446744073709551615 bytes");
    let other = damaged("other", &|folder| {
        let manifest = folder.join("manifest.json");
        let text = fs::read_to_string(&manifest)
            .unwrap()
            .replace("\"cross_attention_dim\": 16", "\"cross_attention_dim\": 24");
        fs::write(manifest, text).unwrap();
    });
    let answer = place.run(&words(&other));
    assert_eq!(answer.code, Some(2), "{}", answer.errors);
    assert!(answer.errors.contains("attn2.to_k.weight' takes 16 channels, not 24"), "{}", answer.errors);
    let ragged = damaged("ragged", &|folder| {
        let manifest = folder.join("manifest.json");
        let mut values: serde_json::Value = serde_json::from_str(&fs::read_to_string(&manifest).unwrap()).unwrap();
        values["unet"]["attention_heads"] = serde_json::json!([8]);
        fs::write(manifest, values.to_string()).unwrap();
    });
    place.refuses(&ragged, "attention_heads has 1 entries for 4 levels");
    let newer = damaged("newer", &|folder| {
        let manifest = folder.join("manifest.json");
        let text = fs::read_to_string(&manifest).unwrap().replace("\"format\": 1", "\"format\": 99");
        fs::write(manifest, text).unwrap();
    });
    place.refuses(&newer, "bundle format 99 is newer");
    #[cfg(unix)]
    {
        let outside = damaged("outside", &|folder| {
            fs::rename(weights(folder), place.at("elsewhere.safetensors")).unwrap();
            std::os::unix::fs::symlink("../elsewhere.safetensors", weights(folder)).unwrap();
        });
        place.refuses(&outside, "weights.safetensors: this part of the bundle is a link that leaves its folder");
    }
}

#[test]
fn what_does_not_stop_the_work_is_a_warning() {
    let place = Place::new();
    place.clip("short.mp4", 3);
    let prompt = vec!["word"; 100].join(" ");
    let mut line = words(&format!("clone {QUICK} {STEPS} --reference short.mp4 --out a.mp4 --prompt"));
    line.push(prompt);
    let answer = place.run(&line);
    assert_eq!(answer.code, Some(0), "{}", answer.errors);
    let warnings: Vec<&str> = answer.errors.lines().filter(|line| line.starts_with("warning: ")).collect();
    assert_eq!(warnings.len(), 2, "{}", answer.errors);
    assert!(warnings[0].contains("short.mp4: it has 3 frames, 4 were asked for; some are repeated"));
    assert!(warnings[1].contains("the prompt is too long"), "{}", warnings[1]);
}

#[test]
fn published_configurations_run() {
    let place = Place::new();
    fs::create_dir(place.at("lists")).unwrap();
    place.clip("lists/pan.mp4", 12);
    place.made("lists/sketch.png", &["-f", "lavfi", "-i", "testsrc2=s=80x60", "-frames:v", "1"]);
    let yaml = "\
motion_module:    \"models/Motion_Module/v3_sd15_mm.ckpt\"
controlnet_path: \"models/SparseCtrl/v3_sd15_sparsectrl_KIND.ckpt\"
cfg_scale: 7.5 # classifier-free guidance
negative_prompt: \"ugly, deformed\"
postive_prompt: \" 8k\"
inference_steps: 2
guidance_scale: 0.4
guidance_steps: 1
warm_up_steps: 0
cool_up_steps: 0
motion_guidance_weight: 2000
motion_guidance_blocks: ['up_blocks.1',]
add_noise_step: 400
W: 64
H: 64
L: 4
";
    fs::write(place.at("text.yaml"), yaml.replace("controlnet_path", "# controlnet_path")).unwrap();
    let list = "{\"video_path\":\"pan.mp4\", \"new_prompt\": \"A road, sunny day\", \"seed\": 42}\n\
                {\"video_path\":\"pan.mp4\", \"new_prompt\": \"../escape\", \"seed\": 42}\n\
                {\"video_path\":\"pan.mp4\", \"new_prompt\": \"A road\"}";
    fs::write(place.at("lists/text.jsonl"), list).unwrap();
    let answer =
        place.succeeds("run --inference_config text.yaml --examples=lists/text.jsonl --bundle BUNDLE --out out");
    let says = |text: &str| assert!(answer.errors.contains(text), "'{text}' in\n{}", answer.errors);
    says("warning: text.yaml: 'postive_prompt' is misspelt");
    says("its model files are not read");
    says("pan.mp4 is taken from the folder of lists/text.jsonl");
    says("motion kept from an earlier run");
    assert!(place.at("out/pan_A_road,_sunny_day_42.mp4").is_file());
    assert!(place.at("out/pan_.._escape_42.mp4").is_file());
    assert!(place.at("out/pan_A_road_2025.mp4").is_file());
    assert_eq!(fs::read_dir(place.at("out")).unwrap().count(), 3);

    let list = r#"{"video_path":"pan.mp4", "condition_image_paths":["sketch.png"], "new_prompt": "p", "controlnet_scale": 0.8}"#;
    fs::write(place.at("lists/images.jsonl"), list).unwrap();
    for kind in ["rgb", "scribble"] {
        fs::write(place.at("images.yaml"), yaml.replace("KIND", kind)).unwrap();
        let line = "run --inference-config images.yaml --examples lists/images.jsonl --bundle BUNDLE --contact-sheets";
        place.succeeds(&format!("{line} --out {kind}"));
        assert!(place.at(kind).join("pan_p_76739.mp4").is_file() && place.at(kind).join("pan_p_76739.png").is_file());
    }

    // All lines are looked at before the first is run.
    fs::write(place.at("lists/bad.jsonl"), format!("{list}\n{}", list.replace("pan.mp4", "gone.mp4"))).unwrap();
    let line = "run --inference-config images.yaml --bundle BUNDLE --out bad --examples";
    let answer = place.run(&words(&format!("{line} lists/bad.jsonl")));
    assert_eq!(answer.code, Some(2), "{}", answer.errors);
    assert!(answer.errors.lines().last().is_some_and(|line| line.contains("gone.mp4: no such file")));
    assert!(!place.at("bad").exists());
    place.refuses(&format!("{line} missing.jsonl"), "missing.jsonl: no such file");
}

/// Ctrl-C within the steps ends the run soon, with the exit code of shells, and leaves nothing.
#[cfg(unix)]
#[test]
fn ctrl_c_leaves_nothing() {
    use std::io::{BufRead, BufReader};
    let place = Place::new();
    place.clip("clip.mp4", 12);
    let before = place.files();
    let line = format!("clone {QUICK} --steps 1000 --no-cache --reference clip.mp4 --prompt ground --out a.mp4");
    let mut child = place.command(&words(&line)).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.by_ref().any(|line| line.unwrap().starts_with("denoising: step ")), "it begins to denoise");
    let interrupt = Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status().unwrap();
    assert!(interrupt.success());
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    assert_eq!(rest.last().map(String::as_str), Some("cancelled"));
    assert_eq!(place.files(), before);
}

#[test]
fn graphs_are_exported() {
    let place = Place::new();
    let answer = place.succeeds("export --bundle BUNDLE --size 64x64 --frames 4 --out graphs");
    for name in ["text_encoder", "vae_encoder", "vae_decoder", "denoiser", "extractor", "guided", "control_rgb"] {
        assert!(place.at(&format!("graphs/{name}.onnx")).is_file(), "{name}\n{}", answer.errors);
    }
    assert!(place.at("graphs/weights.safetensors").is_file());
    place.succeeds("export --bundle BUNDLE --size 64x64 --frames 4 --out graphs");
    fs::write(place.at("graphs/notes.txt"), "mine").unwrap();
    place.refuses(
        "export --bundle BUNDLE --size 64x64 --frames 4 --out graphs",
        "holds other files, such as 'notes.txt'",
    );
    place.refuses("export --bundle BUNDLE --size 60x64 --frames 4 --out other", "width 60: must be a multiple of 8");
    place.refuses("export --bundle BUNDLE --size 64x64 --frames 4 --out missing/graphs", "missing");
}

#[test]
fn the_doctor_tells_what_is_there() {
    let place = Place::new();
    let answer = place.succeeds("doctor --bundle BUNDLE");
    for text in ["ONNX Runtime", "providers  CPU", "ffmpeg", "rgb, scribble", "32 frames", "v3_sd15_mm.ckpt", "runs on"]
    {
        assert!(answer.output.contains(text), "'{text}' in\n{}", answer.output);
    }
    // Without its tools it still answers.
    let mut command = place.command(&["doctor"]);
    command.env("MOTIONCLONE_FFMPEG", "/missing/ffmpeg").env("MOTIONCLONE_ONNXRUNTIME", "/missing/library");
    let answer = command.output().unwrap();
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    assert!(answer.status.success(), "{text}");
    assert!(text.contains("MOTIONCLONE_FFMPEG names no working ffmpeg") && text.contains("no ONNX Runtime"), "{text}");
}
