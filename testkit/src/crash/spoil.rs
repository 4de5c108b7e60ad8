//! A drive that does not do what it is told, as code would that has an error.

use instar_image::file::{Hole, Zeroes};
use instar_image::{Drive, Error, FileId, Freed, Granted, Io, Place, Role};
use std::cell::{Cell, RefCell};

/// What is done wrong: of the calls that flush, or of those that write, the one with a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spoil {
    /// This flush is left out.
    Flush(usize),
    /// This write comes too late: behind the next flush.
    Late(usize),
}

/// What stands between a change and its files.
pub struct Spoiled<'d> {
    drive: &'d dyn Drive,
    spoil: Spoil,
    flushes: Cell<usize>,
    writes: Cell<usize>,
    late: RefCell<Option<(Place, Vec<u8>)>>,
}

type Done<T = ()> = Result<T, Error>;

impl<'d> Spoiled<'d> {
    /// In front of these files.
    pub fn new(drive: &'d dyn Drive, spoil: Spoil) -> Self {
        Spoiled { drive, spoil, flushes: Cell::default(), writes: Cell::default(), late: RefCell::default() }
    }

    /// Whether what was to be done wrong has been.
    pub fn is_done(&self) -> bool {
        match self.spoil {
            Spoil::Flush(number) => self.flushes.get() > number,
            Spoil::Late(number) => self.writes.get() > number,
        }
    }

    /// What is too late comes now.
    pub fn end(&self) -> Done {
        self.late.take().map_or(Ok(()), |(place, bytes)| self.drive.write(place, &bytes))
    }
}

impl Io for Spoiled<'_> {
    fn len(&self, file: FileId) -> u64 {
        self.drive.len(file)
    }

    fn read(&self, file: FileId, at: u64, buf: &mut [u8]) -> Done {
        self.drive.read(file, at, buf)
    }

    fn related(&self, from: FileId, role: Role, name: &[u8]) -> Done<Granted> {
        self.drive.related(from, role, name)
    }

    fn holes(&self, file: FileId, at: u64, len: u64) -> Done<Vec<Hole>> {
        self.drive.holes(file, at, len)
    }
}

impl Drive for Spoiled<'_> {
    fn slot_len(&self) -> usize {
        self.drive.slot_len()
    }

    fn write(&self, place: Place, bytes: &[u8]) -> Done {
        let number = self.writes.replace(self.writes.get() + 1);
        if self.spoil == Spoil::Late(number) {
            self.late.replace(Some((place, bytes.to_vec())));
            return Ok(());
        }
        self.drive.write(place, bytes)
    }

    fn copy(&self, from: Place, to: Place, len: u64, zeroes: Zeroes) -> Done {
        self.drive.copy(from, to, len, zeroes)
    }

    fn zero(&self, place: Place, len: u64, give_up: bool) -> Done {
        self.drive.zero(place, len, give_up)
    }

    fn discard(&self, place: Place, len: u64, freed: Freed) -> Done<bool> {
        self.drive.discard(place, len, freed)
    }

    fn allocate(&self, place: Place, len: u64) -> Done {
        self.drive.allocate(place, len)
    }

    fn set_length(&self, file: FileId, len: u64) -> Done {
        self.drive.set_length(file, len)
    }

    fn flush(&self, file: FileId) -> Done {
        let number = self.flushes.replace(self.flushes.get() + 1);
        if self.spoil == Spoil::Flush(number) {
            return Ok(());
        }
        self.drive.flush(file)?;
        self.end()
    }

    fn length(&self, file: FileId) -> Done<u64> {
        self.drive.length(file)
    }

    fn part(&self, from: FileId, name: &[u8]) -> Done<FileId> {
        self.drive.part(from, name)
    }

    fn load(&self, from: Place, skip: usize, len: usize, granule: u32) -> Done<Vec<u8>> {
        self.drive.load(from, skip, len, granule)
    }

    fn lay(&self, skip: usize, bytes: &[u8]) {
        self.drive.lay(skip, bytes);
    }

    fn take(&self, skip: usize, bytes: &mut [u8]) {
        self.drive.take(skip, bytes);
    }

    fn store(&self, skip: usize, len: usize, to: Place) -> Done {
        self.drive.store(skip, len, to)
    }

    fn stage_len(&self) -> usize {
        self.drive.stage_len()
    }

    fn pause(&self) -> Done {
        self.drive.pause()
    }

    fn clock(&self) -> Done<u64> {
        self.drive.clock()
    }
}
