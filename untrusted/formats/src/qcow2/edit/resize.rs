//! Another size for the disk.

use super::super::disk::{
    DATA_FILE_RAW, L1_OFFSET, L2_ALL, L2_COPIED, L2_OFFSET, L2_ZERO, L2_ZEROES_SHIFT, SUBCLUSTERS,
};
use super::super::locate::Map;
use super::super::open::L1_LEN_MAX;
use super::Editor;
use super::work::Work;
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use instar_codec::cipher::UNIT as TWEAK_UNIT;
use instar_image::num::{narrow, split, wide};
use instar_image::stretch::stretch;
use instar_image::{Chain, Drive, Kind, Place, Preallocation, Reader, Result, Walk};

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
        if size == layout.size {
            return Ok(size);
        }
        if layout.version < 3 && layout.snapshots.count > 0 {
            return refuse(Kind::Unsupported, "Can't resize a v2 image which has snapshots");
        }
        if layout.l1_needed_for(size) > L1_LEN_MAX / 8 {
            return refuse(Kind::TooBig, "Failed to grow the L1 table: File too large");
        }
        let mut work = Work::new(self.image, drive)?;
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
        if self.old < edge {
            self.mend_edge(edge)?;
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
        let hidden = self.below.size().min(self.size);
        let end = if space == Preallocation::Off { hidden } else { self.size };
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
            let entries = self.entries(cluster, count, space, hidden)?;
            bytes.iter_mut().skip(from).zip(&entries).for_each(|(to, from)| *to = *from);
            self.put_table(table, &bytes)?;
            cluster = next;
        }
        Ok(())
    }

    /// The entries of new clusters. What lies below shows up to `hidden`, if nothing hides it.
    fn entries(&mut self, first: u64, count: u64, space: Preallocation, hidden: u64) -> Result<Vec<u8>> {
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
                let at = len.saturating_mul(cluster.saturating_add(index));
                let word = host.map_or(0, |host| host.saturating_add(own) | L2_COPIED);
                // Space that is only set aside hides what is below by saying so.
                let hides = is_v3 && at < hidden && matches!(space, Preallocation::Off | Preallocation::Metadata);
                let (flag, parts) = match (hides, self.is_extended()) {
                    (true, false) => (L2_ZERO, 0),
                    (true, true) => (0, L2_ALL << L2_ZEROES_SHIFT),
                    (false, true) if matches!(space, Preallocation::Falloc | Preallocation::Full) => (0, L2_ALL),
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

    /// The cluster in which the disk has ended so far: what comes to light of it has to be zero.
    fn mend_edge(&mut self, edge: u64) -> Result<()> {
        let len = self.cluster_len();
        let start = edge.saturating_sub(len);
        let bytes = self.read_whole(start)?;
        let inside = narrow(self.old.saturating_sub(start));
        if bytes.get(inside..).unwrap_or_default().iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        let mut bytes = bytes;
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
        let (table, index, _) = split(start / len, self.reach());
        let mut entries = match self.table(table)? {
            Some((_, bytes)) => bytes,
            None => vec![0; narrow(len)],
        };
        let from = narrow(index).saturating_mul(self.work.entry_len);
        let entry = entries.get_mut(from..from.saturating_add(self.work.entry_len)).unwrap_or_default();
        let was = entry.to_vec();
        let parts = if entry.len() > 8 { L2_ALL } else { 0 };
        let words = [(host & L2_OFFSET | L2_COPIED).to_be_bytes(), u64::to_be_bytes(parts)];
        entry.iter_mut().zip(words.as_flattened()).for_each(|(to, from)| *to = *from);
        self.give_back(&was)?;
        self.put_table(table, &entries)
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

/// Subclusters are told of in one word each way.
const _: () = assert!(SUBCLUSTERS == 32);
