//! Tests of Bochs disks.

extern crate std;

use super::Bochs;
use alloc::vec::Vec;
use instar_image::probe::Claim;
use instar_testkit::build::bochs::{self, build};
use instar_testkit::build::mutate::{Noise, noise, patched};
use instar_testkit::build::trial::{claim, refusal, survived, told};
use instar_testkit::mem::MemIo;
use instar_testkit::place::Scratch;
use instar_testkit::twin;

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

/// A disk of which some sectors are written, in extents of any size and in any order.
fn random(seed: u64) -> Vec<u8> {
    let mut noise = Noise::new(seed);
    let extent = 512u32 << noise.below(10);
    let catalog = 1 + noise.below(40) as u32;
    let mut more = Vec::new();
    for number in (0..catalog).rev().filter(|_| noise.below(3) > 0).collect::<Vec<_>>() {
        let fill = |noise: &mut Noise| [0, 0xff, noise.next() as u8][noise.below(3) as usize];
        let bits = (0..(extent / 512).div_ceil(8)).map(|_| fill(&mut noise)).collect();
        let bytes = (0..extent / 512).flat_map(|sector| [number as u8 ^ sector as u8; 512]).collect();
        more.push((number, bits, bytes));
    }
    let disk = u64::from(extent) * u64::from(catalog) - noise.below(extent.into());
    let extents = Vec::new();
    let mut image = build(&bochs::Bochs { old: noise.below(2) == 0, extent, catalog, disk, extents, more });
    match noise.below(5) {
        0 => image.truncate(image.len() - noise.below(image.len() as u64 / 2) as usize),
        // No bitmap is the longest there is.
        1 => image[76..80].copy_from_slice(&[0; 4]),
        // Bits are looked for behind the bitmap, too.
        2 => image[76..80].copy_from_slice(&(1 + noise.below(700) as u32).to_le_bytes()),
        _ => {}
    }
    image
}

#[test]
fn sectors_are_read_as_qemu_reads_them() {
    let scratch = Scratch::new("bochs");
    for seed in 0..12 {
        std::fs::write(scratch.path().join("disk"), random(seed)).unwrap();
        twin::agreed(scratch.path(), "disk", &[&Bochs], seed);
    }
}

#[test]
fn damaged_maps_are_survived() {
    noise(&random(2)[..4096], 0..700, 3, 2000, |bytes| twin::survives(&Bochs, &MemIo::new(bytes), 1 << 17));
}
