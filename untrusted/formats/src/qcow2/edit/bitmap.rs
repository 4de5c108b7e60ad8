//! Bitmaps: kept, and written anew.

use super::super::bitmaps::{
    BITMAP_LEN_MAX, Bitmap as Stored, ENTRIES_MAX, NAME_LEN_MAX, NAMES_LEN_MAX, TABLE_COUNT_MAX,
};
use super::super::clusters::Clusters;
use super::super::disk::BITMAP_ENTRY_OFFSET;
use super::super::disk::{
    BITMAP_AUTO, BITMAP_ENTRY_ONES, BITMAP_IN_USE, BITMAPS, Bitmap as DiskBitmap, Bitmaps, EXT_BITMAPS,
};
use super::super::extensions::{BITMAPS_MAX, DIRECTORY_LEN_MAX};
use super::super::front::Front;
use super::super::open::Layout;
use super::Editor;
use super::work::Work;
use alloc::vec;
use alloc::vec::Vec;
use instar_image::bitmap::{Bitmap, Wanted, broken};
use instar_image::num::{narrow, wide};
use instar_image::target::ReadBits;
use instar_image::{Bytes, Drive, Error, Freed, Kind, Result};
use zerocopy::IntoBytes;
use zerocopy::big_endian::{U16, U32, U64};

/// Fills bytes with bits, from a byte of them on.
pub type Read<'r> = &'r mut dyn FnMut(u64, &mut [u8]) -> Result<()>;

/// A bitmap whose bits lie somewhere.
pub struct Entry {
    pub name: Vec<u8>,
    pub granularity: u64,
    pub is_enabled: bool,
    pub is_broken: bool,
    pub table_at: u64,
    pub table_count: u32,
}

impl Entry {
    /// As it stands there.
    pub fn of(bitmap: &Stored) -> Entry {
        Entry::new(&bitmap.plain(), bitmap.table_at, bitmap.table_count)
    }

    /// Whose bits lie there.
    pub fn new(bitmap: &Bitmap, table_at: u64, table_count: u32) -> Entry {
        Entry {
            name: bitmap.name.clone(),
            granularity: bitmap.granularity,
            is_enabled: bitmap.is_enabled,
            is_broken: bitmap.is_broken,
            table_at,
            table_count,
        }
    }

    fn put(&self, directory: &mut Vec<u8>) {
        let flag = |is: bool, flag: u32| if is { flag } else { 0 };
        let entry = DiskBitmap {
            table_offset: U64::new(self.table_at),
            table_size: U32::new(self.table_count),
            flags: U32::new(flag(self.is_enabled, BITMAP_AUTO) | flag(self.is_broken, BITMAP_IN_USE)),
            kind: 1,
            granularity_bits: u8::try_from(self.granularity.trailing_zeros()).unwrap_or(0),
            name_size: U16::new(u16::try_from(self.name.len()).unwrap_or(u16::MAX)),
            extra_data_size: U32::new(0),
        };
        directory.extend_from_slice(entry.as_bytes());
        directory.extend_from_slice(&self.name);
        directory.resize(directory.len().next_multiple_of(8), 0);
    }
}

/// Bytes that the bits of a disk of this size take, in words of 64.
pub fn bits_len(size: u64, granularity: u64) -> u64 {
    size.div_ceil(granularity.max(1)).div_ceil(64).saturating_mul(8)
}

/// Whether an image that has these bitmaps can have another one, and if not, why qemu-img would say that it cannot.
pub fn may_add(layout: &Layout, all: &[Bitmap], new: &Bitmap) -> Result<()> {
    if all.iter().any(|bitmap| bitmap.name == new.name) {
        return Err(Kind::Unsupported.what("Bitmap already exists: {}").arg(new.name.as_slice()));
    }
    let refuse = |why: &str| {
        let words = [b"Can't make bitmap '{}' persistent in '{file}': ", why.as_bytes()].concat();
        Error { what: Bytes(words), ..Kind::TooBig.what("").arg(new.name.as_slice()) }
    };
    if layout.version < 3 {
        return Err(refuse("Cannot store dirty bitmaps in qcow2 v2 files"));
    }
    let clusters = |bitmap: &Bitmap| bits_len(layout.disk_size(), bitmap.granularity).div_ceil(layout.cluster_len);
    let own = clusters(new);
    if own > TABLE_COUNT_MAX.into() || own.saturating_mul(layout.cluster_len) > BITMAP_LEN_MAX {
        return Err(refuse("Too much space will be occupied by the bitmap. Use larger granularity"));
    }
    if wide(new.name.len()) > NAME_LEN_MAX {
        return Err(refuse("Name length exceeds maximum (1023 characters)"));
    }
    if all.len() >= narrow(BITMAPS_MAX.into()) {
        return Err(refuse("Maximum number of persistent bitmaps is already reached"));
    }
    let both = || all.iter().chain([new]);
    let entry = |bitmap: &Bitmap| wide(size_of::<DiskBitmap>().saturating_add(bitmap.name.len())).next_multiple_of(8);
    let sum = |of: &dyn Fn(&Bitmap) -> u64| both().map(of).fold(0, u64::saturating_add);
    if sum(&entry) > DIRECTORY_LEN_MAX {
        return Err(refuse("Not enough space in the bitmap directory"));
    }
    // What would not be read must not be written.
    if sum(&|bitmap| wide(bitmap.name.len())) > wide(NAMES_LEN_MAX) {
        return Err(refuse("the names of all bitmaps together are too long"));
    }
    if sum(&clusters) > ENTRIES_MAX {
        return Err(refuse("the tables of all bitmaps together are too large"));
    }
    Ok(())
}

