//! Changes of a raw disk that is there.

#[cfg(test)]
mod tests;

use super::open::Raw;
use instar_image::sector::round_up;
use instar_image::stretch::stretch;
use instar_image::{Chain, Drive, Edit, Kind, Preallocation, Result};

/// A disk that is changed.
pub struct Change<'i, 'a>(pub &'i Raw<'a>);

impl Edit for Change<'_, '_> {
    /// The file ends with the last byte that was asked for, although the disk ends with a sector.
    fn resize(&mut self, drive: &dyn Drive, size: u64, space: Preallocation, _below: &Chain<'_>) -> Result<u64> {
        let Change(raw) = self;
        if raw.is_fixed {
            return Err(Kind::Unsupported.what("Cannot resize fixed-size raw disks"));
        }
        stretch(drive, raw.file.id(), raw.file.place(size).at, space)?;
        Ok(round_up(size))
    }
}
