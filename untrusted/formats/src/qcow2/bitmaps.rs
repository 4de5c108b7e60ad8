//! The persistent bitmaps of a qcow2 image: their directory, and what must hold before they are believed.

use super::disk::{
    BITMAP_AUTO, BITMAP_ENTRY_OFFSET, BITMAP_ENTRY_ONES, BITMAP_ENTRY_RESERVED, BITMAP_IN_USE, Bitmap as DiskBitmap,
};
use super::extensions::Directory;
use super::open::Layout;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use instar_image::num::bounded;
use instar_image::num::{power, split, wide};
use instar_image::sector::readable;
use instar_image::text::until_nul;
use instar_image::{Error, Fact, File, Kind, Result};
use zerocopy::IntoBytes;
use zerocopy::big_endian::U64;

/// The longest name of a bitmap.
pub const NAME_LEN_MAX: u64 = 1023;
/// The most clusters that qemu-img accepts for one bitmap.
pub const TABLE_COUNT_MAX: u32 = 0x0800_0000;
/// The most bytes that qemu-img accepts for one bitmap.
pub const BITMAP_LEN_MAX: u64 = 512 << 20;
/// All names together; far beyond any use, and short enough to keep in memory.
pub const NAMES_LEN_MAX: usize = 8 << 20;
/// Entries of all tables together that are looked at; far beyond any use.
pub const ENTRIES_MAX: u64 = 32 << 20;
/// Tables are read in pieces of so many entries.
const PIECE_COUNT: usize = 8 << 10;

/// A checked bitmap.
pub struct Bitmap {
    /// Where its entry in the directory lies.
    pub at: u64,
    /// Its name.
    pub name: Vec<u8>,
    /// Where its table of clusters lies.
    pub table_at: u64,
    /// Entries of that table.
    pub table_count: u32,
    /// It was not saved properly.
    pub in_use: bool,
    /// It records all writes from now on.
    pub auto: bool,
    /// How many bytes one bit stands for.
    pub granularity: u64,
}

impl Bitmap {
    /// The same, as bitmaps of all formats are told.
    pub fn plain(&self) -> instar_image::bitmap::Bitmap {
        instar_image::bitmap::Bitmap {
            name: self.name.clone(),
            granularity: self.granularity,
            is_enabled: self.auto,
            is_broken: self.in_use,
        }
    }

    /// The facts that qemu-img tells of it.
    pub fn facts(&self) -> Fact {
        let flags = [(self.in_use, "in-use"), (self.auto, "auto")];
        let flags: Vec<Fact> = flags.into_iter().filter(|(set, _)| *set).map(|(_, name)| name.into()).collect();
        Fact::fields([
            ("flags", flags.into()),
            ("name", self.name.as_slice().into()),
            ("granularity", self.granularity.into()),
        ])
    }
}

/// Reads the directory, then checks every bitmap that should be in order.
pub fn load(file: &File<'_>, directory: &Directory, layout: &Layout) -> Result<Vec<Bitmap>> {
    let bitmaps = read_directory(file, directory, layout)?;
    let mut names = BTreeSet::new();
    let mut entries = 0u64;
    for bitmap in &bitmaps {
        let fresh = names.insert(bitmap.name.as_slice());
        // qemu-img does not look into bitmaps that are known to be inconsistent.
        if bitmap.in_use {
            continue;
        }
        if !fresh {
            let phrase = "Bitmap already exists: {}";
            return Err(Kind::Corrupt.what(phrase).file(file.id()).arg(bitmap.name.as_slice()));
        }
        entries = entries.saturating_add(bitmap.table_count.into());
        if entries > ENTRIES_MAX {
            return Err(Kind::TooBig.what("the tables of all bitmaps together are too large").file(file.id()));
        }
        bitmap.check(file, layout)?;
    }
    Ok(bitmaps)
}

fn read_directory(file: &File<'_>, directory: &Directory, layout: &Layout) -> Result<Vec<Bitmap>> {
    let refuse = |phrase: &'static str| -> Error { Kind::Corrupt.what(phrase).file(file.id()) };
    if directory.len == 0 {
        return Err(refuse("Requested bitmap directory size is zero"));
    }
    if !readable(directory.at, directory.len) {
        return Err(refuse("Failed to read bitmap directory: Input/output error"));
    }
    let end = directory.at.saturating_add(directory.len);
    let count = usize::try_from(directory.count).unwrap_or(usize::MAX);
    let mut bitmaps = Vec::new();
    let mut names_len = 0usize;
    let mut at = directory.at;
    while at < end {
        if end.saturating_sub(at) < 24 {
            return Err(refuse("Broken bitmap directory"));
        }
        let entry: DiskBitmap = file.read_as(at)?;
        let next = entry_end(at, &entry);
        if next.is_some_and(|next| next > end) {
            return Err(refuse("Broken bitmap directory"));
        }
        if bitmaps.len() >= count {
            return Err(refuse("More bitmaps found than specified in header extension"));
        }
        let (0, Some(next)) = (entry.extra_data_size.get(), next) else {
            return Err(refuse("Bitmap extra data is not supported"));
        };
        let len = usize::from(entry.name_size.get());
        let name = until_nul(&file.read_vec(at.saturating_add(24), len)?).to_vec();
        if !satisfies(&entry, layout) {
            return Err(refuse("Bitmap '{}' doesn't satisfy the constraints").arg(name.as_slice()));
        }
        names_len = names_len.saturating_add(name.len());
        if names_len > NAMES_LEN_MAX {
            return Err(Kind::TooBig.what("the names of all bitmaps together are too long").file(file.id()));
        }
        bitmaps.push(Bitmap::new(at, &entry, name));
        at = next;
    }
    if bitmaps.len() != count {
        return Err(refuse("Less bitmaps found than specified in header extension"));
    }
    Ok(bitmaps)
}

