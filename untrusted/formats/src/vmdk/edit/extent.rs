//! The size of a sparse extent.

use super::unchanged;
use crate::vmdk::disk::{FLAG_SECOND_DIRECTORY, Hosted, KDMV, ZERO_GRAIN};
use crate::vmdk::reserve::{full, sector};
use crate::vmdk::sparse;
use crate::vmdk::stream::Packed;
use alloc::vec;
use alloc::vec::Vec;
use instar_image::draft::Draft;
use instar_image::num::{narrow, split};
use instar_image::sector::{SECTOR, round_up};
use instar_image::target::Packing;
use instar_image::{Chain, Drive, File, Kind, Place, Result, Table};
use zerocopy::IntoBytes;

const ENTRY_LEN: u64 = 4;
/// Entries that a directory may have.
const DIRECTORY_MAX: u64 = 32 << 20;
/// Grains up to this length begin at multiples of it.
const ALIGN_MAX: u64 = 64 << 10;
/// The longest grain that is brought here from somewhere else.
const GRAIN_MAX: u64 = 16 << 20;

/// A sparse extent that is changed.
pub struct Sparse<'s, 'a> {
    /// Its file.
    pub file: &'s File<'a>,
    /// What it says of itself.
    pub sparse: &'s sparse::Sparse,
    /// Where it begins on the disk.
    pub start: u64,
    /// Its sectors.
    pub sectors: u64,
    /// There is another disk below.
    pub is_over: bool,
    /// The disk without what is below.
    pub own: &'s Chain<'s>,
}

/// An extent on its way to another size.
pub struct Sizing<'s, 'a> {
    part: &'s Sparse<'s, 'a>,
    drive: &'s dyn Drive,
    draft: Draft,
    header: Hosted,
    grain_len: u64,
    old: u64,
    new: u64,
    /// Where the file ends, with all that is claimed.
    end: u64,
    /// Where the directories are that count, and where they will be.
    directories: Vec<(u64, u64)>,
    /// References that are turned over when all they lead to is there.
    links: Vec<(u64, [u8; 4])>,
}

impl<'s, 'a> Sizing<'s, 'a> {
    /// To so many sectors; nothing is changed yet.
    pub fn new(part: &'s Sparse<'s, 'a>, drive: &'s dyn Drive, sectors: u64) -> Result<Self> {
        let sparse = part.sparse;
        let header = sparse::forward(part.file, sparse.footer_at)?;
        if sparse.se.is_some() || &header.magic != KDMV || sparse.table_count == 0 || sparse.grain_sectors == 0 {
            return Err(unchanged("extents of ESX's kinds are read, not changed", part.file));
        }
        let mut directories = Vec::from([(sparse.directory_at, sparse.directory_at)]);
        directories.extend(sparse.second_at.map(|at| (at, at)));
        let end = round_up(part.file.len());
        Ok(Sizing {
            part,
            drive,
            draft: Draft::new(part.file.id(), end),
            header,
            grain_len: sparse.grain_sectors.saturating_mul(SECTOR),
            old: part.sectors.saturating_mul(SECTOR),
            new: sectors.saturating_mul(SECTOR),
            end,
            directories,
            links: Vec::new(),
        })
    }

    fn table_len(&self) -> u64 {
        u64::from(self.part.sparse.table_count).saturating_mul(ENTRY_LEN)
    }

    /// What a table leads to.
    fn reach(&self) -> u64 {
        self.grain_len.saturating_mul(self.part.sparse.table_count.into())
    }

    fn place(&self, at: u64) -> Place {
        Place { file: self.part.file.id(), at }
    }

    /// Space at the end of the file.
    fn claim(&mut self, align: u64, len: u64) -> Result<u64> {
        let file = self.part.file.id();
        let at = self.end.checked_next_multiple_of(align.max(1)).ok_or_else(|| full(file))?;
        self.end = at.checked_add(len).ok_or_else(|| full(file))?;
        self.draft.reaches(self.end);
        sector(self.end).map(|_| at).ok_or_else(|| full(file))
    }

    fn entry(&self, at: u64) -> Result<[u8; 4]> {
        sector(at).map(u32::to_le_bytes).ok_or_else(|| full(self.part.file.id()))
    }

