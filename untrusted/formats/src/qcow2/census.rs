//! The census of a qcow2 image: what all its tables say of its clusters, those of snapshots included.

use super::disk::{BITMAP_ENTRY_OFFSET, REFCOUNT_TABLE_OFFSET, REFCOUNT_TABLE_RESERVED};
use super::edit::Mend;
use super::open::{Checked, L1_LEN_MAX, Table};
use super::refcounts::{Counts, most};
use super::snapshots::{self, EXTRA_LEN_MAX};
use super::tables::{Memory, RESERVED};
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use instar_image::census::{
    AskStored, Census, Claim, Clusters, Finding, Irregular, Ledger, Miscount, Owner, Scope, Space, Weight, Witness,
    finding,
};
use instar_image::text::hex;
use instar_image::{Error, File, Kind, Result};

/// An image's census.
pub struct Roll<'r, 'a> {
    /// The file.
    pub file: &'r File<'a>,
    /// What the image says of itself.
    pub checked: &'r Checked,
    /// What is to be told.
    pub scope: Scope,
    /// What is repaired meanwhile.
    pub mend: Option<&'r Mend<'r>>,
}

impl Census for Roll<'_, '_> {
    fn space(&self) -> Space {
        let unit = self.checked.layout.cluster_len;
        Space {
            file: self.file.id(),
            len: self.file.len(),
            unit,
            lead: 0,
            slack: unit.saturating_sub(1),
            most: most(&self.checked.layout),
        }
    }

    fn take(&self, out: &mut dyn Witness) -> Result<()> {
        match self.mend.is_some_and(Mend::is_deaf) {
            true => self.take_all(&mut Deaf(out)),
            false => self.take_all(out),
        }
    }

    fn ledger(&self) -> Option<Box<dyn Ledger + '_>> {
        Some(Box::new(Counts::new(self.file, &self.checked.layout)))
    }

    fn review(&self, stored: AskStored<'_>, find: &mut dyn FnMut(Finding) -> Result<()>) -> Result<()> {
        match self.checked.layout.extended_l2() {
            true => self.copied::<16>(stored, find),
            false => self.copied::<8>(stored, find),
        }
    }

    fn words(&self, irregular: &Irregular) -> Option<Finding> {
        let is_told = matches!(irregular, Irregular::Miscount(_)) || !self.mend.is_some_and(Mend::is_deaf);
        if !is_told {
            return None;
        }
        let found = match irregular {
            Irregular::Outside(claim) => {
                let phrase = "ERROR: counting reference for region exceeding the end of the file by one cluster or more: \
                              offset 0x{} size 0x{}";
                self.corrupt(phrase).at(claim.at).arg(plain(claim.at)).arg(plain(claim.len))
            }
            Irregular::Shared(claim, count) => match claim.owner {
                // Where no more can be counted than one, nothing more is seen.
                Owner::Counts(_) if self.scope.as_qemu && *count == 1 => return None,
                Owner::Counts(number) => {
                    self.need_rebuild();
                    self.corrupt("ERROR refcount block {} refcount={}").at(claim.at).arg(number).arg(*count)
                }
                _ if self.scope.as_qemu => return None,
                _ => return self.space().words(irregular, "cluster"),
            },
            Irregular::Uncountable(at) => {
                let phrase = "ERROR: overflow cluster offset=0x{}\n\
                              Use qemu-img amend to increase the refcount entry width or qemu-img convert to create a \
                              clean copy if the image cannot be opened for writing";
                self.corrupt(phrase).at(*at).arg(plain(*at))
            }
            Irregular::Miscount(miscount) => {
                return Some(match self.mend {
                    Some(mend) => mend.miscount(self, miscount),
                    None => self.miscounted(miscount),
                });
            }
            Irregular::Unused(_) => return None,
            Irregular::Uncounted(unit, error) => {
                let mut told = self.corrupt("");
                if !error.what.0.is_empty() {
                    told = error.clone();
                    told.what.0.push(b'\n');
                }
                told.what.0.extend_from_slice(b"Can't get refcount for cluster {}: Input/output error");
                return Some(finding(Weight::Failure, told.arg(*unit)));
            }
        };
        Some(finding(Weight::Corruption, found))
    }

    fn end(&self, last: Option<u64>) -> u64 {
        last.unwrap_or(0).saturating_add(1).saturating_mul(self.checked.layout.cluster_len)
    }
}

