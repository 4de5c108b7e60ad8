//! The checks that a qcow2 header must pass, in the order in which qemu-img makes them.

use super::bitmaps::{self, Bitmap};
use super::disk::{
    COMPRESSION, DATA_FILE, DATA_FILE_RAW, EXTENDED_L2, HEADER2_LEN, HEADER3_LEN, Header, INCOMPATIBLE, MAGIC,
    SUBCLUSTERS,
};
use super::extensions::{Extensions, unknown_features};
use super::snapshots::{self, SNAPSHOTS_MAX};
use crate::qcow::open::BACKING_NAME_MAX;
use alloc::vec::Vec;
use instar_image::num::bounded;
use instar_image::num::power;
use instar_image::sector::{SECTOR, TOO_LARGE, readable};
use instar_image::text::until_nul;
use instar_image::{Error, File, Granted, Kind, Options, Result, Role};

/// The longest L1 table that qemu-img accepts.
pub const L1_LEN_MAX: u64 = 32 << 20;
/// The longest table of reference counts that qemu-img accepts.
const REFCOUNT_TABLE_LEN_MAX: u64 = 8 << 20;
/// The most entries of an L1 table that fit qemu-img's reckoning.
const L1_COUNT_MAX: u64 = 0x7fff_ffff;

/// How clusters are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    /// Deflate.
    Zlib,
    /// Zstandard.
    Zstd,
}

/// How the guest's bytes are encrypted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crypt {
    /// Not at all.
    None,
    /// AES in CBC mode under a password.
    Aes,
    /// As the LUKS header in the image says.
    Luks,
}

/// A table in the file.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Where it lies.
    pub at: u64,
    /// How many entries it has.
    pub count: u64,
}

/// What the header says, checked.
#[derive(Clone)]
pub struct Layout {
    /// 2 or 3.
    pub version: u32,
    /// 2 to this power is the length of a cluster: 9 to 21.
    pub cluster_bits: u32,
    /// Length of a cluster.
    pub cluster_len: u64,
    /// Size of the disk as the header has it.
    pub size: u64,
    /// Bits that a reader must know.
    pub incompatible: u64,
    /// Bits that a reader may pass over.
    pub compatible: u64,
    /// Bits that a writer clears if it does not know them.
    pub autoclear: u64,
    /// 2 to this power is the width of a reference count in bits: 0 to 6.
    pub refcount_order: u32,
    /// How clusters are compressed.
    pub compression: Compression,
    /// The active L1 table.
    pub l1: Table,
    /// The table of reference counts.
    pub refcounts: Table,
    /// The snapshots.
    pub snapshots: Table,
    /// Where the header extensions begin.
    pub extensions_at: u64,
    /// Where the header extensions end at the latest.
    pub extensions_end: u64,
}

/// Everything that opening an image tells.
pub struct Checked {
    /// What the header says.
    pub layout: Layout,
    /// How the guest's bytes are encrypted.
    pub crypt: Crypt,
    /// What the header extensions say.
    pub extensions: Extensions,
    /// Name of the backing file.
    pub backing: Option<Vec<u8>>,
    /// The bitmaps.
    pub bitmaps: Vec<Bitmap>,
    /// The file that holds the guest's bytes, if it was opened.
    pub data_file: Option<Granted>,
    /// Why the snapshots cannot be told, where an image is opened all the same.
    pub snapshots_broken: Option<Error>,
}

/// Whether the file begins as version 2 or a later one does.
pub fn is_ours(file: &File<'_>) -> Result<bool> {
    let header: Header = file.read_as(0)?;
    Ok(header.magic == MAGIC && header.version.get() >= 2)
}

/// Reads and checks all that qemu-img reads and checks.
pub fn open(file: &File<'_>, options: &Options) -> Result<Checked> {
    let header: Header = file.read_as(0)?;
    let refuse = |kind: Kind, phrase: &'static str| -> Error { kind.what(phrase).file(file.id()) };
    let layout = Layout::check(&header, file, options.for_check())?;
    if layout.l1.count != 0 && !readable(layout.l1.at, layout.l1.count.saturating_mul(8)) {
        return Err(refuse(Kind::Io, "Could not read L1 table: Input/output error"));
    }
    let crypt = crypt(header.crypt_method.get()).map_err(|e| e.file(file.id()))?;
    if !readable(layout.refcounts.at, layout.refcounts.count.saturating_mul(8)) {
        return Err(refuse(Kind::Io, "Could not initialize refcount handling: Input/output error"));
    }
    let extensions = Extensions::read(file, &layout, crypt, options)?;
    let data_file = if options.opens_data_file() { open_data_file(file, &layout, &extensions, options)? } else { None };
    if crypt == Crypt::Luks && extensions.luks.is_none() {
        return Err(refuse(Kind::Corrupt, "Missing CRYPTO header for crypt method 2"));
    }
    let backing = backing_name(&header, file, layout.cluster_len)?;
    let snapshots_broken = if options.for_check() { snapshots::broken(file, &layout) } else { None };
    if !options.for_check() {
        snapshots::check(file, layout.snapshots)?;
    }
    let bitmaps = match &extensions.bitmaps {
        Some(directory) => bitmaps::load(file, directory, &layout)?,
        None => Vec::new(),
    };
    if i64::try_from(layout.size).is_err() {
        return Err(refuse(Kind::TooBig, TOO_LARGE));
    }
    Ok(Checked { layout, crypt, extensions, backing, bitmaps, data_file, snapshots_broken })
}

