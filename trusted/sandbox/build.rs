//! Builds the worker programs and turns the system-call policy into a table.

#[path = "build/programs.rs"]
mod programs;

use std::env;
use std::fmt::Write;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build/programs.rs");
    println!("cargo::rerun-if-changed=src/process/policy.toml");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace");
    let programs = programs::build(&root, &root.join("untrusted/worker"));
    for wall in ["kvm", "process"] {
        let program = programs.join(format!("instar-worker-{wall}"));
        println!("cargo::rustc-env=INSTAR_WORKER_{}={}", wall.to_uppercase(), program.display());
    }
    write_policy();
}

/// `policy.toml` as Rust: which calls a worker may make, and what their second argument may be.
fn write_policy() {
    let text = std::fs::read_to_string("src/process/policy.toml").expect("the policy");
    let policy: toml::Table = text.parse().expect("the policy is TOML");
    let mut code = String::from("const ALLOWED: &[(i64, &[u64])] = &[\n");
    for (name, rule) in &policy {
        let number = rule.get("number").and_then(toml::Value::as_integer).expect("every call has its number");
        assert!(rule.get("reason").is_some(), "the call {name} has no reason");
        let arguments = rule.get("second_argument").and_then(toml::Value::as_array).into_iter().flatten();
        let arguments: Vec<_> = arguments.filter_map(toml::Value::as_integer).collect();
        let _ = writeln!(code, "    ({number}, &{arguments:?}), // {name}");
    }
    code.push_str("];\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo")).join("policy.rs");
    std::fs::write(out, code).expect("the policy table");
}
