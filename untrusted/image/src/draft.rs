//! The tables of an image as they will be: read where they are needed, changed here, and written when their turn comes.

use crate::file::Drive;
use crate::num::{narrow, wide};
use crate::source::Place;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use instar_wire::error::{Kind, Result};
use instar_wire::io::FileId;

/// Bytes that are read at once; they begin at multiples of this.
const PAGE: u64 = 64 << 10;
/// Pages that are kept, unless more are asked for.
const PAGES: usize = 64;
/// What is written begins and ends at multiples of this: bytes of the guest may lie between tables, and are not touched.
const SECTOR: u64 = 512;
/// The longest reference, or what counts as one: it lies in a sector.
const LINK_MAX: u64 = SECTOR;

/// Pages are looked for first where one with a number that ends like this was last.
const NEAR: usize = 512;
/// What lies in a row is written together up to this length.
const JOINED: usize = 512 << 10;

/// Bytes of a file, of which changes are kept for a while. Only through this are they changed.
pub struct Draft {
    file: FileId,
    /// What is in memory, in no order.
    pages: Vec<Page>,
    /// Where the page is among them that begins at some place of the file.
    index: BTreeMap<u64, usize>,
    /// The same of those that were used last; a guess.
    near: Vec<usize>,
    most: usize,
    /// Counts the uses of pages.
    clock: u64,
    /// There has never been anything behind this.
    end: u64,
    /// References to be turned over when all they lead to is durable; none if it does not matter when that happens.
    links: Option<BTreeMap<u64, Vec<u8>>>,
    /// Where the space ends that tables can have.
    limit: u64,
}

struct Page {
    at: u64,
    bytes: Vec<u8>,
    /// The sectors that have been changed, the first one lowest.
    changed: u128,
    /// When it was used last.
    used: u64,
}

impl Draft {
    /// Of a file whose tables all lie before `end`.
    pub fn new(file: FileId, end: u64) -> Self {
        Draft {
            file,
            pages: Vec::new(),
            index: BTreeMap::new(),
            near: vec![0; NEAR],
            most: PAGES,
            clock: 0,
            end,
            limit: end,
            links: None,
        }
    }

    /// The same of a file that somebody relies on: whatever happens, it is as it was before [`Self::settle`] or as it is
    /// after that. Everything but [`Self::link`] must go where nothing that counts refers to.
    #[must_use]
    pub fn ordered(mut self) -> Self {
        self.keep_order();
        self
    }

    /// See [`Self::ordered`].
    pub fn keep_order(&mut self) {
        self.links.get_or_insert_default();
    }

    /// The same with more pages in memory: for those who look here and there in tables of this length.
    #[must_use]
    pub fn with_room(self, len: u64) -> Self {
        Draft { most: usize::try_from(len / PAGE).unwrap_or(PAGES).max(PAGES), ..self }
    }

    /// Space of the file has been given out up to here. Where none has, no table can be: whoever wrote to one there would
    /// make the file as long as an image likes.
    pub fn reaches(&mut self, end: u64) {
        self.limit = self.limit.max(end);
    }

    /// Refuses what lies behind all the space there is.
    fn check(&self, at: u64, len: u64) -> Result<()> {
        let limit = self.limit.checked_next_multiple_of(SECTOR).unwrap_or(self.limit);
        match at.checked_add(len).filter(|end| *end <= limit) {
            Some(_) => Ok(()),
            None => Err(Kind::Corrupt.what("a table lies behind the end of the file").file(self.file).at(at)),
        }
    }

    /// The file.
    pub fn file(&self) -> FileId {
        self.file
    }

    /// Whether it matters in which order changes reach the file.
    pub fn is_ordered(&self) -> bool {
        self.links.is_some()
    }

    /// References that wait for their turn.
    pub fn waiting(&self) -> usize {
        self.links.as_ref().map_or(0, BTreeMap::len)
    }

