//! What is known of the holes of files: every place is asked about once, together with as much behind it as one answer
//! tells.

use crate::file::Io;
use crate::source::Place;
use alloc::collections::BTreeMap;
use instar_wire::error::{Kind, Result};
use instar_wire::io::FileId;

/// Runs that are remembered; when there are more, all are forgotten.
const RUNS_MAX: usize = 1 << 20;

/// Runs of data and holes, by where they begin.
pub struct Holes<'c> {
    io: &'c dyn Io,
    runs: BTreeMap<(FileId, u64), (u64, bool)>,
}

impl<'c> Holes<'c> {
    /// Nothing is known.
    pub fn new(io: &'c dyn Io) -> Self {
        Holes { io, runs: BTreeMap::new() }
    }

    /// How far the run goes on that a byte of a file lies in, and whether it is a hole.
    pub fn run(&mut self, place: Place) -> Result<(u64, bool)> {
        if let Some(run) = self.known(place) {
            return Ok(run);
        }
        if self.runs.len() >= RUNS_MAX {
            self.runs.clear();
        }
        let left = self.io.len(place.file).saturating_sub(place.at);
        let mut at = place.at;
        for hole in self.io.holes(place.file, place.at, left)? {
            self.runs.insert((place.file, at), (hole.len, hole.is_hole));
            at = at.saturating_add(hole.len);
        }
        let nothing = || Kind::Io.what("nothing is told of a range of a file").file(place.file).at(place.at);
        self.known(place).ok_or_else(nothing)
    }

    fn known(&self, place: Place) -> Option<(u64, bool)> {
        let ((file, start), (len, is_hole)) = self.runs.range(..=(place.file, place.at)).next_back()?;
        let left = start.checked_add(*len)?.checked_sub(place.at).filter(|left| *left > 0)?;
        (*file == place.file).then_some((left, *is_hole))
    }
}
