//! Where the bytes of a VMware disk are: in its extents one after the other, each in a row or in grains.

#[cfg(test)]
mod tests;

use super::disk::{
    GRAIN_MARKER_LEN, SE_ALLOCATED, SE_HIGH, SE_KIND, SE_LOW, SE_TABLE, SE_TABLE_KIND, SE_UNMAPPED, SE_ZERO, ZERO_GRAIN,
};
use super::open::{Body, Checked, Extent};
use super::sparse::{SeAreas, Sparse};
use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use core::ops::Range;
use instar_codec::unpack::Codec;
use instar_image::blocks::{BlockCursor, Blocks, Grid, Root};
use instar_image::num::split;
use instar_image::row::Row;
use instar_image::sector::{SECTOR, readable};
use instar_image::{Batch, Cursor, Error, FileId, Io, Kind, Layer, Place, Result, Source, Unit};

/// The most compressed bytes that a marker may promise for a grain, in grains; without a marker there is one.
const PACKED_MAX: u64 = 2;

/// The disk's map.
pub fn layer(checked: &Checked) -> Result<Box<dyn Layer>> {
    let mut extents = Vec::new();
    let mut start = 0u64;
    for extent in &checked.extents {
        let end = start.saturating_add(extent.sectors.saturating_mul(SECTOR));
        extents.push(Part { end, body: Spread::of(extent, start..end)? });
        start = end;
    }
    Ok(Box::new(Disk { extents, size: checked.virtual_size }))
}

/// A VMware disk.
struct Disk {
    /// One behind the other.
    extents: Vec<Part>,
    size: u64,
}

/// An extent, and where it ends on the disk.
struct Part {
    end: u64,
    body: Spread,
}

impl Part {
    fn reach(&self, at: u64) -> u64 {
        let grains = match &self.body {
            Spread::Row(_) => return self.end.saturating_sub(at),
            Spread::Grains(grains) | Spread::SeGrains(SeGrains { grains, .. }) => grains,
        };
        let (_, _, left) = split(at.saturating_sub(grains.grid.range.start), grains.grid.block_len);
        left
    }
}

/// Where an extent's bytes are.
pub enum Spread {
    /// In a row.
    Row(Row),
    /// In grains.
    Grains(Grains),
    /// In grains of ESX's newer kind.
    SeGrains(SeGrains),
}

impl Spread {
    /// Of an extent that has these bytes of the disk.
    pub fn of(extent: &Extent, range: Range<u64>) -> Result<Spread> {
        let file = extent.file;
        let sparse = match &extent.body {
            Body::Flat { start } => {
                let start = Place { file, at: start.saturating_mul(SECTOR) };
                return Ok(Spread::Row(Row { start, range }));
            }
            Body::Sparse(sparse) => sparse,
        };
        if sparse.grain_sectors == 0 {
            return Err(Kind::Corrupt.what("Invalid granularity, image may be corrupt").file(file));
        }
        let grains = Grains::new(file, range, sparse);
        Ok(match sparse.se {
            Some(areas) => Spread::SeGrains(SeGrains { grains, areas }),
            None => Spread::Grains(grains),
        })
    }
}

impl Layer for Disk {
    fn size(&self) -> u64 {
        self.size
    }

    fn cursor<'c>(&'c self, io: &'c dyn Io) -> Box<dyn Cursor + 'c> {
        Box::new(DiskCursor { disk: self, io, now: None })
    }

    /// To the end of a grain.
    fn reach(&self, at: u64) -> u64 {
        let number = self.extents.partition_point(|part| part.end <= at);
        self.extents.get(number).map_or(u64::MAX, |part| part.reach(at))
    }

    /// The marker before a grain says how long it is; where it belongs is not looked at, nor does qemu-img.
    fn measured(&self, io: &dyn Io, unit: Unit) -> Result<Unit> {
        let ours = |part: &&Part| matches!(&part.body, Spread::Grains(grains) if grains.grid.file == unit.place.file);
        let Some(Part { body: Spread::Grains(Grains { marked: true, .. }), .. }) = self.extents.iter().find(ours)
        else {
            return Ok(unit);
        };
        let broken = || Kind::Broken.what("a compressed part is broken").file(unit.place.file).at(unit.place.at);
        let mut size = [0; 4];
        if io.len(unit.place.file) < unit.place.at {
            return Err(broken());
        }
        io.read(unit.place.file, unit.place.at.saturating_sub(size.len() as u64), &mut size)?;
        let len = u64::from(u32::from_le_bytes(size));
        if len == 0 || len > unit.len { Err(broken()) } else { Ok(Unit { len, ..unit }) }
    }
}

/// A walker; what it remembers is of one extent only, because there can be thousands.
struct DiskCursor<'c> {
    disk: &'c Disk,
    io: &'c dyn Io,
    now: Option<(Range<u64>, Box<dyn Cursor + 'c>)>,
}

impl Cursor for DiskCursor<'_> {
    fn find(&mut self, at: u64, end: u64) -> Result<(u64, Option<Source>)> {
        self.extent(at)?.find(at, end)
    }

    fn fill(&mut self, out: &mut Batch<Option<Source>>) -> Result<()> {
        let from = out.at();
        while !out.is_done() {
            let told = self.extent(out.at()).and_then(|cursor| cursor.fill(out));
            if told.is_err() {
                return out.kept(from, told);
            }
        }
        Ok(())
    }
}

