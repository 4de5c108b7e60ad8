//! Small images that would become endless, hold everything twice, or claim more than there is.

use crate::names::{Kind, image};
use crate::trial::{Outcome, Trial};
use instar_testkit::build::dmg::{Chunk, Fork, kind};
use instar_testkit::build::mutate::patched;
use instar_testkit::build::{cloop, dmg, vhd, vhdx, vmdk};
use instar_testkit::images::each;
use instar_testkit::place::Scratch;
use instar_testkit::program::{Cell, program};
use instar_testkit::run::End;
use instar_tests::report::Report;
use std::path::Path;

/// What becomes of a copy.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fate {
    Copied,
    Refused,
    Either,
}

/// A word for it, its format, its bytes, and what becomes of it.
type Bomb = (String, &'static str, Vec<u8>, Fate);

/// Deflate's shortest way to say a gigabyte of zeroes, in parts of 258 bytes.
fn endless() -> Vec<u8> {
    // One block under the fixed code: a zero, then a match of 258 at distance 1 over and over, each in 13 bits.
    let (mut out, mut word, mut bits) = (Vec::new(), 0u64, 0);
    let mut put = |code: u64, len: u32| {
        word |= code << bits;
        bits += len;
        while bits >= 8 {
            out.push(word as u8);
            (word, bits) = (word >> 8, bits - 8);
        }
    };
    put(0b011, 3);
    put(0b0000_1100, 8);
    for _ in 0..40_000 {
        // The code of length 285 is 1100_0101, that of distance 1 is 00000; codes stand with their first bit lowest.
        put(0b1010_0011, 8);
        put(0, 5);
    }
    out
}

/// The same with the head of a zlib stream.
fn endless_zlib() -> Vec<u8> {
    [&[0x78, 0x9c][..], &endless()].concat()
}

/// A qcow2 of 1 MiB in clusters of 64 KiB whose only table has these entries, with bytes behind it at 0x50000.
fn qcow2(entries: &[u64], behind: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 0x50000];
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb\0\0\0\x03");
    put(20, &16u32.to_be_bytes());
    put(24, &(1u64 << 20).to_be_bytes());
    put(36, &1u32.to_be_bytes());
    put(40, &0x30000u64.to_be_bytes());
    put(48, &0x10000u64.to_be_bytes());
    put(56, &1u32.to_be_bytes());
    put(96, &4u32.to_be_bytes());
    put(100, &104u32.to_be_bytes());
    put(0x10000, &0x20000u64.to_be_bytes());
    put(0x30000, &(0x40000u64 | 1 << 63).to_be_bytes());
    for (number, entry) in entries.iter().enumerate() {
        put(0x40000 + 8 * number, &entry.to_be_bytes());
    }
    [&out, behind].concat()
}

fn qcow2_bombs() -> Vec<Bomb> {
    let packed = |at: u64, sectors: u64| 1 << 62 | sectors << 54 | at;
    let bomb = endless();
    let whole = packed(0x50000, 127);
    let table = |entries: &[u64], behind: &[u8]| qcow2(entries, behind);
    let mut all = vec![
        // A cluster is full after 64 KiB, and nobody asks what would follow.
        ("qcow2 endless cluster".into(), "qcow2", table(&[whole], &bomb), Fate::Copied),
        ("qcow2 one cluster sixteen times".into(), "qcow2", table(&[whole; 16], &bomb), Fate::Copied),
        ("qcow2 clusters that are their table".into(), "qcow2", table(&[0x40000 | 1 << 63; 16], &[]), Fate::Copied),
        ("qcow2 clusters that are the header".into(), "qcow2", table(&[1 << 63; 16], &[]), Fate::Either),
        ("qcow2 packed table".into(), "qcow2", table(&[packed(0x40000, 1); 16], &[]), Fate::Refused),
        ("qcow2 packed beyond the file".into(), "qcow2", table(&[packed(1 << 52, 127); 16], &[]), Fate::Refused),
        ("qcow2 clusters beyond the file".into(), "qcow2", table(&[1 << 55 | 1 << 63; 16], &[]), Fate::Copied),
        ("qcow2 entries of ones".into(), "qcow2", table(&[u64::MAX; 16], &[]), Fate::Refused),
    ];
    let one = table(&[0x40000 | 1 << 63], &[]);
    let number = |at: usize, number: u64| patched(&one, at, &number.to_be_bytes());
    all.push(("qcow2 table that is its own".into(), "qcow2", number(0x30000, 0x30000 | 1 << 63), Fate::Either));
    all.push(("qcow2 table that is the header".into(), "qcow2", number(0x30000, 1 << 63), Fate::Either));
    all.push(("qcow2 table beyond the file".into(), "qcow2", number(0x30000, 1 << 55), Fate::Either));
    all.push(("qcow2 of 2^62 bytes".into(), "qcow2", number(24, 1 << 62), Fate::Refused));
    let mut large = number(24, 1 << 50);
    // As many tables as there may be, most of them beyond the end of the file.
    large[36..40].copy_from_slice(&(4u32 << 20).to_be_bytes());
    all.push(("qcow2 of four million tables".into(), "qcow2", large, Fate::Either));
    all
}

