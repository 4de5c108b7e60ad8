//! Tests of VHDX disks that are made and written.

use crate::vhdx::Vhdx;
use crate::vhdx::tests::random_log;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use instar_image::{Chain, Fact, File, Format, Options, info};
use instar_testkit::build::mutate::Noise;
use instar_testkit::build::trial::sound;
use instar_testkit::build::vhdx::{self, build, log};
use instar_testkit::content::content;
use instar_testkit::folder::Folder;
use instar_testkit::made::{alike, options, said};
use instar_testkit::oracle::{maker, newest, version};
use instar_testkit::pen::{Stroke, draw, drawn, holds, prodded, read_by, strokes};
use instar_testkit::place::Scratch;
use instar_testkit::twin::{chain, create, scribble};
use instar_testkit::workshop::{Order, bytes};

/// The creator, what of both headers is not the same twice, and the identifier of the disk, where the metadata is at `at`.
fn random(at: i64) -> Vec<Range<i64>> {
    let id = at + 0x1_0010..at + 0x1_0020;
    Vec::from([8..0x1_0000, 0x1_0004..0x1_0030, 0x2_0004..0x2_0030, id])
}

#[test]
fn images_are_made_as_qemu_img_makes_them() {
    let scratch = Scratch::new("vhdx-made");
    let kinds = [
        ("", 3),
        ("subformat=fixed", 3),
        ("subformat=fixed,block_state_zero=off,block_size=1M", 3),
        ("block_state_zero=off,log_size=1500k", 4),
        ("block_size=1536k,log_size=1", 3),
        ("block_size=257M", 3),
    ];
    let sizes = [1, 513, 1 << 20, (1 << 20) + 1, (1 << 30) + 1, (100 << 30) + 1];
    for ((kind, metadata), (index, size)) in
        kinds.into_iter().flat_map(|kind| sizes.into_iter().enumerate().map(move |size| (kind, size)))
    {
        let oracle = if size == 513 { newest() } else { maker() };
        // Tables of small blocks are long; of the others each kind meets every second size.
        let is_due = (index + kind.len()).is_multiple_of(2);
        if is_due && (size < 2 << 30 || !kind.contains("size=1")) {
            assert!(alike(oracle, scratch.path(), &Vhdx, kind, size, &random(metadata << 20)));
        }
    }
    let old = version("5.2").unwrap();
    assert!(alike(old, scratch.path(), &Vhdx, "", 10 << 20, &random(3 << 20)));
    assert!(alike(maker(), scratch.path(), &Vhdx, "", 0, &random(66 << 20)));
    assert!(alike(maker(), scratch.path(), &Vhdx, "", 64 << 40, &random(11 << 20)));
    assert!(alike(maker(), scratch.path(), &Vhdx, "preallocation=full,subformat=fixed", 9 << 20, &random(3 << 20)));
    for (kind, size) in [
        ("", (64 << 40) + 1),
        ("log_size=0,block_size=3M", 100 << 40),
        ("subformat=x,log_size=0", 100 << 40),
        ("log_size=0,block_size=3M", 1 << 20),
        ("log_size=4G", 1 << 20),
        ("log_size=4294967295,block_size=3M", 1 << 20),
        ("block_size=3M", 1 << 20),
        ("preallocation=metadata,subformat=x", 1 << 20),
        ("preallocation=x", 1 << 20),
    ] {
        assert!(!alike(maker(), scratch.path(), &Vhdx, kind, size, &[]));
        assert!(!alike(newest(), scratch.path(), &Vhdx, kind, size, &[]));
    }
}

/// Draws on an image, twice, and asks everybody what is there.
fn drawn_on(scratch: &Scratch, name: &str, before: Vec<u8>, seed: u64) -> Vec<u8> {
    let (folder, none) = (scratch.path(), Chain { layers: Vec::new() });
    let mut disk = before;
    for round in 0..2 {
        let strokes = strokes(disk.len() as u64, seed * 2 + round, 9, 512);
        draw(&Folder::new(folder), name, &Vhdx, &Options::default(), &none, &strokes).unwrap();
        disk = drawn(&strokes, disk);
        holds(&[maker(), newest()][..1 + round as usize], folder, "vhdx", name, &disk);
    }
    disk
}

