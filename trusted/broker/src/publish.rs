//! Publishing: a new file appears under its name when it is whole, and until then what stood there stays.

mod likeness;
mod together;

pub use together::publish_all;

use crate::lock::{self, Conflict};
use crate::{plane, sys};
use likeness::take_after;
pub use rustix::fs::FileType;
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, SeekFrom, Stat, fdatasync, fstat, ftruncate, linkat, openat, readlinkat, renameat,
    seek, stat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Mode of a new file, before the user's mask.
const MODE: Mode = Mode::from_raw_mode(0o644);
/// Mode of one that becomes like another: until it is, nobody else may have it open.
const MODE_OF_OWNER: Mode = Mode::from_raw_mode(0o600);
/// Symbolic links followed before giving up, as the kernel does.
const LINKS_MAX: usize = 40;
/// Bytes of a name that a working name takes over.
const NAME_PART: usize = 200;
/// Names tried for a file that cannot do without one while it is written.
const NAMES_MAX: u32 = 100;

/// Why a target could not be made.
#[derive(Debug)]
pub enum Refused {
    /// The operating system's word.
    System(Errno),
    /// Somebody else uses what stands there.
    InUse(Conflict),
    /// It is one of the files that are read.
    Source,
}

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Self {
        Refused::System(errno)
    }
}

/// A file in the making.
#[derive(Debug)]
pub struct Target {
    file: Arc<OwnedFd>,
    /// Where it will stand; none if it is written where it stands.
    place: Option<Place>,
    /// What was in it has been given up.
    is_emptied: bool,
    /// Keeps others away from what stands there meanwhile.
    _lock: Option<lock::Held>,
}

/// A name in a directory that a file will have.
#[derive(Debug)]
struct Place {
    directory: Arc<OwnedFd>,
    name: OsString,
    /// The name it has until then, unless it has none.
    working: Option<OsString>,
    /// Something stands there that it will replace.
    replaces: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(working) = &self.working {
            let _ = unlinkat(&self.directory, &**working, AtFlags::empty());
        }
    }
}

/// What a file system may be told about a file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hints {
    /// Changes need not go elsewhere.
    pub no_copy_on_write: bool,
    /// Space is set aside in pieces of this length.
    pub extent: Option<u64>,
}

/// How a target is to be made.
#[derive(Clone, Copy)]
pub struct Wish<'w> {
    /// Take the locks that QEMU takes.
    pub locking: bool,
    /// Write past the page cache.
    pub direct: bool,
    /// Let every write wait for the disk.
    pub sync: bool,
    /// What the file system is told about a new file.
    pub hints: Hints,
    /// Whether a file with this device and inode number is one of those that are read.
    pub is_source: &'w (dyn Fn((u64, u64)) -> bool + Sync),
}

impl Wish<'_> {
    fn flags(&self) -> OFlags {
        let mut flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        flags.set(OFlags::DIRECT, self.direct);
        flags.set(OFlags::DSYNC, self.sync);
        flags
    }
}

impl Hints {
    /// A file system that does not understand goes on as it would.
    fn tell(self, file: &OwnedFd) {
        if self.no_copy_on_write {
            sys::stop_copy_on_write(file.as_fd());
        }
        if let Some(len) = self.extent.and_then(|len| u32::try_from(len).ok()).filter(|len| *len > 0) {
            sys::hint_extents(file.as_fd(), len);
        }
    }
}

