//! Where the bytes of a raw disk are: in its file, but for the holes.

use super::open::Raw;
use alloc::boxed::Box;
use alloc::vec::Vec;
use instar_image::file::Hole;
use instar_image::{Cursor, Io, Layer, Place, Result, Source};

/// Holes are asked for in a range of at most this length first, and in longer ones by who goes on at most so far behind it:
/// there may be very many, and whoever looks here and there need not hear of all.
const FIRST_ASKED: u64 = 64 << 20;
/// Where more are told at once, none are asked for but those that are wanted now: others may go through the rest.
const MANY: usize = 64;

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
        Box::new(RawCursor { layer: self, io, told: Vec::new(), next: 0, until: 0, reach: 0, is_dense: false })
    }
}

struct RawCursor<'c> {
    layer: &'c RawLayer,
    io: &'c dyn Io,
    /// Runs of the file that have been told, the next one last.
    told: Vec<Hole>,
    /// Where the next one begins, and where the last one ends.
    next: u64,
    until: u64,
    /// How far was asked last, and whether many runs were told.
    reach: u64,
    is_dense: bool,
}

impl RawCursor<'_> {
    /// Asks for the runs from `at` on, of which those up to `end` are wanted now.
    fn ask(&mut self, at: u64, end: u64) -> Result<()> {
        let place = self.layer.start.ahead(at);
        let goes_on = self.reach > 0 && at.checked_sub(self.until).is_some_and(|gap| gap <= FIRST_ASKED);
        let left = if goes_on && !self.is_dense { self.layer.have } else { end }.saturating_sub(at);
        self.reach = if goes_on { self.reach.saturating_mul(4) } else { FIRST_ASKED }.min(left);
        self.told = self.io.holes(place.file, place.at, self.reach)?;
        (self.next, self.is_dense) = (at, self.told.len() > MANY);
        self.until = self.told.iter().fold(at, |until, run| until.saturating_add(run.len));
        self.told.reverse();
        Ok(())
    }

    /// The run that this byte lies in, if it has been told: where it ends, and whether it is a hole.
    fn known(&mut self, at: u64) -> Option<(u64, bool)> {
        if at < self.next {
            return None;
        }
        while let Some(run) = self.told.last() {
            let end = self.next.saturating_add(run.len);
            if at < end {
                return Some((end, run.is_hole));
            }
            self.next = end;
            self.told.pop();
        }
        None
    }
}

impl Cursor for RawCursor<'_> {
    fn find(&mut self, at: u64, end: u64) -> Result<(u64, Option<Source>)> {
        let place = self.layer.start.ahead(at);
        let end = end.min(self.layer.have);
        if at >= end {
            return Ok((u64::MAX, Some(Source::Zero { reserved: Some(place) })));
        }
        let known = match self.known(at) {
            None => {
                self.ask(at, end)?;
                self.known(at)
            }
            known => known,
        };
        let (end, is_hole) = known.unwrap_or((end, false));
        let source = if is_hole { Source::Zero { reserved: Some(place) } } else { Source::raw(place) };
        Ok((end.saturating_sub(at), Some(source)))
    }
}