#[test]
fn what_is_written_is_there() {
    let scratch = Scratch::new("vhdx-written");
    let kinds =
        ["block_size=1M", "", "subformat=fixed,block_size=2M", "subformat=fixed,block_state_zero=off,block_size=1M"];
    for (seed, kind) in (0..).zip(kinds) {
        let size = (5 << 20) + 512 * seed;
        let order = Order { options: options(kind), ..Order::plain(&Vhdx, size) };
        order.create(&Folder::new(scratch.path()), "a.vhdx").unwrap();
        let len = bytes(scratch.path(), "a.vhdx").len();
        drawn_on(&scratch, "a.vhdx", alloc::vec![0; size as usize], seed);
        if kind.contains("fixed") {
            let now = bytes(scratch.path(), "a.vhdx").len();
            assert!((len..len + (2 << 20)).contains(&now), "{kind}: {len} bytes became {now}");
            assert!((now - len + size as usize).is_multiple_of(1 << 20), "{kind}: the last block is not whole");
        }
        sound(&Vhdx, &scratch.path().join("a.vhdx"));
        let words = if kind.is_empty() { "" } else { "-o " };
        create(scratch.path(), &format!("-f vhdx {words}{kind} b.vhdx {size}").replace("  ", " "));
        scribble(scratch.path(), "vhdx", "b.vhdx", size, seed, 5);
        drawn_on(&scratch, "b.vhdx", read_by(maker(), scratch.path(), "vhdx", "b.vhdx"), seed + 100);
    }
}

#[test]
fn states_change_when_something_is_written_and_only_then() {
    let scratch = Scratch::new("vhdx-states");
    let io = Folder::new(scratch.path());
    let none = Chain { layers: Vec::new() };
    let made = |name: &str| {
        Order::plain(&Vhdx, 9 << 20).create(&io, name).unwrap();
        bytes(scratch.path(), name)
    };
    let (before, same) = (made("a.vhdx"), made("b.vhdx"));
    assert!(before == same, "one seed makes one image");
    let zero = [Stroke { at: 0, len: 9 << 20, byte: 0 }];
    draw(&io, "a.vhdx", &Vhdx, &Options::default(), &none, &zero).unwrap();
    assert!(bytes(scratch.path(), "a.vhdx") == before, "nothing was written");
    let state = |name: &str| {
        let extra = all_of(&io, name).extra.unwrap();
        (extra.get("data-write-guid").cloned(), extra.get("sequence-number").cloned())
    };
    let first = state("a.vhdx");
    let one = [Stroke { at: 4096, len: 512, byte: 1 }];
    for name in ["a.vhdx", "b.vhdx"] {
        draw(&io, name, &Vhdx, &Options::default(), &none, &one).unwrap();
    }
    assert!(bytes(scratch.path(), "a.vhdx") == bytes(scratch.path(), "b.vhdx"), "the same work makes the same image");
    let second = state("a.vhdx");
    assert_ne!(first.0, second.0);
    assert_ne!(first.1, second.1);
    // Two copies of an image that are written to are two states from then on.
    for name in ["a.vhdx", "b.vhdx"] {
        draw(&io, name, &Vhdx, &Options::default(), &none, &one).unwrap();
    }
    assert_ne!(state("a.vhdx").0, state("b.vhdx").0);
}