impl Roll<'_, '_> {
    fn take_all(&self, out: &mut dyn Witness) -> Result<()> {
        let Checked { layout, extensions, .. } = self.checked;
        self.snapshot_table(out)?;
        out.claim(self.own("the header", 0, layout.cluster_len))?;
        let total = layout.disk_size().div_ceil(layout.cluster_len);
        out.add(Clusters { total, ..Clusters::NONE });
        let mut memory = Memory::new();
        self.l1(layout.l1, true, &mut memory, out)?;
        let snapshots = self.snapshots(&mut memory, out)?;
        self.again(&memory, out)?;
        out.claim(self.own("the table of snapshots", layout.snapshots.at, snapshots))?;
        let counts = layout.refcounts;
        out.claim(self.own("the table of counts", counts.at, counts.count.saturating_mul(8)))?;
        let luks = &extensions.luks_place;
        out.claim(self.own("the LUKS header", luks.start, luks.end.saturating_sub(luks.start)))?;
        self.bitmaps(out)?;
        self.blocks(out)
    }

    /// That the file is in no order.
    pub fn corrupt(&self, phrase: &'static str) -> Error {
        Kind::Corrupt.what(phrase).file(self.file.id())
    }

    /// What is said of a count that is not true.
    pub fn miscounted(&self, miscount: &Miscount) -> Finding {
        let (weight, phrase) = match miscount.stored > miscount.counted {
            true => (Weight::Leak, "Leaked cluster {} refcount={} reference={}"),
            false => (Weight::Corruption, "ERROR cluster {} refcount={} reference={}"),
        };
        let error = self.corrupt(phrase).at(miscount.unit.saturating_mul(self.checked.layout.cluster_len));
        finding(weight, error.arg(miscount.unit).arg(miscount.stored).arg(miscount.counted))
    }

    /// Takes note that the counts cannot be repaired one by one.
    fn need_rebuild(&self) {
        self.mend.into_iter().for_each(|mend| mend.need(true));
    }

    /// What the image itself uses. qemu-img does not look whether it has that alone.
    pub fn own(&self, what: &'static str, at: u64, len: u64) -> Claim {
        Claim { alone: !self.scope.as_qemu, ..Claim::shared(Owner::Image(what), at, len) }
    }

    /// Tells that a word of a table is wrong.
    pub fn wrong(&self, phrase: &'static str, word: u64, out: &mut dyn Witness) -> Result<()> {
        out.find(finding(Weight::Corruption, self.corrupt(phrase).arg(plain(word))))
    }

    /// What was read of a table; qemu-img has words of its own for one that cannot be.
    pub fn read<T>(&self, read: Result<T>, words: &'static str, out: &mut dyn Witness) -> Result<T> {
        if self.scope.as_qemu && matches!(&read, Err(error) if error.kind == Kind::Io) {
            out.find(finding(Weight::Failure, self.corrupt(words)))?;
        }
        read
    }

