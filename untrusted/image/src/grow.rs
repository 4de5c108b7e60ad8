//! Disks in blocks that grow: a block gets its place when something is first written to it.

use crate::blocks::{Blocks, Root};
use crate::draft::Draft;
use crate::file::Drive;
use crate::num::{split, wide};
use crate::source::{Place, Source};
use crate::target::{Rest, Spot, Target, What};
use alloc::boxed::Box;
use alloc::sync::Arc;
use instar_codec::cipher::Sectors;
use instar_wire::error::{Kind, Result};

/// The space that a block takes in its file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Where it may begin: at multiples of this, counted from `base`.
    pub align: u64,
    /// See `align`.
    pub base: u64,
    /// Bytes in front of its own.
    pub head: u64,
    /// All its bytes.
    pub len: u64,
}

/// A disk in blocks that can be given new ones. What stands in its tables is what [`Blocks`] reads there.
pub trait Grow<const N: usize>: Blocks<N> + Send {
    /// The space that a block takes.
    fn frame(&self) -> Frame;
    /// The entry of block `number`, whose space begins at `at`, with the bytes in front of it; an error if none can say so.
    fn entry(&self, number: u64, at: u64) -> Result<[u8; N]>;
    /// The entry of a block of zeroes that hides what lies below, if the format has one.
    fn zeroes(&self) -> Option<[u8; N]> {
        None
    }
    /// The bytes of a table, and the entry of the directory for one that begins at a place: where tables come as blocks do.
    fn table_len(&self) -> u64 {
        0
    }
    /// The entry of the directory for a table that begins there.
    fn lead(&self, at: u64) -> [u8; N] {
        let _ = at;
        [0; N]
    }
    /// Where an entry stands once more: entry `index` of the table that entry `table` of the directory leads to.
    fn twin(&self, drive: &dyn Drive, draft: &mut Draft, table: u64, index: u64) -> Result<Option<u64>> {
        let _ = (drive, draft, table, index);
        Ok(None)
    }
    /// What gets its place as one: a block, or a part of one if the rest of the block need not have it.
    fn unit(&self) -> u64 {
        self.grid().block_len
    }
    /// Which entry of the tables is that of a block.
    fn index(&self, number: u64) -> u64 {
        number
    }
    /// Where a block has its space already, although its entry does not say so.
    fn space(&self, number: u64) -> Option<u64> {
        let _ = number;
        None
    }
    /// Whether there is a layer below that blocks without an entry are read from.
    fn is_over(&self) -> bool {
        false
    }
    /// What encrypts the bytes of blocks that have a tweak.
    fn sealer(&self) -> Option<Arc<Sectors>> {
        None
    }
    /// Space has been given up to here.
    fn grown(&mut self, end: u64) {
        let _ = end;
    }
    /// See [`Target::keep_identity`].
    fn keep_identity(&mut self) {}
    /// The first entry is about to be changed, or the first byte of a block.
    fn mark(&mut self, drive: &dyn Drive) -> Result<()> {
        let _ = drive;
        Ok(())
    }
    /// The space that a block takes which has been packed into `len` bytes, and lay here before.
    fn packed_frame(&self, len: u64, was: Option<&Source>) -> Result<Frame> {
        let _ = (len, was);
        Err(Kind::Unsupported.what("blocks of this format are not packed"))
    }
    /// The entry of a block packed into `len` bytes, whose space begins at `at`.
    fn packed_entry(&self, number: u64, at: u64, len: u64) -> Result<[u8; N]> {
        let _ = (number, at, len);
        Err(Kind::Unsupported.what("blocks of this format are not packed"))
    }
    /// The file will be written to. Nothing of it has been looked at yet.
    fn start(&mut self, drive: &dyn Drive) -> Result<()> {
        let _ = drive;
        Ok(())
    }
    /// A block that has its place is written to; answers what the rest of it has.
    fn touch(&mut self, room: &mut Room<'_>, touch: &Touch) -> Result<Rest> {
        let _ = room;
        Ok(touch.rest)
    }
    /// A block has been given its space.
    fn begin(&mut self, number: u64) {
        let _ = number;
    }
    /// So many blocks have got their space, and are about to be referred to: what counts them may say too much, not too
    /// little.
    fn count(&mut self, drive: &dyn Drive, added: u64) -> Result<()> {
        let _ = (drive, added);
        Ok(())
    }
    /// Nothing more comes: the space given ends at `end`, and so many blocks have got theirs. All tables are written;
    /// what counts and what ends the file is written now.
    fn finish(&mut self, drive: &dyn Drive, end: u64, added: u64) -> Result<()>;
}

