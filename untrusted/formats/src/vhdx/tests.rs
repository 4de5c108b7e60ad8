//! Tests of VHDX.

extern crate std;

use super::Vhdx;
use super::crc32c::Crc32c;
use alloc::string::String;
use alloc::vec::Vec;
use instar_image::probe::Claim;
use instar_image::text::{from_utf16le, guid};
use instar_image::{Chain, Fact, File, Format, Options};
use instar_testkit::build::mutate::{Noise, fields, noise, patched};
use instar_testkit::build::trial::{claim, refusal, told};
use instar_testkit::build::vhdx::{self, Change, Entry, build, crc32c, log, seal};
use instar_testkit::content::{content, read};
use instar_testkit::folder::Folder;
use instar_testkit::mem::MemIo;
use instar_testkit::oracle::maker;
use instar_testkit::place::Scratch;
use instar_testkit::twin;
use std::path::Path;

const INVALID: &str = "Could not open '{file}': Invalid argument";
const NOT_SUPPORTED: &str = "Could not open '{file}': Operation not supported";
const BEYOND: &str =
    "VHDX BAT entry {} start offset {} points after end of file ({}). Image has probably been truncated.";
const METADATA: usize = 3 << 20;
const TABLE: usize = 2 << 20;

fn good() -> Vec<u8> {
    build(&vhdx::Vhdx { blocks: Vec::from([(2, b'x')]), ..vhdx::Vhdx::default() })
}

/// With the checksums of both headers and of the region table made to fit.
fn resealed(mut image: Vec<u8>) -> Vec<u8> {
    for (at, len) in [(0x1_0000, 4096), (0x2_0000, 4096), (0x3_0000, 65536)] {
        if let Some(part) = image.get_mut(at..at + len) {
            seal(part);
        }
    }
    image
}

#[test]
fn words_are_understood() {
    assert_eq!(Crc32c::default().update(b"1234").update(b"56789").finish(), 0xe306_9283);
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    assert_eq!(guid(&super::disk::BAT), "2dc27766-f623-4200-9d64-115e9bfd4a08");
    assert_eq!(from_utf16le(b"a\0\x00\xd8b\0\0\0c\0"), "a\u{fffd}b".as_bytes());
}

#[test]
fn good_image_is_told() {
    assert_eq!(claim(&Vhdx, good()), Ok(Claim::Yes));
    let image = told(&Vhdx, good()).unwrap();
    assert_eq!((image.virtual_size, image.cluster_size), (4 << 20, Some(1 << 20)));
    assert_eq!(image.extra.unwrap().get("log"), Some(&Fact::from("empty")));
    assert!(image.findings[0].ok);
}

#[test]
fn parent_is_told() {
    let parent = Vec::from([("relative_path".into(), ".\\p\u{e4}rent.vhdx".into())]);
    let image = told(&Vhdx, build(&vhdx::Vhdx { parent, ..vhdx::Vhdx::default() })).unwrap();
    let pair = Fact::fields([("key", "relative_path".into()), ("value", ".\\p\u{e4}rent.vhdx".into())]);
    assert_eq!(image.findings[0].detail, Fact::List(Vec::from([Fact::List(Vec::from([pair]))])));
    assert!(!image.findings[0].ok);
}

#[test]
fn log_that_was_not_replayed_is_what_qemu_refuses() {
    let image = build(&vhdx::Vhdx { dirty: Some(4 << 20), ..vhdx::Vhdx::default() });
    let state = |bytes| told(&Vhdx, bytes).unwrap().extra.unwrap().get("log").cloned();
    assert_eq!(state(image.clone()), Some(Fact::from("dirty")));
    let as_qemu = |bytes| {
        let io = MemIo::new(bytes);
        let options = Options { as_qemu: true, ..Options::default() };
        Vhdx.open(File::new(&io, &io.top()), &options)
            .map(drop)
            .map_err(|error| String::from_utf8(error.what.0).unwrap())
    };
    assert!(as_qemu(image.clone()).unwrap_err().contains("contains a log that needs to be replayed"));
    // An entry with a wrong checksum is none; for qemu-img a wrong descriptor is an error all the same.
    let torn = patched(&image, (1 << 20) + 12, &[1]);
    assert_eq!((state(torn.clone()), as_qemu(torn)), (Some(Fact::from("clean")), Ok(())));
    let torn = patched(&image, (1 << 20) + 64, b"none");
    assert_eq!((state(torn.clone()), as_qemu(torn)), (Some(Fact::from("clean")), Err(INVALID.into())));
}

