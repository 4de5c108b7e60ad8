//! What qemu-img's block layer does to every format: sectors, limits, and the phrases for passing them.

/// Disks are counted in these.
pub const SECTOR: u64 = 512;
/// Nothing at or beyond this offset can be read: any attempt is an input/output error.
pub const READ_END: u64 = 0x7fff_ffff_c000_0000;
/// The largest disk that is opened, in sectors.
pub const SECTORS_MAX: u64 = READ_END / SECTOR;
/// What is said of a larger one.
pub const TOO_LARGE: &str = "Could not refresh total sector count: File too large";
/// What is said where no reason is given.
pub const INVALID: &str = "Could not open '{file}': Invalid argument";

/// The length in whole sectors.
pub fn round_up(len: u64) -> u64 {
    len.checked_next_multiple_of(SECTOR).unwrap_or(u64::MAX)
}

/// Whether `len` bytes from `at` can be read at all; beyond the end of a file there are zeroes.
pub fn readable(at: u64, len: u64) -> bool {
    at.checked_add(len).is_some_and(|end| end <= READ_END)
}
