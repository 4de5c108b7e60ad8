//! A layer: one image's answer to "where are these bytes?".

use crate::batch::Batch;
use crate::file::Io;
use crate::source::{Place, Source};
use alloc::boxed::Box;
use instar_codec::cipher::Sectors;
use instar_wire::error::{Kind, Result};

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

    /// Whether `map` may tell what is where; of some formats qemu-img only says that there are data.
    fn is_open(&self) -> bool {
        true
    }
}

/// A walker over one layer.
pub trait Cursor {
    /// What lies at `at`, below `end`, and for how many bytes; nothing means "ask the layer below".
    fn find(&mut self, at: u64, end: u64) -> Result<(u64, Option<Source>)>;

    /// Adds at least one run from `out.at()` on; goes on until `out.is_done()`.
    fn fill(&mut self, out: &mut Batch<Option<Source>>) -> Result<()> {
        while !out.is_done() {
            let (len, what) = self.find(out.at(), out.end())?;
            out.push(len, what)?;
        }
        Ok(())
    }
}