/// Gives back what a bitmap has in the file.
fn drop_bits(clusters: &mut Clusters, drive: &dyn Drive, table_at: u64, table_count: u32) -> Result<()> {
    let len = u64::from(table_count).saturating_mul(8);
    let mut table = vec![0; narrow(len)];
    let at = clusters.place(table_at);
    clusters.draft.read(drive, at, &mut table)?;
    for word in table.as_chunks::<8>().0 {
        match u64::from_be_bytes(*word) & BITMAP_ENTRY_OFFSET {
            0 => {}
            host => clusters.release(drive, host, 1)?,
        }
    }
    if len == 0 { Ok(()) } else { clusters.release(drive, table_at, len) }
}

/// Where bitmaps are put.
pub struct Shelf<'s> {
    pub drive: &'s dyn Drive,
    /// Who gives out room for them.
    pub clusters: &'s mut Clusters,
    /// What makes them known.
    pub front: &'s mut Front,
}

impl Shelf<'_> {
    /// Writes the bits of a bitmap: where the table of its clusters lies, and how many entries that has.
    pub fn put_bits(&mut self, len: u64, read: Read<'_>) -> Result<(u64, u32)> {
        let cluster_len = self.clusters.len();
        let entries = len.div_ceil(cluster_len);
        let (mut table, mut bytes) = (Vec::new(), vec![0; narrow(cluster_len)]);
        for number in 0..entries {
            let at = number.saturating_mul(cluster_len);
            bytes.fill(0);
            read(at, bytes.get_mut(..narrow(len.saturating_sub(at).min(cluster_len))).unwrap_or_default())?;
            let word = if bytes.iter().all(|byte| *byte == 0) {
                0
            } else if bytes.iter().all(|byte| *byte == 0xff) {
                BITMAP_ENTRY_ONES
            } else {
                self.clusters.add(self.drive, &bytes)?
            };
            table.extend_from_slice(&word.to_be_bytes());
        }
        Ok((self.clusters.add(self.drive, &table)?, u32::try_from(entries).unwrap_or(u32::MAX)))
    }

    /// These are the bitmaps from now on.
    pub fn put_directory(&mut self, all: &[Entry]) -> Result<()> {
        let header = &mut self.front.header;
        if all.is_empty() {
            header.autoclear_features = (header.autoclear_features.get() & !BITMAPS).into();
            self.front.set(EXT_BITMAPS, None);
            return Ok(());
        }
        header.autoclear_features = (header.autoclear_features.get() | BITMAPS).into();
        let mut directory = Vec::new();
        all.iter().for_each(|entry| entry.put(&mut directory));
        let content = Bitmaps {
            nb_bitmaps: U32::new(u32::try_from(all.len()).unwrap_or(u32::MAX)),
            reserved: U32::new(0),
            directory_size: U64::new(wide(directory.len())),
            directory_offset: U64::new(self.clusters.add(self.drive, &directory)?),
        };
        self.front.set(EXT_BITMAPS, Some(content.as_bytes()));
        Ok(())
    }
}

impl Work<'_> {
    fn shelf(&mut self) -> Shelf<'_> {
        Shelf { drive: self.drive, clusters: &mut self.clusters, front: &mut self.front }
    }

    /// Gives back what a bitmap has in the file.
    pub fn drop_bits(&mut self, table_at: u64, table_count: u32) -> Result<()> {
        drop_bits(&mut self.clusters, self.drive, table_at, table_count)
    }
}

