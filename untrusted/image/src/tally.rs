//! The tally of a census: how often every unit of the file is used, held against the counts that the image keeps.
//!
//! A file of very many units is looked at in parts.

use crate::census::{
    Census, Claim, Clusters, Finding, Irregular, Ledger, Miscount, Scope, Space, Stored, Unused, Weight, Witness,
    finding,
};
use crate::counts::{ALONE, Counts, PAGE, SHARED, SOLE};
use crate::ranges::Ranges;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::ops::Range;
use instar_wire::error::{Kind, Result};
use instar_wire::op::check::Summary;

/// Units that are looked at in one go.
const WINDOW: u64 = 32 << 20;
/// Miscounts that are remembered.
const MISCOUNTS_MAX: usize = 1 << 18;
/// The most units of a file, as with qemu-img.
const UNITS_MAX: u64 = 0x7fff_ffff;

/// Checks an image; every finding is reported when it is made.
pub fn check(census: &dyn Census, scope: Scope, report: &mut dyn FnMut(Finding) -> Result<()>) -> Result<Summary> {
    check_in_windows(census, scope, WINDOW, report)
}

/// The same, so many units at a time.
pub fn check_in_windows(
    census: &dyn Census,
    scope: Scope,
    window: u64,
    report: &mut dyn FnMut(Finding) -> Result<()>,
) -> Result<Summary> {
    let mut totals = Totals { report, summary: Summary::NONE };
    let ended = whole(census, window, true, &mut totals);
    totals.end(ended.map(drop), scope)
}

/// What a survey has brought out.
pub struct Survey {
    /// What was found.
    pub summary: Summary,
    /// There is something to be reviewed.
    pub is_doubtful: bool,
    /// What was counted; none if that cannot be gone on from.
    pub counted: Option<Counted>,
}

/// All that was counted of a file that was looked at in one go, and where the image keeps another count.
pub struct Counted {
    counts: Counts,
    units: u64,
    miscounts: Vec<Miscount>,
    is_doubtful: bool,
}

/// Takes the census, and tells what it finds but for what [`Census::review`] would: of images that are being repaired,
/// that has to wait.
pub fn survey(census: &dyn Census, report: &mut dyn FnMut(Finding) -> Result<()>) -> Result<Survey> {
    let mut totals = Totals { report, summary: Summary::NONE };
    let (is_doubtful, counted) = whole(census, WINDOW, false, &mut totals)?;
    Ok(Survey { summary: totals.summary, is_doubtful, counted })
}

/// Tells of the miscounts again, to a census that may repair them now; and what is to be reviewed after that.
pub fn go_on(
    census: &dyn Census,
    scope: Scope,
    counted: Counted,
    report: &mut dyn FnMut(Finding) -> Result<()>,
) -> Result<Summary> {
    let mut totals = Totals { report, summary: Summary::NONE };
    let Counted { counts, units, miscounts, is_doubtful } = counted;
    let mut tally = Tally { counts, is_doubtful, ..Tally::new(census, 0..0, &mut totals) };
    let tell = || {
        for miscount in miscounts {
            tally.miscounted(miscount)?;
        }
        match census.ledger().filter(|_| tally.is_doubtful) {
            Some(mut ledger) => tally.review(&mut *ledger, units),
            None => Ok(()),
        }
    };
    let ended = tell();
    totals.end(ended, scope)
}

/// Counts the uses of all units: `each` gets them part after part of the file, and how many units there are up to the
/// last one in use. Answers the last part, and whether anybody leads to what lies outside of the file.
pub fn counts(census: &dyn Census, each: &mut dyn FnMut(&Counts, u64) -> Result<()>) -> Result<(Counts, bool)> {
    let (space, mut units, mut start) = (census.space(), 0, 0u64);
    let mut is_left = false;
    let mut totals = Totals { report: &mut |_| Ok(()), summary: Summary::NONE };
    loop {
        let end = start.saturating_add(WINDOW);
        let mut tally = Tally::new(census, start..end, &mut totals);
        census.take(&mut tally)?;
        units = tally.units.max(units);
        is_left |= tally.is_left;
        each(&tally.counts, units)?;
        if end >= units.max(space.units(0, space.len).end) {
            return Ok((tally.counts, is_left));
        }
        start = end;
    }
}

