//! Apple disk images.

pub mod disk;
mod locate;
pub mod open;
pub mod tables;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use disk::Trailer;
use instar_image::probe::Claim;
use instar_image::{Fact, File, Format, Image, Layer, Options, Result, format, info};
use open::{Checked, KINDS, Tables};

/// The format.
pub struct Dmg;

impl Format for Dmg {
    fn name(&self) -> &'static str {
        "dmg"
    }

    /// qemu-img goes by the end of the file's name, which a cell does not know.
    fn probe(&self, file: &File<'_>) -> Result<Claim> {
        let Some(at) = open::find_trailer(file)? else { return Ok(Claim::No) };
        let trailer: Trailer = file.read_as(at)?;
        Ok(if trailer.header_size.get() == 512 { Claim::Quiet } else { Claim::No })
    }

    fn open<'a>(&self, file: File<'a>, _options: &Options) -> Result<Box<dyn Image + 'a>> {
        let checked = open::open(&file)?;
        Ok(Box::new(DmgImage { file, checked }))
    }
}

/// An opened Apple disk image.
struct DmgImage<'a> {
    file: File<'a>,
    checked: Checked,
}

impl Image for DmgImage<'_> {
    fn describe(&self, extra: bool) -> Result<info::Image> {
        let mut told = format::plain(&self.file, "dmg", self.checked.virtual_size);
        told.dirty = None;
        told.limits.request = 512;
        let census = &self.checked.census;
        told.warnings = census.unknown.iter().map(|what| open::unknown_kind(*what).file(self.file.id())).collect();
        told.extra = extra.then(|| {
            let mut chunks = Fact::fields([]);
            for ((_, name), count) in KINDS.iter().zip(census.known).filter(|(_, count)| *count > 0) {
                chunks.add(name, count);
            }
            let place = match self.checked.tables {
                Tables::Resources { .. } => "resource-fork",
                Tables::PropertyList { .. } => "property-list",
            };
            Fact::fields([("tables", place.into()), ("data-offset", self.checked.data_at.into()), ("chunks", chunks)])
        });
        Ok(told)
    }

    fn layer(&self) -> Result<Box<dyn Layer>> {
        locate::layer(&self.file, &self.checked)
    }
}
