//! What a target was before anything was written to it: what it reads as already need not be written.

use crate::chain::{Chain, Found};
use crate::file::Io;
use crate::num::narrow;
use crate::read::Reader;
use crate::source::Source;
use crate::walk::Walk;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use instar_wire::error::Result;

/// Bytes that are compared at once.
const STEP: u64 = 64 << 10;
/// Bytes that are read at once where one comparison follows the other.
const AHEAD: u64 = 512 << 10;

/// What was in a target before anything was written.
pub struct Former {
    /// The image itself; no layer if it is a new one.
    pub own: Chain<'static>,
    /// What lies below it.
    pub below: Chain<'static>,
    /// Whatever has not been written to since reads as that.
    pub is_known: bool,
    /// What will lie below it, if that is to be another image: nothing is written but where the image itself has
    /// nothing, and need not be where that reads the same.
    pub next: Option<Chain<'static>>,
}

impl Former {
    /// Whether it has anything that has to be brought along.
    pub fn is_empty(&self) -> bool {
        self.own.layers.is_empty() && self.below.layers.is_empty()
    }
}

/// Gives the bytes of a disk from one on.
pub type Take<'t> = &'t mut dyn FnMut(u64, &mut [u8]);

/// A lane's look at what a target reads as before anything is written to it.
pub struct Look<'c> {
    own: Option<Walk<'c>>,
    /// There is nothing but zeroes.
    is_bare: bool,
    below: Walk<'c>,
    reader: Reader<'c>,
    theirs: Vec<u8>,
    /// Where those bytes are on the disk.
    held: Range<u64>,
    ours: Vec<u8>,
}

impl<'c> Look<'c> {
    /// A look at a target, if that is known.
    pub fn at(former: &'c Former, io: &'c dyn Io) -> Option<Self> {
        let is_new = former.own.layers.is_empty() || former.next.is_some();
        let below = former.next.as_ref().unwrap_or(&former.below);
        let room = if former.is_known && is_new { narrow(STEP) } else { 0 };
        former.is_known.then(|| Look {
            is_bare: former.is_empty(),
            own: (!is_new).then(|| Walk::new(&former.own, io, 0, 0)),
            below: Walk::new(below, io, 0, 0),
            reader: Reader::new(below, io),
            theirs: Vec::new(),
            held: 0..0,
            ours: vec![0; room],
        })
    }

    /// How many bytes from `at` on are told to be zeroes, up to `end`.
    pub fn zeroes(&mut self, at: u64, end: u64) -> Result<u64> {
        if self.is_bare {
            return Ok(end.saturating_sub(at));
        }
        self.below.aim(at, end);
        let Some(own) = &mut self.own else { return zeroes(&mut self.below, end) };
        own.aim(at, end);
        while let Some((len, found)) = own.peek()? {
            let len = match found.source {
                Source::Zero { .. } if found.present => len,
                Source::Zero { .. } => {
                    let (from, until) = (own.at(), own.at().saturating_add(len));
                    if self.below.at() != from {
                        self.below.aim(from, end);
                    }
                    zeroes(&mut self.below, until)?
                }
                _ => break,
            };
            own.advance(len);
            if len == 0 {
                break;
            }
        }
        Ok(own.at().saturating_sub(at))
    }

    /// Whether `len` bytes from `at` on are what `take` gives, which is asked for its bytes from a byte of the disk on; if
    /// it is nothing, whether they are zeroes. Only what lies below a new image is read.
    pub fn has(&mut self, at: u64, len: u64, mut take: Option<Take<'_>>) -> Result<bool> {
        if self.own.is_some() || self.is_bare {
            return Ok(take.is_none() && self.zeroes(at, at.saturating_add(len))? >= len);
        }
        let end = at.saturating_add(len);
        // What has been told of places behind the last one is still so.
        if self.below.at() != at || self.below.end() < end {
            self.below.aim(at, end.saturating_add(AHEAD));
        }
        loop {
            let at = self.below.at();
            let Some((run, found)) = self.below.peek()?.filter(|_| at < end) else { return Ok(true) };
            let len = run.min(end.saturating_sub(at));
            let is_zero = found.source.is_zero();
            let len = if is_zero && take.is_none() { len } else { len.min(STEP) };
            if !is_zero || take.is_some() {
                self.hold(&found, at, len, run)?;
                let skip = narrow(at.saturating_sub(self.held.start));
                let theirs = self.theirs.get(skip..).and_then(|rest| rest.get(..narrow(len))).unwrap_or_default();
                let ours = self.ours.get_mut(..narrow(len)).unwrap_or_default();
                match &mut take {
                    Some(take) => take(at, ours),
                    None => ours.fill(0),
                }
                if ours != theirs {
                    return Ok(false);
                }
            }
            self.below.advance(len);
        }
    }

    /// Has `len` bytes of what lies below from `at` on at hand, of the `run` that was found.
    fn hold(&mut self, found: &Found, at: u64, len: u64, run: u64) -> Result<()> {
        let end = at.saturating_add(len);
        if self.held.start <= at && end <= self.held.end {
            return Ok(());
        }
        let most = if at == self.held.end { AHEAD } else { len };
        let end = at.saturating_add(run.min(most).max(len));
        self.held = 0..0;
        self.theirs.resize(narrow(end.saturating_sub(at)), 0);
        self.reader.read(found, &mut self.theirs)?;
        self.held = at..end;
        Ok(())
    }
}

/// Walks on over zeroes, at most up to `end`; answers how far that was.
fn zeroes(walk: &mut Walk<'_>, end: u64) -> Result<u64> {
    let start = walk.at();
    while walk.at() < end {
        match walk.peek()? {
            Some((len, found)) if found.source.is_zero() => walk.advance(len.min(end.saturating_sub(walk.at()))),
            _ => break,
        }
    }
    Ok(walk.at().saturating_sub(start))
}
