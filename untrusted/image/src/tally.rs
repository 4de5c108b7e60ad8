//! The tally of a census: how often every unit of the file is used, held against the counts that the image keeps.
//!
//! Two bytes for each unit are enough for nearly all; memory is taken for what is used alone, and a file of very many units
//! is looked at in parts.

use crate::census::{
    Census, Claim, Clusters, Finding, Irregular, Ledger, Miscount, Space, Stored, Weight, Witness, finding,
};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::ops::Range;
use instar_wire::error::{Kind, Result};
use instar_wire::op::check::Summary;

/// Units of a page of counts.
const PAGE: usize = 1 << 16;
/// Units that are looked at in one go.
const WINDOW: u64 = 32 << 20;
/// The most units of a file, as with qemu-img.
const UNITS_MAX: u64 = 0x7fff_ffff;
/// Of a unit in a page: somebody says that nobody else uses it.
const SOLE: u16 = 1 << 15;
/// Of a unit in a page: somebody says that others use it as well.
const SHARED: u16 = 1 << 14;
/// A count in a page that is kept elsewhere, as it has no room there.
const MANY: u16 = SHARED - 1;

/// Checks an image; every finding is reported when it is made.
pub fn check(census: &dyn Census, report: &mut dyn FnMut(Finding) -> Result<()>) -> Result<Summary> {
    check_in_windows(census, WINDOW, report)
}

/// The same, so many units at a time.
pub fn check_in_windows(
    census: &dyn Census,
    window: u64,
    report: &mut dyn FnMut(Finding) -> Result<()>,
) -> Result<Summary> {
    let space = census.space();
    let mut totals = Totals { report, summary: Summary::NONE };
    let mut units = space.len.div_ceil(space.unit.max(1));
    if units > UNITS_MAX {
        return Err(Kind::TooBig.what("File too large").file(space.file));
    }
    let mut last = None;
    let mut start = 0u64;
    loop {
        let end = start.saturating_add(window);
        let mut tally = Tally::new(census, start..end, &mut totals);
        census.take(&mut tally)?;
        units = units.max(tally.units);
        if let Some(mut ledger) = census.ledger() {
            last = tally.compare(&mut *ledger, units)?.or(last);
            if tally.is_doubtful {
                tally.review(&mut *ledger, units)?;
            }
        }
        if end >= units {
            break;
        }
        start = end;
    }
    let mut summary = totals.summary;
    summary.end = census.end(last);
    Ok(summary)
}

/// Where findings are counted, and go on from.
struct Totals<'r> {
    report: &'r mut dyn FnMut(Finding) -> Result<()>,
    summary: Summary,
}

impl Totals<'_> {
    fn find(&mut self, finding: Finding) -> Result<()> {
        let Summary { corruptions, leaks, failures, .. } = &mut self.summary;
        let total = match finding.weight {
            Weight::Corruption => corruptions,
            Weight::Leak => leaks,
            Weight::Failure => failures,
            Weight::Note => &mut 0,
        };
        *total = total.saturating_add(finding.count);
        if finding.what.what.0.is_empty() { Ok(()) } else { (self.report)(finding) }
    }
}

/// Counts of the units of a window.
struct Counts {
    window: Range<u64>,
    pages: Vec<Option<Box<[u16]>>>,
    many: BTreeMap<u64, u64>,
}

impl Counts {
    fn new(window: Range<u64>) -> Counts {
        Counts { window, pages: Vec::new(), many: BTreeMap::new() }
    }

    /// The page of a unit in the window, and the unit's place there.
    fn place(&self, unit: u64) -> (usize, usize) {
        let index = usize::try_from(unit.saturating_sub(self.window.start)).unwrap_or(usize::MAX);
        (index / PAGE, index % PAGE)
    }

    #[inline]
    fn cell(&self, unit: u64) -> u16 {
        let (page, at) = self.place(unit);
        self.pages.get(page).and_then(Option::as_ref).and_then(|page| page.get(at)).copied().unwrap_or(0)
    }

