//! Tests of VHD.

use super::Vpc;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use instar_image::probe::Claim;
use instar_image::{Chain, Fact, File, Format, Options};
use instar_testkit::build::mutate::{fields, noise, patched, storm};
use instar_testkit::build::trial::{claim, refusal, sound, survived, told};
use instar_testkit::build::vhd::{Vhd, build, footer, seal};
use instar_testkit::content::content;
use instar_testkit::folder::Folder;
use instar_testkit::made::{alike, options, said};
use instar_testkit::mem::MemIo;
use instar_testkit::oracle::{maker, newest, version};
use instar_testkit::pen::{Stroke, draw, drawn, holds, prodded, read_by, strokes};
use instar_testkit::place::Scratch;
use instar_testkit::twin::{agreed, chain, create, scribble, survives};
use instar_testkit::workshop::{Order, bytes};

fn small() -> Vhd {
    Vhd { size: 8 << 10, block_len: 4096, blocks: Vec::from([(1, b'v')]), ..Vhd::default() }
}

/// With the footer's checksum made to fit.
fn resealed(image: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut image = patched(image, at, bytes);
    seal(&mut image[..512], 64);
    image
}

#[test]
fn creators_differ_in_size() {
    let size = |creator: &[u8; 4], geometry| {
        told(&Vpc, build(&Vhd { creator: *creator, geometry, size: 4 << 20, ..Vhd::default() })).unwrap().virtual_size
    };
    let by_geometry = 100 * 4 * 17 * 512;
    assert_eq!(size(b"vpc ", (100, 4, 17)), by_geometry);
    assert_eq!(size(b"qemu", (100, 4, 17)), by_geometry);
    for creator in [b"qem2", b"win ", b"d2v ", b"tap\0", b"CXS ", b"vbox"] {
        assert_eq!(size(creator, (100, 4, 17)), 4 << 20);
    }
    assert_eq!(size(b"vpc ", (65535, 16, 255)), 4 << 20);
}

#[test]
fn fixed_disk_is_found_by_its_footer() {
    let image = build(&Vhd { kind: 2, ..small() });
    assert_eq!(claim(&Vpc, image.clone()), Ok(Claim::Quiet));
    assert_eq!(told(&Vpc, image.clone()).unwrap().cluster_size, None);
    // The footer of old had 511 bytes.
    assert!(told(&Vpc, image[..image.len() - 1].to_vec()).is_ok());
    let dynamic = build(&small());
    assert_eq!(claim(&Vpc, dynamic.clone()), Ok(Claim::Yes));
    assert_eq!(told(&Vpc, dynamic).unwrap().cluster_size, Some(4096));
}

#[test]
fn parent_is_told() {
    let image = build(&Vhd {
        kind: 4,
        parent: "p\u{e4}rent.vhd".into(),
        locators: Vec::from([(*b"W2ru", ".\\parent.vhd".into())]),
        ..small()
    });
    let image = told(&Vpc, image).unwrap();
    let extra = image.extra.unwrap();
    let parent = extra.get("parent").unwrap();
    assert_eq!(parent.get("name"), Some(&Fact::from("p\u{e4}rent.vhd")));
    let locator = Fact::fields([("platform", "W2ru".into()), ("name", ".\\parent.vhd".into())]);
    assert_eq!(parent.get("locators"), Some(&Fact::List(Vec::from([locator]))));
    assert!(!image.findings[0].ok);
    assert!(told(&Vpc, build(&small())).unwrap().findings[0].ok);
}

#[test]
fn each_refusal_has_its_phrase() {
    let image = build(&small());
    assert_eq!(refusal(&Vpc, Vec::new()), "File too small for a VHD header");
    assert_eq!(refusal(&Vpc, alloc::vec![0; 600]), "invalid VPC image");
    assert_eq!(refusal(&Vpc, patched(&image, 20, &[1])), "Incorrect header checksum");
    let footer: [(usize, &[u8], &str); 3] = [
        (48, &[0x7f], "Could not open '{file}': File too large"),
        (16, &[0xff], "Error reading dynamic VHD header"),
        (16, &[0x01], "Invalid header magic"),
    ];
    for (at, bytes, phrase) in footer {
        assert_eq!(refusal(&Vpc, resealed(&image, at, bytes)), phrase);
    }
    let truncated = "block-vpc: free_data_block_offset points after the end of file. The image has been truncated.";
    let header: [(usize, &[u8], &str); 7] = [
        (512, b"x", "Invalid header magic"),
        (544, &[0, 0, 0, 7], "Invalid block size {}"),
        (540, &[0x20], "Max Table Entries too large ({})"),
        (540, &[0, 0, 0, 1], "Page table too small"),
        (528, &[0xff], "Error reading pagetable"),
        (528, &[0x01], truncated),
        (1536, &[0, 1, 0, 0], truncated),
    ];
    for (at, bytes, phrase) in header {
        assert_eq!(refusal(&Vpc, patched(&image, at, bytes)), phrase);
    }
}

