//! Changes of a VHD that is there.
//!
//! The size of a disk stands in its footer, which has to be in the last sector of the file. So that there always is one,
//! it is written where the end will be before anything else, still with the old size; what stood where it was is free then.

mod parent;
#[cfg(test)]
mod tests;

use super::create::{BY_SIZE, Geometry, LARGEST, SECTORS_MAX, too_large};
use super::disk::{
    CONECTIX, DIFFERENCING, DYNAMIC, FIXED, FOOTER_CHECKSUM_AT, Footer, HEADER_CHECKSUM_AT, Header, NOWHERE,
};
use super::open::{Blocks, Checked, checksum, is_by_geometry, sectors};
use core::mem::size_of;
use instar_image::bits::{self, Order};
use instar_image::draft::Draft;
use instar_image::edit::Footing;
use instar_image::num::split;
use instar_image::sector::SECTOR;
use instar_image::{Chain, Drive, Edit, File, Kind, Place, Preallocation, Result, Table};
use zerocopy::IntoBytes;

const ENTRY_LEN: u64 = 4;
const FOOTER_LEN: u64 = size_of::<Footer>() as u64;

/// A disk that is changed.
pub struct Change<'i, 'a> {
    /// The file.
    pub file: &'i File<'a>,
    /// What the image says of itself.
    pub checked: &'i Checked,
}

impl Edit for Change<'_, '_> {
    fn resize(&mut self, drive: &dyn Drive, size: u64, space: Preallocation, below: &Chain<'_>) -> Result<u64> {
        let kind = self.checked.footer.disk_type.get();
        let footer = resized(&self.checked.footer, size)?;
        let size = sectors(&footer).saturating_mul(SECTOR);
        let old = self.checked.virtual_size;
        match (&self.checked.blocks, kind) {
            _ if size == old => {}
            (None, _) if size > old => self.lengthen(drive, &footer, size, space)?,
            (None, _) => self.shorten(drive, &footer, size)?,
            (Some(blocks), DYNAMIC | DIFFERENCING) => {
                if space != Preallocation::Off {
                    return Err(Kind::Unsupported.what("space can only be set aside in a VHD of the fixed kind"));
                }
                let disk = Disk { file: self.file, blocks, is_over: kind == DIFFERENCING, old, size };
                match size > old {
                    true => disk.grow(drive, &self.checked.footer, &footer, below.size())?,
                    false => disk.shrink(drive, &footer)?,
                }
            }
            (Some(_), FIXED) => {
                return Err(Kind::Corrupt.what("the disk is called a fixed one, but it has a block table"));
            }
            (Some(_), _) => return Err(Kind::Unsupported.what("the disk is of no known type")),
        }
        Ok(size)
    }

    fn may_stand_on(&self, footing: &Footing<'_>) -> Result<()> {
        self.footing(footing).map(drop)
    }

    fn stand_on(&mut self, drive: &dyn Drive, footing: &Footing<'_>) -> Result<()> {
        match self.footing(footing)? {
            Some((blocks, below)) => self.turn(drive, blocks, below.as_ref()),
            None => Ok(()),
        }
    }

    fn empty(&mut self, drive: &dyn Drive) -> Result<()> {
        match &self.checked.blocks {
            Some(blocks) if self.checked.footer.disk_type.get() == DIFFERENCING => self.clear(drive, blocks),
            _ => Err(Kind::Unsupported.what("a VHD that differs from none cannot be emptied").file(self.file.id())),
        }
    }
}