    #[inline]
    fn get(&self, unit: u64) -> u64 {
        match self.cell(unit) & MANY {
            MANY => self.many.get(&unit).copied().unwrap_or(MANY.into()),
            count => count.into(),
        }
    }

    /// The cells from a unit on, to the end of its page at least.
    fn row(&self, unit: u64) -> impl Iterator<Item = u16> + '_ {
        let (page, at) = self.place(unit);
        let page = self.pages.get(page).and_then(Option::as_ref).and_then(|page| page.get(at..)).unwrap_or_default();
        page.iter().copied().chain(core::iter::repeat(0))
    }

    /// The cell of a unit, for which there is a page from now on.
    #[inline]
    fn cell_mut(&mut self, unit: u64) -> Option<&mut u16> {
        let (page, at) = self.place(unit);
        if self.pages.get(page).is_none_or(Option::is_none) {
            self.make(page);
        }
        self.pages.get_mut(page)?.as_mut()?.get_mut(at)
    }

    #[cold]
    fn make(&mut self, page: usize) {
        if self.pages.len() <= page {
            self.pages.resize_with(page.saturating_add(1), || None);
        }
        if let Some(slot) = self.pages.get_mut(page) {
            *slot = Some(vec![0; PAGE].into_boxed_slice());
        }
    }

    /// Sets a count, and adds flags to those that are there.
    fn set(&mut self, unit: u64, count: u64, flags: u16) {
        let short = u16::try_from(count).ok().filter(|count| *count < MANY);
        if short.is_none() {
            self.many.insert(unit, count);
        }
        if let Some(cell) = self.cell_mut(unit) {
            *cell = *cell & !MANY | flags | short.unwrap_or(MANY);
        }
    }
}

fn flags(sole: Option<bool>) -> u16 {
    sole.map_or(0, |sole| if sole { SOLE } else { SHARED })
}

/// A census being taken.
struct Tally<'c, 'r, 't> {
    census: &'c dyn Census,
    space: Space,
    /// Units are 2 to this power long, if they are so.
    bits: Option<u32>,
    counts: Counts,
    totals: &'t mut Totals<'r>,
    /// One more than the last unit that is used.
    units: u64,
    /// Parts that somebody has alone: where they begin and end.
    alone: BTreeMap<u64, u64>,
    /// Units whose counts cannot be read, in order.
    unknown: Vec<Range<u64>>,
    /// There is something to be reviewed.
    is_doubtful: bool,
    /// What does not depend on the window is told once.
    is_first: bool,
}

impl<'c, 'r, 't> Tally<'c, 'r, 't> {
    fn new(census: &'c dyn Census, window: Range<u64>, totals: &'t mut Totals<'r>) -> Self {
        let is_first = window.start == 0;
        let counts = Counts::new(window);
        let (alone, unknown, space) = (BTreeMap::new(), Vec::new(), census.space());
        let bits = space.unit.is_power_of_two().then(|| space.unit.trailing_zeros());
        Tally { census, space, bits, counts, totals, units: 0, alone, unknown, is_doubtful: false, is_first }
    }

    fn irregular(&mut self, irregular: &Irregular) -> Result<()> {
        if let (Irregular::Miscount(_), summary) = (irregular, &mut self.totals.summary) {
            summary.miscounts = summary.miscounts.saturating_add(1);
        }
        self.census.words(irregular).map_or(Ok(()), |finding| self.totals.find(finding))
    }

    /// Counts one unit more; whether somebody else uses it although it should be used alone.
    #[inline]
    fn count(&mut self, unit: u64, claim: &Claim) -> Result<bool> {
        let flags = flags(claim.sole);
        // Nearly all units are used once.
        if let Some(cell @ 0) = self.counts.cell_mut(unit)
            && claim.times == 1
        {
            *cell = 1 | flags;
            return Ok(false);
        }
        self.count_more(unit, claim, flags)
    }

