//! Changes of a QED image that is there.
//!
//! The first table is always as long as that of the largest disk, so the size stands in the header and nowhere else.
//! Clusters behind the end of a disk that has become shorter stay its own: nobody else could get them.

#[cfg(test)]
mod tests;

use super::disk::{BACKING_FILE, BACKING_NO_PROBE, Header, SIZE_AT};
use super::locate::Map;
use super::open::{BACKING_NAME_MAX, Checked, size_max};
use alloc::vec;
use core::mem::size_of;
use core::ops::Range;
use instar_image::blocks::Blocks;
use instar_image::draft::Draft;
use instar_image::edit::{Footing, clear};
use instar_image::num::{narrow, split, wide};
use instar_image::sector::SECTOR;
use instar_image::{Chain, Drive, Edit, File, Kind, Place, Preallocation, Result, Source};
use zerocopy::IntoBytes;

/// Length of an entry of a table.
const ENTRY_LEN: u64 = 8;

/// An image that is changed.
pub struct Change<'i, 'a> {
    /// The file.
    pub file: &'i File<'a>,
    /// What the image says of itself.
    pub checked: &'i Checked,
}

impl Edit for Change<'_, '_> {
    fn resize(&mut self, drive: &dyn Drive, size: u64, space: Preallocation, below: &Chain<'_>) -> Result<u64> {
        let mode = match space {
            Preallocation::Off => None,
            Preallocation::Metadata => Some("metadata"),
            Preallocation::Falloc => Some("falloc"),
            Preallocation::Full => Some("full"),
        };
        if let Some(mode) = mode {
            return Err(Kind::Unsupported.what("Unsupported preallocation mode '{}'").arg(mode));
        }
        let Checked { cluster_len, table_clusters, size: old, .. } = *self.checked;
        if !size.is_multiple_of(SECTOR) || size > size_max(cluster_len, table_clusters) {
            return Err(Kind::Unsupported.what("Invalid image size specified"));
        }
        let hidden = if self.checked.backing.is_some() { below.size().min(size) } else { 0 };
        let file = self.file.id();
        let end = self.file.len().next_multiple_of(cluster_len.into());
        let map = Map::new(self.file, self.checked);
        let draft = Draft::new(file, self.file.place(self.file.len()).at);
        let mut tables = Tables { file: self.file, l1_at: self.checked.l1_at, map, drive, draft, end, link: None };
        if size > old {
            tables.tail(old, below, hidden > old)?;
            tables.blank(old, size)?;
            tables.hide(old, hidden)?;
            tables.settle()?;
        }
        drive.write(self.file.place(SIZE_AT), &size.to_le_bytes())?;
        drive.flush(file)?;
        if size < old {
            // What nobody can read any more takes no space.
            tables.blank(size, old)?;
            drive.flush(file)?;
        }
        Ok(size)
    }

