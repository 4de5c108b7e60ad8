//! A drive that remembers what was done to its files, and fails where it is told to.

use super::files::{MemFiles, pieces};
use crate::staged::{STAGE, Staged};
use instar_image::file::{Hole, Zeroes};
use instar_image::{Drive, FileId, Freed, Granted, Io, Kind, Place, Result, Role};
use std::cell::{Cell, RefCell};

/// What a disk writes whole or not at all.
pub const SECTOR: u64 = 512;
/// What is copied at once.
const PIECE: u64 = 1 << 20;

/// Something that reaches the disk whole or not at all.
#[derive(Clone, PartialEq, Eq)]
pub enum Deed {
    /// Bytes within one sector.
    Bytes(u64, Box<[u8]>),
    /// The file is so long, or longer.
    Grow(u64),
    /// The file is so long.
    Length(u64),
}

/// A deed, done to a file by one call.
#[derive(Clone)]
pub struct Done {
    /// The file.
    pub file: FileId,
    /// The number of the call.
    pub call: usize,
    /// What was done.
    pub deed: Deed,
}

impl Done {
    /// Does it again.
    pub fn again(&self, files: &mut MemFiles) {
        match &self.deed {
            Deed::Bytes(at, bytes) => files.poke(self.file, *at, bytes),
            Deed::Grow(len) => files.grow(self.file, *len),
            Deed::Length(len) => files.cut(self.file, *len),
        }
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Done { file: FileId(file), call, deed } = self;
        match deed {
            Deed::Bytes(at, bytes) => write!(f, "call {call}: {} bytes at {at:#x} of file {file}", bytes.len()),
            Deed::Grow(len) => write!(f, "call {call}: file {file} grows to {len:#x}"),
            Deed::Length(len) => write!(f, "call {call}: file {file} is set to {len:#x}"),
        }
    }
}

/// What happened, in order.
#[derive(Clone)]
pub enum Event {
    /// Something that a crash may undo until the file is flushed.
    Done(Done),
    /// A file was flushed.
    Flushed(FileId),
}

/// Which calls fail: counted are those that change a file, or flush it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// None.
    Never,
    /// This one.
    Once(usize),
    /// This one and all that come after it.
    From(usize),
}

/// Files behind the door that a cell has.
pub struct Recorder {
    files: RefCell<MemFiles>,
    events: RefCell<Vec<Event>>,
    stage: Staged,
    calls: Cell<usize>,
    trouble: Trouble,
}

impl Recorder {
    /// With these files.
    pub fn new(files: &MemFiles, trouble: Trouble) -> Recorder {
        let mut files = files.clone();
        files.freeze();
        Recorder {
            files: RefCell::new(files),
            events: RefCell::default(),
            stage: Staged::new(STAGE),
            calls: Cell::new(0),
            trouble,
        }
    }

    /// The files as they are now, and what happened to them.
    pub fn end(self) -> (MemFiles, Vec<Event>, usize) {
        (self.files.into_inner(), self.events.into_inner(), self.calls.get())
    }

    /// The files as they are now.
    pub fn files(&self) -> MemFiles {
        self.files.borrow().clone()
    }

    /// Counts a call, and has it fail if it should.
    fn call(&self, place: Place) -> Result<usize> {
        let call = self.calls.get();
        self.calls.set(call + 1);
        let fails = match self.trouble {
            Trouble::Never => false,
            Trouble::Once(number) => call == number,
            Trouble::From(number) => call >= number,
        };
        if fails { Err(Kind::Io.what("no space left").file(place.file).at(place.at)) } else { Ok(call) }
    }

    fn note(&self, call: usize, file: FileId, deed: Deed) {
        self.events.borrow_mut().push(Event::Done(Done { file, call, deed }));
    }

    /// Nothing is left of what is in the file between there and there.
    fn blank(&self, call: usize, place: Place, end: u64) {
        let data = self.files.borrow().data(place.file, place.at, end);
        for (at, stop) in data {
            self.lay_down(call, Place { at, ..place }, &vec![0; (stop - at) as usize]);
        }
    }

