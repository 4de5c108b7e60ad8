//! How a LUKS container of version 1 is laid out: a header, eight slots for keys, then the disk.

use alloc::vec::Vec;
use instar_image::num::add;
use instar_image::{Content, Error, Kind, Measured, Recipe, Result};

/// Bytes of what slots and disk are aligned to.
const ALIGN: u64 = 4096;
/// Slots for keys.
const SLOTS: u64 = 8;
/// Copies into which a key is split in its slot.
const STRIPES: u64 = 4000;

/// Ciphers, and the bytes of their keys.
const CIPHERS: &[(&str, u64)] = &[
    ("aes-128", 16),
    ("aes-192", 24),
    ("aes-256", 32),
    ("des", 8),
    ("3des", 24),
    ("cast5-128", 16),
    ("serpent-128", 16),
    ("serpent-192", 24),
    ("serpent-256", 32),
    ("twofish-128", 16),
    ("twofish-192", 24),
    ("twofish-256", 32),
    ("sm4", 16),
];
/// Those of them that cannot be had.
const MISSING: &[&str] = &["des", "3des", "sm4"];
const HASHES: &[&str] = &["md5", "sha1", "sha224", "sha256", "sha384", "sha512", "ripemd160", "sm3"];

/// Header and slots: where the disk begins. `prefix`: what stands before the names of all options.
pub fn header_len(recipe: &Recipe, prefix: &str) -> Result<u64> {
    let option = |name: &str| recipe.text(&[prefix, name].concat());
    let ciphers: Vec<&str> = CIPHERS.iter().map(|(name, _)| *name).collect();
    let cipher = one_of("cipher-alg", option("cipher-alg"), &ciphers)?.unwrap_or("aes-256");
    let mode = one_of("cipher-mode", option("cipher-mode"), &["ecb", "cbc", "xts", "ctr"])?.unwrap_or("xts");
    one_of("ivgen-alg", option("ivgen-alg"), &["plain", "plain64", "essiv"])?;
    one_of("ivgen-hash-alg", option("ivgen-hash-alg"), HASHES)?;
    one_of("hash-alg", option("hash-alg"), HASHES)?;
    if recipe.is_on(&[prefix, "detached-header"].concat()) {
        return Err(Kind::Unsupported.what("Parameter 'detached-header' is unexpected"));
    }
    if option("key-secret").is_none() {
        let name = [prefix, "key-secret"].concat();
        return Err(Kind::Key.what("Parameter '{}' is required for cipher").arg(name.as_str()));
    }
    if MISSING.contains(&cipher) {
        return Err(Kind::Unsupported.what("Algorithm '{}' not supported").arg(cipher));
    }
    let key = CIPHERS.iter().find(|(name, _)| *name == cipher).map_or(0, |(_, len)| *len);
    // This mode takes two keys.
    let key = if mode == "xts" { key.saturating_mul(2) } else { key };
    let slot = key.saturating_mul(STRIPES).next_multiple_of(ALIGN);
    Ok(slot.saturating_mul(SLOTS).saturating_add(ALIGN))
}

/// The word that was given, if any, and if it is one of these.
fn one_of<'w>(name: &str, given: Option<&[u8]>, words: &[&'w str]) -> Result<Option<&'w str>> {
    let Some(given) = given else { return Ok(None) };
    let found = words.iter().find(|word| word.as_bytes() == given);
    found.map(|word| Some(*word)).ok_or_else(|| unknown(name, given))
}

fn unknown(name: &str, given: &[u8]) -> Error {
    Kind::Unsupported.what("Parameter '{}' does not accept value '{}'").arg(name).arg(given)
}

/// Header, slots and disk.
pub fn measure(recipe: &Recipe, _content: &Content<'_>) -> Result<Measured> {
    let too_large = || Kind::TooBig.what("The requested file size is too large");
    let size = add(recipe.size, header_len(recipe, "")?, too_large)?;
    Ok(Measured { required: size, fully_allocated: size, bitmaps: None })
}
