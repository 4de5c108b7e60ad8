//! Tests of the census of a VMware disk.

use super::super::Vmdk;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use instar_testkit::build::mutate::{noise, patched};
use instar_testkit::build::trial::findings;
use instar_testkit::build::vmdk::{Descriptor, Grain, Hosted, cowd, se_sparse, sparse, stream};
use instar_testkit::mem::MemIo;

/// A disk with one directory only.
fn one() -> Hosted {
    Hosted { flags: 1, ..Hosted::default() }
}

/// Where its only table is.
const TABLE: usize = 27 * 512;

fn disk() -> Vec<u8> {
    sparse(&one(), &Descriptor::default(), &[(0, Grain::Data(b'a')), (3, Grain::Data(b'b'))])
}

fn found(image: Vec<u8>) -> Vec<String> {
    findings(&Vmdk, &MemIo::new(image)).expect("an image")
}

fn entry(number: usize, sector: u32) -> Vec<String> {
    found(patched(&disk(), TABLE + 4 * number, &sector.to_le_bytes()))
}

fn parts() -> MemIo {
    let lines =
        ["RW 2 FLAT \"flat\" 0", "RW 2048 SPARSE \"sparse\"", "RW 4096 VMFSSPARSE \"cowd\"", "RW 8192 SESPARSE \"se\""];
    MemIo::new(Descriptor::of("twoGbMaxExtentSparse", &lines).text())
        .with("flat", vec![0; 1024])
        .with("sparse", disk())
        .with("cowd", cowd(4096, 8, &[(0, b'c'), (7, b'd')], None))
        .with("se", se_sparse(8192, &[(0, b's'), (5, b't')]))
}

#[test]
fn sound_disks_have_nothing_wrong() {
    assert!(found(disk()).is_empty());
    assert_eq!(findings(&Vmdk, &parts()).expect("an image"), Vec::<String>::new());
    let packed = Hosted { flags: 1 | (1 << 16) | (1 << 17), compression: 1, version: 3, ..one() };
    assert!(found(sparse(&packed, &Descriptor::default(), &[(1, Grain::Packed(1)), (2, Grain::Packed(2))])).is_empty());
    let footer = Hosted { compression: 1, ..one() };
    assert!(found(stream(&Hosted { directory: u64::MAX, ..one() }, &footer, &Descriptor::default())).is_empty());
    let zeroable = Hosted { flags: 1 | 4, ..one() };
    assert!(found(sparse(&zeroable, &Descriptor::default(), &[(1, Grain::Entry(1))])).is_empty());
}

#[test]
fn grains_lie_in_the_file_and_where_nothing_else_is() {
    assert_eq!(entry(1, 9999), ["grain 1 is outside of '{file}': offset 5119488, 65536 bytes"]);
    // The grain that comes first has the place.
    assert_eq!(entry(1, 256), ["grain 3 lies in '{file}' where something else is: offset 131072, 65536 bytes"]);
    assert_eq!(entry(1, 1).len(), 1, "over the descriptor");
    assert_eq!(entry(1, 200).len(), 2, "over two grains");
}

#[test]
fn the_second_directory_says_the_same() {
    // Its directory is in sector 21; both lead to the same table, which is told.
    let twice = Hosted::default();
    let whole = sparse(&twice, &Descriptor::default(), &[(0, Grain::Data(b'a'))]);
    let lost = "grain table 0 of '{file}' is not the same as its second copy";
    assert_eq!(found(whole.clone()), [lost]);
    let copied = |copy: &[u8]| found(patched(&patched(&whole, 21 * 512, &40u32.to_le_bytes()), 40 * 512, copy));
    assert!(copied(&whole[TABLE..TABLE + 2048]).is_empty());
    assert_eq!(copied(&[1, 0, 0, 0]), [lost]);
}

#[test]
fn every_extent_is_looked_at() {
    let mut bad = se_sparse(8192, &[(0, b's')]);
    bad[16 * 512 + 8] = 5;
    let lines = ["RW 4 FLAT \"flat\" 0", "RW 8192 SESPARSE \"se\"", "RW 4096 VMFSSPARSE \"cowd\""];
    let io = MemIo::new(Descriptor::of("vmfsSparse", &lines).text())
        .with("flat", vec![0; 1024])
        .with("se", bad)
        .with("cowd", cowd(4096 * 8 + 8, 8, &[], None));
    let found = findings(&Vmdk, &io).expect("an image");
    assert_eq!(found[0], "a flat extent is outside of '{file}': offset 0, 2048 bytes");
    assert_eq!(found[1], "an entry of a table makes no sense: 0x0000000000000005");
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn damaged_disks_are_survived() {
    let mut opened = 0;
    let tables = TABLE..TABLE + 64;
    for part in [0..79, tables] {
        noise(&disk(), part, 2, 300, |image| opened += usize::from(findings(&Vmdk, &MemIo::new(image)).is_ok()));
    }
    assert!(opened > 0);
}
