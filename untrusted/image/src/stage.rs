//! Bytes on their way into an image that gives out places: a piece of the disk is gathered on the stage, its units get
//! their places when its turn has come, and then it is written.

mod carry;
mod write;

use crate::file::Drive;
use crate::former::{Former, Look, Take};
use crate::num::{narrow, split, wide};
use crate::pump::Manner;
use crate::source::{Place, Source};
use crate::target::{Facts, Packer, Rest, Spot, Target, What};
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use instar_codec::cipher::{Sectors, UNIT as TWEAK_UNIT};
use instar_wire::error::Result;
use instar_wire::op::convert::Written;

/// Zeroes are looked for in granules of this length, or shorter ones if shorter runs are asked for.
const GRANULE: u32 = 4096;
/// Zeroes among data are written with them up to this length, and beyond it without being laid out.
const LAID: u64 = 64 << 10;
/// Bytes that are brought from elsewhere at once.
const BROUGHT: u64 = 64 << 10;

/// What a part of the piece holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hold {
    /// What lies on the stage.
    Data,
    /// Zeroes, which are not written where it can be avoided.
    Zero,
    /// Zeroes that are written like data.
    Null,
    /// Nothing: what the target has there stays.
    Pass,
}

#[derive(Clone, Copy, Debug)]
struct Part {
    at: u64,
    len: u64,
    hold: Hold,
}

impl Part {
    fn end(&self) -> u64 {
        self.at.saturating_add(self.len)
    }

    /// What of it lies in a range.
    fn within(&self, range: &Range<u64>) -> Part {
        let (at, end) = (self.at.max(range.start), self.end().min(range.end));
        Part { at, len: end.saturating_sub(at), hold: self.hold }
    }
}

/// Where bytes of a unit come from that is written.
#[derive(Clone, Copy, Debug)]
enum Origin {
    Stage,
    Null,
    Below,
    Was(Source),
    /// Encrypted, where the unit is: where that begins, and what its first byte is counted as.
    There((Place, u64)),
}

/// Something to be written.
enum Job {
    /// Bytes of the stage.
    Store { skip: usize, len: usize, to: Place },
    /// Zeroes.
    Zero { len: u64, to: Place },
    /// Packed units.
    Packed { range: Range<usize>, to: Place },
    /// Bytes that are brought from elsewhere, in the unit that begins at `unit`.
    Bring { at: u64, len: u64, unit: u64, origin: Origin, to: Place },
    /// Bytes from wherever they are, encrypted.
    Seal { parts: Vec<(u64, u64, Origin)>, unit: u64, to: Place, tweak: u64 },
}

/// A lane's stage.
pub struct Stage<'c> {
    drive: &'c dyn Drive,
    manner: Manner,
    former: Option<&'c Former>,
    /// What of it need not be written.
    look: Option<Look<'c>>,
    /// Size of the disk, and what of it gets its place as one.
    size: u64,
    unit: u64,
    cipher: Option<Arc<Sectors>>,
    packer: Option<Box<dyn Packer>>,
    /// What of the disk is packed as one.
    packs_by: u64,
    /// The piece: where it begins, and what it holds.
    at: u64,
    parts: Vec<Part>,
    /// Units that have been packed, and where their bytes are.
    packs: Vec<(u64, Range<usize>)>,
    packed: Vec<u8>,
    jobs: Vec<Job>,
    /// Bytes of files that lie on the stage as they are: where in the piece, how many, and where they are from.
    loaded: Vec<(usize, usize, Place)>,
    /// Whether files may share what they hold, as far as that is known.
    shares: bool,
    buffer: Vec<u8>,
    /// Bytes that were not left out.
    written: u64,
    /// Files in which the piece was given places.
    files: BTreeSet<u32>,
    /// Where the space ends that the piece was given where nothing was, and how much of that it could fill.
    fresh: Option<(Place, u64)>,
}

impl<'c> Stage<'c> {
    /// A stage for a target, of which these are the facts.
    pub fn new(facts: &Facts, former: Option<&'c Former>, drive: &'c dyn Drive, manner: Manner) -> Self {
        Stage {
            drive,
            manner,
            former,
            look: former.filter(|_| manner.sparse > 0).and_then(|former| Look::at(former, drive)),
            size: facts.size,
            unit: facts.unit,
            cipher: facts.cipher.clone(),
            packer: facts.packing.as_ref().map(|packing| packing.packer()),
            packs_by: facts.unit(),
            at: 0,
            parts: Vec::new(),
            packs: Vec::new(),
            packed: Vec::new(),
            jobs: Vec::new(),
            loaded: Vec::new(),
            shares: manner.shares(),
            buffer: Vec::new(),
            written: 0,
            files: BTreeSet::new(),
            fresh: None,
        }
    }