/// Whether there is something to be reviewed, and what was counted if all of it is there still.
fn whole(census: &dyn Census, window: u64, reviews: bool, totals: &mut Totals<'_>) -> Result<(bool, Option<Counted>)> {
    let space = census.space();
    let mut units = space.units(0, space.len).end;
    if units > UNITS_MAX && !space.is_free() {
        return Err(Kind::TooBig.what("File too large").file(space.file));
    }
    let (mut last, mut is_doubtful) = (None, false);
    let mut start = 0u64;
    loop {
        let mut tally = Tally::new(census, start..start.saturating_add(window), totals);
        census.take(&mut tally)?;
        let end = tally.ranges.as_ref().map_or(tally.counts.window.end, |ranges| ranges.window.end);
        units = units.max(tally.units);
        if let Some(mut ledger) = census.ledger() {
            last = tally.compare(&mut *ledger, units)?.or(last);
            is_doubtful |= tally.is_doubtful;
            if tally.is_doubtful && reviews {
                tally.review(&mut *ledger, units)?;
            }
        } else {
            tally.unused()?;
        }
        if end >= units {
            let is_all = tally.is_first && tally.unknown.is_empty() && tally.miscounts.len() < MISCOUNTS_MAX;
            let Tally { counts, miscounts, .. } = tally;
            totals.summary.end = census.end(last);
            return Ok((is_doubtful, is_all.then_some(Counted { counts, units, miscounts, is_doubtful })));
        }
        start = end;
    }
}

/// Where findings are counted, and go on from.
struct Totals<'r> {
    report: &'r mut dyn FnMut(Finding) -> Result<()>,
    summary: Summary,
}

impl Totals<'_> {
    fn end(mut self, ended: Result<()>, scope: Scope) -> Result<Summary> {
        match ended {
            // What cannot be read is one more thing that is wrong; only qemu-img has no answer then.
            Err(error) if error.kind == Kind::Io && !scope.as_qemu => self.find(finding(Weight::Failure, error))?,
            ended => ended?,
        }
        Ok(self.summary)
    }

    fn find(&mut self, finding: Finding) -> Result<()> {
        let Summary { corruptions, leaks, failures, fixed, .. } = &mut self.summary;
        let total = match finding.weight {
            Weight::Corruption => corruptions,
            Weight::Leak => leaks,
            Weight::Failure => failures,
            Weight::Mended => &mut fixed.corruptions,
            Weight::Freed => &mut fixed.leaks,
            Weight::Note => &mut 0,
        };
        *total = total.saturating_add(finding.count);
        let is_silent = finding.what.what.0.is_empty() && finding.what.cause.is_none();
        if is_silent { Ok(()) } else { (self.report)(finding) }
    }
}

fn flags(claim: &Claim) -> u16 {
    let sole = claim.sole.map_or(0, |sole| if sole { SOLE } else { SHARED });
    if claim.alone { sole | ALONE } else { sole }
}

/// The flag that a count, as the image keeps it, contradicts.
fn denied(stored: u64) -> u16 {
    if stored == 1 { SHARED } else { SOLE }
}

/// A census being taken.
struct Tally<'c, 'r, 't> {
    census: &'c dyn Census,
    space: Space,
    /// Units are 2 to this power long and begin at multiples of that, if they are so.
    bits: Option<u32>,
    counts: Counts,
    /// Instead of counts: what is in use of a file without units.
    ranges: Option<Ranges>,
    totals: &'t mut Totals<'r>,
    /// One more than the last unit that is used.
    units: u64,
    /// Units whose counts cannot be read, in order.
    unknown: Vec<Range<u64>>,
    /// There is something to be reviewed.
    is_doubtful: bool,
    /// What does not depend on the window is told once.
    is_first: bool,
    /// Somebody leads to what lies outside of the file.
    is_left: bool,
    /// Units that have another count than the image says: the first of them.
    miscounts: Vec<Miscount>,
}

impl<'c, 'r, 't> Tally<'c, 'r, 't> {
    fn new(census: &'c dyn Census, window: Range<u64>, totals: &'t mut Totals<'r>) -> Self {
        let (is_first, space) = (window.start == 0, census.space());
        let is_simple = space.unit.is_power_of_two() && space.lead == 0;
        Tally {
            census,
            space,
            bits: is_simple.then(|| space.unit.trailing_zeros()),
            ranges: space.is_free().then(|| Ranges::new(window.start..u64::MAX)),
            counts: Counts::new(window),
            totals,
            units: 0,
            unknown: Vec::new(),
            is_doubtful: false,
            is_first,
            is_left: false,
            miscounts: Vec::new(),
        }
    }

    fn irregular(&mut self, irregular: &Irregular) -> Result<()> {
        self.tell(irregular).map(drop)
    }

