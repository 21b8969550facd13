//! What the linker must know of the C library; programs and tests are linked as ever.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // The name that programs which link with the library look for; the number is that of the ABI.
    match std::env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("linux") => {
            println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libmotionclone.so.0");
            // ONNX Runtime does not survive being torn down and set up again, so the library stays once it is loaded.
            println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
        }
        Ok("macos") => println!("cargo::rustc-cdylib-link-arg=-Wl,-install_name,@rpath/libmotionclone.0.dylib"),
        _ => {}
    }
}