fn dmg_bombs() -> Vec<Bomb> {
    let data = endless_zlib();
    let mut all = Vec::new();
    for what in [kind::RAW, kind::ZERO, kind::ADC, kind::ZLIB, kind::BZIP2, kind::LZFSE, kind::LZMA, 0x4242] {
        for (word, count) in [("an exbibyte", 1 << 51), ("a gibibyte", 1 << 21), ("all there is", u64::MAX)] {
            let chunk = Chunk { kind: what, sector: 0, count, at: 0, len: data.len() as u64 };
            let bytes = dmg::build(&data, &[dmg::mish(0, &[chunk])], Fork::Resource, count);
            all.push((format!("dmg {what:#x} of {word}"), "dmg", bytes, Fate::Either));
        }
    }
    let twice = Chunk { kind: kind::ZLIB, sector: 0, count: 8, at: 0, len: 600 };
    let bytes = dmg::build(&data, &[dmg::mish(0, &[twice; 64])], Fork::Xml, 8);
    all.push(("dmg chunks that overlap".into(), "dmg", bytes, Fate::Refused));
    let far = Chunk { at: u64::MAX - 5, ..twice };
    let bytes = dmg::build(&data, &[dmg::mish(u64::MAX - 2, &[far])], Fork::Xml, 8);
    all.push(("dmg chunks at the end of all numbers".into(), "dmg", bytes, Fate::Refused));
    all
}

fn other_bombs() -> Vec<Bomb> {
    let text = vmdk::Descriptor::of("streamOptimized", &["RW 2048 SPARSE \"disk\""]);
    let stream = vmdk::Hosted { flags: 3 | 3 << 16, compression: 1, version: 3, ..vmdk::Hosted::default() };
    // A grain that inflates without end: its marker, and then the stream.
    let bomb: &'static [u8] =
        Box::leak([&[0; 8][..], &60_000u32.to_le_bytes(), &endless_zlib()].concat().into_boxed_slice());
    let grain = |grain| vmdk::sparse(&stream, &text, &[(0, grain), (3, vmdk::Grain::Packed(7))]);
    let mut all = vec![
        ("vmdk endless grain".into(), "vmdk", grain(vmdk::Grain::Bytes(bomb)), Fate::Either),
        ("vmdk grain of 4 GiB".into(), "vmdk", grain(vmdk::Grain::Marked(7, u32::MAX)), Fate::Either),
        ("vmdk grain that is the header".into(), "vmdk", grain(vmdk::Grain::Entry(1)), Fate::Refused),
        ("vmdk grain beyond the file".into(), "vmdk", grain(vmdk::Grain::Entry(u32::MAX)), Fate::Refused),
    ];
    for (word, capacity) in [("2^63 sectors", 1 << 63), ("an exbibyte", 1 << 51), ("16 TiB", 1 << 35)] {
        let header = vmdk::hosted(&vmdk::Hosted { capacity, ..vmdk::Hosted::default() }, &text);
        all.push((format!("vmdk of {word}"), "vmdk", header, Fate::Either));
    }
    let block = |bytes: Vec<u8>| cloop::of_blocks(65536, &[bytes.clone(), bytes]);
    all.push(("cloop endless blocks".into(), "cloop", block(endless_zlib()), Fate::Either));
    let good = block(cloop::zlib_stored(&[5; 65536]));
    let offset = |number: usize, at: u64| patched(&good, 136 + 8 * number, &at.to_be_bytes());
    all.push(("cloop backwards".into(), "cloop", offset(1, 100), Fate::Refused));
    all.push(("cloop of everything".into(), "cloop", offset(2, u64::MAX), Fate::Refused));
    all.push(("cloop blocks of 4 GiB".into(), "cloop", patched(&good, 128, &[0xff; 4]), Fate::Refused));
    all.push(("cloop of four billion blocks".into(), "cloop", patched(&good, 132, &[0xff; 4]), Fate::Refused));
    let disk = vhd::Vhd { size: 64 << 20, blocks: vec![(0, 1)], ..vhd::Vhd::default() };
    let same = (0..32).fold(vhd::build(&disk), |bytes, entry| patched(&bytes, 1536 + 4 * entry, &4u32.to_be_bytes()));
    all.push(("vhd one block for all".into(), "vpc", same, Fate::Either));
    let looped = vhdx::Vhdx { dirty: Some(1 << 20), ..vhdx::Vhdx::default() };
    all.push(("vhdx log over the log".into(), "vhdx", vhdx::build(&looped), Fate::Either));
    all
}

