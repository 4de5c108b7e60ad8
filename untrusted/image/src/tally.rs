//! The tally of a census: how often every unit of the file is used, held against the counts that the image keeps.
//!
//! A byte for each unit is enough for nearly all; memory is taken for what is used alone, and a file of very many units
//! is looked at in parts.

use crate::census::{Census, Claim, Clusters, Finding, Irregular, Ledger, Miscount, Space, Weight, Witness, finding};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::ops::Range;
use instar_wire::error::Result;
use instar_wire::op::check::Summary;

/// Units of a page of counts.
const PAGE: usize = 1 << 16;
/// Units that are looked at in one go.
const WINDOW: u64 = 64 << 20;
/// A count in a page that is kept elsewhere, as it has no room there.
const MANY: u8 = u8::MAX;

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
    let mut last = None;
    let mut start = 0u64;
    loop {
        let end = start.saturating_add(window);
        let mut tally = Tally::new(census, start..end, &mut totals);
        census.take(&mut tally)?;
        units = units.max(tally.units);
        if let Some(mut ledger) = census.ledger() {
            last = tally.compare(&mut *ledger, units)?.or(last);
            tally.review(&mut *ledger, units)?;
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
    pages: Vec<Option<Box<[u8]>>>,
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

    fn get(&self, unit: u64) -> u64 {
        let (page, at) = self.place(unit);
        let byte = self.pages.get(page).and_then(Option::as_ref).and_then(|page| page.get(at)).copied().unwrap_or(0);
        if byte == MANY { self.many.get(&unit).copied().unwrap_or(MANY.into()) } else { byte.into() }
    }

    fn set(&mut self, unit: u64, count: u64) {
        let (page, at) = self.place(unit);
        if self.pages.len() <= page {
            self.pages.resize_with(page.saturating_add(1), || None);
        }
        let byte = u8::try_from(count).ok().filter(|byte| *byte != MANY);
        if byte.is_none() {
            self.many.insert(unit, count);
        }
        let slot = self.pages.get_mut(page).map(|page| page.get_or_insert_with(|| vec![0; PAGE].into_boxed_slice()));
        if let Some(cell) = slot.and_then(|page| page.get_mut(at)) {
            *cell = byte.unwrap_or(MANY);
        }
    }
}

/// A census being taken.
struct Tally<'c, 'r, 't> {
    census: &'c dyn Census,
    space: Space,
    counts: Counts,
    totals: &'t mut Totals<'r>,
    /// One more than the last unit that is used.
    units: u64,
    /// Parts that somebody has alone: where they begin and end.
    alone: BTreeMap<u64, u64>,
    /// Units whose counts cannot be read, in order.
    unknown: Vec<Range<u64>>,
    /// Nobody shares anything.
    is_exclusive: bool,
    /// What does not depend on the window is told once.
    is_first: bool,
}

impl<'c, 'r, 't> Tally<'c, 'r, 't> {
    fn new(census: &'c dyn Census, window: Range<u64>, totals: &'t mut Totals<'r>) -> Self {
        let is_first = window.start == 0;
        let counts = Counts::new(window);
        let (alone, unknown) = (BTreeMap::new(), Vec::new());
        let is_exclusive = census.is_exclusive();
        Tally { census, space: census.space(), counts, totals, units: 0, alone, unknown, is_exclusive, is_first }
    }

    fn irregular(&mut self, irregular: &Irregular) -> Result<()> {
        if let (Irregular::Miscount(_), summary) = (irregular, &mut self.totals.summary) {
            summary.miscounts = summary.miscounts.saturating_add(1);
        }
        self.census.words(irregular).map_or(Ok(()), |finding| self.totals.find(finding))
    }

