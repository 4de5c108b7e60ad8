//! `map`: what every range of a disk is, and where its bytes lie.

use crate::cx::Cx;
use crate::open::{chain, stack};
use crate::rows::{Rows, shut};
use alloc::vec::Vec;
use instar_image::{Chain, Io, Result};
use instar_wire::code::{Bytes, encode};
use instar_wire::op::map::{DATA, Event, PLACED, ROW_LEN, Request, Row, put};

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
    let told = each(&chain, cx.drive, request.start, end, &mut |row| {
        let hides = request.plain && row.is(DATA) && !row.is(PLACED);
        if hidden && !hides {
            return Ok(false);
        }
        hidden = hides;
        telling.add(&row).map(|()| true)
    });
    // What has been found out is told whatever comes behind it.
    telling.flush()?;
    told?;
    if hidden { tell(Event::Hidden) } else { Ok(()) }
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
    let mut rows = Rows::new(chain, io, at, end);
    while let Some((row, _)) = rows.next_row()? {
        if !tell(row)? {
            return Ok(());
        }
    }
    Ok(())
}
