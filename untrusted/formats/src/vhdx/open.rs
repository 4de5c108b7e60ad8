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
use instar_image::{Error, File, Kind, Result, num};
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

/// Reads and checks everything. `as_qemu`: only what qemu-img can read.
pub fn open(file: &File<'_>, as_qemu: bool) -> Result<Checked> {
    let checked = head(file).and_then(|header| {
        let (log, overlay) = log::read(file, &header, as_qemu)?;
        let Some(overlay) = overlay else { return check(file, header, log, as_qemu) };
        let view = Replayed { io: file.io(), overlay: &overlay };
        let start = file.place(0);
        let replayed = File::slice(&view, file.id(), start.at, overlay.len_from(start));
        let checked = check(&replayed, header, log, as_qemu)?;
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

fn check(file: &File<'_>, header: Header, log: State, as_qemu: bool) -> Result<Checked> {
    let mut regions = Regions { taken: Vec::new(), table: None, metadata: None };
    regions.read(file, &header)?;
    let (Some(table), Some(metadata_at)) = (&regions.table, regions.metadata) else {
        return Err(invalid());
    };
    let metadata = metadata::read(file, readable(metadata_at)?, as_qemu)?;
    let block_len = u64::from(metadata.block_len);
    let chunk_ratio = CHUNK_SECTORS.saturating_mul(metadata.logical_sector.into()) / block_len.max(1);
    let blocks = metadata.disk_size.div_ceil(block_len.max(1));
    let chunk = chunk_ratio.max(1);
    // A disk with a parent has a sector bitmap after every chunk, another only room for it between chunks.
    let table_count = if metadata.parent.is_some() {
        blocks.div_ceil(chunk).saturating_mul(chunk.saturating_add(1))
    } else {
        // Of an empty disk, qemu-img counts the block before the first, in 32 bits, when it makes the table and here.
        blocks.saturating_add(blocks.checked_sub(1).unwrap_or(u32::MAX.into()) / chunk)
    };
    if table_count > (table.end.saturating_sub(table.start)) / 8 {
        return Err(invalid());
    }
    let checked = Checked {
        header,
        log,
        overlay: None,
        virtual_size: metadata.disk_size & !0x1ff,
        table_at: readable(table.start)?,
        table_count,
        chunk_ratio: chunk,
        metadata,
    };
    check_table(file, &checked, &regions)?;
    Ok(checked)
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

/// A stretch of the file.
struct Span {
    start: u64,
    end: u64,
}

/// The regions of the file, which must not overlap.
struct Regions {
    taken: Vec<Span>,
    table: Option<Span>,
    metadata: Option<u64>,
}

impl Regions {
    fn read(&mut self, file: &File<'_>, header: &Header) -> Result<()> {
        self.take(header.log_offset.get(), header.log_length.get().into())?;
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
            self.take(start, len)?;
            match region.guid {
                BAT if self.table.is_none() => self.table = Some(Span { start, end: start.saturating_add(len) }),
                METADATA if self.metadata.is_none() => self.metadata = Some(start),
                BAT | METADATA => return Err(invalid()),
                _ if region.required.get() & 1 != 0 => return Err(not_supported()),
                _ => {}
            }
        }
        Ok(())
    }

    fn is_free(&self, start: u64, len: u64) -> bool {
        let end = start.saturating_add(len);
        self.taken.iter().all(|other| end <= other.start || start >= other.end)
    }

    fn take(&mut self, start: u64, len: u64) -> Result<()> {
        if !self.is_free(start, len) {
            return Err(invalid());
        }
        self.taken.push(Span { start, end: start.saturating_add(len) });
        Ok(())
    }
}

/// Every block that is in the file lies inside it, and in no region.
fn check_table(file: &File<'_>, checked: &Checked, regions: &Regions) -> Result<()> {
    let block_len = u64::from(checked.metadata.block_len);
    let file_end = file.len().next_multiple_of(512);
    let len = num::mul(checked.table_count, size_of::<u64>() as u64, invalid)?;
    let end = num::add(checked.table_at, len, invalid)?;
    let differs = checked.metadata.parent.is_some();
    let period = checked.chunk_ratio.saturating_add(1);
    let (mut at, mut index, mut block) = (checked.table_at, 0u64, 0u64);
    while at < end {
        // Beyond the end of the file the table is zero: no blocks.
        if at >= file_end {
            break;
        }
        let piece = file.read_vec(at, num::bounded(end.saturating_sub(at).min(PIECE), PIECE, invalid)?)?;
        for entry in piece.as_chunks().0 {
            let entry = u64::from_le_bytes(*entry);
            index = index.saturating_add(1);
            let is_bitmap = index.is_multiple_of(period);
            let left = checked.metadata.disk_size.saturating_sub(block.saturating_mul(block_len));
            let (whole, len) = if is_bitmap { (BITMAP_LEN, BITMAP_LEN) } else { (block_len, left.min(block_len)) };
            block = block.saturating_add(u64::from(!is_bitmap));
            let held = match entry & STATE_MASK {
                FULLY_PRESENT => !is_bitmap || differs,
                PARTIALLY_PRESENT => !is_bitmap && differs,
                _ => false,
            };
            let start = entry & OFFSET_MASK;
            let inside = start.checked_add(len).is_some_and(|end| end <= file_end);
            if held && (start.checked_add(whole).is_none() || !inside || !regions.is_free(start, whole)) {
                return Err(invalid().at(start));
            }
        }
        at = at.saturating_add(PIECE);
    }
    Ok(())
}
