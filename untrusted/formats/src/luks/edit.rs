//! Changes of a LUKS container that is there.

#[cfg(test)]
mod slot_tests;
#[cfg(test)]
mod tests;

use super::create::{ITER_TIME, iterations, material, pace};
use super::disk::{Header1, SLOT_COUNT, SLOT_DISABLED, SLOT_ENABLED, STRIPES, Slot1};
use super::open::Luks1;
use super::unlock::{needed, opened, spec};
use alloc::vec::Vec;
use core::mem::offset_of;
use instar_codec::cipher::{Suite, UNIT};
use instar_codec::hash::Hash;
use instar_image::edit::{Amended, Amendment};
use instar_image::num::{narrow, wide};
use instar_image::sector::round_up;
use instar_image::stretch::stretch;
use instar_image::{Chain, Drive, Edit, Error, File, Kind, Preallocation, Result, Secret};
use zerocopy::IntoBytes;

/// Bytes that are written at one moment.
const SECTOR: usize = 512;
/// The header in whole sectors.
const HEADER_LEN: usize = size_of::<Header1>().next_multiple_of(SECTOR);

/// A container that is changed.
pub struct Change<'i, 'a> {
    /// The file of its disk.
    pub file: &'i File<'a>,
    /// The file of its header.
    pub header: &'i File<'a>,
    /// The header, if it is one whose slots are known.
    pub luks: Option<&'i Luks1>,
    /// What opens it.
    pub key: Option<&'i Secret>,
    /// Where the disk begins there.
    pub payload_at: u64,
    /// What is encrypted as one, in bytes.
    pub unit: u64,
    /// The disk ends with the file.
    pub is_open: bool,
}

impl Edit for Change<'_, '_> {
    /// What is new reads as what zeroes decrypt to, as it is with qemu-img: whoever wants zeroes there has to write them.
    fn resize(&mut self, drive: &dyn Drive, size: u64, space: Preallocation, _below: &Chain<'_>) -> Result<u64> {
        if !self.is_open {
            return Err(Kind::Unsupported.what("the header of the container says how large its disk is"));
        }
        // What is longer than a sector has to be there as a whole.
        let size = if self.unit > 512 { size.next_multiple_of(self.unit) } else { size };
        stretch(drive, self.file.id(), self.payload_at.saturating_add(size), space)?;
        Ok(round_up(size))
    }

    fn amend(&mut self, drive: &dyn Drive, wish: &Amendment<'_>) -> Result<Amended> {
        let luks = self.luks.ok_or_else(|| refuse("the slots of a container of this version cannot be changed"))?;
        let slots = Slots::of(wish, "")?;
        change_slots(drive, self.header, luks, needed(self.key, self.header, "key-secret")?, &slots, wish)?;
        Ok(Amended::Done)
    }
}

/// What is to become of slots for keys.
pub struct Slots {
    is_active: bool,
    /// The one that is meant.
    number: Option<usize>,
    iter_time: u64,
    /// The new passphrase is told.
    is_told: bool,
}

fn refuse(words: &'static str) -> Error {
    Kind::Unsupported.what(words)
}

impl Slots {
    /// What is asked for by options with this prefix, if it makes sense.
    pub fn of(wish: &Amendment<'_>, prefix: &str) -> Result<Slots> {
        let text = |name: &str| wish.recipe.text(&[prefix, name].concat());
        let number = |name: &str| wish.recipe.number(&[prefix, name].concat());
        let is_active = match text("state") {
            Some(b"active") => true,
            Some(b"inactive") => false,
            Some(other) => {
                let words = "Parameter '{}' does not accept value '{}'";
                return Err(refuse(words).arg("state").arg(other));
            }
            None => return Err(refuse("Parameter 'state' is missing")),
        };
        let (new, old) = (text("new-secret"), text("old-secret"));
        let words = match is_active {
            true if new.is_none() => "'new-secret' is required to activate a keyslot",
            true if old.is_some() => "'old-secret' must not be given when activating keyslots",
            false if new.is_some() => "'new-secret' must not be given when erasing keyslots",
            false if number("iter-time").is_some() => "'iter-time' must not be given when erasing keyslots",
            _ => "",
        };
        if !words.is_empty() {
            return Err(refuse(words));
        }
        let slot = match number("keyslot") {
            Some(slot) if slot >= wide(SLOT_COUNT) => {
                let last = wide(SLOT_COUNT).saturating_sub(1);
                // qemu-img counts in 32 bits.
                let slot = slot & u64::from(u32::MAX);
                return Err(refuse("Invalid keyslot {} specified, must be between 0 and {}").arg(slot).arg(last));
            }
            slot => slot.map(narrow),
        };
        for (named, secret) in [(new, wish.new_secret), (old, wish.old_secret)] {
            if let (Some(name), None) = (named, secret) {
                return Err(Kind::Key.what("No secret with id '{}'").arg(name));
            }
        }
        let iter_time = number("iter-time").unwrap_or(ITER_TIME);
        Ok(Slots { is_active, number: slot, iter_time, is_told: old.is_some() })
    }
}