    /// How long a piece may be.
    pub fn piece_len(unit: u64, drive: &dyn Drive) -> u64 {
        let (stage, unit) = (wide(drive.stage_len()), unit.max(1));
        if unit >= stage { stage } else { stage.saturating_sub(stage % unit) }
    }

    /// Begins a piece.
    pub fn begin(&mut self, at: u64) {
        self.at = at;
        self.parts.clear();
        self.packs.clear();
        self.packed.clear();
        self.jobs.clear();
        self.loaded.clear();
        self.files.clear();
        self.fresh = None;
    }

    fn add(&mut self, at: u64, len: u64, hold: Hold) {
        match self.parts.last_mut() {
            Some(last) if last.hold == hold && last.end() == at => last.len = last.len.saturating_add(len),
            _ if len > 0 => self.parts.push(Part { at, len, hold }),
            _ => {}
        }
    }

    /// The piece has what lies on the stage already, from its beginning on.
    pub fn hold(&mut self, len: u64) {
        self.add(self.at, len, Hold::Data);
    }

    /// Where a byte of the disk lies on the stage.
    fn skip(&self, at: u64) -> usize {
        narrow(at.saturating_sub(self.at))
    }

    fn granule(&self) -> u32 {
        let shortest = self.manner.sparse;
        // The granules have to end where runs of that length can.
        let largest = 1u32.checked_shl(shortest.trailing_zeros()).unwrap_or(GRANULE);
        largest.clamp(512, GRANULE)
    }

    /// Everything has been gathered: short zeroes go with what is around them, and units are packed.
    pub fn gathered(&mut self) {
        self.leave_out();
        let kept = self.parts.iter().filter(|part| part.hold != Hold::Pass);
        self.written = kept.fold(self.written, |sum, part| sum.saturating_add(part.len));
        let sparse = u64::from(self.manner.sparse);
        let count = self.parts.len();
        let mut laid = Vec::new();
        for (index, part) in self.parts.iter_mut().enumerate().filter(|(_, part)| part.hold == Hold::Zero) {
            let is_inside = index > 0 && index.saturating_add(1) < count;
            if sparse == 0 || (is_inside && part.len < sparse) {
                part.hold = if part.len <= LAID { Hold::Data } else { Hold::Null };
                laid.extend((part.hold == Hold::Data).then_some((part.at, part.len)));
            }
        }
        for (at, len) in laid {
            self.drive.lay(self.skip(at), &vec![0; narrow(len)]);
        }
        if self.packer.is_some() {
            self.pack();
        }
    }

    /// Leaves out the units that the target reads as already. Where it cannot be told what is there, they are written.
    fn leave_out(&mut self) {
        let Some(mut look) = self.look.take() else { return };
        let units = self.units(self.packs_by);
        let before = core::mem::take(&mut self.parts);
        for (range, index) in units {
            let parts: Vec<Part> =
                before.get(index).unwrap_or_default().iter().map(|part| part.within(&range)).collect();
            let mut take = |at: u64, bytes: &mut [u8]| self.drive.take(self.skip(at), bytes);
            let mut is_same = |part: &Part| {
                let take: Option<Take<'_>> = if part.hold == Hold::Data { Some(&mut take) } else { None };
                part.hold == Hold::Pass || look.has(part.at, part.len, take).unwrap_or(false)
            };
            let is_left_out = parts.iter().all(&mut is_same);
            for part in parts {
                self.add(part.at, part.len, if is_left_out { Hold::Pass } else { part.hold });
            }
        }
        self.look = Some(look);
    }

    /// How much has had to be written so far.
    pub fn written(&self) -> Written {
        Written { bytes: self.written, unit: self.unit }
    }

    /// The numbers of the files in which the piece has been given places.
    pub fn files(&self) -> &BTreeSet<u32> {
        &self.files
    }

    /// Where the space ends that the piece was given where nothing was, if nearly all of that will be filled.
    pub fn filled(&self) -> Option<Place> {
        let stored = self.jobs.iter().fold(0u64, |sum, job| match job {
            Job::Store { len, .. } => sum.saturating_add(wide(*len)),
            Job::Seal { parts, .. } => parts.iter().fold(sum, |sum, (_, len, _)| sum.saturating_add(*len)),
            _ => sum,
        });
        self.fresh.filter(|(_, room)| stored >= room.saturating_sub(room / 8)).map(|(end, _)| end)
    }

