//! Disks in blocks of one length, whose places stand in one table, or in tables that a directory leads to.

use crate::batch::Batch;
use crate::file::Io;
use crate::layer::{Cursor, Layer};
use crate::num::{split, wide};
use crate::source::{Piece, Source};
use crate::table::Table;
use alloc::boxed::Box;
use core::ops::Range;
use instar_codec::cipher::Sectors;
use instar_wire::error::{Kind, Result};
use instar_wire::io::FileId;

/// Where the entries of the blocks stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Root {
    /// In one table.
    Table {
        /// Where it begins.
        at: u64,
        /// How many entries it has; blocks that have none lie nowhere.
        count: u64,
    },
    /// In tables that a directory leads to.
    Directory {
        /// Where it begins.
        at: u64,
        /// How many entries it has.
        count: u64,
        /// How many entries each table has.
        entries: u64,
    },
}

/// How a disk is divided into blocks.
#[derive(Clone, Debug)]
pub struct Grid {
    /// The file that has the tables.
    pub file: FileId,
    /// The bytes that it has: of a disk of several parts, each is one of these.
    pub range: Range<u64>,
    /// Bytes of a block; not zero.
    pub block_len: u64,
    /// Where the entries stand.
    pub root: Root,
}

/// A disk in blocks. An entry has `N` bytes, in the directory as well as in the tables.
pub trait Blocks<const N: usize>: Sync {
    /// How it is divided, and where that is written down.
    fn grid(&self) -> &Grid;
    /// Where the table begins that an entry of the directory leads to; nothing if it leads nowhere.
    fn table(&self, entry: [u8; N]) -> Result<Option<u64>> {
        let _ = entry;
        Ok(None)
    }
    /// What decrypts the bytes of sources that have a tweak.
    fn cipher(&self) -> Option<&Sectors> {
        None
    }
    /// Where the bytes of the block with this number in this part are, which has this entry.
    fn block(&self, number: u64, entry: [u8; N]) -> Result<Option<Source>>;
}

/// The map of a disk in blocks.
pub fn layer<B: Blocks<N> + 'static, const N: usize>(blocks: B) -> Box<dyn Layer> {
    Box::new(InBlocks(blocks))
}

struct InBlocks<B, const N: usize>(B);

impl<B: Blocks<N>, const N: usize> Layer for InBlocks<B, N> {
    fn size(&self) -> u64 {
        self.0.grid().range.end
    }

    fn cursor<'c>(&'c self, io: &'c dyn Io) -> Box<dyn Cursor + 'c> {
        Box::new(BlockCursor::new(&self.0, io))
    }

    fn cipher(&self) -> Option<&Sectors> {
        self.0.cipher()
    }
}

/// A walker over a disk in blocks.
pub struct BlockCursor<'c, B, const N: usize> {
    blocks: &'c B,
    directory: Table<'c, N>,
    table: Table<'c, N>,
    /// The entries of the directory last looked at, which are alike, and where they lead.
    known: Option<(Range<u64>, Option<u64>)>,
}

/// What the tables have for a block and those behind it.
enum Here<'t, const N: usize> {
    /// Nothing, for so many bytes.
    Nowhere(u64),
    /// The entries of the block and of some that follow.
    Entries(&'t [[u8; N]]),
}

impl<'c, B: Blocks<N>, const N: usize> BlockCursor<'c, B, N> {
    /// Nothing has been looked at.
    pub fn new(blocks: &'c B, io: &'c dyn Io) -> Self {
        let table = || Table::new(io, blocks.grid().file);
        BlockCursor { blocks, directory: table(), table: table(), known: None }
    }

    /// The number of the block that the byte lies in, how far from its beginning, and how far from its end.
    fn split(&self, at: u64) -> (u64, u64, u64) {
        split(at.saturating_sub(self.blocks.grid().range.start), self.blocks.grid().block_len)
    }

    fn here(&mut self, at: u64) -> Result<Here<'_, N>> {
        let (number, skip, _) = self.split(at);
        let (root, entries) = match self.blocks.grid().root {
            Root::Table { count, .. } if number >= count => {
                return Ok(Here::Nowhere(self.blocks.grid().range.end.saturating_sub(at)));
            }
            Root::Table { at, count } => return Ok(Here::Entries(self.table.entries(at, number, count)?)),
            Root::Directory { at, count, entries } => ((at, count), entries),
        };
        let (table, index, _) = split(number, entries);
        let (alike, leads) = self.below(root, table)?;
        let Some(at) = leads else {
            let blocks = alike.end.saturating_mul(entries).saturating_sub(number);
            return Ok(Here::Nowhere(blocks.saturating_mul(self.blocks.grid().block_len).saturating_sub(skip)));
        };
        Ok(Here::Entries(self.table.entries(at, index, entries)?))
    }

    /// Where an entry of the directory leads, and those at hand that lead nowhere as it does.
    fn below(&mut self, (at, count): (u64, u64), index: u64) -> Result<(Range<u64>, Option<u64>)> {
        if let Some(known) = self.known.clone().filter(|(alike, _)| alike.contains(&index)) {
            return Ok(known);
        }
        let ended = || Kind::Corrupt.what("the directory of tables is too short").file(self.blocks.grid().file).at(at);
        if index >= count {
            return Err(ended());
        }
        let entries = self.directory.entries(at, index, count)?;
        let entry = *entries.first().ok_or_else(ended)?;
        let leads = self.blocks.table(entry)?;
        let alike = entries.iter().take_while(|other| leads.is_none() && **other == entry).count().max(1);
        let known = (index..index.saturating_add(wide(alike)), leads);
        self.known = Some(known.clone());
        Ok(known)
    }

    /// Adds what one table, or its absence, has to say.
    fn add(&mut self, out: &mut Batch<Option<Source>>) -> Result<()> {
        let (blocks, end) = (self.blocks, self.blocks.grid().range.end);
        let (mut number, mut skip, _) = self.split(out.at());
        let entries = match self.here(out.at())? {
            Here::Nowhere(len) => return out.push(len.min(end.saturating_sub(out.at())), None),
            Here::Entries(entries) => entries,
        };
        let len = blocks.grid().block_len;
        for entry in entries {
            let what = blocks.block(number, *entry)?.cut(skip);
            out.push(len.saturating_sub(skip).min(end.saturating_sub(out.at())), what)?;
            (number, skip) = (number.saturating_add(1), 0);
            if out.is_done() || out.at() >= end {
                break;
            }
        }
        Ok(())
    }
}

impl<B: Blocks<N>, const N: usize> Cursor for BlockCursor<'_, B, N> {
    fn find(&mut self, at: u64, _end: u64) -> Result<(u64, Option<Source>)> {
        let blocks = self.blocks;
        let (number, skip, left) = self.split(at);
        let (len, what) = match self.here(at)? {
            Here::Nowhere(len) => (len, None),
            Here::Entries(entries) => {
                let entry = *entries.first().ok_or_else(|| Kind::Corrupt.what("a table without entries"))?;
                (left, blocks.block(number, entry)?.cut(skip))
            }
        };
        Ok((len.min(blocks.grid().range.end.saturating_sub(at)), what))
    }

    fn fill(&mut self, out: &mut Batch<Option<Source>>) -> Result<()> {
        let (from, end) = (out.at(), self.blocks.grid().range.end);
        while !out.is_done() && (out.at() < end || out.at() == from) {
            let told = self.add(out);
            if told.is_err() {
                return out.kept(from, told);
            }
        }
        Ok(())
    }
}
