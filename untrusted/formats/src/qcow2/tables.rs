//! The two levels of tables of a qcow2 image, walked for its census and for what depends on the counts.

use super::census::{Roll, plain};
use super::disk::{
    L1_OFFSET, L1_RESERVED, L2_ALL, L2_COMPRESSED, L2_COPIED, L2_OFFSET, L2_RESERVED, L2_ZERO, L2_ZEROES_SHIFT,
};
use super::locate::{number, packed};
use super::open::Table as Root;
use super::refcounts::most;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use instar_image::census::{AskStored, Claim, Clusters, Finding, Owner, Stored, Weight, Witness, finding};
use instar_image::sector::SECTOR;
use instar_image::{Error, Result};

/// Counts up to this one are reached by damage alone, and then the order of what is said depends on every table.
const SMALL: u64 = 15;
/// The version, times a hundred, from which on bits that must be zero are looked at.
pub const RESERVED: u32 = 602;
/// Sound tables of which it is remembered what they hold, so that those of many snapshots are read once.
const SOUND_MAX: usize = 256 << 10;

/// An L2 table without anything wrong in it.
pub struct Sound {
    clusters: Clusters,
    /// How often it came up again.
    more: u64,
}

/// So many clusters are claimed together.
const PENDING_MAX: usize = 512;

/// What is remembered of tables.
pub type Memory = BTreeMap<u64, Sound>;

/// An L2 entry: its words, and what it is.
#[derive(Clone, Copy)]
struct Entry {
    word: u64,
    parts: u64,
    kind: EntryKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum EntryKind {
    Compressed,
    Data,
    ZeroWithSpace,
    Nowhere,
}

impl Roll<'_, '_> {
    /// An L1 table, and the L2 tables that it names.
    pub fn l1(&self, root: Root, is_active: bool, memory: &mut Memory, out: &mut dyn Witness) -> Result<()> {
        let layout = &self.checked.layout;
        out.claim(self.own("an L1 table", root.at, root.count.saturating_mul(8)))?;
        let mut table = self.table::<8>();
        let mut index = 0u64;
        while index < root.count {
            let entries = table.entries(self.file.place(root.at).at, index, root.count);
            let entries = self.read(entries, "ERROR: I/O error in check_refcounts_l1", out)?;
            index = index.saturating_add(entries.len() as u64);
            for word in entries.iter().map(|entry| u64::from_be_bytes(*entry)).filter(|word| *word != 0) {
                if word & L1_RESERVED != 0 && self.scope.sees(RESERVED) {
                    self.wrong("ERROR found L1 entry with reserved bits set: {}", word, out)?;
                }
                let at = word & L1_OFFSET;
                let sole = is_active.then_some(word & L2_COPIED != 0);
                out.claim(Claim { sole, ..Claim::shared(Owner::Image("an L2 table"), at, layout.cluster_len) })?;
                if !at.is_multiple_of(layout.cluster_len) {
                    self.wrong("ERROR l2_offset={}: Table is not cluster aligned; L1 entry corrupted", at, out)?;
                }
                let clusters = self.remembered(at, is_active, memory, out)?;
                if is_active {
                    out.add(clusters);
                }
            }
        }
        Ok(())
    }

    /// What an L2 table holds, which is looked at once if nothing is wrong in it.
    fn remembered(&self, at: u64, is_active: bool, memory: &mut Memory, out: &mut dyn Witness) -> Result<Clusters> {
        if let Some(sound) = memory.get_mut(&at) {
            sound.more = sound.more.saturating_add(1);
            return Ok(sound.clusters.clone());
        }
        let mut listener = Listener { out, has_heard: false };
        let clusters = self.l2(at, 1, is_active, &mut listener)?;
        let is_worth_it = most(&self.checked.layout) > SMALL && memory.len() < SOUND_MAX;
        if !listener.has_heard && is_worth_it {
            memory.insert(at, Sound { clusters: clusters.clone(), more: 0 });
        }
        Ok(clusters)
    }

    /// Counts what tables hold that came up more than once.
    pub fn again(&self, memory: &Memory, out: &mut dyn Witness) -> Result<()> {
        for (at, sound) in memory.iter().filter(|(_, sound)| sound.more > 0) {
            self.l2(*at, sound.more, false, out)?;
        }
        Ok(())
    }

