//! What becomes of results and messages when something goes wrong beside the work itself.

use std::fs;
use std::process::Stdio;

mod place;
use place::{Place, QUICK, STEPS, words};

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
