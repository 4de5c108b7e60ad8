//! Changes of an image that is there: header extensions, and what they lead to.

mod bitmap;
mod mend;
mod rebuild;
mod repair;
mod resize;
mod snapshot;
#[cfg(test)]
mod tests;
mod tree;
mod work;

pub use mend::Mend;
pub use repair::repair;

use super::Qcow2Image;
use super::bitmaps;
use super::disk::{
    BITMAP_AUTO, BITMAP_ENTRY_ONES, BITMAPS, Bitmap as DiskBitmap, Bitmaps, EXT_BITMAPS, Extension, Header,
};
use super::extensions::{self, Directory};
use super::open::{L1_LEN_MAX, Layout};
use super::reserve::Writing;
use alloc::vec;
use alloc::vec::Vec;
use instar_image::bitmap::Bitmap;
use instar_image::edit::NewSnapshot;
use instar_image::num::wide;
use instar_image::target::ReadBits;
use instar_image::{Below, Drive, Edit, Error, File, Kind, Place, Preallocation, Result};
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// The most entries of an L1 table.
const L1_ENTRIES_MAX: u64 = L1_LEN_MAX / 8;

/// Whoever changes an image that is there.
pub struct Editor<'e, 'a> {
    /// The image.
    pub image: &'e Qcow2Image<'a>,
}

impl Edit for Editor<'_, '_> {
    fn resize(&mut self, drive: &dyn Drive, size: u64, space: Preallocation, below: &Below<'_>) -> Result<u64> {
        self.set_size(drive, size, space, below)
    }

    fn take_snapshot(&mut self, drive: &dyn Drive, new: &NewSnapshot<'_>) -> Result<()> {
        self.take(drive, new)
    }

    fn apply_snapshot(&mut self, drive: &dyn Drive, number: usize) -> Result<()> {
        self.apply(drive, number)
    }

    fn delete_snapshot(&mut self, drive: &dyn Drive, number: usize) -> Result<()> {
        self.delete(drive, number)
    }
}

/// The most bitmaps that an image can have.
const BITMAPS_MAX: usize = 65535;

/// The parts of an image that are not about the disk, as they are found in its file.
pub struct Head {
    /// Header, extensions, and the name of the backing file.
    bytes: Vec<u8>,
    extensions_at: usize,
    cluster_len: u64,
    is_v3: bool,
    /// The directory of bitmaps, as it stands there, and how many it has.
    bitmaps: Vec<u8>,
    bitmap_count: usize,
    names: Vec<Vec<u8>>,
}

fn no_room() -> Error {
    Kind::TooBig.what("the header has no room for what is to be said in it")
}

impl Head {
    /// Of an image that is there.
    pub fn read(
        file: &File<'_>,
        layout: &Layout,
        directory: Option<&Directory>,
        known: &[bitmaps::Bitmap],
    ) -> Result<Head> {
        let len = usize::try_from(layout.cluster_len).unwrap_or(0);
        let directory_len = directory.map_or(0, |directory| usize::try_from(directory.len).unwrap_or(0));
        let bitmaps = directory.map(|directory| file.read_vec(directory.at, directory_len)).transpose()?;
        Ok(Head {
            bytes: file.read_vec(0, len)?,
            extensions_at: usize::try_from(layout.extensions_at).unwrap_or(0),
            cluster_len: layout.cluster_len,
            is_v3: layout.version >= 3,
            bitmaps: bitmaps.unwrap_or_default(),
            bitmap_count: known.len(),
            names: known.iter().map(|bitmap| bitmap.name.clone()).collect(),
        })
    }

    /// All extensions, with what each says.
    fn extensions(&self) -> Vec<(u32, Vec<u8>)> {
        let mut all = Vec::new();
        let mut rest = self.bytes.get(self.extensions_at..).unwrap_or_default();
        while let Ok((head, after)) = Extension::read_from_prefix(rest) {
            let len = usize::try_from(head.len.get()).unwrap_or(usize::MAX);
            if head.magic.get() == 0 {
                break;
            }
            let Some(content) = after.get(..len) else { break };
            all.push((head.magic.get(), content.to_vec()));
            rest = after.get(len.next_multiple_of(8)..).unwrap_or_default();
        }
        all
    }

    /// The header with an extension that says this, whatever it said before.
    fn with(&self, magic: u32, content: &[u8], change: impl FnOnce(&mut Header)) -> Result<Vec<u8>> {
        let mut header = Header::new_zeroed();
        let own = self.bytes.get(..self.extensions_at).unwrap_or_default();
        header.as_mut_bytes().iter_mut().zip(own).for_each(|(to, from)| *to = *from);
        let name_at = usize::try_from(header.backing_file_offset.get()).unwrap_or(0);
        let name_len = usize::try_from(header.backing_file_size.get()).unwrap_or(0);
        let name = if name_at == 0 { &[] } else { self.bytes.get(name_at..).unwrap_or_default() };
        let name = name.get(..name_len).unwrap_or_default();
        let mut behind = Vec::new();
        let mut add = |magic: u32, content: &[u8]| extensions::add(&mut behind, magic, content);
        self.extensions().iter().filter(|(known, _)| *known != magic).for_each(|(magic, content)| add(*magic, content));
        add(magic, content);
        add(0, &[]);
        if !name.is_empty() {
            header.backing_file_offset = U64::new(wide(self.extensions_at.saturating_add(behind.len())));
        }
        change(&mut header);
        let mut bytes = own.to_vec();
        bytes.iter_mut().zip(header.as_bytes()).for_each(|(to, from)| *to = *from);
        bytes.extend(behind);
        bytes.extend_from_slice(name);
        if bytes.len() as u64 > self.cluster_len {
            return Err(no_room());
        }
        bytes.resize(self.bytes.len(), 0);
        Ok(bytes)
    }
}

