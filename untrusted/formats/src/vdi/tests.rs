//! Tests of VDI.

use super::Vdi;
use super::disk::{Header, SIGNATURE, VERSION_1_1};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use instar_image::probe::Claim;
use instar_image::{Chain, Fact, Options};
use instar_testkit::build::mutate::{noise, patched, storm};
use instar_testkit::build::trial::{claim, claimed, findings, refusal, sound, survived, told};
use instar_testkit::folder::Folder;
use instar_testkit::made::{alike, options};
use instar_testkit::mem::MemIo;
use instar_testkit::oracle::{maker, newest};
use instar_testkit::pen::{Stroke, draw, drawn, holds, prodded, read_by, strokes};
use instar_testkit::place::Scratch;
use instar_testkit::twin::{agreed, create, scribble, survives};
use instar_testkit::workshop::Order;
use zerocopy::{FromZeros, IntoBytes};

fn good() -> Vec<u8> {
    let mut header = Header::new_zeroed();
    header.signature = SIGNATURE.into();
    header.version = VERSION_1_1.into();
    header.image_type = 2.into();
    header.offset_bmap = 512.into();
    header.offset_data = 1024.into();
    header.sector_size = 512.into();
    header.disk_size = ((3u64 << 20) - 100).into();
    header.block_size = (1 << 20).into();
    header.blocks_in_image = 3.into();
    header.blocks_allocated = 1.into();
    header.uuid_image = *b"0123456789abcdef";
    let mut image = header.as_bytes().to_vec();
    image.resize(2048, 0xff);
    image
}

#[test]
fn good_header_is_told() {
    assert_eq!(claim(&Vdi, good()), Ok(Claim::Yes));
    assert_eq!(claim(&Vdi, Vec::new()), Ok(Claim::No));
    let image = told(&Vdi, good()).unwrap();
    assert_eq!((image.virtual_size, image.cluster_size), (3 << 20, Some(1 << 20)));
    let extra = image.extra.unwrap();
    assert_eq!(extra.get("image-type"), Some(&Fact::from("static")));
    assert_eq!(extra.get("uuid"), Some(&Fact::from("33323130-3534-3736-3839-616263646566")));
}

#[test]
fn each_refusal_has_its_phrase_and_its_turn() {
    let cases: [(usize, &[u8], &str); 12] = [
        (0x170, &[0xff; 8], "Unsupported VDI image size (size is 0x{}, max supported is 0x{})"),
        (0x40, &[0; 4], "Image not in VDI format (bad signature {})"),
        (0x44, &[2, 0, 1, 0], "unsupported VDI image (version {}.{})"),
        (0x154, &[1], "unsupported VDI image (unaligned block map offset 0x{})"),
        (0x158, &[1], "unsupported VDI image (unaligned data offset 0x{})"),
        (0x168, &[0, 16], "unsupported VDI image (sector size {} is not 512)"),
        (0x178, &[1], "unsupported VDI image (block size {} is not {})"),
        (0x180, &[2], "unsupported VDI image (disk size {}, image bitmap has room for {})"),
        (0x1a8, &[1], "unsupported VDI image (non-NULL link UUID)"),
        (0x1b8, &[1], "unsupported VDI image (non-NULL parent UUID)"),
        (0x180, &[0xff; 4], "unsupported VDI image (too many blocks {}, max is {})"),
        (0x4c, &[9], "opened"),
    ];
    // A later fault does not hide an earlier one.
    let mut all = good();
    for (at, bytes, phrase) in cases.iter().rev().skip(2) {
        assert_eq!(refusal(&Vdi, patched(&good(), *at, bytes)), *phrase);
        all = patched(&all, *at, bytes);
        assert_eq!(refusal(&Vdi, all.clone()), *phrase);
    }
    assert_eq!(refusal(&Vdi, patched(&good(), cases[10].0, cases[10].1)), cases[10].2);
}

#[test]
fn damage_is_survived() {
    assert!(survived(&Vdi, &good(), 512) > 100);
}

#[test]
fn disks_are_read_as_qemu_img_reads_them() {
    let scratch = Scratch::new("vdi");
    for (seed, kind) in (0..4).zip(["static=off", "static=on"].iter().cycle()) {
        let size = (3 << 20) + 512 * seed;
        create(scratch.path(), &format!("-f vdi -o {kind} a.vdi {size}"));
        scribble(scratch.path(), "vdi", "a.vdi", size, seed, 12);
        agreed(scratch.path(), "a.vdi", &[&Vdi], seed);
        sound(&Vdi, &scratch.path().join("a.vdi"));
    }
}

