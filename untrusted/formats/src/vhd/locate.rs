//! Where the bytes of a VHD are: in a row, or in blocks of which each has a bitmap of its sectors in front of it.

use super::disk::{DIFFERENCING, FIXED, NOWHERE};
use super::open::Checked;
use alloc::boxed::Box;
use instar_image::bits::{Order, alike};
use instar_image::blocks::{self, BlockCursor, Blocks, Grid, Root};
use instar_image::num::split;
use instar_image::row::Row;
use instar_image::sector::SECTOR;
use instar_image::{Cursor, File, Io, Layer, Place, Result, Source, Table};

/// The disk's map. `as_qemu`: a disk that differs from another is read as if there were none.
pub fn layer(file: &File<'_>, checked: &Checked, as_qemu: bool) -> Box<dyn Layer> {
    match map(file, checked, as_qemu) {
        None => Box::new(row(file, checked)),
        Some(map) if map.differs => Box::new(Difference(map)),
        Some(map) => blocks::layer(map),
    }
}

/// All of a fixed disk.
pub fn row(file: &File<'_>, checked: &Checked) -> Row {
    Row { start: file.place(0), range: 0..checked.virtual_size }
}

/// The blocks, of a disk that has any.
pub fn map(file: &File<'_>, checked: &Checked, as_qemu: bool) -> Option<Map> {
    let kind = checked.footer.disk_type.get();
    let table = checked.blocks.as_ref().filter(|_| kind != FIXED)?;
    Some(Map {
        grid: Grid {
            file: file.id(),
            range: 0..checked.virtual_size,
            block_len: table.block_len.into(),
            root: Root::Table { at: table.table_at, count: table.table_count.into() },
        },
        bitmap_len: table.bitmap_len,
        differs: kind == DIFFERENCING && !as_qemu,
    })
}

/// The blocks of a growing disk.
pub struct Map {
    /// How they are numbered.
    pub grid: Grid,
    /// Bytes of the bitmap in front of each.
    pub bitmap_len: u64,
    /// What is not in them is in another disk.
    pub differs: bool,
}

impl Blocks<4> for Map {
    fn grid(&self) -> &Grid {
        &self.grid
    }

    fn block(&self, _number: u64, entry: [u8; 4]) -> Result<Option<Source>> {
        let entry = u32::from_be_bytes(entry);
        if entry == NOWHERE {
            return Ok(if self.differs { None } else { Some(Source::ZERO) });
        }
        let at = u64::from(entry).saturating_mul(SECTOR).saturating_add(self.bitmap_len);
        Ok(Some(Source::raw(Place { file: self.grid.file, at })))
    }
}

/// A disk that differs from another in the sectors whose bits are set.
struct Difference(Map);

impl Layer for Difference {
    fn size(&self) -> u64 {
        self.0.grid.range.end
    }

    fn cursor<'c>(&'c self, io: &'c dyn Io) -> Box<dyn Cursor + 'c> {
        let Difference(map) = self;
        Box::new(DifferenceCursor { map, blocks: BlockCursor::new(map, io), bitmap: Table::new(io, map.grid.file) })
    }
}

struct DifferenceCursor<'c> {
    map: &'c Map,
    blocks: BlockCursor<'c, Map, 4>,
    bitmap: Table<'c, 1>,
}

impl Cursor for DifferenceCursor<'_> {
    fn find(&mut self, at: u64, end: u64) -> Result<(u64, Option<Source>)> {
        let (len, what) = self.blocks.find(at, end)?;
        let Some(Source::Raw { place, .. }) = what else { return Ok((len, what)) };
        let (_, skip, _) = split(at, self.map.grid.block_len);
        let (sector, into, _) = split(skip, SECTOR);
        let bitmap_at = place.at.saturating_sub(skip).saturating_sub(self.map.bitmap_len);
        // A block is at most 2 GiB, so that all bits are in reach: one piece of the table has half a million.
        let bytes = self.bitmap.entries(bitmap_at, sector / 8, self.map.bitmap_len)?;
        let (is_set, count) = alike(bytes, u32::try_from(sector % 8).unwrap_or(0), Order::High);
        let run = count.saturating_mul(SECTOR).saturating_sub(into).min(len);
        Ok((run, what.filter(|_| is_set)))
    }
}
