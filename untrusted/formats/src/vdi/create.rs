//! How a VDI is laid out: a header, the map of blocks, then the blocks.

use instar_image::measure::Pieces;
use instar_image::{Content, Kind, Measured, Recipe, Result};

const SECTOR: u64 = 512;
const BLOCK_LEN: u64 = 1 << 20;
const ENTRY_LEN: u64 = 4;
/// The largest disk that qemu-img makes.
const SIZE_MAX: u64 = 0x1_ffff_f800_0000;

/// Header, map, and the blocks that hold data.
pub fn measure(recipe: &Recipe, content: &Content<'_>) -> Result<Measured> {
    if recipe.size > SIZE_MAX {
        let words = "Unsupported VDI image size (size is 0x{}, max supported is 0x{})";
        let hex = |number: u64| alloc::format!("{number:x}");
        return Err(Kind::TooBig.what(words).arg(hex(recipe.size)).arg(hex(SIZE_MAX)));
    }
    let map = recipe.size.div_ceil(BLOCK_LEN).saturating_mul(ENTRY_LEN).next_multiple_of(SECTOR);
    let always = map.saturating_add(SECTOR);
    Pieces { size: recipe.size, len: BLOCK_LEN, stored: BLOCK_LEN, always }.measure(content, recipe.is_on("static"))
}
