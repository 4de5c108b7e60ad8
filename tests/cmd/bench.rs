//! `bench`: its lines held against the real program's; how long it takes is its own business.

use crate::against::against;
use instar_testkit::oracle::maker;
use instar_testkit::place::Scratch;
use instar_testkit::program::{Cell, program};
use instar_testkit::run::End;
use instar_tests::report::Report;

const LINES: &[&str] = &[
    "-c 5 -f qcow2 disk.qcow2",
    "-c 5 -d 3 disk.qcow2",
    "-q -c 5 disk.qcow2",
    "-c 3 -s 1000 -S 3 disk.qcow2",
    "-c 2 -o 512 disk.qcow2",
    "-c 2 -o 2M disk.qcow2",
    "-c 300 disk.qcow2",
    "-c 3 -o 1044480 disk.qcow2",
    "-c 3 -o 1045000 disk.qcow2",
    "-c 4 -S 600k disk.qcow2",
    "-c 1 -s 2M disk.qcow2",
    "-c 3 -s 64k packed.qcow2",
    "-c 3 -f raw plain.raw",
    "-c 3 -t none -f raw plain.raw",
    "-i native disk.qcow2",
    "-n -c 1 disk.qcow2",
    "-i native -t none -c 3 disk.qcow2",
    "-U -c 1 disk.qcow2",
    "-c 1 nosuch",
    "-c 1 --pattern=7 disk.qcow2",
    "-c 1 --no-drain disk.qcow2",
];

fn make(scratch: &Scratch) {
    let img = |words: &[&str]| {
        maker().img().folder(scratch.path()).args(words).must();
    };
    img(&["create", "-q", "-f", "qcow2", "disk.qcow2", "1M"]);
    img(&["create", "-q", "-f", "raw", "plain.raw", "1M"]);
    maker().io().folder(scratch.path()).args(["-c", "write -P 7 0 300k", "disk.qcow2"]).must();
    img(&["convert", "-c", "-O", "qcow2", "disk.qcow2", "packed.qcow2"]);
    img(&["create", "-q", "-f", "qcow2", "empty.qcow2", "0"]);
}

/// Without the time.
fn timeless(answer: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(answer);
    let time = regex_lite::Regex::new("completed in [0-9.]+ seconds").expect("a pattern");
    time.replace_all(&text, "completed in <TIME>").into_owned().into_bytes()
}

#[test]
fn every_line_is_the_real_programs() {
    let scratch = Scratch::new("bench");
    make(&scratch);
    let report = Report::new("cmd bench");
    against(&report, scratch.path(), "bench", LINES, timeless, |_| true);
    // Older ones die of a division by zero here.
    against(&report, scratch.path(), "bench", &["-c 2 empty.qcow2"], timeless, |oracle| oracle.since("10.0"));
    report.end();
}

#[test]
fn the_native_answer_is_json_as_well() {
    let scratch = Scratch::new("bench json");
    make(&scratch);
    for cell in Cell::all() {
        let words = ["bench", "--output=json", "-c", "100", "-d", "2", "disk.qcow2"];
        let ran = program().native(*cell).folder(scratch.path()).args(words).must();
        let told: serde_json::Value = serde_json::from_str(&ran.out()).expect("JSON");
        assert_eq!((&told["count"], &told["depth"], &told["format"]), (&100.into(), &2.into(), &"qcow2".into()));
        assert!(told["elapsed-seconds"].as_f64() > Some(0.0), "{}", ran.out());
        let ran = program().native(*cell).folder(scratch.path()).args(["bench", "-w", "disk.qcow2"]).go();
        assert_eq!((ran.end, ran.err().lines().count()), (End::Code(1), 1), "{}", ran.err());
    }
}
