//! VMware disks written to.

use crate::vmdk::Vmdk;
use crate::vmdk::create_tests::KINDS;
use crate::vmdk::descriptor::renewed;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use instar_image::target::What;
use instar_image::{Chain, File, Format, Options};
use instar_testkit::alike::{clean, holds, holds_elsewhere, len, measured, scatter, weathers};
use instar_testkit::build::mutate::{Noise, noise};
use instar_testkit::build::trial::findings;
use instar_testkit::build::vmdk::{Descriptor, Grain, Hosted, cowd, sparse};
use instar_testkit::folder::Folder;
use instar_testkit::made::options;
use instar_testkit::mem::MemIo;
use instar_testkit::oracle::{Oracle, maker, newest, version};
use instar_testkit::pen::{Stroke, draw};
use instar_testkit::place::Scratch;
use instar_testkit::twin::{create, scribble};
use instar_testkit::workshop::{Order, Pour, bytes};

fn all() -> Vec<&'static Oracle> {
    [maker(), newest()].into_iter().chain(version("5.2")).collect()
}

/// Asserts that qemu-img finds nothing wrong, and reads what the raw file holds.
fn good(oracles: &[&Oracle], scratch: &Scratch, name: &str) {
    for oracle in oracles {
        clean(oracle, scratch.path(), "vmdk", name);
        holds(oracle, scratch.path(), &["-f", "vmdk", name], "in.raw");
    }
}

/// Bytes of all files of a disk.
fn all_len(scratch: &Scratch, stem: &str) -> u64 {
    let ends = [".vmdk", "-flat.vmdk", "-s001.vmdk", "-f001.vmdk"];
    let names = ends.iter().map(|end| format!("{stem}{end}"));
    let there: Vec<_> = names.filter(|name| scratch.path().join(name).exists()).collect();
    there.iter().map(|name| len(scratch.path(), name)).sum()
}

