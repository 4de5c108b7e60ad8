//! Serving a cell: every call is copied, admitted, carried out and answered, here and nowhere else.

use crate::admit::{Admitted, Frame, Grant, Past, Range, Violation, admit, may_link};
use crate::plane;
use crate::plane::copy::{Route, Stop, Zeroes, copy, share};
use crate::session::{Mishap, Session, Why};
use instar_sandbox::window::Turn;
use instar_sandbox::{Cell, Fall, Next, Serve};
use instar_wire::boot::{LAST_WORDS_AT, LAST_WORDS_MAX};
use instar_wire::code::{Malformed, decode, encode};
use instar_wire::io::{
    Answer, FileId, Granted, Link, PIECE_LAST, PIECE_MORE, Part, RUN_HOLE, RUNS_MAX, Related, Status,
};
use instar_wire::op::{Outcome, Request};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

/// Takes the events of a verb as they come; a message it cannot read ends the cell.
pub type OnEvent<'a> = &'a mut (dyn FnMut(&[u8]) -> Result<(), Malformed> + Send);

/// How long a worker waits that lets others go on.
const PAUSE: Duration = Duration::from_micros(50);

/// How a cell came down.
#[derive(Debug)]
pub enum Collapse {
    /// The wall stopped it; with what the worker said last.
    Fell(Fall, String),
    /// It made a call that no worker of ours makes.
    Violated(Violation),
    /// It ended without an outcome.
    Silent,
}

impl fmt::Display for Collapse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Only a worker that stops itself has a say in why.
            Collapse::Fell(Fall::Fault { .. } | Fall::Signal(_), words) if !words.is_empty() => {
                write!(f, "the worker could not go on and was stopped: {words}")
            }
            Collapse::Fell(fall, _) => fall.fmt(f),
            Collapse::Violated(violation) => write!(f, "the worker asked for {violation} and was stopped"),
            Collapse::Silent => f.write_str("the worker ended without an answer"),
        }
    }
}

/// Has a cell carry out a request. `events_max` bounds what it may tell, in bytes.
pub fn run(
    session: &Session,
    cell: &mut dyn Cell,
    request: &Request,
    events_max: u64,
    on_event: OnEvent<'_>,
) -> Result<Outcome, Collapse> {
    let desk = Desk {
        session,
        request: encode(request),
        pasts: (0..cell.window().shape().lanes).map(|_| Mutex::new(Past::default())).collect(),
        moved: AtomicU64::new(0),
        started: Instant::now(),
        talk: Mutex::new(Talk {
            on_event,
            events_left: events_max,
            pieces: BTreeMap::new(),
            outcome: None,
            violation: None,
        }),
        space: RwLock::new(()),
    };
    let ran = cell.run(&desk);
    session.give_all_back();
    let talk = desk.talk.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(violation) = talk.violation {
        return Err(Collapse::Violated(violation));
    }
    ran.map_err(|fall| Collapse::Fell(fall, last_words(cell)))?;
    talk.outcome.ok_or(Collapse::Silent)
}

/// What a worker that could not go on left in the boot page, made fit for one line of text.
fn last_words(cell: &dyn Cell) -> String {
    let mut head = [0; 8];
    cell.window().get(LAST_WORDS_AT, &mut head);
    let len = usize::try_from(u64::from_le_bytes(head)).unwrap_or(0).min(LAST_WORDS_MAX);
    let mut words = vec![0; len];
    cell.window().get(LAST_WORDS_AT + head.len(), &mut words);
    words.escape_ascii().to_string()
}

struct Talk<'a> {
    on_event: OnEvent<'a>,
    events_left: u64,
    /// Events of which some pieces have come, by lane.
    pieces: BTreeMap<usize, Vec<u8>>,
    outcome: Option<Outcome>,
    violation: Option<Violation>,
}

struct Desk<'a> {
    session: &'a Session,
    request: Vec<u8>,
    pasts: Vec<Mutex<Past>>,
    /// Bytes moved so far.
    moved: AtomicU64,
    /// Clocks begin at nothing, so that they tell nothing else.
    started: Instant,
    talk: Mutex<Talk<'a>>,
    /// Lanes that use the space of files, or one that gives some back.
    space: RwLock<()>,
}

