//! The mark by which an ISO 9660 file system is known.

use instar_image::{File, Result};

/// Where the identifier of the first volume descriptor lies: one byte into sector 16 of 2048 bytes.
const MARK_AT: u64 = 32769;
/// The identifier of every volume descriptor.
const MARK: [u8; 5] = *b"CD001";

/// A file that carries the mark.
pub struct Iso9660<'a> {
    /// The file.
    pub file: File<'a>,
}

/// Whether the file carries the mark.
pub fn is_iso(file: &File<'_>) -> Result<bool> {
    Ok(file.read_as::<[u8; 5]>(MARK_AT)? == MARK)
}
