//! The clusters of an image's file that are given out and given back, and the counts that say so.

mod back;
mod blocks;
mod recount;

pub use recount::Tell;

use super::disk::REFCOUNT_TABLE_OFFSET;
use super::open::{Layout, Table};
use alloc::vec::Vec;
use back::Runs;
use instar_image::draft::Draft;
use instar_image::num::{bounded, power, wide};
use instar_image::{Drive, Error, File, FileId, Freed, Kind, Result};

/// The longest table of reference counts, in bytes.
const TABLE_MAX: u64 = 8 << 20;
/// So far behind the end of the file there may be clusters that are counted, and have not been written yet.
const AHEAD_MAX: u64 = 1 << 30;
/// The longest cluster.
const LEN_MAX: u64 = 2 << 20;
/// Bytes of tables that are kept in memory where all counts may be changed.
const ROOM: u64 = 64 << 20;

/// How counts may be changed, and so where clusters come from.
enum Manner {
    /// Where they are, and at any time: nobody relies on the image yet. Clusters are given out one behind the other.
    Loose,
    /// Where they are: more users at any time, fewer only when references have been turned over.
    Ordered {
        /// Clusters that will have a user less, as ranges of their numbers, and why.
        released: Vec<(u64, u64, Freed)>,
        /// What makes new blocks known, which must be true before any reference relies on them.
        ties: Vec<(u64, Vec<u8>)>,
    },
    /// In copies of their blocks, which all take effect at once with the header.
    Shadow {
        /// The blocks as the file has them.
        former: Vec<u64>,
        /// Which blocks are copies.
        copied: Vec<bool>,
    },
}

/// Who gives clusters out.
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
    /// The number behind the last cluster that has been given out.
    next: u64,
    /// No cluster before this one is free.
    hint: u64,
    /// Where the file ended when it was opened.
    new_from: u64,
    /// A cluster before it that was given back.
    spare: Option<u64>,
    /// Counts of clusters in a row that have yet to be set.
    owed: Vec<(u64, u64, u64)>,
    manner: Manner,
    /// Clusters without a user as soon as the header says so.
    gone: Runs,
    /// Why clusters are given back.
    freed: Freed,
    /// No cluster that is in use is counted as a free one, as far as that was seen.
    is_trusted: bool,
}

fn full() -> Error {
    Kind::TooBig.what("the file cannot become longer")
}

impl Clusters {
    /// Of a new image, whose first three clusters are header, table and block of counts.
    pub fn fresh(drive: &dyn Drive, file: FileId, bits: u32, order: u32) -> Result<Clusters> {
        let len = power(bits);
        let mut all = Clusters {
            draft: Draft::new(file, 0),
            start: 0,
            bits,
            order,
            table_at: len,
            table_clusters: 1,
            blocks: Vec::from([len.saturating_mul(2)]),
            next: 3,
            hint: 3,
            new_from: 0,
            spare: None,
            owed: Vec::new(),
            manner: Manner::Loose,
            gone: Runs::default(),
            freed: Freed::Other,
            is_trusted: true,
        };
        all.draft.reaches(len.saturating_mul(3));
        all.draft.blank(drive, len, len.saturating_mul(2))?;
        all.draft.put(drive, len, &len.saturating_mul(2).to_be_bytes())?;
        all.set(drive, 0, 3, 1)?;
        Ok(all)
    }

