//! The plane: moves bytes between files and slots, and asks the file system for space and holes.

pub mod copy;
mod due;
mod place;

pub use due::Due;
use instar_sandbox::window::{Turn, is_zero};
use instar_wire::boot::PAGE;
use place::Place;
use rustix::fs::{
    FallocateFlags, FileType, OFlags, SeekFrom, fallocate, fcntl_getfl, fcntl_setfl, fdatasync, fstat, fstatfs,
    ftruncate, seek,
};
use rustix::io::{Errno, pwritev2};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};

/// Zeroes written at once where a file system cannot zero by itself.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// Fills `len` bytes of the slot, from `skip` on, from the file; what lies beyond its end reads as zeroes. Tells how much
/// was there.
pub fn read(file: &OwnedFd, at: u64, skip: usize, len: usize, turn: &Turn<'_>) -> io::Result<usize> {
    // Unbuffered reads want whole pages. What they bring beyond `len` must not stay: other bytes have their place there.
    let whole = len.next_multiple_of(PAGE).min(turn.slot_len().saturating_sub(skip));
    let ask = if whole > len && is_direct(file) { whole } else { len };
    let behind = turn.copy_out_at(skip + len, ask - len);
    let (mut done, mut tried) = (0, false);
    while done < len {
        match turn.read_from(file.as_fd(), at + done as u64, skip + done, ask - done) {
            Ok(0) => break,
            Ok(n) => done = len.min(done + n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            // An odd offset, or the end of a file that is no multiple of anything: read it through the page cache.
            Err(e) if e.kind() == io::ErrorKind::InvalidInput && !tried => {
                tried = true;
                buffered(file)?;
            }
            Err(e) => return Err(e),
        }
    }
    let mut blank = done;
    while blank < len {
        let n = ZEROES.len().min(len - blank);
        turn.copy_in(skip + blank, &ZEROES[..n]);
        blank += n;
    }
    turn.copy_in(skip + len, &behind);
    Ok(done)
}

fn is_direct(file: &OwnedFd) -> bool {
    fcntl_getfl(file).is_ok_and(|flags| flags.contains(OFlags::DIRECT))
}

/// From now on the file is read and written through the page cache; another lane may have found that out just now.
fn buffered(file: &OwnedFd) -> io::Result<()> {
    Ok(fcntl_setfl(file, fcntl_getfl(file)? - OFlags::DIRECT)?)
}

/// Bytes that are written at once and take so long that others would wait for them.
const LONG: usize = 256 << 10;

/// Writes `len` bytes of the slot, from `skip` on, to the file.
pub fn write(file: &OwnedFd, at: u64, skip: usize, len: usize, mut due: Due, turn: &Turn<'_>) -> io::Result<()> {
    let _place = (len >= LONG && !is_direct(file)).then(Place::take);
    let (mut done, mut tried) = (0, false);
    while done < len {
        match turn.write_to(file.as_fd(), at + done as u64, skip + done, len - done, due.flags()) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::InvalidInput && !tried => {
                tried = true;
                buffered(file)?;
            }
            Err(e) if Errno::from_io_error(&e).is_some_and(|errno| due.is_refused(errno)) => {}
            // A pipe has no offsets; the worker writes to it from its beginning to its end.
            Err(e) if e.kind() == io::ErrorKind::NotSeekable => {
                return append(file, &turn.copy_out_at(skip + done, len - done));
            }
            Err(e) => return Err(e),
        }
    }
    due.end(file, at, len as u64);
    Ok(())
}

