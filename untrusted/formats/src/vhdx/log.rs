//! The log of a VHDX: whether it holds changes that never reached their places.

use super::crc32c::{Crc32c, of_structure};
use super::disk::{Header, LOG_SECTOR, LogDescriptor, LogEntry};
use super::open::{invalid, readable};
use core::mem::size_of;
use instar_image::{File, Kind, Result, num};

/// The log is aligned to this.
const ALIGNMENT: u64 = 1 << 20;
/// Bytes of entries that are summed: entries that overlap could cost the square of the log.
const WORK_MAX: u64 = 1 << 30;

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

/// Looks through the log.
pub fn state(file: &File<'_>, header: &Header) -> Result<State> {
    let at = header.log_offset.get();
    let len = u64::from(header.log_length.get());
    if header.log_version.get() != 0 || at < ALIGNMENT || !at.is_multiple_of(ALIGNMENT) {
        return Err(invalid());
    }
    if header.log_guid == [0; 16] || len == 0 {
        return Ok(State::Empty);
    }
    if !len.is_multiple_of(ALIGNMENT) {
        return Err(invalid());
    }
    let mut log = Log { file, at: readable(at)?, len, guid: header.log_guid, work: 0 };
    let mut place = 0;
    let mut state = State::Clean;
    while place < len {
        let step = match log.entry(place)? {
            Some(len) => {
                state = State::Dirty;
                len
            }
            None => LOG_SECTOR,
        };
        place = place.saturating_add(step);
    }
    Ok(state)
}

struct Log<'f, 'a> {
    file: &'f File<'a>,
    at: u64,
    len: u64,
    guid: [u8; 16],
    work: u64,
}

impl Log<'_, '_> {
    /// Where byte `place` of the log is; it runs in a ring.
    fn locate(&self, place: u64) -> u64 {
        self.at.saturating_add(place % self.len)
    }

    /// The length of the entry at `place`, if there is a valid one.
    fn entry(&mut self, place: u64) -> Result<Option<u64>> {
        let head: LogEntry = self.file.read_as(self.locate(place))?;
        let len = u64::from(head.entry_length.get());
        let count = u64::from(head.descriptor_count.get());
        let heads = size_of::<LogEntry>() as u64;
        let sectors =
            count.saturating_mul(size_of::<LogDescriptor>() as u64).saturating_add(heads).next_multiple_of(LOG_SECTOR);
        let sound = &head.signature == b"loge"
            && head.log_guid == self.guid
            && head.sequence_number.get() != 0
            && (1..=self.len).contains(&len)
            && len.is_multiple_of(LOG_SECTOR)
            && sectors <= len;
        if !sound {
            return Ok(None);
        }
        for index in 0..count {
            let place =
                place.saturating_add(heads).saturating_add(index.saturating_mul(size_of::<LogDescriptor>() as u64));
            self.descriptor(place, head.sequence_number.get())?;
        }
        Ok(if self.sum(place, len)? == head.checksum.get() { Some(len) } else { None })
    }

    fn descriptor(&self, place: u64, sequence: u64) -> Result<()> {
        let told: LogDescriptor = self.file.read_as(self.locate(place))?;
        let aligned = told.file_offset.get().is_multiple_of(LOG_SECTOR);
        let sound = match &told.signature {
            b"zero" => told.leading.get().is_multiple_of(LOG_SECTOR),
            b"desc" => true,
            _ => false,
        };
        if sound && aligned && told.sequence_number.get() == sequence { Ok(()) } else { Err(invalid()) }
    }

    fn sum(&mut self, place: u64, len: u64) -> Result<u32> {
        self.work = self.work.saturating_add(len);
        if self.work > WORK_MAX {
            return Err(Kind::TooBig.what("the log is too long to be looked through"));
        }
        let sector = num::bounded(LOG_SECTOR, LOG_SECTOR, invalid)?;
        let first = self.file.read_vec(self.locate(place), sector)?;
        if len == LOG_SECTOR {
            return Ok(of_structure(&first));
        }
        let (signature, rest) = first.split_at(4.min(first.len()));
        let mut sum = Crc32c::default().update(signature).update(&[0; 4]).update(rest.get(4..).unwrap_or(&[]));
        let mut done = LOG_SECTOR;
        while done < len {
            sum = sum.update(&self.file.read_vec(self.locate(place.saturating_add(done)), sector)?);
            done = done.saturating_add(LOG_SECTOR);
        }
        Ok(sum.finish())
    }
}
