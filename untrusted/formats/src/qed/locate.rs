//! Where the bytes of a QED image are: in clusters, as two levels of tables say.

use super::disk::ZERO_CLUSTER;
use super::open::{Checked, Clusters};
use alloc::boxed::Box;
use core::ops::Range;
use instar_image::blocks::{self, Blocks, Root};
use instar_image::{File, FileId, Kind, Layer, Place, Result, Source};

/// The clusters of a QED image.
struct Map {
    file: FileId,
    size: u64,
    root: Root,
    clusters: Clusters,
}

/// The image's map.
pub fn layer(file: &File<'_>, checked: &Checked) -> Box<dyn Layer> {
    let entries = u64::from(checked.table_clusters).saturating_mul(checked.cluster_len.into()) / 8;
    blocks::layer(Map {
        file: file.id(),
        size: checked.size,
        root: Root::Directory { at: checked.l1_at, count: entries, entries },
        clusters: checked.clusters,
    })
}

impl Blocks<8> for Map {
    fn range(&self) -> Range<u64> {
        0..self.size
    }

    fn file(&self) -> FileId {
        self.file
    }

    fn block_len(&self) -> u64 {
        self.clusters.len
    }

    fn root(&self) -> Root {
        self.root
    }

    fn table(&self, entry: [u8; 8]) -> Result<Option<u64>> {
        match u64::from_le_bytes(entry) {
            0 => Ok(None),
            at if self.clusters.has_table(at) => Ok(Some(at)),
            at => Err(Kind::Corrupt.what("a table lies where no table can be").file(self.file).at(at)),
        }
    }

    fn block(&self, _number: u64, entry: [u8; 8]) -> Result<Option<Source>> {
        match u64::from_le_bytes(entry) {
            0 => Ok(None),
            ZERO_CLUSTER => Ok(Some(Source::ZERO)),
            at if self.clusters.has(at) => Ok(Some(Source::raw(Place { file: self.file, at }))),
            at => Err(Kind::Corrupt.what("a cluster lies where no cluster can be").file(self.file).at(at)),
        }
    }
}
