//! `convert`: the bytes of a chain, or of several, into a target.

mod lane;

use crate::ahead::Ahead;
use crate::cx::{Cx, Hand};
use crate::goal::{self, Goal, WAITING_MAX, row_at};
use crate::marks::Marks;
use crate::open::{chain, snapshot, stack};
use crate::pace::Pace;
use crate::pieces::{Piece, Pieces, blank};
use crate::rows::told;
use crate::stripes::Stripes;
use crate::turns::Turns;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use instar_image::former::Former;
use instar_image::holes::Joined;
use instar_image::num::wide;
use instar_image::pump::{Manner, Pump};
use instar_image::sector::SECTOR;
use instar_image::stage::Stage;
use instar_image::target::Facts;
use instar_image::{Chain, Error, Found, Io, Place, Result, Source, Target, Walk};
use instar_wire::code::encode;
use instar_wire::op::convert::{self, Bitmaps, Event, Progress, Request, Share, Trouble};
use instar_wire::op::dd;
use lane::Lane;
use spinning_top::Spinlock;

/// Copies, and tells of it.
pub fn run(request: &Request, cx: &Cx<'_>) -> Result<()> {
    copy(request, None, cx)
}

/// Copies the images, or a part of each.
pub fn copy(request: &Request, part: Option<&dd::Part>, cx: &Cx<'_>) -> Result<()> {
    let tell = |event: Event| (cx.emit)(&encode(&event));
    let (mut sources, mut keeper) = (Vec::new(), None);
    for source in &request.sources {
        let stack = stack(cx, source, &request.rules, &|step| tell(Event::Step(step)))?;
        let top = request.snapshot.as_ref().map(|pick| snapshot(&stack, pick)).transpose();
        let top = top.inspect_err(|_| _ = tell(Event::Unpicked))?;
        sources.push(chain(&stack, top)?);
        keeper = stack.into_iter().next();
    }
    let parts = parts(&sources, part);
    if part.is_some_and(|part| sources.iter().any(|chain| part.from > end(chain, Some(part)))) {
        tell(Event::Beyond)?;
    }
    let total = parts.iter().fold(0u64, |sum, part| sum.saturating_add(part.len));
    tell(Event::Ready(total))?;
    let marks = match (&request.bitmaps, &keeper) {
        (Bitmaps::None, _) | (_, None) => None,
        (which, Some(keeper)) => Some(Marks::of(&*keeper.image, which, &tell)?),
    };
    let mut goal = goal::open(request, total, cx, &tell)?;
    let job = Job { request, parts: &parts, total, work: None };
    // The images tell what is where before a byte of a part is asked for, so that nothing needs to be known of it.
    let is_looked_through = part.is_none();
    let copied = job.copy(&mut goal, is_looked_through, cx, &tell);
    match copied.is_err() && is_looked_through && !request.salvage {
        true => parts.iter().try_for_each(|part| part.look_through(cx, &tell)).and(copied),
        false => copied,
    }?;
    if let Some(target) = &mut goal.target {
        marks.map_or(Ok(()), |marks| marks.copy(&mut **target, cx.drive))?;
        target.seal(cx.drive)?;
    }
    match request.share {
        Share::Whole => Ok(()),
        Share::Above(_) | Share::Below => goal.settle(cx.drive),
    }
}

/// Where a disk ends, or the part of it that is copied.
fn end(chain: &Chain<'_>, part: Option<&dd::Part>) -> u64 {
    chain.size().min(part.and_then(|part| part.until).unwrap_or(u64::MAX))
}

/// A part of a disk that is copied.
struct Part<'c> {
    chain: &'c Chain<'static>,
    /// Where in the disk it begins.
    from: u64,
    /// Where in the target it goes, counted from the target's own beginning.
    to: u64,
    len: u64,
}

fn parts<'c>(sources: &'c [Chain<'static>], part: Option<&dd::Part>) -> Vec<Part<'c>> {
    let from = part.map_or(0, |part| part.from);
    let mut to = 0u64;
    let cut = |chain: &'c Chain<'static>| {
        let len = end(chain, part).saturating_sub(from);
        let part = Part { chain, from, to, len };
        to = to.saturating_add(len);
        part
    };
    sources.iter().map(cut).collect()
}

/// What lanes share that write to an image which gives its places out.
struct Shared<'t> {
    target: Spinlock<&'t mut dyn Target>,
    turns: Turns,
    ahead: Ahead,
}