    /// Whether more is to be written than what lies on the stage: nobody else may touch the units of the piece meanwhile.
    pub fn brings(&self) -> bool {
        self.jobs.iter().any(|job| match job {
            Job::Store { .. } | Job::Packed { .. } => false,
            Job::Zero { .. } | Job::Bring { .. } => true,
            Job::Seal { parts, .. } => parts.iter().any(|(.., origin)| !matches!(origin, Origin::Stage)),
        })
    }

    /// Whether nothing of the piece has to be written.
    pub fn is_left_out(&self) -> bool {
        self.parts.iter().all(|part| part.hold == Hold::Pass)
    }

    /// How many bytes from `at` on the target reads as zeroes, up to `end`, as far as that is known.
    pub fn zeroes(&mut self, at: u64, end: u64) -> u64 {
        self.look.as_mut().and_then(|look| look.zeroes(at, end).ok()).unwrap_or(0)
    }

    /// The units that the piece has something of: their ranges, and the parts that lie in them.
    fn units(&self, len: u64) -> Vec<(Range<u64>, Range<usize>)> {
        let mut units: Vec<(Range<u64>, Range<usize>)> = Vec::new();
        for (index, part) in self.parts.iter().enumerate() {
            let mut at = part.at;
            while at < part.end() {
                let (number, _, left) = split(at, len);
                let start = number.saturating_mul(len);
                let next = index.saturating_add(1);
                match units.last_mut() {
                    Some((range, parts)) if range.start == start => parts.end = next,
                    _ => units.push((start..start.saturating_add(len), index..next)),
                }
                at = at.saturating_add(left);
            }
        }
        units
    }

    fn parts_in(&self, range: &Range<u64>, parts: &Range<usize>) -> Vec<Part> {
        let parts = self.parts.get(parts.clone()).unwrap_or_default();
        parts.iter().map(|part| part.within(range)).collect()
    }

    /// Packs all units of which everything is here.
    fn pack(&mut self) {
        let Some(mut packer) = self.packer.take() else { return };
        for (range, parts) in self.units(self.packs_by) {
            let parts = self.parts_in(&range, &parts);
            let len = parts.iter().fold(0u64, |sum, part| sum.saturating_add(part.len));
            let ends = range.start.saturating_add(len);
            let is_whole = ends == range.end || ends >= self.size;
            let is_ours = parts.first().is_some_and(|part| part.at == range.start)
                && parts.iter().all(|part| part.hold != Hold::Pass)
                && parts.iter().any(|part| part.hold != Hold::Zero);
            if !is_whole || !is_ours {
                continue;
            }
            let mut bytes = core::mem::take(&mut self.buffer);
            bytes.clear();
            bytes.resize(narrow(len), 0);
            let mut done = 0;
            for part in &parts {
                let next = narrow(part.len).saturating_add(done);
                if let (Hold::Data, Some(room)) = (part.hold, bytes.get_mut(done..next)) {
                    self.drive.take(self.skip(part.at), room);
                }
                done = next;
            }
            if let Some(packed) = packer.pack(range.start, &bytes) {
                let from = self.packed.len();
                self.packed.extend_from_slice(&packed);
                self.packs.push((range.start, from..self.packed.len()));
            }
            self.buffer = bytes;
        }
        self.packer = Some(packer);
    }

    /// The piece's turn has come: all its units get their places.
    pub fn reserve(&mut self, target: &mut dyn Target) -> Result<()> {
        let mut packs = core::mem::take(&mut self.packs).into_iter().peekable();
        let mut packed_until = 0;
        for (range, parts) in self.units(self.unit) {
            if let Some((at, bytes)) = packs.next_if(|(at, _)| *at == range.start) {
                packed_until = at.saturating_add(self.packs_by);
                self.reserve_packed(target, &(at..packed_until), bytes)?;
            }
            if range.start < packed_until {
                continue;
            }
            let parts = self.parts_in(&range, &parts);
            for run in parts.split(|part| part.hold == Hold::Pass).filter(|run| !run.is_empty()) {
                self.reserve_run(target, &range, run)?;
            }
        }
        Ok(())
    }

    fn reserve_packed(&mut self, target: &mut dyn Target, unit: &Range<u64>, bytes: Range<usize>) -> Result<()> {
        let len = unit.end.min(target.size()).saturating_sub(unit.start);
        let what = What::Packed(wide(bytes.len()));
        target.mark(self.drive, unit.start, len)?;
        let Some(spot) = target.reserve(self.drive, unit.start, len, what)? else { return Ok(()) };
        self.files.insert(spot.place.file.0);
        if let Some(Job::Packed { range, to }) = self.jobs.last_mut()
            && range.end == bytes.start
            && to.ahead(wide(range.len())) == spot.place
        {
            range.end = bytes.end;
            return Ok(());
        }
        self.jobs.push(Job::Packed { range: bytes, to: spot.place });
        Ok(())
    }

