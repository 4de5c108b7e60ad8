//! Tests of Parallels disks.

use super::Parallels;
use super::disk::{BITMAP, Bitmap, EXTENSION, Extension, Feature, Header, IN_USE, MAGIC, MAGIC_EXT, VERSION};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use instar_codec::hash::Hash;
use instar_image::probe::Claim;
use instar_image::{Chain, File, Format, Kind, Options};
use instar_testkit::build::mutate::{noise, patched, storm};
use instar_testkit::build::trial::{claim, claimed, findings, refusal, sound, survived, told};
use instar_testkit::folder::Folder;
use instar_testkit::made::{alike, options};
use instar_testkit::mem::MemIo;
use instar_testkit::oracle::{maker, newest};
use instar_testkit::pen::{Stroke, draw, drawn, holds, prodded, read_by, strokes};
use instar_testkit::place::Scratch;
use instar_testkit::twin::{agree, agreed, chain, create, scribble, survives};
use instar_testkit::workshop::{Order, bytes};
use zerocopy::{FromZeros, IntoBytes};

/// A disk of 8 sectors in clusters of 4, its format extension in the second cluster.
fn good(features: &[u8]) -> Vec<u8> {
    let mut header = Header::new_zeroed();
    header.magic = *MAGIC_EXT;
    header.version = VERSION.into();
    header.tracks = 4.into();
    header.bat_entries = 2.into();
    header.nb_sectors = 8.into();
    header.ext_off = 4.into();
    let mut image = header.as_bytes().to_vec();
    image.resize(2048, 0);
    let mut body = features.to_vec();
    body.resize(2048 - 24, 0);
    let head = Extension { magic: EXTENSION.into(), checksum: sum(&body) };
    [image, head.as_bytes().to_vec(), body].concat()
}

fn sum(bytes: &[u8]) -> [u8; 16] {
    Hash::by_name(b"md5").unwrap().digest(&[bytes]).try_into().unwrap()
}

fn feature(magic: u64, flags: u64, data: &[u8]) -> Vec<u8> {
    let head = Feature {
        magic: magic.into(),
        flags: flags.into(),
        data_size: u32::try_from(data.len()).unwrap().into(),
        unused: 0.into(),
    };
    let mut out = [head.as_bytes(), data].concat();
    out.resize(out.len().next_multiple_of(8), 0);
    out
}

fn bitmap(size: u64, granularity: u32, entries: &[u64]) -> Vec<u8> {
    let count = u32::try_from(entries.len()).unwrap();
    let head = Bitmap { size: size.into(), id: [7; 16], granularity: granularity.into(), l1_size: count.into() };
    [head.as_bytes().to_vec(), entries.iter().flat_map(|entry| entry.to_le_bytes()).collect()].concat()
}

#[test]
fn good_images_are_told() {
    assert_eq!(claim(&Parallels, good(&[])), Ok(Claim::Yes));
    assert_eq!(claim(&Parallels, patched(&good(&[]), 16, &[1])), Ok(Claim::No));
    let image = told(&Parallels, good(&feature(BITMAP, 0, &bitmap(8, 1, &[1])))).unwrap();
    assert_eq!((image.virtual_size, image.dirty), (4096, None));
    let open = patched(&good(&[]), 44, &IN_USE.to_le_bytes());
    assert_eq!(told(&Parallels, open).unwrap().dirty, None);
    // The older layout has a size of 32 bits.
    let old = patched(&patched(&good(&[]), 0, MAGIC), 40, &[1]);
    assert_eq!(told(&Parallels, old).unwrap().virtual_size, 4096);
}

#[test]
fn each_refusal_has_its_phrase_and_its_turn() {
    let cases: [(usize, &[u8], &str); 7] = [
        (16, &[3], "Image not in Parallels format"),
        (28, &[0; 4], "Invalid image: Zero sectors per track"),
        (28, &[0xff; 4], "Invalid image: Too big cluster"),
        (32, &[0xff; 4], "Catalog too large"),
        (56, &[0xff; 8], "Invalid image: Too big offset"),
        (36, &[9], "Invalid image: Catalog size too small for advertised disk size"),
        (2048, &[0], "Wrong parallels Format Extension magic: 0x{}, expected: 0x{}"),
    ];
    let mut all = good(&[]);
    for (at, bytes, phrase) in cases.iter().rev() {
        assert_eq!(refusal(&Parallels, patched(&good(&[]), *at, bytes)), *phrase);
        all = patched(&all, *at, bytes);
        assert_eq!(refusal(&Parallels, all.clone()), *phrase);
    }
    let corrupt = patched(&good(&[]), 3000, &[1]);
    assert_eq!(
        refusal(&Parallels, corrupt),
        "Wrong checksum in Format Extension header. Format extension is corrupted."
    );
}

