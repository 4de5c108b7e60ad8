//! Where the bytes of a VHDX may go: in blocks, of a disk that differs from another also in sectors of blocks.

#[cfg(test)]
mod tests;

use super::create::{GAP, sealed};
use super::disk::{
    BITMAP_LEN, FULLY_PRESENT, HEADER_LEN, HEADERS_AT, Header, NOT_PRESENT, OFFSET_MASK, PARTIALLY_PRESENT, STATE_MASK,
    UNDEFINED, UNMAPPED, UNMAPPED_EARLY, ZERO,
};
use super::open::{Checked, Slot, Slots};
use super::replay::{Overlay, Replayed};
use alloc::boxed::Box;
use alloc::sync::Arc;
use instar_codec::hash::Hash;
use instar_image::bits::{Order, Presence};
use instar_image::blocks::{Blocks, Grid, Root};
use instar_image::grow::{Frame, Grow, Growing, Room, Touch};
use instar_image::num::split;
use instar_image::target::Rest;
use instar_image::{Drive, File, Io, Kind, Place, Result, Source, Table, Target};
use zerocopy::IntoBytes;

/// Blocks begin at multiples of this.
const ALIGNMENT: u64 = 1 << 20;
/// Sectors of most disks. What is asked for never ends inside one.
const SECTOR: u64 = 512;

/// The disk, to be written to. `will_stand`: something lies below it when that is done.
pub fn target(file: &File<'_>, checked: &Checked, will_stand: bool) -> Result<Box<dyn Target>> {
    let len = checked.overlay.as_ref().map_or(file.len(), |overlay| overlay.len_from(file.place(0)));
    let mut growing = Growing::new(Disk { will_stand, ..Disk::new(file, checked)? }, len);
    // Whoever set space aside need not have made it zeroes.
    growing.used(len);
    Ok(Box::new(growing))
}

impl Disk {
    /// What is written to, and has not been yet.
    pub fn new(file: &File<'_>, checked: &Checked) -> Result<Disk> {
        disk(file, checked)
    }

    /// Another state of the file: the log has reached its places, and both headers say so. The data are the same.
    pub fn touch_file(&mut self, drive: &dyn Drive) -> Result<()> {
        self.start(drive)?;
        self.header.file_write_guid = renewed(&self.header.file_write_guid, drive.clock()?);
        self.put_headers(drive)
    }
}

/// Brings what the log has not brought to its place there, and empties it.
pub fn replay(file: &File<'_>, checked: &Checked, drive: &dyn Drive) -> Result<()> {
    disk(file, checked)?.start(drive)
}

fn disk(file: &File<'_>, checked: &Checked) -> Result<Disk> {
    let replayed = checked.overlay.as_deref().map(|overlay| Replayed { io: file.io(), overlay });
    let io: &dyn Io = replayed.as_ref().map_or(file.io(), |replayed| replayed);
    let len = checked.overlay.as_ref().map_or(file.len(), |overlay| overlay.len_from(file.place(0)));
    let differs = checked.metadata.parent.is_some();
    let block_len = u64::from(checked.metadata.block_len);
    let space = reserved(checked, len).filter(|_| !differs);
    let (mut is_reserved, mut is_empty) = (true, true);
    let mut slots = Slots::of(checked);
    // Of what the file does not have of the table, nothing is there.
    let count = checked.table_count.min(len.saturating_sub(checked.table_at).div_ceil(8));
    Table::<8>::new(io, file.id()).each(file.place(checked.table_at).at, count, |_, entry| {
        let slot = slots.next(u64::from_le_bytes(*entry));
        is_empty &= !slot.is_held;
        is_reserved &= !slot.is_held || space.is_none_or(|space| is_apart(&slot, space, checked));
        Ok(())
    })?;
    let [first_at, _] = HEADERS_AT;
    let first: Header = file.read_as(first_at)?;
    Ok(Disk {
        grid: Grid {
            file: file.id(),
            range: 0..checked.virtual_size,
            block_len,
            root: Root::Table { at: checked.table_at, count: checked.table_count },
        },
        ratio: checked.chunk_ratio,
        sector: checked.metadata.logical_sector.into(),
        differs,
        will_stand: false,
        space: space.filter(|_| is_reserved),
        header: checked.header.clone(),
        is_first: first.sequence_number == checked.header.sequence_number,
        overlay: checked.overlay.clone(),
        is_new: is_empty || checked.metadata.leave_allocated,
        is_same: false,
        salt: 0,
    })
}

