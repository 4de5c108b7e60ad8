//! The clusters of an image's file that are given out and given back, and the counts that say so.

use super::disk::{Header, REFCOUNT_TABLE_OFFSET};
use super::open::{Layout, Table};
use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;
use core::mem::offset_of;
use instar_image::draft::Draft;
use instar_image::num::{bounded, power, wide};
use instar_image::{Drive, Error, File, FileId, Kind, Result};

/// Counts that are written at once.
const PIECE: usize = 4096;
/// The longest table of reference counts, in bytes.
const TABLE_MAX: u64 = 8 << 20;
/// So far behind the end of the file there may be clusters that are counted, and have not been written yet.
const AHEAD_MAX: u64 = 1 << 30;
/// The longest cluster.
const LEN_MAX: u64 = 2 << 20;

/// Who gives clusters out, one behind the other at the end of the file.
pub struct Clusters {
    /// All tables of the image.
    pub draft: Draft,
    /// Where the image begins in its file.
    start: u64,
    bits: u32,
    /// 2 to this power is the width of a count.
    order: u32,
    /// Where the table of blocks of counts lies, how many clusters it has, and what it says.
    table_at: u64,
    table_clusters: u64,
    blocks: Vec<u64>,
    /// The number of the next cluster that nobody has.
    next: u64,
    /// A cluster before it that was given back.
    spare: Option<u64>,
}

fn full() -> Error {
    Kind::TooBig.what("the file cannot become longer")
}

impl Clusters {
    /// Of a new image, whose first three clusters are header, table and block of counts.
    pub fn fresh(drive: &dyn Drive, file: FileId, bits: u32, order: u32) -> Result<Clusters> {
        let len = power(bits);
        let blocks = Vec::from([len.saturating_mul(2)]);
        let (start, table_clusters) = (0, 1);
        let draft = Draft::new(file, 0);
        let mut all =
            Clusters { draft, start, bits, order, table_at: len, table_clusters, blocks, next: 3, spare: None };
        all.draft.reaches(len.saturating_mul(3));
        all.draft.blank(drive, len, len.saturating_mul(2))?;
        all.draft.put(drive, len, &len.saturating_mul(2).to_be_bytes())?;
        all.count(drive, 0, 3, 1)?;
        Ok(all)
    }

    /// Of an image that is there; `has_room`: it ends where its counts end, and not with its file.
    pub fn open(file: &File<'_>, layout: &Layout, has_room: bool) -> Result<Clusters> {
        let (Table { at, count }, place) = (layout.refcounts, file.place(0));
        let bytes = file.read_vec(at, bounded(count.saturating_mul(8), TABLE_MAX, full)?)?;
        let words = bytes.as_chunks::<8>().0.iter();
        let blocks: Vec<u64> = words.map(|word| u64::from_be_bytes(*word) & REFCOUNT_TABLE_OFFSET).collect();
        let (have, used) = (file.len().div_ceil(layout.cluster_len), used(file, layout, &blocks)?);
        if used.saturating_sub(have).saturating_mul(layout.cluster_len) > AHEAD_MAX {
            let words = "clusters far behind the end of the file are counted as used";
            return Err(Kind::Corrupt.what(words).file(place.file));
        }
        let next = if has_room { used } else { have.max(used) };
        let mut draft = Draft::new(place.file, place.at.saturating_add(file.len()));
        draft.reaches(place.at.saturating_add(next.saturating_mul(layout.cluster_len)));
        Ok(Clusters {
            draft,
            start: place.at,
            bits: layout.cluster_bits,
            order: layout.refcount_order,
            table_at: at,
            table_clusters: count.saturating_mul(8) / layout.cluster_len,
            blocks,
            next,
            spare: None,
        })
    }

    fn len(&self) -> u64 {
        power(self.bits)
    }

    fn per_block(&self) -> u64 {
        self.len().saturating_mul(8) >> self.order
    }

    /// Where the clusters end that have been given out.
    pub fn end(&self) -> u64 {
        self.next.saturating_mul(self.len())
    }

