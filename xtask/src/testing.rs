//! The tests: against the program as it ships, compiled so that an overflow is noticed.

use crate::{Done, shell};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The package that tests the walls.
const WALLS: &str = "instar-walls";

/// What test runners said of how many tests.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Count {
    /// Fine.
    pub passed: u64,
    /// Not fine.
    pub failed: u64,
    /// Not run.
    pub skipped: u64,
}

impl Count {
    /// Adds what a closing line of `cargo test` says; other lines say nothing.
    fn add(&mut self, line: &str) {
        let Some((_, rest)) = line.split_once("test result: ") else { return };
        for part in rest.split([';', '.']) {
            let mut words = part.split_whitespace();
            let number = words.next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
            match words.next() {
                Some("passed") => self.passed += number,
                Some("failed") => self.failed += number,
                Some("ignored") => self.skipped += number,
                _ => {}
            }
        }
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// The tests' surroundings, and what came of them.
#[derive(Default)]
pub struct Tester {
    /// So far.
    pub count: Count,
    /// Where the real programs lie that ours is compared with; the tests look for them themselves if nobody says.
    pub oracles: Option<PathBuf>,
}

/// The task: `cargo xtask test [arguments of cargo test]`.
pub fn run(arguments: &[String]) -> Done {
    let mut tester = Tester::default();
    let done = build().and_then(|()| tester.debug(arguments));
    println!("{}", tester.count);
    done
}

/// Builds the program as it ships.
pub fn build() -> Done {
    shell::run(shell::cargo().args(["build", "--release", "--package", "instar"]))
}

/// Where [`build`] leaves it.
pub fn shipped() -> PathBuf {
    let target = shell::root().join(shell::target_dir());
    let places = [target.join(shell::TRIPLE).join("release/instar"), target.join("release/instar")];
    places.iter().find(|path| path.exists()).unwrap_or(&places[0]).clone()
}

impl Tester {
    /// Everything, with overflow checks; the program under test is the shipped one.
    pub fn debug(&mut self, arguments: &[String]) -> Done {
        let mut command = shell::cargo();
        command.args(["test", "--workspace", "--no-fail-fast"]).args(arguments);
        self.counted(&mut command)
    }

    /// The tests of the walls once more, as the walls are in release builds.
    pub fn walls(&mut self) -> Done {
        let mut command = shell::cargo();
        command.args(["test", "--release", "--no-fail-fast", "--package", WALLS]);
        // Linking every test program as tightly as the shipped one would take minutes and show nothing more.
        command.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
        self.counted(&mut command)
    }

    /// Runs a test runner, passing on what it prints and counting.
    fn counted(&mut self, command: &mut Command) -> Done {
        command.env("INSTAR_PROGRAM", shipped()).stdout(Stdio::piped());
        if let Some(folder) = &self.oracles {
            command.env("INSTAR_ORACLES", folder);
        }
        let mut child = command.spawn().map_err(|e| format!("cargo test: {e}"))?;
        let lines = child.stdout.take().map(BufReader::new);
        let mut out = std::io::stdout();
        for line in lines.into_iter().flat_map(|lines| lines.split(b'\n')) {
            let line = line.map_err(|e| format!("cargo test: {e}"))?;
            // Nobody may be reading; the tests are to be run all the same.
            let _ = out.write_all(&line).and_then(|()| out.write_all(b"\n"));
            self.count.add(&String::from_utf8_lossy(&line));
        }
        let status = child.wait().map_err(|e| format!("cargo test: {e}"))?;
        if status.success() { Ok(()) } else { Err(format!("cargo test: {status}")) }
    }
}

#[cfg(test)]
mod unit {
    use super::Count;

    #[test]
    fn closing_lines_are_summed_and_other_lines_are_not() {
        let mut count = Count::default();
        count.add("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.02s");
        count.add("test a::b ... ok");
        count.add("test result: FAILED. 2 passed; 4 failed; 0 ignored; 0 measured; 0 filtered out");
        assert_eq!(count.to_string(), "14 passed, 4 failed, 1 skipped");
    }
}
