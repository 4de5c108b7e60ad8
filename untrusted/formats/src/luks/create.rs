//! How a LUKS container of version 1 is laid out and locked: a header, eight slots for keys, then the disk.

use super::disk::{Header1, MAGIC, SLOT_COUNT, SLOT_DISABLED, SLOT_ENABLED, STRIPES, Slot1};
use super::open::{CIPHERS, Era, GENERATORS, HASHES, MODES, Suite as Names, fits_essiv};
use super::unlock::spec;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use instar_codec::cipher::{Sectors, Suite, UNIT};
use instar_codec::hash::Hash;
use instar_codec::{af, pbkdf2};
use instar_image::num::add;
use instar_image::sector::SECTOR;
use instar_image::text::uuid;
use instar_image::{Content, Drive, Error, Kind, Measured, Preallocation, Recipe, Result, Secret, Site};
use zerocopy::{FromZeros, IntoBytes};

/// Bytes of what slots and disk are aligned to.
const ALIGN: u64 = 4096;
/// Ciphers that have a name and cannot be had: qemu-img with sm4 depends on how it was built.
const MISSING: &[&str] = &["des", "3des", "sm4"];
/// The one cipher whose blocks are too short for XTS.
const SHORT: &str = "cast5-128";
/// How long the derivation of a key takes, in milliseconds, if nothing is said.
pub(super) const ITER_TIME: u64 = 2000;
/// Less iterations than this are not used.
const ITERATIONS_MIN: u64 = 1000;
/// The digest of the master key takes so much less time than a slot.
const DIGEST_SHARE: u64 = 8;
/// Iterations in a second that are assumed where nothing may be measured: what comes of it has to be the same
/// everywhere. Every machine of today does more.
const NOMINAL_RATE: u64 = 2_000_000;
/// Nanoseconds that iterations are measured for at once.
const MEASURED: u64 = 8_000_000;
/// Nothing does so many in a nanosecond: such a clock stands still.
const STILL: u32 = 1 << 12;
/// How often they are measured.
const ROUNDS: u32 = 8;
/// The longest file that qemu-img's block layer has.
const FILE_MAX: u64 = i64::MAX.unsigned_abs() & !((1 << 30) - 1);

/// What a recipe asks for, checked.
pub struct Plan {
    names: Names,
    /// Mode, generator and what was said to be its hash, as the header has them.
    mode: String,
    hash: &'static Hash,
    key_len: usize,
    iter_time: u64,
    is_reproducible: bool,
}

/// A container's header and its first slot, which is the one in use.
pub struct Made {
    /// These bytes. What follows them up to `len` are slots that are empty.
    pub bytes: Vec<u8>,
    /// Length of header and all slots.
    pub len: u64,
    /// What encrypts its disk.
    pub sectors: Sectors,
}

