//! A way out of the cell that keeps account of what is written on it.

use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use instar_image::file::{Hole, Zeroes};
use instar_image::{Drive, FileId, Freed, Granted, Io, Place, Result, Role};
use instar_wire::io::Link;

/// Counts what is written; and sees to it that a file with bytes of its own reads as zeroes wherever nothing was written.
pub struct Ledger<'d> {
    drive: &'d dyn Drive,
    /// The file with bytes of its own.
    soiled: Option<FileId>,
    written: Cell<u64>,
    /// Where in that file something was written: begin and end, in order, and apart from each other.
    ranges: RefCell<Vec<(u64, u64)>>,
}

impl<'d> Ledger<'d> {
    /// Nothing has been written yet.
    pub fn new(drive: &'d dyn Drive, soiled: Option<FileId>) -> Ledger<'d> {
        Ledger { drive, soiled, written: Cell::new(0), ranges: RefCell::default() }
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written.get()
    }

    fn note(&self, place: Place, len: u64) {
        if self.soiled != Some(place.file) || len == 0 {
            return;
        }
        let (mut begin, mut end) = (place.at, place.at.saturating_add(len));
        let mut ranges = self.ranges.borrow_mut();
        let first = ranges.partition_point(|range| range.1 < begin);
        let behind = ranges.partition_point(|range| range.0 <= end);
        if let (Some(one), Some(other)) = (ranges.get(first), behind.checked_sub(1).and_then(|last| ranges.get(last)))
            && first < behind
        {
            (begin, end) = (begin.min(one.0), end.max(other.1));
        }
        ranges.splice(first..behind.max(first), [(begin, end)]);
    }

    /// Zeroes what nobody has written of the first `len` bytes.
    fn clean(&self, file: FileId, len: u64) -> Result<()> {
        let mut at = 0;
        for (begin, end) in self.ranges.borrow().iter().copied().chain([(len, len)]) {
            let gap = begin.min(len).saturating_sub(at);
            if gap > 0 {
                self.drive.zero(Place { file, at }, gap, true)?;
            }
            at = at.max(end);
        }
        Ok(())
    }
}

impl Io for Ledger<'_> {
    fn len(&self, file: FileId) -> u64 {
        self.drive.len(file)
    }

    fn read(&self, file: FileId, at: u64, buf: &mut [u8]) -> Result<()> {
        self.drive.read(file, at, buf)
    }

    fn related(&self, from: FileId, role: Role, name: &[u8]) -> Result<Granted> {
        self.drive.related(from, role, name)
    }

    fn holes(&self, file: FileId, at: u64, len: u64) -> Result<Vec<Hole>> {
        self.drive.holes(file, at, len)
    }
}

impl Drive for Ledger<'_> {
    fn slot_len(&self) -> usize {
        self.drive.slot_len()
    }

    fn write(&self, place: Place, bytes: &[u8]) -> Result<()> {
        let len = bytes.len() as u64;
        self.written.set(self.written.get().saturating_add(len));
        self.note(place, len);
        self.drive.write(place, bytes)
    }

    fn copy(&self, from: Place, to: Place, len: u64, zeroes: Zeroes) -> Result<()> {
        self.note(to, len);
        self.drive.copy(from, to, len, zeroes)
    }

    fn share(&self, from: FileId, to: FileId, links: &[Link]) -> Result<usize> {
        links.iter().for_each(|link| self.note(Place { file: to, at: link.to }, link.len));
        self.drive.share(from, to, links)
    }

    fn zero(&self, place: Place, len: u64, give_up: bool) -> Result<()> {
        self.note(place, len);
        self.drive.zero(place, len, give_up)
    }

    fn discard(&self, place: Place, len: u64, freed: Freed) -> Result<bool> {
        self.drive.discard(place, len, freed)
    }

    fn allocate(&self, place: Place, len: u64) -> Result<()> {
        self.drive.allocate(place, len)
    }

    fn set_length(&self, file: FileId, len: u64) -> Result<()> {
        self.drive.set_length(file, len)?;
        // Whoever lays an image out says last how long its file is.
        if self.soiled == Some(file) { self.clean(file, len) } else { Ok(()) }
    }

    fn flush(&self, file: FileId) -> Result<()> {
        self.drive.flush(file)
    }

    fn length(&self, file: FileId) -> Result<u64> {
        self.drive.length(file)
    }

    fn part(&self, from: FileId, name: &[u8]) -> Result<FileId> {
        self.drive.part(from, name)
    }

    fn load(&self, from: Place, skip: usize, len: usize, granule: u32) -> Result<Vec<u8>> {
        self.drive.load(from, skip, len, granule)
    }

    fn lay(&self, skip: usize, bytes: &[u8]) {
        self.drive.lay(skip, bytes);
    }

    fn take(&self, skip: usize, bytes: &mut [u8]) {
        self.drive.take(skip, bytes);
    }

    fn store(&self, skip: usize, len: usize, to: Place) -> Result<()> {
        let bytes = u64::try_from(len).unwrap_or(u64::MAX);
        self.written.set(self.written.get().saturating_add(bytes));
        self.note(to, bytes);
        self.drive.store(skip, len, to)
    }

    fn stage_len(&self) -> usize {
        self.drive.stage_len()
    }

    fn pause(&self) -> Result<()> {
        self.drive.pause()
    }

    fn clock(&self) -> Result<u64> {
        self.drive.clock()
    }
}
