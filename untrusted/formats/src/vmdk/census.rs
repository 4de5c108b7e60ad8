//! The census of a VMware disk: of each of its files, where headers, directories, tables and grains are.

#[cfg(test)]
mod tests;

use super::disk::{AT_END, FLAG_SECOND_DIRECTORY, Footer, Hosted, KDMV, SeConst};
use super::locate::{Grains, SeGrains, Spread};
use super::open::{Body, Checked, Extent};
use super::sparse::Sparse;
use super::walk::Walk;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem::size_of;
use instar_image::blocks::{Blocks, Root};
use instar_image::census::{Census, Claim, Finding, Irregular, Owner, Scope, Space, Weight, Witness, finding};
use instar_image::num::narrow;
use instar_image::sector::{SECTOR, round_up};
use instar_image::{Drive, Error, File, FileId, Io, Kind, Place, Result, Source, Table};

/// The censuses of a disk: as qemu-img one of the disk, otherwise one of each file. With `mend`, second copies are made like
/// the first.
pub fn all<'r>(
    io: &'r dyn Io,
    checked: &'r Checked,
    scope: Scope,
    mend: Option<&'r dyn Drive>,
) -> Vec<Box<dyn Census + 'r>> {
    let mut all: Vec<Box<dyn Census + 'r>> = Vec::new();
    if scope.as_qemu {
        all.push(Box::new(Walk { io, extents: &checked.extents }));
        return all;
    }
    let mut files: Vec<FileId> = checked.extents.iter().map(|extent| extent.file).collect();
    files.sort_unstable();
    files.dedup();
    for file in files {
        all.push(Box::new(Roll { io, file, extents: &checked.extents, mend }));
    }
    all
}

/// The census of a file.
struct Roll<'r> {
    io: &'r dyn Io,
    file: FileId,
    /// All extents of the disk; those in other files are passed over.
    extents: &'r [Extent],
    /// Second copies are made like the first with this.
    mend: Option<&'r dyn Drive>,
}

impl Census for Roll<'_> {
    fn space(&self) -> Space {
        Space { file: self.file, len: round_up(self.io.len(self.file)), unit: 1, lead: 0, slack: 0, most: u64::MAX }
    }

    fn take(&self, out: &mut dyn Witness) -> Result<()> {
        self.extents.iter().filter(|extent| extent.file == self.file).try_for_each(|extent| match &extent.body {
            Body::Flat { start } => {
                own("a flat extent", start.saturating_mul(SECTOR), extent.sectors.saturating_mul(SECTOR), out)
            }
            Body::Sparse(sparse) => self.sparse(extent, sparse, out),
        })
    }

    fn words(&self, irregular: &Irregular) -> Option<Finding> {
        self.space().words(irregular, "grain")
    }
}

