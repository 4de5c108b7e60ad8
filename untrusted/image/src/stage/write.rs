//! What a piece becomes when all its units have their places: it is written.

use super::{BROUGHT, Job, Origin, Stage};
use crate::chain::Found;
use crate::num::{narrow, split, wide};
use crate::pump::BLOCK;
use crate::read::Reader;
use crate::source::{Piece, Place, Source};
use alloc::vec;
use instar_codec::cipher::UNIT as TWEAK_UNIT;
use instar_wire::error::{Kind, Result};
use instar_wire::io::Link;

/// Shorter runs are rather written: files in too many parts are slow to read.
const SHARED_MIN: u64 = 64 << 10;

impl Stage<'_> {
    /// Writes the piece.
    pub fn write(&mut self) -> Result<()> {
        for job in core::mem::take(&mut self.jobs) {
            match job {
                Job::Store { skip, len, to } => self.store(skip, len, to)?,
                Job::Zero { len, to } => self.drive.zero(to, len, false)?,
                Job::Packed { range, to } => {
                    self.drive.write(to, self.packed.get(range).unwrap_or_default())?;
                }
                Job::Bring { at, len, unit, origin, to } => {
                    let mut done = 0;
                    while done < len {
                        let step = len.saturating_sub(done).min(BROUGHT);
                        let mut bytes = vec![0; narrow(step)];
                        self.fetch(at.saturating_add(done), unit, origin, &mut bytes)?;
                        self.drive.write(to.ahead(done), &bytes)?;
                        done = done.saturating_add(step);
                    }
                }
                Job::Seal { parts, unit, to, tweak } => self.seal(&parts, unit, to, tweak)?,
            }
        }
        Ok(())
    }

    /// Has bytes of the stage go where they belong: by sharing them with the file that they are from, or by writing them.
    fn store(&mut self, skip: usize, len: usize, to: Place) -> Result<()> {
        let (mut at, end) = (skip, skip.saturating_add(len));
        let place = |byte: usize| to.ahead(wide(byte.saturating_sub(skip)));
        while let Some((first, last, from)) = self.sharable(at, end, place(at)) {
            let link = Link { at: from.at, to: place(first).at, len: wide(last.saturating_sub(first)) };
            self.shares = self.drive.share(from.file, to.file, &[link])? > 0;
            if self.shares {
                if first > at {
                    self.drive.store(at, first.saturating_sub(at), place(at))?;
                }
                at = last;
            }
        }
        if at < end { self.drive.store(at, end.saturating_sub(at), place(at)) } else { Ok(()) }
    }

    /// The first bytes of the stage, of those from `at` on that will be at `to`, that files may share: where they begin
    /// and end, and where they are from.
    fn sharable(&self, at: usize, end: usize, to: Place) -> Option<(usize, usize, Place)> {
        self.loaded.iter().filter(|_| self.shares).find_map(|(skip, len, from)| {
            let (first, last) = (at.max(*skip), end.min(skip.saturating_add(*len)));
            let goes = to.ahead(wide(first.saturating_sub(at)));
            let (_, over, left) = split(goes.at, BLOCK);
            let first = if over == 0 { first } else { first.saturating_add(narrow(left)) };
            let from = from.ahead(wide(first.saturating_sub(*skip)));
            let len = wide(last.saturating_sub(first));
            let len = len.saturating_sub(len % BLOCK);
            (len >= SHARED_MIN && from.at.is_multiple_of(BLOCK))
                .then(|| (first, first.saturating_add(narrow(len)), from))
        })
    }

    /// Encrypts what lies in a row, and writes it. Sectors do not end where parts do.
    fn seal(&mut self, parts: &[(u64, u64, Origin)], unit: u64, to: Place, tweak: u64) -> Result<()> {
        let start = parts.first().map_or(0, |(at, ..)| *at);
        let (mut at, end) = (start, parts.last().map_or(0, |(at, len, _)| at.saturating_add(*len)));
        while at < end {
            let next = end.min(at.saturating_add(BROUGHT));
            let mut bytes = vec![0; narrow(next.saturating_sub(at))];
            for (from, len, origin) in parts {
                let (first, last) = (at.max(*from), next.min(from.saturating_add(*len)));
                let range = narrow(first.saturating_sub(at))..narrow(last.saturating_sub(at));
                if let Some(room) = bytes.get_mut(range).filter(|room| !room.is_empty()) {
                    self.fetch(first, unit, *origin, room)?;
                }
            }
            let done = at.saturating_sub(start);
            let number = tweak.saturating_add(done) / wide(TWEAK_UNIT);
            self.cipher.iter().for_each(|cipher| cipher.encrypt(number, &mut bytes));
            self.drive.write(to.ahead(done), &bytes)?;
            at = next;
        }
        Ok(())
    }

    /// The bytes of the disk at `at`, in the unit that begins at `unit`.
    fn fetch(&self, at: u64, unit: u64, origin: Origin, bytes: &mut [u8]) -> Result<()> {
        match (origin, self.former) {
            (Origin::Stage, _) => self.drive.take(self.skip(at), bytes),
            (Origin::Was(source), Some(former)) => {
                let source = source.cut(at.saturating_sub(unit));
                let (inside, beyond) = bytes.split_at_mut(self.there(&source, bytes.len())?);
                // What a file does not have reads as zeroes.
                beyond.fill(0);
                if !inside.is_empty() {
                    Reader::new(&former.own, self.drive).read(&Found { depth: 0, present: true, source }, inside)?;
                }
            }
            (Origin::There((place, tweak)), _) => {
                let skip = at.saturating_sub(unit);
                self.open(place.ahead(skip), tweak.saturating_add(skip), bytes)?;
            }
            (Origin::Below, Some(former)) => former.below.read(self.drive, at, bytes)?,
            (Origin::Null | Origin::Was(_) | Origin::Below, _) => bytes.fill(0),
        }
        Ok(())
    }

    /// The bytes of a sector from that place on: the file may have become longer than anybody was told.
    fn open(&self, place: Place, tweak: u64, bytes: &mut [u8]) -> Result<()> {
        let (number, before, _) = split(tweak, wide(TWEAK_UNIT));
        let mut sector = [0; TWEAK_UNIT];
        self.drive.read(place.file, place.at.saturating_sub(before), &mut sector)?;
        self.cipher.iter().for_each(|cipher| cipher.decrypt(number, &mut sector));
        let from = sector.get(narrow(before)..).unwrap_or_default();
        bytes.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        Ok(())
    }

    /// How many of so many bytes of a source its file has.
    fn there(&self, source: &Source, len: usize) -> Result<usize> {
        let Source::Raw { place, tweak, .. } = source else { return Ok(len) };
        let have = narrow(self.drive.len(place.file).saturating_sub(place.at)).min(len);
        match tweak {
            Some(_) if have < len => Err(Kind::Corrupt
                .what("a part of the disk lies behind the end of the file")
                .file(place.file)
                .at(place.at)),
            _ => Ok(have),
        }
    }
}
