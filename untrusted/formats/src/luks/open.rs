//! The checks a LUKS header of version 1 must pass, alone in a file or inside a qcow2 image.

use super::disk::{Header1, MAGIC, SLOT_COUNT, SLOT_DISABLED, SLOT_ENABLED, STRIPES, Slot1};
use alloc::vec::Vec;
use instar_image::sector::SECTOR;
use instar_image::text::until_nul;
use instar_image::{Bytes, Error, Fact, File, Kind, Result};

/// Sectors that the header fills, up to the first place for key material.
const HEADER_SECTORS: u32 = 8;

/// Ciphers by name and length of the key, and what qemu-img calls them.
pub(super) const CIPHERS: &[(&str, u32, &str)] = &[
    ("aes", 16, "aes-128"),
    ("aes", 24, "aes-192"),
    ("aes", 32, "aes-256"),
    ("cast5", 16, "cast5-128"),
    ("serpent", 16, "serpent-128"),
    ("serpent", 24, "serpent-192"),
    ("serpent", 32, "serpent-256"),
    ("twofish", 16, "twofish-128"),
    ("twofish", 24, "twofish-192"),
    ("twofish", 32, "twofish-256"),
    ("sm4", 16, "sm4"),
];
/// Families whose ESSIV cipher may have another key length than the cipher itself.
const FAMILIES: &[(&str, &str)] = &[
    ("aes", "No AES cipher with key size {} available"),
    ("serpent", "No Serpent cipher with key size {} available"),
    ("twofish", "No Twofish cipher with key size {} available"),
];
pub(super) const MODES: &[&str] = &["ecb", "cbc", "xts", "ctr"];
pub(super) const GENERATORS: &[&str] = &["plain", "plain64", "essiv"];
/// Hashes, and the length of what they yield.
pub(super) const HASHES: &[(&str, u32)] = &[
    ("md5", 16),
    ("sha1", 20),
    ("sha224", 28),
    ("sha256", 32),
    ("sha384", 48),
    ("sha512", 64),
    ("ripemd160", 20),
    ("sm3", 32),
];

/// A checked header of version 1.
pub struct Luks1 {
    /// What the bytes are encrypted with.
    pub suite: Suite,
    /// Hash of the key derivation.
    pub hash: &'static str,
    /// The container's identity.
    pub uuid: Bytes,
    /// Length of the master key in bytes.
    pub key_len: u32,
    /// Where the guest's data begins.
    pub payload_at: u64,
    /// Digest of the master key.
    pub digest: [u8; 20],
    /// Salt of that digest.
    pub digest_salt: [u8; 32],
    /// Iterations of that digest.
    pub digest_iterations: u32,
    /// The key slots.
    pub slots: Vec<Slot>,
}

/// A checked key slot.
pub struct Slot {
    /// Iterations of its key derivation, if it is in use.
    pub active: Option<u32>,
    /// Salt of its key derivation.
    pub salt: [u8; 32],
    /// Where its key material lies.
    pub key_at: u64,
    /// How often the key was split.
    pub stripes: u32,
}

/// Cipher, mode and generator of initialisation vectors.
pub struct Suite {
    /// Cipher with its key length, as qemu-img calls it.
    pub cipher: &'static str,
    /// Mode of operation.
    pub mode: &'static str,
    /// Generator of initialisation vectors.
    pub generator: &'static str,
    /// The generator's hash, if it has one.
    pub generator_hash: Option<&'static str>,
}

impl Luks1 {
    /// Reads and checks the header at `at` as the version of qemu-img does; the caller has seen that it can be read.
    pub fn open(file: &File<'_>, at: u64, version: u32) -> Result<Luks1> {
        let header: Header1 = file.read_as(at)?;
        check(&header, Era::of(version), false).map_err(|e| e.file(file.id()).at(at))
    }

