//! Changes of an image that is there: header extensions, and what they lead to.

mod amend;
mod bitmap;
mod link;
mod mend;
mod rebuild;
mod remake;
mod repair;
mod resize;
mod snapshot;
#[cfg(test)]
mod tests;
mod tree;
mod work;

pub use mend::Mend;
pub use repair::repair;

use super::Qcow2Image;
use super::bitmaps;
use super::disk::{
    BITMAP_AUTO, BITMAP_ENTRY_OFFSET, BITMAP_ENTRY_ONES, BITMAP_IN_USE, BITMAPS, Bitmap as DiskBitmap, Bitmaps,
    EXT_BITMAPS, Extension, Header,
};
use super::extensions::{self, Directory};
use super::open::{L1_LEN_MAX, Layout};
use super::reserve::Writing;
use alloc::vec;
use alloc::vec::Vec;
use core::mem::offset_of;
use core::ops::Range;
use instar_image::bitmap::Bitmap;
use instar_image::edit::{Amended, Amendment, Footing, NewSnapshot};
use instar_image::num::{split, wide};
use instar_image::target::ReadBits;
use instar_image::{Below, Drive, Edit, Error, File, Kind, Place, Preallocation, Result};
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// The most entries of an L1 table.
const L1_ENTRIES_MAX: u64 = L1_LEN_MAX / 8;

/// Whoever changes an image that is there.
pub struct Editor<'e, 'a> {
    /// The image.
    pub image: &'e Qcow2Image<'a>,
}

impl Edit for Editor<'_, '_> {
    fn resize(&mut self, drive: &dyn Drive, size: u64, space: Preallocation, below: &Below<'_>) -> Result<u64> {
        self.set_size(drive, size, space, below)
    }

    fn amend(&mut self, drive: &dyn Drive, wish: &Amendment<'_>) -> Result<Amended> {
        self.set_options(drive, wish)
    }

    fn take_snapshot(&mut self, drive: &dyn Drive, new: &NewSnapshot<'_>) -> Result<()> {
        self.take(drive, new)
    }

    fn apply_snapshot(&mut self, drive: &dyn Drive, number: usize) -> Result<()> {
        self.apply(drive, number)
    }

    fn delete_snapshot(&mut self, drive: &dyn Drive, number: usize) -> Result<()> {
        self.delete(drive, number)
    }

    fn stand_on(&mut self, drive: &dyn Drive, footing: &Footing<'_>) -> Result<()> {
        Editor::stand_on(self, drive, footing)
    }

    fn empty(&mut self, drive: &dyn Drive) -> Result<()> {
        Editor::empty(self, drive)
    }
}

/// The most bitmaps that an image can have.
const BITMAPS_MAX: usize = 65535;

/// Bytes of bits that are set at once.
const ONES_LEN: u64 = 4096;

/// The parts of an image that are not about the disk, as they are found in its file.
pub struct Head {
    /// Header, extensions, and the name of the backing file.
    bytes: Vec<u8>,
    extensions_at: usize,
    cluster_len: u64,
    is_v3: bool,
    /// The directory of bitmaps, as it stands there, and how many it has.
    bitmaps: Vec<u8>,
    bitmap_count: usize,
    names: Vec<Vec<u8>>,
}

fn no_room() -> Error {
    Kind::TooBig.what("the header has no room for what is to be said in it")
}

impl Head {
    /// Of an image that is there.
    pub fn read(
        file: &File<'_>,
        layout: &Layout,
        directory: Option<&Directory>,
        known: &[bitmaps::Bitmap],
    ) -> Result<Head> {
        let len = usize::try_from(layout.cluster_len).unwrap_or(0);
        let directory_len = directory.map_or(0, |directory| usize::try_from(directory.len).unwrap_or(0));
        let bitmaps = directory.map(|directory| file.read_vec(directory.at, directory_len)).transpose()?;
        Ok(Head {
            bytes: file.read_vec(0, len)?,
            extensions_at: usize::try_from(layout.extensions_at).unwrap_or(0),
            cluster_len: layout.cluster_len,
            is_v3: layout.version >= 3,
            bitmaps: bitmaps.unwrap_or_default(),
            bitmap_count: known.len(),
            names: known.iter().map(|bitmap| bitmap.name.clone()).collect(),
        })
    }

