//! Tests of compressed loop images.

extern crate std;

use super::Cloop;
use alloc::vec;
use alloc::vec::Vec;
use instar_codec::unpack::Codec;
use instar_image::probe::Claim;
use instar_image::{Chain, File, FileId, Format, Options, Place, Reader, Source, Unit, Walk};
use instar_testkit::build::cloop::{build, of_blocks, zlib_stored};
use instar_testkit::build::mutate::{Noise, noise, patched};
use instar_testkit::build::trial::{claim, refusal, survived, told};
use instar_testkit::content::{content, runs};
use instar_testkit::mem::MemIo;
use instar_testkit::oracle::{maker, newest};
use instar_testkit::place::Scratch;
use instar_testkit::twin;

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

#[test]
fn each_block_is_a_unit() {
    let data: Vec<u8> = (0..5000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let image = build(1024, &data);
    let io = MemIo::new(image.clone());
    let layer = Cloop.open(File::new(&io, &io.top()), &Options::default()).unwrap().layer().unwrap();
    assert!(!layer.is_open());
    let chain = Chain::single(layer);
    let told = runs(&chain, &io, 2).unwrap();
    assert_eq!(told.len(), 5);
    for ((len, found), block) in told.iter().zip(data.chunks(1024)) {
        let mut block = block.to_vec();
        block.resize(1024, 0);
        let packed = zlib_stored(&block);
        let at = image.windows(packed.len()).position(|bytes| bytes == packed).unwrap();
        let place = Place { file: FileId(0), at: at as u64 };
        let unit = Unit { codec: Codec::Zlib, place, len: packed.len() as u64, size: 1024, whole: true };
        assert_eq!((*len, found.source), (1024, Source::Packed { unit, skip: 0 }));
    }
}

#[test]
fn damaged_maps_are_survived() {
    noise(&good(), 128..300, 1, 2000, |bytes| twin::survives(&Cloop, &MemIo::new(bytes), 1 << 16));
}

fn chain(io: &MemIo) -> Chain<'static> {
    Chain::single(Cloop.open(File::new(io, &io.top()), &Options::default()).unwrap().layer().unwrap())
}

#[test]
fn blocks_are_read_as_qemu_reads_them() {
    let scratch = Scratch::new("cloop");
    for seed in 0..6 {
        let mut noise = Noise::new(seed);
        let block = 512 * (1 + noise.below(200)) as u32;
        let data: Vec<u8> = (0..noise.below(900_000) + 1).map(|n| (n / 700 * seed) as u8 ^ n as u8).collect();
        std::fs::write(scratch.path().join("disk"), build(block, &data)).unwrap();
        twin::agreed(scratch.path(), "disk", &[&Cloop], seed);
    }
}

#[test]
fn broken_blocks_are_errors_as_they_are_for_qemu() {
    let scratch = Scratch::new("cloop");
    let whole = zlib_stored(&[5; 1024]);
    let with = |at: usize, byte: u8| patched(&whole, at, &[byte]);
    let blocks = [
        (whole.clone(), true),
        ([&whole[..], b"more behind it"].concat(), true),
        (zlib_stored(&[5; 1000]), false),
        (zlib_stored(&[5; 1025]), false),
        (whole[..whole.len() - 4].to_vec(), false),
        (with(whole.len() - 1, 0xee), false),
        (with(500, 1), false),
        (with(0, 0), false),
        (whole[2..].to_vec(), false),
        (Vec::new(), false),
    ];
    for (number, (block, sound)) in blocks.into_iter().enumerate() {
        let image = of_blocks(1024, &[whole.clone(), block]);
        std::fs::write(scratch.path().join("disk"), &image).unwrap();
        for oracle in [maker(), newest()] {
            let words = ["convert", "-f", "cloop", "-O", "raw", "disk", "raw"];
            assert_eq!(oracle.img().folder(scratch.path()).args(words).go().code() == Some(0), sound, "{number}");
        }
        let io = MemIo::new(image);
        assert_eq!(content(&chain(&io), &io, 1).is_ok(), sound, "{number}");
    }
}

#[test]
fn long_blocks_are_unpacked_while_they_are_read() {
    let data: Vec<u8> = (0..20u32 << 20).map(|n| (n >> 9) as u8 ^ (n >> 17) as u8).collect();
    let mut image = build(10 << 20, &data);
    let read = |image: Vec<u8>, places: &[usize]| {
        let io = MemIo::new(image);
        let (chain, mut out) = (chain(&io), alloc::vec![0; 1 << 20]);
        let mut reader = Reader::new(&chain, &io);
        places.iter().try_for_each(|at| {
            let mut walk = Walk::new(&chain, &io, *at as u64, chain.size());
            let (_, found) = walk.peek()?.unwrap();
            reader.read(&found, &mut out)?;
            assert!(out == data[*at..][..1 << 20], "at {at}");
            Ok::<(), instar_image::Error>(())
        })
    };
    // One after another, over a gap, back to the beginning.
    read(image.clone(), &[0, 1 << 20, 5 << 20, 4096, 2 << 20, 10 << 20, 19 << 20, 9 << 20]).unwrap();
    let last = image.len() - 1;
    image[last] ^= 1;
    read(image.clone(), &[18 << 20]).unwrap();
    assert!(read(image, &[18 << 20, 19 << 20]).is_err());
}
