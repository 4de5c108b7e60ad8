//! A session: the files one command has opened, what they are called, and what went wrong with them.

mod lasting;
mod parts;
mod promote;
mod related;
mod space;

use crate::admit::Grant;
use crate::lock::{self, Conflict};
pub use crate::mishap::{Mishap, Why};
use crate::pace::Pace;
use crate::policy::{self, Policy, Refusal};
use crate::publish::Target;
use instar_wire::code::Bytes;
use instar_wire::io::{FileId, Granted, Role};
use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, openat, seek};
use rustix::io::Errno;
pub use space::Spares;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Notes kept of what went wrong; a worker cannot make the broker collect more.
const MISHAPS_MAX: usize = 1024;
/// Files one command may open.
const FILES_MAX: usize = 4096;
/// Longest name, as the kernel has it, its terminator included; a worker cannot make the broker keep longer ones.
const PATH_MAX: usize = 4096;

/// The one format that qemu-img knows by the name of a file.
const SUFFIXES: [(&[u8], &str); 1] = [(b".dmg", "dmg")];

/// What can be known of an open file without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its length in bytes.
    pub len: u64,
    /// What it occupies.
    pub allocated: u64,
    /// It is a device, not a regular file.
    pub device: bool,
}

/// Bytes of a file that cannot be read because the user wants to see what comes of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where; everywhere, if that is not said.
    pub at: Option<u64>,
    /// What is said of it.
    pub errno: Errno,
    /// Only the first time.
    pub once: bool,
}

/// An open file.
#[derive(Clone)]
struct Entry {
    /// None as long as it is only promised.
    file: Option<Arc<OwnedFd>>,
    name: Vec<u8>,
    path: PathBuf,
    facts: Facts,
    identity: (u64, u64),
    named_by: Option<FileId>,
    depth: usize,
    conflict: Option<Conflict>,
    faults: Vec<Fault>,
    /// Which of the space that its image gives back goes back to the file system.
    spares: Spares,
    /// Nobody sees it before it is published, and then whatever matters is made to last.
    unseen: bool,
    /// That is all of it, because something else is given up for it.
    lasts: bool,
    _lock: Option<Arc<lock::Held>>,
}

/// A file that has just been opened.
struct Arrival {
    name: Vec<u8>,
    path: PathBuf,
    named_by: Option<FileId>,
    depth: usize,
    writable: bool,
}

impl Arrival {
    /// One that the user named.
    fn named(name: &[u8], path: PathBuf) -> Arrival {
        Arrival { name: name.to_vec(), path, named_by: None, depth: 0, writable: false }
    }
}

#[derive(Default)]
struct State {
    entries: Vec<Entry>,
    grants: Vec<Grant>,
    mishaps: Vec<Mishap>,
    /// How the further files are made of images that may have some.
    ways: Vec<parts::Way>,
    /// The further files made so far.
    parts: Vec<(FileId, Target)>,
    part_grants: BTreeMap<(FileId, Vec<u8>), FileId>,
    ahead: space::Ahead,
}

impl State {
    /// Grants a file that can be changed, and is or will be of the command's own making.
    fn grant_made(&mut self, name: &[u8], file: Option<Arc<OwnedFd>>, len: u64) -> Granted {
        let id = FileId(u32::try_from(self.entries.len()).unwrap_or(u32::MAX));
        self.entries.push(Entry {
            file,
            name: name.to_vec(),
            path: PathBuf::new(),
            facts: Facts { len, allocated: 0, device: false },
            identity: (0, 0),
            named_by: None,
            depth: 0,
            conflict: None,
            faults: Vec::new(),
            spares: Spares::default(),
            unseen: false,
            lasts: false,
            _lock: None,
        });
        self.grants.push(Grant { len, writable: true, has_parts: false });
        Granted { id, len, allocated: 0, writable: true, pinned: None, suggested: None }
    }
}

/// What a name in an image stands for beyond a plain file; only asked where qemu-img's ways are wanted.
pub struct Meant {
    /// The file.
    pub path: Vec<u8>,
    /// The format that the name itself demands.
    pub pinned: Option<Vec<u8>>,
    /// The name to show.
    pub shown: Vec<u8>,
}

/// Tells what a `json:` description or a protocol in an image means, or why that is nothing that can be opened.
pub type Interpret = Box<dyn Fn(&Role, &[u8]) -> Result<Meant, Vec<u8>> + Send + Sync>;

