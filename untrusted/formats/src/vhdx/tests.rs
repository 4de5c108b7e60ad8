//! Tests of VHDX.

use super::Vhdx;
use super::crc32c::Crc32c;
use alloc::vec::Vec;
use instar_image::Fact;
use instar_image::probe::Claim;
use instar_image::text::{from_utf16le, guid};
use instar_testkit::build::mutate::{fields, noise, patched};
use instar_testkit::build::trial::{claim, refusal, told};
use instar_testkit::build::vhdx::{self, build, crc32c, seal};

const INVALID: &str = "Could not open '{file}': Invalid argument";
const NOT_SUPPORTED: &str = "Could not open '{file}': Operation not supported";
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
fn log_that_was_not_replayed_is_refused() {
    let image = build(&vhdx::Vhdx { dirty: Some(4 << 20), ..vhdx::Vhdx::default() });
    assert!(refusal(&Vhdx, image.clone()).contains("contains a log that needs to be replayed"));
    // An entry with a wrong checksum is none; one with a wrong descriptor is an error.
    let clean = told(&Vhdx, patched(&image, (1 << 20) + 12, &[1])).unwrap();
    assert_eq!(clean.extra.unwrap().get("log"), Some(&Fact::from("clean")));
    assert_eq!(refusal(&Vhdx, patched(&image, (1 << 20) + 64, b"none")), INVALID);
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
        (0x3_0020, &[0, 0, 0x30], INVALID),
        (METADATA, b"x", INVALID),
        (METADATA + 10, &[0], NOT_SUPPORTED),
        (METADATA + 32, b"x", NOT_SUPPORTED),
        (METADATA + 0x1_0000, &[1], INVALID),
        (METADATA + 0x1_0004, &[2], INVALID),
        (METADATA + 0x1_0008, &[0; 8], INVALID),
        (METADATA + 0x1_000f, &[1], INVALID),
        (METADATA + 0x1_0020, &[0, 16], NOT_SUPPORTED),
        (TABLE + 16, &[6, 0, 0, 0x70], INVALID),
        (TABLE + 16, &[6, 0, 0x20, 0], INVALID),
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
        let _ = told(&Vhdx, bytes);
    };
    for cut in (0..image.len()).step_by(512 * 41) {
        ask(image[..cut].to_vec());
    }
    noise(&image, (1 << 20)..(1 << 20) + 100, 1, 100, &mut ask);
    fields(&good(), METADATA + 32..METADATA + 64, 2, &mut ask);
    for (range, seed) in [
        (0x1_0000..0x1_0050, 3),
        (0x3_0000..0x3_0050, 4),
        (METADATA..METADATA + 200, 5),
        (METADATA + 0x1_0000..METADATA + 0x1_0028, 6),
        (TABLE..TABLE + 40, 7),
    ] {
        noise(&good(), range, seed, 60, |bytes| ask(resealed(bytes)));
    }
}
