//! `include/motionclone.h` is what cbindgen makes of `src/capi/mod.rs` and `src/capi/types.rs`. `cargo xtask header` runs this with
//! `MOTIONCLONE_WRITE_HEADER` set, which writes it.

use std::fs;
use std::path::Path;

#[test]
fn the_header_is_that_of_the_source() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    config.after_includes = Some(format!(
        "#include <stddef.h>\n#include <stdint.h>\n\n\
         /** The version that this header belongs to. */\n#define MOTIONCLONE_VERSION \"{version}\""
    ));
    let mut header = Vec::new();
    let sources = cbindgen::Builder::new().with_config(config);
    let sources = sources.with_src(root.join("src/capi/types.rs")).with_src(root.join("src/capi/mod.rs"));
    sources.generate().unwrap().write(&mut header);
    let header = String::from_utf8(header).unwrap();
    let path = root.join("include/motionclone.h");
    if std::env::var_os("MOTIONCLONE_WRITE_HEADER").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &header).unwrap();
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(there == header, "include/motionclone.h is not that of src/capi/mod.rs; run `cargo xtask header`");
}
