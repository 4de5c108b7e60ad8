//! Where bytes of a VMware disk may go: each of its extents gives out its own places.

#[cfg(test)]
mod tests;

use super::descriptor::renewed;
use super::disk::{Footer, Hosted, MARKER_FOOTER, Marker, ZERO_GRAIN};
use super::locate::Grains;
use super::open::{Body, Checked, Extent};
use super::sparse::{Sparse, forward};
use super::stream::{Packed, Plain, Stream};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;
use instar_image::blocks::{BlockCursor, Blocks, Grid, Root};
use instar_image::draft::Draft;
use instar_image::grow::{Frame, Grow, Growing};
use instar_image::row::Row;
use instar_image::sector::SECTOR;
use instar_image::target::{Packing, Rest, Spot, What};
use instar_image::{Cursor, Drive, Error, File, FileId, Kind, Place, Result, Source, Target};
use zerocopy::IntoBytes;

/// Grains up to this length begin at multiples of it.
const ALIGN_MAX: u64 = 64 << 10;

/// Bytes of a grain that is packed.
const PACKED_MAX: u64 = 16 << 20;
/// Tables whose places are kept until a stream ends: those of 64 TiB.
const STREAM_MAX: u32 = 2 << 20;

/// The disk, open to be written to. `will_stand`: something lies below it when that is done.
pub fn target(file: &File<'_>, checked: &Checked, will_stand: bool) -> Result<Box<dyn Target>> {
    let is_over = checked.parent.is_some() || will_stand;
    let mut parts = Vec::new();
    let mut start = 0u64;
    for extent in &checked.extents {
        let end = start.saturating_add(extent.sectors.saturating_mul(SECTOR));
        parts.push(Part::of(file, (checked, is_over), extent, start..end)?);
        start = end;
    }
    let unit = unit(&parts);
    let is_cut = parts.iter().any(|part| part.grain_len.is_some_and(|len| len != unit));
    let is_packed = parts.iter().any(|part| part.packed.is_some());
    // Whoever asks would not know of the rest of a grain that has to be brought with it.
    if is_cut && (is_over || is_packed) {
        return Err(Kind::Unsupported.what("extents of this disk begin within grains").file(file.id()));
    }
    let text = Text { place: file.place(checked.text_at), text: checked.text.clone(), cid: checked.cid };
    Ok(Box::new(Disk { parts, size: checked.virtual_size, unit, is_packed, text: Some(text) }))
}

/// The largest length that all grains are multiples of, and that all extents in grains begin at multiples of.
fn unit(parts: &[Part]) -> u64 {
    let all = parts.iter().filter_map(|part| Some((part.range.start, part.grain_len?)));
    match all.fold(0, |unit, (start, len)| divisor(divisor(unit, start), len)) {
        0 => ALIGN_MAX,
        unit => unit,
    }
}

/// The greatest common divisor.
fn divisor(a: u64, b: u64) -> u64 {
    let (mut a, mut b) = (a, b);
    while let Some(rest) = a.checked_rem(b) {
        (a, b) = (b, rest);
    }
    a
}

/// A disk that is written to.
struct Disk {
    parts: Vec<Part>,
    size: u64,
    unit: u64,
    /// Grains are packed.
    is_packed: bool,
    /// The descriptor as long as it has not been written anew.
    text: Option<Text>,
}

/// An extent, and what it has of the disk.
struct Part {
    range: Range<u64>,
    /// Length of its grains, if it has grains.
    grain_len: Option<u64>,
    /// How they are packed, if they are.
    packed: Option<Packed>,
    body: Spread,
}

enum Spread {
    Row(Row),
    Grains(Box<Growing<Tables, 4>>),
    Stream(Box<Stream>),
}

