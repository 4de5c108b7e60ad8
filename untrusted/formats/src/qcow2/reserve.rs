//! Where bytes of a qcow2 image may go: clusters that are its own already, or new ones at the end of the file.

pub mod marks;
#[cfg(test)]
mod tests;

use super::clusters::Clusters;
use super::disk::{L1_OFFSET, L2_ALL, L2_COMPRESSED, L2_COPIED, L2_OFFSET, L2_ZERO, L2_ZEROES_SHIFT, SUBCLUSTERS};
use super::locate::{Map, packed};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use instar_codec::cipher::Sectors;
use instar_codec::pack::{Method, Press};
use instar_codec::unpack::Codec;
use instar_image::bitmap::Bitmap;
use instar_image::file::copy_padded;
use instar_image::num::{power, split};
use instar_image::target::{Packer, Packing, ReadBits, Rest, Spot, What};
use instar_image::{Drive, Freed, Kind, Result, Source, Target};
use marks::{Marks, Records};

/// An image that is written to.
pub struct Writing {
    /// Its map, as far as that says how it is built.
    pub map: Map,
    /// Who gives out clusters.
    pub clusters: Clusters,
    /// Where its bitmaps are known, until some have been added.
    pub marks: Option<Marks>,
    /// Bitmaps that record what is written.
    pub records: Records,
    /// What lies below shows where it has nothing.
    pub is_over: bool,
    /// Where the next packed cluster may begin, if it fits there.
    pub packed_end: Option<u64>,
    /// Something has been written.
    pub is_changed: bool,
}

/// What stands in the tables for a cluster.
#[derive(Clone, Copy)]
struct Entry {
    /// Where it stands.
    at: u64,
    word: u64,
    /// For extended entries: which subclusters have bytes, and which are zero.
    parts: u64,
}

impl Entry {
    /// Where the cluster lies that it leads to.
    fn host(&self) -> Option<u64> {
        let host = self.word & L2_OFFSET;
        (self.word & L2_COMPRESSED == 0 && (host != 0 || self.word & L2_COPIED != 0)).then_some(host)
    }
}

impl Writing {
    fn cluster_len(&self) -> u64 {
        power(self.map.cluster_bits)
    }

    fn entry_len(&self) -> u64 {
        if self.map.extended { 16 } else { 8 }
    }

    /// A byte of the image in its file.
    pub fn place(&self, at: u64) -> u64 {
        self.map.tables.at.saturating_add(at)
    }

    /// Where the L2 table of a cluster lies; none if there is none, unless it is wanted. A shared one is not ours.
    fn table(&mut self, drive: &dyn Drive, number: u64, want: bool) -> Result<Option<u64>> {
        let l1 = self.map.l1;
        if number >= l1.count {
            return Err(Kind::Corrupt.what("the L1 table is too short").file(self.map.tables.file));
        }
        let lead_at = self.place(l1.at.saturating_add(number.saturating_mul(8)));
        let lead = u64::from_be_bytes(self.clusters.draft.get(drive, lead_at)?);
        let old = lead & L1_OFFSET;
        if old != 0 && (lead & L2_COPIED != 0 || !want) {
            return self.clusters.inside(old).map(Some);
        }
        if !want {
            return Ok(None);
        }
        let len = self.cluster_len();
        let new = self.clusters.claim(drive, 1)?;
        if old == 0 {
            self.clusters.draft.blank(drive, self.place(new), len)?;
        } else {
            // Snapshots have it as well: they keep the one that is there.
            let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
            self.clusters.draft.read(drive, self.place(old), &mut bytes)?;
            self.clusters.draft.put(drive, self.place(new), &bytes)?;
            self.clusters.release(drive, old, len)?;
        }
        self.clusters.draft.link(drive, lead_at, &(new | L2_COPIED).to_be_bytes())?;
        Ok(Some(new))
    }

    /// The entry of a cluster; none if there is no table for it, unless that is wanted.
    fn entry(&mut self, drive: &dyn Drive, cluster: u64, want: bool) -> Result<Option<Entry>> {
        let (table, index, _) = split(cluster, self.cluster_len() / self.entry_len());
        let Some(table) = self.table(drive, table, want)? else { return Ok(None) };
        let at = self.place(table.saturating_add(index.saturating_mul(self.entry_len())));
        let word = u64::from_be_bytes(self.clusters.draft.get(drive, at)?);
        let parts = match self.map.extended {
            true => u64::from_be_bytes(self.clusters.draft.get(drive, at.saturating_add(8))?),
            false => 0,
        };
        Ok(Some(Entry { at, word, parts }))
    }

