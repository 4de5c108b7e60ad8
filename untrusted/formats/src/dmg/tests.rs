//! Tests of Apple disk images.

extern crate std;

use super::Dmg;
use super::disk::kind::{ADC, BZIP2, COMMENT, END, IGNORE, LZFSE, LZMA, RAW, ZERO, ZLIB};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use instar_codec::unpack::Codec;
use instar_image::probe::Claim;
use instar_image::{Chain, Fact, File, FileId, Format, Options, Place, Source, Unit};
use instar_testkit::build::cloop::zlib_stored;
use instar_testkit::build::dmg::{Chunk, Fork, build, mish};
use instar_testkit::build::mutate::{Noise, noise, patched};
use instar_testkit::build::trial::{claim, refusal, survived, told};
use instar_testkit::content::{read, runs};
use instar_testkit::mem::MemIo;
use instar_testkit::place::Scratch;
use instar_testkit::twin;

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

/// The chain of an image that is opened.
fn chain(io: &MemIo) -> Result<Chain<'static>, String> {
    let image = Dmg.open(File::new(io, &io.top()), &Options::default()).unwrap();
    let layer = image.layer().map_err(|error| String::from_utf8(error.what.0).unwrap())?;
    Ok(Chain::single(layer))
}

/// An image of chunks of every kind that qemu-img reads, in tables of both kinds, whose data begin in three places at once.
fn random(seed: u64) -> Vec<u8> {
    let mut noise = Noise::new(seed);
    let (mut data, mut tables, mut sector) = (vec![1; 1024], Vec::new(), 0);
    for _ in 0..1 + noise.below(4) {
        let (mut chunks, start) = (Vec::new(), sector);
        for _ in 0..1 + noise.below(30) {
            let count = 1 + noise.below(40);
            let kind = [RAW, RAW, ZERO, IGNORE, COMMENT, ZLIB, ZLIB][noise.below(7) as usize];
            let (len, at) = match kind {
                // Of the last sector not all need be there; qemu-img then gives what it had in memory.
                RAW => (count * 512, data.len() as u64 - 512 - 512),
                _ => (0, noise.next()),
            };
            data.extend((0..len).map(|n| (n / 512 + sector * 3) as u8));
            let (len, at) = if kind == ZLIB {
                let at = data.len() as u64 - 512 - 512;
                let bytes: Vec<u8> = (0..count * 512).map(|n| (n / 512 * 5 + sector) as u8).collect();
                data.extend(zlib_stored(&bytes));
                (data.len() as u64 - 1024 - at, at)
            } else {
                (len, at)
            };
            chunks.push(Chunk { kind, sector: sector - start, count, at, len });
            sector += if kind == COMMENT { 0 } else { count };
        }
        chunks.push(chunk(END, sector - start, 0, 0));
        let mut table = mish(start, &chunks);
        table[24..32].copy_from_slice(&512u64.to_be_bytes());
        tables.push(table);
    }
    let fork = if noise.below(2) == 0 { Fork::Xml } else { Fork::Resource };
    let mut image = build(&data, &tables, fork, sector);
    let trailer = image.len() - 512;
    image[trailer + 24..trailer + 32].copy_from_slice(&512u64.to_be_bytes());
    image
}

#[test]
fn chunks_are_read_as_qemu_reads_them() {
    let scratch = Scratch::new("dmg");
    let mut sizes = 0;
    for seed in 0..12 {
        // A disk of comments is none.
        let image = random(seed);
        if refusal(&Dmg, image.clone()) != "opened" {
            continue;
        }
        std::fs::write(scratch.path().join("disk.dmg"), image).unwrap();
        twin::agreed(scratch.path(), "disk.dmg", &[&Dmg], seed);
        sizes += 1;
    }
    assert!(sizes > 6);
}