impl Roll<'_> {
    fn error(&self, phrase: &'static str) -> Error {
        Kind::Corrupt.what(phrase).file(self.file)
    }

    fn sparse(&self, extent: &Extent, sparse: &Sparse, out: &mut dyn Witness) -> Result<()> {
        let file = File::slice(self.io, self.file, 0, self.io.len(self.file));
        let front: Hosted = file.read_as(0)?;
        let second = match (&front.magic == KDMV, sparse.se.is_some()) {
            (true, _) => self.hosted(&file, front, sparse, out)?,
            (_, true) => self.headers(&file.read_as(0)?, out).map(|()| None)?,
            _ => own("the header", 0, SECTOR, out).map(|()| None)?,
        };
        match Spread::of(extent, 0..extent.sectors.saturating_mul(SECTOR)) {
            Ok(Spread::Row(_)) => Ok(()),
            Ok(Spread::Grains(grains)) => {
                self.grains(&grains, out)?;
                second.map_or(Ok(()), |second| self.copies(&grains, second, out))
            }
            Ok(Spread::SeGrains(grains)) => self.grains::<SeGrains, 8>(&grains, out),
            Err(error) => out.find(finding(Weight::Corruption, error)),
        }
    }

    /// What belongs to a hosted sparse extent; where its second directory is, if it has one.
    fn hosted(&self, file: &File<'_>, front: Hosted, sparse: &Sparse, out: &mut dyn Witness) -> Result<Option<u64>> {
        own("the header", 0, SECTOR, out)?;
        let text_at = front.desc_offset.get().saturating_mul(SECTOR);
        if text_at != 0 {
            own("the descriptor", text_at, front.desc_size.get().saturating_mul(SECTOR), out)?;
        }
        if &front.check_bytes != b"\n \r\n" {
            let phrase = "the header says that '{file}' was changed by a transfer as text";
            out.find(finding(Weight::Corruption, self.error(phrase)))?;
        }
        let at_end = round_up(file.len()).saturating_sub(size_of::<Footer>() as u64);
        let header = match front.gd_offset.get() {
            AT_END => {
                own("the footer", at_end, size_of::<Footer>() as u64, out)?;
                file.read_as::<Footer>(at_end)?.header
            }
            _ => front,
        };
        let directory_len = u64::from(sparse.directory_count).saturating_mul(4);
        own("the grain directory", sparse.directory_at, directory_len, out)?;
        if header.flags.get() & FLAG_SECOND_DIRECTORY == 0 {
            return Ok(None);
        }
        let second = header.rgd_offset.get().saturating_mul(SECTOR);
        own("the second grain directory", second, directory_len, out).map(|()| Some(second))
    }

    /// What belongs to an extent of ESX's newer kind.
    fn headers(&self, header: &SeConst, out: &mut dyn Witness) -> Result<()> {
        own("the header", 0, SECTOR, out)?;
        let directory = [header.grain_dir_offset, header.grain_dir_size];
        let areas = [
            ("the header that changes", header.volatile_header),
            ("the header of the journal", header.journal_header),
            ("the journal", header.journal),
            ("the grain directory", directory),
            ("the map of what is free", header.free_bitmap),
            ("the map from grains to tables", header.backmap),
        ];
        areas.into_iter().try_for_each(|(what, [at, len])| {
            own(what, at.get().saturating_mul(SECTOR), len.get().saturating_mul(SECTOR), out)
        })
    }

    fn grains<B: Blocks<N>, const N: usize>(&self, blocks: &B, out: &mut dyn Witness) -> Result<()> {
        let Root::Directory { at, count, entries } = blocks.grid().root else { return Ok(()) };
        let tables = self.tables(blocks, entries);
        if count < tables {
            let phrase = "the grain directory of '{file}' is too short: it has {} entries, the disk needs {}";
            out.find(finding(Weight::Corruption, self.error(phrase).arg(count).arg(tables)))?;
        }
        let (count, mut index) = (count.min(tables).min(self.entries_at::<N>(at)), 0u64);
        let mut directory: Table<'_, N> = Table::new(self.io, self.file);
        let mut table = Table::new(self.io, self.file);
        while index < count {
            for entry in directory.entries(at, index, count)? {
                let number = index.saturating_mul(entries);
                match blocks.table(*entry) {
                    Ok(None) => {}
                    Ok(Some(at)) => self.table(blocks, (at, entries), number, &mut table, out)?,
                    Err(error) => out.find(finding(Weight::Corruption, error))?,
                }
                index = index.saturating_add(1);
            }
        }
        Ok(())
    }

    /// So many entries of a table does the file have room for: behind its end, nothing is there.
    fn entries_at<const N: usize>(&self, at: u64) -> u64 {
        self.io.len(self.file).saturating_sub(at).div_ceil(size_of::<[u8; N]>() as u64)
    }

    /// The tables that the extent needs.
    fn tables<B: Blocks<N>, const N: usize>(&self, blocks: &B, entries: u64) -> u64 {
        grain_count(blocks).div_ceil(entries.max(1))
    }

    /// A table and its grains, the first of which has this number. One that is used twice is looked at once.
    fn table<B: Blocks<N>, const N: usize>(
        &self,
        blocks: &B,
        (at, entries): (u64, u64),
        first: u64,
        table: &mut Table<'_, N>,
        out: &mut dyn Witness,
    ) -> Result<()> {
        let len = entries.saturating_mul(size_of::<[u8; N]>() as u64);
        if !out.claim(Claim::alone(Owner::Image("a grain table"), at, len))? {
            return Ok(());
        }
        let count = entries.min(grain_count(blocks).saturating_sub(first));
        let mut index = 0u64;
        while index < count {
            for entry in table.entries(at, index, count)? {
                let number = first.saturating_add(index);
                index = index.saturating_add(1);
                let (at, len) = match blocks.block(number, *entry) {
                    Ok(Some(Source::Raw { place, .. })) => (place.at, blocks.grid().block_len),
                    // How long a compressed grain is is not looked at, nor is what stands before it: it lies in the
                    // same sector.
                    Ok(Some(Source::Packed { unit, .. })) => {
                        (unit.place.at.saturating_sub(unit.place.at % SECTOR), SECTOR)
                    }
                    Ok(_) => continue,
                    Err(error) => {
                        out.find(finding(Weight::Corruption, error))?;
                        continue;
                    }
                };
                out.claim(Claim::alone(Owner::Block(number), at, len))?;
            }
        }
        Ok(())
    }

    /// Holds the tables of the second directory against the first ones, which count, and makes them like those.
    fn copies(&self, blocks: &Grains, second: u64, out: &mut dyn Witness) -> Result<()> {
        let Root::Directory { at, count, entries } = blocks.grid().root else { return Ok(()) };
        let there = self.entries_at::<4>(at).max(self.entries_at::<4>(second));
        let count = count.min(self.tables(blocks, entries)).min(there);
        let new = || Table::<4>::new(self.io, self.file);
        let [mut one, mut two, mut ours, mut theirs] = [new(), new(), new(), new()];
        for index in 0..count {
            let lead = |table: &mut Table<'_, 4>, at| -> Result<[u8; 4]> {
                Ok(table.entries(at, index, count)?.first().copied().unwrap_or_default())
            };
            let (lead, other) = (lead(&mut one, at)?, lead(&mut two, second)?);
            let (first, copy) = (blocks.table(lead)?, blocks.table(other)?);
            // What is behind the end of the disk means nothing.
            let used = grain_count(blocks).saturating_sub(index.saturating_mul(entries)).min(entries);
            let mut room = None;
            let is_same = match (first, copy) {
                // What is used twice has been told.
                (Some(first), Some(copy)) if first != copy => {
                    let own = Claim::alone(Owner::Image("a second grain table"), copy, entries.saturating_mul(4));
                    let is_own = out.claim(own)?;
                    room = Some(copy).filter(|_| is_own);
                    is_own && is_same((&mut ours, first), (&mut theirs, copy), used)?
                }
                (first, copy) => first == copy,
            };
            if is_same {
                continue;
            }
            if let (Some(drive), Some(first)) = (self.mend, first)
                && let Some(bytes) = self.sound(blocks, (&mut ours, first), used)?
            {
                // Where the second table cannot be, the first one is its own copy.
                let entry_at = second.saturating_add(index.saturating_mul(4));
                match room {
                    Some(at) => drive.write(Place { file: self.file, at }, &bytes)?,
                    None => drive.write(Place { file: self.file, at: entry_at }, &lead)?,
                }
                let phrase = "repaired: grain table {} of '{file}' was not the same as its second copy";
                out.find(finding(Weight::Mended, self.error(phrase).arg(index)))?;
            } else if first.is_none() || copy.is_none() || room.is_some() {
                let phrase = "grain table {} of '{file}' is not the same as its second copy";
                // Nobody reads it: the first one is written before it, and a crash can come between.
                out.find(finding(Weight::Note, self.error(phrase).arg(index)))?;
            }
        }
        Ok(())
    }

    /// The bytes of a table, if all its entries lead into the file: another may be the only sound copy that there is.
    fn sound(&self, blocks: &Grains, (table, at): At<'_, '_>, used: u64) -> Result<Option<Vec<u8>>> {
        let end = round_up(self.io.len(self.file));
        if used == 0 || at.saturating_add(used.saturating_mul(4)) > end {
            return Ok(None);
        }
        let len = if blocks.compressed { SECTOR } else { blocks.grid().block_len };
        let entries = table.entries(at, 0, used)?;
        let is_inside = |entry: &[u8; 4]| match u64::from(u32::from_le_bytes(*entry)) {
            0 => true,
            1 if blocks.zeroable => true,
            sector => sector.saturating_mul(SECTOR).saturating_add(len) <= end,
        };
        let is_whole = entries.len() as u64 >= used && entries.iter().all(is_inside);
        Ok(is_whole.then(|| entries.iter().take(narrow(used)).flatten().copied().collect()))
    }
}

fn grain_count<B: Blocks<N>, const N: usize>(blocks: &B) -> u64 {
    let range = blocks.grid().range.clone();
    range.end.saturating_sub(range.start).div_ceil(blocks.grid().block_len.max(1))
}

type At<'t, 'c> = (&'t mut Table<'c, 4>, u64);

/// Whether two tables have the same entries. None has more than a piece has room for.
fn is_same((ours, at): At<'_, '_>, (theirs, other): At<'_, '_>, entries: u64) -> Result<bool> {
    Ok(entries == 0 || ours.entries(at, 0, entries)? == theirs.entries(other, 0, entries)?)
}

fn own(what: &'static str, at: u64, len: u64, out: &mut dyn Witness) -> Result<()> {
    out.claim(Claim::alone(Owner::Image(what), at, len)).map(drop)
}