#[test]
fn headers_are_chosen_by_number() {
    let image = good();
    let number = |which: usize, number: u8| (which * 0x1_0000 + 8, number);
    let with = |changes: &[(usize, u8)]| {
        resealed(changes.iter().fold(image.clone(), |image, (at, byte)| patched(&image, *at, &[*byte])))
    };
    assert!(told(&Vhdx, with(&[number(1, 7)])).is_ok());
    assert!(told(&Vhdx, with(&[number(1, 2)])).is_ok());
    assert_eq!(refusal(&Vhdx, with(&[number(1, 2), (0x1_0010, 9)])), "No valid VHDX header found");
    assert!(told(&Vhdx, patched(&image, 0x1_0000, b"x")).is_ok());
    assert!(told(&Vhdx, patched(&image, 0x2_0000, b"x")).is_ok());
    assert_eq!(refusal(&Vhdx, patched(&patched(&image, 0x1_0000, b"x"), 0x2_0000, b"x")), "No valid VHDX header found");
}

#[test]
fn each_refusal_has_its_phrase() {
    let cases: [(usize, &[u8], &str); 16] = [
        (0, b"x", INVALID),
        (0x3_0000, b"x", INVALID),
        (0x3_0008, &[0, 8], INVALID),
        (0x3_0008, &[1], INVALID),
        (0x3_0010, b"x", NOT_SUPPORTED),
        (0x3_0020, &[0, 0, 0x30], "VHDX region {}-{} overlaps with region {}-{}"),
        (METADATA, b"x", INVALID),
        (METADATA + 10, &[0], NOT_SUPPORTED),
        (METADATA + 32, b"x", NOT_SUPPORTED),
        (METADATA + 0x1_0000, &[1], INVALID),
        (METADATA + 0x1_0004, &[2], INVALID),
        (METADATA + 0x1_0008, &[0; 8], INVALID),
        (METADATA + 0x1_000f, &[1], INVALID),
        (METADATA + 0x1_0020, &[0, 8], NOT_SUPPORTED),
        (TABLE + 16, &[6, 0, 0, 0x70], BEYOND),
        (TABLE + 16, &[6, 0, 0x20, 0], "VHDX region {}-{} overlaps with region {}-{}"),
    ];
    for (at, bytes, phrase) in cases {
        assert_eq!(refusal(&Vhdx, resealed(patched(&good(), at, bytes))), phrase, "at {at:#x}");
    }
    for (at, bytes) in [(66usize, &[2u8][..]), (64, &[1]), (72, &[1]), (70, &[0xff])] {
        let image = patched(&patched(&good(), 0x1_0000 + at, bytes), 0x2_0000 + at, bytes);
        assert!(refusal(&Vhdx, resealed(image)).len() > 10);
    }
}

#[test]
fn damage_is_survived() {
    let mut image = build(&vhdx::Vhdx { dirty: Some(4 << 20), ..vhdx::Vhdx::default() });
    image.truncate(4 << 20);
    let mut ask = |bytes: Vec<u8>| {
        let _ = told(&Vhdx, bytes.clone());
        twin::survives(&Vhdx, &MemIo::new(bytes), 1 << 16);
    };
    for cut in (0..image.len()).step_by(512 * 41) {
        ask(image[..cut].to_vec());
    }
    noise(&image, (1 << 20)..(1 << 20) + 100, 1, 40, &mut ask);
    fields(&good(), METADATA + 32..METADATA + 64, 2, &mut ask);
    for (range, seed) in [
        (0x1_0000..0x1_0050, 3),
        (0x3_0000..0x3_0050, 4),
        (METADATA..METADATA + 200, 5),
        (METADATA + 0x1_0000..METADATA + 0x1_0028, 6),
        (TABLE..TABLE + 40, 7),
    ] {
        noise(&good(), range, seed, 40, |bytes| ask(resealed(bytes)));
    }
}

