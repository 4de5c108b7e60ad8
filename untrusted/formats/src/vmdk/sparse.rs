//! The headers of VMware's sparse extents, checked.

use super::disk::{
    AT_END, Cowd, DEFLATE, FLAG_MARKERS, FLAG_SECOND_DIRECTORY, FLAG_ZERO_GRAIN, Footer, Hosted, KDMV, MARKER_FOOTER,
    SE_CONST_MAGIC, SE_VERSION, SE_VOLATILE_MAGIC, SeConst, SeVolatile,
};
use alloc::format;
use core::mem::size_of;
use instar_image::sector::SECTOR;
use instar_image::{Error, File, Kind, Result};

/// Sectors that a grain may have.
const GRAIN_MAX: u64 = 0x20_0000;
/// Entries that a grain directory may have.
const DIRECTORY_MAX: u32 = 32 << 20;
/// Entries that a grain table may have.
const TABLE_MAX: u32 = 512;
/// Bytes of a table in ESX's newer kind.
const SE_TABLE_LEN: u32 = 64 * 512;

/// Grains found by way of a directory and its tables.
pub struct Sparse {
    /// Sectors of the disk.
    pub sectors: u64,
    /// Sectors of a grain.
    pub grain_sectors: u64,
    /// Where the directory begins, in bytes.
    pub directory_at: u64,
    /// Where the directory is that leads to the same once more.
    pub second_at: Option<u64>,
    /// Where the grains begin.
    pub grains_at: u64,
    /// Where the footer begins, if the header is there.
    pub footer_at: Option<u64>,
    /// Its entries; they may be fewer than the disk needs.
    pub directory_count: u32,
    /// Entries of a table.
    pub table_count: u32,
    /// What only ESX's newer kind has; its entries have eight bytes, all others' four.
    pub se: Option<SeAreas>,
    /// Grains are compressed.
    pub compressed: bool,
    /// Before each compressed grain stands how long it is.
    pub marked: bool,
    /// An entry can say that a grain is zero.
    pub zeroable: bool,
}

/// What entries count from in ESX's newer kind.
#[derive(Clone, Copy)]
pub struct SeAreas {
    /// Where the first table begins, in bytes.
    pub tables_at: u64,
    /// Bytes of a table.
    pub table_len: u64,
    /// Where the first grain begins, in bytes.
    pub grains_at: u64,
}

/// The header of a hosted sparse disk: the one that counts, be it at the front or at the end.
pub fn hosted(file: &File<'_>, front: Hosted) -> Result<Sparse> {
    let (header, footer_at) = match front.gd_offset.get() {
        AT_END => footer(file).map(|(header, at)| (header, Some(at)))?,
        _ => (front, None),
    };
    if header.version.get() > 3 {
        return Err(Kind::Unsupported.what("Unsupported VMDK version {}").arg(header.version.get()));
    }
    let table_count = header.num_gtes_per_gt.get();
    if table_count > TABLE_MAX {
        return Err(Kind::TooBig.what("L2 table size too big"));
    }
    // qemu-img counts in 32 bits here and below; what it takes for that reason is taken here as well.
    let reach = u64::from(table_count).wrapping_mul(header.granularity.get()) & 0xffff_ffff;
    let capacity = header.capacity.get();
    let Some(entries) = capacity.wrapping_add(reach.wrapping_sub(1)).checked_div(reach) else {
        return Err(Kind::Corrupt.what("L1 entry size is invalid"));
    };
    let grains_from = header.grain_offset.get();
    if file.len().div_ceil(512) < grains_from {
        return Err(Kind::Corrupt
            .what("File truncated, expecting at least {} bytes")
            .arg(grains_from.wrapping_mul(512).cast_signed()));
    }
    let mut sparse = Sparse {
        sectors: capacity,
        grain_sectors: header.granularity.get(),
        directory_at: header.gd_offset.get().wrapping_mul(512),
        second_at: None,
        grains_at: grains_from.wrapping_mul(512),
        footer_at,
        directory_count: u32::try_from(entries & 0xffff_ffff).unwrap_or(u32::MAX),
        table_count,
        se: None,
        compressed: header.compress_algorithm.get() == DEFLATE,
        marked: header.flags.get() & FLAG_MARKERS != 0,
        zeroable: header.flags.get() & FLAG_ZERO_GRAIN != 0,
    };
    checked(&sparse)?;
    readable(file, sparse.directory_at, "Could not read l1 table from extent '{file}': Input/output error")?;
    if header.flags.get() & FLAG_SECOND_DIRECTORY != 0 {
        let second = header.rgd_offset.get().wrapping_mul(512);
        readable(file, second, "Could not read l1 backup table from extent '{file}': Input/output error")?;
        sparse.second_at = Some(second);
    }
    Ok(sparse)
}

/// The header at the front with what the one at the end says, if that is the one that counts.
pub fn forward(file: &File<'_>, footer_at: Option<u64>) -> Result<Hosted> {
    let front: Hosted = file.read_as(0)?;
    let Some(at) = footer_at else { return Ok(front) };
    let end: Hosted = file.read_as(at.saturating_add(SECTOR))?;
    let Hosted { desc_offset, desc_size, check_bytes, .. } = front;
    Ok(Hosted { desc_offset, desc_size, check_bytes, ..end })
}

