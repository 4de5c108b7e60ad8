//! A layer: one image's answer to "where are these bytes?".

use crate::batch::Batch;
use crate::file::Io;
use crate::source::{Place, Source, Unit};
use alloc::boxed::Box;
use instar_codec::cipher::Sectors;
use instar_wire::error::{Error, Kind, Result};

/// An image's map. It never changes; what a walk over it has to remember is in its cursor.
pub trait Layer: Sync {
    /// Size of the disk in bytes.
    fn size(&self) -> u64;

    /// A walker with its own way to the files and its own memory; one for each lane.
    fn cursor<'c>(&'c self, io: &'c dyn Io) -> Box<dyn Cursor + 'c>;

    /// What decrypts the bytes of sources that have a tweak.
    fn cipher(&self) -> Option<&Sectors> {
        None
    }

    /// Fills `buf` with what lies at `place` once the log has been replayed; only for sources that say so.
    fn inline(&self, io: &dyn Io, place: Place, buf: &mut [u8]) -> Result<()> {
        let _ = (io, buf);
        Err(Kind::Corrupt.what("there is no log to be replayed").file(place.file).at(place.at))
    }

    /// The unit with its true length, where that stands in front of the bytes themselves: asked before they are read.
    fn measured(&self, io: &dyn Io, unit: Unit) -> Result<Unit> {
        let _ = io;
        Ok(unit)
    }

    /// Whether bytes of the layers below may be read through this one; why not.
    fn through(&self) -> Result<()> {
        Ok(())
    }

    /// Whether `map` may tell what is where; of some formats qemu-img only says that there are data.
    fn is_open(&self) -> bool {
        true
    }

    /// How many bytes from `at` on qemu-img tells of at once at most, even if they all are of one kind.
    fn reach(&self, at: u64) -> u64 {
        let _ = at;
        u64::MAX
    }
}

/// A walker over one layer.
pub trait Cursor {
    /// What lies at `at`, below `end`, and for how many bytes; nothing means "ask the layer below".
    fn find(&mut self, at: u64, end: u64) -> Result<(u64, Option<Source>)>;

    /// Adds at least one run from `out.at()` on; goes on until `out.is_done()`, or to where an error waits.
    fn fill(&mut self, out: &mut Batch<Option<Source>>) -> Result<()> {
        let from = out.at();
        while !out.is_done() {
            let found = self.find(out.at(), out.end());
            let told = found.and_then(|(len, what)| out.push(len, what));
            if told.is_err() {
                return out.kept(from, told);
            }
        }
        Ok(())
    }
}

/// A layer that was made on another one than lies below it. What is where can be told, but bytes from below are wrong.
pub struct Estranged {
    /// The layer.
    pub layer: Box<dyn Layer>,
    /// What is wrong with the one below.
    pub error: Error,
}

impl Layer for Estranged {
    fn size(&self) -> u64 {
        self.layer.size()
    }

    fn cursor<'c>(&'c self, io: &'c dyn Io) -> Box<dyn Cursor + 'c> {
        self.layer.cursor(io)
    }

    fn cipher(&self) -> Option<&Sectors> {
        self.layer.cipher()
    }

    fn inline(&self, io: &dyn Io, place: Place, buf: &mut [u8]) -> Result<()> {
        self.layer.inline(io, place, buf)
    }

    fn measured(&self, io: &dyn Io, unit: Unit) -> Result<Unit> {
        self.layer.measured(io, unit)
    }

    fn through(&self) -> Result<()> {
        Err(self.error.clone())
    }

    fn is_open(&self) -> bool {
        self.layer.is_open()
    }

    fn reach(&self, at: u64) -> u64 {
        self.layer.reach(at)
    }
}
