//! Changes of a VMware disk that is there.
//!
//! The size of a sparse extent stands in its header, that of a flat one in the descriptor: either is one sector, which is
//! written when all that it leads to is there. Where the line in the descriptor does not end in the sector in which it
//! begins, and nothing gives way, another file takes the descriptor's place.

mod extent;
mod parent;
#[cfg(test)]
mod tests;

use super::descriptor;
use super::locate;
use super::open::{Body, Checked, Extent};
use alloc::vec::Vec;
use extent::{Sizing, Sparse};
use instar_image::edit::Footing;
use instar_image::num::{narrow, wide};
use instar_image::sector::{SECTOR, SECTORS_MAX, TOO_LARGE};
use instar_image::stretch::stretch;
use instar_image::{Chain, Drive, Edit, Error, File, Kind, Place, Preallocation, Result};
pub use parent::identifier;

/// A disk that is changed.
pub struct Change<'i, 'a> {
    /// The file that it is opened by.
    pub file: &'i File<'a>,
    /// What the image says of itself.
    pub checked: &'i Checked,
}

impl Edit for Change<'_, '_> {
    /// It is the last extent that grows. A shorter disk has no extents behind its end.
    fn resize(&mut self, drive: &dyn Drive, size: u64, space: Preallocation, below: &Chain<'_>) -> Result<u64> {
        let sectors = size.div_ceil(SECTOR);
        if sectors > SECTORS_MAX {
            return Err(Kind::TooBig.what(TOO_LARGE).file(self.file.id()));
        }
        let size = sectors.saturating_mul(SECTOR);
        let all = &self.checked.extents;
        let last = all.last().ok_or_else(|| Kind::Corrupt.what("no extent in the image descriptor can be read"))?;
        let start = self.checked.virtual_size.saturating_sub(last.sectors.saturating_mul(SECTOR));
        if size == self.checked.virtual_size {
            return Ok(size);
        }
        let text = self.text()?;
        if size > self.checked.virtual_size {
            let mut sizes: Vec<_> = all.iter().map(|extent| Some(extent.sectors)).collect();
            let new = sectors.saturating_sub(start / SECTOR);
            sizes.iter_mut().last().into_iter().for_each(|last| *last = Some(new));
            let text = self.planned(&text, &sizes).or_else(|why| self.bequeathed(drive, &text, &sizes, why))?;
            self.lengthen(drive, last, (start, new), space, below)?;
            self.renew(drive, &text)?;
            self.trim(drive, &text)?;
            return Ok(size);
        }
        self.shorten(drive, &text, sectors)?;
        Ok(size)
    }

    fn may_stand_on(&self, footing: &Footing<'_>) -> Result<()> {
        self.steps(footing).map(drop)
    }

    fn stand_on(&mut self, drive: &dyn Drive, footing: &Footing<'_>) -> Result<()> {
        let steps = self.steps(footing)?;
        steps.iter().try_for_each(|step| self.renew(drive, step))?;
        steps.last().map_or(Ok(()), |last| self.trim(drive, last))
    }

    fn empty(&mut self, drive: &dyn Drive) -> Result<()> {
        let own = Chain { layers: Vec::new() };
        for is_tried in [true, false] {
            for extent in &self.checked.extents {
                let Body::Sparse(sparse) = &extent.body else {
                    return Err(unchanged("what a flat extent holds cannot be left out", self.file));
                };
                let file = self.extent_file(extent);
                let part = Sparse { file: &file, sparse, start: 0, sectors: extent.sectors, is_over: true, own: &own };
                let sizing = Sizing::new(&part, drive, extent.sectors)?;
                if !is_tried {
                    sizing.empty()?;
                }
            }
        }
        Ok(())
    }
}

/// A text that takes the place of another.
struct Planned {
    bytes: Vec<u8>,
    /// Bytes of the file that were the text before.
    old: Vec<u8>,
}

