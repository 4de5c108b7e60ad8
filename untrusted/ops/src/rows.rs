//! Rows: what every range of a disk is, as `map` tells it, one after the other.

use alloc::boxed::Box;
use alloc::vec::Vec;
use instar_image::holes::Holes;
use instar_image::source::Piece;
use instar_image::{Chain, Cursor, FileId, Found, Io, Layer, Place, Result, Source, Walk};
use instar_wire::op::map::{DATA, PACKED, PRESENT, Row, ZERO};

/// The rows of a range of a chain that is [`shut`].
pub struct Rows<'c> {
    walk: Walk<'c>,
    known: Holes<'c>,
    /// The run of space that was set aside, of which some has been told already.
    now: Option<(u64, Found)>,
}

impl<'c> Rows<'c> {
    /// The rows of `at..end`.
    pub fn new(chain: &'c Chain<'_>, io: &'c dyn Io, at: u64, end: u64) -> Self {
        Rows { walk: Walk::new(chain, io, at, end), known: Holes::new(io), now: None }
    }

    /// The next row, and what was found there; nothing at the end.
    pub fn next_row(&mut self) -> Result<Option<(Row, Found)>> {
        if let Some((len, found)) = self.now.take() {
            return self.tell(len, found);
        }
        let Some((len, found)) = self.walk.peek()? else { return Ok(None) };
        self.walk.advance(len);
        self.tell(len, found)
    }

    /// A row of space that was set aside: what of it the file does not have reads as zeroes.
    fn tell(&mut self, len: u64, found: Found) -> Result<Option<(Row, Found)>> {
        let Source::Raw { place, tweak: None, sparse: true } = found.source else {
            return Ok(Some((row(len, &found), found)));
        };
        let (run, is_hole) = self.known.run(place)?;
        let left = len.saturating_sub(run);
        self.now = (left > 0).then(|| (left, found.cut(run)));
        let found = Found { source: Source::raw(place), ..found };
        let mut row = row(run.min(len), &found);
        row.state |= if is_hole { ZERO } else { 0 };
        Ok(Some((row, found)))
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

/// The same for a chain that others go on to read from: what may be asked where, and not what is there.
pub fn told<'a>(chain: &'a Chain<'_>) -> Chain<'a> {
    let open = chain.layers.iter().take_while(|layer| layer.is_open());
    let mut layers: Vec<Box<dyn Layer + 'a>> = open.map(|layer| Box::new(Lent(&**layer)) as Box<dyn Layer>).collect();
    layers.extend(chain.layers.get(layers.len()).map(|layer| Box::new(Shut { size: layer.size() }) as Box<dyn Layer>));
    Chain { layers }
}

/// Another chain's layer.
struct Lent<'a>(&'a dyn Layer);

impl Layer for Lent<'_> {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn cursor<'c>(&'c self, io: &'c dyn Io) -> Box<dyn Cursor + 'c> {
        self.0.cursor(io)
    }
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
