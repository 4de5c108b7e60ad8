//! Opening a VHDX: headers, log, regions, metadata and block table, checked.

use super::crc32c::of_structure;
use super::disk::{
    BAT, BITMAP_LEN, FULLY_PRESENT, HEADER_LEN, HEADERS_AT, Header, IDENTIFIER, METADATA, OFFSET_MASK,
    PARTIALLY_PRESENT, REGIONS_AT, Region, RegionHead, STATE_MASK, TABLE_LEN, TABLE_MAX,
};
use super::log::{self, State};
use super::metadata::{self, Metadata};
use super::replay::{Overlay, Replayed};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem::size_of;
use instar_image::sector::INVALID;
use instar_image::{Error, File, Kind, Options, Result, num};
use zerocopy::FromBytes;

/// Sectors that one block of the sector bitmap describes.
const CHUNK_SECTORS: u64 = 1 << 23;
/// The table is read in pieces of this length.
const PIECE: u64 = 1 << 20;

/// What a VHDX is, checked.
pub struct Checked {
    /// The header that counts.
    pub header: Header,
    /// Its log.
    pub log: State,
    /// What is different once the log has been replayed.
    pub overlay: Option<Arc<Overlay>>,
    /// Sizes, identifiers, parent.
    pub metadata: Metadata,
    /// Size of the disk in bytes: whole sectors.
    pub virtual_size: u64,
    /// What is not blocks: the log, and all regions in their order.
    pub regions: Vec<Span>,
    /// Where the block table begins.
    pub table_at: u64,
    /// Its entries; they cover the disk, and every block lies inside the file.
    pub table_count: u64,
    /// Blocks between one entry for a sector bitmap and the next.
    pub chunk_ratio: u64,
}

/// qemu-img gives no reason for what it refuses here.
pub fn invalid() -> Error {
    Kind::Corrupt.what(INVALID)
}

/// Nor here.
pub fn not_supported() -> Error {
    Kind::Unsupported.what("Could not open '{file}': Operation not supported")
}

/// An offset that a file can have.
pub fn readable(at: u64) -> Result<u64> {
    if at > i64::MAX as u64 {
        return Err(Kind::Io.what("Could not open '{file}': Input/output error").at(at));
    }
    Ok(at)
}

/// Reads and checks everything.
pub fn open(file: &File<'_>, options: &Options) -> Result<Checked> {
    let checked = head(file).and_then(|header| {
        let (log, overlay) = log::read(file, &header, options.as_qemu, options.for_writing())?;
        let Some(overlay) = overlay else { return check(file, header, log, options) };
        let view = Replayed { io: file.io(), overlay: &overlay };
        let start = file.place(0);
        let replayed = File::slice(&view, file.id(), start.at, overlay.len_from(start));
        let checked = check(&replayed, header, log, options)?;
        Ok(Checked { overlay: Some(Arc::new(overlay)), ..checked })
    });
    checked.map_err(|error| error.file(file.id()))
}

/// The header of a file that says what it is.
pub fn head(file: &File<'_>) -> Result<Header> {
    if &file.read_as::<[u8; 8]>(0)? != IDENTIFIER {
        return Err(Kind::NotThisFormat.what(INVALID));
    }
    header(file)
}

fn check(file: &File<'_>, header: Header, log: State, options: &Options) -> Result<Checked> {
    let mut regions = Regions { taken: Vec::new(), table: None, metadata: None };
    regions.read(file, &header)?;
    let (Some((table_at, table_len)), Some(metadata_at)) = (regions.table, regions.metadata) else {
        return Err(invalid());
    };
    let metadata = metadata::read(file, readable(metadata_at)?, options.as_qemu)?;
    let block_len = u64::from(metadata.block_len);
    let chunk = chunk_ratio(block_len, metadata.logical_sector.into());
    let table_count = table_count(metadata.disk_size, block_len, chunk, metadata.parent.is_some());
    if table_count > table_len / 8 {
        return Err(invalid());
    }
    let checked = Checked {
        header,
        log,
        overlay: None,
        virtual_size: metadata.disk_size & !0x1ff,
        table_at: readable(table_at)?,
        regions: Vec::new(),
        table_count,
        chunk_ratio: chunk,
        metadata,
    };
    // What is being checked may have blocks anywhere.
    if !options.for_check() {
        check_table(file, &checked, &regions)?;
    }
    Ok(Checked { regions: regions.taken, ..checked })
}

