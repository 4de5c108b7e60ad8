//! The first cluster of an image: its header, the extensions, and the name of the backing file.
//!
//! Whatever is said there anew must become true at one moment, and only a sector is written at once. So everything that
//! counts is brought into the first sector, but for the name, which goes where nothing has been before. What is only there
//! to be read by people, the names of features, follows when all else is done.

use super::disk::{BITMAPS, DATA_FILE_RAW, EXT_BITMAPS, EXT_FEATURE_NAMES, Extension, HEADER2_LEN, Header};
use super::extensions;
use super::open::Layout;
use alloc::vec::Vec;
use core::ops::Range;
use instar_image::num::{bounded, narrow, wide};
use instar_image::{Drive, Error, File, Kind, Place, Result};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// What is written at one moment.
const SECTOR: usize = 512;
/// The longest cluster.
const LEN_MAX: u64 = 2 << 20;

/// What stands there, and what is to stand there.
pub struct Front {
    /// The header that is to be; where the name of the backing file lies is not its business.
    pub header: Header,
    /// There were bitmaps that may have been changed by who did not know them: they are not the image's any more.
    pub had_stale_bitmaps: bool,
    /// Fields of the header that are not known here.
    unknown: Vec<u8>,
    extensions: Vec<(u32, Vec<u8>)>,
    name: Vec<u8>,
    /// The cluster as it is.
    bytes: Vec<u8>,
    /// Where the extensions are.
    list_at: Range<usize>,
    /// Where the name is; behind the extensions if there is none.
    name_at: Range<usize>,
    start: Place,
}

fn no_room() -> Error {
    Kind::TooBig.what("the header has no room for what is to be said in it")
}

impl Front {
    /// As it is.
    pub fn read(file: &File<'_>, layout: &Layout) -> Result<Front> {
        let bytes = file.read_vec(0, bounded(layout.cluster_len, LEN_MAX, no_room)?)?;
        let mut header = Header::new_zeroed();
        let own = narrow(layout.extensions_at);
        let known = bytes.get(..own).unwrap_or_default();
        header.as_mut_bytes().iter_mut().zip(known).for_each(|(to, from)| *to = *from);
        let mut unknown = known.get(size_of::<Header>()..).unwrap_or_default().to_vec();
        if own > SECTOR {
            // So long is a header only while extensions are put aside: fields that count lie in the first sector.
            unknown.truncate(SECTOR.saturating_sub(size_of::<Header>()));
            let last = unknown.iter().rposition(|byte| *byte != 0).map_or(0, |last| last.saturating_add(1));
            unknown.truncate(last.next_multiple_of(8));
        }
        let name_at = usize::try_from(header.backing_file_offset.get()).unwrap_or(0);
        let name_end = name_at.saturating_add(narrow(header.backing_file_size.get().into()));
        let name = if name_at == 0 { &[] } else { bytes.get(name_at..name_end).unwrap_or_default() };
        let name = name.to_vec();
        let (mut extensions, mut at) = (Vec::new(), own);
        while let Some(rest) = bytes.get(at..) {
            let Ok((head, after)) = Extension::read_from_prefix(rest) else { break };
            let len = narrow(head.len.get().into());
            at = at.saturating_add(8);
            if head.magic.get() == 0 || wide(at) > layout.extensions_end {
                break;
            }
            let Some(content) = after.get(..len) else { break };
            extensions.push((head.magic.get(), content.to_vec()));
            at = at.saturating_add(len.next_multiple_of(8));
        }
        let listed = extensions.len();
        let has_bitmaps = layout.autoclear & BITMAPS != 0;
        extensions.retain(|(magic, _)| has_bitmaps || *magic != EXT_BITMAPS);
        let had_stale_bitmaps = extensions.len() < listed;
        let name_at = if name.is_empty() { at } else { name_at };
        let (list_at, name_at) = (own..at.min(bytes.len()), name_at..name_at.saturating_add(name.len()));
        let start = file.place(0);
        Ok(Front { header, had_stale_bitmaps, unknown, extensions, name, bytes, list_at, name_at, start })
    }

    /// The extension with that number says this from now on; nothing if there is to be none.
    pub fn set(&mut self, magic: u32, content: Option<&[u8]>) {
        let found = self.extensions.iter_mut().find(|(known, _)| *known == magic);
        match (found, content) {
            (Some((_, old)), Some(new)) => *old = new.to_vec(),
            (None, Some(new)) => self.extensions.push((magic, new.to_vec())),
            (_, None) => self.extensions.retain(|(known, _)| *known != magic),
        }
    }

