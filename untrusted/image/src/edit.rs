//! An image that is changed where it stands.
//!
//! Whatever is changed, a crash leaves the old state or the new one, and at worst space that nobody uses: space that
//! nothing refers to is filled first, references are turned over then, and what nothing refers to any more is given
//! back last.

use crate::file::Drive;
use crate::site::Preallocation;
use instar_wire::error::{Kind, Result};

/// An image that is open to be changed. Each change is complete, and durable, when it has been answered.
pub trait Edit {
    /// The disk gets another size; what is new reads as zeroes, whatever lies below. Answers the size that it has now,
    /// which is larger if the format cannot have any.
    fn resize(&mut self, drive: &dyn Drive, size: u64, space: Preallocation) -> Result<u64> {
        let _ = (drive, size, space);
        Err(Kind::Unsupported.what("Image format driver does not support resize"))
    }
}