    /// The same of a header that lies in a file of its own, with no payload behind it to run into.
    pub fn open_detached(file: &File<'_>, version: u32) -> Result<Luks1> {
        let header: Header1 = file.read_as(0)?;
        check(&header, Era::of(version), true).map_err(|e| e.file(file.id()).at(0))
    }

    /// The facts that qemu-img tells of it.
    pub fn facts(&self) -> Fact {
        let slots: Vec<Fact> = self.slots.iter().map(Slot::facts).collect();
        let mut facts = Fact::fields([
            ("ivgen-alg", self.suite.generator.into()),
            ("detached-header", (self.payload_at == 0).into()),
            ("hash-alg", self.hash.into()),
            ("cipher-alg", self.suite.cipher.into()),
            ("uuid", self.uuid.clone().into()),
            ("cipher-mode", self.suite.mode.into()),
            ("slots", slots.into()),
            ("payload-offset", self.payload_at.into()),
            ("master-key-iters", self.digest_iterations.into()),
        ]);
        if let Some(hash) = self.suite.generator_hash {
            facts.add("ivgen-hash-alg", hash);
        }
        facts
    }
}

impl Slot {
    fn facts(&self) -> Fact {
        let mut facts = Fact::fields([("active", self.active.is_some().into()), ("key-offset", self.key_at.into())]);
        if let Some(iterations) = self.active {
            facts.add("iters", iterations);
            facts.add("stripes", self.stripes);
        }
        facts
    }
}

/// How strictly a header is checked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Era {
    /// Before 7.2: texts may run into each other, few numbers are looked at.
    Lenient,
    /// From 7.2.
    Strict,
    /// From 9.0: the cipher SM4 is known.
    Sm4,
    /// Today: the hash SM3 is known as well.
    Today,
}

impl Era {
    /// That of a version.
    pub(super) fn of(version: u32) -> Era {
        match version {
            1..702 => Era::Lenient,
            702..900 => Era::Strict,
            900..1000 => Era::Sm4,
            _ => Era::Today,
        }
    }

    /// Whether there is an algorithm of that name.
    pub(super) fn knows(self, algorithm: &str) -> bool {
        match algorithm {
            "sm4" => self >= Era::Sm4,
            "sm3" => self >= Era::Today,
            _ => true,
        }
    }
}

fn check(header: &Header1, era: Era, detached: bool) -> Result<Luks1> {
    if header.magic != MAGIC {
        return Err(Kind::NotThisFormat.what("Volume is not in LUKS format"));
    }
    if header.version.get() != 1 {
        let phrase = "LUKS version {} is not supported";
        return Err(Kind::Unsupported.what(phrase).arg(u64::from(header.version.get())));
    }
    if era > Era::Lenient {
        check_texts_and_counts(header, detached)?;
    }
    for index in 0..SLOT_COUNT {
        check_slot(header, index, era, detached)?;
        check_overlaps(header, index, era)?;
    }
    let suite = Suite::parse(header, era)?;
    let (hash, _) = hash(until_nul(&header.hash_spec), era)?;
    Ok(Luks1 {
        suite: suite.finish(&header.cipher_name)?,
        hash,
        uuid: until_nul(&header.uuid).into(),
        key_len: header.key_bytes.get(),
        payload_at: sectors(header.payload_offset.get()),
        digest: header.mk_digest,
        digest_salt: header.mk_digest_salt,
        digest_iterations: header.mk_digest_iter.get(),
        slots: header.slots.iter().map(slot).collect(),
    })
}

fn check_texts_and_counts(header: &Header1, detached: bool) -> Result<()> {
    for (field, phrase) in [
        (&header.cipher_name, "LUKS header cipher name is not NUL terminated"),
        (&header.cipher_mode, "LUKS header cipher mode is not NUL terminated"),
        (&header.hash_spec, "LUKS header hash spec is not NUL terminated"),
    ] {
        if !field.contains(&0) {
            return Err(Kind::Corrupt.what(phrase));
        }
    }
    if !detached && header.payload_offset.get() < HEADER_SECTORS {
        return Err(Kind::Corrupt.what("LUKS payload is overlapping with the header"));
    }
    if header.mk_digest_iter.get() == 0 {
        return Err(Kind::Corrupt.what("LUKS key iteration count is zero"));
    }
    Ok(())
}

