//! `compare`: two walks in step; what comes from one place, or is zero on both sides, is equal without a look.

use crate::cx::{Cx, Hand};
use crate::open::{Opened, chain, stack};
use crate::rows::shut;
use crate::state;
use crate::stripes::Stripes;
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use instar_image::num::split;
use instar_image::pump::is_zero;
use instar_image::sector::SECTOR;
use instar_image::{Chain, Error, Found, Reader, Result, Source, Walk};
use instar_wire::code::encode;
use instar_wire::op::Rules;
use instar_wire::op::compare::{Differs, Event, Request, Sizes, Stopped};

/// Bytes compared at once: few enough to stay in a processor's caches, and enough to be worth the asking.
const PIECE: usize = 512 << 10;

/// Compares, and tells what it finds.
pub fn run(request: &Request, cx: &Cx<'_>) -> Result<()> {
    let tell = |event: Event| (cx.emit)(&encode(&event));
    let open = |source| stack(cx, source, &request.rules, &|step| tell(Event::Step(step)));
    let left = open(&request.left)?;
    let maps = |stack: &[Opened<'_>]| -> Result<_> {
        let states = if request.strict { Some(shut(chain(stack, None)?)) } else { None };
        Ok((chain(stack, None)?, states))
    };
    let (left, left_states) = maps(&left)?;
    let (right, right_states) = maps(&open(&request.right)?)?;
    let sizes = Sizes { left: left.size(), right: right.size() };
    let total = sizes.left.max(sizes.right);
    let is_over = request.strict && sizes.left != sizes.right;
    tell(Event::Ready(sizes))?;
    if is_over {
        return Ok(());
    }
    let job = Job { chains: [&left, &right], end: AtomicU64::new(total) };
    if let (Some(left), Some(right)) = (&left_states, &right_states)
        && let Some(event) = unlike(&[left, right], cx, &request.rules)
    {
        job.found(&event);
        tell(event)?;
    }
    let stripes = Stripes::new(job.end.load(Ordering::Relaxed), cx);
    cx.crew.run(&|hand| job.work(&stripes, hand))
}

/// What all lanes do together.
struct Job<'c> {
    chains: [&'c Chain<'static>; 2],
    /// What lies behind is of no interest: the lowest offset at which something was found.
    end: AtomicU64,
}

impl Job<'_> {
    fn work(&self, stripes: &Stripes, hand: &Hand<'_>) -> Result<()> {
        let side = |chain| Side::new(chain, hand);
        let [left, right] = self.chains;
        let mut sides = [side(left), side(right)];
        while let Some((at, end)) = stripes.next().filter(|(at, _)| *at < self.end.load(Ordering::Relaxed)) {
            sides.iter_mut().for_each(|side| side.aim(at, end));
            if let Some(event) = self.stripe(&mut sides, end) {
                self.found(&event);
                (hand.emit)(&encode(&event))?;
            }
            (hand.emit)(&encode(&Event::Done(end.saturating_sub(at))))?;
        }
        Ok(())
    }

    /// Nothing behind it matters any more.
    fn found(&self, event: &Event) {
        let place = match event {
            Event::Differs(differs) => differs.at,
            Event::Stopped(stopped) => stopped.at,
            _ => u64::MAX,
        };
        self.end.fetch_min(place, Ordering::Relaxed);
    }

    /// The first that is to be told of a stripe, if anything is.
    fn stripe(&self, sides: &mut [Side<'_>; 2], end: u64) -> Option<Event> {
        let [left, right] = sides;
        while left.walk.at() < end && left.walk.at() < self.end.load(Ordering::Relaxed) {
            let at = left.walk.at();
            let stopped =
                |is_right, in_map, error| Some(Event::Stopped(Box::new(Stopped { at, is_right, in_map, error })));
            let (a, b) = match (left.peek(), right.peek()) {
                (Ok(a), Ok(b)) => (a, b),
                (Err(error), _) => return stopped(false, true, error),
                (_, Err(error)) => return stopped(true, true, error),
            };
            let len = a.0.min(b.0).min(end.saturating_sub(at));
            match same(left, right, (&a.1, &b.1), len) {
                Ok(None) => {}
                Ok(Some(n)) => return Some(Event::Differs(Differs { at: at.saturating_add(n), in_status: false })),
                Err((is_right, n, error)) => {
                    let at = at.saturating_add(n);
                    return Some(Event::Stopped(Box::new(Stopped { at, is_right, in_map: false, error })));
                }
            }
            left.advance(len);
            right.advance(len);
        }
        None
    }
}