/// The files of one command.
pub struct Session {
    policy: Policy,
    interpret: Option<Interpret>,
    locking: bool,
    claim: lock::Claim,
    direct: bool,
    pace: Option<Pace>,
    is_hasty: bool,
    /// All that is made is waited for.
    is_lasting: bool,
    state: Mutex<State>,
}

impl Session {
    /// A session without files. `locking`: take the locks that QEMU takes.
    pub fn new(policy: Policy, locking: bool) -> Self {
        Session {
            policy,
            interpret: None,
            locking,
            claim: lock::INSPECT,
            direct: false,
            pace: None,
            is_hasty: false,
            is_lasting: false,
            state: Mutex::default(),
        }
    }

    /// Whether locks are taken.
    pub fn is_locking(&self) -> bool {
        self.locking
    }

    /// No locks are taken from now on.
    pub fn share(&mut self) {
        self.locking = false;
    }

    /// No more than so many bytes a second are written from now on.
    pub fn limit_rate(&mut self, bytes: u64) {
        self.pace = Some(Pace::new(bytes)).filter(|_| bytes > 0);
    }

    /// Waits until so many bytes may be written.
    pub fn pace(&self, bytes: u64) {
        if let Some(pace) = &self.pace {
            pace.wait(bytes);
        }
    }

    /// The content of images will be read, and not only what is said about it.
    pub fn read_content(&mut self) {
        self.claim = lock::READ;
    }

    /// Reads past the page cache from now on.
    pub fn read_directly(&mut self) {
        self.direct = true;
    }

    /// Whether it does.
    pub fn reads_directly(&self) -> bool {
        self.direct
    }

    /// How files are opened: waiting for nobody, so that a FIFO or a device in use cannot keep us.
    fn flags(&self) -> OFlags {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        if self.direct { flags | OFlags::DIRECT } else { flags }
    }

