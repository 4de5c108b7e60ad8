//! LUKS containers, alone and inside qcow2: every cipher, mode and hash that a header can name.

use super::patch::{be, extension};
use super::{Kitchen, Recipe};
use crate::oracle::maker;
use std::sync::OnceLock;

/// The cipher's name, the mode's, the hash's.
const CIPHER_AT: u64 = 8;
const MODE_AT: u64 = 40;
const HASH_AT: u64 = 72;
const KEY_BYTES_AT: u64 = 108;
const UUID_AT: u64 = 168;
const SLOTS_AT: u64 = 208;
const SLOT_LEN: u64 = 48;
const ACTIVE: u32 = 0x00ac_71f3;

/// All of them.
pub fn recipes() -> Vec<Recipe> {
    let mut all = named();
    all.extend(slots());
    all.extend(real());
    all
}

/// A container; deriving its keys takes seconds, so one is made and the others are copies with other words in them.
fn header(kitchen: &Kitchen<'_>) -> Result<Vec<u8>, String> {
    static HEADER: OnceLock<Result<Vec<u8>, String>> = OnceLock::new();
    let made = HEADER.get_or_init(|| {
        kitchen.create("-f luks -o key-secret=sec0,iter-time=10 first.luks 1M")?;
        std::fs::read(kitchen.path("first.luks")).map_err(|e| format!("{}: {e}", maker().version))
    });
    made.clone()
}

fn patched(id: String, patches: Vec<(u64, Vec<u8>)>) -> Recipe {
    Recipe::new(id, "luks", "disk.luks", move |kitchen| {
        kitchen.file(kitchen.name, &header(kitchen)?)?;
        patches.iter().try_for_each(|(at, bytes)| kitchen.patch(*at, bytes))
    })
}

fn word(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(32, 0);
    bytes
}

/// Names of algorithms, known and unknown.
fn named() -> Vec<Recipe> {
    let mut all = Vec::new();
    for (cipher, keys) in [
        ("aes", &[16u32, 24, 32, 48, 64][..]),
        ("twofish", &[16, 32, 64]),
        ("serpent", &[16, 32, 64]),
        ("cast5", &[16, 32]),
        ("sm4", &[16, 32]),
        ("des3_ede", &[24]),
    ] {
        for key in keys {
            for mode in ["xts-plain64", "cbc-plain64"] {
                let patches =
                    vec![(CIPHER_AT, word(cipher)), (MODE_AT, word(mode)), (KEY_BYTES_AT, key.to_be_bytes().to_vec())];
                all.push(patched(format!("luks {cipher} {mode} with keys of {key}"), patches));
            }
        }
    }
    for mode in
        ["ctr-plain64", "ecb-plain", "xts-plain", "cbc-plain", "cbc-essiv:sha256", "cbc-essiv:sha1", "xts-essiv:sha512"]
    {
        let key = if mode.starts_with("xts") { 64u32 } else { 32 };
        let patches = vec![(MODE_AT, word(mode)), (KEY_BYTES_AT, key.to_be_bytes().to_vec())];
        all.push(patched(format!("luks {mode}"), patches));
    }
    for hash in ["md5", "sha1", "sha224", "sha256", "sha384", "sha512", "ripemd160", "sm3", "whirlpool"] {
        all.push(patched(format!("luks {hash}"), vec![(HASH_AT, word(hash))]));
    }
    for (what, uuid) in
        [("newline", &b"a\nb\0"[..]), ("invalid UTF-8", b"\xff\xfe\x80\0"), ("nothing", b"\0"), ("all", &[b'u'; 40])]
    {
        all.push(patched(format!("luks with a uuid of {what}"), vec![(UUID_AT, uuid.to_vec())]));
    }
    all
}

/// Key slots in use.
fn slots() -> Vec<Recipe> {
    let mut all = Vec::new();
    for used in [0u8, 0b11, 0b1000_0001, 0b1111_1111] {
        let slot = |n: u64| {
            let state = if used >> n & 1 == 1 { ACTIVE } else { 0x0000_dead };
            let iterations = 1000 + n as u32;
            (SLOTS_AT + n * SLOT_LEN, [state.to_be_bytes(), iterations.to_be_bytes()].concat())
        };
        all.push(patched(format!("luks with slots {used:08b}"), (0..8).map(slot).collect()));
    }
    all
}

/// Some that the tool makes from beginning to end.
fn real() -> Vec<Recipe> {
    let mut all = Vec::new();
    for more in ["", ",cipher-alg=twofish-256,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256,hash-alg=sha512"] {
        let line = format!("-f luks -o key-secret=sec0,iter-time=10{more} @ 1000k");
        all.push(Recipe::create(format!("luks made with {more:?}"), "luks", line));
    }
    let options = "encrypt.format=luks,encrypt.key-secret=sec0,encrypt.iter-time=10,encrypt.hash-alg=sha1";
    all.push(Recipe::create("qcow2 with luks", "qcow2", format!("-f qcow2 -o {options} @ 1M")));
    all.push(Recipe::new("qcow2 with luks of other words", "qcow2", "disk.qcow2", move |kitchen| {
        kitchen.create(&format!("-f qcow2 -o {options},cluster_size=4k @ 1M"))?;
        let path = kitchen.path(kitchen.name);
        let inner = be(&path, extension(&path, 0x0537_be77)?.at, 8)?;
        kitchen.patch(inner + HASH_AT, &word("sha512"))?;
        kitchen.patch(inner + MODE_AT, &word("xts-plain"))
    }));
    for format in ["qcow", "qcow2"] {
        let line = format!("-f {format} -o encrypt.format=aes,encrypt.key-secret=sec0 @ 1M");
        all.push(Recipe::create(format!("{format} with aes"), format, line));
    }
    all.push(
        Recipe::new("luks with a detached header", "luks", "disk.luks", |kitchen| {
            let newer = kitchen.with("11.1.3").or_else(|_| kitchen.with("10.0.13"))?;
            newer.create("-f luks -o detached-header=on,key-secret=sec0,iter-time=10 @")
        })
        .perhaps(),
    );
    all
}
