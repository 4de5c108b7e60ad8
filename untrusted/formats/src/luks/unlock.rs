//! Opening a LUKS container with a passphrase, and its payload as if it were a file.

use super::disk::STRIPES;
use super::json::Json;
use super::open::{Luks1, Suite as Names};
use super::version2::{Luks2, first_segment, members};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use instar_codec::argon2::{Cost, Limit, Refused, Variant};
use instar_codec::cipher::{Sectors, Suite};
use instar_codec::hash::Hash;
use instar_codec::{af, argon2, base64, pbkdf2};
use instar_image::cache::Cache;
use instar_image::format::no_key;
use instar_image::num;
use instar_image::probe::probe;
use instar_image::sector::SECTOR;
use instar_image::{Error, File, FileId, Granted, Io, Kind, Result, Role, Secret};
use instar_wire::op::Rules;

#[cfg(test)]
pub mod tests;

/// More rounds of a key derivation than this are refused; before that, the cell's processor time may come to an end.
/// Nothing ends the time of a test or of a fuzzer.
const STEPS_MAX: u32 = if cfg!(any(test, fuzzing)) { 1 << 14 } else { 1 << 31 };
/// The most memory that cryptsetup lets a derivation use. What a cell's heap can give is less, and is what counts.
const MEMORY_MAX_KIB: u32 = 4 << 20;
/// No key and no digest is longer.
const KEY_MAX: u64 = 128;
/// No sector is longer.
const SECTOR_MAX: u64 = 4096;
/// No slot's key material is longer.
const MATERIAL_MAX: usize = 4 << 20;
/// The payload is decrypted in pieces of this length.
const PIECE_LEN: usize = 64 << 10;

/// A key slot in use.
struct Slot {
    /// Its number, as text.
    id: Vec<u8>,
    kdf: Kdf,
    salt: Vec<u8>,
    /// Encryption of its area, and the length of that key.
    encryption: Vec<u8>,
    area_key_len: usize,
    area_at: u64,
    /// Hash of the anti-forensic splitting, and the parts that the key was split into.
    split: &'static Hash,
    stripes: u32,
    key_len: usize,
    digest: Digest,
}

/// How the passphrase becomes the key of the slot's area.
enum Kdf {
    Pbkdf2 { hash: &'static Hash, iterations: u32 },
    Argon2 { variant: Variant, cost: Cost },
}

/// What shows that a master key is the right one.
#[derive(Clone)]
struct Digest {
    hash: &'static Hash,
    iterations: u32,
    salt: Vec<u8>,
    value: Vec<u8>,
}

/// What an unlocked container's payload is, without the file it lies in.
pub struct Unlocked {
    /// Where it begins.
    pub at: u64,
    /// Its length.
    pub size: u64,
    /// What is added to the numbers of sectors.
    pub tweak: u64,
    /// The cipher with its key.
    pub sectors: Arc<Sectors>,
}

/// The passphrase, or qemu-img's words for its absence: there, the key goes by this name.
pub fn needed<'k>(key: Option<&'k Secret>, file: &File<'_>, name: &'static str) -> Result<&'k Secret> {
    key.ok_or_else(|| no_key(file, name))
}

impl Unlocked {
    /// Unlocks version 1, whose payload has been found to be `size` bytes long.
    pub fn one(header: &File<'_>, luks: &Luks1, size: u64, key: &Secret) -> Result<Self> {
        let encryption = spec(&luks.suite);
        let sectors = unlock(header, slots_of_one(luks, &encryption), &encryption, 512, key)?;
        Ok(Unlocked { at: luks.payload_at, size, tweak: 0, sectors })
    }