/// Where the next entry begins. qemu-img reckons in 32 bits with a sign, so that an entry may seem to end before it
/// begins; it is one with extra data then, and refused for that.
fn entry_end(at: u64, entry: &DiskBitmap) -> Option<u64> {
    let name_len = u64::from(entry.name_size.get());
    let len = u64::from(entry.extra_data_size.get()).saturating_add(name_len).saturating_add(24).next_multiple_of(8);
    let len = i32::try_from(len & u64::from(u32::MAX)).ok()?;
    Some(at.saturating_add(u64::try_from(len).ok()?))
}

fn satisfies(entry: &DiskBitmap, layout: &Layout) -> bool {
    let table_at = entry.table_offset.get();
    let count = entry.table_size.get();
    let len = u64::from(count).saturating_mul(layout.cluster_len);
    let bits = u32::from(entry.granularity_bits);
    let well_formed = count != 0
        && count <= TABLE_COUNT_MAX
        && table_at != 0
        && table_at.is_multiple_of(layout.cluster_len)
        && len <= BITMAP_LEN_MAX
        && (9..=31).contains(&bits)
        && entry.flags.get() & !(BITMAP_IN_USE | BITMAP_AUTO) == 0
        && entry.kind == 1
        && u64::from(entry.name_size.get()) <= NAME_LEN_MAX;
    well_formed && layout.disk_size() <= len.saturating_mul(8).saturating_mul(power(bits))
}

impl Bitmap {
    fn new(at: u64, entry: &DiskBitmap, name: Vec<u8>) -> Bitmap {
        Bitmap {
            at,
            name,
            table_at: entry.table_offset.get(),
            table_count: entry.table_size.get(),
            in_use: entry.flags.get() & BITMAP_IN_USE != 0,
            auto: entry.flags.get() & BITMAP_AUTO != 0,
            granularity: power(entry.granularity_bits.into()),
        }
    }

    /// Fills `bytes` with bits, from byte `at` of all of them on; what lies behind the last is zero.
    pub fn read(&self, file: &File<'_>, layout: &Layout, at: u64, bytes: &mut [u8]) -> Result<()> {
        let (mut at, mut rest) = (at, bytes);
        while !rest.is_empty() {
            let (number, skip, left) = split(at, layout.cluster_len);
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
            let (now, then) = rest.split_at_mut(len);
            let word = match number < u64::from(self.table_count) {
                true => file.read_as::<U64>(self.table_at.saturating_add(number.saturating_mul(8)))?.get(),
                false => 0,
            };
            match word & BITMAP_ENTRY_OFFSET {
                0 => now.fill(if word & BITMAP_ENTRY_ONES != 0 { 0xff } else { 0 }),
                host => file.read(host.saturating_add(skip), now)?,
            }
            (at, rest) = (at.saturating_add(wide(len)), then);
        }
        Ok(())
    }

    /// The table must be sound, and as long as the disk makes it.
    fn check(&self, file: &File<'_>, layout: &Layout) -> Result<()> {
        let refuse =
            |kind: Kind, phrase: &'static str| -> Error { kind.what(phrase).file(file.id()).arg(self.name.as_slice()) };
        let unreadable = "Could not read bitmap_table table from image for bitmap '{}': Input/output error";
        let unsound = "Could not read bitmap_table table from image for bitmap '{}': Invalid argument";
        if !readable(self.table_at, u64::from(self.table_count).saturating_mul(8)) {
            return Err(refuse(Kind::Io, unreadable));
        }
        let mut left = bounded(self.table_count.into(), TABLE_COUNT_MAX.into(), || refuse(Kind::TooBig, unsound))?;
        let mut at = self.table_at;
        let mut piece = alloc::vec![U64::new(0); left.min(PIECE_COUNT)];
        while left > 0 {
            let count = left.min(PIECE_COUNT);
            let part = piece.get_mut(..count).unwrap_or_default();
            file.read(at, part.as_mut_bytes())?;
            if !part.iter().all(|entry| is_sound(entry.get(), layout.cluster_len)) {
                return Err(refuse(Kind::Corrupt, unsound));
            }
            at = at.saturating_add(u64::try_from(part.as_bytes().len()).unwrap_or(0));
            left = left.saturating_sub(count);
        }
        // A bit for every piece of the disk, in words of 64 bits, in whole clusters.
        let words = layout.disk_size().div_ceil(self.granularity).div_ceil(64);
        if words.saturating_mul(8).div_ceil(layout.cluster_len) != u64::from(self.table_count) {
            return Err(refuse(Kind::Corrupt, "Could not read bitmap '{}' from image: Invalid argument"));
        }
        Ok(())
    }
}

fn is_sound(entry: u64, cluster_len: u64) -> bool {
    let at = entry & BITMAP_ENTRY_OFFSET;
    entry & BITMAP_ENTRY_RESERVED == 0 && at.is_multiple_of(cluster_len) && (at == 0 || entry & BITMAP_ENTRY_ONES == 0)
}
