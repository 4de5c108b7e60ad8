//! QEMU copy-on-write images, version 1.

mod create;
pub mod disk;
mod locate;
#[cfg(test)]
mod locate_tests;
pub mod open;
mod reserve;
#[cfg(test)]
mod reserve_tests;
#[cfg(test)]
mod tests;

use crate::luks::unlock::needed;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use instar_codec::cipher::Sectors;
use instar_image::edit::clear;
use instar_image::format::plain;
use instar_image::probe::Claim;
use instar_image::{
    Content, Drive, Edit, Fact, File, Format, Image, Layer, Measured, Options, Recipe, Result, Secret, Site, Target,
    info,
};
use open::Checked;

/// The format.
pub struct Qcow;

impl Format for Qcow {
    fn name(&self) -> &'static str {
        "qcow"
    }

    fn probe(&self, file: &File<'_>) -> Result<Claim> {
        Ok(if open::is_ours(file)? { Claim::Yes } else { Claim::No })
    }

    fn open<'a>(&self, file: File<'a>, options: &Options) -> Result<Box<dyn Image + 'a>> {
        let checked = open::open(&file)?;
        Ok(Box::new(QcowImage { file, checked, key: options.key.clone() }))
    }

    fn measure(&self, recipe: &Recipe, content: &Content<'_>) -> Result<Measured> {
        create::measure(recipe, content)
    }

    fn create(&self, recipe: &Recipe, site: &Site<'_>) -> Result<()> {
        create::create(recipe, site)
    }
}

/// An opened image.
struct QcowImage<'a> {
    file: File<'a>,
    checked: Checked,
    key: Option<Secret>,
}

impl QcowImage<'_> {
    /// What the guest's bytes are read with, if they are encrypted.
    fn sectors(&self) -> Result<Option<Arc<Sectors>>> {
        if !self.checked.encrypted {
            return Ok(None);
        }
        open::aes(needed(self.key.as_ref(), &self.file, "encrypt.key-secret")?).map(Some)
    }
}

/// The layer below, as images of the qcow family tell of it: a name, and perhaps a format.
pub fn backing(name: Option<&Vec<u8>>, format: Option<&[u8]>) -> Option<info::Backing> {
    let format = format.filter(|format| !format.is_empty());
    name.map(|name| info::Backing { name: name.as_slice().into(), format: format.map(Into::into) })
}

/// Whether the image leads to a file below it, which a service must not follow blindly.
pub fn backing_finding(name: Option<&Vec<u8>>) -> info::Finding {
    let names: Vec<Fact> = name.map(|name| name.as_slice().into()).into_iter().collect();
    info::Finding { check: "backing-file".into(), ok: name.is_none(), detail: names.into() }
}

/// How the guest's bytes are encrypted; AES without a header of its own is known to be weak.
pub fn encryption_finding(method: &'static str) -> info::Finding {
    info::Finding { check: "encryption".into(), ok: method != "aes", detail: method.into() }
}

impl Image for QcowImage<'_> {
    fn describe(&self, _extra: bool) -> Result<info::Image> {
        let name = self.checked.backing.as_ref();
        let mut told = info::Image {
            cluster_size: Some(self.checked.cluster_len),
            encrypted: self.checked.encrypted,
            backing: backing(name, None),
            limits: info::Limits { write_zeroes: 0, discard: 0, request: 512 },
            ..plain(&self.file, "qcow", self.checked.size)
        };
        told.findings.push(backing_finding(name));
        if self.checked.encrypted {
            told.findings.push(encryption_finding("aes"));
        }
        Ok(told)
    }

    fn unlock(&self) -> Result<()> {
        self.sectors().map(|_| ())
    }

    fn layer(&self) -> Result<Box<dyn Layer>> {
        Ok(locate::layer(&self.file, &self.checked, self.sectors()?))
    }

    fn target(&self) -> Result<Box<dyn Target>> {
        reserve::target(&self.file, &self.checked, self.sectors()?)
    }

    fn edit(&self) -> Result<Box<dyn Edit + '_>> {
        Ok(Box::new(Emptying { file: &self.file, checked: &self.checked }))
    }
}

/// The one change of an image where it stands: it has nothing of its own any more.
struct Emptying<'i, 'a> {
    file: &'i File<'a>,
    checked: &'i Checked,
}

impl Edit for Emptying<'_, '_> {
    fn empty(&mut self, drive: &dyn Drive) -> Result<()> {
        let table = self.file.place(self.checked.l1_at);
        clear(drive, table, self.checked.l1_count.saturating_mul(8))
    }
}
