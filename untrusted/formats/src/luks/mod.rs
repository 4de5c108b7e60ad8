//! LUKS containers: a disk encrypted under keys that lie in front of it.

pub mod disk;
mod json;
pub mod open;
#[cfg(test)]
mod tests;
pub mod version2;

use crate::raw::open::round_up;
use alloc::boxed::Box;
use alloc::vec;
use disk::{Header1, MAGIC};
use instar_image::format::plain;
use instar_image::probe::Claim;
use instar_image::{Fact, File, Format, Image, Kind, Options, Result, info};
use open::Luks1;
use version2::Luks2;

/// The format: version 1, and where qemu-img's ways are not asked for, version 2.
pub struct Luks;

impl Format for Luks {
    fn name(&self) -> &'static str {
        "luks"
    }

    fn probe(&self, file: &File<'_>) -> Result<Claim> {
        let header: Header1 = file.read_as(0)?;
        Ok(match header.version.get() {
            _ if header.magic != MAGIC => Claim::No,
            1 => Claim::Yes,
            // To qemu-img, such a container is raw.
            2 => Claim::Quiet,
            _ => Claim::No,
        })
    }

    fn open<'a>(&self, file: File<'a>, options: &Options) -> Result<Box<dyn Image + 'a>> {
        if !options.as_qemu && self.probe(&file)? == Claim::Quiet {
            let luks = Luks2::open(&file)?;
            return Ok(Box::new(Container { size: luks.size, inner: Inner::Two(Box::new(luks)), file }));
        }
        let luks = Luks1::open(&file, 0, options.version)?;
        let size = round_up(file.len()).checked_sub(luks.payload_at).ok_or_else(|| {
            Kind::Corrupt.what("Could not refresh total sector count: Input/output error").file(file.id())
        })?;
        Ok(Box::new(Container { size, inner: Inner::One(luks), file }))
    }
}

enum Inner {
    One(Luks1),
    Two(Box<Luks2>),
}

/// An opened container.
struct Container<'a> {
    file: File<'a>,
    size: u64,
    inner: Inner,
}

impl Image for Container<'_> {
    fn describe(&self, extra: bool) -> Result<info::Image> {
        let (specific, hidden) = match &self.inner {
            Inner::One(luks) => (luks.facts(), Some((1u64, luks.key_len))),
            Inner::Two(luks) => (luks.facts(), None),
        };
        let hidden =
            hidden.map(|(version, key_len)| Fact::fields([("version", version.into()), ("key-size", key_len.into())]));
        Ok(info::Image {
            encrypted: true,
            specific: Some(specific),
            limits: info::Limits { write_zeroes: 0, discard: 0, request: 512 },
            extra: hidden.filter(|_| extra),
            findings: vec![info::Finding { check: "encryption".into(), ok: true, detail: "luks".into() }],
            ..plain(&self.file, "luks", self.size)
        })
    }
}