#[test]
fn damage_is_survived() {
    let image = build(&Vhd { kind: 4, locators: Vec::from([(*b"W2ku", "x".into())]), ..small() });
    assert!(survived(&Vpc, &image, 2048) > 100);
    let mut noise = instar_testkit::build::mutate::Noise::new(5);
    for _ in 0..2000 {
        let at = noise.below(508) as usize;
        let _ = refusal(&Vpc, resealed(&image, at, &noise.next().to_le_bytes()[..4]));
    }
}

#[test]
fn disks_are_read_as_qemu_img_reads_them() {
    let scratch = Scratch::new("vhd");
    for (seed, kind) in (0..4).zip(["subformat=dynamic", "subformat=fixed"].iter().cycle()) {
        let size = (5 << 20) + 77_824 * seed;
        create(scratch.path(), &format!("-f vpc -o {kind} a.vhd {size}"));
        scribble(scratch.path(), "vpc", "a.vhd", 5 << 20, seed, 12);
        agreed(scratch.path(), "a.vhd", &[&Vpc], seed);
    }
}

#[test]
fn every_kind_of_disk_is_read_as_qemu_img_reads_it() {
    let scratch = Scratch::new("vhd");
    let blocks = || Vec::from([(3, b'a'), (0, b'b'), (5, b'c')]);
    let shape = |kind, block_len, bitmap: &[u8]| Vhd {
        kind,
        size: 6 * u64::from(block_len) - 1024,
        block_len,
        bitmap: bitmap.to_vec(),
        blocks: blocks(),
        ..Vhd::default()
    };
    for (seed, disk) in (0..).zip([
        shape(3, 4096, &[0]),
        shape(3, 1 << 20, &[0xff, 0, 0x81]),
        shape(3, 512 << 10, &[0x5a]),
        // Read as if there were no parent, the bitmap notwithstanding.
        shape(4, 4096, &[0x5a]),
        shape(4, 1 << 20, &[0, 0xff]),
        // A fixed disk that has what a growing one has; a kind that nobody knows.
        shape(2, 4096, &[0xff]),
        shape(9, 4096, &[0xff]),
        Vhd { size: 5 << 10, ..shape(3, 1024, &[0x40]) },
    ]) {
        let image = build(&disk);
        // Of the fixed one the footer is only at the front.
        let image = if disk.kind == 2 { build(&Vhd { kind: 3, ..disk }) } else { image };
        scratch.put("a.vhd", if seed == 5 { resealed(&image, 60, &[0, 0, 0, 2]) } else { image });
        agreed(scratch.path(), "a.vhd", &[&Vpc], seed);
    }
    for (seed, size) in (0..).zip([65536u64, 65536 - 512, 65536 + 8192]) {
        let mut image = alloc::vec![0; 65536];
        image[4096..8192].fill(b'x');
        image.extend(footer(&Vhd { kind: 2, size, ..Vhd::default() }));
        scratch.put("a.vhd", &image);
        agreed(scratch.path(), "a.vhd", &[&Vpc], seed);
    }
}

/// What the disk holds, given what its parent does.
fn model(disk: &Vhd, below: &[u8]) -> Vec<u8> {
    let mut out = below.to_vec();
    out.resize(usize::try_from(disk.size).unwrap(), 0);
    for (number, sector) in out.chunks_mut(512).enumerate() {
        let in_block = disk.block_len as usize / 512;
        let (block, at) = (number / in_block, number % in_block);
        let fill = disk.blocks.iter().find(|(place, _)| *place as usize == block);
        let bits = disk.bitmap[at / 8 % disk.bitmap.len()];
        if let Some((_, fill)) = fill.filter(|_| bits << (at % 8) & 0x80 != 0) {
            sector.fill(*fill);
        }
    }
    out
}

