//! Admission: whether a call may be served at all. Pure, and the first thing every call meets.
//!
//! A worker of ours never makes a call that is not admitted; so one that does is not ours any more, and its cell ends.

use instar_wire::io::{Call, FileId, Freed, Link, Op, copy_manner};

/// Largest offset in a file.
const OFFSET_MAX: u64 = i64::MAX as u64;
/// Zero granules are at least this long (as a power of two).
const GRANULE_MIN: u32 = 9;
/// Zero granules are at most this long (as a power of two).
const GRANULE_MAX: u32 = 21;

/// What admission knows of a granted file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grant {
    /// How long the worker was told it is.
    pub len: u64,
    /// Whether it may be changed.
    pub writable: bool,
    /// Whether it is an image in the making, of which there may be further files.
    pub has_parts: bool,
}

/// What a lane has done so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Past {
    /// Number of the lane's last call.
    pub seq: u64,
}

/// The frame in which a call is judged.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Which lane calls.
    pub lane: usize,
    /// How many there are.
    pub lanes: usize,
    /// Length of its slot.
    pub slot_len: u64,
    /// The files granted so far, by number.
    pub grants: &'a [Grant],
    /// Bytes of events that may still come.
    pub events_left: u64,
}

/// A part of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// The file.
    pub file: FileId,
    /// Where it begins.
    pub at: u64,
    /// How long it is.
    pub len: u64,
}

/// A call that may be served; everything in it has been checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admitted {
    /// Hand over the request.
    Start,
    /// Read a range to a place in the slot; with a granule, tell which are zero.
    Read(Range, usize, Option<u32>),
    /// Write to a range, from a place in the slot.
    Write(Range, usize),
    /// Copy a range to a file's offset; zeroes as manner and sectors say.
    Copy(Range, FileId, u64, (u32, u32)),
    /// Zero a range; `true`: its space may go.
    Zero(Range, bool),
    /// Give up a range, for that reason.
    Discard(Range, Freed),
    /// Set space aside for a range; `true`: if that makes writing to it quicker.
    Allocate(Range, bool),
    /// Set a file's length.
    SetLength(FileId, u64),
    /// Tell the hole or data run at a range's beginning.
    Holes(Range),
    /// Make a file durable.
    Flush(FileId),
    /// Resolve the name in the slot's first bytes.
    Related(usize),
    /// Take an event.
    Emit(usize),
    /// Take the outcome.
    Finish(usize),
    /// Wake the other lanes.
    Wake,
    /// Wait for the other lanes.
    Join,
    /// Wait to be woken.
    Park,
    /// Make the file that the slot's first bytes describe.
    Part(usize),
    /// Wait for a moment.
    Pause,
    /// Tell the time.
    Clock,
    /// Tell how long a file is.
    Length(FileId),
    /// Have files share what the slot's first bytes list.
    Share(FileId, FileId, usize),
}

/// A call that no worker of ours would make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Violation {
    /// The call's number does not follow the last one's.
    Sequence,
    /// There is no such operation.
    Operation,
    /// A field that must be zero is not.
    Leftover,
    /// There is no such file.
    File,
    /// The file may not be changed.
    ReadOnly,
    /// The range lies outside the file or outside all files.
    Range,
    /// More bytes than a slot holds.
    Slot,
    /// A granule that makes no sense.
    Granule,
    /// Not for this lane.
    Lane,
    /// More events than a verb may have.
    Events,
    /// The message is not one.
    Message,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Violation::Sequence => "a call out of order",
            Violation::Operation => "an unknown operation",
            Violation::Leftover => "a field that must be zero",
            Violation::File => "a file it was not granted",
            Violation::ReadOnly => "a change to a file it may only read",
            Violation::Range => "a range outside its file",
            Violation::Slot => "more bytes than its slot holds",
            Violation::Granule => "an impossible granule",
            Violation::Lane => "lane control from the wrong lane",
            Violation::Events => "more events than its verb may have",
            Violation::Message => "a message that is not one",
        })
    }
}

