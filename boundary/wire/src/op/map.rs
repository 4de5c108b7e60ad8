//! `map`: what every range of a disk is, and where its bytes lie.

use super::{Rules, Source, Step};
use crate::code::Bytes;
use crate::io::FileId;
use crate::message;
use alloc::vec::Vec;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

message! {
    /// Map this image and all below it.
    pub struct Request {
        /// The image.
        pub top: Source,
        /// What may be taken for a format.
        pub rules: Rules,
        /// The first byte that is mapped.
        pub start: u64,
        /// How many bytes from there on at most.
        pub length: Option<u64>,
        /// Stop behind data that lie nowhere as they are: there is no way to tell where.
        pub plain: bool,
    }
}

message! {
    /// What is told on the way.
    pub enum Event {
        /// The images are being opened.
        Step(Step) = 0,
        /// All are open.
        Ready = 1,
        /// More rows, one behind the other; see [`rows`].
        Rows(Bytes) = 2,
        /// The last rows told were data that lie nowhere as they are, and nothing more is told.
        Hidden = 3,
    }
}

/// Some layer has it.
pub const PRESENT: u32 = 1;
/// It reads as zeroes.
pub const ZERO: u32 = 2;
/// There is space for it.
pub const DATA: u32 = 4;
/// It is compressed.
pub const PACKED: u32 = 8;
/// It lies in a file as it is.
pub const PLACED: u32 = 16;

/// A range of the disk; it begins where the one before it ends. Millions of them cross the wall, so they have no frills.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Row {
    /// Its length in bytes.
    pub len: u64,
    /// Where it lies in the file, if it does.
    pub offset: u64,
    /// Number of the file, if it lies in one.
    pub file: u32,
    /// Number of the layer that has it, 0 on top; in the upper bits what it is.
    pub state: u32,
}

/// Bits of [`Row::state`] that say what the row is; the others are its layer.
const FLAGS: u32 = 5;

impl Row {
    /// A row of this length in this layer. `flags`: what it is.
    pub fn new(len: u64, depth: u32, flags: u32) -> Row {
        Row { len, offset: 0, file: 0, state: depth.wrapping_shl(FLAGS) | flags }
    }

    /// The same, and it lies there.
    #[must_use]
    pub fn placed(self, file: FileId, offset: u64) -> Row {
        Row { file: file.0, offset, state: self.state | PLACED, ..self }
    }

    /// Number of its layer.
    pub fn depth(&self) -> u32 {
        self.state >> FLAGS
    }

    /// Whether it is what these flags say.
    pub fn is(&self, flags: u32) -> bool {
        self.state & flags == flags
    }
}

/// Bytes of a row.
pub const ROW_LEN: usize = size_of::<Row>();

/// The rows in bytes that came over the wall; what is left of one at the end is nothing.
pub fn rows(bytes: &[u8]) -> impl Iterator<Item = Row> {
    bytes.as_chunks::<ROW_LEN>().0.iter().map(|row| zerocopy::transmute!(*row))
}

/// Appends a row to others.
pub fn put(row: &Row, out: &mut Vec<u8>) {
    out.extend_from_slice(row.as_bytes());
}
