//! A lane of a copy: one source, and what it has to be told of.

use super::{Moves, PIECE, Part, SHARES, untold};
use crate::cx::Hand;
use crate::rows::told;
use instar_image::holes::Holes;
use instar_image::pump::Carrier;
use instar_image::sector::SECTOR;
use instar_image::{Error, Found, Reader, Result, Walk};
use instar_wire::code::encode;
use instar_wire::op::convert::{Event, Request, Trouble};

/// A lane at work on one source.
pub(super) struct Lane<'c> {
    pub part: &'c Part<'c>,
    pub walk: Walk<'c>,
    pub holes: Holes<'c>,
    pub reader: Reader<'c>,
    pub hand: &'c Hand<'c>,
    pub request: &'c Request,
    /// All that is to be moved, by all lanes.
    pub work: Option<u64>,
    /// What has been moved and not yet been told.
    pub moved: u64,
}

impl Lane<'_> {
    /// Copies what of this source lies in `at..end` of all that is copied.
    pub fn stripe(&mut self, carrier: &mut dyn Carrier, at: u64, end: u64) -> Result<()> {
        let (at, end) = self.part.within(at, end);
        self.walk.aim(at, end);
        let done = self.copy(carrier);
        done.inspect_err(|error| _ = (self.hand.emit)(&encode(&Event::Stopped(self.trouble(0, error)))))?;
        self.tell_moved(0, 0)
    }

    /// Tells what went wrong with bytes that are copied from `at` on, if something did.
    pub fn told_at(&self, at: u64, done: Result<()>) -> Result<()> {
        done.inspect_err(|error| {
            let trouble = Trouble { at: self.part.within(at, at).0, to: at, ..self.trouble(0, error) };
            _ = (self.hand.emit)(&encode(&Event::Stopped(trouble)));
        })
    }

    /// What went wrong here.
    pub fn trouble(&self, len: u64, error: &Error) -> Trouble {
        let at = self.walk.at();
        Trouble { at, to: self.part.to(at), len, in_map: false, error: error.clone() }
    }

    /// Tells what has been moved if it is a share of some size.
    pub fn tell_moved(&mut self, len: u64, share: u64) -> Result<()> {
        self.moved = self.moved.saturating_add(len);
        let worth = self.work.is_some_and(|work| self.moved.saturating_mul(share.max(1)) >= work || share == 0);
        if self.moved == 0 || !worth {
            return Ok(());
        }
        (self.hand.emit)(&encode(&Event::Done(core::mem::take(&mut self.moved))))
    }

    /// Where the walk has come to in the target.
    pub fn to(&self) -> u64 {
        self.part.to(self.walk.at()).saturating_add(self.request.target.at)
    }

    pub fn copy(&mut self, carrier: &mut dyn Carrier) -> Result<()> {
        loop {
            let (len, found) = match self.walk.peek() {
                Ok(None) => return carrier.flush(),
                Ok(Some(run)) => run,
                Err(error) if self.request.salvage => {
                    self.pass(carrier, &error)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let to = self.to();
            if self.request.passes(&found) {
                carrier.pass(to, len);
                self.walk.advance(len);
                continue;
            }
            let len = if self.work.is_some() { len.min(PIECE) } else { len };
            let len = match carrier.carry(&mut self.reader, &found, len, to) {
                Err(error) if self.request.salvage => self.salvage(carrier, &found, len, &error)?,
                moved => moved?,
            };
            self.walk.advance(len);
            if self.request.moves(&found, len) {
                self.tell_moved(len, SHARES)?;
            }
        }
    }

    /// Takes what can be had of a run, sector after sector; what cannot be had becomes zeroes.
    pub fn salvage(&mut self, carrier: &mut dyn Carrier, found: &Found, len: u64, error: &Error) -> Result<u64> {
        if len > SECTOR {
            let to = self.to();
            let carried = carrier.carry(&mut self.reader, found, SECTOR, to);
            return carried.or_else(|error| self.lose(carrier, SECTOR, &error));
        }
        self.lose(carrier, len, error)
    }

    pub fn lose(&mut self, carrier: &mut dyn Carrier, len: u64, error: &Error) -> Result<u64> {
        (self.hand.emit)(&encode(&Event::Salvaged(self.trouble(len, error))))?;
        carrier.flush()?;
        carrier.blank(self.to(), len)?;
        Ok(len)
    }

    /// Passes over what the images do not tell of, up to where they tell something again, or something else is wrong.
    pub fn pass(&mut self, carrier: &mut dyn Carrier, error: &Error) -> Result<()> {
        let (at, to) = (self.walk.at(), self.to());
        let told = told(self.part.chain);
        let in_map = Walk::new(&told, self.hand.drive, at, at.saturating_add(1)).peek().is_err();
        let len = untold(self.part.chain, self.hand.drive, (at, self.walk.end()), error);
        (self.hand.emit)(&encode(&Event::Salvaged(Trouble { in_map, ..self.trouble(len, error) })))?;
        self.walk.advance(len);
        carrier.flush()?;
        carrier.blank(to, len)?;
        self.tell_moved(len, SHARES)
    }
}
