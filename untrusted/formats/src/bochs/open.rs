//! Opening a Bochs disk: its header, checked.

use super::disk::{DISK_AT_1, GROWING, Header, MAGIC, REDOLOG, VERSION_1, VERSION_2};
use instar_image::{File, Kind, Result};
use zerocopy::little_endian::U64;

/// Entries that a catalog may have.
const CATALOG_MAX: u32 = 0x10_0000;
/// Bytes that an extent may have.
const EXTENT_MAX: u32 = 0x80_0000;

/// What a Bochs disk is, checked.
pub struct Checked {
    /// Size of the disk in bytes, a multiple of 512.
    pub virtual_size: u64,
    /// Where the catalog begins.
    pub catalog_at: u64,
    /// Its entries; they cover the disk.
    pub catalog_count: u32,
    /// Bytes of the bitmap before each extent, in whole sectors.
    pub bitmap_len: u64,
    /// Bytes of an extent: a power of two from 512 to 8 MiB.
    pub extent_len: u32,
}

/// Whether the header is a growing disk's.
pub fn is_ours(header: &Header) -> bool {
    header.magic.starts_with(MAGIC)
        && header.kind.starts_with(REDOLOG)
        && header.subtype.starts_with(GROWING)
        && matches!(header.version.get(), VERSION_1 | VERSION_2)
}

/// Reads and checks the header.
pub fn open(file: &File<'_>) -> Result<Checked> {
    let header: Header = file.read_as(0)?;
    let early: U64 = file.read_as(DISK_AT_1)?;
    check(&header, early.get()).map_err(|error| error.file(file.id()))
}

fn check(header: &Header, early: u64) -> Result<Checked> {
    if !is_ours(header) {
        return Err(Kind::NotThisFormat.what("Image not in Bochs format"));
    }
    let disk = if header.version.get() == VERSION_1 { early } else { header.disk.get() };
    let sectors = disk / 512;
    let catalog = header.catalog.get();
    if catalog > CATALOG_MAX {
        return Err(Kind::TooBig.what("Catalog size is too large"));
    }
    let extent = header.extent.get();
    if extent < 512 {
        return Err(Kind::Corrupt.what("Extent size must be at least 512"));
    }
    if !extent.is_power_of_two() {
        return Err(Kind::Corrupt.what("Extent size {} is not a power of two").arg(extent));
    }
    if extent > EXTENT_MAX {
        return Err(Kind::TooBig.what("Extent size {} is too large").arg(extent));
    }
    if u64::from(catalog) < sectors.div_ceil((extent / 512).into()) {
        return Err(Kind::Corrupt.what("Catalog size is too small for this disk size"));
    }
    Ok(Checked {
        virtual_size: sectors.saturating_mul(512),
        catalog_at: header.header.get().into(),
        catalog_count: catalog,
        // qemu-img counts the sectors from one less, in 32 bits: none are very many.
        bitmap_len: u64::from(header.bitmap.get().wrapping_sub(1) / 512).saturating_add(1).saturating_mul(512),
        extent_len: extent,
    })
}
