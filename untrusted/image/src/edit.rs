//! An image that is changed where it stands.
//!
//! Whatever is changed, a crash leaves the old state or the new one, and at worst space that nobody uses: space that
//! nothing refers to is filled first, references are turned over then, and what nothing refers to any more is given
//! back last.

use crate::chain::Chain;
use crate::file::Drive;
use crate::num::wide;
use crate::read::Reader;
use crate::site::Preallocation;
use crate::walk::Walk;
use instar_wire::error::{Kind, Result};

/// A snapshot that is to be taken.
pub struct NewSnapshot<'n> {
    /// What it is called.
    pub name: &'n [u8],
    /// When it is taken: seconds since 1970, and nanoseconds.
    pub date_sec: u32,
    /// See `date_sec`.
    pub date_nsec: u32,
}

/// An image that is open to be changed. Each change is complete, and durable, when it has been answered.
pub trait Edit {
    /// The disk gets another size; what is new reads as zeroes, whatever lies below. Answers the size that it has now,
    /// which is larger if the format cannot have any.
    fn resize(&mut self, drive: &dyn Drive, size: u64, space: Preallocation, below: &Below<'_>) -> Result<u64> {
        let _ = (drive, size, space, below);
        Err(Kind::Unsupported.what("Image format driver does not support resize"))
    }

    /// What the disk holds now can be had again later.
    fn take_snapshot(&mut self, drive: &dyn Drive, new: &NewSnapshot<'_>) -> Result<()> {
        let _ = (drive, new);
        Err(Kind::Unsupported.what("Operation not supported"))
    }

    /// The disk holds what it held when the snapshot with that number was taken.
    fn apply_snapshot(&mut self, drive: &dyn Drive, number: usize) -> Result<()> {
        let _ = (drive, number);
        Err(Kind::Unsupported.what("Block driver does not support snapshots"))
    }

    /// It stands on the image of this name from now on, which has this format; on none if there is no name. What it reads
    /// as changes with that, so whoever asks has made sure that it may.
    fn stand_on(&mut self, drive: &dyn Drive, name: &[u8], format: Option<&[u8]>) -> Result<()> {
        let _ = (drive, name, format);
        Err(Kind::Unsupported.what("Operation not supported"))
    }

    /// It has nothing of its own any more, and reads as what lies below.
    fn empty(&mut self, drive: &dyn Drive) -> Result<()> {
        let _ = drive;
        Err(Kind::Unsupported.what("Operation not supported"))
    }

    /// The snapshot with that number is not wanted any more.
    fn delete_snapshot(&mut self, drive: &dyn Drive, number: usize) -> Result<()> {
        let _ = (drive, number);
        Err(Kind::Unsupported.what("Operation not supported"))
    }
}

/// What lies below an image that is changed: where it has no bytes of its own, it reads as this does.
pub struct Below<'b> {
    chain: &'b Chain<'b>,
}

impl<'b> Below<'b> {
    /// The layers below it, of which there may be none.
    pub fn new(chain: &'b Chain<'b>) -> Self {
        Below { chain }
    }

    /// Size of the disk below; behind it are zeroes.
    pub fn size(&self) -> u64 {
        self.chain.size()
    }

    /// Fills `bytes` with what is below from `at` on.
    pub fn read(&self, drive: &dyn Drive, at: u64, bytes: &mut [u8]) -> Result<()> {
        bytes.fill(0);
        let end = at.saturating_add(wide(bytes.len())).min(self.size());
        if at >= end {
            return Ok(());
        }
        let (mut walk, mut reader) = (Walk::new(self.chain, drive, at, end), Reader::new(self.chain, drive));
        let mut rest = bytes;
        while let Some((len, found)) = walk.peek()? {
            let room = usize::try_from(len).unwrap_or(rest.len()).min(rest.len());
            let (now, then) = rest.split_at_mut(room);
            reader.read(&found, now)?;
            walk.advance(wide(room));
            rest = then;
            if rest.is_empty() {
                break;
            }
        }
        Ok(())
    }
}
