//! Compressed loop images.

pub mod disk;
mod locate;
pub mod open;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use disk::{Header, SCRIPT};
use instar_image::probe::Claim;
use instar_image::{Fact, File, Format, Image, Layer, Options, Result, format, info};
use open::Checked;

/// The format.
pub struct Cloop;

impl Format for Cloop {
    fn name(&self) -> &'static str {
        "cloop"
    }

    fn probe(&self, file: &File<'_>) -> Result<Claim> {
        let header: Header = file.read_as(0)?;
        Ok(if header.preamble.starts_with(SCRIPT) { Claim::Yes } else { Claim::No })
    }

    fn open<'a>(&self, file: File<'a>, _options: &Options) -> Result<Box<dyn Image + 'a>> {
        let checked = open::open(&file)?;
        Ok(Box::new(CloopImage { file, checked }))
    }
}

/// An opened compressed loop image.
struct CloopImage<'a> {
    file: File<'a>,
    checked: Checked,
}

impl Image for CloopImage<'_> {
    fn describe(&self, extra: bool) -> Result<info::Image> {
        let size = u64::from(self.checked.block_len).saturating_mul(self.checked.block_count.into());
        let mut told = format::plain(&self.file, "cloop", size);
        told.dirty = None;
        told.limits.request = 512;
        told.extra = extra.then(|| {
            Fact::fields([("block-size", self.checked.block_len.into()), ("blocks", self.checked.block_count.into())])
        });
        Ok(told)
    }

    fn layer(&self) -> Result<Box<dyn Layer>> {
        Ok(locate::layer(&self.file, &self.checked))
    }
}
