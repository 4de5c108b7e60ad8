//! `rebase`: what is said and what is left, held against the real program; and what only the native face has.

use crate::against::{against, exact};
use instar_testkit::oracle::maker;
use instar_testkit::place::Scratch;
use instar_testkit::program::{Cell, program};
use instar_testkit::run::End;
use instar_tests::report::Report;
use std::path::Path;

/// What fails, and so leaves everything as it is.
const LINES: &[&str] = &[
    "-b nope -F raw top.qcow2",
    "-b base.raw -F qcow2 top.qcow2",
    "-b base.raw -F nofmt top.qcow2",
    "-u -b base.raw -F nofmt top.qcow2",
    "-b top.qcow2 -F qcow2 top.qcow2",
    "-u -b base.raw -F raw disk.vmdk",
    "-b base.raw -F raw disk.vdi",
    "-c -b base.raw -F raw disk.qed",
    "-t bad -b base.raw -F raw top.qcow2",
    "-T bad -b base.raw -F raw top.qcow2",
    "-b base.raw -F raw sub/top.qcow2",
    "-b nowhere.qcow2 -F qcow2 orphan.qcow2",
    "-b orphan.qcow2 -F qcow2 top.qcow2",
    "-b x nosuch",
    "-p -b nope -F raw top.qcow2",
];

/// What only later versions refuse.
const DEMANDED: &[&str] = &["-b base.raw top.qcow2", "-u -b base.raw top.qcow2"];

fn make(path: &Path) {
    let img = |words: &str| {
        maker().img().folder(path).args(words.split(' ')).must();
    };
    std::fs::create_dir(path.join("sub")).expect("a folder");
    img("create -q -f raw base.raw 1M");
    img("create -q -f qcow2 mid.qcow2 2M");
    img("create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2");
    img("create -q -f qcow2 -b ../mid.qcow2 -F qcow2 sub/top.qcow2");
    img("create -q -f qcow2 -u -b missing.raw -F raw orphan.qcow2 1M");
    img("create -q -f vmdk disk.vmdk 1M");
    img("create -q -f vdi disk.vdi 1M");
    img("create -q -f qed disk.qed 1M");
    maker().io().folder(path).args(["-c", "write -P 7 0 128k", "-c", "write -P 9 1M 64k", "mid.qcow2"]).must();
}

#[test]
fn every_failure_is_told_as_by_the_real_program() {
    let scratch = Scratch::new("rebase");
    make(scratch.path());
    let report = Report::new("cmd rebase");
    against(&report, scratch.path(), "rebase", LINES, exact, |_| true);
    against(&report, scratch.path(), "rebase", DEMANDED, exact, |oracle| oracle.version != "5.2");
    report.end();
}

#[test]
fn images_read_as_before_and_the_answer_is_json_as_well() {
    for cell in Cell::all() {
        let scratch = Scratch::new("rebase native");
        make(scratch.path());
        let run = |words: &[&str]| program().native(*cell).folder(scratch.path()).arg("rebase").args(words).go();
        let same = || maker().img().folder(scratch.path()).args(["compare", "top.qcow2", "mid.qcow2"]).must();
        let ran = run(&["-b", "base.raw", "-F", "raw", "--output=json", "top.qcow2"]);
        let told: serde_json::Value = serde_json::from_str(&ran.out()).expect("JSON");
        assert_eq!((told["mode"].as_str(), told["bytes_copied"].as_u64()), (Some("safe"), Some(192 << 10)), "{told}");
        assert_eq!(told["new_backing"], "base.raw");
        same();
        let ran = run(&["-f", "qcow2", "-b", "", "--output=json", "top.qcow2"]);
        // What is below is raw, and nobody has said so.
        assert_eq!(ran.end, End::Code(1), "{}", ran.out());
        let ran = run(&["-u", "-b", "mid.qcow2", "-F", "qcow2", "top.qcow2"]);
        assert_eq!((ran.end, ran.out().as_str()), (End::Code(0), "Image rebased.\n"));
        let ran = run(&["-b", "", "top.qcow2"]);
        assert_eq!((ran.end, ran.out().as_str()), (End::Code(0), "Image detached.\n"), "{}", ran.err());
        same();
    }
}
