//! Another size for the disk.

use super::super::disk::{
    DATA_FILE_RAW, L1_OFFSET, L2_ALL, L2_COMPRESSED, L2_COPIED, L2_OFFSET, L2_ZERO, L2_ZEROES_SHIFT, SUBCLUSTERS,
};
use super::super::locate::Map;
use super::super::open::L1_LEN_MAX;
use super::Editor;
use super::work::Work;
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use instar_codec::cipher::UNIT as TWEAK_UNIT;
use instar_image::num::{narrow, split, wide};
use instar_image::stretch::stretch;
use instar_image::{Chain, Drive, Freed, Kind, Place, Preallocation, Reader, Result, Walk};

/// Space is set aside in pieces of about this length.
const AT_ONCE: u64 = 64 << 20;

impl Editor<'_, '_> {
    pub(super) fn set_size(
        &self,
        drive: &dyn Drive,
        size: u64,
        space: Preallocation,
        below: &Chain<'_>,
    ) -> Result<u64> {
        let layout = &self.image.checked.layout;
        let refuse = |kind: Kind, words: &'static str| Err(kind.what(words).file(self.image.file.id()));
        let (old, size) = (layout.disk_size(), size.next_multiple_of(512));
        if layout.version < 3 && layout.snapshots.count > 0 {
            return refuse(Kind::Unsupported, "Can't resize a v2 image which has snapshots");
        }
        self.know_bitmaps()?;
        if size == layout.size {
            return Ok(size);
        }
        if layout.l1_needed_for(size) > L1_LEN_MAX / 8 {
            return refuse(Kind::TooBig, "Failed to grow the L1 table: File too large");
        }
        let mut work = Work::new(self.image, drive, Freed::Lost)?;
        let own = work.l1(layout.l1)?;
        let mut disk = Disk { editor: self, below, l1: own, old, size, work };
        match size > old {
            true => disk.grow(space)?,
            false => disk.cut(size)?,
        }
        let Disk { l1, mut work, .. } = disk;
        work.drop_table(layout.l1.at, layout.l1.count.saturating_mul(8))?;
        let l1 = work.add_l1(&l1)?;
        work.set_l1(l1);
        work.front.header.size = size.into();
        self.fit_bitmaps(&mut work, size)?;
        let data = self.image.checked.data_file.as_ref().map(|data| data.id);
        if size > old {
            return work.publish().map(|()| size);
        }
        work.publish_and_cut()?;
        data.map_or(Ok(()), |data| stretch(drive, data, size, Preallocation::Off))?;
        Ok(size)
    }
}

/// A disk that is about to be longer or shorter.
struct Disk<'d, 'e, 'a, 'b> {
    editor: &'d Editor<'e, 'a>,
    below: &'d Chain<'b>,
    l1: Vec<u64>,
    old: u64,
    size: u64,
    work: Work<'d>,
}

impl Disk<'_, '_, '_, '_> {
    fn cluster_len(&self) -> u64 {
        self.work.cluster_len
    }

    /// Clusters that one L2 table leads to.
    fn reach(&self) -> u64 {
        self.cluster_len() / wide(self.work.entry_len)
    }

    fn is_extended(&self) -> bool {
        self.work.entry_len > 8
    }

    /// Nothing leads to clusters behind this byte any more.
    fn cut(&mut self, at: u64) -> Result<()> {
        let cluster = at.div_ceil(self.cluster_len());
        let (table, index, _) = split(cluster, self.reach());
        let mut whole = narrow(table);
        if index > 0 {
            whole = whole.saturating_add(1);
            if let Some((_, mut bytes)) = self.table(table)? {
                let from = narrow(index).saturating_mul(self.work.entry_len);
                let rest = bytes.get_mut(from..).unwrap_or_default();
                if rest.iter().any(|byte| *byte != 0) {
                    let gone = rest.to_vec();
                    rest.fill(0);
                    self.give_back(&gone)?;
                    self.put_table(table, &bytes)?;
                }
            }
        }
        let gone = self.l1.get(whole..).unwrap_or_default().to_vec();
        self.work.fell(&gone)?;
        let needed = narrow(self.editor.image.checked.layout.l1_needed_for(self.size));
        self.l1.truncate(whole.min(self.l1.len()));
        self.l1.resize(needed.max(self.l1.len()), 0);
        Ok(())
    }

    /// The clusters that entries lead to lose a user.
    fn give_back(&mut self, entries: &[u8]) -> Result<()> {
        self.work.each_cluster(entries, |work, first, count| work.clusters.bump(work.drive, first, count, false))
    }