impl Plan {
    /// Of a recipe for this version of qemu-img, or 0. `prefix`: what stands before the names of all options.
    pub fn of(recipe: &Recipe, prefix: &str, version: u32) -> Result<Plan> {
        let option = |name: &str| recipe.text(&[prefix, name].concat());
        let era = Era::of(version);
        let ciphers =
            CIPHERS.iter().map(|(.., name)| *name).chain(MISSING.iter().copied()).filter(|name| era.knows(name));
        let hashes = || HASHES.iter().map(|(name, _)| *name).filter(|name| era.knows(name));
        let cipher = one_of("cipher-alg", option("cipher-alg"), ciphers)?.unwrap_or("aes-256");
        let mode = one_of("cipher-mode", option("cipher-mode"), MODES.iter().copied())?.unwrap_or("xts");
        let generator = one_of("ivgen-alg", option("ivgen-alg"), GENERATORS.iter().copied())?.unwrap_or("plain64");
        let named_hash = one_of("ivgen-hash-alg", option("ivgen-hash-alg"), hashes())?;
        let hash = one_of("hash-alg", option("hash-alg"), hashes())?.unwrap_or("sha256");
        demand_key(recipe, prefix)?;
        let had = CIPHERS.iter().find(|(.., name)| *name == cipher && !MISSING.contains(name));
        let Some((family, key_len, _)) = had else {
            return Err(Kind::Unsupported.what("Algorithm '{}' not supported").arg(cipher));
        };
        let essiv = generator == "essiv";
        let named_hash = named_hash.or(essiv.then_some("sha256"));
        if essiv {
            let len = HASHES.iter().find(|(name, _)| Some(*name) == named_hash).map_or(0, |(_, len)| *len);
            fits_essiv(family.as_bytes(), cipher, *key_len, len)?;
        }
        if mode == "xts" && cipher == SHORT {
            return Err(Kind::Unsupported.what("Unsupported cipher mode {}").arg(mode));
        }
        let hash_part: [&str; 2] = named_hash.map_or(["", ""], |hash| [":", hash]);
        // XTS takes two keys.
        let keys = if mode == "xts" { 2 } else { 1 };
        Ok(Plan {
            names: Names { cipher, mode, generator, generator_hash: named_hash.filter(|_| essiv) },
            mode: [mode, "-", generator].into_iter().chain(hash_part).collect(),
            hash: Hash::by_name(hash.as_bytes())
                .ok_or_else(|| Kind::Unsupported.what("Hash algorithm '{}' not supported").arg(hash))?,
            key_len: usize::try_from(key_len.saturating_mul(keys)).unwrap_or(usize::MAX),
            iter_time: recipe.number(&[prefix, "iter-time"].concat()).unwrap_or(ITER_TIME),
            is_reproducible: recipe.is_on("reproducible"),
        })
    }

    fn material_len(&self) -> u64 {
        u64::try_from(self.key_len).unwrap_or(u64::MAX).saturating_mul(STRIPES.into())
    }

    /// Where a slot's material begins.
    fn slot_at(&self, index: usize) -> u64 {
        let slots = u64::try_from(index).unwrap_or(u64::MAX);
        self.material_len().next_multiple_of(ALIGN).saturating_mul(slots).saturating_add(ALIGN)
    }

    /// Header and all slots: where the disk begins.
    pub fn disk_at(&self) -> u64 {
        self.slot_at(SLOT_COUNT)
    }

    /// Makes a container under a new key; `is_apart`: its disk lies in another file.
    pub fn lock(&self, site: &Site<'_>, is_apart: bool) -> Result<Made> {
        let none = || Kind::Key.what("Parameter '{}' is required for cipher").arg("key-secret");
        let Secret(password) = site.key.ok_or_else(none)?;
        let pace = self.pace(site)?;
        let digest_iterations = self.iterations(pace, 20, DIGEST_SHARE)?;
        let iterations = self.iterations(pace, self.key_len, 1)?;
        let master = random(site, self.key_len);
        let (salt, digest_salt) = (site.random::<32>(), site.random::<32>());
        let mut digest = [0; 20];
        pbkdf2::derive(self.hash, &master, &digest_salt, digest_iterations, &mut digest);
        let unusable = || Kind::Unsupported.what("Encryption '{}' is not supported").arg(&spec(&self.names)[..]);
        let suite = Suite::parse(&spec(&self.names)).ok_or_else(unusable)?;
        let stripes = random(site, usize::try_from(self.material_len()).unwrap_or(0));
        let mut material =
            material((self.hash, &suite), password, (&salt, iterations), &master, stripes).ok_or_else(unusable)?;

        let mut header = Header1::new_zeroed();
        header.magic = MAGIC;
        header.version = 1.into();
        put(&mut header.cipher_name, self.names.cipher.split('-').next().unwrap_or_default());
        put(&mut header.cipher_mode, &self.mode);
        put(&mut header.hash_spec, self.hash.name);
        header.payload_offset = if is_apart { 0 } else { sectors(self.disk_at()) }.into();
        header.key_bytes = u32::try_from(self.key_len).unwrap_or(0).into();
        header.mk_digest = digest;
        header.mk_digest_salt = digest_salt;
        header.mk_digest_iter = digest_iterations.into();
        put(&mut header.uuid, &uuid(&site.uuid()));
        for (index, slot) in header.slots.iter_mut().enumerate() {
            let at = sectors(self.slot_at(index)).into();
            let (active, iterations, salt) =
                if index == 0 { (SLOT_ENABLED, iterations, salt) } else { (SLOT_DISABLED, 0, [0; 32]) };
            *slot = Slot1 {
                active: active.into(),
                iterations: iterations.into(),
                salt,
                key_material_offset: at,
                stripes: STRIPES.into(),
            };
        }
        let mut bytes = header.as_bytes().to_vec();
        bytes.resize(usize::try_from(self.slot_at(0)).unwrap_or(0), 0);
        bytes.append(&mut material);
        Ok(Made { bytes, len: self.disk_at(), sectors: suite.keyed(&master, UNIT).ok_or_else(unusable)? })
    }