    /// Of an image that nobody relies on yet; `has_room`: it ends where its counts end, and not with its file.
    pub fn open(file: &File<'_>, layout: &Layout, has_room: bool) -> Result<Clusters> {
        let (Table { at, count }, place) = (layout.refcounts, file.place(0));
        let bytes = file.read_vec(at, bounded(count.saturating_mul(8), TABLE_MAX, full)?)?;
        // What comes behind the last block is not kept: nearly all of a table is room.
        let known = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| (last / 8).saturating_add(1));
        let words = bytes.as_chunks::<8>().0.iter().take(known);
        let blocks: Vec<u64> = words.map(|word| u64::from_be_bytes(*word) & REFCOUNT_TABLE_OFFSET).collect();
        if blocks.iter().any(|at| !at.is_multiple_of(layout.cluster_len) || *at > i64::MAX.unsigned_abs()) {
            return Err(Kind::Corrupt.what("a block of counts is not where one can be").file(file.id()));
        }
        let (have, used) = (file.len().div_ceil(layout.cluster_len), blocks::used(file, layout, &blocks)?);
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
            // The header is nobody's to give out, whatever its count says.
            hint: 1,
            new_from: next.saturating_mul(layout.cluster_len),
            spare: None,
            owed: Vec::new(),
            manner: Manner::Loose,
            gone: Runs::default(),
            freed: Freed::Other,
            is_trusted: true,
        })
    }

    /// From now on the image is one that is changed where it stands; why it will give clusters back.
    pub fn keep_order(&mut self, freed: Freed) {
        self.draft.keep_order();
        self.freed = freed;
        self.manner = Manner::Ordered { released: Vec::new(), ties: Vec::new() };
    }

    /// The same where counts change of clusters that are in use, which must not be seen before all have changed.
    #[must_use]
    pub fn shadow(self, freed: Freed) -> Clusters {
        let manner = Manner::Shadow { former: self.blocks.clone(), copied: Vec::new() };
        Clusters { draft: self.draft.with_room(ROOM), manner, freed, ..self }
    }

    /// Length of a cluster.
    pub fn len(&self) -> u64 {
        power(self.bits)
    }

    /// A byte of the image in its file.
    pub fn place(&self, at: u64) -> u64 {
        self.start.saturating_add(at)
    }

    /// Where the clusters end that have been given out.
    pub fn end(&self) -> u64 {
        self.next.saturating_mul(self.len())
    }

    /// Whether a cluster that has been given out lies where the file had nothing.
    pub fn is_fresh(&self, at: u64) -> bool {
        at >= self.new_from
    }

    /// Whether there are more blocks of counts, and copies of them, than are kept in memory.
    pub fn is_crowded(&self) -> bool {
        let blocks = wide(self.blocks.iter().filter(|at| **at != 0).count());
        blocks.saturating_mul(self.len()).saturating_mul(2) > ROOM
    }

    /// 2 to this power is the width of a count.
    pub fn width(&self) -> u32 {
        self.order
    }

    /// The largest count.
    pub fn most(&self) -> u64 {
        u64::MAX >> 64u32.saturating_sub(1u32.wrapping_shl(self.order)).min(63)
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
                self.set(drive, at >> self.bits, 1, 1)?;
                Ok(at)
            }
            None => self.claim(drive, 1),
        }
    }

    /// Makes room for the counts of so many clusters that are to come, in front of those: the blocks, and behind them
    /// the table, wherever it was before. That is where space is set aside for all of a disk.
    pub fn count_ahead(&mut self, drive: &dyn Drive, count: u64) -> Result<()> {
        let (first, have) = (self.next, self.blocks.len() as u64);
        let (mut blocks, mut table) = (0u64, 0u64);
        loop {
            let own = blocks.saturating_add(table);
            // The one behind them has its count as well.
            let last = first.saturating_add(own).saturating_add(count);
            let all = (last / self.per_block()).saturating_add(1).max(have);
            let need = (all.saturating_sub(have), all.saturating_mul(8).div_ceil(self.len()));
            if need == (blocks, table) {
                break;
            }
            (blocks, table) = need;
        }
        if table.saturating_mul(self.len()) > TABLE_MAX {
            return Err(full());
        }
        self.behind(0, blocks.saturating_add(table))?;
        for number in 0..blocks {
            let at = first.saturating_add(number).saturating_mul(self.len());
            self.draft.blank(drive, self.place(at), self.len())?;
            self.blocks.push(at);
        }
        let (old, old_clusters) = (self.table_at, self.table_clusters);
        (self.table_at, self.table_clusters) = (first.saturating_add(blocks).saturating_mul(self.len()), table);
        self.put_table(drive)?;
        self.set(drive, first, blocks.saturating_add(table), 1)?;
        self.spare = Some(old);
        self.release(drive, old, old_clusters.saturating_mul(self.len()))
    }

    /// Where the table of counts lies, and its length in clusters.
    pub fn table(&self) -> (u64, u64) {
        (self.table_at, self.table_clusters)
    }

    /// So many clusters in a row: where the first begins.
    pub fn claim(&mut self, drive: &dyn Drive, count: u64) -> Result<u64> {
        let first = self.find(drive, count)?;
        self.set(drive, first, count, 1)?;
        Ok(first.saturating_mul(self.len()))
    }

    /// The same where the file has nothing yet.
    pub fn claim_fresh(&mut self, drive: &dyn Drive, count: u64) -> Result<u64> {
        let first = self.behind(0, count)?;
        self.set(drive, first, count, 1)?;
        Ok(first.saturating_mul(self.len()))
    }

    /// Puts bytes where nothing was: where they begin.
    pub fn add(&mut self, drive: &dyn Drive, bytes: &[u8]) -> Result<u64> {
        let count = wide(bytes.len()).div_ceil(self.len()).max(1);
        let at = self.claim(drive, count)?;
        let (from, len) = (self.place(at), count.saturating_mul(self.len()));
        self.draft.put(drive, from, bytes)?;
        let rest = len.saturating_sub(wide(bytes.len()));
        self.draft.blank(drive, from.saturating_add(wide(bytes.len())), rest)?;
        Ok(at)
    }

    /// So many clusters at the end of the file, of which `run` are there already.
    fn behind(&mut self, run: u64, count: u64) -> Result<u64> {
        let first = self.next.saturating_sub(run);
        let next = first.checked_add(count).ok_or_else(full)?;
        let end = next.checked_mul(self.len()).and_then(|end| end.checked_add(self.start));
        self.draft.reaches(end.filter(|end| *end <= i64::MAX.unsigned_abs()).ok_or_else(full)?);
        self.next = next;
        Ok(first)
    }

    /// The number of the first of so many clusters in a row that nobody has, and that nobody had before the change.
    fn find(&mut self, drive: &dyn Drive, count: u64) -> Result<u64> {
        let mut run = 0u64;
        if !matches!(self.manner, Manner::Loose) {
            let mut at = self.hint;
            while at < self.next {
                let (len, is_free) = self.alike(drive, at, self.next.saturating_sub(at))?;
                run = if is_free { run.saturating_add(len) } else { 0 };
                if run >= count {
                    let first = at.saturating_add(len).saturating_sub(run);
                    if count == 1 {
                        self.hint = first.saturating_add(1);
                    }
                    return Ok(first);
                }
                at = at.saturating_add(len.max(1));
            }
            if count == 1 {
                self.hint = self.next;
            }
        }
        self.behind(run, count)
    }

    /// One user more for a cluster; false if it has as many as can be counted.
    pub fn count_once_more(&mut self, drive: &dyn Drive, at: u64) -> Result<bool> {
        let cluster = at >> self.bits;
        let was = self.counted(drive, cluster)?;
        if was >= self.most() {
            return Ok(false);
        }
        self.set(drive, cluster, 1, was.saturating_add(1))?;
        Ok(true)
    }

    /// One user less of the clusters that have bytes in this range.
    pub fn release(&mut self, drive: &dyn Drive, at: u64, len: u64) -> Result<()> {
        self.release_as(drive, at, len, self.freed)
    }

    /// The same, and why.
    pub fn release_as(&mut self, drive: &dyn Drive, at: u64, len: u64, freed: Freed) -> Result<()> {
        let (first, end) =
            (at >> self.bits, (at.saturating_add(len.max(1)).saturating_sub(1) >> self.bits).saturating_add(1));
        if let Manner::Ordered { released, .. } = &mut self.manner {
            match released.last_mut() {
                Some((_, last, why)) if *last == first && *why == freed => *last = end,
                _ => released.push((first, end, freed)),
            }
            return Ok(());
        }
        self.uncount(drive, (first, end), freed, &mut Runs::default())
    }

    /// One user less of these clusters; those that have none any more are noted.
    fn uncount(&mut self, drive: &dyn Drive, (first, end): (u64, u64), freed: Freed, gone: &mut Runs) -> Result<()> {
        for cluster in first..end {
            let was = self.counted(drive, cluster)?;
            // Of what is not counted nothing can be taken away, and counts need no space for that.
            if was > 0 {
                self.set(drive, cluster, 1, was.saturating_sub(1))?;
            }
            if was == 1 {
                gone.add(cluster, freed);
            }
        }
        Ok(())
    }

    /// What waits until [`Self::settle`]: references that are turned over, and what is given back.
    pub fn waiting(&self) -> usize {
        let released = match &self.manner {
            Manner::Ordered { released, .. } => released.len(),
            _ => 0,
        };
        self.draft.waiting().saturating_add(released)
    }

    /// Makes all changes that wait, in their order, and durable but for what is given back.
    pub fn settle(&mut self, drive: &dyn Drive) -> Result<()> {
        let file = self.draft.file();
        if let Manner::Ordered { ties, .. } = &mut self.manner
            && !ties.is_empty()
        {
            let ties = core::mem::take(ties);
            self.draft.flush(drive)?;
            drive.flush(file)?;
            for (at, bytes) in &ties {
                self.draft.put(drive, *at, bytes)?;
            }
            self.draft.flush(drive)?;
            drive.flush(file)?;
        }
        self.draft.settle(drive)?;
        if let Manner::Ordered { released, .. } = &mut self.manner {
            let mut gone = Runs::default();
            for (first, end, freed) in core::mem::take(released) {
                self.uncount(drive, (first, end), freed, &mut gone)?;
                self.hint = self.hint.min(first);
            }
            // Whoever uses them again must not find them given back by halves.
            self.draft.flush(drive)?;
            self.let_go(drive, gone);
        }
        Ok(())
    }

    /// Writes all that a header will lead to, and makes it durable: the header has to say where the table lies then.
    pub fn publish(&mut self, drive: &dyn Drive) -> Result<()> {
        let (old, old_clusters) = self.table();
        let mut clusters;
        loop {
            clusters = (self.blocks.len() as u64).div_ceil(self.len() / 8).max(old_clusters);
            let at = self.claim(drive, clusters)?;
            // Its own counts may have needed one more block.
            if (self.blocks.len() as u64) <= clusters.saturating_mul(self.len()) / 8 {
                self.table_at = at;
                break;
            }
            self.release(drive, at, clusters.saturating_mul(self.len()))?;
        }
        if clusters.saturating_mul(self.len()) > TABLE_MAX {
            return Err(full());
        }
        self.release(drive, old, old_clusters.saturating_mul(self.len()))?;
        self.table_clusters = clusters;
        self.put_table(drive)?;
        self.draft.flush(drive)?;
        drive.flush(self.draft.file())
    }
}