    fn set(&mut self, drive: &dyn Drive, entry: Entry) -> Result<()> {
        self.is_changed = true;
        let (word, parts) = (entry.word.to_be_bytes(), entry.parts.to_be_bytes());
        match self.map.extended {
            true => self.clusters.draft.link(drive, entry.at, [word, parts].as_flattened()),
            false => self.clusters.draft.link(drive, entry.at, &word),
        }
    }

    /// One user less of what an entry leads to, and why.
    fn let_go(&mut self, drive: &dyn Drive, word: u64, freed: Freed) -> Result<()> {
        let old = Entry { at: 0, word, parts: 0 };
        if word & L2_COMPRESSED != 0 {
            let (at, len) = packed(word, self.map.cluster_bits);
            return self.clusters.release_as(drive, at, len, freed);
        }
        match old.host().filter(|_| self.map.data.is_none()) {
            Some(host) if host != 0 => self.clusters.release_as(drive, host, 1, freed),
            _ => Ok(()),
        }
    }

    /// The bits of the subclusters that have bytes in a range of a cluster.
    fn parts(&self, skip: u64, len: u64) -> u64 {
        let part = self.cluster_len() / u64::from(SUBCLUSTERS);
        let (first, end) = (skip / part.max(1), skip.saturating_add(len).div_ceil(part.max(1)).min(32));
        let below = |n: u64| power(u32::try_from(n).unwrap_or(32)).saturating_sub(1);
        below(end) & !below(first)
    }

    /// What has to be done for the rest of the unit with the bytes at `skip` of a cluster.
    fn rest(&self, entry: &Entry, skip: u64) -> Rest {
        let beneath = if self.is_over { Rest::Below } else { Rest::Zeroes };
        if entry.word & L2_COMPRESSED != 0 {
            return Rest::Was(Source::Packed { unit: self.map.unit(entry.word), skip: self.unit_of(skip) });
        }
        let is_shared = entry.word & L2_COPIED == 0;
        let was = |host: u64, guest: u64| match is_shared {
            true => Rest::Was(self.map.raw(host, guest)),
            false => Rest::There,
        };
        let start = self.unit_of(skip);
        match (self.map.extended, entry.host()) {
            (_, None) if !self.map.extended && entry.word & L2_ZERO != 0 => Rest::Zeroes,
            (false, Some(_)) if entry.word & L2_ZERO != 0 => Rest::Was(Source::ZERO),
            (false, Some(host)) => was(host, 0),
            (false, None) => beneath,
            (true, host) => {
                let bit = self.parts(skip, 1);
                match (entry.parts & bit != 0, (entry.parts >> L2_ZEROES_SHIFT) & bit != 0, host) {
                    (true, _, Some(host)) => was(host.saturating_add(start), start),
                    (_, true, None) => Rest::Zeroes,
                    (_, true, Some(_)) => Rest::Was(Source::ZERO),
                    (_, _, None) => beneath,
                    // Space that was never written to, or long ago.
                    (..) if self.is_over => Rest::Below,
                    (..) => Rest::Was(Source::ZERO),
                }
            }
        }
    }

    /// Where in a cluster the unit begins.
    fn unit_of(&self, skip: u64) -> u64 {
        skip.saturating_sub(skip % self.unit().max(1))
    }

    /// Bytes of the guest, or zeroes that have to be written as such.
    fn data(&mut self, drive: &dyn Drive, at: u64, len: u64) -> Result<Option<Spot>> {
        let (cluster, skip, _) = split(at, self.cluster_len());
        let Some(mut entry) = self.entry(drive, cluster, true)? else { return Ok(None) };
        let known = (entry.word, entry.parts);
        let guest = at.saturating_sub(skip);
        let mut rest = self.rest(&entry, skip);
        let covered = self.parts(skip, len);
        let owned = entry.host().filter(|_| entry.word & L2_COPIED != 0);
        let mut is_fresh = false;
        let host = match owned {
            Some(host) if self.map.data.is_none() => self.clusters.inside(host)?,
            Some(host) if host == guest => host,
            Some(_) => return Err(Kind::Corrupt.what("a cluster is not where the data file has it")),
            None => {
                let old = entry;
                let host = if self.map.data.is_some() { guest } else { self.clusters.claim(drive, 1)? };
                is_fresh = match self.map.data {
                    None => self.clusters.is_fresh(host),
                    Some(_) => !self.clusters.draft.is_ordered(),
                };
                entry.word = host | L2_COPIED;
                let is_packed = old.word & L2_COMPRESSED != 0;
                if self.map.extended && (is_packed || entry.parts & L2_ALL & !covered != 0) {
                    // What other subclusters have is brought along now: who asks for them finds it there.
                    self.bring(drive, &old, host)?;
                    entry.parts = if is_packed { L2_ALL } else { entry.parts };
                    rest = Rest::There;
                }
                self.let_go(drive, old.word, Freed::Other)?;
                host
            }
        };
        if self.map.extended {
            entry.parts = (entry.parts | covered) & !(covered << L2_ZEROES_SHIFT);
        } else {
            entry.word &= !L2_ZERO;
        }
        self.is_changed = true;
        if (entry.word, entry.parts) != known {
            self.set(drive, entry)?;
        }
        let Source::Raw { place, tweak, .. } = self.map.raw(host, guest) else { return Ok(None) };
        let (place, tweak) = (place.ahead(skip), tweak.map(|at| at.saturating_add(skip)));
        Ok(Some(Spot { place, tweak, rest, is_fresh }))
    }

