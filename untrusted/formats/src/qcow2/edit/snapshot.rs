//! Snapshots: taken, applied, deleted.

use super::super::disk::{Snapshot, SnapshotExtra};
use super::super::open::Table;
use super::super::snapshots::{self, Entry, SNAPSHOTS_MAX};
use super::Editor;
use super::work::Work;
use alloc::string::ToString;
use alloc::vec::Vec;
use instar_image::edit::NewSnapshot;
use instar_image::num::{narrow, wide};
use instar_image::{Drive, Freed, Kind, Result};
use zerocopy::IntoBytes;
use zerocopy::big_endian::{U16, U32, U64};

/// An entry of the table of snapshots, as it stands there.
pub struct Kept {
    pub bytes: Vec<u8>,
    pub l1: Table,
    /// Its identifier, if that is a number.
    id: u64,
    /// Size of the disk when it was taken, if it says so.
    pub size: Option<u64>,
}

impl Editor<'_, '_> {
    /// All snapshots.
    pub fn kept(&self) -> Result<Vec<Kept>> {
        let mut all = Vec::new();
        snapshots::walk(&self.image.file, self.image.checked.layout.snapshots, &mut |entry: Entry<'_, '_>| {
            let (id, _) = entry.names()?;
            let id = core::str::from_utf8(&id.0).ok().and_then(|id| id.parse().ok()).unwrap_or(0);
            all.push(Kept { bytes: entry.bytes()?, l1: entry.l1(), id, size: entry.disk_size()? });
            Ok(())
        })?;
        Ok(all)
    }

