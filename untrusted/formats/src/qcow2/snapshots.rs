//! The table of a qcow2 image's snapshots, walked entry by entry.

use super::disk::{Snapshot, SnapshotExtra};
use super::open::{L1_LEN_MAX, Layout, Table};
use alloc::vec::Vec;
use instar_image::num::{bounded, narrow};
use instar_image::sector::readable;
use instar_image::text::until_nul;
use instar_image::{Bytes, Error, File, Kind, Result, info};
use zerocopy::IntoBytes;

/// The most snapshots that qemu-img accepts.
pub const SNAPSHOTS_MAX: u64 = 65536;
/// The most extra data of one snapshot that qemu-img accepts.
pub const EXTRA_LEN_MAX: u64 = 1024;
/// The longest table that qemu-img accepts.
pub const TABLE_LEN_MAX: u64 = 64 << 20;
/// As much of an identifier as qemu-img tells.
const ID_LEN_MAX: u64 = 127;
/// As much of a name as qemu-img tells.
const NAME_LEN_MAX: u64 = 255;
/// The most snapshots told at once.
const BATCH_COUNT: usize = 1024;
/// The most bytes of snapshots told at once.
const BATCH_LEN: usize = 256 << 10;
/// What a snapshot weighs in a batch besides its texts.
const ENTRY_LEN: usize = 64;

/// What is wrong with the table as a whole, as qemu-img's check says it.
pub fn broken(file: &File<'_>, layout: &Layout) -> Option<Error> {
    let Table { count, .. } = layout.snapshots;
    let error = if count > SNAPSHOTS_MAX {
        let phrase = "ERROR snapshot table too large\n\
                      You can force-remove all {} overhanging snapshots with qemu-img check -r all";
        Kind::TooBig.what(phrase).arg(count.saturating_sub(SNAPSHOTS_MAX))
    } else if !layout.placed(layout.snapshots, 40) {
        Kind::Corrupt.what("ERROR snapshot table offset invalid")
    } else {
        let mut error = check(file, layout.snapshots).err()?;
        error.what.0.splice(0..0, *b"ERROR failed to read the snapshot table: ");
        error
    };
    Some(error.file(file.id()))
}

/// Reads the whole table and keeps nothing: it must hold together before anything is told.
pub fn check(file: &File<'_>, table: Table) -> Result<()> {
    walk(file, table, &mut |_| Ok(()))
}

/// Tells all snapshots in batches of bounded size.
pub fn tell(file: &File<'_>, table: Table, each: &mut dyn FnMut(Vec<info::Snapshot>) -> Result<()>) -> Result<()> {
    let mut batch = Vec::new();
    let mut len = 0usize;
    walk(file, table, &mut |entry| {
        let snapshot = entry.tell()?;
        let weight = ENTRY_LEN.saturating_add(snapshot.id.0.len()).saturating_add(snapshot.name.0.len());
        if batch.len() >= BATCH_COUNT || len.saturating_add(weight) > BATCH_LEN {
            each(core::mem::take(&mut batch))?;
            len = 0;
        }
        len = len.saturating_add(weight);
        batch.push(snapshot);
        Ok(())
    })?;
    if batch.is_empty() { Ok(()) } else { each(batch) }
}

/// The L1 table of the snapshot with that number, which is looked at here for the first time.
pub fn l1(file: &File<'_>, layout: &Layout, number: usize) -> Result<Table> {
    let refuse = |kind: Kind, phrase: &'static str| -> Error { kind.what(phrase).file(file.id()) };
    let mut tables = Vec::new();
    walk(file, layout.snapshots, &mut |entry| {
        tables.push(entry.l1());
        Ok(())
    })?;
    let l1 = tables
        .get(number)
        .copied()
        .ok_or_else(|| refuse(Kind::Unsupported, "Failed to load snapshot: Can't find snapshot"))?;
    if l1.count > L1_LEN_MAX / 8 {
        return Err(refuse(Kind::TooBig, "Failed to load snapshot: Snapshot L1 table too large"));
    }
    if !layout.placed(l1, 8) {
        return Err(refuse(Kind::Corrupt, "Failed to load snapshot: Snapshot L1 table offset invalid"));
    }
    if !readable(l1.at, l1.count.saturating_mul(8)) {
        return Err(refuse(Kind::Io, "Failed to load snapshot: Failed to read l1 table for snapshot"));
    }
    Ok(l1)
}

