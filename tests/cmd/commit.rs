//! `commit`: what is said and what is left, held against the real program; and what only the native face has.

use crate::against::{against, exact};
use instar_testkit::oracle::maker;
use instar_testkit::place::Scratch;
use instar_testkit::program::{Cell, program};
use instar_testkit::run::End;
use instar_testkit::twin::{create, scribble};
use instar_tests::report::Report;
use std::path::Path;

/// What fails, and so leaves everything as it is.
const LINES: &[&str] = &[
    "base.qcow2",
    "-b nope top.qcow2",
    "-b top.qcow2 top.qcow2",
    "-p -b nope top.qcow2",
    "-b ../base.qcow2 sub/top.qcow2",
    "orphan.qcow2",
    "over.qcow2",
    "nosuch",
    "-t bad top.qcow2",
    "-r bad top.qcow2",
];

fn make(path: &Path) {
    let img = |words: &str| {
        maker().img().folder(path).args(words.split(' ')).must();
    };
    std::fs::create_dir(path.join("sub")).expect("a folder");
    img("create -q -f qcow2 base.qcow2 1M");
    img("create -q -f qcow2 -b base.qcow2 -F qcow2 mid.qcow2 2M");
    img("create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2 3M");
    img("create -q -f qcow2 -b ../mid.qcow2 -F qcow2 sub/top.qcow2");
    img("create -q -f qcow2 -u -b missing.raw -F raw orphan.qcow2 1M");
    img("create -q -f vdi disk.vdi 1M");
    img("create -q -f qcow2 -b disk.vdi -F vdi over.qcow2 2M");
    maker().io().folder(path).args(["-c", "write -P 7 0 128k", "mid.qcow2"]).must();
    maker().io().folder(path).args(["-c", "write -P 9 2M 64k", "top.qcow2"]).must();
}

#[test]
fn every_failure_is_told_as_by_the_real_program() {
    let scratch = Scratch::new("commit");
    make(scratch.path());
    let report = Report::new("cmd commit");
    against(&report, scratch.path(), "commit", LINES, exact, |_| true);
    report.end();
}

#[test]
fn images_read_as_before_and_the_answer_is_json_as_well() {
    for cell in Cell::all() {
        let scratch = Scratch::new("commit native");
        make(scratch.path());
        let img = |words: &[&str]| maker().img().folder(scratch.path()).args(words).must();
        img(&["convert", "-O", "raw", "top.qcow2", "before.raw"]);
        let run = |words: &[&str]| program().native(*cell).folder(scratch.path()).arg("commit").args(words).go();
        let ran = run(&["--output=json", "top.qcow2"]);
        let told: serde_json::Value = serde_json::from_str(&ran.out()).expect("JSON");
        assert_eq!((told["bytes_committed"].as_u64(), told["clusters_committed"].as_u64()), (Some(65536), Some(1)));
        assert_eq!((told["backing"].as_str(), told["overlay_clusters_cleared"].as_u64()), (Some("mid.qcow2"), Some(1)));
        for image in ["top.qcow2", "mid.qcow2"] {
            img(&["compare", "-f", "raw", "-F", "qcow2", "before.raw", image]);
        }
        let ran = run(&["-b", "base.qcow2", "top.qcow2"]);
        assert_eq!((ran.end, ran.out().as_str()), (End::Code(0), "Image committed.\n"), "{}", ran.err());
        img(&["compare", "-f", "raw", "-F", "qcow2", "before.raw", "base.qcow2"]);
    }
}

/// What is below stays what the image was made on, and the image has nothing of its own afterwards.
#[test]
fn disks_of_one_family_go_below_and_are_emptied() {
    for (number, kind) in ["vmdk", "vpc", "vhdx"].into_iter().enumerate() {
        let scratch = Scratch::new("commit families");
        let path = scratch.path();
        let cell = Cell::all()[number % Cell::all().len()];
        let must = |words: &str| {
            let ran = program().native(cell).folder(path).args(words.split(' ')).go();
            assert_eq!(ran.end, End::Code(0), "{kind}: {words}: {}{}", ran.out(), ran.err());
            ran.out()
        };
        for (seed, name) in [(5, "base"), (6, "new")] {
            create(path, &format!("-f raw {name}.raw 4177920"));
            scribble(path, "raw", &format!("{name}.raw"), 4_177_920, seed, 8);
        }
        must(&format!("convert -f raw -O {kind} base.raw base"));
        must(&format!("create -q -f {kind} -b base -F {kind} over"));
        let empty = std::fs::metadata(path.join("over")).expect("a file").len();
        must(&format!("convert -n -f raw -O {kind} new.raw over"));
        let told: serde_json::Value = serde_json::from_str(&must("commit --output=json over")).expect("JSON");
        assert!(told["overlay_clusters_cleared"].as_u64().is_some_and(|count| count > 0), "{kind}: {told}");
        assert!(std::fs::metadata(path.join("over")).expect("a file").len() <= empty, "{kind}");
        for image in ["base", "over"] {
            assert!(must(&format!("compare -f raw new.raw {image}")).contains("identical"), "{kind}");
            must(&format!("check {image}"));
        }
        let oracle = |image: &str| {
            let words = ["compare", "-f", "raw", "-F", kind, "new.raw", image];
            maker().img().folder(path).args(words).go().end
        };
        // qemu-img does not know that the others stand on disks.
        assert!(oracle("base") == End::Code(0) && (kind != "vmdk" || oracle("over") == End::Code(0)), "{kind}");
    }
}