impl Target {
    /// Makes ready to write the file at `path`; nothing is there to be seen of it yet.
    pub fn create(path: &Path, wish: &Wish<'_>) -> Result<Target, Refused> {
        let flags = wish.flags();
        let (mut old, mut lock) = (None, None);
        match stat(path) {
            Ok(stat) if (wish.is_source)((stat.st_dev, stat.st_ino)) => return Err(Refused::Source),
            Ok(_) => {
                // Who may not write it may not replace it.
                let file = openat(CWD, path, flags, Mode::empty())?;
                lock = if wish.locking { claim(&file, lock::CREATE)? } else { None };
                old = Some(file);
            }
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let is_replaceable = old.as_ref().map_or(Ok(true), |old| fstat(old).map(|stat| stands_alone(&stat)))?;
        let made = if is_replaceable { fresh(path, flags, old.as_ref())? } else { None };
        let mut is_emptied = false;
        let (file, place) = match (made, old) {
            (Some((file, place)), _) => (file, Some(place)),
            (None, Some(old)) => {
                is_emptied = is_regular(&fstat(&old)?);
                if is_emptied {
                    ftruncate(&old, 0)?;
                }
                (old, None)
            }
            (None, None) => return Err(Errno::ACCESS.into()),
        };
        wish.hints.tell(&file);
        Ok(Target { file: Arc::new(file), place, is_emptied, _lock: lock })
    }

    /// Makes ready a file that will take the place of the one at `path`, if that is `standing`, nothing else leads to it,
    /// and the new one can be made like it in all but its content.
    pub fn heir(path: &Path, standing: &OwnedFd, wish: &Wish<'_>) -> Result<Target, Refused> {
        let stat = stat(path)?;
        if !stands_alone(&stat) || identity(standing)? != (stat.st_dev, stat.st_ino) {
            return Err(Errno::MLINK.into());
        }
        let (file, place) = fresh(path, wish.flags(), Some(standing))?.ok_or(Errno::PERM)?;
        Ok(Target { file: Arc::new(file), place: Some(place), is_emptied: false, _lock: None })
    }

    /// Opens what stands at `path`, to be written over.
    pub fn open(path: &Path, wish: &Wish<'_>) -> Result<Target, Refused> {
        let file = openat(CWD, path, wish.flags(), Mode::empty())?;
        let stat = fstat(&file)?;
        if (wish.is_source)((stat.st_dev, stat.st_ino)) {
            return Err(Refused::Source);
        }
        let lock = if wish.locking { claim(&file, lock::WRITE)? } else { None };
        Ok(Target { file: Arc::new(file), place: None, is_emptied: false, _lock: lock })
    }

    /// Standard output, to be written from its present position on, and that position.
    pub fn stream() -> Result<(Target, u64), Errno> {
        let file = rustix::io::fcntl_dupfd_cloexec(io::stdout(), 0)?;
        let at = seek(&file, SeekFrom::Current(0)).unwrap_or(0);
        Ok((Target { file: Arc::new(file), place: None, is_emptied: false, _lock: None }, at))
    }

    /// Writes zeroes to a stream, and leaves it where `end` is, if it has positions.
    pub fn pad(&self, len: u64, end: u64) -> io::Result<()> {
        plane::zero(&self.file, end.saturating_sub(len), len, false)?;
        let _ = seek(&*self.file, SeekFrom::Start(end));
        Ok(())
    }

    /// What kind of file it is.
    pub fn kind(&self) -> FileType {
        fstat(&*self.file).map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode))
    }

    /// Whether nobody sees it before it is published.
    pub fn is_unseen(&self) -> bool {
        self.place.is_some()
    }

    /// Whether something is given up for it.
    pub fn replaces(&self) -> bool {
        self.place.as_ref().is_some_and(|place| place.replaces)
    }

    /// Whether nothing has been in it.
    pub fn is_fresh(&self) -> bool {
        self.place.is_some() || self.is_emptied
    }

    /// How long it is now.
    pub fn len(&self) -> u64 {
        seek(&*self.file, SeekFrom::End(0)).unwrap_or(0)
    }

    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The file.
    pub fn file(&self) -> Arc<OwnedFd> {
        self.file.clone()
    }

    /// Uses the other's descriptor of the directory, if it is the same one: there can be many files and few descriptors.
    pub fn share_directory(&mut self, other: &Target) {
        let (Some(place), Some(other)) = (&mut self.place, &other.place) else { return };
        if identity(&place.directory).is_ok_and(|own| identity(&other.directory) == Ok(own)) {
            place.directory = other.directory.clone();
        }
    }

    /// Lets the file appear. `durable`: not before it would outlive a loss of power.
    pub fn publish(self, durable: bool) -> Result<(), Errno> {
        publish_all(vec![self], durable)
    }

    /// Waits until what the file holds lasts, where that matters.
    fn sync(&self, durable: bool) -> Result<(), Errno> {
        // What is replaced is only given up for something that lasts.
        if !durable && !self.replaces() {
            return Ok(());
        }
        match fdatasync(&*self.file) {
            // A pipe or a terminal keeps nothing.
            Ok(()) | Err(Errno::INVAL | Errno::ROFS) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Lets the file appear, and cannot take that back.
    fn appear(&mut self) -> Result<(), Errno> {
        let Some(place) = &mut self.place else { return Ok(()) };
        if place.working.is_none() {
            if !place.replaces && link(&self.file, &place.directory, &place.name)? {
                return Ok(());
            }
            place.take_name(&self.file)?;
        }
        if let Some(working) = &place.working {
            renameat(&place.directory, &**working, &place.directory, &*place.name)?;
            place.working = None;
        }
        Ok(())
    }
}

/// Lets more files be open at once, if the user may have more.
pub fn raise_files_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

impl Place {
    /// Gives a file without a name one that it has until it appears.
    fn take_name(&mut self, file: &OwnedFd) -> Result<(), Errno> {
        let working = working_name(&self.name, &mut |name| match link(file, &self.directory, name)? {
            true => Ok(()),
            false => Err(Errno::EXIST),
        })?;
        self.working = Some(working);
        Ok(())
    }
}

fn identity(file: &OwnedFd) -> Result<(u64, u64), Errno> {
    fstat(file).map(|stat| (stat.st_dev, stat.st_ino))
}

fn is_regular(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

/// A file of which nobody relies on that it stays the same one.
fn stands_alone(stat: &Stat) -> bool {
    is_regular(stat) && stat.st_nlink == 1
}

fn claim(file: &OwnedFd, claim: lock::Claim) -> Result<Option<lock::Held>, Refused> {
    match lock::claim(file, claim) {
        Ok(Ok(held)) => Ok(Some(held)),
        Ok(Err(conflict)) => Err(Refused::InUse(conflict)),
        Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO).into()),
    }
}

