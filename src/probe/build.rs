//! Builds the program that looks around inside sandboxes, so that this one can carry it along.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=src/probe/build.rs");
    println!("cargo::rerun-if-changed=src/probe/inside.rs");
    println!("cargo::rerun-if-changed=src/probe/leftovers.rs");
    println!("cargo::rerun-if-changed=src/probe/look.rs");
    let out = env::var("OUT_DIR").expect("cargo sets it");
    let program = Path::new(&out).join("probe");
    let mut rustc = Command::new(env::var("RUSTC").expect("cargo sets it"));
    rustc
        .args(["--edition", "2024", "--crate-name", "inside", "src/probe/inside.rs"])
        .args(["--target", &env::var("TARGET").expect("cargo sets it")])
        .args([
            "-C",
            "target-feature=+crt-static",
            "-C",
            "opt-level=s",
            "-C",
            "panic=abort",
        ])
        .args(["-C", "strip=symbols", "-C", "lto=fat", "-C", "codegen-units=1"])
        .arg("-o")
        .arg(&program);
    let built = rustc.status().is_ok_and(|status| status.success());
    if !built {
        // All else works without it; a probe says that this build has none.
        println!("cargo::warning=no static program can be built for this target: `--probe` will not work");
        fs::write(&program, b"").expect("OUT_DIR can be written to");
    }
}
