//! Tests of the census of a VHD.

use super::super::Vpc;
use alloc::string::String;
use alloc::vec::Vec;
use instar_testkit::build::mutate::{patched, storm};
use instar_testkit::build::trial::findings;
use instar_testkit::build::vhd::{Vhd, build, seal};
use instar_testkit::mem::MemIo;

/// Where the block table is, and where the first block.
const TABLE: usize = 1536;
const BLOCKS: usize = 2048;

fn disk() -> Vhd {
    Vhd { size: 16 << 10, block_len: 4096, blocks: Vec::from([(1, b'v'), (3, b'w')]), ..Vhd::default() }
}

fn found(image: Vec<u8>) -> Vec<String> {
    findings(&Vpc, &MemIo::new(image)).expect("an image")
}

fn entry(number: usize, sector: u32) -> Vec<String> {
    found(patched(&build(&disk()), TABLE + 4 * number, &sector.to_be_bytes()))
}

#[test]
fn sound_disks_have_nothing_wrong() {
    assert!(found(build(&disk())).is_empty());
    assert!(found(build(&Vhd { kind: 2, ..disk() })).is_empty());
    let locators = Vec::from([(*b"W2ru", String::from(".\\parent.vhd")), (*b"W2ku", String::from("c:\\parent.vhd"))]);
    assert!(found(build(&Vhd { kind: 4, parent: "parent.vhd".into(), locators, ..disk() })).is_empty());
    // The footer of old had 511 bytes.
    let fixed = build(&Vhd { kind: 2, ..disk() });
    assert!(found(fixed[..fixed.len() - 1].to_vec()).is_empty());
}

#[test]
fn blocks_lie_in_the_file_and_where_nothing_else_is() {
    assert_eq!(entry(0, 1000), ["block 0 is outside of '{file}': offset 512000, 4608 bytes"]);
    let first = u32::try_from(BLOCKS / 512).expect("small");
    assert_eq!(entry(0, first), ["block 1 lies in '{file}' where something else is: offset 2048, 4608 bytes"]);
    assert_eq!(entry(0, first + 3).len(), 2, "over two others");
    assert_eq!(entry(0, 1).len(), 2, "over the header and the first block");
}

#[test]
fn copies_and_checksums_agree() {
    let whole = build(&disk());
    let last = whole.len() - 512;
    assert_eq!(found(patched(&whole, last, b"x")), ["there is no footer at the end of the file"]);
    assert_eq!(found(patched(&whole, last + 68, b"x")), ["the checksum of the footer is wrong"]);
    let mut other = patched(&whole, last + 68, b"x");
    seal(&mut other[last..], 64);
    assert_eq!(found(other), ["the footer is not the same as its copy at the front of the file"]);
    assert_eq!(found(patched(&whole, 512 + 200, b"x")), ["the checksum of the header is wrong"]);
    let mut kind = whole;
    for at in [0, last] {
        kind[at + 63] = 2;
        seal(&mut kind[at..at + 512], 64);
    }
    assert_eq!(found(kind), ["the disk is called a fixed one, but it has a block table"]);
}

#[test]
fn damaged_disks_are_survived() {
    let mut opened = 0;
    storm(&build(&disk()), BLOCKS, |image| opened += usize::from(findings(&Vpc, &MemIo::new(image)).is_ok()));
    assert!(opened > 0);
}