/// What we read of a file of the folder.
fn ours(folder: &Path, name: &str, seed: u64) -> Vec<u8> {
    let io = Folder::new(folder);
    let chain = twin::chain(&io, name, &[&Vhdx], &Options::default()).unwrap();
    content(&chain, &io, seed).unwrap()
}

#[test]
fn what_qemu_writes_is_read() {
    for (seed, options) in
        ["block_size=1M", "block_size=2M,block_state_zero=off", "subformat=fixed,block_size=1M"].into_iter().enumerate()
    {
        let scratch = Scratch::new("vhdx");
        twin::create(scratch.path(), &alloc::format!("-f vhdx -o log_size=1M,{options} disk.vhdx 9437696"));
        twin::scribble(scratch.path(), "vhdx", "disk.vhdx", 9_437_696, seed as u64, 12);
        let io = Folder::new(scratch.path());
        let chain = twin::chain(&io, "disk.vhdx", &[&Vhdx], &Options::default()).unwrap();
        assert!(!chain.layers[0].is_open());
        assert_eq!(content(&chain, &io, 1).unwrap(), converted(scratch.path(), "disk.vhdx"));
    }
}

fn converted(folder: &Path, name: &str) -> Vec<u8> {
    maker().img().folder(folder).args(["convert", "-f", "vhdx", "-O", "raw", name, "twin.raw"]).must();
    std::fs::read(folder.join("twin.raw")).unwrap()
}

/// A log for an image of qemu-img's: one sequence of entries somewhere in the ring, perhaps older ones around it.
pub fn random_log(image: &[u8], noise: &mut Noise) -> Vec<Entry> {
    let len = image.len() as u64;
    let ring = 1 << 20;
    let table: Vec<u8> = image[TABLE..][..4096].to_vec();
    let start = noise.below(256) * 4096;
    let mut sequence = 1 + (noise.next() >> noise.below(40));
    let (mut at, mut entries, mut end) = (start, Vec::new(), len);
    let stale = noise.below(3);
    let count = stale + 1 + noise.below(6);
    let mut tail = start;
    for number in 0..count {
        if number == stale {
            // What was written before has long reached its place; its numbers may go on or not.
            sequence += noise.below(2) * 5;
            tail = at % ring;
        }
        let mut changes = Vec::new();
        for _ in 0..noise.below(6) {
            let place = (4 << 20) + noise.below((len - (4 << 20)) / 4096) * 4096;
            let room = len - place;
            let filled = || (0..4096u64).map(|n| (n * 7 + place / 4096 + sequence) as u8).collect();
            changes.push(match noise.below(4) {
                0 => Change::Zero(place, (noise.below(40) * 4096).min(room)),
                _ => Change::Data(place, filled()),
            });
        }
        if noise.below(3) == 0 {
            // One more block comes to be at the end of the file, and its entry is in the log alone.
            let mut table = table.clone();
            let free = (0..9).map(|n| n * 8).find(|at| table[*at] & 7 != 6).unwrap_or(0);
            table[free..free + 8].copy_from_slice(&(len | 6).to_le_bytes());
            changes.push(Change::Data(TABLE as u64, table));
            // Its last sector: qemu-img does not lengthen the file to whole MiB by itself, as it should.
            changes.push(Change::Data(len + (1 << 20) - 4096, alloc::vec![sequence as u8; 4096]));
            end = len + (1 << 20);
        }
        let entry = Entry { at: at % ring, sequence, tail, changes, flushed: len, last: end };
        at += entry.bytes().len() as u64;
        sequence += 1;
        entries.push(entry);
    }
    entries
}

/// Where the first difference is; lengths count.
fn differs(a: &[u8], b: &[u8]) -> Option<usize> {
    let first = || a.iter().zip(b).position(|(a, b)| a != b).unwrap_or(a.len().min(b.len()));
    (a != b).then(first)
}

fn places(entry: &Entry) -> Vec<(u64, u64)> {
    let place = |change: &Change| match change {
        Change::Zero(at, len) => (*at, *len),
        Change::Data(at, _) => (*at, 4096),
    };
    entry.changes.iter().map(place).collect()
}