    /// What an extension says.
    pub fn get(&self, magic: u32) -> Option<&[u8]> {
        self.extensions.iter().find(|(known, _)| *known == magic).map(|(_, content)| &content[..])
    }

    /// The backing file is called this from now on; there is none if that is nothing.
    pub fn set_name(&mut self, name: &[u8]) {
        self.name = name.to_vec();
    }

    /// The table of counts lies there, and has so many clusters.
    pub fn set_refcounts(&mut self, (at, clusters): (u64, u64)) {
        self.header.refcount_table_offset = at.into();
        self.header.refcount_table_clusters = u32::try_from(clusters).unwrap_or(u32::MAX).into();
    }

    /// Header and extensions, in the order in which they are written.
    fn list(&self, with_names: bool) -> Vec<u8> {
        let own = if self.header.version.get() < 3 { narrow(HEADER2_LEN.into()) } else { size_of::<Header>() };
        let mut bytes = self.header.as_bytes().get(..own).unwrap_or_default().to_vec();
        if self.header.version.get() >= 3 {
            bytes.extend_from_slice(&self.unknown);
        }
        let is_for_people = |magic: u32| magic == EXT_FEATURE_NAMES;
        let first = self.extensions.iter().filter(|(magic, _)| !is_for_people(*magic));
        let last = self.extensions.iter().filter(|(magic, _)| is_for_people(*magic) && with_names);
        first.chain(last).for_each(|(magic, content)| extensions::add(&mut bytes, *magic, content));
        extensions::add(&mut bytes, 0, &[]);
        bytes
    }

    /// What the fields about the header itself say when it is written.
    fn close(&mut self) {
        if self.header.version.get() >= 3 {
            // Whoever does not know what these mean has to clear them.
            self.header.autoclear_features = (self.header.autoclear_features.get() & (BITMAPS | DATA_FILE_RAW)).into();
            let len = size_of::<Header>().saturating_add(self.unknown.len());
            self.header.header_length = u32::try_from(len).unwrap_or(u32::MAX).into();
        }
    }

    /// All of the cluster, where nobody relies on the image yet.
    pub fn whole(mut self) -> Result<Vec<u8>> {
        self.close();
        self.bytes.fill(0);
        let full = self.list(true);
        self.arrange(&full)?;
        Ok(self.bytes)
    }

    /// Makes all of it true at one moment, and durable. All that it leads to is durable already.
    pub fn publish(mut self, drive: &dyn Drive) -> Result<()> {
        self.close();
        let is_named_alike = self.bytes.get(self.name_at.clone()).unwrap_or_default() == self.name;
        let full = self.list(true);
        // Most changes are about numbers.
        let own = self.list_at.start;
        if is_named_alike && full.get(own..).is_some_and(|list| self.list_is(list)) {
            return self.write_head(drive, full.get(..own).unwrap_or_default());
        }
        let compact = self.list(false);
        let name_at = match is_named_alike {
            true => Some(self.name_at.start).filter(|at| *at >= compact.len()),
            false => None,
        };
        let Some(name_at) = name_at.or_else(|| self.room(compact.len())).filter(|_| compact.len() <= SECTOR) else {
            return if self.put_aside(drive)? { Ok(()) } else { self.rewrite(drive, &full) };
        };
        self.point(name_at);
        let name = core::mem::take(&mut self.name);
        self.lay(name_at, &name);
        self.write_tail(drive, name_at..name_at.saturating_add(name.len()))?;
        let compact = self.list(false);
        self.write_head(drive, &compact)?;
        let full = self.list(true);
        let end = if name.is_empty() { self.bytes.len() } else { name_at };
        if full.len() == compact.len() || full.len() > end {
            return Ok(());
        }
        self.lay(0, &full);
        self.write_tail(drive, 0..full.len())?;
        self.write_head(drive, &full)
    }

