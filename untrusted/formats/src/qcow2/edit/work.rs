//! A change of many tables and counts that takes effect at one moment: when the header is written, which is one sector.

use super::super::Qcow2Image;
use super::super::clusters::{Clusters, Tell};
use super::super::front::Front;
use super::super::open::{L1_LEN_MAX, Table};
use alloc::vec;
use alloc::vec::Vec;
use instar_image::num::{bounded, narrow, wide};
use instar_image::{Drive, Error, Freed, Kind, Place, Result};

/// Bytes of an L1 table that are read or written at once: with the longest ones, there is memory for one copy.
const L1_PIECE: usize = 64 << 10;

/// The change.
pub struct Work<'d> {
    pub drive: &'d dyn Drive,
    /// Who gives out clusters and keeps the counts that will be true.
    pub clusters: Clusters,
    /// Where the image begins.
    pub start: Place,
    pub cluster_len: u64,
    /// Bytes of an L2 entry.
    pub entry_len: usize,
    /// Header and extensions, as they will be.
    pub front: Front,
    /// 2 to this power will be the width of counts.
    pub order: u32,
    /// The clusters of the disk lie in another file, where nothing is counted.
    pub is_beside: bool,
}

impl<'d> Work<'d> {
    /// Of an image that is there; why it will give clusters back.
    pub fn new(image: &Qcow2Image<'_>, drive: &'d dyn Drive, freed: Freed) -> Result<Work<'d>> {
        let layout = &image.checked.layout;
        let clusters = Clusters::open(&image.file, layout, image.has_room)?.shadow(freed);
        Ok(Work {
            drive,
            clusters,
            start: image.file.place(0),
            cluster_len: layout.cluster_len,
            entry_len: if layout.extended_l2() { 16 } else { 8 },
            front: Front::read(&image.file, layout)?,
            order: layout.refcount_order,
            is_beside: layout.has_data_file(),
        })
    }

    /// A byte of the image in its file.
    pub fn place(&self, at: u64) -> u64 {
        self.start.ahead(at).at
    }

    /// The entries of an L1 table.
    pub fn l1(&mut self, table: Table) -> Result<Vec<u64>> {
        let long = || Kind::TooBig.what("an L1 table is too long");
        let len = bounded(table.count.saturating_mul(8), L1_LEN_MAX, long)?;
        let mut entries = Vec::with_capacity(len / 8);
        let (mut bytes, mut at) = (vec![0; L1_PIECE], self.place(table.at));
        while entries.len() < len / 8 {
            let left = len.saturating_sub(entries.len().saturating_mul(8));
            let piece = bytes.get_mut(..left.min(L1_PIECE)).unwrap_or_default();
            self.clusters.draft.read(self.drive, at, piece)?;
            entries.extend(piece.as_chunks::<8>().0.iter().map(|word| u64::from_be_bytes(*word)));
            at = at.saturating_add(wide(piece.len()));
        }
        Ok(entries)
    }

    /// The bytes of an L2 table.
    pub fn l2(&mut self, at: u64) -> Result<Vec<u8>> {
        if !at.is_multiple_of(self.cluster_len) {
            return Err(broken("an L2 table is not on a cluster"));
        }
        let mut bytes = vec![0; narrow(self.cluster_len)];
        let at = self.place(at);
        self.clusters.draft.read(self.drive, at, &mut bytes)?;
        Ok(bytes)
    }

    /// Puts bytes where nothing was: where they begin.
    pub fn add(&mut self, bytes: &[u8]) -> Result<u64> {
        self.clusters.add(self.drive, bytes)
    }

    /// The same of an L1 table; one without entries lies nowhere.
    pub fn add_l1(&mut self, entries: &[u64]) -> Result<Table> {
        let count = wide(entries.len());
        if count == 0 {
            return Ok(Table { at: 0, count });
        }
        let len = count.saturating_mul(8);
        let clusters = len.div_ceil(self.cluster_len);
        let at = self.clusters.claim(self.drive, clusters)?;
        let mut place = self.place(at);
        for piece in entries.chunks(L1_PIECE / 8) {
            let bytes: Vec<u8> = piece.iter().flat_map(|entry| entry.to_be_bytes()).collect();
            self.clusters.draft.put(self.drive, place, &bytes)?;
            place = place.saturating_add(wide(bytes.len()));
        }
        let rest = clusters.saturating_mul(self.cluster_len).saturating_sub(len);
        self.clusters.draft.blank(self.drive, place, rest)?;
        Ok(Table { at, count })
    }

    /// Gives back a table.
    pub fn drop_table(&mut self, at: u64, len: u64) -> Result<()> {
        if len == 0 { Ok(()) } else { self.clusters.release(self.drive, at, len) }
    }

    /// Lets everything take effect, together with what has become of the front.
    pub fn publish(self) -> Result<()> {
        self.publish_telling(&mut |_, _| Ok(()))
    }

    /// The same; the file ends then where the part of it ends that is in use.
    pub fn publish_and_cut(mut self) -> Result<()> {
        let (drive, file) = (self.drive, self.start.file);
        self.complete(&mut |_, _| Ok(()))?;
        let used = self.clusters.used_end(drive)?;
        let end = self.place(used);
        self.front.publish(drive)?;
        // Nothing leads behind that any more.
        if end < drive.length(file)? {
            drive.set_length(file, end)?;
        }
        self.clusters.give_back(drive);
        Ok(())
    }

    /// The same as [`Self::publish`]; counts that become wider or narrower take their time, which is told.
    pub fn publish_telling(mut self, tell: Tell<'_>) -> Result<()> {
        self.complete(tell)?;
        self.front.publish(self.drive)?;
        self.clusters.give_back(self.drive);
        Ok(())
    }

    /// Everything that the front will lead to is there, and durable.
    fn complete(&mut self, tell: Tell<'_>) -> Result<()> {
        let drive = self.drive;
        match self.clusters.width() == self.order {
            true => self.clusters.publish(drive)?,
            false => self.clusters.recount(drive, self.order, tell)?,
        }
        if self.front.header.version.get() >= 3 {
            self.front.header.refcount_order = self.order.into();
        }
        let end = self.place(self.clusters.end());
        if drive.length(self.start.file)? < end {
            drive.set_length(self.start.file, end)?;
            drive.flush(self.start.file)?;
        }
        self.front.set_refcounts(self.clusters.table());
        Ok(())
    }

    /// The disk has this L1 table.
    pub fn set_l1(&mut self, l1: Table) {
        self.front.header.l1_table_offset = l1.at.into();
        self.front.header.l1_size = u32::try_from(l1.count).unwrap_or(u32::MAX).into();
    }
}

/// What is wrong with an image whose tables cannot be followed.
pub fn broken(what: &'static str) -> Error {
    Kind::Corrupt.what(what)
}
