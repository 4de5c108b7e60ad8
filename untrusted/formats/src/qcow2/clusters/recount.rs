//! Counts of another width: all of them are written anew beside the old ones, and the header turns over to them.

use super::back::Runs;
use super::{Clusters, LEN_MAX, Manner, TABLE_MAX, blocks, full};
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use instar_image::num::{bounded, narrow, wide};
use instar_image::text::hex;
use instar_image::{Drive, Kind, Result};

/// Is told how much has been done of how much.
pub type Tell<'t> = &'t mut dyn FnMut(u64, u64) -> Result<()>;

/// What will be there instead.
struct New {
    order: u32,
    /// Counts of a block.
    per_block: u64,
    /// Where each block lies that has anything to say; zero as long as it lies nowhere.
    blocks: BTreeMap<u64, u64>,
    /// Numbers of those that lie nowhere yet.
    homeless: Vec<u64>,
    /// The first cluster of the table, and how many it has.
    table: (u64, u64),
    /// Clusters of the old structure, in their order: each loses a user.
    gone: Vec<u64>,
    /// Those of them that had no other.
    free: Runs,
}

impl New {
    fn need(&mut self, cluster: u64) {
        let number = cluster / self.per_block;
        if let alloc::collections::btree_map::Entry::Vacant(entry) = self.blocks.entry(number) {
            entry.insert(0);
            self.homeless.push(number);
        }
    }

    fn is_gone(&self, cluster: u64) -> bool {
        self.gone.binary_search(&cluster).is_ok()
    }
}

impl Clusters {
    /// Writes all counts with a width of 2 to the power of `order` bits, in place of [`Self::publish`]: the header has to
    /// say where the table lies then, and how wide counts are.
    pub fn recount(&mut self, drive: &dyn Drive, order: u32, tell: Tell<'_>) -> Result<()> {
        let cluster = |at: u64| at >> self.bits;
        let mut gone: Vec<u64> = self.blocks.iter().filter(|at| **at != 0).map(|at| cluster(*at)).collect();
        let first = cluster(self.table_at);
        gone.extend(first..first.saturating_add(self.table_clusters));
        gone.sort_unstable();
        let per_block = (self.len().saturating_mul(8) >> order).max(1);
        let mut new = New {
            order,
            per_block,
            blocks: BTreeMap::new(),
            homeless: Vec::new(),
            table: (0, 0),
            gone,
            free: Runs::default(),
        };
        let entries = self.table_clusters.saturating_mul(self.len() / 8).max(wide(self.blocks.len()));
        let total = entries.saturating_mul(2);
        new.need(0);
        for number in 0..wide(self.blocks.len()) {
            self.look(drive, number, &mut new)?;
            tell(number.saturating_add(1), total)?;
        }
        self.house(drive, &mut new)?;
        let blocks: Vec<(u64, u64)> = new.blocks.iter().map(|(number, at)| (*number, *at)).collect();
        let mut bytes = vec![0; bounded(self.len(), LEN_MAX, full)?];
        for (done, (number, at)) in (1u64..).zip(&blocks) {
            self.translate(drive, &new, *number, &mut bytes)?;
            let place = self.place(*at);
            self.draft.write_through(drive, place, &bytes)?;
            tell(entries.saturating_add(done.saturating_mul(entries) / wide(blocks.len()).max(1)), total)?;
        }
        let count = blocks.last().map_or(0, |(last, _)| last.saturating_add(1));
        self.blocks = vec![0; bounded(count, TABLE_MAX / 8, full)?];
        for (number, at) in blocks {
            self.blocks.iter_mut().skip(narrow(number)).take(1).for_each(|entry| *entry = at);
        }
        self.owed.clear();
        self.order = order;
        (self.table_at, self.table_clusters) = (new.table.0 << self.bits, new.table.1);
        self.put_table(drive)?;
        self.draft.flush(drive)?;
        // All counts are new ones, of which nobody knows yet.
        (self.manner, self.gone) = (Manner::Loose, new.free);
        drive.flush(self.draft.file())
    }

