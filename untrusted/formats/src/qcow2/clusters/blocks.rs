//! The counts of clusters, in blocks that a table leads to.

use super::super::disk::Header;
use super::super::open::Layout;
use super::super::refcounts::one;
use super::{Clusters, LEN_MAX, Manner, TABLE_MAX, full};
use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;
use core::mem::offset_of;
use instar_image::num::{bounded, narrow, power, wide};
use instar_image::{Drive, File, Kind, Result};

/// Counts that are written at once.
const PIECE: usize = 4096;
/// Bytes of counts that are looked at together.
const LOOKED_AT: u64 = 512;

impl Clusters {
    pub(super) fn per_block(&self) -> u64 {
        (self.len().saturating_mul(8) >> self.order).max(1)
    }

    /// How many users a cluster has.
    pub fn counted(&mut self, drive: &dyn Drive, cluster: u64) -> Result<u64> {
        let (number, index) = self.split(cluster);
        let at = self.blocks.get(narrow(number)).copied().unwrap_or(0);
        if at == 0 {
            return Ok(0);
        }
        let (byte, shift, width) = self.bit(index);
        let mut word = [0; 8];
        let bytes = usize::try_from(width.div_ceil(8)).unwrap_or(8);
        let room = word.get_mut(8usize.saturating_sub(bytes)..).unwrap_or_default();
        self.draft.read(drive, self.place(at).saturating_add(byte), room)?;
        Ok(u64::from_be_bytes(word) >> shift & self.most())
    }

    /// Where the last cluster ends that is in use.
    pub fn used_end(&mut self, drive: &dyn Drive) -> Result<u64> {
        for number in (0..self.blocks.len()).rev() {
            let Some(at) = self.blocks.get(number).copied().filter(|at| *at != 0) else { continue };
            let mut bytes = vec![0; bounded(self.len(), LEN_MAX, full)?];
            self.draft.read(drive, self.place(at), &mut bytes)?;
            let Some(last) = bytes.iter().rposition(|byte| *byte != 0) else { continue };
            let counts = (wide(last).saturating_add(1).saturating_mul(8) >> self.order).max(1);
            let mut end = wide(number).saturating_mul(self.per_block()).saturating_add(counts);
            while end > 0 && self.counted(drive, end.saturating_sub(1))? == 0 {
                end = end.saturating_sub(1);
            }
            return Ok(end.saturating_mul(self.len()));
        }
        Ok(0)
    }

    /// One user more, or less, for each of some clusters in a row that are in use.
    pub fn bump(&mut self, drive: &dyn Drive, first: u64, count: u64, is_more: bool) -> Result<()> {
        let end = first.saturating_add(count);
        if end > self.next {
            return Err(Kind::Corrupt.what("a cluster is beyond the end of the file").file(self.draft.file()));
        }
        let (most, file) = (self.most(), self.draft.file());
        let bumped = |was: u64| match is_more {
            _ if was == 0 => Err(Kind::Corrupt.what("a cluster is used and not counted").file(file)),
            true if was >= most => Err(Kind::TooBig.what("Invalid argument")),
            true => Ok(was.saturating_add(1)),
            false => Ok(was.saturating_sub(1)),
        };
        let mut cluster = first;
        while cluster < end {
            let (number, index) = self.split(cluster);
            let left = end.saturating_sub(cluster);
            let done = match self.ours(number) {
                // A count may lie in two pages where an image begins at an odd place.
                Some(block) if self.order >= 3 && self.place(block).is_multiple_of(8) => {
                    self.alter(drive, block, (index, left), &bumped)?
                }
                Some(block) => {
                    let now = bumped(self.counted(drive, cluster)?)?;
                    self.fill(drive, block, index, 1, now)?;
                    1
                }
                None => {
                    let now = bumped(self.counted(drive, cluster)?)?;
                    self.set(drive, cluster, 1, now)?;
                    1
                }
            };
            cluster = cluster.saturating_add(done);
        }
        Ok(())
    }

    /// Changes counts in a row, of whole bytes each, where they are: how many were at hand.
    fn alter(
        &mut self,
        drive: &dyn Drive,
        block: u64,
        (index, most): (u64, u64),
        change: &dyn Fn(u64) -> Result<u64>,
    ) -> Result<u64> {
        let shift = self.order.saturating_sub(3);
        let at = self.place(block).saturating_add(index << shift);
        let left = self.per_block().saturating_sub(index).min(most);
        let mut came = Ok(());
        let len = self.draft.alter(drive, at, left << shift, &mut |bytes| {
            came = match shift {
                0 => each::<1>(bytes, change),
                1 => each::<2>(bytes, change),
                2 => each::<4>(bytes, change),
                _ => each::<8>(bytes, change),
            };
        })?;
        came.map(|()| len >> shift)
    }

