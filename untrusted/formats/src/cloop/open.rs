//! Opening a compressed loop image: its header and its table of offsets, checked.

use super::disk::{Header, OFFSETS_AT};
use instar_image::{File, Kind, Result, num};

/// Bytes that a block may unpack to.
const BLOCK_MAX: u32 = 64 << 20;
/// Bytes that the table of offsets may fill.
const OFFSETS_LEN_MAX: u64 = 512 << 20;
/// Blocks beyond which even the length of the table does not fit a word.
const BLOCKS_MAX: u32 = 0x1fff_ffff;
/// The table is read in pieces of this length.
const PIECE: usize = 1 << 20;

/// What a compressed loop image is, checked.
pub struct Checked {
    /// Bytes of a block when unpacked: a multiple of 512, at most 64 MiB.
    pub block_len: u32,
    /// Blocks. Their offsets have been found to ascend by at most 128 MiB each.
    pub block_count: u32,
}

/// Reads and checks the header and all offsets.
pub fn open(file: &File<'_>) -> Result<Checked> {
    check(file).map_err(|error| error.file(file.id()))
}

fn check(file: &File<'_>) -> Result<Checked> {
    let header: Header = file.read_as(0)?;
    let block_len = header.block_size.get();
    if block_len == 0 {
        return Err(Kind::Corrupt.what("block_size cannot be zero"));
    }
    if !block_len.is_multiple_of(512) {
        return Err(Kind::Corrupt.what("block_size {} must be a multiple of 512").arg(block_len));
    }
    if block_len > BLOCK_MAX {
        return Err(Kind::TooBig.what("block_size {} must be {} MB or less").arg(block_len).arg(BLOCK_MAX >> 20));
    }
    let block_count = header.num_blocks.get();
    if block_count > BLOCKS_MAX {
        return Err(Kind::TooBig.what("n_blocks {} must be {} or less").arg(block_count).arg(BLOCKS_MAX));
    }
    if block_count == BLOCKS_MAX {
        return Err(Kind::TooBig.what("Could not allocate offsets table"));
    }
    let table_len = u64::from(block_count).saturating_add(1).saturating_mul(8);
    if table_len > OFFSETS_LEN_MAX {
        return Err(Kind::TooBig.what("image requires too many offsets, try increasing block size"));
    }
    check_offsets(file, table_len)?;
    Ok(Checked { block_len, block_count })
}

/// No offset lies before the one before it, nor far behind it. What lies beyond the end of the file is zero.
fn check_offsets(file: &File<'_>, table_len: u64) -> Result<()> {
    let end = num::add(OFFSETS_AT, table_len, || Kind::TooBig.what("Could not allocate offsets table"))?;
    // One entry beyond the file's end stands for all that follow: they are zero as well.
    let end = end.min(file.len().saturating_add(16).next_multiple_of(8));
    let mut before: Option<u64> = None;
    let mut index = 0u64;
    let mut at = OFFSETS_AT;
    while at < end {
        let len =
            num::bounded(end.saturating_sub(at).min(PIECE as u64), PIECE as u64, || Kind::TooBig.what("offsets"))?;
        let piece = file.read_vec(at, len)?;
        for entry in piece.as_chunks().0 {
            let offset = u64::from_be_bytes(*entry);
            step(before, offset, index)?;
            before = Some(offset);
            index = index.saturating_add(1);
        }
        at = at.saturating_add(PIECE as u64);
    }
    Ok(())
}

fn step(before: Option<u64>, offset: u64, index: u64) -> Result<()> {
    let Some(before) = before else { return Ok(()) };
    let Some(len) = offset.checked_sub(before) else {
        return Err(Kind::Corrupt
            .what("offsets not monotonically increasing at index {}, image file is corrupt")
            .arg(index));
    };
    // Compression may lengthen, but not by more than this.
    if len > 2 * u64::from(BLOCK_MAX) {
        return Err(Kind::Corrupt.what("invalid compressed block size at index {}, image file is corrupt").arg(index));
    }
    Ok(())
}
