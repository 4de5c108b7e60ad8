//! Load: requests that write the same byte over and over, into an image that somebody relies on.
//!
//! A lane takes the next piece of the next request and has it given its places in one step, so that these depend on
//! nothing but the requests; then it writes, while others do the same.

use crate::bench::Course;
use crate::cx::Hand;
use crate::flights::Flights;
use crate::goal::{WAITING_MAX, row_at, rows};
use crate::turns::wait_for;
use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use instar_image::former::Former;
use instar_image::num::{narrow, split, wide};
use instar_image::pump::Manner;
use instar_image::stage::Stage;
use instar_image::target::Facts;
use instar_image::{Drive, FileId, Place, Result, Target};
use instar_wire::op::bench::Write;
use spinning_top::Spinlock;
use spinning_top::guard::SpinlockGuard;

/// Requests that are written.
pub struct Load<'l> {
    course: Course<'l>,
    write: &'l Write,
    former: &'l Former,
    facts: Facts,
    /// If all bytes of the disk have their place: the bytes of the disk, and the place of the first.
    rows: Option<Vec<(u64, u64, Place)>>,
    /// The files of those.
    files: BTreeSet<u32>,
    piece_len: u64,
    state: Spinlock<State<'l>>,
    /// Something went wrong: nobody begins anything.
    stopped: AtomicBool,
    /// Not all that was given a place has been written.
    torn: AtomicBool,
}

/// What lanes share.
struct State<'l> {
    target: &'l mut dyn Target,
    /// The request whose bytes are given out next, and how many of them have been.
    request: u64,
    done: u64,
    flights: Flights,
    /// Files that have been written to, and not been made durable since.
    files: BTreeSet<u32>,
    /// The request before which everything was made durable last.
    flushed: u64,
    flushes: u64,
    /// Nobody begins anything: everything is made durable.
    is_closed: bool,
}

/// What a lane does next.
enum Next {
    Write(Piece),
    Flush,
    End,
}

/// A piece of a request.
struct Piece {
    at: u64,
    len: u64,
    flight: u64,
    /// It has to have its units for itself.
    brings: bool,
    /// After it everything is made durable.
    flushes: bool,
}

impl<'l> Load<'l> {
    /// Of these requests to a target, in which was something before.
    pub fn new(
        course: Course<'l>,
        write: &'l Write,
        target: &'l mut dyn Target,
        former: &'l Former,
        drive: &dyn Drive,
    ) -> Self {
        let (facts, rows) = (Facts::of(target, false), rows(target));
        let files = rows.iter().flatten().map(|(_, _, place)| place.file.0).collect();
        let state = State {
            target,
            request: 0,
            done: 0,
            flights: Flights::default(),
            files: BTreeSet::new(),
            flushed: 0,
            flushes: 0,
            is_closed: false,
        };
        Load {
            piece_len: Stage::piece_len(facts.unit(), drive).max(1),
            course,
            write,
            former,
            facts,
            rows,
            files,
            state: Spinlock::new(state),
            stopped: AtomicBool::new(false),
            torn: AtomicBool::new(false),
        }
    }

    /// How often everything was made durable on the way.
    pub fn flushes(&self) -> u64 {
        self.state.lock().flushes
    }

    /// A lane's share of it.
    pub fn work(&self, hand: &Hand<'_>) -> Result<()> {
        if !self.course.has(hand) {
            return Ok(());
        }
        // Zeroes are written like all else. What brings a new cluster's rest along need not write that.
        let manner = Manner { sparse: 0, is_zero: false, is_clean: true, offload: false, by_hand: false };
        let mut stage = Stage::new(&self.facts, Some(self.former), hand.drive, manner);
        let most = self.course.request.size.min(self.piece_len).min(wide(hand.drive.stage_len()));
        hand.drive.lay(0, &vec![self.write.pattern; narrow(most)]);
        let done = self.share(&mut stage, hand.drive);
        done.inspect_err(|_| self.stopped.store(true, Ordering::Relaxed))
    }

    /// All is made: what has been written is told of in the file, and durable, unless something is missing of it.
    pub fn end(&self, drive: &dyn Drive) -> Result<()> {
        if self.torn.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut state = self.state.lock();
        state.target.seal(drive)?;
        if self.write.careless { Ok(()) } else { flush(&state.files, drive) }
    }

    fn share(&self, stage: &mut Stage<'_>, drive: &dyn Drive) -> Result<()> {
        loop {
            let next = wait_for(drive, &mut || match self.is_stopped() {
                true => Some(Ok(Next::End)),
                false => self.next(stage).transpose(),
            })??;
            match next {
                Next::End => return Ok(()),
                Next::Flush => self.settle(drive, true)?,
                Next::Write(piece) => self.piece(&piece, stage, drive)?,
            }
        }
    }