    /// All extensions, with what each says.
    fn extensions(&self) -> Vec<(u32, Vec<u8>)> {
        let mut all = Vec::new();
        let mut rest = self.bytes.get(self.extensions_at..).unwrap_or_default();
        while let Ok((head, after)) = Extension::read_from_prefix(rest) {
            let len = usize::try_from(head.len.get()).unwrap_or(usize::MAX);
            if head.magic.get() == 0 {
                break;
            }
            let Some(content) = after.get(..len) else { break };
            all.push((head.magic.get(), content.to_vec()));
            rest = after.get(len.next_multiple_of(8)..).unwrap_or_default();
        }
        all
    }

    /// The header with an extension that says this, whatever it said before.
    fn with(&self, magic: u32, content: &[u8], change: impl FnOnce(&mut Header)) -> Result<Vec<u8>> {
        let mut header = Header::new_zeroed();
        let own = self.bytes.get(..self.extensions_at).unwrap_or_default();
        header.as_mut_bytes().iter_mut().zip(own).for_each(|(to, from)| *to = *from);
        let name_at = usize::try_from(header.backing_file_offset.get()).unwrap_or(0);
        let name_len = usize::try_from(header.backing_file_size.get()).unwrap_or(0);
        let name = if name_at == 0 { &[] } else { self.bytes.get(name_at..).unwrap_or_default() };
        let name = name.get(..name_len).unwrap_or_default();
        let mut behind = Vec::new();
        let mut add = |magic: u32, content: &[u8]| extensions::add(&mut behind, magic, content);
        self.extensions().iter().filter(|(known, _)| *known != magic).for_each(|(magic, content)| add(*magic, content));
        add(magic, content);
        add(0, &[]);
        if !name.is_empty() {
            header.backing_file_offset = U64::new(wide(self.extensions_at.saturating_add(behind.len())));
        }
        change(&mut header);
        let mut bytes = own.to_vec();
        bytes.iter_mut().zip(header.as_bytes()).for_each(|(to, from)| *to = *from);
        bytes.extend(behind);
        bytes.extend_from_slice(name);
        if bytes.len() as u64 > self.cluster_len {
            return Err(no_room());
        }
        bytes.resize(self.bytes.len(), 0);
        Ok(bytes)
    }
}

/// The bitmaps that record what is written.
pub struct Records {
    all: Vec<Record>,
    /// They are known not to be saved yet.
    are_open: bool,
    /// All of this has been recorded.
    known: Range<u64>,
}

#[derive(Clone, Copy)]
struct Record {
    /// Where its flags stand in the image.
    flags_at: u64,
    table_at: u64,
    granularity: u64,
}

impl Records {
    /// Those of these that are sound and enabled.
    pub fn of(bitmaps: &[bitmaps::Bitmap]) -> Records {
        let of = |bitmap: &bitmaps::Bitmap| Record {
            flags_at: bitmap.at.saturating_add(wide(offset_of!(DiskBitmap, flags))),
            table_at: bitmap.table_at,
            granularity: bitmap.granularity,
        };
        let all = bitmaps.iter().filter(|bitmap| bitmap.auto && !bitmap.in_use).map(of).collect();
        Records { all, are_open: false, known: 0..0 }
    }
}