    /// Counts one unit more; whether somebody else uses it although it should be used alone.
    fn count(&mut self, unit: u64, claim: &Claim) -> Result<bool> {
        let before = self.counts.get(unit);
        let after = before.saturating_add(claim.times);
        self.counts.set(unit, after.min(self.space.most));
        for _ in self.space.most..after {
            self.irregular(&Irregular::Uncountable(unit.saturating_mul(self.space.unit)))?;
        }
        Ok(before > 0 && (claim.alone || self.is_taken(unit)))
    }

    fn is_taken(&self, unit: u64) -> bool {
        let start = unit.saturating_mul(self.space.unit);
        let end = start.saturating_add(self.space.unit);
        self.alone.range(..end).next_back().is_some_and(|(_, taken)| *taken > start)
    }

    /// Holds the counts against those that the image keeps, which take their place. The last unit in use.
    fn compare(&mut self, ledger: &mut dyn Ledger, units: u64) -> Result<Option<u64>> {
        let mut stored = vec![0; PAGE];
        let mut last = None;
        let mut unit = self.counts.window.start;
        let end = self.counts.window.end.min(units);
        while unit < end {
            let most = usize::try_from(end.saturating_sub(unit)).unwrap_or(PAGE).min(PAGE);
            let room = stored.get_mut(..most).unwrap_or_default();
            let known = match ledger.read(unit, room) {
                Ok(known) => known.clamp(1, most),
                Err(error) => {
                    self.irregular(&Irregular::Uncounted(unit, error))?;
                    let next = unit.saturating_add(1);
                    match self.unknown.last_mut().filter(|last| last.end == unit) {
                        Some(last) => last.end = next,
                        None => self.unknown.push(unit..next),
                    }
                    unit = next;
                    continue;
                }
            };
            for stored in stored.get(..known).unwrap_or_default() {
                let (stored, counted) = (*stored, self.counts.get(unit));
                if stored > 0 || counted > 0 {
                    last = Some(unit);
                }
                if stored != counted {
                    self.irregular(&Irregular::Miscount(Miscount { unit, stored, counted }))?;
                    self.counts.set(unit, stored);
                }
                unit = unit.saturating_add(1);
            }
        }
        Ok(last)
    }

    fn review(&mut self, ledger: &mut dyn Ledger, units: u64) -> Result<()> {
        let Tally { census, counts, totals, unknown, is_first, .. } = self;
        let noted: RefCell<Vec<Finding>> = RefCell::default();
        let mut stored = |unit: u64| {
            let before = unknown.partition_point(|range| range.end <= unit);
            if unknown.get(before).is_some_and(|range| range.contains(&unit)) {
                return None;
            }
            if counts.window.contains(&unit) && unit < units {
                return Some(counts.get(unit));
            }
            let mut one = [0];
            if !*is_first || unit < units {
                return None;
            }
            if let Err(error) = ledger.read(unit, &mut one) {
                let note = Some(finding(Weight::Note, error)).filter(|note| !note.what.what.0.is_empty());
                noted.borrow_mut().extend(note);
                return None;
            }
            let [count] = one;
            Some(count)
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
            let told = if self.is_first { self.irregular(&Irregular::Outside(claim)) } else { Ok(()) };
            return told.map(|()| false);
        }
        let unit_len = self.space.unit.max(1);
        let (first, behind) = (claim.at / unit_len, claim.end().div_ceil(unit_len));
        self.units = self.units.max(behind);
        let Range { start, end } = self.counts.window;
        let mut shared = None;
        for unit in first.max(start)..behind.min(end) {
            if self.count(unit, &claim)? {
                shared = shared.or(Some(unit));
            }
        }
        if claim.alone && !self.is_exclusive {
            self.alone.insert(claim.at, claim.end());
        }
        match shared {
            Some(unit) => self.irregular(&Irregular::Shared(claim, self.counts.get(unit))).map(|()| false),
            None => Ok(true),
        }
    }

    fn find(&mut self, finding: Finding) -> Result<()> {
        if self.is_first { self.totals.find(finding) } else { Ok(()) }
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