    /// An L2 table: where it lies, and its bytes.
    fn table(&mut self, number: u64) -> Result<Option<(u64, Vec<u8>)>> {
        match self.l1.get(narrow(number)).map_or(0, |lead| lead & L1_OFFSET) {
            0 => Ok(None),
            at => Ok(Some((at, self.work.l2(at)?))),
        }
    }

    /// Puts a table in the place of another.
    fn put_table(&mut self, number: u64, bytes: &[u8]) -> Result<()> {
        let new = self.work.add(bytes)?;
        let lead = self.l1.get_mut(narrow(number)).map(|lead| core::mem::replace(lead, new | L2_COPIED));
        match lead.map_or(0, |lead| lead & L1_OFFSET) {
            0 => Ok(()),
            old => self.work.clusters.bump(self.work.drive, old / self.work.cluster_len, 1, false),
        }
    }

    /// What is new reads as zeroes, and has its space if that is wanted.
    fn grow(&mut self, space: Preallocation) -> Result<()> {
        let checked = &self.editor.image.checked;
        self.cut(self.old)?;
        let edge = self.old.next_multiple_of(self.cluster_len());
        // If what lies below would come to light, all that is new hides it, whatever else gets below later.
        let hides = self.below.size() > self.old;
        if self.old < edge {
            self.mend_edge(edge, space, hides)?;
        }
        let is_raw = checked.layout.autoclear & DATA_FILE_RAW != 0;
        if let Some(data) = checked.data_file.as_ref().map(|data| data.id) {
            let drive = self.work.drive;
            let have = drive.length(data)?.min(self.size);
            drive.zero(Place { file: data, at: self.old }, have.saturating_sub(self.old), false)?;
            let how = if space == Preallocation::Metadata { Preallocation::Off } else { space };
            stretch(drive, data, self.size.max(drive.length(data)?), how)?;
        }
        let space = if is_raw && space == Preallocation::Off { Preallocation::Metadata } else { space };
        let end = if space == Preallocation::Off && !hides { self.old } else { self.size };
        let first = edge / self.cluster_len();
        let end = end.div_ceil(self.cluster_len()).max(first);
        let mut cluster = first;
        while cluster < end {
            let (table, index, left) = split(cluster, self.reach());
            let next = end.min(cluster.saturating_add(left));
            let mut bytes = match self.table(table)? {
                Some((_, bytes)) => bytes,
                None => vec![0; narrow(self.cluster_len())],
            };
            let from = narrow(index).saturating_mul(self.work.entry_len);
            let count = next.saturating_sub(cluster);
            let entries = self.entries(cluster, count, space, hides)?;
            bytes.iter_mut().skip(from).zip(&entries).for_each(|(to, from)| *to = *from);
            self.put_table(table, &bytes)?;
            cluster = next;
        }
        Ok(())
    }

    /// The entries of new clusters; `hides`: they have something below.
    fn entries(&mut self, first: u64, count: u64, space: Preallocation, hides: bool) -> Result<Vec<u8>> {
        let len = self.cluster_len();
        let is_v3 = self.editor.image.checked.layout.version >= 3;
        let must_have = space != Preallocation::Off || !is_v3;
        let mut bytes = Vec::new();
        let (mut cluster, end) = (first, first.saturating_add(count));
        while cluster < end {
            let step = end.saturating_sub(cluster).min((AT_ONCE / len).max(1));
            let host = if must_have { Some(self.hosts(cluster, step, space)?) } else { None };
            for index in 0..step {
                let own = len.saturating_mul(index);
                let word = host.map_or(0, |host| host.saturating_add(own) | L2_COPIED);
                // Space that is only set aside hides what is below by saying so.
                let hides = is_v3 && hides && matches!(space, Preallocation::Off | Preallocation::Metadata);
                let (flag, parts) = match (hides, self.is_extended()) {
                    (true, false) => (L2_ZERO, 0),
                    (true, true) => (0, L2_ALL << L2_ZEROES_SHIFT),
                    (false, true) if space.is_full() => (0, L2_ALL),
                    (false, _) => (0, 0),
                };
                bytes.extend_from_slice(&(word | flag).to_be_bytes());
                if self.is_extended() {
                    bytes.extend_from_slice(&u64::to_be_bytes(parts));
                }
            }
            cluster = cluster.saturating_add(step);
        }
        Ok(bytes)
    }