    /// More of the disk; what is new is zeroes.
    pub fn grow(mut self, below: &Chain<'_>) -> Result<()> {
        if self.new.div_ceil(self.reach()) > DIRECTORY_MAX {
            return Err(full(self.part.file.id()));
        }
        self.come_forward()?;
        self.tables()?;
        self.clear()?;
        self.tail(below)?;
        self.hide(below)?;
        let (drive, file) = (self.drive, self.part.file.id());
        if self.end > drive.length(file)? {
            drive.set_length(file, self.end)?;
        }
        self.draft.flush(drive)?;
        drive.flush(file)?;
        if !self.links.is_empty() {
            for (at, entry) in core::mem::take(&mut self.links) {
                self.draft.put(drive, at, &entry)?;
            }
            self.draft.flush(drive)?;
            drive.flush(file)?;
        }
        self.link()
    }

    /// A header at the end would not be there any more when something is behind it: it comes to the front.
    fn come_forward(&mut self) -> Result<()> {
        if self.part.sparse.footer_at.is_none() {
            return Ok(());
        }
        self.drive.write(self.place(0), self.header.as_bytes())?;
        self.drive.flush(self.part.file.id())
    }

    /// Turns the header over to the new size.
    fn link(&mut self) -> Result<()> {
        let mut header = self.header.clone();
        header.capacity = (self.new / SECTOR).into();
        let at = |number: usize| self.directories.get(number).map_or(0, |(_, at)| at / SECTOR);
        header.gd_offset = at(0).into();
        if header.flags.get() & FLAG_SECOND_DIRECTORY != 0 {
            header.rgd_offset = at(1).into();
        }
        self.drive.write(self.place(0), header.as_bytes())?;
        self.drive.flush(self.part.file.id())
    }

    /// A table for each part of what is new, twice if there are two directories; they are zeroes behind the end.
    fn tables(&mut self) -> Result<()> {
        let (had, count) = (u64::from(self.part.sparse.directory_count), self.new.div_ceil(self.reach()));
        // What a header at the end leads to is found by the one in front from now on.
        let room = round_up(had.saturating_mul(ENTRY_LEN));
        let moves = count.saturating_mul(ENTRY_LEN) > room;
        for number in 0..self.directories.len() {
            let Some((was, _)) = self.directories.get(number).copied() else { continue };
            let to = if moves { self.claim(SECTOR, round_up(count.saturating_mul(ENTRY_LEN)))? } else { was };
            let mut index = 0u64;
            while moves && index < had {
                let at = index.saturating_mul(ENTRY_LEN);
                let entry: [u8; 4] = self.draft.get(self.drive, was.saturating_add(at))?;
                self.draft.put(self.drive, to.saturating_add(at), &entry)?;
                index = index.saturating_add(1);
            }
            for index in had..count {
                let table = self.claim(SECTOR, round_up(self.table_len()))?;
                let entry = self.entry(table)?;
                self.draft.put(self.drive, to.saturating_add(index.saturating_mul(ENTRY_LEN)), &entry)?;
            }
            self.directories.get_mut(number).into_iter().for_each(|pair| pair.1 = to);
        }
        Ok(())
    }

    /// Where the entries of a grain stand; a table that is missing is made.
    fn slots(&mut self, grain: u64) -> Result<Vec<u64>> {
        let (table, index, _) = split(grain, self.part.sparse.table_count.into());
        let mut slots = Vec::new();
        for number in 0..self.directories.len() {
            let Some((_, at)) = self.directories.get(number).copied() else { continue };
            let lead_at = at.saturating_add(table.saturating_mul(ENTRY_LEN));
            let known = self.links.iter().find(|(at, _)| *at == lead_at).map(|(_, entry)| *entry);
            let lead = match known {
                Some(entry) => entry,
                None => self.draft.get(self.drive, lead_at)?,
            };
            let found = u64::from(u32::from_le_bytes(lead)).saturating_mul(SECTOR);
            let table_at = match found {
                0 => {
                    let made = self.claim(SECTOR, round_up(self.table_len()))?;
                    let entry = self.entry(made)?;
                    self.links.push((lead_at, entry));
                    made
                }
                found => found,
            };
            slots.push(table_at.saturating_add(index.saturating_mul(ENTRY_LEN)));
        }
        Ok(slots)
    }

