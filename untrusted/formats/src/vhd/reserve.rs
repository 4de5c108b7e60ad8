//! Where the bytes of a VHD may go: where they are, or in a new block where the footer was, which moves on.

use super::disk::{CONECTIX, Footer, NOWHERE};
use super::locate::{self, Map};
use super::open::Checked;
use alloc::boxed::Box;
use core::mem::size_of;
use instar_image::bits::{self, Order, Presence};
use instar_image::blocks::{Blocks, Grid};
use instar_image::grow::{self, Frame, Grow, Room, Touch};
use instar_image::sector::SECTOR;
use instar_image::target::Rest;
use instar_image::{Drive, File, Kind, Place, Result, Source, Target, straight};
use zerocopy::IntoBytes;

/// The disk, to be written to. `as_qemu`: as if there were no other disk that it differs from.
pub fn target(file: &File<'_>, checked: &Checked, as_qemu: bool) -> Result<Box<dyn Target>> {
    let Some(map) = locate::map(file, checked, as_qemu) else {
        return Ok(straight::target(locate::row(file, checked)));
    };
    if map.differs && map.bitmap_len.saturating_mul(8) < map.grid.block_len / SECTOR {
        return Err(Kind::Corrupt.what("the blocks of the image have no bitmaps").file(file.id()));
    }
    let end = file.len().next_multiple_of(SECTOR);
    let last_at = end.saturating_sub(size_of::<Footer>() as u64);
    let last: Footer = file.read_as(last_at)?;
    let end = if &last.cookie == CONECTIX { last_at } else { end };
    Ok(grow::target(Disk { map, footer: checked.footer.clone(), marked: None }, end))
}

/// A disk that grows.
struct Disk {
    map: Map,
    footer: Footer,
    /// The block whose bitmap was last made to say that all of it is there.
    marked: Option<u64>,
}

impl Blocks<4> for Disk {
    fn grid(&self) -> &Grid {
        self.map.grid()
    }

    fn block(&self, number: u64, entry: [u8; 4]) -> Result<Option<Source>> {
        self.map.block(number, entry)
    }
}

impl Grow<4> for Disk {
    fn frame(&self) -> Frame {
        let head = self.map.bitmap_len;
        Frame { align: SECTOR, base: 0, head, len: head.saturating_add(self.map.grid.block_len) }
    }

    fn entry(&self, _number: u64, at: u64) -> Result<[u8; 4]> {
        let entry = u32::try_from(at / SECTOR).ok().filter(|entry| *entry != NOWHERE);
        entry.map(u32::to_be_bytes).ok_or_else(|| Kind::TooBig.what("the file cannot become longer"))
    }

    fn is_over(&self) -> bool {
        self.map.differs
    }

    fn touch(&mut self, room: &mut Room<'_>, touch: &Touch) -> Result<Rest> {
        let at = touch.at.saturating_sub(self.map.bitmap_len);
        let count = self.map.grid.block_len / SECTOR;
        if touch.is_new {
            // There may have been a footer.
            room.draft.blank(room.drive, at, self.map.bitmap_len)?;
        }
        if self.map.differs {
            let order = Order::High;
            return Presence { at, first: 0, count, sector: SECTOR, by_sector: false, order }.mark(room, touch);
        }
        // Readers that go by the bitmap must find what is written.
        if self.marked != Some(touch.number) {
            self.marked = Some(touch.number);
            bits::set(room.drive, room.draft, at, 0..self.map.bitmap_len.saturating_mul(8), Order::High)?;
        }
        Ok(touch.rest)
    }

    fn finish(&mut self, drive: &dyn Drive, end: u64, _added: u64) -> Result<()> {
        let file = self.map.grid.file;
        drive.write(Place { file, at: end }, self.footer.as_bytes())?;
        drive.set_length(file, end.saturating_add(size_of::<Footer>() as u64))
    }
}