impl Writing {
    /// Records that a range is written to.
    pub fn record(&mut self, drive: &dyn Drive, at: u64, len: u64) -> Result<()> {
        let (end, known) = (at.saturating_add(len).min(self.map.size), &self.records.known);
        if at >= end || self.records.all.is_empty() || (known.start <= at && end <= known.end) {
            return Ok(());
        }
        if !core::mem::replace(&mut self.records.are_open, true) {
            // Whatever happens from now on, nobody must take them for whole.
            self.flag(drive, BITMAP_AUTO | BITMAP_IN_USE)?;
        }
        for number in 0..self.records.all.len() {
            let Some(record) = self.records.all.get(number).copied() else { continue };
            let (mut bit, end) = (at / record.granularity.max(1), end.div_ceil(record.granularity.max(1)));
            while bit < end {
                let (cluster, skip, left) = split(bit, self.head.cluster_len.saturating_mul(8));
                let count = left.min(end.saturating_sub(bit));
                self.record_in(drive, record.table_at.saturating_add(cluster.saturating_mul(8)), skip, count)?;
                bit = bit.saturating_add(count);
            }
        }
        self.is_changed = true;
        self.records.known = if at == self.records.known.end { self.records.known.start..end } else { at..end };
        Ok(())
    }

    /// Sets bits in the cluster that an entry of a bitmap's table leads to.
    fn record_in(&mut self, drive: &dyn Drive, entry_at: u64, skip: u64, count: u64) -> Result<()> {
        let (entry_at, len) = (self.place(entry_at), self.head.cluster_len);
        let word = u64::from_be_bytes(self.clusters.draft.get(drive, entry_at)?);
        let old = word & BITMAP_ENTRY_OFFSET;
        if old == 0 && word & BITMAP_ENTRY_ONES != 0 {
            return Ok(());
        }
        if count >= len.saturating_mul(8) {
            self.clusters.draft.link(drive, entry_at, &BITMAP_ENTRY_ONES.to_be_bytes())?;
            return if old == 0 { Ok(()) } else { self.clusters.release(drive, old, len) };
        }
        let host = if old == 0 { self.clusters.claim(drive, 1)? } else { old };
        if old == 0 {
            self.clusters.draft.blank(drive, self.place(host), len)?;
            self.clusters.draft.link(drive, entry_at, &host.to_be_bytes())?;
        }
        let (mut bit, end) = (skip, skip.saturating_add(count));
        while bit < end {
            let at = self.place(host.saturating_add(bit / 8));
            let whole = end.saturating_sub(bit) / 8;
            if bit.is_multiple_of(8) && whole > 0 {
                let bytes = whole.min(ONES_LEN);
                self.clusters.draft.put(drive, at, &vec![0xff; usize::try_from(bytes).unwrap_or(0)])?;
                bit = bit.saturating_add(bytes.saturating_mul(8));
                continue;
            }
            let [byte] = self.clusters.draft.get(drive, at)?;
            self.clusters.draft.put(drive, at, &[byte | 1u8.wrapping_shl(u32::try_from(bit % 8).unwrap_or(0))])?;
            bit = bit.saturating_add(1);
        }
        Ok(())
    }

    /// All that was recorded is in the file: the bitmaps are whole again.
    pub fn end_records(&mut self, drive: &dyn Drive) -> Result<()> {
        if !core::mem::replace(&mut self.records.are_open, false) {
            return Ok(());
        }
        self.flag(drive, BITMAP_AUTO)
    }

    /// Has all of them bear these flags, from now on.
    fn flag(&mut self, drive: &dyn Drive, flags: u32) -> Result<()> {
        for number in 0..self.records.all.len() {
            let Some(record) = self.records.all.get(number).copied() else { continue };
            let at = self.place(record.flags_at);
            self.clusters.draft.put(drive, at, &flags.to_be_bytes())?;
        }
        self.clusters.draft.flush(drive)?;
        if self.clusters.draft.is_ordered() { drive.flush(self.map.tables.file) } else { Ok(()) }
    }