/// Does it: a slot is opened by nothing while its material is written.
pub fn change_slots(
    drive: &dyn Drive,
    header: &File<'_>,
    luks: &Luks1,
    key: &Secret,
    slots: &Slots,
    wish: &Amendment<'_>,
) -> Result<()> {
    let table = Table { drive, header, luks, bytes: header.read_vec(0, HEADER_LEN)? };
    if slots.is_active { table.activate(slots, key, wish) } else { table.erase(slots, wish) }
}

/// The slots of a container.
struct Table<'t, 'a> {
    drive: &'t dyn Drive,
    header: &'t File<'a>,
    luks: &'t Luks1,
    /// The header as it stands there.
    bytes: Vec<u8>,
}

/// What opens a slot, and what is kept in it.
struct Sealed {
    salt: [u8; 32],
    iterations: u32,
    material: Vec<u8>,
}

impl Table<'_, '_> {
    fn is_active(&self, number: usize) -> bool {
        self.luks.slots.get(number).is_some_and(|slot| slot.active.is_some())
    }

    fn active(&self) -> Vec<usize> {
        (0..SLOT_COUNT).filter(|number| self.is_active(*number)).collect()
    }

    fn free(&self) -> Option<usize> {
        (0..SLOT_COUNT).find(|number| !self.is_active(*number))
    }

    fn activate(mut self, slots: &Slots, key: &Secret, wish: &Amendment<'_>) -> Result<()> {
        let full = || refuse("Can't add a keyslot - all keyslots are in use");
        let number = slots.number.map_or_else(|| self.free().ok_or_else(full), Ok)?;
        let is_taken = self.is_active(number);
        if is_taken && !wish.is_forced {
            let words = "Refusing to overwrite active keyslot {} - please erase it first";
            return Err(refuse(words).arg(wide(number)));
        }
        let new = wish.new_secret.ok_or_else(|| refuse("Parameter 'new-secret' is missing"))?;
        let (master, _) = opened(self.header, self.luks, key, &|_| true)?;
        let wrong = || Kind::Key.what("Failed to retrieve the master key");
        let sealed = self.seal(&master.ok_or_else(wrong)?, new, slots.iter_time, wish).map_err(|error| {
            let mut what = error.what.clone();
            what.0.extend_from_slice(b"\nFailed to write to keyslot {}");
            Error { what, ..error }.arg(wide(number))
        })?;
        if !is_taken {
            return self.fill(number, &sealed);
        }
        // The one that is there may be the only one: the new key is kept in another until it is in its place.
        match self.free() {
            None => {
                self.close(&[number], wish)?;
                self.fill(number, &sealed)
            }
            Some(spare) => {
                self.fill(spare, &sealed)?;
                self.close(&[number], wish)?;
                self.fill(number, &sealed)?;
                self.close(&[spare], wish)
            }
        }
    }

    fn erase(mut self, slots: &Slots, wish: &Amendment<'_>) -> Result<()> {
        let active = self.active();
        let matches = |is_meant: &dyn Fn(usize) -> bool| match wish.old_secret.filter(|_| slots.is_told) {
            Some(old) => opened(self.header, self.luks, old, is_meant).map(|(_, all)| all),
            None => Ok(Vec::new()),
        };
        let Some(number) = slots.number else {
            if !slots.is_told {
                let words = "To erase keyslot(s), either explicit keyslot index or the password currently contained in \
                             them must be given";
                return Err(refuse(words));
            }
            let all = matches(&|_| true)?;
            if all.is_empty() {
                return Err(refuse("No keyslots match given (old) password for erase operation"));
            }
            if all.len() == active.len() && !wish.is_forced {
                let words = "All the active keyslots match the (old) password that was given and erasing them will \
                             erase all the data in the image irreversibly - refusing operation";
                return Err(refuse(words));
            }
            return self.close(&all, wish);
        };
        if slots.is_told && matches(&|slot| slot == number)?.is_empty() {
            let words = "Given keyslot {} doesn't contain the given old password for erase operation";
            return Err(refuse(words).arg(wide(number)));
        }
        if !wish.is_forced && !active.contains(&number) {
            return Err(refuse("Given keyslot {} is already erased (inactive) ").arg(wide(number)));
        }
        if !wish.is_forced && active.len() == 1 {
            let words = "Attempt to erase the only active keyslot {} which will erase all the data in the image \
                         irreversibly - refusing operation";
            return Err(refuse(words).arg(wide(number)));
        }
        self.close(&[number], wish)
    }

