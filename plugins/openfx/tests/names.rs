//! Names, statuses and function tables against the official headers: a constant that is spelled from memory is confirmed
//! by every test that was written from the same memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folders of the published crates that carry the headers, fetched by the hashes of their lock file.
fn sources() -> BTreeMap<String, PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/headers/Cargo.toml");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let metadata = Command::new(cargo)
        .args(["metadata", "--locked", "--format-version", "1", "--manifest-path"])
        .arg(manifest)
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let folder = |package: &serde_json::Value| {
        let manifest = Path::new(package["manifest_path"].as_str()?);
        Some((package["name"].as_str()?.to_string(), manifest.parent()?.to_path_buf()))
    };
    packages.iter().filter_map(folder).collect()
}

/// The text of all files of a folder with an ending.
fn texts(folder: &Path, ending: &str) -> Vec<(PathBuf, String)> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            texts.extend(texts_of(&path, ending));
        } else if path.extension().is_some_and(|extension| extension == ending) {
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            texts.push((path, text));
        }
    }
    texts
}

fn texts_of(folder: &Path, ending: &str) -> Vec<(PathBuf, String)> {
    texts(folder, ending)
}

/// All quoted texts of a source that are names of OpenFX.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    let is_name = |part: &&str| {
        part.strip_prefix("Ofx").is_some_and(|rest| {
            !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        })
    };
    text.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(|line| line.split('"')).filter(is_name)
}

/// `#define NAME VALUE` of a header.
fn defines(header: &str) -> impl Iterator<Item = (&str, &str)> {
    header.lines().filter_map(|line| {
        let (name, value) = line.trim_start().strip_prefix("#define")?.trim_start().split_once([' ', '\t'])?;
        Some((name, value.trim()))
    })
}

fn headers() -> String {
    let folder = sources()["openfx-sys"].join("openfx/include");
    texts(&folder, "h").into_iter().map(|(_, text)| text).collect()
}

#[test]
fn every_name_is_one_of_the_headers() {
    let all = headers();
    let mut known: BTreeSet<String> = defines(&all)
        .filter_map(|(_, value)| Some(value.strip_prefix('"')?.split('"').next()?.to_string()))
        .filter(|value| value.starts_with("Ofx"))
        .collect();
    // Those of version 1.5 that the other crate has.
    for (_, text) in texts(&sources()["openfx"].join("generated/c_bindings"), "rs") {
        known.extend(quoted(&text).map(String::from));
    }
    assert!(known.len() > 300 && known.contains("OfxImageAlphaUnPremultiplied"), "{}", known.len());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut checked = 0;
    let mut unknown = Vec::new();
    let ours = texts(&root.join("src"), "rs").into_iter().chain(texts(&root.join("tests"), "hpp"));
    for (path, text) in ours.chain(texts(&root.join("tests"), "cpp")) {
        for name in quoted(&text) {
            checked += 1;
            // Names that end in a clip's.
            let of_a_clip = name.rsplit_once('_').is_some_and(|(begin, clip)| {
                ["Source", "Condition"].contains(&clip) && all.contains(&format!("{begin}_"))
            });
            let exported = ["OfxSetHost", "OfxGetPlugin", "OfxGetNumberOfPlugins"].contains(&name);
            if !(known.contains(name) || of_a_clip || exported && all.contains(&format!("{name}("))) {
                unknown.push(format!("{}: {name}", path.display()));
            }
        }
    }
    assert!(checked > 100, "only {checked} names were found");
    assert!(unknown.is_empty(), "{unknown:#?}");
}

#[test]
fn every_status_is_that_of_the_headers() {
    let all = headers();
    let defined: BTreeMap<&str, &str> = defines(&all).collect();
    let sys = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ofx/sys.rs")).unwrap();
    let ours: Vec<(&str, &str)> = sys
        .lines()
        .filter_map(|line| line.strip_prefix("pub const ")?.strip_suffix(';')?.split_once(": Status = "))
        .collect();
    assert!(ours.len() >= 7);
    for (name, value) in ours {
        let theirs = match name {
            "OK" => "kOfxStatOK",
            "FAILED" => "kOfxStatFailed",
            "ERROR_FATAL" => "kOfxStatErrFatal",
            "MISSING_HOST_FEATURE" => "kOfxStatErrMissingHostFeature",
            "BAD_HANDLE" => "kOfxStatErrBadHandle",
            "REPLY_NO" => "kOfxStatReplyNo",
            "REPLY_DEFAULT" => "kOfxStatReplyDefault",
            _ => panic!("{name} is not checked"),
        };
        let number = defined[theirs].trim_start_matches("((int)").trim_end_matches(')').trim();
        assert_eq!(number, value, "{name}");
    }
}

/// The names of a table's functions in a header, in their order.
fn functions(headers: &str, table: &str) -> Vec<String> {
    let body = headers.split_once(&format!("typedef struct {table}")).unwrap_or_else(|| panic!("no {table}")).1;
    let body = body.split_once(&format!("}} {table}")).unwrap_or_else(|| panic!("no end of {table}")).0;
    // Comments have examples in them.
    let mut code = String::new();
    let mut rest = body;
    while let Some((before, comment)) = rest.split_once("/*") {
        code += before;
        rest = comment.split_once("*/").map_or("", |(_, after)| after);
    }
    code += rest;
    code.split("(*").skip(1).filter_map(|part| Some(part.split_once(')')?.0.trim().to_lowercase())).collect()
}

#[test]
fn tables_have_their_functions_in_the_headers_order() {
    let headers = headers();
    let sys = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ofx/sys.rs")).unwrap();
    for (ours, theirs) in [
        ("PropertySuite", "OfxPropertySuiteV1"),
        ("ImageEffectSuite", "OfxImageEffectSuiteV1"),
        ("ParameterSuite", "OfxParameterSuiteV1"),
        ("MessageSuiteV1", "OfxMessageSuiteV1"),
        ("MessageSuiteV2", "OfxMessageSuiteV2"),
        ("ProgressSuiteV1", "OfxProgressSuiteV1"),
        ("ProgressSuiteV2", "OfxProgressSuiteV2"),
        ("MultiThreadSuite", "OfxMultiThreadSuiteV1"),
    ] {
        let body = sys.split_once(&format!("pub struct {ours} {{")).unwrap().1.split_once("\n}").unwrap().0;
        let fields: Vec<String> = body
            .lines()
            .filter_map(|line| Some(line.trim().strip_prefix("pub ")?.split_once(':')?.0.replace('_', "")))
            .collect();
        let functions = functions(&headers, theirs);
        assert!(!fields.is_empty() && fields.len() <= functions.len(), "{ours}: {fields:?} {functions:?}");
        for (field, function) in fields.iter().zip(&functions) {
            assert!(function.contains(field.as_str()), "{ours}: {field} is not {function}");
        }
    }
}
