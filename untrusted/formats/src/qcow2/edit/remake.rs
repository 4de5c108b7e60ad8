//! The trees of all disks of an image, as other readers have to have them: without entries that say that a cluster is
//! zeroes, or with clusters that are packed in another way.

use super::super::disk::{L1_OFFSET, L2_ALL, L2_COMPRESSED, L2_COPIED, L2_ZERO};
use super::super::locate::packed;
use super::super::open::{Compression, Table};
use super::Editor;
use super::snapshot::set_snapshots;
use super::work::Work;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use instar_codec::cipher::UNIT as TWEAK_UNIT;
use instar_codec::pack::{Method, Press};
use instar_codec::unpack::{Codec, unpack};
use instar_image::num::{narrow, wide};
use instar_image::{Drive, Freed, Kind, Result};

/// Packed clusters of which it is remembered what became of them, so that those who shared one go on to share it.
const REMEMBERED_MAX: usize = 1 << 20;

/// What is to become of entries.
#[derive(Clone, Copy)]
pub struct Wanted {
    /// None says any more that its cluster is zeroes.
    pub is_plain: bool,
    /// None is packed as it was: it is packed with Deflate.
    pub is_deflated: bool,
}

/// The work on all trees.
struct Remake<'r, 'd, 'e, 'a> {
    editor: &'r Editor<'e, 'a>,
    work: &'r mut Work<'d>,
    wanted: Wanted,
    press: Press,
    /// What has become of tables that several trees have.
    tables: BTreeMap<u64, u64>,
    /// The same of packed clusters.
    clusters: BTreeMap<u64, u64>,
    /// Where the next packed cluster may begin, if there is room.
    packed_end: Option<u64>,
}

impl Editor<'_, '_> {
    /// All tables of entries that lead to clusters, those of snapshots included, once each.
    fn tables(&self) -> Result<Vec<Table>> {
        let mut all = Vec::from([self.image.checked.layout.l1]);
        all.extend(self.kept()?.iter().map(|kept| kept.l1));
        Ok(all)
    }

