//! Tests of VMware disks that are made longer and shorter.

mod descriptors;

use crate::vmdk::Vmdk;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use instar_image::{File, Format, Options, Preallocation};
use instar_testkit::crash::MemFiles;
use instar_testkit::folder::Folder;
use instar_testkit::made::options;
use instar_testkit::oracle::{maker, newest};
use instar_testkit::pen::holds;
use instar_testkit::place::Scratch;
use instar_testkit::resized::{Stack, sizes};
use instar_testkit::workshop::Order;

const FORMATS: &[&dyn Format] = &[&Vmdk];
/// The types of disks whose size is said in one place, and the files that they have.
const KINDS: &[(&str, &[&str])] = &[
    ("monolithicSparse", &["a.vmdk"]),
    ("monolithicFlat", &["a.vmdk", "a-flat.vmdk"]),
    ("twoGbMaxExtentSparse", &["a.vmdk", "a-s001.vmdk"]),
    ("twoGbMaxExtentFlat", &["a.vmdk", "a-f001.vmdk"]),
];

fn made(list: &str, size: u64, names: &[&str]) -> MemFiles {
    let scratch = Scratch::new("vmdk-resized");
    let folder = Folder::new(scratch.path());
    Order { options: options(list), ..Order::plain(&Vmdk, size) }.create(&folder, names[0]).unwrap();
    MemFiles::load(scratch.path(), names)
}

#[test]
fn disks_survive_every_crash() {
    for (seed, (kind, names)) in (0..).zip(KINDS) {
        let mut disk = Stack::new(made(&format!("subformat={kind}"), 200_192, names), FORMATS);
        let tried = disk.crash_through(seed, &[201_216, 270_336, 130_560, 512, 66_048, 200_704]);
        assert!(tried.states > 20, "{kind}: {tried:?}");
    }
}

#[test]
fn directories_move_when_they_are_full() {
    // A table leads to 32 MiB, and a sector of the directory to 4 GiB.
    let mut disk = Stack::new(made("", (4 << 30) - (1 << 20), &["a.vmdk"]), FORMATS);
    let before = disk.files.clone();
    disk.resize((4 << 30) + (40 << 20), Preallocation::Off).unwrap();
    disk.check(&disk.files).unwrap();
    let scratch = Scratch::new("vmdk-moved");
    disk.files.save(scratch.path());
    let told = maker().img().folder(scratch.path()).args(["info", "a.vmdk"]).must().out();
    assert!(told.contains("4336910336 bytes"), "{told}");
    maker().io().folder(scratch.path()).args(["-f", "vmdk", "-c", "write -P 7 4100M 1M", "a.vmdk"]).must();
    maker().img().folder(scratch.path()).args(["check", "a.vmdk"]).must();
    let mut disk = Stack::new(before, FORMATS);
    disk.resize(8 << 40, Preallocation::Off).unwrap();
}

#[test]
fn children_show_zeroes_where_their_parents_are_longer() {
    for (seed, list) in (20..).zip(["zeroed_grain=on", ""]) {
        let scratch = Scratch::new("vmdk-child");
        let folder = Folder::new(scratch.path());
        Order::plain(&Vmdk, 500_224).create(&folder, "base.vmdk").unwrap();
        let mut base = Stack::new(MemFiles::load(scratch.path(), &["base.vmdk"]), FORMATS);
        base.draw(seed, 5);
        base.files.save(scratch.path());
        let told = folder.open(b"base.vmdk").unwrap();
        let below = Vmdk.open(File::new(&folder, &told), &Options::default()).unwrap().describe(true).unwrap();
        let mut asked = options(list);
        asked.add("backing_file", "base.vmdk");
        Order { options: asked, below: Some(below), ..Order::plain(&Vmdk, 200_192) }.create(&folder, "a.vmdk").unwrap();
        let mut disk = Stack::new(MemFiles::load(scratch.path(), &["a.vmdk", "base.vmdk"]), &[&Vmdk, &Vmdk]);
        disk.crash(270_336, Preallocation::Off).unwrap();
        disk.crash_through(seed, &[201_216, 130_560, 512, 66_048]);
        disk.wander(seed, 12, 1 << 20);
        let scratch = Scratch::new("vmdk-child-read");
        disk.files.save(scratch.path());
        holds(&[maker(), newest()], scratch.path(), "vmdk", "a.vmdk", &disk.content().unwrap());
    }
}

