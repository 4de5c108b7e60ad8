//! What other programs have compressed comes out as it went in; and no bytes do harm.

use super::*;
use alloc::vec;
use compcol::Encoder;

const LEN: usize = 100_000;
const SAMPLES: &[(Codec, &str, &[u8])] = &[
    (Codec::Deflate, "a window of 4 KiB", include_bytes!("../testdata/deflate12")),
    (Codec::Deflate, "a window of 32 KiB", include_bytes!("../testdata/deflate15")),
    (Codec::Deflate, "stored", include_bytes!("../testdata/stored")),
    (Codec::Zlib, "zlib", include_bytes!("../testdata/zlib")),
    (Codec::Zstd, "level 19, with a checksum", include_bytes!("../testdata/zstd19")),
    (Codec::Zstd, "level 1, without a size", include_bytes!("../testdata/zstd1")),
    (Codec::Bzip2, "bzip2", include_bytes!("../testdata/bzip2")),
    (Codec::Lzma, "xz", include_bytes!("../testdata/xz")),
];

/// What the samples were made of: words, runs, noise.
fn content() -> Vec<u8> {
    let (mut out, mut x) = (Vec::new(), 12345u32);
    let mut next = || {
        x = x.wrapping_mul(1_103_515_245).wrapping_add(12345) & 0x7fff_ffff;
        x
    };
    while out.len() < LEN {
        let x = next();
        match (x >> 16) % 4 {
            0 => out.extend(b"instar ".repeat((x >> 8) as usize % 9 + 1)),
            1 => out.extend(vec![(x >> 4) as u8; (x >> 12) as usize % 200 + 1]),
            2 => out.extend((0..(x >> 10) % 64).map(|_| (next() >> 16) as u8)),
            _ => out.extend(alloc::format!("{},", x % 1000).into_bytes()),
        }
    }
    out.truncate(LEN);
    out
}

fn encoded(mut encoder: impl Encoder, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0; bytes.len() * 2 + 4096];
    let (first, _) = encoder.encode(bytes, &mut out).expect("room");
    assert_eq!(first.consumed, bytes.len());
    let (last, _) = encoder.finish(&mut out[first.written..]).expect("room");
    out.truncate(first.written + last.written);
    out
}

/// The samples, and those that only our own library makes.
fn samples() -> Vec<(Codec, &'static str, Vec<u8>)> {
    let mut all: Vec<_> = SAMPLES.iter().map(|(codec, name, bytes)| (*codec, *name, bytes.to_vec())).collect();
    all.push((Codec::Lzfse, "lzfse", encoded(compcol::lzfse::Lzfse::encoder(), &content())));
    all.push((Codec::Adc, "adc", encoded(compcol::adc::Adc::encoder(), &content())));
    all
}

#[test]
fn samples_come_out_as_they_went_in() {
    let want = content();
    for (codec, name, packed) in samples() {
        let mut out = vec![0; LEN];
        assert_eq!(unpack(codec, &packed, &mut out), Ok(LEN), "{name}");
        assert!(out == want, "{name}");
        // What stands behind is passed over, as in the last sector of a cluster.
        let longer = [&packed[..], &[0; 700]].concat();
        assert_eq!(unpack(codec, &longer, &mut out), Ok(LEN), "{name}");
        assert!(out == want, "{name} with more behind it");
        // Less is made when less is asked for, and no more than there is.
        for len in [0, 1, 511, 4096, LEN - 1] {
            let mut part = vec![0; len];
            assert_eq!(unpack(codec, &packed, &mut part), Ok(len), "{name} {len}");
            assert!(part == want[..len], "{name} {len}");
        }
        let mut more = vec![7; LEN + 100];
        assert_eq!(unpack(codec, &packed, &mut more), Ok(LEN), "{name}");
        assert!(more[..LEN] == want, "{name}");
    }
}

#[test]
fn what_is_made_in_steps_is_the_same() {
    let want = content();
    for (codec, name, packed) in samples() {
        for (input, output) in [(1, 1000), (100, 1), (333, 4096), (1 << 20, 1 << 20)] {
            let mut unpacker = Unpacker::new(codec);
            let (mut rest, mut made) = (&packed[..], Vec::new());
            loop {
                let mut piece = vec![0; output];
                let n = unpacker.read(&mut piece, &mut |room: &mut Vec<u8>| {
                    let (now, later) = rest.split_at(input.min(rest.len()));
                    room.extend_from_slice(now);
                    rest = later;
                    Ok::<(), Broken>(())
                });
                let n = n.unwrap_or_else(|_| panic!("{name} in pieces of {input} and {output}"));
                made.extend_from_slice(&piece[..n]);
                if n < output {
                    break;
                }
            }
            assert!(made == want, "{name} in pieces of {input} and {output}: {} bytes", made.len());
        }
    }
}

#[test]
fn what_is_cut_or_damaged_does_no_harm() {
    let want = content();
    for (codec, name, packed) in samples() {
        let mut out = vec![0; LEN];
        for len in (0..packed.len()).step_by(997) {
            if let Ok(made) = unpack(codec, &packed[..len], &mut out) {
                assert!(made <= LEN && out[..made] == want[..made], "{name} cut to {len}");
            }
        }
        let mut x = 1u32;
        for _ in 0..80 {
            let mut damaged = packed.clone();
            for _ in 0..3 {
                x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = (x >> 8) as usize % damaged.len();
                damaged[at] = x as u8;
            }
            let _ = unpack(codec, &damaged, &mut out);
        }
    }
}

#[test]
fn bombs_are_no_larger_than_what_is_asked_for() {
    let zeroes = vec![0; 8 << 20];
    let bombs = [
        (Codec::Deflate, encoded(compcol::deflate::Deflate::encoder(), &zeroes)),
        (Codec::Zlib, encoded(compcol::zlib::Zlib::encoder(), &zeroes)),
        (Codec::Zstd, encoded(compcol::zstd::Zstd::encoder(), &zeroes)),
        (Codec::Bzip2, encoded(compcol::bzip2::Bzip2::encoder(), &zeroes)),
    ];
    for (codec, bomb) in bombs {
        let mut out = vec![1; 65536];
        assert_eq!(unpack(codec, &bomb, &mut out), Ok(65536), "{codec:?}");
        assert!(out.iter().all(|byte| *byte == 0), "{codec:?}");
    }
}