    /// Bytes of a unit that lie in a row.
    fn reserve_run(&mut self, target: &mut dyn Target, unit: &Range<u64>, run: &[Part]) -> Result<()> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return Ok(()) };
        let (at, end) = (first.at, last.end());
        let is_zero = run.iter().all(|part| part.hold == Hold::Zero);
        // In a new image, space that has been set aside need not be told that it is zero.
        let is_new = self.former.is_none() && self.manner.is_zero && self.manner.is_clean;
        if is_zero && is_new && self.cipher.is_none() {
            return Ok(());
        }
        let what = if is_zero { What::Zeroes } else { What::Data };
        for part in run.iter().filter(|part| part.hold != Hold::Zero || !self.manner.is_zero) {
            target.mark(self.drive, part.at, part.len)?;
        }
        let Some(spot) = target.reserve(self.drive, at, end.saturating_sub(at), what)? else { return Ok(()) };
        self.files.insert(spot.place.file.0);
        if spot.is_fresh && what == What::Data {
            let room = unit.end.min(self.at.saturating_add(wide(self.drive.stage_len())));
            let before = self.fresh.map_or(0, |(_, room)| room);
            let room = room.saturating_sub(unit.start.max(self.at)).saturating_add(before);
            self.fresh = Some((spot.place.ahead(unit.end.saturating_sub(at)), room));
        }
        let is_old = spot.rest == Rest::There;
        let is_blank = if is_old { self.manner.is_zero } else { spot.is_fresh && self.manner.is_clean };
        let skips = is_blank && spot.tweak.is_none();
        let mut regions = Vec::new();
        // Sectors are encrypted whole: of one that is there, what is not written is read again.
        let sector = wide(TWEAK_UNIT);
        let (first_at, last_end) = match (is_old, spot.tweak) {
            (true, Some(_)) => (at.saturating_sub(at % sector), end.next_multiple_of(sector)),
            _ => (unit.start, unit.end),
        };
        let around = |at: u64, end: u64| {
            let origin = match spot.rest {
                Rest::There => spot.tweak.map(|_| Origin::There(spot.behind(first.at.saturating_sub(unit.start)))),
                Rest::Zeroes => (!skips).then_some(Origin::Null),
                Rest::Below => Some(Origin::Below),
                Rest::Was(source) => Some(Origin::Was(source)),
            };
            (at < end).then_some(()).and(origin).map(|origin| (at, end.saturating_sub(at), origin))
        };
        regions.extend(around(first_at, at));
        for part in run {
            let origin = match part.hold {
                Hold::Data => Some(Origin::Stage),
                Hold::Zero if skips => None,
                Hold::Zero | Hold::Null => Some(Origin::Null),
                Hold::Pass => None,
            };
            regions.extend(origin.map(|origin| (part.at, part.len, origin)));
        }
        regions.extend(around(end, last_end.min(unit.end).min(target.size())));
        self.plan(unit.start, &spot, at, regions);
        Ok(())
    }

    /// Notes what is to be written to a spot, which is that of the byte at `at`.
    fn plan(&mut self, unit: u64, spot: &Spot, at: u64, regions: Vec<(u64, u64, Origin)>) {
        let back = |from: u64, of: u64| {
            if of >= at {
                from.saturating_add(of.saturating_sub(at))
            } else {
                from.saturating_sub(at.saturating_sub(of))
            }
        };
        let place = |of: u64| Place { at: back(spot.place.at, of), ..spot.place };
        if let (Some(tweak), Some((first, ..))) = (spot.tweak, regions.first()) {
            let (to, tweak) = (place(*first), back(tweak, *first));
            self.jobs.push(Job::Seal { parts: regions, unit, to, tweak });
            return;
        }
        for (at, len, origin) in regions {
            let to = place(at);
            match origin {
                Origin::Stage => {
                    let (begin, more) = (self.skip(at), narrow(len));
                    match self.jobs.last_mut() {
                        Some(Job::Store { skip, len, to: before })
                            if skip.saturating_add(*len) == begin && before.ahead(wide(*len)) == to =>
                        {
                            *len = len.saturating_add(more);
                        }
                        _ => self.jobs.push(Job::Store { skip: begin, len: more, to }),
                    }
                }
                Origin::Null => self.jobs.push(Job::Zero { len, to }),
                Origin::Below | Origin::Was(_) | Origin::There(_) => {
                    self.jobs.push(Job::Bring { at, len, unit, origin, to })
                }
            }
        }
    }
}
