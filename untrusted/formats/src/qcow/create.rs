//! How a qcow image is laid out: a header, a table of tables, and tables and clusters as they are written.

use instar_image::measure::overlays;
use instar_image::{Content, Kind, Measured, Recipe, Result};

const HEADER_LEN: u64 = 48;
const ENTRY_LEN: u64 = 8;
/// So much of the disk a table leads to, whatever the length of its clusters.
const REACH: u64 = 2 << 20;

/// Header, tables, and the clusters that hold data.
pub fn measure(recipe: &Recipe, content: &Content<'_>) -> Result<Measured> {
    if recipe.size == 0 {
        return Err(Kind::Unsupported.what("Image size is too small, cannot be zero length"));
    }
    // Overlays have small clusters, so that little is copied for little that is written.
    let backing = recipe.text("backing_file");
    let cluster = if backing.is_some() { 512 } else { 4096 };
    let table = REACH / cluster * ENTRY_LEN;
    let head = HEADER_LEN.saturating_add(backing.map_or(0, |name| name.len() as u64)).next_multiple_of(8);
    let tables = recipe.size.div_ceil(REACH);
    let head = tables.saturating_mul(ENTRY_LEN).saturating_add(head).next_multiple_of(cluster);
    let whole = |tables: u64, clusters: u64| {
        tables.saturating_mul(table).saturating_add(clusters.saturating_mul(cluster)).saturating_add(head)
    };
    let fully_allocated = whole(tables, recipe.size.div_ceil(cluster));
    let required = match overlays(recipe, content) {
        true => fully_allocated,
        false => whole(content.pieces(REACH)?, content.pieces(cluster)?),
    };
    Ok(Measured { required, fully_allocated, bitmaps: None })
}
