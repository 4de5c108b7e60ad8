//! A walk along a chain: what lies here, and for how long. Several walks go in step.

use crate::batch::Batch;
use crate::chain::{Chain, ChainCursor, Found};
use crate::file::Io;
use crate::source::Piece;
use instar_wire::error::Result;

/// Runs asked for at once.
pub const ROOM: usize = 1024;

/// Where a walk has come to.
pub struct Walk<'c> {
    cursor: ChainCursor<'c>,
    batch: Batch<Found>,
    room: usize,
    /// The run under way, and how much of it has been walked.
    next: usize,
    used: u64,
    at: u64,
    end: u64,
}

impl<'c> Walk<'c> {
    /// A walk over `at..end`.
    pub fn new(chain: &'c Chain<'_>, io: &'c dyn Io, at: u64, end: u64) -> Self {
        Walk::with_room(chain, io, at, end, ROOM)
    }

    /// A walk that asks for so many runs at once.
    pub fn with_room(chain: &'c Chain<'_>, io: &'c dyn Io, at: u64, end: u64, room: usize) -> Self {
        Walk { cursor: chain.cursor(io), batch: Batch::new(room), room, next: 0, used: 0, at, end }
    }

    /// Goes on with another range; what the cursors remember stays.
    pub fn aim(&mut self, at: u64, end: u64) {
        self.batch.aim(at, at, self.room);
        (self.next, self.used, self.at, self.end) = (0, 0, at, end);
    }

    /// Where it is.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Where it ends.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// What lies here, and for how long; nothing at the end.
    pub fn peek(&mut self) -> Result<Option<(u64, Found)>> {
        if self.at >= self.end {
            return Ok(None);
        }
        if self.next >= self.batch.runs().len() {
            self.batch.aim(self.at, self.end, self.room);
            self.cursor.fill(&mut self.batch)?;
            (self.next, self.used) = (0, 0);
        }
        let run = self.batch.runs().get(self.next);
        Ok(run.map(|run| (run.len.saturating_sub(self.used), run.what.cut(self.used))))
    }

    /// Moves on by `n`, at most what [`Self::peek`] said.
    pub fn advance(&mut self, n: u64) {
        self.at = self.at.saturating_add(n);
        self.used = self.used.saturating_add(n);
        if self.batch.runs().get(self.next).is_some_and(|run| self.used >= run.len) {
            self.next = self.next.saturating_add(1);
            self.used = 0;
        }
    }
}
