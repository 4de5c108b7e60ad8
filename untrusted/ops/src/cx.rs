//! What every verb has at hand: the way to its files, and the way to tell what it finds.

use instar_formats::{FORMATS, RAW, by_name};
use instar_image::probe::probe;
use instar_image::{Drive, File, Format, Granted, Io, Kind, Options, Result};
use instar_wire::op::{Part, Rules};

/// The surroundings of a verb.
pub struct Cx<'a> {
    /// Files, to be read in small pieces.
    pub io: &'a dyn Io,
    /// Files, to be read in large pieces and to be written.
    pub drive: &'a dyn Drive,
    /// All lanes.
    pub crew: &'a dyn Crew,
    /// Takes an encoded event.
    pub emit: &'a dyn Fn(&[u8]) -> Result<()>,
}

/// What a lane has at hand while it does its share of a job.
pub struct Hand<'h> {
    /// The lane's number.
    pub lane: usize,
    /// Files.
    pub drive: &'h dyn Drive,
    /// Takes an encoded event.
    pub emit: &'h dyn Fn(&[u8]) -> Result<()>,
}

/// The lanes, which can do a job together.
pub trait Crew {
    /// How many there are.
    fn lanes(&self) -> usize;
    /// Has every lane do the job; when all are done, tells one failure if there were any.
    fn run(&self, job: &(dyn Fn(&Hand<'_>) -> Result<()> + Sync)) -> Result<()>;
}

/// A single lane, for those who have no cell.
pub struct Alone<'a> {
    /// Files.
    pub drive: &'a dyn Drive,
    /// Takes an encoded event.
    pub emit: &'a dyn Fn(&[u8]) -> Result<()>,
}

impl Crew for Alone<'_> {
    fn lanes(&self) -> usize {
        1
    }

    fn run(&self, job: &(dyn Fn(&Hand<'_>) -> Result<()> + Sync)) -> Result<()> {
        job(&Hand { lane: 0, drive: self.drive, emit: self.emit })
    }
}

impl<'a> Cx<'a> {
    /// The same after files have been changed: what was read of them in small pieces is not remembered.
    pub fn afresh(&self) -> Cx<'a> {
        Cx { io: self.drive, drive: self.drive, crew: self.crew, emit: self.emit }
    }

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
