//! Files as code in a cell sees them: a number, a length, and bytes on request.

use crate::source::Place;
use alloc::vec;
use alloc::vec::Vec;
use instar_wire::error::Result;
use instar_wire::io::{FileId, Freed, Granted, Link, Role};
use zerocopy::{FromBytes, IntoBytes};

/// The way out of the cell, as much of it as a format needs.
pub trait Io {
    /// The file's length in bytes.
    fn len(&self, file: FileId) -> u64;
    /// Fills `buf` with `file[at..]`; all of it lies inside the file.
    fn read(&self, file: FileId, at: u64, buf: &mut [u8]) -> Result<()>;
    /// Opens the file that `from` names.
    fn related(&self, from: FileId, role: Role, name: &[u8]) -> Result<Granted>;
    /// The runs of `file[at..][..len]` from its beginning: at least one, perhaps not all.
    ///
    /// Where nothing can be told everything is data.
    fn holes(&self, file: FileId, at: u64, len: u64) -> Result<Vec<Hole>> {
        let _ = (file, at);
        Ok(vec![Hole { len, is_hole: false }])
    }
}

impl<T: Io + ?Sized> Io for &T {
    fn len(&self, file: FileId) -> u64 {
        (**self).len(file)
    }

    fn read(&self, file: FileId, at: u64, buf: &mut [u8]) -> Result<()> {
        (**self).read(file, at, buf)
    }

    fn related(&self, from: FileId, role: Role, name: &[u8]) -> Result<Granted> {
        (**self).related(from, role, name)
    }

    fn holes(&self, file: FileId, at: u64, len: u64) -> Result<Vec<Hole>> {
        (**self).holes(file, at, len)
    }
}

/// A run of a file that is all data or all hole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hole {
    /// Its length.
    pub len: u64,
    /// Whether nothing is there, and zeroes are read.
    pub is_hole: bool,
}

/// The way out of the cell for those who also write.
pub trait Drive: Io {
    /// Bytes that are best read or written at once.
    fn slot_len(&self) -> usize;
    /// Writes `bytes` to `place`.
    fn write(&self, place: Place, bytes: &[u8]) -> Result<()>;
    /// Copies `len` bytes without looking at them.
    fn copy(&self, from: Place, to: Place, len: u64, zeroes: Zeroes) -> Result<()>;
    /// Has ranges of one file be those of another as well, without copying; tells for how many, from the first on, that
    /// could be done.
    fn share(&self, from: FileId, to: FileId, links: &[Link]) -> Result<usize> {
        let _ = (from, to, links);
        Ok(0)
    }
    /// Makes `len` bytes from `place` read as zeroes; `give_up`: their space may go.
    fn zero(&self, place: Place, len: u64, give_up: bool) -> Result<()>;
    /// Gives the space of `len` bytes from `place` back, which nobody will read again for that reason; false if it is not
    /// wanted back.
    fn discard(&self, place: Place, len: u64, freed: Freed) -> Result<bool>;
    /// Sets space aside for `len` bytes from `place`.
    fn allocate(&self, place: Place, len: u64) -> Result<()>;
    /// All of `len` bytes from `place` is about to be written: space may be set aside where that makes it quicker.
    fn prepare(&self, place: Place, len: u64) -> Result<()> {
        let _ = (place, len);
        Ok(())
    }
    /// The file is `len` bytes long afterwards.
    fn set_length(&self, file: FileId, len: u64) -> Result<()>;
    /// Everything written to the file is durable afterwards.
    fn flush(&self, file: FileId) -> Result<()>;
    /// How long the file is now; it may have been made only since it was granted.
    fn length(&self, file: FileId) -> Result<u64>;
    /// Makes one more file of the image that `from` is the file of, under a name beside it. It is empty. Without a name, it
    /// is one that takes the place of `from` when everything is done.
    fn part(&self, from: FileId, name: &[u8]) -> Result<FileId>;
    /// Reads `file[at..][..len]` to the stage, `skip` bytes from its beginning, and tells which granules of `1 << granule`
    /// bytes are all zero: the stage is memory on the way out, and what is there can be stored without being touched.
    fn load(&self, from: Place, skip: usize, len: usize, granule: u32) -> Result<Vec<u8>>;
    /// Puts bytes on the stage.
    fn lay(&self, skip: usize, bytes: &[u8]);
    /// Takes bytes from the stage.
    fn take(&self, skip: usize, bytes: &mut [u8]);
    /// Writes `len` bytes of the stage.
    fn store(&self, skip: usize, len: usize, to: Place) -> Result<()>;
    /// Length of the stage.
    fn stage_len(&self) -> usize;
    /// Lets others go on for a moment.
    fn pause(&self) -> Result<()>;
    /// Nanoseconds of some clock that never goes back.
    fn clock(&self) -> Result<u64>;
}