/// An entry of the table, with its parts not read yet.
pub struct Entry<'e, 'a> {
    file: &'e File<'a>,
    fixed: Snapshot,
    extra_at: u64,
    id_at: u64,
    name_at: u64,
}

/// Goes through the table.
pub fn walk(file: &File<'_>, table: Table, each: &mut dyn FnMut(Entry<'_, '_>) -> Result<()>) -> Result<()> {
    walk_up_to(file, table, EXTRA_LEN_MAX, each)
}

/// The same of a table that is being repaired: an entry may be as long as it will.
pub fn walk_leniently(file: &File<'_>, table: Table, each: &mut dyn FnMut(Entry<'_, '_>) -> Result<()>) -> Result<()> {
    walk_up_to(file, table, u64::MAX, each)
}

/// How many snapshots a table that is being repaired will have.
pub fn kept(file: &File<'_>, table: Table) -> Result<u64> {
    let count = table.count.min(SNAPSHOTS_MAX);
    let (mut kept, mut lost) = (0u64, 0u64);
    let walked = walk_leniently(file, Table { count, ..table }, &mut |entry| {
        // What is too long of an entry is taken out of it, and the next ones move up.
        lost = lost.saturating_add(u64::from(entry.extra_len()).saturating_sub(EXTRA_LEN_MAX));
        if entry.end().saturating_sub(table.at).saturating_sub(lost) <= TABLE_LEN_MAX {
            kept = kept.saturating_add(1);
        }
        Ok(())
    });
    match walked {
        Err(error) if error.kind == Kind::Io => Err(error),
        _ => Ok(kept),
    }
}

fn walk_up_to(
    file: &File<'_>,
    table: Table,
    extra_max: u64,
    each: &mut dyn FnMut(Entry<'_, '_>) -> Result<()>,
) -> Result<()> {
    let mut at = table.at;
    for index in 0..table.count {
        let entry = Entry::read(file, at, index, extra_max)?;
        let end = entry.end();
        if end.saturating_sub(table.at) > TABLE_LEN_MAX {
            let phrase = "Snapshot table is too big\n\
                          You can force-remove all {} overhanging snapshots with qemu-img check -r all";
            let left = table.count.saturating_sub(index);
            return Err(Kind::TooBig.what(phrase).file(file.id()).at(at).arg(left));
        }
        each(entry)?;
        at = end.next_multiple_of(8);
    }
    Ok(())
}

impl<'e, 'a> Entry<'e, 'a> {
    /// The entry at `at`.
    fn read(file: &'e File<'a>, at: u64, index: u64, extra_max: u64) -> Result<Self> {
        let unreadable =
            || -> Error { Kind::Io.what("Failed to read snapshot table: Input/output error").file(file.id()).at(at) };
        if !readable(at, 40) {
            return Err(unreadable());
        }
        let fixed: Snapshot = file.read_as(at)?;
        let extra_len = u64::from(fixed.extra_data_size.get());
        if extra_len > extra_max {
            let phrase = "Too much extra metadata in snapshot table entry {}\n\
                          You can force-remove this extra metadata with qemu-img check -r all";
            return Err(Kind::TooBig.what(phrase).file(file.id()).at(at).arg(index));
        }
        let extra_at = at.saturating_add(40);
        let id_at = extra_at.saturating_add(extra_len);
        let name_at = id_at.saturating_add(fixed.id_str_size.get().into());
        let end = name_at.saturating_add(fixed.name_size.get().into());
        if !readable(at, end.saturating_sub(at)) {
            return Err(unreadable());
        }
        Ok(Entry { file, fixed, extra_at, id_at, name_at })
    }