impl Part {
    fn of(file: &File<'_>, (checked, is_over): (&Checked, bool), extent: &Extent, range: Range<u64>) -> Result<Part> {
        let sparse = match &extent.body {
            Body::Flat { start } => {
                let start = Place { file: extent.file, at: start.saturating_mul(SECTOR) };
                let body = Spread::Row(Row { start, range: range.clone() });
                return Ok(Part { range, grain_len: None, packed: None, body });
            }
            Body::Sparse(sparse) => sparse,
        };
        let refused = |words: &'static str| Err(Kind::Unsupported.what(words).file(extent.file));
        if sparse.se.is_some() {
            return refused("extents of ESX's newer kind are read, not written");
        }
        if sparse.grain_sectors == 0 || sparse.table_count == 0 {
            return refused("Invalid granularity, image may be corrupt");
        }
        let grains = Grains::new(extent.file, range.clone(), sparse);
        let len = grains.grid().block_len;
        if sparse.compressed && len > PACKED_MAX {
            return refused("packed grains as long as these are read, not written");
        }
        let packed = sparse.compressed.then_some(Packed { start: range.start, len, marked: sparse.marked });
        let file = File::slice(file.io(), extent.file, 0, file.io().len(extent.file));
        let body = if checked.extents.len() == 1 && is_fresh(&file, sparse, &grains)? {
            Spread::Stream(Box::new(Stream::new(&file, sparse, range.end, is_over)?))
        } else {
            let end = sparse.footer_at.unwrap_or(file.len());
            let mut growing = Growing::new(Tables::new(&file, sparse, grains, is_over)?, end);
            let second = sparse.second_at.map(|at| (at, u64::from(sparse.directory_count).saturating_mul(4)));
            second.into_iter().for_each(|(at, len)| growing.keep(at, len));
            growing.used(file.len());
            Spread::Grains(Box::new(growing))
        };
        Ok(Part { range, grain_len: Some(len), packed, body })
    }

    fn reserve(&mut self, drive: &dyn Drive, at: u64, len: u64, what: What) -> Result<Option<Spot>> {
        let grain_len = self.grain_len.unwrap_or(1);
        let begins = at.saturating_sub(self.range.start).is_multiple_of(grain_len);
        let is_whole = begins && (len == grain_len || at.saturating_add(len) == self.range.end);
        let found = match &mut self.body {
            Spread::Row(row) => {
                let place = row.start.ahead(at.saturating_sub(row.range.start));
                return Ok(Some(Spot { place, tweak: None, rest: Rest::There, is_fresh: false }));
            }
            Spread::Grains(growing) => growing.reserve(drive, at, len, what),
            Spread::Stream(stream) => stream.reserve(at, is_whole, what, drive),
        };
        match (self.packed, what, found) {
            // A grain of zeroes is packed like any other where they cannot be told of in a shorter way.
            (Some(packed), What::Zeroes, Err(_)) if is_whole => {
                let bytes = packed.zeroes(at);
                let what = What::Packed(bytes.len() as u64);
                match self.reserve(drive, at, len, what)? {
                    Some(spot) => drive.write(spot.place, &bytes).map(|()| None),
                    None => Ok(None),
                }
            }
            (.., found) => found,
        }
    }

    fn seal(&mut self, drive: &dyn Drive) -> Result<()> {
        match &mut self.body {
            Spread::Row(_) => Ok(()),
            Spread::Grains(growing) => growing.seal(drive),
            Spread::Stream(stream) => stream.seal(drive),
        }
    }
}

/// Whether an extent of packed grains has none yet.
fn is_fresh(file: &File<'_>, sparse: &Sparse, grains: &Grains) -> Result<bool> {
    let is_small = sparse.directory_count <= STREAM_MAX;
    let is_marked = sparse.compressed && sparse.marked && sparse.footer_at.is_none();
    let is_empty = is_small && is_marked && file.len() <= sparse.grains_at;
    if !is_empty || !sparse.zeroable {
        return Ok(is_empty);
    }
    // Grains of zeroes take no space.
    let mut cursor = BlockCursor::new(grains, file.io());
    let mut at = grains.grid().range.start;
    // A file has not more entries than it has room for: where more are met, tables are used twice.
    let mut left = (file.len() / 4).saturating_add(sparse.directory_count.into());
    while at < grains.grid().range.end {
        let Some(rest) = left.checked_sub(1) else { return Ok(false) };
        left = rest;
        let (len, what) = cursor.find(at, grains.grid().range.end)?;
        if what.is_some() {
            return Ok(false);
        }
        at = at.saturating_add(len.max(1));
    }
    Ok(true)
}

impl Disk {
    /// The extent that has the byte at `at`.
    fn part(&self, at: u64) -> usize {
        self.parts.partition_point(|part| part.range.end <= at)
    }

    /// Whoever writes to a disk gives it a new identifier, so that what was made on it is known not to fit any more.
    fn renew(&mut self, drive: &dyn Drive) -> Result<()> {
        match self.text.take() {
            Some(text) => text.renew(drive),
            None => Ok(()),
        }
    }
}