/// A file without a name, or with one of its own, in the directory where it will stand, and like the one that stands there;
/// none if that cannot be had.
fn fresh(path: &Path, flags: OFlags, standing: Option<&OwnedFd>) -> Result<Option<(OwnedFd, Place)>, Refused> {
    let place = destination(path)?;
    if place.as_os_str().is_empty() {
        return Err(Errno::NOENT.into());
    }
    let Some(name) = place.file_name().map(OsStr::to_os_string) else { return Err(Errno::ISDIR.into()) };
    let parent = place.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = openat(CWD, parent, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let mode = if standing.is_some() { MODE_OF_OWNER } else { MODE };
    let made = directory.and_then(|directory| Ok((make(&directory, &name, flags, mode)?, directory)));
    let ((file, working), directory) = match made {
        Ok(made) => made,
        // What stands there may be written although nothing can be put beside it.
        Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) if standing.is_some() => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let place = Place { directory: Arc::new(directory), name, working, replaces: standing.is_some() };
    let is_alike = standing.map_or(Ok(true), |standing| take_after(&file, standing))?;
    Ok(is_alike.then_some((file, place)))
}

/// Where a path leads in the end: a link is not replaced by a file, what it points at is.
fn destination(path: &Path) -> Result<PathBuf, Errno> {
    let mut path = path.to_path_buf();
    for _ in 0..LINKS_MAX {
        match readlinkat(CWD, &path, Vec::new()) {
            Ok(target) => {
                let target = Path::new(OsStr::from_bytes(target.as_bytes())).to_path_buf();
                path = path.parent().map_or(target.clone(), |parent| parent.join(&target));
            }
            Err(Errno::INVAL | Errno::NOENT) => return Ok(path),
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::LOOP)
}

/// A new file in a directory, if possible without a name, which not even a sudden death leaves behind.
fn make(directory: &OwnedFd, name: &OsStr, flags: OFlags, mode: Mode) -> Result<(OwnedFd, Option<OsString>), Errno> {
    if Path::new("/proc/self/fd").exists() {
        match openat(directory, c".", flags | OFlags::TMPFILE, mode) {
            Ok(file) => return Ok((file, None)),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {}
            Err(errno) => return Err(errno),
        }
    }
    let mut file = None;
    let working = working_name(name, &mut |working| {
        file = Some(openat(directory, working, flags | OFlags::CREATE | OFlags::EXCL, mode)?);
        Ok(())
    })?;
    file.map(|file| (file, Some(working))).ok_or(Errno::EXIST)
}

/// A name beside `name` that `take` could take.
fn working_name(name: &OsStr, take: &mut dyn FnMut(&OsStr) -> Result<(), Errno>) -> Result<OsString, Errno> {
    let own = std::process::id();
    for number in 0..NAMES_MAX {
        // A name can be as long as names may be, so only its beginning is taken over.
        let start = name.as_bytes().get(..NAME_PART.min(name.len())).unwrap_or_default();
        let working = [b".", start, format!(".instar-{own}-{number}").as_bytes()].concat();
        let working = OsStr::from_bytes(&working).to_os_string();
        match take(&working) {
            Ok(()) => return Ok(working),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::EXIST)
}

/// Gives a file without a name that name; false if it is taken.
fn link(file: &OwnedFd, directory: &OwnedFd, name: &OsStr) -> Result<bool, Errno> {
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    match linkat(CWD, own, directory, name, AtFlags::SYMLINK_FOLLOW) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(errno) => Err(errno),
    }
}