/// Judges a call; on success the lane's past goes on.
pub fn admit(call: &Call, past: &mut Past, frame: &Frame<'_>) -> Result<Admitted, Violation> {
    if Some(call.seq) != past.seq.checked_add(1) {
        return Err(Violation::Sequence);
    }
    let op = Op::from_code(call.op).ok_or(Violation::Operation)?;
    let leftover = Leftover::of(op);
    if call.zero != [0, 0]
        || (leftover.file && call.file != 0)
        || (leftover.at && call.at != 0)
        || (leftover.len && call.len != 0)
        || (leftover.file2 && call.file2 != 0)
        || (leftover.at2 && call.at2 != 0)
        || (leftover.arg && call.arg != 0)
    {
        return Err(Violation::Leftover);
    }
    let admitted = match op {
        Op::Start => first_lane(frame, Admitted::Start)?,
        Op::Read => read(call, frame)?,
        Op::Write => {
            let skip = slot_part(call.at2, call.len, frame)?;
            Admitted::Write(writable(call, frame)?, skip)
        }
        Op::Copy => {
            let to = grant(call.file2, frame)?;
            if !to.writable {
                return Err(Violation::ReadOnly);
            }
            let (end, end2) = (end_of(call.at, call.len)?, end_of(call.at2, call.len)?);
            if call.file == call.file2 && call.at < end2 && call.at2 < end {
                return Err(Violation::Range);
            }
            let zeroes = copy_manner(call.arg).ok_or(Violation::Granule)?;
            Admitted::Copy(readable(call, frame)?, FileId(call.file2), call.at2, zeroes)
        }
        Op::Zero | Op::Allocate if call.arg > 1 => return Err(Violation::Leftover),
        Op::Zero => Admitted::Zero(writable(call, frame)?, call.arg == 1),
        Op::Discard => discarded(call, frame)?,
        Op::Allocate => Admitted::Allocate(writable(call, frame)?, call.arg == 1),
        Op::SetLength => Admitted::SetLength(writable(call, frame)?.file, call.len),
        Op::Holes => Admitted::Holes(readable(call, frame)?),
        Op::Flush if !grant(call.file, frame)?.writable => return Err(Violation::ReadOnly),
        Op::Flush => Admitted::Flush(FileId(call.file)),
        Op::Related => Admitted::Related(slot(call.len, frame)?),
        Op::Emit if call.len > frame.events_left => return Err(Violation::Events),
        Op::Emit => Admitted::Emit(slot(call.len, frame)?),
        Op::Finish => first_lane(frame, Admitted::Finish(slot(call.len, frame)?))?,
        Op::Wake => first_lane(frame, Admitted::Wake)?,
        Op::Join => first_lane(frame, Admitted::Join)?,
        Op::Park if frame.lane == 0 => return Err(Violation::Lane),
        Op::Park => Admitted::Park,
        Op::Part => Admitted::Part(slot(call.len, frame)?),
        Op::Pause => Admitted::Pause,
        Op::Clock => Admitted::Clock,
        Op::Length => grant(call.file, frame).map(|_| Admitted::Length(FileId(call.file)))?,
        Op::Share => {
            grant(call.file, frame)?;
            if !grant(call.file2, frame)?.writable {
                return Err(Violation::ReadOnly);
            }
            if call.file == call.file2 {
                return Err(Violation::Range);
            }
            Admitted::Share(FileId(call.file), FileId(call.file2), slot(call.len, frame)?)
        }
    };
    past.seq = call.seq;
    Ok(admitted)
}

/// The fields that an operation does not use and that must therefore be zero.
struct Leftover {
    file: bool,
    at: bool,
    len: bool,
    file2: bool,
    at2: bool,
    arg: bool,
}

