//! Unlocking: containers that were locked here are opened again, and what must not open does not.

use super::super::Luks;
use super::*;
use alloc::format;
use alloc::string::ToString;
use instar_image::{Format, Options};
use instar_testkit::build::luks2::{TEXT, container};
use instar_testkit::build::mutate::{noise, patched};
use instar_testkit::mem::MemIo;

const MASTER: [u8; 32] = *b"master key of thirty-two bytes..";
/// What opens the containers below.
pub const PASSWORD: &[u8] = b"open";
/// Where the payload begins in the containers below.
const PAYLOAD: usize = 256 << 10;

/// `MASTER`, split and encrypted under a key.
fn material(hash: &Hash, spec: &[u8], key: &[u8]) -> Vec<u8> {
    let mut material: Vec<u8> = (0..32u32 * 4000).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
    af::split(hash, &MASTER, &mut material);
    Suite::parse(spec).unwrap().keyed(key, 512).unwrap().encrypt(0, &mut material);
    material
}

fn derived(hash: &Hash, password: &[u8], salt: &[u8], iterations: u32, len: usize) -> Vec<u8> {
    let mut key = vec![0; len];
    pbkdf2::derive(hash, password, salt, iterations, &mut key);
    key
}

/// A container's bytes: a header, key material at 4 KiB or 32 KiB, an encrypted payload of 8 KiB.
fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

fn payload(spec: &[u8], sector_len: usize, first: u64, start: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 8192];
    put(&mut bytes, 0, start);
    bytes[510..512].copy_from_slice(if start.is_empty() { &[0; 2] } else { b"\x55\xaa" });
    Suite::parse(spec).unwrap().keyed(&MASTER, sector_len).unwrap().encrypt(first, &mut bytes);
    bytes
}

/// Version 1, locked in slot 2 with `aes-cbc-essiv:sha256`.
fn one(start: &[u8]) -> Vec<u8> {
    let (sha1, spec) = (Hash::by_name(b"sha1").unwrap(), b"aes-cbc-essiv:sha256");
    let mut file = vec![0; 8 * 512 * 256 + PAYLOAD * 4];
    let at = file.len() - 8192;
    put(&mut file, 0, b"LUKS\xba\xbe\0\x01aes");
    put(&mut file, 40, b"cbc-essiv:sha256");
    put(&mut file, 72, b"sha1");
    put(&mut file, 104, &u32::try_from(at / 512).unwrap().to_be_bytes());
    put(&mut file, 108, &32u32.to_be_bytes());
    put(&mut file, 112, &derived(sha1, &MASTER, &[7; 32], 5, 20));
    put(&mut file, 132, &[7; 32]);
    put(&mut file, 164, &5u32.to_be_bytes());
    for index in 0..8u32 {
        let slot = 208 + 48 * index as usize;
        let active: u32 = if index == 2 { 0x00AC_71F3 } else { 0xDEAD };
        put(&mut file, slot, &active.to_be_bytes());
        put(&mut file, slot + 4, &3u32.to_be_bytes());
        put(&mut file, slot + 8, &[9; 32]);
        put(&mut file, slot + 40, &(8 + 256 * index).to_be_bytes());
        put(&mut file, slot + 44, &4000u32.to_be_bytes());
    }
    let key = derived(sha1, PASSWORD, &[9; 32], 3, 32);
    put(&mut file, (8 + 512) * 512, &material(sha1, spec, &key));
    put(&mut file, at, &payload(spec, 512, 0, start));
    file
}

const SALT: &str = "CQkJCQkJCQkJCQkJCQkJCQ==";

/// The text of a container of version 2: slots by their derivations, all of which share one area.
fn text_of(kdfs: &[&str]) -> String {
    let sha256 = Hash::by_name(b"sha256").unwrap();
    let slot = |(id, kdf): (usize, &&str)| {
        format!(
            r#""{id}":{{"type":"luks2","key_size":32,"af":{{"type":"luks1","stripes":4000,"hash":"sha256"}},
            "area":{{"type":"raw","offset":"32768","size":"131072","encryption":"aes-xts-plain64","key_size":64}},
            "kdf":{{{kdf},"salt":"{SALT}"}}}}"#
        )
    };
    let slots: Vec<String> = kdfs.iter().enumerate().map(slot).collect();
    let ids: Vec<String> = (0..kdfs.len()).map(|id| format!("\"{id}\"")).collect();
    format!(
        r#"{{"keyslots":{{{}}},"segments":{{"0":{{"type":"crypt","offset":"{PAYLOAD}","size":"dynamic","iv_tweak":"3",
        "encryption":"aes-xts-plain64","sector_size":4096}}}},"digests":{{"0":{{"type":"pbkdf2","keyslots":[{}],
        "segments":["0"],"hash":"sha256","iterations":4,"salt":"{SALT}","digest":"{}"}}}}}}"#,
        slots.join(","),
        ids.join(","),
        base64_of(&derived(sha256, &MASTER, &[9; 16], 4, 32)),
    )
}

