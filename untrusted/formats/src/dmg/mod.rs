//! Apple disk images.

use alloc::boxed::Box;
use instar_image::probe::Claim;
use instar_image::{File, Format, Image, Kind, Options, Result};

/// The format.
pub struct Dmg;

impl Format for Dmg {
    fn name(&self) -> &'static str {
        "dmg"
    }

    fn probe(&self, _file: &File<'_>) -> Result<Claim> {
        Ok(Claim::No)
    }

    fn open<'a>(&self, file: File<'a>, _options: &Options) -> Result<Box<dyn Image + 'a>> {
        Err(Kind::NotThisFormat.what("Image is not in dmg format").file(file.id()))
    }
}
