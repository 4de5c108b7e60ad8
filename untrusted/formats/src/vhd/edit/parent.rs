//! What a VHD differs from: its header names it, which is longer than a sector, and the footer at the front leads to that.
//! So a new header is written where nothing is, and becomes true with the footer; then it goes where the old one was.

use super::{Change, Disk, FOOTER_LEN, cut, footer_at, put};
use crate::vhd::disk::{
    DIFFERENCING, DYNAMIC, FIXED, FOOTER_CHECKSUM_AT, Footer, HEADER_CHECKSUM_AT, Header, Locator, NOWHERE,
};
use crate::vhd::open::{Blocks, Found, checksum, find_footer};
use crate::vhd::parent::Below;
use core::mem::size_of;
use instar_image::bits::{Order, alike};
use instar_image::draft::Draft;
use instar_image::edit::Footing;
use instar_image::sector::{SECTOR, round_up};
use instar_image::{Drive, File, Kind, Result, Role, Table};
use zerocopy::IntoBytes;

const HEADER_LEN: u64 = size_of::<Header>() as u64;

impl<'a> Change<'_, 'a> {
    /// The blocks, and what the disk is to stand on.
    pub(super) fn footing(&self, footing: &Footing<'_>) -> Result<Option<(&Blocks, Option<Below>)>> {
        let refused = |words: &'static str| Kind::Unsupported.what(words).file(self.file.id());
        let kind = self.checked.footer.disk_type.get();
        if footing.format.is_some_and(|format| !footing.name.is_empty() && format != b"vpc") {
            return Err(refused("a VHD can only differ from another VHD"));
        }
        let below = match (footing.name, footing.below) {
            ([], _) => None,
            (name, Some(below)) => Some(Below::known(name, below)?),
            (name, None) => Some(self.unseen(name)?),
        };
        match (&self.checked.blocks, kind, below) {
            (None, ..) | (_, FIXED | DYNAMIC, None) if footing.name.is_empty() => Ok(None),
            (Some(blocks), DIFFERENCING, below) => Ok(Some((blocks, below))),
            // It has all sectors itself, also those that it has no block for.
            _ => Err(refused("only a VHD that differs from another one can be made to differ from another one")),
        }
    }

    /// Another disk that nobody has looked at.
    fn unseen(&self, name: &[u8]) -> Result<Below> {
        let granted = self.file.related(Role::Parent, name)?;
        let footer = match find_footer(&File::new(self.file.io(), &granted), false)? {
            Some(Found::Front(footer) | Found::End(footer)) => footer,
            None => return Err(Kind::NotThisFormat.what("the parent of a VHD is not a VHD").file(granted.id)),
        };
        Below::new(name, 0, footer.uuid, footer.timestamp.get())
    }

    pub(super) fn turn(&self, drive: &dyn Drive, blocks: &Blocks, below: Option<&Below>) -> Result<()> {
        let (was, disk) = (&self.checked.footer, self.disk(blocks));
        let Some(below) = below else {
            disk.complete(drive)?;
            // What is still named means nothing to a disk that differs from none.
            let footer = changed(was, DYNAMIC, was.data_offset.get());
            put(drive, self.file.place(0), footer.as_bytes())?;
            return put(drive, self.file.place(footer_at(self.file)?), footer.as_bytes());
        };
        disk.rename(drive, was, below)
    }

    fn disk<'d>(&'d self, blocks: &'d Blocks) -> Disk<'d, 'a> {
        let size = self.checked.virtual_size;
        Disk { file: self.file, blocks, is_over: true, old: size, size }
    }

    /// No block is here any more: every entry that leads nowhere is right by itself. The file ends with what is left.
    pub(super) fn clear(&self, drive: &dyn Drive, blocks: &Blocks) -> Result<()> {
        let (file, disk) = (self.file, self.disk(blocks));
        let last_at = footer_at(file)?;
        let mut draft = Draft::new(file.id(), file.place(last_at).at);
        for number in 0..u64::from(blocks.table_count) {
            let at = disk.entry_at(blocks.table_at, number);
            if draft.get(drive, at)? != NOWHERE.to_be_bytes() {
                draft.put(drive, at, &NOWHERE.to_be_bytes())?;
            }
        }
        draft.flush(drive)?;
        drive.flush(file.id())?;
        let (header_at, header) = disk.header()?;
        let end = round_up(disk.front(header_at, &header, 0)?.end);
        if end >= last_at { Ok(()) } else { cut(file, drive, end, &self.checked.footer) }
    }
}

