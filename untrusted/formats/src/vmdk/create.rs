//! How a VMDK is laid out: descriptor, header, directories of tables, tables, and grains as they are written.

use instar_image::measure::overlays;
use instar_image::{Content, Kind, Measured, Recipe, Result};

const SECTOR: u64 = 512;
const GRAIN_LEN: u64 = 64 << 10;
/// Header and embedded descriptor.
const HEAD_LEN: u64 = 21 * SECTOR;
/// Entries of a table of grains; four bytes each, as those of the directory.
const TABLE_ENTRIES: u64 = 512;
const ENTRY_LEN: u64 = 4;
/// An extent of a disk that is split.
const EXTENT_LEN: u64 = 2 << 30;
/// A descriptor in a file of its own, at most; and a line of it for an extent, whose name may be long.
const DESCRIPTOR_LEN: u64 = 20 * SECTOR;
const LINE_LEN: u64 = 300;
/// A compressed grain at most: what cannot be compressed grows a little, and has a mark in front.
const PACKED_LEN: u64 = 129 * SECTOR;
/// Marks and the footer at the end of a stream.
const END_LEN: u64 = 6 * SECTOR;

/// What is in front of the grains of a sparse extent: everything that leads to them, twice.
fn before_grains(size: u64) -> u64 {
    let tables = size.div_ceil(GRAIN_LEN).div_ceil(TABLE_ENTRIES);
    let directory = tables.saturating_mul(ENTRY_LEN).next_multiple_of(SECTOR);
    let once = tables.saturating_mul(TABLE_ENTRIES * ENTRY_LEN).saturating_add(directory);
    once.saturating_mul(2).saturating_add(HEAD_LEN).next_multiple_of(GRAIN_LEN)
}

/// The same for all extents of a disk that is split.
fn before_split(size: u64) -> u64 {
    let last = size % EXTENT_LEN;
    let last = if last == 0 { 0 } else { before_grains(last) };
    (size / EXTENT_LEN).saturating_mul(before_grains(EXTENT_LEN)).saturating_add(last)
}

/// A descriptor that stands alone.
fn descriptor(extents: u64) -> u64 {
    extents.saturating_mul(LINE_LEN).saturating_add(DESCRIPTOR_LEN)
}

/// All files of the disk together.
pub fn measure(recipe: &Recipe, content: &Content<'_>) -> Result<Measured> {
    let size = recipe.size.next_multiple_of(SECTOR);
    let extents = size.div_ceil(EXTENT_LEN);
    let (always, stored) = match recipe.text("subformat") {
        None | Some(b"monolithicSparse") => (before_grains(size), GRAIN_LEN),
        Some(b"streamOptimized") => (before_grains(size).saturating_add(END_LEN), PACKED_LEN),
        Some(b"twoGbMaxExtentSparse") => (before_split(size).saturating_add(descriptor(extents)), GRAIN_LEN),
        Some(b"monolithicFlat") => return Ok(flat(size, 1)),
        Some(b"twoGbMaxExtentFlat") => return Ok(flat(size, extents)),
        Some(other) => return Err(Kind::Unsupported.what("invalid parameter value: {}").arg(other)),
    };
    let pieces = instar_image::measure::Pieces { size, len: GRAIN_LEN, stored, always };
    pieces.measure(content, overlays(recipe, content))
}

fn flat(size: u64, extents: u64) -> Measured {
    let all = size.saturating_add(descriptor(extents));
    Measured { required: all, fully_allocated: all, bitmaps: None }
}