    fn lay_down(&self, call: usize, place: Place, bytes: &[u8]) {
        let end = place.at + bytes.len() as u64;
        // A file system has the length of a file follow what is written: with a single sector it comes or does not.
        if end > self.len(place.file) && place.at / SECTOR < (end - 1) / SECTOR {
            self.note(call, place.file, Deed::Grow(end));
        }
        for (at, len, skip) in pieces(place.at, bytes.len() as u64, SECTOR) {
            let now = &bytes[skip as usize..(skip + len) as usize];
            self.note(call, place.file, Deed::Bytes(at, now.into()));
        }
        self.files.borrow_mut().poke(place.file, place.at, bytes);
    }
}

impl Io for Recorder {
    fn len(&self, file: FileId) -> u64 {
        self.files.borrow().len(file)
    }

    fn read(&self, file: FileId, at: u64, buf: &mut [u8]) -> Result<()> {
        self.files.borrow().read(file, at, buf)
    }

    fn related(&self, from: FileId, role: Role, name: &[u8]) -> Result<Granted> {
        self.files.borrow().related(from, role, name)
    }

    fn holes(&self, file: FileId, at: u64, len: u64) -> Result<Vec<Hole>> {
        self.files.borrow().holes(file, at, len)
    }
}

impl Drive for Recorder {
    fn slot_len(&self) -> usize {
        256 << 10
    }

    fn write(&self, place: Place, bytes: &[u8]) -> Result<()> {
        let call = self.call(place)?;
        self.lay_down(call, place, bytes);
        Ok(())
    }

    fn copy(&self, from: Place, to: Place, len: u64, _zeroes: Zeroes) -> Result<()> {
        let call = self.call(to)?;
        for (at, len, skip) in pieces(from.at, len, PIECE) {
            let mut bytes = vec![0; len as usize];
            self.read(from.file, at, &mut bytes)?;
            self.lay_down(call, to.ahead(skip), &bytes);
        }
        Ok(())
    }

    fn zero(&self, place: Place, len: u64, _give_up: bool) -> Result<()> {
        let call = self.call(place)?;
        let end = place.at + len;
        self.blank(call, place, end);
        if end > self.len(place.file) {
            self.note(call, place.file, Deed::Grow(end));
            self.files.borrow_mut().grow(place.file, end);
        }
        Ok(())
    }

    fn discard(&self, place: Place, len: u64, _freed: Freed) -> Result<bool> {
        let call = self.call(place)?;
        self.blank(call, place, (place.at + len).min(self.len(place.file)).max(place.at));
        Ok(true)
    }

    fn allocate(&self, place: Place, _len: u64) -> Result<()> {
        self.call(place).map(drop)
    }

    fn set_length(&self, file: FileId, len: u64) -> Result<()> {
        let call = self.call(Place { file, at: len })?;
        if len != self.len(file) {
            self.note(call, file, Deed::Length(len));
            self.files.borrow_mut().cut(file, len);
        }
        Ok(())
    }

    fn flush(&self, file: FileId) -> Result<()> {
        self.call(Place { file, at: 0 })?;
        self.events.borrow_mut().push(Event::Flushed(file));
        Ok(())
    }

    fn length(&self, file: FileId) -> Result<u64> {
        Ok(self.len(file))
    }

    fn part(&self, from: FileId, name: &[u8]) -> Result<FileId> {
        self.call(Place { file: from, at: 0 })?;
        Ok(self.files.borrow_mut().make(name))
    }

    fn load(&self, from: Place, skip: usize, len: usize, granule: u32) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.files.borrow().peek(from.file, from.at, &mut bytes);
        Ok(self.stage.load(skip, &bytes, granule))
    }

    fn lay(&self, skip: usize, bytes: &[u8]) {
        self.stage.lay(skip, bytes);
    }

    fn take(&self, skip: usize, bytes: &mut [u8]) {
        self.stage.take(skip, bytes);
    }

    fn store(&self, skip: usize, len: usize, to: Place) -> Result<()> {
        self.write(to, &self.stage.bytes(skip, len))
    }

    fn stage_len(&self) -> usize {
        self.stage.len()
    }

    fn pause(&self) -> Result<()> {
        Ok(())
    }

    fn clock(&self) -> Result<u64> {
        Ok(0)
    }
}
