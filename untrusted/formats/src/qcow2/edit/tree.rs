//! A disk as a tree: an L1 table, its L2 tables, and the clusters that those lead to.

use super::super::disk::{L1_OFFSET, L2_COMPRESSED, L2_COPIED, L2_OFFSET};
use super::super::locate::packed;
use super::work::{Work, broken};
use alloc::vec::Vec;
use instar_image::Result;

impl Work<'_> {
    /// One more tree with the content of this one: neither may change now what both have. What says of a cluster that
    /// nobody else has it is said in the new tree alone, so its tables are new where the old ones say that.
    pub fn branch(&mut self, l1: &[u64]) -> Result<Vec<u64>> {
        let mut made = Vec::with_capacity(l1.len());
        for lead in l1 {
            made.push(match lead & L1_OFFSET {
                0 => 0,
                at => self.branch_table(at)?,
            });
        }
        Ok(made)
    }

    fn branch_table(&mut self, at: u64) -> Result<u64> {
        let mut bytes = self.l2(at)?;
        self.each_cluster(&bytes, |work, cluster, count| work.clusters.bump(work.drive, cluster, count, true))?;
        let mut was_sole = false;
        for word in words(&mut bytes, self.entry_len) {
            let entry = u64::from_be_bytes(*word);
            was_sole |= entry & L2_COPIED != 0;
            *word = (entry & !L2_COPIED).to_be_bytes();
        }
        if was_sole {
            return Ok(self.add(&bytes)? | L2_COPIED);
        }
        self.clusters.bump(self.drive, at / self.cluster_len, 1, true)?;
        Ok(at)
    }

    /// A tree that is not wanted any more.
    pub fn fell(&mut self, l1: &[u64]) -> Result<()> {
        for at in l1.iter().map(|lead| lead & L1_OFFSET).filter(|at| *at != 0) {
            let bytes = self.l2(at)?;
            self.each_cluster(&bytes, |work, cluster, count| work.clusters.bump(work.drive, cluster, count, false))?;
            self.clusters.bump(self.drive, at / self.cluster_len, 1, false)?;
        }
        Ok(())
    }

    /// The same tree, which says of each cluster whether nobody else has it; nothing if that is what it says already.
    pub fn true_to_counts(&mut self, l1: &[u64]) -> Result<Option<Vec<u64>>> {
        let mut made = Vec::with_capacity(l1.len());
        for lead in l1 {
            made.push(match lead & L1_OFFSET {
                0 => *lead,
                at => self.true_table(*lead, at)?,
            });
        }
        Ok((made != l1).then_some(made))
    }

    fn true_table(&mut self, lead: u64, at: u64) -> Result<u64> {
        let mut bytes = self.l2(at)?;
        let mut is_new = false;
        for word in words(&mut bytes, self.entry_len) {
            let entry = u64::from_be_bytes(*word);
            let host = entry & L2_OFFSET;
            if entry & L2_COMPRESSED != 0 || host == 0 {
                continue;
            }
            let is_sole = self.clusters.counted(self.drive, host / self.cluster_len)? == 1;
            if is_sole != (entry & L2_COPIED != 0) {
                is_new = true;
                *word = (entry ^ L2_COPIED).to_be_bytes();
            }
        }
        if is_new {
            self.clusters.bump(self.drive, at / self.cluster_len, 1, false)?;
            return Ok(self.add(&bytes)? | L2_COPIED);
        }
        let is_sole = self.clusters.counted(self.drive, at / self.cluster_len)? == 1;
        Ok(lead & !L2_COPIED | if is_sole { L2_COPIED } else { 0 })
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
