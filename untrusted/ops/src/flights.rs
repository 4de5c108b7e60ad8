//! Flights: pieces of requests that are written at once, of which none may be where another one brings something along.

use alloc::vec::Vec;
use core::ops::Range;

/// A piece that is being written.
struct Flight {
    number: u64,
    /// The bytes of all units that it touches.
    units: Range<u64>,
    /// It brings along what lies around it.
    brings: bool,
}

/// All pieces that are being written: no more than there are lanes.
#[derive(Default)]
pub struct Flights {
    all: Vec<Flight>,
    next: u64,
}

impl Flights {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether one brings something along in these units.
    pub fn brings(&self, units: &Range<u64>) -> bool {
        self.all.iter().any(|flight| flight.brings && flight.meets(units))
    }

    /// One more; answers its number.
    pub fn begin(&mut self, units: Range<u64>, brings: bool) -> u64 {
        let number = self.next;
        self.next = number.saturating_add(1);
        self.all.push(Flight { number, units, brings });
        number
    }

    /// Whether one that began before this one is at one of its units.
    pub fn is_behind(&self, number: u64) -> bool {
        let Some(own) = self.all.iter().find(|flight| flight.number == number) else { return false };
        self.all.iter().any(|flight| flight.number < number && flight.meets(&own.units))
    }

    /// It has been written.
    pub fn end(&mut self, number: u64) {
        self.all.retain(|flight| flight.number != number);
    }
}

impl Flight {
    fn meets(&self, units: &Range<u64>) -> bool {
        self.units.start < units.end && units.start < self.units.end
    }
}