    /// Says it all where nothing has been before, which the length of the header leads to, and goes back from there to
    /// where it belongs; false if there is no room for that.
    fn put_aside(&mut self, drive: &dyn Drive) -> Result<bool> {
        let full = self.list(true);
        let own = size_of::<Header>().saturating_add(self.unknown.len());
        let list = full.get(own..).unwrap_or_default().to_vec();
        let len = list.len().saturating_add(self.name.len());
        let ends = [self.list_at.end, self.name_at.end, SECTOR, own];
        let at = self.bytes.len().checked_sub(len).map_or(0, |at| at & !7);
        if self.header.version.get() < 3 || ends.iter().any(|end| *end > at) {
            return Ok(false);
        }
        let name = self.name.clone();
        let name_at = at.saturating_add(list.len());
        self.lay(at, &list);
        self.lay(name_at, &name);
        self.write_tail(drive, at..at.saturating_add(len))?;
        let usual = self.header.header_length;
        self.header.header_length = u32::try_from(at).unwrap_or(u32::MAX).into();
        self.point(name_at);
        let mut head = self.list(false).get(..own).unwrap_or_default().to_vec();
        head.resize(SECTOR.max(own), 0);
        self.write_head(drive, &head)?;
        self.header.header_length = usual;
        if full.len().saturating_add(name.len()) > at {
            return Ok(true);
        }
        self.point(full.len());
        let full = self.list(true);
        self.lay(0, &full);
        self.lay(full.len(), &name);
        self.write_tail(drive, 0..full.len().saturating_add(name.len()))?;
        self.write_head(drive, &full)?;
        Ok(true)
    }

    /// Whether the extensions stand there as they are to stand there.
    fn list_is(&self, list: &[u8]) -> bool {
        self.bytes.get(self.list_at.clone()).is_some_and(|now| now == list)
    }

    /// Where a name can lie without touching what counts, but for what is in the first sector.
    fn room(&self, list_len: usize) -> Option<usize> {
        if self.name.is_empty() {
            return Some(list_len);
        }
        let live = [&self.list_at, &self.name_at];
        let ends = live.iter().map(|live| live.end.next_multiple_of(8));
        core::iter::once(list_len).chain(ends).filter(|at| *at >= list_len).find(|at| {
            let end = at.saturating_add(self.name.len());
            let from = (*at).max(SECTOR);
            end <= self.bytes.len() && live.iter().all(|live| live.end <= from || live.start >= end)
        })
    }

    /// The header says where the name lies.
    fn point(&mut self, name_at: usize) {
        let at = if self.name.is_empty() { 0 } else { wide(name_at) };
        self.header.backing_file_offset = at.into();
        self.header.backing_file_size = u32::try_from(self.name.len()).unwrap_or(u32::MAX).into();
    }

    fn lay(&mut self, at: usize, bytes: &[u8]) {
        let room = self.bytes.get_mut(at..).unwrap_or_default();
        room.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    }

    /// Writes the sectors of a range, but not the first one.
    fn write_tail(&self, drive: &dyn Drive, range: Range<usize>) -> Result<()> {
        let from = (range.start / SECTOR).max(1).saturating_mul(SECTOR);
        let end = range.end.next_multiple_of(SECTOR).min(self.bytes.len());
        match self.bytes.get(from..end).filter(|bytes| !bytes.is_empty()) {
            Some(bytes) => {
                drive.write(self.start.ahead(wide(from)), bytes)?;
                drive.flush(self.start.file)
            }
            None => Ok(()),
        }
    }

    /// Writes the first sector, which begins so.
    fn write_head(&mut self, drive: &dyn Drive, list: &[u8]) -> Result<()> {
        self.lay(0, list.get(..list.len().min(SECTOR)).unwrap_or_default());
        let sector = self.bytes.get(..SECTOR).unwrap_or_default();
        drive.write(self.start, sector)?;
        drive.flush(self.start.file)
    }

    /// Where there is no room to say it twice: everything but the first sector goes first.
    fn rewrite(mut self, drive: &dyn Drive, full: &[u8]) -> Result<()> {
        let (list, end) = self.arrange(full)?;
        self.write_tail(drive, 0..end)?;
        self.write_head(drive, &list)
    }

    /// Lays everything down, one behind the other: header and extensions, and where it ends.
    fn arrange(&mut self, full: &[u8]) -> Result<(Vec<u8>, usize)> {
        let fits = |list: &[u8], name: usize| list.len().saturating_add(name) <= self.bytes.len();
        let with_names = fits(full, self.name.len());
        if !with_names && !fits(&self.list(false), self.name.len()) {
            return Err(no_room());
        }
        self.point(self.list(with_names).len());
        let list = self.list(with_names);
        let name = core::mem::take(&mut self.name);
        self.lay(0, &list);
        self.lay(list.len(), &name);
        let end = list.len().saturating_add(name.len());
        Ok((list, end))
    }
}
