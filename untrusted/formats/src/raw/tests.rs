//! Raw disks: the partition rule, and the part of a file that a disk is.

use super::Raw;
use super::open::{Table, partitions};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use instar_image::holes::Joined;
use instar_image::probe::Claim;
use instar_image::{File, Format, Io, Options, Source, info};
use instar_testkit::build::mutate::{patched, storm};
use instar_testkit::build::partition::{crc32, gpt, mbr};
use instar_testkit::mem::MemIo;
use instar_testkit::random::Dice;

fn claim(bytes: Vec<u8>) -> Claim {
    let io = MemIo::new(bytes);
    Raw.probe(&File::new(&io, &io.top())).unwrap()
}

fn table(bytes: Vec<u8>) -> Option<Table> {
    let io = MemIo::new(bytes);
    partitions(&File::new(&io, &io.top())).unwrap()
}

fn open(len: usize, offset: Option<u64>, size: Option<u64>) -> Result<info::Image, String> {
    let io = MemIo::new(vec![0; len]);
    let options = Options { raw_offset: offset, raw_size: size, ..Options::default() };
    let opened = Raw.open(File::new(&io, &io.top()), &options);
    match opened {
        Ok(image) => Ok(image.describe(true).unwrap()),
        Err(error) => Err(String::from_utf8(error.what.0).unwrap()),
    }
}

#[test]
fn mbr_needs_signature_flag_and_type() {
    assert_eq!(claim(mbr(1 << 20, [(0, 0x83), (0, 0), (0, 0), (0, 0)])), Claim::Yes);
    assert_eq!(claim(mbr(512, [(1, 0), (2, 7), (0, 0), (0x80, 7)])), Claim::Yes);
    assert_eq!(claim(mbr(512, [(0, 0), (0, 0), (0x80, 0), (0, 0)])), Claim::No);
    assert_eq!(claim(mbr(512, [(1, 7), (0x7f, 7), (0x81, 7), (0xff, 7)])), Claim::No);
    let mut bytes = mbr(512, [(0, 0x83), (0, 0), (0, 0), (0, 0)]);
    bytes[510] = 0x54;
    assert_eq!(claim(bytes), Claim::No);
    assert_eq!(claim(Vec::new()), Claim::No);
    assert_eq!(claim(vec![0; 1 << 16]), Claim::No);
}

#[test]
fn gpt_is_believed_when_its_header_is_whole() {
    for sector in [512, 4096] {
        let good = gpt(1 << 20, sector);
        assert_eq!(table(good.clone()), Some(Table::Gpt));
        // What is left of a broken one is a protective entry, which is an entry with a type.
        assert_eq!(table(patched(&good, sector, b"EFI pART")), Some(Table::Mbr));
        assert_eq!(table(patched(&good, sector + 16, &[0; 4])), Some(Table::Mbr));
        assert_eq!(table(patched(&good, sector + 12, &u32::MAX.to_le_bytes())), Some(Table::Mbr));
        assert_eq!(table(patched(&good, 450, &[0x0c])), Some(Table::Mbr));
    }
}

#[test]
fn gpt_header_may_be_longer_but_not_than_a_sector() {
    let longer = |len: u32| {
        let mut disk = patched(&gpt(1 << 20, 512), 512 + 12, &len.to_le_bytes());
        disk[528..532].fill(0);
        let crc = crc32(&disk[512..512 + len as usize]);
        table(patched(&disk, 528, &crc.to_le_bytes()))
    };
    assert_eq!(longer(512), Some(Table::Gpt));
    assert_eq!(longer(513), Some(Table::Mbr));
    assert_eq!(longer(91), Some(Table::Mbr));
}

#[test]
fn size_is_whole_sectors() {
    for (len, size) in [(0, 0), (1, 512), (512, 512), (513, 1024)] {
        assert_eq!(open(len, None, None).unwrap().virtual_size, size);
    }
}

