//! The counts that a qcow2 image keeps of its clusters: blocks of numbers of any width, and a table of the blocks.

use super::disk::REFCOUNT_TABLE_OFFSET;
use super::open::Layout;
use instar_image::census::Ledger;
use instar_image::sector::readable;
use instar_image::text::hex;
use instar_image::{File, Kind, Result, Table};

/// Nearly all images have counts of 16 bits, 2 to the power of 4.
const USUAL: u32 = 4;
/// Clusters of which the counts are looked at to find out about space set aside; if it takes more, nothing was.
const LOOKED_AT_MAX: u64 = 1 << 30;
/// So many counts are looked at together.
const PIECE: usize = 4096;

/// The counts, to be read in order of the clusters or not.
pub struct Counts<'r, 'a> {
    file: &'r File<'a>,
    layout: &'r Layout,
    table: Table<'r, 8>,
    words: Table<'r, 8>,
    /// That a block cannot be found is said with its place once.
    was_said: bool,
}

impl<'r, 'a> Counts<'r, 'a> {
    /// Nothing has been read.
    pub fn new(file: &'r File<'a>, layout: &'r Layout) -> Self {
        let table = || Table::new(file.io(), file.id());
        Counts { file, layout, table: table(), words: table(), was_said: false }
    }

    /// Where a block lies; zero if there is none.
    fn block_at(&mut self, number: u64) -> Result<u64> {
        let root = self.layout.refcounts;
        if number >= root.count {
            return Ok(0);
        }
        let entries = self.table.entries(self.file.place(root.at).at, number, root.count)?;
        let at = entries.first().map_or(0, |entry| u64::from_be_bytes(*entry)) & REFCOUNT_TABLE_OFFSET;
        if at.is_multiple_of(self.layout.cluster_len) {
            let unread = || Kind::Io.what("").file(self.file.id());
            return Some(at).filter(|at| readable(*at, self.layout.cluster_len)).ok_or_else(unread);
        }
        if core::mem::replace(&mut self.was_said, true) {
            return Err(Kind::Corrupt.what("").file(self.file.id()));
        }
        let phrase = "qcow2: Image is corrupt: Refblock offset {} unaligned (reftable index: {}); further non-fatal \
                      corruption events will be suppressed";
        Err(Kind::Corrupt.what(phrase).file(self.file.id()).arg(hex(at)).arg(hex(number)))
    }
}

impl Ledger for Counts<'_, '_> {
    fn read(&mut self, first: u64, counts: &mut [u64]) -> Result<usize> {
        let order = self.layout.refcount_order;
        let per_block = self.layout.cluster_len.saturating_mul(8).checked_shr(order).unwrap_or(1).max(1);
        let (number, skip) = (first / per_block, first % per_block);
        let left = usize::try_from(per_block.saturating_sub(skip)).unwrap_or(usize::MAX).min(counts.len());
        let counts = counts.get_mut(..left).unwrap_or_default();
        let at = self.block_at(number)?;
        if at == 0 {
            counts.fill(0);
            return Ok(left);
        }
        let (words, per_word) = (self.layout.cluster_len / 8, 64u64.checked_shr(order).unwrap_or(1).max(1));
        let entries = self.words.entries(self.file.place(at).at, skip / per_word, words)?;
        if order == USUAL && skip.is_multiple_of(per_word) {
            let numbers = entries.as_flattened().as_chunks::<2>().0;
            let all = numbers.iter().zip(counts).map(|(number, count)| *count = u16::from_be_bytes(*number).into());
            return Ok(all.count());
        }
        let (mut done, mut within) = (0usize, skip % per_word);
        let mut rest = counts.iter_mut();
        for word in entries {
            for index in within..per_word {
                let Some(count) = rest.next() else { return Ok(done) };
                *count = one(word, order, index);
                done = done.saturating_add(1);
            }
            within = 0;
        }
        Ok(done)
    }
}

/// The count with that number in eight bytes. Those of less than a byte stand from the lowest bit of each byte on.
#[inline]
pub fn one(word: &[u8; 8], order: u32, index: u64) -> u64 {
    let index = u32::try_from(index).unwrap_or(0);
    let bits = 1u32.wrapping_shl(order);
    let mask = u64::MAX.checked_shr(64u32.saturating_sub(bits)).unwrap_or(u64::MAX);
    let (number, shift) = if order < 3 {
        (u64::from_le_bytes(*word), index.saturating_mul(bits))
    } else {
        (u64::from_be_bytes(*word), 64u32.saturating_sub(index.saturating_add(1).saturating_mul(bits)))
    };
    number.checked_shr(shift).unwrap_or(0) & mask
}

/// The largest count that fits.
pub fn most(layout: &Layout) -> u64 {
    u64::MAX.checked_shr(64u32.saturating_sub(1u32.wrapping_shl(layout.refcount_order))).unwrap_or(u64::MAX)
}

/// Whether more clusters of the file are in use than it has space for: by a tenth of all of them, and two at least.
///
/// That is how qemu-img tells that metadata alone were set aside. Counts that cannot be read mean that it was not so.
pub fn exceed_space(file: &File<'_>, layout: &Layout) -> bool {
    let space = file.allocated() / layout.cluster_len;
    let enough = (space.saturating_mul(10) / 9).max(space.saturating_add(2));
    let clusters = file.len().div_ceil(layout.cluster_len);
    clusters >= enough && counted(file, layout, clusters, enough).unwrap_or(false)
}

/// Whether `enough` of the first clusters are in use.
fn counted(file: &File<'_>, layout: &Layout, clusters: u64, enough: u64) -> Result<bool> {
    let mut counts = Counts::new(file, layout);
    let mut piece = alloc::vec![0; PIECE];
    let (mut used, mut unit) = (0u64, 0u64);
    while unit < clusters.min(LOOKED_AT_MAX) && used < enough {
        let most = usize::try_from(clusters.saturating_sub(unit)).unwrap_or(PIECE).min(PIECE);
        let known = counts.read(unit, piece.get_mut(..most).unwrap_or_default())?;
        let known = piece.get(..known).unwrap_or_default();
        used = used.saturating_add(u64::try_from(known.iter().filter(|count| **count != 0).count()).unwrap_or(0));
        unit = unit.saturating_add((known.len() as u64).max(1));
    }
    Ok(used >= enough)
}
