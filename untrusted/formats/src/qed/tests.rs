//! QED headers: what is told, and what is refused with which words.

use super::Qed;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use instar_image::{Fact, File, Format, Options, info};
use instar_testkit::build::mutate::{patched, storm};
use instar_testkit::mem::MemIo;

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