    /// Lets images use names beyond plain files, if policy is qemu-img's.
    pub fn interpret_names(&mut self, interpret: Interpret) {
        self.interpret = Some(interpret).filter(|_| self.policy.as_qemu);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file of zeroes that is nobody's.
    pub fn open_blank(&self, name: &[u8], len: u64) -> Result<Granted, Mishap> {
        let mishap = |errno| Mishap { name: name.to_vec(), named_by: None, why: Why::System(errno) };
        let file = rustix::fs::memfd_create("instar-blank", rustix::fs::MemfdFlags::CLOEXEC).map_err(mishap)?;
        rustix::fs::ftruncate(&file, len).map_err(mishap)?;
        self.take_in(name, file)
    }

    /// From now on reading the file fails where these faults are.
    pub fn spoil(&self, id: FileId, faults: Vec<Fault>) {
        let index = usize::try_from(id.0).unwrap_or(usize::MAX);
        self.state().entries.get_mut(index).into_iter().for_each(|entry| entry.faults.extend(&faults));
    }

    /// Fails if there is a fault in what is to be read.
    pub fn heed_faults(&self, id: FileId, at: u64, len: u64) -> io::Result<()> {
        let mut state = self.state();
        let index = usize::try_from(id.0).unwrap_or(usize::MAX);
        let Some(entry) = state.entries.get_mut(index).filter(|entry| !entry.faults.is_empty()) else { return Ok(()) };
        let hit = |fault: &Fault| fault.at.is_none_or(|place| place >= at && place - at < len);
        let Some(number) = entry.faults.iter().position(hit) else { return Ok(()) };
        let fault = entry.faults[number];
        if fault.once {
            entry.faults.remove(number);
        }
        Err(fault.errno.into())
    }

    /// Whether some of its reads are to fail.
    pub fn has_faults(&self, id: FileId) -> bool {
        let index = usize::try_from(id.0).unwrap_or(usize::MAX);
        self.state().entries.get(index).is_some_and(|entry| !entry.faults.is_empty())
    }

    /// Takes in a file that has no name, under one that the user knows.
    pub fn take_in(&self, name: &[u8], file: OwnedFd) -> Result<Granted, Mishap> {
        let mishap = |why| Mishap { name: name.to_vec(), named_by: None, why };
        let stat = fstat(&file).map_err(|errno| mishap(Why::System(errno)))?;
        self.admit_file(file, &stat, Arrival::named(name, PathBuf::from("/"))).map_err(mishap)
    }

    /// Opens a file that the user named; its directory's tree is from then on where its image may name others.
    ///
    /// `lock`: unless the session takes no locks anyway.
    pub fn open(&mut self, name: &[u8], lock: bool) -> Result<Granted, Mishap> {
        self.open_named(name, lock, self.flags(), false)
    }

    /// Opens a file that the user named so that its content may be changed.
    pub fn open_to_write(&mut self, name: &[u8], lock: bool) -> Result<Granted, Mishap> {
        self.open_named(name, lock, (self.flags() - OFlags::RDONLY) | OFlags::RDWR, true)
    }

    /// Grants a file that is only made later: by [`Self::fulfil`], before the worker may touch it.
    pub fn promise(&self, name: &[u8]) -> Granted {
        self.state().grant_made(name, None, 0)
    }

    /// A promised file will stand there: what its image names is looked for beside it.
    pub fn place(&mut self, id: FileId, path: &Path) {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        let Some((parent, name)) = absolute.parent().zip(absolute.file_name()) else { return };
        let real = parent.canonicalize().unwrap_or_else(|_| parent.to_path_buf());
        self.policy.roots.extend([real.clone(), parent.to_path_buf()]);
        let index = usize::try_from(id.0).unwrap_or(usize::MAX);
        if let Some(entry) = self.state().entries.get_mut(index) {
            entry.path = real.join(name);
        }
    }

    /// Keeps a promise.
    pub fn fulfil(&self, id: FileId, target: &Target) {
        let file = target.file();
        let index = usize::try_from(id.0).unwrap_or(usize::MAX);
        let identity = fstat(&*file).map_or((0, 0), |stat| (stat.st_dev, stat.st_ino));
        if let Some(entry) = self.state().entries.get_mut(index) {
            entry.identity = identity;
            (entry.unseen, entry.lasts) = (target.is_unseen(), target.replaces());
            entry.file.get_or_insert(file);
        }
    }

    /// Whether nobody sees what is in the file before it is published.
    pub fn is_unseen(&self, id: FileId) -> bool {
        let index = usize::try_from(id.0).unwrap_or(usize::MAX);
        self.state().entries.get(index).is_some_and(|entry| entry.unseen)
    }

    /// Whether any open file is the one with this device and inode number.
    pub fn has_open(&self, identity: (u64, u64)) -> bool {
        self.state().entries.iter().any(|entry| entry.file.is_some() && entry.identity == identity)
    }

    fn open_named(&mut self, name: &[u8], lock: bool, flags: OFlags, writable: bool) -> Result<Granted, Mishap> {
        let path = Path::new(OsStr::from_bytes(name));
        let mishap = |why| Mishap { name: name.to_vec(), named_by: None, why };
        let system = |errno| mishap(Why::System(errno));
        let file = openat(CWD, path, flags, Mode::empty()).map_err(system)?;
        let stat = fstat(&file).map_err(system)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile | FileType::BlockDevice | FileType::CharacterDevice => {}
            _ => return Err(mishap(Why::NotRegular)),
        }
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        // The directory as it is without links: what lies beside the image is looked up, and judged, from there.
        let parent = absolute.parent().and_then(|p| p.canonicalize().ok());
        if let Ok(real) = path.canonicalize() {
            // Images may call the directory by the user's name for it, too; a link to the image is another directory.
            let typed = absolute.parent().filter(|_| parent.as_deref() == real.parent());
            self.policy.roots.extend([real.parent(), typed].into_iter().flatten().map(Path::to_path_buf));
            self.policy.named.push(real);
        }
        self.policy.named.extend(policy::flatten(&absolute));
        let place = parent.zip(absolute.file_name()).map_or_else(|| absolute.clone(), |(p, name)| p.join(name));
        self.locking &= lock;
        self.admit_file(file, &stat, Arrival { writable, ..Arrival::named(name, place) }).map_err(mishap)
    }