/// Bytes of a block that are written to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Touch {
    /// The block.
    pub number: u64,
    /// Where its bytes begin in the file.
    pub at: u64,
    /// Bytes of it before those.
    pub skip: u64,
    /// How many they are.
    pub len: u64,
    /// It has only now got its place.
    pub is_new: bool,
    /// They are all that the block has of the disk.
    pub is_whole: bool,
    /// What the rest of it would have.
    pub rest: Rest,
}

/// What a format may do to a file whose blocks are written to.
pub struct Room<'r> {
    /// The way to the file.
    pub drive: &'r dyn Drive,
    /// Its tables.
    pub draft: &'r mut Draft,
    end: &'r mut u64,
}

impl Room<'_> {
    /// Space at the end of the file.
    pub fn claim(&mut self, align: u64, base: u64, len: u64) -> Result<u64> {
        let at = claim(self.end, align, base, len)?;
        self.draft.reaches(*self.end);
        Ok(at)
    }
}

/// Space at the end of a file.
fn claim(file_end: &mut u64, align: u64, base: u64, len: u64) -> Result<u64> {
    let full = || Kind::TooBig.what("the file cannot become longer");
    let over = file_end.saturating_sub(base).checked_next_multiple_of(align.max(1)).ok_or_else(full)?;
    let at = base.checked_add(over).ok_or_else(full)?;
    *file_end = at.checked_add(len).filter(|end| *end <= i64::MAX.unsigned_abs()).ok_or_else(full)?;
    Ok(at)
}

/// A disk that is written to in this way.
pub struct Growing<B, const N: usize> {
    blocks: B,
    draft: Draft,
    /// Where the space given so far ends.
    end: u64,
    /// Up to here there may be something in the file that no block has, and none may get.
    used: u64,
    added: u64,
    is_started: bool,
    is_changed: bool,
}

/// Where an entry stands: of which table, and which one of it.
struct Slot {
    at: u64,
    table: u64,
    index: u64,
}

/// A disk whose file has something up to `have`, and whose new blocks go behind `end`.
pub fn target_behind<B: Grow<N> + 'static, const N: usize>(blocks: B, have: u64, end: u64) -> Box<dyn Target> {
    let mut growing = Growing::new(blocks, have);
    growing.end = end;
    growing.used(have);
    growing.keep_root();
    Box::new(growing)
}

/// A disk whose file has nothing behind `end`; all tables lie before it.
pub fn target<B: Grow<N> + 'static, const N: usize>(blocks: B, end: u64) -> Box<dyn Target> {
    Box::new(Growing::new(blocks, end))
}

impl<B: Grow<N>, const N: usize> Growing<B, N> {
    /// A disk whose file has nothing behind `end`; all tables lie before it.
    pub fn new(blocks: B, end: u64) -> Self {
        let draft = Draft::new(blocks.grid().file, end);
        let mut growing = Growing { blocks, draft, end, used: 0, added: 0, is_started: false, is_changed: false };
        growing.keep_root();
        growing
    }

    /// Up to here the file may have something that no block has: it becomes zeroes where a block gets its place.
    pub fn used(&mut self, until: u64) {
        self.used = self.used.max(until);
    }

    /// No block comes to lie in the first table, which may be longer than its file.
    fn keep_root(&mut self) {
        let (Root::Table { at, count } | Root::Directory { at, count, .. }) = self.blocks.grid().root;
        self.keep(at, count.saturating_mul(wide(N)));
    }

    /// No block comes to lie there. What does not even begin in the file is no table, and whoever looks there is told so:
    /// else the file would become as long as an image likes.
    pub fn keep(&mut self, at: u64, len: u64) {
        if at <= self.end {
            self.end = self.end.max(at.saturating_add(len));
            self.draft.reaches(self.end);
        }
    }

