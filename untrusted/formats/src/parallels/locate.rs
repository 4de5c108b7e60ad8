//! Where the bytes of a Parallels disk are: in clusters, as its table says.

use super::disk::Header;
use super::open::Checked;
use alloc::boxed::Box;
use core::mem::size_of;
use core::ops::Range;
use instar_image::blocks::{self, Blocks, Root};
use instar_image::sector::{SECTOR, round_up};
use instar_image::{File, FileId, Layer, Place, Result, Source};

/// The clusters of a Parallels disk.
struct Map {
    file: FileId,
    size: u64,
    cluster_len: u64,
    root: Root,
    /// Bytes that one unit of an entry stands for.
    unit: u64,
    /// Where clusters have to lie, if it matters.
    within: Option<Range<u64>>,
}

/// The disk's map. `whole_only`: a cluster that does not lie wholly between the table and the end of the file is none.
pub fn layer(file: &File<'_>, checked: &Checked, whole_only: bool) -> Box<dyn Layer> {
    let sectors = |count: u32| u64::from(count).saturating_mul(SECTOR);
    let table_at = size_of::<Header>() as u64;
    let count = u64::from(checked.table_count);
    let end = round_up(file.len());
    let after_table = round_up(count.saturating_mul(4).saturating_add(table_at));
    let said = sectors(checked.data_sector);
    let start = if (after_table..=end).contains(&said) { said } else { after_table };
    blocks::layer(Map {
        file: file.id(),
        size: checked.virtual_size,
        cluster_len: sectors(checked.cluster_sectors),
        root: Root::Table { at: table_at, count },
        unit: sectors(checked.entry_unit),
        within: whole_only.then_some(start..end),
    })
}

impl Blocks<4> for Map {
    fn range(&self) -> Range<u64> {
        0..self.size
    }

    fn file(&self) -> FileId {
        self.file
    }

    fn block_len(&self) -> u64 {
        self.cluster_len
    }

    fn root(&self) -> Root {
        self.root
    }

    fn block(&self, _number: u64, entry: [u8; 4]) -> Result<Option<Source>> {
        let at = u64::from(u32::from_le_bytes(entry)).saturating_mul(self.unit);
        let misses = |within: &Range<u64>| at < within.start || at.saturating_add(self.cluster_len) > within.end;
        let absent = at == 0 || self.within.as_ref().is_some_and(misses);
        Ok(if absent { None } else { Some(Source::raw(Place { file: self.file, at })) })
    }
}