    /// Unlocks a container of version 2.
    pub fn two(file: &File<'_>, luks: &Luks2, key: &Secret) -> Result<Self> {
        let Some((id, segment)) = luks.text.get("segments").and_then(first_segment) else {
            return Err(corrupt("LUKS2 header describes no data segment"));
        };
        if segment.get("type").and_then(Json::text) != Some(b"crypt") || segment.get("integrity").is_some() {
            return Err(Kind::Unsupported.what("LUKS2 data segment is not merely encrypted").file(file.id()));
        }
        let encryption = text(segment, "encryption")?;
        let too_long = || corrupt("LUKS2 sectors are too long");
        let sector_len = num::bounded(count(segment, "sector_size")?, SECTOR_MAX, too_long)?;
        let slots = members(luks.text.get("keyslots"));
        let used = slots.iter().filter_map(|(number, slot)| {
            let digest = digest_of(luks.text.get("digests")?, number, id)?;
            let usable = slot.get("type").and_then(Json::text) == Some(b"luks2");
            usable.then(|| slot_of_two(number, slot, digest))
        });
        let tweak = count(segment, "iv_tweak")?;
        let sectors = unlock(file, used, encryption, sector_len, key)?;
        Ok(Unlocked { at: luks.payload_at, size: luks.size, tweak, sectors })
    }
}

/// The first slot that the passphrase opens counts. A slot that cannot be tried only matters if no other opens.
fn unlock(
    header: &File<'_>,
    slots: impl Iterator<Item = Result<Slot>>,
    encryption: &[u8],
    sector_len: usize,
    key: &Secret,
) -> Result<Arc<Sectors>> {
    let wrong = || Kind::Key.what("Invalid password, cannot unlock any keyslot");
    let mut hindrance = None;
    for slot in slots {
        match slot.and_then(|slot| slot.open(header, &key.0)) {
            Ok(Some(master)) => {
                let sectors = Suite::parse(encryption).and_then(|s| s.keyed(&master, sector_len));
                return sectors.map(Arc::new).ok_or_else(|| unsupported(encryption).file(header.id()));
            }
            Ok(None) => {}
            Err(error) => hindrance = hindrance.or(Some(error)),
        }
    }
    Err(hindrance.unwrap_or_else(wrong).file(header.id()))
}

/// The master key of a container of version 1, if the passphrase opens any of these slots; all that it opens are told.
pub fn opened(
    header: &File<'_>,
    luks: &Luks1,
    key: &Secret,
    is_meant: &dyn Fn(usize) -> bool,
) -> Result<(Option<Vec<u8>>, Vec<usize>)> {
    let encryption = spec(&luks.suite);
    let (mut master, mut all) = (None, Vec::new());
    for slot in slots_of_one(luks, &encryption) {
        let slot = slot?;
        let number = slot.id.first().map_or(0, |digit| usize::from(digit.saturating_sub(b'0')));
        if is_meant(number)
            && let Some(found) = slot.open(header, &key.0)?
        {
            master = Some(found);
            all.push(number);
        }
    }
    Ok((master, all))
}

/// The payload of an unlocked container as if it were a file.
pub struct Decrypted<'a> {
    /// The file that it lies in.
    pub file: File<'a>,
    /// What is known of it.
    pub payload: &'a Unlocked,
}

impl Decrypted<'_> {
    /// The name of the format inside: `raw` if there is a partition table, `unknown` if there is nothing known.
    pub fn inner_format(&self) -> Result<&'static str> {
        let cache = Cache::new(self);
        let inside = File::slice(&cache, self.file.id(), 0, self.payload.size);
        match probe(&inside, crate::FORMATS, crate::RAW, &Rules { as_qemu: false, version: 0 }) {
            Ok(format) => Ok(format.name()),
            Err(error) if error.kind == Kind::Unrecognised => Ok("unknown"),
            Err(error) => Err(error),
        }
    }
}

impl Io for Decrypted<'_> {
    fn len(&self, _file: FileId) -> u64 {
        self.payload.size
    }

    fn read(&self, _file: FileId, at: u64, buf: &mut [u8]) -> Result<()> {
        let Unlocked { sectors, tweak, .. } = self.payload;
        let sector_len = sectors.sector_len();
        let mut piece = vec![0; PIECE_LEN.min(buf.len().saturating_add(sector_len)).next_multiple_of(sector_len)];
        let (mut at, mut rest) = (at, buf);
        while !rest.is_empty() {
            let skip = at % u64::try_from(sector_len).unwrap_or(SECTOR);
            let start = at.saturating_sub(skip);
            self.file.read(self.payload.at.saturating_add(start), &mut piece)?;
            sectors.decrypt((start / SECTOR).wrapping_add(*tweak), &mut piece);
            let part = usize::try_from(skip).ok().and_then(|skip| piece.get(skip..)).unwrap_or_default();
            let len = part.len().min(rest.len());
            let (now, later) = rest.split_at_mut(len);
            now.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
            rest = later;
            at = at.saturating_add(u64::try_from(len).unwrap_or(u64::MAX));
        }
        Ok(())
    }

    fn related(&self, from: FileId, _role: Role, _name: &[u8]) -> Result<Granted> {
        Err(Kind::Refused.what("what lies in an encrypted container leads to no other file").file(from))
    }
}