/// The image after the entries of the last one's sequence have been carried out.
fn replayed(mut image: Vec<u8>, entries: &[Entry]) -> Vec<u8> {
    let last = entries.last().unwrap();
    let first = entries.iter().position(|entry| entry.at == last.tail).unwrap();
    for change in entries[first..].iter().flat_map(|entry| &entry.changes) {
        let (at, bytes) = match change {
            Change::Zero(at, len) => (*at as usize, alloc::vec![0; *len as usize]),
            Change::Data(at, bytes) => (*at as usize, bytes.clone()),
        };
        image.resize(image.len().max(at + bytes.len()), 0);
        image[at..at + bytes.len()].copy_from_slice(&bytes);
    }
    image.resize(image.len().max(last.last as usize), 0);
    image
}

#[test]
fn log_is_replayed_as_qemu_replays_it() {
    let scratch = Scratch::new("vhdx");
    let folder = scratch.path();
    twin::create(folder, "-f vhdx -o log_size=1M,block_size=1M disk.vhdx 9437184");
    twin::scribble(folder, "vhdx", "disk.vhdx", 6 << 20, 3, 12);
    let base = std::fs::read(folder.join("disk.vhdx")).unwrap();
    let (mut changed, mut alike) = (0, 0);
    for seed in 0..16 {
        let mut noise = Noise::new(seed);
        let mut image = base.clone();
        let entries = random_log(&image, &mut noise);
        log(&mut image, &entries);
        if noise.below(2) == 0 {
            // The last one was being written when all stopped.
            let last = entries.last().unwrap();
            let next = Entry {
                at: (last.at + last.bytes().len() as u64) % (1 << 20),
                sequence: last.sequence + 1,
                ..last.clone()
            };
            log(&mut image, core::slice::from_ref(&next));
            image[(1 << 20) + next.at as usize + 40] ^= 1;
        }
        std::fs::write(folder.join("dirty.vhdx"), &image).unwrap();
        let got = ours(folder, "dirty.vhdx", seed);
        let words: Vec<String> = entries
            .iter()
            .map(|entry| alloc::format!("{} at {:#x} {:x?}", entry.sequence, entry.at, places(entry)))
            .collect();
        std::fs::write(folder.join("after.vhdx"), replayed(base.clone(), &entries)).unwrap();
        assert_eq!(differs(&got, &converted(folder, "after.vhdx")), None, "seed {seed}: {words:#?}");
        // qemu-img also replays entries that are from before the sequence.
        if entries.iter().all(|entry| entry.tail == entries[0].at) {
            maker().io().folder(folder).args(["-f", "vhdx", "-c", "read 0 512", "dirty.vhdx"]).must();
            assert_eq!(differs(&got, &converted(folder, "dirty.vhdx")), None, "qemu-img, seed {seed}: {words:#?}");
            alike += 1;
        }
        changed += usize::from(got != converted(folder, "disk.vhdx"));
    }
    assert!(changed > 8 && alike > 2, "{changed} {alike}");
}

/// A parent, its child, both of 8 blocks, and what the child holds.
fn family(sector: u32, noise: &mut Noise) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let block = |byte: u8| -> Vec<u8> { (0..1usize << 20).map(|n| (n / 512) as u8 ^ byte).collect() };
    let parent = vhdx::Vhdx {
        size: 8 << 20,
        sector,
        more: (0..8).map(|n| (n, 6, block(n as u8 * 17))).collect(),
        ..vhdx::Vhdx::default()
    };
    let mut bits: Vec<u8> = (0..(8usize << 20) / sector as usize / 8).map(|_| noise.next() as u8).collect();
    let quarter = bits.len() / 4;
    bits[quarter..quarter + 40].fill(0xff);
    bits[quarter + 40..quarter + 90].fill(0);
    let states = [0, 7, 7, 6, 1, 7, 2, 3];
    let more: Vec<(u32, u8, Vec<u8>)> = states
        .iter()
        .zip(0..)
        .map(|(state, n)| (n, *state, if *state > 5 { block(0x80 | n as u8) } else { Vec::new() }))
        .collect();
    let mut model = Vec::new();
    for (n, state, data) in &more {
        let below = block(*n as u8 * 17);
        for at in (0..1usize << 20).step_by(sector as usize) {
            let number = ((*n as usize) << 20 | at) / sector as usize;
            let own = *state == 6 || *state == 7 && bits[number / 8] >> (number % 8) & 1 == 1;
            let range = at..at + sector as usize;
            match state {
                1..=3 => model.extend(alloc::vec![0; sector as usize]),
                _ if own => model.extend(&data[range]),
                _ => model.extend(&below[range]),
            }
        }
    }
    let link = (String::from("parent_linkage"), String::from("{61746164-7720-6972-7465-206775696421}"));
    let path = (String::from("relative_path"), String::from(".\\parent.vhdx"));
    let child = vhdx::Vhdx {
        size: 8 << 20,
        sector,
        parent: Vec::from([link, path]),
        more,
        bitmaps: Vec::from([(0, bits)]),
        ..vhdx::Vhdx::default()
    };
    (build(&parent), build(&child), model)
}

