//! The port: a lane's calls as functions, for safe code.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use instar_image::file::{Hole, Zeroes};
use instar_image::{Drive, Io, Place};
use instar_wire::boot::{STAGE_LEN, before_stage};
use instar_wire::code::{decode, encode};
use instar_wire::error::{Error, Kind, Result};
use instar_wire::io::{
    Answer, Call, FileId, Freed, Granted, Link, Op, PIECE_LAST, PIECE_MORE, Part, RUN_HOLE, RUNS_MAX, Related, Role,
    Status, ZEROES_HOLES, ZEROES_SKIPPED, copy_arg,
};
use zerocopy::IntoBytes;

/// A lane as the start-up code hands it over: a page for calls, a slot for data, a bell.
pub trait Door {
    /// Rings and waits for the answer.
    fn call(&self, call: &Call) -> Answer;
    /// Length of the slot.
    fn slot_len(&self) -> usize;
    /// Copies bytes to the slot at `at`; too many are cut.
    fn put(&self, at: usize, bytes: &[u8]);
    /// Copies bytes from the slot at `at`; beyond its end they are zero.
    fn get(&self, at: usize, bytes: &mut [u8]);
    /// The number of this lane's next call.
    fn next_seq(&self) -> u64;
    /// Which lane it is.
    fn number(&self) -> usize;
    /// How many there are.
    fn lanes(&self) -> usize;
    /// Has every lane do the job, each with its own door; only lane 0 may ask for it, and not within a job.
    fn on_all_lanes(&self, job: &(dyn Fn(&dyn Door) + Sync));
}

/// How long the files are that have been granted.
pub type Lens = BTreeMap<FileId, u64>;

/// A lane in use.
pub struct Port<'a> {
    door: &'a dyn Door,
    lens: RefCell<Lens>,
}

impl<'a> Port<'a> {
    /// The user of a lane, to whom these files are known.
    pub fn new(door: &'a dyn Door, lens: Lens) -> Self {
        Port { door, lens: RefCell::new(lens) }
    }

    /// The lane's door.
    pub fn door(&self) -> &'a dyn Door {
        self.door
    }

    /// The files that are known.
    pub fn lens(&self) -> Lens {
        self.lens.borrow().clone()
    }

    fn call(&self, op: Op, mut call: Call) -> Result<Answer> {
        (call.seq, call.op) = (self.door.next_seq(), op as u32);
        let answer = self.door.call(&call);
        let kind = match Status::from_code(answer.status) {
            Status::Done => return Ok(answer),
            Status::Failed => Kind::Io,
            Status::Refused => Kind::Refused,
        };
        Err(Error { cause: Some(answer.cause), ..kind.what("") })
    }

    fn send(&self, op: Op, bytes: &[u8]) -> Result<Answer> {
        if bytes.len() > self.slot_len() {
            return Err(Kind::TooBig.what("a message is longer than the window's slot"));
        }
        self.door.put(0, bytes);
        self.call(op, Call { len: bytes.len() as u64, ..Call::default() })
    }

    fn receive(&self, len: u64) -> Vec<u8> {
        let len = usize::try_from(len).unwrap_or(0).min(self.slot_len());
        let mut bytes = vec![0; len];
        self.door.get(0, &mut bytes);
        bytes
    }

    /// The request this worker was started for.
    pub fn request(&self) -> Result<Vec<u8>> {
        let answer = self.call(Op::Start, Call::default())?;
        Ok(self.receive(answer.value))
    }

    /// Remembers how long a file is that the broker granted.
    pub fn know(&self, granted: &Granted) {
        self.lens.borrow_mut().insert(granted.id, granted.len);
    }

    /// Tells something of the verb's, in as many pieces as the slot makes necessary.
    pub fn emit(&self, event: &[u8]) -> Result<()> {
        let room = self.slot_len().saturating_sub(1).max(1);
        let mut pieces = event.chunks(room).peekable();
        while let Some(piece) = pieces.next() {
            let mark = if pieces.peek().is_some() { PIECE_MORE } else { PIECE_LAST };
            self.send(Op::Emit, &[&[mark], piece].concat())?;
        }
        Ok(())
    }

    /// Asks for a file.
    fn granted(&self, op: Op, message: &[u8], from: FileId) -> Result<Granted> {
        let answer = self.send(op, message).map_err(|e| e.file(from))?;
        let granted = decode(&self.receive(answer.value2))
            .map_err(|_| Kind::Io.what("the broker's grant makes no sense").file(from))?;
        self.know(&granted);
        Ok(granted)
    }

    /// Where in the slot a byte of the stage is.
    fn on_stage(&self, skip: usize) -> u64 {
        self.slot_len().saturating_add(skip) as u64
    }

    /// Says how it ended. Nothing follows.
    pub fn finish(&self, outcome: &[u8]) {
        // There is nobody left to tell if this fails.
        let _ = self.send(Op::Finish, outcome);
    }
}

impl Io for Port<'_> {
    fn len(&self, file: FileId) -> u64 {
        self.lens.borrow().get(&file).copied().unwrap_or(0)
    }

    fn read(&self, file: FileId, at: u64, buf: &mut [u8]) -> Result<()> {
        let mut at = at;
        for piece in buf.chunks_mut(self.slot_len()) {
            let len = piece.len() as u64;
            self.call(Op::Read, Call { file: file.0, at, len, ..Call::default() }).map_err(|e| e.file(file).at(at))?;
            self.door.get(0, piece);
            at = at.wrapping_add(len);
        }
        Ok(())
    }

    fn related(&self, from: FileId, role: Role, name: &[u8]) -> Result<Granted> {
        self.granted(Op::Related, &encode(&Related { from, role, name: name.into() }), from)
    }

    fn holes(&self, file: FileId, at: u64, len: u64) -> Result<Vec<Hole>> {
        let call = Call { file: file.0, at, len, ..Call::default() };
        let answer = self.call(Op::Holes, call).map_err(|e| e.file(file).at(at))?;
        let count = usize::try_from(answer.value).unwrap_or(0).min(RUNS_MAX);
        let mut bytes = vec![0; count.saturating_mul(8)];
        self.door.get(0, &mut bytes);
        let runs = bytes.as_chunks().0.iter().map(|run| u64::from_le_bytes(*run));
        Ok(runs.map(|run| Hole { len: run & !RUN_HOLE, is_hole: run & RUN_HOLE != 0 }).collect())
    }
}