    /// Takes so many clusters in a row; the number of the first.
    fn take(&mut self, count: u64) -> Result<u64> {
        let first = self.next;
        self.next = first.checked_add(count).ok_or_else(full)?;
        let end = self.next.checked_mul(self.len()).and_then(|end| end.checked_add(self.start));
        self.draft.reaches(end.filter(|end| *end <= i64::MAX.unsigned_abs()).ok_or_else(full)?);
        Ok(first)
    }

    /// Refuses what is no cluster, and one that lies behind all that the file has and all that has been given out.
    pub fn inside(&self, at: u64) -> Result<u64> {
        let wrong = |words| Err(Kind::Corrupt.what(words).file(self.draft.file()).at(at));
        match at {
            _ if at >= self.end() => wrong("a cluster lies behind the end of the file"),
            _ if !at.is_multiple_of(self.len()) => wrong("a cluster begins where none can"),
            _ => Ok(at),
        }
    }

    /// A cluster that was given back by moving the table, or a new one.
    pub fn reuse(&mut self, drive: &dyn Drive) -> Result<u64> {
        match self.spare.take() {
            Some(at) => {
                self.count(drive, at >> self.bits, 1, 1)?;
                Ok(at)
            }
            None => self.claim(drive, 1),
        }
    }

    /// Moves the table of counts behind all that has been given out, and gives its first place back: so it is where
    /// space is set aside for all of a disk.
    pub fn move_table(&mut self, drive: &dyn Drive) -> Result<()> {
        self.spare = Some(self.table_at);
        let entries = self.table_clusters.saturating_mul(self.len()) / 8;
        self.grow(drive, entries.saturating_sub(1))
    }

    /// Where the table of counts lies, and its length in clusters.
    pub fn table(&self) -> (u64, u64) {
        (self.table_at, self.table_clusters)
    }

    /// So many clusters in a row: where the first begins.
    pub fn claim(&mut self, drive: &dyn Drive, count: u64) -> Result<u64> {
        let first = self.take(count)?;
        self.count(drive, first, count, 1)?;
        Ok(first.saturating_mul(self.len()))
    }

    /// The same for one cluster more that goes on where the one before ends, or for one elsewhere.
    pub fn count_once_more(&mut self, drive: &dyn Drive, at: u64) -> Result<bool> {
        let cluster = at >> self.bits;
        let (was, most) = (self.counted(drive, cluster)?, self.most());
        if was >= most {
            return Ok(false);
        }
        self.count(drive, cluster, 1, was.saturating_add(1))?;
        Ok(true)
    }

    /// One user less of the clusters that have bytes in this range.
    pub fn release(&mut self, drive: &dyn Drive, at: u64, len: u64) -> Result<()> {
        let (first, last) = (at >> self.bits, at.saturating_add(len.max(1)).saturating_sub(1) >> self.bits);
        for cluster in first..=last {
            let was = self.counted(drive, cluster)?;
            // Of what is not counted nothing can be taken away, and counts need no space for that.
            if was > 0 {
                self.count(drive, cluster, 1, was.saturating_sub(1))?;
            }
        }
        Ok(())
    }

    /// The largest count.
    fn most(&self) -> u64 {
        u64::MAX >> 64u32.saturating_sub(1u32.wrapping_shl(self.order)).min(63)
    }

    /// How many users a cluster has.
    pub fn counted(&mut self, drive: &dyn Drive, cluster: u64) -> Result<u64> {
        let (number, index) = (cluster / self.per_block().max(1), cluster % self.per_block().max(1));
        let at = usize::try_from(number).ok().and_then(|number| self.blocks.get(number)).copied().unwrap_or(0);
        if at == 0 {
            return Ok(0);
        }
        let (byte, shift, width) = self.bit(index);
        let mut word = [0; 8];
        let bytes = usize::try_from(width.div_ceil(8)).unwrap_or(8);
        let room = word.get_mut(8usize.saturating_sub(bytes)..).unwrap_or_default();
        self.draft.read(drive, self.start.saturating_add(at).saturating_add(byte), room)?;
        Ok(u64::from_be_bytes(word) >> shift & self.most())
    }

