//! What is compressed here comes out as it went in, here and elsewhere.

use super::*;
use crate::unpack::{Codec, unpack_all};
use compcol::Decoder;
use compcol::deflate::DecoderConfig;
use std::io::Write;
use std::process::{Command, Stdio};

extern crate std;

const METHODS: [(Method, Codec); 3] =
    [(Method::Deflate12, Codec::Deflate), (Method::Zlib, Codec::Zlib), (Method::Zstd, Codec::Zstd)];

fn noise(len: usize, mut seed: u64) -> Vec<u8> {
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn words(len: usize, seed: u64) -> Vec<u8> {
    let words = ["sector ", "cluster\n", "0123", "the ", "of a ", "image", ", ", "\0\0\0\0\x01"];
    let picks = noise(len, seed);
    let mut text: Vec<u8> = picks.iter().flat_map(|pick| words[usize::from(*pick) % 8].bytes()).collect();
    text.truncate(len);
    text
}

/// Contents of every kind, of one length.
fn contents(len: usize) -> Vec<(&'static str, Vec<u8>)> {
    let random = noise(len, 7);
    let mut half = random.clone();
    half.chunks_mut(2048).step_by(2).for_each(|part| part.fill(0));
    // What comes again 4 KiB and more than 4 KiB further on.
    let near: Vec<u8> = noise(4096, 3).into_iter().cycle().take(len).collect();
    let far: Vec<u8> = noise(5000, 3).into_iter().cycle().take(len).collect();
    let period: Vec<u8> = (0..251u8).cycle().take(len).collect();
    let nibbles = random.iter().map(|byte| byte & 15).collect();
    std::vec![
        ("zeroes", std::vec![0; len]),
        ("a letter", std::vec![b'x'; len]),
        ("a period", period),
        ("near", near),
        ("far", far),
        ("half", half),
        ("nibbles", nibbles),
        ("words", words(len, 5)),
        ("random", random),
    ]
}

fn check(press: &mut Press, codec: Codec, name: &str, bytes: &[u8]) -> Vec<u8> {
    let packed = press.pack(bytes, bytes.len() + 4096).expect("room");
    let mut out = std::vec![0xa5; bytes.len()];
    unpack_all(codec, &packed, &mut out).unwrap_or_else(|_| panic!("{codec:?} of {name}, {}", bytes.len()));
    assert!(out == bytes, "{codec:?} of {name}, {}", bytes.len());
    packed
}

#[test]
fn everything_comes_out_as_it_went_in() {
    for (method, codec) in METHODS {
        let mut press = Press::new(method);
        for len in [0, 1, 2, 3, 100, 512, 513, 5000, 65536, 140_000] {
            for (name, bytes) in contents(len) {
                let packed = check(&mut press, codec, name, &bytes);
                // And what it was used for before makes no difference.
                if len <= 5000 {
                    assert!(packed == Press::new(method).pack(&bytes, len + 4096).expect("room"), "{name}, {len}");
                }
            }
        }
        check(&mut press, codec, "words", &words(1 << 20, 6));
    }
}

#[test]
fn no_more_is_made_than_there_may_be() {
    for (method, _) in METHODS {
        let mut press = Press::new(method);
        for (name, bytes) in contents(8192) {
            let packed = press.pack(&bytes, 20_000).expect("room");
            for most in [packed.len(), packed.len() + 1, 9000] {
                let again = press.pack(&bytes, most);
                assert!(most < packed.len() || again.as_ref() == Some(&packed), "{method:?} of {name} in {most}");
            }
            for most in [packed.len() - 1, packed.len() / 2, 1, 0] {
                // Another way may still fit where the first does not.
                let made = press.pack(&bytes, most).map_or(0, |less| less.len());
                assert!(made <= most && (made == 0 || method == Method::Zstd), "{method:?} of {name} in {most}");
            }
        }
    }
}

#[test]
fn it_is_short() {
    for (method, _) in METHODS {
        let mut press = Press::new(method);
        let most = |name| match name {
            "zeroes" | "a letter" | "a period" => 1000,
            "near" => 4096 + 1500,
            "half" => 32768 + 1500,
            "nibbles" => 38_000,
            "words" => 20_000,
            "far" if method != Method::Deflate12 => 5000 + 1500,
            _ => 65536 + 100,
        };
        for (name, bytes) in contents(65536) {
            let len = press.pack(&bytes, 65536 - 1).map_or(65536, |packed| packed.len());
            assert!(len <= most(name), "{method:?} of {name}: {len}");
        }
    }
}

/// qemu reads the streams of qcow2 with a window of 4 KiB.
#[test]
fn qcow2_reaches_back_no_further_than_its_window() {
    let mut press = Press::new(Method::Deflate12);
    for (name, bytes) in contents(200_000) {
        let packed = press.pack(&bytes, 300_000).expect("room");
        let mut config = DecoderConfig::default();
        config.window_size = 4096;
        let (mut narrow, mut out) = (compcol::deflate::Decoder::with_config(config), std::vec![0; bytes.len()]);
        let (progress, _) = narrow.decode(&packed, &mut out).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert!(progress.written == bytes.len() && out == bytes, "{name}");
    }
    let (far, mut wide) = (contents(65536).remove(4).1, Press::new(Method::Zlib));
    assert!(press.pack(&far, 65535).is_none());
    assert!(wide.pack(&far, 6500).is_some());
}

/// Has a program make of bytes what it makes; none if there is no such program.
fn elsewhere(program: &[&str], bytes: &[u8]) -> Option<Vec<u8>> {
    let mut command = Command::new(program[0]);
    let child = command.args(&program[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = child.ok()?;
    let mut input = child.stdin.take().expect("piped");
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&bytes));
    let output = child.wait_with_output().expect("a child");
    let _ = writer.join();
    Some(output.stdout)
}

#[test]
fn other_programs_read_it() {
    let inflate = "import sys,zlib\nd=zlib.decompressobj(-12)\nb=sys.stdin.buffer.read()\nfor i in range(0,len(b),97): \
                   sys.stdout.buffer.write(d.decompress(b[i:i+97]))\nassert d.eof";
    let whole = "import sys,zlib\nsys.stdout.buffer.write(zlib.decompress(sys.stdin.buffer.read()))";
    let programs: [&[&str]; 3] = [&["python3", "-c", inflate], &["python3", "-c", whole], &["zstd", "-qdc"]];
    for ((method, _), program) in METHODS.into_iter().zip(programs) {
        let mut press = Press::new(method);
        for len in [512, 300_000] {
            for (name, bytes) in contents(len) {
                let packed = press.pack(&bytes, len + 4096).expect("room");
                let Some(out) = elsewhere(program, &packed) else { break };
                assert!(out == bytes, "{method:?} of {name}, {len}");
            }
        }
    }
}
