//! The state of a disk's ranges, by which images are compared strictly: what `map` tells, and where the disk ends.

use crate::rows::Rows;
use alloc::boxed::Box;
use instar_image::source::Piece;
use instar_image::{Chain, Error, Found, Io, Layer, Result};
use instar_wire::op::map::{DATA, PACKED, PLACED, PRESENT, Row, ZERO};

/// The version, times a hundred, from which on what is compressed is told as such.
const TELLS_PACKED: u32 = 802;
/// With the flags of a row: nothing follows.
const LAST: u32 = 1 << 31;

/// Where two chains that are shut are not in the same state first; or which of them has an error where.
pub fn unlike(
    chains: &[&Chain<'static>; 2],
    io: &dyn Io,
    version: u32,
) -> core::result::Result<Option<u64>, (bool, u64, Error)> {
    let [left, right] = chains;
    let end = left.size().min(right.size());
    let (mut left, mut right) = (States::new(left, io, version), States::new(right, io, version));
    let mut at = 0u64;
    while at < end {
        let (len, a) = left.peek().map_err(|error| (false, at, error))?;
        let (most, b) = right.peek().map_err(|error| (true, at, error))?;
        if a != b {
            return Ok(Some(at));
        }
        let len = len.min(most).max(1);
        left.advance(len);
        right.advance(len);
        at = at.saturating_add(len);
    }
    Ok(None)
}

/// The states of a disk, one after the other.
struct States<'c> {
    chain: &'c Chain<'c>,
    rows: Rows<'c>,
    told: u32,
    at: u64,
    /// What lies here, and the row behind it.
    here: Option<(Row, Found)>,
    next: Option<(Row, Found)>,
    /// Why it is not known what lies behind those.
    failed: Option<Error>,
}

impl<'c> States<'c> {
    fn new(chain: &'c Chain<'c>, io: &'c dyn Io, version: u32) -> Self {
        let packed = if version < TELLS_PACKED { 0 } else { PACKED };
        let told = PRESENT | ZERO | DATA | PLACED | packed;
        let rows = Rows::new(chain, io, 0, chain.size());
        States { chain, rows, told, at: 0, here: None, next: None, failed: None }
    }

    /// What is here, and for how long qemu-img would say so in one breath.
    fn peek(&mut self) -> Result<(u64, u32)> {
        if self.here.is_none() {
            self.here = match (self.next.take(), self.failed.take()) {
                (Some(row), failed) => {
                    self.failed = failed;
                    Some(row)
                }
                (None, Some(error)) => return Err(error),
                (None, None) => self.rows.next_row()?,
            };
        }
        let Some((mut row, found)) = self.here else { return Ok((u64::MAX, LAST)) };
        while self.next.is_none() && self.failed.is_none() {
            match self.rows.next_row() {
                Ok(next) => self.next = next,
                // It is not this row's error: that one ends here.
                Err(error) => self.failed = Some(error),
            }
            let Some((next, more)) = self.next else { break };
            if next.state == row.state && found.joins(row.len, &more) {
                row.len = row.len.saturating_add(next.len);
                self.next = None;
            }
        }
        self.here = Some((row, found));
        let asked = self.chain.layers.iter().take(found.depth.saturating_add(1));
        let len = asked.map(|layer| layer.reach(self.at)).fold(row.len, u64::min).max(1);
        Ok((len, self.flags(&row, &found, self.at.saturating_add(len))))
    }

    /// What a row is that is told up to `end`.
    fn flags(&self, row: &Row, found: &Found, end: u64) -> u32 {
        let layers = &self.chain.layers;
        let ends = |layer: Option<&Box<dyn Layer + 'c>>| layer.is_some_and(|layer| layer.size() == end);
        let mut flags = row.state & self.told;
        let is_lowest = found.depth.saturating_add(1) >= layers.len();
        if !found.present && !is_lowest {
            // What the layer below is too short for counts as the upper one's.
            flags |= PRESENT;
        }
        // What no layer has is told as the lowest tells it, of its own end.
        if ends(layers.first()) || (!found.present && is_lowest && ends(layers.last())) {
            flags |= LAST;
        }
        flags
    }

    fn advance(&mut self, n: u64) {
        self.at = self.at.saturating_add(n);
        self.here = self.here.take().and_then(|(row, found)| {
            let left = row.len.saturating_sub(n);
            let rest = Row { len: left, ..row };
            (left > 0).then(|| (rest, found.cut(n)))
        });
    }
}