fn differing(block_len: u32, bitmap: &[u8], locators: &[(&[u8; 4], &str)], name: &str) -> Vhd {
    Vhd {
        kind: 4,
        size: 12 * u64::from(block_len),
        block_len,
        blocks: Vec::from([(1, b'x'), (4, b'y'), (11, b'z')]),
        bitmap: bitmap.to_vec(),
        uuid: *b"child identifier",
        parent_uuid: *b"disk identifier!",
        parent: name.into(),
        locators: locators.iter().map(|(code, text)| (**code, (*text).into())).collect(),
        ..Vhd::default()
    }
}

#[test]
fn sectors_that_a_disk_does_not_have_are_its_parents() {
    let scratch = Scratch::new("vhd");
    for (seed, (block_len, bitmap)) in (0..).zip([
        (4096, &[0x5a][..]),
        (8192, &[0xff, 0x00]),
        (1 << 20, &[0x01, 0x80, 0x7e, 0, 0, 0xff, 0xff, 0xaa, 0x55]),
        (512 << 10, &[0]),
        (2 << 20, &[0xff]),
    ]) {
        let base = Vhd {
            size: 10 * u64::from(block_len),
            block_len,
            blocks: Vec::from([(0, b'a'), (4, b'b')]),
            ..Vhd::default()
        };
        let child = differing(block_len, bitmap, &[(b"W2ru", ".\\base.vhd")], "");
        let grandchild =
            Vhd { blocks: Vec::from([(2, b'q'), (4, b'r')]), bitmap: Vec::from([0x0f]), ..child_of_child(&child) };
        for (name, disk) in [("base.vhd", &base), ("child.vhd", &child), ("top.vhd", &grandchild)] {
            scratch.put(name, build(disk));
        }
        let io = Folder::new(scratch.path());
        let chain = chain(&io, "top.vhd", &[&Vpc, &Vpc, &Vpc], &Options::default()).unwrap();
        let whole = content(&chain, &io, seed).unwrap();
        let base = model(&Vhd { bitmap: Vec::from([0xff]), ..base }, &[]);
        let expected = model(&grandchild, &model(&child, &base));
        assert!(whole == expected, "blocks of {block_len}, bitmap {bitmap:?}");
    }
}

fn child_of_child(child: &Vhd) -> Vhd {
    Vhd {
        uuid: *b"grandchild's own",
        parent_uuid: child.uuid,
        locators: Vec::from([(*b"W2ku", "C:\\VMs\\child.vhd".into())]),
        ..differing(child.block_len, &[], &[], "")
    }
}

fn parent_of(disk: &Vhd, files: &[(&str, Vec<u8>)]) -> Result<Vec<u8>, String> {
    let mut io = MemIo::new(build(disk));
    for (name, bytes) in files {
        io = io.with(name, bytes.clone());
    }
    let parent = Vpc.open(File::new(&io, &io.top()), &Options::default()).unwrap().parent();
    match parent {
        Ok(found) => Ok(io.asked.borrow().last().filter(|_| found.is_some()).cloned().unwrap_or_default()),
        Err(error) => Err(String::from_utf8(error.what.0).unwrap()),
    }
}

