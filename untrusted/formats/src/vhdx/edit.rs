//! Changes of a VHDX that is there.
//!
//! The size of the disk is one item of the metadata, and so one write. Where the table of blocks gets too short for its
//! region, a new region is made behind everything else, and the table of regions is turned over before the size.

mod parent;
#[cfg(test)]
mod tests;

use super::create::sealed;
use super::disk::{
    BAT, BITMAP_LEN, FULLY_PRESENT, NOT_PRESENT, OFFSET_MASK, PARTIALLY_PRESENT, REGIONS_AT, Region, RegionHead,
    SECOND_REGIONS_AT, STATE_MASK, TABLE_LEN, ZERO,
};
use super::metadata::SIZE_MAX;
use super::open::{Checked, invalid, table_count};
use super::reserve::Disk;
use alloc::vec::Vec;
use core::mem::size_of;
use core::ops::Range;
use instar_image::bits::{self, Order};
use instar_image::draft::Draft;
use instar_image::edit::Footing;
use instar_image::num::{narrow, split};
use instar_image::{Chain, Drive, Edit, Error, File, Kind, Place, Preallocation, Result};
use zerocopy::{FromBytes, IntoBytes};

/// Blocks and regions begin at multiples of this.
const ALIGNMENT: u64 = 1 << 20;
const ENTRY_LEN: u64 = 8;
/// What a disk writes at once.
const SECTOR: u64 = 512;

/// A disk that is changed.
pub struct Change<'i, 'a> {
    /// The file.
    pub file: &'i File<'a>,
    /// What the image says of itself.
    pub checked: &'i Checked,
}

impl Edit for Change<'_, '_> {
    fn resize(&mut self, drive: &dyn Drive, size: u64, space: Preallocation, below: &Chain<'_>) -> Result<u64> {
        let (file, checked) = (self.file, self.checked);
        let metadata = &checked.metadata;
        if size > SIZE_MAX {
            return Err(Kind::TooBig.what("Image size too large; max of 64TB"));
        }
        let size = size.next_multiple_of(metadata.logical_sector.into());
        let old = checked.virtual_size;
        if size == old {
            return Ok(size);
        }
        if metadata.size_at / SECTOR != metadata.size_at.saturating_add(ENTRY_LEN - 1) / SECTOR {
            return Err(Kind::Unsupported.what("the size of the disk stands in two sectors").file(file.id()));
        }
        let is_fixed = metadata.leave_allocated && metadata.parent.is_none();
        if space == Preallocation::Metadata || space != Preallocation::Off && !is_fixed {
            return Err(Kind::Unsupported.what("space can only be set aside in a VHDX of the fixed kind"));
        }
        let mut sizing = self.sizing(drive, size)?;
        match size > old {
            true => sizing.grow(space, below.size())?,
            false => sizing.shrink()?,
        }
        Ok(size)
    }

    fn may_stand_on(&self, footing: &Footing<'_>) -> Result<()> {
        self.footing(footing).map(drop)
    }

    fn stand_on(&mut self, drive: &dyn Drive, footing: &Footing<'_>) -> Result<()> {
        self.footing(footing)?.map_or(Ok(()), |below| self.turn(drive, below.as_ref()))
    }

    fn empty(&mut self, drive: &dyn Drive) -> Result<()> {
        match self.checked.metadata.parent {
            Some(_) => self.clear(drive),
            None => Err(Kind::Unsupported.what("a VHDX that differs from none cannot be emptied").file(self.file.id())),
        }
    }
}

impl<'a> Change<'_, 'a> {
    /// The tables on their way to another size, with nothing left in the log.
    fn sizing<'s>(&'s self, drive: &'s dyn Drive, size: u64) -> Result<Sizing<'s, 'a>> {
        let (file, checked) = (self.file, self.checked);
        Disk::new(file, checked)?.touch_file(drive)?;
        let end = checked.overlay.as_ref().map_or(file.len(), |overlay| overlay.len_from(file.place(0)));
        let draft = Draft::new(file.id(), file.place(end).at);
        let end = end.checked_next_multiple_of(ALIGNMENT).ok_or_else(full)?;
        let is_fixed = checked.metadata.leave_allocated && checked.metadata.parent.is_none();
        let old = checked.virtual_size;
        Ok(Sizing { file, checked, drive, draft, old, size, end, is_fixed, at: checked.table_at, link: None })
    }
}