/// Blocks between one entry for a sector bitmap and the next.
pub fn chunk_ratio(block_len: u64, sector: u64) -> u64 {
    CHUNK_SECTORS.saturating_mul(sector).checked_div(block_len).unwrap_or(0).max(1)
}

/// Entries of the block table.
pub fn table_count(size: u64, block_len: u64, chunk: u64, differs: bool) -> u64 {
    let (blocks, chunk) = (size.div_ceil(block_len.max(1)), chunk.max(1));
    // A disk with a parent has a sector bitmap after every chunk, another only room for it between chunks.
    if differs {
        return blocks.div_ceil(chunk).saturating_mul(chunk.saturating_add(1));
    }
    // Of an empty disk, qemu-img counts the block before the first, in 32 bits, when it makes the table and here.
    blocks.saturating_add(blocks.checked_sub(1).unwrap_or(u32::MAX.into()) / chunk)
}

/// The header that counts: the newer of those that are sound.
fn header(file: &File<'_>) -> Result<Header> {
    let mut sound: Option<(Header, Vec<u8>)> = None;
    let none = || Kind::Corrupt.what("No valid VHDX header found");
    for at in HEADERS_AT {
        let bytes = file.read_vec(at, HEADER_LEN)?;
        let Ok((header, _)) = Header::read_from_prefix(&bytes) else { continue };
        if &header.signature != b"head" || header.version.get() != 1 || of_structure(&bytes) != header.checksum.get() {
            continue;
        }
        let number = header.sequence_number.get();
        sound = match sound {
            Some((first, same)) if first.sequence_number.get() == number && same == bytes => Some((first, same)),
            Some((first, _)) if first.sequence_number.get() == number => return Err(none()),
            Some((first, other)) if first.sequence_number.get() > number => Some((first, other)),
            _ => Some((header, bytes)),
        };
    }
    sound.map(|(header, _)| header).ok_or_else(none)
}

/// A part of the file that blocks must not lie in.
pub struct Span {
    /// What it is.
    pub name: &'static str,
    /// Where it begins.
    pub start: u64,
    /// Where it ends.
    pub end: u64,
}

/// The regions of the file, which must not overlap.
struct Regions {
    taken: Vec<Span>,
    table: Option<(u64, u64)>,
    metadata: Option<u64>,
}

impl Regions {
    fn read(&mut self, file: &File<'_>, header: &Header) -> Result<()> {
        self.take("the log", header.log_offset.get(), header.log_length.get().into())?;
        let bytes = file.read_vec(REGIONS_AT, TABLE_LEN)?;
        let (head, mut rest) = RegionHead::read_from_prefix(&bytes).map_err(|_| invalid())?;
        let count = head.entry_count.get();
        if &head.signature != b"regi" || of_structure(&bytes) != head.checksum.get() || count > TABLE_MAX {
            return Err(invalid());
        }
        for _ in 0..count {
            let (region, after) = Region::read_from_prefix(rest).map_err(|_| invalid())?;
            rest = after;
            let (start, len) = (region.file_offset.get(), u64::from(region.length.get()));
            let name = match region.guid {
                BAT => "the block table",
                METADATA => "the metadata",
                _ => "a region",
            };
            self.take(name, start, len)?;
            match region.guid {
                BAT if self.table.is_none() => self.table = Some((start, len)),
                METADATA if self.metadata.is_none() => self.metadata = Some(start),
                BAT | METADATA => return Err(invalid()),
                _ if region.required.get() & 1 != 0 => return Err(not_supported()),
                _ => {}
            }
        }
        Ok(())
    }

    fn take(&mut self, name: &'static str, start: u64, len: u64) -> Result<()> {
        overlap(&self.taken, start, len).map_or(Ok(()), Err)?;
        self.taken.push(Span { name, start, end: start.saturating_add(len) });
        Ok(())
    }
}

/// An entry of the block table.
pub struct Slot {
    /// Its number.
    pub index: u64,
    /// The entry.
    pub entry: u64,
    /// It stands for a bitmap of sectors and not for a block.
    pub is_bitmap: bool,
    /// The number of the block, or of the one before which the bitmap stands.
    pub block: u64,
    /// It says that there is something in the file.
    pub is_held: bool,
    /// Where that is.
    pub at: u64,
    /// How much of it there has to be, as the disk may end in it.
    pub len: u64,
    /// How long all of it is.
    pub whole: u64,
}