    /// Finds out which new blocks the counts of an old one need, and whether all of them fit.
    fn look(&mut self, drive: &dyn Drive, number: u64, new: &mut New) -> Result<()> {
        let block = self.blocks.get(narrow(number)).copied().unwrap_or(0);
        if block == 0 {
            return Ok(());
        }
        let most = most(new.order);
        let first = number.saturating_mul(self.per_block());
        let (mut at, end) = (first, first.saturating_add(self.per_block()));
        while at < end {
            let counts = self.counts(drive, block, at, end.saturating_sub(at))?;
            for (cluster, count) in (at..).zip(&counts).filter(|(_, count)| **count > 0) {
                if *count == 1 && new.is_gone(cluster) {
                    new.free.add(cluster, self.freed);
                    continue;
                }
                if *count > most {
                    let phrase =
                        "Cannot decrease refcount entry width to {} bits: Cluster at offset {} has a refcount of {}";
                    let width = u64::from(1u32.wrapping_shl(new.order));
                    let offset = hex(cluster.saturating_mul(self.len()));
                    return Err(Kind::TooBig.what(phrase).arg(width).arg(offset).arg(*count));
                }
                new.need(cluster);
            }
            at = at.saturating_add(wide(counts.len()).max(1));
        }
        Ok(())
    }

    /// Finds room for all new blocks and their table, which are counted by themselves.
    fn house(&mut self, drive: &dyn Drive, new: &mut New) -> Result<()> {
        loop {
            while let Some(number) = new.homeless.pop() {
                let own = self.find(drive, 1)?;
                self.owe_run(own, new.table);
                new.blocks.insert(number, own.checked_mul(self.len()).ok_or_else(full)?);
                new.need(own);
            }
            let entries = new.blocks.last_key_value().map_or(0, |(last, _)| last.saturating_add(1));
            let clusters = entries.saturating_mul(8).div_ceil(self.len());
            if clusters.saturating_mul(self.len()) > TABLE_MAX {
                return Err(full());
            }
            if clusters <= new.table.1 {
                return Ok(());
            }
            self.owed.retain(|(first, ..)| *first != new.table.0 || new.table.1 == 0);
            let first = self.find(drive, clusters)?;
            new.table = (first, clusters);
            self.owed.push((first, clusters, 1));
            (first..first.saturating_add(clusters)).for_each(|cluster| new.need(cluster));
        }
    }

    /// Nobody else is given this cluster.
    fn owe_run(&mut self, cluster: u64, table: (u64, u64)) {
        match self.owed.last_mut() {
            Some((first, count, _)) if first.saturating_add(*count) == cluster && *first != table.0 => {
                *count = count.saturating_add(1);
            }
            _ => self.owed.push((cluster, 1, 1)),
        }
    }

    /// The bytes of a new block.
    fn translate(&mut self, drive: &dyn Drive, new: &New, number: u64, bytes: &mut [u8]) -> Result<()> {
        bytes.fill(0);
        let first = number.saturating_mul(new.per_block);
        let end = first.saturating_add(new.per_block);
        let mut at = first;
        while at < end {
            let block = blocks::block_of(&self.blocks, at, self.per_block());
            if block == 0 {
                at = (at / self.per_block()).saturating_add(1).saturating_mul(self.per_block());
                continue;
            }
            let counts = self.counts(drive, block, at, end.saturating_sub(at))?;
            for (cluster, count) in (at..).zip(&counts).filter(|(_, count)| **count > 0) {
                let count = if new.is_gone(cluster) { count.saturating_sub(1) } else { *count };
                put(bytes, new.order, cluster.saturating_sub(first), count);
            }
            at = at.saturating_add(wide(counts.len()).max(1));
        }
        for (from, count, value) in &self.owed {
            let run = (*from).max(first)..from.saturating_add(*count).min(end);
            run.for_each(|cluster| put(bytes, new.order, cluster.saturating_sub(first), *value));
        }
        Ok(())
    }
}

/// The largest count of this width.
fn most(order: u32) -> u64 {
    u64::MAX >> 64u32.saturating_sub(1u32.wrapping_shl(order)).min(63)
}

/// Puts the count with this number into a block.
fn put(block: &mut [u8], order: u32, index: u64, value: u64) {
    let bits = 1u64.wrapping_shl(order);
    let bit = index.saturating_mul(bits);
    let room = block.get_mut(narrow(bit / 8)..).unwrap_or_default();
    if order >= 3 {
        let (width, word) = (narrow(bits / 8), value.to_be_bytes());
        let one = word.get(8usize.saturating_sub(width)..).unwrap_or_default();
        room.iter_mut().zip(one).for_each(|(to, from)| *to = *from);
        return;
    }
    let (shift, mask) = (bit % 8, most(order));
    for byte in room.iter_mut().take(1) {
        let now = u64::from(*byte) & !(mask << shift) | (value & mask) << shift;
        *byte = u8::try_from(now & 0xff).unwrap_or(0);
    }
}
