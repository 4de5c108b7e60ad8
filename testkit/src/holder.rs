//! A program that keeps an image open until it is told to let go.

use crate::oracle::Oracle;
use crate::run::Held;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a program may take to lock what it opens.
const PATIENCE: Duration = Duration::from_secs(20);

/// The byte that stands for consistent reads.
pub const READS: u64 = 100;
/// The byte that stands for writes.
pub const WRITES: u64 = 101;
/// The byte that stands for not sharing writes.
pub const UNSHARED_WRITES: u64 = 201;

/// How an image is kept open.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Way {
    /// For reading and writing.
    Writes,
    /// For reading.
    Reads,
}

/// Keeps `name` open with that version's qemu-io; returns when it has its locks.
pub fn hold(oracle: &Oracle, way: Way, format: &str, folder: &Path, name: &str) -> Held {
    let mut run = oracle.io().folder(folder);
    if way == Way::Reads {
        run = run.arg("-r");
    }
    let held = run.args(["-f", format, name]).hold();
    // The last byte that it locks: what it does, or what it will not share.
    let byte = match (way, format) {
        (Way::Writes, _) => WRITES,
        (Way::Reads, "raw") => READS,
        (Way::Reads, _) => UNSHARED_WRITES,
    };
    assert!(wait_for_lock(&folder.join(name), byte), "qemu-io {} takes no lock on {name}", oracle.version);
    held
}

/// Waits until someone holds a lock on a byte of a file.
pub fn wait_for_lock(path: &Path, byte: u64) -> bool {
    wait(path, |locks| locks.iter().any(|(first, last)| (*first..=*last).contains(&byte)))
}

/// Waits until nobody holds any lock on a file.
pub fn wait_for_none(path: &Path) -> bool {
    wait(path, |locks| locks.is_empty())
}

fn wait(path: &Path, enough: impl Fn(&[(u64, u64)]) -> bool) -> bool {
    let inode = std::fs::metadata(path).expect("the image").ino();
    let started = Instant::now();
    let mark = format!(":{inode} ");
    while started.elapsed() < PATIENCE {
        let locks = std::fs::read_to_string("/proc/locks").expect("/proc/locks");
        let ours = locks.lines().filter(|line| line.contains("OFDLCK") && line.contains(&mark));
        if enough(&ours.filter_map(range).collect::<Vec<_>>()) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

/// The bytes that a line of /proc/locks is about.
fn range(line: &str) -> Option<(u64, u64)> {
    let mut words = line.split_whitespace().rev();
    let (last, first) = (words.next()?, words.next()?);
    Some((first.parse().ok()?, last.parse().unwrap_or(u64::MAX)))
}