    /// The number of the block that counts a cluster, and which of its counts it is.
    fn split(&self, cluster: u64) -> (u64, u64) {
        let bits = self.bits.saturating_add(3).saturating_sub(self.order);
        (cluster >> bits, cluster & power(bits).saturating_sub(1))
    }

    /// Sets the count of a cluster that has one, where it stands: it is not what the image says.
    pub fn correct(&mut self, drive: &dyn Drive, cluster: u64, value: u64) -> Result<()> {
        match self.ours(cluster / self.per_block()) {
            Some(block) => self.fill(drive, block, cluster % self.per_block(), 1, value),
            None => Err(Kind::Corrupt.what("a cluster has no count").file(self.draft.file())),
        }
    }

    /// Where the block of counts with this number lies, if there is one that may be written to.
    fn ours(&self, number: u64) -> Option<u64> {
        let index = narrow(number);
        let is_ours = match &self.manner {
            Manner::Shadow { copied, .. } => copied.get(index).copied().unwrap_or(false),
            _ => true,
        };
        self.blocks.get(index).copied().filter(|at| *at != 0 && is_ours)
    }

    /// How many clusters from `first` on, of `most`, are free, or are not, as that one is.
    pub(super) fn alike(&mut self, drive: &dyn Drive, first: u64, most: u64) -> Result<(u64, bool)> {
        if let Some((from, count, _)) = self
            .owed
            .iter()
            .find(|(from, count, value)| *value > 0 && (*from..from.saturating_add(*count)).contains(&first))
        {
            return Ok((from.saturating_add(*count).saturating_sub(first).min(most), false));
        }
        let owed = self.owed.iter().filter(|(from, ..)| *from > first).map(|(from, ..)| *from).min();
        let most = owed.map_or(most, |from| most.min(from.saturating_sub(first)));
        let per_block = self.per_block();
        let former = match &self.manner {
            Manner::Shadow { former, .. } => Some(block_of(former, first, per_block)),
            _ => None,
        };
        let now = self.counts(drive, block_of(&self.blocks, first, per_block), first, most)?;
        let former = former.map(|block| self.counts(drive, block, first, most)).transpose()?;
        let is_free = |index: usize| {
            let free = |counts: &Vec<u64>| counts.get(index).is_none_or(|count| *count == 0);
            free(&now) && former.as_ref().is_none_or(free)
        };
        let known = now.len().max(1);
        let what = is_free(0);
        let len = (1..known).find(|index| is_free(*index) != what).unwrap_or(known);
        Ok((wide(len).min(most.max(1)), what))
    }

    /// The counts from that of cluster `first` on, which this block has: some of them, at most so many.
    pub(super) fn counts(&mut self, drive: &dyn Drive, block: u64, first: u64, most: u64) -> Result<Vec<u64>> {
        let index = first % self.per_block();
        let per_word = (64u64 >> self.order).max(1);
        let words = (LOOKED_AT / 8).min((self.per_block() / per_word).saturating_sub(index / per_word)).max(1);
        let skip = index % per_word;
        let count = words
            .saturating_mul(per_word)
            .saturating_sub(skip)
            .min(most.max(1))
            .min(self.per_block().saturating_sub(index));
        if block == 0 {
            return Ok(vec![0; narrow(count)]);
        }
        let mut bytes = vec![0; narrow(words.saturating_mul(8))];
        let from = self.place(block).saturating_add((index / per_word).saturating_mul(8));
        self.draft.read(drive, from, &mut bytes)?;
        let numbers =
            bytes.as_chunks::<8>().0.iter().flat_map(|word| (0..per_word).map(|index| one(word, self.order, index)));
        Ok(numbers.skip(narrow(skip)).take(narrow(count)).collect())
    }

    /// Where the count with this number stands in its block: the byte, the bit in it, and how many bits.
    fn bit(&self, index: u64) -> (u64, u32, u32) {
        let width = 1u32.wrapping_shl(self.order);
        let bit = index << self.order;
        (bit / 8, u32::try_from(bit % 8).unwrap_or(0), width)
    }