#[test]
fn short_tables_were_once_enough() {
    let io = |sectors: u64| MemIo::new(patched(&good(&[]), 36, &sectors.to_le_bytes()));
    let size = |io: &MemIo, version: u32| {
        let options = Options { as_qemu: true, version, ..Options::default() };
        let image = Parallels.open(File::new(io, &io.top()), &options)?;
        image.describe(false).map(|told| told.virtual_size)
    };
    assert_eq!(size(&io(1 << 20), 1002), Ok(1 << 29));
    assert_eq!(size(&io(1 << 20), 1101).map_err(|e| e.kind), Err(Kind::Corrupt));
    for sectors in [(1 << 54) - 1, 1 << 54, u64::MAX] {
        assert_eq!(size(&io(sectors), 1002).map_err(|e| e.kind), Err(Kind::TooBig));
    }
}

#[test]
fn features_are_checked() {
    let refused = |features: &[u8]| refusal(&Parallels, good(features));
    assert_eq!(refused(&feature(5, 0, b"abc")), "Unknown feature: 0x{}");
    assert_eq!(refused(&feature(5, 1, b"abc")), "Flags for extension feature are unsupported");
    assert_eq!(
        refused(&patched(&feature(5, 0, b""), 16, &[0xff; 4])),
        "Feature data_size exceedes Format Extension cluster"
    );
    let small = refused(&feature(BITMAP, 0, b"short"));
    assert!(small.starts_with("Too small Bitmap Feature area"), "{small}");
    let cases = [
        (bitmap(9, 1, &[0]), "Bitmap size (in sectors) {} differs from disk size in sectors {}"),
        (bitmap(8, 1, &[]), "Bitmap table size {} does not correspond to bitmap size and cluster size. Expected {}"),
        (bitmap(8, 3, &[0]), "Invalid granularity of dirty bitmap: {} sectors"),
        (bitmap(8, 1, &[1 << 54]), "Failed to read bitmap data cluster: Input/output error"),
        (patched(&bitmap(8, 1, &[0]), 28, &[2]), "Bitmaps feature corrupted: l1 table exceeds extension data_size"),
    ];
    for (data, phrase) in cases {
        assert_eq!(refused(&feature(BITMAP, 0, &data)), phrase);
    }
    let twice = feature(BITMAP, 0, &bitmap(8, 1, &[0])).repeat(2);
    assert_eq!(refused(&twice), "Bitmap already exists: {}");
}

#[test]
fn damage_is_survived() {
    let image = good(&feature(BITMAP, 0, &bitmap(8, 1, &[1])));
    assert!(survived(&Parallels, &image, 56) > 100);
    // Damage to the features is found out by the checksum; here it is made to fit.
    noise(&image, 2072..2140, 3, 2000, |bytes| {
        let features = bytes.get(2072..).unwrap().to_vec();
        let _ = told(&Parallels, good(&features));
    });
}

#[test]
fn disks_are_read_as_qemu_img_reads_them() {
    let scratch = Scratch::new("parallels");
    for (seed, cluster) in (0..).zip(["1M", "64k", "4k"]) {
        let size = (4 << 20) + 1536 * seed;
        create(scratch.path(), &format!("-f parallels -o cluster_size={cluster} a.hdd {size}"));
        scribble(scratch.path(), "parallels", "a.hdd", 4 << 20, seed, 12);
        agreed(scratch.path(), "a.hdd", &[&Parallels], seed);
        sound(&Parallels, &scratch.path().join("a.hdd"));
    }
}