fn full() -> Error {
    Kind::TooBig.what("the file cannot become longer")
}

/// A disk on its way to another size.
struct Sizing<'s, 'a> {
    file: &'s File<'a>,
    checked: &'s Checked,
    drive: &'s dyn Drive,
    draft: Draft,
    old: u64,
    size: u64,
    /// Where the file ends, with all that is claimed.
    end: u64,
    /// Every block has its space.
    is_fixed: bool,
    /// Where the table of blocks begins, or will.
    at: u64,
    /// An entry that is turned over when all it leads to is there.
    link: Option<(u64, u64)>,
}

impl Sizing<'_, '_> {
    fn block_len(&self) -> u64 {
        self.checked.metadata.block_len.into()
    }

    fn differs(&self) -> bool {
        self.checked.metadata.parent.is_some()
    }

    fn place(&self, at: u64) -> Place {
        self.file.place(at)
    }

    fn blocks(&self, size: u64) -> u64 {
        size.div_ceil(self.block_len())
    }

    fn count(&self, size: u64) -> u64 {
        table_count(size, self.block_len(), self.checked.chunk_ratio, self.differs())
    }

    fn claim(&mut self, len: u64) -> Result<u64> {
        let at = self.end;
        let end = at.checked_add(len).and_then(|end| end.checked_next_multiple_of(ALIGNMENT)).ok_or_else(full)?;
        self.end = Some(end).filter(|end| *end <= i64::MAX.unsigned_abs()).ok_or_else(full)?;
        self.draft.reaches(self.place(self.end).at);
        Ok(at)
    }

    fn entry_at(&self, index: u64) -> u64 {
        self.place(self.at.saturating_add(index.saturating_mul(ENTRY_LEN))).at
    }

    fn get(&mut self, index: u64) -> Result<u64> {
        let at = self.entry_at(index);
        Ok(u64::from_le_bytes(self.draft.get(self.drive, at)?))
    }

    fn put(&mut self, index: u64, entry: u64) -> Result<()> {
        let at = self.entry_at(index);
        self.draft.put(self.drive, at, &entry.to_le_bytes())
    }

    /// Which entry is that of a block.
    fn index(&self, block: u64) -> u64 {
        block.saturating_add(block.checked_div(self.checked.chunk_ratio).unwrap_or(0))
    }

    /// Which entry is that of the bitmap of a chunk.
    fn bitmap_index(&self, chunk: u64) -> u64 {
        let period = self.checked.chunk_ratio.saturating_add(1);
        chunk.saturating_mul(period).saturating_add(self.checked.chunk_ratio)
    }

    fn write_link(&mut self) -> Result<()> {
        self.draft.flush(self.drive)?;
        self.drive.flush(self.file.id())
    }

    fn grow(&mut self, space: Preallocation, below: u64) -> Result<()> {
        let (had, count) = (self.checked.table_count, self.count(self.size));
        let region = self.checked.regions.iter().find(|region| region.start == self.checked.table_at);
        let region_len = region.map_or(0, |region| region.end.saturating_sub(region.start));
        let moves = count.saturating_mul(ENTRY_LEN) > region_len;
        let new_len = count.saturating_mul(ENTRY_LEN).checked_next_multiple_of(ALIGNMENT).ok_or_else(full)?;
        if moves {
            u32::try_from(new_len).map_err(|_| full())?;
            let to = self.claim(new_len)?;
            for index in 0..had {
                self.at = self.checked.table_at;
                let entry = self.get(index)?;
                self.at = to;
                if entry != 0 {
                    self.put(index, entry)?;
                }
            }
            self.at = to;
        }
        // Of its region the file need not have the end.
        self.draft.reaches(self.entry_at(count));
        self.clear(self.blocks(self.old), count)?;
        self.tail(below)?;
        self.fill(space, if self.differs() { below.min(self.size) } else { 0 })?;
        let (drive, file) = (self.drive, self.file.id());
        if self.place(self.end).at > drive.length(file)? {
            drive.set_length(file, self.place(self.end).at)?;
        }
        self.draft.flush(drive)?;
        drive.flush(file)?;
        if moves {
            self.turn(new_len)?;
        }
        if let Some((index, entry)) = self.link.take() {
            self.put(index, entry)?;
            self.write_link()?;
        }
        self.write_size()
    }