impl Editor<'_, '_> {
    /// These are the bitmaps of the image from now on, whatever it had before.
    pub fn replace_bitmaps(&self, work: &mut Work<'_>, all: &[Entry]) -> Result<()> {
        let old = self.image.checked.extensions.bitmaps.as_ref();
        old.map_or(Ok(()), |old| work.drop_table(old.at, old.len))?;
        work.shelf().put_directory(all)
    }

    /// The image has these bitmaps; `read` fills bytes with the bits of those that are new or others now. No count of
    /// what is in use changes before they are known, and so no count needs a copy.
    pub fn change_bitmaps(&self, drive: &dyn Drive, all: &[Wanted], read: ReadBits<'_>) -> Result<()> {
        let (image, checked) = (self.image, &self.image.checked);
        let (file, size) = (image.file.id(), checked.layout.disk_size());
        if size == 0 && !all.is_empty() {
            return Err(Kind::Unsupported.what("a disk of no bytes can have no bitmaps"));
        }
        let mut clusters = Clusters::open(&image.file, &checked.layout, image.has_room)?;
        clusters.keep_order(Freed::Lost);
        let mut front = Front::read(&image.file, &checked.layout)?;
        let mut shelf = Shelf { drive, clusters: &mut clusters, front: &mut front };
        let mut entries = Vec::new();
        for (number, Wanted { bitmap, kept }) in all.iter().enumerate() {
            let old = kept.and_then(|old| checked.bitmaps.get(old));
            let (table_at, table_count) = match old {
                Some(old) => (old.table_at, old.table_count),
                None => {
                    let len = bits_len(size, bitmap.granularity);
                    shelf.put_bits(len, &mut |at, bytes| read(number, at, bytes))?
                }
            };
            entries.push(Entry::new(bitmap, table_at, table_count));
        }
        shelf.put_directory(&entries)?;
        let end = clusters.place(clusters.end());
        if drive.length(file)? < end {
            drive.set_length(file, end)?;
        }
        clusters.settle(drive)?;
        drive.flush(file)?;
        front.set_refcounts(clusters.table());
        front.publish(drive)?;
        // Nothing leads to these any more.
        for (number, old) in checked.bitmaps.iter().enumerate() {
            if all.iter().all(|wanted| wanted.kept != Some(number)) {
                drop_bits(&mut clusters, drive, old.table_at, old.table_count)?;
            }
        }
        let old = checked.extensions.bitmaps.as_ref();
        old.map_or(Ok(()), |old| clusters.release(drive, old.at, old.len))?;
        clusters.settle(drive)?;
        drive.flush(file)
    }

    /// Refuses another size of the disk where it is not known what bitmaps say.
    pub fn know_bitmaps(&self) -> Result<()> {
        let mut all = self.image.checked.bitmaps.iter();
        all.find(|bitmap| bitmap.in_use).map_or(Ok(()), |bitmap| Err(broken(&bitmap.name)))
    }

    /// The bitmaps are about a disk of another size.
    pub fn fit_bitmaps(&self, work: &mut Work<'_>, size: u64) -> Result<()> {
        let checked = &self.image.checked;
        if checked.bitmaps.is_empty() {
            return Ok(());
        }
        let mut all = Vec::new();
        for bitmap in &checked.bitmaps {
            let end = size.div_ceil(bitmap.granularity);
            let (table_at, table_count) =
                work.shelf().put_bits(bits_len(size, bitmap.granularity), &mut |at, bytes| {
                    bitmap.read(&self.image.file, &checked.layout, at, bytes)?;
                    cut(at, bytes, end);
                    Ok(())
                })?;
            work.drop_bits(bitmap.table_at, bitmap.table_count)?;
            all.push(Entry { table_at, table_count, ..Entry::of(bitmap) });
        }
        self.replace_bitmaps(work, &all)
    }
}

/// Of bits that begin at byte `at`, those from bit `end` on are zero.
fn cut(at: u64, bytes: &mut [u8], end: u64) {
    let (whole, rest) = (narrow((end / 8).saturating_sub(at)), u32::try_from(end % 8).unwrap_or(0));
    let is_inside = end / 8 >= at;
    for byte in bytes.iter_mut().skip(whole.saturating_add(usize::from(is_inside && rest > 0))) {
        *byte = 0;
    }
    if is_inside && rest > 0 {
        let mask = (1u8 << rest).wrapping_sub(1);
        bytes.iter_mut().skip(whole).take(1).for_each(|byte| *byte &= mask);
    }
}