    /// The kept snapshot with that number.
    fn one<'k>(&self, all: &'k [Kept], number: usize) -> Result<&'k Kept> {
        let found = all.get(number);
        found.ok_or_else(|| Kind::Unsupported.what("there is no such snapshot").file(self.image.file.id()))
    }

    /// An L1 table that a snapshot has.
    fn snapshot_l1(&self, number: usize) -> Result<Table> {
        snapshots::l1(&self.image.file, &self.image.checked.layout, number)
    }

    pub(super) fn take(&self, drive: &dyn Drive, new: &NewSnapshot<'_>) -> Result<()> {
        let layout = &self.image.checked.layout;
        self.refuse_data_file("Operation not supported")?;
        let all = self.kept()?;
        if wide(all.len()) >= SNAPSHOTS_MAX {
            return Err(Kind::TooBig.what("File too large").file(self.image.file.id()));
        }
        let mut work = Work::new(self.image, drive, Freed::Snapshot)?;
        let entries = work.l1(layout.l1)?;
        let branch = work.branch(entries)?;
        // The new snapshot keeps the tables that are there, and the disk goes on with the others.
        let l1 = work.add_l1(&branch)?;
        let id = all.iter().map(|kept| kept.id).max().unwrap_or(0).saturating_add(1).to_string();
        let fixed = Snapshot {
            l1_table_offset: U64::new(layout.l1.at),
            l1_size: U32::new(u32::try_from(layout.l1.count).unwrap_or(u32::MAX)),
            id_str_size: U16::new(u16::try_from(id.len()).unwrap_or(u16::MAX)),
            name_size: U16::new(u16::try_from(new.name.len()).unwrap_or(u16::MAX)),
            date_sec: U32::new(new.date_sec),
            date_nsec: U32::new(new.date_nsec),
            vm_clock_nsec: U64::new(0),
            vm_state_size: U32::new(0),
            extra_data_size: U32::new(24),
        };
        let extra = SnapshotExtra {
            vm_state_size_large: U64::new(0),
            disk_size: U64::new(layout.disk_size()),
            icount: U64::new(0),
        };
        let own = [fixed.as_bytes(), extra.as_bytes(), id.as_bytes(), new.name].concat();
        let table = self.table(&mut work, all.iter().map(|kept| &kept.bytes[..]).chain([&own[..]]))?;
        work.set_l1(l1);
        set_snapshots(&mut work, table);
        work.publish()
    }

    pub(super) fn delete(&self, drive: &dyn Drive, number: usize) -> Result<()> {
        let layout = &self.image.checked.layout;
        let all = self.kept()?;
        self.one(&all, number)?;
        let gone = self.snapshot_l1(number)?;
        let mut work = Work::new(self.image, drive, Freed::Snapshot)?;
        let entries = work.l1(gone)?;
        work.fell(&entries)?;
        drop(entries);
        work.drop_table(gone.at, gone.count.saturating_mul(8))?;
        let rest = all.iter().enumerate().filter(|(index, _)| *index != number);
        let table = self.table(&mut work, rest.map(|(_, kept)| &kept.bytes[..]))?;
        // What nobody else has any more is the disk's alone.
        let own = work.l1(layout.l1)?;
        let l1 = match if layout.has_data_file() { None } else { work.true_to_counts(own)? } {
            None => layout.l1,
            Some(entries) => {
                work.drop_table(layout.l1.at, layout.l1.count.saturating_mul(8))?;
                work.add_l1(&entries)?
            }
        };
        work.set_l1(l1);
        set_snapshots(&mut work, table);
        work.publish()
    }

    pub(super) fn apply(&self, drive: &dyn Drive, number: usize) -> Result<()> {
        let layout = &self.image.checked.layout;
        self.refuse_data_file("Failed to load snapshot: Operation not supported")?;
        let all = self.kept()?;
        let size = self.one(&all, number)?.size.unwrap_or(layout.disk_size());
        let wanted = self.snapshot_l1(number)?;
        let mut work = Work::new(self.image, drive, Freed::Snapshot)?;
        // Nobody sees it before all is done, so counts that are narrow need not have room for one user more.
        let own = work.l1(layout.l1)?;
        work.fell(&own)?;
        work.drop_table(layout.l1.at, layout.l1.count.saturating_mul(8))?;
        let len = own.len();
        drop(own);
        let entries = work.l1(wanted)?;
        let mut branch = work.branch(entries)?;
        // It may have been taken when the disk was smaller.
        let needed = narrow(layout.l1_needed_for(size).min(super::L1_ENTRIES_MAX));
        let len = branch.len().max(len).max(needed);
        branch.reserve_exact(len.saturating_sub(branch.len()));
        branch.resize(len, 0);
        let l1 = work.add_l1(&branch)?;
        work.set_l1(l1);
        work.front.header.size = U64::new(size);
        work.publish()
    }

    /// A new table of these snapshots in the place of the old one.
    pub fn table<'k>(&self, work: &mut Work<'_>, entries: impl Iterator<Item = &'k [u8]>) -> Result<Table> {
        let old = self.image.checked.layout.snapshots;
        let (mut bytes, mut count) = (Vec::new(), 0u64);
        for entry in entries {
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            bytes.extend_from_slice(entry);
            count = count.saturating_add(1);
        }
        if wide(bytes.len()) > snapshots::TABLE_LEN_MAX {
            return Err(Kind::TooBig.what("File too large").file(self.image.file.id()));
        }
        if old.count > 0 {
            let mut end = old.at;
            snapshots::walk(&self.image.file, old, &mut |entry| {
                end = entry.end();
                Ok(())
            })?;
            work.drop_table(old.at, end.saturating_sub(old.at))?;
        }
        let at = if count == 0 { 0 } else { work.add(&bytes)? };
        Ok(Table { at, count })
    }

    fn refuse_data_file(&self, words: &'static str) -> Result<()> {
        match self.image.checked.layout.has_data_file() {
            true => Err(Kind::Unsupported.what(words).file(self.image.file.id())),
            false => Ok(()),
        }
    }
}

/// These are the snapshots.
pub fn set_snapshots(work: &mut Work<'_>, table: Table) {
    let header = &mut work.front.header;
    header.snapshots_offset = U64::new(table.at);
    header.nb_snapshots = U32::new(u32::try_from(table.count).unwrap_or(u32::MAX));
}
