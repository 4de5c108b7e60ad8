//! Published test vectors, and every suite against itself.

use crate::argon2::{Cost, Limit, Refused, Variant};
use crate::cipher::{SECTOR_MAX, Suite, UNIT, keyed};
use crate::hash::Hash;
use crate::modes::{self, Vector};
use crate::{af, argon2, base64, pbkdf2};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes().chunks(2).map(|p| u8::from_str_radix(str::from_utf8(p).unwrap(), 16).unwrap()).collect()
}

fn hash(name: &str) -> &'static Hash {
    Hash::by_name(name.as_bytes()).unwrap()
}

#[test]
fn hashes_yield_what_their_standards_print() {
    for (name, of_abc) in [
        ("md5", "900150983cd24fb0d6963f7d28e17f72"),
        ("sha1", "a9993e364706816aba3e25717850c26c9cd0d89d"),
        ("sha224", "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7"),
        ("sha256", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        ("ripemd160", "8eb208f7e05d987a9b044a8e98c6b087f15a0bfc"),
        ("sm3", "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"),
    ] {
        assert_eq!(hex(&hash(name).digest(&[b"a", b"bc"])), of_abc);
        assert_eq!(hash(name).len * 2, of_abc.len());
    }
    for (name, start) in
        [("sha384", "cb00753f45a35e8b"), ("sha512", "ddaf35a193617aba"), ("whirlpool", "4e2448a4c6f486bb")]
    {
        assert!(hex(&hash(name).digest(&[b"abc"])).starts_with(start), "{name}");
    }
    assert!(Hash::by_name(b"sha3").is_none());
}

#[test]
fn pbkdf2_follows_rfc_6070_and_rfc_7914() {
    let derived = |name: &str, password: &[u8], salt: &[u8], iterations: u32, len: usize| {
        let mut key = vec![0; len];
        pbkdf2::derive(hash(name), password, salt, iterations, &mut key);
        hex(&key)
    };
    assert_eq!(derived("sha1", b"password", b"salt", 1, 20), "0c60c80f961f0e71f3a9b524af6012062fe037a6");
    assert_eq!(derived("sha1", b"password", b"salt", 2, 20), "ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957");
    assert_eq!(derived("sha1", b"password", b"salt", 4096, 20), "4b007901b765489abead49d926f721d065a429c1");
    assert_eq!(derived("sha1", b"pass\0word", b"sa\0lt", 4096, 16), "56fa6aa75548099dcc37d7f03425e0c3");
    let long = derived("sha1", b"passwordPASSWORDpassword", b"saltSALTsaltSALTsaltSALTsaltSALTsalt", 4096, 25);
    assert_eq!(long, "3d2eec4fe41c849b80c8d83662c0e44a8b291a964cf2f07038");
    let start = "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc";
    assert!(derived("sha256", b"passwd", b"salt", 1, 64).starts_with(start));
}

const LIMIT: Limit = Limit { memory_kib: 64 << 10, steps: 1 << 20 };

fn argon(variant: Variant, lanes: u32) -> String {
    let mut key = [0; 32];
    let cost = Cost { passes: 2, memory_kib: 256, lanes };
    argon2::derive(variant, cost, LIMIT, b"password", b"somesalt", &mut key).unwrap();
    hex(&key)
}

/// The vectors of the reference implementation; those of RFC 9106 have a secret and associated data besides.
#[test]
fn argon2_yields_what_the_reference_does() {
    assert_eq!(argon(Variant::I, 1), "89e9029f4637b295beb027056a7336c414fadd43f6b208645281cb214a56452f");
    assert_eq!(argon(Variant::I, 2), "4ff5ce2769a1d7f4c8a491df09d41a9fbe90e5eb02155a13e4c01e20cd4eab61");
    assert_eq!(argon(Variant::Id, 1), "9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe");
    assert_eq!(argon(Variant::Id, 2), "6d093c501fd5999645e0ea3bf620d7b8be7fd2db59c20d9fff9539da2bf57037");
}

#[test]
fn argon2_costs_no_more_than_the_limit() {
    let refused = |passes: u32, memory_kib: u32, lanes: u32, salt: &[u8]| {
        argon2::derive(Variant::Id, Cost { passes, memory_kib, lanes }, LIMIT, b"p", salt, &mut [0; 64]).unwrap_err()
    };
    let salt = &[0; 32];
    assert_eq!(refused(1, (64 << 10) + 1, 1, salt), Refused::Memory);
    assert_eq!(refused(17, 64 << 10, 1, salt), Refused::Work);
    assert_eq!(refused(u32::MAX, u32::MAX, 1, salt), Refused::Memory);
    for (passes, memory, lanes) in [(0, 32, 1), (1, 0, 1), (1, 32, 0), (1, 32, 5), (1, 32, u32::MAX)] {
        assert_eq!(refused(passes, memory, lanes, salt), Refused::Senseless);
    }
    assert_eq!(refused(1, 32, 1, b"short"), Refused::Senseless);
    // More than any address space holds, should a caller allow it.
    let boundless = Limit { memory_kib: u32::MAX, steps: u64::MAX };
    let cost = Cost { passes: 0, memory_kib: u32::MAX, lanes: 1 };
    assert_eq!(argon2::derive(Variant::I, cost, boundless, b"", salt, &mut [0; 32]), Err(Refused::Senseless));
}

fn encrypted(spec: &[u8], key: &str, first: u64, plain: &[u8]) -> Vec<u8> {
    let mut bytes = plain.to_vec();
    Suite::parse(spec).unwrap().keyed(&unhex(key), UNIT).unwrap().encrypt(first, &mut bytes);
    bytes
}

#[test]
fn xts_follows_ieee_1619() {
    let first = encrypted(b"aes-xts-plain64", &"00".repeat(32), 0, &[0; 512]);
    assert_eq!(hex(&first[..32]), "917cf69ebd68b2ec9b9fe9a3eadda692cd43d2f59598ed858c02c2652fbf922e");
    let counting: Vec<u8> = (0..=255).chain(0..=255).collect();
    let key = "2718281828459045235360287471352631415926535897932384626433832795";
    let fourth = encrypted(b"aes-xts-plain64", key, 0, &counting);
    assert_eq!(hex(&fourth[..32]), "27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c");
    let key = "27182818284590452353602874713526624977572470936999595749669676273141592653589793238462643383279502884197169399375105820974944592";
    let tenth = encrypted(b"aes-xts-plain64", key, 0xff, &counting);
    assert_eq!(hex(&tenth[..32]), "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b");
}

/// NIST SP 800-38A, appendix F, for AES-128.
#[test]
fn cbc_and_ctr_follow_nist() {
    let plain = unhex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51");
    let blocks = keyed::<aes::Aes128>(&unhex("2b7e151628aed2a6abf7158809cf4f3c")).unwrap();
    let vector: Vector = core::array::from_fn(|n| n as u8);
    let mut bytes = plain.clone();
    modes::cbc_encrypt(&*blocks, 16, vector, &mut bytes);
    assert_eq!(hex(&bytes), "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2");
    modes::cbc_decrypt(&*blocks, 16, vector, &mut bytes);
    assert_eq!(bytes, plain);
    let counter: Vector = core::array::from_fn(|n| 0xf0 + n as u8);
    modes::ctr(&*blocks, 16, counter, &mut bytes);
    assert_eq!(hex(&bytes), "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff");
}

/// The vectors of the paper that describes it.
#[test]
fn twofish_follows_its_paper() {
    let (half, whole) = ("0123456789abcdeffedcba9876543210", "00112233445566778899aabbccddeeff");
    for (key, expected) in [
        ("0".repeat(32), "9f589f5cf6122c32b6bfec2f2ae8c35a"),
        (format!("{half}{}", &whole[..16]), "cfd1d2e5a9be9cdf501f13b892bd2248"),
        (format!("{half}{whole}"), "37527be0052334b89f0cfccae87cfa20"),
    ] {
        assert_eq!(hex(&encrypted(b"twofish-ecb", &key, 0, &[0; 512])[..16]), expected);
    }
}

#[test]
fn every_suite_undoes_itself_sector_by_sector() {
    let plain: Vec<u8> = (0..2 * SECTOR_MAX).map(|n| (n * 7 % 251) as u8).collect();
    let mut suites = 0;
    for cipher in ["aes", "serpent", "twofish", "cast5", "sm4"] {
        for mode in ["ecb", "cbc", "ctr", "xts"] {
            for generator in ["plain", "plain64", "essiv:sha256", "essiv:md5"] {
                let Some(suite) = Suite::parse(format!("{cipher}-{mode}-{generator}").as_bytes()) else {
                    assert_eq!((cipher, mode), ("cast5", "xts"));
                    continue;
                };
                for key_len in [0usize, 8, 16, 24, 32, 48, 64] {
                    let key: Vec<u8> = (0..key_len).map(|n| n as u8).collect();
                    for sector_len in [512, 4096] {
                        let Some(sectors) = suite.keyed(&key, sector_len) else { continue };
                        suites += 1;
                        let mut whole = plain.clone();
                        sectors.encrypt(1 << 33, &mut whole);
                        let mut alone = plain[sector_len..2 * sector_len].to_vec();
                        sectors.encrypt((1 << 33) + (sector_len / UNIT) as u64, &mut alone);
                        assert_eq!(whole[sector_len..2 * sector_len], alone);
                        assert_ne!(whole[..512], plain[..512]);
                        sectors.decrypt(1 << 33, &mut whole);
                        assert!(whole == plain, "{cipher}-{mode}-{generator} {key_len}");
                    }
                }
            }
        }
    }
    // Three ciphers with three lengths of key, of which XTS takes two; SM4 and CAST5 have one, and no use for SHA-256.
    assert_eq!(suites, 2 * (3 * (3 * 3 * 4 + 3 * 4) + 4 * 3 + 3 * 3));
}

#[test]
fn unknown_names_and_lengths_are_refused() {
    for spec in
        ["", "aes", "aes-xts", "aes-cbc-", "aes-cbc-essiv", "aes-cbc-essiv:sha3", "des-cbc-plain", "cast5-xts-plain"]
    {
        assert!(Suite::parse(spec.as_bytes()).is_none(), "{spec}");
    }
    assert!(Suite::parse(b"aes-ecb").is_some());
    let suite = Suite::parse(b"aes-xts-plain64").unwrap();
    for (key_len, sector_len) in [(0, 512), (16, 512), (33, 512), (64, 0), (64, 511), (64, 8192)] {
        assert!(suite.keyed(&vec![0; key_len], sector_len).is_none());
    }
    // ESSIV with a hash that is no key of the cipher's.
    assert!(Suite::parse(b"aes-cbc-essiv:sha1").unwrap().keyed(&[0; 16], 512).is_none());
}

#[test]
fn split_keys_merge_again() {
    for name in ["sha1", "sha256", "sha512", "ripemd160"] {
        for key_len in [16, 24, 32, 64] {
            let key: Vec<u8> = (0..key_len).map(|n| n as u8 ^ 0x5a).collect();
            let mut material: Vec<u8> = (0..key_len * 40).map(|n| (n * n % 251) as u8).collect();
            af::split(hash(name), &key, &mut material);
            assert_eq!(af::merge(hash(name), &material, key_len), key);
            material[17] ^= 1;
            assert_ne!(af::merge(hash(name), &material, key_len), key);
        }
    }
    assert_eq!(af::merge(hash("sha1"), &[], 4), [0; 4]);
    assert_eq!(af::merge(hash("sha1"), &[1, 2], 0), []);
}

#[test]
fn base64_is_read() {
    assert_eq!(base64::decode(b"aGVsbG8="), Some(b"hello".to_vec()));
    assert_eq!(base64::decode(b""), Some(Vec::new()));
    for text in ["aGVsbG8", "aGVs bG8=", "=", "%%%%"] {
        assert_eq!(base64::decode(text.as_bytes()), None);
    }
}
