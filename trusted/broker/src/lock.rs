//! Locks on image files, byte for byte those that QEMU takes, so that each respects the other's.

use crate::sys;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// What a user of an image may do, or does not want others to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Right {
    /// Read what stays as it is.
    ConsistentRead = 0,
    /// Write.
    Write = 1,
    /// Write what does not change the content.
    WriteUnchanged = 2,
    /// Change the length.
    Resize = 3,
}

impl Right {
    fn word(self) -> &'static str {
        match self {
            Right::ConsistentRead => "consistent read",
            Right::Write => "write",
            Right::WriteUnchanged => "write unchanged",
            Right::Resize => "resize",
        }
    }

    fn used_at(self) -> i64 {
        100 + self as i64
    }

    fn unshared_at(self) -> i64 {
        200 + self as i64
    }
}

/// What one user of a file claims.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// What it does.
    pub uses: &'static [Right],
    /// What others may not do meanwhile.
    pub unshares: &'static [Right],
}

/// Looking at an image's metadata.
pub const INSPECT: Claim = Claim { uses: &[], unshares: &[Right::Write, Right::Resize] };

/// Reading an image's content.
pub const READ: Claim = Claim { uses: &[Right::ConsistentRead], unshares: &[Right::Write, Right::Resize] };
/// Making a new image of a file.
pub const CREATE: Claim = Claim { uses: &[Right::Write, Right::Resize], unshares: &[Right::Resize] };
/// Writing into an existing image.
pub const WRITE: Claim = Claim { uses: &[Right::ConsistentRead, Right::Write], unshares: &[] };

/// Why a claim was not granted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conflict {
    /// The right in question.
    pub right: Right,
    /// It is in use by another, who may not share it; otherwise another forbids it.
    pub in_use: bool,
}

impl std::fmt::Display for Conflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shared = if self.in_use { "shared " } else { "" };
        write!(f, "Failed to get {shared}\"{}\" lock", self.right.word())
    }
}

/// A granted claim; it ends with the value.
#[derive(Debug)]
pub struct Held {
    file: OwnedFd,
    bytes: Vec<i64>,
}

impl Drop for Held {
    fn drop(&mut self) {
        for at in &self.bytes {
            sys::unlock_byte(self.file.as_fd(), *at);
        }
    }
}

/// Claims rights on an open file. File systems without locks grant everything, as they do for QEMU.
pub fn claim(file: &OwnedFd, claim: Claim) -> io::Result<Result<Held, Conflict>> {
    let mut held = Held { file: file.try_clone()?, bytes: Vec::new() };
    let mut taken = Ok(());
    for (right, at, in_use) in claim
        .uses
        .iter()
        .map(|r| (*r, r.used_at(), false))
        .chain(claim.unshares.iter().map(|r| (*r, r.unshared_at(), true)))
    {
        match sys::lock_byte(file.as_fd(), at) {
            Ok(true) => held.bytes.push(at),
            Ok(false) => taken = Err(Conflict { right, in_use }),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOLCK | libc::EOPNOTSUPP)) => {
                return Ok(Ok(held));
            }
            Err(e) => return Err(e),
        }
    }
    if let Err(conflict) = taken {
        return Ok(Err(conflict));
    }
    for (right, at, in_use) in claim
        .uses
        .iter()
        .map(|r| (*r, r.unshared_at(), false))
        .chain(claim.unshares.iter().map(|r| (*r, r.used_at(), true)))
    {
        if sys::byte_is_locked(file.as_fd(), at)? {
            return Ok(Err(Conflict { right, in_use }));
        }
    }
    Ok(Ok(held))
}
