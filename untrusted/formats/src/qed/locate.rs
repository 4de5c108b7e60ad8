//! Where the bytes of a QED image are: in clusters, as two levels of tables say.

use super::disk::ZERO_CLUSTER;
use super::open::{Checked, Clusters};
use alloc::boxed::Box;
use instar_image::blocks::{self, Blocks, Grid, Root};
use instar_image::{File, Kind, Layer, Place, Result, Source};

/// The clusters of a QED image.
pub struct Map {
    grid: Grid,
    /// Which offsets of the file are clusters.
    pub clusters: Clusters,
}

/// The image's map.
pub fn layer(file: &File<'_>, checked: &Checked) -> Box<dyn Layer> {
    blocks::layer(Map::new(file, checked))
}

impl Map {
    /// Of this image.
    pub fn new(file: &File<'_>, checked: &Checked) -> Map {
        let entries = u64::from(checked.table_clusters).saturating_mul(checked.cluster_len.into()) / 8;
        let grid = Grid {
            file: file.id(),
            range: 0..checked.size,
            block_len: checked.clusters.len,
            root: Root::Directory { at: checked.l1_at, count: entries, entries },
        };
        Map { grid, clusters: checked.clusters }
    }
}

impl Blocks<8> for Map {
    fn grid(&self) -> &Grid {
        &self.grid
    }

    fn table(&self, entry: [u8; 8]) -> Result<Option<u64>> {
        match u64::from_le_bytes(entry) {
            0 => Ok(None),
            at if self.clusters.has_table(at) => Ok(Some(at)),
            at => Err(Kind::Corrupt.what("a table lies where no table can be").file(self.grid.file).at(at)),
        }
    }

    fn block(&self, _number: u64, entry: [u8; 8]) -> Result<Option<Source>> {
        match u64::from_le_bytes(entry) {
            0 => Ok(None),
            ZERO_CLUSTER => Ok(Some(Source::ZERO)),
            at if self.clusters.has(at) => Ok(Some(Source::raw(Place { file: self.grid.file, at }))),
            at => Err(Kind::Corrupt.what("a cluster lies where no cluster can be").file(self.grid.file).at(at)),
        }
    }
}
