//! What is made of the C library's source: `include/motionclone.h`, by cbindgen, and of the header the Python binding.
//! `cargo xtask header` runs this with `MOTIONCLONE_WRITE_HEADER` set, which writes both.

mod python;

use std::fs;
use std::path::Path;

/// Where the binding lies: beside what uses it, as each is handed out alone.
const BINDINGS: [&str; 2] = ["plugins/blender/motionclone/abi.py", "examples/python/motionclone_abi.py"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn header() -> String {
    let mut config = cbindgen::Config::from_file(root().join("cbindgen.toml")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    config.after_includes = Some(format!(
        "#include <stddef.h>\n#include <stdint.h>\n\n\
         /** The version that this header belongs to. */\n#define MOTIONCLONE_VERSION \"{version}\""
    ));
    let sources = cbindgen::Builder::new().with_config(config);
    // The modules in the folder of `mod.rs` are found from there.
    let sources = sources.with_src(root().join("src/abi/types.rs")).with_src(root().join("src/capi/mod.rs"));
    let mut header = Vec::new();
    sources.generate().unwrap().write(&mut header);
    String::from_utf8(header).unwrap()
}

/// Compares a file with what it should be, or writes it.
#[track_caller]
fn check(path: &str, text: &str) {
    let file = root().join(path);
    if std::env::var_os("MOTIONCLONE_WRITE_HEADER").is_some() {
        fs::write(&file, text).unwrap();
    }
    let there = fs::read_to_string(&file).unwrap_or_default();
    assert!(there == text, "{path} is not that of the source; run `cargo xtask header`");
}

#[test]
fn the_header_is_that_of_the_source() {
    check("include/motionclone.h", &header());
}

#[test]
fn the_python_binding_is_that_of_the_header() {
    let binding = python::binding(&header());
    BINDINGS.iter().for_each(|path| check(path, &binding));
}