#[test]
fn a_log_is_replayed_before_anything_is_written() {
    let scratch = Scratch::new("vhdx-replayed");
    let none = Chain { layers: Vec::new() };
    create(scratch.path(), "-f vhdx -o log_size=1M,block_size=1M disk.vhdx 9437184");
    scribble(scratch.path(), "vhdx", "disk.vhdx", 6 << 20, 3, 12);
    let base = bytes(scratch.path(), "disk.vhdx");
    for round in 0..4 {
        let mut image = base.clone();
        log(&mut image, &random_log(&base, &mut Noise::new(round)));
        scratch.put("a.vhdx", image);
        let io = Folder::new(scratch.path());
        let before = content(&chain(&io, "a.vhdx", &[&Vhdx], &Options::default()).unwrap(), &io, 1).unwrap();
        let strokes = strokes(before.len() as u64, round, round as usize, 512);
        draw(&io, "a.vhdx", &Vhdx, &Options::default(), &none, &strokes).unwrap();
        let disk = drawn(&strokes, before);
        holds(&[maker()], scratch.path(), "vhdx", "a.vhdx", &disk);
        let told = all_of(&io, "a.vhdx").extra.unwrap();
        assert_eq!(told.get("log"), Some(&Fact::from("empty")));
    }
}

#[test]
fn in_the_ways_of_qemu_img_a_log_is_replayed_when_the_image_is_written_to() {
    let scratch = Scratch::new("vhdx-replayed-as-qemu");
    let io = Folder::new(scratch.path());
    let none = Chain { layers: Vec::new() };
    let disk = vhdx::Vhdx { blocks: Vec::from([(2, b'x')]), ..vhdx::Vhdx::default() };
    let clean = build(&disk);
    let at = (clean.len() - (1 << 20)) as u64;
    scratch.put("a.vhdx", build(&vhdx::Vhdx { dirty: Some(at), ..disk }));
    scratch.put("b.vhdx", bytes(scratch.path(), "a.vhdx"));
    let as_qemu = Options { as_qemu: true, ..Options::default() };
    assert!(chain(&io, "a.vhdx", &[&Vhdx], &as_qemu).is_err());
    let strokes = [Stroke { at: 0, len: 512, byte: 3 }];
    draw(&io, "a.vhdx", &Vhdx, &as_qemu, &none, &strokes).unwrap();
    maker().io().folder(scratch.path()).args(["-f", "vhdx", "-c", "write -P 3 0 512", "b.vhdx"]).must();
    let theirs = read_by(maker(), scratch.path(), "vhdx", "b.vhdx");
    assert!(theirs.contains(&b'x') && theirs.contains(&3));
    holds(&[maker(), newest()], scratch.path(), "vhdx", "a.vhdx", &theirs);
}

/// What a disk says of itself, with everything.
fn all_of(io: &Folder, name: &str) -> info::Image {
    let granted = io.open(name.as_bytes()).unwrap();
    Vhdx.open(File::new(io, &granted), &Options::default()).unwrap().describe(true).unwrap()
}

#[test]
fn a_child_is_made_of_a_parent_and_written_to() {
    let scratch = Scratch::new("vhdx-child");
    let io = Folder::new(scratch.path());
    let plain = Options::default();
    for (seed, (sector, name)) in (0..).zip([(512u32, "base.vhdx"), (4096, "./base.vhdx")]) {
        let base =
            build(&vhdx::Vhdx { sector, size: 5 << 20, blocks: Vec::from([(1, b'x')]), ..vhdx::Vhdx::default() });
        scratch.put("base.vhdx", base);
        let size = 5 << 20;
        let below = chain(&io, "base.vhdx", &[&Vhdx], &plain).unwrap();
        let mut disk = content(&below, &io, seed).unwrap();
        let mut asked = options("block_size=1M");
        asked.add("backing_file", name);
        let order = Order { options: asked, below: Some(all_of(&io, "base.vhdx")), ..Order::plain(&Vhdx, size) };
        order.create(&io, "child.vhdx").unwrap();
        for round in 0..4 {
            let strokes = strokes(size, seed * 4 + round + 50, 5, 512);
            draw(&io, "child.vhdx", &Vhdx, &plain, &below, &strokes).unwrap();
            disk = drawn(&strokes, disk);
            let both = chain(&io, "child.vhdx", &[&Vhdx, &Vhdx], &plain).unwrap();
            let read = content(&both, &io, seed).unwrap();
            assert_eq!(read.iter().zip(&disk).position(|(a, b)| a != b), None, "{sector} round {round}");
            assert_eq!(read.len(), disk.len());
            sound(&Vhdx, &scratch.path().join("child.vhdx"));
        }
        // The parent must not be written to any more.
        let none = Chain { layers: Vec::new() };
        draw(&io, "base.vhdx", &Vhdx, &plain, &none, &[Stroke { at: 0, len: 512, byte: 1 }]).unwrap();
        let child = io.open(b"child.vhdx").unwrap();
        let error = Vhdx.open(File::new(&io, &child), &plain).unwrap().parent().unwrap_err();
        assert!(said(&error).starts_with("the VHDX was made on its parent in the state {"), "{error:?}");
    }
}

