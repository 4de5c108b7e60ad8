//! Changes of an image that is there.

mod amend;
pub mod bitmap;
mod link;
mod mend;
mod rebuild;
mod remake;
mod repair;
mod resize;
mod snapshot;
#[cfg(test)]
mod tests;
mod tree;
mod work;

pub use mend::Mend;
pub use repair::repair;

use super::Qcow2Image;
use super::open::L1_LEN_MAX;
use instar_image::bitmap::Wanted;
use instar_image::edit::{Amended, Amendment, Footing, NewSnapshot};
use instar_image::target::ReadBits;
use instar_image::{Chain, Drive, Edit, Preallocation, Result};

/// The most entries of an L1 table.
const L1_ENTRIES_MAX: u64 = L1_LEN_MAX / 8;

/// Whoever changes an image that is there.
pub struct Editor<'e, 'a> {
    /// The image.
    pub image: &'e Qcow2Image<'a>,
}

impl Edit for Editor<'_, '_> {
    fn resize(&mut self, drive: &dyn Drive, size: u64, space: Preallocation, below: &Chain<'_>) -> Result<u64> {
        self.set_size(drive, size, space, below)
    }

    fn amend(&mut self, drive: &dyn Drive, wish: &Amendment<'_>) -> Result<Amended> {
        self.set_options(drive, wish)
    }

    fn take_snapshot(&mut self, drive: &dyn Drive, new: &NewSnapshot<'_>) -> Result<()> {
        self.take(drive, new)
    }

    fn apply_snapshot(&mut self, drive: &dyn Drive, number: usize) -> Result<()> {
        self.apply(drive, number)
    }

    fn delete_snapshot(&mut self, drive: &dyn Drive, number: usize) -> Result<()> {
        self.delete(drive, number)
    }

    fn stand_on(&mut self, drive: &dyn Drive, footing: &Footing<'_>) -> Result<()> {
        Editor::stand_on(self, drive, footing)
    }

    fn empty(&mut self, drive: &dyn Drive) -> Result<()> {
        Editor::empty(self, drive)
    }

    fn set_bitmaps(&mut self, drive: &dyn Drive, all: &[Wanted], read: ReadBits<'_>) -> Result<()> {
        self.change_bitmaps(drive, all, read)
    }
}
