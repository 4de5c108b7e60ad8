//! Opening a Parallels disk: its header, checked.

use super::disk::{Header, IN_USE, MAGIC, MAGIC_EXT, VERSION};
use super::extension::{self, BitmapFacts};
use alloc::vec::Vec;
use instar_image::sector::{READ_END, SECTOR, TOO_LARGE, round_up};
use instar_image::{Error, File, Kind, Options, Result};

/// Sectors that a cluster may have.
const TRACKS_MAX: u32 = i32::MAX as u32 / 513;
/// Entries that a table may have.
pub const TABLE_MAX: u32 = i32::MAX as u32 / 4;
/// The last sector that an offset can name.
const SECTOR_MAX: u64 = i64::MAX as u64 / 512;

/// What a Parallels disk is, checked.
pub struct Checked {
    /// Size of the disk in bytes.
    pub virtual_size: u64,
    /// Sectors of a cluster.
    pub cluster_sectors: u32,
    /// Entries of the table; they cover the disk.
    pub table_count: u32,
    /// What an entry of the table is multiplied by to get a sector.
    pub entry_unit: u32,
    /// First sector of the data, as the header says.
    pub data_sector: u32,
    /// It is of the older layout.
    pub is_old: bool,
    /// Sector of the format extension; zero: none.
    pub extension_sector: u64,
    /// A writer did not close it.
    pub in_use: bool,
    /// The dirty bitmaps of its format extension.
    pub bitmaps: Vec<BitmapFacts>,
    /// What should be said of it.
    pub warnings: Vec<Error>,
}

impl Checked {
    /// Where the table ends.
    pub fn table_end(&self) -> u64 {
        u64::from(self.table_count).saturating_mul(4).saturating_add(size_of::<Header>() as u64)
    }

    /// Length of a cluster.
    pub fn cluster_len(&self) -> u64 {
        u64::from(self.cluster_sectors).saturating_mul(SECTOR)
    }

    /// Where the data begin in a file of that length, and whether it is as the header says.
    pub fn data_at(&self, file_len: u64) -> (u64, bool) {
        let cluster = if self.is_old { 1 } else { self.cluster_sectors.into() };
        let least = first_sector(self.table_end(), cluster).saturating_mul(SECTOR);
        let said = u64::from(self.data_sector).saturating_mul(SECTOR);
        match () {
            () if self.is_old && said == 0 => (least, true),
            () if (least..=round_up(file_len)).contains(&said) => (said, true),
            () => (least, false),
        }
    }
}

/// The first sector that data can have behind a table: that of a cluster, as qemu-img reckons, which is right where clusters
/// are a power of two of sectors.
pub fn first_sector(table_end: u64, cluster_sectors: u64) -> u64 {
    let mask = cluster_sectors.saturating_sub(1);
    table_end.div_ceil(SECTOR).saturating_add(mask) & !mask
}

/// The first version of qemu-img, times a hundred, that is strict about tables: they must be long enough for the disk,
/// and what does not lie wholly in the file is not there.
pub const STRICT: u32 = 1101;

/// Whether the header is a Parallels disk's.
pub fn is_ours(header: &Header) -> bool {
    header.version.get() == VERSION && (&header.magic == MAGIC || &header.magic == MAGIC_EXT)
}

/// Reads and checks the header and the format extension.
pub fn open(file: &File<'_>, options: &Options) -> Result<Checked> {
    check(file, options).map_err(|error| error.file(file.id()))
}

fn check(file: &File<'_>, options: &Options) -> Result<Checked> {
    let header: Header = file.read_as(0)?;
    if !is_ours(&header) {
        return Err(Kind::NotThisFormat.what("Image not in Parallels format"));
    }
    let old = &header.magic == MAGIC;
    let sectors = if old { header.nb_sectors.get() & 0xffff_ffff } else { header.nb_sectors.get() };
    let tracks = header.tracks.get();
    if tracks == 0 {
        return Err(Kind::Corrupt.what("Invalid image: Zero sectors per track"));
    }
    if tracks > TRACKS_MAX {
        return Err(Kind::TooBig.what("Invalid image: Too big cluster"));
    }
    let table_count = header.bat_entries.get();
    if table_count > TABLE_MAX {
        return Err(Kind::TooBig.what("Catalog too large"));
    }
    let extension_sector = header.ext_off.get();
    if extension_sector > SECTOR_MAX {
        return Err(Kind::Corrupt.what("Invalid image: Too big offset"));
    }
    // Once, what the table has no entries for was empty.
    if !options.is_before(STRICT) && u64::from(table_count) < sectors.div_ceil(tracks.into()) {
        return Err(Kind::Corrupt.what("Invalid image: Catalog size too small for advertised disk size"));
    }
    let virtual_size = sectors.saturating_mul(SECTOR);
    if virtual_size > READ_END {
        return Err(Kind::TooBig.what(TOO_LARGE));
    }
    let cluster_len = u64::from(tracks).saturating_mul(512);
    // qemu-img does not look at what it could not keep true.
    let ignores = options.as_qemu && options.for_writing() && extension_sector != 0;
    let warnings = ignores.then(|| Kind::Unsupported.what("Format Extension ignored in RW mode"));
    let bitmaps = match extension_sector {
        0 => Vec::new(),
        _ if ignores => Vec::new(),
        sector => extension::read(file, sector, cluster_len, sectors)?,
    };
    Ok(Checked {
        virtual_size,
        cluster_sectors: tracks,
        table_count,
        entry_unit: if old { 1 } else { tracks },
        data_sector: header.data_off.get(),
        is_old: old,
        extension_sector,
        in_use: header.inuse.get() == IN_USE,
        bitmaps,
        warnings: warnings.into_iter().collect(),
    })
}