    fn seal(&self, master: &[u8], new: &Secret, iter_time: u64, wish: &Amendment<'_>) -> Result<Sealed> {
        let name = self.luks.hash;
        let hash = Hash::by_name(name.as_bytes());
        let hash = hash.ok_or_else(|| Kind::Unsupported.what("Hash algorithm '{}' not supported").arg(name))?;
        let spec = spec(&self.luks.suite);
        let unusable = || Kind::Unsupported.what("Encryption '{}' is not supported").arg(&spec[..]);
        let suite = Suite::parse(&spec).ok_or_else(unusable)?;
        let iterations = iterations(hash, pace(hash, self.drive)?, master.len(), iter_time, 1)?;
        let mut salt = [0; 32];
        wish.random.borrow_mut().fill(&mut salt);
        let stripes = wish.random(master.len().saturating_mul(narrow(STRIPES.into())));
        let material = material((hash, &suite), &new.0, (&salt, iterations), master, stripes).ok_or_else(unusable)?;
        Ok(Sealed { salt, iterations, material })
    }

    /// Gives a slot that is not active what it keeps, and makes it active then.
    fn fill(&mut self, number: usize, sealed: &Sealed) -> Result<()> {
        let Some(slot) = self.luks.slots.get(number) else { return Ok(()) };
        self.drive.write(self.header.place(slot.key_at), &sealed.material)?;
        let entry = |active: u32| Slot1 {
            active: active.into(),
            iterations: sealed.iterations.into(),
            salt: sealed.salt,
            key_material_offset: u32::try_from(slot.key_at / wide(SECTOR)).unwrap_or(u32::MAX).into(),
            stripes: STRIPES.into(),
        };
        // An entry may lie in two sectors: it says that it is active when all else is there.
        self.put(number, &entry(SLOT_DISABLED))?;
        self.put(number, &entry(SLOT_ENABLED))
    }

    /// Makes slots inactive, and wipes then what they have kept.
    fn close(&mut self, numbers: &[usize], wish: &Amendment<'_>) -> Result<()> {
        for number in numbers {
            let Some(slot) = self.luks.slots.get(*number) else { continue };
            let entry = Slot1 {
                active: SLOT_DISABLED.into(),
                iterations: 0.into(),
                salt: [0; 32],
                key_material_offset: u32::try_from(slot.key_at / wide(SECTOR)).unwrap_or(u32::MAX).into(),
                stripes: STRIPES.into(),
            };
            self.put(*number, &entry)?;
        }
        let len = narrow(u64::from(self.luks.key_len).saturating_mul(STRIPES.into())).next_multiple_of(UNIT);
        for number in numbers {
            let Some(slot) = self.luks.slots.get(*number) else { continue };
            self.drive.write(self.header.place(slot.key_at), &wish.random(len))?;
        }
        self.drive.flush(self.header.id())
    }

    /// Writes an entry; it says whether it is active in the sector that is written first.
    fn put(&mut self, number: usize, entry: &Slot1) -> Result<()> {
        self.drive.flush(self.header.id())?;
        let at = offset_of!(Header1, slots).saturating_add(number.saturating_mul(size_of::<Slot1>()));
        let room = self.bytes.get_mut(at..).unwrap_or_default();
        room.iter_mut().zip(entry.as_bytes()).for_each(|(to, from)| *to = *from);
        let (first, last) = (at / SECTOR, at.saturating_add(size_of::<Slot1>()).saturating_sub(1) / SECTOR);
        for sector in first..=last {
            let from = sector.saturating_mul(SECTOR);
            let bytes = self.bytes.get(from..from.saturating_add(SECTOR)).unwrap_or_default();
            self.drive.write(self.header.place(wide(from)), bytes)?;
            self.drive.flush(self.header.id())?;
        }
        Ok(())
    }
}