/// What all lanes do together.
struct Job<'c> {
    request: &'c Request,
    parts: &'c [Part<'c>],
    total: u64,
    /// How much of that has to be moved, if that is what is told.
    work: Option<u64>,
}

impl Job<'_> {
    /// Copies, after a look through all that is to be copied if there is a use for it: to tell how much it is, or as
    /// nothing is to be written over what stands there if an image does not tell what is where.
    fn copy(mut self, goal: &mut Goal, may_look: bool, cx: &Cx<'_>, tell: &dyn Fn(Event) -> Result<()>) -> Result<()> {
        let (request, counts) = (self.request, self.request.progress == Progress::Moved);
        if counts || (may_look && !matches!(request.target.goal, convert::Goal::New(_))) {
            let work = self.measure(cx)?;
            self.work = counts.then_some(work);
        }
        self.work.map_or(Ok(()), |work| tell(Event::Work(work)))?;
        let Goal { target, former, rows } = goal;
        match (target, rows) {
            (_, Some(rows)) => self.pour(rows, cx),
            (Some(target), None) => self.load(&mut **target, former.as_ref(), cx),
            (None, None) => Ok(()),
        }
    }

    /// How much has to be moved, as far as the maps tell.
    fn measure(&self, cx: &Cx<'_>) -> Result<u64> {
        let work = AtomicU64::new(0);
        let stripes = Stripes::new(self.total, cx);
        cx.crew.run(&|hand| {
            let mut walks: Vec<_> =
                self.parts.iter().map(|part| (part, Walk::new(part.chain, hand.drive, 0, 0))).collect();
            while let Some((at, end)) = stripes.next() {
                for (part, walk) in &mut walks {
                    let (at, end) = part.within(at, end);
                    walk.aim(at, end);
                    loop {
                        let (len, counts) = match walk.peek() {
                            Ok(None) => break,
                            Ok(Some((len, found))) => (len, self.request.moves(&found, len)),
                            Err(error) if self.request.salvage => {
                                (untold(part.chain, hand.drive, (walk.at(), end), &error), true)
                            }
                            Err(error) => return Err(error),
                        };
                        work.fetch_add(if counts { len } else { 0 }, Ordering::Relaxed);
                        walk.advance(len);
                    }
                }
            }
            Ok(())
        })?;
        Ok(work.into_inner())
    }

    /// Copies into a disk whose bytes all have their place.
    fn pour(&self, rows: &[(u64, u64, Place)], cx: &Cx<'_>) -> Result<()> {
        let stripes =
            self.work.map_or_else(|| Stripes::new(self.total, cx), |work| Stripes::in_order(self.total, work, cx));
        let stopped = AtomicBool::new(false);
        let fixed = |at: u64| row_at(rows, at);
        cx.crew.run(&|hand| {
            let mut pump = Pump::new(&fixed, hand.drive, self.manner());
            let (joined, pace) = (self.joined(hand), self.pace(hand));
            let mut lanes = self.lanes(&joined, &pace);
            while let Some((at, end)) = stripes.next().filter(|_| !stopped.load(Ordering::Relaxed)) {
                for lane in &mut lanes {
                    lane.stripe(&mut pump, at, end).inspect_err(|_| stopped.store(true, Ordering::Relaxed))?;
                }
                pace.passed(end.saturating_sub(at))?;
            }
            pace.tell()?;
            let done = pump.share();
            lanes.first().map_or(Ok(()), |lane| lane.told_at(lane.part.to(lane.walk.at()), done))
        })
    }

    /// Copies into an image that gives its places out: in the order of the disk, whoever reads and writes meanwhile.
    fn load(&self, target: &mut dyn Target, former: Option<&Former>, cx: &Cx<'_>) -> Result<()> {
        let facts = Facts::of(target, self.request.target.compress);
        let pieces = Pieces::new(Stage::piece_len(facts.unit(), cx.drive), self.request.target.at, self.total);
        // What is brought from below a unit must not be brought over what another lane has written to it.
        let brings = former.is_some_and(|former| !former.is_empty()) || !self.request.target.is_clean;
        let is_shared = brings && facts.unit() > pieces.piece_len();
        if self.request.share == Share::Whole && !self.request.target.is_zero {
            target.mark(cx.drive, self.request.target.at, self.total)?;
        }
        let file = if let convert::Goal::New(new) = &self.request.target.goal { Some(new.file.id) } else { None };
        let shared = Shared { target: Spinlock::new(target), turns: Turns::default(), ahead: Ahead::of(file) };
        cx.crew.run(&|hand| {
            if is_shared && hand.lane > 0 {
                return Ok(());
            }
            let mut stage = Stage::new(&facts, former, hand.drive, self.manner());
            let (joined, pace) = (self.joined(hand), self.pace(hand));
            let mut lanes = self.lanes(&joined, &pace);
            while let Some(piece) = pieces.next().filter(|_| !shared.turns.is_stopped()) {
                let done = self.piece(&mut lanes, &mut stage, &piece, &shared);
                done.inspect_err(|_| shared.turns.stop())?;
                let skips = stage.is_left_out();
                let (skipped, hollow) =
                    if skips { self.skip(&pieces, piece.end, &mut lanes, &mut stage) } else { (0, 0) };
                pace.passed(piece.end.saturating_sub(piece.at).saturating_add(skipped))?;
                // Holes were counted as bytes that are to be moved.
                pace.moved(skipped.min(hollow))?;
            }
            pace.tell()?;
            let tells = self.request.share == Share::Below;
            if tells { (hand.emit)(&encode(&Event::Written(stage.written()))) } else { Ok(()) }
        })
    }

    /// Passes over the pieces from `at` on of which it is known that nothing has to be written; answers how many bytes
    /// they are, and how many of those it looked at are in holes.
    fn skip(&self, pieces: &Pieces, at: u64, lanes: &mut [Lane<'_>], stage: &mut Stage<'_>) -> (u64, u64) {
        let ends = |lane: &Lane<'_>| lane.part.to.saturating_add(lane.part.len);
        let Some(lane) = lanes.iter_mut().find(|lane| ends(lane) > at) else { return (0, 0) };
        let (from, end) = lane.part.within(at, ends(lane));
        // What cannot be told will be met again by whoever comes there.
        let (part, before) = (lane.part, self.request.target.at);
        let mut passes = |from: u64, len: u64, found: &Found, is_zero: bool| {
            let to = part.to(from).saturating_add(before);
            match (self.request.passes(found), is_zero) {
                (true, _) => len,
                (false, true) => stage.zeroes(to, to.saturating_add(len)),
                (false, false) => 0,
            }
        };
        let (mut len, mut hollow, mut reach) = (0u64, 0u64, pieces.piece_len());
        // Where there is much to be told, most of it would be told for nothing.
        while reach > 0 {
            let from = from.saturating_add(len);
            lane.walk.aim(from, end.min(from.saturating_add(reach)));
            let (passed, hollows) = blank(&mut lane.walk, &mut lane.holes, &mut passes).unwrap_or_default();
            (len, hollow) = (len.saturating_add(passed), hollow.saturating_add(hollows));
            reach = if passed < reach { 0 } else { reach.saturating_mul(4) };
        }
        (pieces.skip(at.saturating_add(len)), hollow)
    }

    /// Copies a piece: reads it, has its turn, and writes it.
    fn piece(&self, lanes: &mut [Lane<'_>], stage: &mut Stage<'_>, piece: &Piece, shared: &Shared<'_>) -> Result<()> {
        let Shared { target, turns, ahead } = shared;
        stage.begin(piece.at.saturating_add(self.request.target.at));
        for lane in lanes.iter_mut() {
            lane.stripe(stage, piece.at, piece.end)?;
        }
        stage.gathered();
        let Some(lane) = lanes.iter().find(|lane| lane.part.to.saturating_add(lane.part.len) > piece.at) else {
            return Ok(());
        };
        if !turns.wait(piece.turn, lane.hand.drive)? {
            return Ok(());
        }
        let drive = lane.hand.drive;
        let mut target = target.lock();
        if target.waiting() >= WAITING_MAX {
            if !turns.wait_for_others(piece.turn, drive)? {
                return Ok(());
            }
            target.settle(drive)?;
        }
        let reserved = stage.reserve(&mut **target);
        drop(target);
        if reserved.is_ok() {
            turns.pass();
        }
        let left = self.total.saturating_sub(piece.end);
        let aside = reserved.and_then(|()| stage.filled().map_or(Ok(()), |end| ahead.reach(drive, end, left)));
        lane.told_at(piece.at, aside.and_then(|()| stage.write()))?;
        turns.done();
        Ok(())
    }

    fn manner(&self) -> Manner {
        let request = self.request;
        Manner {
            sparse: request.sparse,
            is_zero: request.target.is_zero,
            is_clean: request.target.is_clean,
            offload: request.offload,
            by_hand: request.salvage,
        }
    }

    /// Files as lanes see them: zeroes that will be found among the data are not worth a call of their own, unless what is
    /// moved is counted.
    fn joined<'h>(&self, hand: &'h Hand<'h>) -> Joined<'h> {
        Joined::new(hand.drive, self.work.is_none().then_some(self.request.sparse))
    }

    fn pace<'h>(&self, hand: &'h Hand<'h>) -> Pace<'h> {
        Pace::new(hand, self.total, self.work)
    }

    fn lanes<'h>(&'h self, joined: &'h Joined<'h>, pace: &'h Pace<'h>) -> Vec<Lane<'h>> {
        self.parts.iter().map(|part| Lane::new(part, joined, self.request, pace)).collect()
    }
}

