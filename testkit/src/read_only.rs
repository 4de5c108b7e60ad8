//! Files that can be read and not written, for verbs that only read.

use instar_image::file::{Hole, Zeroes};
use instar_image::{Drive, FileId, Freed, Granted, Io, Kind, Place, Result, Role};

/// What is behind it can be read.
pub struct ReadOnly<'a>(pub &'a dyn Io);

impl Io for ReadOnly<'_> {
    fn len(&self, file: FileId) -> u64 {
        self.0.len(file)
    }

    fn read(&self, file: FileId, at: u64, buf: &mut [u8]) -> Result<()> {
        self.0.read(file, at, buf)
    }

    fn related(&self, from: FileId, role: Role, name: &[u8]) -> Result<Granted> {
        self.0.related(from, role, name)
    }

    fn holes(&self, file: FileId, at: u64, len: u64) -> Result<Vec<Hole>> {
        self.0.holes(file, at, len)
    }
}

fn no(place: Place) -> Result<()> {
    Err(Kind::Refused.what("it may only be read").file(place.file).at(place.at))
}

impl Drive for ReadOnly<'_> {
    fn slot_len(&self) -> usize {
        256 << 10
    }

    fn write(&self, place: Place, _bytes: &[u8]) -> Result<()> {
        no(place)
    }

    fn copy(&self, _from: Place, to: Place, _len: u64, _zeroes: Zeroes) -> Result<()> {
        no(to)
    }

    fn zero(&self, place: Place, _len: u64, _give_up: bool) -> Result<()> {
        no(place)
    }

    fn discard(&self, place: Place, _len: u64, _freed: Freed) -> Result<bool> {
        no(place).map(|()| false)
    }

    fn allocate(&self, place: Place, _len: u64) -> Result<()> {
        no(place)
    }

    fn set_length(&self, file: FileId, len: u64) -> Result<()> {
        no(Place { file, at: len })
    }

    fn flush(&self, file: FileId) -> Result<()> {
        no(Place { file, at: 0 })
    }

    fn length(&self, file: FileId) -> Result<u64> {
        Ok(self.len(file))
    }

    fn part(&self, from: FileId, _name: &[u8]) -> Result<FileId> {
        no(Place { file: from, at: 0 }).map(|()| from)
    }

    fn load(&self, from: Place, _skip: usize, _len: usize, _granule: u32) -> Result<Vec<u8>> {
        no(from).map(|()| Vec::new())
    }

    fn lay(&self, _skip: usize, _bytes: &[u8]) {}

    fn take(&self, _skip: usize, _bytes: &mut [u8]) {}

    fn store(&self, _skip: usize, _len: usize, to: Place) -> Result<()> {
        no(to)
    }

    fn stage_len(&self) -> usize {
        0
    }

    fn pause(&self) -> Result<()> {
        Ok(())
    }

    fn clock(&self) -> Result<u64> {
        Ok(0)
    }
}