    fn admit_file(&self, file: OwnedFd, stat: &Stat, arrival: Arrival) -> Result<Granted, Why> {
        let Arrival { name, path, named_by, depth, writable } = arrival;
        let device = FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile;
        // An image may be opened again that is made of several files.
        if let Some(again) = named_by.filter(|_| writable).and_then(|by| self.again(by, stat)) {
            return Ok(again);
        }
        // What is read must not be written to, and what an image names cannot be asked about.
        if writable && named_by.is_some() && self.has_open((stat.st_dev, stat.st_ino)) {
            return Err(Why::Source);
        }
        let len = match seek(&file, rustix::fs::SeekFrom::End(0)) {
            Ok(len) => len,
            Err(_) if FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice => 0,
            Err(errno) => return Err(Why::NoLength(errno)),
        };
        let allocated = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
        let (mut conflict, mut held) = (None, None);
        if self.locking {
            match lock::claim(&file, if writable { lock::WRITE } else { self.claim }) {
                Ok(Ok(lock)) => held = Some(Arc::new(lock)),
                Ok(Err(c)) if writable && named_by.is_some() => return Err(Why::InUse(c)),
                Ok(Err(c)) => conflict = Some(c),
                Err(e) => return Err(Why::System(Errno::from_io_error(&e).unwrap_or(Errno::IO))),
            }
        }
        let suggested = SUFFIXES.iter().find(|(suffix, _)| name.ends_with(suffix)).map(|(_, format)| (*format).into());
        let mut state = self.state();
        if state.entries.len() >= FILES_MAX {
            return Err(Why::TooMany);
        }
        let id = FileId(u32::try_from(state.entries.len()).map_err(|_| Why::TooMany)?);
        state.entries.push(Entry {
            file: Some(Arc::new(file)),
            name,
            path,
            facts: Facts { len, allocated, device },
            identity: (stat.st_dev, stat.st_ino),
            named_by,
            depth,
            conflict,
            faults: Vec::new(),
            spares: Spares::default(),
            unseen: false,
            lasts: false,
            _lock: held,
        });
        state.grants.push(Grant { len, writable, has_parts: false });
        Ok(Granted { id, len, allocated, writable, pinned: None, suggested })
    }

    fn entry(&self, id: FileId) -> Option<Entry> {
        self.state().entries.get(usize::try_from(id.0).ok()?).cloned()
    }

    /// The open file of that number.
    pub fn file(&self, id: FileId) -> Option<Arc<OwnedFd>> {
        usize::try_from(id.0).ok().and_then(|index| self.state().entries.get(index)?.file.clone())
    }

    /// What the user would call the file.
    pub fn name(&self, id: FileId) -> Vec<u8> {
        self.entry(id).map(|e| e.name).unwrap_or_default()
    }

    /// What the user would call a file that `from`'s image names so.
    pub fn name_beside(&self, from: FileId, name: &[u8]) -> Vec<u8> {
        beside(&self.name(from), name)
    }

    /// What is known of the file without reading it.
    pub fn facts(&self, id: FileId) -> Option<Facts> {
        self.entry(id).map(|e| e.facts)
    }

    /// How long the file is now.
    pub fn length(&self, id: FileId) -> Option<u64> {
        self.file(id).and_then(|file| crate::plane::length(&file).ok())
    }

    /// Who else uses the file so that it should not be opened as an image.
    pub fn conflict(&self, id: FileId) -> Option<Conflict> {
        self.entry(id).and_then(|e| e.conflict)
    }

    /// The grants so far, by number.
    pub fn grants(&self) -> Vec<Grant> {
        self.state().grants.clone()
    }

    /// Has the grants so far looked at.
    pub fn with_grants<T>(&self, look: impl FnOnce(&[Grant]) -> T) -> T {
        look(&self.state().grants)
    }

    /// Keeps a note of what went wrong and tells its number.
    pub fn note(&self, mut mishap: Mishap) -> u32 {
        mishap.name.truncate(PATH_MAX);
        mishap.name.shrink_to_fit();
        let mut state = self.state();
        if state.mishaps.len() < MISHAPS_MAX {
            state.mishaps.push(mishap);
        }
        u32::try_from(state.mishaps.len() - 1).unwrap_or(u32::MAX)
    }

    /// The note of that number.
    pub fn mishap(&self, number: u32) -> Option<Mishap> {
        self.state().mishaps.get(usize::try_from(number).ok()?).cloned()
    }

    /// Whether policy would let an image lead to this name; nothing is opened or looked at.
    pub fn verdict(&self, from: FileId, name: &Bytes) -> Result<(), Refusal> {
        if self.policy.as_qemu {
            return Ok(());
        }
        let plain = policy::judge_name(&name.0)?;
        let Some(from) = self.entry(from) else { return Err(Refusal::Empty) };
        let path = from.path.parent().unwrap_or(Path::new("/")).join(OsStr::from_bytes(plain));
        policy::judge(&self.policy, &path).map(drop)
    }
}

/// `name` in the directory of `from`, as a user would write it.
fn beside(from: &[u8], name: &[u8]) -> Vec<u8> {
    let directory = from.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
    match name {
        [b'/', ..] => name.to_vec(),
        _ => [from.get(..directory).unwrap_or_default(), name].concat(),
    }
}