impl Slot {
    /// The master key, if the passphrase opens this slot.
    fn open(&self, file: &File<'_>, password: &[u8]) -> Result<Option<Vec<u8>>> {
        let suite = Suite::parse(&self.encryption).ok_or_else(|| unsupported(&self.encryption))?;
        let mut area_key = vec![0; self.area_key_len];
        self.derive(password, &mut area_key)?;
        let sectors = suite.keyed(&area_key, 512).ok_or_else(|| unsupported(&self.encryption))?;
        let stripes = usize::try_from(self.stripes).unwrap_or(usize::MAX);
        let len = self.key_len.saturating_mul(stripes);
        if len > MATERIAL_MAX {
            return Err(senseless(&self.id));
        }
        let mut material = file.read_vec(self.area_at, len.next_multiple_of(sectors.sector_len()))?;
        sectors.decrypt(0, &mut material);
        let master = af::merge(self.split, material.get(..len).unwrap_or_default(), self.key_len);
        let mut value = vec![0; self.digest.value.len()];
        pbkdf2::derive(self.digest.hash, &master, &self.digest.salt, self.digest.iterations, &mut value);
        Ok((value == self.digest.value).then_some(master))
    }

    fn derive(&self, password: &[u8], key: &mut [u8]) -> Result<()> {
        let (variant, cost) = match &self.kdf {
            Kdf::Pbkdf2 { hash, iterations } => {
                pbkdf2::derive(hash, password, &self.salt, *iterations, key);
                return Ok(());
            }
            Kdf::Argon2 { variant, cost } => (*variant, *cost),
        };
        let limit = Limit { memory_kib: MEMORY_MAX_KIB, steps: STEPS_MAX.into() };
        argon2::derive(variant, cost, limit, password, &self.salt, key).map_err(|refused| match refused {
            Refused::Memory => {
                let phrase = "Keyslot {} needs {} KiB of memory, which is more than there is for reading an image";
                Kind::TooBig.what(phrase).arg(self.id.as_slice()).arg(cost.memory_kib)
            }
            Refused::Work => too_many(&self.id),
            Refused::Senseless => senseless(&self.id),
        })
    }
}

/// The suite as dm-crypt writes it.
pub(super) fn spec(names: &Names) -> Vec<u8> {
    let family = names.cipher.split('-').next().unwrap_or_default();
    let mut spec = String::from(family);
    for part in ["-", names.mode, "-", names.generator] {
        spec.push_str(part);
    }
    // A hash is named for ESSIV alone.
    for part in names.generator_hash.iter().flat_map(|hash| [":", hash]) {
        spec.push_str(part);
    }
    spec.into_bytes()
}

fn slots_of_one<'l>(luks: &'l Luks1, encryption: &[u8]) -> impl Iterator<Item = Result<Slot>> + use<'l> {
    let encryption = encryption.to_vec();
    let used = luks.slots.iter().zip(b'0'..).filter_map(|(slot, id)| Some((slot, id, slot.active?)));
    used.map(move |(slot, id, iterations)| {
        let (hash, key_len) = (hash(luks.hash.as_bytes())?, bounded(luks.key_len.into())?);
        Ok(Slot {
            id: vec![id],
            kdf: Kdf::Pbkdf2 { hash, iterations: steps(iterations.into(), &[id])? },
            salt: slot.salt.to_vec(),
            encryption: encryption.clone(),
            area_key_len: key_len,
            area_at: slot.key_at,
            split: hash,
            stripes: slot.stripes,
            key_len,
            digest: Digest {
                hash,
                iterations: steps(luks.digest_iterations.into(), &[id])?,
                salt: luks.digest_salt.to_vec(),
                value: luks.digest.to_vec(),
            },
        })
    })
}