#[test]
fn part_of_a_file_lies_inside_it() {
    let behind = "Offset ({}) cannot be greater than size of the containing file ({})";
    let longer = "The sum of offset ({}) and size ({}) has to be smaller or equal to the  \
                  actual size of the containing file ({})";
    let odd = "Specified size is not multiple of 512";
    let size = |offset, size| open(4096 + 100, offset, size).map(|image| image.virtual_size);
    assert_eq!(size(Some(513), None), Ok(4096));
    assert_eq!(size(Some(4608), None), Ok(0));
    assert_eq!(size(Some(4609), None).unwrap_err(), behind);
    assert_eq!(size(Some(u64::MAX), Some(u64::MAX)).unwrap_err(), behind);
    assert_eq!(size(None, Some(4608)), Ok(4608));
    assert_eq!(size(Some(1), Some(4608)).unwrap_err(), longer);
    assert_eq!(size(None, Some(u64::MAX)).unwrap_err(), longer);
    assert_eq!(size(Some(100), Some(513)).unwrap_err(), odd);
    assert_eq!(size(Some(100), Some(512)), Ok(512));
}

#[test]
fn partition_rule_looks_at_the_part() {
    let mut bytes = vec![0; 1000];
    bytes.extend(mbr(2048, [(0, 0x83), (0, 0), (0, 0), (0, 0)]));
    let io = MemIo::new(bytes);
    let options = Options { raw_offset: Some(1000), raw_size: Some(1024), ..Options::default() };
    let told = Raw.open(File::new(&io, &io.top()), &options).unwrap().describe(false).unwrap();
    assert_eq!(told.findings[0].check, "partition-rule".into());
    assert!(told.findings[0].ok);
    let whole = Raw.open(File::new(&io, &io.top()), &Options::default()).unwrap().describe(false).unwrap();
    assert!(!whole.findings[0].ok);
}

#[test]
fn no_table_makes_it_panic() {
    storm(&gpt(8192, 512), 1024, |bytes| {
        let _ = claim(bytes);
    });
}

#[test]
fn holes_are_found_wherever_one_looks_and_asked_for_rarely_by_who_goes_on() {
    const BLOCK: usize = 4096;
    let mut dice = Dice::new(7);
    let bytes: Vec<u8> = (0..512).flat_map(|_| vec![u8::from(dice.below(3) == 0); BLOCK]).collect();
    let len = bytes.len() as u64;
    let io = MemIo::new(bytes.clone());
    let image = Raw.open(File::new(&io, &io.top()), &Options::default()).unwrap();
    let layer = image.layer().unwrap();
    let mut cursor = layer.cursor(&io);
    let mut look = |at: u64, end: u64| {
        let (found, source) = cursor.find(at, end).unwrap();
        let (first, found) = (at as usize, found.min(len - at) as usize);
        let is_hole = matches!(source, Some(Source::Zero { .. }));
        assert!(found > 0 && bytes[first..first + found].iter().all(|byte| (*byte == 0) == is_hole), "{at}");
        first + found
    };
    // A lane of four.
    for piece in (0..len).step_by(64 << 10).step_by(4) {
        let mut at = piece;
        while at < piece + (64 << 10) {
            at = look(at, piece + (64 << 10)) as u64;
        }
    }
    assert!(io.looks.get() < 6, "{}", io.looks.get());
    for _ in 0..2000 {
        let at = dice.below(len);
        look(at, at + 1 + dice.below(len - at));
    }
}

/// The runs of a file of such blocks, zeroes or not, as whoever leaves out that many zeroes sees them.
fn joined(blocks: &[(u64, u8)], sparse: Option<u32>) -> Vec<(u64, bool)> {
    let bytes: Vec<u8> = blocks.iter().flat_map(|(count, byte)| vec![*byte; *count as usize * 4096]).collect();
    let (len, io) = (bytes.len() as u64, MemIo::new(bytes));
    let runs = Joined::new(&io, sparse).holes(io.top().id, 0, len).unwrap();
    runs.iter().map(|run| (run.len / 4096, run.is_hole)).collect()
}

#[test]
fn short_holes_between_data_are_data_for_who_moves_them() {
    let blocks = [(2, 0), (1, 7), (1, 0), (3, 7), (4, 0), (1, 7), (5, 0), (1, 7), (1, 0)];
    let all = |head: &[(u64, bool)]| [head, &[(5, true), (1, false), (1, true)]].concat();
    assert_eq!(joined(&blocks, Some(4096)), all(&[(2, true), (10, false)]));
    assert_eq!(joined(&blocks, Some(0)), all(&[(2, true), (10, false)]));
    assert_eq!(joined(&blocks, Some(8192)), all(&[(2, true), (1, false), (1, true), (8, false)]));
    for all_stay in [Some(65536), None] {
        assert_eq!(joined(&blocks, all_stay), blocks.map(|(len, byte)| (len, byte == 0)));
    }
}