impl Disk {
    fn grains_mut(&mut self) -> impl Iterator<Item = &mut Growing<Tables, 4>> {
        self.parts.iter_mut().filter_map(|part| match &mut part.body {
            Spread::Grains(grains) => Some(&mut **grains),
            _ => None,
        })
    }
}

impl Target for Disk {
    fn size(&self) -> u64 {
        self.size
    }

    fn unit(&self) -> u64 {
        self.unit
    }

    fn fixed(&self, at: u64) -> Option<(u64, Spot)> {
        let Part { range, body: Spread::Row(row), .. } = self.parts.get(self.part(at))? else { return None };
        let place = row.start.ahead(at.saturating_sub(range.start));
        Some((range.end.saturating_sub(at), Spot { place, tweak: None, rest: Rest::There, is_fresh: false }))
    }

    fn reserve(&mut self, drive: &dyn Drive, at: u64, len: u64, what: What) -> Result<Option<Spot>> {
        self.renew(drive)?;
        let number = self.part(at);
        let outside = || Kind::Corrupt.what("no extent has these bytes");
        self.parts.get_mut(number).ok_or_else(outside)?.reserve(drive, at, len, what)
    }

    fn keep_order(&mut self) {
        self.grains_mut().for_each(Growing::keep_order);
        for part in &mut self.parts {
            if let Spread::Stream(stream) = &mut part.body {
                stream.keep_order();
            }
        }
    }

    fn keep_identity(&mut self) {
        self.text = None;
    }

    fn waiting(&self) -> usize {
        let waiting = |part: &Part| if let Spread::Grains(grains) = &part.body { grains.waiting() } else { 0 };
        self.parts.iter().map(waiting).sum()
    }

    fn settle(&mut self, drive: &dyn Drive) -> Result<()> {
        self.grains_mut().try_for_each(|grains| grains.settle(drive))
    }

    fn seal(&mut self, drive: &dyn Drive) -> Result<()> {
        // Nobody has to ask where bytes go that have their place.
        if self.parts.iter().all(|part| part.grain_len.is_none()) {
            self.renew(drive)?;
        }
        self.parts.iter_mut().try_for_each(|part| part.seal(drive))
    }

    fn is_packed(&self) -> bool {
        self.is_packed
    }

    fn packing(&self) -> Option<Box<dyn Packing>> {
        match self.parts.iter().find(|part| part.grain_len.is_some())? {
            Part { packed: Some(packed), .. } => Some(Box::new(*packed)),
            // As qemu-img has it: who wants grains packed that cannot be is not refused.
            _ => Some(Box::new(Plain { unit: self.unit })),
        }
    }
}

/// The descriptor, and where it stands.
struct Text {
    place: Place,
    text: Vec<u8>,
    cid: u32,
}

impl Text {
    fn renew(&self, drive: &dyn Drive) -> Result<()> {
        // Never the same: these steps go through all numbers. The last number stands for no disk.
        let next = |cid: u32| cid.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let cid = Some(next(self.cid)).filter(|cid| *cid != u32::MAX).unwrap_or_else(|| next(u32::MAX));
        let Some(text) = renewed(&self.text, cid) else { return Ok(()) };
        drive.write(self.place, &text)
    }
}

/// The tables of an extent, as they are changed.
struct Tables {
    grains: Grains,
    is_over: bool,
    table_len: u64,
    /// The directory that leads to the same once more.
    second_at: Option<u64>,
    /// Both headers, if the one that counts stands at the end: the one at the front, and what that is while grains are
    /// added.
    headers: Option<Box<(Hosted, Hosted)>>,
}

impl Tables {
    fn new(file: &File<'_>, sparse: &Sparse, grains: Grains, is_over: bool) -> Result<Tables> {
        let headers = match sparse.footer_at {
            Some(_) => Some(Box::new((file.read_as(0)?, forward(file, sparse.footer_at)?))),
            None => None,
        };
        let table_len = u64::from(sparse.table_count).saturating_mul(4);
        Ok(Tables { grains, is_over, table_len, second_at: sparse.second_at, headers })
    }

    fn file(&self) -> FileId {
        self.grains.grid().file
    }

    /// What stands in tables for a place.
    fn sector(&self, at: u64) -> Result<[u8; 4]> {
        sector(at).map(u32::to_le_bytes).ok_or_else(|| full(self.file()))
    }
}

/// A place as tables count it.
pub fn sector(at: u64) -> Option<u32> {
    u32::try_from(at / SECTOR).ok()
}

