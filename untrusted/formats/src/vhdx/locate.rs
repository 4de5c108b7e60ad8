//! Where the bytes of a VHDX are: in blocks, of a disk that differs from another also in sectors of blocks, and in a log
//! that has not been replayed.

use super::disk::{
    BITMAP_LEN, FULLY_PRESENT, NOT_PRESENT, OFFSET_MASK, PARTIALLY_PRESENT, STATE_MASK, UNDEFINED, UNMAPPED,
    UNMAPPED_EARLY, ZERO,
};
use super::open::Checked;
use super::replay::{Fate, Overlay, Replayed};
use alloc::boxed::Box;
use alloc::sync::Arc;
use instar_image::bits::{Order, alike};
use instar_image::num::split;
use instar_image::{Cursor, Error, File, Io, Kind, Layer, Place, Result, Source, Table};

/// The disk's map.
pub fn layer(file: &File<'_>, checked: &Checked) -> Box<dyn Layer> {
    Box::new(VhdxLayer {
        start: file.place(0),
        size: checked.virtual_size,
        block_len: checked.metadata.block_len.into(),
        sector: checked.metadata.logical_sector.into(),
        table: file.place(checked.table_at),
        table_count: checked.table_count,
        ratio: checked.chunk_ratio,
        differs: checked.metadata.parent.is_some(),
        overlay: checked.overlay.clone(),
    })
}

struct VhdxLayer {
    start: Place,
    size: u64,
    block_len: u64,
    sector: u64,
    table: Place,
    table_count: u64,
    /// Blocks between one entry for a sector bitmap and the next.
    ratio: u64,
    differs: bool,
    overlay: Option<Arc<Overlay>>,
}

impl VhdxLayer {
    /// The file as the map has to see it: with its log replayed.
    fn table<'c, const N: usize>(&'c self, io: &'c dyn Io) -> Table<'c, N> {
        match &self.overlay {
            None => Table::new(io, self.start.file),
            Some(overlay) => Table::through(Box::new(Replayed { io, overlay }), self.start.file),
        }
    }

    /// What the file has at `place`, for at most `len` bytes.
    fn held(&self, place: Place, len: u64) -> (u64, Source) {
        let Some(overlay) = &self.overlay else { return (len, Source::raw(place)) };
        let (same, fate) = overlay.at(place.at);
        let source = match fate {
            Fate::Kept => Source::raw(place),
            Fate::Zero => Source::ZERO,
            Fate::Logged => Source::Inline { place },
        };
        (same.min(len), source)
    }

    fn broken(&self, phrase: &'static str) -> Error {
        Kind::Corrupt.what(phrase).file(self.start.file)
    }
}

impl Layer for VhdxLayer {
    fn size(&self) -> u64 {
        self.size
    }

    fn cursor<'c>(&'c self, io: &'c dyn Io) -> Box<dyn Cursor + 'c> {
        Box::new(VhdxCursor { layer: self, blocks: self.table(io), bitmap: self.table(io) })
    }

    fn inline(&self, io: &dyn Io, place: Place, buf: &mut [u8]) -> Result<()> {
        let overlay = self.overlay.as_deref().ok_or_else(|| self.broken("there is no log to be replayed"))?;
        Replayed { io, overlay }.read(place.file, place.at, buf)
    }

    fn is_open(&self) -> bool {
        false
    }
}

struct VhdxCursor<'c> {
    layer: &'c VhdxLayer,
    blocks: Table<'c, 8>,
    bitmap: Table<'c, 1>,
}

impl VhdxCursor<'_> {
    fn entry(&mut self, index: u64) -> Result<u64> {
        let VhdxLayer { table, table_count, .. } = *self.layer;
        let entries = self.blocks.entries(table.at, index, table_count)?;
        entries
            .first()
            .map(|entry| u64::from_le_bytes(*entry))
            .ok_or_else(|| self.layer.broken("a table without entries"))
    }

    /// Whether the sector at `skip` of a block of which only some are in the file is one of them, and for how many
    /// bytes the answer is the same.
    fn sector(&mut self, block: u64, skip: u64, left: u64) -> Result<(u64, bool)> {
        let VhdxLayer { start, block_len, sector, ratio, .. } = *self.layer;
        let (chunk, number, _) = split(block, ratio);
        let period = ratio.saturating_add(1);
        let entry = self.entry(chunk.saturating_mul(period).saturating_add(ratio))?;
        if entry & STATE_MASK != FULLY_PRESENT {
            return Err(self.layer.broken("some sectors of a block are in the file, but it is not said which"));
        }
        let (index, into, _) = split(number.saturating_mul(block_len).saturating_add(skip), sector);
        let bytes = self.bitmap.entries(start.ahead(entry & OFFSET_MASK).at, index / 8, BITMAP_LEN)?;
        let (is_here, count) = alike(bytes, u32::try_from(index % 8).unwrap_or(0), Order::Low);
        Ok((count.saturating_mul(sector).saturating_sub(into).min(left), is_here))
    }
}

impl Cursor for VhdxCursor<'_> {
    fn find(&mut self, at: u64, _end: u64) -> Result<(u64, Option<Source>)> {
        let VhdxLayer { start, block_len, ratio, differs, .. } = *self.layer;
        let (block, skip, left) = split(at, block_len);
        let (chunk, _, _) = split(block, ratio);
        let entry = self.entry(block.saturating_add(chunk))?;
        let (len, is_here) = match entry & STATE_MASK {
            NOT_PRESENT => return Ok((left, None)),
            UNDEFINED | ZERO | UNMAPPED | UNMAPPED_EARLY => return Ok((left, Some(Source::ZERO))),
            FULLY_PRESENT => (left, true),
            PARTIALLY_PRESENT if differs => self.sector(block, skip, left)?,
            _ => return Err(self.layer.broken("a block of the image is in a state that it cannot be in")),
        };
        if !is_here {
            return Ok((len, None));
        }
        let (len, source) = self.layer.held(start.ahead(entry & OFFSET_MASK).ahead(skip), len);
        Ok((len, Some(source)))
    }
}
