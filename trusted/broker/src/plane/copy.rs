//! Copying between files: by the file system where it can, through a buffer that fits the cache where it cannot.

use super::place::Place;
use super::{Due, ZEROES, buffered, is_direct, lies_on, write_all, write_due, zero};
use crate::sys::{self, Mapped};
use instar_sandbox::window::is_zero;
use instar_wire::io::{Link, ZEROES_HOLES, ZEROES_SKIPPED};
use rustix::fs::copy_file_range;
use rustix::io::{Errno, pread};
use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

/// Bytes that pass through the buffer at once: few enough to stay in a processor's own cache.
const PIECE: usize = 256 << 10;
/// What unbuffered reads and writes want memory to begin at.
const ALIGNMENT: usize = 4096;
/// Zeroes are looked for in granules of this length, or shorter ones if shorter runs are asked for.
const GRANULE: usize = 4096;

/// What becomes of zeroes in a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Zeroes {
    /// They are written like all else.
    Written,
    /// Runs of at least so many bytes are passed over.
    Skipped(u64),
    /// Runs of at least so many bytes become holes.
    Holes(u64),
}

impl Zeroes {
    /// As a copy's argument, taken apart, has it.
    pub fn from_manner((manner, sectors): (u32, u32)) -> Zeroes {
        let bytes = u64::from(sectors) * 512;
        match manner {
            ZEROES_SKIPPED => Zeroes::Skipped(bytes),
            ZEROES_HOLES => Zeroes::Holes(bytes),
            _ => Zeroes::Written,
        }
    }

    fn shortest(self) -> Option<u64> {
        match self {
            Zeroes::Written => None,
            Zeroes::Skipped(bytes) | Zeroes::Holes(bytes) => Some(bytes),
        }
    }
}

/// Why a copy came to an end.
#[derive(Debug)]
pub enum Stop {
    /// The bytes could not be read.
    Reading(io::Error),
    /// They could not be written.
    Writing(io::Error),
}

/// Where a copy goes from and to.
#[derive(Clone, Copy)]
pub struct Route<'f> {
    /// The file read.
    pub from: &'f OwnedFd,
    /// Where in it.
    pub at: u64,
    /// The file written.
    pub to: &'f OwnedFd,
    /// Where in it.
    pub to_at: u64,
}

impl Route<'_> {
    fn ahead(self, n: u64) -> Self {
        Route { at: self.at + n, to_at: self.to_at + n, ..self }
    }
}

/// Copies `len` bytes, which have to be on the disk then.
pub fn copy(route: Route<'_>, len: u64, zeroes: Zeroes, due: Due) -> Result<(), Stop> {
    match zeroes {
        Zeroes::Written => by_kernel(route, len, due),
        _ => through_buffer(route, len, zeroes, due),
    }
}

/// Who has files share space is alone at it: the file system lets in one at a time, and keeps the others from sleeping.
static SHARING: Mutex<()> = Mutex::new(());

/// Has a range of a file be that of another one as well, as long as that can be done; answers for how many.
pub fn share(from: &OwnedFd, to: &OwnedFd, links: &[Link]) -> usize {
    let _alone = SHARING.lock().unwrap_or_else(PoisonError::into_inner);
    let is_shared = |link: &&Link| sys::share_extents(from.as_fd(), link.at, to.as_fd(), link.to, link.len);
    links.iter().take_while(is_shared).count()
}

/// Without the bytes passing through this process.
fn by_kernel(mut route: Route<'_>, len: u64, due: Due) -> Result<(), Stop> {
    let (begin, mut left) = (route, len);
    while left > 0 {
        let (mut source, mut target) = (route.at, route.to_at);
        let piece = usize::try_from(left).unwrap_or(usize::MAX).min(1 << 30);
        match copy_file_range(route.from, Some(&mut source), route.to, Some(&mut target), piece) {
            Ok(0) => return Err(Stop::Reading(io::ErrorKind::UnexpectedEof.into())),
            Ok(n) => (left, route) = (left - n as u64, route.ahead(n as u64)),
            Err(Errno::INTR) => {}
            // Whatever it was, reading and writing one after the other tells which of the two it is.
            Err(_) => return through_buffer(route, left, Zeroes::Written, due),
        }
    }
    if due != Due::Anytime {
        Due::Told.end(begin.to, begin.to_at, len);
    }
    Ok(())
}

/// The file system of files in memory, by its magic number.
const TMPFS: i64 = 0x0102_1994;

