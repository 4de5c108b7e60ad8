//! A compressed unit that is too long to be held: it is unpacked while it is read, and from its beginning if need be.

use crate::file::Io;
use crate::source::{Place, Unit};
use alloc::vec::Vec;
use instar_codec::unpack::{Broken, PIECE, Unpacker};
use instar_wire::error::{Error, Kind, Result};

/// Bytes that are unpacked at once and passed over.
const SKIPPED: usize = 64 << 10;

/// A unit under way.
pub struct Stream {
    /// The unit as it was asked for.
    asked: Unit,
    unpacker: Unpacker,
    /// The compressed bytes that follow.
    next: Place,
    end: u64,
    /// How many bytes have been made.
    made: u64,
}

/// Why unpacking stopped.
enum Trouble {
    Broken,
    Read(Error),
}

impl From<Broken> for Trouble {
    fn from(_: Broken) -> Self {
        Trouble::Broken
    }
}

impl Stream {
    /// At the beginning of a unit. `measured`: with its true length.
    pub fn new(asked: Unit, measured: &Unit, io: &dyn Io) -> Self {
        let end = measured.place.at.saturating_add(measured.len).min(io.len(measured.place.file));
        Stream { asked, unpacker: Unpacker::new(measured.codec), next: measured.place, end, made: 0 }
    }

    /// Whether it can go on to byte `skip` of the unit.
    pub fn leads_to(&self, unit: &Unit, skip: u64) -> bool {
        self.asked == *unit && self.made <= skip
    }

    /// Fills `buf` from byte `skip` of the unit on, which has not been passed.
    pub fn read(&mut self, io: &dyn Io, skip: u64, buf: &mut [u8]) -> Result<()> {
        let mut passed = Vec::new();
        while self.made < skip {
            let step = usize::try_from(skip.saturating_sub(self.made)).unwrap_or(SKIPPED).min(SKIPPED);
            passed.resize(step, 0);
            self.fill(io, &mut passed)?;
        }
        self.fill(io, buf)
    }

    fn fill(&mut self, io: &dyn Io, buf: &mut [u8]) -> Result<()> {
        let broken = || Kind::Broken.what("a compressed part is broken");
        let (next, end) = (&mut self.next, self.end);
        let mut more = |room: &mut Vec<u8>| {
            let len = usize::try_from(end.saturating_sub(next.at)).unwrap_or(PIECE).min(PIECE);
            room.resize(len, 0);
            if len > 0 {
                io.read(next.file, next.at, room).map_err(Trouble::Read)?;
            }
            *next = next.ahead(room.len() as u64);
            Ok::<(), Trouble>(())
        };
        let mut done = self.unpacker.read(buf, &mut more).map(|made| made == buf.len());
        self.made = self.made.saturating_add(buf.len() as u64);
        if matches!(done, Ok(true)) && self.asked.whole && self.made >= self.asked.size {
            done = self.unpacker.ends(&mut more);
        }
        match done {
            Ok(true) => Ok(()),
            Ok(false) | Err(Trouble::Broken) => Err(broken()),
            Err(Trouble::Read(error)) => Err(error),
        }
    }
}