/// A disk of 16 clusters and its table, with three clusters of data behind 8 sectors, cut to `len`.
fn disk(magic: &[u8; 16], tracks: u32, data: u32, table: &[u32], len: usize) -> Vec<u8> {
    let mut header = Header::new_zeroed();
    header.magic = *magic;
    header.version = VERSION.into();
    header.tracks = tracks.into();
    header.bat_entries = 16.into();
    header.nb_sectors = (u64::from(tracks) * 16 - 1).into();
    header.data_off = data.into();
    let mut image = header.as_bytes().to_vec();
    image.extend(table.iter().flat_map(|entry| entry.to_le_bytes()));
    image.resize(4096, 0);
    for fill in [b'a', b'b', b'c'] {
        image.resize(image.len() + 512 * tracks as usize, fill);
    }
    image.resize(len, 0);
    image
}

/// Magic, sectors of a cluster, where the data begin, the table, and the length of the file.
type Case<'c> = (&'c [u8; 16], u32, u32, &'c [u32], usize);

#[test]
fn every_entry_of_the_table_means_what_it_means_to_qemu_img() {
    let scratch = Scratch::new("parallels");
    let whole = 4096 * 4;
    let clusters: &[u32] = &[3, 0, 1, 2, 0, 0, 2];
    let cases: &[Case<'_>] = &[
        (MAGIC_EXT, 8, 0, clusters, whole),
        (MAGIC_EXT, 8, 8, clusters, whole),
        (MAGIC, 8, 0, &[24, 0, 8, 16, 0, 9], whole),
        (MAGIC, 3, 0, &[8, 11, 0, 14, 9], 4096 + 4608),
        (MAGIC, 3, 0, &[8, 11, 0, 14, 1], 4096 + 4608),
        // Not all there, or not where data may be.
        (MAGIC_EXT, 8, 0, clusters, whole - 2000),
        (MAGIC_EXT, 8, 0, &[1, 0, 2, 100, u32::MAX], whole),
        (MAGIC_EXT, 8, 16, clusters, whole),
        (MAGIC, 8, 4, &[8, 1, 16], whole),
        (MAGIC_EXT, 8, 1, clusters, whole),
        (MAGIC_EXT, 8, 32, clusters, whole),
        (MAGIC_EXT, 8, u32::MAX, clusters, whole),
        (MAGIC_EXT, 8, 0, clusters, 90),
    ];
    for (seed, (magic, tracks, data, table, len)) in (0..).zip(cases) {
        scratch.put("a.hdd", disk(magic, *tracks, *data, table, *len));
        for oracle in instar_testkit::oracle::oracles().iter().filter(|oracle| oracle.since("10.0")) {
            agree(oracle, scratch.path(), "a.hdd", &[&Parallels], seed);
        }
    }
}

#[test]
fn damage_to_the_table_is_survived() {
    let small = disk(MAGIC_EXT, 8, 8, &[3, 0, 1, 2, 0, 0, 2], 4096 + 100);
    storm(&small, 100, |bytes| survives(&Parallels, &MemIo::new(bytes), 4 << 20));
}

#[test]
fn a_check_finds_what_is_outside_shared_and_lost() {
    let found =
        |magic, data, table: &[u32], len| findings(&Parallels, &MemIo::new(disk(magic, 8, data, table, len))).unwrap();
    let whole = 4096 * 4;
    let lost = |at: usize, len: usize| format!("nothing uses '{{file}}' there: offset {at}, {len} bytes");
    let shared = |number: usize, at: usize| {
        format!("cluster {number} lies in '{{file}}' where something else is: offset {at}, 4096 bytes")
    };
    assert_eq!(found(MAGIC_EXT, 8, &[3, 0, 1, 2], whole), Vec::<String>::new());
    assert_eq!(found(MAGIC_EXT, 8, &[3, 0, 1], whole), [lost(8192, 4096)]);
    assert_eq!(found(MAGIC_EXT, 8, &[1, 2], whole + 100), [lost(12288, 4608)]);
    assert_eq!(found(MAGIC_EXT, 8, &[1, 2, 3, 2], whole), [shared(3, 8192)]);
    let outside = "cluster 4 is outside of '{file}': offset 16384, 4096 bytes";
    assert_eq!(found(MAGIC_EXT, 8, &[1, 2, 3, 0, 4], whole), [outside]);
    assert_eq!(found(MAGIC_EXT, 1, &[1, 2, 3], whole), ["ERROR data_off field has incorrect value"]);
    // What is not on the grid is held against all that it lies over.
    assert_eq!(found(MAGIC, 8, &[8, 16, 24, 12], whole), [shared(3, 6144)]);
    assert_eq!(found(MAGIC, 8, &[9, 17], whole), [lost(4096, 512), lost(12800, 3584)]);
    assert_eq!(found(MAGIC, 8, &[8, 16, 24, 4], whole), [shared(3, 2048)], "over what is before the data and another");
    let open = patched(&disk(MAGIC_EXT, 8, 8, &[1, 2, 3], whole), 44, &IN_USE.to_le_bytes());
    assert_eq!(findings(&Parallels, &MemIo::new(open)).unwrap(), ["ERROR image was not closed correctly"]);
    for table in [&[3, 0, 1, 2][..], &[9, 9, 12], &[1, 100, 24]] {
        assert!(claimed(&Parallels, &MemIo::new(disk(MAGIC, 8, 8, table, whole))).unwrap() > 0);
    }
}

