//! Bochs growing disks.

pub mod disk;
mod locate;
pub mod open;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use instar_image::probe::Claim;
use instar_image::{Fact, File, Format, Image, Layer, Options, Result, format, info};
use open::Checked;

/// The format.
pub struct Bochs;

impl Format for Bochs {
    fn name(&self) -> &'static str {
        "bochs"
    }

    fn probe(&self, file: &File<'_>) -> Result<Claim> {
        Ok(if open::is_ours(&file.read_as(0)?) { Claim::Yes } else { Claim::No })
    }

    fn open<'a>(&self, file: File<'a>, _options: &Options) -> Result<Box<dyn Image + 'a>> {
        let checked = open::open(&file)?;
        Ok(Box::new(BochsImage { file, checked }))
    }
}

/// An opened Bochs disk.
struct BochsImage<'a> {
    file: File<'a>,
    checked: Checked,
}

impl Image for BochsImage<'_> {
    fn describe(&self, extra: bool) -> Result<info::Image> {
        let mut told = format::plain(&self.file, "bochs", self.checked.virtual_size);
        told.dirty = None;
        told.limits.request = 512;
        told.extra = extra.then(|| {
            Fact::fields([
                ("extent-size", self.checked.extent_len.into()),
                ("catalog-entries", self.checked.catalog_count.into()),
            ])
        });
        Ok(told)
    }

    fn layer(&self) -> Result<Box<dyn Layer>> {
        Ok(locate::layer(&self.file, &self.checked))
    }
}