#[test]
fn what_cannot_be_a_parent_is_refused() {
    let scratch = Scratch::new("vhdx-no-parent");
    let io = Folder::new(scratch.path());
    Order::plain(&Vhdx, 1 << 20).create(&io, "base.vhdx").unwrap();
    let refused = |name: &str, below, kind: &str| {
        let mut options = options(kind);
        options.add("backing_file", name);
        said(&Order { options, below, ..Order::plain(&Vhdx, 1 << 20) }.create(&io, "child.vhdx").unwrap_err())
    };
    let base = || Some(all_of(&io, "base.vhdx"));
    let no = "a VHDX can only differ from another VHDX, which has to be looked at";
    assert_eq!(refused("base.vhdx", None, ""), no);
    assert_eq!(refused("base.vhdx", base().map(|below| info::Image { extra: None, ..below }), ""), no);
    for name in ["c:base.vhdx", "a\\b.vhdx", &"x".repeat(9000)] {
        assert_eq!(refused(name, base(), ""), "the name of the parent cannot be written in a VHDX");
    }
    let fixed = "a VHDX that differs from another one cannot be of the fixed kind";
    assert_eq!(refused("base.vhdx", base(), "subformat=fixed"), fixed);
}

#[test]
fn damaged_disks_are_written_to_or_refused() {
    let scratch = Scratch::new("vhdx-prodded");
    let io = Folder::new(scratch.path());
    Order::plain(&Vhdx, 9 << 20).create(&io, "base.vhdx").unwrap();
    let mut asked = options("block_size=1M");
    asked.add("backing_file", "base.vhdx");
    Order { options: asked, below: Some(all_of(&io, "base.vhdx")), ..Order::plain(&Vhdx, 9 << 20) }
        .create(&io, "child.vhdx")
        .unwrap();
    let good = bytes(scratch.path(), "child.vhdx");
    let mut noise = Noise::new(3);
    let mut written = 0;
    for round in 0..150 {
        let mut image = good.clone();
        for _ in 0..=noise.below(3) {
            // The table of blocks, and what the metadata say of the disk.
            let at = [2 << 20, 2 << 20, 0x31_0000][noise.below(3) as usize] + noise.below(90) as usize;
            image[at] = noise.next() as u8 >> noise.below(8);
        }
        if round % 3 == 0 {
            image.truncate((2 << 20) + noise.below(6 << 20) as usize);
        }
        scratch.put("a.vhdx", image);
        written += usize::from(prodded(&io, "a.vhdx", &Vhdx).is_ok());
    }
    assert!((20..150).contains(&written), "{written}");
}

#[test]
fn what_lay_in_the_space_of_a_block_does_not_show() {
    let scratch = Scratch::new("vhdx-stale");
    let folder = Folder::new(scratch.path());
    let size = 4 << 20;
    Order { options: options("subformat=fixed,block_size=1M"), ..Order::plain(&Vhdx, size) }
        .create(&folder, "a.vhdx")
        .unwrap();
    let mut image = bytes(scratch.path(), "a.vhdx");
    let at = image.len() - size as usize;
    image[at..].fill(0xaa);
    scratch.put("a.vhdx", image);
    drawn_on(&scratch, "a.vhdx", vec![0; size as usize], 1);
}