#[test]
fn a_format_extension_has_its_place() {
    // Its bits would lie where the extension does.
    let image = good(&feature(BITMAP, 0, &bitmap(8, 1, &[4])));
    let shared = "a part of a bitmap lies in '{file}' where something else is: offset 2048, 2048 bytes";
    assert_eq!(findings(&Parallels, &MemIo::new(image)).unwrap().last().unwrap(), shared);
    let image = patched(&good(&feature(BITMAP, 0, &bitmap(8, 1, &[1]))), 48, &[4]);
    assert_eq!(findings(&Parallels, &MemIo::new(image)).unwrap(), Vec::<String>::new());
}

#[test]
fn a_check_survives_damage() {
    let small = disk(MAGIC, 8, 8, &[3, 0, 1, 2, 0, 0, 2], 4096 + 100);
    let mut checked = 0;
    storm(&small, 100, |bytes| checked += usize::from(findings(&Parallels, &MemIo::new(bytes)).is_ok()));
    assert!(checked > 100);
}

#[test]
fn images_are_made_as_qemu_img_makes_them() {
    let scratch = Scratch::new("parallels-made");
    let sizes = [0, 1, 513, (1 << 20) - 1, (1 << 20) + 1, 10 << 20, 0x3f_f000_0000, 0x3f_f000_0001];
    for (index, size) in sizes.into_iter().enumerate() {
        let oracle = if index % 2 == 1 { newest() } else { maker() };
        for words in ["", "cluster_size=64k", "cluster_size=3k", "cluster_size=1", "cluster_size=2147483136"] {
            if size < 1 << 30 || words.is_empty() {
                assert!(alike(oracle, scratch.path(), &Parallels, words, size, &[]), "{words}");
            }
        }
    }
    assert!(alike(maker(), scratch.path(), &Parallels, "preallocation=full", 5 << 20, &[]));
    for (words, size) in [
        ("cluster_size=0", 10 << 20),
        ("cluster_size=2147483137", 0),
        ("cluster_size=2T,preallocation=x", 1 << 20),
        ("cluster_size=2T,preallocation=metadata", 1 << 20),
        ("cluster_size=2T", 1 << 62),
        ("", 1 << 52),
        ("cluster_size=512", 1 << 41),
    ] {
        assert!(!alike(maker(), scratch.path(), &Parallels, words, size, &[]), "{words}");
        assert!(!alike(newest(), scratch.path(), &Parallels, words, size, &[]), "{words}");
    }
}

/// Draws on an image, twice, and asks everybody what is there.
fn drawn_on(scratch: &Scratch, name: &str, before: Vec<u8>, seed: u64) {
    let (folder, none) = (scratch.path(), Chain { layers: Vec::new() });
    let mut disk = before;
    for round in 0..2 {
        let strokes = strokes(disk.len() as u64, seed * 2 + round, 9, 512);
        let options = Options { as_qemu: round == 1, version: 1101, ..Options::default() };
        draw(&Folder::new(folder), name, &Parallels, &options, &none, &strokes).unwrap();
        disk = drawn(&strokes, disk);
        holds(&[maker(), newest()][..1 + round as usize], folder, "parallels", name, &disk);
        // qemu-img does not use again what a guest gave up.
        if name == "a.par" {
            sound(&Parallels, &folder.join(name));
        }
    }
}