impl Change<'_, '_> {
    /// All of the descriptor, of which only the beginning is kept in memory otherwise.
    fn text(&self) -> Result<Vec<u8>> {
        let len = match self.checked.text_at {
            0 => self.file.len().min(TEXT_MAX),
            _ => wide(self.checked.text.len()),
        };
        let bytes = self.file.read_vec(self.checked.text_at, narrow(len))?;
        Ok(descriptor::text_of(&bytes).to_vec())
    }

    /// The text with other sizes.
    fn planned(&self, text: &[u8], sizes: &[Option<u64>]) -> Result<Planned> {
        let odd = || Kind::Unsupported.what("the descriptor does not name the extents one by one").file(self.file.id());
        // In front of the grains it is only told for those who want to read it.
        if descriptor::extents(text).count() != sizes.len() && self.checked.text_at > 0 {
            return Ok(Planned { bytes: text.to_vec(), old: text.to_vec() });
        }
        let plan = |bytes| Planned { bytes, old: text.to_vec() };
        let with = |geometry| descriptor::resized(text, sizes, geometry).map(plan);
        let planned = with(true).ok_or_else(odd)?;
        let has_room = self.checked.text_at == 0 || planned.bytes.len() <= planned.old.len().next_multiple_of(512);
        if planned.is_at_once() && has_room {
            return Ok(planned);
        }
        // What it says there of the extent is not what counts.
        if self.checked.text_at > 0 {
            return Ok(plan(text.to_vec()));
        }
        let bare = || with(false).and_then(|bare| bare.spared().or(Some(bare).filter(Planned::is_at_once)));
        planned.spared().or_else(bare).or_else(|| Planned::still(text, sizes)).ok_or_else(|| {
            let words = "the descriptor is too long to be changed at once: more than one of its sectors would be";
            Kind::Unsupported.what(words).file(self.file.id())
        })
    }

    /// The text with other sizes goes to a file of its own, where that can be: nobody sees it before all is done, and in this
    /// one nothing changes.
    fn bequeathed(&self, drive: &dyn Drive, text: &[u8], sizes: &[Option<u64>], why: Error) -> Result<Planned> {
        let own = self.file.place(0);
        let is_all = self.checked.text_at == 0 && own.at == 0 && self.file.len() == drive.length(own.file)?;
        let (true, Some(bytes)) = (is_all, descriptor::resized(text, sizes, true)) else { return Err(why) };
        let Ok(heir) = drive.part(own.file, b"") else { return Err(why) };
        drive.write(Place { file: heir, at: 0 }, &bytes)?;
        drive.flush(heir)?;
        Ok(Planned { bytes: text.to_vec(), old: text.to_vec() })
    }

    /// Has extents at the end become remarks, those of a sector at a time, so that the rest can be done at once; if it never
    /// could be, nothing happens. On the way, the disk has sizes in between.
    fn approach(&self, drive: &dyn Drive, text: &[u8], sizes: &[Option<u64>], why: Error) -> Result<Planned> {
        let all: Vec<usize> = descriptor::extents(text).collect();
        let gone: Vec<usize> = all.iter().zip(sizes).filter(|(_, size)| size.is_none()).map(|(at, _)| *at).collect();
        let sectors: Vec<&[usize]> = gone.chunk_by(|one, next| sector_of(*one) == sector_of(*next)).collect();
        // What is left out of the first of these sectors can go with the end, or before it.
        for left in [1, 0] {
            let early = sectors.get(left..).unwrap_or_default();
            let kept = all.len().saturating_sub(early.iter().map(|sector| sector.len()).sum());
            let near = remarked(text.to_vec(), early.concat().iter());
            let Ok(planned) = self.planned(&near, sizes.get(..kept).unwrap_or_default()) else { continue };
            let mut old = text.to_vec();
            for sector in early.iter().rev() {
                let bytes = remarked(old.clone(), sector.iter());
                let step = Planned { bytes, old };
                self.renew(drive, &step)?;
                old = step.bytes;
            }
            return Ok(planned);
        }
        Err(why)
    }