    fn pace(&self, site: &Site<'_>) -> Result<u64> {
        if self.is_reproducible { Ok(NOMINAL_RATE) } else { pace(self.hash, site.drive) }
    }

    fn iterations(&self, pace: u64, key_len: usize, share: u64) -> Result<u32> {
        iterations(self.hash, pace, key_len, self.iter_time, share)
    }
}

/// Iterations in a second that make one block of the hash.
pub(super) fn pace(hash: &'static Hash, drive: &dyn Drive) -> Result<u64> {
    let time = |count: u32| -> Result<u64> {
        let start = drive.clock()?;
        pbkdf2::derive(hash, b"password", &[0; 32], count, &mut [0; 1]);
        Ok(drive.clock()?.saturating_sub(start).max(1))
    };
    let mut count = 1u32 << 10;
    // A clock that stands still is no reason to go on for ever.
    while let took = time(count)?
        && took < MEASURED
        && count < 1 << 28
    {
        if took <= 1 && count >= STILL {
            return Ok(NOMINAL_RATE);
        }
        count = count.saturating_mul(2);
    }
    // The processor may have been somewhere else: the shortest time counts, or the key would be the weaker for it.
    let mut best = u64::MAX;
    for _ in 0..ROUNDS {
        best = best.min(time(count)?);
    }
    Ok((u64::from(count).saturating_mul(1_000_000_000) / best).max(1))
}

/// Iterations that make a key in a share of the time; as many as qemu-img would have found, and its words.
pub(super) fn iterations(hash: &Hash, pace: u64, key_len: usize, iter_time: u64, share: u64) -> Result<u32> {
    let blocks = u64::try_from(key_len.div_ceil(hash.len.max(1))).unwrap_or(u64::MAX);
    let rate = pace / blocks.max(1);
    let scaled = rate.checked_mul(iter_time).ok_or_else(|| {
        Kind::TooBig.what("PBKDF iterations {} too large to scale: Numerical result out of range").arg(rate)
    })?;
    let count = scaled / 1000 / share;
    let too_many = || {
        let phrase = "PBKDF iterations {} larger than {}: Numerical result out of range";
        Kind::TooBig.what(phrase).arg(count).arg(u64::from(u32::MAX))
    };
    u32::try_from(count.max(ITERATIONS_MIN)).map_err(|_| too_many())
}