    /// Copies a shared cluster's bytes to a new one, as they are.
    fn bring(&mut self, drive: &dyn Drive, old: &Entry, host: u64) -> Result<()> {
        let len = self.cluster_len();
        let to = self.map.tables.ahead(host);
        if let Some(from) = old.host() {
            return copy_padded(drive, self.map.tables.ahead(from), to, len);
        }
        let unit = self.map.unit(old.word);
        let size = usize::try_from(len).unwrap_or(0);
        let mut bytes = vec![0; size];
        let mut packed = vec![0; usize::try_from(unit.len.min(len.saturating_mul(2))).unwrap_or(0)];
        let have = drive.length(unit.place.file)?.saturating_sub(unit.place.at).min(packed.len() as u64);
        packed.truncate(usize::try_from(have).unwrap_or(0));
        let broken = || Kind::Broken.what("a compressed part is broken").file(unit.place.file).at(unit.place.at);
        if packed.is_empty() {
            return Err(broken());
        }
        drive.read(unit.place.file, unit.place.at, &mut packed)?;
        let made = instar_codec::unpack::unpack(unit.codec, &packed, &mut bytes).map_err(|_| broken())?;
        if made != size {
            return Err(broken());
        }
        drive.write(to, &bytes)
    }

    /// Zeroes: by an entry that says so, if it can.
    fn zeroes(&mut self, drive: &dyn Drive, at: u64, len: u64) -> Result<Option<Spot>> {
        let (cluster, skip, left) = split(at, self.cluster_len());
        let found = self.entry(drive, cluster, false)?;
        let rest = found.as_ref().map_or(if self.is_over { Rest::Below } else { Rest::Zeroes }, |e| self.rest(e, skip));
        if rest == Rest::Zeroes {
            return Ok(None);
        }
        let whole = left.min(self.map.size.saturating_sub(at));
        let is_whole_unit = self.unit_of(skip) == skip
            && (len.is_multiple_of(self.unit().max(1)) || at.saturating_add(len) >= self.map.size);
        // Entries of the second version lead to bytes or to what lies below, and a data file that is to be a raw image of
        // the disk has to have the zeroes itself.
        let is_old = self.map.version < 3;
        if is_old && self.is_over || !is_whole_unit || self.map.data.is_some() {
            return self.data(drive, at, len);
        }
        let Some(mut entry) = self.entry(drive, cluster, true)? else { return Ok(None) };
        let is_packed = entry.word & L2_COMPRESSED != 0;
        let is_owned = entry.word & L2_COPIED != 0;
        if self.map.extended && (is_packed || !is_owned && entry.host().is_some()) && len < whole {
            return self.data(drive, at, len);
        }
        let old = entry;
        if self.map.extended {
            let covered = if is_packed { L2_ALL } else { self.parts(skip, len) };
            entry.parts = entry.parts & !covered | covered << L2_ZEROES_SHIFT;
        }
        // Where the last of the bytes goes, no space is needed any more.
        let is_last = !self.map.extended || old.parts & L2_ALL != 0 && entry.parts & L2_ALL == 0;
        if is_last || !is_owned {
            self.let_go(drive, old.word, Freed::Zeroed)?;
            entry.word = 0;
        }
        if !self.map.extended && !is_old {
            entry.word |= L2_ZERO;
        }
        self.set(drive, entry)?;
        Ok(None)
    }

    /// A packed cluster: behind the one before, if there is room.
    fn packed(&mut self, drive: &dyn Drive, at: u64, len: u64) -> Result<Option<Spot>> {
        let cluster_len = self.cluster_len();
        let Some(mut entry) = self.entry(drive, at / cluster_len.max(1), true)? else { return Ok(None) };
        let old = entry.word;
        let host = match self.packed_end.filter(|end| end % cluster_len != 0) {
            Some(end) => self.behind(drive, end, len)?,
            None => self.clusters.claim(drive, 1)?,
        };
        self.packed_end = Some(host.saturating_add(len));
        let bits = 70u32.saturating_sub(self.map.cluster_bits);
        let sectors = (host.saturating_add(len).saturating_sub(1) / 512).saturating_sub(host / 512);
        entry.word = host | L2_COMPRESSED | sectors << bits;
        entry.parts = 0;
        self.set(drive, entry)?;
        self.let_go(drive, old, Freed::Other)?;
        Ok(Some(Spot { place: self.map.tables.ahead(host), tweak: None, rest: Rest::There, is_fresh: true }))
    }

