//! Bytes of a disk that lie in a row in a file.

use crate::batch::Batch;
use crate::file::Io;
use crate::layer::{Cursor, Layer};
use crate::source::{Place, Source};
use alloc::boxed::Box;
use core::ops::Range;
use instar_wire::error::Result;

/// A part of a disk, or all of it. Holes of the file may be told as such: the space was set aside for it.
#[derive(Clone, Debug)]
pub struct Row {
    /// Where the first byte is.
    pub start: Place,
    /// The bytes of the disk.
    pub range: Range<u64>,
}

impl Row {
    /// A walker over it.
    pub fn cursor<'c>(&'c self) -> Box<dyn Cursor + 'c> {
        Box::new(RowCursor(self))
    }
}

impl Layer for Row {
    fn size(&self) -> u64 {
        self.range.end
    }

    fn cursor<'c>(&'c self, _io: &'c dyn Io) -> Box<dyn Cursor + 'c> {
        Row::cursor(self)
    }
}

struct RowCursor<'c>(&'c Row);

impl Cursor for RowCursor<'_> {
    fn find(&mut self, at: u64, _end: u64) -> Result<(u64, Option<Source>)> {
        let Row { start, range } = self.0;
        let place = start.ahead(at.saturating_sub(range.start));
        Ok((range.end.saturating_sub(at), Some(Source::Raw { place, tweak: None, sparse: true })))
    }

    fn fill(&mut self, out: &mut Batch<Option<Source>>) -> Result<()> {
        let (len, what) = self.find(out.at(), out.end())?;
        out.push(len, what)
    }
}