impl<'c> DiskCursor<'c> {
    /// The walker over the extent that has the byte at `at`.
    fn extent(&mut self, at: u64) -> Result<&mut (dyn Cursor + 'c)> {
        let disk = self.disk;
        let outside = || Kind::Corrupt.what("no extent has these bytes");
        if !self.now.as_ref().is_some_and(|(range, _)| range.contains(&at)) {
            let number = disk.extents.partition_point(|part| part.end <= at);
            let part = disk.extents.get(number).ok_or_else(outside)?;
            let before = number.checked_sub(1).and_then(|before| disk.extents.get(before));
            self.now = Some((before.map_or(0, |before| before.end)..part.end, part.body.cursor(self.io)));
        }
        self.now.as_mut().map(|(_, cursor)| &mut **cursor).ok_or_else(outside)
    }
}

impl Spread {
    /// A walker over them.
    pub fn cursor<'c>(&'c self, io: &'c dyn Io) -> Box<dyn Cursor + 'c> {
        match self {
            Spread::Row(row) => row.cursor(),
            Spread::Grains(grains) => Box::new(BlockCursor::new(grains, io)),
            Spread::SeGrains(grains) => Box::new(BlockCursor::new(grains, io)),
        }
    }
}

/// The grains of a sparse extent, with entries of four bytes.
pub struct Grains {
    grid: Grid,
    /// They are compressed.
    pub compressed: bool,
    /// Before each compressed grain stands how long it is.
    pub marked: bool,
    /// Grains can be zero without being there.
    pub zeroable: bool,
}

impl Grains {
    /// Of an extent that has these bytes of the disk.
    pub fn new(file: FileId, range: Range<u64>, sparse: &Sparse) -> Grains {
        Grains {
            grid: Grid {
                file,
                range,
                block_len: sparse.grain_sectors.saturating_mul(SECTOR),
                root: Root::Directory {
                    at: sparse.directory_at,
                    count: sparse.directory_count.into(),
                    entries: sparse.table_count.into(),
                },
            },
            compressed: sparse.compressed,
            marked: sparse.marked,
            zeroable: sparse.zeroable,
        }
    }

    fn packed(&self, number: u64, place: Place) -> Source {
        let Grid { range, block_len, .. } = &self.grid;
        let before = number.saturating_mul(*block_len).saturating_add(range.start);
        let (place, grains) = if self.marked { (place.ahead(GRAIN_MARKER_LEN), PACKED_MAX) } else { (place, 1) };
        // The last grain may have been compressed whole, or only as far as the disk goes.
        let size = range.end.saturating_sub(before).min(*block_len);
        let unit =
            Unit { codec: Codec::Zlib, place, len: block_len.saturating_mul(grains), size, whole: size == *block_len };
        Source::Packed { unit, skip: 0 }
    }
}

impl Blocks<4> for Grains {
    fn grid(&self) -> &Grid {
        &self.grid
    }

    fn table(&self, entry: [u8; 4]) -> Result<Option<u64>> {
        let sector = u64::from(u32::from_le_bytes(entry));
        Ok(Some(sector.saturating_mul(SECTOR)).filter(|at| *at != 0))
    }

    fn block(&self, number: u64, entry: [u8; 4]) -> Result<Option<Source>> {
        let sector = u32::from_le_bytes(entry);
        let place = Place { file: self.grid.file, at: u64::from(sector).saturating_mul(SECTOR) };
        Ok(match sector {
            0 => None,
            ZERO_GRAIN if self.zeroable => Some(Source::ZERO),
            _ if self.compressed => Some(self.packed(number, place)),
            _ => Some(Source::raw(place)),
        })
    }
}

/// The grains of ESX's newer sparse extent: entries have eight bytes, and count in tables and grains.
pub struct SeGrains {
    grains: Grains,
    areas: SeAreas,
}

impl SeGrains {
    fn wrong(&self, entry: u64) -> Error {
        Kind::Corrupt
            .what("an entry of a table makes no sense: 0x{}")
            .arg(format!("{entry:016x}"))
            .file(self.grains.grid.file)
    }

    /// The byte at which the piece with this number begins, of pieces of this length.
    fn place(&self, start: u64, number: u64, len: u64, entry: u64) -> Result<u64> {
        let at = number.checked_mul(len).and_then(|skip| skip.checked_add(start));
        at.filter(|at| readable(*at, len)).ok_or_else(|| self.wrong(entry))
    }
}

impl Blocks<8> for SeGrains {
    fn grid(&self) -> &Grid {
        &self.grains.grid
    }

    fn table(&self, entry: [u8; 8]) -> Result<Option<u64>> {
        let entry = u64::from_le_bytes(entry);
        match entry & SE_TABLE_KIND {
            _ if entry == 0 => Ok(None),
            SE_TABLE => self.place(self.areas.tables_at, entry & !SE_TABLE_KIND, self.areas.table_len, entry).map(Some),
            _ => Err(self.wrong(entry)),
        }
    }

    fn block(&self, _number: u64, entry: [u8; 8]) -> Result<Option<Source>> {
        let entry = u64::from_le_bytes(entry);
        match entry & SE_KIND {
            0 if entry == 0 => Ok(None),
            SE_UNMAPPED | SE_ZERO => Ok(Some(Source::ZERO)),
            SE_ALLOCATED => {
                // The lowest twelve bits of the grain's number stand above the others.
                let number = (entry & SE_LOW) >> 48 | (entry & SE_HIGH) << 12;
                let at = self.place(self.areas.grains_at, number, self.grains.grid.block_len, entry)?;
                Ok(Some(Source::raw(Place { file: self.grains.grid.file, at })))
            }
            _ => Err(self.wrong(entry)),
        }
    }
}