fn slot_of_two(id: &[u8], slot: &Json, digest: &Json) -> Result<Slot> {
    let part = |name: &'static str| slot.get(name).ok_or_else(|| senseless(id));
    let (kdf, area, split) = (part("kdf")?, part("area")?, part("af")?);
    if count(split, "stripes")? != STRIPES.into() || text(split, "type")? != b"luks1" {
        return Err(senseless(id));
    }
    let number = |name: &'static str| -> Result<u32> { u32::try_from(count(kdf, name)?).map_err(|_| too_many(id)) };
    let argon = |variant: Variant| -> Result<Kdf> {
        let cost = Cost { passes: number("time")?, memory_kib: number("memory")?, lanes: number("cpus")? };
        Ok(Kdf::Argon2 { variant, cost })
    };
    Ok(Slot {
        id: id.to_vec(),
        kdf: match text(kdf, "type")? {
            b"pbkdf2" => {
                Kdf::Pbkdf2 { hash: hash(text(kdf, "hash")?)?, iterations: steps(count(kdf, "iterations")?, id)? }
            }
            b"argon2i" => argon(Variant::I)?,
            b"argon2id" => argon(Variant::Id)?,
            _ => return Err(senseless(id)),
        },
        salt: binary(kdf, "salt")?,
        encryption: text(area, "encryption")?.to_vec(),
        area_key_len: length(area, "key_size")?,
        area_at: count(area, "offset")?,
        split: hash(text(split, "hash")?)?,
        stripes: STRIPES,
        key_len: length(slot, "key_size")?,
        digest: Digest {
            hash: hash(text(digest, "hash")?)?,
            iterations: steps(count(digest, "iterations")?, id)?,
            salt: binary(digest, "salt")?,
            value: binary(digest, "digest")?,
        },
    })
}

/// The digest that a slot's key is checked with, if that key is the segment's.
fn digest_of<'j>(digests: &'j Json, slot: &[u8], segment: &[u8]) -> Option<&'j Json> {
    let lists = |digest: &Json, name: &str, id: &[u8]| {
        digest.get(name).is_some_and(|list| list.elements().iter().any(|e| e.text() == Some(id)))
    };
    let all = digests.members().iter().map(|(_, digest)| digest);
    all.into_iter().find(|d| lists(d, "keyslots", slot) && lists(d, "segments", segment))
}

fn corrupt(phrase: &'static str) -> Error {
    Kind::Corrupt.what(phrase)
}

fn unsupported(encryption: &[u8]) -> Error {
    Kind::Unsupported.what("Encryption '{}' is not supported").arg(encryption)
}

fn senseless(slot: &[u8]) -> Error {
    corrupt("Keyslot {} makes no sense").arg(slot)
}

fn too_many(slot: &[u8]) -> Error {
    Kind::TooBig.what("Keyslot {} asks for too many rounds of key derivation").arg(slot)
}

fn hash(name: &[u8]) -> Result<&'static Hash> {
    Hash::by_name(name).ok_or_else(|| Kind::Unsupported.what("Hash algorithm '{}' not supported").arg(name))
}

fn steps(iterations: u64, slot: &[u8]) -> Result<u32> {
    let steps = u32::try_from(iterations).ok().filter(|steps| *steps <= STEPS_MAX);
    steps.ok_or_else(|| too_many(slot))
}

fn bounded(len: u64) -> Result<usize> {
    num::bounded(len, KEY_MAX, || corrupt("LUKS header has a key of unlikely length"))
}

/// A member that a header must have.
fn need<T>(found: Option<T>, name: &'static str) -> Result<T> {
    found.ok_or_else(|| corrupt("LUKS2 header has no valid '{}' where one is needed").arg(name))
}

fn text<'j>(object: &'j Json, name: &'static str) -> Result<&'j [u8]> {
    need(object.get(name).and_then(Json::text), name)
}

fn count(object: &Json, name: &'static str) -> Result<u64> {
    need(object.get(name).and_then(Json::count), name)
}

fn length(object: &Json, name: &'static str) -> Result<usize> {
    bounded(count(object, name)?)
}

fn binary(object: &Json, name: &'static str) -> Result<Vec<u8>> {
    let bytes = need(base64::decode(text(object, name)?), name)?;
    bounded(bytes.len().try_into().unwrap_or(u64::MAX)).map(|_| bytes)
}
