//! The log of a VHDX, replayed in memory: the file as it would be had everything reached its place.

use super::disk::{LOG_SECTOR, LogDataSector, LogDescriptor};
use super::log::{Entry, Log};
use super::open::{invalid, readable};
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use instar_image::file::Hole;
use instar_image::{Drive, FileId, Granted, Io, Kind, Place, Result, Role};
use zerocopy::FromZeros;
use zerocopy::IntoBytes;

/// Descriptors that are replayed; with a sector each this would be a log of 4 GiB.
const DESCRIPTORS_MAX: u64 = 1 << 20;
/// Stretches of the file that may differ from what lies there.
const PIECES_MAX: usize = 1 << 18;

/// What lies in the file's place for a stretch of it.
#[derive(Clone, Copy)]
enum Patch {
    /// Zeroes.
    Zero,
    /// One sector of the log, but for its first and last bytes.
    Sector { at: u64, leading: [u8; 8], trailing: [u8; 4] },
}

struct Piece {
    end: u64,
    patch: Patch,
}

/// All that differs from what lies in the file. Stretches do not overlap; sectors are whole.
pub struct Overlay {
    /// The file. Offsets are counted from its first byte, also if the image is only a part of it.
    file: FileId,
    pieces: BTreeMap<u64, Piece>,
    /// Where the file ends.
    end: u64,
}

impl Overlay {
    /// What the entries do, one after another.
    pub fn new(log: &Log<'_, '_>, entries: &[Entry]) -> Result<Self> {
        let start = log.file.place(0);
        let mut overlay = Overlay { file: start.file, pieces: BTreeMap::new(), end: start.ahead(log.file.len()).at };
        let mut count = 0u64;
        for entry in entries {
            count = count.saturating_add(entry.count);
            if count > DESCRIPTORS_MAX {
                return Err(too_much());
            }
            let mut data_at = entry.place.saturating_add(entry.data_at());
            for index in 0..entry.count {
                let told = log.descriptor(entry, index)?;
                let patch = if &told.signature == b"zero" { Patch::Zero } else { sector(log, entry, data_at, &told)? };
                if let Patch::Sector { .. } = patch {
                    data_at = data_at.saturating_add(LOG_SECTOR);
                }
                overlay.add(log, &told, patch)?;
            }
        }
        let last = entries.last().map_or(0, |head| head.last);
        overlay.end = overlay.end.max(start.ahead(readable(last)?).at);
        Ok(overlay)
    }

    fn add(&mut self, log: &Log<'_, '_>, told: &LogDescriptor, patch: Patch) -> Result<()> {
        let len = if let Patch::Zero = patch { told.leading.get() } else { LOG_SECTOR };
        let (from, to) = (told.file_offset.get(), told.file_offset.get().checked_add(len).ok_or_else(invalid)?);
        readable(to)?;
        if from < log.at.saturating_add(log.len) && log.at < to {
            return Err(Kind::Corrupt.what("the log of the image would be written over itself").at(from));
        }
        if len == 0 {
            return Ok(());
        }
        let (from, to) = (log.file.place(from).at, log.file.place(to).at);
        self.put(from, to, patch);
        if self.pieces.len() > PIECES_MAX {
            return Err(too_much());
        }
        self.end = self.end.max(to);
        Ok(())
    }

    /// Puts a patch in place of what has been there.
    fn put(&mut self, from: u64, to: u64, patch: Patch) {
        if let Some((_, before)) = self.pieces.range_mut(..from).next_back()
            && before.end > from
        {
            let rest = Piece { end: before.end, patch: before.patch };
            before.end = from;
            if rest.end > to {
                self.pieces.insert(to, rest);
            }
        }
        while let Some((at, end)) = self.pieces.range(from..to).next().map(|(at, piece)| (*at, piece.end)) {
            if let Some(piece) = self.pieces.remove(&at)
                && end > to
            {
                self.pieces.insert(to, piece);
            }
        }
        self.pieces.insert(from, Piece { end: to, patch });
    }

    /// What becomes of a byte, and for how many from there on it is the same.
    pub fn at(&self, at: u64) -> (u64, Fate) {
        if let Some((_, piece)) = self.pieces.range(..=at).next_back()
            && piece.end > at
        {
            let fate = if let Patch::Zero = piece.patch { Fate::Zero } else { Fate::Logged };
            return (piece.end.saturating_sub(at), fate);
        }
        let next = self.pieces.range(at..).next().map_or(u64::MAX, |(next, _)| *next);
        (next.saturating_sub(at), Fate::Kept)
    }