fn base64_of(bytes: &[u8]) -> String {
    let letter =
        |n: u32| char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[n as usize & 63]);
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let word = three.iter().fold(0, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        let letters: String = [18, 12, 6, 0].map(|shift| letter(word >> shift)).iter().collect();
        text.push_str(&letters[..=three.len()]);
        text.push_str(&"=="[..3 - three.len()]);
    }
    text
}

const PBKDF2: &str = r#""type":"pbkdf2","hash":"sha256","iterations":3"#;
const ARGON2: &str = r#""type":"argon2id","time":4,"memory":32,"cpus":2"#;

/// Version 2 with a text; the area is locked with the derivation named by `kdf`.
fn two(kdf: &str, text: &str, start: &[u8]) -> Vec<u8> {
    let sha256 = Hash::by_name(b"sha256").unwrap();
    let mut key = derived(sha256, PASSWORD, &[9; 16], 3, 64);
    if kdf == ARGON2 {
        let cost = Cost { passes: 4, memory_kib: 32, lanes: 2 };
        argon2::derive(Variant::Id, cost, Limit { memory_kib: 32, steps: 128 }, PASSWORD, &[9; 16], &mut key).unwrap();
    }
    let mut file = container(PAYLOAD + 8192, 16 << 10, text);
    put(&mut file, 32 << 10, &material(sha256, b"aes-xts-plain64", &key));
    put(&mut file, PAYLOAD, &payload(b"aes-xts-plain64", 4096, 3, start));
    file
}

/// A container of version 2 whose sectors are counted from `tweak` on, and what is in it.
pub fn plain_two(tweak: u64) -> (Vec<u8>, Vec<u8>) {
    let text = text_of(&[PBKDF2]).replace("\"iv_tweak\":\"3\"", &format!("\"iv_tweak\":\"{tweak}\""));
    let plain: Vec<u8> = (0..8192u32).map(|n| (n.wrapping_mul(n) >> 5) as u8).collect();
    let mut sealed = plain.clone();
    Suite::parse(b"aes-xts-plain64").unwrap().keyed(&MASTER, 4096).unwrap().encrypt(tweak, &mut sealed);
    let mut file = two(PBKDF2, &text, &[]);
    put(&mut file, PAYLOAD, &sealed);
    (file, plain)
}

/// The inner format as `info` tells it, or the error.
fn inner(bytes: Vec<u8>, password: Option<&[u8]>) -> Result<Option<String>> {
    let io = MemIo::new(bytes);
    let options = Options { key: password.map(|p| Secret(p.to_vec())), ..Options::default() };
    let image = Luks.open(File::new(&io, &io.top()), &options)?;
    assert!(image.describe(false)?.extra.is_none());
    let extra = image.describe(true)?.extra;
    Ok(extra.and_then(|extra| Some(format!("{:?}", extra.get("inner-format")?))))
}

fn phrase(result: Result<Option<String>>) -> (Kind, String) {
    let error = result.unwrap_err();
    (error.kind, String::from_utf8(error.what.0).unwrap())
}

const QCOW2: &[u8] = b"QFI\xfb\0\0\0\x03";

fn shows(name: &str) -> Option<String> {
    Some(format!("{:?}", instar_image::Fact::from(name)))
}

#[test]
fn inner_format_shows_to_those_who_have_the_key() {
    let mbr = [vec![0; 446], vec![0x80, 0, 2, 0, 0x83, 0, 3, 0, 1, 0, 0, 0, 9, 0, 0, 0]].concat();
    for (start, name) in [(QCOW2, "qcow2"), (&mbr, "raw"), (b"", "unknown")] {
        assert_eq!(inner(one(start), Some(PASSWORD)).unwrap(), shows(name));
        for kdf in [PBKDF2, ARGON2] {
            assert_eq!(inner(two(kdf, &text_of(&[kdf]), start), Some(PASSWORD)).unwrap(), shows(name));
        }
    }
    assert_eq!(inner(one(QCOW2), None).unwrap(), None);
    assert_eq!(inner(two(PBKDF2, &text_of(&[PBKDF2]), QCOW2), None).unwrap(), None);
}

#[test]
fn a_wrong_passphrase_opens_nothing() {
    let wrong = (Kind::Key, "Invalid password, cannot unlock any keyslot".to_string());
    for image in [one(QCOW2), two(PBKDF2, &text_of(&[PBKDF2]), QCOW2), two(PBKDF2, &text_of(&[]), QCOW2)] {
        assert_eq!(phrase(inner(image, Some(b"Open"))), wrong);
    }
    // A slot that is not in use is not tried.
    assert_eq!(phrase(inner(patched(&one(QCOW2), 208 + 96, &0xDEADu32.to_be_bytes()), Some(PASSWORD))), wrong);
}

