//! Keeps the plugin loaded for good: a host may unload it while a thread of it is still inside a library that cannot be
//! stopped, and that thread must find its code when it returns.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
}
