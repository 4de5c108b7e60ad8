//! Raw disks: the bytes of the file are the bytes of the disk.

use alloc::boxed::Box;
use instar_image::probe::Claim;
use instar_image::{File, Format, Image, Kind, Options, Result};

/// The format.
pub struct Raw;

impl Format for Raw {
    fn name(&self) -> &'static str {
        "raw"
    }

    fn probe(&self, _file: &File<'_>) -> Result<Claim> {
        Ok(Claim::No)
    }

    fn open<'a>(&self, file: File<'a>, _options: &Options) -> Result<Box<dyn Image + 'a>> {
        Err(Kind::NotThisFormat.what("Image is not in raw format").file(file.id()))
    }
}
