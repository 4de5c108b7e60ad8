//! instar has the image open, and a real qemu-io comes.

use crate::images::images;
use instar_testkit::holder::{UNSHARED_WRITES, Way, hold, wait_for_lock, wait_for_none};
use instar_testkit::oracle::{Oracle, newest, oracles};
use instar_testkit::place::skipped;
use instar_testkit::program::{Cell, program};
use instar_testkit::run::{End, Held, Run};
use std::path::Path;

/// Runs `instar info` so slowly that there is time to come between: each lock it takes keeps it waiting.
///
/// A tracer holds it up on its way out of the system call that takes the lock, so the lock is there.
fn slowly(cell: Cell, folder: &Path, words: &[&str]) -> Held {
    let tracer =
        ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fcntl", "-e", "inject=fcntl:delay_exit=1000000"];
    program().native(cell).folder(folder).arg("info").args(words).through(tracer).hold()
}

/// What a qemu-io of that version says when it opens the image and does nothing.
fn opens(oracle: &Oracle, way: Way, folder: &Path, name: &str) -> (End, String) {
    let run = oracle.io().folder(folder);
    let run = if way == Way::Reads { run.arg("-r") } else { run };
    let ran = run.args(["-f", "qcow2", "-c", "quit", name]).go();
    (ran.end, ran.err())
}

#[test]
fn what_instar_reads_no_one_writes() {
    if Run::new("sh").args(["-c", "strace -qq -e inject=fcntl:delay_exit=1 true"]).go().end != End::Code(0) {
        skipped("instar holds, qemu-io comes: strace is not here or may not trace");
        return;
    }
    let scratch = images();
    let folder = scratch.path();
    for oracle in [&oracles()[0], newest()] {
        let holder = hold(oracle, Way::Reads, "qcow2", folder, "base.qcow2");
        let wanted = [Way::Writes, Way::Reads].map(|way| opens(oracle, way, folder, "base.qcow2"));
        drop(holder);
        assert!(wait_for_none(&folder.join("base.qcow2")));
        for cell in Cell::all() {
            for words in [&["base.qcow2"][..], &["--backing-chain", "top.qcow2"]] {
                let held = slowly(*cell, folder, words);
                assert!(
                    wait_for_lock(&folder.join("base.qcow2"), UNSHARED_WRITES),
                    "instar takes no lock in {}",
                    cell.name()
                );
                let got = [Way::Writes, Way::Reads].map(|way| opens(oracle, way, folder, "base.qcow2"));
                // Without its tracer it goes on at its own speed.
                drop(held);
                assert!(wait_for_none(&folder.join("base.qcow2")), "instar never lets go in {}", cell.name());
                assert_eq!(got, wanted, "{words:?}, {}, qemu-io {}", cell.name(), oracle.version);
            }
        }
    }
}

#[test]
fn what_instar_shares_anyone_writes() {
    if Run::new("sh").args(["-c", "strace -qq -e inject=fcntl:delay_exit=1 true"]).go().end != End::Code(0) {
        skipped("instar shares, qemu-io comes: strace is not here or may not trace");
        return;
    }
    let scratch = images();
    for cell in Cell::all() {
        let held = slowly(*cell, scratch.path(), &["-U", "base.qcow2"]);
        // It may lock nothing at all, so there is nothing to wait for.
        let started = std::time::Instant::now();
        while started.elapsed() < std::time::Duration::from_secs(2) {
            let (end, err) = opens(newest(), Way::Writes, scratch.path(), "base.qcow2");
            assert_eq!(end, End::Code(0), "{}: {err}", cell.name());
        }
        drop(held);
    }
}
