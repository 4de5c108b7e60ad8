//! What a census repairs while it is taken, and what it remembers of that.

use super::super::census::Roll;
use super::super::clusters::Clusters;
use super::super::open::Table;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::cell::{Cell, OnceCell, RefCell};
use instar_image::census::{Finding, Miscount, Weight, finding};
use instar_image::{Error, Freed, Order, Place, Result};

/// What a census is taken for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// To see what is wrong. What can be said otherwise in one entry without harm is.
    Look,
    /// To have counts and flags say what is true; of all else has been told.
    Set,
    /// The same after all counts have been made anew.
    After,
}

/// A census of an image that is being repaired.
pub struct Mend<'m> {
    /// What is to be repaired.
    pub order: Order<'m>,
    /// What it is taken for.
    pub phase: Phase,
    /// The counts are such that they have to be made anew.
    pub rebuild: Cell<bool>,
    /// Corruptions and leaks that were counts.
    pub miscounts: Cell<(u64, u64)>,
    /// Errors that stay.
    pub others: Cell<u64>,
    /// Who has the counts.
    pub clusters: RefCell<Option<Clusters>>,
    /// Clusters with blocks of counts; asked for when an entry of a table is to be changed.
    blocks: OnceCell<BTreeSet<u64>>,
    /// Bytes in a row that nobody uses any more: where they begin and end.
    freed: Cell<(u64, u64)>,
    /// Why something could not be written.
    trouble: RefCell<Option<Error>>,
}

impl<'m> Mend<'m> {
    /// Nothing has been seen yet.
    pub fn new(order: Order<'m>, phase: Phase, clusters: Option<Clusters>) -> Self {
        Mend {
            order,
            phase,
            rebuild: Cell::new(false),
            miscounts: Cell::new((0, 0)),
            others: Cell::new(0),
            clusters: RefCell::new(clusters),
            blocks: OnceCell::new(),
            freed: Cell::new((0, 0)),
            trouble: RefCell::new(None),
        }
    }

    /// Whether what is wrong in itself has been told already.
    pub fn is_deaf(&self) -> bool {
        self.phase == Phase::Set
    }

    /// Whether entries without a meaning are made to say what they mean.
    pub fn heals_entries(&self) -> bool {
        self.order.is_all() && self.phase != Phase::Set
    }

    /// Whether flags are made to say what is true: with less than everything to be repaired, only if nothing else is wrong.
    pub fn heals_flags(&self) -> bool {
        self.phase != Phase::Look && (self.order.is_all() || self.others.get() == 0)
    }

    /// Whether an L2 table at `at` may be written to: it is nothing else that the image is read by.
    pub fn may_change(&self, roll: &Roll<'_, '_>, at: u64) -> Result<bool> {
        let layout = &roll.checked.layout;
        let len = layout.cluster_len;
        let blocks = match self.blocks.get() {
            Some(blocks) => blocks,
            None => {
                let found = roll.blocks_at()?;
                self.blocks.get_or_init(|| found)
            }
        };
        let end = at.saturating_add(len);
        let bytes = |table: Table, entry_len: u64| {
            table.at..table.at.saturating_add(table.count.saturating_mul(entry_len).max(1))
        };
        let own = [0..len, bytes(layout.l1, 8), bytes(layout.refcounts, 8), bytes(layout.snapshots, 40)];
        let meets = own.iter().any(|range| range.start < end && at < range.end);
        let is_block = blocks.range(at / len..end.div_ceil(len)).next().is_some();
        Ok(!meets && !is_block)
    }

    /// Writes a word or two of a table, which are in one sector.
    pub fn write(&self, place: Place, words: &[u64]) -> Result<()> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        self.order.drive.write(place, &bytes)
    }

    /// A unit has another count than the image says.
    pub fn miscount(&self, roll: &Roll<'_, '_>, miscount: &Miscount) -> Finding {
        let Miscount { unit, stored, counted } = *miscount;
        let is_leak = stored > counted;
        let is_mended = match self.phase {
            Phase::Look => {
                let (corruptions, leaks) = self.miscounts.get();
                let more = u64::from(is_leak);
                let (corruptions, leaks) =
                    (corruptions.saturating_add(1).saturating_sub(more), leaks.saturating_add(more));
                self.miscounts.set((corruptions, leaks));
                self.need(stored == 0);
                false
            }
            Phase::Set => is_leak || (self.order.is_all() && stored > 0),
            Phase::After => is_leak,
        };
        if !is_mended {
            self.others.set(self.others.get().saturating_add(1));
            return roll.miscounted(miscount);
        }
        if let Err(error) = self.correct(roll, miscount) {
            self.trouble.borrow_mut().get_or_insert(error);
        }
        let error = roll.corrupt("Repairing cluster {} refcount={} reference={}").arg(unit).arg(stored).arg(counted);
        finding(if is_leak { Weight::Freed } else { Weight::Mended }, error)
    }

    fn correct(&self, roll: &Roll<'_, '_>, miscount: &Miscount) -> Result<()> {
        let Miscount { unit, counted, .. } = *miscount;
        if let Some(clusters) = self.clusters.borrow_mut().as_mut() {
            clusters.correct(self.order.drive, unit, counted)?;
        }
        if counted > 0 {
            return Ok(());
        }
        let len = roll.checked.layout.cluster_len;
        let at = unit.saturating_mul(len);
        let (start, end) = self.freed.get();
        let next = at.saturating_add(len).min(roll.file.len());
        if at == end {
            self.freed.set((start, next));
            return Ok(());
        }
        self.free(roll)?;
        self.freed.set((at, next));
        Ok(())
    }

    /// Gives the space back that nobody uses any more.
    pub fn free(&self, roll: &Roll<'_, '_>) -> Result<()> {
        let (start, end) = self.freed.replace((0, 0));
        match end.saturating_sub(start) {
            0 => Ok(()),
            len => self.order.drive.discard(roll.file.place(start), len, Freed::Lost).map(drop),
        }
    }

    /// Takes note that the counts have to be made anew, if that is so.
    pub fn need(&self, rebuild: bool) {
        self.rebuild.set(self.rebuild.get() || rebuild);
    }

    /// Has everything written that has been repaired.
    pub fn settle(&self) -> Result<()> {
        if let Some(error) = self.trouble.take() {
            return Err(error);
        }
        match self.clusters.borrow_mut().as_mut() {
            Some(clusters) => clusters.draft.flush(self.order.drive),
            None => Ok(()),
        }
    }
}