/// What a slot keeps of a master key, which these bytes open and random ones, as many as are kept, hide.
pub(super) fn material(
    (hash, suite): (&'static Hash, &Suite),
    password: &[u8],
    (salt, iterations): (&[u8; 32], u32),
    master: &[u8],
    mut random: Vec<u8>,
) -> Option<Vec<u8>> {
    let mut area_key = vec![0; master.len()];
    pbkdf2::derive(hash, password, salt, iterations, &mut area_key);
    let area = suite.keyed(&area_key, UNIT)?;
    af::split(hash, master, &mut random);
    random.resize(random.len().next_multiple_of(UNIT), 0);
    area.encrypt(0, &mut random);
    Some(random)
}

fn demand_key(recipe: &Recipe, prefix: &str) -> Result<()> {
    let name = [prefix, "key-secret"].concat();
    match recipe.text(&name) {
        Some(_) => Ok(()),
        None => Err(Kind::Key.what("Parameter '{}' is required for cipher").arg(name.as_str())),
    }
}

fn random(site: &Site<'_>, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    site.random.borrow_mut().fill(&mut bytes);
    bytes
}

fn put(field: &mut [u8], text: &str) {
    field.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
}

fn sectors(len: u64) -> u32 {
    u32::try_from(len / SECTOR).unwrap_or(u32::MAX)
}

/// The word that was given, if any, and if it is one of these.
fn one_of<'w>(name: &str, given: Option<&[u8]>, mut words: impl Iterator<Item = &'w str>) -> Result<Option<&'w str>> {
    let Some(given) = given else { return Ok(None) };
    let found = words.find(|word| word.as_bytes() == given);
    found.map(Some).ok_or_else(|| unknown(name, given))
}

fn unknown(name: &str, given: &[u8]) -> Error {
    Kind::Unsupported.what("Parameter '{}' does not accept value '{}'").arg(name).arg(given)
}

fn too_large() -> Error {
    Kind::TooBig.what("The requested file size is too large")
}

fn unexpected() -> Error {
    Kind::Unsupported.what("Parameter 'detached-header' is unexpected")
}

/// Header and slots: where the disk begins. `prefix`: what stands before the names of all options.
pub fn header_len(recipe: &Recipe, prefix: &str) -> Result<u64> {
    let plan = Plan::of(recipe, prefix, 0)?;
    if recipe.is_on(&[prefix, "detached-header"].concat()) { Err(unexpected()) } else { Ok(plan.disk_at()) }
}

/// Header and slots of a container inside an image of another format, whose disk lies wherever that format has it: made
/// as a recipe asks for by options with this prefix.
pub fn header(recipe: &Recipe, prefix: &str, site: &Site<'_>) -> Result<Made> {
    Plan::of(recipe, prefix, version(site))?.lock(site, false)
}

fn version(site: &Site<'_>) -> u32 {
    if site.rules.as_qemu { site.rules.version } else { 0 }
}

/// Header, slots and disk.
pub fn measure(recipe: &Recipe, _content: &Content<'_>) -> Result<Measured> {
    let size = add(recipe.size, header_len(recipe, "")?, too_large)?;
    Ok(Measured { required: size, fully_allocated: size, bitmaps: None })
}

/// Lays out and locks a container. If its header is to lie apart, it goes to the file beside, or to its own if there is
/// none; then there is no place for a disk yet.
pub fn create(recipe: &Recipe, site: &Site<'_>) -> Result<()> {
    let invalid = |_| match recipe.text("preallocation") {
        Some(word) => Kind::Unsupported.what("invalid parameter value: {}").arg(word),
        None => Kind::Unsupported.what("invalid parameter value"),
    };
    let how = Preallocation::of(recipe).map_err(invalid)?;
    let plan = Plan::of(recipe, "", version(site))?;
    let is_apart = recipe.is_on("detached-header");
    let header = if is_apart { site.beside.unwrap_or(site.file) } else { site.file };
    let total = if is_apart { plan.disk_at() } else { add(plan.disk_at(), recipe.size, too_large)? };
    if total > i64::MAX.unsigned_abs() {
        return Err(too_large());
    }
    if total > FILE_MAX {
        return Err(Kind::TooBig.what("offset({}) exceeds maximum({})").arg(total).arg(FILE_MAX));
    }
    let made = plan.lock(site, is_apart)?;
    if header != site.file {
        site.extend(site.file, 0, recipe.size, how)?;
        site.extend(header, 0, total, Preallocation::Off)?;
    } else {
        site.extend(header, 0, total, how)?;
    }
    site.put_in(header, 0, &made.bytes[..])
}