    /// Sets the counts of clusters in a row, and all that this entails.
    pub(super) fn set(&mut self, drive: &dyn Drive, first: u64, count: u64, value: u64) -> Result<()> {
        if matches!(self.manner, Manner::Loose) {
            return self.set_now(drive, (first, count, value));
        }
        self.owed.push((first, count, value));
        // What is owed is given to nobody else, up to the moment when it has been counted.
        while let Some(owed) = self.owed.first().copied() {
            self.set_now(drive, owed)?;
            self.owed.remove(0);
        }
        Ok(())
    }

    fn set_now(&mut self, drive: &dyn Drive, (first, count, value): (u64, u64, u64)) -> Result<()> {
        let per_block = self.per_block();
        let (mut at, end) = (first, first.saturating_add(count));
        while at < end {
            let block = self.block(drive, at / per_block)?;
            let left = per_block.saturating_sub(at % per_block).min(end.saturating_sub(at));
            self.fill(drive, block, at % per_block, left, value)?;
            at = at.saturating_add(left);
        }
        Ok(())
    }

    /// The count of a cluster that is there changes in the order of other changes.
    fn owe(&mut self, drive: &dyn Drive, first: u64, count: u64, value: u64) -> Result<()> {
        match self.manner {
            Manner::Loose => self.set_now(drive, (first, count, value)),
            _ => {
                self.owed.push((first, count, value));
                Ok(())
            }
        }
    }

    /// Sets counts in a block.
    fn fill(&mut self, drive: &dyn Drive, block: u64, index: u64, count: u64, value: u64) -> Result<()> {
        let block = self.place(block);
        let (mut index, mut left) = (index, count);
        if self.order < 3 {
            // Single counts at both ends, whole bytes between them.
            let per_byte = 8u64 >> self.order;
            let same = (0..per_byte).fold(0u64, |byte, number| byte | value << (number << self.order));
            while left > 0 {
                let (byte, shift, _) = self.bit(index);
                if shift == 0 && left >= per_byte {
                    let bytes = (left / per_byte).min(wide(PIECE));
                    let run = vec![u8::try_from(same).unwrap_or(0); usize::try_from(bytes).unwrap_or(0)];
                    self.draft.put(drive, block.saturating_add(byte), &run)?;
                    let counts = bytes.saturating_mul(per_byte);
                    (index, left) = (index.saturating_add(counts), left.saturating_sub(counts));
                    continue;
                }
                let [was] = self.draft.get(drive, block.saturating_add(byte))?;
                let mask = self.most() << shift;
                let now = u64::from(was) & !mask | value << shift & mask;
                self.draft.put(drive, block.saturating_add(byte), &[u8::try_from(now & 0xff).unwrap_or(0)])?;
                (index, left) = (index.saturating_add(1), left.saturating_sub(1));
            }
            return Ok(());
        }
        let width = 1usize.wrapping_shl(self.order) / 8;
        let word = value.to_be_bytes();
        let one = word.get(8usize.saturating_sub(width)..).unwrap_or_default();
        if left == 1 {
            return self.draft.put(drive, block.saturating_add(index.saturating_mul(wide(width))), one);
        }
        while left > 0 {
            let counts = left.min(wide(PIECE / width.max(1)));
            let run = one.repeat(usize::try_from(counts).unwrap_or(0));
            self.draft.put(drive, block.saturating_add(index.saturating_mul(wide(width))), &run)?;
            (index, left) = (index.saturating_add(counts), left.saturating_sub(counts));
        }
        Ok(())
    }

