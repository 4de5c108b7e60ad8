//! What a program may do when it is shown anything at all.

use instar_testkit::program::{Cell, program};
use instar_testkit::run::{End, Ran, Run};
use instar_tests::report::Report;
use std::time::Duration;

/// A run that takes longer hangs.
pub const HANGS: Duration = Duration::from_secs(10);
/// The most memory a run may take.
const MEMORY_MAX_KIB: u64 = 256 << 10;
/// Words that only a program in trouble says.
const TROUBLE: &[&str] =
    &["panicked", "fault", "signal", "backtrace", "attempt", "overflowed", "unwrap", "RUST_BACKTRACE"];

/// `info` of the instar face, in its secure default.
pub fn native(cell: Cell) -> Run {
    program().native(cell).arg("info").limit(HANGS)
}

/// What is wrong with a run: nothing if it ended in time, small, with output or with exactly one line of refusal.
pub fn wrong(ran: &Ran) -> Option<String> {
    let err = ran.err();
    let mut words = err.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let lines = ran.stderr.iter().filter(|byte| **byte == b'\n').count();
    let why = match ran.end {
        End::Timeout => "it hangs".to_owned(),
        End::Signal(signal) => format!("it died of signal {signal}"),
        End::Code(code) if code != 0 && code != 1 => format!("it ended with {code}"),
        _ if ran.peak_kib() > MEMORY_MAX_KIB => format!("it took {} KiB", ran.peak_kib()),
        _ if words.any(|word| TROUBLE.contains(&word)) => "it speaks of trouble".to_owned(),
        End::Code(1) if lines != 1 || !ran.stderr.ends_with(b"\n") => format!("{lines} lines of refusal"),
        End::Code(1) if !ran.stdout.is_empty() => "it failed, and printed".to_owned(),
        End::Code(0) if ran.stdout.is_empty() => "it said nothing".to_owned(),
        _ if raw_control(&ran.stderr) => "a control character on standard error".to_owned(),
        _ => return None,
    };
    Some(format!("{why}\n  stdout: {}\n  stderr: {}", short(&ran.stdout), short(&ran.stderr)))
}

fn short(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(400)].escape_ascii().to_string()
}

/// Whether something in it would be obeyed by a terminal.
pub fn raw_control(bytes: &[u8]) -> bool {
    bytes.iter().any(|byte| (*byte < b' ' && !b"\n\t\r".contains(byte)) || *byte == 0x7f)
}

/// Tries a run in all cells.
pub fn check(report: &Report, what: &str, make: impl Fn(Cell) -> Run) -> Vec<Ran> {
    Cell::all().iter().map(|cell| check_one(report, what, &make(*cell))).collect()
}

/// Tries a run.
pub fn check_one(report: &Report, what: &str, run: &Run) -> Ran {
    report.tried();
    let ran = run.clone().measured().go();
    if let Some(wrong) = wrong(&ran) {
        report.fault(format!("{what}: {wrong}\n  {}", run.line()));
    }
    ran
}
