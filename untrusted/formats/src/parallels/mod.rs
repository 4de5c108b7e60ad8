//! Parallels disks.

pub mod disk;
pub mod extension;
pub mod open;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::vec::Vec;
use instar_image::probe::Claim;
use instar_image::text::uuid;
use instar_image::{Fact, File, Format, Image, Options, Result, format, info};
use open::Checked;

/// The format.
pub struct Parallels;

impl Format for Parallels {
    fn name(&self) -> &'static str {
        "parallels"
    }

    fn probe(&self, file: &File<'_>) -> Result<Claim> {
        Ok(if open::is_ours(&file.read_as(0)?) { Claim::Yes } else { Claim::No })
    }

    fn open<'a>(&self, file: File<'a>, _options: &Options) -> Result<Box<dyn Image + 'a>> {
        let checked = open::open(&file)?;
        Ok(Box::new(ParallelsImage { file, checked }))
    }
}

/// An opened Parallels disk.
struct ParallelsImage<'a> {
    file: File<'a>,
    checked: Checked,
}

impl Image for ParallelsImage<'_> {
    fn describe(&self, extra: bool) -> Result<info::Image> {
        let mut told = format::plain(&self.file, "parallels", self.checked.virtual_size);
        told.dirty = None;
        told.limits.request = 512;
        told.extra = extra.then(|| self.extra());
        Ok(told)
    }
}

impl ParallelsImage<'_> {
    fn extra(&self) -> Fact {
        let bitmaps: Vec<Fact> = self
            .checked
            .bitmaps
            .iter()
            .map(|bitmap| Fact::fields([("id", uuid(&bitmap.id).into()), ("granularity", bitmap.granularity.into())]))
            .collect();
        Fact::fields([
            ("in-use", self.checked.in_use.into()),
            ("cluster-size", u64::from(self.checked.cluster_sectors).saturating_mul(512).into()),
            ("table-entries", self.checked.table_count.into()),
            ("table-unit", if self.checked.entry_unit == 1 { "sector" } else { "cluster" }.into()),
            ("data-sector", self.checked.data_sector.into()),
            ("bitmaps", bitmaps.into()),
        ])
    }
}
