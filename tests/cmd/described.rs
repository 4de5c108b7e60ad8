//! What the user says of the files that an image consists of counts for every verb that reads it.

use crate::against::{against, exact, making};
use instar_testkit::oracle::maker;
use instar_testkit::place::Scratch;
use instar_testkit::program::{Cell, program};
use instar_testkit::run::Run;
use instar_tests::report::Report;

/// An image whose bytes lie beside it, other bytes, and an overlay with another file to stand upon.
fn make(scratch: &Scratch) {
    let img = |words: &[&str]| {
        maker().img().folder(scratch.path()).args(words).must();
    };
    let put = |name: &str, byte: u8, len: usize| {
        let mut bytes = vec![0; 1 << 20];
        bytes[..len].fill(byte);
        scratch.put(name, &bytes);
    };
    put("base.raw", 1, 64 << 10);
    put("other.raw", 2, 128 << 10);
    img(&["create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "top.qcow2"]);
    img(&["create", "-q", "-f", "qcow2", "-o", "data_file=far.raw,data_file_raw=on", "far.qcow2", "1M"]);
    put("far.raw", 3, 64 << 10);
    put("near.raw", 4, 192 << 10);
    img(&["create", "-q", "-f", "qcow2", "-o", "data_file=json-{}", "odd.qcow2", "1M"]);
    let mut odd = std::fs::read(scratch.path().join("odd.qcow2")).expect("an image");
    let name = odd.windows(7).position(|bytes| bytes == b"json-{}").expect("its name");
    odd[name + 4] = b':';
    scratch.put("odd.qcow2", &odd);
}

const SAID: &[&str] = &[
    "driver=qcow2,file.filename=top.qcow2,backing.driver=raw,backing.file.filename=other.raw",
    "driver=qcow2,file.filename=top.qcow2,backing.driver=raw,backing.file.filename=nosuch.raw",
    "driver=qcow2,file.filename=top.qcow2,data-file.filename=near.raw",
    "driver=qcow2,file.filename=far.qcow2,data-file.filename=near.raw",
    "driver=qcow2,file.filename=far.qcow2,data-file.driver=raw,data-file.file.filename=near.raw",
    "driver=qcow2,file.filename=far.qcow2,data-file.filename=nosuch.raw",
    "driver=qcow2,file.filename=far.qcow2,data-file.filename=near.raw,data-file.nosuch=1",
    "driver=qcow2,file.filename=far.qcow2,data-file.driver=raw,data-file.nosuch=1,data-file.file.filename=near.raw",
    "driver=qcow2,file.filename=far.qcow2,data-file.driver=null-co,data-file.size=1M",
];

#[test]
fn what_is_said_of_files_counts_for_every_verb() {
    let scratch = Scratch::new("described");
    make(&scratch);
    let report = Report::new("cmd described");
    let lines = |words: &str| SAID.iter().map(|said| format!("{words} --image-opts {said}")).collect::<Vec<_>>();
    for words in ["map --output=json", "measure -O qcow2", "check", "snapshot -l"] {
        let (verb, words) = words.split_once(' ').unwrap_or((words, ""));
        let lines = lines(words);
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        against(&report, scratch.path(), verb, &lines, exact, |_| true);
    }
    let lines = lines("-O raw").into_iter().map(|line| line + " >").collect::<Vec<_>>();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    making(&report, scratch.path(), "convert", &lines, None, |_| true);
    report.end();
}

/// The bytes that a program reads of an image, seen from a folder.
fn content(run: Run, scratch: &Scratch, folder: &str, image: &str) -> Option<u8> {
    let made = scratch.path().join("made");
    let _ = std::fs::remove_file(&made);
    let folder = scratch.path().join(folder);
    run.folder(&folder).args(["convert", "-O", "raw", image]).arg(&made).go();
    std::fs::read(&made).ok().and_then(|bytes| bytes.first().copied())
}

#[test]
fn data_files_are_named_as_files() {
    let scratch = Scratch::new("described-names");
    make(&scratch);
    let report = Report::new("cmd described names");
    let lines = &["odd.qcow2", "-f qcow2 odd.qcow2"];
    against(&report, scratch.path(), "check", lines, exact, |_| true);
    report.end();
    std::fs::create_dir(scratch.path().join("sub")).expect("a folder");
    std::fs::copy(scratch.path().join("near.raw"), scratch.path().join("sub/far.raw")).expect("a copy");
    // qemu-img looks where it is itself.
    assert_eq!(content(maker().img(), &scratch, "sub", "../far.qcow2"), Some(4));
    for cell in Cell::all() {
        assert_eq!(content(program().quirky("10.0.2", *cell), &scratch, "sub", "../far.qcow2"), Some(4));
        // We look where the image is, and never elsewhere.
        assert_eq!(content(program().native(*cell), &scratch, "sub", "../far.qcow2"), Some(3));
        assert_eq!(content(program().native(*cell), &scratch, ".", "far.qcow2"), Some(3));
    }
}

/// Images of which a table cannot be read: the sectors of a small one, in their order.
const LOST: &[(&str, u64)] = &[("counts", 256), ("second level", 512), ("data", 640)];

#[test]
fn what_cannot_be_read_is_a_finding() {
    let scratch = Scratch::new("described-lost");
    scratch.put("disk.raw", vec![5; 1 << 20]);
    maker().img().folder(scratch.path()).args(["convert", "-O", "qcow2", "disk.raw", "disk.qcow2"]).must();
    let report = Report::new("cmd described lost");
    let fault = |sector: u64| {
        format!(
            r#"json:{{"driver":"qcow2","file":{{"driver":"blkdebug","inject-error":[{{"event":"none","iotype":"read","sector":{sector},"errno":5}}],"image":{{"driver":"file","filename":"disk.qcow2"}}}}}}"#
        )
    };
    let lines: Vec<String> = LOST.iter().map(|(_, sector)| fault(*sector)).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    against(&report, scratch.path(), "check", &lines, exact, |_| true);
    report.end();
    for cell in Cell::all() {
        let ran = program().native(*cell).folder(scratch.path()).args(["check", &fault(512)]).go();
        assert_eq!(ran.code(), Some(1));
        assert!(ran.err().contains("Input/output error at offset 262144 of 'disk.qcow2'"), "{}", ran.err());
    }
}