/// The footer of a disk as long as asked for. Where the geometry counts, it is the next larger one.
fn resized(was: &Footer, size: u64) -> Result<Footer> {
    let asked = size.div_ceil(SECTOR);
    if asked > SECTORS_MAX {
        return Err(too_large());
    }
    let (geometry, count) = match is_by_geometry(was) {
        true if asked > LARGEST.sectors() => (LARGEST, asked),
        true => Geometry::around(asked).map(|geometry| (geometry, geometry.sectors()))?,
        false if &was.creator_app == BY_SIZE => (LARGEST, asked),
        false => (Geometry::of(asked), asked),
    };
    let Geometry(cylinders, heads, per_track) = geometry;
    let mut footer = was.clone();
    footer.current_size = count.saturating_mul(SECTOR).into();
    footer.cylinders = cylinders.into();
    (footer.heads, footer.sectors) = (heads, per_track);
    footer.checksum = checksum(footer.as_bytes(), FOOTER_CHECKSUM_AT).into();
    Ok(footer)
}

/// Writes and waits until it is there.
fn put(drive: &dyn Drive, place: Place, bytes: &[u8]) -> Result<()> {
    drive.write(place, bytes)?;
    drive.flush(place.file)
}

/// Where the last footer is, or would be if the file has none.
fn footer_at(file: &File<'_>) -> Result<u64> {
    let end = file.len().next_multiple_of(SECTOR);
    let last_at = end.saturating_sub(FOOTER_LEN);
    let last: Footer = file.read_as(last_at)?;
    Ok(if &last.cookie == CONECTIX { last_at } else { end })
}

/// The file ends with a footer at `at`, which is written before anything is cut off.
fn cut(file: &File<'_>, drive: &dyn Drive, at: u64, footer: &Footer) -> Result<()> {
    put(drive, file.place(at), footer.as_bytes())?;
    drive.set_length(file.id(), file.place(at.saturating_add(FOOTER_LEN)).at)?;
    drive.flush(file.id())
}

/// A fixed disk.
impl Change<'_, '_> {
    fn lengthen(&self, drive: &dyn Drive, footer: &Footer, size: u64, space: Preallocation) -> Result<()> {
        let (file, old) = (self.file, self.checked.virtual_size);
        if space == Preallocation::Metadata {
            return Err(Kind::Unsupported.what("Unsupported preallocation mode: metadata"));
        }
        let was_at = footer_at(file)?;
        let at = size.max(was_at);
        if at > was_at {
            put(drive, file.place(at), self.checked.footer.as_bytes())?;
        }
        // Behind the footer that was the last one there is nothing yet.
        let used = was_at.saturating_add(FOOTER_LEN).min(at);
        drive.zero(file.place(old), used.saturating_sub(old), false)?;
        let (fresh, len) = (file.place(used), size.saturating_sub(used));
        match space {
            Preallocation::Falloc if len > 0 => drive.allocate(fresh, len)?,
            Preallocation::Full if len > 0 => drive.zero(fresh, len, false)?,
            _ => {}
        }
        drive.flush(file.id())?;
        put(drive, file.place(at), footer.as_bytes())
    }

    fn shorten(&self, drive: &dyn Drive, footer: &Footer, size: u64) -> Result<()> {
        put(drive, self.file.place(footer_at(self.file)?), footer.as_bytes())?;
        cut(self.file, drive, size, footer)
    }
}

/// A disk in blocks, and the size that it gets.
struct Disk<'d, 'a> {
    file: &'d File<'a>,
    blocks: &'d Blocks,
    /// There is another disk below.
    is_over: bool,
    old: u64,
    size: u64,
}

/// What is in the way of a table that gets longer, and where all that is used ends.
struct Front {
    /// The first thing behind the table.
    next: u64,
    end: u64,
}

impl Disk<'_, '_> {
    fn block_len(&self) -> u64 {
        self.blocks.block_len.into()
    }

    /// What a block takes in the file.
    fn space_len(&self) -> u64 {
        self.blocks.bitmap_len.saturating_add(self.block_len())
    }

    fn table_len(count: u64) -> u64 {
        count.saturating_mul(ENTRY_LEN).next_multiple_of(SECTOR)
    }