    fn l2(&self, at: u64, times: u64, is_active: bool, out: &mut dyn Witness) -> Result<Clusters> {
        if self.checked.layout.extended_l2() {
            self.l2_of::<16>(at, times, is_active, out)
        } else {
            self.l2_of::<8>(at, times, is_active, out)
        }
    }

    fn l2_of<const N: usize>(&self, at: u64, times: u64, is_active: bool, out: &mut dyn Witness) -> Result<Clusters> {
        let layout = &self.checked.layout;
        let mut clusters = Clusters::NONE;
        let mut next = 0u64;
        let mut pending =
            Pending { like: Claim::shared(Owner::Image("data"), 0, layout.cluster_len), places: Vec::new() };
        let read = self.each::<N>(at, &mut |index, entry| match entry.kind {
            EntryKind::Compressed => {
                pending.claim(out)?;
                self.compressed(index, entry, times, &mut clusters, out)
            }
            EntryKind::Nowhere => {
                pending.claim(out)?;
                self.reserved(entry, out)?;
                if entry.parts & L2_ALL == 0 || !self.scope.sees(RESERVED) {
                    return Ok(());
                }
                let error = self.corrupt("ERROR: Unallocated cluster has non-zero subcluster allocation map");
                out.find(finding(Weight::Corruption, error))
            }
            EntryKind::Data | EntryKind::ZeroWithSpace => {
                let host = entry.word & L2_OFFSET;
                if self.is_odd::<N>(entry) {
                    pending.claim(out)?;
                    if self.odd::<N>(at, index, entry, out)? {
                        return Ok(());
                    }
                }
                clusters.allocated = clusters.allocated.saturating_add(1);
                if next != 0 && next != host {
                    clusters.fragmented = clusters.fragmented.saturating_add(1);
                }
                next = host.saturating_add(layout.cluster_len);
                let is_sole = entry.word & L2_COPIED != 0;
                if !layout.has_data_file() {
                    return pending.add(host, times, is_active.then_some(is_sole), out);
                }
                if !is_sole {
                    out.doubt();
                }
                Ok(())
            }
        });
        self.read(read, "ERROR: I/O error in check_refcounts_l2", out)?;
        pending.claim(out)?;
        Ok(clusters)
    }

    /// Whether something is wrong with the entry of a cluster that lies somewhere.
    #[inline]
    fn is_odd<const N: usize>(&self, Entry { word, parts, .. }: Entry) -> bool {
        let is_aligned = word & L2_OFFSET & self.checked.layout.cluster_len.saturating_sub(1) == 0;
        word & L2_RESERVED != 0 || !is_aligned || (N > 8 && parts & L2_ALL & (parts >> L2_ZEROES_SHIFT) != 0)
    }

    /// Tells what is wrong with it. Whether it says now that it is nowhere.
    fn odd<const N: usize>(&self, table: u64, index: u64, entry: Entry, out: &mut dyn Witness) -> Result<bool> {
        self.reserved(entry, out)?;
        let host = entry.word & L2_OFFSET;
        if N > 8 && entry.parts & L2_ALL & (entry.parts >> L2_ZEROES_SHIFT) != 0 && self.scope.sees(RESERVED) {
            self.wrong("ERROR offset={}: Allocated cluster has corrupted subcluster allocation bitmap", host, out)?;
        }
        if host.is_multiple_of(self.checked.layout.cluster_len) {
            return Ok(false);
        }
        if entry.kind == EntryKind::Data && (N == 8 || entry.parts & L2_ALL != 0) {
            let phrase = "ERROR offset={}: Data cluster is not properly aligned; L2 entry corrupted.";
            return self.wrong(phrase, host, out).map(|()| false);
        }
        let heals = match self.mend.filter(|mend| mend.heals_entries()) {
            Some(mend) if mend.may_change(self, table)? => Some(mend),
            _ => None,
        };
        let Some(mend) = heals else {
            let phrase = "ERROR offset={}: Preallocated cluster is not properly aligned; L2 entry corrupted.";
            return self.wrong(phrase, host, out).map(|()| false);
        };
        // Nothing is read from there, so nothing reads differently without it.
        let word = if N == 8 { L2_ZERO } else { 0 };
        mend.write(self.file.place(table).ahead(index.saturating_mul(size_of::<[u8; N]>() as u64)), &[word])?;
        let phrase = "Repairing offset={}: Preallocated cluster is not properly aligned; L2 entry corrupted.";
        out.find(finding(Weight::Mended, self.corrupt(phrase).arg(plain(host))))?;
        Ok(true)
    }