fn sectors(count: u32) -> u64 {
    u64::from(count).saturating_mul(SECTOR)
}

fn slot(slot: &Slot1) -> Slot {
    Slot {
        active: (slot.active.get() == SLOT_ENABLED).then(|| slot.iterations.get()),
        salt: slot.salt,
        key_at: sectors(slot.key_material_offset.get()),
        stripes: slot.stripes.get(),
    }
}

/// The sectors of a slot's key material: the first, and how many. qemu-img counts them in 32 bits that wrap.
fn material(header: &Header1, slot: &Slot1) -> (u32, u32) {
    let bytes = u64::from(header.key_bytes.get().wrapping_mul(slot.stripes.get()));
    let len = bytes.div_ceil(SECTOR).next_multiple_of(HEADER_SECTORS.into());
    (slot.key_material_offset.get(), u32::try_from(len).unwrap_or(u32::MAX))
}

fn check_slot(header: &Header1, index: usize, era: Era, detached: bool) -> Result<()> {
    let corrupt = |phrase: &'static str| -> Error { Kind::Corrupt.what(phrase).arg(number(index)) };
    let Some(slot) = header.slots.get(index) else { return Ok(()) };
    let lenient = era == Era::Lenient;
    if lenient && slot.stripes.get() == 0 {
        return Err(corrupt("Keyslot {} is corrupted (stripes == 0)"));
    }
    if !lenient && slot.stripes.get() != STRIPES {
        let stripes = signed(slot.stripes.get());
        return Err(corrupt("Keyslot {} is corrupted (stripes {} != 4000)").arg(stripes));
    }
    if !matches!(slot.active.get(), SLOT_ENABLED | SLOT_DISABLED) {
        return Err(corrupt("Keyslot {} state (active/disable) is corrupted"));
    }
    if !lenient && slot.active.get() == SLOT_ENABLED && slot.iterations.get() == 0 {
        return Err(corrupt("Keyslot {} iteration count is zero"));
    }
    let (start, len) = material(header, slot);
    if !lenient && start < HEADER_SECTORS {
        return Err(corrupt("Keyslot {} is overlapping with the LUKS header"));
    }
    if !detached && start.wrapping_add(len) > header.payload_offset.get() {
        return Err(corrupt("Keyslot {} is overlapping with the encrypted payload"));
    }
    Ok(())
}

fn number(index: usize) -> u64 {
    u64::try_from(index).unwrap_or(u64::MAX)
}

/// Compares a slot's key material with that of all later slots.
fn check_overlaps(header: &Header1, index: usize, era: Era) -> Result<()> {
    let Some((slot, later)) = header.slots.get(index..).and_then(<[Slot1]>::split_first) else {
        return Ok(());
    };
    let (start, len) = material(header, slot);
    let (end, last) = (start.wrapping_add(len), start.wrapping_add(len).wrapping_sub(1));
    for (other, other_number) in later.iter().zip(number(index).saturating_add(1)..) {
        let (other_start, other_len) = material(header, other);
        let other_end = other_start.wrapping_add(other_len);
        // Counted by last sectors, what is empty at the very beginning reaches all the way around.
        let overlaps = match era {
            Era::Lenient | Era::Strict => start < other_end && other_start < end,
            Era::Sm4 | Era::Today => start <= other_end.wrapping_sub(1) && other_start <= last,
        };
        if overlaps {
            let phrase = "Keyslots {} and {} are overlapping in the header";
            return Err(Kind::Corrupt.what(phrase).arg(number(index)).arg(other_number));
        }
    }
    Ok(())
}

/// A suite whose names have been split, in the order in which qemu-img judges them.
struct Parts<'a> {
    cipher: &'static str,
    key_len: u32,
    mode: &'static str,
    generator: &'a [u8],
    hash: Option<(&'static str, u32)>,
}