    /// The bytes at `at`.
    pub fn get<const N: usize>(&mut self, drive: &dyn Drive, at: u64) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read(drive, at, &mut bytes)?;
        Ok(bytes)
    }

    /// Fills `bytes` from `at`.
    pub fn read(&mut self, drive: &dyn Drive, at: u64, bytes: &mut [u8]) -> Result<()> {
        let (mut here, mut rest) = (at, &mut *bytes);
        while !rest.is_empty() {
            let have = self.page(drive, here)?.from(here);
            let len = have.len().min(rest.len());
            let (now, then) = rest.split_at_mut(len);
            now.iter_mut().zip(have).for_each(|(to, from)| *to = *from);
            (here, rest) = (here.saturating_add(wide(len)), then);
        }
        let end = at.saturating_add(bytes.len() as u64);
        for (link_at, link) in self.links.iter().flat_map(|all| all.range(at.saturating_sub(LINK_MAX)..end)) {
            let (skip, from) = (link_at.saturating_sub(at), at.saturating_sub(*link_at));
            let room = bytes.get_mut(narrow(skip)..).unwrap_or_default();
            let link = link.get(narrow(from)..).unwrap_or_default();
            room.iter_mut().zip(link).for_each(|(to, from)| *to = *from);
        }
        Ok(())
    }

    /// Changes the bytes at `at`.
    pub fn put(&mut self, drive: &dyn Drive, at: u64, bytes: &[u8]) -> Result<()> {
        self.check(at, wide(bytes.len()))?;
        let (mut at, mut rest) = (at, bytes);
        while !rest.is_empty() {
            let page = self.page(drive, at)?;
            let len = page.from(at).len().min(rest.len());
            let (now, then) = rest.split_at_checked(len).unwrap_or_default();
            page.change(at, now);
            (at, rest) = (at.saturating_add(wide(len)), then);
        }
        Ok(())
    }

    /// Changes bytes where they are, but for references that wait: `change` is given those from `at` on that lie in one
    /// page, at most `len`; answers how many.
    pub fn alter(&mut self, drive: &dyn Drive, at: u64, len: u64, change: &mut dyn FnMut(&mut [u8])) -> Result<u64> {
        self.check(at, len)?;
        let page = self.page(drive, at)?;
        let skip = page.skip(at);
        let room = page.bytes.get_mut(skip..).unwrap_or_default();
        let len = room.len().min(narrow(len));
        change(room.get_mut(..len).unwrap_or_default());
        page.mark(at, wide(len));
        Ok(wide(len))
    }

    /// Turns over a reference: its bytes lie in one sector.
    pub fn link(&mut self, drive: &dyn Drive, at: u64, bytes: &[u8]) -> Result<()> {
        match &mut self.links {
            Some(links) => {
                links.insert(at, bytes.to_vec());
                Ok(())
            }
            None => self.put(drive, at, bytes),
        }
    }

    /// Writes everything, references last.
    pub fn settle(&mut self, drive: &dyn Drive) -> Result<()> {
        let links = self.links.as_mut().map(core::mem::take).unwrap_or_default();
        self.flush(drive)?;
        if links.is_empty() {
            return Ok(());
        }
        drive.flush(self.file)?;
        for (at, bytes) in &links {
            self.put(drive, *at, bytes)?;
        }
        self.flush(drive)?;
        drive.flush(self.file)
    }

    /// Makes `len` bytes from `at` on zeroes, whatever was there.
    pub fn blank(&mut self, drive: &dyn Drive, at: u64, len: u64) -> Result<()> {
        const ZEROES: [u8; 4096] = [0; 4096];
        let (mut at, end) = (at, at.saturating_add(len));
        while at < end {
            let len = usize::try_from(end.saturating_sub(at)).unwrap_or(ZEROES.len()).min(ZEROES.len());
            self.put(drive, at, ZEROES.get(..len).unwrap_or_default())?;
            at = at.saturating_add(wide(len));
        }
        Ok(())
    }

    /// Writes bytes at once, which begin and end at sectors.
    pub fn write_through(&mut self, drive: &dyn Drive, at: u64, bytes: &[u8]) -> Result<()> {
        self.check(at, wide(bytes.len()))?;
        let end = at.saturating_add(bytes.len() as u64);
        let first = at.saturating_sub(at % PAGE);
        for (_, slot) in self.index.range(first..end) {
            let Some(page) = self.pages.get_mut(*slot) else { continue };
            let from = at.max(page.at);
            let skip = usize::try_from(from.saturating_sub(at)).unwrap_or(usize::MAX);
            page.overlay(from, bytes.get(skip..).unwrap_or_default());
        }
        self.end = self.end.max(end);
        drive.write(Place { file: self.file, at }, bytes)
    }

    /// Writes all changes but references that wait for their turn.
    pub fn flush(&mut self, drive: &dyn Drive) -> Result<()> {
        self.write(drive, u64::MAX)
    }

    /// The page with the byte at `at`.
    fn page(&mut self, drive: &dyn Drive, at: u64) -> Result<&mut Page> {
        let start = at.saturating_sub(at % PAGE);
        let near = narrow(start / PAGE) % NEAR;
        let guess = self.near.get(near).copied().unwrap_or(0);
        let slot = match self.pages.get(guess) {
            Some(page) if page.at == start => guess,
            _ => self.slot(drive, start, near)?,
        };
        self.clock = self.clock.saturating_add(1);
        // It has just been found or put there.
        let missing = || Kind::Corrupt.what("a page is missing");
        let page = self.pages.get_mut(slot).ok_or_else(missing)?;
        page.used = self.clock;
        Ok(page)
    }

    /// Where the page is that begins there; brought into memory if it is not.
    fn slot(&mut self, drive: &dyn Drive, start: u64, near: usize) -> Result<usize> {
        let slot = match self.index.get(&start) {
            Some(known) => *known,
            None => {
                let page = self.load(drive, start)?;
                let slot = self.pages.len();
                self.pages.push(page);
                self.index.insert(start, slot);
                slot
            }
        };
        self.near.iter_mut().skip(near).take(1).for_each(|guess| *guess = slot);
        Ok(slot)
    }

    fn load(&mut self, drive: &dyn Drive, at: u64) -> Result<Page> {
        if self.pages.len() >= self.most {
            self.make_room(drive)?;
        }
        let mut bytes = vec![0; usize::try_from(PAGE).unwrap_or(0)];
        let have = usize::try_from(self.end.saturating_sub(at).min(PAGE)).unwrap_or(0);
        match bytes.get_mut(..have) {
            Some(inside) if have > 0 => drive.read(self.file, at, inside)?,
            _ => {}
        }
        Ok(Page { at, bytes, changed: 0, used: 0 })
    }

    /// Writes and forgets the pages that have not been used for longest, some at once.
    fn make_room(&mut self, drive: &dyn Drive) -> Result<()> {
        let mut ages: Vec<u64> = self.pages.iter().map(|page| page.used).collect();
        let (_, limit, _) = ages.select_nth_unstable(self.most / 16);
        let limit = *limit;
        self.write(drive, limit)?;
        self.pages.retain(|page| page.used > limit);
        self.index = self.pages.iter().enumerate().map(|(slot, page)| (page.at, slot)).collect();
        Ok(())
    }

    /// Writes what has been changed of the pages that were not used later, in the order of the file.
    fn write(&mut self, drive: &dyn Drive, limit: u64) -> Result<()> {
        let (mut from, mut joined) = (0, Vec::new());
        let mut end = self.end;
        let mut put = |at: u64, joined: &[u8]| -> Result<()> {
            if joined.is_empty() {
                return Ok(());
            }
            end = end.max(at.saturating_add(wide(joined.len())));
            drive.write(Place { file: self.file, at }, joined)
        };
        let slots = || self.index.values().filter_map(|slot| self.pages.get(*slot));
        for page in slots().filter(|page| page.used <= limit && page.changed != 0) {
            page.each_change(&mut |at, bytes| {
                let follows = wide(joined.len()).checked_add(from) == Some(at);
                if !follows || joined.len().saturating_add(bytes.len()) > JOINED {
                    put(from, &joined)?;
                    joined.clear();
                    from = at;
                }
                joined.extend_from_slice(bytes);
                Ok(())
            })?;
        }
        put(from, &joined)?;
        self.end = end;
        let written = self.pages.iter_mut().filter(|page| page.used <= limit);
        written.for_each(|page| page.changed = 0);
        Ok(())
    }
}