thread_local! {
    /// A buffer for each lane's thread, kept from copy to copy.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// How a copy gets at its target.
enum Way {
    /// Past the page cache, where nobody stands in the way.
    Direct,
    /// By the file.
    File { _place: Place },
    /// By its pages, while others have the places. They must be where the bytes stay: a file system with a disk has more
    /// to do for a page than for a write.
    Pages(Mapped),
}

impl Way {
    fn of(route: &Route<'_>, len: u64) -> Way {
        if is_direct(route.to) {
            return Way::Direct;
        }
        if let Some(place) = Place::try_take() {
            return Way::File { _place: place };
        }
        let len = usize::try_from(len).ok().filter(|len| *len >= PIECE);
        let len = len.filter(|_| lies_on(route.to, TMPFS));
        let pages = len.and_then(|len| Mapped::new(route.to.as_fd(), route.to_at, len));
        pages.map_or_else(|| Way::File { _place: Place::take() }, Way::Pages)
    }
}

fn through_buffer(route: Route<'_>, len: u64, zeroes: Zeroes, due: Due) -> Result<(), Stop> {
    let way = Way::of(&route, len);
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(PIECE + ALIGNMENT, 0);
        let skip = buffer.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        let mut copier = Copier { route, zeroes, run: 0, way: &way, due };
        let mut left = len;
        while left > 0 {
            let piece = PIECE.min(usize::try_from(left).unwrap_or(PIECE));
            let n = read(&copier.route, &mut buffer[skip..skip + piece])?;
            copier.piece(&buffer[skip..skip + n])?;
            left -= n as u64;
        }
        copier.end_run()?;
        copier.due.end(route.to, route.to_at, len);
        Ok(())
    })
}

fn read(route: &Route<'_>, buffer: &mut [u8]) -> Result<usize, Stop> {
    let mut tried = false;
    loop {
        match pread(route.from, &mut *buffer, route.at) {
            Ok(0) => return Err(Stop::Reading(io::ErrorKind::UnexpectedEof.into())),
            Ok(n) => return Ok(n),
            Err(Errno::INTR) => {}
            Err(Errno::INVAL) if !tried => {
                tried = true;
                buffered(route.from).map_err(Stop::Reading)?;
            }
            Err(e) => return Err(Stop::Reading(e.into())),
        }
    }
}

/// A copy under way.
struct Copier<'f> {
    /// What is left of it.
    route: Route<'f>,
    zeroes: Zeroes,
    /// Zeroes before `route` that have been read and not yet dealt with.
    run: u64,
    way: &'f Way,
    due: Due,
}

impl Copier<'_> {
    /// Takes the next bytes.
    fn piece(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let Some(shortest) = self.zeroes.shortest() else { return self.write(bytes) };
        let granule = GRANULE.min(usize::try_from(shortest).unwrap_or(GRANULE)).max(1);
        let mut from = 0;
        while from < bytes.len() {
            let to_end = granule_end(self.route.to_at, granule);
            let data = from;
            // Granules lie where the target has its blocks, so that skipped ones cost nothing.
            let mut end = from + to_end.min(bytes.len() - from);
            let zero = is_zero(&bytes[from..end]);
            while end < bytes.len() && is_zero(&bytes[end..bytes.len().min(end + granule)]) == zero {
                end = bytes.len().min(end + granule);
            }
            if zero {
                self.run += (end - data) as u64;
                self.route = self.route.ahead((end - data) as u64);
            } else {
                self.end_run()?;
                self.write(&bytes[data..end])?;
            }
            from = end;
        }
        Ok(())
    }

    /// Deals with the zeroes that came last.
    fn end_run(&mut self) -> Result<(), Stop> {
        let (len, at) = (std::mem::take(&mut self.run), self.route.to_at);
        let mut at = at - len;
        match self.zeroes {
            _ if len == 0 => return Ok(()),
            Zeroes::Skipped(shortest) if len >= shortest => return Ok(()),
            Zeroes::Holes(shortest) if len >= shortest => {
                return zero(self.route.to, at, len, true).map_err(Stop::Writing);
            }
            _ => {}
        }
        let mut left = len;
        while left > 0 {
            let n = ZEROES.len().min(usize::try_from(left).unwrap_or(ZEROES.len()));
            write_all(self.route.to, at, &ZEROES[..n]).map_err(Stop::Writing)?;
            (at, left) = (at + n as u64, left - n as u64);
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let at = self.route.to_at;
        if !matches!(self.way, Way::Pages(pages) if pages.write(at, bytes)) {
            write_due(self.route.to, at, bytes, &mut self.due).map_err(Stop::Writing)?;
        }
        self.route = self.route.ahead(bytes.len() as u64);
        Ok(())
    }
}

/// How far it is to the next multiple of a granule.
fn granule_end(at: u64, granule: usize) -> usize {
    let over = usize::try_from(at % granule as u64).unwrap_or(0);
    granule - over
}