impl Slot {
    /// What is wrong with it, as qemu-img has it; several things may be.
    pub fn faults(&self, file_end: u64, regions: &[Span]) -> Vec<Error> {
        let mut faults = Vec::new();
        let (index, at) = (self.index, self.at);
        let wrong = |phrase: &'static str| Kind::Corrupt.what(phrase).at(at);
        if at.checked_add(self.whole).is_none() {
            faults.push(wrong("VHDX BAT entry {} offset overflow.").arg(index));
        }
        if at >= file_end {
            let phrase = "VHDX BAT entry {} start offset {} points after end of file ({}). Image has probably been \
                          truncated.";
            faults.push(wrong(phrase).arg(index).arg(at).arg(file_end));
        } else if self.len > file_end.saturating_sub(at) {
            let phrase =
                "VHDX BAT entry {} end offset {} points after end of file ({}). Image has probably been truncated.";
            let last = at.saturating_add(self.len).saturating_sub(1);
            faults.push(wrong(phrase).arg(index).arg(last).arg(file_end));
        }
        faults.extend(overlap(regions, at, self.whole));
        faults
    }
}

/// What the first region is that a range of the file runs into. qemu-img counts without a limit, and looks at the region
/// last that comes first.
fn overlap(regions: &[Span], start: u64, len: u64) -> Option<Error> {
    let end = start.wrapping_add(len);
    let other = regions.iter().rev().find(|other| start < other.end && end > other.start)?;
    let overlap = Kind::Corrupt.what("VHDX region {}-{} overlaps with region {}-{}").at(start);
    Some(overlap.arg(start).arg(end).arg(other.start).arg(other.end))
}

/// The entries of the block table, one after another.
pub struct Slots {
    block_len: u64,
    disk_size: u64,
    period: u64,
    differs: bool,
    index: u64,
    block: u64,
}

impl Slots {
    /// From the first one on.
    pub fn of(checked: &Checked) -> Slots {
        Slots {
            block_len: checked.metadata.block_len.into(),
            disk_size: checked.metadata.disk_size,
            period: checked.chunk_ratio.saturating_add(1),
            differs: checked.metadata.parent.is_some(),
            index: 0,
            block: 0,
        }
    }

    /// The next one, which has this entry.
    pub fn next(&mut self, entry: u64) -> Slot {
        let Slots { block_len, disk_size, differs, index, block, .. } = *self;
        self.index = index.saturating_add(1);
        let is_bitmap = self.index.is_multiple_of(self.period);
        self.block = block.saturating_add(u64::from(!is_bitmap));
        let left = disk_size.saturating_sub(block.saturating_mul(block_len));
        let (whole, len) = if is_bitmap { (BITMAP_LEN, BITMAP_LEN) } else { (block_len, left.min(block_len)) };
        let is_held = match entry & STATE_MASK {
            FULLY_PRESENT => !is_bitmap || differs,
            PARTIALLY_PRESENT => !is_bitmap && differs,
            _ => false,
        };
        Slot { index, entry, is_bitmap, block, is_held, at: entry & OFFSET_MASK, len, whole }
    }
}

/// Every block that is in the file lies inside it, and in no region.
fn check_table(file: &File<'_>, checked: &Checked, regions: &Regions) -> Result<()> {
    let file_end = file.len().next_multiple_of(512);
    let len = num::mul(checked.table_count, size_of::<u64>() as u64, invalid)?;
    let end = num::add(checked.table_at, len, invalid)?;
    let mut slots = Slots::of(checked);
    let mut at = checked.table_at;
    // Beyond the end of the file the table is zero: no blocks.
    while at < end.min(file_end) {
        let piece = file.read_vec(at, num::bounded(end.saturating_sub(at).min(PIECE), PIECE, invalid)?)?;
        for entry in piece.as_chunks().0 {
            let slot = slots.next(u64::from_le_bytes(*entry));
            let fault = if slot.is_held { slot.faults(file_end, &regions.taken).into_iter().next() } else { None };
            fault.map_or(Ok(()), Err)?;
        }
        at = at.saturating_add(PIECE);
    }
    Ok(())
}