    /// What is to be done next; none if that cannot be begun yet.
    fn next(&self, stage: &mut Stage<'_>) -> Result<Option<Next>> {
        let Some(mut guard) = self.state.try_lock().filter(|state| !state.is_closed) else { return Ok(None) };
        let state = &mut *guard;
        let is_due = self.write.drains && state.done == 0 && self.is_due(state.request);
        let is_due = is_due && state.flushed < state.request;
        if is_due || state.target.waiting() >= WAITING_MAX {
            let is_ready = state.flights.is_empty();
            if is_ready {
                state.is_closed = true;
                if is_due {
                    (state.flushed, state.flushes) = (state.request, state.flushes.saturating_add(1));
                }
            }
            return Ok(is_ready.then_some(Next::Flush));
        }
        if state.request >= self.course.request.count {
            return Ok(Some(Next::End));
        }
        let (start, end) = self.course.range(state.request)?;
        let at = start.saturating_add(state.done);
        let (_, _, left) = split(at, self.piece_len);
        let len = end.saturating_sub(at).min(left);
        let unit = self.facts.unit();
        let until = at.saturating_add(len);
        let units = at.saturating_sub(split(at, unit).1)..until.checked_next_multiple_of(unit).unwrap_or(u64::MAX);
        if state.flights.brings(&units) {
            return Ok(None);
        }
        let brings = self.rows.is_none() && self.reserve(state, stage, at, len)?;
        let flight = state.flights.begin(units, brings);
        state.done = state.done.saturating_add(len);
        let is_last = until >= end;
        if is_last {
            (state.request, state.done) = (state.request.saturating_add(1), 0);
        }
        let flushes = is_last && (self.write.through || (!self.write.drains && self.is_due(state.request)));
        Ok(Some(Next::Write(Piece { at, len, flight, brings, flushes })))
    }

    /// Has a piece given its places; answers whether something has to be brought along.
    fn reserve(&self, state: &mut State<'_>, stage: &mut Stage<'_>, at: u64, len: u64) -> Result<bool> {
        stage.begin(at);
        stage.hold(len);
        stage.gathered();
        stage.reserve(state.target).inspect_err(|_| self.torn.store(true, Ordering::Relaxed))?;
        Ok(stage.brings())
    }

    fn piece(&self, piece: &Piece, stage: &mut Stage<'_>, drive: &dyn Drive) -> Result<()> {
        if piece.brings {
            // Whoever is at it gets done, or has failed.
            let is_free = wait_for(drive, &mut || match self.torn.load(Ordering::Relaxed) {
                true => Some(false),
                false => self.state.try_lock().filter(|state| !state.flights.is_behind(piece.flight)).map(|_| true),
            })?;
            if !is_free {
                return Ok(());
            }
        }
        let written = match &self.rows {
            Some(rows) => store(rows, piece, drive),
            None => stage.write(),
        };
        written.inspect_err(|_| self.torn.store(true, Ordering::Relaxed))?;
        let mut state = self.locked(drive)?;
        state.flights.end(piece.flight);
        state.files.extend(if self.rows.is_some() { &self.files } else { stage.files() });
        drop(state);
        if piece.flushes { self.flush(drive) } else { Ok(()) }
    }

    /// Makes everything durable that has been written by now. Others only wait for that if references do.
    fn flush(&self, drive: &dyn Drive) -> Result<()> {
        let mut state = self.locked(drive)?;
        state.flushes = state.flushes.saturating_add(1);
        let is_alone = state.target.waiting() > 0;
        drop(state);
        if is_alone {
            let mut close = |state: &mut State<'_>| {
                let is_open = !state.is_closed;
                state.is_closed = true;
                is_open.then_some(())
            };
            self.wait(drive, &mut close)?;
            self.wait(drive, &mut |state| state.flights.is_empty().then_some(()))?;
        }
        self.settle(drive, is_alone)
    }

    /// Makes everything durable; `is_alone`: nobody is at anything, and nobody begins anything before it is done.
    fn settle(&self, drive: &dyn Drive, is_alone: bool) -> Result<()> {
        let mut state = self.locked(drive)?;
        if is_alone && !self.is_stopped() {
            state.target.settle(drive).inspect_err(|_| self.torn.store(true, Ordering::Relaxed))?;
        }
        let files = core::mem::take(&mut state.files);
        drop(state);
        if !self.write.careless {
            flush(&files, drive)?;
        }
        if is_alone {
            self.locked(drive)?.is_closed = false;
        }
        Ok(())
    }

    /// Whether everything is to be made durable before this request. That is counted from the last one back; what comes
    /// before the first are at once all that may be.
    fn is_due(&self, request: u64) -> bool {
        let Some(interval) = Some(self.write.interval).filter(|interval| *interval > 0) else { return false };
        let left = self.course.request.count.saturating_sub(request);
        left.is_multiple_of(interval) && request >= self.course.request.depth.min(self.course.request.count)
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn locked(&self, drive: &dyn Drive) -> Result<SpinlockGuard<'_, State<'l>>> {
        wait_for(drive, &mut || self.state.try_lock())
    }

    /// Waits until something can be done, or nothing is to be done any more.
    fn wait(&self, drive: &dyn Drive, look: &mut dyn FnMut(&mut State<'l>) -> Option<()>) -> Result<()> {
        wait_for(drive, &mut || match self.is_stopped() {
            true => Some(()),
            false => self.state.try_lock().and_then(|mut state| look(&mut state)),
        })
    }
}

/// Writes a piece of a disk whose bytes all have their place.
fn store(rows: &[(u64, u64, Place)], piece: &Piece, drive: &dyn Drive) -> Result<()> {
    let mut done = 0;
    while done < piece.len {
        let (room, to) = row_at(rows, piece.at.saturating_add(done));
        let len = piece.len.saturating_sub(done).min(room.max(1));
        drive.store(narrow(done), narrow(len), to)?;
        done = done.saturating_add(len);
    }
    Ok(())
}

fn flush(files: &BTreeSet<u32>, drive: &dyn Drive) -> Result<()> {
    files.iter().try_for_each(|file| drive.flush(FileId(*file)))
}
