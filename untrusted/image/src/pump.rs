//! The pump: moves what a walk has found to where it is to be. The only code that moves a guest's bytes.

use crate::chain::Found;
use crate::file::{Drive, Zeroes};
use crate::num::wide;
use crate::read::Reader;
use crate::source::{Place, Source};
use alloc::vec;
use alloc::vec::Vec;
use instar_wire::error::Result;
use instar_wire::io::{FileId, Link};

/// Bytes that are copied in one call.
const COPY_MAX: u64 = 8 << 20;
/// Bytes that are shared at once.
const SHARE_MAX: u64 = 1 << 30;
/// Ranges that are shared in one call: the longer the list, the less lanes wait for each other.
const LINKS_MAX: usize = 1024;
/// No file system shares smaller blocks than these.
pub const BLOCK: u64 = 4096;
/// Zeroes are looked for in granules of this length, or shorter ones if shorter runs are asked for.
const GRANULE: usize = 4096;

/// What becomes of the bytes.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// Runs of zeroes this long are not written; 0: all are.
    pub sparse: u32,
    /// The target reads as zeroes where nothing has been written.
    pub is_zero: bool,
    /// Space of the target's file that nothing was written to reads as zeroes.
    pub is_clean: bool,
    /// Copies by the file system, zeroes or not.
    pub offload: bool,
    /// Bytes are never copied without being read here, so that a failure is known to be one of reading.
    pub by_hand: bool,
}

impl Manner {
    /// Whether files may share what they hold instead of each having it.
    pub fn shares(&self) -> bool {
        self.zeroes() != Zeroes::Written
    }

    fn zeroes(&self) -> Zeroes {
        match (self.offload || self.sparse == 0, self.is_zero) {
            (true, _) => Zeroes::Written,
            (false, true) => Zeroes::Skipped(self.sparse),
            (false, false) => Zeroes::Holes(self.sparse),
        }
    }
}

/// What takes bytes from where they are to where a disk has them.
pub trait Carrier {
    /// Takes the first bytes of a run of `len` to the disk's byte `at`; answers how many. Some are only there after
    /// [`Self::flush`], or when the piece is written that they belong to.
    fn carry(&mut self, reader: &mut Reader<'_>, found: &Found, len: u64, at: u64) -> Result<u64>;
    /// Makes bytes of the disk zeroes.
    fn blank(&mut self, at: u64, len: u64) -> Result<()>;
    /// Leaves bytes of the disk as they are.
    fn pass(&mut self, at: u64, len: u64);
    /// Writes what is held.
    fn flush(&mut self) -> Result<()>;
}

/// Where the byte of a disk lies whose bytes all have their place, and how many follow it there.
pub type Fixed<'c> = &'c (dyn Fn(u64) -> (u64, Place) + Sync);

/// A lane's pump, into a disk whose bytes all have their place.
pub struct Pump<'c> {
    drive: &'c dyn Drive,
    fixed: Fixed<'c>,
    manner: Manner,
    /// Bytes that have been read and not yet been written: so many of them, that will go there.
    buffer: Vec<u8>,
    held: usize,
    to: Place,
    /// Whether files can share what they hold, if that has been tried.
    shares: Option<bool>,
    /// What they are to share, and which they are.
    links: Vec<Link>,
    pair: (FileId, FileId),
}

impl Carrier for Pump<'_> {
    fn carry(&mut self, reader: &mut Reader<'_>, found: &Found, len: u64, at: u64) -> Result<u64> {
        let (room, to) = (self.fixed)(at);
        let len = len.min(room);
        match found.source {
            Source::Zero { .. } | Source::Beyond { .. } => self.zero(to, len).map(|()| len),
            Source::Raw { place, tweak: None, .. } if !self.manner.by_hand => {
                reader.allowed(found)?;
                if let Some(len) = self.link(place, to, len)? {
                    return Ok(len);
                }
                let len = len.min(COPY_MAX);
                self.drive.copy(place, to, len, self.manner.zeroes())?;
                Ok(len)
            }
            _ => {
                if self.held == self.buffer.len() || self.to.ahead(wide(self.held)) != to {
                    self.flush()?;
                    self.to = to;
                }
                let rest = self.buffer.get_mut(self.held..).unwrap_or_default();
                let len = usize::try_from(len).unwrap_or(usize::MAX).min(rest.len());
                reader.read(found, rest.get_mut(..len).unwrap_or_default())?;
                self.held = self.held.saturating_add(len);
                Ok(wide(len))
            }
        }
    }

    fn blank(&mut self, at: u64, len: u64) -> Result<()> {
        let (mut at, end) = (at, at.saturating_add(len));
        while at < end {
            let (room, to) = (self.fixed)(at);
            let len = end.saturating_sub(at).min(room.max(1));
            self.zero(to, len)?;
            at = at.saturating_add(len);
        }
        Ok(())
    }

    fn pass(&mut self, _at: u64, _len: u64) {}

    fn flush(&mut self) -> Result<()> {
        let held = core::mem::take(&mut self.held);
        if held == 0 {
            return Ok(());
        }
        self.write(self.buffer.get(..held).unwrap_or_default(), self.to)
    }
}

