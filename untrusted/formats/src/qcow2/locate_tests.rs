//! Where qcow2 says that bytes are: images of every kind, held against what qemu-img reads and tells.

use super::Qcow2;
use crate::raw::Raw;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use instar_image::{Chain, Error, File, Format, Kind, Layer, Options, Walk};
use instar_testkit::build::mutate::{Noise, patched};
use instar_testkit::content::content;
use instar_testkit::folder::Folder;
use instar_testkit::mem::MemIo;
use instar_testkit::oracle::maker;
use instar_testkit::place::Scratch;
use instar_testkit::twin;
use std::path::Path;

extern crate std;

/// What a guest does to an image through qemu-io; with `packed`, also compressed clusters.
fn scribble(folder: &Path, name: &str, size: u64, cluster_len: u64, seed: u64, packed: bool) {
    let mut noise = Noise::new(seed);
    let mut words: Vec<String> = vec!["-f".into(), "qcow2".into()];
    for _ in 0..40 {
        let most = [512, 4096, 65536, 256 << 10][noise.below(4) as usize];
        let at = noise.below(size / 512) * 512;
        let len = ((1 + noise.below(most / 512)) * 512).min(size - at);
        let cluster = at / cluster_len * cluster_len;
        let whole = cluster_len.min(size - cluster);
        let byte = 1 + noise.below(255);
        words.push("-c".into());
        words.push(match noise.below(10) {
            0 => format!("write -z {at} {len}"),
            1 => format!("write -z -u {at} {len}"),
            2 => format!("discard {at} {len}"),
            3 => format!("write -z {cluster} {whole}"),
            4 => format!("discard {cluster} {whole}"),
            5 | 6 if packed => format!("write -c -P {byte} {cluster} {whole}"),
            _ => format!("write -P {byte} {at} {len}"),
        });
    }
    words.push(name.into());
    // A cluster that lies somewhere already cannot be compressed; the others are.
    let ran = maker().io().folder(folder).args(words).go();
    assert!(packed || ran.code() == Some(0), "{}", ran.err());
}

/// Images with these options, at each of these lengths of clusters.
fn random(options: &str, cluster_lens: &[u64], packed: bool) {
    for (number, cluster_len) in cluster_lens.iter().enumerate() {
        let scratch = Scratch::new("qcow2-map");
        let size = (cluster_len * 40).clamp(1 << 20, 9 << 20) + 512 * 3;
        twin::create(scratch.path(), &format!("-f qcow2 -o cluster_size={cluster_len}{options} disk.qcow2 {size}"));
        scribble(scratch.path(), "disk.qcow2", size, *cluster_len, 7 + number as u64, packed);
        twin::agreed(scratch.path(), "disk.qcow2", &[&Qcow2], number as u64);
    }
}

const CLUSTERS: &[u64] = &[512, 1024, 4096, 65536, 2 << 20];

#[test]
fn version_2_and_3() {
    random(",compat=0.10", CLUSTERS, false);
    random("", CLUSTERS, false);
}

#[test]
fn subclusters() {
    random(",extended_l2=on", &[16 << 10, 32 << 10, 64 << 10, 2 << 20], false);
}

#[test]
fn external_data_file() {
    for raw in ["off", "on"] {
        random(&format!(",data_file=disk.data,data_file_raw={raw}"), &[4096, 65536], false);
        random(&format!(",extended_l2=on,data_file=disk.data,data_file_raw={raw}"), &[65536], false);
    }
}

#[test]
fn compressed_clusters() {
    random("", CLUSTERS, true);
    random(",compat=0.10", &[65536], true);
    random(",compression_type=zstd", &[4096, 65536, 2 << 20], true);
    random(",extended_l2=on", &[65536], true);
}

