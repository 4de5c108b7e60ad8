//! Where qcow says that bytes are: images of every kind, held against what qemu-img reads and tells.

use super::Qcow;
use crate::raw::Raw;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use instar_testkit::build::mutate::{Noise, patched};
use instar_testkit::mem::MemIo;
use instar_testkit::oracle::maker;
use instar_testkit::place::Scratch;
use instar_testkit::twin;
use std::path::Path;

extern crate std;

const KEY: (&str, &str) = ("encrypt.key-secret", "geheim");

/// What a guest does to an image through qemu-io; in qcow nothing can be discarded.
fn scribble(folder: &Path, name: &str, size: u64, seed: u64, packed: bool, sealed: bool) {
    let mut noise = Noise::new(seed);
    let mut words: Vec<String> = Vec::new();
    for _ in 0..30 {
        let at = noise.below(size / 512) * 512;
        let len = ((1 + noise.below(40)) * 512).min(size - at);
        let byte = 1 + noise.below(255);
        let cluster = at / 4096 * 4096;
        words.push("-c".into());
        words.push(match noise.below(4) {
            0 if packed && cluster + 4096 <= size => format!("write -c -P {byte} {cluster} 4k"),
            _ => format!("write -P {byte} {at} {len}"),
        });
    }
    if sealed {
        words.extend(["--object", "secret,id=key,data=geheim", "--image-opts"].map(String::from));
        words.push(format!("driver=qcow,{}=key,file.filename={name}", KEY.0));
    } else {
        words.extend(["-f".into(), "qcow".into(), name.into()]);
    }
    let ran = maker().io().folder(folder).args(words).go();
    assert!(packed || ran.code() == Some(0), "{}", ran.err());
}

#[test]
fn clusters_of_any_size() {
    let scratch = Scratch::new("qcow-map");
    for (seed, size) in [(1, 512u64), (2, 1 << 20), (3, 5_000_192), (4, 16 << 20)] {
        twin::create(scratch.path(), &format!("-f qcow disk.qcow {size}"));
        scribble(scratch.path(), "disk.qcow", size, seed, false, false);
        twin::agreed(scratch.path(), "disk.qcow", &[&Qcow], seed);
    }
}

#[test]
fn compressed_clusters() {
    let scratch = Scratch::new("qcow-map");
    for (seed, size) in [(5, 1 << 20), (6, 5_000_192)] {
        twin::create(scratch.path(), &format!("-f qcow disk.qcow {size}"));
        scribble(scratch.path(), "disk.qcow", size, seed, true, false);
        twin::agreed(scratch.path(), "disk.qcow", &[&Qcow], seed);
    }
}

#[test]
fn encrypted_clusters() {
    let scratch = Scratch::new("qcow-map");
    for (seed, packed) in [(7, false), (8, true)] {
        let object = ["create", "-q", "--object", "secret,id=key,data=geheim", "-f", "qcow"];
        let options = ["-o", "encrypt.format=aes,encrypt.key-secret=key", "disk.qcow", "1500k"];
        maker().img().folder(scratch.path()).args(object).args(options).must();
        scribble(scratch.path(), "disk.qcow", 1500 << 10, seed, packed, true);
        twin::agree_sealed(scratch.path(), "disk.qcow", &Qcow, KEY, seed);
    }
}

/// With a backing file, clusters are sectors.
#[test]
fn backing_files() {
    let scratch = Scratch::new("qcow-map");
    scratch.put("base.raw", vec![7; 300 << 10]);
    twin::create(scratch.path(), "-f qcow -b base.raw -F raw mid.qcow 500k");
    scribble(scratch.path(), "mid.qcow", 500 << 10, 9, false, false);
    twin::agreed(scratch.path(), "mid.qcow", &[&Qcow, &Raw], 9);
    twin::create(scratch.path(), "-f qcow -b mid.qcow -F qcow top.qcow 800k");
    scribble(scratch.path(), "top.qcow", 800 << 10, 10, false, false);
    twin::agreed(scratch.path(), "top.qcow", &[&Qcow, &Qcow, &Raw], 10);
}

#[test]
fn no_table_makes_it_panic() {
    let scratch = Scratch::new("qcow-map");
    twin::create(scratch.path(), "-f qcow disk.qcow 3M");
    scribble(scratch.path(), "disk.qcow", 3 << 20, 11, true, false);
    let bytes = std::fs::read(scratch.path().join("disk.qcow")).unwrap();
    let mut noise = Noise::new(5);
    for _ in 0..400 {
        let mut bytes = bytes.clone();
        for _ in 0..=noise.below(4) {
            let at = [48, 4096 + 8 * noise.below(512) as usize][noise.below(2) as usize];
            let value = noise.next() >> noise.below(64) << noise.below(20);
            bytes = patched(&bytes, at, &value.to_be_bytes());
        }
        bytes.truncate(bytes.len() - [0, 0, 1, 5000, 40_000][noise.below(5) as usize]);
        twin::survives(&Qcow, &MemIo::new(bytes), 1 << 20);
    }
}