    /// Where the block of counts with this number lies, to be written to; made if there is none.
    fn block(&mut self, drive: &dyn Drive, number: u64) -> Result<u64> {
        let index = usize::try_from(number).map_err(|_| full())?;
        if let Some(found) = self.ours(number) {
            return self.inside(found);
        }
        let found = self.blocks.get(index).copied().unwrap_or(0);
        let capacity = self.table_clusters.saturating_mul(self.len()) / 8;
        let is_shadow = matches!(self.manner, Manner::Shadow { .. });
        if number >= capacity && !is_shadow {
            self.grow(drive, number)?;
            return self.block(drive, number);
        }
        let own = self.find(drive, 1)?;
        let at = own.checked_mul(self.len()).ok_or_else(full)?;
        if self.blocks.len() <= index {
            self.blocks.resize(index.saturating_add(1), 0);
        }
        if let Some(entry) = self.blocks.get_mut(index) {
            *entry = at;
        }
        let entry_at = self.place(self.table_at.saturating_add(number.saturating_mul(8)));
        match &mut self.manner {
            Manner::Loose => self.draft.put(drive, entry_at, &at.to_be_bytes())?,
            Manner::Ordered { ties, .. } => ties.push((entry_at, at.to_be_bytes().to_vec())),
            Manner::Shadow { copied, .. } => {
                copied.resize(copied.len().max(index.saturating_add(1)), false);
                copied.iter_mut().skip(index).take(1).for_each(|copied| *copied = true);
            }
        }
        match found {
            0 => self.draft.blank(drive, self.place(at), self.len())?,
            found => {
                let mut bytes = vec![0; bounded(self.len(), LEN_MAX, full)?];
                self.draft.read(drive, self.place(found), &mut bytes)?;
                self.draft.put(drive, self.place(at), &bytes)?;
                self.owe(drive, found >> self.bits, 1, 0)?;
            }
        }
        self.owe(drive, own, 1, 1)?;
        Ok(at)
    }

    /// A longer table, so that it has an entry with this number.
    pub(super) fn grow(&mut self, drive: &dyn Drive, number: u64) -> Result<()> {
        let needed = number.saturating_add(1);
        let entries = needed.saturating_add(needed.div_ceil(2));
        let clusters = entries.saturating_mul(8).div_ceil(self.len());
        if clusters.saturating_mul(self.len()) > TABLE_MAX {
            return Err(full());
        }
        let (old, old_clusters) = (self.table_at, self.table_clusters);
        let first = self.find(drive, clusters)?;
        (self.table_at, self.table_clusters) = (first.saturating_mul(self.len()), clusters);
        self.put_table(drive)?;
        let header = self.place(wide(offset_of!(Header, refcount_table_offset)));
        let mut place = self.table_at.to_be_bytes().to_vec();
        place.extend(u32::try_from(clusters).unwrap_or(0).to_be_bytes());
        match &mut self.manner {
            Manner::Ordered { ties, .. } => ties.push((header, place)),
            _ => self.draft.put(drive, header, &place)?,
        }
        self.owe(drive, first, clusters, 1)?;
        self.release(drive, old, old_clusters.saturating_mul(self.len()))
    }

    /// Writes the table where it is to lie.
    pub(super) fn put_table(&mut self, drive: &dyn Drive) -> Result<()> {
        let at = self.place(self.table_at);
        self.draft.blank(drive, at, self.table_clusters.saturating_mul(self.len()))?;
        let words: Vec<[u8; 8]> = self.blocks.iter().map(|at| at.to_be_bytes()).collect();
        self.draft.put(drive, at, words.as_flattened())
    }
}

/// The block that has the count of a cluster; zero if there is none.
pub(super) fn block_of(blocks: &[u64], cluster: u64, per_block: u64) -> u64 {
    blocks.get(narrow(cluster / per_block)).copied().unwrap_or(0)
}

/// The number behind the last cluster that is counted; some that are not may be among those before it.
pub(super) fn used(file: &File<'_>, layout: &Layout, blocks: &[u64]) -> Result<u64> {
    let per_block = layout.cluster_len.saturating_mul(8) >> layout.refcount_order;
    // There are not more of them than clusters in the file, however many entries lead to them.
    let mut seen = BTreeSet::new();
    let is_block = |at: u64| at != 0 && at < file.len() && at.is_multiple_of(layout.cluster_len);
    for (number, at) in blocks.iter().enumerate().rev().filter(|(_, at)| is_block(**at)) {
        if !seen.insert(*at) {
            continue;
        }
        let bytes = file.read_vec(*at, bounded(layout.cluster_len, LEN_MAX, full)?)?;
        if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
            let counts = (wide(last).saturating_add(1).saturating_mul(8) >> layout.refcount_order).max(1);
            return Ok(wide(number).saturating_mul(per_block).saturating_add(counts));
        }
    }
    Ok(0)
}

/// Changes all numbers of `N` bytes.
fn each<const N: usize>(bytes: &mut [u8], change: &dyn Fn(u64) -> Result<u64>) -> Result<()> {
    for word in bytes.as_chunks_mut::<N>().0 {
        let was = word.iter().fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
        let now = change(was)?.to_be_bytes();
        word.iter_mut().rev().zip(now.iter().rev()).for_each(|(to, from)| *to = *from);
    }
    Ok(())
}
