//! QED headers: what is told, and what is refused with which words.

use super::Qed;
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use instar_image::{Fact, File, Format, Options, info};
use instar_testkit::build::mutate::{patched, storm};
use instar_testkit::build::trial::{claimed, findings, sound};
use instar_testkit::folder::Folder;
use instar_testkit::mem::MemIo;
use instar_testkit::oracle::maker;
use instar_testkit::place::Scratch;
use instar_testkit::twin::{agreed, chain, create, scribble, survives};

/// Header, an L1 table of two clusters, clusters of 4 KiB.
fn good() -> Vec<u8> {
    let mut bytes = vec![0; 3 * 4096];
    bytes[..4].copy_from_slice(b"QED\0");
    for (at, value) in [(4, 4096u32), (8, 2), (12, 1), (56, 64), (60, 8)] {
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    bytes[40..48].copy_from_slice(&4096u64.to_le_bytes());
    bytes[48..56].copy_from_slice(&(8u64 << 20).to_le_bytes());
    bytes[64..72].copy_from_slice(b"base.img");
    bytes
}

fn told(bytes: Vec<u8>) -> Result<info::Image, String> {
    let io = MemIo::new(bytes);
    let _ = Qed.probe(&File::new(&io, &io.top())).unwrap();
    let opened = Qed.open(File::new(&io, &io.top()), &Options::default());
    match opened {
        Ok(image) => Ok(image.describe(true).unwrap()),
        Err(error) => Err(String::from_utf8(error.what.0).unwrap()),
    }
}

#[test]
fn features_decide_about_the_backing_file() {
    let backing = |features: u8| told(patched(&good(), 16, &[features])).unwrap().backing;
    assert!(backing(0).is_none() && backing(4).is_none());
    let named = backing(1).unwrap();
    assert_eq!((named.name, named.format), ("base.img".into(), None));
    assert_eq!(backing(5).unwrap().format, Some("raw".into()));
}

#[test]
fn need_of_a_check_is_hidden() {
    let image = told(patched(&good(), 16, &[2])).unwrap();
    assert_eq!(image.dirty, Some(false));
    assert_eq!(image.extra.unwrap().get("needs-check"), Some(&Fact::Truth(true)));
}

#[test]
fn refusals_use_the_oracles_words() {
    let cases: &[(usize, &[u8], &str)] = &[
        (0, b"QFI", "Image not in QED format"),
        (16, &[8], "Unsupported QED features: {}"),
        (4, &[0, 8], "QED cluster size is invalid"),
        (4, &[0, 0, 0, 8], "QED cluster size is invalid"),
        (8, &[3], "QED table size is invalid"),
        (8, &[32], "QED table size is invalid"),
        (48, &[1], "QED image size is invalid"),
        (48, &[0, 0, 0, 0, 0, 1], "QED image size is invalid"),
        (40, &[1], "QED table offset is invalid"),
        (40, &[0, 0x20], "QED table offset is invalid"),
        (8, &[1], "QED table offset is invalid"),
        (12, &[2], "QED table offset is invalid"),
    ];
    for (at, bytes, phrase) in cases {
        assert_eq!(told(patched(&good(), *at, bytes)).unwrap_err(), *phrase);
    }
    let backed = patched(&good(), 16, &[1]);
    let outside = "QED backing filename offset is invalid";
    assert_eq!(told(patched(&backed, 56, &4089u32.to_le_bytes())).unwrap_err(), outside);
    let long = patched(&patched(&backed, 56, &[0; 4]), 60, &4096u32.to_le_bytes());
    assert_eq!(told(long).unwrap_err(), "Failed to read backing filename");
}

#[test]
fn last_cluster_of_the_table_must_be_whole() {
    let cut = |len: usize| told(good()[..len].to_vec());
    assert!(cut(3 * 4096 - 511).is_ok());
    assert_eq!(cut(3 * 4096 - 512).unwrap_err(), "QED table offset is invalid");
}

#[test]
fn no_header_makes_it_panic() {
    storm(&good(), 64, |bytes| {
        let _ = told(bytes);
    });
}

#[test]
fn images_are_read_as_qemu_img_reads_them() {
    let scratch = Scratch::new("qed");
    let folder = scratch.path();
    let shapes = ["cluster_size=4k,table_size=2", "cluster_size=64k", "cluster_size=8k,table_size=16"];
    for (seed, shape) in (0..).zip(shapes) {
        let (small, size) = (2 << 20, (4 << 20) + 512 * seed);
        create(folder, &format!("-f qed -o {shape} base.qed {small}"));
        scribble(folder, "qed", "base.qed", small, seed, 12);
        agreed(folder, "base.qed", &[&Qed], seed);
        create(folder, &format!("-f qed -o {shape} -b base.qed -F qed top.qed {size}"));
        scribble(folder, "qed", "top.qed", size, seed + 100, 12);
        agreed(folder, "top.qed", &[&Qed, &Qed], seed);
        sound(&Qed, &folder.join("base.qed"));
        sound(&Qed, &folder.join("top.qed"));
    }
    scratch.put("base.raw", vec![7; 1_000_000]);
    create(folder, "-f qed -b base.raw -F raw top.qed 4M");
    scribble(folder, "qed", "top.qed", 4 << 20, 3, 12);
    agreed(folder, "top.qed", &[&Qed, crate::RAW], 1);
}

/// An image of 8 clusters: header, L1 table, L2 table in the fifth and sixth, and two of data; with these entries.
fn clusters(l1: &[(usize, u64)], l2: &[(usize, u64)]) -> Vec<u8> {
    let mut image = vec![0; 8 * 4096];
    image[..4096].copy_from_slice(&patched(&good(), 48, &(5u64 << 20).to_le_bytes())[..4096]);
    image[6 * 4096..7 * 4096].fill(b'a');
    image[7 * 4096..].fill(b'b');
    for (table, entries) in [(4096, l1), (4 * 4096, l2)] {
        for (index, entry) in entries {
            image[table + 8 * index..][..8].copy_from_slice(&entry.to_le_bytes());
        }
    }
    image
}

#[test]
fn every_entry_means_what_it_means_to_qemu_img() {
    const C: u64 = 4096;
    let scratch = Scratch::new("qed");
    let top: &[(usize, u64)] = &[(0, 4 * C)];
    let readable = [
        clusters(top, &[(0, 6 * C), (1, 1), (2, 7 * C), (5, 6 * C)]),
        clusters(top, &[(0, C), (1, 4 * C), (1023, 7 * C), (1020, 1)]),
        clusters(&[(1, 4 * C)], &[(3, 6 * C)]),
        clusters(&[(0, C)], &[]),
        patched(&clusters(top, &[(0, 6 * C), (3, 1)]), 16, &[2]),
        clusters(top, &[(0, 1)])[..6 * 4096].to_vec(),
    ];
    for (seed, image) in (0..).zip(&readable) {
        scratch.put("a.qed", image);
        agreed(scratch.path(), "a.qed", &[&Qed], seed);
    }
    let wrong = [
        clusters(top, &[(0, 6 * C + 512)]),
        clusters(top, &[(0, 2)]),
        clusters(top, &[(0, 8 * C)]),
        clusters(top, &[(0, 1 << 63)]),
        clusters(&[(0, 1)], &[]),
        clusters(&[(0, 4 * C + 512)], &[]),
        clusters(&[(0, 7 * C)], &[]),
        clusters(top, &[(0, 6 * C)])[..7 * 4096 - 512].to_vec(),
        clusters(top, &[(0, 1)])[..6 * 4096 - 512].to_vec(),
    ];
    for image in wrong {
        scratch.put("a.qed", &image);
        let ran = maker().img().folder(scratch.path()).args(["convert", "-O", "raw", "a.qed", "a.raw"]).go();
        assert_eq!(ran.code(), Some(1));
        let io = Folder::new(scratch.path());
        let chain = chain(&io, "a.qed", &[&Qed], &Options::default()).unwrap();
        let error = instar_testkit::content::content(&chain, &io, 0).unwrap_err();
        assert_eq!(error.kind, instar_image::Kind::Corrupt);
    }
}

#[test]
fn no_entry_makes_it_panic() {
    let image = clusters(&[(0, 4 * 4096)], &[(0, 6 * 4096), (1, 1)]);
    storm(&image[..7 * 4096], 64, |bytes| survives(&Qed, &MemIo::new(bytes), 1 << 20));
    instar_testkit::build::mutate::fields(&image, 4096..4128, 3, |bytes| survives(&Qed, &MemIo::new(bytes), 1 << 20));
    instar_testkit::build::mutate::fields(&image, 4 * 4096..4 * 4096 + 32, 3, |bytes| {
        survives(&Qed, &MemIo::new(bytes), 1 << 20)
    });
}

#[test]
fn a_check_finds_what_is_outside_shared_and_lost() {
    const C: u64 = 4096;
    let found = |l1: &[(usize, u64)], l2: &[(usize, u64)]| findings(&Qed, &MemIo::new(clusters(l1, l2))).unwrap();
    // The fourth cluster belongs to nobody.
    let lost = |at: u64, count: u64| format!("nothing uses '{{file}}' there: offset {}, {} bytes", at * C, count * C);
    let top: &[(usize, u64)] = &[(0, 4 * C)];
    assert_eq!(found(top, &[(0, 6 * C), (1, 7 * C), (2, 1)]), [lost(3, 1)]);
    assert_eq!(found(top, &[(0, 6 * C)]), [lost(3, 1), lost(7, 1)]);
    let shared = "cluster 5 lies in '{file}' where something else is: offset 24576, 4096 bytes";
    assert_eq!(found(top, &[(0, 6 * C), (1, 7 * C), (5, 6 * C)]), [shared.to_owned(), lost(3, 1)]);
    let outside = "cluster 9 lies where no cluster can be: offset 32768";
    assert_eq!(found(top, &[(0, 6 * C), (1, 7 * C), (9, 8 * C)]), [outside.to_owned(), lost(3, 1)]);
    let table = "entry 2 of the first table leads where no table can be: offset 4608";
    assert_eq!(found(&[(0, 4 * C), (2, C + 512)], &[(0, 6 * C), (1, 7 * C)]), [table.to_owned(), lost(3, 1)]);
    // A table that two entries lead to is told once for each of its clusters, and followed once.
    assert_eq!(found(&[(0, 4 * C), (1, 4 * C)], &[(0, 6 * C), (1, 7 * C)]).len(), 3);
    for l2 in [[(0, 6 * C), (1, 7 * C)], [(3, 6 * C), (700, 6 * C)], [(0, C), (1, 4 * C)]] {
        assert!(claimed(&Qed, &MemIo::new(clusters(top, &l2))).unwrap() > 0);
    }
}

#[test]
fn a_check_survives_damage() {
    let image = clusters(&[(0, 4 * 4096)], &[(0, 6 * 4096), (1, 1)]);
    let mut checked = 0;
    storm(&image[..7 * 4096], 64, |bytes| checked += usize::from(findings(&Qed, &MemIo::new(bytes)).is_ok()));
    assert!(checked > 20);
}
