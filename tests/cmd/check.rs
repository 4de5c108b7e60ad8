//! `check`, held against the real program.

use crate::against::{against, exact};
use crate::material::make;
use instar_testkit::place::Scratch;
use instar_testkit::program::{Cell, program};
use instar_tests::report::Report;
use std::fs;

const CHECK: &[&str] = &[
    "disk.qcow2",
    "--output=json disk.qcow2",
    "overlay.qcow2",
    "--output=json snap.qcow2",
    "packed.qcow2",
    "-q packed.qcow2",
    "-q --output=json packed.qcow2",
    "leaking.qcow2",
    "-q leaking.qcow2",
    "--output=json leaking.qcow2",
    "corrupt.qcow2",
    "--output=json corrupt.qcow2",
    "uncounted.qcow2",
    "--output=json uncounted.qcow2",
    "orphan.qcow2",
    "unmarked.qcow2",
    "-f raw disk.raw",
    "--output=json -f raw disk.raw",
    "nosuch",
    "-T none disk.qcow2",
    "-T nosuch disk.qcow2",
    "-U disk.qcow2",
    "-f qcow2 disk.raw",
    "--image-opts driver=qcow2,file.filename=disk.qcow2",
    "--output=json --image-opts driver=qcow2,file.filename=leaking.qcow2",
];

/// Images with something wrong in them: a count, a place, the place of counts.
fn spoil(scratch: &Scratch) {
    let read = || fs::read(scratch.path().join("disk.qcow2")).expect("an image");
    let word = |bytes: &[u8], at: usize| {
        usize::try_from(u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes")) & !(1 << 63))
            .expect("a place")
    };
    let (l1, counts) = (word(&read(), 40), word(&read(), 48));
    let (l2, block) = (word(&read(), l1), word(&read(), counts));
    let put = |name: &str, at: usize, word: u64| {
        let mut bytes = read();
        bytes[at..at + 8].copy_from_slice(&word.to_be_bytes());
        scratch.put(name, &bytes);
    };
    let clusters = read().len().div_ceil(1 << 16);
    put("leaking.qcow2", block + 2 * (clusters + 1), 1 << 48);
    let longer = fs::File::options().write(true).open(scratch.path().join("leaking.qcow2")).expect("an image");
    longer.set_len((clusters as u64 + 3) << 16).expect("a longer image");
    put("corrupt.qcow2", l2, 1 << 40);
    put("uncounted.qcow2", counts, block as u64 + 512);
}

#[test]
fn what_is_wrong_is_what_the_real_program_says() {
    let scratch = Scratch::new("check");
    make(&scratch);
    spoil(&scratch);
    let report = Report::new("cmd check");
    against(&report, scratch.path(), "check", CHECK, exact, |_| true);
    report.end();
}

#[test]
fn natively_all_is_told_of_every_layer() {
    let scratch = Scratch::new("check-native");
    make(&scratch);
    spoil(&scratch);
    for cell in Cell::all() {
        let ask = |words: &[&str]| program().native(*cell).folder(scratch.path()).arg("check").args(words).go();
        let fine = ask(&["--output=json", "overlay.qcow2", "--chain"]);
        assert_eq!(fine.code(), Some(0), "{}", fine.err());
        let told: serde_json::Value = serde_json::from_slice(&fine.stdout).expect("a document");
        for layer in told.as_array().expect("layers") {
            for key in ["corruptions", "leaks", "refcount-errors", "check-errors"] {
                assert_eq!(layer[key], 0, "{key}");
            }
        }
        assert_eq!(told[1]["filename"], "disk.qcow2");
        let corrupt = ask(&["corrupt.qcow2"]);
        assert_eq!(corrupt.code(), Some(2));
        assert!(corrupt.err().lines().all(|line| line.starts_with("instar: corrupt.qcow2: ")), "{}", corrupt.err());
        let leaking = ask(&["leaking.qcow2"]);
        assert_eq!((leaking.code(), leaking.out().contains("1 leaked clusters")), (Some(3), true));
        let before = fs::read(scratch.path().join("leaking.qcow2")).expect("an image");
        let refused = ask(&["-r", "all", "leaking.qcow2"]);
        assert_eq!((refused.code(), refused.stdout.is_empty()), (Some(1), true));
        assert_eq!(refused.err(), "instar: errors can be found, but not repaired\n");
        assert!(before == fs::read(scratch.path().join("leaking.qcow2")).expect("an image"));
    }
}
