//! What a VHDX differs from: an item of its metadata. A new one is put where the metadata have room, and the sector of
//! their table that leads to all items is turned over.

use super::{Change, Sizing};
use crate::vhdx::disk::{
    FILE_PARAMETERS, FULLY_PRESENT, HAS_PARENT, ITEM_REQUIRED, Item, LEAVE_ALLOCATED, MetadataHead, NOT_PRESENT,
    OFFSET_MASK, PARENT_LOCATOR, PARTIALLY_PRESENT, STATE_MASK,
};
use crate::vhdx::open::{head, invalid, table_count};
use crate::vhdx::parent::Below;
use alloc::vec;
use alloc::vec::Vec;
use core::mem::size_of;
use instar_image::bits::{Order, alike};
use instar_image::edit::Footing;
use instar_image::num::{narrow, split, wide};
use instar_image::sector::SECTOR;
use instar_image::{Drive, File, Kind, Result, Role};
use zerocopy::{FromZeros, IntoBytes};

/// Where items begin, counted from their table.
const ITEMS_AT: u64 = 0x1_0000;
/// Items that a sector of the table has room for.
const ITEMS_MAX: usize = 15;
/// Items begin at multiples of this.
const ITEM_ALIGN: u64 = 8;
/// Bytes of a bitmap that are looked at once.
const PIECE: usize = 4096;

impl Change<'_, '_> {
    /// What the disk is to stand on, if that is to change.
    pub(super) fn footing(&self, footing: &Footing<'_>) -> Result<Option<Option<Below>>> {
        let refused = |words: &'static str| Kind::Unsupported.what(words).file(self.file.id());
        let metadata = &self.checked.metadata;
        if footing.format.is_some_and(|format| !footing.name.is_empty() && format != b"vhdx") {
            return Err(refused("a VHDX can only differ from another VHDX"));
        }
        let below = match (footing.name, footing.below) {
            ([], _) if metadata.parent.is_none() => return Ok(None),
            ([], _) => return Ok(Some(None)),
            (name, Some(below)) => Below::known(name, below)?,
            (name, None) => self.unseen(name)?,
        };
        if below.sector != u64::from(metadata.logical_sector) {
            return Err(refused("a VHDX can only differ from another one with sectors of the same length"));
        }
        if metadata.parent.is_none() {
            let span = self.checked.regions.iter().find(|region| region.start == self.checked.table_at);
            let has_room = span.map_or(0, |span| span.end.saturating_sub(span.start));
            let block_len = metadata.block_len.into();
            let count = table_count(self.checked.virtual_size, block_len, self.checked.chunk_ratio, true);
            if metadata.leave_allocated || count.saturating_mul(super::ENTRY_LEN) > has_room {
                return Err(refused("this VHDX has no room for what differs from another one"));
            }
        }
        Ok(Some(Some(below)))
    }

    /// Another disk that nobody has looked at.
    fn unseen(&self, name: &[u8]) -> Result<Below> {
        let granted = self.file.related(Role::Parent, name)?;
        let below = File::new(self.file.io(), &granted);
        let header = head(&below).map_err(|error| match error.kind {
            Kind::NotThisFormat => Kind::NotThisFormat.what("the parent of a VHDX is not a VHDX").file(granted.id),
            _ => error.file(granted.id),
        })?;
        Below::new(name, &header.data_write_guid, self.checked.metadata.logical_sector.into())
    }

    pub(super) fn turn(&self, drive: &dyn Drive, below: Option<&Below>) -> Result<()> {
        let mut sizing = self.sizing(drive, self.checked.virtual_size)?;
        if below.is_none() {
            sizing.complete()?;
        }
        sizing.name(below)?;
        if below.is_none() { sizing.release() } else { Ok(()) }
    }

    pub(super) fn clear(&self, drive: &dyn Drive) -> Result<()> {
        let mut sizing = self.sizing(drive, self.checked.virtual_size)?;
        // As long as a block has some of its sectors, the bitmap says which.
        for is_bitmap in [false, true] {
            for index in 0..self.checked.table_count {
                if sizing.is_bitmap(index) == is_bitmap && sizing.get(index)? != NOT_PRESENT {
                    sizing.put(index, NOT_PRESENT)?;
                }
            }
            sizing.write_link()?;
        }
        sizing.cut()
    }
}

impl Sizing<'_, '_> {
    /// Blocks of which only some sectors are here get zeroes for all others.
    fn complete(&mut self) -> Result<()> {
        let mut partial = Vec::new();
        for index in 0..self.checked.table_count {
            let entry = self.get(index)?;
            if !self.is_bitmap(index) && entry & STATE_MASK == PARTIALLY_PRESENT {
                self.complete_block(index, entry & OFFSET_MASK)?;
                partial.push((index, entry & OFFSET_MASK | FULLY_PRESENT));
            }
        }
        self.drive.flush(self.file.id())?;
        for (index, entry) in partial {
            self.put(index, entry)?;
        }
        self.write_link()
    }

