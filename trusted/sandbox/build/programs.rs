//! Builds a package's programs for the inside of a cell. Shared by the build scripts that embed such programs.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds the package's programs as freestanding ones and tells the folder they lie in.
///
/// All profiles of the host share one target folder for them, so that a test run after a release build builds nothing.
pub fn build(root: &Path, package: &Path) -> PathBuf {
    for input in ["boundary", "untrusted", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }
    println!("cargo::rerun-if-changed={}", package.display());
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
    // OUT_DIR is TARGET_DIR[/TRIPLE]/PROFILE/build/PACKAGE/out.
    let above = out.ancestors().nth(4).expect("a target folder");
    let target_dir = if above.ends_with(TARGET) { above.parent().expect("a target folder") } else { above };
    let target_dir = target_dir.join("worker");
    let link = root.join("untrusted/worker/link.ld");
    let flags = [
        "--cfg",
        "freestanding",
        "-Crelocation-model=static",
        "-Clink-arg=-nostartfiles",
        "-Clink-arg=-nostdlib",
        "-Clink-arg=-static",
        "-Clink-arg=-no-pie",
        "-Clink-arg=-Wl,--build-id=none",
        "-Clink-arg=-Wl,-z,max-page-size=4096",
        "-Clink-arg=-Wl,--no-eh-frame-hdr",
        &format!("-Clink-arg=-Wl,-T{}", link.display()),
    ];
    let mut cargo = Command::new(env::var_os("CARGO").expect("set by cargo"));
    cargo.current_dir(root).args(["build", "--release", "--bins", "--target", TARGET, "--manifest-path"]);
    cargo.arg(package.join("Cargo.toml")).arg("--target-dir").arg(&target_dir);
    // What the outer build was told about code generation is not meant for the cell.
    for (key, _) in env::vars_os() {
        let key = key.to_string_lossy().into_owned();
        let prefixes = ["CARGO_PROFILE_", "CARGO_FEATURE_", "CARGO_CFG_", "CARGO_TARGET_"];
        let names =
            ["RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_BUILD_RUSTFLAGS", "RUSTC_WORKSPACE_WRAPPER", "RUSTC_WRAPPER"];
        if prefixes.iter().any(|p| key.starts_with(p)) || names.contains(&key.as_str()) {
            cargo.env_remove(key);
        }
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    assert!(cargo.status().expect("cargo runs").success(), "the worker programs did not build");
    target_dir.join(TARGET).join("release")
}
