//! A lane of a copy: one source, and what it has to be told of.

use super::{Moves, Part, untold};
use crate::cx::Hand;
use crate::pace::Pace;
use crate::rows::told;
use instar_image::holes::Holes;
use instar_image::pump::Carrier;
use instar_image::sector::SECTOR;
use instar_image::{Error, Found, Io, Reader, Result, Walk};
use instar_wire::code::encode;
use instar_wire::op::convert::{Event, Request, Trouble};

/// What is moved at once where it is told how much has been moved.
const PIECE: u64 = 2 << 20;

/// A lane at work on one source.
pub(super) struct Lane<'c> {
    pub part: &'c Part<'c>,
    pub walk: Walk<'c>,
    pub holes: Holes<'c>,
    pub hand: &'c Hand<'c>,
    reader: Reader<'c>,
    request: &'c Request,
    pace: &'c Pace<'c>,
}

impl<'c> Lane<'c> {
    /// At the beginning; `io`: files as its walk is to see them.
    pub fn new(part: &'c Part<'c>, io: &'c dyn Io, request: &'c Request, pace: &'c Pace<'c>) -> Lane<'c> {
        let hand = pace.hand();
        let (walk, holes) = (Walk::new(part.chain, io, 0, 0), Holes::new(hand.drive));
        Lane { part, walk, holes, hand, reader: Reader::new(part.chain, hand.drive), request, pace }
    }

    /// Copies what of this source lies in `at..end` of all that is copied.
    pub fn stripe(&mut self, carrier: &mut dyn Carrier, at: u64, end: u64) -> Result<()> {
        let (at, end) = self.part.within(at, end);
        self.walk.aim(at, end);
        let done = self.copy(carrier);
        done.inspect_err(|error| _ = (self.hand.emit)(&encode(&Event::Stopped(self.trouble(0, error)))))
    }

    /// Tells what went wrong with bytes that are copied from `at` on, if something did.
    pub fn told_at(&self, at: u64, done: Result<()>) -> Result<()> {
        done.inspect_err(|error| {
            let trouble = Trouble { at: self.part.within(at, at).0, to: at, ..self.trouble(0, error) };
            _ = (self.hand.emit)(&encode(&Event::Stopped(trouble)));
        })
    }

    /// What went wrong here.
    fn trouble(&self, len: u64, error: &Error) -> Trouble {
        let at = self.walk.at();
        Trouble { at, to: self.part.to(at), len, in_map: false, error: error.clone() }
    }

    /// Where the walk has come to in the target.
    fn to(&self) -> u64 {
        self.part.to(self.walk.at()).saturating_add(self.request.target.at)
    }

    fn copy(&mut self, carrier: &mut dyn Carrier) -> Result<()> {
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
            let len = if self.pace.tells_moved() { len.min(PIECE) } else { len };
            let len = match carrier.carry(&mut self.reader, &found, len, to) {
                Err(error) if self.request.salvage => self.salvage(carrier, &found, len, &error)?,
                moved => moved?,
            };
            self.walk.advance(len);
            if self.request.moves(&found, len) {
                self.pace.moved(len)?;
            }
        }
    }

    /// Takes what can be had of a run, sector after sector; what cannot be had becomes zeroes.
    fn salvage(&mut self, carrier: &mut dyn Carrier, found: &Found, len: u64, error: &Error) -> Result<u64> {
        if len > SECTOR {
            let to = self.to();
            let carried = carrier.carry(&mut self.reader, found, SECTOR, to);
            return carried.or_else(|error| self.lose(carrier, SECTOR, &error));
        }
        self.lose(carrier, len, error)
    }

    fn lose(&mut self, carrier: &mut dyn Carrier, len: u64, error: &Error) -> Result<u64> {
        (self.hand.emit)(&encode(&Event::Salvaged(self.trouble(len, error))))?;
        carrier.flush()?;
        carrier.blank(self.to(), len)?;
        Ok(len)
    }

    /// Passes over what the images do not tell of, up to where they tell something again, or something else is wrong.
    fn pass(&mut self, carrier: &mut dyn Carrier, error: &Error) -> Result<()> {
        let (at, to) = (self.walk.at(), self.to());
        let told = told(self.part.chain);
        let in_map = Walk::new(&told, self.hand.drive, at, at.saturating_add(1)).peek().is_err();
        let len = untold(self.part.chain, self.hand.drive, (at, self.walk.end()), error);
        (self.hand.emit)(&encode(&Event::Salvaged(Trouble { in_map, ..self.trouble(len, error) })))?;
        self.walk.advance(len);
        carrier.flush()?;
        carrier.blank(to, len)?;
        self.pace.moved(len)
    }
}
