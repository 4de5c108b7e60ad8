//! Tests of Bochs disks.

use super::Bochs;
use alloc::vec::Vec;
use instar_image::probe::Claim;
use instar_testkit::build::bochs::{self, build};
use instar_testkit::build::mutate::patched;
use instar_testkit::build::trial::{claim, refusal, survived, told};

fn good(old: bool) -> Vec<u8> {
    build(&bochs::Bochs { old, ..bochs::Bochs::default() })
}

#[test]
fn both_versions_are_told() {
    for old in [false, true] {
        assert_eq!(claim(&Bochs, good(old)), Ok(Claim::Yes));
        assert_eq!(told(&Bochs, good(old)).unwrap().virtual_size, 1 << 20);
    }
    assert_eq!(claim(&Bochs, patched(&good(false), 48, b"Undoable")), Ok(Claim::No));
}

#[test]
fn each_refusal_has_its_phrase_and_its_turn() {
    let cases: [(usize, &[u8], &str); 6] = [
        (0, b"b", "Image not in Bochs format"),
        (72, &[1, 0, 0x10, 0], "Catalog size is too large"),
        (80, &[255, 1, 0, 0], "Extent size must be at least 512"),
        (80, &[1, 2, 0, 0], "Extent size {} is not a power of two"),
        (80, &[0, 0, 0, 1], "Extent size {} is too large"),
        (88, &[0xff; 8], "Catalog size is too small for this disk size"),
    ];
    let mut all = good(false);
    for (at, bytes, phrase) in cases.iter().rev() {
        assert_eq!(refusal(&Bochs, patched(&good(false), *at, bytes)), *phrase);
        all = patched(&all, *at, bytes);
        assert_eq!(refusal(&Bochs, all.clone()), *phrase);
    }
}

#[test]
fn damage_is_survived() {
    assert!(survived(&Bochs, &good(false)[..2048], 100) > 100);
    assert!(survived(&Bochs, &good(true)[..2048], 100) > 100);
}