/// The cipher's name as C reads it: without an end of its own it runs on into the mode's.
fn running_text(header: &Header1) -> Vec<u8> {
    let mut name = until_nul(&header.cipher_name).to_vec();
    if name.len() == header.cipher_name.len() {
        name.extend_from_slice(until_nul(&header.cipher_mode));
    }
    name
}

impl Suite {
    fn parse(header: &Header1, era: Era) -> Result<Parts<'_>> {
        let whole = until_nul(&header.cipher_mode);
        let Some((mode, generator)) = split(whole, b'-') else {
            return Err(Kind::Unsupported.what("Unexpected cipher mode string format '{}'").arg(whole));
        };
        let (generator, hash_name) = match split(generator, b':') {
            Some((generator, name)) => (generator, Some(name)),
            None => (generator, None),
        };
        let hash = hash_name.map(|name| hash(name, era)).transpose()?;
        let mode =
            known(MODES, mode).ok_or_else(|| Kind::Unsupported.what("Cipher mode '{}' not supported").arg(mode))?;
        let name = running_text(header);
        // XTS needs two keys.
        let key_len = if mode == "xts" { header.key_bytes.get() / 2 } else { header.key_bytes.get() };
        let found = CIPHERS.iter().find(|(n, len, _)| n.as_bytes() == name && *len == key_len && era.knows(n));
        let Some((_, _, cipher)) = found else {
            let phrase = "Algorithm '{}' with key size {} bytes not supported";
            return Err(Kind::Unsupported.what(phrase).arg(&name[..]).arg(signed(key_len)));
        };
        Ok(Parts { cipher, key_len, mode, generator, hash })
    }
}

impl Parts<'_> {
    fn finish(self, cipher_name: &[u8]) -> Result<Suite> {
        let Some(generator) = known(GENERATORS, self.generator) else {
            return Err(Kind::Unsupported.what("IV generator '{}' not supported").arg(self.generator));
        };
        let mut generator_hash = None;
        if generator == "essiv" {
            let Some((hash, len)) = self.hash else {
                return Err(Kind::Corrupt.what("Missing IV generator hash specification"));
            };
            fits_essiv(until_nul(cipher_name), self.cipher, self.key_len, len)?;
            generator_hash = Some(hash);
        }
        Ok(Suite { cipher: self.cipher, mode: self.mode, generator, generator_hash })
    }
}

/// Whether ESSIV can be had: the output of a hash, so long, is the key of the cipher that makes the vectors. `cipher` is of
/// that family, and has keys so long.
pub(super) fn fits_essiv(family: &[u8], cipher: &'static str, key_len: u32, hash_len: u32) -> Result<()> {
    match FAMILIES.iter().find(|(name, _)| name.as_bytes() == family) {
        Some(_) if matches!(hash_len, 16 | 24 | 32) => Ok(()),
        Some((_, phrase)) => Err(Kind::Unsupported.what(phrase).arg(hash_len)),
        None if hash_len == key_len => Ok(()),
        None => Err(Kind::Unsupported.what("Cipher {} not supported with essiv").arg(cipher)),
    }
}

fn split(bytes: &[u8], mark: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|b| *b == mark)?;
    Some((bytes.get(..at)?, bytes.get(at.checked_add(1)?..)?))
}

fn known(names: &[&'static str], name: &[u8]) -> Option<&'static str> {
    names.iter().find(|n| n.as_bytes() == name).copied()
}

fn hash(name: &[u8], era: Era) -> Result<(&'static str, u32)> {
    let found = HASHES.iter().find(|(n, _)| n.as_bytes() == name && era.knows(n)).copied();
    found.ok_or_else(|| Kind::Unsupported.what("Hash algorithm '{}' not supported").arg(name))
}

/// qemu-img prints numbers out of the header as if they had a sign.
fn signed(number: u32) -> i64 {
    number.cast_signed().into()
}