    /// Its L1 table.
    pub fn l1(&self) -> Table {
        Table { at: self.fixed.l1_table_offset.get(), count: self.fixed.l1_size.get().into() }
    }

    /// Length of its extra data.
    pub fn extra_len(&self) -> u32 {
        self.fixed.extra_data_size.get()
    }

    /// Where it ends, without its padding.
    pub fn end(&self) -> u64 {
        self.name_at.saturating_add(self.fixed.name_size.get().into())
    }

    /// All of it, as it stands there.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        // It was bounded when it was read.
        let start = self.extra_at.saturating_sub(40);
        self.file.read_vec(start, narrow(self.end().saturating_sub(start)))
    }

    /// All of it, as it is to stand there: complete, and not longer than it may be. `size` is that of the disk, which it
    /// has to tell.
    pub fn complete(&self, size: u64) -> Result<Vec<u8>> {
        let start = self.extra_at.saturating_sub(40);
        let extra_len = u64::from(self.extra_len());
        let mut extra = self.file.read_vec(self.extra_at, narrow(extra_len.min(EXTRA_LEN_MAX)))?;
        if extra.len() < 8 {
            extra = u64::from(self.fixed.vm_state_size.get()).to_be_bytes().to_vec();
        }
        if extra.len() < 16 {
            extra.truncate(8);
            extra.extend_from_slice(&size.to_be_bytes());
        }
        let mut bytes = self.file.read_vec(start, 40)?;
        let len = u32::try_from(extra.len()).unwrap_or(0);
        bytes.iter_mut().skip(36).zip(len.to_be_bytes()).for_each(|(to, from)| *to = from);
        bytes.extend(extra);
        bytes.extend(self.file.read_vec(self.id_at, narrow(self.end().saturating_sub(self.id_at)))?);
        Ok(bytes)
    }

    /// Size of the disk when it was taken, if it says so.
    pub fn disk_size(&self) -> Result<Option<u64>> {
        if self.extra_len() < 16 {
            return Ok(None);
        }
        let extra: SnapshotExtra = self.file.read_as(self.extra_at)?;
        Ok(Some(extra.disk_size.get()))
    }

    /// Its identifier and its name.
    pub fn names(&self) -> Result<(Bytes, Bytes)> {
        let id = self.text(self.id_at, self.fixed.id_str_size.get().into(), ID_LEN_MAX)?;
        Ok((id, self.text(self.name_at, self.fixed.name_size.get().into(), NAME_LEN_MAX)?))
    }

    fn tell(&self) -> Result<info::Snapshot> {
        let (id, name) = self.names()?;
        let extra_len = self.fixed.extra_data_size.get();
        let mut extra = SnapshotExtra { vm_state_size_large: 0.into(), disk_size: 0.into(), icount: u64::MAX.into() };
        let have = usize::try_from(extra_len / 8 * 8).unwrap_or(usize::MAX).min(size_of::<SnapshotExtra>());
        if let Some(part) = extra.as_mut_bytes().get_mut(..have) {
            self.file.read(self.extra_at, part)?;
        }
        let large = extra.vm_state_size_large.get();
        let icount = extra.icount.get();
        Ok(info::Snapshot {
            id,
            name,
            vm_state_size: if extra_len >= 8 { large } else { self.fixed.vm_state_size.get().into() },
            date_sec: self.fixed.date_sec.get(),
            date_nsec: self.fixed.date_nsec.get(),
            vm_clock_nsec: self.fixed.vm_clock_nsec.get(),
            icount: (icount != u64::MAX).then_some(icount),
        })
    }

    fn text(&self, at: u64, len: u64, max: u64) -> Result<Bytes> {
        let len = bounded(len.min(max), max, || Kind::TooBig.what("snapshot's text too long"))?;
        Ok(until_nul(&self.file.read_vec(at, len)?).into())
    }
}
