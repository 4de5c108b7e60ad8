//! Bitmaps of an image that is written to: those that record what is written, and new ones.

use super::super::bitmaps;
use super::super::disk::{BITMAP_AUTO, BITMAP_ENTRY_OFFSET, BITMAP_ENTRY_ONES, BITMAP_IN_USE, Bitmap as DiskBitmap};
use super::super::edit::bitmap::{Entry, Shelf, bits_len, may_add};
use super::super::front::Front;
use super::super::open::{Checked, Layout};
use super::Writing;
use alloc::vec::Vec;
use core::mem::offset_of;
use core::ops::Range;
use instar_image::bitmap::Bitmap;
use instar_image::bits::{self, Order};
use instar_image::num::{split, wide};
use instar_image::target::ReadBits;
use instar_image::{Bytes, Drive, Error, File, Kind, Result, Target};

/// The bitmaps that an image has, and what leads to them.
pub struct Marks {
    layout: Layout,
    front: Front,
    known: Vec<Bitmap>,
    entries: Vec<Entry>,
    /// Where their directory lies, and its length.
    directory: Option<(u64, u64)>,
}

impl Marks {
    /// Of an image that is there.
    pub fn read(file: &File<'_>, checked: &Checked) -> Result<Marks> {
        Ok(Marks {
            layout: checked.layout.clone(),
            front: Front::read(file, &checked.layout)?,
            known: checked.bitmaps.iter().map(bitmaps::Bitmap::plain).collect(),
            entries: checked.bitmaps.iter().map(Entry::of).collect(),
            directory: checked.extensions.bitmaps.as_ref().map(|directory| (directory.at, directory.len)),
        })
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
                let (cluster, skip, left) = split(bit, self.cluster_len().saturating_mul(8));
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
        let (entry_at, len) = (self.place(entry_at), self.cluster_len());
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
        let at = self.place(host);
        bits::set(drive, &mut self.clusters.draft, at, skip..skip.saturating_add(count), Order::Low)
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

    /// Adds bitmaps, when all else has been written.
    pub fn add(&mut self, drive: &dyn Drive, new: &[Bitmap], read: ReadBits<'_>) -> Result<()> {
        let Some(Marks { layout, mut front, mut known, mut entries, directory }) = self.marks.take() else {
            return Err(Kind::Unsupported.what("bitmaps have been added already"));
        };
        if layout.version < 3 {
            return Err(Kind::Unsupported.what("Format driver 'qcow2' does not support bitmaps"));
        }
        for bitmap in new {
            let failed = |error: Error| {
                let words = ["Failed to create bitmap {0}: ".as_bytes(), &error.what.0].concat();
                Error { what: Bytes(words), ..error }
            };
            may_add(&layout, &known, bitmap).map_err(failed)?;
            known.push(bitmap.clone());
        }
        let mut shelf = Shelf { drive, clusters: &mut self.clusters, front: &mut front };
        for (number, bitmap) in new.iter().enumerate() {
            let len = bits_len(self.map.size, bitmap.granularity);
            let (table_at, table_count) = shelf.put_bits(len, &mut |at, bytes| read(number, at, bytes))?;
            entries.push(Entry::new(bitmap, table_at, table_count));
        }
        shelf.put_directory(&entries)?;
        self.is_changed = true;
        self.records.all.clear();
        self.records.are_open = false;
        if self.clusters.draft.is_ordered() {
            // All that the new directory leads to is there before it is known, what is recorded in older ones as well.
            Target::settle(self, drive)?;
            drive.flush(self.map.tables.file)?;
            front.set_refcounts(self.clusters.table());
            front.publish(drive)?;
        } else {
            front.set_refcounts(self.clusters.table());
            self.clusters.draft.put(drive, self.map.tables.at, &front.whole()?)?;
        }
        directory.map_or(Ok(()), |(at, len)| self.clusters.release(drive, at, len))
    }
}