impl<'c> Pump<'c> {
    /// A pump to where a disk has its bytes.
    pub fn new(fixed: Fixed<'c>, drive: &'c dyn Drive, manner: Manner) -> Self {
        let to = Place { file: FileId(0), at: 0 };
        let shares = if manner.shares() { None } else { Some(false) };
        let (links, pair) = (Vec::new(), (to.file, to.file));
        Pump { drive, fixed, manner, buffer: vec![0; drive.slot_len()], held: 0, to, shares, links, pair }
    }

    /// Has the files share the first of `len` bytes, now or later, if they can; answers how many.
    fn link(&mut self, from: Place, to: Place, len: u64) -> Result<Option<u64>> {
        let len = len.min(SHARE_MAX);
        let len = len.saturating_sub(len % BLOCK);
        if self.shares == Some(false) || len == 0 || !from.at.is_multiple_of(BLOCK) || !to.at.is_multiple_of(BLOCK) {
            return Ok(None);
        }
        if self.pair != (from.file, to.file) || self.links.len() >= LINKS_MAX {
            self.share()?;
            self.pair = (from.file, to.file);
        }
        let link = Link { at: from.at, to: to.at, len };
        if self.shares.is_some() {
            self.links.push(link);
            return Ok(Some(len));
        }
        let can = self.drive.share(from.file, to.file, &[link])? > 0;
        self.shares = Some(can);
        Ok(can.then_some(len))
    }

    /// Has the files share what has been noted; what they cannot share is copied, and no more is tried. Nothing is
    /// noted any more after this.
    pub fn share(&mut self) -> Result<()> {
        let links = core::mem::take(&mut self.links);
        if links.is_empty() {
            return Ok(());
        }
        let (from, to) = self.pair;
        let done = self.drive.share(from, to, &links)?;
        for link in links.get(done..).unwrap_or_default() {
            self.shares = Some(false);
            let (mut at, end) = (0, link.len);
            while at < end {
                let len = end.saturating_sub(at).min(COPY_MAX);
                let (from, to) = (Place { file: from, at: link.at }, Place { file: to, at: link.to });
                self.drive.copy(from.ahead(at), to.ahead(at), len, self.manner.zeroes())?;
                at = at.saturating_add(len);
            }
        }
        Ok(())
    }

    fn zero(&self, to: Place, len: u64) -> Result<()> {
        match (self.manner.sparse, self.manner.is_zero) {
            (0, _) => self.drive.zero(to, len, false),
            (_, true) => Ok(()),
            (_, false) => self.drive.zero(to, len, true),
        }
    }

    /// Writes bytes, but for runs of zeroes.
    fn write(&self, bytes: &[u8], to: Place) -> Result<()> {
        let shortest = usize::try_from(self.manner.sparse).unwrap_or(usize::MAX);
        if shortest == 0 {
            return self.drive.write(to, bytes);
        }
        let (mut from, mut at) = (0usize, 0usize);
        while at < bytes.len() {
            let end = at.saturating_add(run(bytes, at, to.at, shortest.min(GRANULE), true));
            // A run that is long enough, or that may go on in the next bytes.
            if end.saturating_sub(at) >= shortest || (end > at && end == bytes.len()) {
                self.put(bytes, from, at, to)?;
                let len = wide(end.saturating_sub(at));
                self.zero(to.ahead(wide(at)), len)?;
                from = end;
            }
            at = end.saturating_add(run(bytes, end, to.at, shortest.min(GRANULE), false));
        }
        self.put(bytes, from, bytes.len(), to)
    }

    fn put(&self, bytes: &[u8], from: usize, until: usize, to: Place) -> Result<()> {
        match bytes.get(from..until).unwrap_or_default() {
            [] => Ok(()),
            some => self.drive.write(to.ahead(wide(from)), some),
        }
    }
}

/// How long the granules from `at` on are all zero, or all not. They lie where the target has its blocks.
fn run(bytes: &[u8], at: usize, to: u64, granule: usize, zero: bool) -> usize {
    let mut end = at;
    while end < bytes.len() {
        let over = to.saturating_add(wide(end)).checked_rem(wide(granule)).unwrap_or(0);
        let whole = granule.saturating_sub(usize::try_from(over).unwrap_or(0));
        let next = end.saturating_add(whole).min(bytes.len());
        if bytes.get(end..next).is_none_or(is_zero) != zero {
            break;
        }
        end = next;
    }
    end.saturating_sub(at)
}

/// Whether all bytes are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<256>();
    chunks.iter().all(|c| c.iter().fold(0, |all, b| all | b) == 0) && rest.iter().all(|b| *b == 0)
}