#[test]
fn each_kind_has_its_source() {
    let kinds =
        [(ADC, Codec::Adc), (ZLIB, Codec::Zlib), (BZIP2, Codec::Bzip2), (LZFSE, Codec::Lzfse), (LZMA, Codec::Lzma)];
    let chunks: Vec<Chunk> = kinds
        .iter()
        .zip(0..)
        .map(|((kind, _), n)| Chunk { kind: *kind, sector: n * (1 << 20), count: 1 << 20, at: n * 100, len: 100 })
        .collect();
    let raw = Chunk { kind: RAW, sector: 5 << 20, count: 2, at: 512, len: 700 };
    let io = MemIo::new(build(&[5; 2048], &[mish(0, &[&chunks[..], &[raw]].concat())], Fork::Xml, (5 << 20) + 2));
    let chain = chain(&io).unwrap();
    let told = runs(&chain, &io, 3).unwrap();
    let place = |at| Place { file: FileId(0), at };
    for (((_, codec), (len, found)), n) in kinds.iter().zip(&told).zip(0..) {
        // A chunk may be of any size.
        let unit = Unit { codec: *codec, place: place(n * 100), len: 100, size: 512 << 20, whole: true };
        assert_eq!((*len, found.source), (512 << 20, Source::Packed { unit, skip: 0 }));
    }
    let rest: Vec<(u64, Source)> = told.iter().skip(5).map(|(len, found)| (*len, found.source)).collect();
    assert_eq!(rest, [(700, Source::raw(place(512))), (324, Source::ZERO)]);
}

#[test]
fn chunks_that_qemu_does_not_know_are_read() {
    // Stretches of 128 bytes, each as it is.
    let adc: Vec<u8> = (0..4u8).flat_map(|n| [&[0xff][..], &[n; 128]].concat()).collect();
    let chunks = [
        Chunk { kind: ADC, sector: 0, count: 1, at: 0, len: adc.len() as u64 },
        Chunk { kind: ADC, sector: 1, count: 1, at: 0, len: adc.len() as u64 - 1 },
    ];
    let io = MemIo::new(build(&adc, &[mish(0, &chunks)], Fork::Xml, 2));
    let chain = chain(&io).unwrap();
    let want: Vec<u8> = (0..512u32).map(|n| (n / 128) as u8).collect();
    assert_eq!(read(&chain, &io, 0, 512).unwrap(), want);
    assert!(read(&chain, &io, 512, 512).is_err());
}

#[test]
fn order_does_not_matter_but_places_do() {
    let piece = |n: u64| Chunk { kind: RAW, sector: n, count: 1, at: n * 512, len: 512 };
    let bytes: Vec<u8> = (0..2048u64).map(|n| (n / 512) as u8).collect();
    let image = |chunks: &[Chunk], sectors| MemIo::new(build(&bytes, &[mish(0, chunks)], Fork::Xml, sectors));
    let io = image(&[3, 1, 0, 2].map(piece), 4);
    assert_eq!(read(&chain(&io).unwrap(), &io, 0, 2048).unwrap(), bytes);
    // Sectors that no chunk is for, or one that nobody knows, are errors; all others are read.
    let io = image(&[piece(0), Chunk { kind: 9, ..piece(1) }, piece(3)], 5);
    let holed = chain(&io).unwrap();
    let ok = |sector: u64| read(&holed, &io, sector * 512, 512).is_ok();
    assert_eq!([0, 1, 2, 3, 4].map(ok), [true, false, false, true, false]);
    let twice = image(&[piece(0), piece(1), Chunk { count: 2, kind: ZERO, ..piece(0) }], 2);
    assert_eq!(chain(&twice).err().unwrap(), "two chunks of the image are for sector {} of the disk");
    let tables = [mish(0, &[piece(0)]), mish(2, &[Chunk { sector: u64::MAX, ..piece(0) }])];
    assert!(chain(&MemIo::new(build(&bytes, &tables, Fork::Xml, 1))).is_err());
}

#[test]
fn damaged_maps_are_survived() {
    for (fork, seed) in [(Fork::Xml, 1), (Fork::Resource, 2)] {
        let image = good(fork);
        noise(&image, 1000..image.len(), seed, 1500, |bytes| twin::survives(&Dmg, &MemIo::new(bytes), 1 << 17));
    }
}