/// Where the blocks of a fixed disk have their space although none of them is said to be there, as qemu-img makes it.
fn reserved(checked: &Checked, len: u64) -> Option<u64> {
    let end = checked.regions.iter().map(|region| region.end).max()?;
    let at = end.checked_next_multiple_of(ALIGNMENT)?.checked_add(GAP)?;
    let has_room = at.checked_add(checked.virtual_size).is_some_and(|end| end <= len);
    (checked.metadata.leave_allocated && has_room).then_some(at)
}

/// Whether a block is not in the space of another one.
fn is_apart(slot: &Slot, space: u64, checked: &Checked) -> bool {
    let own = slot.block.saturating_mul(checked.metadata.block_len.into()).saturating_add(space);
    let is_outside =
        slot.at.saturating_add(slot.whole) <= space || slot.at >= space.saturating_add(checked.virtual_size);
    is_outside || slot.at == own
}

/// A disk that is written to.
pub struct Disk {
    grid: Grid,
    /// Blocks between one entry for a sector bitmap and the next.
    ratio: u64,
    sector: u64,
    differs: bool,
    /// Blocks of zeroes hide what will lie below.
    will_stand: bool,
    /// Where all blocks have their space, one after another.
    space: Option<u64>,
    /// The header that counts.
    header: Header,
    /// It is the first of the two.
    is_first: bool,
    /// What the log still has to do.
    overlay: Option<Arc<Overlay>>,
    /// It may be a new one, of which no copies are about.
    is_new: bool,
    /// Those who stand on it read what they read before.
    is_same: bool,
    /// What stands for all that is written to it.
    salt: u64,
}

impl Blocks<8> for Disk {
    fn grid(&self) -> &Grid {
        &self.grid
    }

    fn block(&self, _number: u64, entry: [u8; 8]) -> Result<Option<Source>> {
        let entry = u64::from_le_bytes(entry);
        let at = entry & OFFSET_MASK;
        match entry & STATE_MASK {
            NOT_PRESENT => Ok(None),
            UNDEFINED | ZERO | UNMAPPED | UNMAPPED_EARLY => Ok(Some(Source::ZERO)),
            FULLY_PRESENT => Ok(Some(Source::raw(Place { file: self.grid.file, at }))),
            PARTIALLY_PRESENT if self.differs => Ok(Some(Source::raw(Place { file: self.grid.file, at }))),
            _ => {
                Err(Kind::Corrupt.what("a block of the image is in a state that it cannot be in").file(self.grid.file))
            }
        }
    }
}

impl Grow<8> for Disk {
    fn unit(&self) -> u64 {
        if self.by_sector() { self.sector } else { self.grid.block_len }
    }

    fn frame(&self) -> Frame {
        Frame { align: ALIGNMENT, base: 0, head: 0, len: self.grid.block_len }
    }

    fn index(&self, number: u64) -> u64 {
        number.saturating_add(number.checked_div(self.ratio).unwrap_or(0))
    }

    fn entry(&self, _number: u64, at: u64) -> Result<[u8; 8]> {
        Ok((at | FULLY_PRESENT).to_le_bytes())
    }

    fn zeroes(&self) -> Option<[u8; 8]> {
        Some(ZERO.to_le_bytes())
    }

    fn space(&self, number: u64) -> Option<u64> {
        self.space.map(|space| number.saturating_mul(self.grid.block_len).saturating_add(space))
    }

    fn is_over(&self) -> bool {
        self.differs || self.will_stand
    }

    fn keep_identity(&mut self) {
        self.is_same = true;
    }

    /// What the log has not brought to its place yet is brought there, and the log is empty.
    fn start(&mut self, drive: &dyn Drive) -> Result<()> {
        let Some(overlay) = self.overlay.take() else { return Ok(()) };
        overlay.apply(drive)?;
        drive.flush(self.grid.file)?;
        self.put_headers(drive)?;
        drive.flush(self.grid.file)
    }

