//! The pump: moves what a walk has found to where it is to be. The only code that moves a guest's bytes.

use crate::chain::{Chain, Found};
use crate::file::{Drive, Zeroes};
use crate::read::Reader;
use crate::source::{Place, Source};
use alloc::vec;
use alloc::vec::Vec;
use instar_wire::error::Result;
use instar_wire::io::FileId;

/// Bytes that are copied in one call.
const COPY_MAX: u64 = 8 << 20;
/// Zeroes are looked for in granules of this length, or shorter ones if shorter runs are asked for.
const GRANULE: usize = 4096;

/// What becomes of the bytes.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// Runs of zeroes this long are not written; 0: all are.
    pub sparse: u32,
    /// The target reads as zeroes where nothing has been written.
    pub is_zero: bool,
    /// Copies by the file system, zeroes or not.
    pub offload: bool,
    /// Bytes are never copied without being read here, so that a failure is known to be one of reading.
    pub by_hand: bool,
}

impl Manner {
    fn zeroes(&self) -> Zeroes {
        match (self.offload || self.sparse == 0, self.is_zero) {
            (true, _) => Zeroes::Written,
            (false, true) => Zeroes::Skipped(self.sparse),
            (false, false) => Zeroes::Holes(self.sparse),
        }
    }
}

/// A lane's pump.
pub struct Pump<'c> {
    drive: &'c dyn Drive,
    reader: Reader<'c>,
    manner: Manner,
    /// Bytes that have been read and not yet been written: so many of them, that will go there.
    buffer: Vec<u8>,
    held: usize,
    to: Place,
}

impl<'c> Pump<'c> {
    /// A pump for what is found along a chain.
    pub fn new(chain: &'c Chain<'c>, drive: &'c dyn Drive, manner: Manner) -> Self {
        let to = Place { file: FileId(0), at: 0 };
        Pump { drive, reader: Reader::new(chain, drive), manner, buffer: vec![0; drive.slot_len()], held: 0, to }
    }

    /// Moves the first bytes of a run of `len` to `to`; answers how many. Some are only there after [`Self::flush`].
    pub fn carry(&mut self, found: &Found, len: u64, to: Place) -> Result<u64> {
        match found.source {
            Source::Zero { .. } | Source::Beyond { .. } => self.blank(to, len).map(|()| len),
            Source::Raw { place, tweak: None, .. } if !self.manner.by_hand => {
                self.reader.allowed(found)?;
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
                self.reader.read(found, rest.get_mut(..len).unwrap_or_default())?;
                self.held = self.held.saturating_add(len);
                Ok(wide(len))
            }
        }
    }

    /// Writes what is held.
    pub fn flush(&mut self) -> Result<()> {
        let held = core::mem::take(&mut self.held);
        if held == 0 {
            return Ok(());
        }
        self.write(self.buffer.get(..held).unwrap_or_default(), self.to)
    }

    /// Makes `len` bytes from `to` zeroes.
    pub fn blank(&self, to: Place, len: u64) -> Result<()> {
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
                self.blank(to.ahead(wide(at)), len)?;
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

fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
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
