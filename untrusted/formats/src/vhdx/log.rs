//! The log of a VHDX: whether it holds changes that never reached their places, and which of its entries count.

use super::crc32c::{Crc32c, of_structure};
use super::disk::{Header, LOG_SECTOR, LogDescriptor, LogEntry};
use super::open::{invalid, readable};
use super::replay::Overlay;
use alloc::vec::Vec;
use core::mem::size_of;
use instar_image::{File, Kind, Result, num};

/// The log is aligned to this.
const ALIGNMENT: u64 = 1 << 20;
/// Bytes of entries that are summed: the log of any program that writes one is far shorter.
const WORK_MAX: u64 = 1 << 30;
/// Bytes that an entry's head and each of its descriptors have.
const HEAD_LEN: u64 = size_of::<LogEntry>() as u64;
const DESCRIPTOR_LEN: u64 = size_of::<LogDescriptor>() as u64;

/// What the log is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// The header says it is empty.
    Empty,
    /// The header says it is in use, but it holds nothing valid.
    Clean,
    /// It has to be replayed.
    Dirty,
}

/// A valid entry.
pub struct Entry {
    /// Where it begins in the log.
    pub place: u64,
    /// Its length.
    pub len: u64,
    /// Its number.
    pub sequence: u64,
    /// Its descriptors.
    pub count: u64,
    /// Where the sequence begins that it belongs to.
    tail: u64,
    /// How long the file has to be.
    flushed: u64,
    /// How long it is at least when all has been replayed.
    pub last: u64,
}

impl Entry {
    /// Where its sectors of data begin, counted from its beginning.
    pub fn data_at(&self) -> u64 {
        self.count.saturating_mul(DESCRIPTOR_LEN).saturating_add(HEAD_LEN).next_multiple_of(LOG_SECTOR)
    }
}

/// Looks through the log; what has to be replayed is found with it. `as_qemu`: it is refused, unless the file is written to.
pub fn read(file: &File<'_>, header: &Header, as_qemu: bool, to_write: bool) -> Result<(State, Option<Overlay>)> {
    let at = header.log_offset.get();
    let len = u64::from(header.log_length.get());
    if header.log_version.get() != 0 || at < ALIGNMENT || !at.is_multiple_of(ALIGNMENT) {
        return Err(invalid());
    }
    if header.log_guid == [0; 16] || len == 0 {
        return Ok((State::Empty, None));
    }
    if !len.is_multiple_of(ALIGNMENT) {
        return Err(invalid());
    }
    let mut log = Log { file, at: readable(at)?, len, guid: header.log_guid, as_qemu, work: 0 };
    if as_qemu && !to_write {
        return log.refused().map(|()| (State::Clean, None));
    }
    let Some(entries) = log.active()? else { return Ok((State::Clean, None)) };
    Ok((State::Dirty, Some(Overlay::new(&log, &entries)?)))
}

/// The log.
pub struct Log<'f, 'a> {
    /// The file, as it lies there.
    pub file: &'f File<'a>,
    /// Where the log begins.
    pub at: u64,
    /// Its length.
    pub len: u64,
    guid: [u8; 16],
    as_qemu: bool,
    work: u64,
}

impl Log<'_, '_> {
    /// Where byte `place` of the log is; it runs in a ring.
    pub fn locate(&self, place: u64) -> u64 {
        self.at.saturating_add(place.checked_rem(self.len).unwrap_or(0))
    }

    /// A descriptor of an entry.
    pub fn descriptor(&self, entry: &Entry, index: u64) -> Result<LogDescriptor> {
        let skip = HEAD_LEN.saturating_add(index.saturating_mul(DESCRIPTOR_LEN));
        self.file.read_as(self.locate(entry.place.saturating_add(skip)))
    }

    /// A log with anything valid in it is more than qemu-img deals with when it only reads.
    fn refused(&mut self) -> Result<()> {
        let (mut place, mut dirty) = (0, false);
        while place < self.len {
            let entry = self.entry(place)?;
            dirty |= entry.is_some();
            place = place.saturating_add(entry.map_or(LOG_SECTOR, |entry| entry.len));
        }
        if dirty {
            return Err(Kind::Unsupported.what(
                "VHDX image file '{file}' opened read-only, but contains a log that needs to be replayed\n\
                 To replay the log, run:\nqemu-img check -r all '{file}'",
            ));
        }
        Ok(())
    }

