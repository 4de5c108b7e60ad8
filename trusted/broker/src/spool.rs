//! A stream that is to be read at any offset: its bytes are kept in a file without a name.

use crate::plane::keep;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ftruncate, openat, unlinkat};
use rustix::io::{Errno, read};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Bytes read at once.
const PIECE: usize = 256 << 10;
/// Only its owner may look at what somebody sends through a pipe.
const MODE: Mode = Mode::from_raw_mode(0o600);

/// Keeps at most `most` bytes of standard input in a file of the directory; answers how many there were.
pub fn standard_input(directory: &Path, most: u64) -> io::Result<(OwnedFd, u64)> {
    let file = nameless(directory)?;
    let mut buffer = vec![0; PIECE];
    let mut len = 0;
    while len < most {
        let piece = PIECE.min(usize::try_from(most - len).unwrap_or(PIECE));
        match read(std::io::stdin(), &mut buffer[..piece]) {
            Ok(0) => break,
            Ok(n) => {
                keep(&file, len, &buffer[..n])?;
                len += n as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    ftruncate(&file, len)?;
    Ok((file, len))
}

/// A file that nobody finds, and that goes with its last user.
fn nameless(directory: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    match openat(CWD, directory, flags | OFlags::TMPFILE, MODE) {
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {}
        made => return made,
    }
    let name = directory.join(format!(".instar-{}-input", std::process::id()));
    let file = openat(CWD, &name, flags | OFlags::CREATE | OFlags::EXCL, MODE)?;
    unlinkat(CWD, &name, AtFlags::empty())?;
    Ok(file)
}
