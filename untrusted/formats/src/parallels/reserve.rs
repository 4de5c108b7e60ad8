//! Where the bytes of a Parallels disk may go: where its table says, or in a new cluster at the end.

use super::disk::{EMPTY, Header, IN_USE};
use super::locate::{self, Map};
use super::open::Checked;
use alloc::boxed::Box;
use core::mem::{offset_of, size_of};
use instar_image::blocks::{Blocks, Grid};
use instar_image::grow::{self, Frame, Grow, Room, Touch};
use instar_image::sector::{SECTOR, round_up};
use instar_image::target::Rest;
use instar_image::{Drive, File, Kind, Place, Result, Source, Table, Target};

/// The disk, to be written to. `whole_only`: as [`locate::layer`] has it.
pub fn target(file: &File<'_>, checked: &Checked, whole_only: bool) -> Result<Box<dyn Target>> {
    let map = locate::map(file, checked, whole_only);
    let header: Header = file.read_as(0)?;
    let (data_at, is_right) = checked.data_at(file.len());
    let disk = Disk {
        base: if checked.is_old { data_at } else { 0 },
        data_sector: if is_right { None } else { u32::try_from(data_at / SECTOR).ok() },
        file_end: round_up(file.len()),
        flags: header.flags.get(),
        in_use: header.inuse.get(),
        is_marked: false,
        last: None,
        map,
    };
    // The last cluster may be longer than the file.
    let mut end = disk.file_end.max(data_at);
    let mut table = Table::<4>::new(file.io(), file.id());
    // Of what the file does not have of the table, nothing is there.
    let table_at = size_of::<Header>() as u64;
    let count = u64::from(checked.table_count).min(file.len().saturating_sub(table_at).div_ceil(4));
    table.each(file.place(table_at).at, count, |number, entry| {
        if let Some(Source::Raw { place, .. }) = disk.block(number, *entry)? {
            end = end.max(place.at.saturating_add(checked.cluster_len()));
        }
        Ok(())
    })?;
    Ok(grow::target_behind(disk, file.len(), end))
}

/// A disk that grows.
struct Disk {
    map: Map,
    /// Where clusters are counted from.
    base: u64,
    /// Where the data begin, if the header says something else.
    data_sector: Option<u32>,
    /// Where the file ended.
    file_end: u64,
    /// The cluster last given its place.
    last: Option<u64>,
    flags: u32,
    in_use: u32,
    is_marked: bool,
}

impl Blocks<4> for Disk {
    fn grid(&self) -> &Grid {
        self.map.grid()
    }

    /// What lies beyond the file is where new clusters will be: there is nothing, but for the one just given its place.
    /// As the disk is written to in its order, no earlier one is asked for again.
    fn block(&self, number: u64, entry: [u8; 4]) -> Result<Option<Source>> {
        if self.last == Some(number) {
            let at = u64::from(u32::from_le_bytes(entry)).saturating_mul(self.map.unit);
            return Ok(Some(Source::raw(Place { file: self.map.grid.file, at })));
        }
        let is_there = |source: &Source| matches!(source, Source::Raw { place, .. } if place.at < self.file_end);
        Ok(self.map.block(number, entry)?.filter(is_there))
    }
}

impl Grow<4> for Disk {
    fn frame(&self) -> Frame {
        let len = self.map.grid.block_len;
        Frame { align: len, base: self.base, head: 0, len }
    }

    fn entry(&self, _number: u64, at: u64) -> Result<[u8; 4]> {
        let entry = at.checked_div(self.map.unit).and_then(|entry| u32::try_from(entry).ok());
        entry.map(u32::to_le_bytes).ok_or_else(|| Kind::TooBig.what("the file cannot become longer"))
    }

    fn begin(&mut self, number: u64) {
        self.last = Some(number);
    }

    /// Whoever is stopped while writing leaves the mark of it.
    fn touch(&mut self, room: &mut Room<'_>, touch: &Touch) -> Result<Rest> {
        if !self.is_marked {
            self.is_marked = true;
            room.draft.put(room.drive, offset_of!(Header, inuse) as u64, &IN_USE.to_le_bytes())?;
            room.draft.flush(room.drive)?;
        }
        Ok(touch.rest)
    }

    /// An image that was not closed by others has not been looked through by us: it keeps its mark.
    fn finish(&mut self, drive: &dyn Drive, end: u64, _added: u64) -> Result<()> {
        let file = self.map.grid.file;
        let put = |at: u64, word: u32| drive.write(Place { file, at }, &word.to_le_bytes());
        put(offset_of!(Header, flags) as u64, self.flags & !EMPTY)?;
        // So qemu-img does, of clusters that are no power of two also with what it has made itself.
        if let Some(sector) = self.data_sector {
            put(offset_of!(Header, data_off) as u64, sector)?;
        }
        drive.set_length(file, end)?;
        put(offset_of!(Header, inuse) as u64, self.in_use)
    }
}
