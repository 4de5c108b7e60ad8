//! The port: a lane's calls as functions, for safe code.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use instar_image::Io;
use instar_wire::code::{decode, encode};
use instar_wire::error::{Error, Kind, Result};
use instar_wire::io::{Answer, Call, FileId, Granted, Op, PIECE_LAST, PIECE_MORE, Related, Role, Status};

/// A lane as the start-up code hands it over: a page for calls, a slot for data, a bell.
pub trait Door {
    /// Rings and waits for the answer.
    fn call(&self, call: &Call) -> Answer;
    /// Length of the slot.
    fn slot_len(&self) -> usize;
    /// Copies bytes to the start of the slot; too many are cut.
    fn put(&self, bytes: &[u8]);
    /// Copies bytes from the slot at `at`; beyond its end they are zero.
    fn get(&self, at: usize, bytes: &mut [u8]);
}

/// A lane in use.
pub struct Port<'a> {
    door: &'a dyn Door,
    seq: Cell<u64>,
    lens: RefCell<BTreeMap<FileId, u64>>,
}

impl<'a> Port<'a> {
    /// The first user of a lane.
    pub fn new(door: &'a dyn Door) -> Self {
        Port { door, seq: Cell::new(0), lens: RefCell::default() }
    }

    fn call(&self, op: Op, mut call: Call) -> Result<Answer> {
        let seq = self.seq.get().wrapping_add(1);
        self.seq.set(seq);
        (call.seq, call.op) = (seq, op as u32);
        let answer = self.door.call(&call);
        let kind = match Status::from_code(answer.status) {
            Status::Done => return Ok(answer),
            Status::Failed => Kind::Io,
            Status::Refused => Kind::Refused,
        };
        Err(Error { cause: Some(answer.cause), ..kind.what("") })
    }

    fn send(&self, op: Op, bytes: &[u8]) -> Result<Answer> {
        if bytes.len() > self.door.slot_len() {
            return Err(Kind::TooBig.what("a message is longer than the window's slot"));
        }
        self.door.put(bytes);
        self.call(op, Call { len: bytes.len() as u64, ..Call::default() })
    }

    fn receive(&self, len: u64) -> Vec<u8> {
        let len = usize::try_from(len).unwrap_or(0).min(self.door.slot_len());
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
        let room = self.door.slot_len().saturating_sub(1).max(1);
        let mut pieces = event.chunks(room).peekable();
        while let Some(piece) = pieces.next() {
            let mark = if pieces.peek().is_some() { PIECE_MORE } else { PIECE_LAST };
            self.send(Op::Emit, &[&[mark], piece].concat())?;
        }
        Ok(())
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
        for piece in buf.chunks_mut(self.door.slot_len()) {
            let len = piece.len() as u64;
            self.call(Op::Read, Call { file: file.0, at, len, ..Call::default() }).map_err(|e| e.file(file).at(at))?;
            self.door.get(0, piece);
            at = at.wrapping_add(len);
        }
        Ok(())
    }

    fn related(&self, from: FileId, role: Role, name: &[u8]) -> Result<Granted> {
        let related = Related { from, role, name: name.into() };
        let answer = self.send(Op::Related, &encode(&related)).map_err(|e| e.file(from))?;
        let granted = decode(&self.receive(answer.value2))
            .map_err(|_| Kind::Io.what("the broker's grant makes no sense").file(from))?;
        self.know(&granted);
        Ok(granted)
    }
}
