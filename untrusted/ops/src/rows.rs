//! Rows: what every range of a disk is, as `map` tells it, one after the other.

use alloc::boxed::Box;
use alloc::vec::Vec;
use instar_image::file::Hole;
use instar_image::{Chain, Cursor, FileId, Found, Io, Kind, Layer, Place, Result, Source, Walk};
use instar_wire::op::map::{DATA, PACKED, PRESENT, Row, ZERO};

/// The rows of a range of a chain that is [`shut`].
pub struct Rows<'c> {
    io: &'c dyn Io,
    walk: Walk<'c>,
    /// The run of space that was set aside, of which some has been told already.
    now: Option<(u64, Found)>,
    /// What the file says of it, and how much of that has been told.
    holes: Vec<Hole>,
    next: usize,
}

impl<'c> Rows<'c> {
    /// The rows of `at..end`.
    pub fn new(chain: &'c Chain<'_>, io: &'c dyn Io, at: u64, end: u64) -> Self {
        Rows { io, walk: Walk::new(chain, io, at, end), now: None, holes: Vec::new(), next: 0 }
    }

    /// The next row, and what was found there; nothing at the end.
    pub fn next(&mut self) -> Result<Option<(Row, Found)>> {
        if let Some((len, found)) = self.now.take() {
            return self.sparse(len, found).map(Some);
        }
        let Some((len, found)) = self.walk.peek()? else { return Ok(None) };
        self.walk.advance(len);
        match found.source {
            Source::Raw { tweak: None, sparse: true, .. } => self.sparse(len, found).map(Some),
            _ => Ok(Some((row(len, &found), found))),
        }
    }

    /// A row of space that was set aside: what of it the file does not have reads as zeroes.
    fn sparse(&mut self, len: u64, found: Found) -> Result<(Row, Found)> {
        let Source::Raw { place, .. } = found.source else { return Ok((row(len, &found), found)) };
        if self.next >= self.holes.len() {
            self.holes = self.io.holes(place.file, place.at, len)?;
            self.next = 0;
        }
        let nothing = || Kind::Io.what("nothing is told of a range of a file").file(place.file).at(place.at);
        let hole = self.holes.get(self.next).filter(|hole| hole.len > 0).ok_or_else(nothing)?;
        self.next = self.next.saturating_add(1);
        let here = hole.len.min(len);
        let source = Source::raw(place);
        let told = Found { source, ..found };
        let mut row = row(here, &told);
        row.state |= if hole.is_hole { ZERO } else { 0 };
        let left = len.saturating_sub(here);
        let rest = Source::Raw { place: place.ahead(here), tweak: None, sparse: true };
        self.now = (left > 0).then_some((left, Found { source: rest, ..found }));
        if left == 0 {
            self.next = self.holes.len();
        }
        Ok((row, told))
    }
}

/// What was found, as a row.
fn row(len: u64, found: &Found) -> Row {
    let present = if found.present { PRESENT } else { 0 };
    let row = |flags| Row::new(len, u32::try_from(found.depth).unwrap_or(u32::MAX), present | flags);
    let placed = |flags, place: Place| row(flags).placed(place.file, place.at);
    match found.source {
        Source::Zero { reserved } => reserved.map_or(row(ZERO), |place| placed(ZERO, place)),
        Source::Raw { place, tweak: None, .. } => placed(DATA, place),
        // What is encrypted does not lie anywhere as it is, and neither does what a log has yet to make.
        Source::Raw { .. } | Source::Inline { .. } => row(DATA),
        Source::Hollow { place } => placed(ZERO, place),
        Source::Beyond { place, sparse: false } => placed(DATA, place),
        Source::Beyond { place, sparse: true } => placed(DATA | ZERO, place),
        Source::Packed { .. } => row(DATA | PACKED),
    }
}

/// A chain whose topmost layer that does not tell what is where is the last, and all data.
pub fn shut(mut chain: Chain<'static>) -> Chain<'static> {
    if let Some(depth) = chain.layers.iter().position(|layer| !layer.is_open()) {
        let size = chain.layers.get(depth).map_or(0, |layer| layer.size());
        chain.layers.truncate(depth);
        chain.layers.push(Box::new(Shut { size }));
    }
    chain
}

/// A layer of which it is only known that it has data.
struct Shut {
    size: u64,
}

impl Layer for Shut {
    fn size(&self) -> u64 {
        self.size
    }

    fn cursor<'c>(&'c self, _io: &'c dyn Io) -> Box<dyn Cursor + 'c> {
        Box::new(ShutCursor)
    }
}

struct ShutCursor;

impl Cursor for ShutCursor {
    fn find(&mut self, at: u64, _end: u64) -> Result<(u64, Option<Source>)> {
        Ok((u64::MAX, Some(Source::Inline { place: Place { file: FileId(0), at } })))
    }
}