#[test]
fn space_set_aside() {
    for mode in ["metadata", "falloc"] {
        random(&format!(",preallocation={mode}"), &[4096, 65536], false);
        random(&format!(",preallocation={mode},extended_l2=on"), &[65536], false);
        random(&format!(",preallocation={mode},refcount_bits=1"), &[65536], false);
    }
    for bits in [1, 2, 4, 8, 32, 64] {
        let scratch = Scratch::new("qcow2-map");
        let words = format!("-f qcow2 -o preallocation=metadata,refcount_bits={bits},cluster_size=4k disk.qcow2 3M");
        twin::create(scratch.path(), &words);
        twin::agreed(scratch.path(), "disk.qcow2", &[&Qcow2], bits);
    }
}

/// The image is counted as set aside from a certain number of clusters on that have been written.
#[test]
fn space_set_aside_is_told_from_holes() {
    let scratch = Scratch::new("qcow2-map");
    for (size, written) in [(16u64, 11..17), (256, 226..236)] {
        for count in written {
            let words = format!("-f qcow2 -o preallocation=metadata,cluster_size=4k disk.qcow2 {}k", size * 4);
            twin::create(scratch.path(), &words);
            let write = format!("write -P 5 0 {}k", count * 4);
            maker().io().folder(scratch.path()).args(["-f", "qcow2", "-c", &write, "disk.qcow2"]).must();
            twin::agree(maker(), scratch.path(), "disk.qcow2", &[&Qcow2], count);
        }
    }
}

#[test]
fn chains_of_mixed_clusters() {
    let scratch = Scratch::new("qcow2-map");
    let path = scratch.path();
    scratch.put("base.raw", vec![0x77; 700_416]);
    let layers = [
        ("mid.qcow2", "base.raw", "raw", "cluster_size=4k", 4096, 900 << 10),
        ("up.qcow2", "mid.qcow2", "qcow2", "cluster_size=64k,extended_l2=on", 65536, 1200 << 10),
        ("top.qcow2", "up.qcow2", "qcow2", "cluster_size=512,compat=0.10", 512, 1600 << 10),
        ("last.qcow2", "top.qcow2", "qcow2", "cluster_size=64k,extended_l2=on", 65536, 1700 << 10),
    ];
    for (number, (name, below, format, options, cluster_len, size)) in layers.into_iter().enumerate() {
        twin::create(path, &format!("-f qcow2 -b {below} -F {format} -o {options} {name} {size}"));
        scribble(path, name, size, cluster_len, 90 + number as u64, false);
        let formats: Vec<&dyn Format> =
            (0..=number).map(|_| &Qcow2 as &dyn Format).chain([&Raw as &dyn Format]).collect();
        twin::agreed(path, name, &formats, number as u64);
    }
}

#[test]
fn encrypted_clusters() {
    // Keys are derived in as few rounds as the oracle makes, and slowly all the same.
    let luks = "luks,encrypt.iter-time=1";
    let essiv = "encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256";
    let cases = [
        ("aes,cluster_size=4k,compat=0.10".into(), false),
        ("aes,cluster_size=64k".into(), true),
        (format!("{luks},{essiv}"), true),
        (format!("{luks},extended_l2=on,data_file=disk.data"), false),
    ];
    for (number, (more, packed)) in cases.into_iter().enumerate() {
        let scratch = Scratch::new("qcow2-map");
        let secret = ["secret,id=key,data=a long password that is cut"];
        let words = format!("-f qcow2 -o encrypt.key-secret=key,encrypt.format={more} disk.qcow2 1500k");
        let object = ["create", "-q", "--object"];
        maker().img().folder(scratch.path()).args(object).args(secret).args(words.split(' ')).must();
        let open = "driver=qcow2,encrypt.key-secret=key,file.filename=disk.qcow2";
        let mut noise = Noise::new(number as u64);
        let mut script: Vec<String> = Vec::new();
        if packed {
            // First of all: where a cluster lies already, none can be compressed.
            script.extend(["-c", "write -c -P 7 128k 64k", "-c", "write -c -P 8 1280k 64k"].map(String::from));
        }
        for _ in 0..12 {
            let at = noise.below(2900) * 512;
            let what = ["write -P 9", "write -P 3", "discard", "write -z"][noise.below(4) as usize];
            script.extend(["-c".into(), format!("{what} {at} {}", (1 + noise.below(99)) * 512)]);
        }
        let run = maker().io().folder(scratch.path()).args(["--object"]).args(secret);
        run.args(script).args(["--image-opts", open]).must();
        let key = ("encrypt.key-secret", "a long password that is cut");
        twin::agree_sealed(scratch.path(), "disk.qcow2", &Qcow2, key, number as u64);
    }
}