#[test]
fn sectors_come_from_child_or_parent() {
    for (sector, seed) in [(512, 1), (4096, 2)] {
        let scratch = Scratch::new("vhdx");
        let (parent, child, model) = family(sector, &mut Noise::new(seed));
        std::fs::write(scratch.path().join("parent.vhdx"), parent).unwrap();
        std::fs::write(scratch.path().join("child.vhdx"), &child).unwrap();
        let io = Folder::new(scratch.path());
        let chain = twin::chain(&io, "child.vhdx", &[&Vhdx, &Vhdx], &Options::default()).unwrap();
        assert_eq!(differs(&content(&chain, &io, seed).unwrap(), &model), None, "sectors of {sector}");
    }
}

#[test]
fn parent_must_be_the_one_that_was_left() {
    let parent = build(&vhdx::Vhdx::default());
    let error = |pairs: &[(&str, &str)], parent: &[u8]| {
        let pairs = pairs.iter().map(|(key, value)| (String::from(*key), String::from(*value))).collect();
        let io =
            MemIo::new(build(&vhdx::Vhdx { parent: pairs, ..vhdx::Vhdx::default() })).with("p.vhdx", parent.to_vec());
        let image = Vhdx.open(File::new(&io, &io.top()), &Options::default()).unwrap();
        image.parent().map(|granted| granted.is_some()).map_err(|error| String::from_utf8(error.what.0).unwrap())
    };
    let good = "{61746164-7720-6972-7465-206775696421}";
    let other = "{61746164-7720-6972-7465-206775696422}";
    let path = ("absolute_win32_path", "C:\\disks\\p.vhdx");
    let state = "the VHDX was made on its parent in the state {}, this one is in the state {}";
    assert_eq!(error(&[path, ("parent_linkage", good)], &parent), Ok(true));
    assert_eq!(error(&[path, ("parent_linkage", other), ("parent_linkage2", &good.to_uppercase())], &parent), Ok(true));
    assert_eq!(error(&[path, ("parent_linkage", other)], &parent).unwrap_err(), state);
    assert_eq!(error(&[path], &parent).unwrap_err(), state);
    let none = error(&[path, ("parent_linkage", good)], b"nothing of the kind").unwrap_err();
    assert_eq!(none, "the parent of a VHDX is not a VHDX");
    assert_eq!(error(&[("relative_path", "q.vhdx"), path, ("parent_linkage", good)], &parent), Ok(true));
    assert_eq!(
        error(&[("parent_linkage", good)], &parent).unwrap_err(),
        "the image does not say which disk it differs from"
    );
}

