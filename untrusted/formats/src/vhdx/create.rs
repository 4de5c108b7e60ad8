//! How a VHDX is laid out: headers, log, metadata, the table of blocks, then the blocks.

use instar_image::measure::Pieces;
use instar_image::{Content, Kind, Measured, Recipe, Result};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
/// Headers and regions that are always there, apart from log and table.
const ALWAYS: u64 = 6 * MIB;
const ENTRY_LEN: u64 = 8;
const BLOCK_MAX: u64 = 256 * MIB;
/// So much of the disk the sectors of one bitmap stand for: 2^23 of 512 bytes.
const CHUNK_LEN: u64 = 4 * GIB;
const SIZE_MAX: u64 = 64 * TIB;

/// The length of blocks that suits the disk.
fn block_len(recipe: &Recipe) -> Result<u64> {
    let asked = recipe.number("block_size").unwrap_or(0);
    if asked == 0 {
        return Ok(match recipe.size {
            size if size > 32 * TIB => 64 * MIB,
            size if size > 100 * GIB => 32 * MIB,
            size if size > GIB => 16 * MIB,
            _ => 8 * MIB,
        });
    }
    let len = asked.checked_next_multiple_of(MIB).unwrap_or(BLOCK_MAX);
    if !len.is_power_of_two() {
        return Err(Kind::Unsupported.what("Block size must be a power of two"));
    }
    Ok(len.min(BLOCK_MAX))
}

/// Everything but blocks without data.
pub fn measure(recipe: &Recipe, content: &Content<'_>) -> Result<Measured> {
    if recipe.size > SIZE_MAX {
        return Err(Kind::TooBig.what("Image size too large; max of 64TB"));
    }
    let len = block_len(recipe)?;
    let log = recipe.number("log_size").unwrap_or(MIB).max(MIB).checked_next_multiple_of(MIB).unwrap_or(u64::MAX);
    let blocks = recipe.size.div_ceil(len);
    let bitmaps = blocks.div_ceil(CHUNK_LEN / len);
    let table = blocks.saturating_add(bitmaps).saturating_mul(ENTRY_LEN).max(1).next_multiple_of(MIB);
    let always = ALWAYS.saturating_add(log).saturating_add(table);
    match recipe.text("subformat") {
        None | Some(b"dynamic") => Pieces { size: recipe.size, len, stored: len, always }.measure(content, false),
        // Blocks that qemu-img writes to while it converts go to the end of the file, although they have their space.
        Some(b"fixed") => {
            let always = recipe.size.next_multiple_of(MIB).saturating_add(always);
            Pieces { size: recipe.size, len, stored: len, always }.measure(content, false)
        }
        Some(other) => {
            let words = "Parameter 'subformat' does not accept value '{}'";
            Err(Kind::Unsupported.what(words).arg(other))
        }
    }
}