    /// A word of the active tables says of a cluster what its count contradicts: tells it, and changes it. `table`: the
    /// L2 table that has it.
    fn flag(
        &self,
        table: Option<u64>,
        (place, word, count): (u64, u64, u64),
        about: Error,
        find: &mut dyn FnMut(Finding) -> Result<()>,
    ) -> Result<()> {
        let heals = match (self.mend.filter(|mend| mend.heals_flags()), table) {
            (Some(mend), Some(table)) if !mend.may_change(self, table)? => None,
            (heals, _) => heals,
        };
        let Some(mend) = heals else {
            return find(finding(Weight::Corruption, about));
        };
        let word = if count == 1 { word | L2_COPIED } else { word & !L2_COPIED };
        mend.write(self.file.place(place), &[word])?;
        let rest = about.what.0.strip_prefix(b"ERROR").unwrap_or(&about.what.0);
        let what = instar_image::Bytes([b"Repairing", rest].concat());
        find(finding(Weight::Mended, Error { what, ..about }))
    }

    fn compressed(
        &self,
        index: u64,
        entry: Entry,
        times: u64,
        clusters: &mut Clusters,
        out: &mut dyn Witness,
    ) -> Result<()> {
        let layout = &self.checked.layout;
        let (offset, len) = packed(entry.word, layout.cluster_bits);
        // Once, whole sectors were told.
        let skip = if self.scope.sees(RESERVED) { 0 } else { offset % SECTOR };
        let (at, len) = (offset.saturating_sub(skip), len.saturating_add(skip));
        let about = |phrase: &'static str| {
            finding(Weight::Corruption, self.corrupt(phrase).arg(index).arg(plain(entry.word & !L2_COPIED)))
        };
        if entry.word & L2_COPIED != 0 {
            let phrase = "ERROR: coffset=0x{}: copied flag must never be set for compressed clusters";
            out.find(finding(Weight::Corruption, self.corrupt(phrase).arg(plain(offset))))?;
        }
        if layout.has_data_file() {
            return out.find(about("ERROR compressed cluster {} with data file, entry=0x{}"));
        }
        if entry.parts != 0 && self.scope.sees(RESERVED) {
            let phrase = "ERROR compressed cluster {} with non-zero subcluster allocation bitmap, entry=0x{}";
            return out.find(about(phrase));
        }
        out.claim(Claim { times, ..Claim::shared(Owner::Block(index), at, len) })?;
        // What is compressed follows nothing.
        for count in [&mut clusters.allocated, &mut clusters.fragmented, &mut clusters.compressed] {
            *count = count.saturating_add(1);
        }
        Ok(())
    }

    fn reserved(&self, entry: Entry, out: &mut dyn Witness) -> Result<()> {
        if entry.word & L2_RESERVED == 0 || !self.scope.sees(RESERVED) {
            return Ok(());
        }
        self.wrong("ERROR found l2 entry with reserved bits set: {}", entry.word, out)
    }

    /// All entries of an L2 table that say something.
    fn each<const N: usize>(&self, at: u64, tell: &mut dyn FnMut(u64, Entry) -> Result<()>) -> Result<()> {
        let layout = &self.checked.layout;
        let count = layout.cluster_len / (size_of::<[u8; N]>() as u64);
        let mut table = self.table::<N>();
        table.each(self.file.place(at).at, count, |index, bytes| {
            let (word, parts) = (number(bytes.first_chunk()), if N > 8 { number(bytes.last_chunk()) } else { 0 });
            if word | parts == 0 { Ok(()) } else { tell(index, self.entry::<N>(word, parts)) }
        })
    }

    fn entry<const N: usize>(&self, word: u64, parts: u64) -> Entry {
        let layout = &self.checked.layout;
        // At the beginning of another file is a cluster.
        let has_host = word & L2_OFFSET != 0 || (layout.has_data_file() && word & L2_COPIED != 0);
        let kind = match () {
            () if word & L2_COMPRESSED != 0 => EntryKind::Compressed,
            () if N == 8 && word & L2_ZERO != 0 && word & L2_OFFSET != 0 => EntryKind::ZeroWithSpace,
            () if !has_host || (N == 8 && word & L2_ZERO != 0) => EntryKind::Nowhere,
            () => EntryKind::Data,
        };
        Entry { word, parts, kind }
    }