    fn write_size(&self) -> Result<()> {
        self.drive.write(self.place(self.checked.metadata.size_at), &self.size.to_le_bytes())?;
        self.drive.flush(self.file.id())
    }

    /// Entries of blocks from this one on say nothing, nor do those of bitmaps of which no block is left.
    fn clear(&mut self, from: u64, count: u64) -> Result<()> {
        let ratio = self.checked.chunk_ratio;
        let mut index = self.index(from);
        let kept = self.bitmap_index(from.saturating_sub(1).checked_div(ratio).unwrap_or(0));
        while index < count {
            if (index != kept || !self.differs()) && self.get(index)? != NOT_PRESENT {
                self.put(index, NOT_PRESENT)?;
            }
            index = index.saturating_add(1);
        }
        Ok(())
    }

    /// What the last block has behind the end of the disk becomes zeroes.
    fn tail(&mut self, below: u64) -> Result<()> {
        let (block, skip, left) = split(self.old, self.block_len());
        if skip == 0 {
            return Ok(());
        }
        let index = self.index(block);
        let entry = self.get(index)?;
        let at = entry & OFFSET_MASK;
        match entry & STATE_MASK {
            FULLY_PRESENT => self.drive.zero(self.place(at.saturating_add(skip)), left, false),
            PARTIALLY_PRESENT => {
                self.drive.zero(self.place(at.saturating_add(skip)), left, false)?;
                self.show(block, skip, false)
            }
            NOT_PRESENT if self.differs() && below > self.old => {
                let at = self.claim(self.block_len())?;
                self.show(block, skip, true)?;
                self.link = Some((index, at | PARTIALLY_PRESENT));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The bitmap says that what a block has from `skip` on is in the file, and of a new block nothing else.
    fn show(&mut self, block: u64, skip: u64, is_new: bool) -> Result<()> {
        let (chunk, number, _) = split(block, self.checked.chunk_ratio);
        let index = self.bitmap_index(chunk);
        let entry = self.get(index)?;
        let at = match entry & STATE_MASK {
            FULLY_PRESENT => entry & OFFSET_MASK,
            _ => {
                let made = self.claim(BITMAP_LEN)?;
                self.put(index, made | FULLY_PRESENT)?;
                self.drive.set_length(self.file.id(), self.place(self.end).at)?;
                self.drive.flush(self.file.id())?;
                made
            }
        };
        let sector = u64::from(self.checked.metadata.logical_sector).max(1);
        let count = self.block_len().checked_div(sector).unwrap_or(0);
        let first = number.saturating_mul(count);
        let place = self.place(at).at;
        if is_new {
            self.draft.blank(self.drive, place.saturating_add(first / 8), count / 8)?;
        }
        let shown: Range<u64> =
            first.saturating_add(skip.checked_div(sector).unwrap_or(0))..first.saturating_add(count);
        bits::set(self.drive, &mut self.draft, place, shown, Order::Low)
    }

    /// What the blocks are that are new: in their space, or zeroes where something is below.
    fn fill(&mut self, space: Preallocation, hidden: u64) -> Result<()> {
        let (first, end) = (self.blocks(self.old), self.blocks(self.size));
        if self.is_fixed && first < end {
            let len = end.saturating_sub(first).saturating_mul(self.block_len());
            let at = self.claim(len)?;
            for block in first..end {
                let at = block.saturating_sub(first).saturating_mul(self.block_len()).saturating_add(at);
                self.put(self.index(block), at | FULLY_PRESENT)?;
            }
            self.drive.set_length(self.file.id(), self.place(self.end).at)?;
            let place = self.place(at);
            return match space {
                Preallocation::Falloc => self.drive.allocate(place, len),
                Preallocation::Full => self.drive.zero(place, len, false),
                _ => Ok(()),
            };
        }
        (first..self.blocks(hidden)).try_for_each(|block| self.put(self.index(block), ZERO))
    }

    /// The table of blocks is another region from now on.
    fn turn(&mut self, len: u64) -> Result<()> {
        let bytes = self.file.read_vec(REGIONS_AT, TABLE_LEN)?;
        let (head, mut rest) = RegionHead::read_from_prefix(&bytes).map_err(|_| invalid())?;
        let mut regions = Vec::new();
        for _ in 0..head.entry_count.get() {
            let (mut region, after) = Region::read_from_prefix(rest).map_err(|_| invalid())?;
            if region.guid == BAT {
                region.file_offset = self.at.into();
                region.length = u32::try_from(len).map_err(|_| full())?.into();
            }
            regions.extend_from_slice(region.as_bytes());
            rest = after;
        }
        let head = RegionHead { checksum: 0.into(), ..head };
        let mut whole = [head.as_bytes(), &regions].concat();
        let is_one = whole.len() as u64 <= SECTOR || is_alike(&whole, &bytes);
        if !is_one {
            return Err(Kind::Unsupported.what("the table of regions is too long to be changed at once"));
        }
        // Whatever lies behind the regions is covered by the checksum, too.
        whole.extend_from_slice(bytes.get(whole.len()..).unwrap_or_default());
        let sealed = sealed(&whole, TABLE_LEN);
        for at in [REGIONS_AT, SECOND_REGIONS_AT] {
            let first = sealed.get(..narrow(SECTOR)).unwrap_or_default();
            let bytes = if at == REGIONS_AT { first } else { &sealed };
            self.drive.write(self.place(at), bytes)?;
            self.drive.flush(self.file.id())?;
        }
        Ok(())
    }

    fn shrink(&mut self) -> Result<()> {
        self.write_size()?;
        self.clear(self.blocks(self.size), self.checked.table_count)?;
        self.write_link()?;
        self.cut()
    }

    /// The file ends with what is used of it.
    fn cut(&mut self) -> Result<()> {
        let regions = self.checked.regions.iter().map(|region| region.end);
        let mut end = regions.max().unwrap_or(0).max(ALIGNMENT);
        for index in 0..self.count(self.size) {
            let entry = self.get(index)?;
            let len = if self.is_bitmap(index) { BITMAP_LEN } else { self.block_len() };
            if matches!(entry & STATE_MASK, FULLY_PRESENT | PARTIALLY_PRESENT) {
                end = end.max((entry & OFFSET_MASK).saturating_add(len));
            }
        }
        // Of a fixed disk the space is laid out in a row, whatever its entries say.
        if self.is_fixed || self.place(end).at >= self.drive.length(self.file.id())? {
            return Ok(());
        }
        self.drive.set_length(self.file.id(), self.place(end).at)?;
        self.drive.flush(self.file.id())
    }

    fn is_bitmap(&self, index: u64) -> bool {
        index.saturating_add(1).is_multiple_of(self.checked.chunk_ratio.saturating_add(1))
    }
}

/// Whether all that is different is in the first sector.
fn is_alike(new: &[u8], old: &[u8]) -> bool {
    let rest = new.get(narrow(SECTOR)..).unwrap_or_default();
    old.get(narrow(SECTOR)..).is_some_and(|old| old.starts_with(rest))
}

const _: () = assert!(size_of::<RegionHead>() == 16 && size_of::<Region>() == 32);