    /// The table of the last grain has no entries for what is behind it.
    fn clear(&mut self) -> Result<()> {
        let entries = u64::from(self.part.sparse.table_count);
        let (table, index, left) = split(self.old.div_ceil(self.grain_len), entries);
        if index == 0 || table >= self.part.sparse.directory_count.into() {
            return Ok(());
        }
        for number in 0..self.directories.len() {
            let Some((_, at)) = self.directories.get(number).copied() else { continue };
            let lead: [u8; 4] = self.draft.get(self.drive, at.saturating_add(table.saturating_mul(ENTRY_LEN)))?;
            let found = u64::from(u32::from_le_bytes(lead)).saturating_mul(SECTOR);
            if found != 0 {
                let at = found.saturating_add(index.saturating_mul(ENTRY_LEN));
                self.draft.blank(self.drive, at, left.saturating_mul(ENTRY_LEN))?;
            }
        }
        Ok(())
    }

    fn packed(&self) -> Option<Packed> {
        let sparse = self.part.sparse;
        let packed = Packed { start: self.part.start, len: self.grain_len, marked: sparse.marked };
        sparse.compressed.then_some(packed)
    }

    /// A new grain with these bytes; answers its entry.
    fn grain(&mut self, number: u64, bytes: &[u8]) -> Result<[u8; 4]> {
        let disk_at = self.part.start.saturating_add(number.saturating_mul(self.grain_len));
        let at = match self.packed() {
            Some(packed) => {
                let mut packer = packed.packer();
                let whole = packer.pack(disk_at, bytes).unwrap_or_default();
                let at = self.claim(SECTOR, whole.len() as u64)?;
                self.drive.write(self.place(at), &whole)?;
                at
            }
            None => {
                let align = if self.grain_len <= ALIGN_MAX { self.grain_len } else { SECTOR };
                let at = self.claim(align, self.grain_len)?;
                if bytes.iter().any(|byte| *byte != 0) {
                    self.drive.write(self.place(at), bytes)?;
                }
                at
            }
        };
        self.entry(at)
    }

    /// What the last grain has behind the end of the disk becomes zeroes.
    fn tail(&mut self, below: &Chain<'_>) -> Result<()> {
        let (number, skip, left) = split(self.old, self.grain_len);
        if skip == 0 {
            return Ok(());
        }
        let slots = self.slots(number)?;
        let Some(first) = slots.first() else { return Ok(()) };
        let entry: [u8; 4] = self.draft.get(self.drive, *first)?;
        let at = u64::from(u32::from_le_bytes(entry)).saturating_mul(SECTOR);
        let start = self.part.start.saturating_add(self.old.saturating_sub(skip));
        let is_zero = self.part.sparse.zeroable && u32::from_le_bytes(entry) == ZERO_GRAIN;
        let from = match at {
            0 if self.part.is_over && below.size() > start.saturating_add(skip) => below,
            0 => return Ok(()),
            _ if is_zero => return Ok(()),
            _ if self.packed().is_some() => self.part.own,
            at if at >= self.part.file.len() => {
                let words = Kind::Corrupt.what("a grain lies behind the end of the file");
                return Err(words.file(self.part.file.id()).at(at));
            }
            at => return self.drive.zero(self.place(at.saturating_add(skip)), left, false),
        };
        if self.grain_len > GRAIN_MAX {
            return Err(unchanged("grains as long as these are read, not changed", self.part.file));
        }
        let mut bytes = vec![0; narrow(self.grain_len)];
        from.read(self.drive, start, bytes.get_mut(..narrow(skip)).unwrap_or_default())?;
        let entry = self.grain(number, &bytes)?;
        self.links.extend(slots.into_iter().map(|at| (at, entry)));
        Ok(())
    }

