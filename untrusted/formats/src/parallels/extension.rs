//! The format extension of a Parallels disk: a checksummed cluster of features, of which dirty bitmaps are known.

use super::disk::{BITMAP, Bitmap, EXTENSION, Extension, Feature};
use alloc::format;
use alloc::vec::Vec;
use core::mem::size_of;
use instar_codec::hash::Hash;
use instar_image::text::uuid;
use instar_image::{Error, File, Kind, Result, num};

/// Bitmaps that one image may have.
const BITMAPS_MAX: usize = 65535;
/// Bytes of an extension. Clusters of real disks have 1 MiB; a sum over 2 GiB of nothing would only cost time.
const CLUSTER_MAX: u64 = 16 << 20;
/// The checksum is computed over pieces of this length.
const PIECE: u64 = 1 << 20;
/// The largest offset that qemu-img reads at.
const OFFSET_MAX: u64 = i64::MAX as u64 & !0x3fff_ffff;

/// A dirty bitmap, checked.
pub struct BitmapFacts {
    /// Its identifier.
    pub id: [u8; 16],
    /// Bytes for which one bit stands: a power of two.
    pub granularity: u64,
    /// Where its table begins in the file.
    pub table_at: u64,
    /// Entries of the table.
    pub table_count: u32,
}

/// Reads and checks the extension that begins at `sector`.
pub fn read(file: &File<'_>, sector: u64, cluster_len: u64, disk_sectors: u64) -> Result<Vec<BitmapFacts>> {
    let too_big = || Kind::Corrupt.what("Invalid image: Too big offset");
    let at = num::mul(sector, 512, too_big)?;
    if cluster_len > CLUSTER_MAX {
        return Err(Kind::TooBig.what("the format extension fills {} bytes").arg(cluster_len));
    }
    let head: Extension = file.read_as(at)?;
    if head.magic.get() != EXTENSION {
        return Err(Kind::Corrupt
            .what("Wrong parallels Format Extension magic: 0x{}, expected: 0x{}")
            .arg(format!("{:x}", head.magic.get()))
            .arg(format!("{EXTENSION:x}")));
    }
    let start = num::add(at, size_of::<Extension>() as u64, too_big)?;
    let end = num::add(at, cluster_len, too_big)?;
    if md5(file, start, end)? != head.checksum[..] {
        return Err(Kind::Corrupt.what("Wrong checksum in Format Extension header. Format extension is corrupted."));
    }
    Features { file, at: start, end, cluster_len, disk_sectors, found: Vec::new() }.walk()
}

fn md5(file: &File<'_>, start: u64, end: u64) -> Result<Vec<u8>> {
    let Some(hash) = Hash::by_name(b"md5") else { return Ok(Vec::new()) };
    let mut sum = hash.begin();
    let mut at = start;
    while at < end {
        let left = end.saturating_sub(at).min(PIECE);
        let len = num::bounded(left, PIECE, || Kind::TooBig.what("Invalid image: Too big cluster"))?;
        sum.update(&file.read_vec(at, len)?);
        at = at.saturating_add(left);
    }
    Ok(sum.finish())
}

/// The walk over the features of a cluster.
struct Features<'f, 'a> {
    file: &'f File<'a>,
    at: u64,
    end: u64,
    cluster_len: u64,
    disk_sectors: u64,
    found: Vec<BitmapFacts>,
}

impl Features<'_, '_> {
    fn left(&self) -> u64 {
        self.end.saturating_sub(self.at)
    }

    fn walk(mut self) -> Result<Vec<BitmapFacts>> {
        let head_len = size_of::<Feature>() as u64;
        loop {
            if self.left() < head_len {
                return Err(Kind::Corrupt
                    .what(
                        "Can not read feature header, as remaining bytes ({}) in Format Extension is less than \
                         Feature header size ({})",
                    )
                    .arg(self.left())
                    .arg(head_len));
            }
            let feature: Feature = self.file.read_as(self.at)?;
            self.at = self.at.saturating_add(head_len);
            if feature.flags.get() != 0 {
                return Err(Kind::Unsupported.what("Flags for extension feature are unsupported"));
            }
            let len = u64::from(feature.data_size.get());
            if len > self.left() {
                return Err(Kind::Corrupt.what("Feature data_size exceedes Format Extension cluster"));
            }
            match feature.magic.get() {
                0 => return Ok(self.found),
                BITMAP => self.bitmap(len)?,
                magic => return Err(Kind::Unsupported.what("Unknown feature: 0x{}").arg(format!("{magic:x}"))),
            }
            self.at = self.at.saturating_add(len.next_multiple_of(8));
        }
    }

    fn bitmap(&mut self, len: u64) -> Result<()> {
        let head_len = size_of::<Bitmap>() as u64;
        if len < head_len {
            return Err(Kind::Corrupt
                .what(
                    "Too small Bitmap Feature area in Parallels Format Extension: {} bytes, expected at least {} bytes",
                )
                .arg(len)
                .arg(head_len));
        }
        let bitmap: Bitmap = self.file.read_as(self.at)?;
        let table_at = self.at.saturating_add(head_len);
        if bitmap.size.get() != self.disk_sectors {
            return Err(Kind::Corrupt
                .what("Bitmap size (in sectors) {} differs from disk size in sectors {}")
                .arg(bitmap.size.get().cast_signed())
                .arg(self.disk_sectors));
        }
        let table_count = bitmap.l1_size.get();
        if u64::from(table_count).saturating_mul(8) > len.saturating_sub(head_len) {
            return Err(Kind::Corrupt.what("Bitmaps feature corrupted: l1 table exceeds extension data_size"));
        }
        let sectors = bitmap.granularity.get();
        let granularity = u64::from(sectors).saturating_mul(512);
        if !sectors.is_power_of_two() || granularity > 1 << 31 {
            return Err(Kind::Corrupt.what("Invalid granularity of dirty bitmap: {} sectors").arg(sectors));
        }
        if self.found.iter().any(|other| other.id == bitmap.id) {
            return Err(Kind::Corrupt.what("Bitmap already exists: {}").arg(uuid(&bitmap.id)));
        }
        if self.found.len() >= BITMAPS_MAX {
            return Err(Kind::TooBig.what("too many dirty bitmaps"));
        }
        // A cluster of bits stands for this many bytes of the disk.
        let reach = granularity.saturating_mul(self.cluster_len).saturating_mul(8);
        let expected = self.disk_sectors.saturating_mul(512).div_ceil(reach.max(1));
        if u64::from(table_count) != expected {
            return Err(Kind::Corrupt
                .what("Bitmap table size {} does not correspond to bitmap size and cluster size. Expected {}")
                .arg(table_count)
                .arg(expected));
        }
        self.entries(table_at, table_count)?;
        self.found.push(BitmapFacts { id: bitmap.id, granularity, table_at, table_count });
        Ok(())
    }

    /// No entry leads where a file cannot be.
    fn entries(&self, table_at: u64, count: u32) -> Result<()> {
        for index in 0..u64::from(count) {
            let entry: zerocopy::little_endian::U64 =
                self.file.read_as(table_at.saturating_add(index.saturating_mul(8)))?;
            // As in qemu-img, the sector wraps on its way to an offset.
            let at = entry.get().wrapping_mul(512);
            if entry.get() > 1 && at.saturating_add(self.cluster_len) > OFFSET_MAX {
                return Err(unreadable());
            }
        }
        Ok(())
    }
}

fn unreadable() -> Error {
    Kind::Io.what("Failed to read bitmap data cluster: Input/output error")
}