/// Blocks in disorder, twice in use, given up, never there, half there, and far beyond the file.
fn disordered(kind: u32) -> Vec<u8> {
    let map = [1, 0xffff_ffff, 0xffff_fffe, 0, 2, 5, 0xffff_fffd, 1, 2, 3];
    let mut image = patched(&good(), 0x4c, &kind.to_le_bytes());
    image = patched(&image, 0x170, &((10u64 << 20) - 512).to_le_bytes());
    image = patched(&image, 0x180, &10u32.to_le_bytes());
    for (place, entry) in map.into_iter().enumerate() {
        image = patched(&image, 512 + 4 * place, &u32::to_le_bytes(entry));
    }
    image.truncate(1024);
    for (fill, len) in [(b'a', 1 << 20), (b'b', 1 << 20), (b'c', 5000)] {
        image.resize(image.len() + len, fill);
    }
    image
}

#[test]
fn every_entry_of_the_map_means_what_it_means_to_qemu_img() {
    let scratch = Scratch::new("vdi");
    for kind in [1, 2, 4] {
        scratch.put("a.vdi", disordered(kind));
        agreed(scratch.path(), "a.vdi", &[&Vdi], kind.into());
    }
    // A map that the file does not have is all zeroes, which are the number of a block.
    scratch.put("a.vdi", &disordered(1)[..512]);
    agreed(scratch.path(), "a.vdi", &[&Vdi], 9);
}

#[test]
fn damage_to_the_map_is_survived() {
    let mut small = disordered(2);
    small.truncate(2000);
    storm(&small, 600, |bytes| survives(&Vdi, &MemIo::new(bytes), 2 << 20));
}

/// A disk of four blocks whose map is this, and a file that has three.
fn blocks(map: [u32; 4], allocated: u32) -> MemIo {
    let mut image = patched(&good(), 0x180, &4u32.to_le_bytes());
    image = patched(&image, 0x184, &allocated.to_le_bytes());
    for (place, entry) in map.into_iter().enumerate() {
        image = patched(&image, 512 + 4 * place, &entry.to_le_bytes());
    }
    image.resize(1024 + (3 << 20), 1);
    MemIo::new(image)
}

#[test]
fn a_check_finds_what_is_outside_shared_lost_and_miscounted() {
    let none = u32::MAX;
    let found = |map, allocated| findings(&Vdi, &blocks(map, allocated)).unwrap();
    let lost = |at: u32, len: u32| format!("nothing uses '{{file}}' there: offset {at}, {len} bytes");
    assert_eq!(found([0, 2, 1, none], 3), Vec::<String>::new());
    assert_eq!(found([0, none, 1, none], 2), [lost(1024 + (2 << 20), 1 << 20)]);
    assert_eq!(found([none, 2, none - 1, none], 1), [lost(1024, 2 << 20)]);
    let shared = "block 1 lies in '{file}' where something else is: offset 1024, 1048576 bytes";
    assert_eq!(found([0, 0, 1, 2], 4), [shared]);
    let outside = "block 3 is outside of '{file}': offset 3146752, 1048576 bytes";
    assert_eq!(found([0, 1, 2, 3], 4), [outside]);
    assert_eq!(found([0, 1, 2, none], 2), ["ERROR: allocated blocks mismatch, is 3, should be 2"]);
    assert_eq!(found([0, 1, 2, 9], 3).len(), 2);
    for map in [[0, 2, 1, none], [0, 0, 0, 3], [7, 1, none - 1, 2]] {
        assert!(claimed(&Vdi, &blocks(map, 0)).unwrap() > 0);
    }
}

#[test]
fn a_check_survives_damage() {
    let mut checked = 0;
    storm(&disordered(1)[..1200], 600, |bytes| checked += usize::from(findings(&Vdi, &MemIo::new(bytes)).is_ok()));
    assert!(checked > 100);
}

/// The identifiers.
const RANDOM: [core::ops::Range<i64>; 2] = [0x188..0x198, 0x198..0x1a8];