/// Writes bytes behind those written before.
fn append(file: &OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

fn write_all(file: &OwnedFd, at: u64, bytes: &[u8]) -> io::Result<()> {
    write_due(file, at, bytes, &mut Due::Anytime)
}

fn write_due(file: &OwnedFd, mut at: u64, mut bytes: &[u8], due: &mut Due) -> io::Result<()> {
    let mut tried = false;
    while !bytes.is_empty() {
        match pwritev2(file, &[IoSlice::new(bytes)], at, due.flags()) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => (at, bytes) = (at + n as u64, &bytes[n..]),
            Err(Errno::INTR) => {}
            Err(e) if due.is_refused(e) => {}
            // An odd length, past the page cache: write it through the page cache.
            Err(Errno::INVAL) if !tried => {
                tried = true;
                buffered(file)?;
            }
            Err(Errno::SPIPE) => return append(file, bytes),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Writes bytes to a new file, of which nothing has to be written where they are zeroes.
pub fn keep(file: &OwnedFd, at: u64, bytes: &[u8]) -> io::Result<()> {
    if is_zero(bytes) { Ok(()) } else { write_all(file, at, bytes) }
}

/// Makes a range read as zeroes; with `give_up` its space goes if that is how the file system does it best.
pub fn zero(file: &OwnedFd, at: u64, len: u64, give_up: bool) -> io::Result<()> {
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    // A hole punched beyond the end would not make the file longer, so that is left to the other ways.
    let inside = at.checked_add(len).is_some_and(|end| seek(file, SeekFrom::End(0)).is_ok_and(|size| end <= size));
    if give_up && inside && fallocate(file, punch, at, len).is_ok() {
        return Ok(());
    }
    if fallocate(file, FallocateFlags::ZERO_RANGE, at, len).is_ok() {
        return Ok(());
    }
    let mut done = 0;
    while done < len {
        let n = ZEROES.len().min(usize::try_from(len - done).unwrap_or(usize::MAX));
        write_all(file, at + done, &ZEROES[..n])?;
        done += n as u64;
    }
    Ok(())
}

/// Gives up the space of a range, if the file system can.
pub fn discard(file: &OwnedFd, at: u64, len: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, at, len) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Sets space aside for a range; content and length stay.
pub fn allocate(file: &OwnedFd, at: u64, len: u64) -> io::Result<()> {
    Ok(fallocate(file, FallocateFlags::KEEP_SIZE, at, len)?)
}

/// The file systems of the ext family, by their magic number.
const EXT: i64 = 0xef53;

/// Whether a file lies on a file system with that magic number.
fn lies_on(file: &OwnedFd, magic: i64) -> bool {
    fstatfs(file).is_ok_and(|facts| facts.f_type == magic)
}

/// Whether the file system looks for space in each write, block by block and while no other write to the file goes on,
/// unless some has been set aside. Past the page cache, using that takes longer than finding some.
pub fn finds_space_late(file: &OwnedFd) -> bool {
    let is_cached = fcntl_getfl(file).is_ok_and(|flags| !flags.intersects(OFlags::DIRECT | OFlags::DSYNC));
    is_cached && lies_on(file, EXT)
}

/// Sets the file's length. A device has the length it has, which must be enough.
pub fn set_length(file: &OwnedFd, len: u64) -> io::Result<()> {
    if FileType::from_raw_mode(fstat(file)?.st_mode) == FileType::RegularFile {
        return Ok(ftruncate(file, len)?);
    }
    if len <= seek(file, SeekFrom::End(0))? { Ok(()) } else { Err(Errno::NOSPC.into()) }
}

/// How long a file is.
pub fn length(file: &OwnedFd) -> io::Result<u64> {
    Ok(seek(file, SeekFrom::End(0))?)
}

/// The runs of `len` bytes at `at`, the first `most` of them: their lengths, and whether they are holes.
pub fn holes(file: &OwnedFd, at: u64, len: u64, most: usize) -> io::Result<Vec<(u64, bool)>> {
    let (mut at, mut left) = (at, len);
    let mut runs = Vec::new();
    while runs.len() < most && (left > 0 || runs.is_empty()) {
        let run = hole(file, at, left)?;
        runs.push(run);
        (at, left) = (at + run.0, left - run.0);
    }
    Ok(runs)
}

/// The run at `at`, at most `len` long: its length, and whether it is a hole.
fn hole(file: &OwnedFd, at: u64, len: u64) -> io::Result<(u64, bool)> {
    let data = match seek(file, SeekFrom::Data(at)) {
        Ok(data) => data,
        // No data from here to the end.
        Err(Errno::NXIO) => return Ok((len, true)),
        // A file system that knows no holes: everything is data.
        Err(_) => return Ok((len, false)),
    };
    if data > at {
        return Ok((len.min(data - at), true));
    }
    let hole = seek(file, SeekFrom::Hole(at)).unwrap_or(u64::MAX);
    // A file that changes meanwhile may tell nonsense; a run always has a length.
    Ok((len.min(hole.saturating_sub(at).max(1)), false))
}

/// Makes everything written durable.
pub fn flush(file: &OwnedFd) -> io::Result<()> {
    Ok(fdatasync(file)?)
}
