//! Parallels disks.

mod census;
mod create;
pub mod disk;
pub mod extension;
mod locate;
pub mod open;
mod reserve;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::vec::Vec;
use instar_image::probe::Claim;
use instar_image::text::uuid;
use instar_image::{
    Census, Content, Fact, File, Format, Image, Layer, Measured, Options, Order, Recipe, Report, Result, Scope, Site,
    Summary, Target, format, info,
};
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

    fn open<'a>(&self, file: File<'a>, options: &Options) -> Result<Box<dyn Image + 'a>> {
        let checked = open::open(&file, options)?;
        let whole_only = options.as_qemu && !options.is_before(open::STRICT);
        Ok(Box::new(ParallelsImage { file, checked, whole_only }))
    }

    fn measure(&self, recipe: &Recipe, content: &Content<'_>) -> Result<Measured> {
        create::measure(recipe, content)
    }

    fn create(&self, recipe: &Recipe, site: &Site<'_>) -> Result<()> {
        create::create(recipe, site)
    }
}

/// An opened Parallels disk.
struct ParallelsImage<'a> {
    file: File<'a>,
    checked: Checked,
    whole_only: bool,
}

impl Image for ParallelsImage<'_> {
    fn describe(&self, extra: bool) -> Result<info::Image> {
        let mut told = format::plain(&self.file, "parallels", self.checked.virtual_size);
        told.dirty = None;
        told.warnings = self.checked.warnings.clone();
        told.limits.request = 512;
        told.extra = extra.then(|| self.extra());
        Ok(told)
    }

    fn layer(&self) -> Result<Box<dyn Layer>> {
        Ok(locate::layer(&self.file, &self.checked, self.whole_only))
    }

    fn target(&self) -> Result<Box<dyn Target>> {
        reserve::target(&self.file, &self.checked, self.whole_only)
    }

    fn census(&self, scope: Scope) -> Option<Box<dyn Census + '_>> {
        Some(Box::new(census::Roll::new(&self.file, &self.checked, scope)))
    }

    fn repair(&self, order: &Order<'_>, report: Report<'_>) -> Result<Summary> {
        census::repair(&self.file, &self.checked, order, report)
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
            ("cluster-size", self.checked.cluster_len().into()),
            ("table-entries", self.checked.table_count.into()),
            ("table-unit", if self.checked.entry_unit == 1 { "sector" } else { "cluster" }.into()),
            ("data-sector", self.checked.data_sector.into()),
            ("bitmaps", bitmaps.into()),
        ])
    }
}
