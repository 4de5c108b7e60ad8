//! Where the bytes of a Bochs disk are: in extents, each behind a bitmap of its sectors.

use super::disk::NOWHERE;
use super::open::Checked;
use alloc::boxed::Box;
use instar_image::bits::{Order, alike};
use instar_image::num::split;
use instar_image::sector::SECTOR;
use instar_image::{Cursor, File, Io, Kind, Layer, Place, Result, Source, Table};

/// The disk's map.
pub fn layer(file: &File<'_>, checked: &Checked) -> Box<dyn Layer> {
    Box::new(BochsLayer {
        catalog: file.place(checked.catalog_at),
        count: checked.catalog_count.into(),
        size: checked.virtual_size,
        bitmap_len: checked.bitmap_len,
        extent_len: checked.extent_len.into(),
    })
}

struct BochsLayer {
    catalog: Place,
    /// Entries of the catalog.
    count: u64,
    size: u64,
    bitmap_len: u64,
    extent_len: u64,
}

impl Layer for BochsLayer {
    fn size(&self) -> u64 {
        self.size
    }

    fn cursor<'c>(&'c self, io: &'c dyn Io) -> Box<dyn Cursor + 'c> {
        let file = self.catalog.file;
        Box::new(BochsCursor { layer: self, catalog: Table::new(io, file), bitmap: Table::new(io, file) })
    }

    fn is_open(&self) -> bool {
        false
    }
}

struct BochsCursor<'c> {
    layer: &'c BochsLayer,
    catalog: Table<'c, 4>,
    bitmap: Table<'c, 1>,
}

impl Cursor for BochsCursor<'_> {
    fn find(&mut self, at: u64, _end: u64) -> Result<(u64, Option<Source>)> {
        let BochsLayer { catalog, count, bitmap_len, extent_len, .. } = *self.layer;
        let (extent, skip, left) = split(at, extent_len);
        let ended = || Kind::Corrupt.what("a table without entries").file(catalog.file);
        let entry = *self.catalog.entries(catalog.at, extent, count)?.first().ok_or_else(ended)?;
        let number = u32::from_le_bytes(entry);
        if number == NOWHERE {
            return Ok((left, None));
        }
        let before = u64::from(number).saturating_mul(bitmap_len.saturating_add(extent_len));
        let bitmap = catalog.ahead(count.saturating_mul(4)).ahead(before);
        let (sector, into, _) = split(skip, SECTOR);
        // qemu-img looks for every sector's bit where it ought to be, even if the bitmap is said to be shorter.
        let bytes = self.bitmap.entries(bitmap.at, sector / 8, (extent_len / SECTOR).div_ceil(8))?;
        let (is_set, like) = alike(bytes, u32::try_from(sector % 8).unwrap_or(0), Order::Low);
        let place = bitmap.ahead(bitmap_len).ahead(skip);
        let run = like.saturating_mul(SECTOR).saturating_sub(into).min(left);
        Ok((run, is_set.then(|| Source::raw(place))))
    }
}
