//! `snapshot`: the list, held against the real program.

use crate::against::{against, exact};
use instar_testkit::build::crowd::crowd;
use instar_testkit::oracle::maker;
use instar_testkit::place::Scratch;
use instar_testkit::program::{Cell, program};
use instar_testkit::run::End;
use instar_tests::report::Report;
use std::fs;
use std::path::Path;

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

/// What the disk begins with, as the real program reads it.
fn first_byte(folder: &Path) -> u8 {
    maker()
        .img()
        .folder(folder)
        .args(["dd", "-f", "qcow2", "-O", "raw", "bs=512", "count=1", "if=many", "of=out"])
        .must();
    fs::read(folder.join("out")).expect("a sector")[0]
}

#[test]
fn three_hundred_snapshots_of_one_image_keep_what_they_hold() {
    const MANY: usize = 300;
    let scratch = Scratch::new("snapshot many");
    let path = scratch.path();
    for cell in Cell::all() {
        maker().img().folder(path).args(["create", "-q", "-f", "qcow2", "many", "16M"]).must();
        let snapshot = |word: &str, name: usize| {
            let ran = program().native(*cell).folder(path).args(["snapshot", word, &format!("s{name}"), "many"]).go();
            assert_eq!((ran.end, ran.err()), (End::Code(0), String::new()), "{word} s{name}");
        };
        let listed = || {
            let told = maker().img().folder(path).args(["info", "--output=json", "many"]).must().out();
            let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
            told["snapshots"].as_array().map_or(0, Vec::len)
        };
        for name in 0..MANY {
            // Few of them hold something that is not in the one before.
            if name % 50 == 0 {
                let write = format!("write -q -P {} 0 1M", name / 50 + 1);
                maker().io().folder(path).args(["-f", "qcow2", "-c", &write, "many"]).must();
            }
            snapshot("-c", name);
        }
        assert_eq!(listed(), MANY);
        maker().img().folder(path).args(["check", "-q", "many"]).must();
        for name in [0, 149, 150, 299] {
            snapshot("-a", name);
            assert_eq!(usize::from(first_byte(path)), name / 50 + 1, "s{name}");
        }
        // Every other one first, so that what they share outlives some of its users.
        for name in (0..MANY).step_by(2) {
            snapshot("-d", name);
        }
        maker().img().folder(path).args(["check", "-q", "many"]).must();
        snapshot("-a", 101);
        assert_eq!((listed(), first_byte(path)), (MANY / 2, 3));
        for name in (1..MANY).step_by(2) {
            snapshot("-d", name);
        }
        maker().img().folder(path).args(["check", "-q", "many"]).must();
        assert_eq!((listed(), first_byte(path)), (0, 3));
    }
}

#[test]
fn an_image_has_as_many_snapshots_as_the_format_allows() {
    const MOST: u64 = 65_536;
    let scratch = Scratch::new("snapshot most");
    let path = scratch.path();
    let count = || {
        let bytes = fs::read(path.join("many")).expect("an image");
        u32::from_be_bytes([bytes[60], bytes[61], bytes[62], bytes[63]])
    };
    for cell in Cell::all() {
        crowd(&path.join("many"), MOST - 1).expect("an image");
        let snapshot =
            |words: &[&str]| program().native(*cell).folder(path).arg("snapshot").args(words).arg("many").go();
        assert_eq!(snapshot(&["-c", "last"]).end, End::Code(0));
        let check = || maker().img().folder(path).args(["check", "-q", "many"]).must();
        check();
        let listed = maker().img().folder(path).args(["snapshot", "-l", "many"]).must().out();
        assert_eq!((count(), listed.lines().count() as u64), (MOST as u32, MOST + 2));
        assert_eq!(snapshot(&["-l"]).out().lines().count() as u64, MOST + 2);
        let refused = snapshot(&["-c", "one more"]);
        assert_eq!((refused.end, count()), (End::Code(1), MOST as u32), "{}", refused.err());
        for words in [["-a", "s65535"], ["-d", "s1"], ["-d", "last"]] {
            assert_eq!(snapshot(&words).end, End::Code(0), "{words:?}");
        }
        check();
        assert_eq!(count(), MOST as u32 - 2);
    }
}