    /// Writes a text: what nobody sees yet first.
    fn renew(&self, drive: &dyn Drive, text: &Planned) -> Result<()> {
        if text.bytes == text.old {
            return Ok(());
        }
        let place = self.file.place(self.checked.text_at);
        // Behind the end of the old text nobody looks before the link, and behind that of the new one nobody after it.
        let (seen, unseen_yet) = (text.seen(), sector_of(text.old.len()));
        let changed: Vec<_> = text.sectors().enumerate().filter(|(_, (new, old))| new != old).collect();
        for turn in 0..3 {
            let is_now = |index: usize| match turn {
                0 => index > unseen_yet,
                1 => index <= seen,
                _ => index > seen && index <= unseen_yet,
            };
            for (index, (new, _)) in changed.iter().filter(|(index, _)| is_now(*index)) {
                drive.write(place.ahead(wide(*index).saturating_mul(SECTOR)), new)?;
                drive.flush(place.file)?;
            }
        }
        Ok(())
    }

    /// A file that is nothing but a descriptor ends with its text.
    fn trim(&self, drive: &dyn Drive, text: &Planned) -> Result<()> {
        let (file, end) = (self.file.id(), self.file.place(wide(text.bytes.len())).at);
        if self.checked.text_at > 0 || text.bytes == text.old || drive.length(file)? <= end {
            return Ok(());
        }
        drive.set_length(file, end)?;
        drive.flush(file)
    }

    fn lengthen(
        &self,
        drive: &dyn Drive,
        last: &Extent,
        (start, new): (u64, u64),
        space: Preallocation,
        below: &Chain<'_>,
    ) -> Result<()> {
        match &last.body {
            Body::Flat { start } => {
                let place = |sectors: u64| start.saturating_add(sectors).saturating_mul(SECTOR);
                let (old, end) = (place(last.sectors), place(new));
                // There may be something behind the disk.
                let have = drive.length(last.file)?.min(end).saturating_sub(old);
                if have > 0 {
                    drive.zero(Place { file: last.file, at: old }, have, false)?;
                }
                stretch(drive, last.file, end.max(drive.length(last.file)?), space)
            }
            Body::Sparse(_) if space != Preallocation::Off => {
                Err(Kind::Unsupported.what("space can only be set aside in a VMDK of a flat kind"))
            }
            Body::Sparse(sparse) => {
                let own = Chain::single(locate::layer(self.checked)?);
                let is_over = self.checked.parent.is_some();
                let file = self.extent_file(last);
                let part = Sparse { file: &file, sparse, start, sectors: last.sectors, is_over, own: &own };
                Sizing::new(&part, drive, new)?.grow(below)
            }
        }
    }

    fn extent_file(&self, extent: &Extent) -> File<'_> {
        File::slice(self.file.io(), extent.file, 0, self.file.io().len(extent.file))
    }

    fn shorten(&self, drive: &dyn Drive, text: &[u8], sectors: u64) -> Result<()> {
        let all = &self.checked.extents;
        let mut left = sectors;
        let mut sizes = Vec::new();
        for extent in all {
            let size = left.min(extent.sectors);
            left = left.saturating_sub(size);
            sizes.push(Some(size).filter(|size| *size > 0));
        }
        let planned = match self.planned(text, &sizes) {
            Err(error) => self.approach(drive, text, &sizes, error)?,
            planned => planned?,
        };
        self.renew(drive, &planned)?;
        let mut start = 0u64;
        for (extent, size) in all.iter().zip(&sizes) {
            self.release(drive, extent, start, *size)?;
            start = start.saturating_add(extent.sectors.saturating_mul(SECTOR));
        }
        self.trim(drive, &planned)
    }

    /// What an extent does not have any more is given up.
    fn release(&self, drive: &dyn Drive, extent: &Extent, start: u64, size: Option<u64>) -> Result<()> {
        match (&extent.body, size) {
            (_, Some(size)) if size == extent.sectors => Ok(()),
            (Body::Flat { start }, size) => {
                let end = |sectors: u64| start.saturating_add(sectors).saturating_mul(SECTOR);
                // Behind it there may be another one.
                if drive.length(extent.file)? > end(extent.sectors) {
                    return Ok(());
                }
                drive.set_length(extent.file, end(size.unwrap_or(0)))?;
                drive.flush(extent.file)
            }
            // The file stays, as nobody is told that it goes; it takes no space any more.
            (Body::Sparse(_), None) => {
                drive.set_length(extent.file, 0)?;
                drive.flush(extent.file)
            }
            (Body::Sparse(sparse), Some(size)) => {
                let own = Chain { layers: Vec::new() };
                let file = self.extent_file(extent);
                let is_over = self.checked.parent.is_some();
                let part = Sparse { file: &file, sparse, start, sectors: extent.sectors, is_over, own: &own };
                Sizing::new(&part, drive, size)?.shrink()
            }
        }
    }
}