/// What a copy does with zeroes that it comes by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Zeroes {
    /// They are written like all else.
    Written,
    /// Runs of at least so many bytes are passed over: the target is zero there already.
    Skipped(u32),
    /// Runs of at least so many bytes become holes of the target.
    Holes(u32),
}

/// Copies bytes of a file, and zeroes for those behind its end.
pub fn copy_padded(drive: &dyn Drive, from: Place, to: Place, len: u64) -> Result<()> {
    let have = drive.length(from.file)?.saturating_sub(from.at).min(len);
    if have > 0 {
        drive.copy(from, to, have, Zeroes::Written)?;
    }
    if have < len { drive.zero(to.ahead(have), len.saturating_sub(have), true) } else { Ok(()) }
}

/// A file that may be read, or a part of one.
#[derive(Clone, Copy)]
pub struct File<'a> {
    io: &'a dyn Io,
    id: FileId,
    start: u64,
    len: u64,
    allocated: u64,
}

impl<'a> File<'a> {
    /// All of a granted file.
    pub fn new(io: &'a dyn Io, granted: &Granted) -> Self {
        File { allocated: granted.allocated, ..Self::slice(io, granted.id, 0, granted.len) }
    }

    /// `len` bytes of a file from `start`, as if they were a file.
    pub fn slice(io: &'a dyn Io, id: FileId, start: u64, len: u64) -> Self {
        File { io, id, start, len, allocated: len }
    }

    /// Its number.
    pub fn id(&self) -> FileId {
        self.id
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The space that it takes, as far as that is known: of a part of a file, nothing is.
    pub fn allocated(&self) -> u64 {
        self.allocated
    }

    /// The byte of the file that this part of it has at `at`.
    pub fn place(&self, at: u64) -> Place {
        Place { file: self.id, at: self.start.saturating_add(at) }
    }

    /// Whether it holds no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The way to further files.
    pub fn io(&self) -> &'a dyn Io {
        self.io
    }

    /// Opens a file that this one names.
    pub fn related(&self, role: Role, name: &[u8]) -> Result<Granted> {
        self.io.related(self.id, role, name)
    }

    /// Fills `buf` from `at`. What lies beyond the end of the file reads as zeroes, as it does for qemu-img.
    pub fn read(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        let have = self.len.saturating_sub(at).min(buf.len() as u64);
        let (inside, beyond) = buf.split_at_mut(usize::try_from(have).unwrap_or(usize::MAX).min(buf.len()));
        beyond.fill(0);
        if inside.is_empty() {
            return Ok(());
        }
        self.io.read(self.id, self.start.saturating_add(at), inside)
    }

    /// A structure at `at`, padded with zeroes beyond the end of the file.
    pub fn read_as<T: FromBytes + IntoBytes>(&self, at: u64) -> Result<T> {
        let mut value = T::new_zeroed();
        self.read(at, value.as_mut_bytes())?;
        Ok(value)
    }

    /// `len` bytes from `at`, padded with zeroes; the caller has bounded `len`.
    pub fn read_vec(&self, at: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.read(at, &mut bytes)?;
        Ok(bytes)
    }
}