fn crypt(method: u32) -> Result<Crypt> {
    match method {
        0 => Ok(Crypt::None),
        1 => Ok(Crypt::Aes),
        2 => Ok(Crypt::Luks),
        // qemu-img prints it as a number with a sign.
        _ => {
            let signed = i64::from(method.cast_signed());
            Err(Kind::Unsupported.what("Unsupported encryption method {}").arg(signed))
        }
    }
}

impl Layout {
    fn check(header: &Header, file: &File<'_>, for_check: bool) -> Result<Layout> {
        let mut layout = Layout::frame(header).map_err(|e| e.file(file.id()))?;
        layout.features(header, file)?;
        layout.tables(header, for_check).map_err(|e| e.file(file.id()))?;
        Ok(layout)
    }

    /// Version, cluster size, and what lies in the first cluster.
    fn frame(header: &Header) -> Result<Layout> {
        if header.magic != MAGIC {
            return Err(Kind::NotThisFormat.what("Image is not in qcow2 format"));
        }
        let version = header.version.get();
        if !matches!(version, 2 | 3) {
            return Err(Kind::Unsupported.what("Unsupported qcow2 version {}").arg(version));
        }
        let cluster_bits = header.cluster_bits.get();
        if !(9..=21).contains(&cluster_bits) {
            return Err(Kind::Unsupported.what("Unsupported cluster size: 2^{}").arg(cluster_bits));
        }
        let cluster_len = power(cluster_bits);
        let header_len = if version == 2 { HEADER2_LEN } else { header.header_length.get() };
        if version == 3 && header_len < HEADER3_LEN {
            return Err(Kind::Corrupt.what("qcow2 header too short"));
        }
        if u64::from(header_len) > cluster_len {
            return Err(Kind::Corrupt.what("qcow2 header exceeds cluster size"));
        }
        let name_at = header.backing_file_offset.get();
        if name_at > cluster_len {
            return Err(Kind::Corrupt.what("Invalid backing file offset"));
        }
        let features = |bits: u64| if version == 2 { 0 } else { bits };
        Ok(Layout {
            version,
            cluster_bits,
            cluster_len,
            size: header.size.get(),
            incompatible: features(header.incompatible_features.get()),
            compatible: features(header.compatible_features.get()),
            autoclear: features(header.autoclear_features.get()),
            refcount_order: if version == 2 { 4 } else { header.refcount_order.get() },
            compression: Compression::Zlib,
            l1: Table { at: header.l1_table_offset.get(), count: header.l1_size.get().into() },
            refcounts: Table {
                at: header.refcount_table_offset.get(),
                count: u64::from(header.refcount_table_clusters.get()).saturating_mul(cluster_len / 8),
            },
            snapshots: Table { at: header.snapshots_offset.get(), count: header.nb_snapshots.get().into() },
            extensions_at: header_len.into(),
            extensions_end: if name_at == 0 { cluster_len } else { name_at },
        })
    }

    /// Feature bits, and the fields that they govern.
    fn features(&mut self, header: &Header, file: &File<'_>) -> Result<()> {
        let refuse = |phrase: &'static str| -> Error { Kind::Unsupported.what(phrase).file(file.id()) };
        let told = self.extensions_at > HEADER3_LEN.into();
        self.compression = match header.compression_type {
            0 => Compression::Zlib,
            _ if !told => Compression::Zlib,
            1 => Compression::Zstd,
            other => return Err(refuse("qcow2: unknown compression type: {}").arg(u64::from(other))),
        };
        match (self.compression, self.incompatible & COMPRESSION != 0) {
            (Compression::Zlib, true) => {
                return Err(refuse("qcow2: Compression type incompatible feature bit must not be set"));
            }
            (Compression::Zstd, false) => {
                return Err(refuse("qcow2: Compression type incompatible feature bit must be set"));
            }
            _ => {}
        }
        if self.incompatible & !INCOMPATIBLE != 0 {
            let names = unknown_features(file, self)?;
            return Err(refuse("Unsupported qcow2 feature(s): {}").arg(names.as_slice()));
        }
        if self.subcluster_len() < SECTOR {
            return Err(refuse("Unsupported subcluster size: {}").arg(self.subcluster_len()));
        }
        if self.refcount_order > 6 {
            return Err(refuse("Reference count entry width too large; may not exceed 64 bits"));
        }
        Ok(())
    }