/// What a served call answers: two values, or the number of a note of what went wrong.
type Served = Result<(u64, u64), (Status, u32)>;

impl<'a> Desk<'a> {
    fn talk(&self) -> MutexGuard<'_, Talk<'a>> {
        self.talk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn violate(&self, violation: Violation) -> Next {
        self.talk().violation.get_or_insert(violation);
        Next::End
    }

    /// Serves a call; where there is no space for it, after giving back what has been set aside for others.
    fn serve_with_space(&self, admitted: Admitted, turn: &Turn<'_>) -> Result<Served, Violation> {
        let serve = || {
            let _use = self.space.read().unwrap_or_else(PoisonError::into_inner);
            self.serve_admitted(admitted, turn)
        };
        // Giving back is setting the length that a file has, which nobody may change meanwhile.
        let give_back = || {
            let _alone = self.space.write().unwrap_or_else(PoisonError::into_inner);
            self.session.give_back()
        };
        let full = |why| matches!(why, Why::System(Errno::NOSPC | Errno::DQUOT));
        let is_full = |note| self.session.mishap(note).is_some_and(|mishap| full(mishap.why));
        match serve()? {
            Err((_, note)) if is_full(note) && give_back() => serve(),
            served => Ok(served),
        }
    }

    fn serve_admitted(&self, admitted: Admitted, turn: &Turn<'_>) -> Result<Served, Violation> {
        let done = |result: io::Result<()>, id| self.outcome(id, result.map(|()| (0, 0)));
        Ok(match admitted {
            Admitted::Start if self.request.len() > turn.slot_len() => {
                self.outcome(FileId(0), Err(io::Error::from_raw_os_error(libc::E2BIG)))
            }
            Admitted::Start => {
                turn.copy_in(0, &self.request);
                Ok((self.request.len() as u64, 0))
            }
            Admitted::Read(range, skip, granule) => self.on_file(range, |file, at, len| {
                self.session.heed_faults(range.file, at, range.len)?;
                let n = plane::read(file, at, skip, len, turn)?;
                if let Some(shift) = granule {
                    turn.mark_zero_granules(skip, len, shift);
                }
                Ok((n as u64, 0))
            }),
            Admitted::Write(range, skip) => self.on_file(range, |file, at, len| {
                plane::write(file, at, skip, len, self.session.due(range.file, range.len), turn).map(|()| (0, 0))
            }),
            Admitted::Share(from, to, len) => self.share(from, to, &turn.copy_out(len))?,
            Admitted::Copy(range, to, to_at, zeroes) => self.copy(range, to, to_at, Zeroes::from_manner(zeroes))?,
            Admitted::Zero(r, give_up) => done(plane::zero(&*self.file(r)?, r.at, r.len, give_up), r.file),
            Admitted::Discard(r, freed) if !self.session.spares(r.file, freed) => Ok((0, 0)),
            Admitted::Discard(r, _) => {
                let result = plane::discard(&*self.file(r)?, r.at, r.len);
                self.outcome(r.file, result.map(|()| (1, 0)))
            }
            Admitted::Allocate(r, true) => {
                self.session.set_aside(r.file, r.at, r.len);
                Ok((0, 0))
            }
            Admitted::Allocate(r, false) => done(plane::allocate(&*self.file(r)?, r.at, r.len), r.file),
            Admitted::SetLength(id, len) => {
                let file = self.session.file(id).ok_or(Violation::File)?;
                done(plane::set_length(&file, len), id)
            }
            Admitted::Holes(r) => {
                let runs = plane::holes(&*self.file(r)?, r.at, r.len, RUNS_MAX.min(turn.slot_len() / 8));
                self.outcome(r.file, runs.map(|runs| tell_runs(&runs, turn)))
            }
            Admitted::Flush(id) if self.session.is_unseen(id) => Ok((0, 0)),
            Admitted::Flush(id) => {
                let file = self.session.file(id).ok_or(Violation::File)?;
                done(plane::flush(&file), id)
            }
            Admitted::Related(len) => self.related(len, turn)?,
            Admitted::Part(len) => self.part(len, turn)?,
            Admitted::Emit(len) => self.event(len, turn)?,
            Admitted::Finish(len) => {
                let outcome = decode(&turn.copy_out(len)).map_err(|_| Violation::Message)?;
                self.talk().outcome = Some(outcome);
                Ok((0, 0))
            }
            Admitted::Wake | Admitted::Join | Admitted::Park => Ok((0, 0)),
            Admitted::Pause => {
                thread::sleep(PAUSE);
                Ok((0, 0))
            }
            Admitted::Length(id) => {
                let file = self.session.file(id).ok_or(Violation::File)?;
                self.outcome(id, plane::length(&file).map(|len| (len, 0)))
            }
            Admitted::Clock => Ok((u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX), 0)),
        })
    }