    fn entry_at(&self, table_at: u64, number: u64) -> u64 {
        self.file.place(table_at.saturating_add(number.saturating_mul(ENTRY_LEN))).at
    }

    /// Where the header is, and what it says.
    fn header(&self) -> Result<(u64, Header)> {
        let front: Footer = self.file.read_as(0)?;
        let at = front.data_offset.get();
        Ok((at, self.file.read_as(at)?))
    }

    /// Looks at everything but the first `skipped` footers.
    fn front(&self, header_at: u64, header: &Header, blocks: u64) -> Result<Front> {
        let table_at = self.blocks.table_at;
        let table_end = table_at.saturating_add(Self::table_len(self.blocks.table_count.into()));
        let mut front = Front { next: u64::MAX, end: table_end };
        let mut add = |at: u64, len: u64| {
            if at >= table_at {
                front.next = front.next.min(at);
            }
            front.end = front.end.max(at.saturating_add(len));
        };
        add(header_at, size_of::<Header>() as u64);
        for locator in header.locators.iter().filter(|locator| locator.platform_code != [0; 4]) {
            let len = u64::from(locator.data_length.get());
            // Room for a name is told in sectors by some, in bytes by others.
            add(locator.data_offset.get(), len.next_multiple_of(SECTOR));
        }
        let mut table: Table<'_, 4> = Table::new(self.file.io(), self.file.id());
        table.each(self.file.place(table_at).at, blocks, |_, entry| {
            match u32::from_be_bytes(*entry) {
                NOWHERE => {}
                sector => add(u64::from(sector).saturating_mul(SECTOR), self.space_len()),
            }
            Ok(())
        })?;
        Ok(front)
    }

    fn grow(&self, drive: &dyn Drive, was: &Footer, footer: &Footer, below: u64) -> Result<()> {
        let (file, table_at) = (self.file, self.blocks.table_at);
        let (header_at, mut header) = self.header()?;
        let (first_new, first_skip, _) = split(self.old, self.block_len());
        let count = self.size.div_ceil(self.block_len());
        let had = self.old.div_ceil(self.block_len());
        let room = self.front(header_at, &header, had)?.next.saturating_sub(table_at);
        let free = footer_at(file)?;
        let room = room.min(free.saturating_sub(table_at));
        let moves = count.saturating_mul(ENTRY_LEN) > room;
        // Where something is below, blocks of zeroes hide it.
        let hidden = if self.is_over { below.min(self.size) } else { 0 };
        let mut draft = Draft::new(file.id(), file.place(free).at);
        let last = draft.get(drive, self.entry_at(table_at, first_new))?;
        let last = Some(u32::from_be_bytes(last)).filter(|_| first_skip > 0).filter(|entry| *entry != NOWHERE);
        let first_hidden = if first_skip > 0 && last.is_some() { first_new.saturating_add(1) } else { first_new };
        let hides = hidden.div_ceil(self.block_len()).saturating_sub(first_hidden);
        let hides = if hidden > self.old { hides } else { 0 };
        let new_table = if moves { Self::table_len(count) } else { 0 };
        let blocks_at = free.saturating_add(new_table);
        let end = blocks_at.saturating_add(hides.saturating_mul(self.space_len()));
        if u32::try_from(end / SECTOR).is_err() {
            return Err(too_large());
        }
        draft.reaches(file.place(end).at);
        if end > free {
            put(drive, file.place(end), was.as_bytes())?;
            // The footer that was the last one is not needed any more.
            draft.blank(drive, file.place(free).at, FOOTER_LEN)?;
        }
        let to = if moves { free } else { table_at };
        self.tables(drive, &mut draft, to, had, count)?;
        self.tail(drive, &mut draft, last, first_skip)?;
        let mut link = None;
        for index in 0..hides {
            let number = first_hidden.saturating_add(index);
            let at = blocks_at.saturating_add(index.saturating_mul(self.space_len()));
            let skip = if number == first_new { first_skip } else { 0 };
            let shown = skip / SECTOR..self.blocks.bitmap_len.saturating_mul(8);
            bits::set(drive, &mut draft, file.place(at).at, shown, Order::High)?;
            let entry = u32::try_from(at / SECTOR).unwrap_or(NOWHERE).to_be_bytes();
            match skip > 0 && !moves {
                true => link = Some(entry),
                false => draft.put(drive, self.entry_at(to, number), &entry)?,
            }
        }
        draft.flush(drive)?;
        drive.flush(file.id())?;
        if moves || count > self.blocks.table_count.into() {
            header.table_offset = to.into();
            header.max_table_entries = u32::try_from(count).unwrap_or(u32::MAX).into();
            header.checksum = checksum(header.as_bytes(), HEADER_CHECKSUM_AT).into();
            // All that is different is in its first sector.
            let first = header.as_bytes().split_at_checked(512).map_or(header.as_bytes(), |(first, _)| first);
            put(drive, file.place(header_at), first)?;
        }
        if let Some(entry) = link {
            draft.put(drive, self.entry_at(to, first_new), &entry)?;
            draft.flush(drive)?;
            drive.flush(file.id())?;
        }
        put(drive, file.place(0), footer.as_bytes())?;
        put(drive, file.place(end), footer.as_bytes())
    }