    /// Where something is below, grains of zeroes hide it.
    fn hide(&mut self, below: &Chain<'_>) -> Result<()> {
        let end = below.size().saturating_sub(self.part.start).min(self.new);
        if !self.part.is_over || end <= self.old {
            return Ok(());
        }
        let zeroes = match self.part.sparse.zeroable {
            true => Vec::new(),
            false => vec![0; narrow(self.grain_len.min(GRAIN_MAX))],
        };
        for number in self.old.div_ceil(self.grain_len)..end.div_ceil(self.grain_len) {
            let entry = match self.part.sparse.zeroable {
                true => ZERO_GRAIN.to_le_bytes(),
                false => self.grain(number, &zeroes)?,
            };
            for at in self.slots(number)? {
                self.draft.put(self.drive, at, &entry)?;
            }
        }
        Ok(())
    }

    /// Nothing of the disk is here any more. Every entry that is empty is right by itself, and the tables stay: some who
    /// write to such an extent need them. The file ends with the last of them.
    pub fn empty(mut self) -> Result<()> {
        let (drive, part, file) = (self.drive, self.part, self.part.file.id());
        let text_end = self.header.desc_offset.get().saturating_add(self.header.desc_size.get()).saturating_mul(SECTOR);
        let count = self.old.div_ceil(self.reach()).min(part.sparse.directory_count.into());
        let (len, have) = (self.table_len(), drive.length(file)?);
        let mut end = text_end.max(part.sparse.grains_at);
        // No more tables than the file has room for: whoever names one twice has more.
        let mut left = have / len.max(1);
        for (at, _) in self.directories.clone() {
            end = end.max(at.saturating_add(round_up(count.saturating_mul(ENTRY_LEN))));
            for index in 0..count {
                let lead: [u8; 4] = self.draft.get(drive, at.saturating_add(index.saturating_mul(ENTRY_LEN)))?;
                let table = u64::from(u32::from_le_bytes(lead)).saturating_mul(SECTOR);
                if table == 0 || table >= have {
                    continue;
                }
                let rest = left.checked_sub(1).filter(|_| table >= text_end);
                left =
                    rest.ok_or_else(|| Kind::Corrupt.what("a grain table lies where something else is").file(file))?;
                drive.zero(self.place(table), len.min(have.saturating_sub(table)), false)?;
                end = end.max(table.saturating_add(round_up(len)));
            }
        }
        drive.flush(file)?;
        // A header at the end has to stay there, and what is in front of it.
        if part.sparse.compressed || end >= have {
            return Ok(());
        }
        drive.set_length(file, end)?;
        drive.flush(file)
    }

    /// Less of the disk: the file ends with what is left of it.
    pub fn shrink(mut self) -> Result<()> {
        self.link()?;
        let part = self.part;
        if part.sparse.compressed {
            return Ok(());
        }
        let text_end = self.header.desc_offset.get().saturating_add(self.header.desc_size.get());
        let mut end = text_end.saturating_mul(SECTOR).max(part.sparse.grains_at);
        let mut tables = Table::<4>::new(part.file.io(), part.file.id());
        let mut grains = Table::<4>::new(part.file.io(), part.file.id());
        let (count, entries) = (self.new.div_ceil(self.reach()), u64::from(part.sparse.table_count));
        let all = self.new.div_ceil(self.grain_len);
        for (at, _) in &self.directories {
            end = end.max(at.saturating_add(round_up(count.saturating_mul(ENTRY_LEN))));
            tables.each(*at, count, |index, lead| {
                let table = u64::from(u32::from_le_bytes(*lead)).saturating_mul(SECTOR);
                if table == 0 {
                    return Ok(());
                }
                end = end.max(table.saturating_add(round_up(self.table_len())));
                let left = all.saturating_sub(index.saturating_mul(entries)).min(entries);
                grains.each(table, left, |_, entry| {
                    let grain = u64::from(u32::from_le_bytes(*entry));
                    if grain > ZERO_GRAIN.into() {
                        end = end.max(grain.saturating_mul(SECTOR).saturating_add(self.grain_len));
                    }
                    Ok(())
                })
            })?;
        }
        if end < part.file.len() {
            self.drive.set_length(part.file.id(), end)?;
        }
        self.drive.flush(part.file.id())
    }
}