#[test]
fn images_are_made_as_qemu_img_makes_them() {
    let scratch = Scratch::new("vdi-made");
    let sizes = [0, 1, 513, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 129 << 20, 1 << 41];
    let kinds = ["", "static=on", "static=off,preallocation=full", "static=on,preallocation=falloc"];
    for (index, size) in sizes.into_iter().enumerate() {
        for (place, kind) in kinds.into_iter().enumerate().take(if size > 1 << 40 { 1 } else { 4 }) {
            let oracle = if (index + place).is_multiple_of(3) { newest() } else { maker() };
            assert!(alike(oracle, scratch.path(), &Vdi, kind, size, &RANDOM));
        }
    }
    let most = 0x1_ffff_f800_0000;
    for (kind, size) in
        [("", most + 1), ("", 1 << 60), ("preallocation=metadata", 1 << 20), ("preallocation=x", 1 << 20)]
    {
        assert!(!alike(maker(), scratch.path(), &Vdi, kind, size, &RANDOM));
        assert!(!alike(newest(), scratch.path(), &Vdi, kind, size, &RANDOM));
    }
}

/// Draws on an image, twice, and asks everybody what is there.
fn drawn_on(scratch: &Scratch, name: &str, before: Vec<u8>, seed: u64) {
    let (folder, none) = (scratch.path(), Chain { layers: Vec::new() });
    let mut disk = before;
    for round in 0..2 {
        let strokes = strokes(disk.len() as u64, seed * 2 + round, 9, 512);
        draw(&Folder::new(folder), name, &Vdi, &Options::default(), &none, &strokes).unwrap();
        disk = drawn(&strokes, disk);
        holds(&[maker(), newest()][..1 + round as usize], folder, "vdi", name, &disk);
        sound(&Vdi, &folder.join(name));
    }
}

#[test]
fn what_is_written_is_there() {
    let scratch = Scratch::new("vdi-written");
    for (seed, kind) in (0..4).zip(["", "static=on"].into_iter().cycle()) {
        let size = (4 << 20) + 512 * seed;
        let order = Order { options: options(kind), ..Order::plain(&Vdi, size) };
        order.create(&Folder::new(scratch.path()), "a.vdi").unwrap();
        drawn_on(&scratch, "a.vdi", alloc::vec![0; size as usize], seed);
        create(scratch.path(), &format!("-f vdi -o static={} b.vdi {size}", if seed % 2 == 0 { "off" } else { "on" }));
        scribble(scratch.path(), "vdi", "b.vdi", size, seed, 5);
        let before = read_by(maker(), scratch.path(), "vdi", "b.vdi");
        drawn_on(&scratch, "b.vdi", before, seed + 100);
    }
}

#[test]
fn blocks_in_disorder_and_space_of_old_are_written_to() {
    let scratch = Scratch::new("vdi-disorder");
    // Block 2 of the file was given up; one more lies behind it that nobody counts.
    let map = [1, u32::MAX, 0, u32::MAX];
    let mut image = patched(&good(), 0x180, &4u32.to_le_bytes());
    image = patched(&image, 0x4c, &1u32.to_le_bytes());
    image = patched(&image, 0x184, &2u32.to_le_bytes());
    image = patched(&image, 0x170, &(4u64 << 20).to_le_bytes());
    for (place, entry) in map.into_iter().enumerate() {
        image = patched(&image, 512 + 4 * place, &u32::to_le_bytes(entry));
    }
    image.truncate(1024);
    image.resize(1024 + (4 << 20) - 700, 7);
    scratch.put("a.vdi", image);
    let before = read_by(maker(), scratch.path(), "vdi", "a.vdi");
    let none = Chain { layers: Vec::new() };
    let strokes = [(0, 512, 1), (1 << 20, 512, 2), ((4 << 20) - 512, 512, 3)];
    let strokes = strokes.map(|(at, len, byte)| Stroke { at, len, byte });
    draw(&Folder::new(scratch.path()), "a.vdi", &Vdi, &Options::default(), &none, &strokes).unwrap();
    holds(&[maker(), newest()], scratch.path(), "vdi", "a.vdi", &drawn(&strokes, before));
}

#[test]
fn damaged_disks_are_written_to_or_refused() {
    let scratch = Scratch::new("vdi-prodded");
    let mut written = 0;
    noise(&disordered(1)[..1200], 0..600, 5, 300, |bytes| {
        scratch.put("a.vdi", bytes);
        written += usize::from(prodded(&Folder::new(scratch.path()), "a.vdi", &Vdi).is_ok());
    });
    assert!((50..590).contains(&written), "{written}");
}
