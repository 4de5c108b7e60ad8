//! What an image that is not there yet would hold, as far as its size depends on it.

use alloc::vec::Vec;
use instar_wire::error::Result;

/// What would be written into an image.
pub struct Content<'a> {
    /// What it would be a copy of; nothing if it stays empty.
    pub input: Option<Input<'a>>,
}

/// A disk that is copied.
pub struct Input<'a> {
    /// Its bitmaps, where its format and version can have any.
    pub bitmaps: Option<Vec<Bitmap>>,
    /// Tells how many pieces of a length hold data: all that does not read as zeroes as far as can be told unread.
    pub count: &'a dyn Fn(u64) -> Result<u64>,
}

/// A bitmap that is copied.
#[derive(Clone, Copy, Debug)]
pub struct Bitmap {
    /// Bytes of its name.
    pub name_len: u64,
    /// Bytes that one bit stands for.
    pub granularity: u64,
}

impl Content<'_> {
    /// Of an image that stays empty.
    pub fn nothing() -> Content<'static> {
        Content { input: None }
    }

    /// How many pieces of a length hold data.
    pub fn pieces(&self, len: u64) -> Result<u64> {
        self.input.as_ref().map_or(Ok(0), |input| (input.count)(len))
    }
}
