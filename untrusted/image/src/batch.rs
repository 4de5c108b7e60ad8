//! A bounded list of runs that keeps whoever fills it in order.

use crate::source::Piece;
use alloc::vec::Vec;
use instar_wire::error::{Kind, Result};

/// `len` bytes described by `what`; never empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run<T> {
    /// Length in bytes.
    pub len: u64,
    /// What they are.
    pub what: T,
}

/// Runs that cover a range from its beginning without gaps. Neighbours that are one become one, what is too long is cut.
pub struct Batch<T> {
    runs: Vec<Run<T>>,
    at: u64,
    end: u64,
    room: usize,
}

impl<T: Piece> Batch<T> {
    /// Room for `room` runs, at least one; aimed at nothing.
    pub fn new(room: usize) -> Self {
        Batch { runs: Vec::with_capacity(room), at: 0, end: 0, room: room.max(1) }
    }

    /// Empties it and aims it at `at..end`, for at most `room` runs.
    pub fn aim(&mut self, at: u64, end: u64, room: usize) {
        self.runs.clear();
        (self.at, self.end, self.room) = (at, end, room.max(1));
    }

    /// Where the next run begins.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Where the last run ends at the latest.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// How many runs still fit.
    pub fn room(&self) -> usize {
        self.room.saturating_sub(self.runs.len())
    }

    /// Whether no more runs are wanted.
    pub fn is_done(&self) -> bool {
        self.at >= self.end || self.runs.len() >= self.room
    }

    /// The runs.
    pub fn runs(&self) -> &[Run<T>] {
        &self.runs
    }

    /// What has been told from `from` on stands, and whoever asks for what follows hears of the error; it is one now
    /// only if nothing has been told.
    pub fn kept(&self, from: u64, result: Result<()>) -> Result<()> {
        if self.at > from { Ok(()) } else { result }
    }

    /// Adds `len` bytes of `what`. A run without length would never come to an end, so it is an error of the format.
    #[inline]
    pub fn push(&mut self, len: u64, what: T) -> Result<()> {
        let len = len.min(self.end.saturating_sub(self.at));
        if len == 0 {
            return Err(Kind::Corrupt.what("a format tells of a run without length"));
        }
        self.at = self.at.saturating_add(len);
        if let Some(last) = self.runs.last_mut()
            && last.what.joins(last.len, &what)
        {
            last.len = last.len.saturating_add(len);
            return Ok(());
        }
        self.runs.push(Run { len, what });
        Ok(())
    }
}
