//! ISO 9660 file systems, which are recognised so that they are not taken for raw disks.

use alloc::boxed::Box;
use instar_image::probe::Claim;
use instar_image::{File, Format, Image, Kind, Options, Result};

/// The format.
pub struct Iso;

impl Format for Iso {
    fn name(&self) -> &'static str {
        "iso"
    }

    fn probe(&self, _file: &File<'_>) -> Result<Claim> {
        Ok(Claim::No)
    }

    fn open<'a>(&self, file: File<'a>, _options: &Options) -> Result<Box<dyn Image + 'a>> {
        Err(Kind::NotThisFormat.what("Image is not in iso format").file(file.id()))
    }
}
