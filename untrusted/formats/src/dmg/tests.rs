//! Tests of Apple disk images.

use super::Dmg;
use super::disk::kind::{END, RAW, ZERO, ZLIB};
use alloc::vec;
use alloc::vec::Vec;
use instar_image::Fact;
use instar_image::probe::Claim;
use instar_testkit::build::dmg::{Chunk, Fork, build, mish};
use instar_testkit::build::mutate::patched;
use instar_testkit::build::trial::{claim, refusal, survived, told};

const INVALID: &str = "Could not open '{file}': Invalid argument";

fn chunk(kind: u32, sector: u64, count: u64, len: u64) -> Chunk {
    Chunk { kind, sector, count, at: 0, len }
}

fn good(fork: Fork) -> Vec<u8> {
    let tables = [
        mish(0, &[chunk(RAW, 0, 2, 1024), chunk(ZLIB, 2, 2, 50), chunk(END, 4, 0, 0)]),
        mish(4, &[chunk(ZERO, 0, 4, 0)]),
    ];
    build(&[5; 1024], &tables, fork, 8)
}

fn with(chunks: &[Chunk]) -> Vec<u8> {
    build(&[5; 1024], &[mish(0, chunks)], Fork::Xml, 8)
}

#[test]
fn both_forks_are_told() {
    for fork in [Fork::Xml, Fork::Resource] {
        assert_eq!(claim(&Dmg, good(fork)), Ok(Claim::Quiet));
        let image = told(&Dmg, good(fork)).unwrap();
        assert_eq!(image.virtual_size, 4096);
        let chunks = Fact::fields([("zero", 1u64.into()), ("raw", 1u64.into()), ("zlib", 1u64.into())]);
        assert_eq!(image.extra.unwrap().get("chunks"), Some(&chunks));
    }
    assert_eq!(claim(&Dmg, vec![0; 4096]), Ok(Claim::No));
}

#[test]
fn trailer_may_be_followed_by_less_than_a_sector() {
    let mut image = good(Fork::Xml);
    image.resize(image.len().next_multiple_of(512), 0);
    assert!(told(&Dmg, image.clone()).is_ok());
    image.push(0);
    assert_eq!(refusal(&Dmg, image), "Could not locate UDIF trailer in dmg file");
    assert_eq!(refusal(&Dmg, Vec::new()), "dmg file must be at least 512 bytes long");
}

#[test]
fn each_field_of_the_trailer_is_checked() {
    let image = good(Fork::Xml);
    let trailer = image.len() - 512;
    for (at, bytes) in [(24, [0xff; 8]), (40, [0xff; 8]), (216, [0xff; 8]), (224, [0xff; 8]), (492, [0xff; 8])] {
        assert_eq!(refusal(&Dmg, patched(&image, trailer + at, &bytes)), INVALID);
    }
    assert_eq!(refusal(&Dmg, patched(&image, trailer + 224, &[0; 8])), INVALID);
    let huge = patched(&image, trailer + 492, &[0x00, 0x40]);
    assert_eq!(refusal(&Dmg, huge), "Could not refresh total sector count: File too large");
}

#[test]
fn tables_are_checked() {
    assert_eq!(refusal(&Dmg, with(&[])), INVALID);
    assert_eq!(refusal(&Dmg, with(&[chunk(END, 0, 0, 0)])), INVALID);
    assert_eq!(refusal(&Dmg, with(&[chunk(RAW, 0, 3, 1024)])), INVALID);
    let unknown = told(&Dmg, with(&[chunk(RAW, 0, 2, 1024), chunk(9, 2, 2, 1), chunk(9, 4, 2, 1)])).unwrap();
    assert_eq!(unknown.warnings.len(), 1);
    let open_ended: Vec<u8> = good(Fork::Xml).iter().map(|b| if *b == b'/' { b'-' } else { *b }).collect();
    assert_eq!(refusal(&Dmg, open_ended), INVALID);
}

#[test]
fn letters_that_are_none_are_passed_over() {
    let image = with(&[chunk(RAW, 0, 2, 1024)]);
    let place = image.windows(6).position(|six| six == b"<data>").unwrap() + 6;
    let broken = [&image[..place], b" </dat\xff", &image[place..]].concat();
    // Six letters more: the signature no longer stands where it should.
    assert_eq!(refusal(&Dmg, broken), INVALID);
    let mut blank = image;
    blank[place] = b'<';
    assert!(told(&Dmg, blank).is_ok());
}

#[test]
fn damage_is_survived() {
    for fork in [Fork::Xml, Fork::Resource] {
        let image = good(fork);
        assert!(survived(&Dmg, &image[1000..], 64) < 10_000);
        assert!(survived(&Dmg, &image, image.len()) > 100);
    }
}