/// The longest descriptor that is looked at.
const TEXT_MAX: u64 = (1 << 20) - 1;

impl Planned {
    /// The last sector of which a reader sees something in either text.
    fn seen(&self) -> usize {
        sector_of(self.old.len().min(self.bytes.len()))
    }

    /// Sector by sector what will be there, and what is.
    fn sectors(&self) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
        let count = self.old.len().max(self.bytes.len()).div_ceil(narrow(SECTOR));
        (0..count).map(|index| (sector(&self.bytes, index), sector(&self.old, index)))
    }

    /// Whether no more than one of the sectors changes of which a reader sees something.
    fn is_at_once(&self) -> bool {
        self.sectors().take(self.seen().saturating_add(1)).filter(|(new, old)| new != old).count() <= 1
    }

    /// The same text, of the same length as before: a remark gives way, or gets blanks.
    fn spared(&self) -> Option<Planned> {
        let Planned { bytes, old } = self;
        let (more, less) = (bytes.len().saturating_sub(old.len()), old.len().saturating_sub(bytes.len()));
        descriptor::remarks(bytes).filter(|words| words.len() >= more).find_map(|words| {
            // The end of the remark may be in the next sector.
            let mut bytes = bytes.clone();
            bytes.splice(words.start..words.start.checked_add(more)?, core::iter::repeat_n(b' ', less));
            Some(Planned { bytes, old: old.clone() }).filter(Planned::is_at_once)
        })
    }

    /// The text with other sizes, in which not a byte moves: what is left out becomes a remark. The geometry stays.
    fn still(text: &[u8], sizes: &[Option<u64>]) -> Option<Planned> {
        let bytes = descriptor::remarked(text, sizes)?;
        Some(Planned { bytes, old: text.to_vec() }).filter(Planned::is_at_once)
    }
}

/// The text in which lines that begin at these places have become remarks.
fn remarked<'p>(mut text: Vec<u8>, places: impl Iterator<Item = &'p usize>) -> Vec<u8> {
    for at in places {
        text.iter_mut().skip(*at).take(1).for_each(|first| *first = b'#');
    }
    text
}

/// The sector in which a text of this length ends.
fn sector_of(len: usize) -> usize {
    len / narrow(SECTOR)
}

/// A sector of a text, padded with zeroes.
fn sector(bytes: &[u8], index: usize) -> Vec<u8> {
    let len = narrow(SECTOR);
    let rest = bytes.get(index.saturating_mul(len)..).unwrap_or_default();
    let mut sector = rest.get(..len.min(rest.len())).unwrap_or_default().to_vec();
    sector.resize(len, 0);
    sector
}

/// The error for what is read, not changed.
pub fn unchanged(words: &'static str, file: &File<'_>) -> Error {
    Kind::Unsupported.what(words).file(file.id())
}