    fn count_more(&mut self, unit: u64, claim: &Claim, flags: u16) -> Result<bool> {
        let before = self.counts.get(unit);
        let after = before.saturating_add(claim.times);
        self.counts.set(unit, after.min(self.space.most), flags);
        for _ in self.space.most..after {
            self.irregular(&Irregular::Uncountable(unit.saturating_mul(self.space.unit)))?;
        }
        Ok(before > 0 && (claim.alone || self.is_taken(unit)))
    }

    /// The unit that a byte lies in.
    #[inline]
    fn unit_of(&self, at: u64) -> u64 {
        // A division would cost more than all the rest.
        match self.bits {
            Some(bits) => at.checked_shr(bits).unwrap_or(0),
            None => at.checked_div(self.space.unit).unwrap_or(0),
        }
    }

    fn is_taken(&self, unit: u64) -> bool {
        let start = unit.saturating_mul(self.space.unit);
        let end = start.saturating_add(self.space.unit);
        self.alone.range(..end).next_back().is_some_and(|(_, taken)| *taken > start)
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
                    self.is_doubtful = true;
                    let next = unit.saturating_add(1);
                    match self.unknown.last_mut().filter(|last| last.end == unit) {
                        Some(last) => last.end = next,
                        None => self.unknown.push(unit..next),
                    }
                    unit = next;
                    continue;
                }
            };
            for (cell, stored) in self.counts.row(unit).zip(stored.get(..known).unwrap_or_default()) {
                let denied = if *stored == 1 { SHARED } else { SOLE };
                // Nearly all are as they should be.
                if u64::from(cell & MANY) == *stored && cell & denied == 0 && cell & MANY != MANY {
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

    /// Compares the counts of a unit; the unit, if it is in use.
    fn compare_one(&mut self, unit: u64, stored: u64) -> Result<Option<u64>> {
        let counted = self.counts.get(unit);
        if stored == 0 && counted == 0 {
            return Ok(None);
        }
        let denied = if stored == 1 { SHARED } else { SOLE };
        self.is_doubtful |= self.counts.cell(unit) & denied != 0;
        if stored != counted {
            self.irregular(&Irregular::Miscount(Miscount { unit, stored, counted }))?;
            self.counts.set(unit, stored, 0);
        }
        Ok(Some(unit))
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
            let told = if self.is_first { self.irregular(&Irregular::Outside(claim)) } else { Ok(()) };
            return told.map(|()| false);
        }
        let first = self.unit_of(claim.at);
        let behind = self.unit_of(claim.end().saturating_sub(1)).saturating_add(1);
        self.units = self.units.max(behind);
        let Range { start, end } = self.counts.window;
        let mut shared = None;
        for unit in first.max(start)..behind.min(end) {
            if self.count(unit, &claim)? {
                shared = shared.or(Some(unit));
            }
        }
        if claim.alone {
            self.alone.insert(claim.at, claim.end());
        }
        match shared {
            Some(unit) => self.irregular(&Irregular::Shared(claim, self.counts.get(unit))).map(|()| false),
            None => Ok(true),
        }
    }

    fn claims(&mut self, like: Claim, places: &[u64]) -> Result<bool> {
        let flags = flags(like.sole);
        let bits = self.bits.filter(|_| like.len == self.space.unit && like.times == 1 && !like.alone);
        let behind = self.unit_of(self.space.len).min(self.counts.window.end);
        let window = self.counts.window.start..behind;
        let mut is_fine = true;
        for at in places {
            // One unit that nobody has used so far: the rest is for those that are not so simple.
            let unit = bits.filter(|_| at & self.space.unit.saturating_sub(1) == 0).map(|bits| at.checked_shr(bits));
            if let Some(unit) = unit.flatten().filter(|unit| window.contains(unit))
                && let Some(cell @ 0) = self.counts.cell_mut(unit)
            {
                *cell = 1 | flags;
                self.units = self.units.max(unit.saturating_add(1));
                continue;
            }
            is_fine &= self.claim(Claim { at: *at, ..like })?;
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