    /// Entries for all blocks: those that there are, and behind them none.
    fn tables(&self, drive: &dyn Drive, draft: &mut Draft, to: u64, had: u64, count: u64) -> Result<()> {
        if to != self.blocks.table_at {
            let mut table: Table<'_, 4> = Table::new(self.file.io(), self.file.id());
            table.each(self.file.place(self.blocks.table_at).at, had, |number, entry| {
                draft.put(drive, self.entry_at(to, number), entry)
            })?;
        }
        let all = if to == self.blocks.table_at { count.max(self.blocks.table_count.into()) } else { count };
        let padded = Self::table_len(all) / ENTRY_LEN;
        let padded = if to == self.blocks.table_at { all } else { padded };
        (had..padded).try_for_each(|number| draft.put(drive, self.entry_at(to, number), &NOWHERE.to_be_bytes()))
    }

    /// What the last block has behind the end of the disk becomes zeroes, and part of the disk.
    fn tail(&self, drive: &dyn Drive, draft: &mut Draft, last: Option<u32>, skip: u64) -> Result<()> {
        let Some(entry) = last else { return Ok(()) };
        let at = u64::from(entry).saturating_mul(SECTOR);
        let from = at.saturating_add(self.blocks.bitmap_len).saturating_add(skip);
        drive.zero(self.file.place(from), self.block_len().saturating_sub(skip), false)?;
        let sectors = skip / SECTOR..self.block_len() / SECTOR;
        bits::set(drive, draft, self.file.place(at).at, sectors, Order::High)
    }

    fn shrink(&self, drive: &dyn Drive, footer: &Footer) -> Result<()> {
        let file = self.file;
        let (header_at, header) = self.header()?;
        let count = self.size.div_ceil(self.block_len());
        let last_at = footer_at(file)?;
        put(drive, file.place(0), footer.as_bytes())?;
        put(drive, file.place(last_at), footer.as_bytes())?;
        // What is left leads nowhere before it is cut off.
        let mut draft = Draft::new(file.id(), file.place(last_at).at);
        for number in count..self.blocks.table_count.into() {
            let at = self.entry_at(self.blocks.table_at, number);
            if draft.get(drive, at)? != NOWHERE.to_be_bytes() {
                draft.put(drive, at, &NOWHERE.to_be_bytes())?;
            }
        }
        draft.flush(drive)?;
        drive.flush(file.id())?;
        let end = self.front(header_at, &header, count)?.end.next_multiple_of(SECTOR);
        if end >= last_at { Ok(()) } else { cut(file, drive, end, footer) }
    }
}