fn opened(io: &MemIo) -> Box<dyn Layer> {
    Qcow2.open(File::new(io, &io.top()), &Options::default()).unwrap().layer().unwrap()
}

#[test]
fn snapshots_are_as_large_as_the_disk_is_now() {
    let scratch = Scratch::new("qcow2-map");
    let path = scratch.path();
    scratch.put("base.raw", vec![0x55; 300 << 10]);
    for (options, cluster_len) in [("cluster_size=4k", 4096), ("cluster_size=64k,extended_l2=on", 65536)] {
        twin::create(path, &format!("-f qcow2 -b base.raw -F raw -o {options} disk.qcow2 1M"));
        let mut size = 1 << 20;
        for number in 0..3u64 {
            scribble(path, "disk.qcow2", size, cluster_len, 300 + number, false);
            let name = format!("snap{number}");
            maker().img().folder(path).args(["snapshot", "-c", &name, "disk.qcow2"]).must();
            size += 777 << 10;
            maker().img().folder(path).args(["resize", "-q", "disk.qcow2", &format!("{size}")]).must();
        }
        scribble(path, "disk.qcow2", size, cluster_len, 310, false);
        let io = Folder::new(path);
        for number in 0..3 {
            let image = Qcow2.open(File::new(&io, &io.open(b"disk.qcow2").unwrap()), &Options::default()).unwrap();
            let below = Raw.open(File::new(&io, &io.open(b"base.raw").unwrap()), &Options::default()).unwrap();
            let chain = Chain { layers: vec![image.snapshot(number).unwrap(), below.layer().unwrap()] };
            let ours = content(&chain, &io, number as u64).unwrap();
            let name = format!("snap{number}");
            maker().img().folder(path).args(["convert", "-O", "raw", "-l", &name, "disk.qcow2", "out.raw"]).must();
            assert!(ours == std::fs::read(path.join("out.raw")).unwrap(), "{name} of {options}");
            assert!(image.snapshot(3).is_err());
        }
    }
}

/// An image with some of everything in clusters of 4 KiB, or of 16 KiB with subclusters, and where its tables lie.
fn sample(extended: bool, version: u32) -> (Vec<u8>, usize, usize) {
    let scratch = Scratch::new("qcow2-map");
    let compat = if version == 2 { "0.10" } else { "1.1" };
    let options = if extended { "extended_l2=on,cluster_size=16k" } else { "cluster_size=4k" };
    twin::create(scratch.path(), &format!("-f qcow2 -o {options},compat={compat} disk.qcow2 1M"));
    let words = ["-f", "qcow2", "-c", "write -P 1 0 64k", "-c", "write -P 2 80k 16k", "disk.qcow2"];
    maker().io().folder(scratch.path()).args(words).must();
    let bytes = std::fs::read(scratch.path().join("disk.qcow2")).unwrap();
    let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
    let l1 = usize::try_from(number(40)).unwrap();
    let l2 = usize::try_from(number(l1) & 0x00ff_ffff_ffff_fe00).unwrap();
    (bytes, l1, l2)
}