#[test]
fn what_is_written_is_there() {
    let scratch = Scratch::new("parallels-written");
    for (seed, words) in (0..).zip(["cluster_size=1M", "cluster_size=64k", "cluster_size=512", "cluster_size=3k"]) {
        let size = (3 << 20) + 512 * seed;
        let order = Order { options: options(words), ..Order::plain(&Parallels, size) };
        order.create(&Folder::new(scratch.path()), "a.par").unwrap();
        drawn_on(&scratch, "a.par", alloc::vec![0; size as usize], seed);
        create(scratch.path(), &format!("-f parallels -o {words} b.par {size}"));
        scribble(scratch.path(), "parallels", "b.par", size, seed, 5);
        drawn_on(&scratch, "b.par", read_by(maker(), scratch.path(), "parallels", "b.par"), seed + 100);
    }
}

#[test]
fn clusters_of_other_writers_are_written_to() {
    let scratch = Scratch::new("parallels-others");
    let stroke = |at, len, byte| Stroke { at, len, byte };
    // The last entry leads behind the file, where new clusters are; the one before it to half a cluster at its end.
    for (magic, tracks, table, len) in [
        (MAGIC, 4, [0, 5, 9, 13, 0, 17], 13 * 512 + 700),
        (MAGIC_EXT, 4, [0, 2, 3, 4, 0, 6], 16 * 512 + 700),
        (MAGIC_EXT, 3, [0, 3, 0, 4, 0, 6], 15 * 512),
    ] {
        let image = disk(magic, tracks, [0, 0, 0, 9, 8][if magic == MAGIC { 0 } else { tracks as usize }], &table, len);
        scratch.put("a.par", &image);
        let folder = Folder::new(scratch.path());
        let options = Options::default();
        let none = Chain { layers: Vec::new() };
        let before = chain(&folder, "a.par", &[&Parallels], &options).unwrap();
        let before = instar_testkit::content::content(&before, &folder, 1).unwrap();
        let cluster = u64::from(tracks) * 512;
        let strokes = [stroke(0, 512, 1), stroke(3 * cluster + 1024, 512, 2), stroke(5 * cluster + 512, 512, 3)];
        draw(&folder, "a.par", &Parallels, &options, &none, &strokes).unwrap();
        let after = chain(&folder, "a.par", &[&Parallels], &options).unwrap();
        let after = instar_testkit::content::content(&after, &folder, 1).unwrap();
        assert_eq!(after, drawn(&strokes, before));
        holds(&[maker(), newest()], scratch.path(), "parallels", "a.par", &after);
    }
}

#[test]
fn marks_are_as_they_were() {
    let scratch = Scratch::new("parallels-marks");
    let none = Chain { layers: Vec::new() };
    let strokes = [Stroke { at: 512, len: 512, byte: 1 }];
    for (in_use, flags) in [(0u32, 1u32), (IN_USE, 2)] {
        let image = patched(&disk(MAGIC_EXT, 4, 4, &[0, 0, 0], 2048), 44, &in_use.to_le_bytes());
        scratch.put("a.par", patched(&image, 52, &flags.to_le_bytes()));
        let folder = Folder::new(scratch.path());
        draw(&folder, "a.par", &Parallels, &Options::default(), &none, &strokes).unwrap();
        let image = bytes(scratch.path(), "a.par");
        assert_eq!(image[44..48], in_use.to_le_bytes());
        assert_eq!(image[52..56], (flags & 2).to_le_bytes());
        assert_eq!(image[64..68], [1, 0, 0, 0]);
        assert_eq!(image.len(), 4096);
    }
}

#[test]
fn damaged_disks_are_written_to_or_refused() {
    let scratch = Scratch::new("parallels-prodded");
    let mut written = 0;
    noise(&disk(MAGIC_EXT, 4, 8, &[0, 2, 3, 4, 0, 6], 16 * 512 + 700)[..200], 0..120, 5, 300, |bytes| {
        scratch.put("a.par", bytes);
        written += usize::from(prodded(&Folder::new(scratch.path()), "a.par", &Parallels).is_ok());
    });
    assert!((50..590).contains(&written), "{written}");
}
