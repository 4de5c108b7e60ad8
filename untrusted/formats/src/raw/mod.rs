//! Raw disks: a file whose bytes are the guest's.

mod create;
mod disk;
mod edit;
mod locate;
pub mod open;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::vec;
use instar_image::format::plain;
use instar_image::probe::Claim;
use instar_image::row::Row;
use instar_image::{
    Content, Edit, File, Format, Image, Layer, Measured, Options, Recipe, Result, Site, Target, info, straight,
};
use open::{Table, partitions};

/// The format.
pub struct Raw;

impl Format for Raw {
    fn name(&self) -> &'static str {
        "raw"
    }

    /// A partition table is the only mark a raw disk can carry.
    fn probe(&self, file: &File<'_>) -> Result<Claim> {
        Ok(if partitions(file)?.is_some() { Claim::Yes } else { Claim::No })
    }

    fn open<'a>(&self, file: File<'a>, options: &Options) -> Result<Box<dyn Image + 'a>> {
        Ok(Box::new(open::Raw::open(file, options)?))
    }

    fn measure(&self, recipe: &Recipe, content: &Content<'_>) -> Result<Measured> {
        create::measure(recipe, content)
    }

    fn create(&self, recipe: &Recipe, site: &Site<'_>) -> Result<()> {
        create::create(recipe, site)
    }
}

impl Image for open::Raw<'_> {
    fn describe(&self, _extra: bool) -> Result<info::Image> {
        let table = partitions(&self.file)?;
        Ok(info::Image {
            findings: vec![info::Finding {
                check: "partition-rule".into(),
                ok: table.is_some(),
                detail: table.map_or("none", Table::name).into(),
            }],
            ..plain(&self.file, "raw", self.size)
        })
    }

    fn layer(&self) -> Result<Box<dyn Layer>> {
        Ok(locate::layer(self))
    }

    fn target(&self) -> Result<Box<dyn Target>> {
        Ok(straight::target(Row { start: self.file.place(0), range: 0..self.size }))
    }

    fn edit(&self) -> Result<Box<dyn Edit + '_>> {
        Ok(Box::new(edit::Change(self)))
    }
}
