//! `convert`: the bytes of a chain, or of several, into a target.

use crate::cx::{Cx, Hand};
use crate::open::{chain, snapshot, stack};
use crate::stripes::Stripes;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use instar_image::pump::{Manner, Pump};
use instar_image::{Chain, Error, Found, Place, Result, Walk};
use instar_wire::code::encode;
use instar_wire::op::convert::{Event, Preallocation, Request, Target, Trouble};

/// Copies, and tells of it.
pub fn run(request: &Request, cx: &Cx<'_>) -> Result<()> {
    let tell = |event: Event| (cx.emit)(&encode(&event));
    let mut sources = Vec::new();
    for source in &request.sources {
        let stack = stack(cx, source, &request.rules, &|step| tell(Event::Step(step)))?;
        let top = request.snapshot.as_ref().map(|pick| snapshot(&stack, pick)).transpose()?;
        sources.push(chain(&stack, top)?);
    }
    let parts = parts(&sources, request);
    let total = parts.iter().fold(0u64, |sum, part| sum.saturating_add(part.len));
    tell(Event::Ready(total))?;
    make(&request.target, total, cx, &tell)?;
    let job = Job { request, parts: &parts, total, stopped: AtomicBool::new(false), stripes: Stripes::new(total, cx) };
    cx.crew.run(&|hand| job.work(hand))
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

fn parts<'c>(sources: &'c [Chain<'static>], request: &Request) -> Vec<Part<'c>> {
    let (skip, count) = request.window.as_ref().map_or((0, None), |window| (window.skip, window.count));
    let mut to = 0u64;
    let part = |chain: &'c Chain<'static>| {
        let len = chain.size().saturating_sub(skip).min(count.unwrap_or(u64::MAX));
        let part = Part { chain, from: skip, to, len };
        to = to.saturating_add(len);
        part
    };
    sources.iter().map(part).collect()
}

/// Gives the target its length and its space.
fn make(target: &Target, total: u64, cx: &Cx<'_>, tell: &dyn Fn(Event) -> Result<()>) -> Result<()> {
    let file = target.file.id;
    let place = Place { file, at: target.at };
    if target.exists {
        return Ok(());
    }
    let made = cx.drive.set_length(file, target.at.saturating_add(total));
    let made = made.and_then(|()| match target.preallocation {
        Preallocation::Falloc if total > 0 => cx.drive.allocate(place, total),
        Preallocation::Full if total > 0 => cx.drive.zero(place, total, false),
        _ => Ok(()),
    });
    if made.is_err() {
        tell(Event::Stopped(0))?;
    }
    made
}

/// What all lanes do together.
struct Job<'c> {
    request: &'c Request,
    parts: &'c [Part<'c>],
    total: u64,
    /// One lane has failed: the others need not go on.
    stopped: AtomicBool,
    stripes: Stripes,
}

impl Job<'_> {
    /// A lane's share.
    fn work(&self, hand: &Hand<'_>) -> Result<()> {
        let request = self.request;
        let manner = Manner {
            sparse: request.sparse,
            is_zero: !request.target.exists || request.target.is_zero,
            offload: request.offload,
            by_hand: request.salvage,
        };
        let lane = |part| Lane {
            part,
            walk: Walk::new(part.chain, hand.drive, 0, 0),
            pump: Pump::new(part.chain, hand.drive, manner),
            hand,
            request,
        };
        let mut lanes: Vec<Lane<'_>> = self.parts.iter().map(lane).collect();
        while let Some((at, end)) = self.stripes.next().filter(|_| !self.stopped.load(Ordering::Relaxed)) {
            for lane in &mut lanes {
                let done = lane.stripe(at, end.min(self.total));
                if done.is_err() {
                    self.stopped.store(true, Ordering::Relaxed);
                }
                done?;
            }
            if request.progress {
                (hand.emit)(&encode(&Event::Done(end.saturating_sub(at))))?;
            }
        }
        Ok(())
    }
}

/// A lane at work on one source.
struct Lane<'c> {
    part: &'c Part<'c>,
    walk: Walk<'c>,
    pump: Pump<'c>,
    hand: &'c Hand<'c>,
    request: &'c Request,
}

impl Lane<'_> {
    /// Copies what of this source lies in `at..end` of all that is copied.
    fn stripe(&mut self, at: u64, end: u64) -> Result<()> {
        let part = self.part;
        let (at, end) = (at.max(part.to), end.min(part.to.saturating_add(part.len)));
        if at >= end {
            return Ok(());
        }
        let from = |at: u64| at.saturating_sub(part.to).saturating_add(part.from);
        self.walk.aim(from(at), from(end));
        self.copy().inspect_err(|_| {
            let _ = (self.hand.emit)(&encode(&Event::Stopped(self.place().at)));
        })
    }

    /// Where the walk has come to in all that is copied.
    fn place(&self) -> Place {
        let at = self.walk.at().saturating_sub(self.part.from).saturating_add(self.part.to);
        Place { file: self.request.target.file.id, at }
    }

    fn copy(&mut self) -> Result<()> {
        while let Some((len, found)) = self.walk.peek()? {
            let place = self.place();
            let to = place.ahead(self.request.target.at);
            let len = match self.pump.carry(&found, len, to) {
                Err(error) if self.request.salvage => self.salvage(&found, len, to, &error)?,
                moved => moved?,
            };
            self.walk.advance(len);
        }
        self.pump.flush()
    }

    /// Takes what can be had of a run, sector after sector; what cannot be had becomes zeroes.
    fn salvage(&mut self, found: &Found, len: u64, to: Place, error: &Error) -> Result<u64> {
        const SECTOR: u64 = 512;
        if len > SECTOR {
            return self.pump.carry(found, SECTOR, to).or_else(|error| self.lose(SECTOR, to, error));
        }
        self.lose(len, to, error.clone())
    }

    fn lose(&mut self, len: u64, to: Place, error: Error) -> Result<u64> {
        (self.hand.emit)(&encode(&Event::Salvaged(Trouble { at: self.place().at, len, error })))?;
        self.pump.flush()?;
        self.pump.blank(to, len)?;
        Ok(len)
    }
}
