//! QEMU copy-on-write images, version 1.

use alloc::boxed::Box;
use instar_image::probe::Claim;
use instar_image::{File, Format, Image, Kind, Options, Result};

/// The format.
pub struct Qcow;

impl Format for Qcow {
    fn name(&self) -> &'static str {
        "qcow"
    }

    fn probe(&self, _file: &File<'_>) -> Result<Claim> {
        Ok(Claim::No)
    }

    fn open<'a>(&self, file: File<'a>, _options: &Options) -> Result<Box<dyn Image + 'a>> {
        Err(Kind::NotThisFormat.what("Image is not in qcow format").file(file.id()))
    }
}
