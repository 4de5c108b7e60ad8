//! The checks that a QED header must pass.

use super::disk::{BACKING_FILE, BACKING_NO_PROBE, FEATURES, Header, MAGIC, NEED_CHECK};
use alloc::format;
use alloc::vec::Vec;
use instar_image::num::bounded;
use instar_image::sector::{SECTOR, round_up};
use instar_image::text::until_nul;
use instar_image::{Error, File, Kind, Result};

/// The longest name of a backing file.
pub const BACKING_NAME_MAX: u64 = 4095;

/// What the header says, checked.
pub struct Checked {
    /// Size of the disk.
    pub size: u64,
    /// Length of a cluster.
    pub cluster_len: u32,
    /// Length of a table in clusters.
    pub table_clusters: u32,
    /// Length of the header in clusters.
    pub header_clusters: u32,
    /// Where the L1 table lies.
    pub l1_at: u64,
    /// Which offsets of the file are clusters.
    pub clusters: Clusters,
    /// Bits that a reader must know.
    pub features: u64,
    /// It must be checked before it is written.
    pub needs_check: bool,
    /// Name of the backing file.
    pub backing: Option<Vec<u8>>,
    /// The backing file is raw.
    pub backing_raw: bool,
}

/// Whether the file begins as a QED image does.
pub fn is_ours(file: &File<'_>) -> Result<bool> {
    Ok(file.read_as::<[u8; 4]>(0)? == MAGIC)
}

/// Reads and checks the header.
pub fn open(file: &File<'_>) -> Result<Checked> {
    let header: Header = file.read_as(0)?;
    let refuse = |kind: Kind, phrase: &'static str| -> Error { kind.what(phrase).file(file.id()) };
    if header.magic != MAGIC {
        return Err(refuse(Kind::NotThisFormat, "Image not in QED format"));
    }
    let features = header.features.get();
    let unknown = features & !FEATURES;
    if unknown != 0 {
        return Err(refuse(Kind::Unsupported, "Unsupported QED features: {}").arg(format!("{unknown:x}")));
    }
    let cluster_len = header.cluster_size.get();
    if !cluster_len.is_power_of_two() || !(4 << 10..=64 << 20).contains(&cluster_len) {
        return Err(refuse(Kind::Corrupt, "QED cluster size is invalid"));
    }
    let table_clusters = header.table_size.get();
    if !matches!(table_clusters, 1 | 2 | 4 | 8 | 16) {
        return Err(refuse(Kind::Corrupt, "QED table size is invalid"));
    }
    let size = header.image_size.get();
    if !size.is_multiple_of(SECTOR) || size > size_max(cluster_len, table_clusters) {
        return Err(refuse(Kind::Corrupt, "QED image size is invalid"));
    }
    let clusters = Clusters::of(&header, round_up(file.len()));
    let l1_at = header.l1_table_offset.get();
    let Some(clusters) = clusters.filter(|clusters| clusters.has_table(l1_at)) else {
        return Err(refuse(Kind::Corrupt, "QED table offset is invalid"));
    };
    let backing = if features & BACKING_FILE == 0 { None } else { backing_name(&header, file)? };
    Ok(Checked {
        size,
        cluster_len,
        table_clusters,
        header_clusters: header.header_size.get(),
        l1_at,
        clusters,
        features,
        needs_check: features & NEED_CHECK != 0,
        backing_raw: features & BACKING_NO_PROBE != 0,
        backing,
    })
}

/// The largest disk that two levels of tables can map; as qemu-img reckons, what does not fit 64 bits wraps.
pub fn size_max(cluster_len: u32, table_clusters: u32) -> u64 {
    let entries = u64::from(cluster_len).wrapping_mul(table_clusters.into()) / 8;
    entries.wrapping_mul(entries).wrapping_mul(cluster_len.into())
}

/// The clusters of the file that may hold tables or data: whole ones behind the header.
#[derive(Clone, Copy)]
pub struct Clusters {
    /// Length of a cluster.
    pub len: u64,
    first: u64,
    /// Where the last of them ends.
    pub end: u64,
    /// What a table has besides its first cluster, in bytes.
    rest: u64,
}

impl Clusters {
    fn of(header: &Header, file_len: u64) -> Option<Clusters> {
        let len = u64::from(header.cluster_size.get());
        let rest = len.saturating_mul(u64::from(header.table_size.get()).saturating_sub(1));
        // A last cluster that is not whole does not count.
        let end = file_len.saturating_sub(file_len % len);
        Some(Clusters { len, first: len.checked_mul(header.header_size.get().into())?, end, rest })
    }

    /// Bytes of a table.
    pub fn table_len(&self) -> u64 {
        self.rest.saturating_add(self.len)
    }

    /// Whether a cluster begins at `at`.
    pub fn has(&self, at: u64) -> bool {
        at.is_multiple_of(self.len) && at >= self.first && at < self.end
    }

    /// Whether a table can begin at `at`. One of a single cluster is never accepted: qemu-img takes its first and last
    /// cluster being the same for an overflow.
    pub fn has_table(&self, at: u64) -> bool {
        at.checked_add(self.rest).is_some_and(|last| last > at && self.has(at) && self.has(last))
    }
}

fn backing_name(header: &Header, file: &File<'_>) -> Result<Option<Vec<u8>>> {
    let refuse = |phrase: &'static str| -> Error { Kind::Corrupt.what(phrase).file(file.id()) };
    let at = u64::from(header.backing_filename_offset.get());
    let len = u64::from(header.backing_filename_size.get());
    let header_len = u64::from(header.cluster_size.get()).saturating_mul(header.header_size.get().into());
    if at.saturating_add(len) > header_len {
        return Err(refuse("QED backing filename offset is invalid"));
    }
    let len = bounded(len, BACKING_NAME_MAX, || refuse("Failed to read backing filename"))?;
    let bytes = file.read_vec(at, len)?;
    Ok(Some(until_nul(&bytes).to_vec()).filter(|name| !name.is_empty()))
}