impl Part<'_> {
    /// The bytes of the disk that are copied to `at..end`; perhaps none.
    fn within(&self, at: u64, end: u64) -> (u64, u64) {
        let from = |at: u64| at.saturating_sub(self.to).min(self.len).saturating_add(self.from);
        (from(at), from(end))
    }

    /// Where a byte of the disk is among all that is copied.
    fn to(&self, at: u64) -> u64 {
        at.saturating_sub(self.from).saturating_add(self.to)
    }

    /// Tells the first place of which the images do not tell what is there, if there is one.
    fn look_through(&self, cx: &Cx<'_>, tell: &dyn Fn(Event) -> Result<()>) -> Result<()> {
        let told = told(self.chain);
        let mut walk = Walk::new(&told, cx.drive, self.from, self.from.saturating_add(self.len));
        loop {
            match walk.peek() {
                Ok(None) => return Ok(()),
                Ok(Some((len, _))) => walk.advance(len),
                Err(error) => {
                    let at = walk.at();
                    let trouble = Trouble { at, to: self.to(at), len: 0, in_map: true, error: error.clone() };
                    tell(Event::Unmapped(trouble))?;
                    return Err(error);
                }
            }
        }
    }
}

/// How many bytes from `at` on are not told of for the same reason: one entry of a table is about a range without gaps.
fn untold(chain: &Chain<'_>, io: &dyn Io, (at, end): (u64, u64), why: &Error) -> u64 {
    let mut walk = Walk::with_room(chain, io, at, end, 1);
    let mut is_untold = |at: u64| {
        walk.aim(at, end);
        at < end && walk.peek().is_err_and(|error| (error.file, error.at) == (why.file, why.at))
    };
    let (mut last, mut step) = (at, SECTOR);
    while is_untold(last.saturating_add(step)) {
        last = last.saturating_add(step);
        step = step.saturating_mul(2);
    }
    while step >= SECTOR {
        let next = last.saturating_add(step);
        last = if is_untold(next) { next } else { last };
        step /= 2;
    }
    last.saturating_add(SECTOR).min(end).saturating_sub(at)
}

/// What of a copy is work.
trait Moves {
    /// Whether the bytes of a run have to be moved.
    fn moves(&self, found: &Found, len: u64) -> bool;
    /// Whether they are none of the copy's business.
    fn passes(&self, found: &Found) -> bool;
}

impl Moves for Request {
    fn moves(&self, found: &Found, len: u64) -> bool {
        // What is missing of a file's last sector counts with it.
        let rest = matches!(found.source, Source::Beyond { .. }) && len < SECTOR;
        !self.passes(found) && (self.sparse == 0 || rest || !found.source.is_zero())
    }

    fn passes(&self, found: &Found) -> bool {
        match self.share {
            Share::Whole => false,
            // Where a layer in between ends before the one above it, there are zeroes that hide what the target has.
            Share::Above(layers) => wide(found.depth).saturating_add(u64::from(!found.present)) >= layers,
            Share::Below => found.present && found.depth == 0,
        }
    }
}