impl Writing {
    /// Adds bitmaps; `read` fills bytes with the bits of the one with that number, from a byte on.
    pub fn add_bitmaps(&mut self, drive: &dyn Drive, new: &[Bitmap], read: ReadBits<'_>) -> Result<()> {
        if !self.head.is_v3 {
            return Err(Kind::Unsupported.what("Format driver 'qcow2' does not support bitmaps"));
        }
        let count = self.head.bitmap_count.saturating_add(new.len());
        if count > BITMAPS_MAX {
            return Err(Kind::TooBig.what("there are too many bitmaps"));
        }
        let mut directory = self.head.bitmaps.clone();
        for (number, bitmap) in new.iter().enumerate() {
            if self.head.names.contains(&bitmap.name) {
                let words = "Failed to create bitmap {}: Bitmap already exists: {}";
                return Err(Kind::Unsupported.what(words).arg(bitmap.name.as_slice()).arg(bitmap.name.as_slice()));
            }
            let (table_at, entries) = self.bits(drive, bitmap, &mut |at, bytes| read(number, at, bytes))?;
            let entry = DiskBitmap {
                table_offset: U64::new(table_at),
                table_size: U32::new(u32::try_from(entries).unwrap_or(u32::MAX)),
                flags: U32::new(if bitmap.is_enabled { BITMAP_AUTO } else { 0 }),
                kind: 1,
                granularity_bits: u8::try_from(bitmap.granularity.trailing_zeros()).unwrap_or(0),
                name_size: U16::new(u16::try_from(bitmap.name.len()).unwrap_or(u16::MAX)),
                extra_data_size: U32::new(0),
            };
            directory.extend_from_slice(entry.as_bytes());
            directory.extend_from_slice(&bitmap.name);
            directory.resize(directory.len().next_multiple_of(8), 0);
        }
        let len = directory.len() as u64;
        let at = self.clusters.claim(drive, len.div_ceil(self.head.cluster_len))?;
        drive.write(self.map.tables.ahead(at), &directory)?;
        let content = Bitmaps {
            nb_bitmaps: U32::new(u32::try_from(count).unwrap_or(u32::MAX)),
            reserved: U32::new(0),
            directory_size: U64::new(len),
            directory_offset: U64::new(at),
        };
        let (table_at, table_clusters) = self.clusters.table();
        let bytes = self.head.with(EXT_BITMAPS, content.as_bytes(), |header| {
            header.autoclear_features = U64::new(header.autoclear_features.get() | BITMAPS);
            header.refcount_table_offset = U64::new(table_at);
            header.refcount_table_clusters = U32::new(u32::try_from(table_clusters).unwrap_or(u32::MAX));
        })?;
        self.is_changed = true;
        self.clusters.draft.put(drive, self.map.tables.at, &bytes)
    }

    /// Writes the bits of a bitmap: where the table of its clusters lies, and how many entries that has.
    fn bits(
        &mut self,
        drive: &dyn Drive,
        bitmap: &Bitmap,
        read: &mut dyn FnMut(u64, &mut [u8]) -> Result<()>,
    ) -> Result<(u64, u64)> {
        let cluster_len = self.head.cluster_len;
        // The bits are kept in words of 64.
        let len = bitmap.len(self.map.size).next_multiple_of(8);
        let entries = len.div_ceil(cluster_len);
        let mut table = Vec::new();
        let mut bytes = vec![0; usize::try_from(cluster_len).unwrap_or(0)];
        for number in 0..entries {
            let at = number.saturating_mul(cluster_len);
            let have = usize::try_from(len.saturating_sub(at).min(cluster_len)).unwrap_or(0);
            bytes.fill(0);
            read(at, bytes.get_mut(..have).unwrap_or_default())?;
            let word = if bytes.iter().all(|byte| *byte == 0) {
                0
            } else if bytes.iter().all(|byte| *byte == 0xff) {
                BITMAP_ENTRY_ONES
            } else {
                let host = self.clusters.claim(drive, 1)?;
                drive.write(self.map.tables.ahead(host), &bytes)?;
                host
            };
            table.extend_from_slice(&word.to_be_bytes());
        }
        let at = self.clusters.claim(drive, (table.len() as u64).div_ceil(cluster_len))?;
        let place: Place = self.map.tables.ahead(at);
        drive.write(place, &table)?;
        Ok((at, entries))
    }
}
