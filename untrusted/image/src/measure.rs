//! What an image that is not there yet would hold, as far as its size depends on it.

use alloc::vec::Vec;
use instar_wire::error::{Kind, Result};
use instar_wire::op::Recipe;
use instar_wire::op::measure::Measured;

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

/// A disk that is stored in pieces as they are written.
#[derive(Clone, Copy, Debug)]
pub struct Pieces {
    /// Bytes of the disk.
    pub size: u64,
    /// Bytes of it that a piece has.
    pub len: u64,
    /// Bytes of the file that a piece takes at most.
    pub stored: u64,
    /// Bytes of the file that there are in any case.
    pub always: u64,
}

impl Pieces {
    /// What the file takes. `all`: every piece is stored, written or not.
    pub fn measure(&self, content: &Content<'_>, all: bool) -> Result<Measured> {
        let stored = |pieces: u64| pieces.saturating_mul(self.stored).saturating_add(self.always);
        let fully_allocated = stored(self.size.div_ceil(self.len.max(1)));
        let required = if all { fully_allocated } else { stored(content.pieces(self.len)?) };
        Ok(Measured { required, fully_allocated, bitmaps: None })
    }
}

/// Whether everything must be expected to be written: how much of an overlay its backing file has cannot be known.
pub fn overlays(recipe: &Recipe, content: &Content<'_>) -> bool {
    content.input.is_some() && recipe.text("backing_file").is_some()
}

/// Whether a recipe wants all of the disk to have its place from the beginning; of formats with just these two kinds.
pub fn is_fixed(recipe: &Recipe) -> Result<bool> {
    match recipe.text("subformat") {
        None | Some(b"dynamic") => Ok(false),
        Some(b"fixed") => Ok(true),
        Some(other) => Err(Kind::Unsupported.what("Parameter 'subformat' does not accept value '{}'").arg(other)),
    }
}
