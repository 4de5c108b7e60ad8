//! Where bytes of a QED image may go: into new clusters at the end of its file, which has a mark while they come.

use super::disk::{FEATURES_AT, NEED_CHECK, ZERO_CLUSTER};
use super::locate::Map;
use super::open::Checked;
use alloc::boxed::Box;
use instar_image::blocks::Blocks;
use instar_image::grow::{self, Frame, Grow};
use instar_image::{Drive, File, Kind, Place, Result, Table, Target};

/// The image, open to be written to. `will_stand`: something lies below it when that is done.
pub fn target(file: &File<'_>, checked: &Checked, will_stand: bool) -> Result<Box<dyn Target>> {
    if checked.needs_check {
        sound(file, checked)?;
    }
    let map = Map::new(file, checked);
    let end = file.place(file.len()).at;
    let is_over = checked.backing.is_some() || will_stand;
    Ok(grow::target(Tables { map, is_over, features: checked.features }, end))
}

/// Whoever wrote to the image last did not come to an end. What has been said of clusters that were never written would
/// be said of new ones, so that has to be put in order before.
fn sound(file: &File<'_>, checked: &Checked) -> Result<()> {
    let unsound = || Kind::Corrupt.what("the image was not closed properly, and has to be repaired").file(file.id());
    let entries = u64::from(checked.table_clusters).saturating_mul(checked.cluster_len.into()) / 8;
    let (mut first, mut second) = (Table::<8>::new(file.io(), file.id()), Table::<8>::new(file.io(), file.id()));
    // No more tables than fit into the file, so that none is looked at too often.
    let mut left = file.len() / checked.clusters.table_len().max(1);
    first.each(file.place(checked.l1_at).at, entries, |_, entry| match u64::from_le_bytes(*entry) {
        0 => Ok(()),
        _ if left.checked_sub(1).map(|rest| left = rest).is_none() => Err(unsound()),
        at if !checked.clusters.has_table(at) => Err(unsound()),
        at => second.each(file.place(at).at, entries, |_, entry| match u64::from_le_bytes(*entry) {
            0 | ZERO_CLUSTER => Ok(()),
            at if checked.clusters.has(at) => Ok(()),
            _ => Err(unsound()),
        }),
    })
}

/// The tables, as they are changed.
struct Tables {
    map: Map,
    is_over: bool,
    features: u64,
}

impl Tables {
    fn features(&self, drive: &dyn Drive, features: u64) -> Result<()> {
        drive.write(Place { file: self.map.grid().file, at: FEATURES_AT }, &features.to_le_bytes())
    }
}

impl Blocks<8> for Tables {
    fn grid(&self) -> &instar_image::blocks::Grid {
        self.map.grid()
    }

    fn table(&self, entry: [u8; 8]) -> Result<Option<u64>> {
        self.map.table(entry)
    }

    fn block(&self, number: u64, entry: [u8; 8]) -> Result<Option<instar_image::Source>> {
        self.map.block(number, entry)
    }
}

/// Clusters that hide what is below have their space, although entries could say that they are zeroes: who writes a part of
/// such a cluster with QEMU finds the rest filled with what is below.
impl Grow<8> for Tables {
    fn frame(&self) -> Frame {
        let len = self.map.clusters.len;
        Frame { align: len, base: 0, head: 0, len }
    }

    fn entry(&self, _number: u64, at: u64) -> Result<[u8; 8]> {
        Ok(at.to_le_bytes())
    }

    fn table_len(&self) -> u64 {
        self.map.clusters.table_len()
    }

    fn lead(&self, at: u64) -> [u8; 8] {
        at.to_le_bytes()
    }

    fn is_over(&self) -> bool {
        self.is_over
    }

    fn grown(&mut self, end: u64) {
        self.map.clusters.end = end;
    }

    fn mark(&mut self, drive: &dyn Drive) -> Result<()> {
        self.features(drive, self.features | NEED_CHECK)
    }

    fn finish(&mut self, drive: &dyn Drive, end: u64, _added: u64) -> Result<()> {
        drive.set_length(self.map.grid().file, end)?;
        self.features(drive, self.features & !NEED_CHECK)
    }
}
