//! Disks whose bytes all have their place from the beginning, in one row or in several.

use crate::file::Drive;
use crate::row::Row;
use crate::target::{Rest, Spot, Target, What};
use alloc::boxed::Box;
use alloc::vec::Vec;
use instar_wire::error::{Kind, Result};

/// Nothing is given a place, so this only says where questions are cut.
const UNIT: u64 = 64 << 10;

/// Such a disk that is written to.
pub struct Straight {
    rows: Vec<Row>,
}

impl Straight {
    /// Of rows in their order, without gaps.
    pub fn new(rows: Vec<Row>) -> Self {
        Straight { rows }
    }
}

/// A disk in one row.
pub fn target(row: Row) -> Box<dyn Target> {
    Box::new(Straight::new(Vec::from([row])))
}

impl Target for Straight {
    fn size(&self) -> u64 {
        self.rows.last().map_or(0, |row| row.range.end)
    }

    fn unit(&self) -> u64 {
        UNIT
    }

    fn fixed(&self, at: u64) -> Option<(u64, Spot)> {
        let row = self.rows.get(self.rows.partition_point(|row| row.range.end <= at))?;
        let place = row.start.ahead(at.saturating_sub(row.range.start));
        Some((row.range.end.saturating_sub(at), Spot { place, tweak: None, rest: Rest::There, is_fresh: false }))
    }

    fn reserve(&mut self, _drive: &dyn Drive, at: u64, _len: u64, _what: What) -> Result<Option<Spot>> {
        let beyond = || Kind::Corrupt.what("bytes beyond the end of the disk");
        self.fixed(at).map(|(_, spot)| Some(spot)).ok_or_else(beyond)
    }

    fn seal(&mut self, _drive: &dyn Drive) -> Result<()> {
        Ok(())
    }
}