#[test]
fn a_hopeless_slot_only_matters_alone() {
    let memory = r#""type":"argon2id","time":4,"memory":1073741824,"cpus":1"#;
    let rounds = r#""type":"pbkdf2","hash":"sha256","iterations":4294967295"#;
    let passes = r#""type":"argon2i","time":2147483647,"memory":1024,"cpus":1"#;
    let strange = r#""type":"scrypt","n":4"#;
    let lanes = r#""type":"argon2id","time":1,"memory":32,"cpus":5"#;
    let hash = r#""type":"pbkdf2","hash":"sha3","iterations":3"#;
    let too_many = "Keyslot {} asks for too many rounds of key derivation";
    let too_large = "Keyslot {} needs {} KiB of memory, which is more than there is for reading an image";
    for (kdf, kind, words) in [
        (memory, Kind::TooBig, too_large),
        (rounds, Kind::TooBig, too_many),
        (passes, Kind::TooBig, too_many),
        (strange, Kind::Corrupt, "Keyslot {} makes no sense"),
        (lanes, Kind::Corrupt, "Keyslot {} makes no sense"),
        (hash, Kind::Unsupported, "Hash algorithm '{}' not supported"),
    ] {
        assert_eq!(
            phrase(inner(two(PBKDF2, &text_of(&[kdf]), QCOW2), Some(PASSWORD))),
            (kind.clone(), words.to_string())
        );
        let both = two(PBKDF2, &text_of(&[kdf, PBKDF2]), QCOW2);
        assert_eq!(inner(both.clone(), Some(PASSWORD)).unwrap(), shows("qcow2"));
        assert_eq!(phrase(inner(both, Some(b"no"))).0, kind);
    }
}

#[test]
fn what_a_header_leaves_out_or_overdoes_is_refused() {
    let text = text_of(&[PBKDF2]);
    for (from, to, words) in [
        ("\"sector_size\":4096", "\"sector_size\":8192", "LUKS2 sectors are too long"),
        ("\"sector_size\":4096", "\"sector_size\":520", "Encryption '{}' is not supported"),
        ("\"iv_tweak\":\"3\",", "", "LUKS2 header has no valid '{}' where one is needed"),
        ("\"type\":\"crypt\"", "\"type\":\"linear\"", "LUKS2 data segment is not merely encrypted"),
        ("\"key_size\":32", "\"key_size\":32000", "LUKS header has a key of unlikely length"),
        ("\"key_size\":32", "\"key_size\":0", "Invalid password, cannot unlock any keyslot"),
        ("\"key_size\":64", "\"key_size\":0", "Encryption '{}' is not supported"),
        ("\"stripes\":4000", "\"stripes\":4001", "Keyslot {} makes no sense"),
        (SALT, "?", "LUKS2 header has no valid '{}' where one is needed"),
        ("\"segments\":[\"0\"]", "\"segments\":[\"1\"]", "Invalid password, cannot unlock any keyslot"),
    ] {
        let image = two(PBKDF2, &text.replacen(from, to, 1), QCOW2);
        assert_eq!(phrase(inner(image, Some(PASSWORD))).1, words, "{from} -> {to}");
    }
    let null = two(PBKDF2, &text.replace("aes-xts-plain64", "cipher_null-ecb"), QCOW2);
    assert_eq!(phrase(inner(null, Some(PASSWORD))).1, "Encryption '{}' is not supported");
    assert!(inner(two(PBKDF2, TEXT, QCOW2), Some(PASSWORD)).is_err());
}

#[test]
fn payload_is_read_from_any_place() {
    let bytes = two(PBKDF2, &text_of(&[PBKDF2]), QCOW2);
    let io = MemIo::new(bytes);
    let file = File::new(&io, &io.top());
    let luks = Luks2::open(&file).unwrap();
    let payload = Unlocked::two(&file, &luks, &Secret(PASSWORD.to_vec())).unwrap();
    let inside = Decrypted { file, payload: &payload };
    let mut plain = vec![0; 8192];
    put(&mut plain, 0, QCOW2);
    put(&mut plain, 510, b"\x55\xaa");
    assert_eq!(inside.len(file.id()), 8192);
    for (at, len) in [(0, 8192), (1, 7), (509, 4), (4095, 2), (8191, 1), (8192, 0)] {
        let mut part = vec![1; len];
        inside.read(file.id(), at as u64, &mut part).unwrap();
        assert_eq!(part, plain[at..at + len]);
    }
    assert_eq!(inside.related(file.id(), Role::Backing, b"/etc/shadow").unwrap_err().kind, Kind::Refused);
}

#[test]
fn no_header_makes_unlocking_panic() {
    let head = one(QCOW2)[..2048].to_vec();
    noise(&head, 0..592, 3, 150, |bytes| {
        let _ = inner(bytes, Some(PASSWORD));
    });
    let text = text_of(&[PBKDF2, ARGON2]);
    noise(text.as_bytes(), 0..text.len(), 4, 400, |bytes| {
        let mut file = container(PAYLOAD, 16 << 10, "");
        put(&mut file, 4096, &bytes);
        let _ = inner(file, Some(PASSWORD));
    });
}
