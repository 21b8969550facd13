//! The structure of the source, read from its imports: which file uses which. Tests here keep it without circles, and keep
//! what must not know of each other apart.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::root;

/// Which files a file imports, by paths below the folder that was read.
type Imports = BTreeMap<PathBuf, BTreeSet<PathBuf>>;

/// All files of a kind below a folder, as paths below it.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let (mut found, mut waiting) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(place) = waiting.pop() {
        for entry in fs::read_dir(&place).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                // A folder with a manifest of its own is another crate.
                if !path.join("Cargo.toml").exists() {
                    waiting.push(path);
                }
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path.strip_prefix(folder).unwrap_or(&path).to_path_buf());
            }
        }
    }
    found.sort();
    found
}

/// Rust source without comments and without what only tests compile, which stands at a file's end.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let text = text.split("#[cfg(all(test").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The paths that code names: `crate::a::b` in full, with the braces of a `use` written out.
fn named(code: &str, beginning: &str) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    for (at, _) in code.match_indices(beginning) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        expand(&code[at + beginning.len()..], &[], &mut paths);
    }
    paths
}

/// Reads `a::{b, c::d}` behind the words of `before`; gives how much was read.
fn expand(text: &str, before: &[String], paths: &mut Vec<Vec<String>>) -> usize {
    let mut words = before.to_vec();
    let mut at = 0;
    loop {
        let word: String = text[at..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        at += word.len();
        if !word.is_empty() {
            words.push(word);
        }
        // A group may stand right behind the beginning, too: `super::{a, b}`.
        let group = if at == 0 { "{" } else { "::{" };
        if text[at..].starts_with(group) {
            at += group.len();
            loop {
                at += text[at..].len() - text[at..].trim_start().len();
                at += expand(&text[at..], &words, paths);
                // A name may be given another one, and a star stands for everything.
                at += text[at..].find([',', '}']).unwrap_or(text.len() - at);
                match text[at..].chars().next() {
                    Some(',') => at += 1,
                    Some(_) => return at + 1,
                    None => return at,
                }
                at += text[at..].len() - text[at..].trim_start().len();
                if text[at..].starts_with('}') {
                    return at + 1;
                }
            }
        }
        if text[at..].starts_with("::") {
            at += 2;
            continue;
        }
        paths.push(words);
        return at;
    }
}

/// The modules of a crate by their paths, and its files' imports.
fn rust(folder: &Path) -> Imports {
    let files: Vec<PathBuf> = files(folder, "rs").into_iter().filter(|file| !file.starts_with("bin")).collect();
    let mut modules: BTreeMap<Vec<String>, PathBuf> = BTreeMap::new();
    for file in &files {
        let mut words: Vec<String> =
            file.with_extension("").iter().map(|word| word.to_string_lossy().into_owned()).collect();
        if ["mod", "lib"].iter().any(|name| words.last().is_some_and(|last| last == name)) {
            words.pop();
        }
        modules.insert(words, file.clone());
    }
    let code: BTreeMap<&PathBuf, String> =
        files.iter().map(|file| (file, code(&fs::read_to_string(folder.join(file)).unwrap_or_default()))).collect();
    // What a module's root hands on from its children is the children's.
    let mut handed_on: BTreeMap<Vec<String>, Vec<String>> = BTreeMap::new();
    for (module, file) in &modules {
        for line in code[file].split(';').filter(|line| line.trim_start().starts_with("pub")) {
            let Some((_, names)) = line.split_once("use ") else { continue };
            let mut paths = Vec::new();
            expand(names.trim().trim_start_matches("self::"), module, &mut paths);
            for path in paths {
                if let Some(last) = path.last() {
                    handed_on.insert([&module[..], std::slice::from_ref(last)].concat(), path.clone());
                }
            }
        }
    }
    let resolve = |path: &[String]| {
        let mut path = path.to_vec();
        for _ in 0..8 {
            match (0..=path.len()).rev().find_map(|end| handed_on.get(&path[..end]).map(|to| (end, to))) {
                Some((end, to)) if *to != path[..end] => path = [&to[..], &path[end..]].concat(),
                _ => break,
            }
        }
        (1..=path.len()).rev().find_map(|end| modules.get(&path[..end]))
    };
    let mut imports = Imports::new();
    for (module, file) in &modules {
        let text = &code[file];
        let mut paths = named(text, "crate::");
        let parent = &module[..module.len().saturating_sub(1)];
        paths.extend(named(text, "super::").into_iter().map(|path| [parent, &path[..]].concat()));
        paths.extend(named(text, "self::").into_iter().map(|path| [&module[..], &path[..]].concat()));
        let used = paths.iter().filter_map(|path| resolve(path)).filter(|other| *other != file);
        imports.insert(file.clone(), used.cloned().collect());
    }
    imports
}

/// A Python package's files and their imports of each other, those inside functions, too.
fn python(folder: &Path) -> Imports {
    let mut imports = Imports::new();
    for file in files(folder, "py") {
        let text = fs::read_to_string(folder.join(&file)).unwrap_or_default().replace(['(', ')'], "");
        let lines = text.lines().map(str::trim_start);
        let relative = lines.filter_map(|line| line.strip_prefix("from ."));
        let mut used = BTreeSet::new();
        for line in relative {
            let (module, names) = line.split_once(" import ").unwrap_or((line, ""));
            let names = if module.is_empty() { names } else { module };
            let names = names.split(',').map(|name| name.split_whitespace().next().unwrap_or_default());
            used.extend(names.map(|name| PathBuf::from(format!("{name}.py"))).filter(|f| folder.join(f).exists()));
        }
        used.remove(&file);
        imports.insert(file, used);
    }
    imports
}

/// A circle of imports, if there is one.
fn circle(imports: &Imports) -> Option<Vec<PathBuf>> {
    fn walk(file: &PathBuf, imports: &Imports, path: &mut Vec<PathBuf>, done: &mut BTreeSet<PathBuf>) -> bool {
        if let Some(begin) = path.iter().position(|other| other == file) {
            path.drain(..begin);
            return true;
        }
        if done.contains(file) {
            return false;
        }
        path.push(file.clone());
        if imports.get(file).into_iter().flatten().any(|used| walk(used, imports, path, done)) {
            return true;
        }
        path.pop();
        done.insert(file.clone());
        false
    }
    let (mut path, mut done) = (Vec::new(), BTreeSet::new());
    imports.keys().any(|file| walk(file, imports, &mut path, &mut done)).then_some(path)
}

/// Files of `below` that import one of `others`, as beginnings of paths.
fn crossing(imports: &Imports, below: &str, others: &[&str]) -> Vec<String> {
    let inside = imports.iter().filter(|(file, _)| file.starts_with(below));
    let pairs = inside.flat_map(|(file, used)| used.iter().map(move |used| (file, used)));
    let wrong = pairs.filter(|(_, used)| {
        let used = used.with_extension("");
        others.iter().any(|other| used.starts_with(other))
    });
    wrong.map(|(file, used)| format!("{} imports {}", file.display(), used.display())).collect()
}

#[test]
fn no_file_imports_itself_through_others() {
    let crates = ["src", "onnx/src", "plugins/openfx/src"].map(|folder| (folder, rust(&root().join(folder))));
    let package = "plugins/blender/motionclone";
    let all = crates.into_iter().chain([(package, python(&root().join(package)))]);
    let mut circles = Vec::new();
    for (folder, imports) in all {
        assert!(imports.values().map(BTreeSet::len).sum::<usize>() > 10, "{folder}: imports are not seen");
        circles.extend(circle(&imports).map(|files| (folder, files)));
    }
    assert!(circles.is_empty(), "{circles:#?}");
}

#[test]
fn what_must_not_know_of_each_other_does_not() {
    let engine = rust(&root().join("src"));
    let motion = ["motion", "pipeline", "job", "engine", "bundle", "networks", "memory", "settings", "media", "capi"];
    assert_eq!(crossing(&engine, "runtime", &motion), [""; 0], "the runtime knows of what it runs");
    let onnx = rust(&root().join("onnx/src"));
    assert_eq!(crossing(&onnx, "graph", &["model", "checkpoint"]), [""; 0], "the graph knows of models");
}

#[test]
fn a_circle_is_found() {
    let import = |file: &str, used: &[&str]| (PathBuf::from(file), used.iter().map(PathBuf::from).collect());
    let mut imports: Imports =
        [import("a", &["b"]), import("b", &["c", "d"]), import("c", &[]), import("d", &[])].into();
    assert_eq!(circle(&imports), None);
    imports.extend([import("d", &["b"])]);
    assert_eq!(circle(&imports), Some(vec!["b".into(), "d".into()]));
    assert_eq!(named("use super::{a, b::c};", "super::"), [vec!["a"], vec!["b", "c"]]);
    let code = "use crate::a::{self, b::{c, d as e}, f};\nlet x = crate::g::h(1);\nnotcrate::i::j;";
    let paths: Vec<String> = named(code, "crate::").iter().map(|path| path.join("::")).collect();
    assert_eq!(paths, ["a::self", "a::b::c", "a::b::d", "a::f", "g::h"]);
}

/// DESIGN.md is a map; it must show what is there.
#[test]
fn every_path_that_the_design_names_is_there() {
    let text = fs::read_to_string(root().join("DESIGN.md")).expect("DESIGN.md");
    let tops = ["src/", "onnx/", "plugins/", "tests/", "xtask/", "include/", "docs/", "benches/", "examples/"];
    let is_path = |word: &&str| tops.iter().any(|top| word.starts_with(top)) && !word.contains([' ', '*', '…']);
    let named: Vec<&str> = text.split('`').skip(1).step_by(2).filter(is_path).collect();
    assert!(named.len() > 20, "paths are not seen: {named:?}");
    let missing: Vec<&&str> = named.iter().filter(|path| !root().join(path).exists()).collect();
    assert!(missing.is_empty(), "DESIGN.md names what is not there: {missing:?}");
}
