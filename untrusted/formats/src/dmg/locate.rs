//! Where the bytes of an Apple disk image are: in chunks, each kept in its own way.

use super::disk::kind;
use super::open::{Checked, invalid, is_data, unknown_kind};
use super::tables;
use alloc::boxed::Box;
use alloc::vec::Vec;
use instar_codec::unpack::Codec;
use instar_image::num::bounded;
use instar_image::sector::SECTOR;
use instar_image::{Cursor, File, FileId, Io, Kind, Layer, Place, Result, Source, Unit};

/// The most chunks that are remembered: with the usual chunks, as many as an image of 1 TiB has.
const CHUNKS_MAX: u64 = 1 << 20;

/// A chunk, in sectors of the disk.
struct Chunk {
    start: u64,
    count: u64,
    kind: u32,
    place: Place,
    len: u64,
}

/// The image's map: all chunks, by their first sector.
struct DmgLayer {
    file: FileId,
    size: u64,
    chunks: Vec<Chunk>,
}

/// The image's map.
pub fn layer(file: &File<'_>, checked: &Checked) -> Result<Box<dyn Layer>> {
    let too_many = || Kind::TooBig.what("the image has more chunks than can be remembered").file(file.id());
    let room = bounded(checked.census.indexed, CHUNKS_MAX, too_many)?;
    let mut chunks: Vec<Chunk> = Vec::with_capacity(room);
    tables::walk(file, &checked.tables, &mut |block, chunk| {
        let (kind, count, len) = (chunk.kind.get(), chunk.count.get(), chunk.length.get());
        if !is_data(kind) || count == 0 {
            return Ok(());
        }
        let start = chunk.sector.get().checked_add(block.sector_number.get());
        let at = checked.data_at.checked_add(block.data_offset.get()).and_then(|at| at.checked_add(chunk.offset.get()));
        let (Some(start), Some(at)) = (start, at) else { return Err(invalid().file(file.id())) };
        // The file has changed since it was counted.
        if chunks.len() >= room {
            return Err(too_many());
        }
        chunks.push(Chunk { start, count, kind, place: file.place(at), len });
        Ok(())
    })?;
    chunks.sort_unstable_by_key(|chunk| chunk.start);
    if let Some(at) = overlap(&chunks) {
        let phrase = "two chunks of the image are for sector {} of the disk";
        return Err(Kind::Corrupt.what(phrase).file(file.id()).arg(at));
    }
    Ok(Box::new(DmgLayer { file: file.id(), size: checked.virtual_size, chunks }))
}

/// The first sector that two chunks have.
///
/// No program makes such images, and readers differ in which of the two they believe.
fn overlap(chunks: &[Chunk]) -> Option<u64> {
    let pairs = chunks.iter().zip(chunks.iter().skip(1));
    let mut both = pairs.filter(|(a, b)| a.start.saturating_add(a.count) > b.start);
    both.next().map(|(_, b)| b.start)
}

impl Layer for DmgLayer {
    fn size(&self) -> u64 {
        self.size
    }

    fn cursor<'c>(&'c self, _io: &'c dyn Io) -> Box<dyn Cursor + 'c> {
        Box::new(DmgCursor(self))
    }

    fn is_open(&self) -> bool {
        false
    }
}

struct DmgCursor<'c>(&'c DmgLayer);

impl Cursor for DmgCursor<'_> {
    fn find(&mut self, at: u64, _end: u64) -> Result<(u64, Option<Source>)> {
        let sector = at / SECTOR;
        let behind = self.0.chunks.partition_point(|chunk| chunk.start <= sector);
        let chunk = behind.checked_sub(1).and_then(|last| self.0.chunks.get(last));
        let Some(chunk) = chunk.filter(|chunk| sector.saturating_sub(chunk.start) < chunk.count) else {
            return Err(Kind::Corrupt
                .what("no chunk of the image is for sector {} of the disk")
                .file(self.0.file)
                .arg(sector));
        };
        let size = chunk.count.saturating_mul(SECTOR);
        let skip = at.saturating_sub(chunk.start.saturating_mul(SECTOR));
        let left = size.saturating_sub(skip);
        let packed = |codec| {
            let unit = Unit { codec, place: chunk.place, len: chunk.len, size, whole: true };
            Ok((left, Some(Source::Packed { unit, skip })))
        };
        match chunk.kind {
            kind::ZERO | kind::IGNORE => Ok((left, Some(Source::ZERO))),
            // The last sector may be there in part.
            kind::RAW if skip >= chunk.len => Ok((left, Some(Source::ZERO))),
            kind::RAW => Ok((chunk.len.saturating_sub(skip).min(left), Some(Source::raw(chunk.place.ahead(skip))))),
            kind::ADC => packed(Codec::Adc),
            kind::ZLIB => packed(Codec::Zlib),
            kind::BZIP2 => packed(Codec::Bzip2),
            kind::LZFSE => packed(Codec::Lzfse),
            kind::LZMA => packed(Codec::Lzma),
            other => Err(unknown_kind(other).file(chunk.place.file)),
        }
    }
}