    fn touch(&mut self, room: &mut Room<'_>, touch: &Touch) -> Result<Rest> {
        for number in [touch.number, touch.skip, touch.len] {
            self.salt = self.salt.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number);
        }
        if !self.differs {
            return Ok(touch.rest);
        }
        let slot_at = self.entry_at(self.index(touch.number));
        if touch.is_new && (touch.is_whole || touch.rest == Rest::Zeroes) {
            return Ok(touch.rest);
        }
        let entry = u64::from_le_bytes(room.draft.get(room.drive, slot_at)?);
        if !touch.is_new && entry & STATE_MASK != PARTIALLY_PRESENT {
            return Ok(touch.rest);
        }
        let count = self.grid.block_len.checked_div(self.sector).unwrap_or(0);
        let (chunk, number, _) = split(touch.number, self.ratio);
        let first = number.saturating_mul(count);
        let at = self.bitmap(room, chunk)?;
        if touch.is_new {
            let partial = entry & !STATE_MASK | PARTIALLY_PRESENT;
            room.draft.put(room.drive, slot_at, &partial.to_le_bytes())?;
            // The bitmap may be one that stood for sectors of the block before.
            room.draft.blank(room.drive, at.saturating_add(first / 8), count / 8)?;
        }
        let (sector, by_sector, order) = (self.sector, self.by_sector(), Order::Low);
        Presence { at, first, count, sector, by_sector, order }.mark(room, touch)
    }

    fn finish(&mut self, drive: &dyn Drive, end: u64, _added: u64) -> Result<()> {
        let file = self.grid.file;
        // Readers want all of a block to be in the file, also of the last one.
        let count = self.grid.range.end.div_ceil(self.grid.block_len.max(1));
        drive.set_length(file, self.space(count).unwrap_or(0).max(end))?;
        drive.flush(file)?;
        // What becomes of a new disk must not depend on when it was; an older one must not be taken for a copy of it.
        let salt = self.salt.wrapping_add(if self.is_new { 0 } else { drive.clock()? });
        self.header.file_write_guid = renewed(&self.header.file_write_guid, salt);
        if !self.is_same {
            self.header.data_write_guid = renewed(&self.header.data_write_guid, salt);
        }
        self.put_headers(drive)
    }
}

impl Disk {
    /// Of a disk with long sectors that differs from another, parts of sectors may be asked for.
    fn by_sector(&self) -> bool {
        self.differs && self.sector != SECTOR
    }

    /// Where an entry of the table of blocks stands.
    fn entry_at(&self, index: u64) -> u64 {
        let table = match self.grid.root {
            Root::Table { at, .. } | Root::Directory { at, .. } => at,
        };
        table.saturating_add(index.saturating_mul(8))
    }

    /// Where the bitmap of a chunk begins, which is made if there is none.
    fn bitmap(&self, room: &mut Room<'_>, chunk: u64) -> Result<u64> {
        let period = self.ratio.saturating_add(1);
        let entry_at = self.entry_at(chunk.saturating_mul(period).saturating_add(self.ratio));
        let entry = u64::from_le_bytes(room.draft.get(room.drive, entry_at)?);
        if entry & STATE_MASK == FULLY_PRESENT {
            return Ok(entry & OFFSET_MASK);
        }
        let at = room.claim(ALIGNMENT, 0, BITMAP_LEN)?;
        room.draft.put(room.drive, entry_at, &(at | FULLY_PRESENT).to_le_bytes())?;
        Ok(at)
    }

    /// Writes both headers, the one that does not count first; there is no log any more.
    fn put_headers(&mut self, drive: &dyn Drive) -> Result<()> {
        self.header.log_guid = [0; 16];
        let [first, second] = HEADERS_AT;
        for at in if self.is_first { [second, first] } else { [first, second] } {
            let number = self.header.sequence_number.get().wrapping_add(1);
            self.header.sequence_number = number.into();
            self.header.checksum = 0.into();
            let place = Place { file: self.grid.file, at };
            drive.write(place, &sealed(self.header.as_bytes(), HEADER_LEN))?;
            drive.flush(self.grid.file)?;
        }
        Ok(())
    }
}

/// The identifier of the state that follows.
fn renewed(id: &[u8; 16], salt: u64) -> [u8; 16] {
    let Some(hash) = Hash::by_name(b"sha256") else { return *id };
    let digest = hash.digest(&[id, &salt.to_le_bytes()]);
    let Some([a, b, c, d, e, f, g, version, variant, rest @ ..]) = digest.first_chunk::<16>().copied() else {
        return *id;
    };
    let [h, i, j, k, l, m, n] = rest;
    [a, b, c, d, e, f, g, version & 0x0f | 0x40, variant & 0x3f | 0x80, h, i, j, k, l, m, n]
}
