//! `map`: what every range of a disk is, and where its bytes lie.

use crate::cx::Cx;
use crate::open::{chain, stack};
use alloc::boxed::Box;
use alloc::vec::Vec;
use instar_image::{Chain, Cursor, FileId, Found, Io, Kind, Layer, Place, Result, Source, Walk};
use instar_wire::code::{Bytes, encode};
use instar_wire::op::map::{DATA, Event, PACKED, PLACED, PRESENT, ROW_LEN, Request, Row, ZERO, put};

/// Rows that are told at once.
const ROWS: usize = 4096;

/// Tells the rows of a chain, from its beginning or a part of it.
pub fn run(request: &Request, cx: &Cx<'_>) -> Result<()> {
    let tell = |event: Event| (cx.emit)(&encode(&event));
    let stack = stack(cx, &request.top, &request.rules, &|step| tell(Event::Step(step)))?;
    let chain = shut(chain(&stack, None)?);
    tell(Event::Ready)?;
    let end = request.length.map_or(u64::MAX, |len| request.start.saturating_add(len)).min(chain.size());
    let mut telling = Telling { rows: Vec::with_capacity(ROWS.saturating_mul(ROW_LEN)), tell: &tell };
    let mut hidden = false;
    each(&chain, cx.drive, request.start, end, &mut |row| {
        hidden = request.plain && row.is(DATA) && !row.is(PLACED);
        if hidden { Ok(false) } else { telling.add(&row).map(|()| true) }
    })?;
    if hidden {
        return tell(Event::Hidden);
    }
    telling.flush()
}

/// Rows on their way out.
struct Telling<'t> {
    rows: Vec<u8>,
    tell: &'t dyn Fn(Event) -> Result<()>,
}

impl Telling<'_> {
    fn add(&mut self, row: &Row) -> Result<()> {
        if self.rows.len() >= ROWS.saturating_mul(ROW_LEN) {
            self.flush()?;
        }
        put(row, &mut self.rows);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let empty = Vec::with_capacity(ROWS.saturating_mul(ROW_LEN));
        (self.tell)(Event::Rows(Bytes(core::mem::replace(&mut self.rows, empty))))
    }
}

/// Hands out the rows of `at..end`, until told to stop.
pub fn each(
    chain: &Chain<'_>,
    io: &dyn Io,
    at: u64,
    end: u64,
    tell: &mut dyn FnMut(Row) -> Result<bool>,
) -> Result<()> {
    let mut walk = Walk::new(chain, io, at, end);
    while let Some((len, found)) = walk.peek()? {
        let goes_on = match found.source {
            Source::Raw { place, tweak: None, sparse: true } => holes(io, place, len, &found, tell)?,
            _ => tell(row(len, &found))?,
        };
        if !goes_on {
            return Ok(());
        }
        walk.advance(len);
    }
    Ok(())
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

/// The rows of space that was set aside: what of it the file does not have reads as zeroes.
fn holes(
    io: &dyn Io,
    place: Place,
    len: u64,
    found: &Found,
    tell: &mut dyn FnMut(Row) -> Result<bool>,
) -> Result<bool> {
    let mut done = 0u64;
    while done < len {
        let here = place.ahead(done);
        let left = len.saturating_sub(done);
        let told = io.holes(here.file, here.at, left)?;
        if told.is_empty() {
            return Err(Kind::Io.what("nothing is told of a range of a file").file(here.file).at(here.at));
        }
        for hole in told {
            let source = Source::raw(place.ahead(done));
            let mut row = row(hole.len.min(len.saturating_sub(done)), &Found { source, ..*found });
            row.state |= if hole.is_hole { ZERO } else { 0 };
            if !tell(row)? {
                return Ok(false);
            }
            done = done.saturating_add(hole.len);
        }
    }
    Ok(true)
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
