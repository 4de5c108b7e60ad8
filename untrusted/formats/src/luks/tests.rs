//! LUKS containers: what is told of both versions, and what is refused with which words.

use super::Luks;
use super::json::Json;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use instar_image::probe::Claim;
use instar_image::{Fact, File, Format, Options, info};
use instar_testkit::build::luks2;
use instar_testkit::build::mutate::{patched, storm};
use instar_testkit::mem::MemIo;

/// Offset of a field in a key slot.
const fn slot(index: usize, field: usize) -> usize {
    208 + 48 * index + field
}

/// A header of version 1, with the first slot in use and one sector of payload.
fn good() -> Vec<u8> {
    let mut bytes = vec![0; 4040 * 512 + 512];
    let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
    put(0, b"LUKS\xba\xbe\0\x01aes");
    put(40, b"xts-plain64");
    put(72, b"sha256");
    put(104, &4040u32.to_be_bytes());
    put(108, &64u32.to_be_bytes());
    put(164, &1000u32.to_be_bytes());
    put(168, b"01234567-89ab-cdef-0123-456789abcdef");
    for index in 0..8 {
        put(slot(index, 0), &0xDEADu32.to_be_bytes());
        put(slot(index, 40), &(8 + 504 * index as u32).to_be_bytes());
        put(slot(index, 44), &4000u32.to_be_bytes());
    }
    put(slot(0, 0), &0x00AC_71F3u32.to_be_bytes());
    put(slot(0, 4), &2000u32.to_be_bytes());
    bytes
}

fn told_in(as_qemu: bool, bytes: Vec<u8>) -> Result<info::Image, String> {
    let io = MemIo::new(bytes);
    let _ = Luks.probe(&File::new(&io, &io.top())).unwrap();
    let opened = Luks.open(File::new(&io, &io.top()), &Options { as_qemu, ..Options::default() });
    match opened {
        Ok(image) => Ok(image.describe(true).unwrap()),
        Err(error) => Err(String::from_utf8(error.what.0).unwrap()),
    }
}

fn told(bytes: Vec<u8>) -> Result<info::Image, String> {
    told_in(false, bytes)
}

fn specific(image: &info::Image, name: &str) -> Fact {
    image.specific.as_ref().unwrap().get(name).unwrap().clone()
}

#[test]
fn version_1_is_told() {
    let image = told(good()).unwrap();
    assert_eq!((image.virtual_size, image.encrypted), (512, true));
    assert_eq!(specific(&image, "cipher-alg"), "aes-256".into());
    assert_eq!(specific(&image, "payload-offset"), (4040u64 * 512).into());
    let Fact::List(slots) = specific(&image, "slots") else { panic!() };
    assert_eq!(slots.len(), 8);
    assert_eq!(slots[0].get("iters"), Some(&2000u64.into()));
    assert_eq!(slots[1].get("iters"), None);
    assert_eq!(image.specific.unwrap().get("ivgen-hash-alg"), None);
}

#[test]
fn refusals_use_the_oracles_words() {
    let cases: &[(usize, &[u8], &str)] = &[
        (0, b"LUKZ", "Volume is not in LUKS format"),
        (6, &[0, 3], "LUKS version {} is not supported"),
        (8, &[b'a'; 32], "LUKS header cipher name is not NUL terminated"),
        (40, &[b'a'; 32], "LUKS header cipher mode is not NUL terminated"),
        (72, &[b'a'; 32], "LUKS header hash spec is not NUL terminated"),
        (104, &[0, 0, 0, 7], "LUKS payload is overlapping with the header"),
        (164, &[0; 4], "LUKS key iteration count is zero"),
        (slot(0, 44), &[0; 4], "Keyslot {} is corrupted (stripes {} != 4000)"),
        (slot(3, 0), &[0; 4], "Keyslot {} state (active/disable) is corrupted"),
        (slot(0, 4), &[0; 4], "Keyslot {} iteration count is zero"),
        (slot(0, 40), &[0, 0, 0, 7], "Keyslot {} is overlapping with the LUKS header"),
        (104, &[0, 0, 15, 199], "Keyslot {} is overlapping with the encrypted payload"),
        (slot(1, 40), &[0, 0, 1, 0], "Keyslots {} and {} are overlapping in the header"),
        (40, b"xts\0", "Unexpected cipher mode string format '{}'"),
        (40, b"cbc-essiv:nosuch\0", "Hash algorithm '{}' not supported"),
        (40, b"xtx-plain\0", "Cipher mode '{}' not supported"),
        (8, b"nosuch\0", "Algorithm '{}' with key size {} bytes not supported"),
        (72, b"nosuch\0", "Hash algorithm '{}' not supported"),
        (40, b"xts-nosuch\0", "IV generator '{}' not supported"),
        (40, b"xts-essiv\0", "Missing IV generator hash specification"),
        (40, b"xts-essiv:sha1\0", "No AES cipher with key size {} available"),
    ];
    for (at, bytes, phrase) in cases {
        assert_eq!(told(patched(&good(), *at, bytes)).unwrap_err(), *phrase);
    }
    let cast = patched(&patched(&good(), 8, b"cast5\0"), 40, b"xts-essiv:sha256\0");
    let cast = patched(&cast, 108, &32u32.to_be_bytes());
    assert_eq!(told(cast.clone()).unwrap_err(), "Cipher {} not supported with essiv");
    assert!(told(patched(&cast, 40, b"xts-essiv:md5\0")).is_ok());
    let short = good()[..592].to_vec();
    assert_eq!(told(short).unwrap_err(), "Could not refresh total sector count: Input/output error");
}

