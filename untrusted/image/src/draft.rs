//! The tables of an image as they will be: read where they are needed, changed here, and written when their turn comes.

use crate::file::Drive;
use crate::num::wide;
use crate::source::Place;
use alloc::vec;
use alloc::vec::Vec;
use instar_wire::error::{Kind, Result};
use instar_wire::io::FileId;

/// Bytes that are read at once; they begin at multiples of this.
const PAGE: u64 = 64 << 10;
/// Pages that are kept.
const PAGES: usize = 64;
/// What is written begins and ends at multiples of this: bytes of the guest may lie between tables, and are not touched.
const SECTOR: u64 = 512;

/// Bytes of a file, of which changes are kept for a while. Only through this are they changed.
pub struct Draft {
    file: FileId,
    /// The page used last comes last.
    pages: Vec<Page>,
    /// There has never been anything behind this.
    end: u64,
    /// Where the space ends that tables can have.
    limit: u64,
}

struct Page {
    at: u64,
    bytes: Vec<u8>,
    /// The sectors that have been changed, the first one lowest.
    changed: u128,
}

impl Draft {
    /// Of a file whose tables all lie before `end`.
    pub fn new(file: FileId, end: u64) -> Self {
        Draft { file, pages: Vec::new(), end, limit: end }
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

    /// The bytes at `at`.
    pub fn get<const N: usize>(&mut self, drive: &dyn Drive, at: u64) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read(drive, at, &mut bytes)?;
        Ok(bytes)
    }

    /// Fills `bytes` from `at`.
    pub fn read(&mut self, drive: &dyn Drive, at: u64, bytes: &mut [u8]) -> Result<()> {
        let (mut at, mut rest) = (at, bytes);
        while !rest.is_empty() {
            let have = self.page(drive, at)?.from(at);
            let len = have.len().min(rest.len());
            let (now, then) = rest.split_at_mut(len);
            now.iter_mut().zip(have).for_each(|(to, from)| *to = *from);
            (at, rest) = (at.saturating_add(wide(len)), then);
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
        for page in self.pages.iter_mut().filter(|page| page.at < end && page.at.saturating_add(PAGE) > at) {
            let from = at.max(page.at);
            let skip = usize::try_from(from.saturating_sub(at)).unwrap_or(usize::MAX);
            page.overlay(from, bytes.get(skip..).unwrap_or_default());
        }
        self.end = self.end.max(end);
        drive.write(Place { file: self.file, at }, bytes)
    }

    /// Writes all changes.
    pub fn flush(&mut self, drive: &dyn Drive) -> Result<()> {
        self.pages.sort_by_key(|page| page.at);
        for page in &mut self.pages {
            self.end = self.end.max(page.write(drive, self.file)?);
        }
        Ok(())
    }

    /// The page with the byte at `at`.
    fn page(&mut self, drive: &dyn Drive, at: u64) -> Result<&mut Page> {
        let start = at.saturating_sub(at % PAGE);
        if self.pages.last().is_none_or(|page| page.at != start) {
            let page = match self.pages.iter().position(|page| page.at == start) {
                Some(known) => self.pages.remove(known),
                None => self.load(drive, start)?,
            };
            self.pages.push(page);
        }
        // It has just been put there.
        let missing = || Kind::Corrupt.what("a page is missing");
        self.pages.last_mut().ok_or_else(missing)
    }

    fn load(&mut self, drive: &dyn Drive, at: u64) -> Result<Page> {
        let mut bytes = vec![0; usize::try_from(PAGE).unwrap_or(0)];
        let have = usize::try_from(self.end.saturating_sub(at).min(PAGE)).unwrap_or(0);
        match bytes.get_mut(..have) {
            Some(inside) if have > 0 => drive.read(self.file, at, inside)?,
            _ => {}
        }
        if self.pages.len() >= PAGES {
            let mut oldest = self.pages.remove(0);
            self.end = self.end.max(oldest.write(drive, self.file)?);
        }
        Ok(Page { at, bytes, changed: 0 })
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
        let first = at.saturating_sub(self.at) / SECTOR;
        let last = at.saturating_sub(self.at).saturating_add(bytes.len() as u64).div_ceil(SECTOR);
        for sector in first..last {
            self.changed |= 1u128.checked_shl(u32::try_from(sector).unwrap_or(u32::MAX)).unwrap_or(0);
        }
    }

    /// Writes what has been changed; answers where that ends.
    fn write(&mut self, drive: &dyn Drive, file: FileId) -> Result<u64> {
        let mut end = 0;
        let sectors = PAGE / SECTOR;
        let is_changed = |changed: u128, sector: u64| changed >> sector & 1 == 1;
        let mut sector = 0;
        while sector < sectors {
            let from = sector;
            while sector < sectors && is_changed(self.changed, sector) {
                sector = sector.saturating_add(1);
            }
            if sector > from {
                let (skip, until) = (from.saturating_mul(SECTOR), sector.saturating_mul(SECTOR));
                let at = self.at.saturating_add(skip);
                let range = usize::try_from(skip).unwrap_or(0)..usize::try_from(until).unwrap_or(0);
                drive.write(Place { file, at }, self.bytes.get(range).unwrap_or_default())?;
                end = self.at.saturating_add(until);
            }
            sector = sector.saturating_add(1);
        }
        self.changed = 0;
        Ok(end)
    }
}
