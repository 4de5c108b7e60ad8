//! Where the bytes of a raw disk are: in its file, but for the holes.

use super::open::Raw;
use alloc::boxed::Box;
use alloc::vec::Vec;
use instar_image::file::Hole;
use instar_image::{Cursor, Io, Layer, Place, Result, Source};

/// Holes are asked for in a range of this length first, and in longer ones by who goes on behind it: there may be very many,
/// and whoever looks here and there need not hear of all.
const FIRST_ASKED: u64 = 64 << 20;

/// The map of a raw disk.
struct RawLayer {
    start: Place,
    /// Bytes that the file has of it.
    have: u64,
    size: u64,
}

/// The disk's map.
pub fn layer(raw: &Raw<'_>) -> Box<dyn Layer> {
    Box::new(RawLayer { start: raw.file.place(0), have: raw.file.len(), size: raw.size })
}

impl Layer for RawLayer {
    fn size(&self) -> u64 {
        self.size
    }

    fn cursor<'c>(&'c self, io: &'c dyn Io) -> Box<dyn Cursor + 'c> {
        Box::new(RawCursor { layer: self, io, told: Vec::new(), next: 0, reach: 0 })
    }
}

struct RawCursor<'c> {
    layer: &'c RawLayer,
    io: &'c dyn Io,
    /// Runs of the file that have been told, the next one last.
    told: Vec<Hole>,
    /// Where the next one begins.
    next: u64,
    /// How far was asked last.
    reach: u64,
}

impl RawCursor<'_> {
    fn ask(&mut self, at: u64, end: u64) -> Result<()> {
        let place = self.layer.start.ahead(at);
        self.reach = if self.next == at { self.reach.saturating_mul(4).max(FIRST_ASKED) } else { FIRST_ASKED };
        self.told = self.io.holes(place.file, place.at, end.saturating_sub(at).min(self.reach))?;
        self.told.reverse();
        self.next = at;
        Ok(())
    }
}

impl Cursor for RawCursor<'_> {
    fn find(&mut self, at: u64, end: u64) -> Result<(u64, Option<Source>)> {
        let place = self.layer.start.ahead(at);
        let end = end.min(self.layer.have);
        if at >= end {
            return Ok((u64::MAX, Some(Source::Zero { reserved: Some(place) })));
        }
        if self.next != at || self.told.is_empty() {
            self.ask(at, end)?;
        }
        let run = self.told.pop().unwrap_or(Hole { len: end.saturating_sub(at), is_hole: false });
        self.next = at.saturating_add(run.len);
        let source = if run.is_hole { Source::Zero { reserved: Some(place) } } else { Source::raw(place) };
        Ok((run.len, Some(source)))
    }
}