    /// Clusters in a row that read as zeroes: where the first lies.
    fn hosts(&mut self, cluster: u64, count: u64, space: Preallocation) -> Result<u64> {
        let len = self.cluster_len();
        if self.editor.image.checked.layout.has_data_file() {
            return Ok(cluster.saturating_mul(len));
        }
        let drive = self.work.drive;
        let at = self.work.clusters.claim_fresh(drive, count)?;
        let (place, len) = (self.work.start.ahead(at), count.saturating_mul(len));
        match space {
            Preallocation::Full => self.seal(place, cluster, len)?,
            _ if self.editor.image.lock()?.is_some() => self.seal(place, cluster, len)?,
            Preallocation::Falloc => drive.allocate(place, len)?,
            Preallocation::Off | Preallocation::Metadata => {}
        }
        Ok(at)
    }

    /// Writes zeroes to new clusters; encrypted, if the disk is.
    fn seal(&mut self, place: Place, cluster: u64, len: u64) -> Result<()> {
        let Some(lock) = self.editor.image.lock()? else { return self.work.drive.zero(place, len, false) };
        let guest = cluster.saturating_mul(self.cluster_len());
        let mut done = 0u64;
        while done < len {
            let step = len.saturating_sub(done).min(1 << 20);
            let mut bytes = vec![0; narrow(step)];
            let from = if lock.by_host { place.at.saturating_sub(self.work.start.at) } else { guest };
            lock.sectors.encrypt(from.saturating_add(done) / wide(TWEAK_UNIT), &mut bytes);
            self.work.drive.write(place.ahead(done), &bytes)?;
            done = done.saturating_add(step);
        }
        Ok(())
    }

    /// The cluster in which the disk has ended so far: what comes to light of it has to be zero, and the image's own if
    /// something below would show or space is wanted.
    fn mend_edge(&mut self, edge: u64, space: Preallocation, hides: bool) -> Result<()> {
        let len = self.cluster_len();
        let start = edge.saturating_sub(len);
        let (table, index, _) = split(start / len, self.reach());
        let mut entries = match self.table(table)? {
            Some((_, bytes)) => bytes,
            None => vec![0; narrow(len)],
        };
        let from = narrow(index).saturating_mul(self.work.entry_len);
        let was = entries.get(from..from.saturating_add(self.work.entry_len)).unwrap_or_default().to_vec();
        let edge = Edge::of(&was, self.old.saturating_sub(start), len);
        let bytes = self.read_whole(start)?;
        let inside = narrow(self.old.saturating_sub(start));
        let is_blank = |range: Range<usize>| bytes.get(range).unwrap_or_default().iter().all(|byte| *byte == 0);
        let is_clean = is_blank(inside..narrow(len));
        let has_space = space == Preallocation::Off || edge.is_plain;
        if is_clean && has_space && (edge.is_own || !hides) {
            return Ok(());
        }
        let is_v3 = self.editor.image.checked.layout.version >= 3;
        let is_said = is_v3 && !edge.is_own && space == Preallocation::Off && is_blank(edge.unit.clone());
        let words = match is_said {
            true => edge.said(),
            false => edge.laid(self.lay_edge(start, inside, bytes)?, space != Preallocation::Off, hides),
        };
        let entry = entries.get_mut(from..from.saturating_add(self.work.entry_len)).unwrap_or_default();
        entry.iter_mut().zip(words.as_flattened()).for_each(|(to, from)| *to = *from);
        if !is_said {
            self.give_back(&was)?;
        }
        self.put_table(table, &entries)
    }

    /// Writes a cluster anew, with zeroes from `inside` on; where it lies.
    fn lay_edge(&mut self, start: u64, inside: usize, mut bytes: Vec<u8>) -> Result<u64> {
        bytes.iter_mut().skip(inside).for_each(|byte| *byte = 0);
        let drive = self.work.drive;
        let (place, host) = match &self.editor.image.checked.data_file {
            Some(data) => (Place { file: data.id, at: start }, start),
            None => {
                let host = self.work.clusters.claim(drive, 1)?;
                (self.work.start.ahead(host), host)
            }
        };
        if let Some(lock) = self.editor.image.lock()? {
            let from = if lock.by_host { host } else { start };
            lock.sectors.encrypt(from / wide(TWEAK_UNIT), &mut bytes);
        }
        drive.write(place, &bytes)?;
        if place.file != self.work.start.file {
            drive.flush(place.file)?;
        }
        Ok(host)
    }

