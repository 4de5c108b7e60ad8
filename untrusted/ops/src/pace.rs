//! How far one hand has come with a copy, told whenever it is a share of some size: each time is a call.

use crate::cx::Hand;
use core::cell::Cell;
use instar_image::Result;
use instar_wire::code::encode;
use instar_wire::op::convert::Event;

/// It is told of one of so many parts of the whole, or more.
const SHARES: u64 = 200;

/// What has been done and not been told yet.
pub struct Pace<'c> {
    hand: &'c Hand<'c>,
    /// All that is to be passed, or moved, by all hands.
    whole: u64,
    tells_moved: bool,
    untold: Cell<u64>,
}

impl<'c> Pace<'c> {
    /// Of who passes `total` bytes, of which `work` have to be moved if that is what is told.
    pub fn new(hand: &'c Hand<'c>, total: u64, work: Option<u64>) -> Pace<'c> {
        Pace { hand, whole: work.unwrap_or(total), tells_moved: work.is_some(), untold: Cell::new(0) }
    }

    /// Whose it is.
    pub fn hand(&self) -> &'c Hand<'c> {
        self.hand
    }

    /// Whether it is told how much has been moved, and not how much has been passed.
    pub fn tells_moved(&self) -> bool {
        self.tells_moved
    }

    /// So many bytes have been moved.
    pub fn moved(&self, len: u64) -> Result<()> {
        if self.tells_moved { self.add(len) } else { Ok(()) }
    }

    /// So many bytes have been passed, moved or not.
    pub fn passed(&self, len: u64) -> Result<()> {
        if self.tells_moved { Ok(()) } else { self.add(len) }
    }

    fn add(&self, len: u64) -> Result<()> {
        self.untold.set(self.untold.get().saturating_add(len));
        if self.untold.get().saturating_mul(SHARES) >= self.whole { self.tell() } else { Ok(()) }
    }

    /// Tells the rest.
    pub fn tell(&self) -> Result<()> {
        match self.untold.take() {
            0 => Ok(()),
            untold => (self.hand.emit)(&encode(&Event::Done(untold))),
        }
    }
}
