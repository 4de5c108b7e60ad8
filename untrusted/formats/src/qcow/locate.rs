//! Where the bytes of a qcow image are: in clusters, as two levels of tables say.

use super::disk::COMPRESSED;
use super::open::Checked;
use alloc::boxed::Box;
use alloc::sync::Arc;
use instar_codec::cipher::Sectors;
use instar_codec::unpack::Codec;
use instar_image::blocks::{self, Blocks, Grid, Root};
use instar_image::num::power;
use instar_image::sector::{SECTOR, readable};
use instar_image::{Error, File, Kind, Layer, Place, Result, Source, Unit};

/// The clusters of a qcow image.
pub struct Map {
    /// Where the image begins in its file.
    pub start: Place,
    grid: Grid,
    /// 2 to this power is the length of a cluster.
    pub cluster_bits: u32,
    /// What decrypts them.
    pub sectors: Option<Arc<Sectors>>,
}

/// The image's map.
pub fn layer(file: &File<'_>, checked: &Checked, sectors: Option<Arc<Sectors>>) -> Box<dyn Layer> {
    blocks::layer(Map::new(file, checked, sectors))
}

impl Map {
    /// Of this image.
    pub fn new(file: &File<'_>, checked: &Checked, sectors: Option<Arc<Sectors>>) -> Map {
        let start = file.place(0);
        let root =
            Root::Directory { at: start.ahead(checked.l1_at).at, count: checked.l1_count, entries: checked.l2_count };
        let block_len = power(checked.cluster_bits);
        let grid = Grid { file: start.file, range: 0..checked.size, block_len, root };
        Map { start, grid, cluster_bits: checked.cluster_bits, sectors }
    }

    fn unreadable(&self, at: u64) -> Error {
        Kind::Io.what("Input/output error").file(self.start.file).at(at)
    }
}

impl Blocks<8> for Map {
    fn grid(&self) -> &Grid {
        &self.grid
    }

    fn cipher(&self) -> Option<&Sectors> {
        self.sectors.as_deref()
    }

    fn table(&self, entry: [u8; 8]) -> Result<Option<u64>> {
        match u64::from_be_bytes(entry) {
            0 => Ok(None),
            at if readable(at, 1 << 16) => Ok(Some(self.start.ahead(at).at)),
            at => Err(self.unreadable(at)),
        }
    }

    fn block(&self, number: u64, entry: [u8; 8]) -> Result<Option<Source>> {
        let (word, size) = (u64::from_be_bytes(entry), self.grid.block_len);
        if word == 0 {
            return Ok(None);
        }
        if word & COMPRESSED != 0 {
            // Compressed clusters are not encrypted, whatever the others are.
            let bits = 63u32.saturating_sub(self.cluster_bits);
            let place = self.start.ahead(word & power(bits).saturating_sub(1));
            let len = (word & !COMPRESSED).checked_shr(bits).unwrap_or(0);
            let unit = Unit { codec: Codec::Deflate, place, len, size, whole: false };
            return Ok(Some(Source::Packed { unit, skip: 0 }));
        }
        if !word.is_multiple_of(SECTOR) || !readable(word, size) {
            return Err(self.unreadable(word));
        }
        let tweak = self.sectors.is_some().then(|| number.saturating_mul(size));
        Ok(Some(Source::Raw { place: self.start.ahead(word), tweak, sparse: false }))
    }
}
