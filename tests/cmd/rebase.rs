//! `rebase`: what is said and what is left, held against the real program; and what only the native face has.

use crate::against::{against, exact};
use instar_testkit::images::each;
use instar_testkit::oracle::maker;
use instar_testkit::place::Scratch;
use instar_testkit::program::{Cell, program};
use instar_testkit::random::Dice;
use instar_testkit::run::End;
use instar_testkit::twin::{create, scribble};
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
    "-u -b other.vmdk -F vmdk over.vmdk",
    "-u -b disk.vpc -F vpc disk.vpc",
    "-u -b disk.vhdx -F vhdx disk.vhdx",
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
    img("create -q -f vmdk -b disk.vmdk -F vmdk over.vmdk");
    img("create -q -f vpc disk.vpc 1M");
    img("create -q -f vhdx disk.vhdx 1M");
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

/// Formats that stand on others, and those that do not.
const OVER: &[&str] = &[
    "qcow2 -o cluster_size=512",
    "qcow2 -o cluster_size=2M",
    "qcow2 -o extended_l2=on",
    "qcow2 -o compat=0.10",
    "qcow2",
    "qed",
];
const LOWEST: &[&str] = &["raw", "qcow2", "vdi", "vmdk", "qed", "qcow"];

fn format(kind: &str) -> &str {
    kind.split(' ').next().unwrap_or(kind)
}

/// Puts layers that chance has drawn upon each other; their names and formats, lowest first.
fn pile(path: &Path, dice: &mut Dice, letter: char) -> Vec<(String, &'static str)> {
    let mut all: Vec<(String, &'static str)> = Vec::new();
    for depth in 0..2 + dice.below(2) {
        let kinds = if depth == 0 { LOWEST } else { OVER };
        let kind = kinds[dice.below(kinds.len() as u64) as usize];
        let (name, size) = (format!("{letter}{depth}"), (1 + dice.below(4)) * (512 << 10));
        let below = all.last().map_or(String::new(), |(name, format)| format!("-b {name} -F {format} "));
        create(path, &format!("-f {kind} {below}{name} {size}"));
        scribble(path, format(kind), &name, size, dice.below(1 << 30), 5);
        all.push((name, format(kind)));
    }
    all
}

#[test]
fn chains_read_as_before_and_are_sound_on_their_new_base() {
    let report = Report::new("cmd rebase chains");
    let seeds: Vec<u64> = (0..16).collect();
    each(&seeds, |_, seed| {
        let scratch = Scratch::new("rebase chains");
        let (path, mut dice) = (scratch.path(), Dice::new(*seed));
        let (old, new) = (pile(path, &mut dice, 'a'), pile(path, &mut dice, 'b'));
        let ((top, of), (base, as_what)) = (old.last().expect("a layer"), new.last().expect("a layer"));
        let img = |words: &[&str]| maker().img().folder(path).args(words).go();
        let raw = |to: &str| assert_eq!(img(&["convert", "-f", of, "-O", "raw", top, to]).end, End::Code(0));
        raw("before");
        let words: Vec<&str> = match dice.below(4) {
            0 => vec!["rebase", "-f", of, "-b", "", top],
            1 => vec!["commit", "-f", of, "-d", top],
            _ => vec!["rebase", "-f", of, "-b", base, "-F", as_what, top],
        };
        let cell = Cell::all()[*seed as usize % Cell::all().len()];
        let ran = program().quirky("10.0.2", cell).folder(path).args(&words).go();
        report.tried();
        // Not every format can become longer.
        let is_refused = words[0] == "commit" && ran.err().contains("Operation not supported");
        if ran.end != End::Code(0) && !is_refused {
            report.fault(format!("{seed}: {words:?}: {}", ran.err()));
            return;
        }
        raw("after");
        if std::fs::read(path.join("before")).expect("a file") != std::fs::read(path.join("after")).expect("a file") {
            report.fault(format!("{seed}: {words:?} of {old:?} and {new:?}: it reads as something else"));
        }
        for (name, format) in old.iter().chain(&new).filter(|(_, format)| ["qcow2", "qed", "vdi"].contains(format)) {
            let ran = img(&["check", "-f", format, name]);
            if ran.end != End::Code(0) {
                report.fault(format!("{seed}: {words:?}: {name}: {}{}", ran.out(), ran.err()));
            }
        }
    });
    report.end();
}

/// Disks that only stand on disks of their own format, which qemu-img has stand on what they were made on for good.
#[test]
fn disks_of_one_family_get_other_parents_and_lose_them() {
    for (number, kind) in ["vmdk", "vpc", "vhdx"].into_iter().enumerate() {
        let scratch = Scratch::new("rebase families");
        let path = scratch.path();
        let cell = Cell::all()[number % Cell::all().len()];
        let run = |words: &str| {
            let words = words.split(' ').map(|word| if word == "''" { "" } else { word });
            program().native(cell).folder(path).args(words).go()
        };
        let must = |words: &str| {
            let ran = run(words);
            assert_eq!(ran.end, End::Code(0), "{kind}: {words}: {}{}", ran.out(), ran.err());
            ran.out()
        };
        for (seed, name) in [(3, "base"), (4, "other")] {
            create(path, &format!("-f raw {name}.raw 4177920"));
            scribble(path, "raw", &format!("{name}.raw"), 4_177_920, seed, 8);
            must(&format!("convert -f raw -O {kind} {name}.raw {name}"));
        }
        must(&format!("create -q -f {kind} -b base -F {kind} over"));
        let same = || assert!(must("compare -f raw base.raw over").contains("identical"), "{kind}");
        same();
        assert_eq!(must(&format!("rebase -b other -F {kind} over")), "Image rebased.\n");
        std::fs::rename(path.join("base"), path.join("moved")).expect("a file");
        same();
        must("check over");
        // It is known by what it is, and not by its name alone.
        std::fs::rename(path.join("other"), path.join("elsewhere")).expect("a file");
        let ran = run(&format!("rebase -u -b nowhere -F {kind} over"));
        assert_eq!(ran.end, End::Code(1), "{kind}: {}", ran.out());
        assert_eq!(must(&format!("rebase -u -b elsewhere -F {kind} over")), "Image rebased.\n");
        same();
        let ran = run("rebase -b base.raw -F raw over");
        let is_refused =
            ["can only differ from another", "must be a vmdk image"].iter().any(|why| ran.err().contains(why));
        assert!(ran.end == End::Code(1) && is_refused, "{}", ran.err());
        assert_eq!(must("rebase -b '' over"), "Image detached.\n");
        std::fs::remove_file(path.join("elsewhere")).expect("a file");
        same();
        // Bitmaps of sectors that nothing needs any more may be lost space.
        let ran = run("check over");
        assert!(matches!(ran.end, End::Code(0 | 3)), "{kind}: {}{}", ran.out(), ran.err());
        let ran = maker().img().folder(path).args(["compare", "-f", "raw", "-F", kind, "base.raw", "over"]).go();
        assert_eq!(ran.end, End::Code(0), "{kind}: {}{}", ran.out(), ran.err());
    }
}