#[test]
fn what_has_no_end_is_ended() {
    let scratch = Scratch::new("bombs");
    let report = Report::new("hostile bombs");
    let all: Vec<Bomb> = [qcow2_bombs(), dmg_bombs(), other_bombs()].concat();
    each(&all, |at, (what, format, bytes, fate)| {
        let folder = scratch.folder(&at.to_string());
        std::fs::write(folder.join("disk"), bytes).expect("an image");
        let cell = Cell::all()[usize::from(at % 4 == 3) % Cell::all().len()];
        let trial =
            Trial { report: &report, what: what.clone(), folder: &folder, name: "disk", format, options: None, cell };
        let Outcome { copied, is_readable } = trial.judge();
        let was = if copied.end == End::Code(0) { Fate::Copied } else { Fate::Refused };
        if *fate != Fate::Either && was != *fate {
            report.fault(format!("{what}: {was:?}, by the real program: {is_readable}: {}", copied.err()));
        }
        let _ = std::fs::remove_dir_all(folder);
    });
    report.end();
}

#[test]
fn circles_are_refused_by_every_verb() {
    let report = Report::new("hostile circles, every verb");
    for kind in Kind::ALL.iter().filter(|kind| kind.has_backing()) {
        let scratch = Scratch::new("circles");
        for (name, below) in [("self", "self"), ("a", "b"), ("b", "./a")] {
            std::fs::write(scratch.path().join(name), image(*kind, Some(below.as_bytes()))).expect("a layer");
        }
        for (words, code) in [
            (&["map", "--output=json", "@"][..], 1),
            (&["measure", "-O", "raw", "@"], 1),
            (&["compare", "@", "@"], 2),
            (&["convert", "-O", "raw", "@", "o"], 1),
            (&["dd", "if=@", "of=o"], 1),
            (&["snapshot", "-l", "@"], 1),
        ] {
            for name in ["self", "a"] {
                let words = words.iter().map(|word| word.replace('@', name));
                for cell in Cell::all() {
                    circle(&report, scratch.path(), words.clone().collect(), *cell, code);
                }
            }
        }
    }
    report.end();
}

fn circle(report: &Report, folder: &Path, words: Vec<String>, cell: Cell, code: i32) {
    report.tried();
    let run = program().native(cell).folder(folder).args(words).limit(crate::sane::HANGS);
    let ran = run.go();
    let is_line = ran.err().lines().count() == 1 && ran.stdout.is_empty();
    if ran.end != End::Code(code) || !is_line || folder.join("o").exists() {
        report.fault(format!("{:?} {}{}\n  {}", ran.end, ran.out(), ran.err(), run.line()));
    }
}
