//! A disk as a tree: an L1 table, its L2 tables, and the clusters that those lead to.

use super::super::disk::{L1_OFFSET, L2_COMPRESSED, L2_COPIED, L2_OFFSET};
use super::super::locate::packed;
use super::work::{Work, broken};
use alloc::vec::Vec;
use core::cell::Cell;
use instar_image::Result;
use instar_image::num::narrow;

/// So many changes of counts are put in order before they are made, if counts do not fit in memory.
const PENDING: usize = 512 << 10;
/// Bytes of tables that are held against counts together, for the same reason.
const TOGETHER: usize = 8 << 20;

/// Counts to be changed in one way. Clusters lie all over the file, and where there are more blocks of counts than are kept
/// in memory, each of them is to be brought there once and not once for each cluster.
struct Bumps {
    is_more: bool,
    most: usize,
    /// The first of some clusters in a row, and how many.
    pending: Vec<(u64, u64)>,
}

impl Bumps {
    fn new(work: &Work<'_>, is_more: bool) -> Bumps {
        Bumps { is_more, most: if work.clusters.is_crowded() { PENDING } else { 1 }, pending: Vec::new() }
    }

    fn add(&mut self, work: &mut Work<'_>, first: u64, count: u64) -> Result<()> {
        self.pending.push((first, count));
        if self.pending.len() >= self.most { self.make(work) } else { Ok(()) }
    }

    fn make(&mut self, work: &mut Work<'_>) -> Result<()> {
        self.pending.sort_unstable();
        let mut all = self.pending.drain(..);
        all.try_for_each(|(first, count)| work.clusters.bump(work.drive, first, count, self.is_more))
    }
}