#[test]
fn version_2_is_for_us_alone() {
    let io = MemIo::new(luks2::usual());
    assert_eq!(Luks.probe(&File::new(&io, &io.top())).unwrap(), Claim::Quiet);
    assert_eq!(told_in(true, luks2::usual()).unwrap_err(), "LUKS version {} is not supported");
}

#[test]
fn version_2_is_told() {
    let image = told(luks2::usual()).unwrap();
    assert_eq!(image.virtual_size, 1 << 20);
    for (name, value) in [("label", "the label"), ("encryption", "aes-xts-plain64"), ("header-copy", "primary")] {
        assert_eq!(specific(&image, name), value.into());
    }
    assert_eq!(specific(&image, "sector-size"), 4096u64.into());
    assert_eq!(specific(&image, "key-size"), 64u64.into());
    let Fact::List(slots) = specific(&image, "slots") else { panic!() };
    let kdf = |index: usize, name: &str| slots[index].get("kdf").unwrap().get(name).cloned();
    assert_eq!(kdf(0, "memory"), Some(1048576u64.into()));
    assert_eq!(kdf(1, "iterations"), Some(1774240u64.into()));
    assert_eq!(slots[1].get("id"), Some(&"10".into()));
}

#[test]
fn second_copy_stands_in_for_the_first() {
    let broken = patched(&luks2::usual(), 4096, b"!");
    assert_eq!(specific(&told(broken.clone()).unwrap(), "header-copy"), "secondary".into());
    assert!(told(patched(&broken, 16 << 10, b"XXXX")).is_err());
}

#[test]
fn text_may_be_as_long_as_the_header_and_no_deeper_than_16() {
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(Json::parse(deep(16).as_bytes()).is_some());
    assert!(Json::parse(deep(18).as_bytes()).is_none());
    let bomb = luks2::container(2 << 20, 1 << 20, &"[".repeat(900_000));
    assert!(told(bomb).is_err());
    let long = luks2::TEXT.replace("{}", &format!("{{}}{}", " ".repeat(500_000)));
    assert!(told(luks2::container(4 << 20, 1 << 20, &long)).is_ok());
    let many = format!("[{}0]", "0,".repeat(70_000));
    assert!(Json::parse(many.as_bytes()).is_none());
}

#[test]
fn json_knows_its_grammar() {
    for text in ["", "{", "{]", "[1 2]", "{\"a\" 1}", "{\"a\":1,}", "\"a", "\"\\x\"", "tru", "1 1", "\"\\u12\""] {
        assert!(Json::parse(text.as_bytes()).is_none(), "{text}");
    }
    let value = Json::parse(br#" { "a" : [ 1 , null, true, "x\n\u00e9\"" ] , "b":"12"} "#).unwrap();
    assert_eq!(value.get("a").unwrap().elements()[3].text().unwrap(), "x\né\"".as_bytes());
    assert_eq!(value.get("b").unwrap().count(), Some(12));
}

#[test]
fn no_header_makes_it_panic() {
    let small = good()[..1024].to_vec();
    storm(&small, 592, |bytes| {
        let _ = told(bytes);
    });
    storm(&luks2::usual()[..40960], 512, |bytes| {
        let _ = told(bytes);
    });
    let text = luks2::usual()[4096..6144].to_vec();
    storm(&text, 1800, |bytes| {
        let _ = Json::parse(&bytes);
    });
}
