//! A real qemu-io has the image open, and instar comes.

use crate::images::images;
use instar_testkit::holder::{Way, hold};
use instar_testkit::images::settle;
use instar_testkit::oracle::oracles;
use instar_testkit::program::{Cell, program};
use instar_testkit::run::End;
use instar_tests::report::{Report, difference};

/// What is held, its format, and what is asked of which image.
const CASES: &[(&str, &str, &[&str])] = &[
    ("base.qcow2", "qcow2", &["base.qcow2"]),
    ("base.qcow2", "qcow2", &["--output=json", "base.qcow2"]),
    ("base.qcow2", "qcow2", &["-U", "base.qcow2"]),
    ("base.qcow2", "qcow2", &["--force-share", "--output=json", "base.qcow2"]),
    ("base.qcow2", "qcow2", &["-f", "raw", "base.qcow2"]),
    ("base.qcow2", "qcow2", &["top.qcow2"]),
    ("base.qcow2", "qcow2", &["--backing-chain", "top.qcow2"]),
    ("base.qcow2", "qcow2", &["--backing-chain", "-U", "top.qcow2"]),
    ("top.qcow2", "qcow2", &["--backing-chain", "top.qcow2"]),
    ("top.qcow2", "qcow2", &["base.qcow2"]),
    ("base.qcow2", "qcow2", &["./base.qcow2"]),
    ("base.qcow2", "qcow2", &["--image-opts", "driver=qcow2,file.filename=base.qcow2"]),
    ("base.qcow2", "qcow2", &["--image-opts", "driver=qcow2,file.locking=off,file.filename=base.qcow2"]),
    ("disk.vmdk", "vmdk", &["disk.vmdk"]),
    ("disk.qed", "qed", &["disk.qed"]),
    ("disk.vdi", "vdi", &["disk.vdi"]),
    ("disk.vdi", "raw", &["disk.vdi"]),
];

/// The answers while the image is held in that way, beside those of qemu-img.
fn compare(title: &'static str, way: Way) {
    let report = Report::new(title);
    let scratch = images();
    for oracle in oracles() {
        for (held, format, words) in CASES {
            let holder = hold(oracle, way, format, scratch.path(), held);
            settle(scratch.path());
            let want = oracle.img().folder(scratch.path()).arg("info").args(*words).go();
            for cell in Cell::all() {
                report.tried();
                let run = program().quirky(&oracle.version, *cell).folder(scratch.path()).arg("info").args(*words);
                let got = run.go();
                if (&got.stdout, &got.stderr, got.end) != (&want.stdout, &want.stderr, want.end) {
                    let out = difference("stdout", &want.stdout, &got.stdout);
                    let err = difference("stderr", &want.stderr, &got.stderr);
                    report.fault(format!("{way:?} {held} as {format}: {}\n{out}{err}", run.line()));
                }
            }
            drop(holder);
        }
    }
    report.end();
}

#[test]
fn what_someone_writes_is_refused_as_qemu_img_refuses_it() {
    compare("locks writer", Way::Writes);
}

#[test]
fn readers_share_with_readers() {
    compare("locks reader", Way::Reads);
}

#[test]
fn the_instar_face_names_the_lock_too() {
    let report = Report::new("locks native");
    let scratch = images();
    let holder = hold(oracles().last().expect("an oracle"), Way::Writes, "qcow2", scratch.path(), "base.qcow2");
    for cell in Cell::all() {
        report.tried();
        let ran = program().native(*cell).folder(scratch.path()).args(["info", "base.qcow2"]).go();
        let err = ran.err();
        let substance = ["Failed to get shared \"write\" lock", "Is another process using the image [base.qcow2]?"];
        if ran.end != End::Code(1) || !substance.iter().all(|words| err.contains(words)) || !ran.stdout.is_empty() {
            report.fault(format!("{}: {:?} {err}", cell.name(), ran.end));
        }
        let shared = program().native(*cell).folder(scratch.path()).args(["info", "-U", "base.qcow2"]).go();
        if shared.end != End::Code(0) {
            report.fault(format!("{} -U: {:?} {}", cell.name(), shared.end, shared.err()));
        }
    }
    drop(holder);
    let after = program().native(Cell::Process).folder(scratch.path()).args(["info", "base.qcow2"]).go();
    assert_eq!(after.end, End::Code(0), "the lock is gone: {}", after.err());
    report.end();
}

#[test]
fn what_someone_uses_is_not_changed() {
    let report = Report::new("locks changed");
    let scratch = images();
    for oracle in oracles() {
        for way in [Way::Writes, Way::Reads] {
            for (held, format) in [("disk.qed", "qed"), ("disk.qed", "raw")] {
                let before = std::fs::read(scratch.path().join(held)).expect("an image");
                let holder = hold(oracle, way, "qed", scratch.path(), held);
                settle(scratch.path());
                let words = ["resize", "-f", format, held, "+1M"];
                let want = oracle.img().folder(scratch.path()).args(words).go();
                for cell in Cell::all() {
                    report.tried();
                    let got = program().quirky(&oracle.version, *cell).folder(scratch.path()).args(words).go();
                    if (&got.stdout, &got.stderr, got.end) != (&want.stdout, &want.stderr, want.end) {
                        let err = difference("stderr", &want.stderr, &got.stderr);
                        report.fault(format!("{way:?} {held} as {format}\n{err}"));
                    }
                }
                drop(holder);
                assert!(std::fs::read(scratch.path().join(held)).expect("an image") == before);
            }
        }
    }
    report.end();
}