impl Work<'_> {
    /// One more tree with the content of this one: neither may change now what both have. What says of a cluster that
    /// nobody else has it is said in the new tree alone, so its tables are new where the old ones say that.
    pub fn branch(&mut self, mut l1: Vec<u64>) -> Result<Vec<u64>> {
        let mut more = Bumps::new(self, true);
        for lead in &mut l1 {
            *lead = match *lead & L1_OFFSET {
                0 => 0,
                at => self.branch_table(at, &mut more)?,
            };
        }
        more.make(self)?;
        Ok(l1)
    }

    fn branch_table(&mut self, at: u64, more: &mut Bumps) -> Result<u64> {
        let mut bytes = self.l2(at)?;
        self.each_cluster(&bytes, |work, cluster, count| more.add(work, cluster, count))?;
        let mut was_sole = false;
        for word in words(&mut bytes, self.entry_len) {
            let entry = u64::from_be_bytes(*word);
            was_sole |= entry & L2_COPIED != 0;
            *word = (entry & !L2_COPIED).to_be_bytes();
        }
        if was_sole {
            return Ok(self.add(&bytes)? | L2_COPIED);
        }
        more.add(self, at / self.cluster_len, 1)?;
        Ok(at)
    }

    /// A tree that is not wanted any more.
    pub fn fell(&mut self, l1: &[u64]) -> Result<()> {
        let mut less = Bumps::new(self, false);
        for at in l1.iter().map(|lead| lead & L1_OFFSET).filter(|at| *at != 0) {
            let bytes = self.l2(at)?;
            self.each_cluster(&bytes, |work, cluster, count| less.add(work, cluster, count))?;
            less.add(self, at / self.cluster_len, 1)?;
        }
        less.make(self)
    }

    /// The same tree, which says of each cluster whether nobody else has it; nothing if that is what it says already.
    pub fn true_to_counts(&mut self, mut l1: Vec<u64>) -> Result<Option<Vec<u64>>> {
        let together = if self.clusters.is_crowded() { TOGETHER / narrow(self.cluster_len).max(1) } else { 1 };
        let mut is_new = false;
        let mut leads = l1.iter_mut().filter(|lead| **lead & L1_OFFSET != 0).peekable();
        while leads.peek().is_some() {
            is_new |= self.true_tables(leads.by_ref().take(together.max(1)).collect())?;
        }
        Ok(is_new.then_some(l1))
    }

    /// Whether the leads have to be others; they are then.
    fn true_tables(&mut self, leads: Vec<&mut u64>) -> Result<bool> {
        let mut tables = Vec::with_capacity(leads.len());
        for lead in leads {
            let bytes = self.l2(*lead & L1_OFFSET)?;
            tables.push((lead, bytes, false));
        }
        match &mut tables[..] {
            [(_, bytes, is_new)] => {
                for word in words(bytes, self.entry_len) {
                    *is_new |= self.true_word(word)?;
                }
            }
            // In the order of their counts.
            many => {
                let all = many.iter_mut().flat_map(|(_, bytes, is_new)| {
                    let is_new = Cell::from_mut(is_new);
                    words(bytes, self.entry_len).map(move |word| (word, is_new))
                });
                let mut all: Vec<_> = all.filter(|(word, _)| !word.iter().all(|byte| *byte == 0)).collect();
                all.sort_unstable_by_key(|(word, _)| u64::from_be_bytes(**word) & L2_OFFSET);
                for (word, is_new) in all {
                    is_new.set(is_new.get() | self.true_word(word)?);
                }
            }
        }
        let mut are_new = false;
        for (lead, bytes, is_new) in tables {
            let (was, at) = (*lead, *lead & L1_OFFSET);
            *lead = match is_new {
                true => {
                    self.clusters.bump(self.drive, at / self.cluster_len, 1, false)?;
                    self.add(&bytes)? | L2_COPIED
                }
                false if self.clusters.counted(self.drive, at / self.cluster_len)? == 1 => *lead | L2_COPIED,
                false => *lead & !L2_COPIED,
            };
            are_new |= *lead != was;
        }
        Ok(are_new)
    }

    /// Whether an entry has to say something else than it does; it says that then.
    fn true_word(&mut self, word: &mut [u8; 8]) -> Result<bool> {
        let entry = u64::from_be_bytes(*word);
        let host = entry & L2_OFFSET;
        if entry & L2_COMPRESSED != 0 || host == 0 {
            return Ok(false);
        }
        let count = self.clusters.counted(self.drive, host / self.cluster_len)?;
        if count == 0 {
            self.clusters.distrust();
        }
        let is_sole = count == 1;
        if is_sole == (entry & L2_COPIED != 0) {
            return Ok(false);
        }
        *word = (entry ^ L2_COPIED).to_be_bytes();
        Ok(true)
    }

    /// The clusters of the image's own file that an L2 table leads to, as the first of some in a row and how many they are.
    pub fn each_cluster(
        &mut self,
        table: &[u8],
        mut tell: impl FnMut(&mut Self, u64, u64) -> Result<()>,
    ) -> Result<()> {
        if self.is_beside {
            return Ok(());
        }
        let bits = self.cluster_len.trailing_zeros();
        let mut run = (0u64, 0u64);
        for entry in table.chunks_exact(self.entry_len) {
            let entry = entry.first_chunk().map_or(0, |word| u64::from_be_bytes(*word));
            let (first, count) = if entry & L2_COMPRESSED != 0 {
                let (at, len) = packed(entry, bits);
                let first = at >> bits;
                (
                    first,
                    (at.saturating_add(len.max(1)).saturating_sub(1) >> bits).saturating_sub(first).saturating_add(1),
                )
            } else {
                match entry & L2_OFFSET {
                    0 => continue,
                    host if host.is_multiple_of(self.cluster_len) => (host >> bits, 1),
                    _ => return Err(broken("a cluster is not where one can be")),
                }
            };
            if run.0.saturating_add(run.1) == first {
                run.1 = run.1.saturating_add(count);
                continue;
            }
            if run.1 > 0 {
                tell(self, run.0, run.1)?;
            }
            run = (first, count);
        }
        if run.1 > 0 { tell(self, run.0, run.1) } else { Ok(()) }
    }
}

/// The first words of all entries.
fn words(table: &mut [u8], entry_len: usize) -> impl Iterator<Item = &mut [u8; 8]> {
    table.chunks_exact_mut(entry_len).filter_map(|entry| entry.first_chunk_mut())
}
