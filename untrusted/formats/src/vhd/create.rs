//! How a VHD is laid out: footer and header in front, the table of blocks, the blocks, and the footer again.

use instar_image::measure::Pieces;
use instar_image::{Content, Error, Kind, Measured, Recipe, Result};

const SECTOR: u64 = 512;
const FOOTER_LEN: u64 = 512;
const HEADER_LEN: u64 = 1024;
const BLOCK_LEN: u64 = 2 << 20;
/// Bytes in front of a block that say which of its sectors are there.
const BITMAP_LEN: u64 = 512;
const ENTRY_LEN: u64 = 4;
/// The most sectors that a geometry can say.
const GEOMETRY_MAX: u64 = 65535 * 16 * 255;
/// The most sectors of all.
const SECTORS_MAX: u64 = 0xff00_0000;

fn too_large() -> Error {
    Kind::TooBig.what("The image size is too large for file format '{}'").arg("vpc")
}

/// Sectors of the geometry that the format's specification assigns to a disk of so many.
fn geometry(sectors: u64) -> u64 {
    let sectors = sectors.min(GEOMETRY_MAX);
    let (tracks, heads, per_track) = if sectors > 65535 * 16 * 63 {
        (sectors / 255, 16, 255)
    } else {
        let heads = |tracks: u64| tracks.div_ceil(1024).max(4);
        let fits = |tracks: u64| tracks < heads(tracks).saturating_mul(1024) && heads(tracks) <= 16;
        match (sectors / 17, sectors / 31) {
            (tracks, _) if fits(tracks) => (tracks, heads(tracks), 17),
            (_, tracks) if tracks < 16 * 1024 => (tracks, 16, 31),
            _ => (sectors / 63, 16, 63),
        }
    };
    (tracks / heads).saturating_mul(heads).saturating_mul(per_track)
}

/// Sectors of the disk: the smallest geometry that is as large as asked for.
fn sectors(recipe: &Recipe) -> Result<u64> {
    let asked = recipe.size.div_ceil(SECTOR);
    if asked > SECTORS_MAX {
        return Err(too_large());
    }
    if recipe.is_on("force_size") || asked > GEOMETRY_MAX {
        return Ok(asked);
    }
    // A cylinder is never larger than this, so the next one is not far away.
    let next = (asked..=asked.saturating_add(16 * 255)).map(geometry).find(|sectors| *sectors >= asked);
    next.ok_or_else(too_large)
}

/// Everything but blocks without data.
pub fn measure(recipe: &Recipe, content: &Content<'_>) -> Result<Measured> {
    let size = sectors(recipe)?.saturating_mul(SECTOR);
    match recipe.text("subformat") {
        None | Some(b"dynamic") => {
            let table = size.div_ceil(BLOCK_LEN).saturating_mul(ENTRY_LEN).next_multiple_of(SECTOR);
            let always = (FOOTER_LEN * 2 + HEADER_LEN).saturating_add(table);
            let stored = BLOCK_LEN + BITMAP_LEN;
            Pieces { size, len: BLOCK_LEN, stored, always }.measure(content, false)
        }
        Some(b"fixed") => {
            let all = size.saturating_add(FOOTER_LEN);
            Ok(Measured { required: all, fully_allocated: all, bitmaps: None })
        }
        Some(other) => {
            let words = "Parameter 'subformat' does not accept value '{}'";
            Err(Kind::Unsupported.what(words).arg(other))
        }
    }
}