    fn complete_block(&mut self, index: u64, at: u64) -> Result<()> {
        let sector = u64::from(self.checked.metadata.logical_sector).max(1);
        let count = self.block_len().checked_div(sector).unwrap_or(0);
        let (chunk, number, _) = split(index, self.checked.chunk_ratio.saturating_add(1));
        let entry = self.get(self.bitmap_index(chunk))?;
        if entry & STATE_MASK != FULLY_PRESENT {
            let words = "some sectors of a block are in the file, but it is not said which";
            return Err(Kind::Corrupt.what(words).file(self.file.id()));
        }
        let first = number.saturating_mul(count) / 8;
        let bitmap = self.place((entry & OFFSET_MASK).saturating_add(first)).at;
        let mut done = 0;
        while done < count {
            let left = narrow(count.saturating_sub(done).div_ceil(8));
            let mut bytes = vec![[0u8; 1]; left.min(PIECE)];
            self.draft.read(self.drive, bitmap.saturating_add(done / 8), bytes.as_mut_bytes())?;
            let (is_here, run) = alike(&bytes, u32::try_from(done % 8).unwrap_or(0), Order::Low);
            let run = run.max(1).min(count.saturating_sub(done));
            if !is_here {
                let place = self.place(at.saturating_add(done.saturating_mul(sector)));
                self.drive.zero(place, run.saturating_mul(sector), false)?;
            }
            done = done.saturating_add(run);
        }
        Ok(())
    }

    /// Bitmaps that say nothing any more are given up.
    fn release(&mut self) -> Result<()> {
        for index in 0..self.checked.table_count {
            if self.is_bitmap(index) && self.get(index)? != NOT_PRESENT {
                self.put(index, NOT_PRESENT)?;
            }
        }
        self.write_link()?;
        self.cut()
    }

    /// Puts another parent, or none, into the metadata.
    fn name(&mut self, below: Option<&Below>) -> Result<()> {
        let refused = |words: &'static str| Kind::Unsupported.what(words).file(self.file.id());
        let region = self.checked.regions.iter().find(|region| region.name == "the metadata").ok_or_else(invalid)?;
        let at = self.place(region.start).at;
        let mut head = MetadataHead::new_zeroed();
        self.draft.read(self.drive, at, head.as_mut_bytes())?;
        let mut items: Vec<Item> = Vec::new();
        if usize::from(head.entry_count.get()) > ITEMS_MAX {
            return Err(refused("the table of metadata is too long to be changed at once"));
        }
        let items_at = at.saturating_add(wide(size_of::<MetadataHead>()));
        for index in 0..u64::from(head.entry_count.get()) {
            let mut item = Item::new_zeroed();
            let skip = index.saturating_mul(wide(size_of::<Item>()));
            self.draft.read(self.drive, items_at.saturating_add(skip), item.as_mut_bytes())?;
            items.push(item);
        }
        let mut space = Space::of(&items, region.end.saturating_sub(region.start));
        let mut fill = |item: &mut Item, bytes: &[u8]| -> Result<()> {
            let offset = space.take(wide(bytes.len())).ok_or_else(|| refused("the metadata have no room left"))?;
            item.offset = u32::try_from(offset).map_err(|_| invalid())?.into();
            item.length = u32::try_from(bytes.len()).map_err(|_| invalid())?.into();
            self.drive.write(self.file.place(region.start.saturating_add(offset)), bytes)
        };
        if let Some(item) = items.iter_mut().find(|item| item.guid == FILE_PARAMETERS) {
            let block_len = self.checked.metadata.block_len;
            let flags = if self.checked.metadata.leave_allocated { LEAVE_ALLOCATED } else { 0 };
            let flags = flags | if below.is_some() { HAS_PARENT } else { 0 };
            if below.is_some() != self.checked.metadata.parent.is_some() {
                fill(item, &[block_len.to_le_bytes(), flags.to_le_bytes()].concat())?;
            }
        }
        let old = items.iter().position(|item| item.guid == PARENT_LOCATOR).map(|index| items.remove(index));
        if let Some(below) = below {
            let new = || Item { guid: PARENT_LOCATOR, flags: ITEM_REQUIRED.into(), ..Item::new_zeroed() };
            let mut item = old.unwrap_or_else(new);
            fill(&mut item, &below.locator)?;
            items.push(item);
        }
        if items.len() > ITEMS_MAX {
            return Err(refused("the table of metadata is too long to be changed at once"));
        }
        self.drive.flush(self.file.id())?;
        head.entry_count = u16::try_from(items.len()).unwrap_or(0).into();
        let mut sector = [head.as_bytes(), items.as_slice().as_bytes()].concat();
        sector.resize(narrow(SECTOR), 0);
        self.drive.write(self.place(region.start), &sector)?;
        self.drive.flush(self.file.id())
    }
}

/// What of the region of metadata nobody has.
struct Space {
    taken: Vec<(u64, u64)>,
    end: u64,
}

impl Space {
    fn of(items: &[Item], end: u64) -> Space {
        let range = |item: &Item| {
            let at = u64::from(item.offset.get());
            (at, at.saturating_add(item.length.get().into()))
        };
        Space { taken: items.iter().map(range).collect(), end }
    }

    /// The first room for so many bytes.
    fn take(&mut self, len: u64) -> Option<u64> {
        let after = |(_, end): &(u64, u64)| end.checked_next_multiple_of(ITEM_ALIGN);
        let mut places: Vec<u64> = self.taken.iter().filter_map(after).chain([ITEMS_AT]).collect();
        places.sort_unstable();
        let fits = |at: &u64| {
            let end = at.saturating_add(len);
            *at >= ITEMS_AT && end <= self.end && self.taken.iter().all(|(from, to)| end <= *from || at >= to)
        };
        let at = places.into_iter().find(fits)?;
        self.taken.push((at, at.saturating_add(len)));
        Some(at)
    }
}

const _: () = assert!(size_of::<MetadataHead>() + ITEMS_MAX * size_of::<Item>() <= 512);
