//! Hyper-V disks.

pub mod crc32c;
pub mod disk;
pub mod log;
pub mod metadata;
pub mod open;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::vec::Vec;
use disk::IDENTIFIER;
use instar_image::probe::Claim;
use instar_image::text::guid;
use instar_image::{Fact, File, Format, Image, Kind, Options, Result, format, info};
use log::State;
use open::Checked;

/// The format.
pub struct Vhdx;

impl Format for Vhdx {
    fn name(&self) -> &'static str {
        "vhdx"
    }

    fn probe(&self, file: &File<'_>) -> Result<Claim> {
        Ok(if &file.read_as::<[u8; 8]>(0)? == IDENTIFIER { Claim::Yes } else { Claim::No })
    }

    fn open<'a>(&self, file: File<'a>, options: &Options) -> Result<Box<dyn Image + 'a>> {
        let checked = open::open(&file)?;
        if options.as_qemu && checked.metadata.parent.is_some() {
            let refused = Kind::Unsupported.what("Could not open '{file}': Operation not supported");
            return Err(refused.file(file.id()));
        }
        Ok(Box::new(VhdxImage { file, checked }))
    }
}

/// An opened VHDX.
struct VhdxImage<'a> {
    file: File<'a>,
    checked: Checked,
}

impl Image for VhdxImage<'_> {
    fn describe(&self, extra: bool) -> Result<info::Image> {
        let mut told = format::plain(&self.file, "vhdx", self.checked.virtual_size);
        told.cluster_size = Some(self.checked.metadata.block_len.into());
        told.limits.request = 512;
        let parent = self.parent();
        told.findings.push(info::Finding {
            check: "parent".into(),
            ok: parent.is_none(),
            detail: Fact::List(parent.into_iter().collect()),
        });
        told.extra = extra.then(|| self.extra());
        Ok(told)
    }
}

impl VhdxImage<'_> {
    fn parent(&self) -> Option<Fact> {
        let pairs = self.checked.metadata.parent.as_ref()?;
        let told = pairs
            .iter()
            .map(|(key, value)| Fact::fields([("key", key.as_slice().into()), ("value", value.as_slice().into())]));
        Some(told.collect::<Vec<_>>().into())
    }

    fn extra(&self) -> Fact {
        let (header, metadata) = (&self.checked.header, &self.checked.metadata);
        let log = match self.checked.log {
            State::Empty => "empty",
            State::Clean => "clean",
            State::Dirty => "dirty",
        };
        let mut told = Fact::fields([
            ("log", log.into()),
            ("log-guid", guid(&header.log_guid).into()),
            ("log-size", header.log_length.get().into()),
            ("sequence-number", header.sequence_number.get().into()),
            ("file-write-guid", guid(&header.file_write_guid).into()),
            ("data-write-guid", guid(&header.data_write_guid).into()),
            ("disk-id", guid(&metadata.disk_id).into()),
            ("block-size", metadata.block_len.into()),
            ("logical-sector-size", metadata.logical_sector.into()),
            ("physical-sector-size", metadata.physical_sector.into()),
            ("fixed", metadata.leave_allocated.into()),
        ]);
        if let Some(parent) = self.parent() {
            told.add("parent", parent);
        }
        told
    }
}