    /// A reader of tables.
    pub fn table<const N: usize>(&self) -> instar_image::Table<'_, N> {
        instar_image::Table::new(self.file.io(), self.file.id())
    }

    /// What is wrong with the table of snapshots as a whole.
    fn snapshot_table(&self, out: &mut dyn Witness) -> Result<()> {
        let layout = &self.checked.layout;
        let heals = self.mend.filter(|mend| mend.heals_entries());
        if let Some(error) = &self.checked.snapshots_broken
            && (heals.is_none() || !self.checked.layout.placed(layout.snapshots, 40))
        {
            // What cannot be told apart cannot be checked; qemu-img gives up.
            if self.scope.as_qemu {
                return Err(error.clone());
            }
            return out.find(finding(Weight::Corruption, error.clone()));
        }
        let mut index = 0u64;
        let mut find = |entry: &snapshots::Entry<'_, '_>, number: u64| {
            let is_short = layout.version > 2 && entry.extra_len() < 16;
            match heals {
                None if is_short => {
                    let error = self.corrupt("ERROR snapshot table entry {} is incomplete").arg(number);
                    out.find(finding(Weight::Corruption, error))
                }
                Some(_) if is_short => {
                    let error = self.corrupt("Repairing snapshot table entry {} is incomplete").arg(number);
                    out.find(finding(Weight::Mended, error))
                }
                Some(_) if u64::from(entry.extra_len()) > EXTRA_LEN_MAX => {
                    let phrase = "Discarding too much extra metadata in snapshot table entry {} ({} > {})";
                    let error = self.corrupt(phrase).arg(number).arg(entry.extra_len()).arg(EXTRA_LEN_MAX);
                    out.find(finding(Weight::Mended, error))
                }
                _ => Ok(()),
            }
        };
        if heals.is_none() {
            return snapshots::walk(self.file, layout.snapshots, &mut |entry| {
                index = index.saturating_add(1);
                find(&entry, index.saturating_sub(1))
            });
        }
        let kept = snapshots::kept(self.file, layout.snapshots)?;
        let left = layout.snapshots.count.saturating_sub(kept);
        let mut all = Vec::new();
        if left > 0 {
            let phrase = "Discarding {} overhanging snapshots";
            all.push(Finding { count: left, ..finding(Weight::Mended, self.corrupt(phrase).arg(left)) });
        }
        let table = Table { count: kept, ..layout.snapshots };
        snapshots::walk_leniently(self.file, table, &mut |entry| {
            index = index.saturating_add(1);
            find(&entry, index.saturating_sub(1))
        })?;
        all.into_iter().try_for_each(|finding| out.find(finding))
    }

    /// Goes through the snapshots that are to be.
    fn each_snapshot(&self, each: &mut dyn FnMut(snapshots::Entry<'_, '_>) -> Result<()>) -> Result<()> {
        let table = self.checked.layout.snapshots;
        if !self.mend.is_some_and(|mend| mend.order.is_all()) {
            return snapshots::walk(self.file, table, each);
        }
        let count = snapshots::kept(self.file, table)?;
        snapshots::walk_leniently(self.file, Table { count, ..table }, each)
    }

    /// All snapshots; the length of their table.
    fn snapshots(&self, memory: &mut Memory, out: &mut dyn Witness) -> Result<u64> {
        let layout = &self.checked.layout;
        let table = layout.snapshots;
        let heals = self.mend.is_some_and(|mend| mend.order.is_all()) && layout.placed(table, 40);
        if self.checked.snapshots_broken.is_some() && !heals {
            return Ok(0);
        }
        if layout.has_data_file() && table.count > 0 {
            let error = self.corrupt("ERROR {} snapshots in image with data file").arg(table.count);
            out.find(finding(Weight::Corruption, error))?;
        }
        let mut end = table.at;
        self.each_snapshot(&mut |entry| {
            end = entry.end();
            let l1 = entry.l1();
            let (id, name) = entry.names()?;
            let wrong = |phrase: &'static str, word: u64| {
                let error = self.corrupt(phrase).arg(id.clone()).arg(name.clone()).arg(hex(word));
                finding(Weight::Corruption, error)
            };
            if !l1.at.is_multiple_of(layout.cluster_len) {
                let phrase = "ERROR snapshot {} ({}) l1_offset={}: L1 table is not cluster aligned; snapshot table \
                              entry corrupted";
                return out.find(wrong(phrase, l1.at));
            }
            if l1.count > L1_LEN_MAX / 8 {
                let phrase = "ERROR snapshot {} ({}) l1_size={}: L1 table is too large; snapshot table entry corrupted";
                return out.find(wrong(phrase, l1.count));
            }
            self.l1(l1, false, memory, out)
        })?;
        Ok(end.saturating_sub(table.at))
    }

    fn bitmaps(&self, out: &mut dyn Witness) -> Result<()> {
        let Checked { layout, extensions, bitmaps, .. } = self.checked;
        let Some(directory) = &extensions.bitmaps else { return Ok(()) };
        out.claim(self.own("the directory of bitmaps", directory.at, directory.len))?;
        let mut table = self.table::<8>();
        for bitmap in bitmaps {
            let count = u64::from(bitmap.table_count);
            out.claim(self.own("the table of a bitmap", bitmap.table_at, count.saturating_mul(8)))?;
            table.each(self.file.place(bitmap.table_at).at, count, |_, entry| {
                match u64::from_be_bytes(*entry) & BITMAP_ENTRY_OFFSET {
                    0 => Ok(()),
                    at => out.claim(self.own("a part of a bitmap", at, layout.cluster_len)).map(drop),
                }
            })?;
        }
        Ok(())
    }

    /// The blocks of counts.
    fn blocks(&self, out: &mut dyn Witness) -> Result<()> {
        let layout = &self.checked.layout;
        let root = layout.refcounts;
        let mut table = self.table::<8>();
        table.each(self.file.place(root.at).at, root.count, |index, entry| match u64::from_be_bytes(*entry) {
            0 => Ok(()),
            word => self.block(index, word, out),
        })
    }

    /// The clusters in which blocks of counts are, or are said to be.
    pub fn blocks_at(&self) -> Result<BTreeSet<u64>> {
        let layout = &self.checked.layout;
        let (root, mut all) = (layout.refcounts, BTreeSet::new());
        let mut table = self.table::<8>();
        table.each(self.file.place(root.at).at, root.count, |_, entry| {
            let at = u64::from_be_bytes(*entry) & REFCOUNT_TABLE_OFFSET;
            let last = at.saturating_add(layout.cluster_len).saturating_sub(1);
            all.extend([at / layout.cluster_len, last / layout.cluster_len]);
            Ok(())
        })?;
        Ok(all)
    }

    fn block(&self, index: u64, word: u64, out: &mut dyn Witness) -> Result<()> {
        let cluster_len = self.checked.layout.cluster_len;
        let at = word & REFCOUNT_TABLE_OFFSET;
        let units = self.file.len().div_ceil(cluster_len);
        let is_all = self.mend.is_some_and(|mend| mend.order.is_all());
        let phrase = match () {
            () if word & REFCOUNT_TABLE_RESERVED != 0 && self.scope.sees(RESERVED) => {
                "ERROR refcount table entry {} has reserved bits set"
            }
            () if !word.is_multiple_of(cluster_len) => {
                "ERROR refcount block {} is not cluster aligned; refcount table entry corrupted"
            }
            () if at / cluster_len >= units && is_all => "Repairing refcount block {} is outside image",
            () if at / cluster_len >= units => {
                let error = self.corrupt("ERROR refcount block {} is outside image").arg(index);
                return out.find(finding(Weight::Corruption, error));
            }
            () => return out.claim(Claim::alone(Owner::Counts(index), at, cluster_len)).map(drop),
        };
        self.need_rebuild();
        out.find(finding(Weight::Corruption, self.corrupt(phrase).arg(index)))
    }
}

/// Passes on who uses what, and not what is wrong.
struct Deaf<'w>(&'w mut dyn Witness);

impl Witness for Deaf<'_> {
    fn claim(&mut self, claim: Claim) -> Result<bool> {
        self.0.claim(claim)
    }

    fn claims(&mut self, like: Claim, places: &[u64]) -> Result<bool> {
        self.0.claims(like, places)
    }

    fn find(&mut self, _: Finding) -> Result<()> {
        Ok(())
    }

    fn doubt(&mut self) {
        self.0.doubt();
    }

    fn add(&mut self, clusters: Clusters) {
        self.0.add(clusters);
    }
}

/// A number as qemu-img prints it here: hexadecimal, and nothing before it.
pub fn plain(number: u64) -> String {
    format!("{number:x}")
}