    /// Adds bitmaps; `read` fills bytes with the bits of the one with that number, from a byte on.
    pub fn add_bitmaps(&mut self, drive: &dyn Drive, new: &[Bitmap], read: ReadBits<'_>) -> Result<()> {
        if !self.head.is_v3 {
            return Err(Kind::Unsupported.what("Format driver 'qcow2' does not support bitmaps"));
        }
        let count = self.head.bitmap_count.saturating_add(new.len());
        if count > BITMAPS_MAX {
            return Err(Kind::TooBig.what("there are too many bitmaps"));
        }
        let mut directory = self.head.bitmaps.clone();
        for (number, bitmap) in new.iter().enumerate() {
            if self.head.names.contains(&bitmap.name) {
                let words = "Failed to create bitmap {}: Bitmap already exists: {}";
                return Err(Kind::Unsupported.what(words).arg(bitmap.name.as_slice()).arg(bitmap.name.as_slice()));
            }
            let (table_at, entries) = self.bits(drive, bitmap, &mut |at, bytes| read(number, at, bytes))?;
            let entry = DiskBitmap {
                table_offset: U64::new(table_at),
                table_size: U32::new(u32::try_from(entries).unwrap_or(u32::MAX)),
                flags: U32::new(if bitmap.is_enabled { BITMAP_AUTO } else { 0 }),
                kind: 1,
                granularity_bits: u8::try_from(bitmap.granularity.trailing_zeros()).unwrap_or(0),
                name_size: U16::new(u16::try_from(bitmap.name.len()).unwrap_or(u16::MAX)),
                extra_data_size: U32::new(0),
            };
            directory.extend_from_slice(entry.as_bytes());
            directory.extend_from_slice(&bitmap.name);
            directory.resize(directory.len().next_multiple_of(8), 0);
        }
        let len = directory.len() as u64;
        let at = self.clusters.claim(drive, len.div_ceil(self.head.cluster_len))?;
        drive.write(self.map.tables.ahead(at), &directory)?;
        let content = Bitmaps {
            nb_bitmaps: U32::new(u32::try_from(count).unwrap_or(u32::MAX)),
            reserved: U32::new(0),
            directory_size: U64::new(len),
            directory_offset: U64::new(at),
        };
        let (table_at, table_clusters) = self.clusters.table();
        let bytes = self.head.with(EXT_BITMAPS, content.as_bytes(), |header| {
            header.autoclear_features = U64::new(header.autoclear_features.get() | BITMAPS);
            header.refcount_table_offset = U64::new(table_at);
            header.refcount_table_clusters = U32::new(u32::try_from(table_clusters).unwrap_or(u32::MAX));
        })?;
        self.is_changed = true;
        self.clusters.draft.put(drive, self.map.tables.at, &bytes)
    }

    /// Writes the bits of a bitmap: where the table of its clusters lies, and how many entries that has.
    fn bits(
        &mut self,
        drive: &dyn Drive,
        bitmap: &Bitmap,
        read: &mut dyn FnMut(u64, &mut [u8]) -> Result<()>,
    ) -> Result<(u64, u64)> {
        let cluster_len = self.head.cluster_len;
        // The bits are kept in words of 64.
        let len = bitmap.len(self.map.size).next_multiple_of(8);
        let entries = len.div_ceil(cluster_len);
        let mut table = Vec::new();
        let mut bytes = vec![0; usize::try_from(cluster_len).unwrap_or(0)];
        for number in 0..entries {
            let at = number.saturating_mul(cluster_len);
            let have = usize::try_from(len.saturating_sub(at).min(cluster_len)).unwrap_or(0);
            bytes.fill(0);
            read(at, bytes.get_mut(..have).unwrap_or_default())?;
            let word = if bytes.iter().all(|byte| *byte == 0) {
                0
            } else if bytes.iter().all(|byte| *byte == 0xff) {
                BITMAP_ENTRY_ONES
            } else {
                let host = self.clusters.claim(drive, 1)?;
                drive.write(self.map.tables.ahead(host), &bytes)?;
                host
            };
            table.extend_from_slice(&word.to_be_bytes());
        }
        let at = self.clusters.claim(drive, (table.len() as u64).div_ceil(cluster_len))?;
        let place: Place = self.map.tables.ahead(at);
        drive.write(place, &table)?;
        Ok((at, entries))
    }
}
