//! Builds the rogue for the inside of both cells.

#[path = "../../trusted/sandbox/build/programs.rs"]
mod programs;

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../../trusted/sandbox/build/programs.rs");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace");
    let programs = programs::build(&root, &root.join("tests/rogue"));
    for wall in ["kvm", "process"] {
        let program = programs.join(format!("instar-rogue-{wall}"));
        println!("cargo::rustc-env=INSTAR_ROGUE_{}={}", wall.to_uppercase(), program.display());
    }
}