    /// The entries to be replayed, first to last; nothing if no entry is valid.
    ///
    /// Of all runs of entries numbered one by one the one with the highest number counts, from where its last entry says
    /// that it begins. Nothing can begin inside a valid entry, so each is looked at twice at most.
    fn active(&mut self) -> Result<Option<Vec<Entry>>> {
        let mut best: Option<Vec<Entry>> = None;
        let newest = |entries: &[Entry]| entries.last().map(|entry| entry.sequence);
        let (mut place, mut any) = (0, false);
        while place < self.len {
            let mut run = self.run(place)?;
            any |= !run.is_empty();
            let covered = run.iter().fold(0, |sum: u64, entry| sum.saturating_add(entry.len));
            place = place.saturating_add(covered.max(LOG_SECTOR));
            let tail = run.last().map(|entry| entry.tail);
            if let Some(first) = run.iter().position(|entry| Some(entry.place) == tail)
                && newest(&run) > best.as_deref().and_then(newest)
            {
                run.drain(..first);
                best = Some(run);
            }
        }
        let broken = |phrase| Err(Kind::Corrupt.what(phrase).file(self.file.id()).at(self.at));
        match best.as_deref().and_then(<[Entry]>::last) {
            Some(head) if head.flushed > self.file.len() => broken("the file is shorter than its log says that it was"),
            None if any => broken("the log holds entries, but no sequence of them is whole"),
            _ => Ok(best),
        }
    }

    /// The valid entries from `place` on, each with the number after that of the one before.
    fn run(&mut self, place: u64) -> Result<Vec<Entry>> {
        let mut run: Vec<Entry> = Vec::new();
        let mut covered = 0u64;
        while covered < self.len {
            let at = place.saturating_add(covered).checked_rem(self.len).unwrap_or(0);
            let Some(entry) = self.entry(at)? else { break };
            covered = covered.saturating_add(entry.len);
            let goes_on = run.last().is_none_or(|last| last.sequence.checked_add(1) == Some(entry.sequence));
            if !goes_on || covered > self.len {
                break;
            }
            run.push(entry);
        }
        Ok(run)
    }

    /// The entry at `place`, if there is a valid one.
    fn entry(&mut self, place: u64) -> Result<Option<Entry>> {
        let head: LogEntry = self.file.read_as(self.locate(place))?;
        let entry = Entry {
            place,
            len: head.entry_length.get().into(),
            sequence: head.sequence_number.get(),
            count: head.descriptor_count.get().into(),
            tail: head.tail.get().into(),
            flushed: head.flushed_file_offset.get(),
            last: head.last_file_offset.get(),
        };
        let sound = &head.signature == b"loge"
            && head.log_guid == self.guid
            && entry.sequence != 0
            && (1..=self.len).contains(&entry.len)
            && entry.len.is_multiple_of(LOG_SECTOR)
            && entry.data_at() <= entry.len;
        if !sound {
            return Ok(None);
        }
        // An entry that was being written when all stopped may have a head and nothing else that is its own. qemu-img
        // takes that for an error.
        if !self.as_qemu && self.sum(&entry)? != head.checksum.get() {
            return Ok(None);
        }
        for index in 0..entry.count {
            self.check(&entry, index)?;
        }
        let sound = !self.as_qemu || self.sum(&entry)? == head.checksum.get();
        Ok(sound.then_some(entry))
    }

    fn check(&self, entry: &Entry, index: u64) -> Result<()> {
        let told = self.descriptor(entry, index)?;
        let aligned = told.file_offset.get().is_multiple_of(LOG_SECTOR);
        let sound = match &told.signature {
            b"zero" => told.leading.get().is_multiple_of(LOG_SECTOR),
            b"desc" => true,
            _ => false,
        };
        if sound && aligned && told.sequence_number.get() == entry.sequence { Ok(()) } else { Err(invalid()) }
    }

    fn sum(&mut self, entry: &Entry) -> Result<u32> {
        self.work = self.work.saturating_add(entry.len);
        if self.work > WORK_MAX {
            return Err(Kind::TooBig.what("the log is too long to be looked through"));
        }
        let sector = num::bounded(LOG_SECTOR, LOG_SECTOR, invalid)?;
        let first = self.file.read_vec(self.locate(entry.place), sector)?;
        if entry.len == LOG_SECTOR {
            return Ok(of_structure(&first));
        }
        let (signature, rest) = first.split_at(4.min(first.len()));
        let mut sum = Crc32c::default().update(signature).update(&[0; 4]).update(rest.get(4..).unwrap_or(&[]));
        let mut done = LOG_SECTOR;
        while done < entry.len {
            sum = sum.update(&self.file.read_vec(self.locate(entry.place.saturating_add(done)), sector)?);
            done = done.saturating_add(LOG_SECTOR);
        }
        Ok(sum.finish())
    }
}
