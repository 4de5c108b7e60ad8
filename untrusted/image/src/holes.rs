//! What is known of the holes of files: every place is asked about once, together with as much behind it as one answer
//! tells; and files without the holes that are not worth knowing.

use crate::file::{Hole, Io};
use crate::pump::BLOCK;
use crate::source::Place;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use instar_wire::error::{Kind, Result};
use instar_wire::io::{FileId, Granted, Role};

/// Runs that are remembered; when there are more, all are forgotten.
const RUNS_MAX: usize = 1 << 20;

/// Holes of this length are read together with what is around them in less time than a call takes.
const JOINED_MAX: u64 = 16 << 10;

/// Files as they are for who moves what they hold: short holes between data are data.
pub struct Joined<'c> {
    io: &'c dyn Io,
    /// How long holes are that are data.
    lens: Option<RangeInclusive<u64>>,
}

impl<'c> Joined<'c> {
    /// Of files. Holes that are shorter than runs of zeroes that are left out stay what they are; 0: none are left out;
    /// `None`: so do all.
    pub fn new(io: &'c dyn Io, sparse: Option<u32>) -> Self {
        Joined { io, lens: sparse.map(|sparse| sparse.into()..=JOINED_MAX) }
    }
}

impl Io for Joined<'_> {
    fn len(&self, file: FileId) -> u64 {
        self.io.len(file)
    }

    fn read(&self, file: FileId, at: u64, buf: &mut [u8]) -> Result<()> {
        self.io.read(file, at, buf)
    }

    fn related(&self, from: FileId, role: Role, name: &[u8]) -> Result<Granted> {
        self.io.related(from, role, name)
    }

    fn holes(&self, file: FileId, at: u64, len: u64) -> Result<Vec<Hole>> {
        let runs = self.io.holes(file, at, len)?;
        let Some(lens) = &self.lens else { return Ok(runs) };
        let last = runs.len().saturating_sub(1);
        // Zeroes are found where granules of that length end: what ends elsewhere would depend on what is joined.
        if !at.is_multiple_of(BLOCK) || runs.iter().take(last).any(|run| !run.len.is_multiple_of(BLOCK)) {
            return Ok(runs);
        }
        let mut joined: Vec<Hole> = Vec::new();
        for (number, run) in runs.into_iter().enumerate() {
            let is_between = number > 0 && number < last && lens.contains(&run.len);
            let is_hole = run.is_hole && !is_between;
            match joined.last_mut() {
                Some(before) if !before.is_hole && !is_hole => before.len = before.len.saturating_add(run.len),
                _ => joined.push(Hole { is_hole, ..run }),
            }
        }
        Ok(joined)
    }
}

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
