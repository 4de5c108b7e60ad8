//! Runs the fuzz targets of `fuzz/`, each for its share of the time.
//!
//! libFuzzer is built as cargo-fuzz would build it, but with the stable compiler and without a sanitizer: there is no
//! unsafe code in what is fuzzed, so what is to be found are panics, endless loops and hunger for memory.

use crate::{Done, shell};
use std::path::PathBuf;
use std::process::Command;

const MANIFEST: &str = "fuzz/Cargo.toml";

/// Coverage and comparisons for libFuzzer to look at.
const FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    "-Ccodegen-units=1",
    "-Cforce-frame-pointers=yes",
    "--cfg=fuzzing",
];

/// What one input may take: seconds and MiB.
const LIMITS: &[&str] =
    &["-timeout=30", "-rss_limit_mb=512", "-malloc_limit_mb=256", "-print_final_stats=1", "-verbosity=0"];

/// The task: `cargo xtask fuzz [--seconds N] [target...]`.
pub fn run(arguments: &[String]) -> Done {
    if let Some(why) = missing() {
        return Err(why);
    }
    let (mut seconds, mut wanted) = (60_u64, Vec::new());
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seconds" => {
                let value = words.next().ok_or("--seconds needs a number")?;
                seconds = value.parse().map_err(|e| format!("--seconds: {e}"))?;
            }
            target => wanted.push(target.to_owned()),
        }
    }
    let all = targets()?;
    if let Some(unknown) = wanted.iter().find(|name| !all.contains(name)) {
        return Err(format!("no target {unknown:?}; there are {}", all.join(", ")));
    }
    let chosen = if wanted.is_empty() { all } else { wanted };
    let share = (seconds / chosen.len().max(1) as u64).max(1);
    build()?;
    for target in &chosen {
        println!("fuzz: {target} for {share} s");
        fuzz(target, share)?;
    }
    Ok(())
}

/// Why it cannot be done here.
pub fn missing() -> Option<String> {
    if !shell::root().join(MANIFEST).is_file() {
        return Some(format!("there is no {MANIFEST}"));
    }
    (!shell::is_there("c++")).then(|| "libFuzzer needs a C++ compiler".to_owned())
}

fn target_dir() -> PathBuf {
    shell::root().join(shell::target_dir()).join("fuzz")
}

fn targets() -> Result<Vec<String>, String> {
    let metadata = ["metadata", "--format-version=1", "--no-deps", "--manifest-path", MANIFEST];
    let text = shell::output(shell::cargo().args(metadata))?;
    let metadata: serde_json::Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
    let targets = metadata["packages"].as_array().into_iter().flatten().flat_map(|p| p["targets"].as_array()).flatten();
    let programs = targets.filter(|target| target["kind"][0] == "bin");
    Ok(programs.filter_map(|target| target["name"].as_str().map(str::to_owned)).collect())
}

fn build() -> Done {
    let mut command = shell::cargo();
    command.args([
        "build",
        "--release",
        "--bins",
        "--target",
        shell::TRIPLE,
        "--manifest-path",
        MANIFEST,
        "--target-dir",
    ]);
    command.arg(target_dir()).env_remove("RUSTFLAGS").env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"));
    // What a debug build notices is what is looked for.
    command.env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true").env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true");
    command.env("CARGO_PROFILE_RELEASE_LTO", "off");
    shell::run(&mut command)
}

/// What is found new is kept in the target folder; `fuzz/seeds/<target>` and `fuzz/corpus/<target>` are where it starts.
fn fuzz(target: &str, seconds: u64) -> Done {
    let (found, artifacts) = (target_dir().join("corpus").join(target), target_dir().join("artifacts").join(target));
    for folder in [&found, &artifacts] {
        std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    let mut command = Command::new(target_dir().join(shell::TRIPLE).join("release").join(target));
    command.current_dir(shell::root()).args(LIMITS).arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-artifact_prefix={}/", artifacts.display())).arg(&found);
    for folder in ["seeds", "corpus"] {
        let start = shell::root().join("fuzz").join(folder).join(target);
        if start.is_dir() {
            command.arg(start);
        }
    }
    shell::run(&mut command).map_err(|e| format!("{e}\n{target}: the input is in {}", artifacts.display()))
}
