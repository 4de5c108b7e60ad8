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
    "-w -c 5 -f qcow2 disk.qcow2",
    "-w -c 5 -d 3 --pattern 7 disk.qcow2",
    "-w -q -c 5 disk.qcow2",
    "-w -c 3 -s 1000 -S 3 -o 77 packed.qcow2",
    "-w -c 2 -o 2M disk.qcow2",
    "-w -c 3 -o 1044480 disk.qcow2",
    "-w -c 1 -s 2M disk.qcow2",
    "-w -c 2 -o 1045000 disk.qcow2",
    "-w -c 4 -S 600k disk.qcow2",
    "-w -c 3 -f raw plain.raw",
    "-w -c 3 plain.raw",
    "-w -q -c 3 plain.raw",
    "-w -c 3 -t none -f raw plain.raw",
    "-w -c 3 -t directsync disk.qcow2",
    "-w -c 3 -t writethrough disk.qcow2",
    "-w -c 3 -t unsafe disk.qcow2",
    "-w -n -c 1 disk.qcow2",
    "-w -i native -t none -c 3 disk.qcow2",
    "-w -d 1 -c 5 --flush-interval 2 disk.qcow2",
    "-w -d 1 -c 5 --flush-interval 2 --no-drain disk.qcow2",
    "-w -d 2 -c 5 --flush-interval 1 disk.qcow2",
    "-w -d 2 -c 5 --flush-interval 2 -o 2M disk.qcow2",
    "-c 5 -d 1 --flush-interval 2 disk.qcow2",
    "-w -U -c 1 disk.qcow2",
    "-w -U -c 1 nosuch",
    "-w -c 1 nosuch",
    "-w -c 1 .",
    "-w -c 1 orphan.qcow2",
    "-w -c 1 -f bochs disk.qcow2",
    "-w -c 1 -f dmg disk.qcow2",
    "-w -c 1 -f nosuch disk.qcow2",
    "-w -c 1 --image-opts driver=qcow2,file.filename=disk.qcow2,read-only=on",
    "-w -c 1 --image-opts driver=qcow2,file.filename=disk.qcow2,force-share=on",
    "-w -c 1 --image-opts driver=raw,file.filename=plain.raw,size=2k",
    "-w -c 1 --image-opts driver=raw,file.filename=plain.raw,size=8k,offset=4k",
    "-w -c 1 --image-opts driver=qcow2,file.filename=disk.qcow2,nosuch=1",
    "-w -c 1 stream.vmdk",
    "-w -c 1 -s 64k -o 64k packed.qcow2",
    "-w -c 1 -o 3 -s 5 overlay.qcow2",
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
    img(&["create", "-q", "-f", "qcow2", "-u", "-b", "missing.raw", "-F", "raw", "orphan.qcow2", "1M"]);
    img(&["create", "-q", "-f", "qcow2", "-b", "plain.raw", "-F", "raw", "overlay.qcow2", "2M"]);
    img(&["create", "-q", "-f", "vmdk", "-o", "subformat=streamOptimized", "stream.vmdk", "1M"]);
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
        let words =
            ["bench", "--output=json", "-w", "--pattern=7", "-c=200", "-d=2", "--flush-interval=50", "disk.qcow2"];
        let words = words.iter().flat_map(|word| {
            if word.starts_with("-c") || word.starts_with("-d=") { word.split('=').collect() } else { vec![*word] }
        });
        let ran = program().native(*cell).folder(scratch.path()).args(words).must();
        let told: serde_json::Value = serde_json::from_str(&ran.out()).expect("JSON");
        assert_eq!((&told["write"], &told["pattern"], &told["flush-interval"]), (&true.into(), &7.into(), &50.into()));
        assert_eq!(told["flushes-issued"], 4, "{}", ran.out());
        let told = maker().io().folder(scratch.path()).args(["-c", "read -P 7 0 800k", "disk.qcow2"]).must();
        assert!(!told.out().contains("failed"), "{}", told.out());
        let refuse = |words: &[&str], why: &str| {
            let ran = program().native(*cell).folder(scratch.path()).arg("bench").args(words).go();
            assert_eq!((ran.end, ran.err()), (End::Code(1), format!("instar: {why}\n")));
        };
        refuse(
            &["-w", "-U", "disk.qcow2"],
            "Could not open 'disk.qcow2': force-share=on can only be used with read-only images",
        );
        refuse(&["-w", "-c", "1", "-o", "1M", "disk.qcow2"], "Failed request: Input/output error");
        refuse(&["-w", "-f", "dmg", "disk.qcow2"], "Could not open 'disk.qcow2': Image is read-only");
    }
}