    /// Where the part of the file ends that begins at `start`.
    pub fn len_from(&self, start: Place) -> u64 {
        self.end.saturating_sub(start.at)
    }

    /// Makes the file what it is read as.
    pub fn apply(&self, drive: &dyn Drive) -> Result<()> {
        for (at, piece) in &self.pieces {
            let place = Place { file: self.file, at: *at };
            let len = piece.end.saturating_sub(*at);
            if let Patch::Zero = piece.patch {
                drive.zero(place, len, false)?;
                continue;
            }
            let mut bytes = vec![0; usize::try_from(len.min(LOG_SECTOR)).unwrap_or(0)];
            self.patch(drive, *at, &mut bytes)?;
            drive.write(place, &bytes)?;
        }
        if drive.length(self.file)? < self.end { drive.set_length(self.file, self.end) } else { Ok(()) }
    }

    /// Changes bytes as they lie in the file at `at` into what they are.
    fn patch<I: Io + ?Sized>(&self, io: &I, at: u64, buf: &mut [u8]) -> Result<()> {
        let end = at.saturating_add(buf.len() as u64);
        for (start, piece) in self.pieces.range(..end).rev().take_while(|(_, piece)| piece.end > at) {
            let skip = at.saturating_sub(*start);
            let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
            let (from, to) = (index(start.saturating_sub(at)), index(piece.end.min(end).saturating_sub(at)));
            let part = buf.get_mut(from..to).unwrap_or_default();
            let Patch::Sector { at: sector_at, leading, trailing } = piece.patch else {
                part.fill(0);
                continue;
            };
            let mut sector = LogDataSector::new_zeroed();
            io.read(self.file, sector_at, sector.as_mut_bytes())?;
            (sector.leading, sector.trailing) = (leading, trailing);
            let bytes = sector.as_bytes().get(index(skip)..).unwrap_or_default();
            part.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        }
        Ok(())
    }
}

/// What replaying does to bytes of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// Nothing.
    Kept,
    /// They become zeroes.
    Zero,
    /// They come out of the log.
    Logged,
}

/// The sector of data at `place` of the log, which a descriptor belongs to.
fn sector(log: &Log<'_, '_>, entry: &Entry, place: u64, told: &LogDescriptor) -> Result<Patch> {
    let at = log.locate(place);
    let data: LogDataSector = log.file.read_as(at)?;
    let sequence = &entry.sequence.to_le_bytes();
    let inside = place.saturating_add(LOG_SECTOR) <= entry.place.saturating_add(entry.len);
    let (low, high) = sequence.split_at(data.trailing.len());
    let sound = data.leading.strip_prefix(b"data") == Some(high) && data.trailing == low;
    // A sector that the file is too short for could not be read again.
    let held = at.saturating_add(LOG_SECTOR) <= log.file.len();
    if !inside || !sound || !held {
        return Err(invalid().at(at));
    }
    Ok(Patch::Sector { at: log.file.place(at).at, leading: told.leading.get().to_le_bytes(), trailing: told.trailing })
}

fn too_much() -> instar_image::Error {
    Kind::TooBig.what("the log changes more of the file than can be remembered")
}

/// Files of which one is read as if its log had been replayed.
pub struct Replayed<'c> {
    /// The files as they are.
    pub io: &'c dyn Io,
    /// What is different.
    pub overlay: &'c Overlay,
}

impl Io for Replayed<'_> {
    fn len(&self, file: FileId) -> u64 {
        let len = self.io.len(file);
        if file == self.overlay.file { len.max(self.overlay.end) } else { len }
    }

    fn read(&self, file: FileId, at: u64, buf: &mut [u8]) -> Result<()> {
        if file != self.overlay.file {
            return self.io.read(file, at, buf);
        }
        let have = self.io.len(file).saturating_sub(at).min(buf.len() as u64);
        let (inside, beyond) = buf.split_at_mut(usize::try_from(have).unwrap_or(0).min(buf.len()));
        beyond.fill(0);
        if !inside.is_empty() {
            self.io.read(file, at, inside)?;
        }
        self.overlay.patch(self.io, at, buf)
    }

    fn related(&self, from: FileId, role: Role, name: &[u8]) -> Result<Granted> {
        self.io.related(from, role, name)
    }

    fn holes(&self, file: FileId, at: u64, len: u64) -> Result<Vec<Hole>> {
        self.io.holes(file, at, len)
    }
}
