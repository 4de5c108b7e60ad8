//! VirtualBox disks.

mod census;
mod create;
pub mod disk;
mod locate;
pub mod open;
mod reserve;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use disk::{BLOCK_LEN, Header, SIGNATURE};
use instar_image::probe::Claim;
use instar_image::text::guid;
use instar_image::{
    Census, Content, Fact, File, Format, Image, Layer, Measured, Options, Recipe, Result, Scope, Site, Target, format,
    info,
};
use open::Checked;

/// The format.
pub struct Vdi;

impl Format for Vdi {
    fn name(&self) -> &'static str {
        "vdi"
    }

    fn probe(&self, file: &File<'_>) -> Result<Claim> {
        let header: Header = file.read_as(0)?;
        Ok(if header.signature.get() == SIGNATURE { Claim::Yes } else { Claim::No })
    }

    fn open<'a>(&self, file: File<'a>, _options: &Options) -> Result<Box<dyn Image + 'a>> {
        let checked = open::open(&file)?;
        Ok(Box::new(VdiImage { file, checked }))
    }

    fn measure(&self, recipe: &Recipe, content: &Content<'_>) -> Result<Measured> {
        create::measure(recipe, content)
    }

    fn create(&self, recipe: &Recipe, site: &Site<'_>) -> Result<()> {
        create::create(recipe, site)
    }
}

/// An opened VDI.
struct VdiImage<'a> {
    file: File<'a>,
    checked: Checked,
}

impl Image for VdiImage<'_> {
    fn describe(&self, extra: bool) -> Result<info::Image> {
        let mut told = format::plain(&self.file, "vdi", self.checked.virtual_size);
        told.cluster_size = Some(BLOCK_LEN.into());
        told.extra = extra.then(|| {
            Fact::fields([
                ("image-type", type_name(self.checked.image_type).into()),
                ("block-size", BLOCK_LEN.into()),
                ("blocks", self.checked.block_count.into()),
                ("blocks-allocated", self.checked.allocated.into()),
                ("uuid", guid(&self.checked.uuid).into()),
            ])
        });
        Ok(told)
    }

    fn layer(&self) -> Result<Box<dyn Layer>> {
        Ok(locate::layer(self.file.id(), &self.checked))
    }

    fn target(&self) -> Result<Box<dyn Target>> {
        reserve::target(&self.file, &self.checked)
    }

    fn census(&self, scope: Scope) -> Option<Box<dyn Census + '_>> {
        Some(Box::new(census::Roll { file: &self.file, checked: &self.checked, scope }))
    }
}

fn type_name(image_type: u32) -> &'static str {
    match image_type {
        1 => "dynamic",
        2 => "static",
        3 => "undo",
        4 => "differencing",
        _ => "unknown",
    }
}
