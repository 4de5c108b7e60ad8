//! Where the bytes of a VDI may go: where its map says, or in a new block at the end.

use super::disk::{BLOCK_LEN, DISCARDED, Header};
use super::locate::{self, Map};
use super::open::Checked;
use alloc::boxed::Box;
use core::mem::offset_of;
use instar_codec::cipher::Sectors;
use instar_image::blocks::{Blocks, Grid};
use instar_image::grow::{self, Frame, Grow};
use instar_image::row::Row;
use instar_image::{Drive, File, Kind, Place, Result, Source, Table, Target, straight};

const BLOCK: u64 = BLOCK_LEN as u64;

/// The disk, to be written to.
pub fn target(file: &File<'_>, checked: &Checked) -> Result<Box<dyn Target>> {
    let map = locate::map(file.id(), checked);
    let start = file.place(checked.data_at);
    let was = file.place(file.len()).at;
    // No block that is sound has such a number, and nothing is there.
    let lost = was.saturating_sub(start.at).div_ceil(BLOCK).max(checked.block_count.into());
    let (mut is_row, mut used) = (true, 0u64);
    let mut table = Table::<4>::new(file.io(), file.id());
    // What the file does not have of the map is zero, which is a block's number.
    let count = u64::from(checked.block_count);
    let known = count.min(file.len().saturating_sub(checked.map_at).div_ceil(4));
    if known < count {
        (is_row, used) = (false, 1);
    }
    table.each(file.place(checked.map_at).at, known, |number, entry| {
        let entry = u32::from_le_bytes(*entry);
        is_row &= u64::from(entry) == number;
        if entry < DISCARDED && u64::from(entry) < lost {
            used = used.max(u64::from(entry).saturating_add(1));
        }
        Ok(())
    })?;
    if is_row {
        return Ok(straight::target(Row { start, range: 0..checked.virtual_size }));
    }
    // A file may be longer than it needs to be.
    let end = start.ahead(used.saturating_mul(BLOCK)).at;
    let disk = Disk { map, allocated: checked.allocated, lost, last: None, was };
    Ok(grow::target_behind(disk, was, end))
}

/// A disk that grows.
struct Disk {
    map: Map,
    /// Blocks that the header counts.
    allocated: u32,
    /// From this number on blocks are where new ones may be.
    lost: u64,
    /// The block last given its place.
    last: Option<u64>,
    /// How long the file was.
    was: u64,
}

impl Blocks<4> for Disk {
    fn grid(&self) -> &Grid {
        self.map.grid()
    }

    fn cipher(&self) -> Option<&Sectors> {
        None
    }

    /// As the disk is written to in its order, no block is asked for again that got its place before the last one.
    fn block(&self, number: u64, entry: [u8; 4]) -> Result<Option<Source>> {
        let is_lost = u64::from(u32::from_le_bytes(entry)) >= self.lost && self.last != Some(number);
        if is_lost { Ok(Some(Source::ZERO)) } else { self.map.block(number, entry) }
    }
}

impl Grow<4> for Disk {
    fn frame(&self) -> Frame {
        Frame { align: BLOCK, base: self.map.data_at, head: 0, len: BLOCK }
    }

    fn entry(&self, _number: u64, at: u64) -> Result<[u8; 4]> {
        let number = at.saturating_sub(self.map.data_at) / BLOCK;
        let entry = u32::try_from(number).ok().filter(|entry| *entry < DISCARDED);
        entry.map(u32::to_le_bytes).ok_or_else(|| Kind::TooBig.what("the file cannot become longer"))
    }

    fn begin(&mut self, number: u64) {
        self.last = Some(number);
    }

    /// Others put the next block where the count says that there is none.
    fn count(&mut self, drive: &dyn Drive, added: u64) -> Result<()> {
        let allocated = u64::from(self.allocated).saturating_add(added);
        let count = u32::try_from(allocated).unwrap_or(u32::MAX).to_le_bytes();
        let at = offset_of!(Header, blocks_allocated) as u64;
        drive.write(Place { file: self.map.grid.file, at }, &count)
    }

    fn finish(&mut self, drive: &dyn Drive, end: u64, added: u64) -> Result<()> {
        self.count(drive, added)?;
        drive.set_length(self.map.grid.file, end.max(self.was))
    }
}
