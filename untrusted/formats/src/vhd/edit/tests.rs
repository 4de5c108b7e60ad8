//! Tests of VHDs that are made longer and shorter.

use crate::vhd::Vpc;
use alloc::format;
use alloc::string::String;
use instar_image::{Format, Preallocation};
use instar_testkit::build::vhd::{Vhd, build};
use instar_testkit::crash::MemFiles;
use instar_testkit::folder::Folder;
use instar_testkit::made::options;
use instar_testkit::oracle::{maker, newest};
use instar_testkit::pen::holds;
use instar_testkit::place::Scratch;
use instar_testkit::resized::{Stack, sizes};
use instar_testkit::workshop::Order;

const FORMATS: &[&dyn Format] = &[&Vpc];

fn made(kind: &str, size: u64) -> MemFiles {
    let scratch = Scratch::new("vhd-resized");
    let folder = Folder::new(scratch.path());
    Order { options: options(kind), ..Order::plain(&Vpc, size) }.create(&folder, "a.vpc").unwrap();
    MemFiles::load(scratch.path(), &["a.vpc"])
}

#[test]
fn growing_disks_survive_every_crash() {
    let kinds = ["force_size=on,block_size=4k", "force_size=on,block_size=64k", "block_size=4k"];
    for (seed, kind) in (0..).zip(kinds) {
        let mut disk = Stack::new(made(kind, 70_144), FORMATS);
        let tried = disk.crash_through(seed, &[81_920, 200_192, 30_208, 512, 66_048, 130_560, 130_048]);
        assert!(tried.states > 30, "{tried:?}");
    }
}

#[test]
fn fixed_disks_survive_every_crash() {
    for (seed, kind) in (10..).zip(["force_size=on,subformat=fixed", "subformat=fixed"]) {
        let mut disk = Stack::new(made(kind, 70_144), FORMATS);
        disk.crash_through(seed, &[81_920, 82_432, 30_208, 512, 66_048]);
        let space = [Preallocation::Falloc, Preallocation::Full];
        for (size, space) in [90_112, 120_832].into_iter().zip(space) {
            disk.crash(size, space).unwrap();
        }
    }
}

#[test]
fn children_show_zeroes_where_their_parents_are_longer() {
    let identifier = *b"parent identity!";
    for (seed, below) in (20..).zip([200_192u64, 30_208, 81_920]) {
        let child = Vhd { kind: 4, size: 50_176, block_len: 16384, ..Vhd::default() };
        let child = Vhd { parent: "base".into(), parent_uuid: identifier, ..child };
        let base = Vhd { size: below, block_len: 4096, uuid: identifier, ..Vhd::default() };
        let base = Vhd { blocks: (0..below.div_ceil(4096)).map(|n| (n as u32, b'p')).collect(), ..base };
        let mut files = MemFiles::of(&build(&child));
        files.add("base", &build(&base));
        let mut disk = Stack::new(files, &[&Vpc, &Vpc]);
        disk.crash_through(seed, &[81_920, 300_032, 30_208, 512, 66_048]);
        disk.wander(seed, 20, 400_000);
    }
}

#[test]
fn random_sizes_survive_every_crash() {
    for seed in 0..4 {
        for kind in ["force_size=on,block_size=4k", "force_size=on,subformat=fixed", "block_size=4k"] {
            Stack::new(made(kind, 70_144), FORMATS).crash_through(seed, &sizes(seed, 6, 160_000));
        }
    }
}

#[test]
fn errors_in_the_order_are_seen() {
    for (kind, sizes) in [("force_size=on,block_size=4k", [200_192u64, 30_208]), ("subformat=fixed", [200_192, 30_208])]
    {
        for size in sizes {
            let mut disk = Stack::new(made(kind, 70_144), FORMATS);
            disk.draw(1, 4);
            let (seen, unseen) = disk.spoiled(size);
            assert!(seen >= 2, "{kind} to {size}: {seen} seen, not {unseen:?}");
        }
    }
}

#[test]
fn sizes_go_up_and_down_and_others_read_the_same() {
    let kinds =
        ["block_size=4k", "force_size=on,block_size=512k", "", "subformat=fixed,force_size=on", "subformat=fixed"];
    for (seed, kind) in (0..).zip(kinds) {
        let mut disk = Stack::new(made(kind, 1 << 20), FORMATS);
        for part in 0..2 {
            disk.wander(seed * 10 + part, 4, 2 << 20);
            let scratch = Scratch::new("vhd-wandered");
            disk.files.save(scratch.path());
            holds(&[maker(), newest()], scratch.path(), "vpc", "a.vpc", &disk.content().unwrap());
        }
    }
}

#[test]
fn other_makers_sizes_stay_theirs() {
    for creator in [*b"win ", *b"vs  ", *b"qem2", *b"vpc ", *b"qemu", *b"tap\0"] {
        let size = 4u64 << 20;
        let disk = Vhd { creator, size, geometry: (120, 4, 17), blocks: [(1, 7)].into(), ..Vhd::default() };
        let mut disk = Stack::new(MemFiles::of(&build(&disk)), FORMATS);
        let asked = (5 << 20) + 512;
        let got = disk.resize(asked, Preallocation::Off).unwrap();
        let name = String::from_utf8_lossy(&creator).into_owned();
        let is_exact = !matches!(&creator, b"vpc " | b"qemu");
        assert_eq!(got == asked, is_exact, "{name}: {got}");
        assert!((asked..asked + (1 << 20)).contains(&got));
        let scratch = Scratch::new("vhd-makers");
        disk.files.save(scratch.path());
        holds(&[maker()], scratch.path(), "vpc", "disk", &disk.content().unwrap());
    }
    let mut disk = Stack::new(made("", 1 << 20), FORMATS);
    let error = disk.resize(3 << 40, Preallocation::Off).unwrap_err();
    assert!(format!("{error:?}").contains("too large"));
    // Gigabytes in blocks of 4 KiB: the table moves.
    let mut disk = Stack::new(made("block_size=4k", 1 << 20), FORMATS);
    disk.resize(4 << 30, Preallocation::Off).unwrap();
}

#[test]
fn damaged_disks_are_resized_or_refused() {
    for (seed, kind) in (0..).zip(["force_size=on,block_size=4k", "force_size=on,subformat=fixed"]) {
        let mut disk = Stack::new(made(kind, 70_144), FORMATS);
        disk.draw(seed, 9);
        let end = disk.files.granted(instar_image::FileId(0)).len;
        let done = disk.damaged(seed, 300, &[0..1536, 1536..1700, end - 512..end], 300_000);
        assert!((1..290).contains(&done), "{done}");
    }
}