    /// Space at the end of the file.
    pub fn claim(&mut self, align: u64, base: u64, len: u64) -> Result<u64> {
        let at = claim(&mut self.end, align, base, len)?;
        self.draft.reaches(self.end);
        self.blocks.grown(self.end);
        Ok(at)
    }

    /// Where a block has its space: where the file has some.
    fn inside(&self, at: u64) -> Result<u64> {
        let outside = || Kind::Corrupt.what("a block lies behind the end of the file").file(self.draft.file()).at(at);
        if at < self.end { Ok(at) } else { Err(outside()) }
    }

    /// Where the entry of a block stands; none if there is no table for it, unless it is to be made.
    fn slot(&mut self, drive: &dyn Drive, number: u64, make: bool) -> Result<Option<Slot>> {
        let size = wide(N);
        let entry_at = |at: u64, index: u64| at.saturating_add(index.saturating_mul(size));
        let number = self.blocks.index(number);
        let (at, count, entries) = match self.blocks.grid().root {
            Root::Table { at, count } if number < count => {
                return Ok(Some(Slot { at: entry_at(at, number), table: 0, index: number }));
            }
            Root::Table { .. } => return Err(Kind::Corrupt.what("the table of blocks is too short")),
            Root::Directory { at, count, entries } => (at, count, entries),
        };
        let (table, index, _) = split(number, entries);
        if table >= count {
            return Err(Kind::Corrupt.what("the directory of tables is too short"));
        }
        let lead_at = entry_at(at, table);
        let lead = self.draft.get(drive, lead_at)?;
        let found = match self.blocks.table(lead)? {
            None if !make => return Ok(None),
            None => {
                self.change(drive)?;
                let frame = self.blocks.frame();
                let len = self.blocks.table_len();
                let made = self.claim(frame.align, frame.base, len)?;
                // What is behind the end of the file reads as zeroes.
                let there = drive.length(self.draft.file())?.saturating_sub(made);
                self.draft.blank(drive, made, len.min(there))?;
                let lead = self.blocks.lead(made);
                self.draft.link(drive, lead_at, &lead)?;
                made
            }
            Some(found) => found,
        };
        Ok(Some(Slot { at: entry_at(found, index), table, index }))
    }

    fn change(&mut self, drive: &dyn Drive) -> Result<()> {
        if core::mem::replace(&mut self.is_changed, true) { Ok(()) } else { self.blocks.mark(drive) }
    }

    fn set(&mut self, drive: &dyn Drive, slot: &Slot, entry: &[u8; N]) -> Result<()> {
        self.change(drive)?;
        self.draft.link(drive, slot.at, entry)?;
        match self.blocks.twin(drive, &mut self.draft, slot.table, slot.index)? {
            Some(at) => self.draft.link(drive, at, entry),
            None => Ok(()),
        }
    }

    /// A packed block always gets new space: it does not fit where another was.
    fn reserve_packed(&mut self, drive: &dyn Drive, number: u64, len: u64, was: Option<&Source>) -> Result<Spot> {
        let frame = self.blocks.packed_frame(len, was)?;
        let short = || Kind::Corrupt.what("the directory of tables is too short");
        let slot = self.slot(drive, number, true)?.ok_or_else(short)?;
        let at = self.claim(frame.align, frame.base, frame.len)?;
        let entry = self.blocks.packed_entry(number, at, len)?;
        self.set(drive, &slot, &entry)?;
        self.added = self.added.saturating_add(1);
        Ok(Spot { place: Place { file: self.draft.file(), at }, tweak: None, rest: Rest::There, is_fresh: true })
    }

    fn start(&mut self, drive: &dyn Drive) -> Result<()> {
        if self.is_started {
            return Ok(());
        }
        self.is_started = true;
        self.blocks.start(drive)
    }

    /// The spot of what is written to a block whose bytes begin at `place`.
    fn touch(&mut self, drive: &dyn Drive, touch: &Touch, place: Place, tweak: Option<u64>) -> Result<Spot> {
        self.change(drive)?;
        let mut room = Room { drive, draft: &mut self.draft, end: &mut self.end };
        let rest = self.blocks.touch(&mut room, touch)?;
        let tweak = tweak.map(|at| at.saturating_add(touch.skip));
        Ok(Spot { place: place.ahead(touch.skip), tweak, rest, is_fresh: rest != Rest::There })
    }