/// A change to a place that only says where it is.
fn change(place: Place, len: u64) -> Call {
    Call { file: place.file.0, at: place.at, len, ..Call::default() }
}

impl Port<'_> {
    fn act(&self, op: Op, call: Call) -> Result<()> {
        self.call(op, call).map(drop).map_err(|e| e.file(FileId(call.file)).at(call.at))
    }
}

impl Drive for Port<'_> {
    fn slot_len(&self) -> usize {
        before_stage(self.door.slot_len())
    }

    fn write(&self, place: Place, bytes: &[u8]) -> Result<()> {
        let mut place = place;
        for piece in bytes.chunks(self.slot_len()) {
            self.door.put(0, piece);
            self.act(Op::Write, change(place, piece.len() as u64))?;
            place = place.ahead(piece.len() as u64);
        }
        Ok(())
    }

    fn copy(&self, from: Place, to: Place, len: u64, zeroes: Zeroes) -> Result<()> {
        let arg = match zeroes {
            Zeroes::Written => 0,
            Zeroes::Skipped(bytes) => copy_arg(ZEROES_SKIPPED, bytes / 512),
            Zeroes::Holes(bytes) => copy_arg(ZEROES_HOLES, bytes / 512),
        };
        self.act(Op::Copy, Call { file2: to.file.0, at2: to.at, arg, ..change(from, len) })
    }

    fn share(&self, from: FileId, to: FileId, links: &[Link]) -> Result<usize> {
        let links = links.get(..self.slot_len() / size_of::<Link>()).unwrap_or(links);
        self.door.put(0, links.as_bytes());
        let call = Call { file: from.0, file2: to.0, len: size_of_val(links) as u64, ..Call::default() };
        let answer = self.call(Op::Share, call).map_err(|e| e.file(from))?;
        Ok(usize::try_from(answer.value).unwrap_or(0).min(links.len()))
    }

    fn zero(&self, place: Place, len: u64, give_up: bool) -> Result<()> {
        self.act(Op::Zero, Call { arg: give_up.into(), ..change(place, len) })
    }

    fn discard(&self, place: Place, len: u64, freed: Freed) -> Result<bool> {
        let call = Call { arg: freed as u32, ..change(place, len) };
        let answer = self.call(Op::Discard, call).map_err(|e| e.file(place.file).at(place.at))?;
        Ok(answer.value != 0)
    }

    fn allocate(&self, place: Place, len: u64) -> Result<()> {
        self.act(Op::Allocate, change(place, len))
    }

    fn prepare(&self, place: Place, len: u64) -> Result<()> {
        self.act(Op::Allocate, Call { arg: 1, ..change(place, len) })
    }

    fn set_length(&self, file: FileId, len: u64) -> Result<()> {
        self.act(Op::SetLength, Call { file: file.0, len, ..Call::default() })?;
        self.lens.borrow_mut().insert(file, len);
        Ok(())
    }

    fn length(&self, file: FileId) -> Result<u64> {
        let answer = self.call(Op::Length, Call { file: file.0, ..Call::default() }).map_err(|e| e.file(file))?;
        self.lens.borrow_mut().insert(file, answer.value);
        Ok(answer.value)
    }

    fn part(&self, from: FileId, name: &[u8]) -> Result<FileId> {
        let part = Part { from, name: name.into() };
        self.granted(Op::Part, &encode(&part), from).map(|granted| granted.id)
    }

    fn load(&self, from: Place, skip: usize, len: usize, granule: u32) -> Result<Vec<u8>> {
        let at2 = self.on_stage(skip);
        let call = Call { arg: granule, at2, ..change(from, len as u64) };
        self.act(Op::Read, call)?;
        let count = len.div_ceil(1usize.checked_shl(granule).unwrap_or(usize::MAX)).div_ceil(8);
        let mut marks = vec![0; count];
        self.door.get(self.slot_len().saturating_add(skip).saturating_add(len), &mut marks);
        Ok(marks)
    }

    fn lay(&self, skip: usize, bytes: &[u8]) {
        self.door.put(self.slot_len().saturating_add(skip), bytes);
    }

    fn take(&self, skip: usize, bytes: &mut [u8]) {
        self.door.get(self.slot_len().saturating_add(skip), bytes);
    }

    fn store(&self, skip: usize, len: usize, to: Place) -> Result<()> {
        self.act(Op::Write, Call { at2: self.on_stage(skip), ..change(to, len as u64) })
    }

    fn stage_len(&self) -> usize {
        if self.slot_len() < self.door.slot_len() { STAGE_LEN } else { 0 }
    }

    fn pause(&self) -> Result<()> {
        self.call(Op::Pause, Call::default()).map(drop)
    }

    fn clock(&self) -> Result<u64> {
        self.call(Op::Clock, Call::default()).map(|answer| answer.value)
    }

    fn flush(&self, file: FileId) -> Result<()> {
        self.act(Op::Flush, Call { file: file.0, ..Call::default() })
    }
}