/// The footer of a disk of this kind whose header is there.
fn changed(was: &Footer, kind: u32, header_at: u64) -> Footer {
    let mut footer = was.clone();
    footer.disk_type = kind.into();
    footer.data_offset = header_at.into();
    footer.checksum = checksum(footer.as_bytes(), FOOTER_CHECKSUM_AT).into();
    footer
}

impl Disk<'_, '_> {
    /// Every block that is there.
    fn each_block(&self, act: &mut dyn FnMut(u64) -> Result<()>) -> Result<()> {
        let mut table: Table<'_, 4> = Table::new(self.file.io(), self.file.id());
        table.each(self.file.place(self.blocks.table_at).at, self.blocks.table_count.into(), |_, entry| {
            match u32::from_be_bytes(*entry) {
                NOWHERE => Ok(()),
                sector => act(u64::from(sector).saturating_mul(SECTOR)),
            }
        })
    }

    /// Sectors of blocks that are not here become zeroes, as all sectors of blocks are here when nothing is below.
    fn complete(&self, drive: &dyn Drive) -> Result<()> {
        let (file, bitmap_len) = (self.file, self.blocks.bitmap_len);
        let count = self.block_len() / SECTOR;
        let mut bitmap = Table::<1>::new(file.io(), file.id());
        self.each_block(&mut |at| {
            let place = file.place(at);
            let mut sector = 0;
            while sector < count {
                let bytes = bitmap.entries(place.at, sector / 8, bitmap_len)?;
                let (is_here, run) = alike(bytes, u32::try_from(sector % 8).unwrap_or(0), Order::High);
                let run = run.max(1).min(count.saturating_sub(sector));
                if !is_here {
                    let skip = bitmap_len.saturating_add(sector.saturating_mul(SECTOR));
                    drive.zero(place.ahead(skip), run.saturating_mul(SECTOR), false)?;
                }
                sector = sector.saturating_add(run);
            }
            Ok(())
        })?;
        drive.flush(file.id())
    }

    fn rename(&self, drive: &dyn Drive, was: &Footer, below: &Below) -> Result<()> {
        let file = self.file;
        let (header_at, old) = self.header()?;
        let text = below.text();
        let (free, len) = (footer_at(file)?, round_up(text.len() as u64));
        let own_at = free.saturating_add(len);
        let end = own_at.saturating_add(HEADER_LEN);
        let header = |text_at: u64| -> Result<Header> {
            let mut header: Header = file.read_as(header_at)?;
            header.parent_name = [0; 512];
            header.locators.as_mut_bytes().fill(0);
            below.write(&mut header, text_at);
            header.checksum = checksum(header.as_bytes(), HEADER_CHECKSUM_AT).into();
            Ok(header)
        };
        // The last sector of the file is a footer, whatever happens.
        put(drive, file.place(end), was.as_bytes())?;
        drive.write(file.place(free), text)?;
        put(drive, file.place(own_at), header(free)?.as_bytes())?;
        let footer = changed(was, DIFFERENCING, own_at);
        put(drive, file.place(0), footer.as_bytes())?;
        put(drive, file.place(end), footer.as_bytes())?;
        let spot = self.spot(&old, len)?;
        if let Some(at) = spot {
            drive.write(file.place(at), text)?;
        }
        put(drive, file.place(header_at), header(spot.unwrap_or(free))?.as_bytes())?;
        let footer = changed(was, DIFFERENCING, header_at);
        put(drive, file.place(0), footer.as_bytes())?;
        cut(file, drive, if spot.is_some() { free } else { own_at }, &footer)
    }

    /// Where the name was, if there is room for one of this length, and nothing else.
    fn spot(&self, old: &Header, len: u64) -> Result<Option<u64>> {
        let room = |locator: &&Locator| {
            let is_used = locator.platform_code != [0; 4];
            is_used && round_up(locator.data_length.get().into()) >= len
        };
        let Some(at) = old.locators.iter().find(room).map(|locator| locator.data_offset.get()) else { return Ok(None) };
        let end = at.saturating_add(len);
        let table_end = self.blocks.table_at.saturating_add(Self::table_len(self.blocks.table_count.into()));
        let is_apart = |from: u64, to: u64| end <= from || at >= to;
        let (header_at, _) = self.header()?;
        let mut is_free = at.is_multiple_of(SECTOR)
            && is_apart(0, FOOTER_LEN)
            && is_apart(header_at, header_at.saturating_add(HEADER_LEN))
            && is_apart(self.blocks.table_at, table_end)
            && end <= footer_at(self.file)?;
        self.each_block(&mut |block| {
            is_free &= is_apart(block, block.saturating_add(self.space_len()));
            Ok(())
        })?;
        Ok(Some(at).filter(|_| is_free))
    }
}