    fn copy(&self, range: Range, to: FileId, to_at: u64, zeroes: Zeroes) -> Result<Served, Violation> {
        let (Some(from), Some(to_file)) = (self.session.file(range.file), self.session.file(to)) else {
            return Err(Violation::File);
        };
        let route = Route { from: &from, at: range.at, to: &to_file, to_at };
        if let Err(error) = self.session.heed_faults(range.file, range.at, range.len) {
            return Ok(self.outcome(range.file, Err(error)));
        }
        let (id, result) = match copy(route, range.len, zeroes, self.session.due(to, range.len)) {
            Ok(()) => (to, Ok((0, 0))),
            Err(Stop::Reading(error)) => (range.file, Err(error)),
            Err(Stop::Writing(error)) => (to, Err(error)),
        };
        Ok(self.outcome(id, result))
    }

    fn share(&self, from: FileId, to: FileId, list: &[u8]) -> Result<Served, Violation> {
        let (Some(from_file), Some(to_file)) = (self.session.file(from), self.session.file(to)) else {
            return Err(Violation::File);
        };
        let links = Link::list(list).map_err(|_| Violation::Message)?;
        let granted = |grants: &[Grant]| usize::try_from(from.0).ok().and_then(|index| grants.get(index).copied());
        let grant = self.session.with_grants(granted).ok_or(Violation::File)?;
        links.iter().try_for_each(|link| may_link(link, &grant))?;
        let len = links.iter().fold(0u64, |sum, link| sum.saturating_add(link.len));
        self.session.pace(len);
        self.moved.fetch_add(len, Ordering::Relaxed);
        // What must fail when it is read has to be read.
        let links = if self.session.has_faults(from) { &[][..] } else { &links };
        Ok(Ok((share(&from_file, &to_file, links) as u64, 0)))
    }

    fn file(&self, range: Range) -> Result<Arc<OwnedFd>, Violation> {
        self.session.file(range.file).ok_or(Violation::File)
    }

    fn on_file(&self, range: Range, act: impl FnOnce(&OwnedFd, u64, usize) -> io::Result<(u64, u64)>) -> Served {
        let act = || {
            let file = self.session.file(range.file).ok_or(io::ErrorKind::NotFound)?;
            act(&file, range.at, usize::try_from(range.len).map_err(|_| io::ErrorKind::InvalidInput)?)
        };
        self.outcome(range.file, act())
    }

    /// The answer for what the operating system said about a file.
    fn outcome(&self, id: FileId, result: io::Result<(u64, u64)>) -> Served {
        result.map_err(|error| {
            let why = Why::System(Errno::from_io_error(&error).unwrap_or(Errno::IO));
            let mishap = Mishap { name: self.session.name(id), named_by: None, why };
            (Status::Failed, self.session.note(mishap))
        })
    }

    fn related(&self, len: usize, turn: &Turn<'_>) -> Result<Served, Violation> {
        let related: Related = decode(&turn.copy_out(len)).map_err(|_| Violation::Message)?;
        if self.session.file(related.from).is_none() {
            return Err(Violation::File);
        }
        Ok(self.grant(self.session.open_related(&related), turn))
    }

    fn part(&self, len: usize, turn: &Turn<'_>) -> Result<Served, Violation> {
        let part: Part = decode(&turn.copy_out(len)).map_err(|_| Violation::Message)?;
        if !self.session.has_parts(part.from) {
            return Err(Violation::File);
        }
        Ok(self.grant(self.session.make_part(&part), turn))
    }