#[test]
fn blocks_of_many_chunks_are_found() {
    let (size, fill) = (9u64 << 30, |byte: u8| alloc::vec![byte; 1 << 20]);
    let disk = |bitmaps, parent| vhdx::Vhdx {
        size,
        more: Vec::from([(4095, 6, fill(1)), (4096, 6, fill(2)), (8192, 7, fill(3)), (9215, 6, fill(4))]),
        bitmaps,
        parent,
        ..vhdx::Vhdx::default()
    };
    let bits: Vec<u8> = alloc::vec![0xaa; 1 << 18];
    let pairs = Vec::from([(String::from("relative_path"), String::from("x"))]);
    let io = MemIo::new(build(&disk(Vec::from([(2, bits)]), pairs)));
    let image = Vhdx.open(File::new(&io, &io.top()), &Options::default()).unwrap();
    let chain = Chain::single(image.layer().unwrap());
    let bytes = |block: u64, skip: u64| read(&chain, &io, (block << 20) + skip, 1024).unwrap();
    let halves = |a: u8, b: u8| [[a; 512], [b; 512]].concat();
    assert_eq!([bytes(4095, 0), bytes(4096, 4096), bytes(9215, 5)], [halves(1, 1), halves(2, 2), halves(4, 4)]);
    assert_eq!([bytes(8192, 0), bytes(8192, 512), bytes(8191, 0)], [halves(0, 3), halves(3, 0), halves(0, 0)]);
    // A disk without a parent cannot have a block of which some sectors are elsewhere.
    let io = MemIo::new(build(&disk(Vec::new(), Vec::new())));
    let image = Vhdx.open(File::new(&io, &io.top()), &Options::default()).unwrap();
    let chain = Chain::single(image.layer().unwrap());
    assert!(read(&chain, &io, 8192 << 20, 512).is_err());
    assert!(read(&chain, &io, 4096 << 20, 512).is_ok());
}

#[test]
fn damaged_logs_are_survived() {
    let entry = |at, sequence| Entry {
        at,
        sequence,
        tail: 0xff << 12,
        changes: Vec::from([Change::Zero(TABLE as u64, 4096), Change::Data(4 << 20, alloc::vec![7; 4096])]),
        flushed: 5 << 20,
        last: 5 << 20,
    };
    let mut image = build(&vhdx::Vhdx { blocks: Vec::from([(0, 1)]), ..vhdx::Vhdx::default() });
    log(&mut image, &[entry(0xff << 12, 6), entry(0x01 << 12, 7)]);
    let mut noise = Noise::new(8);
    let mut opened = 0;
    for _ in 0..400 {
        let mut image = image.clone();
        // Damage that the checksum does not show.
        let mut bytes = entry(0x01 << 12, 7).bytes();
        let at = 8 + noise.below(112 / 4) as usize * 4;
        let value =
            [0, u64::MAX, noise.next(), noise.next() >> noise.below(64), 1 << 12, 1 << 20][noise.below(6) as usize];
        let width = [1, 4, 8][noise.below(3) as usize];
        bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        seal(&mut bytes);
        image[0x10_1000..0x10_1000 + bytes.len()].copy_from_slice(&bytes);
        let io = MemIo::new(image);
        opened += u32::from(Vhdx.open(File::new(&io, &io.top()), &Options::default()).is_ok());
        twin::survives(&Vhdx, &io, 1 << 16);
    }
    assert!((20..380).contains(&opened), "{opened}");
}

#[test]
fn logs_that_cannot_be_replayed_are_refused() {
    let end = 5 << 20;
    let one = |change| Entry { at: 0, sequence: 9, tail: 0, changes: Vec::from([change]), flushed: end, last: end };
    let data = |at: u64| Change::Data(at, alloc::vec![1; 4096]);
    let said = |entries: &[Entry]| {
        let mut image = build(&vhdx::Vhdx { blocks: Vec::from([(0, 1)]), ..vhdx::Vhdx::default() });
        log(&mut image, entries);
        refusal(&Vhdx, image)
    };
    assert_eq!(said(&[one(data(4 << 20))]), "opened");
    assert_eq!(said(&[one(data(1 << 20))]), "the log of the image would be written over itself");
    assert_eq!(said(&[one(Change::Zero(0, 4 << 20))]), "the log of the image would be written over itself");
    assert_eq!(said(&[one(Change::Zero(4 << 20, 1 << 63))]), "Could not open '{file}': Input/output error");
    let shrunk = Entry { flushed: end + 1, ..one(data(4 << 20)) };
    assert_eq!(said(&[shrunk]), "the file is shorter than its log says that it was");
    let headless = Entry { tail: 1 << 13, ..one(data(4 << 20)) };
    assert_eq!(said(core::slice::from_ref(&headless)), "the log holds entries, but no sequence of them is whole");
    // A sequence that is whole counts, even if one with higher numbers is not.
    let newer = Entry { at: 1 << 14, sequence: 90, ..headless };
    assert_eq!(said(&[one(data(4 << 20)), newer]), "opened");
}
