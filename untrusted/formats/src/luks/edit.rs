//! Changes of a LUKS container that is there.

#[cfg(test)]
mod tests;

use instar_image::sector::round_up;
use instar_image::stretch::stretch;
use instar_image::{Below, Drive, Edit, File, Kind, Preallocation, Result};

/// A container that is changed.
pub struct Change<'i, 'a> {
    /// The file of its disk.
    pub file: &'i File<'a>,
    /// Where the disk begins there.
    pub payload_at: u64,
    /// What is encrypted as one, in bytes.
    pub unit: u64,
    /// The disk ends with the file.
    pub is_open: bool,
}

impl Edit for Change<'_, '_> {
    /// What is new reads as what zeroes decrypt to, as it is with qemu-img: whoever wants zeroes there has to write them.
    fn resize(&mut self, drive: &dyn Drive, size: u64, space: Preallocation, _below: &Below<'_>) -> Result<u64> {
        if !self.is_open {
            return Err(Kind::Unsupported.what("the header of the container says how large its disk is"));
        }
        // What is longer than a sector has to be there as a whole.
        let size = if self.unit > 512 { size.next_multiple_of(self.unit) } else { size };
        stretch(drive, self.file.id(), self.payload_at.saturating_add(size), space)?;
        Ok(round_up(size))
    }
}
