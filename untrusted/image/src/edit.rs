//! An image that is changed where it stands.
//!
//! Whatever is changed, a crash leaves the old state or the new one, and at worst space that nobody uses: space that
//! nothing refers to is filled first, references are turned over then, and what nothing refers to any more is given
//! back last.

use crate::file::Drive;
use crate::site::Preallocation;
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
    fn resize(&mut self, drive: &dyn Drive, size: u64, space: Preallocation) -> Result<u64> {
        let _ = (drive, size, space);
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

    /// The snapshot with that number is not wanted any more.
    fn delete_snapshot(&mut self, drive: &dyn Drive, number: usize) -> Result<()> {
        let _ = (drive, number);
        Err(Kind::Unsupported.what("Operation not supported"))
    }
}