    /// Sets the entry of a block; what became of it is the caller's business.
    fn set_entry(&mut self, drive: &dyn Drive, number: u64, entry: &[u8; N]) -> Result<()> {
        match self.slot(drive, number, true)? {
            Some(slot) => self.set(drive, &slot, entry),
            None => Ok(()),
        }
    }
}

impl<B: Grow<N>, const N: usize> Target for Growing<B, N> {
    fn size(&self) -> u64 {
        self.blocks.grid().range.end
    }

    fn unit(&self) -> u64 {
        self.blocks.unit()
    }

    fn reserve(&mut self, drive: &dyn Drive, at: u64, len: u64, what: What) -> Result<Option<Spot>> {
        self.start(drive)?;
        let grid = self.blocks.grid();
        let (number, skip, left) = split(at.saturating_sub(grid.range.start), grid.block_len);
        let is_whole = skip == 0 && len >= left.min(grid.range.end.saturating_sub(at));
        let slot = self.slot(drive, number, false)?;
        let was = match &slot {
            Some(slot) => {
                let entry = self.draft.get(drive, slot.at)?;
                self.blocks.block(number, entry)?
            }
            None => None,
        };
        if let What::Packed(len) = what {
            return self.reserve_packed(drive, number, len, was.as_ref()).map(Some);
        }
        let rest = match was {
            Some(Source::Raw { place, tweak, .. }) => {
                let at = self.inside(place.at)?;
                let touch = Touch { number, at, skip, len, is_new: false, is_whole, rest: Rest::There };
                return self.touch(drive, &touch, place, tweak).map(Some);
            }
            None if self.blocks.is_over() => Rest::Below,
            None | Some(Source::Zero { .. }) => Rest::Zeroes,
            Some(source) => Rest::Was(source),
        };
        if what == What::Zeroes {
            match (rest, self.blocks.zeroes()) {
                (Rest::Zeroes, _) => return Ok(None),
                (_, Some(entry)) if is_whole => {
                    self.set_entry(drive, number, &entry)?;
                    return Ok(None);
                }
                _ => {}
            }
        }
        let Some(slot) = self.slot(drive, number, true)? else { return Ok(None) };
        let frame = self.blocks.frame();
        let space = match self.blocks.space(number) {
            Some(at) => self.inside(at)?,
            None => self.claim(frame.align, frame.base, frame.len)?,
        };
        let entry = self.blocks.entry(number, space)?;
        self.set(drive, &slot, &entry)?;
        let old = self.used.min(space.saturating_add(frame.len)).saturating_sub(space);
        if old > 0 {
            drive.zero(Place { file: self.draft.file(), at: space }, old, true)?;
        }
        self.blocks.begin(number);
        self.added = self.added.saturating_add(1);
        // What the entry means is for the one to say who reads it.
        match self.blocks.block(number, entry)? {
            Some(Source::Raw { place, tweak, .. }) => {
                let touch = Touch { number, at: place.at, skip, len, is_new: true, is_whole, rest };
                self.touch(drive, &touch, place, tweak).map(Some)
            }
            _ => Err(Kind::Corrupt.what("a new block has no place")),
        }
    }

    fn keep_order(&mut self) {
        self.draft.keep_order();
    }

    fn keep_identity(&mut self) {
        self.blocks.keep_identity();
    }

    fn waiting(&self) -> usize {
        self.draft.waiting()
    }

    fn settle(&mut self, drive: &dyn Drive) -> Result<()> {
        // No reference leads beyond the end of the file.
        let file = self.draft.file();
        if self.draft.waiting() > 0 {
            if drive.length(file)? < self.end {
                drive.set_length(file, self.end)?;
            }
            self.blocks.count(drive, self.added)?;
        }
        self.draft.settle(drive)
    }

    fn seal(&mut self, drive: &dyn Drive) -> Result<()> {
        self.start(drive)?;
        if !self.is_changed {
            return Ok(());
        }
        if !self.draft.is_ordered() {
            self.draft.flush(drive)?;
            return self.blocks.finish(drive, self.end, self.added);
        }
        self.settle(drive)?;
        self.blocks.finish(drive, self.end, self.added)?;
        drive.flush(self.draft.file())
    }

    fn cipher(&self) -> Option<Arc<Sectors>> {
        self.blocks.sealer()
    }
}