    /// Whether any cluster is packed.
    pub fn has_packed(&self, drive: &dyn Drive) -> Result<bool> {
        let mut work = Work::new(self.image, drive, Freed::Other)?;
        let mut seen = BTreeMap::new();
        for table in self.tables()? {
            for at in work.l1(table)?.iter().map(|lead| lead & L1_OFFSET).filter(|at| *at != 0) {
                if seen.insert(at, ()).is_none() {
                    let bytes = work.l2(at)?;
                    let entries = bytes.chunks_exact(work.entry_len).filter_map(|entry| entry.first_chunk());
                    if entries.map(|word| u64::from_be_bytes(*word)).any(|word| word & L2_COMPRESSED != 0) {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    /// Remakes all trees, and tells whether any is another now; how far it has come is told in entries of L1 tables.
    pub fn remake(&self, work: &mut Work<'_>, wanted: Wanted, tell: &dyn Fn(u64, u64) -> Result<()>) -> Result<bool> {
        let layout = &self.image.checked.layout;
        let total = self.tables()?.iter().map(|table| table.count).fold(0, u64::saturating_add);
        let mut done = 0u64;
        let mut remake = Remake {
            editor: self,
            work,
            wanted,
            press: Press::new(Method::Deflate12),
            tables: BTreeMap::new(),
            clusters: BTreeMap::new(),
            packed_end: None,
        };
        let mut tick = || {
            done = done.saturating_add(1);
            tell(done, total)
        };
        let own = remake.tree(layout.l1, &mut tick)?;
        let is_own_other = own.is_some();
        own.into_iter().for_each(|l1| remake.work.set_l1(l1));
        let (mut kept, mut is_other) = (self.kept()?, false);
        for snapshot in &mut kept {
            if let Some(l1) = remake.tree(snapshot.l1, &mut tick)? {
                // An entry begins with the place of its L1 table.
                let place = snapshot.bytes.iter_mut().zip(l1.at.to_be_bytes());
                place.for_each(|(to, from)| *to = from);
                is_other = true;
            }
        }
        if is_other {
            let table = self.table(work, kept.iter().map(|kept| &kept.bytes[..]))?;
            set_snapshots(work, table);
        }
        Ok(is_own_other || is_other)
    }
}

impl Remake<'_, '_, '_, '_> {
    /// A tree: its L1 table, if that becomes another.
    fn tree(&mut self, l1: Table, tick: &mut dyn FnMut() -> Result<()>) -> Result<Option<Table>> {
        let old = self.work.l1(l1)?;
        let mut new = Vec::with_capacity(old.len());
        let reach = self.work.cluster_len / wide(self.work.entry_len);
        for (number, lead) in (0u64..).zip(&old) {
            new.push(match lead & L1_OFFSET {
                0 => *lead,
                at => self.table(*lead, at, number.saturating_mul(reach))?,
            });
            tick()?;
        }
        if new == old {
            return Ok(None);
        }
        self.work.drop_table(l1.at, l1.count.saturating_mul(8))?;
        self.work.add_l1(&new).map(Some)
    }

    /// An L2 table that begins with this cluster of the disk: what is to lead there.
    fn table(&mut self, lead: u64, at: u64, first: u64) -> Result<u64> {
        let old = self.work.l2(at)?;
        let known = self.tables.get(&at).copied();
        if known == Some(at) {
            return Ok(lead);
        }
        let is_sole = self.work.clusters.counted(self.work.drive, at / self.work.cluster_len)? == 1;
        let flag = if is_sole && known.is_none() { L2_COPIED } else { 0 };
        let new = match known {
            Some(known) => self.work.l2(known)?,
            None => self.entries(&old, first, flag)?,
        };
        if new == old {
            self.tables.insert(at, at);
            return Ok(lead);
        }
        let (given, taken) = self.changes(&old, &new);
        self.work.each_cluster(&given, |work, cluster, count| work.clusters.bump(work.drive, cluster, count, false))?;
        self.work.clusters.bump(self.work.drive, at / self.work.cluster_len, 1, false)?;
        let Some(known) = known else {
            let own = self.work.add(&new)?;
            if !is_sole {
                self.tables.insert(at, own);
            }
            return Ok(own | flag);
        };
        self.work.each_cluster(&taken, |work, cluster, count| work.clusters.bump(work.drive, cluster, count, true))?;
        self.work.clusters.bump(self.work.drive, known / self.work.cluster_len, 1, true)?;
        Ok(known)
    }

    /// Those entries alone that are not the same, as they were and as they are.
    fn changes(&self, old: &[u8], new: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let (mut given, mut taken) = (Vec::with_capacity(old.len()), Vec::with_capacity(new.len()));
        let len = self.work.entry_len;
        for (old, new) in old.chunks_exact(len).zip(new.chunks_exact(len)) {
            let is_same = old == new;
            given.extend(old.iter().map(|byte| if is_same { 0 } else { *byte }));
            taken.extend(new.iter().map(|byte| if is_same { 0 } else { *byte }));
        }
        (given, taken)
    }

    /// The entries of a table anew. What is new in them is counted for one tree.
    fn entries(&mut self, old: &[u8], first: u64, flag: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(old.len());
        for (cluster, entry) in (first..).zip(old.chunks_exact(self.work.entry_len)) {
            let word = entry.first_chunk().map_or(0, |word| u64::from_be_bytes(*word));
            let is_packed = word & L2_COMPRESSED != 0;
            let new = if is_packed && self.wanted.is_deflated {
                self.repack(word, cluster, flag)?
            } else if !is_packed && word & L2_ZERO != 0 && self.wanted.is_plain && entry.len() == 8 {
                self.zeroes(cluster, flag)?
            } else {
                bytes.extend_from_slice(entry);
                continue;
            };
            bytes.extend_from_slice(&new.to_be_bytes());
            if entry.len() > 8 {
                let parts = if new & L2_COMPRESSED == 0 { L2_ALL } else { 0 };
                bytes.extend_from_slice(&parts.to_be_bytes());
            }
        }
        Ok(bytes)
    }

    /// A cluster of zeroes. Where nothing is below, what is nowhere is zeroes, too.
    fn zeroes(&mut self, cluster: u64, flag: u64) -> Result<u64> {
        if self.editor.image.checked.backing.is_none() {
            return Ok(0);
        }
        let (drive, len) = (self.work.drive, self.work.cluster_len);
        let host = self.work.clusters.claim(drive, 1)?;
        if self.editor.image.lock()?.is_some() {
            self.put(host, cluster, vec![0; narrow(len)])?;
        } else if !self.work.clusters.is_fresh(host) {
            drive.zero(self.work.start.ahead(host), len, false)?;
        }
        Ok(host | flag)
    }

    /// Writes the bytes of a cluster.
    fn put(&mut self, host: u64, cluster: u64, mut bytes: Vec<u8>) -> Result<()> {
        if let Some(lock) = self.editor.image.lock()? {
            let from = if lock.by_host { host } else { cluster.saturating_mul(self.work.cluster_len) };
            lock.sectors.encrypt(from / wide(TWEAK_UNIT), &mut bytes);
        }
        self.work.drive.write(self.work.start.ahead(host), &bytes)
    }

    /// A packed cluster, packed anew.
    fn repack(&mut self, word: u64, cluster: u64, flag: u64) -> Result<u64> {
        if let Some(known) = self.clusters.get(&word).copied()
            && self.share(known)?
        {
            return Ok(known);
        }
        let bytes = self.unpacked(word)?;
        let most = bytes.len().saturating_sub(1);
        let Some(pressed) = self.press.pack(&bytes, most) else {
            let host = self.work.clusters.claim(self.work.drive, 1)?;
            self.put(host, cluster, bytes)?;
            return Ok(host | flag);
        };
        let host = self.room(wide(pressed.len()))?;
        // What lies behind it in its sector is nobody's, or is written later.
        let at = self.work.place(host);
        self.work.clusters.draft.put(self.work.drive, at, &pressed)?;
        let end = host.saturating_add(wide(pressed.len()));
        self.packed_end = Some(end);
        let sectors = (end.saturating_sub(1) / 512).saturating_sub(host / 512);
        let bits = 70u32.saturating_sub(self.work.cluster_len.trailing_zeros());
        let new = host | L2_COMPRESSED | sectors << bits;
        if self.clusters.len() < REMEMBERED_MAX && self.editor.image.checked.layout.snapshots.count > 0 {
            self.clusters.insert(word, new);
        }
        Ok(new)
    }

    /// Room for so many packed bytes: behind the ones before, or in a new cluster.
    fn room(&mut self, len: u64) -> Result<u64> {
        let (drive, unit) = (self.work.drive, self.work.cluster_len);
        let Some(end) = self.packed_end.filter(|end| end % unit != 0) else {
            return self.work.clusters.claim(drive, 1);
        };
        let left = unit.saturating_sub(end % unit);
        let next = if len > left { Some(self.work.clusters.claim(drive, 1)?) } else { None };
        let goes_on = next.is_none_or(|next| next == end.saturating_add(left));
        if goes_on && self.work.clusters.count_once_more(drive, end)? {
            return Ok(end);
        }
        next.map_or_else(|| self.work.clusters.claim(drive, 1), Ok)
    }

    /// One user more for the clusters of a packed one, if they can have it.
    fn share(&mut self, word: u64) -> Result<bool> {
        let (drive, bits) = (self.work.drive, self.work.cluster_len.trailing_zeros());
        let (at, len) = packed(word, bits);
        let all = at >> bits..=at.saturating_add(len).saturating_sub(1) >> bits;
        for cluster in all.clone() {
            if self.work.clusters.counted(drive, cluster)? >= self.work.clusters.most() {
                return Ok(false);
            }
        }
        all.into_iter().try_for_each(|cluster| self.work.clusters.bump(drive, cluster, 1, true))?;
        Ok(true)
    }

    /// The bytes of a packed cluster.
    fn unpacked(&mut self, word: u64) -> Result<Vec<u8>> {
        let (drive, file) = (self.work.drive, self.work.start.file);
        let (at, len) = packed(word, self.work.cluster_len.trailing_zeros());
        let place = self.work.start.ahead(at);
        let have = drive.length(file)?.saturating_sub(place.at).min(len).min(self.work.cluster_len.saturating_mul(2));
        let mut pressed = vec![0; narrow(have)];
        drive.read(file, place.at, &mut pressed)?;
        let codec = match self.editor.image.checked.layout.compression {
            Compression::Zlib => Codec::Deflate,
            Compression::Zstd => Codec::Zstd,
        };
        let mut bytes = vec![0; narrow(self.work.cluster_len)];
        let wrong = || Kind::Broken.what("a compressed part is broken").file(file).at(place.at);
        let made = unpack(codec, &pressed, &mut bytes).map_err(|_| wrong())?;
        if made == bytes.len() { Ok(bytes) } else { Err(wrong()) }
    }
}
