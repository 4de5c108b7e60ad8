//! What every verb has at hand: the way to its files, and the way to tell what it finds.

use instar_formats::{FORMATS, RAW, by_name};
use instar_image::probe::probe;
use instar_image::{File, Format, Granted, Io, Kind, Options, Result};
use instar_wire::op::{Part, Rules};

/// The surroundings of a verb.
pub struct Cx<'a> {
    /// Files.
    pub io: &'a dyn Io,
    /// Takes an encoded event.
    pub emit: &'a dyn Fn(&[u8]) -> Result<()>,
}

impl<'a> Cx<'a> {
    /// A granted file, or the part of it that the user means.
    pub fn file(&self, granted: &Granted, part: Option<Part>) -> Result<File<'a>> {
        let Some(part) = part else { return Ok(File::new(self.io, granted)) };
        // The part is described as a raw image is, and refused as one.
        let options = Options { raw_offset: part.offset, raw_size: part.size, ..Options::default() };
        let size = RAW.open(File::new(self.io, granted), &options)?.describe(false)?.virtual_size;
        let start = part.offset.unwrap_or(0);
        Ok(File::slice(self.io, granted.id, start, size.min(granted.len.saturating_sub(start))))
    }

    /// The format of an image in a file: the one the user named, or the one its bytes show.
    pub fn format_of(&self, granted: &Granted, file: &File<'_>, rules: &Rules) -> Result<&'static dyn Format> {
        match &granted.pinned {
            Some(name) => by_name(&name.0)
                .ok_or_else(|| Kind::Unsupported.what("Unknown driver '{}'").file(granted.id).arg(name.clone())),
            None => {
                let found = probe(file, FORMATS, RAW, rules)?;
                let suggested = granted.suggested.as_ref().and_then(|name| by_name(&name.0));
                // Where qemu-img sees nothing in the bytes, it goes by the name.
                Ok(suggested.filter(|_| rules.as_qemu && found.name() == RAW.name()).unwrap_or(found))
            }
        }
    }
}
