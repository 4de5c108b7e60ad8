//! `snapshot`: the list, held against the real program.

use crate::against::{against, exact};
use instar_testkit::oracle::maker;
use instar_testkit::place::Scratch;
use instar_testkit::program::{Cell, program};
use instar_testkit::run::End;
use instar_tests::report::Report;
use std::fs;

const LINES: &[&str] = &[
    "-l some.qcow2",
    "some.qcow2",
    "-l none.qcow2",
    "-l plain.raw",
    "-l disk.vmdk",
    "-l nosuch",
    "-q -l some.qcow2",
    "-U -l some.qcow2",
    "-l outside.qcow2",
    "-l orphan.qcow2",
    "-U -c name some.qcow2",
    "-l --image-opts driver=qcow2,file.filename=some.qcow2",
    "-l overlay.qcow2",
];

fn make(scratch: &Scratch) {
    let img = |words: &[&str]| {
        maker().img().folder(scratch.path()).args(words).must();
    };
    for name in ["some.qcow2", "none.qcow2"] {
        img(&["create", "-q", "-f", "qcow2", name, "1M"]);
    }
    for name in ["one", "a name with blanks", "ümläute", "a-name-that-is-longer-than-its-column-in-the-table"] {
        img(&["snapshot", "-c", name, "some.qcow2"]);
    }
    img(&["create", "-q", "-f", "raw", "plain.raw", "1M"]);
    img(&["create", "-q", "-f", "vmdk", "disk.vmdk", "1M"]);
    img(&["create", "-q", "-f", "qcow2", "-o", "data_file=outside.data", "outside.qcow2", "1M"]);
    img(&["create", "-q", "-f", "qcow2", "-u", "-b", "missing.raw", "-F", "raw", "orphan.qcow2", "1M"]);
    img(&["create", "-q", "-f", "qcow2", "-b", "some.qcow2", "-F", "qcow2", "overlay.qcow2"]);
}

#[test]
fn every_list_is_the_real_programs() {
    let scratch = Scratch::new("snapshot");
    make(&scratch);
    let report = Report::new("cmd snapshot");
    against(&report, scratch.path(), "snapshot", LINES, exact, |_| true);
    report.end();
}

#[test]
fn the_native_list_is_json_as_well() {
    let scratch = Scratch::new("snapshot json");
    make(&scratch);
    for cell in Cell::all() {
        let run = |words: &[&str]| program().native(*cell).folder(scratch.path()).arg("snapshot").args(words).go();
        let ran = run(&["-l", "--output=json", "some.qcow2"]);
        let list: serde_json::Value = serde_json::from_str(&ran.out()).expect("JSON");
        assert_eq!(list.as_array().map(Vec::len), Some(4), "{}", ran.out());
        assert_eq!(list[1]["name"], "a name with blanks");
        assert!(list[0]["date"]["seconds"].as_u64() > Some(1_700_000_000), "{}", ran.out());
        let ran = run(&["-l", "--output=json", "none.qcow2"]);
        assert_eq!(ran.out(), "[\n]\n");
    }
}

#[test]
fn snapshots_are_taken_applied_and_deleted() {
    let scratch = Scratch::new("snapshot changes");
    make(&scratch);
    let path = scratch.path();
    for cell in Cell::all() {
        let run = |words: &[&str]| program().native(*cell).folder(path).arg("snapshot").args(words).go();
        let count = || run(&["-l", "some.qcow2"]).out().lines().count();
        let before = count();
        for (words, more) in [(["-c", "new"], 1), (["-a", "new"], 1), (["-d", "new"], 0)] {
            let ran = run(&[words[0], words[1], "some.qcow2"]);
            assert_eq!((ran.end, ran.err()), (End::Code(0), String::new()), "{words:?}");
            assert_eq!(count(), before + more, "{words:?}");
            maker().img().folder(path).args(["check", "-q", "some.qcow2"]).must();
        }
        let bytes = fs::read(path.join("some.qcow2")).expect("an image");
        let long = "n".repeat(256);
        for words in [["-c", ""], ["-c", &long], ["-a", "nobody"], ["-d", "nobody"]] {
            let ran = run(&[words[0], words[1], "some.qcow2"]);
            assert_eq!((ran.end, ran.err().lines().count()), (End::Code(1), 1), "{}", ran.err());
            assert!(fs::read(path.join("some.qcow2")).expect("an image") == bytes, "{words:?}");
        }
    }
}