/// What is told before the first error, and the error.
fn walked(bytes: Vec<u8>) -> (u64, Option<Error>) {
    let io = MemIo::new(bytes);
    let chain = Chain::single(opened(&io));
    let mut walk = Walk::new(&chain, &io, 0, chain.size());
    loop {
        match walk.peek() {
            Ok(Some((len, _))) => walk.advance(len),
            Ok(None) => return (walk.at(), None),
            Err(error) => return (walk.at(), Some(error)),
        }
    }
}

#[test]
fn what_no_table_may_say_is_refused_where_it_stands() {
    let unaligned = "Cluster allocation offset {} unaligned (L2 offset: {}, L2 index: {})";
    let invalid = "Invalid cluster entry found (L2 offset: {}, L2 index: {})";
    let pre_v3 = "Zero cluster entry found in pre-v3 image (L2 offset: {}, L2 index: {})";
    let place = 0x8000_0000_0000_8000u64;
    for (extended, version, entry, bits, phrase) in [
        (false, 3, place + 512, 0, Some(unaligned)),
        (false, 3, place + 512 + 1, 0, Some(unaligned)),
        (false, 3, place | 0x3f << 56 | 0x1fe, 0, None),
        (false, 3, 1 << 63, 0, None),
        (false, 3, 1, 0, None),
        (false, 2, place + 1, 0, Some(pre_v3)),
        (false, 2, 1, 0, Some(pre_v3)),
        (true, 3, place + 1, 0xff, None),
        (true, 3, place, 1 << 35 | 1 << 3, Some(invalid)),
        (true, 3, place, 1 << 63 | 1 << 31, Some(invalid)),
        (true, 3, 0, 1 << 7, Some(invalid)),
        (true, 3, 1 << 63, 1 << 7, Some(invalid)),
        (true, 3, 0, 0xffff_ffff << 32, None),
        (true, 3, place + 512, 0, Some(unaligned)),
    ] {
        let (bytes, _, l2) = sample(extended, version);
        let (width, cluster_len) = if extended { (16, 16 << 10) } else { (8, 4 << 10) };
        let bytes = patched(&bytes, l2 + 2 * width, &entry.to_be_bytes());
        let bytes = if extended { patched(&bytes, l2 + 2 * width + 8, &u64::to_be_bytes(bits)) } else { bytes };
        let (at, error) = walked(bytes);
        let told = error.as_ref().map(|error| (core::str::from_utf8(&error.what.0).unwrap(), error.at));
        assert_eq!(told, phrase.map(|phrase| (phrase, Some((l2 + 2 * width) as u64))), "{entry:x} {bits:x}");
        assert_eq!(at, if phrase.is_some() { 2 * cluster_len } else { 1 << 20 });
        assert!(error.is_none_or(|error| error.kind == Kind::Corrupt));
    }
    let (bytes, l1, l2) = sample(false, 3);
    let (at, error) = walked(patched(&bytes, l1, &(l2 as u64 + 512).to_be_bytes()));
    let error = error.unwrap();
    assert_eq!((at, error.at), (0, Some(l1 as u64)));
    assert_eq!(error.what.0, b"L2 table offset {} unaligned (L1 index: {})");
    assert_eq!(walked(patched(&bytes, l1, &(1u64 << 40).to_be_bytes())), (1 << 20, None));
}

#[test]
fn no_table_makes_it_panic() {
    for extended in [false, true] {
        let (bytes, l1, l2) = sample(extended, 3);
        let mut noise = Noise::new(5);
        for _ in 0..400 {
            let mut bytes = bytes.clone();
            for _ in 0..=noise.below(4) {
                let at = [l1, l2 + 8 * noise.below(16) as usize, 4096][noise.below(3) as usize];
                let value = noise.next() >> noise.below(64) << noise.below(20);
                bytes = patched(&bytes, at, &value.to_be_bytes());
            }
            bytes.truncate(bytes.len() - [0, 0, 1, 5000, 40_000][noise.below(5) as usize]);
            twin::survives(&Qcow2, &MemIo::new(bytes), 1 << 20);
        }
    }
}
