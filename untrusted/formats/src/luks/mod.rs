//! LUKS containers.

use alloc::boxed::Box;
use instar_image::probe::Claim;
use instar_image::{File, Format, Image, Kind, Options, Result};

/// The format.
pub struct Luks;

impl Format for Luks {
    fn name(&self) -> &'static str {
        "luks"
    }

    fn probe(&self, _file: &File<'_>) -> Result<Claim> {
        Ok(Claim::No)
    }

    fn open<'a>(&self, file: File<'a>, _options: &Options) -> Result<Box<dyn Image + 'a>> {
        Err(Kind::NotThisFormat.what("Image is not in luks format").file(file.id()))
    }
}
