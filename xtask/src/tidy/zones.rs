//! Where unsafe code may stand, and which crates do without the standard library.

use super::{Finding, Found};
use crate::rust::Source;
use crate::tree::Tree;

/// The one file of the broker with unsafe code.
const SYS: &str = "trusted/broker/src/sys.rs";
const SANDBOX: &str = "trusted/sandbox/";
const WORKER: &str = "untrusted/worker/";
/// Where the worker keeps its unsafe code.
const WORKER_UNSAFE: &[&str] = &["untrusted/worker/src/rt/", "untrusted/worker/src/rt.rs", "untrusted/worker/src/bin/"];

const FORBID: &[&str] = &["#", "!", "[", "forbid", "(", "unsafe_code", ")", "]"];
const DENY: &[&str] = &["#", "!", "[", "deny", "(", "unsafe_code", ")", "]"];
const NO_STD: &[&str] = &["#", "!", "[", "no_std", "]"];
const FORBID_UNLESS_FREESTANDING: &[&str] = &[
    "#",
    "!",
    "[",
    "cfg_attr",
    "(",
    "not",
    "(",
    "freestanding",
    ")",
    ",",
    "forbid",
    "(",
    "unsafe_code",
    ")",
    ")",
    "]",
];

/// Judges both zones.
pub fn check(tree: &Tree) -> Found {
    let mut found = Vec::new();
    for zone in ["untrusted/", "trusted/"] {
        for name in tree.folders_in(zone) {
            let folder = format!("{zone}{name}/");
            let roots = ["src/lib.rs", "src/main.rs"].map(|file| format!("{folder}{file}"));
            let mut some = false;
            for root in roots.iter().filter(|root| tree.has(root)) {
                some = true;
                let source = Source::new(root, tree.text(root).unwrap_or_default());
                let missing = if zone == "trusted/" { trusted(&source) } else { untrusted(&source) };
                found.extend(missing.into_iter().map(|what| Finding::new(root, 1, what)));
            }
            if !some && tree.has(&format!("{folder}Cargo.toml")) {
                found.push(Finding::new(&folder, 0, "a crate without src/lib.rs or src/main.rs cannot be judged"));
            }
        }
        found.extend(tree.sources(zone).flat_map(|source| stray(&source)));
    }
    found
}

fn has(source: &Source<'_>, words: &[&str]) -> bool {
    (0..source.tokens.len()).any(|at| source.reads(at, words))
}

fn untrusted(source: &Source<'_>) -> Vec<&'static str> {
    let mut missing = Vec::new();
    if !has(source, NO_STD) {
        missing.push("untrusted/* begins with #![no_std]");
    }
    if source.path.starts_with(WORKER) {
        if !has(source, FORBID_UNLESS_FREESTANDING) {
            missing.push("the worker begins with #![cfg_attr(not(freestanding), forbid(unsafe_code))]");
        }
    } else if !has(source, FORBID) {
        missing.push("untrusted/* begins with #![forbid(unsafe_code)]");
    }
    missing
}

fn trusted(source: &Source<'_>) -> Vec<&'static str> {
    if source.path.starts_with(SANDBOX) || has(source, FORBID) {
        Vec::new()
    } else if source.path.starts_with("trusted/broker/") {
        if has(source, DENY) { Vec::new() } else { vec!["the broker begins with #![deny(unsafe_code)]"] }
    } else {
        vec!["trusted/* begins with #![forbid(unsafe_code)]"]
    }
}

/// Unsafe code, or leave for it, where none belongs.
fn stray(source: &Source<'_>) -> Found {
    let free = source.path == SYS
        || source.path.starts_with(SANDBOX)
        || WORKER_UNSAFE.iter().any(|place| source.path.starts_with(place));
    if free {
        return Vec::new();
    }
    let leave = |at: usize| ["allow", "expect", "warn"].contains(&source.before(at, 2));
    let code = source.all("unsafe").map(|at| (at, "unsafe code outside its few places"));
    let leaves = source.all("unsafe_code").filter(|&at| leave(at)).map(|at| (at, "leave for unsafe code"));
    code.chain(leaves).map(|(at, what)| Finding::new(source.path, source.line(at), what)).collect()
}
