//! Where the bytes of a compressed loop image are: in blocks that are all compressed, one behind the other.

use super::disk::OFFSETS_AT;
use super::open::Checked;
use alloc::boxed::Box;
use instar_codec::unpack::Codec;
use instar_image::num::split;
use instar_image::{Cursor, File, Io, Kind, Layer, Place, Result, Source, Table, Unit};

/// The image's map.
pub fn layer(file: &File<'_>, checked: &Checked) -> Box<dyn Layer> {
    Box::new(CloopLayer {
        start: file.place(0),
        block_len: checked.block_len.into(),
        block_count: checked.block_count.into(),
    })
}

struct CloopLayer {
    start: Place,
    block_len: u64,
    block_count: u64,
}

impl Layer for CloopLayer {
    fn size(&self) -> u64 {
        self.block_len.saturating_mul(self.block_count)
    }

    fn cursor<'c>(&'c self, io: &'c dyn Io) -> Box<dyn Cursor + 'c> {
        Box::new(CloopCursor { layer: self, offsets: Table::new(io, self.start.file) })
    }

    fn is_open(&self) -> bool {
        false
    }
}

struct CloopCursor<'c> {
    layer: &'c CloopLayer,
    offsets: Table<'c, 8>,
}

impl CloopCursor<'_> {
    /// Where a block begins, which is where the one before it ends.
    fn offset(&mut self, index: u64) -> Result<u64> {
        let CloopLayer { start, block_count, .. } = self.layer;
        let ended = || Kind::Corrupt.what("a table without entries").file(start.file);
        let entries = self.offsets.entries(start.ahead(OFFSETS_AT).at, index, block_count.saturating_add(1))?;
        entries.first().map(|entry| u64::from_be_bytes(*entry)).ok_or_else(ended)
    }
}

impl Cursor for CloopCursor<'_> {
    fn find(&mut self, at: u64, _end: u64) -> Result<(u64, Option<Source>)> {
        let size = self.layer.block_len;
        let (block, skip, left) = split(at, size);
        let from = self.offset(block)?;
        let len = self.offset(block.saturating_add(1))?.saturating_sub(from);
        let unit = Unit { codec: Codec::Zlib, place: self.layer.start.ahead(from), len, size, whole: true };
        Ok((left, Some(Source::Packed { unit, skip })))
    }
}