    /// All bytes of a cluster, those behind the end of the disk included.
    fn read_whole(&self, start: u64) -> Result<Vec<u8>> {
        let (drive, end) = (self.work.drive, start.saturating_add(self.cluster_len()));
        let map = self.editor.image.whole_map(self.editor.image.checked.layout.l1)?;
        let own = Chain { layers: Vec::from([Box::new(Map { size: end, ..map }) as Box<dyn instar_image::Layer>]) };
        let (mut walk, mut reader) = (Walk::new(&own, drive, start, end), Reader::new(&own, drive));
        let mut bytes = vec![0; narrow(self.cluster_len())];
        while let Some((len, found)) = walk.peek()? {
            let (at, skip) = (walk.at(), narrow(walk.at().saturating_sub(start)));
            let room = bytes.get_mut(skip..skip.saturating_add(narrow(len))).unwrap_or_default();
            match found.present {
                true => reader.read(&found, room)?,
                false => self.below.read(drive, at, room)?,
            }
            walk.advance(len);
        }
        Ok(bytes)
    }
}

/// What an entry says of the cluster in which a disk ends, and of the unit in which its last byte lies.
struct Edge {
    /// The two words of the entry; the second is nothing in short entries.
    words: [u64; 2],
    is_extended: bool,
    /// Number of the unit: of the subcluster, if there are any.
    number: u32,
    /// Where it is in the cluster.
    unit: Range<usize>,
    /// The image has all from there on, in whatever way.
    is_own: bool,
    /// The cluster has a place as it is.
    is_plain: bool,
}

impl Edge {
    /// Of a disk that ends so far into the cluster.
    fn of(entry: &[u8], inside: u64, len: u64) -> Edge {
        let word = |number: usize| {
            let bytes = entry.chunks_exact(8).nth(number).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u64::from_be_bytes)
        };
        let words = [word(0), word(1)];
        let is_extended = entry.len() > 8;
        let unit = if is_extended { len / u64::from(SUBCLUSTERS) } else { len }.max(1);
        let number = u32::try_from(inside / unit).unwrap_or(0);
        let start = narrow(unit.saturating_mul(u64::from(number)));
        let [lead, parts] = words;
        let is_packed = lead & L2_COMPRESSED != 0;
        let is_placed = !is_packed && lead & L2_OFFSET != 0;
        let rest = L2_ALL & u64::MAX.checked_shl(number).unwrap_or(0);
        let is_own = match is_extended {
            true => is_packed || (parts | parts >> L2_ZEROES_SHIFT) & rest == rest,
            false => is_packed || is_placed || lead & L2_ZERO != 0,
        };
        Edge {
            words,
            is_extended,
            number,
            unit: start..start.saturating_add(narrow(unit)),
            is_own,
            is_plain: is_placed,
        }
    }

    /// Bits of the units from the one at the edge on.
    fn rest(&self) -> u64 {
        L2_ALL & u64::MAX.checked_shl(self.number).unwrap_or(0)
    }

    /// The entry, when the rest of the cluster is said to be zeroes.
    fn said(&self) -> [[u8; 8]; 2] {
        let [lead, parts] = self.words;
        match self.is_extended {
            true => [lead, (parts & !self.rest()) | self.rest() << L2_ZEROES_SHIFT],
            false => [lead | L2_ZERO, 0],
        }
        .map(u64::to_be_bytes)
    }

    /// The entry of a cluster that is written anew, in a place with `space`, or as far as it has to be; what the image
    /// has not itself stays with those below.
    fn laid(&self, host: u64, space: bool, hides: bool) -> [[u8; 8]; 2] {
        let [lead, parts] = self.words;
        let (mine, zero) = (parts & L2_ALL, parts >> L2_ZEROES_SHIFT & L2_ALL);
        let bit = 1u64.checked_shl(self.number).unwrap_or(0);
        let (rest, is_packed) = (self.rest() & !bit, lead & L2_COMPRESSED != 0);
        let parts = match (self.is_extended, is_packed) {
            (false, _) => 0,
            (true, true) => L2_ALL,
            (true, false) if space => mine | self.rest() | (zero & !self.rest()) << L2_ZEROES_SHIFT,
            (true, false) => {
                let said = (zero | mine | if hides { rest } else { 0 }) & rest;
                (mine | bit) & !rest | (said | zero & !rest & !bit) << L2_ZEROES_SHIFT
            }
        };
        [host & L2_OFFSET | L2_COPIED, parts].map(u64::to_be_bytes)
    }
}