#[test]
fn parent_is_looked_for_where_it_is_likeliest() {
    let base = build(&small());
    let there = |names: &[&'static str]| names.iter().map(|name| (*name, base.clone())).collect::<Vec<_>>();
    let all: &[(&[u8; 4], &str)] = &[(b"W2ku", "D:\\x\\absolute.vhd"), (b"Mac ", "?"), (b"W2ru", "..\\relative.vhd")];
    let disk = differing(4096, &[0], all, "name.vhd");
    let found = |names: &[&'static str]| parent_of(&disk, &there(names));
    assert_eq!(found(&["name.vhd", "absolute.vhd", "../relative.vhd"]), Ok("../relative.vhd".into()));
    assert_eq!(found(&["name.vhd", "absolute.vhd"]), Ok("absolute.vhd".into()));
    assert_eq!(found(&["name.vhd"]), Ok("name.vhd".into()));
    assert_eq!(found(&[]), Err("no such file".into()));
    let nameless = differing(4096, &[0], &[], "");
    assert_eq!(parent_of(&nameless, &[]), Err("the image does not say which disk it differs from".into()));
    assert_eq!(parent_of(&small(), &[]), Ok(Vec::new()));
    let other = build(&Vhd { uuid: *b"another identity", ..small() });
    let mismatch = "the VHD names a parent with the identifier {}, this one has {}";
    assert_eq!(parent_of(&disk, &[("name.vhd", other)]), Err(mismatch.into()));
    let no_disk = alloc::vec![0; 4096];
    assert_eq!(parent_of(&disk, &[("name.vhd", no_disk)]), Err("the parent of a VHD is not a VHD".into()));
    // To qemu-img there is no parent.
    let io = MemIo::new(build(&disk));
    let options = Options { as_qemu: true, ..Options::default() };
    assert!(matches!(Vpc.open(File::new(&io, &io.top()), &options).unwrap().parent(), Ok(None)));
}

#[test]
fn damage_to_tables_and_bitmaps_is_survived() {
    let image = build(&differing(4096, &[0x5a], &[], ""));
    storm(&image[..image.len().min(6 << 10)], 0, |bytes| survives(&Vpc, &MemIo::new(bytes), 1 << 20));
    fields(&image, 1536..1536 + 48, 7, |bytes| survives(&Vpc, &MemIo::new(bytes), 1 << 20));
    for seed in 0..300u64 {
        let at = usize::try_from(seed).unwrap() * 4 % 60 + 512;
        let mut image = patched(&image, at, &seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[..4]);
        seal(&mut image[512..1536], 36);
        survives(&Vpc, &MemIo::new(image), 1 << 20);
    }
}

/// Time, checksum and identifier of both footers.
const RANDOM: [core::ops::Range<i64>; 4] = [24..28, 64..84, -488..-484, -448..-428];

#[test]
fn images_are_made_as_qemu_img_makes_them() {
    let scratch = Scratch::new("vhd-made");
    let kinds = ["", "subformat=fixed", "force_size=on", "subformat=fixed,force_size=on"];
    let sizes = [0, 1, 513, 34816, 35840, 2 << 20, (8 << 30) - 1, 0x1f_dfe0_2000, 0x1f_dfe0_2001, 0x1fd_e62c_03ff];
    for (index, size) in sizes.into_iter().enumerate() {
        for (place, kind) in kinds.into_iter().enumerate() {
            let oracle = if (index + place).is_multiple_of(3) { newest() } else { maker() };
            // What is at the front of a fixed disk is no footer.
            let masked = if kind.contains("fixed") { &RANDOM[2..] } else { &RANDOM };
            assert!(alike(oracle, scratch.path(), &Vpc, kind, size, masked));
        }
    }
    assert!(alike(version("5.2").unwrap(), scratch.path(), &Vpc, "", 77 << 20, &RANDOM));
    assert!(alike(maker(), scratch.path(), &Vpc, "preallocation=falloc", 77 << 20, &RANDOM));
    let most = 0x1fe_0000_0000;
    assert!(alike(maker(), scratch.path(), &Vpc, "", most, &RANDOM));
    for (kind, size) in [
        ("", most + 1),
        ("subformat=fixed", 1 << 60),
        ("preallocation=metadata", 1 << 60),
        ("subformat=x", most + 1),
        ("preallocation=x", 1 << 20),
    ] {
        assert!(!alike(maker(), scratch.path(), &Vpc, kind, size, &RANDOM));
        assert!(!alike(newest(), scratch.path(), &Vpc, kind, size, &RANDOM));
    }
}

/// Draws on an image, twice, and asks everybody what is there.
fn drawn_on(scratch: &Scratch, name: &str, before: Vec<u8>, seed: u64) {
    let (folder, none) = (scratch.path(), Chain { layers: Vec::new() });
    let mut disk = before;
    for round in 0..2 {
        let strokes = strokes(disk.len() as u64, seed * 2 + round, 9, 512);
        draw(&Folder::new(folder), name, &Vpc, &Options::default(), &none, &strokes).unwrap();
        disk = drawn(&strokes, disk);
        holds(&[maker(), newest()][..1 + round as usize], folder, "vpc", name, &disk);
        sound(&Vpc, &folder.join(name));
    }
}

#[test]
fn what_is_written_is_there() {
    let scratch = Scratch::new("vhd-written");
    for (seed, kind) in (0..4).zip(["subformat=dynamic", "subformat=fixed,force_size=on"].into_iter().cycle()) {
        let size = (7 << 20) + 512 * seed;
        let order = Order { options: options(kind), ..Order::plain(&Vpc, size) };
        order.create(&Folder::new(scratch.path()), "a.vhd").unwrap();
        let before = read_by(maker(), scratch.path(), "vpc", "a.vhd");
        assert!(before.len() as u64 >= size && before.iter().all(|byte| *byte == 0));
        drawn_on(&scratch, "a.vhd", before, seed);
        create(scratch.path(), &format!("-f vpc -o {kind} b.vhd {size}"));
        let size = size - size % 34816;
        scribble(scratch.path(), "vpc", "b.vhd", size, seed, 5);
        drawn_on(&scratch, "b.vhd", read_by(maker(), scratch.path(), "vpc", "b.vhd"), seed + 100);
    }
}

#[test]
fn blocks_of_other_writers_are_written_to() {
    let scratch = Scratch::new("vhd-others");
    for (seed, block_len) in (0..).zip([4096, 65536, 8 << 20]) {
        let blocks = Vec::from([(3, b'x'), (0, b'y')]);
        let bitmap = Vec::from([0x0f]);
        let disk = Vhd { size: 16 << 20, block_len, blocks, bitmap, creator: *b"win ", ..Vhd::default() };
        let image = build(&Vhd { blocks: disk.blocks[..if block_len > 65536 { 0 } else { 2 }].to_vec(), ..disk });
        // Old writers left out the last byte of the footer.
        let len = image.len() - usize::from(seed == 1);
        scratch.put("a.vhd", &image[..len]);
        let before = read_by(maker(), scratch.path(), "vpc", "a.vhd");
        drawn_on(&scratch, "a.vhd", before, seed);
        // Whoever goes by the bitmaps finds everything that was written.
        let whole = bytes(scratch.path(), "a.vhd");
        let table = whole[1536..].as_chunks::<4>().0;
        for entry in table.iter().take((16 << 20) / block_len as usize).map(|entry| u32::from_be_bytes(*entry)) {
            if entry != u32::MAX {
                let bitmap = &whole[entry as usize * 512..][..(block_len as usize / 4096).max(1)];
                assert!(bitmap.iter().all(|byte| *byte == 0xff || *byte == 0x0f), "{entry}");
            }
        }
    }
}

/// What a disk says of itself, with everything.
fn all_of(io: &Folder, name: &str) -> instar_image::info::Image {
    let granted = io.open(name.as_bytes()).unwrap();
    Vpc.open(File::new(io, &granted), &Options::default()).unwrap().describe(true).unwrap()
}

#[test]
fn a_child_is_made_of_a_parent_and_written_to() {
    let scratch = Scratch::new("vhd-child");
    let io = Folder::new(scratch.path());
    for (seed, (kind, name)) in
        (0..).zip([("", "base.vhd"), ("force_size=on", "./base.vhd"), ("subformat=fixed,force_size=on", "base.vhd")])
    {
        let order = Order { options: options(kind), ..Order::plain(&Vpc, 5 << 20) };
        order.create(&io, "base.vhd").unwrap();
        let size = all_of(&io, "base.vhd").virtual_size;
        let none = Chain { layers: Vec::new() };
        let mut disk = alloc::vec![0; size as usize];
        let plain = Options::default();
        let first = strokes(size, seed, 9, 512);
        draw(&io, "base.vhd", &Vpc, &plain, &none, &first).unwrap();
        disk = drawn(&first, disk);
        let order = Order {
            options: Fact::fields([("backing_file", name.into())]),
            below: Some(all_of(&io, "base.vhd")),
            ..Order::plain(&Vpc, size)
        };
        order.create(&io, "child.vhd").unwrap();
        for round in 0..3 {
            let below = chain(&io, "base.vhd", &[&Vpc], &plain).unwrap();
            let second = strokes(size, seed * 3 + round + 50, 7, 512);
            draw(&io, "child.vhd", &Vpc, &plain, &below, &second).unwrap();
            disk = drawn(&second, disk);
            let both = chain(&io, "child.vhd", &[&Vpc, &Vpc], &plain).unwrap();
            assert_eq!(both.size(), size);
            let read = content(&both, &io, seed).unwrap();
            assert_eq!(read.iter().zip(&disk).position(|(a, b)| a != b), None, "{kind} round {round}");
            sound(&Vpc, &scratch.path().join("child.vhd"));
        }
        // A part of a sector is written with the rest of its block, if none of that is there yet.
        let order = Order { below: Some(all_of(&io, "base.vhd")), ..order };
        order.create(&io, "child.vhd").unwrap();
        let below = chain(&io, "base.vhd", &[&Vpc], &plain).unwrap();
        let few = [Stroke { at: 1000, len: 700, byte: 9 }, Stroke { at: (2 << 20) + 512, len: 512, byte: 8 }];
        draw(&io, "child.vhd", &Vpc, &plain, &below, &few).unwrap();
        let before = content(&below, &io, seed).unwrap();
        let both = chain(&io, "child.vhd", &[&Vpc, &Vpc], &plain).unwrap();
        assert!(content(&both, &io, seed).unwrap() == drawn(&few, before));
        let few = [Stroke { at: (2 << 20) + 100, len: 700, byte: 9 }];
        let refused = draw(&io, "child.vhd", &Vpc, &plain, &below, &few).unwrap_err();
        assert_eq!(said(&refused), "only whole sectors can be written to a disk that differs from another");
    }
}

#[test]
fn damaged_disks_are_written_to_or_refused() {
    let scratch = Scratch::new("vhd-prodded");
    let mut written = 0;
    for disk in [small(), Vhd { blocks: Vec::from([(0, b'v')]), ..differing(4096, &[1, 2], &[], "base.vhd") }] {
        noise(&build(&disk), 0..2048, 5, 300, |mut bytes| {
            if bytes.len() >= 512 {
                seal(&mut bytes[..512], 64);
            }
            scratch.put("a.vhd", bytes);
            written += usize::from(prodded(&Folder::new(scratch.path()), "a.vhd", &Vpc).is_ok());
        });
    }
    assert!((50..590).contains(&written), "{written}");
}

#[test]
fn blocks_of_any_length_are_made() {
    let scratch = Scratch::new("vhd-blocks");
    for block in [4 << 10, 512 << 10, 16 << 20] {
        let options = Fact::fields([("block_size", block.into()), ("force_size", true.into())]);
        let order = Order { options, ..Order::plain(&Vpc, 5 << 20) };
        order.create(&Folder::new(scratch.path()), "a.vhd").unwrap();
        drawn_on(&scratch, "a.vhd", alloc::vec![0; 5 << 20], block);
    }
    for block in [2048u64, 3 << 20, 1 << 30] {
        let order = Order { options: Fact::fields([("block_size", block.into())]), ..Order::plain(&Vpc, 1 << 20) };
        let refused = order.create(&Folder::new(scratch.path()), "a.vhd").unwrap_err();
        assert_eq!(said(&refused), "Block size must be a power of two from 4096 to 268435456");
    }
}

#[test]
fn what_cannot_be_a_parent_is_refused() {
    let scratch = Scratch::new("vhd-no-parent");
    let io = Folder::new(scratch.path());
    Order::plain(&Vpc, 1 << 20).create(&io, "base.vhd").unwrap();
    let refused = |name: &str, below, kind: &str| {
        let mut options = options(kind);
        options.add("backing_file", name);
        said(&Order { options, below, ..Order::plain(&Vpc, 1 << 20) }.create(&io, "child.vhd").unwrap_err())
    };
    let base = || Some(all_of(&io, "base.vhd"));
    let no = "a VHD can only differ from another VHD, which has to be looked at";
    assert_eq!(refused("base.vhd", None, ""), no);
    let other = base().map(|below| instar_image::info::Image { format: "raw".into(), ..below });
    assert_eq!(refused("base.vhd", other, ""), no);
    for name in ["c:base.vhd", "a\\b.vhd", &"x".repeat(300)] {
        assert_eq!(refused(name, base(), ""), "the name of the parent cannot be written in a VHD");
    }
    let fixed = "a VHD that differs from another one cannot be of the fixed kind";
    assert_eq!(refused("base.vhd", base(), "subformat=fixed"), fixed);
}