    /// Where the count with this number stands in its block: the byte, the bit in it, and how many bits.
    fn bit(&self, index: u64) -> (u64, u32, u32) {
        let width = 1u32.wrapping_shl(self.order);
        let bit = index << self.order;
        (bit / 8, u32::try_from(bit % 8).unwrap_or(0), width)
    }

    /// Sets the counts of clusters in a row.
    fn count(&mut self, drive: &dyn Drive, first: u64, count: u64, value: u64) -> Result<()> {
        let per_block = self.per_block().max(1);
        let (mut at, end) = (first, first.saturating_add(count));
        while at < end {
            let block = self.block(drive, at / per_block)?;
            let left = per_block.saturating_sub(at % per_block).min(end.saturating_sub(at));
            self.fill(drive, block, at % per_block, left, value)?;
            at = at.saturating_add(left);
        }
        Ok(())
    }

    /// Sets counts in a block.
    fn fill(&mut self, drive: &dyn Drive, block: u64, index: u64, count: u64, value: u64) -> Result<()> {
        let block = self.start.saturating_add(block);
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
        while left > 0 {
            let counts = left.min(wide(PIECE / width.max(1)));
            let run = one.repeat(usize::try_from(counts).unwrap_or(0));
            self.draft.put(drive, block.saturating_add(index.saturating_mul(wide(width))), &run)?;
            (index, left) = (index.saturating_add(counts), left.saturating_sub(counts));
        }
        Ok(())
    }

    /// Where the block of counts with this number lies; made if there is none.
    fn block(&mut self, drive: &dyn Drive, number: u64) -> Result<u64> {
        let index = usize::try_from(number).map_err(|_| full())?;
        match self.blocks.get(index) {
            Some(at) if *at != 0 => return self.inside(*at),
            _ => {}
        }
        let capacity = self.table_clusters.saturating_mul(self.len()) / 8;
        if number >= capacity {
            self.grow(drive, number)?;
            return self.block(drive, number);
        }
        let own = self.take(1)?;
        let at = own.checked_mul(self.len()).ok_or_else(full)?;
        if self.blocks.len() <= index {
            self.blocks.resize(index.saturating_add(1), 0);
        }
        if let Some(entry) = self.blocks.get_mut(index) {
            *entry = at;
        }
        self.draft.blank(drive, self.start.saturating_add(at), self.len())?;
        let entry_at = self.table_at.saturating_add(number.saturating_mul(8));
        self.draft.put(drive, self.start.saturating_add(entry_at), &at.to_be_bytes())?;
        self.count(drive, own, 1, 1)?;
        Ok(at)
    }

    /// A longer table, so that it has an entry with this number.
    fn grow(&mut self, drive: &dyn Drive, number: u64) -> Result<()> {
        let have = self.table_clusters.saturating_mul(self.len()) / 8;
        let entries = if number < have { have } else { number.saturating_add(1).max(have / 2 * 3) };
        let clusters = entries.saturating_mul(8).div_ceil(self.len());
        if clusters.saturating_mul(self.len()) > TABLE_MAX {
            return Err(full());
        }
        let (old, old_clusters) = (self.table_at, self.table_clusters);
        let first = self.take(clusters)?;
        (self.table_at, self.table_clusters) = (first.saturating_mul(self.len()), clusters);
        let at = self.start.saturating_add(self.table_at);
        self.draft.blank(drive, at, clusters.saturating_mul(self.len()))?;
        let words: Vec<u8> = self.blocks.iter().flat_map(|at| at.to_be_bytes()).collect();
        self.draft.put(drive, at, &words)?;
        let field = |offset: usize| self.start.saturating_add(wide(offset));
        let (place, len) =
            (field(offset_of!(Header, refcount_table_offset)), field(offset_of!(Header, refcount_table_clusters)));
        self.draft.put(drive, place, &self.table_at.to_be_bytes())?;
        self.draft.put(drive, len, &u32::try_from(clusters).unwrap_or(0).to_be_bytes())?;
        self.count(drive, first, clusters, 1)?;
        self.release(drive, old, old_clusters.saturating_mul(self.len()))
    }
}

/// The number behind the last cluster that is counted; some that are not may be among those before it.
fn used(file: &File<'_>, layout: &Layout, blocks: &[u64]) -> Result<u64> {
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
