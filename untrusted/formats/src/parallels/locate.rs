//! Where the bytes of a Parallels disk are: in clusters, as its table says.

use super::disk::Header;
use super::open::Checked;
use alloc::boxed::Box;
use core::mem::size_of;
use core::ops::Range;
use instar_image::blocks::{self, Blocks, Grid, Root};
use instar_image::sector::{SECTOR, round_up};
use instar_image::{File, Layer, Place, Result, Source};

/// The clusters of a Parallels disk.
pub struct Map {
    /// How they are numbered.
    pub grid: Grid,
    /// Bytes that one unit of an entry stands for.
    pub unit: u64,
    /// Where clusters have to lie, if it matters.
    within: Option<Range<u64>>,
}

/// The disk's map. `whole_only`: a cluster that does not lie wholly between the table and the end of the file is none.
pub fn layer(file: &File<'_>, checked: &Checked, whole_only: bool) -> Box<dyn Layer> {
    blocks::layer(map(file, checked, whole_only))
}

/// The same, for those who write.
pub fn map(file: &File<'_>, checked: &Checked, whole_only: bool) -> Map {
    let table_at = size_of::<Header>() as u64;
    let count = u64::from(checked.table_count);
    let within = checked.data_at(file.len()).0..round_up(file.len());
    Map {
        grid: Grid {
            file: file.id(),
            range: 0..checked.virtual_size,
            block_len: checked.cluster_len(),
            root: Root::Table { at: table_at, count },
        },
        unit: u64::from(checked.entry_unit).saturating_mul(SECTOR),
        within: whole_only.then_some(within),
    }
}

impl Blocks<4> for Map {
    fn grid(&self) -> &Grid {
        &self.grid
    }

    fn block(&self, _number: u64, entry: [u8; 4]) -> Result<Option<Source>> {
        let at = u64::from(u32::from_le_bytes(entry)).saturating_mul(self.unit);
        let misses = |within: &Range<u64>| at < within.start || at.saturating_add(self.grid.block_len) > within.end;
        let absent = at == 0 || self.within.as_ref().is_some_and(misses);
        Ok(if absent { None } else { Some(Source::raw(Place { file: self.grid.file, at })) })
    }
}