    /// The header is turned over in one sector. A name that does not fit there has been written before, where the old one
    /// is not.
    fn stand_on(&mut self, drive: &dyn Drive, footing: &Footing<'_>) -> Result<()> {
        let (file, name) = (self.file, footing.name);
        let mut header: Header = file.read_as(0)?;
        let room = u64::from(self.checked.header_clusters).saturating_mul(self.checked.cluster_len.into());
        let (old_at, old_len) = (header.backing_filename_offset.get(), header.backing_filename_size.get());
        let old = u64::from(old_at)..u64::from(old_at).saturating_add(old_len.into());
        let own = wide(size_of::<Header>());
        let len = wide(name.len());
        let fits = |at: &u64| at.saturating_add(len) <= room;
        let is_free = |at: &u64| at.saturating_add(len) <= old.start.next_multiple_of(SECTOR) || *at >= old.end;
        let behind = [SECTOR, old.end.next_multiple_of(SECTOR)];
        let at = match own.saturating_add(len) <= SECTOR {
            true => Some(own),
            false => behind.into_iter().find(|at| fits(at) && (is_free(at) || self.checked.backing.is_none())),
        };
        let full = || Kind::TooBig.what("No space left in the file header").file(file.id());
        let at = at.filter(|_| len <= BACKING_NAME_MAX).ok_or_else(full)?;
        let flags = match (name, footing.format) {
            ([], _) => 0,
            (_, Some(b"raw")) => BACKING_FILE | BACKING_NO_PROBE,
            _ => BACKING_FILE,
        };
        header.features = (header.features.get() & !(BACKING_FILE | BACKING_NO_PROBE) | flags).into();
        let (at, len) = if name.is_empty() { (0, 0) } else { (at, len) };
        header.backing_filename_offset = u32::try_from(at).map_err(|_| full())?.into();
        header.backing_filename_size = u32::try_from(len).map_err(|_| full())?.into();
        let mut sector = file.read_vec(0, narrow(SECTOR))?;
        let mut put = |at: usize, bytes: &[u8]| {
            let room = sector.get_mut(at..).unwrap_or_default();
            room.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        };
        put(0, header.as_bytes());
        if at >= SECTOR {
            drive.write(file.place(at), name)?;
            drive.flush(file.id())?;
        } else if at > 0 {
            put(narrow(at), name);
        }
        drive.write(file.place(0), &sector)?;
        drive.flush(file.id())
    }

    fn empty(&mut self, drive: &dyn Drive) -> Result<()> {
        clear(drive, self.file.place(self.checked.l1_at), self.checked.clusters.table_len())
    }
}

/// The tables of an image while it changes.
struct Tables<'t, 'a> {
    file: &'t File<'a>,
    l1_at: u64,
    map: Map,
    drive: &'t dyn Drive,
    draft: Draft,
    /// Where the file ends, with all that has been claimed.
    end: u64,
    /// A reference that is turned over when all it leads to is there.
    link: Option<(u64, u64)>,
}

impl Tables<'_, '_> {
    fn cluster_len(&self) -> u64 {
        self.map.clusters.len
    }

    fn entries(&self) -> u64 {
        self.map.clusters.table_len() / ENTRY_LEN
    }

    fn place(&self, at: u64) -> Place {
        self.file.place(at)
    }

    fn get(&mut self, at: u64) -> Result<[u8; 8]> {
        self.draft.get(self.drive, self.file.place(at).at)
    }

    fn put(&mut self, at: u64, entry: u64) -> Result<()> {
        self.draft.put(self.drive, self.file.place(at).at, &entry.to_le_bytes())
    }

    fn claim(&mut self, len: u64) -> Result<u64> {
        let at = self.end;
        let full = || Kind::TooBig.what("the file cannot become longer");
        self.end = at.checked_add(len).filter(|end| *end <= i64::MAX.unsigned_abs()).ok_or_else(full)?;
        // What has just been claimed can be referred to, and written to.
        self.map.clusters.end = self.end;
        self.draft.reaches(self.file.place(self.end).at);
        Ok(at)
    }

    /// Where the table of a cluster begins, and where its entry in the first table stands.
    fn table(&mut self, number: u64) -> Result<(Option<u64>, u64)> {
        let (table, ..) = split(number, self.entries());
        let lead_at = self.l1_at.saturating_add(table.saturating_mul(ENTRY_LEN));
        let lead = self.get(lead_at)?;
        Ok((self.map.table(lead)?, lead_at))
    }

    /// Where the entry of a cluster stands; a table that is missing is made.
    fn slot(&mut self, number: u64) -> Result<u64> {
        let (table, lead_at) = self.table(number)?;
        let table = match table {
            Some(table) => table,
            None => {
                let made = self.claim(self.map.clusters.table_len())?;
                // It says nothing yet, as if there were none: it does not matter when it can be found.
                self.put(lead_at, made)?;
                self.link_ahead()?;
                made
            }
        };
        let (_, index, _) = split(number, self.entries());
        Ok(table.saturating_add(index.saturating_mul(ENTRY_LEN)))
    }