#[test]
fn sizes_go_up_and_down_and_others_read_the_same() {
    for (seed, (kind, names)) in (0..).zip(KINDS) {
        let mut disk = Stack::new(made(&format!("subformat={kind}"), 1 << 20, names), FORMATS);
        for part in 0..2 {
            disk.wander(seed * 10 + part, 6, 3 << 20);
            let scratch = Scratch::new("vmdk-wandered");
            disk.files.save(scratch.path());
            holds(&[maker(), newest()], scratch.path(), "vmdk", "a.vmdk", &disk.content().unwrap());
        }
    }
}

/// Packed grains, the last of which ends with the disk.
#[test]
fn streams_are_resized_wherever_their_header_is() {
    let scratch = Scratch::new("vmdk-stream");
    let bytes: Vec<u8> = (0..200_192u32).map(|n| (n >> 9) as u8 | 1).collect();
    scratch.put("raw", &bytes);
    let words = ["convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", "raw", "a.vmdk"];
    maker().img().folder(scratch.path()).args(words).must();
    let theirs = MemFiles::load(scratch.path(), &["a.vmdk"]);
    let folder = Folder::new(scratch.path());
    Order { options: options("subformat=streamOptimized"), ..Order::plain(&Vmdk, 200_192) }
        .create(&folder, "a.vmdk")
        .unwrap();
    let pour =
        instar_testkit::workshop::Pour { pack: true, ..instar_testkit::workshop::Pour::new("a.vmdk", FORMATS, "raw") };
    pour.go(&folder).unwrap();
    let ours = MemFiles::load(scratch.path(), &["a.vmdk"]);
    for files in [theirs, ours] {
        let mut disk = Stack::new(files, FORMATS);
        assert!(disk.content().unwrap() == bytes);
        for size in [210_432, 260_608, 130_560, 140_288, 66_048, 512] {
            disk.crash(size, Preallocation::Off).unwrap();
            let scratch = Scratch::new("vmdk-stream-read");
            disk.files.save(scratch.path());
            holds(&[maker()], scratch.path(), "vmdk", "a.vmdk", &disk.content().unwrap());
        }
    }
}

#[test]
fn extents_go_with_the_end_of_a_split_disk() {
    for (kind, mark) in [("twoGbMaxExtentFlat", "f"), ("twoGbMaxExtentSparse", "s")] {
        let names: Vec<String> = (1..4).map(|n| format!("a-{mark}00{n}.vmdk")).collect();
        let names: Vec<&str> = ["a.vmdk"].into_iter().chain(names.iter().map(String::as_str)).collect();
        let mut disk = Stack::new(made(&format!("subformat={kind}"), 5 << 30, &names), FORMATS);
        for size in [(5u64 << 30) + (1 << 20), (2 << 30) + (5 << 20), (2 << 30) + (9 << 20), 1 << 30] {
            assert_eq!(disk.resize(size, Preallocation::Off).unwrap(), size);
            let scratch = Scratch::new("vmdk-split");
            disk.files.save(scratch.path());
            let told = maker().img().folder(scratch.path()).args(["info", "a.vmdk"]).must().out();
            assert!(told.contains(&format!("({size} bytes)")), "{told}");
            disk.check(&disk.files).unwrap();
        }
    }
}

#[test]
fn random_sizes_survive_every_crash() {
    for (seed, (kind, names)) in (0..).zip(KINDS) {
        let files = made(&format!("subformat={kind}"), 512 * (1 + seed * 77), names);
        Stack::new(files, FORMATS).crash_through(seed, &sizes(seed, 6, 200_000));
    }
}

#[test]
fn errors_in_the_order_are_seen() {
    for (kind, names) in &KINDS[..2] {
        let mut disk = Stack::new(made(&format!("subformat={kind}"), 200_192, names), FORMATS);
        disk.draw(1, 40);
        disk.resize(130_048, Preallocation::Off).unwrap();
        for size in [132_096, 60_416] {
            let (seen, unseen) = disk.spoiled(size);
            assert!(seen >= 1, "{kind} to {size}: {seen} seen, not {unseen:?}");
        }
    }
}

#[test]
fn damaged_disks_are_resized_or_refused() {
    for (seed, (kind, names)) in (0..).zip(KINDS) {
        let mut disk = Stack::new(made(&format!("subformat={kind}"), 200_192, names), FORMATS);
        disk.draw(seed, 9);
        let front = disk.files.granted(instar_image::FileId(0)).len.min(512);
        let places = [0..80, 0..front, 21 * 512..21 * 512 + 20, 22 * 512..22 * 512 + 30];
        let places = &places[..if kind.contains("Sparse") && names.len() == 1 { 4 } else { 2 }];
        let done = disk.damaged(seed, 200, places, 300_000);
        assert!((1..200).contains(&done), "{done}");
    }
}