    /// Whether it has been repaired while it was told.
    fn tell(&mut self, irregular: &Irregular) -> Result<bool> {
        if let (Irregular::Miscount(_), summary) = (irregular, &mut self.totals.summary) {
            summary.miscounts = summary.miscounts.saturating_add(1);
        }
        let Some(finding) = self.census.words(irregular) else { return Ok(false) };
        let is_mended = matches!(finding.weight, Weight::Mended | Weight::Freed);
        self.totals.find(finding)?;
        Ok(is_mended)
    }

    /// Counts one unit more; whether somebody else uses it although it should be used alone.
    fn count(&mut self, unit: u64, claim: &Claim) -> Result<bool> {
        // Nearly all units are used once.
        if claim.times == 1 && self.counts.first(unit, flags(claim)) {
            return Ok(false);
        }
        let before = self.counts.get(unit);
        let after = before.saturating_add(claim.times);
        self.counts.set(unit, after.min(self.space.most), flags(claim));
        for _ in self.space.most..after {
            self.irregular(&Irregular::Uncountable(self.space.at(unit)))?;
        }
        Ok(before > 0 && self.counts.cell(unit).has(ALONE))
    }

    /// Tells of what nobody uses.
    fn unused(&mut self) -> Result<()> {
        if let Some(ranges) = self.ranges.take() {
            let mut gaps = ranges.gaps(self.space.len).map(|gap| {
                let len = gap.end.saturating_sub(gap.start);
                Irregular::Unused(Unused { at: gap.start, len, units: len })
            });
            return gaps.try_for_each(|gap| self.irregular(&gap));
        }
        let end = self.space.units(0, self.space.len).end.min(self.counts.window.end);
        let mut unit = self.counts.window.start;
        while unit < end {
            let mut behind = unit;
            while behind < end && self.counts.get(behind) == 0 {
                behind = self.counts.next(behind).max(behind.saturating_add(1)).min(end);
            }
            if behind > unit {
                let at = self.space.at(unit);
                let len = self.space.at(behind).min(self.space.len).saturating_sub(at);
                self.irregular(&Irregular::Unused(Unused { at, len, units: behind.saturating_sub(unit) }))?;
            }
            unit = behind.saturating_add(1);
        }
        Ok(())
    }

    /// Holds the counts against those that the image keeps, which take their place. The last unit in use.
    fn compare(&mut self, ledger: &mut dyn Ledger, units: u64) -> Result<Option<u64>> {
        let (mut stored, mut odd) = (vec![0; PAGE], Vec::new());
        let mut last = None;
        let mut unit = self.counts.window.start;
        let end = self.counts.window.end.min(units);
        while unit < end {
            let (_, within) = self.counts.place(unit);
            let most = usize::try_from(end.saturating_sub(unit)).unwrap_or(PAGE).min(PAGE.saturating_sub(within));
            let room = stored.get_mut(..most).unwrap_or_default();
            let known = match ledger.read(unit, room) {
                Ok(known) => known.clamp(1, most),
                Err(error) => {
                    self.irregular(&Irregular::Uncounted(unit, error))?;
                    self.cannot_know(unit);
                    unit = unit.saturating_add(1);
                    continue;
                }
            };
            for (cell, stored) in self.counts.row(unit).zip(stored.get(..known).unwrap_or_default()) {
                // Nearly all are as they should be.
                if cell.is(*stored, denied(*stored)) {
                    last = if *stored > 0 { Some(unit) } else { last };
                } else {
                    odd.push((unit, *stored));
                }
                unit = unit.saturating_add(1);
            }
            for (unit, stored) in odd.drain(..) {
                last = last.max(self.compare_one(unit, stored)?);
            }
        }
        Ok(last)
    }

    /// Takes note of a unit whose count cannot be read.
    fn cannot_know(&mut self, unit: u64) {
        self.is_doubtful = true;
        let next = unit.saturating_add(1);
        match self.unknown.last_mut().filter(|last| last.end == unit) {
            Some(last) => last.end = next,
            None => self.unknown.push(unit..next),
        }
    }

    /// Compares the counts of a unit; the unit, if it is in use.
    fn compare_one(&mut self, unit: u64, stored: u64) -> Result<Option<u64>> {
        let counted = self.counts.get(unit);
        if stored == 0 && counted == 0 {
            return Ok(None);
        }
        self.is_doubtful |= self.counts.cell(unit).has(denied(stored));
        if stored == counted {
            return Ok(Some(unit));
        }
        let miscount = Miscount { unit, stored, counted };
        if self.miscounts.len() < MISCOUNTS_MAX {
            self.miscounts.push(miscount);
        }
        let is_mended = self.miscounted(miscount)?;
        Ok((counted > 0 || !is_mended).then_some(unit))
    }