    /// The file has everything that is about to be referred to.
    fn link_ahead(&mut self) -> Result<()> {
        self.drive.set_length(self.file.id(), self.file.place(self.end).at)?;
        self.drive.flush(self.file.id())
    }

    /// What the last cluster has behind the end of the disk becomes zeroes.
    fn tail(&mut self, old: u64, below: &Chain<'_>, hides: bool) -> Result<()> {
        let (number, skip, left) = split(old, self.cluster_len());
        let (table, _) = self.table(number)?;
        if skip == 0 || table.is_none() && !hides {
            return Ok(());
        }
        let slot = self.slot(number)?;
        let entry = self.get(slot)?;
        match self.map.block(number, entry)? {
            Some(Source::Raw { place, .. }) => self.drive.zero(place.ahead(skip), left, false),
            None if hides => {
                let mut bytes = vec![0; narrow(self.cluster_len())];
                let start = old.saturating_sub(skip);
                below.read(self.drive, start, bytes.get_mut(..narrow(skip)).unwrap_or_default())?;
                let at = self.claim(self.cluster_len())?;
                self.drive.write(self.place(at), &bytes)?;
                self.link = Some((slot, at));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Clusters that lie wholly between two bytes of the disk become zeroes where they are.
    fn blank(&mut self, from: u64, to: u64) -> Result<()> {
        let (mut number, end) = (from.div_ceil(self.cluster_len()), to.div_ceil(self.cluster_len()));
        while number < end {
            let (_, index, left) = split(number, self.entries());
            let (table, _) = self.table(number)?;
            let until = number.saturating_add(left).min(end);
            let Some(table) = table else {
                number = until;
                continue;
            };
            let mut at = table.saturating_add(index.saturating_mul(ENTRY_LEN));
            while number < until {
                let entry = self.get(at)?;
                if let Some(Source::Raw { place, .. }) = self.map.block(number, entry)? {
                    self.drive.zero(place, self.cluster_len(), true)?;
                }
                (number, at) = (number.saturating_add(1), at.saturating_add(ENTRY_LEN));
            }
        }
        Ok(())
    }

    /// Where something is below, clusters have their space, which nothing was ever written to.
    fn hide(&mut self, old: u64, end: u64) -> Result<()> {
        let (mut number, end) = (old.div_ceil(self.cluster_len()), end.div_ceil(self.cluster_len()));
        while number < end {
            let (.., left) = split(number, self.entries());
            let until = number.saturating_add(left).min(end);
            let mut count = 0u64;
            self.each_missing(number..until, |_, _| {
                count = count.saturating_add(1);
                Ok(())
            })?;
            let mut at = self.claim(count.saturating_mul(self.cluster_len()))?;
            self.link_ahead()?;
            self.each_missing(number..until, |tables, slot| {
                tables.put(slot, at)?;
                at = at.saturating_add(tables.cluster_len());
                Ok(())
            })?;
            number = until;
        }
        Ok(())
    }

    /// Where the entries stand of clusters of which nothing is said.
    fn each_missing(&mut self, range: Range<u64>, mut found: impl FnMut(&mut Self, u64) -> Result<()>) -> Result<()> {
        for number in range {
            let slot = self.slot(number)?;
            let entry = self.get(slot)?;
            if self.map.block(number, entry)?.is_none() {
                found(self, slot)?;
            }
        }
        Ok(())
    }

    /// Everything is there, and then referred to.
    fn settle(&mut self) -> Result<()> {
        let end = self.file.place(self.end).at;
        if end > self.drive.length(self.file.id())? {
            self.drive.set_length(self.file.id(), end)?;
        }
        self.draft.flush(self.drive)?;
        self.drive.flush(self.file.id())?;
        if let Some((slot, at)) = self.link.take() {
            self.put(slot, at)?;
            self.draft.flush(self.drive)?;
            self.drive.flush(self.file.id())?;
        }
        Ok(())
    }
}