impl Page {
    /// The bytes from `at` on.
    fn from(&self, at: u64) -> &[u8] {
        self.bytes.get(self.skip(at)..).unwrap_or_default()
    }

    fn skip(&self, at: u64) -> usize {
        usize::try_from(at.saturating_sub(self.at)).unwrap_or(usize::MAX)
    }

    fn overlay(&mut self, at: u64, bytes: &[u8]) {
        let skip = self.skip(at);
        let room = self.bytes.get_mut(skip..).unwrap_or_default();
        room.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    }

    fn change(&mut self, at: u64, bytes: &[u8]) {
        self.overlay(at, bytes);
        self.mark(at, bytes.len() as u64);
    }

    /// So many bytes have been changed.
    fn mark(&mut self, at: u64, len: u64) {
        let first = at.saturating_sub(self.at) / SECTOR;
        let last = at.saturating_sub(self.at).saturating_add(len).div_ceil(SECTOR);
        for sector in first..last {
            self.changed |= 1u128.checked_shl(u32::try_from(sector).unwrap_or(u32::MAX)).unwrap_or(0);
        }
    }

    /// Tells the sectors in a row that have been changed.
    fn each_change(&self, tell: &mut dyn FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        let sectors = PAGE / SECTOR;
        let is_changed = |sector: u64| self.changed >> sector & 1 == 1;
        let mut sector = 0;
        while sector < sectors {
            let from = sector;
            while sector < sectors && is_changed(sector) {
                sector = sector.saturating_add(1);
            }
            if sector > from {
                let (skip, until) = (from.saturating_mul(SECTOR), sector.saturating_mul(SECTOR));
                let range = usize::try_from(skip).unwrap_or(0)..usize::try_from(until).unwrap_or(0);
                tell(self.at.saturating_add(skip), self.bytes.get(range).unwrap_or_default())?;
            }
            sector = sector.saturating_add(1);
        }
        Ok(())
    }
}
