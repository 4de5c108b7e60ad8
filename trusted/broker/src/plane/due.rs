//! When what is written has to be on the disk.

use crate::sys;
use rustix::io::{Errno, ReadWriteFlags};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::LazyLock;

/// To be written to the disk at once, and not to stay in memory after that.
const DONTCACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(libc::RWF_DONTCACHE.cast_unsigned());

/// When bytes have to be on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    /// When the kernel likes.
    Anytime,
    /// Soon, since somebody waits for all of them at the end. They leave memory as they come, which then serves the
    /// next ones: new memory takes longer to get than the disk to write.
    Soon,
    /// Soon, where that is told afterwards, since they cannot be written in that way.
    Told,
}

/// The first kernel that is trusted with it: in those before, what was changed again on its way could leave too early.
const SINCE: (u32, u32) = (6, 16);

impl Due {
    /// Soon, in the best way that the kernel has.
    pub fn soon() -> Due {
        static WAY: LazyLock<Due> = LazyLock::new(|| {
            let system = rustix::system::uname();
            let is_new = release(&system.release().to_string_lossy()).is_some_and(|release| release >= SINCE);
            if is_new { Due::Soon } else { Due::Told }
        });
        *WAY
    }

    /// How they are written.
    pub(super) fn flags(self) -> ReadWriteFlags {
        if self == Due::Soon { DONTCACHE } else { ReadWriteFlags::empty() }
    }

    /// Whether an error says no more than that they cannot be written in this way.
    pub(super) fn is_refused(&mut self, error: Errno) -> bool {
        let is_refused = *self == Due::Soon && matches!(error, Errno::OPNOTSUPP | Errno::NOSYS);
        *self = if is_refused { Due::Told } else { *self };
        is_refused
    }

    /// All of these have been written.
    pub(super) fn end(self, file: &OwnedFd, at: u64, len: u64) {
        if self == Due::Told {
            sys::start_writing(file.as_fd(), at, len);
        }
    }
}

/// The first two numbers of a kernel's release.
fn release(name: &str) -> Option<(u32, u32)> {
    let mut numbers = name.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_told_apart() {
        assert!(release("6.16.0-rc1").is_some_and(|release| release >= SINCE));
        assert!(release("7.0-custom").is_some_and(|release| release >= SINCE));
        assert!(release("6.9.12+deb13-amd64").is_some_and(|release| release < SINCE));
        assert_eq!(["", "6", "six.one"].map(release), [None; 3]);
    }
}