fn cid(folder: &Folder, name: &str) -> u64 {
    let granted = folder.open(name.as_bytes()).unwrap();
    let told = Vmdk.open(File::new(folder, &granted), &Options::default()).unwrap().describe(false).unwrap();
    match told.specific.unwrap().get("cid") {
        Some(instar_image::Fact::Count(cid)) => *cid,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_written_is_read_by_qemu_img() {
    for (seed, kind) in (0..).zip(KINDS) {
        let size = (6 << 20) + 512 * (seed % 2);
        let scratch = Scratch::new("vmdk-write");
        let (path, folder) = (scratch.path(), Folder::new(scratch.path()));
        scatter(path, "in.raw", size, seed, 15);
        let order = Order { options: options(&format!("subformat={kind}")), ..Order::plain(&Vmdk, size) };
        order.create(&folder, "a.vmdk").unwrap();
        let new = cid(&folder, "a.vmdk");
        Pour { pack: seed == 2, ..Pour::new("a.vmdk", &[&Vmdk], "in.raw") }.go(&folder).unwrap();
        assert_ne!(cid(&folder, "a.vmdk"), new, "{kind}");
        good(&all(), &scratch, "a.vmdk");
        holds_elsewhere("pyvmdk", path, "a.vmdk", "in.raw");
        let (ours, most) = (all_len(&scratch, "a"), measured(&Vmdk, &format!("subformat={kind}"), path, "in.raw"));
        assert!(ours <= most && (kind == "streamOptimized" || most <= ours + 300), "{kind}: {ours} {most}");
        // Once more, over what is there; then over what qemu-img has made.
        let stream = kind == "streamOptimized";
        if !stream {
            scatter(path, "in.raw", size, seed + 10, 10);
            Pour::there("a.vmdk", &[&Vmdk], "in.raw").go(&folder).unwrap();
            good(&[maker()], &scratch, "a.vmdk");
        }
        create(path, &format!("-f vmdk -o subformat={kind} b.vmdk {size}"));
        if !stream {
            scribble(path, "vmdk", "b.vmdk", size, seed, 12);
        }
        let was = cid(&folder, "b.vmdk");
        Pour::there("b.vmdk", &[&Vmdk], "in.raw").go(&folder).unwrap();
        assert_ne!(cid(&folder, "b.vmdk"), was, "{kind}");
        good(&[maker(), newest()], &scratch, "b.vmdk");
    }
}

#[test]
fn grains_of_every_length_are_read_by_qemu_img() {
    let kinds = ["monolithicSparse", "twoGbMaxExtentSparse", "streamOptimized"];
    let lens = [12, 13, 15, 17, 20, 24].map(|bits| 1u64 << bits).into_iter();
    let all = lens.flat_map(|len| kinds.map(|kind| (len, kind)));
    // Packed ones have to fit the stage that there is here.
    let made = all.filter(|(len, kind)| *len <= 1 << 20 || *kind != "streamOptimized");
    for (seed, (len, kind)) in (0..).zip(made) {
        let size = (40 << 20) + 512 * (seed % 2);
        let scratch = Scratch::new("vmdk-grains");
        let (path, folder) = (scratch.path(), Folder::new(scratch.path()));
        scatter(path, "in.raw", size, seed, 15);
        let list = format!("subformat={kind},grain_size={len}");
        Order { options: options(&list), ..Order::plain(&Vmdk, size) }.create(&folder, "a.vmdk").unwrap();
        Pour { pack: kind == "streamOptimized", ..Pour::new("a.vmdk", &[&Vmdk], "in.raw") }.go(&folder).unwrap();
        good(&[maker(), newest()], &scratch, "a.vmdk");
        let told = maker().img().folder(path).args(["info", "a.vmdk"]).must().out();
        assert!(told.contains(&format!("cluster size: {len}")), "{told}");
        let (ours, most) = (all_len(&scratch, "a"), measured(&Vmdk, &list, path, "in.raw"));
        assert!(ours <= most && (kind == "streamOptimized" || most <= ours + 300), "{list}: {ours} {most}");
    }
    let flat = "subformat=monolithicFlat,grain_size=65536";
    let stream = "subformat=streamOptimized,grain_size=4194304";
    for list in ["grain_size=2048", "grain_size=33554432", "grain_size=5000", flat, stream] {
        let scratch = Scratch::new("vmdk-grains");
        let made = Order { options: options(list), ..Order::plain(&Vmdk, 1 << 20) };
        assert!(made.create(&Folder::new(scratch.path()), "a.vmdk").is_err(), "{list}");
    }
}

#[test]
fn a_stream_is_one() {
    let scratch = Scratch::new("vmdk-stream");
    let (path, folder) = (scratch.path(), Folder::new(scratch.path()));
    let number = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    for (seed, size, count) in [(1, 100 << 20, 12), (2, (70 << 20) + 512, 12), (3, 512, 0), (4, 33 << 20, 0)] {
        scatter(path, "in.raw", size, seed, count);
        let order = Order { options: options("subformat=streamOptimized"), ..Order::plain(&Vmdk, size) };
        order.create(&folder, "a.vmdk").unwrap();
        Pour::new("a.vmdk", &[&Vmdk], "in.raw").go(&folder).unwrap();
        // A reader that only goes forward: the header, then marks until the last.
        let stream = bytes(path, "a.vmdk");
        let flags = word(&stream, 8);
        assert_eq!((word(&stream, 4), flags, number(&stream, 56)), (3, 0x3_0001, u64::MAX));
        let (mut at, mut last, mut kinds) = (65536, None, Vec::new());
        let mut grains: Vec<(u64, usize)> = Vec::new();
        loop {
            let (value, len, kind) = (number(&stream, at), word(&stream, at + 8), word(&stream, at + 12));
            match (len, kind) {
                (0, 0) => break,
                (0, kind) => {
                    kinds.push(kind);
                    // A table says where the grains before it are.
                    if kind == 1 {
                        for (sector, place) in grains.drain(..) {
                            let entry = at + 512 + (sector as usize / 128 % 512) * 4;
                            assert_eq!(word(&stream, entry) as usize * 512, place);
                        }
                    }
                    at += 512 * (1 + value as usize);
                }
                (len, _) => {
                    assert!(last.is_none_or(|last| last < value), "grains in their order");
                    last = Some(value);
                    grains.push((value, at));
                    at = (at + 12 + len as usize).next_multiple_of(512);
                }
            }
        }
        assert_eq!(at + 512, stream.len());
        assert!(kinds.ends_with(&[2, 3]) && grains.is_empty(), "{kinds:?}");
    }
}

#[test]
fn what_cannot_be_packed_becomes_little_longer() {
    let scratch = Scratch::new("vmdk-noise");
    let (path, folder) = (scratch.path(), Folder::new(scratch.path()));
    let mut noise = Noise::new(3);
    let bytes: Vec<u8> = (0..300_000).flat_map(|_| noise.next().to_le_bytes()).collect();
    scratch.put("in.raw", &bytes[..36 << 16]);
    let size = len(path, "in.raw");
    let list = "subformat=streamOptimized";
    for grain in ["", ",grain_size=4096", ",grain_size=16384", ",grain_size=1048576"] {
        let list = format!("{list}{grain}");
        Order { options: options(&list), ..Order::plain(&Vmdk, size) }.create(&folder, "a.vmdk").unwrap();
        Pour::new("a.vmdk", &[&Vmdk], "in.raw").go(&folder).unwrap();
        good(&all(), &scratch, "a.vmdk");
        let (ours, most) = (len(path, "a.vmdk"), measured(&Vmdk, &list, path, "in.raw"));
        assert!(ours <= most && most <= ours * 101 / 100, "{list}: {ours} {most}");
    }
    Order { options: options(list), ..Order::plain(&Vmdk, size) }.create(&folder, "a.vmdk").unwrap();
    Pour::new("a.vmdk", &[&Vmdk], "in.raw").go(&folder).unwrap();
    let ours = len(path, "a.vmdk");
    maker().img().folder(path).args(["convert", "-O", "vmdk", "-o", list, "in.raw", "theirs.vmdk"]).must();
    assert!(ours <= len(path, "theirs.vmdk") * 101 / 100);
}

#[test]
fn what_lies_below_shows_through_or_is_hidden() {
    let scratch = Scratch::new("vmdk-over");
    let (path, folder) = (scratch.path(), Folder::new(scratch.path()));
    let size = 3 << 20;
    scatter(path, "base.raw", size, 7, 40);
    maker().img().folder(path).args(["convert", "-O", "vmdk", "base.raw", "base.vmdk"]).must();
    let kinds = [
        "subformat=monolithicSparse",
        "subformat=monolithicSparse,zeroed_grain=on",
        "subformat=twoGbMaxExtentSparse",
        "subformat=streamOptimized",
        "subformat=streamOptimized,zeroed_grain=on",
    ];
    for (seed, kind) in (0..).zip(kinds) {
        for is_new in [seed % 2 == 0, false] {
            // The disk may be larger than what lies below it.
            let size = if is_new { size } else { size + 512 };
            scatter(path, "in.raw", size, seed, 8);
            create(path, &format!("-f vmdk -o {kind} -b base.vmdk -F vmdk a.vmdk {size}"));
            if !is_new && !kind.contains("stream") {
                scribble(path, "vmdk", "a.vmdk", size, seed, 12);
            }
            Pour { is_new, ..Pour::there("a.vmdk", &[&Vmdk, &Vmdk], "in.raw") }.go(&folder).unwrap();
            good(&[maker(), newest()], &scratch, "a.vmdk");
        }
    }
}

#[test]
fn packed_grains_are_added_and_never_written_twice() {
    let scratch = Scratch::new("vmdk-add");
    let (path, folder) = (scratch.path(), Folder::new(scratch.path()));
    let size = 40 << 20;
    for by_us in [false, true] {
        // Grains of the second table.
        let mut late = vec![0; size];
        late[(35 << 20)..(36 << 20)].fill(7);
        late[size - 1] = 8;
        scratch.put("late.raw", &late);
        if by_us {
            let order = Order { options: options("subformat=streamOptimized"), ..Order::plain(&Vmdk, size as u64) };
            order.create(&folder, "a.vmdk").unwrap();
            Pour::new("a.vmdk", &[&Vmdk], "late.raw").go(&folder).unwrap();
        } else {
            let words = ["convert", "-O", "vmdk", "-o", "subformat=streamOptimized", "late.raw", "a.vmdk"];
            maker().img().folder(path).args(words).must();
        }
        scatter(path, "in.raw", 3 << 20, 1, 10);
        Pour::there("a.vmdk", &[&Vmdk], "in.raw").go(&folder).unwrap();
        let early = bytes(path, "in.raw");
        late[..early.len()].copy_from_slice(&early);
        scratch.put("early.raw", &early);
        scratch.put("in.raw", &late);
        good(&all(), &scratch, "a.vmdk");
        holds_elsewhere("pyvmdk", path, "a.vmdk", "in.raw");
        let error = Pour::there("a.vmdk", &[&Vmdk], "early.raw").go(&folder).unwrap_err();
        assert_eq!(error.what.0, b"Could not write to allocated cluster for streamOptimized");
    }
}

#[test]
fn disks_of_many_extents_are_written() {
    let scratch = Scratch::new("vmdk-many");
    let (path, folder) = (scratch.path(), Folder::new(scratch.path()));
    let zeroing = Hosted { capacity: 256, grain: 8, flags: 7, ..Hosted::default() };
    let grains: &[(u64, Grain)] = &[(1, Grain::Data(0x33)), (3, Grain::Entry(1)), (31, Grain::Data(0x44))];
    let extents: [&[&str]; 4] = [
        &["RW 16 VMFS \"flat\"", "RW 256 SPARSE \"sparse\"", "RW 24 VMFS \"other\""],
        &["RW 256 SPARSE \"sparse\"", "RW 1000 VMFSSPARSE \"cowd\""],
        &["RW 7 VMFS \"flat\"", "RW 256 SPARSE \"sparse\"", "RW 100 VMFSSPARSE \"cowd3\""],
        &["RW 30 FLAT \"flat\" 3", "RW 30 FLAT \"other\" 0"],
    ];
    for (seed, lines) in (0..).zip(extents) {
        scratch.put("flat", vec![1; 64 * 512]);
        scratch.put("other", vec![2; 64 * 512]);
        scratch.put("sparse", sparse(&zeroing, &Descriptor::default(), grains));
        scratch.put("cowd", cowd(1000, 8, &[(0, 0x51), (5, 0x52), (124, 0x53)], None));
        scratch.put("cowd3", cowd(100, 3, &[(0, 0x51), (5, 0x52), (33, 0x53)], None));
        scratch.put("a.vmdk", Descriptor::of("vmfs", lines).text());
        let sectors = |line: &str| line.split(' ').nth(1).unwrap().parse::<u64>().unwrap();
        let size = lines.iter().map(|line| sectors(line)).sum::<u64>() * 512;
        scatter(path, "in.raw", size, seed, 6);
        Pour::there("a.vmdk", &[&Vmdk], "in.raw").go(&folder).unwrap();
        holds(maker(), path, &["-f", "vmdk", "a.vmdk"], "in.raw");
    }
}

#[test]
fn split_disks_are_written_in_all_their_parts() {
    let scratch = Scratch::new("vmdk-split");
    let (path, folder) = (scratch.path(), Folder::new(scratch.path()));
    let size = (2u64 << 30) + (3 << 20);
    let writes = ["-c", "write -P 3 0 1M", "-c", "write -P 5 2047M 2M", "-c", "write -P 7 2050M 512"];
    maker().img().folder(path).args(["create", "-q", "-f", "raw", "in.raw", &format!("{size}")]).must();
    maker().io().folder(path).args(["-f", "raw"]).args(writes).arg("in.raw").must();
    let strokes = [(0, 1 << 20, 3), (2047 << 20, 1 << 20, 5), (2048 << 20, 1 << 20, 5), (2050 << 20, 512, 7)];
    let strokes = strokes.map(|(at, len, byte)| Stroke { at, len, byte });
    for kind in ["twoGbMaxExtentSparse", "twoGbMaxExtentFlat"] {
        let order = Order { options: options(&format!("subformat={kind}")), ..Order::plain(&Vmdk, size) };
        order.create(&folder, "a.vmdk").unwrap();
        let nothing = Chain { layers: Vec::new() };
        draw(&folder, "a.vmdk", &Vmdk, &Options::default(), &nothing, &strokes).unwrap();
        maker().img().folder(path).args(["compare", "-f", "raw", "-F", "vmdk", "in.raw", "a.vmdk"]).must();
    }
}

#[test]
fn damage_is_survived() {
    let scratch = Scratch::new("vmdk-damage");
    let (path, folder) = (scratch.path(), Folder::new(scratch.path()));
    for kind in ["monolithicSparse", "streamOptimized,zeroed_grain=on"] {
        create(path, &format!("-f vmdk -o subformat={kind} a.vmdk 70M"));
        let image = bytes(path, "a.vmdk");
        let mut sealed = 0;
        let mut each = |bytes: Vec<u8>| {
            scratch.put("b.vmdk", bytes);
            sealed += usize::from(weathers(&Vmdk, &folder, "b.vmdk"));
        };
        noise(&image, 0..80, 3, 150, &mut each);
        noise(&image, 512..900, 4, 50, &mut each);
        noise(&image, 21 * 512..22 * 512, 4, 50, &mut each);
        assert!(sealed > 20, "{sealed}");
    }
}

#[test]
fn a_part_of_a_packed_grain_is_nobodys() {
    let scratch = Scratch::new("vmdk-part");
    let (path, folder) = (scratch.path(), Folder::new(scratch.path()));
    create(path, "-f vmdk base.vmdk 1M");
    for kind in ["streamOptimized", "streamOptimized,zeroed_grain=on"] {
        create(path, &format!("-f vmdk -o subformat={kind} -b base.vmdk -F vmdk a.vmdk 1049088"));
        let granted = folder.open_to_write(b"a.vmdk").unwrap();
        let image = Vmdk.open(File::new(&folder, &granted), &Options::default()).unwrap();
        let mut target = image.target().unwrap();
        assert!(target.is_packed());
        for (at, len, what, good) in [
            (0, 65536, What::Data, false),
            (0, 4096, What::Zeroes, false),
            (4096, 61440, What::Zeroes, false),
            (0, 65536, What::Zeroes, true),
            (65536, 65536, What::Packed(512), true),
            (65536, 65536, What::Packed(512), false),
            // The last grain ends with the disk.
            (1 << 20, 512, What::Zeroes, true),
        ] {
            assert_eq!(target.reserve(&folder, at, len, what).is_ok(), good, "{kind} {at} {len} {what:?}");
        }
    }
}

#[test]
fn a_table_is_made_for_both_directories() {
    let scratch = Scratch::new("vmdk-directories");
    let folder = Folder::new(scratch.path());
    Order::plain(&Vmdk, 1 << 20).create(&folder, "a.vmdk").unwrap();
    let mut image = bytes(scratch.path(), "a.vmdk");
    let sector = |at: usize| u64::from_le_bytes(image[at..at + 8].try_into().unwrap()) as usize * 512;
    for directory in [sector(48), sector(56)] {
        image[directory..directory + 4].fill(0);
    }
    scratch.put("a.vmdk", image);
    scratch.put("in.raw", vec![7; 200_192]);
    Pour::there("a.vmdk", &[&Vmdk], "in.raw").go(&folder).unwrap();
    let granted = MemIo::new(bytes(scratch.path(), "a.vmdk"));
    assert_eq!(findings(&Vmdk, &granted).unwrap(), Vec::<String>::new());
}

#[test]
fn a_new_identifier_takes_the_place_of_the_old_one_and_of_nothing_else() {
    for (text, want) in [
        ("CID=fffe\nparentCID=ffffffff\n", "CID=00a7\nparentCID=ffffffff\n"),
        // Where there is less room, it has its last digits; never those that it had.
        ("CID=1\nparentCID=34\n", "CID=7\nparentCID=34\n"),
        ("CID=7\n", "CID=8\n"),
        ("CID=12 parentCID=34\r\n", "CID=a7 parentCID=34\r\n"),
    ] {
        assert_eq!(renewed(text.as_bytes(), 0xa7).as_deref(), Some(want.as_bytes()), "{text}");
    }
    assert_eq!(renewed(b"version=1\n", 0xa7), None);
    assert_eq!(renewed(b"version=1\nCID=", 0xa7), None);
}
