//! The broker's locks beside those of a real qemu-io.
#![allow(missing_docs)]

use instar_broker::lock::{Claim, Conflict, INSPECT, Right, claim};
use instar_testkit::images::settle;
use instar_testkit::oracle::{Oracle, maker, oracles};
use instar_testkit::place::Scratch;
use instar_testkit::run::End;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// Using an image as a running machine does.
const EDIT: Claim = Claim {
    uses: &[Right::ConsistentRead, Right::Write, Right::Resize],
    unshares: &[Right::Write, Right::WriteUnchanged, Right::Resize],
};
/// Writing where anyone may write.
const SHARE: Claim = Claim { uses: &[Right::Write], unshares: &[] };

fn disk() -> Scratch {
    let scratch = Scratch::new("lock");
    maker().img().folder(scratch.path()).args(["create", "-q", "-f", "qcow2", "disk", "1M"]).must();
    settle(scratch.path());
    scratch
}

fn open(folder: &Path) -> OwnedFd {
    File::open(folder.join("disk")).expect("the image").into()
}

fn conflict(folder: &Path, wanted: Claim) -> Option<Conflict> {
    claim(&open(folder), wanted).expect("locks").err()
}

/// How qemu-io fares with the image.
fn visit(oracle: &Oracle, folder: &Path, words: &[&str]) -> (End, String) {
    let ran = oracle.io().folder(folder).args(words).args(["-f", "qcow2", "-c", "quit", "disk"]).go();
    (ran.end, ran.err())
}

#[test]
fn an_image_that_is_looked_at_can_be_read_but_not_written() {
    let scratch = disk();
    for oracle in oracles() {
        let folder = scratch.path();
        // What qemu-io says to itself in the same place.
        let reader = oracle.holding(folder, ["-r", "-f", "qcow2", "disk"]);
        let want = visit(oracle, folder, &[]);
        drop(reader);
        let held = claim(&open(folder), INSPECT).expect("locks").expect("nobody else has it");
        assert_eq!(visit(oracle, folder, &["-r"]), (End::Code(0), String::new()), "{}", oracle.version);
        let got = visit(oracle, folder, &[]);
        assert_eq!(got, want, "{}", oracle.version);
        assert!(got.1.contains("Failed to get \"write\" lock"), "{}", got.1);
        assert!(got.1.contains("Is another process using the image [disk]?"), "{}", got.1);
        assert_eq!(visit(oracle, folder, &["-U", "-r"]).0, End::Code(0), "{}", oracle.version);
        drop(held);
        assert_eq!(visit(oracle, folder, &[]), (End::Code(0), String::new()), "{}", oracle.version);
    }
}

#[test]
fn an_image_that_is_written_cannot_be_looked_at() {
    let scratch = disk();
    for oracle in oracles() {
        let folder = scratch.path();
        let writer = oracle.holding(folder, ["-f", "qcow2", "disk"]);
        let refused = conflict(folder, INSPECT).expect("it is in use");
        assert_eq!(refused, Conflict { right: Right::Write, in_use: true });
        assert_eq!(refused.to_string(), "Failed to get shared \"write\" lock");
        let refused = conflict(folder, SHARE).expect("others forbid it");
        assert_eq!(refused.to_string(), "Failed to get \"write\" lock");
        drop(writer);
        assert_eq!(conflict(folder, INSPECT), None, "{}", oracle.version);
        let reader = oracle.holding(folder, ["-r", "-f", "qcow2", "disk"]);
        assert_eq!(conflict(folder, INSPECT), None, "readers share, {}", oracle.version);
        assert_eq!(conflict(folder, EDIT), Some(Conflict { right: Right::Write, in_use: false }));
        drop(reader);
        // What was refused has left nothing behind.
        assert_eq!(visit(oracle, folder, &[]), (End::Code(0), String::new()), "{}", oracle.version);
    }
}

#[test]
fn claims_of_one_program_exclude_each_other_too() {
    let scratch = disk();
    let folder = scratch.path();
    let take = |wanted| claim(&open(folder), wanted).expect("locks");
    let (first, second) = (take(INSPECT).expect("free"), take(INSPECT).expect("shared"));
    assert_eq!(conflict(folder, EDIT).map(|c| c.to_string()).as_deref(), Some("Failed to get \"write\" lock"));
    drop(first);
    assert!(conflict(folder, EDIT).is_some(), "the other is still there");
    drop(second);
    let editor = take(EDIT).expect("free");
    for (wanted, words) in [
        (INSPECT, "Failed to get shared \"write\" lock"),
        (EDIT, "Failed to get \"write\" lock"),
        (Claim { uses: &[Right::WriteUnchanged], unshares: &[] }, "Failed to get \"write unchanged\" lock"),
        (Claim { uses: &[], unshares: &[Right::ConsistentRead] }, "Failed to get shared \"consistent read\" lock"),
        (Claim { uses: &[], unshares: &[Right::Resize] }, "Failed to get shared \"resize\" lock"),
    ] {
        assert_eq!(conflict(folder, wanted).expect("taken").to_string(), words);
    }
    assert_eq!(conflict(folder, Claim { uses: &[Right::ConsistentRead], unshares: &[] }), None);
    drop(editor);
    assert_eq!(conflict(folder, EDIT), None);
}

#[test]
fn a_claim_outlives_the_descriptor_it_was_made_with() {
    let scratch = disk();
    let folder = scratch.path();
    let file = open(folder);
    let held = claim(&file, INSPECT).expect("locks").expect("free");
    drop(file);
    assert!(conflict(folder, SHARE).is_some());
    // Closing another descriptor of the same file does not end it, as it would with older kinds of locks.
    drop(open(folder));
    assert!(conflict(folder, SHARE).is_some());
    drop(held);
    assert_eq!(conflict(folder, SHARE), None);
}

#[test]
fn nothing_waits_for_a_lock() {
    let scratch = disk();
    let _editor = claim(&open(scratch.path()), EDIT).expect("locks").expect("free");
    let started = Instant::now();
    assert!(conflict(scratch.path(), INSPECT).is_some());
    assert!(started.elapsed() < Duration::from_secs(1));
}