    /// Room for packed bytes from `end` on, or in a new cluster.
    fn behind(&mut self, drive: &dyn Drive, end: u64, len: u64) -> Result<u64> {
        let left = self.cluster_len().saturating_sub(end % self.cluster_len());
        if len <= left {
            return match self.clusters.count_once_more(drive, end)? {
                true => Ok(end),
                false => self.clusters.claim(drive, 1),
            };
        }
        let next = self.clusters.claim(drive, 1)?;
        let goes_on = next == end.saturating_add(left);
        Ok(if goes_on && self.clusters.count_once_more(drive, end)? { end } else { next })
    }
}

impl Target for Writing {
    fn size(&self) -> u64 {
        self.map.size
    }

    fn unit(&self) -> u64 {
        if self.map.extended { self.cluster_len() / u64::from(SUBCLUSTERS) } else { self.cluster_len() }
    }

    fn reserve(&mut self, drive: &dyn Drive, at: u64, len: u64, what: What) -> Result<Option<Spot>> {
        match what {
            What::Data => self.data(drive, at, len),
            What::Zeroes => self.zeroes(drive, at, len),
            What::Packed(bytes) => self.packed(drive, at, bytes),
        }
    }

    fn keep_order(&mut self) {
        self.clusters.keep_order(Freed::Other);
    }

    fn waiting(&self) -> usize {
        self.clusters.waiting()
    }

    fn settle(&mut self, drive: &dyn Drive) -> Result<()> {
        // No reference leads beyond the end of the file.
        let end = self.place(self.clusters.end());
        if drive.length(self.map.tables.file)? < end {
            drive.set_length(self.map.tables.file, end)?;
        }
        self.map.data.map_or(Ok(()), |data| drive.flush(data.file))?;
        self.clusters.settle(drive)
    }

    fn seal(&mut self, drive: &dyn Drive) -> Result<()> {
        if !self.is_changed {
            return Ok(());
        }
        if self.clusters.draft.is_ordered() {
            self.settle(drive)?;
            return self.end_records(drive);
        }
        self.clusters.draft.flush(drive)?;
        self.end_records(drive)?;
        // What was packed last may end before its cluster does.
        let whole = self.clusters.end();
        let packed = self.packed_end.filter(|end| end.next_multiple_of(self.cluster_len()) == whole);
        let end = self.place(packed.map_or(whole, |end| end.next_multiple_of(512)));
        if drive.length(self.map.tables.file)? < end { drive.set_length(self.map.tables.file, end) } else { Ok(()) }
    }

    fn mark(&mut self, drive: &dyn Drive, at: u64, len: u64) -> Result<()> {
        self.record(drive, at, len)
    }

    fn add_bitmaps(&mut self, drive: &dyn Drive, new: &[Bitmap], read: ReadBits<'_>) -> Result<()> {
        self.add(drive, new, read)
    }

    fn cipher(&self) -> Option<Arc<Sectors>> {
        self.map.lock.as_ref().map(|lock| lock.sectors.clone())
    }

    fn packing(&self) -> Option<Box<dyn Packing>> {
        if self.map.data.is_some() || self.map.lock.is_some() {
            return None;
        }
        let method = if self.map.codec == Codec::Zstd { Method::Zstd } else { Method::Deflate12 };
        Some(Box::new(Presses { method, cluster_len: self.cluster_len() }))
    }
}

/// Clusters are packed each by itself.
struct Presses {
    method: Method,
    cluster_len: u64,
}

impl Packing for Presses {
    fn unit(&self) -> u64 {
        self.cluster_len
    }

    fn packer(&self) -> Box<dyn Packer> {
        let room = vec![0; usize::try_from(self.cluster_len).unwrap_or(0)];
        Box::new(OnePress { press: Press::new(self.method), room })
    }
}

struct OnePress {
    press: Press,
    /// The last cluster of a disk, filled up.
    room: Vec<u8>,
}

impl Packer for OnePress {
    fn pack(&mut self, _at: u64, bytes: &[u8]) -> Option<Vec<u8>> {
        let most = self.room.len().saturating_sub(1);
        if bytes.len() == self.room.len() {
            return self.press.pack(bytes, most);
        }
        let (now, rest) = self.room.split_at_mut_checked(bytes.len())?;
        now.copy_from_slice(bytes);
        rest.fill(0);
        self.press.pack(&self.room, most)
    }
}
