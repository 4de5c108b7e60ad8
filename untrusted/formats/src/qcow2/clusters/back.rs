//! Space that goes back to whoever keeps the file, once nothing leads to it any more.

use super::super::refcounts::one;
use super::blocks::block_of;
use super::{Clusters, Manner};
use alloc::vec;
use alloc::vec::Vec;
use instar_image::num::{narrow, wide};
use instar_image::{Drive, Freed, Place, Result};

/// Bytes of counts that are compared at once.
const PIECE: usize = 4096;
/// So many runs of clusters are noted before their space goes.
const RUNS_MAX: usize = 64 << 10;

/// Clusters in a row that nobody has any more, noted one by one, and why.
#[derive(Default)]
pub(super) struct Runs(Vec<(u64, u64, Freed)>);

impl Runs {
    /// One more.
    pub(super) fn add(&mut self, cluster: u64, freed: Freed) {
        match self.0.last_mut() {
            Some((_, end, why)) if *end == cluster && *why == freed => *end = cluster.saturating_add(1),
            _ => self.0.push((cluster, cluster.saturating_add(1), freed)),
        }
    }
}

impl Clusters {
    /// Some clusters are in use that are not counted as that: nobody can tell which of the others are not.
    pub fn distrust(&mut self) {
        self.is_trusted = false;
    }

    /// Has the space go of the clusters that nobody has any more, after the header has been led to the counts that say so.
    pub fn give_back(&mut self, drive: &dyn Drive) {
        // All that matters has been done, so what fails here has no consequences.
        self.give_all_back(drive).unwrap_or_default();
    }

    fn give_all_back(&mut self, drive: &dyn Drive) -> Result<()> {
        let mut gone = core::mem::take(&mut self.gone);
        let Manner::Shadow { former, copied } = &self.manner else {
            self.let_go(drive, gone);
            return Ok(());
        };
        let copies = copied.iter().zip(0u64..).filter(|(copied, _)| **copied);
        let numbers: Vec<(u64, u64)> =
            copies.map(|(_, number)| (number, block_of(former, number, 1))).filter(|(_, was)| *was != 0).collect();
        for (number, was) in numbers {
            let now = block_of(&self.blocks, number, 1);
            self.compare(drive, (was, now), number.saturating_mul(self.per_block()), &mut gone)?;
            if gone.0.len() >= RUNS_MAX && !self.let_go(drive, core::mem::take(&mut gone)) {
                return Ok(());
            }
        }
        self.let_go(drive, gone);
        Ok(())
    }

    /// Notes the clusters, of which this is the first, that one block counts and the other does not.
    fn compare(&mut self, drive: &dyn Drive, (was, now): (u64, u64), first: u64, gone: &mut Runs) -> Result<()> {
        let len = narrow(self.len());
        let (mut before, mut after) = (vec![0; len.min(PIECE)], vec![0; len.min(PIECE)]);
        let per_word = (64u64 >> self.order).max(1);
        // The header is nobody's to give back, whatever its count says.
        let all = 1..self.next;
        for skip in (0..len).step_by(PIECE) {
            let at = |block| self.start.saturating_add(block).saturating_add(wide(skip));
            self.draft.read(drive, at(was), &mut before)?;
            self.draft.read(drive, at(now), &mut after)?;
            let words = before.as_chunks::<8>().0.iter().zip(after.as_chunks::<8>().0);
            for ((was, now), number) in words.zip(wide(skip / 8)..).filter(|((was, now), _)| was != now) {
                for index in 0..per_word {
                    let cluster = first.saturating_add(number.saturating_mul(per_word)).saturating_add(index);
                    let is_gone = one(was, self.order, index) > 0 && one(now, self.order, index) == 0;
                    if is_gone && all.contains(&cluster) {
                        gone.add(cluster, self.freed);
                    }
                }
            }
        }
        Ok(())
    }

    /// Has the space go of these: whether all of it is wanted back.
    pub(super) fn let_go(&self, drive: &dyn Drive, gone: Runs) -> bool {
        let mut unwanted = None;
        for (first, end, freed) in gone.0.into_iter().filter(|_| self.is_trusted) {
            let place = Place { file: self.draft.file(), at: self.place(first.saturating_mul(self.len())) };
            let len = end.saturating_sub(first).saturating_mul(self.len());
            if unwanted != Some(freed) && !drive.discard(place, len, freed).unwrap_or(true) {
                unwanted = Some(freed);
            }
        }
        self.is_trusted && unwanted.is_none()
    }
}
