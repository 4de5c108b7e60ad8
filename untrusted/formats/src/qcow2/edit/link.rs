//! What an image stands on, and what it has of its own.

use super::super::disk::{DATA_FILE_RAW, EXT_BACKING_FORMAT};
use super::super::front::Front;
use super::Editor;
use super::work::Work;
use crate::qcow::open::BACKING_NAME_MAX;
use instar_image::edit::Footing;
use instar_image::num::wide;
use instar_image::{Drive, Freed, Kind, Result};

impl Editor<'_, '_> {
    /// It stands on another image from now on, or on none.
    pub(super) fn stand_on(&self, drive: &dyn Drive, footing: &Footing<'_>) -> Result<()> {
        let Footing { name, format, .. } = *footing;
        if wide(name.len()) > BACKING_NAME_MAX {
            return Err(Kind::TooBig.what("Backing file name too long").file(self.image.file.id()));
        }
        let layout = &self.image.checked.layout;
        // A data file that is the disk as it is has nothing below it.
        if layout.autoclear & DATA_FILE_RAW != 0 && !name.is_empty() {
            return Err(Kind::Unsupported.what("Invalid argument").file(self.image.file.id()));
        }
        let mut front = Front::read(&self.image.file, layout)?;
        front.set_name(name);
        front.set(EXT_BACKING_FORMAT, format.filter(|_| !name.is_empty()));
        front.publish(drive)
    }

    /// It has nothing of its own any more.
    pub(super) fn empty(&self, drive: &dyn Drive) -> Result<()> {
        let layout = &self.image.checked.layout;
        let mut work = Work::new(self.image, drive, Freed::Snapshot)?;
        let mut own = work.l1(layout.l1)?;
        work.fell(&own)?;
        work.drop_table(layout.l1.at, layout.l1.count.saturating_mul(8))?;
        own.fill(0);
        let l1 = work.add_l1(&own)?;
        work.set_l1(l1);
        work.publish_and_cut()
    }
}
