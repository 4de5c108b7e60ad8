//! ISO 9660 file systems: recognised, and otherwise a raw disk that nobody partitioned.

pub mod open;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use instar_image::format::plain;
use instar_image::probe::Claim;
use instar_image::sector::round_up;
use instar_image::{File, Format, Image, Kind, Options, Result, info};
use open::Iso9660;

/// The format.
pub struct Iso;

impl Format for Iso {
    fn name(&self) -> &'static str {
        "iso"
    }

    fn probe(&self, file: &File<'_>) -> Result<Claim> {
        Ok(if open::is_iso(file)? { Claim::Quiet } else { Claim::No })
    }

    fn open<'a>(&self, file: File<'a>, _options: &Options) -> Result<Box<dyn Image + 'a>> {
        if !open::is_iso(&file)? {
            return Err(Kind::NotThisFormat.what("not an ISO 9660 file system").file(file.id()));
        }
        Ok(Box::new(Iso9660 { file }))
    }
}

impl Image for Iso9660<'_> {
    fn describe(&self, _extra: bool) -> Result<info::Image> {
        Ok(plain(&self.file, "iso", round_up(self.file.len())))
    }
}