    /// Places and lengths of the tables.
    fn tables(&self, header: &Header, for_check: bool) -> Result<()> {
        let clusters = u64::from(header.refcount_table_clusters.get());
        if clusters == 0 && !for_check {
            return Err(Kind::Corrupt.what("Image does not contain a reference count table"));
        }
        if clusters > REFCOUNT_TABLE_LEN_MAX / self.cluster_len {
            return Err(Kind::TooBig.what("Reference count table too large"));
        }
        if !self.placed(self.refcounts, 8) {
            return Err(Kind::Corrupt.what("Reference count table offset invalid"));
        }
        if !for_check && self.snapshots.count > SNAPSHOTS_MAX {
            return Err(Kind::TooBig.what("Snapshot table too large"));
        }
        if !for_check && !self.placed(self.snapshots, 40) {
            return Err(Kind::Corrupt.what("Snapshot table offset invalid"));
        }
        if self.l1.count > L1_LEN_MAX / 8 {
            return Err(Kind::TooBig.what("Active L1 table too large"));
        }
        if !self.placed(self.l1, 8) {
            return Err(Kind::Corrupt.what("Active L1 table offset invalid"));
        }
        let needed = self.l1_needed();
        if needed > L1_COUNT_MAX {
            return Err(Kind::TooBig.what("Image is too big"));
        }
        if self.l1.count < needed {
            return Err(Kind::Corrupt.what("L1 table is too small"));
        }
        Ok(())
    }

    /// Whether a table begins on a cluster and ends at an offset that has no sign.
    pub fn placed(&self, table: Table, entry_len: u64) -> bool {
        let end = table.count.checked_mul(entry_len).and_then(|len| table.at.checked_add(len));
        table.at.is_multiple_of(self.cluster_len) && end.is_some_and(|end| i64::try_from(end).is_ok())
    }

    /// Entries of the L1 table that the disk needs; like qemu-img's, the reckoning wraps.
    fn l1_needed(&self) -> u64 {
        self.l1_needed_for(self.size)
    }

    /// The same for a disk of another size.
    pub fn l1_needed_for(&self, size: u64) -> u64 {
        let entry_bits = if self.extended_l2() { 4 } else { 3 };
        let bits = self.cluster_bits.saturating_mul(2).saturating_sub(entry_bits);
        size.wrapping_add(power(bits).saturating_sub(1)).checked_shr(bits).unwrap_or(0)
    }

    /// L2 entries tell of subclusters.
    pub fn extended_l2(&self) -> bool {
        self.incompatible & EXTENDED_L2 != 0
    }

    /// The smallest piece of the disk that is mapped on its own.
    pub fn subcluster_len(&self) -> u64 {
        if self.extended_l2() { self.cluster_len / u64::from(SUBCLUSTERS) } else { self.cluster_len }
    }

    /// Size of the disk as qemu-img tells it: whole sectors.
    pub fn disk_size(&self) -> u64 {
        self.size.saturating_sub(self.size % SECTOR)
    }

    /// The guest's bytes lie in another file.
    pub fn has_data_file(&self) -> bool {
        self.incompatible & DATA_FILE != 0
    }
}

fn backing_name(header: &Header, file: &File<'_>, cluster_len: u64) -> Result<Option<Vec<u8>>> {
    let at = header.backing_file_offset.get();
    if at == 0 {
        return Ok(None);
    }
    let max = BACKING_NAME_MAX.min(cluster_len.saturating_sub(at));
    let too_long = || Kind::Corrupt.what("Backing file name too long").file(file.id());
    let bytes = file.read_vec(at, bounded(header.backing_file_size.get().into(), max, too_long)?)?;
    Ok(Some(until_nul(&bytes).to_vec()).filter(|name| !name.is_empty()))
}

/// Opens the data file as versions before the fix of CVE-2024-4467 did, although `info` needs nothing from it.
fn open_data_file(
    file: &File<'_>,
    layout: &Layout,
    extensions: &Extensions,
    options: &Options,
) -> Result<Option<Granted>> {
    let refuse = |phrase: &'static str| -> Error { Kind::Corrupt.what(phrase).file(file.id()) };
    if !layout.has_data_file() {
        if layout.autoclear & DATA_FILE_RAW != 0 {
            return Err(refuse("data-file-raw requires a data file"));
        }
        if options.beside.is_some() {
            return Err(refuse("'data-file' can only be set for images with an external data file"));
        }
        return Ok(None);
    }
    if options.beside.is_some() {
        return Ok(options.beside.clone());
    }
    match extensions.data_file.as_deref() {
        None => Err(refuse("'data-file' is required for this image")),
        Some([]) => Err(refuse("The 'file' block driver requires a file name")),
        Some(name) => file.related(Role::DataFile, name).map(Some),
    }
}
