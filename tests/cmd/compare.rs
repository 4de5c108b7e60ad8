//! `compare`, held against the real program.

use crate::against::{against, exact};
use instar_testkit::oracle::maker;
use instar_testkit::place::Scratch;
use instar_testkit::program::{Cell, program};
use instar_testkit::run::End;
use instar_tests::report::Report;
use std::fs;

const LINES: &[&str] = &[
    "a.raw a.raw",
    "-f raw -F raw a.raw b.raw",
    "-s a.raw b.raw",
    "a.raw longer.raw",
    "longer.raw a.raw",
    "-s a.raw longer.raw",
    "a.raw other.raw",
    "-q a.raw other.raw",
    "-q a.raw longer.raw",
    "hole.raw zeroes.raw",
    "-s hole.raw zeroes.raw",
    "-s zeroes.raw hole.raw",
    "a.raw shorter.raw",
    "a.raw nosuch",
    "nosuch a.raw",
    "-f qcow2 a.raw a.raw",
    "empty.qcow2 zeroed.qcow2",
    "-s empty.qcow2 zeroed.qcow2",
    "-s zeroed.qcow2 empty.qcow2",
    "zeroed.qcow2 written.qcow2",
    "written.qcow2 zeroed.qcow2",
    "-s written.qcow2 zeroed.qcow2",
    "written.qcow2 overlay.qcow2",
    "-s written.qcow2 overlay.qcow2",
    "packed.qcow2 written.qcow2",
    "-s packed.qcow2 written.qcow2",
    "written.vmdk written.qcow2",
    "empty.qcow2 hole.raw",
    "written.qcow2 broken.qcow2",
    "broken.qcow2 written.qcow2",
    "-U a.raw a.raw",
    "-T none a.raw a.raw",
    "--image-opts driver=raw,file.filename=a.raw driver=raw,file.filename=b.raw,offset=0",
];

fn make(scratch: &Scratch) {
    let folder = scratch.path();
    let a: Vec<u8> = (0..3u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 23) as u8).collect();
    let mut b = a.clone();
    b[1_500_000] ^= 1;
    let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).expect("a file");
    write("a.raw", &a);
    write("b.raw", &b);
    write("longer.raw", &[&a[..], &[0; 1 << 20]].concat());
    write("other.raw", &[&a[..], &[1; 1 << 20]].concat());
    write("shorter.raw", &a[..a.len() - 100]);
    write("zeroes.raw", &vec![0; 3 << 20]);
    fs::File::create(folder.join("hole.raw")).and_then(|file| file.set_len(3 << 20)).expect("a hole");
    let img = |words: &[&str]| maker().img().folder(folder).args(words).must();
    let io = |name: &str, commands: &[&str]| {
        let run = commands.iter().fold(maker().io().folder(folder), |run, command| run.args(["-c", command]));
        run.arg(name).must();
    };
    for name in ["empty.qcow2", "zeroed.qcow2", "written.qcow2"] {
        img(&["create", "-q", "-f", "qcow2", name, "3M"]);
    }
    io("zeroed.qcow2", &["write -z 0 64k", "write -P 0 128k 64k"]);
    io("written.qcow2", &["write -P 5 1M 200k", "write -P 6 2M 4k"]);
    img(&["create", "-q", "-f", "qcow2", "-b", "written.qcow2", "-F", "qcow2", "overlay.qcow2"]);
    io("overlay.qcow2", &["write -P 5 1M 100k"]);
    img(&["convert", "-c", "-O", "qcow2", "written.qcow2", "packed.qcow2"]);
    img(&["convert", "-O", "vmdk", "written.qcow2", "written.vmdk"]);
    fs::copy(folder.join("packed.qcow2"), folder.join("broken.qcow2")).expect("a copy");
    // The compressed clusters begin behind the tables.
    let mut bytes = fs::read(folder.join("broken.qcow2")).expect("an image");
    let len = bytes.len();
    bytes[0x50000..len.min(0x50400)].fill(0xff);
    write("broken.qcow2", &bytes);
}

#[test]
fn every_answer_is_the_real_programs() {
    let scratch = Scratch::new("compare");
    make(&scratch);
    let report = Report::new("cmd compare");
    against(&report, scratch.path(), "compare", LINES, exact, |_| true);
    report.end();
}

#[test]
fn the_native_answer_is_json_as_well() {
    let scratch = Scratch::new("compare json");
    make(&scratch);
    for cell in Cell::all() {
        let words = ["compare", "--output=json", "-f", "raw", "-F", "raw"];
        let run = |names: [&str; 2]| program().native(*cell).folder(scratch.path()).args(words).args(names).go();
        let ran = run(["a.raw", "other.raw"]);
        let want = "{\n    \"identical\": false,\n    \"first-mismatch-offset\": 3145728,\n    \
                    \"total-bytes-compared\": 3145728,\n    \"size-mismatch\": true\n}\n";
        assert_eq!((ran.out().as_str(), ran.end), (want, End::Code(1)), "{}", ran.err());
        let ran = run(["hole.raw", "zeroes.raw"]);
        let want =
            "{\n    \"identical\": true,\n    \"total-bytes-compared\": 3145728,\n    \"size-mismatch\": false\n}\n";
        assert_eq!((ran.out().as_str(), ran.end), (want, End::Code(0)), "{}", ran.err());
    }
}

#[test]
fn the_first_difference_is_told_whatever_the_lanes() {
    let scratch = Scratch::new("compare lanes");
    let (len, mut bytes) = (64 << 20, vec![7u8; 64 << 20]);
    fs::write(scratch.path().join("a.raw"), &bytes).expect("a file");
    for at in [60 << 20, (33 << 20) + 5, len - 1] {
        bytes[at] = 1;
    }
    fs::write(scratch.path().join("b.raw"), &bytes).expect("a file");
    let want = format!("Content mismatch at offset {}!\n", 33 << 20);
    for round in 0..20 {
        let cell = Cell::all()[round % Cell::all().len()];
        let ran = program()
            .native(cell)
            .folder(scratch.path())
            .args(["compare", "-f", "raw", "-F", "raw", "a.raw", "b.raw"])
            .go();
        assert_eq!((ran.out(), ran.end), (want.clone(), End::Code(1)), "{}", ran.err());
    }
}