fn footer(file: &File<'_>) -> Result<(Hosted, u64)> {
    let end = file.len().next_multiple_of(512);
    let Some(at) = end.checked_sub(size_of::<Footer>() as u64) else {
        return Err(Kind::Corrupt.what("Failed to read footer: Input/output error"));
    };
    let footer: Footer = file.read_as(at)?;
    let (marker, end) = (&footer.marker, &footer.end);
    let sound = &footer.header.magic == KDMV
        && (marker.size.get(), marker.kind.get()) == (0, MARKER_FOOTER)
        && (end.value.get(), end.size.get(), end.kind.get()) == (0, 0, 0);
    if sound { Ok((footer.header, at)) } else { Err(Kind::Corrupt.what("Invalid footer")) }
}

/// The header of ESX's older sparse disk.
pub fn cowd(header: &Cowd) -> Result<Sparse> {
    let sparse = Sparse {
        sectors: header.disk_sectors.get().into(),
        grain_sectors: header.granularity.get().into(),
        directory_at: u64::from(header.l1dir_offset.get()).wrapping_mul(512),
        second_at: None,
        grains_at: 0,
        footer_at: None,
        directory_count: header.l1dir_size.get(),
        table_count: 4096,
        se: None,
        compressed: false,
        marked: false,
        zeroable: false,
    };
    checked(&sparse)?;
    Ok(sparse)
}

/// The headers of ESX's newer sparse disk.
pub fn se_sparse(file: &File<'_>) -> Result<Sparse> {
    let header: SeConst = file.read_as(0)?;
    check_const(&header)?;
    let [volatile_at, _] = &header.volatile_header;
    let volatile_at = volatile_at.get().wrapping_mul(512);
    readable(file, volatile_at, "Could not read volatile header from file '{file}': Input/output error")?;
    let volatile: SeVolatile = file.read_as(volatile_at)?;
    if volatile.magic.get() != SE_VOLATILE_MAGIC {
        return Err(hex(Kind::NotThisFormat.what("Bad volatile header magic: 0x{}"), volatile.magic.get()));
    }
    if volatile.replay_journal.get() != 0 {
        return Err(Kind::Unsupported.what("Image is dirty, Replaying journal not supported"));
    }
    if volatile.pad != [0; 480] {
        return Err(Kind::Unsupported.what("Unsupported non-zero volatile header padding"));
    }
    let entries = header.grain_dir_size.get().wrapping_mul(512 / 8);
    let areas = SeAreas {
        tables_at: header.grain_tables_offset.get().saturating_mul(SECTOR),
        table_len: SE_TABLE_LEN.into(),
        grains_at: header.grains_offset.get().saturating_mul(SECTOR),
    };
    let sparse = Sparse {
        sectors: header.capacity.get(),
        grain_sectors: header.grain_size.get(),
        directory_at: header.grain_dir_offset.get().wrapping_mul(512),
        second_at: None,
        grains_at: areas.grains_at,
        footer_at: None,
        directory_count: u32::try_from(entries & 0xffff_ffff).unwrap_or(u32::MAX),
        table_count: SE_TABLE_LEN / 8,
        se: Some(areas),
        compressed: false,
        marked: false,
        zeroable: true,
    };
    checked(&sparse)?;
    readable(file, sparse.directory_at, "Could not read l1 table from extent '{file}': Input/output error")?;
    Ok(sparse)
}

fn check_const(header: &SeConst) -> Result<()> {
    if header.magic.get() != SE_CONST_MAGIC {
        return Err(hex(Kind::NotThisFormat.what("Bad const header magic: 0x{}"), header.magic.get()));
    }
    if header.version.get() != SE_VERSION {
        return Err(hex(Kind::Unsupported.what("Unsupported version: 0x{}"), header.version.get()));
    }
    if header.grain_size.get() != 8 {
        return Err(Kind::Unsupported.what("Unsupported grain size: {}").arg(header.grain_size.get()));
    }
    if header.grain_table_size.get() != 64 {
        return Err(Kind::Unsupported.what("Unsupported grain table size: {}").arg(header.grain_table_size.get()));
    }
    if header.flags.get() != 0 {
        return Err(hex(Kind::Unsupported.what("Unsupported flags: 0x{}"), header.flags.get()));
    }
    if header.reserved.iter().any(|word| word.get() != 0) {
        let refusal = Kind::Unsupported.what("Unsupported reserved bits: 0x{} 0x{} 0x{} 0x{}");
        return Err(header.reserved.iter().fold(refusal, |refusal, word| hex(refusal, word.get())));
    }
    if header.pad != [0; 304] {
        return Err(Kind::Unsupported.what("Unsupported non-zero const header padding"));
    }
    Ok(())
}

fn hex(error: Error, number: u64) -> Error {
    error.arg(format!("{number:016x}"))
}

fn checked(sparse: &Sparse) -> Result<()> {
    if sparse.grain_sectors > GRAIN_MAX {
        return Err(Kind::TooBig.what("Invalid granularity, image may be corrupt"));
    }
    if sparse.directory_count > DIRECTORY_MAX {
        return Err(Kind::TooBig.what("L1 size too big"));
    }
    Ok(())
}

/// An offset that a file can have.
fn readable(file: &File<'_>, at: u64, refusal: &'static str) -> Result<()> {
    if at > i64::MAX as u64 { Err(Kind::Corrupt.what(refusal).file(file.id()).at(at)) } else { Ok(()) }
}
