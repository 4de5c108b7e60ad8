//! Opening a name below a directory without ever stepping outside it, whatever symbolic links lie on the way.

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fstat, openat, readlinkat, statat};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

/// Symbolic links followed before giving up, as the kernel does.
const LINKS_MAX: usize = 40;

/// Why a name below a root could not be opened.
#[derive(Debug, PartialEq, Eq)]
pub enum Miss {
    /// A symbolic link leads out.
    Outside,
    /// It is neither a regular file nor a block device.
    Kind,
    /// The operating system's word.
    System(Errno),
}

impl From<Errno> for Miss {
    fn from(errno: Errno) -> Self {
        Miss::System(errno)
    }
}

/// Opens `rest` below `root` with `flags`. Links are followed one at a time, by us, and only while they stay inside.
pub fn open_below(root: &Path, rest: &Path, flags: OFlags) -> Result<OwnedFd, Miss> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut stack = vec![openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?];
    let mut todo: VecDeque<OsString> = rest.iter().map(OsStr::to_os_string).collect();
    let mut links = 0;
    while let Some(name) = todo.pop_front() {
        if name == ".." {
            stack.pop();
            if stack.is_empty() {
                return Err(Miss::Outside);
            }
            continue;
        }
        let Some(here) = stack.last() else { return Err(Miss::Outside) };
        let kind = FileType::from_raw_mode(statat(here, &*name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode);
        if kind == FileType::Symlink {
            links += 1;
            if links > LINKS_MAX {
                return Err(Miss::System(Errno::LOOP));
            }
            let target = readlinkat(here, &*name, Vec::new())?;
            let inside = follow(root, Path::new(OsStr::from_bytes(target.as_bytes())), &mut stack)?;
            for part in inside.into_iter().rev() {
                todo.push_front(part);
            }
        } else if todo.is_empty() {
            return open_plain(here, &name, flags);
        } else {
            stack.push(openat(here, &*name, directory, Mode::empty())?);
        }
    }
    Err(Miss::Kind)
}

/// The parts of a link's target, to be walked from the top of `stack`; an absolute one starts at the root again.
fn follow(root: &Path, target: &Path, stack: &mut Vec<OwnedFd>) -> Result<Vec<OsString>, Miss> {
    let inside = if target.is_absolute() {
        stack.truncate(1);
        target.strip_prefix(root).map_err(|_| Miss::Outside)?
    } else {
        target
    };
    Ok(inside.components().filter(|c| *c != Component::CurDir).map(|c| c.as_os_str().to_os_string()).collect())
}

/// Opens a directory entry that must be a regular file or a block device; waits for nobody.
fn open_plain(directory: &OwnedFd, name: &OsStr, flags: OFlags) -> Result<OwnedFd, Miss> {
    let kind = FileType::from_raw_mode(statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode);
    if !plain(kind) {
        return Err(Miss::Kind);
    }
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(directory, name, flags, Mode::empty())?;
    // What was looked at may have been replaced since.
    if plain(FileType::from_raw_mode(fstat(&file)?.st_mode)) { Ok(file) } else { Err(Miss::Kind) }
}

fn plain(kind: FileType) -> bool {
    matches!(kind, FileType::RegularFile | FileType::BlockDevice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_are_followed_inside_and_refused_outside() {
        let dir = tempfile::tempdir().expect("a folder");
        let root = dir.path().canonicalize().expect("its path").join("root");
        fs::create_dir_all(root.join("sub/deep")).expect("folders");
        fs::write(root.join("file"), "x").expect("a file");
        fs::write(root.join("../secret"), "x").expect("a file");
        symlink("../file", root.join("sub/up")).expect("a link");
        symlink(root.join("sub/up"), root.join("absolute")).expect("a link");
        symlink("sub/deep", root.join("dir")).expect("a link");
        symlink("../secret", root.join("out")).expect("a link");
        symlink("/etc/passwd", root.join("out2")).expect("a link");
        symlink("/nosuch", root.join("out3")).expect("a link");
        symlink("loop", root.join("loop")).expect("a link");
        rustix::fs::mknodat(CWD, root.join("fifo"), FileType::Fifo, Mode::RUSR, 0).expect("a fifo");
        let open = |name: &str| open_below(&root, Path::new(name), OFlags::RDONLY).map(drop);
        for name in ["file", "sub/up", "absolute", "dir/../../file"] {
            assert_eq!(open(name), Ok(()), "{name}");
        }
        for name in ["out", "out2", "out3", "sub/../../secret", ".."] {
            assert_eq!(open(name), Err(Miss::Outside), "{name}");
        }
        assert_eq!(open("fifo"), Err(Miss::Kind));
        assert_eq!(open("sub"), Err(Miss::Kind));
        assert_eq!(open("loop"), Err(Miss::System(Errno::LOOP)));
        assert_eq!(open("nosuch"), Err(Miss::System(Errno::NOENT)));
        assert_eq!(open("file/x"), Err(Miss::System(Errno::NOTDIR)));
    }
}
