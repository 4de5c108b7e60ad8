//! A table of numbers in a file, read a piece at a time.

use crate::file::Io;
use alloc::boxed::Box;
use alloc::vec::Vec;
use instar_wire::error::{Kind, Result};
use instar_wire::io::FileId;

/// Bytes of a table that are read at once.
const PIECE: u64 = 64 << 10;
/// As many as that, where one piece after the other is wanted.
const PIECE_MAX: u64 = 512 << 10;

/// Tables of entries of `N` bytes each, of which the piece last looked at is remembered.
pub struct Table<'c, const N: usize> {
    io: Box<dyn Io + 'c>,
    file: FileId,
    piece_at: u64,
    piece: Vec<u8>,
    /// Bytes that are read next if they follow.
    next_len: u64,
}

impl<'c, const N: usize> Table<'c, N> {
    /// Nothing has been looked at.
    pub fn new(io: &'c dyn Io, file: FileId) -> Self {
        Table::through(Box::new(io), file)
    }

    /// The same, of a file that is not read as it lies there.
    pub fn through(io: Box<dyn Io + 'c>, file: FileId) -> Self {
        Table { io, file, piece_at: 0, piece: Vec::new(), next_len: PIECE }
    }

    /// The entries from number `index` on, of the table at `at` that has `count`: as many as are at hand, at least one.
    ///
    /// What lies beyond the end of the file reads as zeroes.
    pub fn entries(&mut self, at: u64, index: u64, count: u64) -> Result<&[[u8; N]]> {
        let wrong = || Kind::Corrupt.what("a table lies beyond all files").file(self.file).at(at);
        let entry_len = size_of::<[u8; N]>() as u64;
        let offset = |index: u64| index.checked_mul(entry_len).and_then(|len| at.checked_add(len));
        let (start, end) = offset(index).zip(offset(count)).filter(|(start, end)| start < end).ok_or_else(wrong)?;
        if !self.holds(start) {
            self.load(at, start, end)?;
        }
        let skip = usize::try_from(start.saturating_sub(self.piece_at)).unwrap_or(usize::MAX);
        let left = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX);
        let rest = self.piece.get(skip..).unwrap_or_default();
        Ok(rest.get(..left.min(rest.len())).unwrap_or_default().as_chunks().0)
    }

    /// Goes through all entries of the table at `at` that has `count`, with their numbers.
    pub fn each(&mut self, at: u64, count: u64, mut tell: impl FnMut(u64, &[u8; N]) -> Result<()>) -> Result<()> {
        let mut index = 0u64;
        while index < count {
            for entry in self.entries(at, index, count)? {
                tell(index, entry)?;
                index = index.saturating_add(1);
            }
        }
        Ok(())
    }

    fn holds(&self, start: u64) -> bool {
        let have = self.piece.len() as u64;
        start.checked_sub(self.piece_at).is_some_and(|skip| skip.saturating_add(size_of::<[u8; N]>() as u64) <= have)
    }

    /// Reads the piece that entry `start` lies in. Pieces begin at multiples of their length behind the table's beginning.
    fn load(&mut self, at: u64, start: u64, end: u64) -> Result<()> {
        let skip = start.saturating_sub(at);
        let from = at.saturating_add(skip.saturating_sub(skip % PIECE));
        let follows = from == self.piece_at.saturating_add(self.piece.len() as u64) && !self.piece.is_empty();
        self.next_len = if follows { self.next_len.saturating_mul(2).min(PIECE_MAX) } else { PIECE };
        let len = end.saturating_sub(from).min(self.next_len);
        let have = self.io.len(self.file).saturating_sub(from).min(len);
        let size = |len: u64| usize::try_from(len).unwrap_or(0);
        self.piece.clear();
        self.piece.resize(size(len), 0);
        if let Some(inside) = self.piece.get_mut(..size(have)).filter(|inside| !inside.is_empty()) {
            // A piece that could not be read is not remembered.
            if let Err(error) = self.io.read(self.file, from, inside) {
                self.piece.clear();
                return Err(error);
            }
        }
        self.piece_at = from;
        Ok(())
    }
}
