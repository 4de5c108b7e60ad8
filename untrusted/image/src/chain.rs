//! A chain of layers, top first: what the upper one does not have, the next one is asked for.

use crate::batch::Batch;
use crate::file::Io;
use crate::layer::{Cursor, Layer};
use crate::source::{Piece, Place, Source};
use alloc::boxed::Box;
use alloc::vec::Vec;
use instar_wire::error::Result;

/// Runs asked of one layer at once.
const ASK: usize = 256;

/// Layers, top first.
pub struct Chain<'a> {
    /// The layers.
    pub layers: Vec<Box<dyn Layer + 'a>>,
}

/// A source, and where in the chain it was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// The layer's number, 0 on top.
    pub depth: usize,
    /// Whether any layer has it; if none does it is zeroes.
    pub present: bool,
    /// Where the bytes come from.
    pub source: Source,
}

impl Piece for Found {
    fn joins(&self, len: u64, next: &Self) -> bool {
        (self.depth, self.present) == (next.depth, next.present) && self.source.joins(len, &next.source)
    }

    fn cut(self, n: u64) -> Self {
        Found { source: self.source.cut(n), ..self }
    }
}

impl<'a> Chain<'a> {
    /// One layer.
    pub fn single(layer: Box<dyn Layer + 'a>) -> Chain<'a> {
        Chain { layers: Vec::from([layer]) }
    }

    /// Size of the disk: the top layer's.
    pub fn size(&self) -> u64 {
        self.layers.first().map_or(0, |layer| layer.size())
    }

    /// A walker over all layers.
    pub fn cursor<'c>(&'c self, io: &'c dyn Io) -> ChainCursor<'c> {
        let layers = self.layers.iter().map(|layer| &**layer);
        let levels = layers.map(|layer| Level { size: layer.size(), cursor: layer.cursor(io), batch: Batch::new(ASK) });
        ChainCursor { io, levels: levels.collect() }
    }
}

struct Level<'c> {
    size: u64,
    cursor: Box<dyn Cursor + 'c>,
    batch: Batch<Option<Source>>,
}

/// A walker over a chain.
pub struct ChainCursor<'c> {
    io: &'c dyn Io,
    levels: Vec<Level<'c>>,
}

impl ChainCursor<'_> {
    /// Adds runs from `out.at()` on until it is done, or to where an error waits.
    pub fn fill(&mut self, out: &mut Batch<Found>) -> Result<()> {
        let (from, end) = (out.at(), out.end());
        let told = ask(self.io, &mut self.levels, 0, end, None, out);
        out.kept(from, told)
    }
}

/// Has the topmost of `levels` answer up to `end`, and those below it where it does not know.
///
/// `kept`: where the layer above has space for what it does not have. If nobody has it, that is told.
fn ask(
    io: &dyn Io,
    levels: &mut [Level<'_>],
    depth: usize,
    end: u64,
    kept: Option<Place>,
    out: &mut Batch<Found>,
) -> Result<()> {
    let from = out.at();
    let nobody = |at: u64| {
        let reserved = kept.map(|place| place.ahead(at.saturating_sub(from)));
        Found { depth: depth.saturating_sub(1), present: false, source: Source::Zero { reserved } }
    };
    let Some((level, below)) = levels.split_first_mut() else {
        return out.push(end.saturating_sub(from), nobody(from));
    };
    let stop = end.min(level.size);
    while out.at() < stop && !out.is_done() {
        level.batch.aim(out.at(), stop, out.room().min(ASK));
        level.cursor.fill(&mut level.batch)?;
        for run in level.batch.runs() {
            let until = out.at().saturating_add(run.len);
            let next = depth.saturating_add(1);
            match run.what {
                None => ask(io, below, next, until, None, out)?,
                Some(Source::Hollow { place }) => ask(io, below, next, until, Some(place), out)?,
                Some(source) => add(io, out, run.len, Found { depth, present: true, source })?,
            }
            if out.at() < until || out.is_done() {
                return Ok(());
            }
        }
    }
    // A layer that is shorter than the one above it is followed by zeroes, and those count as the upper one's.
    if out.at() < end && !out.is_done() {
        out.push(end.saturating_sub(out.at()), nobody(out.at()))?;
    }
    Ok(())
}

/// Adds a run, whoever told it; what would lie beyond the end of its file is told as that. What is encrypted is not:
/// the zeroes there would be decrypted.
fn add(io: &dyn Io, out: &mut Batch<Found>, len: u64, found: Found) -> Result<()> {
    let Source::Raw { place, sparse, tweak: None } = found.source else { return out.push(len, found) };
    let inside = io.len(place.file).saturating_sub(place.at).min(len);
    if inside > 0 {
        out.push(inside, found)?;
    }
    if inside < len && !out.is_done() {
        let source = Source::Beyond { place: place.ahead(inside), sparse };
        out.push(len.saturating_sub(inside), Found { source, ..found })?;
    }
    Ok(())
}