    /// Whether the active tables say of clusters that nobody else uses them where that is so.
    pub fn copied<const N: usize>(
        &self,
        stored: AskStored<'_>,
        find: &mut dyn FnMut(Finding) -> Result<()>,
    ) -> Result<()> {
        let layout = &self.checked.layout;
        let unit = |at: u64| at.checked_shr(layout.cluster_bits).unwrap_or(0);
        let is_wrong = |word: u64, count: u64| (count == 1) != (word & L2_COPIED != 0);
        let mut table = self.table::<8>();
        let mut index = 0u64;
        let mut sound = BTreeSet::new();
        while index < layout.l1.count {
            for entry in table.entries(self.file.place(layout.l1.at).at, index, layout.l1.count)? {
                let (number, word) = (index, u64::from_be_bytes(*entry));
                index = index.saturating_add(1);
                let at = word & L1_OFFSET;
                let told = if at == 0 { Stored::Unknown } else { stored(unit(at)) };
                if told == Stored::Unknown {
                    continue;
                }
                if let Stored::Count(count) = told
                    && is_wrong(word, count)
                {
                    let phrase = "ERROR OFLAG_COPIED L2 cluster: l1_index={} l1_entry={} refcount={}";
                    let error = self.corrupt(phrase).arg(number).arg(plain(word)).arg(count);
                    let place = layout.l1.at.saturating_add(number.saturating_mul(8));
                    self.flag(None, (place, word, count), error, find)?;
                }
                if sound.contains(&at) {
                    continue;
                }
                let mut has_found = false;
                self.each::<N>(at, &mut |index, Entry { word, kind, .. }| {
                    if !matches!(kind, EntryKind::Data | EntryKind::ZeroWithSpace) {
                        return Ok(());
                    }
                    let told = if layout.has_data_file() { Stored::Count(1) } else { stored(unit(word & L2_OFFSET)) };
                    let Stored::Count(count) = told else { return Ok(()) };
                    if !is_wrong(word, count) {
                        return Ok(());
                    }
                    has_found = true;
                    let phrase = "ERROR OFLAG_COPIED data cluster: l2_entry={} refcount={}";
                    let place = at.saturating_add(index.saturating_mul(size_of::<[u8; N]>() as u64));
                    let error = self.corrupt(phrase).arg(plain(word)).arg(count);
                    self.flag(Some(at), (place, word, count), error, find)
                })?;
                if !has_found && sound.len() < SOUND_MAX {
                    sound.insert(at);
                }
            }
        }
        Ok(())
    }
}

/// Clusters that have been seen and not been claimed yet.
struct Pending {
    like: Claim,
    places: Vec<u64>,
}

impl Pending {
    #[inline]
    fn add(&mut self, at: u64, times: u64, sole: Option<bool>, out: &mut dyn Witness) -> Result<()> {
        if self.like.sole != sole || self.like.times != times || self.places.len() >= PENDING_MAX {
            self.claim(out)?;
            (self.like.sole, self.like.times) = (sole, times);
        }
        self.places.push(at);
        Ok(())
    }

    fn claim(&mut self, out: &mut dyn Witness) -> Result<()> {
        if !self.places.is_empty() {
            out.claims(self.like, &self.places)?;
            self.places.clear();
        }
        Ok(())
    }
}

/// Passes everything on, and remembers whether anything was found.
struct Listener<'w> {
    out: &'w mut dyn Witness,
    has_heard: bool,
}

impl Witness for Listener<'_> {
    fn claim(&mut self, claim: Claim) -> Result<bool> {
        let is_fine = self.out.claim(claim)?;
        self.has_heard |= !is_fine;
        Ok(is_fine)
    }

    fn claims(&mut self, like: Claim, places: &[u64]) -> Result<bool> {
        let is_fine = self.out.claims(like, places)?;
        self.has_heard |= !is_fine;
        Ok(is_fine)
    }

    fn find(&mut self, finding: Finding) -> Result<()> {
        self.has_heard = true;
        self.out.find(finding)
    }

    fn doubt(&mut self) {
        self.out.doubt();
    }

    fn add(&mut self, clusters: Clusters) {
        self.out.add(clusters);
    }
}
