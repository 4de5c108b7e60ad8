//! What every verb has at hand: the way to its files, and the way to tell what it finds.

use alloc::boxed::Box;
use instar_formats::{FORMATS, RAW, by_name};
use instar_image::probe::probe;
use instar_image::{File, Format, Granted, Image, Io, Kind, Options, Result};
use instar_wire::op::Rules;

/// The surroundings of a verb.
pub struct Cx<'a> {
    /// Files.
    pub io: &'a dyn Io,
    /// Takes an encoded event.
    pub emit: &'a dyn Fn(&[u8]) -> Result<()>,
}

impl<'a> Cx<'a> {
    /// The format of a granted file: the one the user named, or the one its bytes show.
    pub fn format_of(&self, granted: &Granted, rules: &Rules) -> Result<&'static dyn Format> {
        match &granted.pinned {
            Some(name) => {
                by_name(&name.0).ok_or_else(|| Kind::Unsupported.what("Unknown driver '{}'").arg(name.clone()))
            }
            None => probe(&File::new(self.io, granted), FORMATS, RAW, rules),
        }
    }

    /// Opens a granted file as that format.
    pub fn open(&self, format: &dyn Format, granted: &Granted, options: &Options) -> Result<Box<dyn Image + 'a>> {
        format.open(File::new(self.io, granted), options)
    }
}
