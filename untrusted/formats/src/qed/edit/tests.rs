//! Tests of QED images that are made longer and shorter.

use crate::qed::Qed;
use crate::raw::Raw;
use alloc::format;
use alloc::vec::Vec;
use instar_image::{Format, Preallocation};
use instar_testkit::crash::MemFiles;
use instar_testkit::oracle::{maker, newest, version};
use instar_testkit::pen::holds;
use instar_testkit::place::Scratch;
use instar_testkit::resized::{Stack, sizes};
use instar_testkit::twin::create;

const FORMATS: &[&dyn Format] = &[&Qed];

fn made(words: &str) -> MemFiles {
    let scratch = Scratch::new("qed-resized");
    scratch.put("base.raw", (0..300_032u32).map(|n| (n >> 8) as u8 | 1).collect::<Vec<u8>>());
    create(scratch.path(), &format!("-f qed {words}"));
    MemFiles::load(scratch.path(), &["a.qed", "base.raw"])
}

#[test]
fn images_survive_every_crash() {
    let mut disk = Stack::new(made("-o cluster_size=4k,table_size=2 a.qed 50176"), FORMATS);
    let tried = disk.crash_through(1, &[60_416, 200_704, 30_208, 512, 66_048]);
    assert!(tried.states > 50, "{tried:?}");
}

#[test]
fn images_show_zeroes_where_what_is_below_is_longer() {
    let words = "-o cluster_size=4k,table_size=2 -b base.raw -F raw a.qed 50176";
    let mut disk = Stack::new(made(words), &[&Qed, &Raw]);
    disk.crash(60_416, Preallocation::Off).unwrap();
    let mut disk = Stack::new(made(words), &[&Qed, &Raw]);
    disk.crash_through(2, &[60_416, 400_384, 30_208, 512, 66_048]);
    disk.wander(2, 12, 500_000);
    let scratch = Scratch::new("qed-resized");
    disk.files.save(scratch.path());
    let mut content = disk.content().unwrap();
    holds(&[maker(), newest()], scratch.path(), "qed", "a.qed", &content);
    // Who writes a part of a cluster finds the rest as it was.
    let mut run = maker().io().folder(scratch.path()).args(["-f", "qed"]);
    for at in (512..content.len().saturating_sub(512)).step_by(4096) {
        content[at..at + 512].fill(9);
        run = run.args(["-c", &format!("write -P 9 {at} 512")]);
    }
    run.arg("a.qed").must();
    holds(&[maker()], scratch.path(), "qed", "a.qed", &content);
}

#[test]
fn sizes_go_up_and_down_and_others_read_the_same() {
    for (seed, kind) in (0..).zip(["-o cluster_size=64k", "-o cluster_size=16k,table_size=16"]) {
        let mut disk = Stack::new(made(&format!("{kind} a.qed 1048576")), FORMATS);
        disk.wander(seed, 8, 2 << 20);
        let scratch = Scratch::new("qed-wandered");
        disk.files.save(scratch.path());
        holds(&[maker(), newest()], scratch.path(), "qed", "a.qed", &disk.content().unwrap());
    }
}

#[test]
fn qemu_img_makes_the_same_of_an_image() {
    for oracle in [maker(), newest()].into_iter().chain(version("5.2")) {
        for size in ["8M", "1048576", "70000128", "8000001", "1E"] {
            let scratch = Scratch::new("qed-alike");
            create(scratch.path(), "-f qed a.qed 1048576");
            maker().io().folder(scratch.path()).args(["-f", "qed", "-c", "write -P 7 0 1M", "a.qed"]).must();
            let mut disk = Stack::new(MemFiles::load(scratch.path(), &["a.qed"]), FORMATS);
            let ran = oracle.img().folder(scratch.path()).args(["resize", "-q", "a.qed", size]).go();
            let asked = match size {
                "8M" => 8 << 20,
                "1E" => 1 << 60,
                number => number.parse().unwrap(),
            };
            let ours = disk.resize(asked, Preallocation::Off);
            assert_eq!(ours.is_ok(), ran.code() == Some(0), "{size}: {}", ran.err());
            let theirs = MemFiles::load(scratch.path(), &["a.qed"]);
            let file = disk.files.named(b"a.qed").unwrap();
            assert!(disk.files.bytes(file) == theirs.bytes(file), "{size}");
        }
    }
}

#[test]
fn random_sizes_survive_every_crash() {
    for seed in 0..4 {
        let size = (seed * 91 % 300 + 1) * 512;
        let words = format!("-o cluster_size=4k,table_size=2 -b base.raw -F raw a.qed {size}");
        Stack::new(made(&words), &[&Qed, &Raw]).crash_through(seed, &sizes(seed, 6, 160_000));
    }
}

#[test]
fn errors_in_the_order_are_seen() {
    let mut disk = Stack::new(made("-o cluster_size=4k,table_size=2 -b base.raw -F raw a.qed 60416"), &[&Qed, &Raw]);
    disk.draw(1, 6);
    disk.resize(50_176, Preallocation::Off).unwrap();
    let (seen, unseen) = disk.spoiled(58_368);
    assert!(seen >= 2, "{seen} seen, not {unseen:?}");
}

#[test]
fn damaged_images_are_resized_or_refused() {
    let mut disk = Stack::new(made("-o cluster_size=4k,table_size=2 a.qed 60416"), FORMATS);
    disk.draw(1, 9);
    let done = disk.damaged(1, 400, &[0..64, 4096..4112, 12288..12400], 300_000);
    assert!((20..400).contains(&done), "{done}");
}
