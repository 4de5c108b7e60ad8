//! Everything a change must pass, on a machine that may have nothing but Rust and Debian.

mod needs;

use crate::testing::Tester;
use crate::{Done, fuzz, shell, testing, tidy};
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

/// What the steps learn for those that follow.
#[derive(Default)]
struct Run {
    tester: Tester,
    /// What was left out, told again at the end.
    left_out: Vec<String>,
}

type Step = (&'static str, fn(&mut Run) -> Done);

const STEPS: &[Step] = &[
    ("programs the tests need", |_| needs::programs()),
    ("oracles", oracles),
    ("format", |_| format()),
    ("tidy", |_| tidy::run(&[])),
    ("clippy", |_| shell::run(shell::cargo().args(CLIPPY).args(["--workspace", "--all-targets", "--", "-Dwarnings"]))),
    ("clippy of the programs inside a cell", |_| clippy_freestanding()),
    ("dependencies", dependencies),
    ("build", |_| testing::build()),
    ("tests", |run| run.tester.debug(&[])),
    ("tests of the walls, release", |run| run.tester.walls()),
    ("fuzz", fuzz_shortly),
];

const CLIPPY: [&str; 3] = ["clippy", "--quiet", "--all-features"];

/// The task: `cargo xtask ci [--keep-going] [step...]`. The first failure ends it, unless all of them are wanted; a
/// step is named by any word of its name.
pub fn run(arguments: &[String]) -> Done {
    let keep_going = arguments.iter().any(|word| word == "--keep-going");
    let (start, mut run, mut failed) = (Instant::now(), Run::default(), Vec::new());
    let words: Vec<&String> = arguments.iter().filter(|word| !word.starts_with("--")).collect();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    for (name, step) in STEPS.iter().filter(|(name, _)| wanted(name)) {
        println!("ci: {name}");
        let began = Instant::now();
        let done = step(&mut run);
        let took = began.elapsed().as_secs_f64();
        match done {
            Ok(()) => println!("ci: {name}: done in {took:.1} s\n"),
            Err(why) => {
                println!("ci: {name}: FAILED after {took:.1} s: {why}\n");
                failed.push(*name);
            }
        }
        let _ = std::io::stdout().flush();
        if !failed.is_empty() && !keep_going {
            break;
        }
    }
    for left_out in &run.left_out {
        println!("ci: LEFT OUT: {left_out}");
    }
    println!("ci: {:.0} s in all", start.elapsed().as_secs_f64());
    println!("{}", run.tester.count);
    let _ = std::io::stdout().flush();
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", "))) }
}

impl Run {
    fn leave_out(&mut self, what: impl Into<String>) {
        let what = what.into();
        println!("ci: LEFT OUT: {what}");
        self.left_out.push(what);
    }
}

fn oracles(run: &mut Run) -> Done {
    let (folder, missing) = needs::oracles()?;
    println!("ci: oracles in {}", folder.display());
    if let Some(missing) = missing {
        run.leave_out(missing);
    }
    run.tester.oracles = Some(folder);
    Ok(())
}

fn format() -> Done {
    shell::run(shell::cargo().args(["fmt", "--all", "--check"]))?;
    if shell::root().join("fuzz/Cargo.toml").is_file() {
        shell::run(shell::cargo().args(["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"]))?;
    }
    Ok(())
}

/// The worker's start-up code exists only there, so only there it can be looked at.
fn clippy_freestanding() -> Done {
    for package in ["instar-worker", "instar-rogue"] {
        let mut command = shell::cargo();
        command.args(["clippy", "--quiet", "--release", "--package", package, "--lib", "--bins", "--target-dir"]);
        command.arg(shell::target_dir().join("lint")).args(["--", "-Dwarnings"]);
        command.env_remove("RUSTFLAGS");
        command.env("CARGO_ENCODED_RUSTFLAGS", ["--cfg", "freestanding", "-Crelocation-model=static"].join("\x1f"));
        shell::run(&mut command)?;
    }
    Ok(())
}

fn dependencies(run: &mut Run) -> Done {
    let own = shell::root().join(shell::target_dir()).join("tools/bin/cargo-deny");
    let deny = if own.is_file() { own } else { PathBuf::from("cargo-deny") };
    if !deny.is_file() && !shell::is_there("cargo-deny") {
        run.leave_out("licences, sources and bans of dependencies: cargo-deny is not installed");
        return Ok(());
    }
    shell::run(shell::program(&deny).args(["check", "--hide-inclusion-graph", "bans", "licenses", "sources"]))?;
    // The advisories come from a repository that not every machine reaches; a copy that is at hand is used.
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    if !home.is_some_and(|home| home.join("advisory-dbs").is_dir()) {
        run.leave_out("advisories on dependencies: no copy of the advisory database on this machine");
        return Ok(());
    }
    shell::run(shell::program(&deny).args(["--offline", "check", "advisories"]))
}

fn fuzz_shortly(run: &mut Run) -> Done {
    match fuzz::missing() {
        Some(why) => run.leave_out(format!("the fuzz run: {why}")),
        None => fuzz::run(&["--seconds".into(), "60".into()])?,
    }
    Ok(())
}