/// Tables cannot tell of a place so far behind.
pub fn full(file: FileId) -> Error {
    Kind::TooBig.what("an extent cannot become longer than 2 TiB").file(file)
}

/// Packed grains are written whole, or not at all.
pub fn unpacked(file: FileId) -> Error {
    Kind::Unsupported.what("a part of a packed grain cannot be written").file(file)
}

/// qemu-img's words for what cannot be written twice.
pub fn taken(file: FileId) -> Error {
    Kind::Io.what("Could not write to allocated cluster for streamOptimized").file(file)
}

impl Blocks<4> for Tables {
    fn grid(&self) -> &Grid {
        self.grains.grid()
    }

    fn table(&self, entry: [u8; 4]) -> Result<Option<u64>> {
        self.grains.table(entry)
    }

    fn block(&self, number: u64, entry: [u8; 4]) -> Result<Option<Source>> {
        self.grains.block(number, entry)
    }
}

impl Grow<4> for Tables {
    fn frame(&self) -> Frame {
        let len = self.grains.grid().block_len;
        match self.grains.compressed {
            true => Frame { align: SECTOR, base: 0, head: 0, len: 0 },
            false => Frame { align: if len <= ALIGN_MAX { len } else { SECTOR }, base: 0, head: 0, len },
        }
    }

    fn entry(&self, _number: u64, at: u64) -> Result<[u8; 4]> {
        if self.grains.compressed { Err(unpacked(self.file())) } else { self.sector(at) }
    }

    fn zeroes(&self) -> Option<[u8; 4]> {
        self.grains.zeroable.then_some(ZERO_GRAIN.to_le_bytes())
    }

    fn table_len(&self) -> u64 {
        self.table_len
    }

    fn lead(&self, at: u64) -> [u8; 4] {
        self.sector(at).unwrap_or_default()
    }

    fn twin(&self, drive: &dyn Drive, draft: &mut Draft, table: u64, index: u64) -> Result<Option<u64>> {
        let Some(second_at) = self.second_at else { return Ok(None) };
        let lead_at = second_at.saturating_add(table.saturating_mul(4));
        let lead = draft.get(drive, lead_at)?;
        let found = self.grains.table(lead)?;
        if let (None, Root::Directory { at, .. }) = (found, self.grains.grid().root) {
            // There was no table in either. The new one is the same to both.
            let own = draft.get::<4>(drive, at.saturating_add(table.saturating_mul(4)))?;
            draft.link(drive, lead_at, &own)?;
        }
        Ok(found.map(|at| at.saturating_add(index.saturating_mul(4))))
    }

    fn is_over(&self) -> bool {
        self.is_over
    }

    fn packed_frame(&self, len: u64, was: Option<&Source>) -> Result<Frame> {
        match was {
            _ if !self.grains.compressed => Err(Kind::Unsupported.what("the grains of this extent are not packed")),
            Some(Source::Packed { .. }) => Err(taken(self.file())),
            _ => Ok(Frame { align: SECTOR, base: 0, head: 0, len }),
        }
    }

    fn packed_entry(&self, _number: u64, at: u64, _len: u64) -> Result<[u8; 4]> {
        self.sector(at)
    }

    /// A header at the end comes to the front before grains take its place.
    fn mark(&mut self, drive: &dyn Drive) -> Result<()> {
        let (Some((_, header)), file) = (self.headers.as_deref(), self.file()) else { return Ok(()) };
        drive.write(Place { file, at: 0 }, header.as_bytes())?;
        drive.flush(file)
    }

    fn finish(&mut self, drive: &dyn Drive, end: u64, _added: u64) -> Result<()> {
        let file = self.file();
        let Some((front, header)) = self.headers.as_deref() else { return drive.set_length(file, end) };
        footer(drive, Place { file, at: end.next_multiple_of(SECTOR) }, header.clone())?;
        drive.flush(file)?;
        drive.write(Place { file, at: 0 }, front.as_bytes())
    }
}

/// Writes the end of a stream.
pub fn footer(drive: &dyn Drive, place: Place, header: Hosted) -> Result<()> {
    let footer = Footer { marker: Marker::of(MARKER_FOOTER, 1), header, end: Marker::of(0, 0) };
    let bytes = footer.as_bytes();
    drive.write(place, bytes)?;
    drive.set_length(place.file, place.at.saturating_add(bytes.len() as u64))
}