    /// The answer for a file, or for the number of the note of why there is none.
    fn grant(&self, granted: Result<Granted, u32>, turn: &Turn<'_>) -> Served {
        match granted {
            Ok(granted) => {
                let bytes = encode(&granted);
                turn.copy_in(0, &bytes);
                Ok((granted.id.0.into(), bytes.len() as u64))
            }
            Err(note) => Err(match self.session.mishap(note).map(|m| m.why) {
                Some(Why::System(_) | Why::NotRegular | Why::InUse(_)) => (Status::Failed, note),
                _ => (Status::Refused, note),
            }),
        }
    }

    fn event(&self, len: usize, turn: &Turn<'_>) -> Result<Served, Violation> {
        let bytes = turn.copy_out(len);
        let mut talk = self.talk();
        // Another lane may have had its event admitted meanwhile.
        talk.events_left = talk.events_left.checked_sub(len as u64).ok_or(Violation::Events)?;
        let (mark, piece) = bytes.split_first().ok_or(Violation::Message)?;
        let event = talk.pieces.entry(turn.lane()).or_default();
        event.extend_from_slice(piece);
        match *mark {
            PIECE_MORE => return Ok(Ok((0, 0))),
            PIECE_LAST => {}
            _ => return Err(Violation::Message),
        }
        let event = talk.pieces.remove(&turn.lane()).unwrap_or_default();
        (talk.on_event)(&event).map_err(|Malformed| Violation::Message)?;
        Ok(Ok((0, 0)))
    }
}

/// Puts runs into the slot.
fn tell_runs(runs: &[(u64, bool)], turn: &Turn<'_>) -> (u64, u64) {
    let word = |(len, hole): &(u64, bool)| (len & !RUN_HOLE | if *hole { RUN_HOLE } else { 0 }).to_le_bytes();
    turn.copy_in(0, &runs.iter().flat_map(word).collect::<Vec<u8>>());
    (runs.len() as u64, 0)
}

/// What moving a byte is worth in a worker's processor time: as much as the slowest of ciphers needs for it.
const NANOSECONDS_A_BYTE: u64 = 1000;

impl Serve for Desk<'_> {
    fn earned(&self) -> Duration {
        Duration::from_nanos(self.moved.load(Ordering::Relaxed).saturating_mul(NANOSECONDS_A_BYTE))
    }

    fn serve(&self, turn: &Turn<'_>) -> Next {
        let call = turn.call();
        let Some(past) = self.pasts.get(turn.lane()) else { return self.violate(Violation::Lane) };
        let mut past = past.lock().unwrap_or_else(PoisonError::into_inner);
        let (lane, lanes, slot_len) = (turn.lane(), turn.lanes(), turn.slot_len() as u64);
        let events_left = self.talk().events_left;
        let admitted = self
            .session
            .with_grants(|grants| admit(&call, &mut past, &Frame { lane, lanes, slot_len, grants, events_left }));
        let served = admitted.and_then(|admitted| {
            if let Admitted::Write(range, _) | Admitted::Copy(range, ..) = &admitted {
                self.session.pace(range.len);
            }
            Ok((admitted, self.serve_with_space(admitted, turn)?))
        });
        let (admitted, served) = match served {
            Ok(served) => served,
            Err(violation) => return self.violate(violation),
        };
        if let Admitted::Read(range, ..) | Admitted::Write(range, _) | Admitted::Copy(range, ..) = &admitted {
            self.moved.fetch_add(range.len, Ordering::Relaxed);
        }
        let mut answer = Answer { seq: call.seq, ..Answer::default() };
        match served {
            Ok((value, value2)) => (answer.value, answer.value2) = (value, value2),
            Err((status, note)) => (answer.status, answer.cause) = (status as u32, note),
        }
        turn.answer(&answer);
        match admitted {
            Admitted::Finish(_) => Next::End,
            Admitted::Park => Next::Park,
            Admitted::Wake => Next::Wake,
            Admitted::Join => Next::Join,
            _ => Next::Resume,
        }
    }
}
