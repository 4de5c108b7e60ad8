//! Tests of the census of a VHDX.

use super::super::Vhdx;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use instar_testkit::build::mutate::patched;
use instar_testkit::build::trial::findings;
use instar_testkit::build::vhdx::{self, build, seal};
use instar_testkit::mem::MemIo;

const MIB: u64 = 1 << 20;
const TABLE: usize = 2 << 20;

fn disk() -> vhdx::Vhdx {
    vhdx::Vhdx { blocks: Vec::from([(0, b'a'), (2, b'x')]), ..vhdx::Vhdx::default() }
}

fn child() -> vhdx::Vhdx {
    vhdx::Vhdx {
        parent: Vec::from([(String::from("relative_path"), String::from("p.vhdx"))]),
        more: Vec::from([(1, 7, vec![b'p'; 1 << 20])]),
        bitmaps: Vec::from([(0, vec![0xff; 256])]),
        ..disk()
    }
}

fn found(image: Vec<u8>) -> Vec<String> {
    findings(&Vhdx, &MemIo::new(image)).expect("an image")
}

fn entry(disk: &vhdx::Vhdx, number: usize, entry: u64) -> Vec<String> {
    found(patched(&build(disk), TABLE + 8 * number, &entry.to_le_bytes()))
}

#[test]
fn sound_disks_have_nothing_wrong() {
    assert!(found(build(&disk())).is_empty());
    assert!(found(build(&vhdx::Vhdx { sector: 4096, ..disk() })).is_empty());
    assert!(found(build(&child())).is_empty());
    let dirty = found(build(&vhdx::Vhdx { dirty: Some(4 * MIB), ..disk() }));
    assert_eq!(dirty, ["the log holds changes that have not been made; they are taken as made"]);
}

#[test]
fn blocks_lie_in_the_file_and_where_nothing_else_is() {
    assert_eq!(entry(&disk(), 1, (100 * MIB) | 6), ["block 1 is outside of '{file}': offset 104857600, 1048576 bytes"]);
    assert_eq!(
        entry(&disk(), 1, (4 * MIB) | 6),
        ["block 1 lies in '{file}' where something else is: offset 4194304, 1048576 bytes"]
    );
    for (place, what) in [(0, "the headers"), (1, "the log"), (2, "the block table"), (3, "the metadata")] {
        assert_eq!(entry(&disk(), 1, (place * MIB) | 6).len(), 1, "{what}");
    }
}

#[test]
fn states_are_possible() {
    let cannot = "entry 1 of the block table is in a state that it cannot be in: ";
    for state in [4u64, 7] {
        assert_eq!(entry(&disk(), 1, state), [alloc::format!("{cannot}{state}")]);
    }
    assert_eq!(entry(&disk(), 1, 8), ["entry 1 of the block table has unknown bits: 0x0000000000000008"]);
    // The chunk's bitmap is told of behind its 4096 blocks.
    let lost = "some sectors of block 1 are in the file, but it is not said which";
    assert_eq!(entry(&child(), 4096, 0), [lost]);
    assert_eq!(entry(&disk(), 3, (2 * MIB) | 2), Vec::<String>::new());
}

#[test]
fn second_copies_agree() {
    let whole = build(&disk());
    assert_eq!(found(patched(&whole, 0x1_0010, b"x")), ["header 1 is not sound"]);
    assert_eq!(found(patched(&whole, 0x2_0010, b"x")), ["header 2 is not sound"]);
    assert_eq!(found(patched(&whole, 0x4_0010, b"x")), ["the second region table is not sound"]);
    let mut other = patched(&whole, 0x4_0100, b"x");
    seal(&mut other[0x4_0000..0x5_0000]);
    assert_eq!(found(other), ["the two region tables are not the same; the first one counts"]);
}
