//! How a raw disk is made, and how large it is.

use instar_image::{Content, Kind, Measured, Preallocation, Recipe, Result, Site};

const SECTOR: u64 = 512;

/// All of the disk: holes are not counted.
pub fn measure(recipe: &Recipe, _content: &Content<'_>) -> Result<Measured> {
    let size = recipe.size.next_multiple_of(SECTOR);
    Ok(Measured { required: size, fully_allocated: size, bitmaps: None })
}

/// A file of that length.
pub fn create(recipe: &Recipe, site: &Site<'_>) -> Result<()> {
    match Preallocation::of(recipe)? {
        Preallocation::Metadata => Err(Kind::Unsupported.what("Unsupported preallocation mode: metadata")),
        how => site.extend(site.file, 0, recipe.size.next_multiple_of(SECTOR), how),
    }
}
