//! Bitmaps that an image keeps beside its disk: which parts of it were written to since some day.

use alloc::vec::Vec;

/// A bitmap, without its bits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bitmap {
    /// Its name.
    pub name: Vec<u8>,
    /// Bytes of the disk that one bit stands for.
    pub granularity: u64,
    /// It records what is written from now on.
    pub is_enabled: bool,
    /// It was not kept properly: its bits say nothing.
    pub is_broken: bool,
}

impl Bitmap {
    /// Bytes of the bits of a disk so long.
    pub fn len(&self, size: u64) -> u64 {
        size.div_ceil(self.granularity.max(1)).div_ceil(8)
    }
}
