//! A cache in front of the way out: headers are read in many small pieces, often the same ones by several readers.

use crate::file::{Hole, Io};
use alloc::vec::Vec;
use core::cell::RefCell;
use instar_wire::error::Result;
use instar_wire::io::{FileId, Granted, Role};

/// Blocks begin at multiples of this.
const ALIGN: u64 = 4 << 10;
/// A block is at most this long.
const BLOCK_LEN: u64 = 64 << 10;
/// Longer reads go past the cache.
const SMALL_MAX: u64 = 8 << 10;
/// Blocks kept.
const BLOCKS: usize = 8;

/// Small reads, remembered.
pub struct Cache<'a> {
    io: &'a dyn Io,
    /// The block used last comes last.
    blocks: RefCell<Vec<Block>>,
}

struct Block {
    file: FileId,
    at: u64,
    bytes: Vec<u8>,
}

impl Block {
    /// The `len` bytes of a file at `at`, if they are here.
    fn piece(&self, file: FileId, at: u64, len: usize) -> Option<&[u8]> {
        let skip = usize::try_from(at.checked_sub(self.at)?).ok()?;
        self.bytes.get(skip..skip.checked_add(len)?).filter(|_| self.file == file)
    }
}

impl<'a> Cache<'a> {
    /// An empty cache.
    pub fn new(io: &'a dyn Io) -> Self {
        Cache { io, blocks: RefCell::new(Vec::new()) }
    }
}

impl Io for Cache<'_> {
    fn len(&self, file: FileId) -> u64 {
        self.io.len(file)
    }

    fn read(&self, file: FileId, at: u64, buf: &mut [u8]) -> Result<()> {
        let size = buf.len() as u64;
        if size > SMALL_MAX {
            return self.io.read(file, at, buf);
        }
        let mut blocks = self.blocks.borrow_mut();
        if let Some(hit) = blocks.iter().position(|b| b.piece(file, at, buf.len()).is_some()) {
            let block = blocks.remove(hit);
            blocks.push(block);
        } else {
            let start = at.saturating_sub(at % ALIGN);
            let whole = BLOCK_LEN.min(self.io.len(file).saturating_sub(start));
            let mut bytes = alloc::vec![0; usize::try_from(whole).unwrap_or(0)];
            self.io.read(file, start, &mut bytes)?;
            if blocks.len() >= BLOCKS {
                blocks.remove(0);
            }
            blocks.push(Block { file, at: start, bytes });
        }
        match blocks.last().and_then(|b| b.piece(file, at, buf.len())) {
            Some(piece) => buf.copy_from_slice(piece),
            // Only a read beyond the file's end can get here; the one behind says so.
            None => return self.io.read(file, at, buf),
        }
        Ok(())
    }

    fn related(&self, from: FileId, role: Role, name: &[u8]) -> Result<Granted> {
        self.io.related(from, role, name)
    }

    fn holes(&self, file: FileId, at: u64, len: u64) -> Result<Vec<Hole>> {
        self.io.holes(file, at, len)
    }
}