/// One of the two images, as a lane sees it.
struct Side<'c> {
    size: u64,
    walk: Walk<'c>,
    reader: Reader<'c>,
    buffer: Vec<u8>,
}

impl<'c> Side<'c> {
    fn new(chain: &'c Chain<'static>, hand: &'c Hand<'_>) -> Self {
        Side {
            size: chain.size(),
            walk: Walk::new(chain, hand.drive, 0, 0),
            reader: Reader::new(chain, hand.drive),
            buffer: vec![0; PIECE],
        }
    }

    fn aim(&mut self, at: u64, end: u64) {
        self.walk.aim(at, end);
    }

    /// What lies here. The shorter of two images goes on with zeroes.
    fn peek(&mut self) -> Result<(u64, Found)> {
        let at = self.walk.at();
        let beyond = (u64::MAX, Found { depth: 0, present: false, source: Source::ZERO });
        if at >= self.size {
            return Ok(beyond);
        }
        let left = self.size.saturating_sub(at);
        Ok(self.walk.peek()?.map_or(beyond, |(len, found)| (len.min(left), found)))
    }

    fn advance(&mut self, n: u64) {
        self.walk.advance(n);
    }

    /// The `buffer.len()` bytes at `skip` of what was found.
    fn read(&mut self, found: &Found, skip: u64, len: usize) -> Result<&[u8]> {
        let buffer = self.buffer.get_mut(..len).unwrap_or_default();
        self.reader.read(&instar_image::source::Piece::cut(*found, skip), buffer)?;
        Ok(buffer)
    }
}

/// Where the disks are not in the same state first, or where that cannot be found out.
fn unlike(chains: &[&Chain<'static>; 2], cx: &Cx<'_>, rules: &Rules) -> Option<Event> {
    match state::unlike(chains, cx.drive, rules.version) {
        Ok(None) => None,
        Ok(Some(at)) => Some(Event::Differs(Differs { at, in_status: true })),
        Err((is_right, at, error)) => Some(Event::Stopped(Box::new(Stopped { at, is_right, in_map: true, error }))),
    }
}

/// Where two runs differ first, counted from their beginning in whole sectors; or what could not be read of which.
fn same(
    left: &mut Side<'_>,
    right: &mut Side<'_>,
    (a, b): (&Found, &Found),
    len: u64,
) -> core::result::Result<Option<u64>, (bool, u64, Error)> {
    if a.source == b.source || (a.source.is_zero() && b.source.is_zero()) {
        return Ok(None);
    }
    let mut done = 0u64;
    while done < len {
        let piece = usize::try_from(len.saturating_sub(done)).unwrap_or(PIECE).min(PIECE);
        let bytes = |side: &mut Side<'_>, found: &Found, is_right| {
            let read = side.read(found, done, piece);
            read.map(|_| ()).map_err(|error| (is_right, done, error))
        };
        let (blank_a, blank_b) = (a.source.is_zero(), b.source.is_zero());
        if !blank_a {
            bytes(left, a, false)?;
        }
        if !blank_b {
            bytes(right, b, true)?;
        }
        let (x, y) = (left.buffer.get(..piece).unwrap_or_default(), right.buffer.get(..piece).unwrap_or_default());
        let found = match (blank_a, blank_b) {
            (true, _) => first(y, &[]),
            (_, true) => first(x, &[]),
            _ => first(x, y),
        };
        if let Some(at) = found {
            return Ok(Some(done.saturating_add(at)));
        }
        done = done.saturating_add(u64::try_from(piece).unwrap_or(u64::MAX));
    }
    Ok(None)
}

/// The first sector in which the bytes differ; from zeroes, if there is nothing else to hold them against.
fn first(a: &[u8], b: &[u8]) -> Option<u64> {
    if (b.is_empty() && is_zero(a)) || (!b.is_empty() && a == b) {
        return None;
    }
    let differs = match b.is_empty() {
        true => a.iter().position(|byte| *byte != 0),
        false => a.iter().zip(b).position(|(x, y)| x != y),
    };
    let at = differs.and_then(|at| u64::try_from(at).ok())?;
    let (_, over, _) = split(at, SECTOR);
    Some(at.saturating_sub(over))
}