impl Leftover {
    fn of(op: Op) -> Leftover {
        let (file, at, len, file2, at2, arg) = match op {
            Op::Start | Op::Wake | Op::Join | Op::Park | Op::Pause | Op::Clock => (true, true, true, true, true, true),
            Op::Related | Op::Part | Op::Emit | Op::Finish => (true, true, false, true, true, true),
            Op::Flush | Op::Length => (false, true, true, true, true, true),
            Op::SetLength => (false, true, false, true, true, true),
            Op::Holes => (false, false, false, true, true, true),
            Op::Write => (false, false, false, true, false, true),
            Op::Read => (false, false, false, true, false, false),
            Op::Zero | Op::Discard | Op::Allocate => (false, false, false, true, true, false),
            Op::Copy => (false, false, false, false, false, false),
            Op::Share => (false, true, false, false, true, true),
        };
        Leftover { file, at, len, file2, at2, arg }
    }
}

fn discarded(call: &Call, frame: &Frame<'_>) -> Result<Admitted, Violation> {
    let freed = Freed::from_code(call.arg).ok_or(Violation::Leftover)?;
    Ok(Admitted::Discard(writable(call, frame)?, freed))
}

fn first_lane(frame: &Frame<'_>, admitted: Admitted) -> Result<Admitted, Violation> {
    if frame.lane == 0 { Ok(admitted) } else { Err(Violation::Lane) }
}

fn grant<'a>(file: u32, frame: &Frame<'a>) -> Result<&'a Grant, Violation> {
    usize::try_from(file).ok().and_then(|index| frame.grants.get(index)).ok_or(Violation::File)
}

fn slot(len: u64, frame: &Frame<'_>) -> Result<usize, Violation> {
    if len > frame.slot_len {
        return Err(Violation::Slot);
    }
    usize::try_from(len).map_err(|_| Violation::Slot)
}

/// Where `len` bytes of the slot begin.
fn slot_part(at: u64, len: u64, frame: &Frame<'_>) -> Result<usize, Violation> {
    slot(at.checked_add(len).ok_or(Violation::Slot)?, frame)?;
    usize::try_from(at).map_err(|_| Violation::Slot)
}

fn end_of(at: u64, len: u64) -> Result<u64, Violation> {
    at.checked_add(len).filter(|end| *end <= OFFSET_MAX).ok_or(Violation::Range)
}

/// A range of a file that can be read. What the worker has written since it was told the length counts as well.
fn readable(call: &Call, frame: &Frame<'_>) -> Result<Range, Violation> {
    let grant = grant(call.file, frame)?;
    let end = end_of(call.at, call.len)?;
    if end > grant.len && !grant.writable {
        return Err(Violation::Range);
    }
    Ok(Range { file: FileId(call.file), at: call.at, len: call.len })
}

fn writable(call: &Call, frame: &Frame<'_>) -> Result<Range, Violation> {
    if !grant(call.file, frame)?.writable {
        return Err(Violation::ReadOnly);
    }
    end_of(call.at, call.len)?;
    Ok(Range { file: FileId(call.file), at: call.at, len: call.len })
}

/// Whether the file with that number, of which the worker was told that length, may share this with another.
pub fn may_link(link: &Link, grant: &Grant) -> Result<(), Violation> {
    end_of(link.to, link.len)?;
    let end = end_of(link.at, link.len)?;
    if end > grant.len && !grant.writable { Err(Violation::Range) } else { Ok(()) }
}

fn read(call: &Call, frame: &Frame<'_>) -> Result<Admitted, Violation> {
    let range = readable(call, frame)?;
    if call.arg == 0 {
        return Ok(Admitted::Read(range, slot_part(call.at2, call.len, frame)?, None));
    }
    if !(GRANULE_MIN..=GRANULE_MAX).contains(&call.arg) {
        return Err(Violation::Granule);
    }
    let bitmap = call.len.div_ceil(1 << call.arg).div_ceil(8);
    let skip = slot_part(call.at2, call.len.checked_add(bitmap).ok_or(Violation::Slot)?, frame)?;
    Ok(Admitted::Read(range, skip, Some(call.arg)))
}

#[cfg(test)]
#[path = "admit_tests.rs"]
mod tests;