    /// Tells that a unit has another count than the image says. Whether it has not any more.
    fn miscounted(&mut self, miscount: Miscount) -> Result<bool> {
        let Miscount { unit, stored, counted } = miscount;
        let is_mended = self.tell(&Irregular::Miscount(miscount))?;
        // What is said of who else uses it may have been true of the former count.
        self.is_doubtful |= is_mended;
        self.counts.set(unit, if is_mended { counted } else { stored }, 0);
        Ok(is_mended)
    }

    fn review(&mut self, ledger: &mut dyn Ledger, units: u64) -> Result<()> {
        let Tally { census, counts, totals, unknown, is_first, .. } = self;
        let noted: RefCell<Vec<Finding>> = RefCell::default();
        let mut stored = |unit: u64| {
            let before = unknown.partition_point(|range| range.end <= unit);
            if unknown.get(before).is_some_and(|range| range.contains(&unit)) {
                return Stored::Unknown;
            }
            if counts.window.contains(&unit) && unit < units {
                return Stored::Count(counts.get(unit));
            }
            let mut one = [0];
            if !*is_first || unit < units {
                return Stored::Elsewhere;
            }
            if let Err(error) = ledger.read(unit, &mut one) {
                let note = Some(finding(Weight::Note, error)).filter(|note| !note.what.what.0.is_empty());
                noted.borrow_mut().extend(note);
                return Stored::Unknown;
            }
            let [count] = one;
            Stored::Count(count)
        };
        census.review(&mut stored, &mut |finding| {
            noted.take().into_iter().try_for_each(|note| totals.find(note))?;
            totals.find(finding)
        })?;
        noted.take().into_iter().try_for_each(|note| totals.find(note))
    }
}

impl Witness for Tally<'_, '_, '_> {
    fn claim(&mut self, claim: Claim) -> Result<bool> {
        if claim.len == 0 {
            return Ok(true);
        }
        if claim.end() > self.space.len.saturating_add(self.space.slack) {
            self.is_doubtful |= claim.sole.is_some();
            self.is_left = true;
            let told = if self.is_first { self.irregular(&Irregular::Outside(claim)) } else { Ok(()) };
            return told.map(|()| false);
        }
        if let Some(ranges) = &mut self.ranges {
            let is_shared = ranges.add(claim.at, claim.end());
            return if is_shared { self.irregular(&Irregular::Shared(claim, 2)).map(|()| false) } else { Ok(true) };
        }
        let Range { start: first, end: behind } = self.space.units(claim.at, claim.len);
        self.units = self.units.max(behind);
        let Range { start, end } = self.counts.window;
        let mut shared = None;
        for unit in first.max(start)..behind.min(end) {
            if self.count(unit, &claim)? {
                shared = shared.or(Some(unit));
            }
        }
        match shared {
            Some(unit) => self.irregular(&Irregular::Shared(claim, self.counts.get(unit))).map(|()| false),
            None => Ok(true),
        }
    }

    fn claims(&mut self, like: Claim, places: &[u64]) -> Result<bool> {
        let bits = self.bits.filter(|_| like.len == self.space.unit && like.times == 1);
        let (flags, mask) = (flags(&like), self.space.unit.saturating_sub(1));
        let whole = bits.map_or(0, |bits| self.space.len.checked_shr(bits).unwrap_or(0));
        let window = self.counts.window.start..self.counts.window.end.min(whole);
        let mut is_fine = true;
        for at in places {
            // One unit that nobody has used so far: the rest is for those that are not so simple.
            let unit = bits.filter(|_| at & mask == 0).and_then(|bits| at.checked_shr(bits));
            match unit.filter(|unit| window.contains(unit)) {
                Some(unit) if self.counts.first(unit, flags) => self.units = self.units.max(unit.saturating_add(1)),
                _ => is_fine &= self.claim(Claim { at: *at, ..like })?,
            }
        }
        Ok(is_fine)
    }

    fn find(&mut self, finding: Finding) -> Result<()> {
        if self.is_first { self.totals.find(finding) } else { Ok(()) }
    }

    fn doubt(&mut self) {
        self.is_doubtful = true;
    }

    fn add(&mut self, more: Clusters) {
        if !self.is_first {
            return;
        }
        let all = &mut self.totals.summary.clusters;
        for (all, more) in [
            (&mut all.total, more.total),
            (&mut all.allocated, more.allocated),
            (&mut all.fragmented, more.fragmented),
            (&mut all.compressed, more.compressed),
        ] {
            *all = all.saturating_add(more);
        }
    }
}
