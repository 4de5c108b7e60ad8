//! Where tests find the build's folders, and folders of their own that vanish afterwards.

use rustix::fs::{XattrFlags, getxattr, setxattr};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("testkit lies in the repository").to_owned()
}

/// What lies beside the repository: recorded outputs, scripts, specifications.
pub fn shared() -> PathBuf {
    repository().parent().unwrap_or(Path::new("/")).join("shared")
}

/// The build folder that this test program was built in.
pub fn target() -> PathBuf {
    let own = std::env::current_exe().expect("the path of the test program");
    let tagged = own.ancestors().filter(|folder| folder.join("CACHEDIR.TAG").exists()).last();
    tagged.map_or_else(|| repository().join("target"), Path::to_owned)
}

/// A folder that is removed when it goes out of scope.
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new folder that everyone may enter.
    pub fn new(name: &str) -> Self {
        Self::below(&std::env::temp_dir(), name)
    }

    /// The same in memory, if it can be had and nobody has said where temporary files are to be: what is flushed all the
    /// time takes its time on a disk.
    pub fn quick(name: &str) -> Self {
        let memory = Path::new("/dev/shm");
        let is_free = std::env::var_os("TMPDIR").is_none() && memory.is_dir();
        if is_free { Self::below(memory, name) } else { Self::new(name) }
    }

    fn below(folder: &Path, name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("instar-{name}-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder for temporary files");
        let path = path.canonicalize().expect("its path");
        Scratch(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file in it.
    pub fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.0.join(name), bytes).expect("a file in a folder for temporary files");
    }

    /// A folder in it.
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(&path).expect("a folder for temporary files");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::env::var_os("INSTAR_KEEP").is_some() {
            eprintln!("kept: {}", self.0.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// A small file system of its own, for as long as the value lives.
pub struct Small(PathBuf);

impl Small {
    /// In memory and of that size, as `mount` writes it; only root can.
    pub fn mount(at: PathBuf, size: &str) -> Option<Small> {
        std::fs::create_dir_all(&at).expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"]).arg(&at);
        mount.output().is_ok_and(|done| done.status.success()).then_some(Small(at))
    }

    /// One whose files can share what they hold; only root can.
    pub fn sharing(at: PathBuf) -> Option<Small> {
        Self::made(at, 1 << 30, &["mkfs.xfs", "-q", "-m", "reflink=1"])
    }

    /// One that looks for space when something is written, and has what is given back at once; only root can.
    pub fn ext4(at: PathBuf, len: u64) -> Option<Small> {
        Self::made(at, len, &["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal"])
    }

    /// One on a disk that is a file beside it.
    fn made(at: PathBuf, len: u64, mkfs: &[&str]) -> Option<Small> {
        std::fs::create_dir_all(&at).expect("a folder");
        let disk = at.with_extension("disk");
        std::fs::File::create(&disk).and_then(|file| file.set_len(len)).expect("a disk");
        let done = |command: &mut Command| command.output().is_ok_and(|done| done.status.success());
        let is_made = done(Command::new(mkfs[0]).args(&mkfs[1..]).arg(&disk));
        (is_made && done(Command::new("mount").args(["-o", "loop"]).arg(&disk).arg(&at))).then_some(Small(at))
    }

    /// Bytes of it that are in use.
    pub fn used(&self) -> u64 {
        let facts = self.settled();
        (facts.f_blocks - facts.f_bfree) * facts.f_frsize
    }

    /// Bytes of it that can still be used.
    pub fn room(&self) -> u64 {
        let facts = self.settled();
        facts.f_bavail * facts.f_frsize
    }

    /// What it says of itself once it has found a place for everything: what is on its way may count twice.
    fn settled(&self) -> rustix::fs::StatVfs {
        let folder = std::fs::File::open(&self.0).expect("a file system");
        rustix::fs::syncfs(&folder).expect("a file system");
        rustix::fs::statvfs(&self.0).expect("a file system")
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// Says loudly that something was not tried.
pub fn skipped(reason: &str) {
    // Past the capture of the test harness, which would keep it from anyone who looks at a green run.
    let _ = std::io::stderr().write_all(format!("SKIPPED: {reason}\n").as_bytes());
}

/// Whoever makes a file in this folder from now on lets somebody else read it.
pub fn admit_somebody(folder: &Path) {
    let entries = [(1u16, 6u16, u32::MAX), (2, 4, 12_345), (4, 4, u32::MAX), (16, 6, u32::MAX), (32, 0, u32::MAX)];
    let entry =
        |(tag, may, who): (u16, u16, u32)| [&tag.to_le_bytes()[..], &may.to_le_bytes(), &who.to_le_bytes()].concat();
    let list = [&2u32.to_le_bytes()[..], &entries.map(entry).concat()].concat();
    setxattr(folder, "system.posix_acl_default", &list, XattrFlags::empty()).expect("a list of readers");
}

/// Whether a file has a list of others who may read it.
pub fn admits_somebody(path: &Path) -> bool {
    getxattr(path, "system.posix_acl_access", &mut [0; 256][..]).is_ok()
}
