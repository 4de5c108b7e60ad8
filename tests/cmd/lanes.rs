//! One lane and many give the same bytes and the same answers.

use instar_testkit::build::dmg::{Chunk, Fork, kind};
use instar_testkit::build::vmdk::zlib;
use instar_testkit::build::{cloop, dmg};
use instar_testkit::images::SECRET;
use instar_testkit::oracle::maker;
use instar_testkit::place::Scratch;
use instar_testkit::program::{Cell, program};
use instar_testkit::run::{Ran, Run};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Long enough for lanes to share it.
const LEN: usize = 24 << 20;
/// Bytes of a chunk.
const CHUNK: usize = 256 << 10;

/// Bytes that can be compressed, with holes among them.
fn bytes() -> Vec<u8> {
    let mut state = 9u64;
    let mut out = vec![0; LEN];
    for (number, part) in out.chunks_mut(40_000).enumerate() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(number as u64);
        let few = (state >> 40) as u8 & 31;
        if number % 5 != 2 {
            part.iter_mut().enumerate().for_each(|(n, byte)| *byte = few ^ ((n * n) >> 7) as u8);
        }
    }
    out
}

/// Every chunk compressed, but for those that are zeroes or lie there as they are.
fn dmg_of(bytes: &[u8]) -> Vec<u8> {
    let (mut data, mut chunks) = (Vec::new(), Vec::new());
    for (number, part) in bytes.chunks(CHUNK).enumerate() {
        let (kind, held) = match number % 3 {
            0 => (kind::ZLIB, zlib(part)),
            1 => (kind::RAW, part.to_vec()),
            _ => (kind::ZERO, Vec::new()),
        };
        let (sector, count) = ((number * CHUNK / 512) as u64, (CHUNK / 512) as u64);
        chunks.push(Chunk { kind, sector, count, at: data.len() as u64, len: held.len() as u64 });
        data.extend(held);
    }
    dmg::build(&data, &[dmg::mish(0, &chunks)], Fork::Xml, (bytes.len() / 512) as u64)
}

/// Images, and the words that name them.
fn images(scratch: &Scratch) -> Vec<Vec<String>> {
    let bytes = bytes();
    scratch.put("disk.raw", &bytes);
    scratch.put("disk.dmg", dmg_of(&bytes));
    scratch.put("disk.cloop", cloop::build(64 << 10, &bytes[..8 << 20]));
    let convert = |more: &[&str], from: &str, to: &str| {
        maker().img().folder(scratch.path()).args(["convert", "-O"]).args(more).arg(from).arg(to).must();
    };
    convert(&["qcow2", "-c"], "disk.raw", "zlib.qcow2");
    convert(&["qcow2", "-c", "-o", "compression_type=zstd,cluster_size=16k"], "disk.raw", "zstd.qcow2");
    convert(&["vmdk", "-o", "subformat=streamOptimized"], "disk.raw", "disk.vmdk");
    convert(&["vhdx", "-o", "block_size=1M"], "disk.raw", "disk.vhdx");
    convert(&["luks", "--object", SECRET, "-o", "key-secret=sec0,iter-time=10"], "disk.raw", "disk.luks");
    let img = |words: &[&str]| maker().img().folder(scratch.path()).args(words).must();
    img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        "cluster_size=4k",
        "-b",
        "zlib.qcow2",
        "-F",
        "qcow2",
        "top.qcow2",
        "25M",
    ]);
    let writes = (0..60).flat_map(|n| ["-c".to_owned(), format!("write -P {} {}k 5k", n + 1, n * 391)]);
    maker().io().folder(scratch.path()).args(writes).arg("top.qcow2").must();
    let named = |format: &str, name: &str| ["-f", format, name].map(str::to_owned).to_vec();
    let luks = ["--object", SECRET, "--image-opts", "driver=luks,key-secret=sec0,file.filename=disk.luks"];
    vec![
        named("raw", "disk.raw"),
        named("qcow2", "zlib.qcow2"),
        named("qcow2", "zstd.qcow2"),
        named("qcow2", "top.qcow2"),
        named("vmdk", "disk.vmdk"),
        named("vhdx", "disk.vhdx"),
        named("dmg", "disk.dmg"),
        named("cloop", "disk.cloop"),
        luks.map(str::to_owned).to_vec(),
    ]
}

#[test]
fn one_lane_and_many_give_the_same() {
    let scratch = Scratch::new("lanes");
    for words in images(&scratch) {
        let mut told: Vec<(u64, Vec<Vec<u8>>)> = Vec::new();
        for cell in Cell::all() {
            let ask = |more: &[&str]| program().native(*cell).folder(scratch.path()).args(more).args(&words);
            for lanes in ["1", "2", "8", "16"] {
                ask(&["convert", "-m", lanes, "-O", "raw"]).arg("out.raw").must();
                let mut copy = DefaultHasher::new();
                fs::read(scratch.path().join("out.raw")).expect("a copy").hash(&mut copy);
                fs::remove_file(scratch.path().join("out.raw")).expect("the copy");
                // Who has but one processor has one lane.
                let narrow = |run: Run| if lanes == "1" { run.through(["taskset", "-c", "0"]) } else { run };
                let other = if words.len() == 3 { &["-F", "raw"][..] } else { &[] };
                let last = words
                    .last()
                    .expect("the name")
                    .replace("luks,key-secret=sec0,", "raw,")
                    .replace("disk.luks", "disk.raw");
                let last = if words.len() == 3 { "disk.raw".to_owned() } else { last };
                let compare = narrow(ask(&["compare"]).args(other).arg(last)).go();
                let text = |ran: Ran| [ran.stdout, ran.stderr].concat();
                let map = narrow(ask(&["map", "--output=json"])).must();
                let measure = narrow(ask(&["measure", "-O", "qcow2", "--output=json"])).must();
                told.push((copy.finish(), [text(compare), text(map), text(measure)].to_vec()));
            }
        }
        let (copy, answers) = &told[0];
        for (number, (other, others)) in told.iter().enumerate() {
            assert!(copy == other, "{words:?}: the bytes of run {number} differ");
            assert_eq!(answers, others, "{words:?}: the answers of run {number} differ");
        }
    }
}
