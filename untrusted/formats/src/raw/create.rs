//! How large a raw disk is.

use instar_image::{Content, Measured, Recipe, Result};

/// All of the disk: holes are not counted.
pub fn measure(recipe: &Recipe, _content: &Content<'_>) -> Result<Measured> {
    let size = recipe.size.next_multiple_of(512);
    Ok(Measured { required: size, fully_allocated: size, bitmaps: None })
}
