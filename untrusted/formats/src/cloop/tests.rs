//! Tests of compressed loop images.

use super::Cloop;
use alloc::vec;
use alloc::vec::Vec;
use instar_image::probe::Claim;
use instar_testkit::build::cloop::build;
use instar_testkit::build::mutate::patched;
use instar_testkit::build::trial::{claim, refusal, survived, told};

fn good() -> Vec<u8> {
    build(1024, &vec![7; 5000])
}

#[test]
fn good_image_is_told() {
    assert_eq!(claim(&Cloop, good()), Ok(Claim::Yes));
    assert_eq!(claim(&Cloop, patched(&good(), 80, b"#")), Ok(Claim::No));
    assert_eq!(told(&Cloop, good()).unwrap().virtual_size, 5 * 1024);
}

#[test]
fn each_refusal_has_its_phrase_and_its_turn() {
    let cases: [(usize, &[u8], &str); 8] = [
        (128, &[0; 4], "block_size cannot be zero"),
        (128, &[0, 0, 2, 1], "block_size {} must be a multiple of 512"),
        (128, &[4, 0, 2, 0], "block_size {} must be {} MB or less"),
        (132, &[0x20, 0, 0, 0], "n_blocks {} must be {} or less"),
        (132, &[0x1f, 255, 255, 255], "Could not allocate offsets table"),
        (132, &[0x04, 0, 0, 0], "image requires too many offsets, try increasing block size"),
        (136, &[0xff; 8], "offsets not monotonically increasing at index {}, image file is corrupt"),
        (144, &[0x7f; 8], "invalid compressed block size at index {}, image file is corrupt"),
    ];
    for (at, bytes, phrase) in cases {
        assert_eq!(refusal(&Cloop, patched(&good(), at, bytes)), phrase);
    }
}

#[test]
fn table_beyond_the_file_costs_nothing() {
    let image = patched(&patched(&good(), 132, &[0x03, 255, 255, 255]), 136, &[0; 48]);
    let told = told(&Cloop, image[..180].to_vec()).unwrap();
    assert_eq!(told.virtual_size, 1024 * ((64 << 20) - 1));
}

#[test]
fn damage_is_survived() {
    assert!(survived(&Cloop, &good(), 190) > 100);
}
